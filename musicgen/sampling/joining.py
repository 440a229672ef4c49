"""A fragment and its continuation joined in one score: whose the new notes are, and how metre, key and tempo go on."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from musicgen.score import Key, Metre, Score, Sign, Tempo, TempoMap
from musicgen.score.score import MINOR_MODES

SAME_TEMPO = 0.03
"""A tempo so near to the one before it is the same: a vocabulary has steps of 6%."""

Changes = tuple[list[Metre], list[Key], list[Tempo]]
"""What metre, key and tempo become from the seam on."""


def changes_from(decoded: Score, since: int, shift: int) -> Changes:
    """The changes of metre, key and tempo of a decoded score from its tick `since` on, moved by `shift` ticks."""

    def later(events: Iterable[Any]) -> list[Any]:
        return [replace(event, onset=event.onset + shift) for event in events if event.onset >= max(since, 1)]

    return later(decoded.metres), later(decoded.keys), later(decoded.tempos)


def join_up(
    fragment: Score,
    new: Sequence[np.ndarray],
    bars: np.ndarray,
    length: int,
    signs: tuple[Sign, ...],
    said: Changes = ([], [], []),
) -> tuple[Score, Score]:
    """(fragment and continuation, continuation alone) from the new notes of each part, and the bars of both.

    said: what changes from the seam on; metres and keys do so at the next barline, those that come too late do not.
    """
    length = max(length, fragment.length)
    metres, keys, tempos = said
    barlines = bars[bars >= fragment.length]
    whole = replace(
        fragment,
        parts=tuple(
            part.with_notes(np.concatenate([part.notes, notes]))
            for part, notes in zip(fragment.parts, new, strict=True)
        ),
        tempos=TempoMap.of(_and_then(fragment.tempos, [t for t in tempos if t.onset < length])),
        metres=tuple(_and_then(fragment.metres, _at_barlines(metres, barlines))),
        keys=tuple(_and_then(fragment.keys, _at_barlines(keys, barlines))),
        bars=bars,
        length=length,
        signs=signs,
    )
    only = replace(whole, parts=tuple(p.with_notes(notes) for p, notes in zip(fragment.parts, new, strict=True)))
    return whole, only


def _at_barlines(events: Iterable[Any], barlines: np.ndarray) -> list[Any]:
    """The events moved to the next barline, those after the last left out."""
    places = [(int(np.searchsorted(barlines, event.onset)), event) for event in events]
    return [replace(event, onset=int(barlines[i])) for i, event in places if i < len(barlines)]


def _and_then(before: Sequence[Any], after: Sequence[Any]) -> Sequence[Any]:
    """A map and the changes that follow it: of two at one tick the later holds; what changes nothing is left out."""
    if not after:
        return before
    found = list(before)
    for event in after:
        while len(found) > 1 and found[-1].onset >= event.onset:
            found.pop()
        if not _goes_on(found[-1], event):
            found.append(event)
    return found


def _goes_on(before: Any, after: Any) -> bool:
    """Whether a metre, key or tempo is the one before it, as near as a vocabulary can say it."""
    if isinstance(after, Tempo):
        return abs(math.log(after.bpm / before.bpm)) < math.log(1 + SAME_TEMPO)
    if isinstance(after, Key):
        return before.fifths == after.fifths and (before.mode in MINOR_MODES) == (after.mode in MINOR_MODES)
    return replace(before, onset=after.onset) == after


def share_out(
    notes: np.ndarray, ranges: Mapping[int, tuple[int, int]], wanted: Collection[int], drums: bool = False
) -> dict[int, np.ndarray]:
    """The notes of parts that the model takes for one: part -> its own, each in its range.

    ranges: part -> the pitches that it may play. Chords are dealt out in the order of pitches, single notes go to the
    part whose range they fit best, and what lies outside moves by octaves; of drums every part has its own keys, and
    others are left out. One of the `wanted` that comes away empty doubles, of each chord, the note nearest to it.
    """
    if len(ranges) == 1:
        return dict.fromkeys(ranges, notes)
    parts = sorted(ranges, key=lambda part: sum(ranges[part]))
    dealt: dict[int, list[int]] = {part: [] for part in parts}
    _, begins = np.unique(notes["onset"], return_index=True)
    chords = [chord.tolist() for chord in np.split(np.arange(len(notes)), begins[1:])]  # by onset, then by pitch
    for chord in chords:
        for place, note in enumerate(chord):
            pitch = int(notes["pitch"][note])
            best = min(parts, key=lambda part: _strain(pitch, *ranges[part]))
            dealt[best if drums or len(chord) == 1 else parts[place * len(parts) // len(chord)]].append(note)
    for part in parts:
        if not dealt[part] and part in wanted:
            strain = [_strain(int(pitch), *ranges[part]) for pitch in notes["pitch"]]
            dealt[part] = [min(chord, key=strain.__getitem__) for chord in chords]
    return {part: _within(notes[dealt[part]], *ranges[part], drums) for part in parts}


def _strain(pitch: int, low: int, high: int) -> tuple[int, float]:
    """How far a pitch lies outside a range, and how far from its middle."""
    return max(low - pitch, pitch - high, 0), abs(pitch - (low + high) / 2)


def _within(notes: np.ndarray, low: int, high: int, drums: bool) -> np.ndarray:
    """Notes moved into a range by octaves, drums not at all; what does not fit is left out, and so are doubles."""
    notes = notes.copy()
    if not drums:
        below, above = np.maximum(low - notes["pitch"], 0), np.maximum(notes["pitch"] - high, 0)
        notes["pitch"] += 12 * (-(-below // 12) - -(-above // 12)).astype(notes["pitch"].dtype)
    notes = notes[(notes["pitch"] >= low) & (notes["pitch"] <= high)]
    _, first = np.unique(notes[["onset", "pitch"]], return_index=True)
    return notes[first]
