"""A score as a page shows it: tempo marks that a player can read, and drums without a rest after every stroke.

In comes a score, out goes another with the same onsets and pitches, for the page alone: what is heard stays as it is.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from musicgen.score import TICKS_PER_QUARTER, Part, Score, Tempo

HELD_BARS = 2
"""A tempo is printed if it holds for so many bars; one that leads on to the next is not."""


def for_page(score: Score) -> Score:
    """The score with steady tempos, in whole beats a minute, and with strokes of drums as long as they reach."""
    parts = tuple(_held(part, score) if part.is_drum and len(part.notes) else part for part in score.parts)
    return replace(score, parts=parts, tempos=_steady(score))


def _steady(score: Score) -> list[Tempo]:
    """The tempos that hold for a while. A performance, which never holds one, has that of its first bars."""
    length = max(score.length, 1)
    onsets = np.append(score.tempo_map.onsets, length)
    bar = length / len(score.bars)
    found = [
        Tempo(int(onset), round(tempo.bpm))
        for tempo, onset, stop in zip(score.tempos, onsets, onsets[1:], strict=False)
        if stop - onset >= HELD_BARS * bar or len(score.tempos) == 1
    ]
    if not found or found[0].onset:
        held = len(score.tempos) > 1 and score.tempos[1].onset >= (found[0].onset if found else length)
        until = int(min(length, score.bars[min(4, len(score.bars) - 1)] or length))
        seconds = score.seconds_at(until)
        mean = round(60 * until / TICKS_PER_QUARTER / seconds) if seconds else 120
        found.insert(0, Tempo(0, round(score.tempos[0].bpm) if held else max(1, mean)))
    return [tempo for i, tempo in enumerate(found) if i == 0 or tempo.bpm != found[i - 1].bpm]


def _held(part: Part, score: Score) -> Part:
    """A drum part whose strokes last to the next one, but no longer than a beat and not over the barline: a drum's
    sound has no end that anybody could read."""
    notes = part.notes.copy()
    onsets = np.unique(notes["onset"])
    stops = np.append(onsets[1:], score.length)
    bars = np.append(score.bars, score.length)
    lines = bars[np.searchsorted(bars, onsets, side="right").clip(max=len(bars) - 1)]
    beats = (onsets - score.bars[np.searchsorted(score.bars, onsets, side="right") - 1]) // TICKS_PER_QUARTER + 1
    beats = score.bars[np.searchsorted(score.bars, onsets, side="right") - 1] + beats * TICKS_PER_QUARTER
    reach = np.minimum(np.minimum(stops, lines), beats) - onsets
    notes["duration"] = np.maximum(reach[np.searchsorted(onsets, notes["onset"])], 1)
    return part.with_notes(notes)
