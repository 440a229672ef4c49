"""The chorale benchmark's n-gram: intervals counted in musical contexts, each backing off to the next wider one.

What is predicted of a token is its interval from the same voice's token before (or that it begins or ends a rest), so
that every key counts alike. A context is a tuple of what is known. Four chains lead from the voice alone to narrow
contexts: by melodic intervals, by the degree of the scale, by the chord, by rhythm. Within a chain estimates are
interpolated after Witten & Bell (1991): a context is trusted by how often it was seen against how many different things
followed it. The chains are averaged, with weights that are fitted to other pieces.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence

import numpy as np

VOICES = 4
BEGINS, ENDS, SILENT = 1000, 1001, 1002
VALUES = 129 + 3
"""What can follow, for the widest estimate: any interval, and the three above."""


MAJOR = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
MINOR = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])
KEYS = np.stack([np.roll((p - p.mean()) / p.std(), k) for p in (MAJOR, MINOR) for k in range(12)])
"""(24, 12): how well each class of pitch fits each key (Krumhansl & Kessler 1982)."""


def outcome(now: int, before: int) -> int:
    """The interval in semitones; or a rest that ends (BEGINS: any pitch is then equally likely), begins, or stays."""
    if before < 0:
        return SILENT if now < 0 else BEGINS
    return ENDS if now < 0 else now - before


def contexts(piece: np.ndarray) -> Iterator[tuple[int, int, list[list[Hashable]]]]:
    """(column, voice, chains of contexts, each from wide to narrow) of every token of a piece (T, 4), -1 for a rest."""
    before = [-1] * VOICES
    steps = [(0, 0)] * VOICES  # the last two intervals of each voice
    ages = [0] * VOICES
    earlier = [0] * VOICES  # how long the pitch before lasted
    heard = np.zeros(12)
    tonic = 0
    for t, column in enumerate(piece.tolist()):
        for voice in range(VOICES):
            here = before[voice]
            silent = here < 0
            place = t % 4, min(ages[voice], 9)
            degree = ((here - tonic) % 12, tonic >= 12)
            moved = tuple(min(max(column[u] - before[u], -3), 3) if before[u] >= 0 else 9 for u in range(voice))
            flags = tuple(m != 0 for m in moved)
            chosen = tuple((column[u] - here) if column[u] >= 0 and not silent else 99 for u in range(voice))
            classes = tuple(c % 12 if c != 99 else c for c in chosen)
            others = tuple(before[u] - here if before[u] >= 0 and not silent else 99 for u in range(voice + 1, VOICES))
            below = (before[VOICES - 1] - here) % 12 if not silent and before[VOICES - 1] >= 0 else 99
            bar = t % 16 // 4
            start: list[Hashable] = [(voice, silent), (voice, silent, t % 4), (voice, silent, place, flags)]
            lines = voice, silent, place, flags
            yield (
                t,
                voice,
                [
                    [
                        *start,
                        (*lines, steps[voice][0]),
                        (*lines, steps[voice][0], degree),
                        (*lines, steps[voice], degree, classes),
                        (*lines, steps[voice], earlier[voice], degree, chosen),
                    ],
                    [
                        *start,
                        (*lines, degree),
                        (*lines, degree, moved[-1:]),
                        (*lines, degree, moved[-1:], classes),
                        (*lines, degree, moved, chosen, below),
                        (*lines, degree, moved, chosen, others),
                    ],
                    [
                        *start,
                        (*lines, below),
                        (*lines, below, moved),
                        (*lines, below, chosen),
                        (*lines, others, chosen, moved),
                    ],
                    [
                        *start,
                        (*lines, bar),
                        (*lines, bar, earlier[voice], tuple(min(a, 9) for a in ages)),
                        (
                            *lines,
                            bar,
                            earlier[voice],
                            tuple(min(a, 9) for a in ages),
                            tuple(min(e, 9) for e in earlier),
                        ),
                    ],
                ],
            )
        for voice, pitch in enumerate(column):
            if pitch != before[voice]:
                interval = pitch - before[voice] if pitch >= 0 and before[voice] >= 0 else 99
                steps[voice], earlier[voice], ages[voice] = (interval, steps[voice][0]), min(ages[voice], 9), 0
            ages[voice] += 1
            if pitch >= 0:
                heard[pitch % 12] += 1
        heard *= 0.985
        tonic = int((KEYS @ heard).argmax())
        before = column


class Ngram:
    """Counts of what followed each context in some pieces, and how much each chain of contexts is trusted."""

    def __init__(self, pieces: Sequence[np.ndarray], fitted: Sequence[np.ndarray] = ()) -> None:
        """pieces: what is counted; fitted: other pieces, by which the weights of the chains are set."""
        self.counts: dict[Hashable, Counter[int]] = defaultdict(Counter)
        self.totals: Counter[Hashable] = Counter()
        for piece in pieces:
            for t, voice, chains in contexts(piece):
                value = outcome(int(piece[t, voice]), int(piece[t - 1, voice]) if t else -1)
                for context in {(i, c) for chain in chains for i, c in enumerate(chain)}:
                    self.counts[context][value] += 1
                    self.totals[context] += 1
        self.weights = np.full(4, 0.25)
        if fitted:
            shares = np.concatenate([self.shares(piece).reshape(-1, 4) for piece in fitted])
            for _ in range(50):  # expectation and maximisation
                parts = shares * self.weights
                self.weights = (parts / parts.sum(axis=1, keepdims=True)).mean(axis=0)

    def shares(self, piece: np.ndarray) -> np.ndarray:
        """(T, 4, chains): the probability that each chain gives each token."""
        found = np.zeros((*piece.shape, 4))
        for t, voice, chains in contexts(piece):
            value = outcome(int(piece[t, voice]), int(piece[t - 1, voice]) if t else -1)
            for k, chain in enumerate(chains):
                share = 1.0 / VALUES
                for context in enumerate(chain):
                    followed = self.counts.get(context)
                    if followed:
                        seen, kinds = self.totals[context], len(followed)
                        share = (followed[value] + kinds * share) / (seen + kinds)
                found[t, voice, k] = share / 128 if value == BEGINS else share
        return found

    def costs(self, piece: np.ndarray) -> np.ndarray:
        """(T, 4) nats a token."""
        return -np.log(self.shares(piece) @ self.weights)
