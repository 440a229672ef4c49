"""The symbols of ABC as steps: the vocabulary, what each symbol is, and how it sounds.

A note is a pitch symbol, with its accidental if one is written, and then its length, unless that is an eighth.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

import numpy as np

from musicgen.formats.abc_fields import ACCIDENTALS, LETTER_SEMITONES
from musicgen.formats.abc_write import key_text, note_text
from musicgen.score import Key, bar_ticks
from musicgen.score.score import MODES

GRID = 30
"""Ticks of the shortest length, /8."""

UNIT = 8
"""The length 1, in GRID."""

METRES = (
    *("4/4", "3/4", "2/4", "6/8", "9/8", "12/8", "2/2", "3/2", "4/2", "3/8", "5/4", "6/4"),
    *("7/4", "5/8", "7/8", "4/8", "1/4", "2/8", "8/4", "6/2", "10/8", "15/8", "8/8", "9/4"),
)
BARS = ("|", "|:", ":|", "::", "||", "|]", "[1", "[2")
LENGTHS = {
    "/8": 1, "/4": 2, "3/8": 3, "/2": 4, "3/4": 6, "3/2": 12, "2": 16, "3": 24, "4": 32, "6": 48, "8": 64,
    "12": 96, "16": 128, "24": 192,
}  # fmt: skip
"""Length symbol -> GRID units; no symbol is 8."""

TUPLETS = {
    "(3": (3, 2, 3), "(3:2:2": (3, 2, 2), "(3:2:4": (3, 2, 4), "(3:2:5": (3, 2, 5), "(3:2:6": (3, 2, 6),
    "(3:2:9": (3, 2, 9), "(3:2:12": (3, 2, 12), "(3:2:1": (3, 2, 1), "(5:4:5": (5, 4, 5), "(5:4:4": (5, 4, 4),
}  # fmt: skip
"""Tuplet symbol -> p, q, r: p notes in the time of q, for r notes."""

START, END = 0, 1
PITCHES = tuple(
    accidental + note_text(letter, octave)
    for octave in range(2, 8)
    for letter in "CDEFGAB"
    for accidental in ("", "^", "=", "_")
    if octave < 7 or letter == "C"
)
KEYS = {
    key_text(Key(0, fifths, mode)): (fifths, mode)
    for mode in MODES
    for fifths in range(-7, 8)
    if mode == "major" or key_text(Key(0, fifths, mode)) != key_text(Key(0, fifths))
}
VOCABULARY: tuple[str, ...] = (
    "START",
    "END",
    *(f"M:{metre}" for metre in METRES),
    *(f"K:{key}" for key in KEYS),
    *BARS,
    *PITCHES,
    "z",
    *LENGTHS,
    "-",
    "[",
    "]",
    *TUPLETS,
)
ID = {symbol: i for i, symbol in enumerate(VOCABULARY)}
SIZE = len(VOCABULARY)

WHOLE_CHORD = 3
"""Semitones below the top of the compass at which a chord begins at most: then the next letter lies within it too."""

BEATS = 48
"""Positions in the bar that the beat coordinate tells apart, in sixteenth notes; later ones share the last."""

BARS_LEFT = 64

POSITION_TICKS = 120


def ids(symbols: Sequence[str]) -> np.ndarray:
    """(SIZE,) bool: true for these symbols."""
    mask = np.zeros(SIZE, dtype=bool)
    mask[[ID[s] for s in symbols]] = True
    return mask


def _beat_ticks(numerator: int, denominator: int) -> int:
    """Of 6/8 and its like three units, else a unit, but a quarter at most."""
    unit = 1920 // denominator
    return 3 * unit if numerator > 3 and numerator % 3 == 0 else min(unit, 480)


PITCH_IDS = [ID[p] for p in PITCHES]
FIRST_PITCH, LAST_PITCH = PITCH_IDS[0], PITCH_IDS[-1]
IS_PITCH, IS_LENGTH, IS_BAR = ids(PITCHES), ids(tuple(LENGTHS)), ids(BARS)
IS_TUPLET = ids(tuple(TUPLETS))
IS_METRE, IS_KEY = ids([f"M:{m}" for m in METRES]), ids([f"K:{k}" for k in KEYS])
IS_CONTENT = IS_PITCH | IS_TUPLET | ids(["z", "["])
GRID_OF = {ID[name]: grid for name, grid in LENGTHS.items()}
LENGTH_OF = {grid: name for name, grid in LENGTHS.items()}
METRE_TICKS = {ID[f"M:{m}"]: bar_ticks(*map(int, m.split("/"))) for m in METRES}
BEATS_OF = {ID[f"M:{m}"]: _beat_ticks(*map(int, m.split("/"))) for m in METRES}
"""Metre symbol -> ticks of a beat."""
SHORTEST, TIE, OPEN, CLOSE, REST = ID["/8"], ID["-"], ID["["], ID["]"], ID["z"]
BAR, END_REPEAT, FINAL = ID["|"], ID[":|"], ID["|]"]


def _pitch_parts(text: str) -> tuple[str, str, int]:
    match = re.fullmatch(r"([\^_=]?)([A-Ga-g])([,']*)", text)
    assert match
    octave = (4 if match[2].isupper() else 5) + match[3].count("'") - match[3].count(",")
    return match[1], match[2].upper(), octave


PITCH_PARTS = {ID[p]: _pitch_parts(p) for p in PITCHES}
"""id -> (accidental as written, letter, octave)."""

STAFF = np.full(SIZE, -1)
"""Staff position of a pitch symbol, higher is higher; -1 for other symbols."""
_NATURAL = np.zeros(SIZE, dtype=np.int64)  # MIDI pitch of a symbol without its accidental
_WRITTEN = np.zeros(SIZE, dtype=np.int64)  # what its accidental adds
for _id, (_accidental, _letter, _octave) in PITCH_PARTS.items():
    STAFF[_id] = 7 * _octave + "CDEFGAB".index(_letter)
    _NATURAL[_id] = 12 * _octave + 12 + LETTER_SEMITONES[_letter]
    _WRITTEN[_id] = ACCIDENTALS[_accidental] if _accidental else 0
_PLAIN = np.array([i in PITCH_PARTS and not PITCH_PARTS[i][0] for i in range(SIZE)])
_LETTER = np.array(["CDEFGAB".index(PITCH_PARTS[i][1]) if i in PITCH_PARTS else 0 for i in range(SIZE)])


@functools.lru_cache(maxsize=1000)
def sounds(altered: tuple[int, ...]) -> np.ndarray:
    """(SIZE,) the MIDI pitch of each pitch symbol where the letters C to B are altered so; else a big number."""
    return np.where(IS_PITCH, _NATURAL + np.where(_PLAIN, np.array(altered)[_LETTER], _WRITTEN), 1000)


@functools.lru_cache(maxsize=1000)
def within(altered: tuple[int, ...], low: int, high: int, below: int) -> np.ndarray | None:
    """(SIZE,) bool: false for pitch symbols that would sound below `low`, or higher than `below` under `high`.

    None where there is no such symbol.
    """
    pitch = sounds(altered)
    found = ~IS_PITCH | ((low <= pitch) & (pitch <= high - below))
    return None if found.all() else found
