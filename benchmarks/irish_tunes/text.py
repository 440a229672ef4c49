"""Irish tunes as steps that join back to exactly their text: what the models of the benchmark read.

The text of a tune comes in, header and titles and all; out go steps of three fields, and from them the same text again.
A note is one step: its pitch as a degree of the key's scale, its length, and what follows it up to the next note
(a space, a barline, the end of a line). Everything else is a step of the first field alone: a line of the header that
many tunes share, a key, a tuplet mark, an ending, and where nothing else fits, a single byte, so that any text whatever
has a finite probability. Which lines, lengths and tails there are is learnt from the training tunes.

A degree is read with the key that the header names: the same tune in another key is the same steps but for the step
that names the key. So transposing a tune costs one step, and nothing has to be learnt key by key.

Where in the music a step leaves us (`place.Place`) is told beside it, as coordinates.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np

from irish_tunes.alphabet import (
    BYTES,
    END,
    FIFTHS,
    FIRST_NAMED,
    HIGHEST,
    KEYS,
    LETTERS,
    LOWEST,
    PLAIN_KEY,
    SIGNS,
    START,
    TONICS,
    Key,
    moved,
)  # fmt: skip
from irish_tunes.memory import Memory, Step
from irish_tunes.place import Place, coordinate_sizes
from musicgen.tokens import Coordinate, Field, Hearing
from musicgen.tokens.recall import Recall

NOTE = re.compile(r"([\^_=]?)([A-Ga-g])(,+|'+|)(\d*(?:/\d*)?)")
REST = re.compile(r"([zx])(\d*(?:/\d*)?)")
FIELD_LINE = re.compile(r"[A-Za-z]:(?![|:])")
HEADER_END = re.compile(r"\nK:[^\n]*\n")
TAIL = re.compile(r"(?:-|[<>]+| )?(?:[:|\]]*\|[:|\]]*(?:!?\n|!)?)?")
GAP = re.compile(r"\(\d|\|?\[[12] ?|[:|\]]*\|[:|\]]*!?\n?|[<>]+| +|-|!?\n|[A-Z]: ?(?:\d+/\d+\n)?")


class IrishTokenizer:
    """Text to steps and back. `degrees=False` writes pitches as letters, whatever the key: the ablation."""

    name: ClassVar[str] = "irish"
    as_written: ClassVar[bool] = True
    clock: ClassVar[bool] = False
    start = (START, 0, 0)

    def __init__(
        self,
        lines: Sequence[str],
        pieces: Sequence[str],
        lengths: Sequence[str],
        tails: Sequence[str],
        metres: Sequence[str],
        degrees: bool = True,
        left_out: Sequence[str] = (),
    ) -> None:
        """left_out: names of coordinates that are not told."""
        self.options = {
            "lines": list(lines), "pieces": list(pieces), "lengths": list(lengths), "tails": list(tails),
            "metres": list(metres), "degrees": degrees, "left_out": list(left_out),
        }  # fmt: skip
        self.degrees, self.left_out = degrees, tuple(left_out)
        self.located: dict[bytes, np.ndarray] = {}
        self.memory: Memory | None = None
        self.remembered: set[bytes] = set()
        self.lines, self.pieces, self.lengths, self.tails, self.metres = map(
            tuple, (lines, pieces, lengths, tails, metres)
        )
        named = [*lines, *pieces]
        self.named = {text: FIRST_NAMED + i for i, text in enumerate(named)}
        self.first_key = FIRST_NAMED + len(named)
        self.first_pitch = self.first_key + len(KEYS)
        self.first_rest = self.first_pitch + 4 * (HIGHEST - LOWEST + 1)
        self.length_id = {text: i + 1 for i, text in enumerate(lengths)}
        self.tail_id = {text: i + 1 for i, text in enumerate(tails)}
        self.key_id = {key.text: self.first_key + i for i, key in enumerate(KEYS)}
        pitches = [
            f"{sign}{degree:+d}" for degree in range(LOWEST, HIGHEST + 1) for sign in ("", "raised", "as is", "lowered")
        ]
        labels = (
            "none", "START", "END", *(f"byte {i}" for i in range(256)),
            *map(repr, named), *(key.text.strip() for key in KEYS), *pitches, "z", "x",
        )  # fmt: skip
        self.fields = (
            Field("symbol", labels),
            Field("length", ("none", *map(repr, lengths))),
            Field("tail", ("none", *map(repr, tails))),
        )
        self.line_pattern = _longest_first(lines)
        self.piece_pattern = _longest_first(pieces)
        self.key_pattern = _longest_first([key.text for key in KEYS])
        self.tail_pattern = _longest_first(tails)
        self.coordinates = tuple(
            Coordinate(name, 1 if name in self.left_out else size) for name, size in coordinate_sizes(self)
        )
        places = np.full(len(labels), -1)
        kinds = np.zeros(len(labels), dtype=int)
        count = self.first_rest - self.first_pitch
        places[self.first_pitch : self.first_rest] = np.arange(count) // 4
        kinds[self.first_pitch : self.first_rest] = np.arange(count) % 4
        self.hearing = Hearing(octave=7, places={0: places}, kinds={0: kinds}, struck=4)
        self.recall = Recall(views=((0, 1, 2), (0,)), fields=(0, 1, 2))

    @classmethod
    def learn(cls, texts: Iterable[str], degrees: bool = True, left_out: Sequence[str] = ()) -> IrishTokenizer:
        """The tokenizer whose lines, pieces, lengths and tails are those that occur twice or more in some tunes."""
        lines: Counter[str] = Counter()
        pieces: Counter[str] = Counter()
        lengths: Counter[str] = Counter()
        tails: Counter[str] = Counter()
        metres: Counter[str] = Counter()
        for text in texts:
            header = _header_length(text)
            head = text[:header]
            lines.update(["X:", "\nT:"])
            lines.update(re.findall(r"\nZ:.*\D(?=\d*\n)", head))
            lines.update(re.findall(r"\nM:.*\nL:.*\nK:", head))
            metres.update(re.findall(r"^M:(.*)$", text, re.MULTILINE))
            at = header
            while at < len(text):
                note = NOTE.match(text, at) or REST.match(text, at)
                gap = GAP.match(text, at)
                if _field_line(text, at) and gap:
                    pieces[gap[0]] += 1
                    key = re.match(r"[^\n]*\n", text[gap.end() :])
                    at = gap.end() + (key.end() if key and gap[0][-1] != "\n" else 0)
                elif note:
                    lengths[note[note.lastindex or 0]] += 1
                    at = note.end()
                    tail = TAIL.match(text, at)
                    assert tail
                    tails[tail[0]] += 1
                    at = tail.end()
                elif gap:
                    pieces[gap[0]] += 1
                    at = gap.end()
                else:
                    at += 1
        often = lambda found: sorted(text for text, count in found.items() if count >= 2)  # noqa: E731
        return cls(
            often(lines), often(pieces), often(lengths), sorted({"", *often(tails)}), often(metres), degrees, left_out
        )  # fmt: skip

    def remember(self, tunes: Sequence[np.ndarray]) -> None:
        """Look up in these tunes what usually comes next, from now on; see memory.py."""
        self.memory, self.located = None, {}
        memory = Memory.of([self._placed(steps) for steps in tunes])
        self.memory, self.remembered = memory, {steps.astype(np.int16).tobytes() for steps in tunes}

    def _placed(self, steps: np.ndarray) -> list[Step]:
        place = Place(self)
        place.quiet = True
        for step in steps.tolist():
            place.take(step)
        return place.placed

    # --- text to steps ------------------------------------------------------------------------------------------------

    def encode_text(self, text: str) -> np.ndarray:
        """(T, 3) int16, START to END. Any text; bytes of UTF-8 where nothing else fits."""
        rows: list[tuple[int, int, int]] = [self.start]
        header = _header_length(text)
        key, at = PLAIN_KEY, 0
        while at < len(text):
            in_header = at < header
            found = None
            if text[:at].endswith(("K:", "K: ")) and (found := self.key_pattern.match(text, at)):
                rows.append((self.key_id[found[0]], 0, 0))
                key = KEYS[rows[-1][0] - self.first_key]
                at = found.end()
                continue
            if in_header:
                found = self.line_pattern.match(text, at)
                if found:
                    rows.append((self.named[found[0]], 0, 0))
            elif not _field_line(text, at) and (row := self._note(text, at, key)):
                rows.append(row[0])
                at = row[1]
                continue
            if not found and not in_header and (found := self.piece_pattern.match(text, at)):
                rows.append((self.named[found[0]], 0, 0))
            if found:
                at = found.end()
            else:
                rows += [(BYTES + byte, 0, 0) for byte in text[at].encode()]
                at += 1
        return np.array([*rows, (END, 0, 0)], dtype=np.int16)

    def _note(self, text: str, at: int, key: Key) -> tuple[tuple[int, int, int], int] | None:
        """The step of the note or rest at a place, and where it ends; None if there is none that steps can hold."""
        if rest := REST.match(text, at):
            symbol, length, end = self.first_rest + "zx".index(rest[1]), rest[2], rest.end()
        elif note := NOTE.match(text, at):
            letter = LETTERS.index(note[2].upper())
            if (note[2].isupper() and "'" in note[3]) or (note[2].islower() and "," in note[3]):
                return None
            staff = 7 * (4 + note[2].islower()) + letter + 7 * (note[3].count("'") - note[3].count(","))
            degree = staff - (key.base if self.degrees else 28)
            kind = 0
            if note[1]:
                change = SIGNS[note[1]] - (key.altered(letter) if self.degrees else 0)
                kind = {1: 1, 0: 2, -1: 3}.get(change, -1)
            if not LOWEST <= degree <= HIGHEST or kind < 0:
                return None
            symbol, length, end = self.first_pitch + 4 * (degree - LOWEST) + kind, note[4], note.end()
        else:
            return None
        if length not in self.length_id:
            end, length = end - len(length), ""
            if length not in self.length_id:
                return None
        tail = self.tail_pattern.match(text, end)
        assert tail
        return (symbol, self.length_id[length], self.tail_id[tail[0]]), tail.end()

    # --- steps to text ------------------------------------------------------------------------------------------------

    def spell(self, step: Sequence[int], key: Key) -> bytes:
        """The text of one step where `key` holds."""
        symbol = int(step[0])
        if symbol < BYTES:
            return b""
        if symbol < FIRST_NAMED:
            return bytes([symbol - BYTES])
        if symbol < self.first_key:
            return (*self.lines, *self.pieces)[symbol - FIRST_NAMED].encode()
        if symbol < self.first_pitch:
            return KEYS[symbol - self.first_key].text.encode()
        after = self.lengths[step[1] - 1] + self.tails[step[2] - 1]
        return (
            (self.letter(symbol, key) if symbol < self.first_rest else "zx"[symbol - self.first_rest]) + after
        ).encode()

    def line_of(self, symbol: int) -> str:
        """The text of a symbol that is a line of the header or its beginning; else nothing."""
        at = symbol - FIRST_NAMED
        return self.lines[at] if 0 <= at < len(self.lines) else ""

    def letter(self, symbol: int, key: Key) -> str:
        """The written pitch of a pitch symbol, without its length: "^c'"."""
        degree, kind = divmod(symbol - self.first_pitch, 4)
        staff = degree + LOWEST + (key.base if self.degrees else 28)
        octave, letter = divmod(staff, 7)
        sign = ""
        if kind:
            change = {1: 1, 2: 0, 3: -1}[kind] + (key.altered(letter) if self.degrees else 0)
            sign = {1: "^", 0: "=", -1: "_"}.get(change, "^^" if change > 0 else "__")
        name = LETTERS[letter] if octave < 5 else LETTERS[letter].lower()
        return sign + name + ("," * (4 - octave) if octave < 5 else "'" * (octave - 5))

    def decode_text(self, steps: np.ndarray) -> str:
        """The text that steps stand for; encode_text(decode_text(steps)) need not be `steps`, the reverse holds."""
        key, found = PLAIN_KEY, []
        for step in steps.tolist():
            found.append(self.spell(step, key))
            if self.first_key <= step[0] < self.first_pitch:
                key = KEYS[step[0] - self.first_key]
        return b"".join(found).decode("utf-8", errors="replace")

    def costs(self, steps: np.ndarray, nats: Sequence[float]) -> list[tuple[int, float]]:
        """(characters, nats) of each step after START; END stands for the two line ends between tunes."""
        key, found = PLAIN_KEY, []
        for step, cost in zip(steps[1:].tolist(), nats, strict=True):
            text = self.spell(step, key)
            count = sum(byte & 0xC0 != 0x80 for byte in text)
            found.append((2 if step[0] == END else count, cost))
            if self.first_key <= step[0] < self.first_pitch:
                key = KEYS[step[0] - self.first_key]
        return found

    # --- other keys ---------------------------------------------------------------------------------------------------

    def in_key(self, steps: np.ndarray, tonic: str) -> np.ndarray | None:
        """The same tune with `tonic` as its first key's; None if it names no key, or one that has no name here."""
        if not self.degrees:
            return None
        where = np.flatnonzero((steps[:, 0] >= self.first_key) & (steps[:, 0] < self.first_pitch))
        if not len(where):
            return None
        keys = [KEYS[s - self.first_key] for s in steps[where, 0].tolist()]
        fifths, letters = moved(keys[0].tonic, tonic)
        copied = steps.copy()
        for at, key in zip(where.tolist(), keys, strict=True):
            name = next((t for t in TONICS if moved(key.tonic, t) == (fifths, letters)), None)
            if name is None:
                return None
            copied[at, 0] = self.key_id[Key(name, key.mode).text]
        return copied

    def transpose(self, steps: np.ndarray, semitones: int) -> np.ndarray | None:
        """The same tune `semitones` higher, in the nearest key that has a name here; octaves change nothing."""
        where = np.flatnonzero((steps[:, 0] >= self.first_key) & (steps[:, 0] < self.first_pitch))
        if not len(where):
            return None
        first = KEYS[int(steps[where[0], 0]) - self.first_key]
        fifths = FIFTHS[first.tonic[0]] + 7 * (first.tonic.count("#") - first.tonic[1:].count("b"))
        choices = [t for t in TONICS if (7 * (moved("C", t)[0] - fifths) - semitones) % 12 == 0]
        found = [m for t in choices if (m := self.in_key(steps, t)) is not None]
        return found[0] if found else None

    # --- the rest of the protocol -------------------------------------------------------------------------------------

    def locate(self, steps: np.ndarray) -> np.ndarray:
        """(T, C) int16: see place.py. Kept: a tune is played many times in training."""
        name = steps.astype(np.int16).tobytes()
        if name not in self.located:
            own = Memory.of([self._placed(steps)]) if name in self.remembered else None
            place = Place(self, own)
            found = np.array([place.take(step) for step in steps.tolist()], dtype=np.int16)
            found[:, [c.size == 1 for c in self.coordinates]] = 0
            self.located[name] = found
        return self.located[name]

    def masks(self, steps: np.ndarray, coordinates: np.ndarray, start: int, stop: int) -> dict[int, np.ndarray]:
        """None: any text may follow any other."""
        return {}

    def is_note(self, steps: np.ndarray) -> np.ndarray:
        return (steps[:, 0] >= self.first_pitch) & (steps[:, 0] < self.first_rest)

    def characters(self, steps: np.ndarray) -> int:
        return len(self.decode_text(steps)) + 2


def _longest_first(texts: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(text) for text in sorted(texts, key=len, reverse=True)) or r"(?!)")


def _header_length(text: str) -> int:
    found = HEADER_END.search(text)
    return found.end() if found else len(text)


def _field_line(text: str, at: int) -> bool:
    """Whether a line of the kind "K:G" begins here."""
    return (at == 0 or text[at - 1] == "\n") and FIELD_LINE.match(text, at) is not None
