"""Themes: melodic figures of a score that come back, in any part and any key, and where another music quotes them.

In comes a fragment, out come the few figures that it is made of; in come these and a continuation, out come the places
where it states them. A figure is what `score.lines` makes of a tune: intervals, and gaps from onset to onset. It is
exact: a note more, or a dot, is another figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from musicgen.score.general_midi import PITCH_NAMES
from musicgen.score.lines import LINE_END, MOST_GAP, OPENING, PLAIN, as_known, find_lines, turns
from musicgen.score.score import Score

FEWEST_NOTES, MOST_NOTES = 5, 32
"""Notes of a theme. A section that is played twice is more than one theme."""


@dataclass(frozen=True)
class Statement:
    """Where a theme is stated: index of the part, bar (from 1), tick, and by how many semitones it is moved."""

    part: int
    bar: int
    onset: int
    semitones: int


@dataclass(frozen=True)
class Theme:
    """A figure that recurs, as it is stated first."""

    pitches: tuple[int, ...]
    """MIDI pitches of the first statement."""
    gaps: tuple[int, ...]
    """From each onset to the next, in units of `lines.GRID`."""
    statements: tuple[Statement, ...]
    """In the order of time, then of parts; in one part none overlaps another."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Names of the notes of the first statement; C4 is middle C."""
        return tuple(PITCH_NAMES[pitch] for pitch in self.pitches)

    @property
    def first(self) -> Statement:
        return self.statements[0]

    @property
    def times(self) -> int:
        """How often it is begun: parts that state it together count as one."""
        return len({statement.onset for statement in self.statements})

    @property
    def turns(self) -> np.ndarray:
        """(n - 1,) uint16, see `lines.turns`."""
        return turns(np.diff(self.pitches).astype(np.int8), np.array(self.gaps, dtype=np.uint8))


@dataclass(frozen=True)
class Quotation:
    """A theme, or its beginning, in another music."""

    theme: int
    """Index of the theme."""
    part: int
    bar: int
    onset: int
    """Tick in the music that quotes."""
    notes: int
    semitones: int
    """How far it is moved from the theme's first statement."""


@dataclass(frozen=True, eq=False)
class _Notes:
    """The lines of a score end to end. All (N,): a note's turn to the next, whether there is none, and the note."""

    turns: np.ndarray
    broken: np.ndarray
    onsets: np.ndarray
    pitches: np.ndarray
    parts: np.ndarray

    @classmethod
    def of(cls, score: Score) -> _Notes:
        found = find_lines(score)
        known = as_known(found)
        none = [np.zeros(0, dtype=np.int64)]
        return cls(
            known.astype(np.int64),
            (known == LINE_END) | (known & 255 == MOST_GAP),  # after so long a rest something else begins
            np.concatenate([*none, *(line.onsets for line in found)]),
            np.concatenate([*none, *(line.pitches for line in found)]),
            np.concatenate([*none, *(np.full(len(line.onsets), line.part) for line in found)]),
        )


@dataclass(frozen=True, eq=False)
class _Figure:
    """So many notes, all the places where they begin (rising), and the most that it can be worth."""

    notes: int
    places: np.ndarray
    bound: int


def find_themes(score: Score, most: int = 5) -> list[Theme]:
    """The figures of FEWEST_NOTES to MOST_NOTES notes that a score is made of, the weightiest first, at most `most`.

    A theme is stated at least twice, one statement after the other and not only by two parts at once; as for
    `lines.longest_run`, PLAIN of its first OPENING intervals differ: trills, scales and repeated notes are none. Its
    weight is the notes that need not be learnt again: notes * (times - 1). The weightiest is taken, then the weightiest
    of what it does not cover, and so on (as in COSIATEC, Meredith 2013); none is contained in another. Of equal ones,
    the longer, then the earlier.
    """
    notes = _Notes.of(score)
    figures = sorted(_recurring(notes), key=lambda figure: -figure.bound)
    covered = np.zeros(len(notes.turns), dtype=bool)
    chosen: list[_Figure] = []
    while len(chosen) < most:
        before = np.append(0, np.cumsum(covered))
        best: tuple[int, ...] = (0,)
        best_figure = None
        for figure in figures:
            if figure.bound < best[0]:
                break
            length = figure.notes - 1
            places = figure.places[before[figure.places + length] == before[figure.places]]
            times = _times(notes, places, length)
            if times < 2:
                continue
            first = min(places.tolist(), key=lambda place: (int(notes.onsets[place]), place))
            worth = (figure.notes * (times - 1), figure.notes, -int(notes.onsets[first]), -first)
            if worth > best and not any(_alike(notes, figure, other) for other in chosen):
                best, best_figure = worth, figure
        if best_figure is None:
            break
        chosen.append(best_figure)
        for place in best_figure.places.tolist():
            covered[place : place + best_figure.notes - 1] = True
    return [_theme(score, notes, figure) for figure in chosen]


def quotations(themes: Sequence[Theme], continuation: Score, first_bar: int = 1) -> list[Quotation]:
    """Where a music states themes, in the order of time, then of parts; its bars are counted from `first_bar` on.

    The whole figure in any key, or its beginning: FEWEST_NOTES or more, as many as it takes until PLAIN intervals
    differ. Where two themes begin alike, the one that is quoted longer; in one part no quotation of a theme overlaps
    another of it.
    """
    notes = _Notes.of(continuation)
    found: dict[int, Quotation] = {}
    for number, theme in enumerate(themes):
        figure = theme.turns.astype(np.int64)
        least = next(n for n in range(FEWEST_NOTES - 1, len(figure) + 1) if _is_tune(figure[:n]))
        places = np.flatnonzero(~notes.broken)
        for at in range(least):
            places = places[places + at < len(notes.turns)]
            places = places[notes.turns[places + at] == figure[at]]
        lengths = [_common(notes.turns[place:], figure) for place in places.tolist()]
        after = 0
        for place, length in zip(places.tolist(), lengths, strict=True):
            if place < after or (place in found and found[place].notes > length):
                continue
            after = place + length + 1
            onset, moved = int(notes.onsets[place]), int(notes.pitches[place]) - theme.pitches[0]
            bar = continuation.bar_at(onset) + first_bar
            found[place] = Quotation(number, int(notes.parts[place]), bar, onset, length + 1, moved)
    return sorted(found.values(), key=lambda quotation: (quotation.onset, quotation.part))


def _recurring(notes: _Notes) -> list[_Figure]:
    """All figures that stand at two places or more with different onsets, and are tunes."""
    found = []
    places = np.flatnonzero(~notes.broken)
    labels = notes.turns[places]
    for length in range(1, MOST_NOTES):
        _, labels, counts = np.unique(labels, return_inverse=True, return_counts=True)
        places, labels = places[counts[labels] > 1], labels[counts[labels] > 1]
        if length + 1 >= FEWEST_NOTES and len(places):
            order = np.argsort(labels, kind="stable")
            starts = np.flatnonzero(np.append(True, np.diff(labels[order]) > 0))
            groups = np.split(places[order], starts[1:])
            for group in groups:
                if _is_tune(notes.turns[group[0] : group[0] + length]):
                    times = len(set(notes.onsets[group].tolist()))
                    if times > 1:
                        found.append(_Figure(length + 1, group, (length + 1) * (times - 1)))
        going = ~notes.broken[places + length]  # each line ends with a break: there is a note more
        places, labels = places[going], labels[going]
        labels = labels << 16 | notes.turns[places + length]
    return found


def _is_tune(figure: np.ndarray) -> bool:
    """Whether a figure's beginning is one of a tune; see `lines.PLAIN`."""
    return len(set((figure[:OPENING] >> 8).tolist())) >= PLAIN


def _times(notes: _Notes, places: np.ndarray, length: int) -> int:
    """How many statements there are one after the other, none begun before the last note of the one before."""
    times, after = 0, -1
    for onset, end in sorted(zip(notes.onsets[places].tolist(), notes.onsets[places + length].tolist(), strict=True)):
        if onset > after:
            times, after = times + 1, end
    return times


def _alike(notes: _Notes, one: _Figure, other: _Figure) -> bool:
    """Whether the shorter of two figures is contained in the longer."""
    short, long = sorted((one, other), key=lambda figure: figure.notes)
    inner = notes.turns[short.places[0] :][: short.notes - 1]
    outer = notes.turns[long.places[0] :][: long.notes - 1]
    return bool((np.lib.stride_tricks.sliding_window_view(outer, len(inner)) == inner).all(axis=1).any())


def _theme(score: Score, notes: _Notes, figure: _Figure) -> Theme:
    kept, after = [], 0
    for place in figure.places.tolist():
        if place >= after:  # a line's last turn is followed by its end: no figure goes from one part into the next
            kept.append(place)
            after = place + figure.notes
    kept.sort(key=lambda place: (int(notes.onsets[place]), place))
    first = kept[0]
    pitches = notes.pitches[first : first + figure.notes].tolist()
    statements = tuple(
        Statement(
            int(notes.parts[place]),
            score.bar_at(int(notes.onsets[place])) + 1,
            int(notes.onsets[place]),
            int(notes.pitches[place]) - pitches[0],
        )
        for place in kept
    )
    gaps = (notes.turns[first : first + figure.notes - 1] & 255).tolist()
    return Theme(tuple(pitches), tuple(gaps), statements)


def _common(line: np.ndarray, figure: np.ndarray) -> int:
    """How many turns the beginnings of two have in common."""
    room = min(len(line), len(figure))
    differ = np.flatnonzero(line[:room] != figure[:room])
    return int(differ[0]) if len(differ) else room
