"""An n-gram over steps of fields: the plain baseline that every tokenizer can have.

In come the steps of pieces, out come probabilities of each field of the next step, given the fields before it and up to
five whole steps, each context backing off to the next shorter one after Witten & Bell (1991). It can be asked for the
cost of what follows a beginning, and can write a continuation under a grammar's cursor, as the networks do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

ORDERS = (0, 1, 2, 3, 5)
"""Whole steps before the one that is predicted, from the widest context to the narrowest."""


class StepNgram:
    """Counts of what followed what. sizes: of the fields."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)
        self.counts: dict[int, dict[int, int]] = {}

    def learn(self, steps: np.ndarray) -> None:
        """steps: (N, F), a piece from its START."""
        rows = list(map(tuple, steps.tolist()))
        for t in range(1, len(rows)):
            for field, value in enumerate(rows[t]):
                for context in self._contexts(rows, t, rows[t][:field]):
                    seen = self.counts.setdefault(context, {})
                    seen[value] = seen.get(value, 0) + 1

    def _contexts(self, rows: Sequence[tuple[int, ...]], t: int, chosen: tuple[int, ...]) -> Iterator[int]:
        for order in ORDERS:
            yield hash((len(chosen), chosen, *rows[max(t - order, 0) : t]))

    def shares(self, rows: Sequence[tuple[int, ...]], t: int, chosen: tuple[int, ...]) -> np.ndarray:
        """(size,) float64: how likely each value of field len(chosen) of step t is."""
        size = self.sizes[len(chosen)]
        found = np.full(size, 1 / size)
        for context in self._contexts(rows, t, chosen):
            seen = self.counts.get(context)
            if seen is None:
                break
            total = sum(seen.values()) + len(seen)
            found *= len(seen) / total
            for value, count in seen.items():
                found[value] += count / total
        return found

    def copy(self) -> StepNgram:
        """One that may learn more by itself."""
        other = StepNgram(self.sizes)
        other.counts = {context: dict(seen) for context, seen in self.counts.items()}
        return other

    def cost(self, steps: np.ndarray, first: int) -> float:
        """Nats of the steps from number `first` on, given all before them."""
        rows = list(map(tuple, steps.tolist()))
        nats = 0.0
        for t in range(first, len(rows)):
            for field, value in enumerate(rows[t]):
                if value or not field:
                    shares = self.shares(rows, t, rows[t][:field])
                    if field:
                        shares[0] = 0.0
                    nats -= np.log(shares[value] / shares.sum())
        return float(nats)

    def write(self, prompt: np.ndarray, cursor: Any, generator: np.random.Generator) -> np.ndarray:
        """A continuation of `prompt` (T, F) under a cursor that has walked it, drawn step by step until it ends."""
        rows = list(map(tuple, prompt.tolist()))
        while not cursor.done:
            chosen: tuple[int, ...] = ()
            for _ in self.sizes:
                shares = self.shares(rows, len(rows), chosen) * cursor.allowed(chosen)
                chosen += (int(generator.choice(len(shares), p=shares / shares.sum())),)
            cursor.advance(chosen)
            rows.append(chosen)
        return np.array(rows[len(prompt) :], dtype=np.int16)
