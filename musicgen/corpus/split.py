"""Which pieces are held out for validation: the same music, or nearly the same, is never on both sides.

Two pieces are the same where their notes agree in any key (`fingerprint`): the second is left out of the corpus. They
are nearly the same where their melodies agree in at least half of their turns (`melody_sketch`): another setting of a
tune, a transposed arrangement, a movement with other ornaments. Those make a group, and a group stays on one side.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from musicgen.score import Score

TURN = 12
"""Intervals in a row that are compared at once."""

PLAIN = 4
"""Turns with fewer different intervals are left out: scales, trills and repeated notes are in all music."""

SKETCH = 32
"""Numbers kept of a melody: enough to tell half alike from a third alike."""

ALIKE = 0.5
"""Share of common turns (Jaccard's, as estimated from the sketches) from which on two pieces are nearly the same."""

COMMON = 100
"""Of a turn that more pieces than this share, only the first is held against each of the others."""


def fingerprint(score: Score) -> str:
    """The same for the same notes in any key: a hash of all onsets, durations and intervals, drums by their keys."""
    found = hashlib.sha256()
    for is_drum in (False, True):
        blocks = [part.notes for part in score.parts if part.is_drum == is_drum and len(part.notes)]
        if not blocks:
            continue
        notes = np.concatenate(blocks)
        notes = notes[np.lexsort((notes["duration"], notes["pitch"], notes["onset"]))]
        pitch = notes["pitch"] if is_drum else np.diff(notes["pitch"], prepend=notes["pitch"][:1])
        found.update(b"drums" if is_drum else b"pitched")
        found.update(np.stack([notes["onset"], notes["duration"], pitch], axis=1).astype("<i4").tobytes())
    return found.hexdigest()[:32]


def melody_sketch(score: Score) -> np.ndarray:
    """(SKETCH,) uint32: the smallest hashes of the melody's turns, the same in every key and rhythm; 0 where fewer.

    The melody is the highest note at each onset. Two sketches tell the share of turns in common (Broder 1997). A melody
    without a turn worth the name is one turn as a whole.
    """
    sketch = np.zeros(SKETCH, dtype=np.uint32)
    blocks = [part.notes[["onset", "pitch"]] for part in score.parts if not part.is_drum and len(part.notes)]
    if not blocks:
        return sketch
    notes = np.concatenate(blocks)
    notes = notes[np.lexsort((notes["pitch"], notes["onset"]))]
    top = notes["pitch"][np.append(notes["onset"][1:] != notes["onset"][:-1], True)].astype(np.int64)
    intervals = np.diff(top)
    turns = np.lib.stride_tricks.sliding_window_view(intervals, min(TURN, max(len(intervals), 1)))
    ordered = np.sort(turns, axis=1)
    turns = turns[(ordered[:, 1:] != ordered[:, :-1]).sum(axis=1) + 1 >= PLAIN]
    if not len(turns):  # short, or plain all through: it is known as a whole
        turns = intervals[None, :]
    hashes = np.zeros(len(turns), dtype=np.uint64)
    for column in turns.T:
        hashes = (hashes ^ (column + 128).astype(np.uint64)) * np.uint64(0x100000001B3)  # FNV-1a
    hashes ^= hashes >> np.uint64(29)
    smallest = np.unique((hashes * np.uint64(0xBF58476D1CE4E5B9)) >> np.uint64(32)).astype(np.uint32)
    smallest = smallest[smallest > 0][:SKETCH]
    sketch[: len(smallest)] = smallest
    return sketch


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Share of turns in common, 0..1, estimated from two sketches."""
    a, b = set(one[one > 0].tolist()), set(other[other > 0].tolist())
    both = sorted(a | b)[:SKETCH]
    return sum(h in a and h in b for h in both) / len(both) if both else 0.0


def groups_of(sketches: np.ndarray) -> np.ndarray:
    """(P,) int64: for each of P pieces the index of the first piece of its group, itself where it is alone."""
    pieces_with: dict[int, list[int]] = defaultdict(list)
    for piece, sketch in enumerate(sketches):
        for value in sketch[sketch > 0].tolist():
            pieces_with[value].append(piece)
    shared: set[tuple[int, int]] = set()
    for pieces in pieces_with.values():
        shared.update(combinations(pieces, 2) if len(pieces) <= COMMON else ((pieces[0], p) for p in pieces[1:]))
    group = np.arange(len(sketches))

    def root(piece: int) -> int:
        while group[piece] != piece:
            piece = int(group[piece])
        return piece

    for one, other in sorted(shared):
        first, second = sorted((root(one), root(other)))
        if first != second and likeness(sketches[one], sketches[other]) >= ALIKE:
            group[second] = first
    return np.array([root(piece) for piece in range(len(sketches))], dtype=np.int64)


def split_places(fingerprints: Sequence[str], groups: np.ndarray) -> list[float]:
    """Each piece's place in the order of the split, 0..1, by hashes of the music; a group's pieces are neighbours."""
    of_group: dict[int, str] = {}
    for group, name in zip(groups.tolist(), fingerprints, strict=True):
        of_group[group] = min(of_group.get(group, name), name)
    hashes = {name: hashlib.sha256(f"split {name}".encode()).hexdigest() for name in of_group.values()}
    order = sorted(range(len(fingerprints)), key=lambda i: (hashes[of_group[int(groups[i])]], fingerprints[i]))
    places = [0.0] * len(fingerprints)
    for place, piece in enumerate(order):
        places[piece] = place / len(fingerprints)
    return places
