"""Which note is home: the tonic and the mode of the music, from its notes and the signature it is written in.

In comes a score and a place in it, out comes the tonality there. A signature alone does not say whether B minor or D
major is meant, and most MIDI files have none; the notes say it: how long each pitch class sounds is compared with what
is usual in each key (Krumhansl 1990, with the profiles of Albrecht & Shanahan 2013, which were counted from scores).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from musicgen.score.score import MINOR_MODES, MODE_FIFTHS, Score

PROFILES = np.array(
    [
        [0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081],  # major
        [0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052],  # minor
    ]
)
"""Share of each pitch class above the tonic, (major and minor, 12). Albrecht & Shanahan 2013, table 2."""
TONICS = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
WRITTEN = 0.25
"""By so much must another key fit the notes better (as correlation), or the signature is believed."""
RELATIVE = 0.15
"""The same for the other key that the signature can mean: D major for B minor."""


@dataclass(frozen=True)
class Tonality:
    """A tonic, as pitch class (0 is C), and whether its third is minor."""

    tonic: int
    minor: bool

    @property
    def name(self) -> str:
        return f"{TONICS[self.tonic]} {'minor' if self.minor else 'major'}"

    @property
    def triad(self) -> tuple[int, int, int]:
        """Pitch classes of the tonic chord: root, third, fifth."""
        return self.tonic, (self.tonic + (3 if self.minor else 4)) % 12, (self.tonic + 7) % 12


def pitch_class_lengths(score: Score, start: int = 0, stop: int | None = None) -> np.ndarray:
    """(12,) float64: ticks that each pitch class sounds between two ticks, drums left out."""
    stop = score.length if stop is None else stop
    lengths = np.zeros(12)
    for part in score.parts:
        if not part.is_drum:
            notes = part.notes
            begins = np.maximum(notes["onset"], start)
            ends = np.minimum(notes["onset"] + notes["duration"], stop)
            np.add.at(lengths, notes["pitch"] % 12, np.maximum(ends - begins, 0))
    return lengths


def find_tonality(score: Score, at: int | None = None) -> Tonality | None:
    """The tonality at tick `at` (None: the end), from the notes since the signature last changed; None without notes.

    The home key of what is in force there, not the passing one: a development in G is still in C. Where the signature
    fits the notes about as well as any other, it is believed, and the notes choose among the two keys it can mean.
    """
    at = score.length if at is None else at
    written = score.key_at(max(at - 1, 0))
    lengths = pitch_class_lengths(score, written.onset, at)
    if not lengths.any():
        lengths = pitch_class_lengths(score, 0, at)
    if not lengths.any():
        return None
    profiles = np.stack([np.roll(profile, tonic) for profile in PROFILES for tonic in range(12)])  # (24, 12)
    even = lengths.std() == 0  # all twelve alike: then the signature alone decides
    fits = np.zeros(24) if even else np.corrcoef(np.vstack([profiles, lengths]))[-1, :-1]  # (24,)
    home = (7 * (written.fifths + MODE_FIFTHS[written.mode])) % 12
    minor = written.mode in MINOR_MODES
    fits[12 * minor + home] += WRITTEN
    relative = (home + (3 if minor else 9)) % 12
    fits[12 * (not minor) + relative] += RELATIVE
    best = int(fits.argmax())
    return Tonality(best % 12, best >= 12)
