"""The ABC tokenizer: a single melody as text, one musical symbol a step or one character a step.

A score becomes normalised ABC (unit length 1/8) cut into symbols: a metre, a key, barlines, pitches as they are
written, lengths, ties, chord brackets, tuplets. Joined, the symbols are ABC again, and `formats.abc_read` makes the
score of them. Knowingly lost: title, tempo, instrument, velocities, chord symbols, and a last barline other than |] or :|.

The cursor is the grammar. Strict, for sampling: every bar sums to its metre, except that the first bar may be a pickup
of p and then a section may close p short of full, where a repeat goes back to that pickup or the next section begins
with one of p. Lenient, for walking over real tunes, whose bars may be of any length: only the syntax is asked for.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar

import numpy as np

from musicgen.errors import FormatError, ScoreError, TokenError
from musicgen.formats.abc_read import ACCIDENTALS, LETTER_SEMITONES, read_text, signature_of
from musicgen.formats.abc_write import Speller, cut, key_text, layers, next_tuplet, note_text
from musicgen.score import Key, Score, bar_ticks, transpose
from musicgen.score.score import MODES
from musicgen.tokens.tokenizer import Coordinate, Field

GRID = 30
"""Ticks of the shortest length, /8."""

UNIT = 8
"""The length 1, in GRID."""

METRES = tuple(
    "4/4 3/4 2/4 6/8 9/8 12/8 2/2 3/2 4/2 3/8 5/4 6/4 7/4 5/8 7/8 4/8 1/4 2/8 8/4 6/2 10/8 15/8 8/8 9/4".split()
)
BARS = ("|", "|:", ":|", "::", "||", "|]", "[1", "[2")
LENGTHS = {
    "/8": 1, "/4": 2, "3/8": 3, "/2": 4, "3/4": 6, "3/2": 12, "2": 16, "3": 24, "4": 32, "6": 48, "8": 64,
    "12": 96, "16": 128, "24": 192,
}  # fmt: skip
"""Length symbol -> GRID units; no symbol is 8."""

TUPLETS = {
    "(3": (3, 2, 3), "(3:2:2": (3, 2, 2), "(3:2:4": (3, 2, 4), "(3:2:5": (3, 2, 5), "(3:2:6": (3, 2, 6),
    "(3:2:9": (3, 2, 9), "(3:2:12": (3, 2, 12), "(3:2:1": (3, 2, 1), "(5:4:5": (5, 4, 5), "(5:4:4": (5, 4, 4),
}  # fmt: skip
"""Tuplet symbol -> p, q, r: p notes in the time of q, for r notes."""

START, END = 0, 1
PITCHES = tuple(
    accidental + note_text(letter, octave)
    for octave in range(2, 8)
    for letter in "CDEFGAB"
    for accidental in ("", "^", "=", "_")
    if octave < 7 or letter == "C"
)
KEYS = {
    key_text(Key(0, fifths, mode)): (fifths, mode)
    for mode in MODES
    for fifths in range(-7, 8)
    if mode == "major" or key_text(Key(0, fifths, mode)) != key_text(Key(0, fifths))
}
VOCABULARY: tuple[str, ...] = (
    "START",
    "END",
    *(f"M:{metre}" for metre in METRES),
    *(f"K:{key}" for key in KEYS),
    *BARS,
    *PITCHES,
    "z",
    *LENGTHS,
    "-",
    "[",
    "]",
    *TUPLETS,
)
ID = {symbol: i for i, symbol in enumerate(VOCABULARY)}
SIZE = len(VOCABULARY)

BEATS = 48
"""Positions in the bar that the beat coordinate tells apart, in sixteenth notes; later ones share the last."""

BARS_LEFT = 64

POSITION_TICKS = 120


def ids(symbols: Sequence[str]) -> np.ndarray:
    """(SIZE,) bool: true for these symbols."""
    mask = np.zeros(SIZE, dtype=bool)
    mask[[ID[s] for s in symbols]] = True
    return mask


PITCH_IDS = [ID[p] for p in PITCHES]
FIRST_PITCH, LAST_PITCH = PITCH_IDS[0], PITCH_IDS[-1]
IS_PITCH, IS_LENGTH, IS_BAR = ids(PITCHES), ids(tuple(LENGTHS)), ids(BARS)
IS_TUPLET = ids(tuple(TUPLETS))
IS_METRE, IS_KEY = ids([f"M:{m}" for m in METRES]), ids([f"K:{k}" for k in KEYS])
IS_CONTENT = IS_PITCH | IS_TUPLET | ids(["z", "["])
GRID_OF = {ID[name]: grid for name, grid in LENGTHS.items()}
LENGTH_OF = {grid: name for name, grid in LENGTHS.items()}
METRE_TICKS = {ID[f"M:{m}"]: bar_ticks(*map(int, m.split("/"))) for m in METRES}
SHORTEST, TIE, OPEN, CLOSE, REST = ID["/8"], ID["-"], ID["["], ID["]"], ID["z"]
BAR, END_REPEAT, FINAL = ID["|"], ID[":|"], ID["|]"]


def _pitch_parts(text: str) -> tuple[str, str, int]:
    match = re.fullmatch(r"([\^_=]?)([A-Ga-g])([,']*)", text)
    assert match
    octave = (4 if match[2].isupper() else 5) + match[3].count("'") - match[3].count(",")
    return match[1], match[2].upper(), octave


PITCH_PARTS = {ID[p]: _pitch_parts(p) for p in PITCHES}
"""id -> (accidental as written, letter, octave)."""

STAFF = np.full(SIZE, -1)
"""Staff position of a pitch symbol, higher is higher; -1 for other symbols."""
for _id, (_, _letter, _octave) in PITCH_PARTS.items():
    STAFF[_id] = 7 * _octave + "CDEFGAB".index(_letter)


@lru_cache(maxsize=None)
def least(p: int, notes: int, residue: int) -> int:
    """The fewest GRID units with which `notes` notes bring a tuplet of p to a sum of `residue` modulo p; big if none."""
    if notes == 0:
        return 0 if residue % p == 0 else 10**6
    return min(grid + least(p, notes - 1, (residue - grid) % p) for grid in (*LENGTHS.values(), UNIT))


class SymbolCursor:
    """The grammar of symbols. `left` below is the number of bars still to begin, or a big number if nobody counts."""

    def __init__(self, bars: int | None = None, strict: bool = True) -> None:
        if bars is not None and bars < 1:
            raise TokenError(f"a piece of {bars} bars; ask for 1 or more")
        self.bars, self.strict = bars, strict
        self.done = False
        self.bar = 0
        self.phase = "metre"  # then "key", "body"
        self.full = 1920  # ticks of a full bar
        self.at = 0  # ticks of this bar, the default length of an open note included
        self.before = 0  # the same without the note that may still get a length
        self.pickup = "free"  # what the bar at hand may be: "free", "owed" (exactly self.short), "" (full)
        self.short = 0  # the section's pickup: how much short of full it may close
        self.ending = 0
        self.last = START
        self.open_note = False  # a note, chord or rest that may still get a length
        self.tied = False
        self.sounding: list[tuple[str, int, int]] = []  # (letter, octave, alteration) of the last note or chord
        self.chord: list[int] | None = None  # staff positions so far
        self.tuplet: tuple[int, int, int, int] = (1, 1, 0, 0)  # p, q, notes left, units so far
        self.before_tuplet = self.tuplet
        self.speller = Speller(0)
        self.cache: dict[tuple, np.ndarray] = {}

    def copy(self) -> SymbolCursor:
        other = copy.copy(self)
        other.sounding = list(self.sounding)
        other.chord = None if self.chord is None else list(self.chord)
        other.speller = copy.copy(self.speller)
        other.speller.by_letter = dict(self.speller.by_letter)
        other.speller.by_octave = dict(self.speller.by_octave)
        return other

    @property
    def left(self) -> int:
        return 1000 if self.bars is None else self.bars - self.bar

    # --- what may come ------------------------------------------------------------------------------------------------

    def allowed(self, chosen: Sequence[int] = ()) -> np.ndarray:
        """(SIZE,) bool; see the protocol."""
        if self.tied and self.strict and not self.open_note:
            return self.after_tie()
        key = (
            self.phase, self.full, self.at, self.before, self.pickup, self.short, self.ending, self.last if
            self.last <= 1 or IS_BAR[self.last] or IS_KEY[self.last] or IS_METRE[self.last] or self.last == TIE else
            2 + (self.last == REST) + 4 * bool(IS_LENGTH[self.last]), self.open_note,
            None if self.chord is None else (len(self.chord), self.chord[-1] if self.chord else -1), self.tuplet,
            self.before_tuplet, min(self.left, 3), self.done, self.rest_open, self.tied, self.bar == 0,
        )  # fmt: skip
        found = self.cache.get(key)
        if found is None:
            if len(self.cache) > 20_000:
                self.cache.clear()
            found = self.cache[key] = self.work_out()
            found.flags.writeable = False
        return found

    @property
    def rest_open(self) -> bool:
        return not self.sounding

    def work_out(self) -> np.ndarray:
        mask = np.zeros(SIZE, dtype=bool)
        if self.done:
            mask[END] = True
        elif self.phase == "metre":
            mask |= IS_METRE
        elif self.phase == "key":
            mask |= IS_KEY
        elif not self.strict:
            mask |= self.lenient()
        elif self.chord is not None:
            mask = IS_PITCH & (STAFF > (self.chord[-1] if self.chord else -1))
            if not self.chord:
                mask &= STAFF.max() > STAFF
            mask[CLOSE] = len(self.chord) >= 2
        else:
            if self.open_note and self.last not in GRID_OF:
                for symbol, grid in GRID_OF.items():
                    mask[symbol] = self.fits(grid, self.before, self.before_tuplet)
                if not self.fits(UNIT, self.before, self.before_tuplet):
                    return mask
            if self.open_note and self.sounding and (self.room() > 0 or self.tuplet[2] or self.closes()[BAR]):
                mask[TIE] = True
            mask |= self.onwards()
        return mask

    def onwards(self) -> np.ndarray:
        """What may come once the last note has its length."""
        mask = np.zeros(SIZE, dtype=bool)
        if self.tuplet[2]:
            return IS_PITCH | ids(["z", "["])
        at_barline = self.at == 0
        if at_barline and self.last in (FINAL, END_REPEAT) and self.ending != 1:
            mask[END] = self.bars is None or self.left == 0
        if at_barline and self.left == 0:
            return mask
        if at_barline and self.last == END_REPEAT and self.ending == 1:
            mask[ID["[2"]] = True
            return mask
        room = self.room()
        if room >= GRID:
            mask |= IS_PITCH
            mask[[REST, OPEN]] = True
            for name, (p, q, count) in TUPLETS.items():
                mask[ID[name]] = least(p, count, 0) * GRID * q // p <= room
        if not at_barline:
            return mask | self.closes()
        closed = self.last in (ID[":|"], ID["::"], ID["||"], FINAL)
        if closed and not self.short and self.pickup != "owed":
            mask |= IS_METRE
        if closed or (IS_METRE[self.last] and self.bar > 0):
            mask |= IS_KEY
        if self.last in (ID["||"], FINAL) or (self.bar == 0 and IS_KEY[self.last]):
            mask[ID["|:"]] = True
        if self.last == BAR and not self.ending and self.left >= 2 and self.pickup == "" and self.bar > 1:
            mask[ID["[1"]] = True
        return mask

    def limit(self) -> int:
        """Ticks that the bar at hand may hold at most."""
        if self.pickup == "owed":
            return self.short
        if self.ending == 1 and self.left <= (0 if self.at == 0 and False else 1):
            return self.full - self.short
        return self.full

    def room(self) -> int:
        return self.limit() - self.at

    def fits(self, grid: int, at: int, tuplet: tuple[int, int, int, int]) -> bool:
        """Whether a note of that many GRID units, begun at `at`, leaves a bar that can be filled."""
        p, q, notes, units = tuplet
        room = self.limit() - at
        if not notes:
            return grid * GRID <= room
        rest = least(p, notes - 1, -(units + grid) % p)
        return (grid + rest) * GRID * q <= room * p

    def closes(self) -> np.ndarray:
        """The barlines that may stand where the bar at hand has come to."""
        mask = np.zeros(SIZE, dtype=bool)
        at, left = self.at, self.left
        if self.tuplet[2]:
            return mask
        if self.pickup == "owed":
            mask[BAR] = at == self.short
            return mask
        if self.pickup == "free" and 0 < at < self.full and at % POSITION_TICKS == 0 and left >= 1:
            mask[[BAR, ID["|:"]]] = True
            return mask
        full = at == self.full
        short = at == self.full - self.short
        if self.ending == 1:
            mask[BAR] = full and left >= 2
            mask[END_REPEAT] = short and left >= 1
            return mask
        mask[BAR] = full and left >= 1
        # a section that closes short owes the next one its pickup, and that one needs a bar after it
        may_close = (full and (not self.short or True)) or (short and (left == 0 or left >= 2))
        if not may_close:
            return mask
        mask[FINAL] = True
        if left >= 1:
            mask[[ID["||"], ID["|:"]]] = True
        if self.ending == 0 and short and (left == 0 or left >= 2 or not self.short):
            mask[END_REPEAT] = True
            mask[ID["::"]] = left >= 1
        return mask

    def after_tie(self) -> np.ndarray:
        """A tie is followed by the same pitch, spelled as the bar asks for it, at once or over a plain barline."""
        mask = np.zeros(SIZE, dtype=bool)
        if self.chord is not None:
            wanted = sorted(self.sounding, key=lambda n: 7 * n[1] + "CDEFGAB".index(n[0]))
            if len(self.chord) == len(wanted):
                mask[CLOSE] = True
            else:
                mask[self.spelled(*wanted[len(self.chord)])] = True
        elif self.room() > 0 or self.tuplet[2]:
            mask[self.spelled(*self.sounding[0]) if len(self.sounding) == 1 else OPEN] = True
        else:
            mask[BAR] = True
        return mask

    def spelled(self, letter: str, octave: int, alteration: int) -> int:
        """The symbol that sounds so where the cursor stands."""
        speller = self.speller
        natural = speller.signature.get(letter, 0)
        holds = {speller.by_letter.get(letter, natural), speller.by_octave.get((letter, octave), natural)}
        sign = "" if holds == {alteration} else {0: "=", 1: "^", -1: "_"}[alteration]
        return ID[sign + note_text(letter, octave)]

    def lenient(self) -> np.ndarray:
        """What syntax allows, whatever the bars sum to."""
        if self.chord is not None:
            mask = IS_PITCH.copy()
            mask[CLOSE] = bool(self.chord)
            return mask
        mask = IS_CONTENT | IS_METRE | IS_KEY | IS_BAR
        if self.open_note and self.last not in GRID_OF:
            mask |= IS_LENGTH
        mask[TIE] = self.open_note and bool(self.sounding)
        mask[END] = self.last in (FINAL, END_REPEAT) and self.ending != 1 and (self.bars is None or self.left == 0)
        return mask

    # --- taking a step ------------------------------------------------------------------------------------------------

    def advance(self, step: Sequence[int]) -> None:
        """Take a step; see the protocol."""
        symbol = int(step[0])
        if not (0 <= symbol < SIZE) or not self.allowed()[symbol]:
            name = VOCABULARY[symbol] if 0 <= symbol < SIZE else symbol
            raise TokenError(f"bar {self.bar}: {name!r} can't stand after {VOCABULARY[self.last]!r}")
        self.take(symbol)

    def take(self, symbol: int) -> None:
        if symbol == END:
            self.done = True
        elif IS_METRE[symbol]:
            self.full = METRE_TICKS[symbol]
            self.phase = "key" if self.phase == "metre" else self.phase
            self.open_note = False
        elif IS_KEY[symbol]:
            self.speller.set_key(KEYS[VOCABULARY[symbol][2:]][0])
            self.phase = "body"
            self.open_note = False
        elif IS_PITCH[symbol]:
            self.take_pitch(symbol)
        elif symbol in GRID_OF:
            self.at, self.tuplet = self.before, self.before_tuplet
            self.place(GRID_OF[symbol])
        elif symbol == TIE:
            self.tied, self.open_note = True, False
        elif symbol == REST:
            self.begin_content()
            self.sounding, self.tied = [], False
            self.place(UNIT)
        elif symbol == OPEN:
            self.begin_content()
            self.chord, self.open_note = [], False
            if not self.tied:
                self.sounding = []
        elif symbol == CLOSE:
            self.chord = None
            self.tied = False
            self.place(UNIT)
        elif IS_TUPLET[symbol]:
            self.begin_content()
            self.tuplet = (*TUPLETS[VOCABULARY[symbol]], 0)
            self.open_note = False
        else:
            self.take_bar(VOCABULARY[symbol])
        self.last = symbol

    def begin_content(self) -> None:
        if self.at == 0 and (IS_BAR[self.last] or IS_KEY[self.last] or IS_METRE[self.last]):
            self.bar += 1

    def take_pitch(self, symbol: int) -> None:
        accidental, letter, octave = PITCH_PARTS[symbol]
        speller = self.speller
        held = next((a for le, o, a in self.sounding if (le, o) == (letter, octave)), None) if self.tied else None
        if accidental:
            alteration = ACCIDENTALS[accidental]
            speller.by_letter[letter] = speller.by_octave[letter, octave] = alteration
        elif held is not None:
            alteration = held
        else:
            alteration = speller.by_letter.get(letter, speller.signature.get(letter, 0))
        if self.chord is None:
            self.begin_content()
            self.sounding, self.tied = [(letter, octave, alteration)], False
            self.place(UNIT)
        else:
            self.chord.append(int(STAFF[symbol]))
            if not self.tied:
                self.sounding.append((letter, octave, alteration))

    def place(self, grid: int) -> None:
        """A note, chord or rest of that many GRID units."""
        self.before, self.before_tuplet = self.at, self.tuplet
        p, q, notes, units = self.tuplet
        self.at += grid * GRID * q // p
        self.tuplet = (p, q, notes - 1, units + grid) if notes > 1 else (1, 1, 0, 0)
        self.open_note = True

    def take_bar(self, name: str) -> None:
        gap = self.full - self.at
        if name == "[1":
            self.ending = 1
        elif name == "[2":
            self.ending, self.pickup = 2, ""
        elif self.at:
            if name == "|":
                if self.pickup == "free" and gap > 0:
                    self.short = self.at
                self.pickup = ""
            elif self.pickup == "free" and name == "|:" and gap > 0:
                self.pickup, self.short = "", 0
            elif self.ending == 1 and name == ":|":
                self.pickup = ""
            else:
                self.short = max(gap, 0)
                self.pickup = "owed" if gap > 0 else ""
                self.ending = 0
                # the repeated section after an owed pickup would begin with it: |: and :: keep it so
        self.at = self.before = 0
        self.tuplet = (1, 1, 0, 0)
        self.open_note = False
        self.speller.new_bar()

    # --- where we are -------------------------------------------------------------------------------------------------

    def coordinates(self) -> tuple[int, ...]:
        beat = 1 + min(self.at // POSITION_TICKS, BEATS - 1)
        if self.bars is None:
            return beat, 0
        return beat, 1 + min(max(self.left, 0), BARS_LEFT)


def positions(symbols: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(T,) ticks since the barline and (T,) bars begun, after each of the symbols (T,); vectorised over the piece."""
    total = len(symbols)
    is_bar, is_content = IS_BAR[symbols], IS_CONTENT[symbols]
    depth = np.cumsum(symbols == OPEN) - np.cumsum(symbols == CLOSE)
    sounds = ((IS_PITCH[symbols] & (depth == 0)) | (symbols == REST) | (symbols == CLOSE)).nonzero()[0]
    numerator, denominator = np.ones(total, dtype=np.int64), np.ones(total, dtype=np.int64)
    bars = is_bar.nonzero()[0]
    for at in IS_TUPLET[symbols].nonzero()[0]:
        p, q, count = TUPLETS[VOCABULARY[symbols[at]]]
        first = np.searchsorted(sounds, at)
        stop = bars[np.searchsorted(bars, at)] if np.searchsorted(bars, at) < len(bars) else total
        found = sounds[first : first + count]
        numerator[found[found < stop]], denominator[found[found < stop]] = q, p
    length_value = np.zeros(SIZE, dtype=np.int64)
    for symbol, grid in GRID_OF.items():
        length_value[symbol] = grid
    moved = np.zeros(total, dtype=np.int64)
    moved[sounds] = UNIT * GRID * numerator[sounds] // denominator[sounds]
    lengths = IS_LENGTH[symbols].nonzero()[0]
    owners = sounds[np.maximum(np.searchsorted(sounds, lengths) - 1, 0)] if len(sounds) else lengths
    moved[lengths] = length_value[symbols[lengths]] * GRID * numerator[owners] // denominator[owners] - moved[owners]
    clock = np.cumsum(moved)
    at_bar = np.maximum.accumulate(np.where(is_bar, np.arange(total), -1))
    ticks = clock - np.where(at_bar >= 0, clock[np.maximum(at_bar, 0)], 0)
    # a bar begins with its first content after a barline or, for the first, after the header
    marks = (is_bar | is_content).nonzero()[0]
    previous = np.concatenate(([True], is_bar[marks][:-1]))
    begins = np.zeros(total, dtype=np.int64)
    begins[marks[is_content[marks] & previous]] = 1
    return ticks, np.cumsum(begins)


class AbcTokenizer:
    """ABC as steps of one field. See the module's docstring for what is kept and what is lost.

    characters: True spells the same text letter by letter, for a language model of characters.
    """

    name: ClassVar[str] = "abc"
    as_written: ClassVar[bool] = True

    def __init__(self, characters: bool = False) -> None:
        self.options = {"characters": characters}
        self.spelled = characters
        labels = VOCABULARY if not characters else ("START", "END", *CHARACTERS)
        self.fields = (Field("symbol", labels),)
        self.coordinates = (Coordinate("beat", BEATS + 1), Coordinate("bars_left", BARS_LEFT + 2))
        self.start: tuple[int, ...] = (START,)

    # --- scores -------------------------------------------------------------------------------------------------------

    def encode(self, score: Score) -> np.ndarray:
        """(T, 1) int16 steps of a score of one melody. Raises TokenError where it can't be held."""
        symbols = np.array([START, *(symbol_id(s) for s in symbols_of(score)), END], dtype=np.int16)
        if not self.spelled:
            return symbols[:, None]
        text = spell_out(symbols)
        return np.array([START, *(CHARACTER_ID[c] for c in text), END], dtype=np.int16)[:, None]

    def decode(self, steps: np.ndarray) -> Score:
        """The score of the steps; a missing END and a last chord left open are forgiven. TokenError without notes."""
        symbols = self.symbols(steps)
        opened = np.flatnonzero(symbols == OPEN)
        if len(opened) and not np.any(symbols[opened[-1] :] == CLOSE):
            symbols = symbols[: opened[-1]]
        try:
            return read_text(self.lay_out(symbols))[0]
        except FormatError as error:
            raise TokenError(f"these steps are no tune: {error}") from error

    def symbols(self, steps: np.ndarray) -> np.ndarray:
        """(S,) ids of the symbols in the steps, in characters too; a last symbol left unfinished is dropped."""
        flat = np.asarray(steps).reshape(-1).astype(np.int64)
        if not self.spelled:
            return flat
        return np.array([symbol for symbol, _ in self.cut_characters(flat)], dtype=np.int64)

    def cut_characters(self, flat: np.ndarray) -> list[tuple[int, int]]:
        """(symbol id, index of its first step) for the characters in `flat`, by maximal munch."""
        found: list[tuple[int, int]] = []
        has_start = len(flat) > 0 and flat[0] == START
        if has_start:
            found.append((START, 0))
        stop = int(np.argmax(flat == END)) if np.any(flat == END) else len(flat)
        text = "".join(CHARACTERS[c - 2] for c in flat[int(has_start) : stop])
        at = 0
        while at < len(text):
            match = SYMBOL.match(text, at)
            if not match:
                break
            found.append((TEXT_ID[match[0]], at + has_start))
            at = match.end()
        if stop < len(flat):
            found.append((END, stop))
        return found

    def text(self, steps: np.ndarray) -> str:
        """The steps as an ABC tune with its header, in lines of a few bars."""
        return self.lay_out(self.symbols(steps))

    def lay_out(self, symbols: np.ndarray) -> str:
        lines, line, bars = ["X:1", "L:1/8"], "", 0
        for symbol, text in zip(symbols, spellings(symbols), strict=True):
            if text.endswith("\n"):
                lines.append(text[:-1])
                continue
            if bars >= 4 and not IS_BAR[symbol]:
                lines.append(line.strip())
                line, bars = "", 0
            line += text
            bars += bool(IS_BAR[symbol])
        if line.strip():
            lines.append(line.strip())
        if not any(text.startswith("K:") for text in lines):
            lines.append("K:C")
        return "\n".join(lines) + "\n"

    # --- where and what -----------------------------------------------------------------------------------------------

    def locate(self, steps: np.ndarray) -> np.ndarray:
        """(T, 2) int16: beat and bars left after each step of a whole piece.

        In characters, after each character, what the symbols before its own have come to.
        """
        flat = np.asarray(steps).reshape(-1).astype(np.int64)
        if not self.spelled:
            return locate_symbols(flat)
        cut_up = self.cut_characters(flat)
        symbols = np.array([symbol for symbol, _ in cut_up], dtype=np.int64)
        firsts = np.array([first for _, first in cut_up])
        owner = np.searchsorted(firsts, np.arange(len(flat)), side="right") - 1
        ended = np.isin(symbols[owner], (START, END))
        return locate_symbols(symbols)[np.where(ended, owner, np.maximum(owner - 1, 0))]

    def is_note(self, steps: np.ndarray) -> np.ndarray:
        """(T,) bool: pitches (in characters: the first of each); a tied continuation counts again."""
        flat = np.asarray(steps).reshape(-1).astype(np.int64)
        if not self.spelled:
            return IS_PITCH[flat]
        found = np.zeros(len(flat), dtype=bool)
        found[[first for symbol, first in self.cut_characters(flat) if IS_PITCH[symbol]]] = True
        return found

    def transpose(self, steps: np.ndarray, semitones: int) -> np.ndarray | None:
        """The same piece `semitones` higher, spelled for its new key; None where it leaves the range of symbols."""
        if semitones == 0:
            return np.asarray(steps)
        try:
            return self.encode(transpose(self.decode(steps), semitones))
        except (TokenError, ScoreError):
            return None

    def cursor(self, bars: int | None = None, strict: bool = True) -> SymbolCursor | CharacterCursor:
        """A cursor just after START; strict for sampling, lenient for walking over real tunes."""
        cursor = SymbolCursor(bars, strict)
        return CharacterCursor(cursor) if self.spelled else cursor

    def characters(self, steps: np.ndarray) -> int | None:
        """Length of the tune as text, header fields included: the same for symbols and characters."""
        return sum(len(text) for text in spellings(self.symbols(steps)))


def locate_symbols(symbols: np.ndarray) -> np.ndarray:
    ticks, begun = positions(symbols)
    total = begun[-1] if len(begun) else 0
    beat = 1 + np.minimum(ticks // POSITION_TICKS, BEATS - 1)
    return np.stack([beat, 1 + np.minimum(total - begun, BARS_LEFT)], axis=1).astype(np.int16)


# --- scores to symbols ------------------------------------------------------------------------------------------------


def symbol_id(symbol: str) -> int:
    found = ID.get(symbol)
    if found is None:
        raise TokenError(f"the ABC vocabulary has no {symbol!r}; leave the tune out or use another tokenizer")
    return found


def symbols_of(score: Score) -> list[str]:
    """The tune as symbols, without START and END. Raises TokenError where it is no single melody of known symbols."""
    parts = [part for part in score.parts if len(part.notes)]
    if not parts:
        raise TokenError("no notes to encode")
    if len(parts) > 1 or parts[0].is_drum:
        raise TokenError(f"{len(parts)} parts with notes, or drums; the ABC tokenizer holds a single melody")
    voices = layers(parts[0])
    if len(voices) > 1:
        raise TokenError("notes overlap; the ABC tokenizer holds a single voice, with chords")
    edges = score.bars.tolist()
    if score.length > edges[-1]:
        edges.append(score.length)
    metre, key = score.metres[0], score.keys[0]
    symbols = [f"M:{metre.numerator}/{metre.denominator}", f"K:{key_text(key)}"]
    fields: dict[int, list[tuple[str, int | None]]] = {}
    for m in score.metres[1:]:
        fields.setdefault(m.onset, []).append((f"M:{m.numerator}/{m.denominator}", None))
    for k in score.keys[1:]:
        fields.setdefault(k.onset, []).append((f"K:{key_text(k)}", k.fifths))
    signs: dict[int, list] = {edge: [] for edge in edges}
    for sign in score.signs:
        signs[next((edge for edge in edges if edge >= sign.onset), edges[-1])].append(sign)
    speller = Speller(key.fifths)
    symbols += barline(signs[0], first=True)
    for events, end in zip(cut(voices[0], edges), edges[1:], strict=True):
        speller.new_bar()
        at = 0
        while at < len(events):
            p, q, written = next_tuplet(events[at:])
            opened = p == 1
            for (onset, _, pitches, tie), length in zip(events[at : at + len(written)], written, strict=True):
                for symbol, fifths in fields.pop(onset, []):
                    symbols.append(symbol)
                    if fifths is not None:
                        speller.set_key(fifths)
                if not opened:
                    same = len(written) == p
                    symbols.append(f"({p}" if p == 3 and same else f"({p}:{q}:{len(written)}")
                    opened = True
                pieces = split_length(length) if p == 1 else [length_symbol(length)]
                for number, piece in enumerate(pieces):
                    names = [speller.note(pitch) for pitch in pitches] or ["z"]
                    symbols += names if len(names) == 1 else ["[", *names, "]"]
                    symbols += [piece] if piece else []
                    if pitches and (tie or number + 1 < len(pieces)):
                        symbols.append("-")
            at += len(written)
        symbols += barline(signs[end], last=end == edges[-1])
    if fields:
        raise TokenError("metre or key changes inside a note; the ABC tokenizer can't hold that")
    return symbols


def barline(signs: list, first: bool = False, last: bool = False) -> list[str]:
    """The barline symbols for the signs at one place."""
    kinds = {sign.kind for sign in signs}
    if last:
        return [":|" if "repeat_end" in kinds else "|]"]
    found = []
    if "repeat_end" in kinds:
        found.append("::" if "repeat_start" in kinds else ":|")
    elif kinds & {"final", "double"}:
        found.append("|]" if "final" in kinds else "||")
    if "repeat_start" in kinds and "repeat_end" not in kinds:
        found.append("|:")
    if not found and not first:
        found.append("|")
    for sign in signs:
        if sign.kind == "ending":
            if sign.passes not in ((1,), (2,)):
                raise TokenError(f"an ending for passes {sign.passes}; the ABC tokenizer holds first and second endings")
            found.append(f"[{sign.passes[0]}")
    return found


def length_symbol(duration: int) -> str:
    """The symbol for a written length in ticks, "" for the unit. Raises TokenError where there is none."""
    if duration == UNIT * GRID:
        return ""
    if duration % GRID or duration // GRID not in LENGTH_OF:
        raise TokenError(f"a length of {duration} ticks has no symbol; leave the tune out or quantise it")
    return LENGTH_OF[duration // GRID]


def split_length(duration: int) -> list[str]:
    """A length in ticks as length symbols, longest first, for notes to be tied."""
    found = []
    choices = sorted((*LENGTH_OF, UNIT), reverse=True)
    while duration >= GRID:
        grid = next(g for g in choices if g * GRID <= duration)
        found.append(length_symbol(grid * GRID))
        duration -= grid * GRID
    if duration:
        raise TokenError(f"{duration} ticks left over, finer than a 64th note; quantise the tune")
    return found


# --- spelling ---------------------------------------------------------------------------------------------------------


def spellings(symbols: np.ndarray) -> list[str]:
    """The text of each symbol where it stands: the first metre and key are header lines, later ones inline fields."""
    found = []
    in_header = True
    for symbol in symbols.tolist():
        if symbol in (START, END):
            found.append("")
        elif IS_METRE[symbol] or IS_KEY[symbol]:
            found.append(HEADER_TEXT[symbol] if in_header else BODY_TEXT[symbol])
            in_header = in_header and not IS_KEY[symbol]
        else:
            found.append(BODY_TEXT[symbol])
    return found


def spell_out(symbols: np.ndarray) -> str:
    return "".join(spellings(symbols))


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
