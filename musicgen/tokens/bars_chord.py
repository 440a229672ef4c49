"""The chord that a piece of the `bars` tokenizer closes on, while it is struck: who plays, what, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from musicgen.tokens.bars_vocabulary import (
    DRUM,
    DURATIONS,
    END,
    INSTRUMENT,
    PART_FIELD,
    PITCH,
    PITCH_FIELD,
    POSITION,
    USUAL_RANGES,
    duration_class,
    is_drum,
)
from musicgen.tokens.ending import Ending

if TYPE_CHECKING:
    from musicgen.tokens.bars_grammar import BarsCursor

CHORD_NOTES = 4
"""Notes that one part plays of the chord that closes a piece, at most."""
STILL_PLAYING = 2
"""Who has played in so many bars before the last plays the chord that closes the piece."""


class ClosingChord:
    """The last bar of a piece with an ending: what may still come of its chord.

    All strike it together, as soon as there is room in the bar, and hold it to the end: those who have played of late
    or were to play and have not, and who else of the roster will. The root lies lowest; of three or more, one in the
    middle has the third, so that it is a chord.
    """

    def __init__(self, cursor: BarsCursor, ending: Ending) -> None:
        self.cursor = cursor
        first = max(cursor.position, cursor.not_before)
        self.place = first + (first == cursor.position and cursor.last[0] >= INSTRUMENT)
        self.room = cursor.bar_units - self.place
        self.struck: dict[int, int] = {}  # part -> its notes of the chord so far
        since = cursor.bar - STILL_PLAYING
        due = {part for part in cursor.roster if part in cursor.must_play or cursor.played.get(part, -1) >= since}
        ranges = {part: cursor.ranges.get(part) or USUAL_RANGES[part] for part in cursor.roster}
        pitched = [part for part in cursor.roster if not is_drum(part)]
        sounding = [part for part in pitched if part in due] or pitched
        self.root = ending.root({part: ranges[part] for part in sounding}, cursor.usual)
        if self.root is not None:
            due.add(self.root[0])
        self.due = sorted(due)  # who must still strike
        self.tones: dict[int, np.ndarray] = {}  # part -> (size of pitch,) bool: what it may play
        self.first: dict[int, np.ndarray] = {}  # the same of its first note, where that is settled
        for part, (low, high) in ranges.items():
            tones = np.zeros(PITCH_FIELD.size, dtype=bool)
            if is_drum(part):
                tones[DRUM + low : DRUM + high + 1] = True
            else:
                tones[PITCH : PITCH + 128] = ending.within(low, high)
                if self.root is not None:
                    tones[: PITCH + self.root[1]] = False
            self.tones[part] = tones
        others = {p: self.tones[p][PITCH : PITCH + 128] for p in pitched if p in due and p != (self.root or (0,))[0]}
        third = ending.who_has_the_third(others, cursor.usual)
        if third is not None:
            self.first = {third: np.zeros(PITCH_FIELD.size, dtype=bool)}
            self.first[third][PITCH : PITCH + 128] = others[third] & ending.thirds
        else:  # who joins in of himself brings it
            for part in pitched:
                tones = self.tones[part][PITCH : PITCH + 128] & ending.thirds
                if part not in due and tones.any():
                    self.first[part] = np.zeros(PITCH_FIELD.size, dtype=bool)
                    self.first[part][PITCH : PITCH + 128] = tones

    def take(self, part: int) -> None:
        """A part has struck a note of the chord."""
        self.struck[part] = self.struck.get(part, 0) + 1
        if part in self.due:
            self.due.remove(part)

    def allow(self, mask: np.ndarray, chosen: Sequence[int]) -> None:
        """Fill the mask of field number len(chosen), which is not the velocity."""
        if not chosen:
            more = self.room > 0 and bool(self._players())
            if more:
                mask[POSITION + self.place] = True
            mask[END] = not (more and self.due)
        elif chosen[0] == END:
            mask[0] = True
        elif len(chosen) == 1:
            mask[self._players()] = True
        elif len(chosen) == 2:
            part = chosen[1]
            if part in self.struck:
                above = self.cursor.last[1] + 1
                mask[above:] = self.tones[part][above:]
            elif self.root is not None and part == self.root[0]:
                mask[PITCH + self.root[1]] = True
            else:
                mask |= self.first.get(part, self.tones[part])
        elif is_drum(chosen[1]):
            mask[1:] = DURATIONS[1:] <= self.room
        else:
            mask[duration_class(self.room, round_down=True)] = True

    def _players(self) -> list[int]:
        """Who may strike next: parts in their order, none passed over that must, each a few notes at most."""
        part, pitch = self.cursor.last if self.struck else (0, 0)
        upto = self.due[0] if self.due else PART_FIELD.size
        players = [member for member in self.cursor.roster if part < member <= upto and self.tones[member].any()]
        if (
            part
            and self.struck[part] < min(CHORD_NOTES, self.cursor.most.get(part, CHORD_NOTES))
            and self.tones[part][pitch + 1 :].any()
        ):
            players.append(part)
        return players
