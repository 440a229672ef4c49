"""The chord that a piece closes on: what it is, and which voice has its root lowest.

A cursor with an Ending lets its last bar be nothing but the tonic chord, struck once and held to the end, with the root
in the lowest voice. A model bends no probability for it: what does not belong there is masked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from musicgen.score import Score
from musicgen.score.tonality import find_tonality

LOWER, HIGHER = 1 / 4, 1 / 32
"""How far a note draws the usual low pitch of its part down or up, as share of the way to it."""


@dataclass(frozen=True)
class Ending:
    """The tonic as pitch class (0 is C), and the pitch classes of its chord: root, third, fifth."""

    tonic: int
    triad: tuple[int, int, int]

    @classmethod
    def of(cls, score: Score) -> Ending:
        """The tonic chord of a fragment. C where it has drums only, whose keys no chord binds."""
        found = find_tonality(score)
        return cls(0, (0, 4, 7)) if found is None else cls(found.tonic, found.triad)

    @cached_property
    def tones(self) -> np.ndarray:
        """(128,) bool: MIDI pitches that belong to the chord."""
        return np.isin(np.arange(128) % 12, self.triad)

    def __contains__(self, pitch: int) -> bool:
        """Whether a MIDI pitch belongs to the chord."""
        return pitch >= 0 and pitch % 12 in self.triad

    def within(self, low: int, high: int) -> np.ndarray:
        """(128,) bool: its pitches from `low` to `high`; where none lies there, those nearest to one. Never empty."""
        found = np.zeros(128, dtype=bool)
        found[low : high + 1] = self.tones[low : high + 1]
        if not found.any():
            pitches = np.arange(low, high + 1)
            away = np.abs(pitches[:, None] - np.flatnonzero(self.tones)).min(axis=1)
            found[pitches[away == away.min()]] = True
        return found

    def root(self, ranges: Mapping[int, tuple[int, int]], usual: Mapping[int, float]) -> tuple[int, int] | None:
        """(voice, MIDI pitch) of the lowest note of the chord: the root, in the voice that usually lies lowest.

        ranges: lowest and highest pitch of each voice that sounds; usual: its `usual_low`, the middle of its range if
        left out. Of a voice's roots it is the nearest to that pitch that leaves all others a tone not below it; a voice
        that has none leaves it to the next higher. None where nobody has one.
        """
        places = {voice: usual.get(voice, (low + high) / 2) for voice, (low, high) in ranges.items()}
        tops = {voice: int(np.flatnonzero(self.within(*compass))[-1]) for voice, compass in ranges.items()}
        for voice in sorted(places, key=lambda v: (places[v], v)):
            low, high = ranges[voice]
            high = min([high, *(top for other, top in tops.items() if other != voice)])
            roots = [pitch for pitch in range(low, high + 1) if pitch % 12 == self.tonic]
            if roots:
                return voice, min(roots, key=lambda pitch: abs(pitch - places[voice]))
        return None

    def who_has_the_third(self, tones: Mapping[int, np.ndarray], usual: Mapping[int, float]) -> int | None:
        """The voice that is to strike the third, so that three or more make a chord and not a root and a fifth.

        tones: of each voice that sounds but the one with the root, (128,) bool, what it may strike; usual: where it
        lies. The middle one of those that can; None where there is one other voice at most, or none that can.
        """
        able = [voice for voice, possible in tones.items() if len(tones) > 1 and (possible & self.thirds).any()]
        middle = {v: usual.get(v, float(np.flatnonzero(tones[v]).mean())) for v in able}
        able.sort(key=lambda voice: (middle[voice], voice))
        return able[len(able) // 2] if able else None

    @cached_property
    def thirds(self) -> np.ndarray:
        """(128,) bool: MIDI pitches that are its third."""
        return np.arange(128) % 12 == self.triad[1]


def usual_low(before: float | None, pitch: int) -> float:
    """Where the lower notes of a part lie of late, as MIDI pitch, after one more note: about its lower quarter.

    That is its left hand where it is a piano's. (An expectile, tracked.) before: the same before that note, if any.
    """
    if before is None:
        return float(pitch)
    return before + (pitch - before) * (LOWER if pitch < before else HIGHER)
