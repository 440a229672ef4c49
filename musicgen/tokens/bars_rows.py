"""A score straight to the rows of the `bars` tokenizer: what `encode_held(quantise(score))` gives, many times faster.

`BarsTokenizer.quantise` says in terms of scores what the tokens hold; here the same is done on integers. Each row of
the table that becomes the steps is one int64 whose bits, from the highest, are

    onset (26)   in units of the grid, from the beginning of the piece
    inside (1)   0 for a BAR, 1 for what stands in the bar
    part (11), pitch (9), duration (8), velocity (4)   as in the fields; a BAR's duration is its length

so that one sort of plain integers brings all rows in order, and shifts take them apart again. Doubled notes and notes
struck again are found the same way, by an integer of part (11), pitch (9), onset (26), duration (11), velocity (4).
A test holds this module equal to `encode_held(quantise(score))`.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np

from musicgen.errors import TokenError
from musicgen.score import NOTE, Metre, Score
from musicgen.score.score import MINOR_MODES
from musicgen.tokens.bars_vocabulary import (
    BAR,
    CONDUCTOR,
    DRUM,
    DURATIONS,
    END,
    EXACT_DURATION,
    KEY,
    KEYS,
    LONGEST_BAR,
    LONGEST_DURATION,
    MAX_PARTS,
    METRE,
    METRE_UNITS,
    METRES,
    PART,
    PITCH,
    POSITION,
    START,
    TEMPI,
    TEMPO,
    UNIT,
    duration_class,
    part_values,
    velocity_class,
)

ONSET_AT, PART_AT, PITCH_AT, DURATION_AT = 33, 21, 12, 4
INSIDE = 1 << 32
LATEST = 1 << 26
"""Onsets from here on have no room in a row."""

METRE_VALUES = {metre: METRE + i for i, metre in enumerate(METRES)}
KEY_VALUES = {key: KEY + i for i, key in enumerate(KEYS)}
VELOCITY_CLASSES = velocity_class(np.arange(128))
FULL_BARS = METRE_UNITS.tolist()
TEMPO_LIMITS = np.sqrt(np.array(TEMPI[:-1]) * np.array(TEMPI[1:]))
"""Between two tempi, where the nearer one changes (on a logarithmic scale)."""


def encode_rows(score: Score) -> np.ndarray:
    """(T, 5) int16, START to END, of a score without repeat signs. Raises TokenError as BarsTokenizer.encode does."""
    playing = [part for part in score.parts if len(part.notes)]
    if not playing:
        raise TokenError(f"{score.title or 'the score'}: no notes")
    values = part_values(playing)
    roster = sorted(set(values))
    if len(roster) > MAX_PARTS:
        raise TokenError(f"{len(roster)} parts; the vocabulary holds {MAX_PARTS}")
    notes = playing[0].notes
    if len(playing) > 1:  # joined as plain integers, which numpy does many times faster
        notes = np.concatenate([part.notes.view("<i4") for part in playing]).view(NOTE)
    onset = _units(notes["onset"])
    duration = np.maximum(_units(notes["onset"] + notes["duration"]) - onset, 1)
    length = max(_units(score.length), int((onset + duration).max()))
    if length >= LATEST:
        where = f"its last note is at tick {length * UNIT:,}"
        raise TokenError(f"{score.title or 'the score'}: {where}, too far to be held")
    metres = _metres(score)
    bars, length = _bars(score, metres, length)

    key = onset.astype(np.int64)
    key <<= 15
    key |= np.minimum(duration, LONGEST_DURATION) << 4
    key |= VELOCITY_CLASSES.take(notes["velocity"])
    key |= notes["pitch"].astype(np.int64) << 41
    at = 0
    for part, value in zip(playing, values, strict=True):
        key[at : at + len(part.notes)] += (value << 9) + (DRUM if part.is_drum else PITCH) << 41
        at += len(part.notes)
    key.sort()

    starts = np.empty(len(bars) + 1, dtype=np.int64)
    starts[:-1], starts[-1] = bars, length
    lengths = starts[1:] - starts[:-1]
    bar_rows = (bars << ONSET_AT) | (lengths << DURATION_AT)
    table = np.concatenate((bar_rows, _conductor_rows(score, metres, bars, length), _note_rows(key, length)))
    table.sort()
    return _steps(table, bars, bar_rows, roster)


def _units(ticks):
    """Ticks, a number or an array, to the nearest unit of the grid; half rounds up."""
    return (ticks + UNIT // 2) // UNIT


def _metres(score: Score) -> list[tuple[int, int]]:
    """(onset in units, value) of each metre; one whose bar is longer than 8 quarters becomes an equal share of it."""
    metres = []
    for onset, metre in {_units(m.onset): m for m in score.metres}.items():
        value = METRE_VALUES.get((metre.numerator, metre.denominator))
        metres.append((onset, _shorter(metre) if value is None else value))
    return metres


def _shorter(metre: Metre) -> int:
    for share in range(2, metre.numerator + 1):
        value = METRE_VALUES.get((metre.numerator // share, metre.denominator))
        if metre.numerator % share == 0 and value is not None:
            return value
    return METRE_VALUES[4, 4]


def _full_bar(metres: list[tuple[int, int]], at: int) -> int:
    """Units of a full bar of the metre that holds at a position in units."""
    place = bisect_right(metres, at, key=lambda metre: metre[0]) - 1
    return FULL_BARS[metres[max(place, 0)][1] - METRE]


def _bars(score: Score, metres: list[tuple[int, int]], length: int) -> tuple[np.ndarray, int]:
    """(bar starts in units (n,) int64, where the last bar ends), bars longer than 8 quarters cut into shorter ones."""
    bars = _units(score.bars).astype(np.int64)
    if len(bars) > 1:
        gaps = bars[1:] - bars[:-1]
        if not gaps.all():
            bars = np.unique(bars)
            gaps = bars[1:] - bars[:-1]
        if bars[-1] >= length:
            bars = bars[: max(int(bars.searchsorted(length)), 1)]
    full = _full_length(metres, bars, length)
    if full - bars[-1] > LONGEST_BAR or (len(bars) > 1 and gaps.max() > LONGEST_BAR):
        cut: list[int] = []
        for start, stop in zip(bars.tolist(), [*bars.tolist()[1:], full], strict=True):
            step = min(_full_bar(metres, start), LONGEST_BAR)
            cut += [start] if stop - start <= LONGEST_BAR else range(start, stop, step)
        bars = np.array([at for at in cut if at < length or at == 0], dtype=np.int64)
        full = _full_length(metres, bars, length)
    return bars, full


def _full_length(metres: list[tuple[int, int]], bars: np.ndarray, length: int) -> int:
    """Where the last bar ends: full, unless it is what a pickup at the beginning left of it."""
    start = int(bars[-1])
    full = _full_bar(metres, start)
    there = length - start
    first = int(bars[1]) if len(bars) > 1 else 0
    pickup = first if first < _full_bar(metres, 0) else 0
    return length if there >= full or (pickup and there == full - pickup) else start + full


def _note_rows(key: np.ndarray, length: int) -> np.ndarray:
    """Rows of the notes, from sorted integers of part, pitch, onset, duration, velocity: see the module's opening."""
    place = key >> 15  # part, pitch, onset
    gap = place[1:] - place[:-1]
    if not gap.all():  # doubled: the last is the longest; the loudest is looked for
        first = np.flatnonzero(np.append(True, gap != 0))
        loudest = np.maximum.reduceat(key & 15, first)
        key = key[np.append(first[1:], len(key)) - 1] & ~15 | loudest
        place = key >> 15
        gap = place[1:] - place[:-1]
    onset = place & (LATEST - 1)
    duration = key >> 4 & 0x7FF
    room = length - onset  # to the end, or to where the same pitch is struck again (to another pitch it is farther)
    np.minimum(room[:-1], gap, out=room[:-1])
    np.minimum(duration, room, out=duration)
    if duration.max() > EXACT_DURATION:
        long = np.flatnonzero(duration > EXACT_DURATION)
        held = DURATIONS[duration_class(duration[long])]
        held = DURATIONS[duration_class(np.minimum(held, length - onset[long]), round_down=True)]
        duration[long] = duration_class(np.minimum(held, room[long]))
    rows = onset << ONSET_AT
    rows |= key >> 41 << PITCH_AT  # the part stands above the pitch in both
    rows |= duration << DURATION_AT
    rows |= key & 15
    rows |= INSIDE
    return rows


def _conductor_rows(score: Score, metres: list[tuple[int, int]], bars: np.ndarray, length: int) -> np.ndarray:
    """Rows of what the conductor says: metres (each at the next bar), keys and tempi, none that holds already."""
    said = _changes([(_next_bar(bars, at), value) for at, value in metres], length)
    keys = [(_units(k.onset), KEY_VALUES[k.fifths, "minor" if k.mode in MINOR_MODES else "major"]) for k in score.keys]
    said += _changes(keys, length)
    onset = _units(score.tempo_map.onsets)
    onset = onset[: onset.searchsorted(length)]
    value = TEMPO + TEMPO_LIMITS.searchsorted(score.tempo_map.bpms[: len(onset)])
    if len(onset) > 1:
        at = np.append((onset[1:] != onset[:-1]).nonzero()[0], len(onset) - 1)  # of those at one onset the last
        onset, value = onset.take(at), value.take(at)
        at = np.append(0, (value[1:] != value[:-1]).nonzero()[0] + 1)
        onset, value = onset.take(at), value.take(at)
    rows = np.concatenate((np.array(said, dtype=np.int64), (onset << ONSET_AT) | (value << PITCH_AT)))
    rows |= INSIDE | CONDUCTOR << PART_AT
    return rows


def _next_bar(bars: np.ndarray, at: int) -> int:
    """The first of the bars that starts at a position in units, or after it."""
    place = int(bars.searchsorted(at)) if at else 0
    return int(bars[place]) if place < len(bars) else LATEST


def _changes(events: list[tuple[int, int]], length: int) -> list[int]:
    """Onset and value of events as rows, without those that say again what holds, or come after the music."""
    rows, holds = [], None
    for onset, value in dict(events).items():
        if onset < length and value != holds:
            rows.append(onset << ONSET_AT | value << PITCH_AT)
            holds = value
    return rows


def _steps(table: np.ndarray, bars: np.ndarray, bar_rows: np.ndarray, roster: list[int]) -> np.ndarray:
    """The sorted rows taken apart into steps, between START, the roster and END."""
    steps = np.zeros((len(table) + len(roster) + 2, 5), dtype=np.int16)
    steps[0, 0], steps[-1, 0] = START, END
    steps[1 : 1 + len(roster), 0] = PART
    steps[1 : 1 + len(roster), 1] = roster
    at = np.empty(len(bars) + 1, dtype=np.int64)
    at[:-1], at[-1] = table.searchsorted(bar_rows), len(table)
    when = table >> ONSET_AT
    when -= (bars - POSITION).repeat(at[1:] - at[:-1])
    when[at[:-1]] = BAR
    body = steps[1 + len(roster) : -1]
    low = table.astype(np.uint32)
    body[:, 0] = when
    body[:, 1] = low >> PART_AT
    body[:, 2] = low >> PITCH_AT & 0x1FF
    body[:, 3] = low >> DURATION_AT & 0xFF
    body[:, 4] = low & 15
    return steps
