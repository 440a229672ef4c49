"""What the steps of Irish tunes are made of: the first symbols, the keys and their signatures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

START, END, BYTES = 1, 2, 3
FIRST_NAMED = BYTES + 256
LETTERS = "CDEFGAB"
LOWEST, HIGHEST = -16, 24
"""Degrees, in steps of the staff from the tonic that lies between D4 and C5."""
TONICS = ("C", "C#", "Db", "D", "Eb", "E", "F", "F#", "Gb", "G", "Ab", "A", "Bb", "B")
MODES = {"Major": 0, "Minor": -3, "Dorian": -2, "Mixolydian": -1, "Phrygian": -4, "Lydian": 1}
"""Mode -> fifths between its signature and that of the major key of the same tonic."""
FIFTHS = {"C": 0, "D": 2, "E": 4, "F": -1, "G": 1, "A": 3, "B": 5}
SIGNS = {"^": 1, "=": 0, "_": -1}


@dataclass(frozen=True)
class Key:
    """A key as a header names it: "D Mixolydian"."""

    tonic: str
    mode: str

    @property
    def text(self) -> str:
        return f"{self.tonic} {self.mode}\n"

    @property
    def base(self) -> int:
        """The staff position of the tonic from D4 to C5; C0 is 0."""
        letter = LETTERS.index(self.tonic[0])
        return 28 + letter + (7 if letter == 0 else 0)

    @property
    def fifths(self) -> int:
        accidental = self.tonic.count("#") - self.tonic[1:].count("b")
        return FIFTHS[self.tonic[0]] + 7 * accidental + MODES[self.mode]

    def altered(self, letter: int) -> int:
        """What the signature does to a letter (0 is C): semitones."""
        order = (LETTERS.index("F") + 4 * np.arange(7)) % 7  # F C G D A E B
        place = int(np.flatnonzero(order == letter)[0])
        return int(self.fifths > place) - int(-self.fifths > 6 - place)


KEYS = tuple(Key(tonic, mode) for tonic in TONICS for mode in MODES)
PLAIN_KEY = Key("C", "Major")


def moved(tonic: str, to: str) -> tuple[int, int]:
    """(fifths, letters) from one tonic to another."""
    fifths = [FIFTHS[t[0]] + 7 * (t.count("#") - t[1:].count("b")) for t in (tonic, to)]
    return fifths[1] - fifths[0], (LETTERS.index(to[0]) - LETTERS.index(tonic[0])) % 7
