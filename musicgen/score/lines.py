"""Melody lines: the tune of each part as intervals and rhythm, and the longest run that two musics have in common.

In comes a score, out come its lines, the same in every key: one a pitched part, the highest note at each onset. They
say what is copied from where: `longest_run` finds the longest stretch of one music that stands in another, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from musicgen.score.score import TICKS_PER_QUARTER, Score

GRID = TICKS_PER_QUARTER // 24
"""Ticks to which onsets are rounded: a chord that was played not quite together is one onset."""
MOST_GAP = 255
"""Units of GRID: two notes that are further apart count as so far apart."""
LINE_END, QUERY_END = 0, 1
"""Turns that are none: after each line of what is known, and of what is asked for, so that no run goes over its end."""

OPENING, PLAIN = 8, 4
"""A run begins as a tune does: among its first 8 turns are 4 different intervals. Trills, repeated notes and the
figures of an accompaniment are in all music, for as long as you like, and are taken from nobody."""


@dataclass(frozen=True, eq=False)
class Line:
    """The tune of one part: its number in the score, onsets (n,) in ticks, rising, and MIDI pitches (n,) int16."""

    part: int
    onsets: np.ndarray
    pitches: np.ndarray

    @property
    def intervals(self) -> np.ndarray:
        """(n - 1,) int8: semitones from each note to the next."""
        return np.diff(self.pitches).astype(np.int8)

    @property
    def gaps(self) -> np.ndarray:
        """(n - 1,) uint8: from each onset to the next, in units of GRID.

        Of rhythm these are kept, and no durations: staccato or legato, from MIDI or from paper, it is the same tune.
        """
        return np.minimum(np.diff(self.onsets) // GRID, MOST_GAP).astype(np.uint8)


def find_lines(score: Score) -> list[Line]:
    """The line of each pitched part that has notes: the highest note at each onset (its skyline)."""
    found = []
    for number, part in enumerate(score.parts):
        if part.is_drum or not len(part.notes):
            continue
        onsets = (part.notes["onset"] + GRID // 2) // GRID * GRID
        order = np.lexsort((part.notes["pitch"], onsets))
        top = order[np.append(np.diff(onsets[order]) > 0, True)]
        found.append(Line(number, onsets[top], part.notes["pitch"][top]))
    return found


def lines(score: Score) -> list[np.ndarray]:
    """The melodic intervals of each pitched part, (n,) int8 semitones: of parts of two notes or more."""
    return [line.intervals for line in find_lines(score) if len(line.onsets) > 1]


def turns(intervals: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """(n,) uint16: interval and gap of each step of a line as one number, above LINE_END and QUERY_END."""
    return ((intervals.astype(np.int64) + 128) * 256 + gaps).astype(np.uint16)


def as_known(found: Sequence[Line], rhythm: bool = True) -> np.ndarray:
    """(N,) uint16: the turns of lines end to end, each line's followed by LINE_END, for runs to be looked for in."""
    ends = np.array([LINE_END], dtype=np.uint16)
    blocks = [block for line in found for block in (_turns_of(line, rhythm), ends)]
    return np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.uint16)


def _turns_of(line: Line, rhythm: bool) -> np.ndarray:
    return turns(line.intervals, line.gaps if rhythm else np.zeros(len(line.onsets) - 1, dtype=np.uint8))


@dataclass(frozen=True)
class Run:
    """A stretch of notes of one music that stands in another, up to its key."""

    notes: int
    """How many notes; 0 where not even an interval is common."""
    part: int = 0
    """The part that plays it, and the tick where it begins."""
    onset: int = 0
    place: int = 0
    """Where it stands in what is known, as an index of its turns."""


def longest_run(found: Sequence[Line], known: np.ndarray, rhythm: bool = True) -> Run:
    """The longest run of notes in `found` whose intervals, and gaps if `rhythm`, stand in `known` just so.

    known: (N,) uint16, from `as_known`. A run of OPENING turns or more counts from where it is a tune: its first
    OPENING turns have PLAIN different intervals or more. Exact. Runs twice as long are named by the names of their two
    halves, and only places that match are looked at again (Karp, Miller & Rosenberg 1972): the time grows with N, and
    hardly with the length of the run. Of equal runs, the first in `known`, and of its places in `found` the first.
    """
    blocks = [np.append(_turns_of(line, rhythm), np.uint16(QUERY_END)) for line in found]
    if not blocks:
        return Run(0)
    asked = np.concatenate(blocks)
    present, names = np.unique(asked, return_inverse=True)
    table = np.full(2**16, -1, dtype=np.int32)
    table[present] = np.arange(len(present))
    there = names, table[known]  # the name of the run from each place on: in what is asked, in what is known (-1: none)
    places = np.flatnonzero(there[1] >= 0)
    if not len(places):
        return Run(0)
    length, tunes = 1, np.ones(len(known), dtype=bool)
    while True:
        longer = _extend(*there, length)
        if 2 * length == OPENING:
            tunes = _tunes(asked, *longer)
        found_at = np.flatnonzero((longer[1] >= 0) & tunes[: len(longer[1])])
        if not len(found_at):
            break
        there, length, places = longer, 2 * length, found_at
    best, most, never = there, length, 2 * length  # runs of `most` turns are common, of `never` are not
    while never - most > 1:
        middle = (most + never) // 2
        longer = _extend(*there, middle - length)
        found_at = np.flatnonzero(longer[1] >= 0)
        if middle >= OPENING:
            found_at = found_at[tunes[found_at]]
        if len(found_at):
            best, most, places = longer, middle, found_at
        else:
            never = middle
    place = int(places[0])
    at = int((best[0] == best[1][place]).argmax())
    starts = np.cumsum([0, *map(len, blocks)])
    number = int(np.searchsorted(starts, at, side="right")) - 1
    line = found[number]
    return Run(most + 1, line.part, int(line.onsets[at - starts[number]]), place)


def _extend(asked: np.ndarray, known: np.ndarray, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """Names of longer runs: that at i is made of the shorter ones at i and i + shift. Empty where there is no room."""
    if len(asked) <= shift or len(known) <= shift:
        return asked[:0], known[:0]
    count = len(asked)
    pairs, names = np.unique(asked[:-shift].astype(np.int64) * count + asked[shift:], return_inverse=True)
    places = np.flatnonzero((known[:-shift] >= 0) & (known[shift:] >= 0))
    wanted = known[places].astype(np.int64) * count + known[places + shift]
    at = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    same = pairs[at] == wanted
    longer = np.full(len(known) - shift, -1, dtype=np.int32)
    longer[places[same]] = at[same]
    return names, longer


def _tunes(asked: np.ndarray, names: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(len(known),) bool: where the run of OPENING turns that is named in `known` has PLAIN different intervals."""
    if not len(names):
        return known >= 0
    ordered = np.sort(np.lib.stride_tricks.sliding_window_view(asked >> 8, OPENING), axis=1)
    is_tune = np.zeros(int(names.max()) + 1, dtype=bool)
    is_tune[names] = (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1) + 1 >= PLAIN
    return (known >= 0) & is_tune[np.maximum(known, 0)]


@dataclass(frozen=True, eq=False)
class Melodies:
    """The lines of many pieces end to end: what a take is held against, to see whether it copies.

    known: (N,) uint16, see `as_known`. ends: (P,) int64, where each piece's lines end in it. titles: of these P pieces.
    of: how many pieces there were; P of them, evenly over their order, are kept. rhythm: whether gaps are told.
    """

    known: np.ndarray
    ends: np.ndarray
    titles: tuple[str, ...]
    of: int
    rhythm: bool = True

    def title_at(self, place: int) -> str:
        """The title of the piece that index `place` of `known` lies in."""
        return self.titles[int(np.searchsorted(self.ends, place, side="right"))]
