"""What usually comes next in the training tunes: counts after contexts of the body's steps, as coordinates.

A model need not learn by heart what can be looked up. `Memory` counts, over the training tunes, which symbol follows
the last 3 to 10 steps, and which the last 2 at a position in the bar; asked for the steps so far, it says what the
longest context it knows was followed by most often, and how far that can be trusted. A training tune is never told what
it says itself: its own counts are taken off first, so that the memory is worth as much in training as with a new tune.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

SHORTEST, LONGEST = 3, 10
TRUSTS = 1 + 9 * (LONGEST - SHORTEST + 1)
"""How far a guess can be trusted: 0 for none, else by length of context, share of the count, and count."""

Step = tuple[int, int, int]  # symbol, length, position in the bar at which it stands


def contexts(steps: Sequence[Step], position: int) -> Iterator[tuple[int, tuple]]:
    """(length, name) of what lies before a step at `position`, the longest first; the last is the one with a place."""
    sounds = [step[:2] for step in steps[-LONGEST:]]
    for length in range(min(LONGEST, len(sounds)), SHORTEST - 1, -1):
        yield length, (*sounds[-length:],)
    yield 0, (position, *sounds[-2:])


class Memory:
    """Counts over tunes, each a sequence of body steps."""

    def __init__(self) -> None:
        self.after: dict[tuple, Counter[int]] = defaultdict(Counter)

    @classmethod
    def of(cls, tunes: Sequence[Sequence[Step]]) -> Memory:
        found = cls()
        for steps in tunes:
            for i, (symbol, _, position) in enumerate(steps):
                for _, context in contexts(steps[max(i - LONGEST, 0) : i], position):
                    found.after[context][symbol] += 1
        return found

    def guess(self, steps: Sequence[Step], position: int, own: Memory | None) -> tuple[int, int, int, int]:
        """(symbol, trust) by the longest context that is known, and (symbol, trust) by the last two steps and position.

        own: the counts of the tune itself where it is one of those remembered, to be taken off.
        """
        longest, placed = (0, 0), (0, 0)
        for length, context in contexts(steps, position):
            if length and longest[0]:
                continue
            counts = self.after.get(context)
            if counts and own is not None and (mine := own.after.get(context)):
                counts = counts - mine
            if not counts:
                continue
            symbol, most = counts.most_common(1)[0]
            total = counts.total()
            trust = 3 * min(int(3 * most / total - 1e-9), 2) + min(total.bit_length() - 1, 2)
            if length:
                longest = symbol, 1 + 9 * (length - SHORTEST) + trust
            else:
                placed = symbol, 1 + trust
        return *longest, *placed
