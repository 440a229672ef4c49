"""Where grace notes stand on a MusicXML page: on which staff, and before which voice's note or rest.

In come a part's grace notes and the notes around them; out comes, for each bar and staff, what is to be written where.
Grace notes have no length, so that a voice of their own is needed where every other sounds on.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import pairwise

from musicgen.formats.notation import Piece
from musicgen.formats.voices import Note
from musicgen.score import Part

GraceGroup = list[tuple[int, bool]]
"""The grace notes of one place, (pitch, slashed): one, or a chord."""


def group_graces(
    part: Part, staves: list[list[Note]], starts: list[int], end: int
) -> dict[tuple[int, int], dict[int, list[GraceGroup]]]:
    """(start of the bar, staff) -> onset -> grace notes by place; the staff whose notes there are nearest to them.

    staves: the part's notes by staff; starts: of the bars; end: of the last bar, in ticks. Graces after the last
    bar are written at its end.
    """
    found: dict[int, dict[int, GraceGroup]] = {}
    for onset, place, pitch, slashed in part.graces.tolist():
        found.setdefault(min(onset, end), {}).setdefault(place, []).append((pitch, slashed))
    made: dict[tuple[int, int], dict[int, list[GraceGroup]]] = {}
    for onset, places in found.items():
        groups = list(places.values())
        near: list[tuple[int, int]] = []
        for staff, notes in enumerate(staves):
            first = bisect_left(notes, (onset,))
            last = bisect_left(notes, (onset + 1,))
            near += [(abs(n[2] - groups[-1][0][0]), staff) for n in notes[first:last]]
        middle = int(groups[-1][0][0] < 60 and len(staves) > 1)
        bar = starts[max(bisect_right(starts, onset) - 1, 0)]
        made.setdefault((bar, min(near)[1] if near else middle), {})[onset] = groups
    return made


def place_graces(graces: dict[int, list[GraceGroup]], laid: list, spare: int, start: int, end: int) -> dict[int, int]:
    """Place in the bar -> number of the voice whose note or rest the grace notes there stand before.

    Where every voice sounds on, they get a further voice (number `spare`) that is added to `laid`.
    """
    homes: dict[int, int] = {}
    alone: list[int] = []
    for place, groups in graces.items():
        if place >= end:
            homes[place] = laid[0][0]
            continue
        last = groups[-1][0][0]
        near = [
            (min((abs(note[2] - last) for note in notes), default=128) if notes else 128, number)
            for number, pieces in laid
            for piece, notes in pieces
            if piece.start == place and piece.type != "gap"
        ]
        if near:
            homes[place] = min(near)[1]
        else:
            homes[place] = spare
            alone.append(place)
    if alone:
        bounds = sorted({start, *alone, end})
        laid.append((spare, [(Piece(a, b, "gap"), None) for a, b in pairwise(bounds)]))
    return homes
