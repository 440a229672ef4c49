"""ABC letter by letter: the texts of the symbols, and a cursor over characters that walks the grammar of symbols.

It spells the symbols of a symbol cursor, the longest symbol that may stand winning. This is the lecture's lab.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from musicgen.errors import TokenError
from musicgen.tokens.abc_grammar import SymbolCursor
from musicgen.tokens.abc_symbols import END, SIZE, VOCABULARY
from musicgen.tokens.ending import Ending

HEADER_TEXT = {i: s + "\n" for i, s in enumerate(VOCABULARY) if s[:2] in ("M:", "K:")}
BODY_TEXT = {
    i: f"[{s}]" if s[:2] in ("M:", "K:") else " |:" if s == "|:" else s for i, s in enumerate(VOCABULARY) if i > END
}
TEXT_ID = {**{text: i for i, text in BODY_TEXT.items()}, **{text: i for i, text in HEADER_TEXT.items()}}
SYMBOL = re.compile("|".join(re.escape(text) for text in sorted(TEXT_ID, key=len, reverse=True)))
CHARACTERS = tuple(sorted({c for text in TEXT_ID for c in text}))
CHARACTER_ID = {c: i + 2 for i, c in enumerate(CHARACTERS)}


def _extensions(texts: dict[int, str]) -> dict[str, np.ndarray]:
    """prefix -> (characters + 2, SIZE) bool: which character leads on from the prefix towards which symbol."""
    table: dict[str, np.ndarray] = {}
    for symbol, text in texts.items():
        for i, character in enumerate(text):
            rows = table.setdefault(text[:i], np.zeros((len(CHARACTERS) + 2, SIZE), dtype=np.float32))
            rows[CHARACTER_ID[character], symbol] = 1
    return table


HEADER_NEXT, BODY_NEXT = _extensions(HEADER_TEXT), _extensions(BODY_TEXT)


class CharacterCursor:
    """The symbol grammar spelled letter by letter: a symbol cursor and the characters of the symbol being spelled."""

    def __init__(self, cursor: SymbolCursor) -> None:
        self.cursor = cursor
        self.prefix = ""
        self.ahead: SymbolCursor | None = None  # the cursor with the prefix taken as a symbol

    @property
    def done(self) -> bool:
        return self.cursor.done

    @property
    def bar(self) -> int:
        return self.cursor.bar

    @property
    def bars(self) -> int | None:
        return self.cursor.bars

    @bars.setter
    def bars(self, bars: int | None) -> None:
        """Where END might have come instead, the symbol being spelled is taken as it stands."""
        ahead = self.advanced()
        if bars is not None and ahead is not None and ahead.allowed()[END]:
            self.cursor, self.prefix = ahead, ""
        self.cursor.bars, self.ahead = bars, None

    @property
    def ending(self) -> Ending | None:
        return self.cursor.ending

    @ending.setter
    def ending(self, ending: Ending | None) -> None:
        self.cursor.ending, self.ahead = ending, None

    @property
    def compass(self) -> tuple[int, int] | None:
        return self.cursor.compass

    @compass.setter
    def compass(self, compass: tuple[int, int] | None) -> None:
        self.cursor.compass, self.ahead = compass, None

    @property
    def closed(self) -> bool:
        ahead = self.advanced()
        return ahead is not None and ahead.closed

    def keep_course(self) -> None:
        """The symbol being spelled is taken as it stands; then as in SymbolCursor."""
        self.cursor, self.prefix, self.ahead = self.advanced() or self.cursor, "", None
        self.cursor.keep_course()

    def advanced(self) -> SymbolCursor | None:
        """The symbol cursor if the characters pending are a symbol, None if they are none that may stand here."""
        if self.ahead is None and self.prefix:
            texts = HEADER_TEXT if self.cursor.phase != "body" else BODY_TEXT
            symbol = TEXT_ID.get(self.prefix)
            if symbol is not None and texts.get(symbol) == self.prefix and self.cursor.allowed()[symbol]:
                self.ahead = self.cursor.copy()
                self.ahead.take(symbol)
        return self.ahead

    def allowed(self, chosen: Sequence[int] = ()) -> np.ndarray:
        """(characters + 2,) bool; see the protocol."""
        found = self.following(self.cursor, self.prefix)
        ahead = self.advanced()
        if ahead is not None:
            found = found | self.following(ahead, "")
            found[END] = ahead.allowed()[END]
        elif not self.prefix:
            found[END] = self.cursor.allowed()[END]
        return found

    def following(self, cursor: SymbolCursor, prefix: str) -> np.ndarray:
        table = (HEADER_NEXT if cursor.phase != "body" else BODY_NEXT).get(prefix)
        if table is None or cursor.done:
            return np.zeros(len(CHARACTERS) + 2, dtype=bool)
        return table @ cursor.allowed().astype(np.float32) > 0

    def advance(self, step: Sequence[int]) -> None:
        """Take a character; see the protocol."""
        character = int(step[0])
        if not 0 <= character < len(CHARACTERS) + 2 or not self.allowed()[character]:
            name = CHARACTERS[character - 2] if 2 <= character < len(CHARACTERS) + 2 else character
            raise TokenError(f"bar {self.bar}: {name!r} can't stand after {self.prefix!r}")
        if not self.following(self.cursor, self.prefix)[character]:
            ahead = self.advanced()
            self.cursor, self.prefix, self.ahead = ahead or self.cursor, "", None
        if character == END:
            self.cursor.take(END)
        else:
            self.prefix, self.ahead = self.prefix + CHARACTERS[character - 2], None

    def coordinates(self) -> tuple[int, ...]:
        return self.cursor.coordinates()
