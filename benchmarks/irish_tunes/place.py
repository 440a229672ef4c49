"""Where in a tune we are, worked out from the past alone: the coordinates beside the steps of `text`.

Each step of a tune comes in, one after the other; after each, out go the coordinates of the place where the next one
will stand. Key and metre, once the header has named them; the position in the bar, and what is left of the bar; the bar
of the part, the part, the bar of the line. And what the tune itself had to say at such a place: the step that stood at
the same position 1, 2, 4, 8 and 16 bars ago, for how long going by it would have been right, and what followed the last
time when the latest steps were the same. They let any decoder copy, and say nothing of what is to come.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from irish_tunes.alphabet import BYTES, FIRST_NAMED, KEYS, MODES, TONICS
from irish_tunes.memory import TRUSTS, Memory, Step

if TYPE_CHECKING:
    from irish_tunes.text import IrishTokenizer

UNIT = 24
"""Ticks of an eighth note, the unit of these tunes."""
GRAIN = 4
POSITIONS = 80
LAGS = (1, 2, 4, 8, 16)
RUN = 12
EVENT = re.compile(r"\((\d)|\[([12])|[:|\]]*\|[:|\]]*|::|!?\n|[<>]|\[|\]")


def coordinate_sizes(tokenizer: IrishTokenizer) -> list[tuple[str, int]]:
    """(name, size) of each coordinate, in the order of `Place.take`."""
    symbols, lengths, tails = (field.size for field in tokenizer.fields)
    found = [
        ("tonic", 2 + len(TONICS)), ("mode", 2 + len(MODES)), ("metre", 2 + len(tokenizer.metres)),
        ("position", POSITIONS + 2), ("room", POSITIONS + 2), ("bar of part", 20), ("part", 10), ("bar of line", 8),
        ("tuplet", 6), ("header line", 6), ("of line", 26), ("digit of X", 12), ("number", 4),
    ]  # fmt: skip
    for lag in LAGS:
        found += [(f"symbol {lag} ago", symbols), (f"length {lag} ago", lengths), (f"run {lag}", RUN + 1)]
    return [
        *found,
        ("match symbol", symbols),
        ("match length", lengths),
        ("match tail", tails),
        ("match run", 2 + 2 * RUN),
        ("sequence symbol", symbols),
        ("sequence run", 2 + RUN),
        ("usual symbol", symbols),
        ("usual trust", TRUSTS),
        ("usual symbol here", symbols),
        ("usual trust here", 10),
    ]


class Place:
    """A walk over the steps of one tune."""

    def __init__(self, tokenizer: IrishTokenizer, own: Memory | None = None) -> None:
        """own: what the tokenizer's memory has of this very tune."""
        self.tokenizer = tokenizer
        self.tonic = self.mode = self.metre = 1
        self.in_body = False
        self.full = 8 * UNIT
        self.position = 0.0
        self.bar = 0  # bars begun, counted so that a pickup and the short bar before it are one
        self.bar_of_part = self.part = self.bar_of_line = 0
        self.ending_at = 0
        self.tuplet = (1, 1, 0)  # p, q, notes left
        self.broken = 1.0  # of the next note's length
        self.duration = 0.0  # of the last note
        self.in_chord = False
        self.line = ""  # of text, as far as it is written
        self.number = ""  # of the X: line
        self.seen: dict[tuple[int, int, int], int] = {}
        self.nth = 0  # steps at this position
        self.steps: list[tuple[int, int, int]] = []
        self.runs = [0] * len(LAGS)
        self.guesses: list[int | None] = [None] * len(LAGS)
        self.own, self.quiet = own, False  # quiet: coordinates are not asked for
        self.placed: list[Step] = []
        self.match = Match()
        self.sequence = Match()  # of intervals
        self.degree: int | None = None  # of the last pitch

    def take(self, step: list[int]) -> tuple[int, ...]:
        """Read a step; the coordinates of the place after it."""
        tokenizer = self.tokenizer
        symbol, length, tail = step
        if self.in_body and symbol >= BYTES:
            self._remember((symbol, length, tail))
        before = self.bar, self.position
        if BYTES <= symbol < FIRST_NAMED:
            character = chr(symbol - BYTES)
            self.line = "" if character == "\n" else self.line + character
            if self.in_body:
                self._events(character)
        elif FIRST_NAMED <= symbol < tokenizer.first_key:
            text = (*tokenizer.lines, *tokenizer.pieces)[symbol - FIRST_NAMED]
            if found := re.search(r"(?:^|\n)M:([^\n]*)\n", text):
                self._set_metre(found[1])
            self.line = (self.line + text).rsplit("\n", 1)[-1]
            if self.in_body:
                self._events(text)
        elif tokenizer.first_key <= symbol < tokenizer.first_pitch:
            key = KEYS[symbol - tokenizer.first_key]
            self.tonic, self.mode = 2 + TONICS.index(key.tonic), 2 + list(MODES).index(key.mode)
            self.in_body, self.line, self.nth = True, "", -1
        elif symbol >= tokenizer.first_pitch:
            self._note(tokenizer.lengths[length - 1])
            self._events(tokenizer.tails[tail - 1])
        self.nth = self.nth + 1 if (self.bar, self.position) == before else 0
        return () if self.quiet else self._coordinates()

    def _set_metre(self, name: str) -> None:
        metres = self.tokenizer.metres
        self.metre = 2 + metres.index(name) if name in metres else 1
        found = re.fullmatch(r"(\d+)/(\d+)", name)
        beats, unit = (int(found[1]), int(found[2])) if found else (4, 4)
        self.full = beats * 8 * UNIT // max(unit, 1)

    # --- time ---------------------------------------------------------------------------------------------------------

    def _note(self, length: str) -> None:
        if self.in_chord and self.duration:
            return
        above, slash, below = length.partition("/")
        self.duration = UNIT * int(above or 1) / (int(below or 2) if slash else 1) * self.broken
        self.broken = 1.0
        p, q, left = self.tuplet
        if left:
            self.duration *= q / p
            self.tuplet = (p, q, left - 1)
        self.position += self.duration

    def _events(self, text: str) -> None:
        for event in EVENT.finditer(text):
            found = event[0]
            if event[1]:
                p = int(event[1])
                self.tuplet = (p, {2: 3, 3: 2, 4: 3}.get(p, 2), p) if p else (1, 1, 0)
            elif event[2]:
                if event[2] == "1":
                    self.ending_at = self.bar_of_part
                else:
                    self.bar_of_part = self.ending_at
                    self.part = max(self.part - 1, 0)
            elif found in "<>":
                longer = 0.5 if found == ">" else -0.5
                self.position += longer * self.duration
                self.broken = 1 - longer
            elif found.endswith("\n"):
                self.bar_of_line = 0
            elif found == "[":
                self.in_chord, self.duration = True, 0.0
            elif found == "]":
                self.in_chord = False
            else:
                self._barline(found)

    def _barline(self, text: str) -> None:
        self.tuplet, self.broken = (1, 1, 0), 1.0
        closes = ":" in text or "]" in text or "||" in text
        short = self.position < self.full - 1
        if self.position == 0:
            return
        self.bar_of_line += 1
        if self.bar == 0:  # only now it is known whether the tune began with a pickup
            if short:
                shift = int(self.full - self.position)
                self.seen = {(bar, at + shift, nth): i for (bar, at, nth), i in self.seen.items()}
            self.bar_of_part = 1 if short else 2
        elif closes:
            self.part += 1
            self.bar_of_part = 0 if short else 1
            if short:
                return  # what the bar lacks is the pickup of the next part
        else:
            self.bar_of_part += 1
        self.bar += 1
        self.position = 0.0

    # --- the tune's own past ------------------------------------------------------------------------------------------

    def _key(self, lag: int) -> tuple[int, int, int]:
        return self.bar - lag, int(self.position), self.nth

    def _remember(self, step: tuple[int, int, int]) -> None:
        """Keep a step of the body, and see which of the guesses about it were right."""
        for i, guess in enumerate(self.guesses):
            right = guess is not None and self.steps[guess][:2] == step[:2]
            self.runs[i] = min(self.runs[i] + 1, RUN) if right else 0
        self.seen[self._key(0)] = len(self.steps)
        self.steps.append(step)
        self.placed.append((step[0], step[1], int(self.position)))
        self.match.take(step[0] * 64 + step[1])
        tokenizer = self.tokenizer
        if tokenizer.first_pitch <= step[0] < tokenizer.first_rest:
            degree = (step[0] - tokenizer.first_pitch) // 4
            if self.degree is not None:
                self.sequence.take((degree - self.degree) * 64 + step[1])
            self.degree = degree

    def _in_header(self) -> tuple[int, int, int, int]:
        """Which line of the header, how far into it, and for a number in Z: how it compares with that of X:."""
        line = 1 + "XTZ".find(self.line[:1]) if self.line else 0
        if line == 1:
            self.number = self.line[2:]
        digits = re.search(r"\d*$", self.line)
        written = digits[0] if digits else ""
        if line != 3 or not self.number.isdigit():
            return line, min(len(self.line), 25), 0, 0
        ahead = self.number[len(written) : len(written) + 1]
        so_far = self.number[: len(written)]
        return (
            line,
            min(len(self.line), 25),
            2 + int(ahead) if ahead else 1,
            1 + (written > so_far) + 2 * (written < so_far),
        )

    def _coordinates(self) -> tuple[int, ...]:
        if not self.in_body:
            return (self.tonic, self.mode, self.metre) + (0,) * 6 + self._in_header() + (0,) * (3 * len(LAGS) + 10)
        room = int(self.full - self.position)
        found = [
            self.tonic, self.mode, self.metre,
            1 + min(max(int(self.position) // GRAIN, 0), POSITIONS), 1 + min(max(room // GRAIN, 0), POSITIONS),
            min(1 + self.bar_of_part, 19), min(1 + self.part, 9), min(1 + self.bar_of_line, 7),
            1 + min(self.tuplet[2], 4), 5, 0, 0, 0,
        ]  # fmt: skip
        for i, lag in enumerate(LAGS):
            guess = self.guesses[i] = self.seen.get(self._key(lag))
            if guess is None:
                found += [0, 0, 0]
            else:
                found += [*self.steps[guess][:2], self.runs[i]]
        at, length = self.match.best()
        found += [*self.steps[at], 1 + min(length, 2 * RUN)] if length else [0, 0, 0, 1]
        at, length = self.sequence.best()
        tokenizer = self.tokenizer
        if length >= 2 and self.degree is not None:
            pitch = tokenizer.first_pitch + 4 * (self.degree + self.sequence.codes[at] // 64)
            inside = tokenizer.first_pitch <= pitch < tokenizer.first_rest
            found += [int(pitch), 1 + min(length, RUN)] if inside else [0, 0]
        else:
            found += [0, 0]
        if tokenizer.memory is None:
            return (*found, 0, 0, 0, 0)
        return (*found, *tokenizer.memory.guess(self.placed, int(self.position), self.own))


class Match:
    """Where in a sequence the latest values stood before: the longest such place, the latest of equally long ones."""

    def __init__(self) -> None:
        self.codes = np.zeros(0, dtype=np.int64)
        self.lengths = np.zeros(0, dtype=np.int64)  # how many of the latest values stand before and at each place

    def take(self, code: int) -> None:
        lengths = np.zeros(len(self.codes) + 1, dtype=np.int64)
        lengths[1:] = self.lengths
        lengths[:-1] = (lengths[:-1] + 1) * (self.codes == code)
        lengths[-1] = 0
        self.lengths, self.codes = lengths, np.append(self.codes, code)

    def best(self) -> tuple[int, int]:
        """(index of what came next there, how many values were the same); the second is 0 if there is none."""
        if len(self.codes) < 2:
            return 0, 0
        last = len(self.lengths) - 2 - int(self.lengths[-2::-1].argmax())
        return last + 1, int(self.lengths[last])
