"""The `bars` tokenizer: any number of parts, interleaved in time, one note one step.

A step has five fields, predicted in this order:

    when      START, END, BAR, PART, or a position in the bar on a grid of 24 to the quarter note (triplets and 32nds);
              AHEAD and BACK around music told ahead of its turn, for filling and harmonising (see tokens.bars_preview)
    part      the conductor, or an instrument: a General MIDI program (or drums) and which one of its kind
    pitch     a pitch, a drum key, or what the conductor says: a metre, a key, a tempo
    duration  in grid units, exact to 8 quarters, then in quarters to 64; of a BAR, its length
    velocity  one of 8 bins, ppp to fff

A piece opens with START and a PART step for each instrument. Each bar is a BAR step, then its notes sorted by position,
part and pitch; the same position again is the same onset. The conductor is the first part: metre, key and tempo changes
are steps of its own. Example, the first bar of a waltz for flute and strings:

    START | PART flute | PART strings | BAR 72 | 0 conductor 3/4 | 0 conductor tempo 180 | 0 flute D5 24 mf | ...

Knowingly lost, and nowhere else anything: the title, part names and their order (parts come back in the order of their
programs, named by them); parts that never play; a ninth part of one program (merged into the eighth); timing finer than
the grid; tempo and velocity finer than their bins; modes other than major and minor; chord symbols; doubled or
overlapping unisons within one part; sounding past 64 quarters; metres whose bar is longer than 8 quarters (cut into
shorter bars of equal length where that divides); rests after the last full bar.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from musicgen.errors import TokenError
from musicgen.score import NOTE, Key, Metre, Score, Tempo, quantise, unfold
from musicgen.score.edit import changes, from_zero, merge_doubled
from musicgen.score.score import MINOR_MODES
from musicgen.tokens.bars_grammar import BarsCursor
from musicgen.tokens.bars_preview import GIVEN_AHEAD, PREVIEW, follow, in_order
from musicgen.tokens.bars_rows import encode_rows
from musicgen.tokens.bars_vocabulary import (
    AHEAD,
    BACK,
    BAR,
    BARS_LEFT,
    CONDUCTOR,
    COORDINATES,
    DRUM,
    DRUM_PARTS,
    DURATIONS,
    END,
    FIELDS,
    INSTANCES,
    INSTRUMENT,
    KEY,
    KEYS,
    LONGEST_BAR,
    MAX_PARTS,
    METRE,
    METRES,
    PART,
    PART_FIELD,
    PITCH,
    PITCH_FIELD,
    POSITION,
    START,
    TEMPI,
    TEMPO,
    TRANSPOSED_KEYS,
    UNIT,
    VELOCITIES,
    WHEN_FIELD,
    duration_class,
    part_of,
    part_values,
    tempo_class,
    velocity_class,
)
from musicgen.tokens.recall import Recall
from musicgen.tokens.tokenizer import NONE, Hearing

LANES = 251
"""Lines that a model tells apart by their last pitch: the part's value modulo a prime, so that two parts that share one
are rare."""


class BarsTokenizer:
    """See the module's opening. Implements tokens.tokenizer.Tokenizer."""

    name: ClassVar[str] = "bars"
    as_written: ClassVar[bool] = False
    clock: ClassVar[bool] = False

    def __init__(self) -> None:
        self.options: dict = {}
        self.fields = FIELDS
        self.coordinates = COORDINATES
        self.start = (START, 0, 0, 0, 0)
        pitch = np.full(FIELDS[2].size, -1)
        pitch[PITCH:DRUM] = np.arange(DRUM - PITCH)
        self.hearing = Hearing(octave=12, places={2: pitch}, lane_field=1, lanes=np.arange(FIELDS[1].size) % LANES)
        self.recall = Recall(views=((0, 1, 2, 3),), fields=(0, 1, 2, 3))

    def quantise(self, score: Score) -> Score:
        """The score as the tokens hold it: decode(encode(score)) equals this. The docstring above says what is lost."""
        score = quantise(unfold(score) if score.signs else score, UNIT)
        if not score.note_count:
            raise TokenError(f"{score.title or 'the score'}: no notes")
        score = _split_long_bars(score)
        length = _full_length(score)
        playing = [part for part in score.parts if len(part.notes)]
        values, parts = part_values(playing), []
        for value in sorted(set(values)):
            same = [part for part, v in zip(playing, values, strict=True) if v == value]
            notes = merge_doubled(np.concatenate([part.notes for part in same]))
            notes["duration"] = DURATIONS[duration_class(notes["duration"] // UNIT)] * UNIT
            notes["duration"] = np.minimum(notes["duration"], length - notes["onset"])
            notes["duration"] = DURATIONS[duration_class(notes["duration"] // UNIT, round_down=True)] * UNIT
            notes["velocity"] = VELOCITIES[velocity_class(notes["velocity"])]
            parts.append(part_of(value).with_notes(merge_doubled(notes)))
        starts = score.bars
        metres = [replace(m, onset=_next_bar(starts, m.onset)) for m in score.metres]
        keys = [Key(k.onset, k.fifths, "minor" if k.mode in MINOR_MODES else "major") for k in score.keys]
        tempos = [Tempo(t.onset, TEMPI[tempo_class(t.bpm)]) for t in score.tempos]
        return Score(
            parts=tuple(parts),
            tempos=changes(tempos, length),
            metres=changes([m for m in metres if m.onset < length], length),
            keys=changes(keys, length),
            bars=starts,
            length=length,
        )

    def encode(self, score: Score, unfinished: bool = False) -> np.ndarray:
        """(T, 5) int16. Raises TokenError for a score without notes or with more than 64 parts.

        unfinished: the score breaks off; its last bar is held to be full, whatever is there of it, and END is left out.
        """
        score = unfold(score) if score.signs else score
        if unfinished:
            last = int(score.bars[-1])
            score = replace(score, length=max(last + score.metre_at(last).ticks, score.length))
        steps = encode_rows(score)
        return steps[:-1] if unfinished else steps

    def encode_held(self, held: Score) -> np.ndarray:
        """(T, 5) int16 of a score that `quantise` returned: what `encode` gives, said plainly and slowly."""
        values = part_values(held.parts)
        if len(set(values)) > MAX_PARTS:
            raise TokenError(f"{len(set(values))} parts; the vocabulary holds {MAX_PARTS}")
        rows = []  # columns: onset in units, order at one onset (bar first), when, part, pitch, duration, velocity
        bars = held.bars // UNIT
        lengths = np.diff(np.append(bars, held.length // UNIT))
        bar_rows = np.zeros((len(bars), 7), dtype=np.int64)
        bar_rows[:, 0], bar_rows[:, 2], bar_rows[:, 5] = bars, BAR, lengths
        rows.append(bar_rows)
        spoken = [(m.onset, METRE + METRES.index((m.numerator, m.denominator))) for m in held.metres]
        spoken += [(k.onset, KEY + KEYS.index((k.fifths, k.mode))) for k in held.keys]
        spoken += [(t.onset, TEMPO + TEMPI.index(t.bpm)) for t in held.tempos]
        conductor = np.zeros((len(spoken), 7), dtype=np.int64)
        conductor[:, 0] = [onset // UNIT for onset, _ in spoken]
        conductor[:, 4] = [value for _, value in spoken]
        conductor[:, 1], conductor[:, 3] = 1, CONDUCTOR
        rows.append(conductor)
        for part, value in zip(held.parts, values, strict=True):
            block = np.zeros((len(part.notes), 7), dtype=np.int64)
            block[:, 0], block[:, 1], block[:, 3] = part.notes["onset"] // UNIT, 1, value
            block[:, 4] = part.notes["pitch"].astype(np.int64) + (DRUM if part.is_drum else PITCH)
            block[:, 5] = duration_class(part.notes["duration"] // UNIT)
            block[:, 6] = velocity_class(part.notes["velocity"])
            rows.append(block)
        table = np.concatenate(rows)
        table = table[np.lexsort((table[:, 4], table[:, 3], table[:, 1], table[:, 0]))]
        inside = table[:, 1] == 1
        bar_of = np.searchsorted(bars, table[:, 0], side="right") - 1
        table[inside, 2] = POSITION + (table[:, 0] - bars[bar_of])[inside]
        head = [self.start, *((PART, value, 0, 0, 0) for value in sorted(set(values)))]
        return np.concatenate([head, table[:, 2:], [(END, 0, 0, 0, 0)]]).astype(np.int16)

    def decode(self, steps: np.ndarray) -> Score:
        """The score of steps (T, 5); parts are those of PART steps and notes. Without END, up to the last bar's end."""
        steps = in_order(np.asarray(steps, dtype=np.int64))
        when, part, pitch = steps[:, 0], steps[:, 1], steps[:, 2]
        is_bar = when == BAR
        if not is_bar.any():
            raise TokenError("no bar in the steps")
        lengths = steps[is_bar, 3]
        ends = np.cumsum(lengths)
        bars = ends - lengths
        bar_of = np.cumsum(is_bar) - 1
        placed = when >= POSITION
        if placed[: int(np.argmax(is_bar))].any():
            raise TokenError("a note before the first bar")
        onset = np.where(placed, bars[np.maximum(bar_of, 0)] + when - POSITION, 0)
        is_note = placed & (part >= INSTRUMENT)
        parts = []
        for value in sorted({*part[when == PART].tolist(), *part[is_note].tolist()}):
            rows = is_note & (part == value)
            notes = np.zeros(int(rows.sum()), dtype=NOTE)
            made = part_of(value)
            notes["onset"] = onset[rows] * UNIT
            notes["duration"] = np.minimum(DURATIONS[steps[rows, 3]], ends[-1] - onset[rows]) * UNIT
            notes["pitch"] = pitch[rows] - (DRUM if made.is_drum else PITCH)
            notes["velocity"] = VELOCITIES[steps[rows, 4]]
            parts.append(made.with_notes(merge_doubled(notes[notes["duration"] > 0])))
        says = placed & (part == CONDUCTOR)
        spoken = list(zip((onset[says] * UNIT).tolist(), pitch[says].tolist(), strict=True))
        metres = [Metre(at, *METRES[v - METRE]) for at, v in spoken if METRE <= v < KEY]
        keys = [Key(at, *KEYS[v - KEY]) for at, v in spoken if KEY <= v < TEMPO]
        tempos = [Tempo(at, TEMPI[v - TEMPO]) for at, v in spoken if v >= TEMPO]
        return Score(
            parts=tuple(parts),
            tempos=from_zero(tempos, Tempo(0, 120.0)),
            metres=from_zero(metres, Metre(0, 4, 4)),
            keys=from_zero(keys, Key(0, 0)),
            bars=bars * UNIT,
            length=int(ends[-1]) * UNIT,
        )

    def locate(self, steps: np.ndarray) -> np.ndarray:
        """(T, 5) int16: beat (1 + position), bar_length (in units), bars_left (1 + how many), instrument (1 + kind),
        order (see tokens.bars_preview).

        Beat and bar_length are 0 before the first bar, instrument is 0 after a step that is no instrument's. In a hole
        bars_left are those of the hole, elsewhere those of the piece.
        """
        when = np.asarray(steps[:, 0], dtype=np.int64)
        course = follow(steps)
        begun = course.bar > 0
        rows = np.arange(len(when))
        opens = (when == BAR) | (when == AHEAD) | (when == BACK)
        latest = np.maximum.accumulate(np.where((when >= POSITION) | opens, rows, -1))
        beat = np.where(begun, 1 + np.where(opens, 0, when - POSITION)[np.maximum(latest, 0)], 0)
        is_bar = when == BAR
        any_bar = np.maximum.accumulate(np.where(is_bar, rows, -1))
        ahead = (course.order == GIVEN_AHEAD) | (course.order == PREVIEW)
        own_bar = np.maximum.accumulate(np.where(is_bar & ~ahead, rows, -1))
        bar = np.where(ahead, any_bar, own_bar)
        length = np.where(begun, np.asarray(steps[:, 3], dtype=np.int64)[np.maximum(bar, 0)], 0)
        left = 1 + np.minimum(course.left, BARS_LEFT)
        part = np.asarray(steps[:, 1], dtype=np.int64)
        instrument = np.where(part >= INSTRUMENT, 1 + (part - INSTRUMENT) // INSTANCES, 0)
        return np.stack([beat, length, left, instrument, course.order], axis=1).astype(np.int16)

    def is_note(self, steps: np.ndarray) -> np.ndarray:
        """(T,) bool."""
        return (steps[:, 0] >= POSITION) & (steps[:, 1] >= INSTRUMENT)

    def bars_begun(self, steps: np.ndarray) -> np.ndarray:
        """(T,) int64."""
        return follow(steps).bar

    def masks(self, steps: np.ndarray, coordinates: np.ndarray, start: int, stop: int) -> dict[int, np.ndarray]:
        """{field: (stop - start, size) bool}: what the fields when, part and pitch of steps start..stop-1 may be.

        Of the grammar, the part that holds for any score: positions go forward and stay in the bar, only the roster
        plays, and what starts together is sorted by part and pitch. See tokens.tokenizer.Tokenizer.
        """
        wanted, before = steps[start:stop].astype(np.int64), steps[start - 1 : stop - 1].astype(np.int64)
        beat, bar_length = coordinates[start - 1 : stop - 1, :2].astype(np.int64).T
        position = np.maximum(beat - 1, 0)
        place = np.arange(WHEN_FIELD.size) - POSITION
        when = (place < 0) | ((place >= position[:, None]) & (place < bar_length[:, None]))
        when[:, [NONE, START, AHEAD, BACK]] = False
        given = np.isin(wanted[:, 0], (AHEAD, BACK))  # where the order changes is told, not foretold
        when[given] = np.arange(WHEN_FIELD.size) == wanted[given, :1]

        same = (wanted[:, 0] - POSITION == position) & (before[:, 0] >= POSITION)
        roster = np.zeros(PART_FIELD.size, dtype=bool)
        roster[[CONDUCTOR, *steps[steps[:, 0] == PART, 1].tolist()]] = True
        value = np.arange(PART_FIELD.size)
        part = roster & (value >= np.where(same, before[:, 1], 0)[:, None])
        part[wanted[:, 0] == PART] = True

        first = np.select([wanted[:, 1] == CONDUCTOR, wanted[:, 1] >= DRUM_PARTS], [METRE, DRUM], PITCH)
        last = np.select([wanted[:, 1] == CONDUCTOR, wanted[:, 1] >= DRUM_PARTS], [PITCH_FIELD.size, METRE], DRUM)
        first = np.where(same & (before[:, 1] == wanted[:, 1]), before[:, 2] + 1, first)
        value = np.arange(PITCH_FIELD.size)
        pitch = (value >= first[:, None]) & (value < last[:, None])
        return {0: when, 1: part, 2: pitch}

    def transpose(self, steps: np.ndarray, semitones: int) -> np.ndarray | None:
        """Pitched notes and keys moved, drums left; None where a note would leave the 128 pitches."""
        if semitones == 0:
            return steps
        steps = steps.copy()
        pitch = steps[:, 2]
        pitched = (pitch >= PITCH) & (pitch < DRUM)
        moved = pitch[pitched] + semitones
        if len(moved) and (moved.min() < PITCH or moved.max() >= DRUM):
            return None
        pitch[pitched] = moved
        key = (pitch >= KEY) & (pitch < TEMPO)
        pitch[key] = KEY + TRANSPOSED_KEYS[semitones % 12][pitch[key] - KEY]
        return steps

    def cursor(self, bars: int | None = None) -> BarsCursor:
        return BarsCursor(bars)

    def characters(self, steps: np.ndarray) -> int | None:
        return None

    def describe(self, step: Sequence[int]) -> str:
        """One step as words: '36 violin 2 D5 12 mf'."""
        return " ".join(f.labels[v] for f, v in zip(self.fields, step, strict=True) if v)


def _next_bar(starts: np.ndarray, tick: int) -> int:
    i = int(np.searchsorted(starts, tick))
    return int(starts[i]) if i < len(starts) else 2**30


def _full_length(score: Score) -> int:
    """Where the last bar ends: full, unless it is what a pickup at the beginning left of it."""
    start = int(score.bars[-1])
    full = score.metre_at(start).ticks
    there = score.length - start
    if there >= full or (score.pickup and there == full - score.pickup):
        return score.length
    return start + full


def _split_long_bars(score: Score) -> Score:
    """Bars longer than 8 quarters, and the metres that make them, cut into equal shorter ones."""
    metres = []
    for m in score.metres:
        parts = [
            k for k in range(1, m.numerator + 1) if m.numerator % k == 0 and (m.numerator // k, m.denominator) in METRES
        ]
        metres.append(Metre(m.onset, m.numerator // parts[0], m.denominator) if parts else Metre(m.onset, 4, 4))
    score = replace(score, metres=tuple(metres))
    length = max(score.length, _full_length(score))
    starts = []
    for start, stop in zip(score.bars.tolist(), [*score.bars.tolist()[1:], length], strict=True):
        step = score.metre_at(start).ticks
        longest = LONGEST_BAR * UNIT
        starts += [start] if stop - start <= longest else list(range(start, stop, step if step <= longest else longest))
    return replace(score, bars=np.array([s for s in starts if s < score.length or s == 0], dtype=np.int32))
