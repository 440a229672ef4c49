"""The vocabulary and the grammar of the `grid` tokenizer: what its values stand for, and which steps make valid music.

The cursor's `allowed` is strict: what is sampled under it has a full header, bars that sum to their metre, no hold of a
voice that is silent, and ends on a barline. `advance` is lenient, because real scores have bars of odd length: it
refuses only what `decode` could not place.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np

from musicgen.errors import TokenError
from musicgen.formats.instruments import playing_range
from musicgen.score import Key
from musicgen.score.general_midi import PITCH_NAMES, PROGRAM_NAMES
from musicgen.tokens.bars_vocabulary import BARS_LEFT, GRID, KEYS, METRE_UNITS, METRES, TEMPI
from musicgen.tokens.ending import Ending, usual_low
from musicgen.tokens.tokenizer import NONE, Field

LONGEST_BAR = 8
"""Quarters."""

# values of every field: a column, or a PROGRAMS step
REST, HOLD, PITCH, PROGRAM = 1, 2, 3, 131
VOICE_SIZE = PROGRAM + 128
# values of field 0 alone: the conductor
START, END, METRE = VOICE_SIZE, VOICE_SIZE + 1, VOICE_SIZE + 2
KEY = METRE + len(METRES)
TEMPO = KEY + len(KEYS)
BAR = TEMPO + len(TEMPI)
"""BAR + n - 1 says: a bar of n columns begins."""

VOICE_LABELS = ("-", "rest", "hold", *PITCH_NAMES, *PROGRAM_NAMES)


class Kind(IntEnum):
    """What a step is, by its field 0. The conductor's steps at one place come in this order."""

    START = 0
    PROGRAMS = 1
    METRE = 2
    KEY = 3
    TEMPO = 4
    BAR = 5
    COLUMN = 6
    END = 7
    UNKNOWN = 8


FOLLOWS: dict[Kind, tuple[Kind, ...]] = {
    Kind.START: (Kind.PROGRAMS,),
    Kind.PROGRAMS: (Kind.METRE,),
    Kind.METRE: (Kind.KEY, Kind.TEMPO, Kind.BAR, Kind.COLUMN),
    Kind.KEY: (Kind.TEMPO, Kind.BAR, Kind.COLUMN),
    Kind.TEMPO: (Kind.BAR, Kind.COLUMN),
    Kind.BAR: (Kind.COLUMN,),
    Kind.COLUMN: (Kind.METRE, Kind.KEY, Kind.TEMPO, Kind.BAR, Kind.COLUMN, Kind.END),
    Kind.END: (),
}
"""What may come after a step of each kind, wherever it stands."""

HEADER = {**FOLLOWS, Kind.METRE: (Kind.KEY,), Kind.KEY: (Kind.TEMPO,)}
"""The same before the first column, where metre, key and tempo are all said."""


class GridVocabulary:
    """Sizes and tables for a number of voices and a grid.

    fields:         one a voice; the first has the conductor's values too.
    kinds:          (size of field 0,) the Kind of a step by its field 0.
    metre_columns:  (metres,) columns of a full bar; 0 where it is not a whole number of them.
    longest:        columns of the longest bar.
    """

    def __init__(self, voices: int, steps_per_quarter: int, holds: bool) -> None:
        self.voices, self.steps_per_quarter, self.holds = voices, steps_per_quarter, holds
        self.longest = LONGEST_BAR * steps_per_quarter
        conductor = (
            "START",
            "END",
            *(f"metre {numerator}/{denominator}" for numerator, denominator in METRES),
            *(f"key {Key(0, fifths, mode).name}" for fifths, mode in KEYS),
            *(f"tempo {bpm:g}" for bpm in TEMPI),
            *(f"bar of {columns}" for columns in range(1, self.longest + 1)),
        )
        self.fields = tuple(
            Field(f"voice {voice + 1}", VOICE_LABELS + (() if voice else conductor)) for voice in range(voices)
        )
        size = self.fields[0].size
        self.kinds = np.full(size, Kind.UNKNOWN, dtype=np.int64)
        for kind, first, last in (
            (Kind.COLUMN, REST, PROGRAM),
            (Kind.PROGRAMS, PROGRAM, VOICE_SIZE),
            (Kind.START, START, END),
            (Kind.END, END, METRE),
            (Kind.METRE, METRE, KEY),
            (Kind.KEY, KEY, TEMPO),
            (Kind.TEMPO, TEMPO, BAR),
            (Kind.BAR, BAR, size),
        ):
            self.kinds[first:last] = kind
        scaled = METRE_UNITS * steps_per_quarter
        self.metre_columns = np.where(scaled % GRID == 0, scaled // GRID, 0)
        possible = np.ones(size, dtype=bool)
        possible[METRE:KEY] = self.metre_columns > 0
        possible[HOLD] = holds
        tables = [[np.isin(self.kinds, rule[kind]) & possible for kind in rule] for rule in (FOLLOWS, HEADER)]
        self.follows = np.array(tables)
        """(2, kinds, size of field 0) bool: what field 0 may be after a step of a kind; row 1 before any column."""


class GridCursor:
    """Implements tokens.tokenizer.Cursor.

    `keep_course()`, called once a prompt has been walked, holds metre, key and tempo as they are;
    `ranges` maps a voice, counted from 0, to the lowest and highest MIDI pitch it may play, where that is not the usual
    of its program; `ending` is the chord that all voices strike in the last bar and hold to its end.
    """

    def __init__(self, vocabulary: GridVocabulary, bars: int | None = None) -> None:
        self.vocabulary = vocabulary
        self.bars = bars
        self.done = False
        self.bar = 0
        self.notes = 0
        self.programs: tuple[int, ...] = ()
        self.ranges: dict[int, tuple[int, int]] = {}
        self.ending: Ending | None = None
        self.chord: list[np.ndarray] = []  # in the last bar of an ending, by voice (values,) bool: what it may do
        self.usual: dict[int, float] = {}  # voice -> MIDI pitch of its lower notes, up to the seam
        self.metre = self.key = self.tempo = -1  # values of field 0; -1: not said yet
        self.metre_columns = 0
        self.bar_columns = 0  # of the bar that the next column belongs to
        self.position = 0  # of the next column in it
        self.columns = 0
        self.pickup = 0  # columns of a first bar shorter than its metre
        self.closing = False  # the last bar has begun: one that completes the pickup
        self.steady = False
        self.last = Kind.START
        self.begun = False  # the bar that the next column belongs to has begun
        self.heard = (REST,) * vocabulary.voices  # the last column

    def keep_course(self) -> None:
        """From here on: the same metre, key and tempo."""
        self.steady, self.closing = True, False

    def coordinates(self) -> tuple[int, ...]:
        left = 0 if self.bars is None else 1 + min(max(self.bars - self.bar, 0), BARS_LEFT)
        return (1 + self.position if self.metre_columns else 0, self.bar_columns, left)

    def allowed(self, chosen: Sequence[int]) -> np.ndarray:
        """(size,) bool for field number len(chosen); see tokens.tokenizer.Cursor."""
        voice = len(chosen)
        if not voice:
            return self._first()
        mask = np.zeros(VOICE_SIZE, dtype=bool)
        kind = self.vocabulary.kinds[chosen[0]]
        if kind == Kind.COLUMN:
            self._sounds(mask, voice)
        elif kind == Kind.PROGRAMS:
            mask[PROGRAM:] = True
        else:
            mask[NONE] = True
        return mask

    def _first(self) -> np.ndarray:
        """What field 0 may be."""
        if self.done:
            return np.zeros(self.vocabulary.fields[0].size, dtype=bool)
        mask = self.vocabulary.follows[int(not self.columns), self.last].copy()
        if mask[REST]:
            mask[REST:PROGRAM] = False
            self._sounds(mask, 0)
        if not self.columns:
            mask[BAR:] &= np.arange(len(mask) - BAR) < self.metre_columns - 1  # a pickup, where a bar follows it
            if self.bars is not None and self.bars < 2:
                mask[BAR:] = False
            return mask
        mask[BAR:] = False
        mask[END] = False
        if self.steady:
            mask[METRE:BAR] = False
        for said in (self.metre, self.key, self.tempo):
            mask[max(said, 0)] = False
        if self.position:
            mask[METRE:KEY] = False
            return mask
        if self.last == Kind.BAR:
            return mask
        fresh = self.last == Kind.COLUMN
        if fresh and (self.closing or (self.bars is not None and self.bar >= self.bars)):
            mask[:] = False
            mask[END] = True
            return mask
        whole = self.notes > 0 and self.bar > bool(self.pickup) and self.bars is None
        mask[END] = fresh and whole
        rest = self.metre_columns - self.pickup
        next_is_last = (whole and self.ending is None) or (self.bars is not None and self.bar + fresh == self.bars)
        if self.pickup and rest > 0 and next_is_last and not self.steady:
            mask[BAR + rest - 1] = True
        return mask

    def _sounds(self, mask: np.ndarray, voice: int) -> None:
        """What a voice may do in a column."""
        if self.ending is not None and self.bars is not None and self.bar + (not self.begun) == self.bars:
            self.chord = self.chord or self._strike(self.ending)
            mask[:PROGRAM] |= self.chord[voice]
            return
        mask[REST] = True
        mask[HOLD] = self.vocabulary.holds and self.heard[voice] != REST
        low, high = self.ranges.get(voice) or usual_range(self.programs[voice])
        mask[PITCH + low : PITCH + high + 1] = True

    def _strike(self, ending: Ending) -> list[np.ndarray]:
        """What each voice may do where the last chord is struck: a tone of it, the lowest the root, one the third."""
        ranges = {i: self.ranges.get(i) or usual_range(program) for i, program in enumerate(self.programs)}
        root = ending.root(ranges, self.usual)
        masks = np.zeros((len(ranges), PROGRAM), dtype=bool)
        for voice, compass in ranges.items():
            masks[voice, PITCH:] = ending.within(*compass)
        if root is not None:
            masks[:, : PITCH + root[1]] = False
            masks[root[0], PITCH + root[1] + 1 :] = False
        others = {voice: masks[voice, PITCH:] for voice in ranges if root is None or voice != root[0]}
        third = ending.who_has_the_third(others, self.usual)
        if third is not None:
            masks[third, PITCH:] &= ending.thirds
        return list(masks)

    def advance(self, step: Sequence[int]) -> None:
        """Take a step (a value a voice). Raises TokenError, naming the bar, for what could not be decoded."""
        values = tuple(int(v) for v in step)
        kind = self._kind_of(values)
        value = values[0]
        if kind >= Kind.METRE and kind != Kind.END and not self.begun:
            self.bar += 1
            self.begun, self.closing = True, False
        if kind == Kind.END:
            self.done = True
        elif kind == Kind.PROGRAMS:
            self.programs = tuple(v - PROGRAM for v in values)
        elif kind == Kind.METRE:
            self.metre = value
            self.metre_columns = self.bar_columns = int(self.vocabulary.metre_columns[value - METRE])
        elif kind == Kind.KEY:
            self.key = value
        elif kind == Kind.TEMPO:
            self.tempo = value
        elif kind == Kind.BAR:
            self.bar_columns = value - BAR + 1
            if not self.columns:
                self.pickup = self.bar_columns if self.bar_columns < self.metre_columns else 0
            elif self.pickup and self.bar_columns + self.pickup == self.metre_columns:
                self.closing = self.ending is None if self.bars is None else self.bar >= self.bars
        else:
            self._take_column(values)
        self.last = kind

    def _take_column(self, values: tuple[int, ...]) -> None:
        holds = self.vocabulary.holds
        self.notes += sum(v >= PITCH and (holds or v != h) for v, h in zip(values, self.heard, strict=True))
        for voice, value in enumerate(values):
            if value >= PITCH and not self.steady:
                self.usual[voice] = usual_low(self.usual.get(voice), value - PITCH)
        if self.chord:  # it has been struck, and is held from here on
            self.chord = [np.arange(PROGRAM) == (HOLD if holds else value) for value in values]
        self.heard = values
        self.columns += 1
        self.position += 1
        if self.position == self.bar_columns:
            self.position, self.bar_columns, self.begun = 0, self.metre_columns, False

    def _kind_of(self, values: tuple[int, ...]) -> Kind:
        """The kind of a step that may be taken here; raises TokenError for one that may not."""
        where = f"bar {self.bar}"
        if self.done:
            raise TokenError(f"{where}: a step after the end")
        for field, value in zip(self.vocabulary.fields, values, strict=True):
            if not 0 <= value < field.size:
                raise TokenError(f"{where}: {value} is no value of {field.name}")
        kind = Kind(int(self.vocabulary.kinds[values[0]]))
        if kind not in FOLLOWS[self.last] or (kind == Kind.END and not self.columns):
            raise TokenError(f"{where}: {kind.name} can't come after {self.last.name}")
        rest = set(values[1:])
        if kind == Kind.COLUMN:
            if not all(REST <= v < PROGRAM for v in rest):
                raise TokenError(f"{where}: a column in which not every voice has a pitch, a hold or a rest")
            for voice, (value, heard) in enumerate(zip(values, self.heard, strict=True)):
                if value == HOLD and (heard == REST or not self.vocabulary.holds):
                    raise TokenError(f"{where}: voice {voice + 1} holds where it does not sound")
        elif kind == Kind.PROGRAMS:
            if not all(v >= PROGRAM for v in rest):
                raise TokenError(f"{where}: PROGRAMS without a program for every voice")
        elif rest - {NONE}:
            raise TokenError(f"{where}: {kind.name} says something in a voice other than the first")
        if kind in (Kind.METRE, Kind.BAR) and self.position:
            raise TokenError(f"{where}: {kind.name} inside a bar, after {self.position} of {self.bar_columns} columns")
        if kind == Kind.METRE and not self.vocabulary.metre_columns[values[0] - METRE]:
            label = self.vocabulary.fields[0].labels[values[0]]
            raise TokenError(f"{where}: a bar of {label} is no whole number of columns")
        return kind


def usual_range(program: int) -> tuple[int, int]:
    """What an instrument plays, within a piano's compass: lowest and highest MIDI pitch."""
    low, high = playing_range(program)
    return max(low, 21), min(high, 108)
