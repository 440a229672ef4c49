"""What came next the last time: a piece searched for its own repetitions, as it goes along.

In come the steps of a piece, out come for each step the longest passage before it that has been heard earlier in the
piece, as one of a few lengths, and the step that followed there. A theme that comes back is then at hand, however long
ago it was, for decoders that would have forgotten it. It is a function of the past alone. `recall` finds it for a whole
piece at once, a `Recaller` step by step; they agree exactly. (Prediction by partial matching, Cleary & Witten 1984; the
longest match as an input of a network is the idea of an induction head, Olsson et al. 2022, worked out beforehand.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
"""Steps of a passage that are looked for; a passage counts as the longest of these that it has."""
BASE = 0x9E3779B97F4A7C15
"""Odd, so that multiplying by it can be undone modulo 2 ** 64 (Karp & Rabin's hash, 1987, without a prime)."""
INVERSE = pow(BASE, -1, 2**64)
WORD = 2**64 - 1


@dataclass(frozen=True)
class Recall:
    """How a tokenizer's pieces are searched. views: each the fields that make a passage the same: all of them, or the
    melody alone; fields: those that are recalled of the step that followed."""

    views: tuple[tuple[int, ...], ...]
    fields: tuple[int, ...]

    @property
    def width(self) -> int:
        """Columns of what is recalled: for each view a length, 0 where nothing was found, and the fields."""
        return len(self.views) * (1 + len(self.fields))

    @property
    def lengths(self) -> int:
        """How many values a length has: 0, and 1 + the index into LENGTHS."""
        return 1 + len(LENGTHS)


def recall(steps: np.ndarray, how: Recall) -> np.ndarray:
    """steps: (N, F). Returns (N, width) int64: what is recalled after each step; zeros where nothing is."""
    count = len(steps)
    steps = steps.astype(np.int64)
    found = np.zeros((count, len(how.views), 1 + len(how.fields)), dtype=np.int64)
    for view, fields in enumerate(how.views):
        follows = np.full(count, -1)
        prefix, powers = _prefix(_keys(steps, fields))
        for index, length in enumerate(LENGTHS):
            if length >= count:
                break
            # the hash of the steps t - length + 1 .. t, moved to one common power
            window = (prefix[length:] - prefix[:-length]) * powers[: count - length + 1]
            earlier = _latest_before(window)
            here = np.flatnonzero(earlier >= 0)
            follows[here + length - 1] = earlier[here] + length
            found[here + length - 1, view, 0] = index + 1
        known = follows >= 0
        found[known, view, 1:] = steps[follows[known]][:, how.fields]
    return found.reshape(count, how.width)


class Recaller:
    """The same, step by step. What it holds grows with the piece: some kilobytes a hundred steps.

    most: what has come so many times already is not recalled again; 0: no bound, as `recall`. A model that draws by
    what it is told, and is told what it drew, would else go round in circles.
    """

    def __init__(self, how: Recall) -> None:
        self.how, self.most = how, 0
        self.steps: list[tuple[int, ...]] = []
        self.times: list[int] = []  # how often each step has come, going by the first view
        self.expected = -1  # the step that the first view recalled last, or -1
        self.prefixes: list[list[int]] = [[0] for _ in how.views]
        self.power, self.inverses = 1, [1]
        self.latest: list[dict[tuple[int, int], int]] = [{} for _ in how.views]

    def copy(self) -> Recaller:
        """One that goes on from here by itself."""
        other = Recaller(self.how)
        other.most, other.expected = self.most, self.expected
        other.steps, other.times, other.inverses = self.steps.copy(), self.times.copy(), self.inverses.copy()
        other.prefixes = [prefix.copy() for prefix in self.prefixes]
        other.latest = [latest.copy() for latest in self.latest]
        other.power = self.power
        return other

    def advance(self, step: Sequence[int]) -> tuple[int, ...]:
        """Take a step (F values); returns what is recalled after it, `width` numbers."""
        values = [int(value) for value in step]
        self.steps.append(tuple(values[field] for field in self.how.fields))
        again = self.expected >= 0 and self.steps[self.expected] == self.steps[-1]
        self.times.append(self.times[self.expected] + 1 if again else 1)
        count = len(self.steps)
        self.inverses.append(self.inverses[-1] * INVERSE & WORD)
        row: list[int] = []
        for view, fields in enumerate(self.how.views):
            prefix, latest = self.prefixes[view], self.latest[view]
            prefix.append(prefix[-1] + _key([values[f] for f in fields]) * self.power & WORD)
            longest, follows = 0, -1
            for index, length in enumerate(LENGTHS):
                if length > count:
                    break
                window = (prefix[count] - prefix[count - length]) * self.inverses[count - length] & WORD
                earlier = latest.get((index, window))
                if earlier is not None:
                    longest, follows = index + 1, earlier
                latest[index, window] = count
            if view == 0:
                self.expected = follows
            if longest and self.most and self.times[follows] >= self.most:
                longest = 0
            row += [longest, *(self.steps[follows] if longest else [0] * len(self.how.fields))]
        self.power = self.power * BASE & WORD
        return tuple(row)


def _key(values: Sequence[int]) -> int:
    """One number for the fields of a step that are compared."""
    key = 0
    for value in values:
        key = (key * 1_000_003 + value + 1) & WORD
    return (key * INVERSE ^ key >> 29) & WORD


def _keys(steps: np.ndarray, fields: Sequence[int]) -> np.ndarray:
    """(N,) uint64: `_key` of each step."""
    keys = np.zeros(len(steps), dtype=np.uint64)
    for field in fields:
        keys = keys * np.uint64(1_000_003) + steps[:, field].astype(np.uint64) + np.uint64(1)
    return keys * np.uint64(INVERSE) ^ keys >> np.uint64(29)


def _prefix(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """((N + 1,) sums of keys times powers of BASE, (N + 1,) the powers of its inverse), modulo 2 ** 64."""
    count = len(keys)
    powers, inverses = (
        np.concatenate([[np.uint64(1)], np.full(count, base, dtype=np.uint64)]).cumprod(dtype=np.uint64)
        for base in (BASE, INVERSE)
    )
    return np.concatenate([[np.uint64(0)], keys * powers[:count]]).cumsum(dtype=np.uint64), inverses


def _latest_before(values: np.ndarray) -> np.ndarray:
    """(N,) for each value the index of the latest equal one before it, or -1."""
    order = np.argsort(values, kind="stable")
    same = values[order[1:]] == values[order[:-1]]
    found = np.full(len(values), -1)
    found[order[1:][same]] = order[:-1][same]
    return found
