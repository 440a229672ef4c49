"""Bars of a piece told ahead of their turn, so that one model also fills holes and harmonises.

In come the steps of the `bars` tokenizer, out come the same steps with previews put in; and back. Two marks enclose a
preview. AHEAD stands after the BAR step of the bar that it comes before, and its duration says how many bars it passes
over, that one among them; after BACK the piece goes on in the order of time, as if nothing had been told:

    BAR 9 | AHEAD 4 | bars 13 and 14               | BACK | the notes of bar 9 | BAR 10 ... bar 13, and so on
    BAR 9 | AHEAD   | the melody of bars 9 to 12   | BACK | the notes of bar 9 | BAR 10 ... bar 13, and so on

With the first, bars 9 to 12 are a hole that is written with both its sides in sight. With the second, all parts of bars
9 to 12 are written with the melody in sight, which comes again among them, so that what sounds together stands
together. A model is trained on pieces with previews by the same loop, and drawing goes on from a prompt that ends after
one. (Filling in by moving what follows to the front: Donahue et al. 2020, Bavarian et al. 2022; what is given told a
while before its time: the Anticipatory Music Transformer, Thickstun et al. 2023.)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from musicgen.tokens.bars_vocabulary import AHEAD, BACK, BAR, CONDUCTOR, END, PART

IN_ORDER, GIVEN_AHEAD, HOLE, PREVIEW, BENEATH = 1, 2, 3, 4, 5
"""Values of the coordinate `order`; 0 is HIDDEN, and before the first bar all is in order. The others: what is told
ahead of a hole, and the hole; what is told ahead of the same bars, and these."""

LONGEST_HOLE = 16
LONGEST_AHEAD = 4
"""Bars that are passed over, and bars that are told ahead, in training."""
LONGEST_WAIT = 8
"""Bars in order between one hole and the next, in training."""


@dataclass(frozen=True)
class Block:
    """Before bar `bar` (from 1) come `ahead` bars that follow the `hole` bars from it on; hole 0: bars from it on."""

    bar: int
    hole: int
    ahead: int

    @property
    def until(self) -> int:
        """The bar before which the order is that of time again, and another block may begin."""
        return self.bar + (self.hole or self.ahead)


@dataclass(frozen=True)
class Course:
    """Where each step of a piece stands in it."""

    bar: np.ndarray  # (T,) which bar, from 1; 0 before the first
    order: np.ndarray  # (T,) IN_ORDER, GIVEN_AHEAD, HOLE, PREVIEW or BENEATH
    left: np.ndarray  # (T,) bars after that one: in a hole, of the hole, elsewhere of the piece


def arrange(steps: np.ndarray, blocks: Sequence[Block], given: Collection[int] | None = None) -> np.ndarray:
    """The steps (T, 5) of a piece in order, with the previews of `blocks`, which follow one another.

    given: values of field `part` that previews tell; the conductor they always tell. None: they tell all.
    """
    opens = np.flatnonzero(steps[:, 0] == BAR)
    stop = len(steps) - 1 if len(steps) and steps[-1, 0] == END else len(steps)
    closes = np.append(opens[1:], stop)
    told = np.ones(len(steps), dtype=bool) if given is None else np.isin(steps[:, 1], [*given, CONDUCTOR])
    told |= steps[:, 0] == BAR
    pieces: list[np.ndarray] = []
    at = 0
    for block in blocks:
        begun = int(opens[block.bar - 1]) + 1
        first, last = block.bar + block.hole, block.bar + block.hole + block.ahead - 1
        rows = np.arange(opens[first - 1] if block.hole else begun, closes[last - 1])
        pieces += [steps[at:begun], _mark(steps, AHEAD, block.hole), steps[rows[told[rows]]], _mark(steps, BACK, 0)]
        at = begun
    return np.concatenate([*pieces, steps[at:]])


def in_order(steps: np.ndarray) -> np.ndarray:
    """Steps (T, 5) without previews and marks: the reverse of `arrange`."""
    if not (steps[:, 0] == AHEAD).any():
        return steps
    order = follow(steps).order
    return steps[(order != GIVEN_AHEAD) & (order != PREVIEW) & (steps[:, 0] != BACK)]


def follow(steps: np.ndarray) -> Course:
    """steps: (T, 5) of a whole piece, with previews or without."""
    when = steps[:, 0]
    begins = np.flatnonzero(when == AHEAD)
    order = np.full(len(when), IN_ORDER)
    backs = _backs(when, begins)
    for begin, back in zip(begins.tolist(), backs, strict=True):
        order[begin:back] = GIVEN_AHEAD if steps[begin, 3] else PREVIEW
    is_bar = when == BAR
    ahead = order != IN_ORDER
    bar = np.cumsum(is_bar & ~ahead)
    left = np.full(len(when), bar[-1] if len(bar) else 0)
    opens = np.flatnonzero(is_bar & ~ahead)
    for begin, back in zip(begins.tolist(), backs, strict=True):
        hole, here = int(steps[begin, 3]), int(bar[begin])
        told = np.cumsum(is_bar[begin:back])
        bar[begin:back] = here + np.where(told > 0, told + max(hole - 1, 0), 0)
        until = here + (hole or int(told[-1]) + 1)
        stop = int(opens[until - 1]) if until <= len(opens) else len(when)
        order[back:stop] = HOLE if hole else BENEATH
        if hole:
            left[back:stop] = until - 1
    return Course(bar, order, np.maximum(left - bar, 0))


def preview_at_random(steps: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A whole piece with previews drawn for training: holes here and there, or some parts told ahead all the way."""
    bars = int((steps[:, 0] == BAR).sum())
    parts = steps[steps[:, 0] == PART, 1]
    blocks: list[Block] = []
    at = 1
    if len(parts) > 1 and generator.random() < 0.5:
        several = len(parts) > 2 and generator.random() < 0.3
        number = int(generator.integers(2, len(parts))) if several else 1
        given = generator.choice(parts, number, replace=False).tolist()
        while at <= bars:
            blocks.append(Block(at, 0, min(int(generator.integers(1, LONGEST_AHEAD + 1)), bars - at + 1)))
            at = blocks[-1].until
        return arrange(steps, blocks, given)
    while at < bars:
        at += int(generator.integers(min(LONGEST_WAIT, bars - at)))
        hole = int(generator.integers(1, min(LONGEST_HOLE, bars - at) + 1))
        blocks.append(Block(at, hole, min(int(generator.integers(1, LONGEST_AHEAD + 1)), bars - at - hole + 1)))
        at = blocks[-1].until
    return arrange(steps, blocks)


def _mark(steps: np.ndarray, mark: int, bars: int) -> np.ndarray:
    return np.array([(mark, 0, 0, bars, 0)], dtype=steps.dtype)


def _backs(when: np.ndarray, begins: np.ndarray) -> list[int]:
    """For each AHEAD the step after what it tells: its BACK, or the end of steps that break off before it."""
    found = np.flatnonzero(when == BACK).tolist()
    return found + [len(when)] * (len(begins) - len(found))
