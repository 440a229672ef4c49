"""Which staff and which voice a note is written in: parts whose notes overlap, laid out for the page.

In comes a part, out come staves of events; what an event's length looks like is `notation`'s business.
"""

from __future__ import annotations

from itertools import pairwise

from musicgen.formats.instruments import GRAND_STAFF
from musicgen.score import Part, Score

MAX_VOICES = 4
"""Voices a staff: what notation programs hold."""

Note = tuple[int, int, int, int]
"""(onset, end, pitch, velocity)."""
Event = tuple[int, int, list[Note]]
"""What one voice does from start to end: a note, a chord, or part of a longer one."""


def split_staves(part: Part, score: Score) -> list[list[Note]]:
    """A part's notes on one staff, or for a wide keyboard on two: parted bar by bar at the widest gap near middle C."""
    notes = [(int(o), int(o) + int(d), int(p), int(v)) for o, d, p, v in part.notes.tolist()]
    pitches = part.notes["pitch"]
    if part.is_drum or part.program not in GRAND_STAFF or not len(notes):
        return [notes]
    if int(pitches.min()) >= 53 or int(pitches.max()) <= 64:
        return [notes]
    upper: list[Note] = []
    lower: list[Note] = []
    for i, start in enumerate(score.bars.tolist()):
        end = score.bars[i + 1] if i + 1 < len(score.bars) else score.length
        first, last = part.notes["onset"].searchsorted([start, end])
        near = sorted({52, 68, *(p for p in pitches[first:last].tolist() if 52 < p < 68)})
        gaps = [(b - a, -abs(a + b - 120), (a + b + 1) // 2) for a, b in pairwise(near)]
        cut = max(gaps)[2]
        for note in notes[first:last]:
            (upper if note[2] >= cut else lower).append(note)
    return [upper, lower]


def assign_voices(notes: list[Note]) -> list[tuple[int, Event]]:
    """Chords (one onset and end) in order of time, each with the first free voice from 0; the higher chord first."""
    chords: dict[tuple[int, int], list[Note]] = {}
    for note in notes:
        chords.setdefault((note[0], note[1]), []).append(note)
    free_at: list[int] = []
    placed = []
    for (onset, end), chord in sorted(chords.items(), key=lambda c: (c[0][0], -max(n[2] for n in c[1]))):
        voice = next((v for v, free in enumerate(free_at) if free <= onset), len(free_at))
        if voice == len(free_at):
            free_at.append(0)
        free_at[voice] = end
        placed.append((voice, (onset, end, sorted(chord, key=lambda n: n[2]))))
    return placed


def chordify(events: list[Event]) -> list[list[Event]]:
    """Overlapping events as one voice of tied chords, cut wherever anything begins or ends.

    A pitch that sounds twice at once goes into a further voice: one chord can't tie it to two notes.
    """
    layers: list[list[tuple[int, int, Note]]] = []
    for start, end, notes in sorted(events, key=lambda e: e[0]):
        for note in notes:
            for layer in layers:
                if not any(n[2] == note[2] and s < end and start < e for s, e, n in layer):
                    layer.append((start, end, note))
                    break
            else:
                layers.append([(start, end, note)])
    voices = []
    for layer in layers:
        bounds = sorted({t for start, end, _ in layer for t in (start, end)})
        line = []
        for start, end in pairwise(bounds):
            active = sorted((n for s, e, n in layer if s <= start and e >= end), key=lambda n: n[2])
            if active:
                line.append((start, end, active))
        voices.append(line)
    return voices
