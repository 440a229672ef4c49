"""Bars of the fragment brought back in its continuation: `--recall 1-4@17`, from the words to the steps.

In come what was asked for and the fragment's prompt, out come the steps that every take is given in those bars, note
for note as they were, in place of drawing them. What follows is drawn by a model that has read them there.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from musicgen.errors import FinishError
from musicgen.sampling.prompts import Prompt
from musicgen.score import Score
from musicgen.tokens import Tokenizer
from musicgen.tokens.bars_grammar import BarsCursor
from musicgen.tokens.bars_vocabulary import BAR, DURATIONS, INSTRUMENT, POSITION, UNIT, duration_class


@dataclass(frozen=True)
class RecalledBars:
    """Bars `first` to `last` of a fragment, from 1, to come back from new bar `at` on, from 1 after the seam."""

    first: int
    last: int
    at: int

    def __str__(self) -> str:
        bars = f"{self.first}-{self.last}" if self.last > self.first else f"{self.first}"
        return f"--recall {bars}@{self.at}"

    @property
    def in_words(self) -> str:
        old, new = (f"{a} to {b}" if b > a else f"{a}" for a, b in ((self.first, self.last), (self.at, self.until)))
        s = "s" * (self.last > self.first)
        return f"bar{s} {old} brought back as new bar{s} {new}"

    @property
    def until(self) -> int:
        """The last new bar of it."""
        return self.at + self.last - self.first


def parse_recall(words: str) -> RecalledBars:
    """'1-4@17' or '3@17'. Raises FinishError."""
    found = re.fullmatch(r"\s*([0-9]{1,6})(?:\s*-\s*([0-9]{1,6}))?\s*@\s*([0-9]{1,6})\s*", words)
    if not found:
        raise FinishError(f"--recall {words}: not BARS@AT; bars 1 to 4 as new bar 17 are 1-4@17")
    first, last, at = (int(number) for number in (found[1], found[2] or found[1], found[3]))
    if not 1 <= first <= last or at < 1:
        raise FinishError(f"--recall {words}: bars are counted from 1, and the first comes first, as in 1-4@17")
    return RecalledBars(first, last, at)


def check_recall(recalled: Sequence[RecalledBars], fragment: Score, tokenizer: Tokenizer, bars: int | None) -> None:
    """Raises FinishError where these bars are not there, or there is no place for them among `bars` new ones."""
    for one in recalled:
        if tokenizer.name != "bars":
            raise FinishError(f"{one}: models of `{tokenizer.name}` can't bring bars back; use a `bars` model")
        if one.last > len(fragment.bars):
            raise FinishError(f"{one}: the fragment has {len(fragment.bars)} bars; recall some of these")
        if bars is None:
            raise FinishError(f"{one}: say with --bars how many are added, so that there is a place for it")
        if one.until > bars:
            raise FinishError(f"{one}: it goes up to new bar {one.until}, and --bars is {bars}")
        if one.until == bars:
            raise FinishError(f"{one}: new bar {bars} is the last, and will be the closing chord; recall earlier")
    ordered = sorted(recalled, key=lambda one: one.at)
    for one, following in itertools.pairwise(ordered):
        if following.at <= one.until:
            raise FinishError(f"{following}: new bar {following.at} is taken by {one}")


def given_steps(
    recalled: Sequence[RecalledBars], fragment: Score, prompt: Prompt, cursor: BarsCursor, bars: int
) -> dict[int, np.ndarray]:
    """Number of a bar -> the steps (n, 5) int16 that are taken in it, up to the BAR that begins the next.

    cursor: of the `bars` tokenizer, as it stands at the seam, held to its course. bars: how many are added. Steps of
    the conductor, and of parts that do not go on, are left out. A note sounds on past the recalled bars as it did, but
    not into the closing chord. `check_recall` comes first. Raises FinishError where a bar is not as long as a new one.
    """
    steps = prompt.steps
    opens = np.flatnonzero(steps[:, 0] == BAR)
    lengths = steps[opens, 3].astype(np.int64)
    starts = np.append(0, np.cumsum(lengths))
    closes = np.append(opens[1:], len(steps))
    place_of = {int(start): place for place, start in enumerate(starts[:-1])}
    course = cursor.metre_units
    given: dict[int, np.ndarray] = {}
    for one in recalled:
        for number in range(one.first, one.last + 1):
            place = place_of.get((int(fragment.bars[number - 1]) + UNIT // 2) // UNIT, -1)
            if place == prompt.bars - 1 and cursor.not_before < cursor.bar_units:
                raise FinishError(f"{one}: bar {number} is not complete; recall bars before it")
            if place < 0 or lengths[place] != course or not _ends_alike(fragment, number, int(starts[place + 1])):
                raise FinishError(
                    f"{one}: bar {number} is not as long as a bar of the continuation; recall others "
                    "(bars are counted as `finish` prints them, an upbeat is bar 1)"
                )
            held = steps[opens[place] + 1 : closes[place]]
            held = held[np.isin(held[:, 1], cursor.roster)].copy()
            to = one.at + number - one.first
            room = course * (bars - to) - (held[:, 0] - POSITION)
            long = DURATIONS[held[:, 3]] > room
            held[long, 3] = duration_class(room[long], round_down=True)
            following = np.array([(BAR, 0, 0, course, 0)], dtype=steps.dtype)
            given[prompt.bars + to] = np.concatenate([held, following])
    return given


def notes_given(given: Mapping[int, np.ndarray]) -> int:
    """How many of the steps are notes."""
    return sum(int((steps[:, 1] >= INSTRUMENT).sum()) for steps in given.values())


def _ends_alike(fragment: Score, number: int, end: int) -> bool:
    """Whether bar `number` (from 1) of a fragment ends where the bar does that the model reads, in units."""
    return number == len(fragment.bars) or (int(fragment.bars[number]) + UNIT // 2) // UNIT == end
