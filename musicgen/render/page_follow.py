"""What a page needs to follow the playing: which second is where on the clock, in the roll and in the engraved score.

In come a score as it is played, and where it is written; out come short lists for the page's script. A page of an
orchestra has thousands of moments, so they are plain numbers and texts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from musicgen.render.engraving import Moment
from musicgen.score import TICKS_PER_QUARTER, Score

Stretch = tuple[int, int, int]
"""(played from, played to, written from) in ticks, see `score.written_of_played`."""

Cue = tuple[float, str, str, str]
"""From this second: ids of notes that begin, ids of notes that stop, each with spaces between, and the bar's id."""

MOST_TEMPI = 2_000
"""Beyond which changes of tempo inside a bar are left out of the clock: a performance has one a beat."""


def clock_of(score: Score) -> list[tuple[float, float]]:
    """(second, share of the score's ticks 0..1) where bars and tempi begin, and at the end; between them, in line."""
    length = max(score.length, 1)
    tempi = score.tempo_map.onsets
    ticks = np.concatenate([score.bars, tempi if len(tempi) <= MOST_TEMPI else tempi[:1], [length]])
    ticks = np.unique(ticks[ticks <= length])
    return [(round(s, 3), round(t, 6)) for s, t in zip(score.seconds_at(ticks), (ticks / length).tolist(), strict=True)]


def bars_of(
    score: Score, written_of: Sequence[Stretch] | None = None, moments: Sequence[Moment] = ()
) -> list[tuple[float, int]]:
    """(second, number from 1) of each bar as it is played; numbers are those of the written bars where repeats are."""
    seconds = score.seconds_at(score.bars.astype(np.int64)).tolist()
    numbers = list(range(1, len(seconds) + 1))
    if written_of and moments:
        starts = np.array([round(m.quarters * TICKS_PER_QUARTER) for m in moments])
        for place, tick in enumerate(score.bars.tolist()):
            written = next((w + tick - a for a, b, w in written_of if a <= tick < b), tick)
            numbers[place] = moments[max(int(np.searchsorted(starts, written, side="right")) - 1, 0)].bar + 1
    return [(round(second, 3), number) for second, number in zip(seconds, numbers, strict=True)]


def cues_of(score: Score, moments: Sequence[Moment], written_of: Sequence[Stretch] | None = None) -> list[Cue]:
    """A cue for each moment of the engraved score, in the order in which they are played.

    score: as played. written_of: its stretches; None: it is played as it is written. What still sounds where a stretch
    ends, or the score, stops there.
    """
    onsets = [round(m.quarters * TICKS_PER_QUARTER) for m in moments]
    cues: list[Cue] = []
    sounding: dict[str, None] = {}
    for played, played_to, written in written_of or [(0, max(score.length, 1), 0)]:
        first = True
        for onset, moment in zip(onsets, moments, strict=True):
            if not written <= onset < written + played_to - played:
                continue
            stopped = [i for i in (sounding if first else moment.stopped) if i in sounding]
            first = False
            for name in stopped:
                del sounding[name]
            sounding.update(dict.fromkeys(moment.ids))
            second = round(score.seconds_at(played + onset - written), 3)
            cues.append((second, " ".join(moment.ids), " ".join(stopped), moment.bar_id))
    if cues and sounding:
        cues.append((round(score.seconds_at(score.length), 3), "", " ".join(sounding), cues[-1][3]))
    return cues
