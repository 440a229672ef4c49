"""A cursor that sees to it that parts which join in are heard, and not in the closing chord alone.

In comes which parts are to come in, by value of the field `part`; each then plays within the first bars after the seam,
and is never silent for long after that. What it plays, and where in the bar, is the model's to say: its turn is kept,
as the notes of one onset are sorted by part, and the bar is not left before it has taken it. A model that has read
forty bars without a trombone would often leave it out to the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from musicgen.tokens.bars_grammar import BarsCursor
from musicgen.tokens.bars_vocabulary import BAR, END, INSTRUMENT, POSITION

ENTERS_WITHIN = 4
"""New bars, in the last of which at the latest a part that joins in plays its first note."""
SILENT_AT_MOST = 8
"""Bars that it may be silent from then on, at most; but for the last bar, which has its own rule."""


class EnteringCursor(BarsCursor):
    """A BarsCursor with parts that are `entering`, once `enter` was called at the seam."""

    def __init__(self, bars: int | None = None) -> None:
        super().__init__(bars)
        self.deadlines: dict[int, int] = {}  # part -> the bar by which it is to play

    def enter(self, parts: Iterable[int], seam_is_barline: bool) -> None:
        """From here on these parts of the roster play. seam_is_barline: the bar at hand is full, and none of it new."""
        self.deadlines = dict.fromkeys(parts, self.bar + ENTERS_WITHIN - (not seam_is_barline))

    def advance(self, step: Sequence[int]) -> None:
        super().advance(step)
        part = int(step[1])
        if part in self.deadlines:
            self.deadlines[part] = self.bar + SILENT_AT_MOST + 1

    def allowed(self, chosen: Sequence[int]) -> np.ndarray:
        mask = super().allowed(chosen)
        if len(chosen) > 1 or self.metre_due or self.bar == self.bars or (chosen and chosen[0] < POSITION):
            return mask
        due = [part for part, bar in self.deadlines.items() if self.bar >= bar and part in self.roster]
        if due:
            (self._keep_part if chosen else self._keep_place)(mask, due)
        return mask

    def _keep_place(self, mask: np.ndarray, due: Sequence[int]) -> None:
        """No barline before they have played; and no later onset while one of them may still play at this one."""
        here = POSITION + self.position
        if mask[here] and self.last[0] >= INSTRUMENT and min(due) > self.last[0]:
            mask[:] = False
            mask[here] = True
        elif mask[POSITION:].any():
            mask[[BAR, END]] = False

    def _keep_part(self, mask: np.ndarray, due: Sequence[int]) -> None:
        """Nobody who comes after the first of them in the order of parts."""
        able = [part for part in due if mask[part]]
        if able:
            mask[min(able) + 1 :] = False
