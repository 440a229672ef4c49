"""The grammar of ABC symbols: the vocabulary, and the cursors that say what may come next.

A symbol cursor is strict or lenient. Strict, for sampling: every bar sums to its metre, except that the first bar may
be a pickup of p and then a section may close p short of full, where a repeat goes back to that pickup or the next
section begins with one of p; the notes of a tuplet are of one length and no chords; a tie is followed by the same
pitch; a |: finds its :|, and a :| after a double bar has a |: before it. Lenient, for walking over real tunes, whose
bars may have any length: syntax alone counts.

What may come depends on little (the ticks in the bar, what is open), so that masks are worked out once and kept.
A character cursor spells the symbols of a symbol cursor letter by letter, the longest symbol that may stand winning.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence

import numpy as np

from musicgen.errors import TokenError
from musicgen.formats.abc_fields import ACCIDENTALS, LETTER_SEMITONES
from musicgen.formats.abc_write import Speller, key_text, note_text
from musicgen.score import Key, bar_ticks
from musicgen.score.score import MODES

GRID = 30
"""Ticks of the shortest length, /8."""

UNIT = 8
"""The length 1, in GRID."""

METRES = (
    *("4/4", "3/4", "2/4", "6/8", "9/8", "12/8", "2/2", "3/2", "4/2", "3/8", "5/4", "6/4"),
    *("7/4", "5/8", "7/8", "4/8", "1/4", "2/8", "8/4", "6/2", "10/8", "15/8", "8/8", "9/4"),
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
_NATURAL = np.zeros(SIZE, dtype=np.int64)  # semitones of a pitch symbol without its accidental
_WRITTEN = np.zeros(SIZE, dtype=np.int64)  # what its accidental adds
for _id, (_accidental, _letter, _octave) in PITCH_PARTS.items():
    STAFF[_id] = 7 * _octave + "CDEFGAB".index(_letter)
    _NATURAL[_id] = 12 * _octave + LETTER_SEMITONES[_letter]
    _WRITTEN[_id] = ACCIDENTALS[_accidental] if _accidental else 0
_PLAIN = np.array([i in PITCH_PARTS and not PITCH_PARTS[i][0] for i in range(SIZE)])
_LETTER = np.array(["CDEFGAB".index(PITCH_PARTS[i][1]) if i in PITCH_PARTS else 0 for i in range(SIZE)])


class SymbolCursor:
    """The grammar of symbols. `left` below is the number of bars still to begin, or a big number if nobody counts."""

    def __init__(self, bars: int | None = None, strict: bool = True) -> None:
        if bars is not None and bars < 1:
            raise TokenError(f"a piece of {bars} bars; ask for 1 or more")
        self.bars, self.strict, self.steady = bars, strict, False
        self.done = False
        self.bar = 0
        self.phase = "metre"  # then "key", "body"
        self.full = 1920  # ticks of a full bar
        self.at = 0  # ticks of this bar, the default length of an open note included
        self.before = 0  # the same without the note that may still get a length
        self.pickup = "free"  # what the bar at hand may be: "free", "owed" (exactly self.short), "" (full)
        self.short = 0  # the section's pickup: how much short of full it may close
        self.ending = 0
        self.repeating = False  # since a |: or :: whose :| is still to come
        self.last = START
        self.open_note = False  # a note, chord or rest that may still get a length
        self.tied = False
        self.sounding: list[tuple[str, int, int]] = []  # (letter, octave, alteration) of the last note or chord
        self.chord: list[int] | None = None  # staff positions so far
        self.tuplet: tuple[int, int, int, int] = (1, 1, 0, 0)  # p, q, notes left, GRID units of the note before
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

    def keep_course(self) -> None:
        """From here on strictly by the grammar, and without a change of metre or key; see the protocol.

        A bar that the prompt has filled to more than its metre counts as full.
        """
        self.strict, self.steady = True, True
        self.cache = {}
        self.at, self.open_note = max(min(self.at, self.limit()), 0), False

    @property
    def left(self) -> int:
        return 1000 if self.bars is None else self.bars - self.bar

    # --- what may come ------------------------------------------------------------------------------------------------

    def allowed(self, chosen: Sequence[int] = ()) -> np.ndarray:
        """(SIZE,) bool; see the protocol."""
        if self.tied and self.strict and not self.open_note:
            return self.after_tie()
        last = self.last
        structural = last <= END or last == TIE or IS_BAR[last] or IS_KEY[last] or IS_METRE[last]
        chord = None if self.chord is None else (len(self.chord), self.chord[-1] if self.chord else -1)
        key = (
            *(
                self.phase,
                self.full,
                self.at,
                self.before,
                self.pickup,
                self.short,
                self.ending,
                self.repeating,
            ),
            *(last if structural else -1 if last in GRID_OF else -2, self.open_note, chord, self.tuplet),
            *(self.before_tuplet, min(self.left, 3), min(self.bar, 2), self.done),
            *(bool(self.sounding), self.tied),
        )
        found = self.cache.get(key)
        if found is None:
            if len(self.cache) > 20_000:
                self.cache.clear()
            found = self.cache[key] = self.work_out()
            found.flags.writeable = False
        return found & (self.semitones() > self.chord_top()) if self.strict and self.chord else found

    def semitones(self) -> np.ndarray:
        """(SIZE,) what each pitch symbol would sound here, in semitones; of other symbols a big number."""
        speller = self.speller
        altered = np.array([speller.by_letter.get(le, speller.signature.get(le, 0)) for le in "CDEFGAB"])
        return np.where(IS_PITCH, _NATURAL + np.where(_PLAIN, altered[_LETTER], _WRITTEN), 1000)

    def chord_top(self) -> int:
        """The highest semitone of the chord being written: no pitch stands in it twice."""
        return max(12 * octave + LETTER_SEMITONES[letter] + alter for letter, octave, alter in self.sounding)

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
            mask = IS_PITCH & ((self.chord[-1] if self.chord else -1) < STAFF)
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
            mask[REST] = True
            return mask | IS_PITCH
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
                mask[ID[name]] = count % p == 0 and count * GRID * q // p <= room
        if not at_barline:
            return mask | self.closes()
        closed = self.last in (ID[":|"], ID["::"], ID["||"], FINAL)
        if closed and not self.short and self.pickup != "owed" and not self.steady:
            mask |= IS_METRE
        if (closed or (IS_METRE[self.last] and self.bar > 0)) and not self.steady:
            mask |= IS_KEY
        if self.last in (ID["||"], FINAL) or (self.bar == 0 and IS_KEY[self.last]):
            mask[ID["|:"]] = True
        if self.last == BAR and not self.ending and self.left >= 2 and self.pickup == "" and self.bar > 1:
            mask[ID["[1"]] = self.repeating
        return mask

    def limit(self) -> int:
        """Ticks that the bar at hand may hold at most."""
        if self.pickup == "owed":
            return self.short
        last = self.left - (self.at == 0)  # bars to begin once this one has begun
        if (self.ending == 1 and last <= 1) or (self.repeating and last == 0):
            return self.full - self.short  # the bar at hand must close a repeat
        return self.full

    def room(self) -> int:
        return self.limit() - self.at

    def fits(self, grid: int, at: int, tuplet: tuple[int, int, int, int]) -> bool:
        """Whether a note of that many GRID units, begun at `at`, leaves a bar that can be filled."""
        p, q, notes, before = tuplet
        room = self.limit() - at
        if not notes:
            return grid * GRID <= room
        return notes * grid * GRID * q <= room * p and before in (0, grid)

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
            mask[BAR] = True
            mask[ID["|:"]] = not self.repeating
            return mask
        full = at == self.full
        short = at == self.full - self.short
        if self.ending == 1:
            mask[BAR] = full and left >= 2
            mask[END_REPEAT] = short and left >= 1
            return mask
        mask[BAR] = full and left >= 1
        # a section that closes short owes the next one its pickup, and that one needs a bar after it
        short = short and (not self.short or left == 0 or left >= 2)
        if (full or short) and not self.repeating:
            mask[FINAL] = True
            mask[[ID["||"], ID["|:"]]] = left >= 1
        if self.ending == 0 and short:
            mask[END_REPEAT] = self.repeating
            mask[ID["::"]] = left >= 1 and self.repeating
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
        p, q, notes, _ = self.tuplet
        self.at += grid * GRID * q // p
        self.tuplet = (p, q, notes - 1, grid) if notes > 1 else (1, 1, 0, 0)
        self.open_note = True

    def take_bar(self, name: str) -> None:
        gap = self.full - self.at
        if name in (":|", "|:", "::"):
            self.repeating = name != ":|"
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
        self.cursor.bars, self.ahead = bars, None

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
