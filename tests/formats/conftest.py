"""What tests of filled scores need: real music moved into the hole, so that no model is needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from musicgen.score import Score


def _pasted(score: Score, first: int, until: int, source: int, parts: tuple[int, ...] | None = None) -> Score:
    """The score with the notes of bars first..until-1 (from 0) replaced by those that begin in bar `source` and after.

    They are cut where the hole ends, and what would strike a pitch that is still held over from before is left out.
    parts: those in which that happens, all if None.
    """
    edges = [*score.bars.tolist(), score.length]
    start, stop, since = edges[first], edges[until], edges[source]
    made = []
    for index, part in enumerate(score.parts):
        if parts is not None and index not in parts:
            made.append(part)
            continue
        notes = part.notes
        kept = notes[(notes["onset"] < start) | (notes["onset"] >= stop)]
        new = notes[(notes["onset"] >= since) & (notes["onset"] < since + stop - start)].copy()
        new["onset"] += start - since
        new["duration"] = np.minimum(new["duration"], stop - new["onset"])
        held = {int(n["pitch"]): int(n["onset"] + n["duration"]) for n in kept if n["onset"] < start}
        new = new[np.array([held.get(int(n["pitch"]), 0) <= n["onset"] for n in new], dtype=bool)]
        graces = part.graces[(part.graces["onset"] < start) | (part.graces["onset"] >= stop)]
        made.append(replace(part, notes=np.concatenate([kept, new]), graces=graces))
    return replace(score, parts=tuple(made))


def _as_read(original: Score, whole: Score, first: int, until: int) -> list[Counter]:
    """The notes of each part of a filled score as they are read again: what is left behind the hole of a note that was
    tied out of it is struck there."""
    edges = [*original.bars.tolist(), original.length]
    start, stop = edges[first], edges[until]
    found = []
    for before, now in zip(original.parts, whole.parts, strict=True):
        notes = Counter(now.notes[["onset", "duration", "pitch"]].tolist())
        if not np.array_equal(before.notes, now.notes):
            for onset, duration, pitch, _ in before.notes.tolist():
                if start <= onset < stop < onset + duration:
                    notes[stop, onset + duration - stop, pitch] += 1
        found.append(notes)
    return found


@pytest.fixture
def pasted() -> Callable[..., Score]:
    return _pasted


@pytest.fixture
def as_read() -> Callable[..., list[Counter]]:
    return _as_read
