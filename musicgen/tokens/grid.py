"""The `grid` tokenizer: a fixed number of voices, one note at a time each, on a fixed grid; one column one step.

A step has a field a voice. In a column each voice has a pitch (struck here), a hold (its note goes on) or a rest. The
other steps are the conductor's: START, END, and a METRE, KEY, TEMPO or BAR, said by the first field alone, and one
PROGRAMS, whose fields each say the General MIDI program of their voice. A piece opens with START, PROGRAMS, METRE, KEY
and TEMPO. Bars follow the metre by themselves; only a bar of another length (a pickup, a short bar at a repeat, an
incomplete last bar) is begun by a BAR step that says how many columns it has. Example, four voices on a grid of 16ths:

    START | Choir Aahs x 4 | metre 4/4 | key G major | tempo 101.6 | bar of 4 | D5 G4 B3 G3 | hold hold A3 hold | ...

With holds=False columns have no holds: a pitch that is there again in the next column is the same note going on. This
is the form in which the Bach chorales of Jsb16thSeparated, and results on them, are published.

A score needs exactly as many parts that play as there are voices; the first part is voice 1. Refused are drums, a metre
whose bar is no whole number of columns, and a score of which more than a tenth of the notes would be lost or bent.

Knowingly lost, and nowhere else anything: velocities (all come back as 80); the title and part names (parts are named
by their programs); parts that never play; repeat signs (they are played out), other signs, grace notes and chord
symbols; timing finer than the grid; of notes of one part that fall on one column all but the highest, and what is left
of a note where the next of its part starts; tempo finer than its bins; modes other than major and minor; changes of
metre inside a bar (moved to the next barline); bars longer than 8 quarters (cut into shorter ones, and their metres
with them); with holds=False, the second onset of a pitch struck twice with nothing between.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from musicgen.errors import TokenError
from musicgen.score import NOTE, TICKS_PER_QUARTER, Key, Metre, Part, Score, Tempo, quantise, unfold
from musicgen.score.edit import changes, from_zero
from musicgen.score.score import MINOR_MODES, bar_ticks
from musicgen.tokens.bars_vocabulary import (
    BARS_LEFT,
    KEYS,
    METRES,
    TEMPI,
    TRANSPOSED_KEYS,
    part_of,
    part_values,
    tempo_class,
)
from musicgen.tokens.grid_grammar import (
    BAR,
    END,
    HOLD,
    KEY,
    LONGEST_BAR,
    METRE,
    PITCH,
    PROGRAM,
    REST,
    START,
    TEMPO,
    GridCursor,
    GridVocabulary,
    Kind,
)
from musicgen.tokens.recall import Recall
from musicgen.tokens.tokenizer import NONE, Coordinate, Hearing

VELOCITY = 80
"""Of every note that comes back."""
MOST_VOICES = 8
GRIDS = (1, 2, 3, 4, 6, 8, 12)
"""Columns a quarter note that can be asked for."""
MOST_LOST = 0.1
"""Share of a score's notes that may be lost or bent before it is refused."""
BENT = 0.25
"""A note moved by this share of a column, or more, is bent: a triplet on a grid of 16ths."""
CHOIR = 52


class GridTokenizer:
    """See the module's opening. Implements tokens.tokenizer.Tokenizer."""

    name: ClassVar[str] = "grid"
    as_written: ClassVar[bool] = False
    clock: ClassVar[bool] = False

    def __init__(self, voices: int = 4, steps_per_quarter: int = 4, holds: bool = True) -> None:
        """Raises TokenError for voices outside 1..8, or a steps_per_quarter that is not one of 1, 2, 3, 4, 6, 8, 12."""
        if not 1 <= voices <= MOST_VOICES:
            raise TokenError(f"{voices} voices; the grid tokenizer has 1 to {MOST_VOICES}")
        if steps_per_quarter not in GRIDS:
            raise TokenError(f"{steps_per_quarter} steps a quarter; choose one of {', '.join(map(str, GRIDS))}")
        self.options: dict = {"voices": voices, "steps_per_quarter": steps_per_quarter, "holds": holds}
        self.voices, self.steps_per_quarter, self.holds = voices, steps_per_quarter, holds
        self.ticks = TICKS_PER_QUARTER // steps_per_quarter
        self.vocabulary = GridVocabulary(voices, steps_per_quarter, holds)
        self.fields = self.vocabulary.fields
        self.coordinates = (
            Coordinate("beat", 1 + self.vocabulary.longest),
            Coordinate("bar_length", 1 + self.vocabulary.longest),
            Coordinate("bars_left", 2 + BARS_LEFT, ahead=True),
        )
        self.start = (START, *[NONE] * (voices - 1))
        places = {}
        for voice, field in enumerate(self.fields):
            places[voice] = np.full(field.size, -1)
            places[voice][PITCH:PROGRAM] = np.arange(PROGRAM - PITCH)
        self.hearing = Hearing(octave=12, places=places, rests=(REST,), sustained=not holds)
        every = tuple(range(len(self.fields)))
        self.recall = Recall(views=(every, every[:1]), fields=every)  # the columns, and the highest voice alone

    def quantise(self, score: Score) -> Score:
        """The score as the steps hold it: decode(encode(score)) equals this. The docstring above says what is lost.

        Raises TokenError where `encode` does.
        """
        score = _cut_long_bars(unfold(score))
        self._check_metres(score)
        held = quantise(self._one_line_a_part(score), self.ticks)
        bars, length = held.bars, held.length
        at = np.searchsorted(bars, [m.onset for m in held.metres])
        keys = [Key(k.onset, k.fifths, "minor" if k.mode in MINOR_MODES else "major") for k in held.keys]
        tempos = [Tempo(t.onset, TEMPI[tempo_class(t.bpm)]) for t in held.tempos]
        metres = [
            replace(m, onset=int(bars[bar])) for m, bar in zip(held.metres, at.tolist(), strict=True) if bar < len(bars)
        ]
        return Score(
            parts=held.parts,
            tempos=changes(tempos, length),
            metres=changes(metres, length),
            keys=changes(keys, length),
            bars=bars,
            length=length,
        )

    def encode(self, score: Score, unfinished: bool = False) -> np.ndarray:
        """(T, voices) int16. Raises TokenError where the score can't be held; the docstring above says which.

        unfinished: the score breaks off; END is left out, and its last bar is held to be as long as its metre, of which
        a continuation fills the rest.
        """
        return self._encode_held(self.quantise(score), unfinished)

    def _encode_held(self, held: Score, unfinished: bool) -> np.ndarray:
        """(T, voices) int16 of a score that `quantise` returned."""
        count = held.length // self.ticks
        columns = np.stack([self._line(part, count) for part in held.parts], axis=1)  # (columns, voices)
        starts = held.bars // self.ticks
        lengths = np.diff(np.append(starts, count))
        full = np.array([held.metre_at(int(bar)).ticks // self.ticks for bar in held.bars])
        odd = lengths != full
        if unfinished and lengths[-1] < full[-1]:
            odd[-1] = False
        said = [(m.onset // self.ticks, METRE + METRES.index((m.numerator, m.denominator))) for m in held.metres]
        said += [(k.onset // self.ticks, KEY + KEYS.index((k.fifths, k.mode))) for k in held.keys]
        said += [(t.onset // self.ticks, TEMPO + TEMPI.index(t.bpm)) for t in held.tempos]
        said += [(int(at), BAR + int(n) - 1) for at, n in zip(starts[odd], lengths[odd], strict=True)]
        said.sort()  # at one place by value: metre, key, tempo, bar
        conductor = np.zeros((len(said), self.voices), dtype=np.int64)
        conductor[:, 0] = [value for _, value in said]
        music = np.insert(columns, [at for at, _ in said], conductor, axis=0)
        programs = [PROGRAM + part.program for part in held.parts]
        end = [] if unfinished else [(END, *self.start[1:])]
        return np.concatenate([[self.start, programs], music, *([end] if end else [])]).astype(np.int16)

    def _line(self, part: Part, count: int) -> np.ndarray:
        """(count,) what one voice has in each column."""
        onset = part.notes["onset"] // self.ticks
        end = onset + part.notes["duration"] // self.ticks
        place = np.arange(count)
        note = np.searchsorted(onset, place, side="right") - 1
        sounds = (note >= 0) & (place < end[note])
        struck = (place == onset[note]) | (not self.holds)
        return np.where(sounds, np.where(struck, PITCH + part.notes["pitch"].astype(np.int64)[note], HOLD), REST)

    def decode(self, steps: np.ndarray) -> Score:
        """The score of steps (T, voices). Raises TokenError, naming the bar, for what the grammar does not hold."""
        steps = np.asarray(steps, dtype=np.int64)
        kinds = self._kinds(steps)
        self._check(steps, kinds)
        column = kinds == Kind.COLUMN
        before = np.cumsum(column) - column  # columns before each step
        bars_begun = self.bars_begun(steps)
        new = np.diff(bars_begun, prepend=0) > 0
        count = int(column.sum())
        length = count * self.ticks
        programs = steps[kinds == Kind.PROGRAMS][0] - PROGRAM
        values = part_values([Part(program=int(program)) for program in programs])
        parts = [
            part_of(value).with_notes(self._notes(line, bars_begun[column]))
            for value, line in zip(values, steps[column].T, strict=True)
        ]
        spoken = [(int(before[i]) * self.ticks, int(steps[i, 0])) for i in np.flatnonzero(~column & (before < count))]
        return Score(
            parts=tuple(parts),
            tempos=from_zero([Tempo(at, TEMPI[v - TEMPO]) for at, v in spoken if TEMPO <= v < BAR], Tempo(0, 120.0)),
            metres=tuple(Metre(at, *METRES[v - METRE]) for at, v in spoken if METRE <= v < KEY),
            keys=from_zero([Key(at, *KEYS[v - KEY]) for at, v in spoken if KEY <= v < TEMPO], Key(0, 0)),
            bars=before[new & (before < count)] * self.ticks,
            length=length,
        )

    def _notes(self, line: np.ndarray, bars: np.ndarray) -> np.ndarray:
        """NOTE array of what one voice has in each column; `bars`: the bar of each column."""
        former = np.concatenate(([REST], line[:-1]))
        astray = np.flatnonzero((line == HOLD) & ((former == REST) | (not self.holds)))
        if len(astray):
            raise TokenError(f"bar {bars[astray[0]]}: a voice holds where it does not sound")
        struck = (line >= PITCH) & (self.holds | (line != former))
        onset = np.flatnonzero(struck)
        breaks = np.append(np.flatnonzero(struck | (line == REST)), len(line))
        notes = np.zeros(len(onset), dtype=NOTE)
        notes["onset"] = onset * self.ticks
        notes["duration"] = (breaks[np.searchsorted(breaks, onset, side="right")] - onset) * self.ticks
        notes["pitch"] = line[onset] - PITCH
        notes["velocity"] = VELOCITY
        return notes

    def columns(self, steps: np.ndarray) -> np.ndarray:
        """(columns, voices) int64: the pitch that sounds in each column, -1 for a rest, as Jsb16thSeparated has it."""
        found = np.asarray(steps, dtype=np.int64)[self._kinds(steps) == Kind.COLUMN]
        latest = np.maximum.accumulate(np.where(found == HOLD, -1, np.arange(len(found))[:, None]), axis=0)
        sounding = np.take_along_axis(found, latest, axis=0)
        return np.where(sounding == REST, -1, sounding - PITCH)

    def locate(self, steps: np.ndarray) -> np.ndarray:
        """(T, 3) int16: beat (1 + place in its bar of the next column), bar_length (of that bar), bars_left (1 + n).

        Beat and bar_length are of what has been said so far: at a barline, of a full bar. Both are 0 before the metre.
        """
        steps = np.asarray(steps, dtype=np.int64)
        kinds = self._kinds(steps)
        place, length, bar = self._walk(steps, kinds, np.cumsum(kinds == Kind.COLUMN))
        begun = self.bars_begun(steps)
        left = 1 + np.minimum(begun[-1:] - begun, BARS_LEFT)
        return np.stack([np.where(bar > 0, 1 + place, 0), length, left], axis=1).astype(np.int16)

    def bars_begun(self, steps: np.ndarray) -> np.ndarray:
        """(T,) int64: how many bars have begun after each step. What the conductor says at a barline begins a bar."""
        steps = np.asarray(steps, dtype=np.int64)
        kinds = self._kinds(steps)
        before = np.cumsum(kinds == Kind.COLUMN) - (kinds == Kind.COLUMN)
        before[kinds == Kind.END] -= 1  # END is of the bar that has ended
        return self._walk(steps, kinds, before)[2]

    def _walk(self, steps: np.ndarray, kinds: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, ...]:
        """(place in its bar, length of that bar, number of that bar) of column `columns` (T,), as known at each step.

        Places and bars are counted from the last METRE or BAR step: full bars follow it, after the bar it states.
        """
        anchor = (kinds == Kind.METRE) | (kinds == Kind.BAR)
        if not anchor.any():
            return (np.zeros(len(steps), dtype=np.int64),) * 3
        at = np.flatnonzero(anchor)
        value = steps[at, 0]
        states = value >= BAR
        stated = np.where(states, value - BAR + 1, 0)  # columns of the bar that a BAR step states
        metre_at = np.maximum.accumulate(np.where(states, -1, np.arange(len(at))))
        metre = self.vocabulary.metre_columns[np.where(states, METRE, value) - METRE]
        full = np.maximum(np.where(metre_at >= 0, metre[metre_at], 1), 1)
        started = (np.cumsum(kinds == Kind.COLUMN))[at]  # the column each stands before
        span = np.diff(started, append=started[-1:])
        passed = states * (span > 0) - (-np.maximum(span - stated, 0) // full)  # bars up to the next of them
        earlier = np.cumsum(passed) - passed

        which = np.cumsum(anchor) - 1
        known = which >= 0
        which = np.maximum(which, 0)
        offset = columns - started[which]
        inside = states[which] & (offset < stated[which])
        after = np.maximum(offset - stated[which], 0)
        place = np.where(inside, np.maximum(offset, 0), after % full[which])
        length = np.where(inside, stated[which], full[which])
        bar = earlier[which] + np.where(inside, 1, 1 + states[which] + after // full[which])
        return tuple(np.where(known, found, 0) for found in (place, length, bar))

    def _kinds(self, steps: np.ndarray) -> np.ndarray:
        """(T,) the Kind of each step. Raises TokenError for a value that field 0 has not."""
        first = np.asarray(steps[:, 0], dtype=np.int64)
        if len(first) and not 0 <= first.min() <= first.max() < self.fields[0].size:
            raise TokenError(f"{first.min()}..{first.max()}: not values of a grid of {self.voices} voices")
        return self.vocabulary.kinds[first]

    def _check(self, steps: np.ndarray, kinds: np.ndarray) -> None:
        """Raises TokenError where steps can't be decoded."""
        if not (kinds == Kind.PROGRAMS).any() or not (kinds == Kind.METRE).any() or not (kinds == Kind.COLUMN).any():
            raise TokenError("the steps lack their programs, their metre, or any column")
        column = kinds == Kind.COLUMN
        columns = np.cumsum(column)
        allowed = self.vocabulary.follows[0][kinds[:-1], steps[1:, 0]]
        inner = steps[:, 1:]
        fits = np.select(
            [column, kinds == Kind.PROGRAMS],
            [((inner >= REST) & (inner < PROGRAM)).all(axis=1), (inner >= PROGRAM).all(axis=1)],
            (inner == NONE).all(axis=1),
        )
        place = self._walk(steps, kinds, columns)[0]
        at_barline = ~np.isin(kinds, (Kind.METRE, Kind.BAR)) | (np.concatenate(([0], place[:-1])) == 0)
        right = np.concatenate(([kinds[0] == Kind.START], allowed)) & fits & at_barline
        if not right.all():
            wrong = int(np.argmin(right))
            words = self.describe(steps[wrong].tolist())
            raise TokenError(f"bar {self.bars_begun(steps)[wrong]}: step {wrong} ({words}) can't stand there")

    def is_note(self, steps: np.ndarray) -> np.ndarray:
        """(T,) int64: how many notes each step of a whole piece strikes."""
        steps = np.asarray(steps, dtype=np.int64)
        column = self._kinds(steps) == Kind.COLUMN
        columns = steps[column]
        struck = columns >= PITCH
        if not self.holds:
            struck[1:] &= columns[1:] != columns[:-1]
        count = np.zeros(len(steps), dtype=np.int64)
        count[column] = struck.sum(axis=1)
        return count

    def masks(self, steps: np.ndarray, coordinates: np.ndarray, start: int, stop: int) -> dict[int, np.ndarray]:
        """{field: (stop - start, size) bool}: what each voice may have in steps start..stop-1.

        Of the grammar, the part that holds for any score: the order of the header and of what the conductor says,
        metres, odd bars and the end at barlines only, and holds only of what sounds. See tokens.tokenizer.Tokenizer.
        """
        steps = np.asarray(steps[:stop], dtype=np.int64)
        kinds = self._kinds(steps)
        column = kinds == Kind.COLUMN
        latest = np.maximum.accumulate(np.where(column, np.arange(len(steps)), -1))[start - 1 : stop - 1]
        sounds = (latest >= 0)[:, None] & (steps[latest] != REST) & self.holds  # (n, voices)
        beat, bar_length = coordinates[start - 1 : stop - 1, :2].astype(np.int64).T

        first = self.vocabulary.follows[(latest < 0).astype(int), kinds[start - 1 : stop - 1]]  # a copy
        inside = beat > 1
        first[inside, METRE:KEY] = False
        first[inside, BAR:] = False
        first[inside, END] = False
        first[:, HOLD] &= sounds[:, 0]
        full = np.flatnonzero(bar_length > 0)
        first[full, BAR + bar_length[full] - 1] = False
        found = {0: first}
        wanted = kinds[start:stop]
        for voice in range(1, self.voices):
            mask = np.zeros((stop - start, self.fields[voice].size), dtype=bool)
            mask[:, REST:PROGRAM] = (wanted == Kind.COLUMN)[:, None]
            mask[:, HOLD] &= sounds[:, voice]
            mask[:, PROGRAM:] = (wanted == Kind.PROGRAMS)[:, None]
            mask[:, NONE] = ~np.isin(wanted, (Kind.COLUMN, Kind.PROGRAMS))
            found[voice] = mask
        return found

    def transpose(self, steps: np.ndarray, semitones: int) -> np.ndarray | None:
        """Pitches and keys moved; None where a note would leave the 128 pitches."""
        if semitones == 0:
            return steps
        steps = steps.copy()
        pitched = (steps >= PITCH) & (steps < PROGRAM)
        moved = steps[pitched] + semitones
        if len(moved) and (moved.min() < PITCH or moved.max() >= PROGRAM):
            return None
        steps[pitched] = moved
        first = steps[:, 0]
        key = (first >= KEY) & (first < TEMPO)
        first[key] = KEY + TRANSPOSED_KEYS[semitones % 12][first[key] - KEY]
        return steps

    def cursor(self, bars: int | None = None) -> GridCursor:
        return GridCursor(self.vocabulary, bars)

    def characters(self, steps: np.ndarray) -> int | None:
        return None

    def describe(self, step: Sequence[int]) -> str:
        """One step as words: 'C5 hold A3 rest', 'metre 4/4', 'Violin, Violin, Viola, Violoncello'."""
        words = [f.labels[v] for f, v in zip(self.fields, step, strict=True) if v]
        return (", " if step[0] >= PROGRAM else " ").join(words)

    def _check_metres(self, score: Score) -> None:
        """Raises TokenError for a metre that is not in the vocabulary, or whose bar is no whole number of columns."""
        for metre in score.metres:
            if metre.onset >= max(score.length, 1):
                continue
            words = f"a bar of {metre.numerator}/{metre.denominator}"
            if (metre.numerator, metre.denominator) not in METRES:
                raise TokenError(f"{words}: the grid tokenizer has no such metre")
            if metre.ticks % self.ticks:
                raise TokenError(
                    f"{words} is no whole number of columns at {self.steps_per_quarter} steps a quarter; "
                    "take a finer steps_per_quarter"
                )

    def _one_line_a_part(self, score: Score) -> Score:
        """The score with one note at a time in each of its parts, on the grid. Raises TokenError."""
        playing = [part for part in score.parts if len(part.notes)]
        if not playing:
            raise TokenError(f"{score.title or 'the score'}: no notes")
        names = [part.name or part_of(value).name for part, value in zip(playing, part_values(playing), strict=True)]
        for part, name in zip(playing, names, strict=True):
            if part.is_drum:
                raise TokenError(f"part {name!r} is drums, and the grid tokenizer has none; use the bars tokenizer")
        if len(playing) != self.voices:
            shown = ", ".join(names[:MOST_VOICES]) + (", ..." if len(names) > MOST_VOICES else "")
            raise TokenError(
                f"needs {self.voices} parts, one a voice; found {len(playing)} that play: {shown}; use a bars model"
            )
        parts, dropped, bent = [], 0, 0
        for part, value in zip(playing, part_values(playing), strict=True):
            notes, under, between = self._top_line(part.notes)
            dropped, bent = dropped + under, bent + between
            parts.append(part_of(value).with_notes(notes))
        count = sum(len(part.notes) for part in playing)
        if dropped + bent > MOST_LOST * count:
            raise TokenError(
                f"{dropped + bent} of {count} notes would be lost at {self.steps_per_quarter} steps a quarter: "
                f"{dropped} share a column with another of their part, {bent} lie between columns; "
                "take a finer steps_per_quarter, or the bars tokenizer"
            )
        end = max(part.end for part in parts)
        return replace(score, parts=tuple(parts), length=max(score.length, end), signs=(), chord_symbols=())

    def _top_line(self, notes: np.ndarray) -> tuple[np.ndarray, int, int]:
        """(the highest note of each column, none over the next; how many others there were; how many are bent)."""
        onset = (notes["onset"].astype(np.int64) + self.ticks // 2) // self.ticks
        end = (notes["onset"].astype(np.int64) + notes["duration"] + self.ticks // 2) // self.ticks
        order = np.lexsort((-end, -notes["pitch"], onset))
        kept = order[np.diff(onset[order], prepend=-1) > 0]
        line = notes[kept].copy()
        bent = int((np.abs(onset[kept] * self.ticks - line["onset"]) >= BENT * self.ticks).sum())
        onset, end = onset[kept], np.maximum(end[kept], onset[kept] + 1)
        end[:-1] = np.minimum(end[:-1], onset[1:])
        if not self.holds:  # what follows on the same pitch without a break is the same note
            again = np.concatenate(([False], (line["pitch"][1:] == line["pitch"][:-1]) & (end[:-1] == onset[1:])))
            first = np.flatnonzero(~again)
            end = np.maximum.reduceat(end, first)
            line, onset = line[first], onset[first]
        line["onset"], line["duration"], line["velocity"] = onset * self.ticks, (end - onset) * self.ticks, VELOCITY
        return line, len(notes) - len(kept), bent


def score_from_columns(
    columns: np.ndarray,
    steps_per_quarter: int = 4,
    programs: Sequence[int] | None = None,
    metre: tuple[int, int] = (4, 4),
) -> Score:
    """The score of (T, voices) columns of MIDI pitches, -1 for a rest; the same pitch again is the same note going on.

    For data without notation, as Jsb16thSeparated: bars are laid out from the start. programs: one a voice, 0..127; a
    choir where left out. Raises TokenError where the columns are not such.
    """
    columns = np.asarray(columns, dtype=np.int64)
    if columns.ndim != 2 or not columns.size or columns.min() < -1 or columns.max() > 127:
        raise TokenError(f"columns {columns.shape}: expected (columns, voices) of pitches 0..127, or -1 for a rest")
    tokenizer = GridTokenizer(columns.shape[1], steps_per_quarter, holds=False)
    programs = [CHOIR] * columns.shape[1] if programs is None else programs
    head = np.zeros((3, columns.shape[1]), dtype=np.int64)
    if metre not in METRES:
        raise TokenError(f"a bar of {metre[0]}/{metre[1]}: the grid tokenizer has no such metre")
    head[0], head[1] = tokenizer.start, [PROGRAM + program for program in programs]
    head[2, 0] = METRE + METRES.index(metre)
    return tokenizer.decode(np.concatenate([head, np.where(columns < 0, REST, PITCH + columns)]))


def _cut_long_bars(score: Score) -> Score:
    """Bars longer than 8 quarters, and the metres that make them, cut into shorter ones of equal length."""
    longest = LONGEST_BAR * TICKS_PER_QUARTER
    metres = []
    for metre in score.metres:
        numerator, parts = metre.numerator, 1
        while bar_ticks(numerator // parts, metre.denominator) > longest or numerator % parts:
            parts += 1
        metres.append(replace(metre, numerator=numerator // parts))
    cut = replace(score, metres=tuple(metres))
    starts: list[int] = []
    for start, stop in zip(score.bars.tolist(), [*score.bars.tolist()[1:], score.length], strict=True):
        metre = cut.metre_at(start)
        most = longest if metre == score.metre_at(start) else metre.ticks
        starts += range(start, stop, metre.ticks) if stop - start > most else [start]
    return replace(cut, bars=np.array(starts, dtype=np.int32))
