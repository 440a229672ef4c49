"""Which steps may come next when a tune is written, and whether a tune's bars add up.

`TuneCursor` walks over the steps of `text`: first a header in the order of these tunes (X, T, Z, M and L, K; the
title is free), then a body under the package's own ABC grammar (`musicgen.tokens.abc_grammar`), which makes every bar
sum to the metre, pickups and repeats included. What is written of it is the steps' own text, spaces and line ends too.
One thing differs from that grammar: as in these tunes, :| needs no |: before it, and goes back to where its part began.

`irregular_bars` is the check from outside, on any text: the tune is read by the package's ABC reader, and its bars are
summed; `complaints` asks abc2midi (Debian's abcmidi), if it is there.
"""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from irish_tunes.alphabet import BYTES, END, KEYS, Key
from irish_tunes.place import Place
from irish_tunes.text import IrishTokenizer
from musicgen.errors import MusicgenError
from musicgen.formats import abc_read
from musicgen.score import Score
from musicgen.tokens import abc_symbols as abc
from musicgen.tokens.abc_grammar import SymbolCursor

LONGEST_TITLE = 60
KEY_NAME = {signature: name for name, signature in abc.KEYS.items()}
PIECES = {"(3": "(3", "|": "|", "[1 ": "[1", "[2 ": "[2"}
"""Pieces of text that stand by themselves -> symbol of the grammar."""
TAILS = {
    "": (), " ": (), "|": ("|",), "|\n": ("|",), "|!\n": ("|",), ":|!\n": (":|",), "|]!\n": ("|]",),
    ":|!": (":|", "END"), "|]!": ("|]", "END"),
}  # fmt: skip
"""What may follow a note -> symbols of the grammar. Those that end a tune are told by their lack of a line end."""


def metre_symbol(name: str) -> int | None:
    """The grammar's symbol for the text of an M: line."""
    return abc.ID.get("M:" + {"C": "4/4", "C|": "2/2"}.get(name, name))


def key_symbol(key: Key) -> int | None:
    """The grammar's symbol for a key; None past seven sharps or flats."""
    name = KEY_NAME.get((key.fifths, key.mode.lower()))
    return None if name is None else abc.ID["K:" + name]


NO_REPEAT_START = ("Assuming repeat", "replacing |: with double repeat (::)", "found [1 or like before |:")
"""What abc2midi says of a :| or [1 without |:."""


class TuneCursor:
    """A walk over the steps of one tune that is being written; see the protocol in musicgen.tokens."""

    ending = None
    """It closes as it likes."""

    def __init__(self, tokenizer: IrishTokenizer, bars: int | None = None, header_alone: bool = False) -> None:
        """header_alone: the walk is done with the key, until `go_on`."""
        self.tokenizer, self.header_alone = tokenizer, header_alone
        self.grammar = SymbolCursor(bars)
        self.place = Place(tokenizer)
        self.told = self.place.take(list(tokenizer.start))
        self.text = ""
        self.key = KEYS[0]
        self.done = False
        self.repeats = True  # until a part has closed with |], after which readers disagree on where :| goes back to
        self.pitches: dict[int, int] = {}  # our symbol -> the grammar's, in this key
        self.lines = {tokenizer.named[text]: text for text in tokenizer.lines}
        self.pieces = {tokenizer.named[text]: text for text in tokenizer.pieces}

    @property
    def bar(self) -> int:
        return self.grammar.bar

    @property
    def bars(self) -> int | None:
        return self.grammar.bars

    @bars.setter
    def bars(self, bars: int | None) -> None:
        self.grammar.bars = bars

    def go_on(self) -> None:
        """After the header, the body."""
        self.header_alone = self.done = False

    def keep_course(self) -> None:
        self.grammar.keep_course()

    def coordinates(self) -> tuple[int, ...]:
        return tuple(0 if c.size == 1 else v for v, c in zip(self.told, self.tokenizer.coordinates, strict=True))

    def allowed(self, chosen: Sequence[int]) -> np.ndarray:
        """See the protocol."""
        mask = np.zeros(self.tokenizer.fields[len(chosen)].size, dtype=bool)
        if not chosen:
            mask[self._symbols() if self.grammar.phase == "body" else self._header()] = True
        elif chosen[0] < self.tokenizer.first_pitch:
            mask[0] = True
        elif len(chosen) == 1:
            mask[self._lengths(chosen[0])] = True
        else:
            mask[self._tails(chosen[0], chosen[1])] = True
        return mask

    # --- the header ---------------------------------------------------------------------------------------------------

    def _header(self) -> list[int]:
        """Symbols that go on with the header."""
        digits = [BYTES + ord(c) for c in "0123456789"]
        line = self.text.rsplit("\n", 1)[-1]

        def lines(start: str) -> list[int]:
            return [i for i, text in self.lines.items() if text.lstrip("\n").startswith(start)]

        if not self.text:
            return lines("X:")
        if line.startswith("X:"):
            first = [] if line.endswith(":") else lines("T:")
            return first + (digits[line.endswith(":") :] if len(line) < 6 else [])
        if line.startswith("T:"):
            letters = (
                [BYTES + code for code in range(32, 127) if chr(code) not in "%:\\\\"]
                if len(line) < LONGEST_TITLE
                else []
            )
            return letters + (lines("Z:") if len(line) > 2 else [])
        if line.startswith("Z:"):
            first = lines("M:") if line[-1].isdigit() else []
            usable = [
                i for i in first if metre_symbol(self.lines[i].split("\n")[1][2:]) and "\nL:1/8\n" in self.lines[i]
            ]
            return usable + (digits[not line[-1].isdigit() :] if len(re.sub(r"\D", "", line)) < 5 else [])
        return [self.tokenizer.first_key + i for i, key in enumerate(KEYS) if key_symbol(key)]

    # --- the body -----------------------------------------------------------------------------------------------------

    def _symbols(self) -> list[int]:
        mask = self._mask(self.grammar)
        tokenizer = self.tokenizer
        found = [END] if mask[abc.END] else []
        if mask[abc.END] and self.text.endswith("!"):
            return found
        if self.text.endswith(("K:", "K: ")):
            return [
                tokenizer.first_key + i
                for i, key in enumerate(KEYS)
                if (symbol := key_symbol(key)) is not None and mask[symbol]
            ]
        pitches = [ours for ours, theirs in self.pitches.items() if mask[theirs]]
        found += pitches if pitches and self._lengths(pitches[0]) else []  # a note fits whatever its pitch
        if mask[abc.REST] and self._lengths(tokenizer.first_rest):
            found.append(tokenizer.first_rest)
        for ours, text in self.pieces.items():
            if text in PIECES:
                stands = mask[abc.ID[PIECES[text]]] and not (text == "|" and self.grammar.at == 0)
                if stands and (text != "(3" or self._triplet_fits()):
                    found.append(ours)
            elif self.text.endswith("\n"):
                if text.startswith("K:") and mask[abc.IS_KEY].any():
                    found.append(ours)
                elif text.startswith("M:") and text.endswith("\n"):
                    symbol = metre_symbol(text[2:].strip())
                    if symbol is not None and mask[symbol]:
                        found.append(ours)
        return found

    def _triplet_fits(self) -> bool:
        """Whether a triplet's first note has a length: the grammar knows shorter ones than these tunes."""
        within = copy.copy(self)
        within.grammar = self.grammar.copy()
        within.grammar.take(abc.ID["(3"])
        return bool(within._lengths(self.tokenizer.first_rest))

    def _mask(self, cursor: SymbolCursor) -> np.ndarray:
        """What the grammar allows, where a part may close with :| or without; only without once one has."""
        cursor.repeating = self.repeats
        mask = cursor.allowed().copy()
        cursor.repeating = False
        return mask | cursor.allowed()

    def _symbol(self, ours: int) -> int:
        return self.pitches.get(ours, abc.REST)

    def _lengths(self, symbol: int) -> list[int]:
        """The lengths that the note may have, such that a tail may follow."""
        return [length for length in self.tokenizer.length_id.values() if self._tails(symbol, length)]

    def _tails(self, symbol: int, length: int) -> list[int]:
        after = self._after(symbol, length)
        if after is None:
            return []
        return [i for text, i in self.tokenizer.tail_id.items() if self._fits(after, text)]

    def _after(self, symbol: int, length: int) -> SymbolCursor | None:
        """The grammar once a note with its length is taken, None if it can't be."""
        text = self.tokenizer.lengths[length - 1]
        text = "/2" if text == "/" else text
        if text and text not in abc.LENGTHS:
            return None
        after = self.grammar.copy()
        after.take(self._symbol(symbol))
        mask = self._mask(after)
        if not text:
            return after if (mask & ~abc.IS_LENGTH).any() else None
        if not mask[abc.ID[text]] or abc.LENGTHS[text] % 4:
            return None
        after.take(abc.ID[text])
        return after

    def _fits(self, after: SymbolCursor, tail: str) -> bool:
        """Whether a tail may follow, and the walk go on from there."""
        if tail not in TAILS:
            return False
        mask = self._mask(after)
        if not TAILS[tail]:
            return bool((mask & abc.IS_CONTENT & ~abc.ids(["["])).any())
        then = after.copy()
        for name in TAILS[tail]:
            if not self._mask(then)[abc.ID[name]]:
                return False
            then.take(abc.ID[name])
        return tail.endswith("!") or then.volta != 1 or "[2 " in self.tokenizer.pieces

    # --- taking a step ------------------------------------------------------------------------------------------------

    def advance(self, step: Sequence[int]) -> None:
        """Take a step that is allowed."""
        symbol = int(step[0])
        tokenizer = self.tokenizer
        written = tokenizer.spell(step, self.key).decode()
        if symbol == END:
            self.grammar.take(abc.END)
            self.done = True
        elif symbol in self.lines and written.startswith("\nM:"):
            self.grammar.take(metre_symbol(written.split("\n")[1][2:]) or 0)
        elif tokenizer.first_key <= symbol < tokenizer.first_pitch:
            self._set_key(KEYS[symbol - tokenizer.first_key])
            self.done = self.header_alone
        elif symbol in self.pieces and self.grammar.phase == "body":
            if written in PIECES:
                self.grammar.take(abc.ID[PIECES[written]])
            elif written.startswith("M:"):
                self.grammar.take(metre_symbol(written[2:].strip()) or 0)
        elif symbol >= tokenizer.first_pitch:
            after = self._after(symbol, int(step[1]))
            assert after is not None
            for name in TAILS[tokenizer.tails[int(step[2]) - 1]]:
                if name != "END":
                    after.take(abc.ID[name])
                    self.repeats = self.repeats and name != "|]"
            self.grammar = after
        self.text += written
        self.told = self.place.take([int(value) for value in step])

    def _set_key(self, key: Key) -> None:
        tokenizer = self.tokenizer
        self.key = key
        self.grammar.take(key_symbol(key) or 0)
        letters = {i: tokenizer.letter(i, key) for i in range(tokenizer.first_pitch, tokenizer.first_rest)}
        self.pitches = {i: abc.ID[text] for i, text in letters.items() if text in abc.ID}


# --- the check from outside -------------------------------------------------------------------------------------------


def irregular_bars(score: Score) -> list[int]:
    """Bars that do not sum to their metre, but for a pickup and short ends that make up for it: counted from 1.

    A short bar may begin the tune; at a part's end it may be short by a pickup, and a part that begins with a pickup
    follows one that ends short: the two make a bar.
    """
    lengths = score.bar_lengths.tolist()
    fulls = [score.metre_at(start).ticks for start in score.bars.tolist()]
    ends = [start + length for start, length in zip(score.bars.tolist(), lengths, strict=True)]
    edges = {sign.onset for sign in score.signs} | {score.length}
    found = []
    for i, (length, full) in enumerate(zip(lengths, fulls, strict=True)):
        if length == full:
            continue
        closes = ends[i] in edges
        opens = i == 0 or (score.bars[i] in edges and lengths[i - 1] + length <= fulls[i - 1])
        if length > full or not (closes or opens):
            found.append(i + 1)
    return found


def faults(text: str) -> list[str]:
    """What is wrong with a tune, as our reader finds it; nothing if every bar sums to the metre."""
    try:
        scores = abc_read.read_text(text)
    except (MusicgenError, ValueError) as error:
        return [str(error).splitlines()[0]]
    if len(scores) != 1 or not scores[0].note_count:
        return [f"{len(scores)} tunes where one should be"]
    return [f"bar {bar} does not sum to the metre" for bar in irregular_bars(scores[0])]


def complaints(text: str) -> list[str]:
    """The warnings and errors of abc2midi; none if it is not installed.

    That :| or [1 has no |: before it is passed over: all tunes of the collection are written so.
    """
    if shutil.which("abc2midi") is None:
        return []
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tune.abc").write_text(text, encoding="utf-8")
        run = subprocess.run(["abc2midi", "tune.abc"], cwd=folder, capture_output=True, text=True, check=False)
    lines = re.findall(r".*(?:Warning|Error).*", run.stdout + run.stderr)
    return [line for line in lines if not line.endswith(NO_REPEAT_START)]
