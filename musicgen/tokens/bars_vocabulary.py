"""The vocabulary of the `bars` tokenizer: what each value of each field stands for, and the classes of quantities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from musicgen.formats.instruments import playing_range
from musicgen.score import DRUM_PROGRAM, TICKS_PER_QUARTER, Key, Part
from musicgen.score.edit import transpose_fifths
from musicgen.score.general_midi import DRUM_KIT, DRUM_NAMES, PITCH_NAMES, PROGRAM_NAMES
from musicgen.tokens.tokenizer import Coordinate, Field

GRID = 24
"""Positions to the quarter note."""
UNIT = TICKS_PER_QUARTER // GRID
"""Ticks of one position."""
LONGEST_BAR = 8 * GRID
EXACT_DURATION = 8 * GRID
LONGEST_DURATION = 64 * GRID
INSTANCES = 8
KINDS = 129  # 128 programs, then drums
MAX_PARTS = 64

# field `when`
START, END, BAR, PART, AHEAD, BACK, POSITION = 1, 2, 3, 4, 5, 6, 7
# field `part`
CONDUCTOR, INSTRUMENT = 1, 2
DRUM_PARTS = INSTRUMENT + (KINDS - 1) * INSTANCES
"""From here on, values of field `part` are drums."""
# field `pitch`
PITCH, DRUM = 1, 129
METRES = tuple(
    (numerator, denominator)
    for denominator in (1, 2, 4, 8, 16, 32)
    for numerator in range(1, 25)
    if 4 * GRID * numerator // denominator <= LONGEST_BAR and 4 * GRID * numerator % denominator == 0
)
KEYS = tuple((fifths, mode) for mode in ("major", "minor") for fifths in range(-7, 8))
TEMPI = tuple(round(20.0 * 1.06**i, 1) for i in range(50))
METRE = DRUM + 128
KEY = METRE + len(METRES)
TEMPO = KEY + len(KEYS)
METRE_UNITS = np.array([4 * GRID * n // d for n, d in METRES])

DURATIONS = np.concatenate(([0], np.arange(1, EXACT_DURATION + 1), np.arange(9, 65) * GRID))
"""Duration class -> grid units."""
VELOCITIES = np.array([0, 16, 33, 49, 64, 80, 96, 112, 124])
"""Velocity class -> MIDI velocity, ppp to fff."""

WHEN_FIELD = Field("when", ("-", "START", "END", "BAR", "PART", "AHEAD", "BACK", *map(str, range(LONGEST_BAR))))
PART_FIELD = Field(
    "part", ("-", "conductor", *(f"{kind} {i + 1}" for kind in (*PROGRAM_NAMES, "Drums") for i in range(INSTANCES)))
)
PITCH_FIELD = Field(
    "pitch",
    (
        "-",
        *PITCH_NAMES,
        *DRUM_NAMES,
        *(f"{numerator}/{denominator}" for numerator, denominator in METRES),
        *(Key(0, fifths, mode).name for fifths, mode in KEYS),
        *(f"tempo {bpm:g}" for bpm in TEMPI),
    ),
)
DURATION_FIELD = Field("duration", ("-", *(str(int(units)) for units in DURATIONS[1:])))
VELOCITY_FIELD = Field("velocity", ("-", "ppp", "pp", "p", "mp", "mf", "f", "ff", "fff"))
FIELDS = (WHEN_FIELD, PART_FIELD, PITCH_FIELD, DURATION_FIELD, VELOCITY_FIELD)

BARS_LEFT = 64
COORDINATES = (
    Coordinate("beat", 1 + LONGEST_BAR),
    Coordinate("bar_length", 1 + LONGEST_BAR),
    Coordinate("bars_left", 2 + BARS_LEFT, ahead=True),
    Coordinate("instrument", 1 + KINDS),
    Coordinate("order", 6),
)

TRANSPOSED_KEYS = np.array([[KEYS.index((transpose_fifths(f, s), mode)) for f, mode in KEYS] for s in range(12)])


def part_values(parts: Sequence[Part]) -> list[int]:
    """The value of field `part` for each part: its kind, and which of that kind it is (the ninth joins the eighth)."""
    seen: dict[int, int] = {}
    values = []
    for part in parts:
        kind = KINDS - 1 if part.is_drum else part.program
        values.append(INSTRUMENT + kind * INSTANCES + min(seen.get(kind, 0), INSTANCES - 1))
        seen[kind] = seen.get(kind, 0) + 1
    return values


def part_of(value: int) -> Part:
    """The empty part that a value of field `part` stands for."""
    kind, instance = divmod(value - INSTRUMENT, INSTANCES)
    if kind == KINDS - 1:
        return Part(f"Drums {instance + 1}", DRUM_PROGRAM, is_drum=True)
    return Part(f"{PROGRAM_NAMES[kind]} {instance + 1}", kind)


def duration_class(units, round_down: bool = False) -> np.ndarray:
    """Class of durations in grid units: exact to 8 quarters, then the nearest quarter (or that below), at most 64."""
    units = np.clip(np.asarray(units, dtype=np.int64), 1, LONGEST_DURATION)
    quarters = (units + (0 if round_down else GRID // 2)) // GRID
    return np.where(units <= EXACT_DURATION, units, EXACT_DURATION + np.maximum(quarters, 8) - 8)


def velocity_class(velocity) -> np.ndarray:
    """1..8: the nearest of VELOCITIES, the softer of two."""
    return 1 + np.abs(np.asarray(velocity, dtype=np.int64)[..., None] - VELOCITIES[1:]).argmin(axis=-1)


def tempo_class(bpm: float) -> int:
    return int(np.abs(np.log(np.array(TEMPI) / bpm)).argmin())


def is_drum(part: int) -> bool:
    """Whether a value of field `part` is a drum kit."""
    return (part - INSTRUMENT) // INSTANCES == KINDS - 1


def _usual_range(part: int) -> tuple[int, int]:
    """What an instrument plays, within a piano's compass; of drums, the keys that General MIDI names."""
    if part < INSTRUMENT or is_drum(part):
        return min(DRUM_KIT), max(DRUM_KIT)
    low, high = playing_range((part - INSTRUMENT) // INSTANCES)
    return max(low, 21), min(high, 108)


USUAL_RANGES = tuple(_usual_range(part) for part in range(PART_FIELD.size))
"""Value of field `part` -> lowest and highest MIDI pitch that it usually plays."""
