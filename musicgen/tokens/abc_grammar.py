"""The grammar of ABC symbols: the cursor that says what may come next.

The cursor is strict or lenient. Strict, for sampling: every bar sums to its metre, except that the first bar may
be a pickup of p and then a section may close p short of full, where a repeat goes back to that pickup or the next
section begins with one of p; the notes of a tuplet are of one length and no chords; a tie is followed by the same
pitch; a |: finds its :|, and a :| after a double bar has a |: before it. Lenient, for walking over real tunes, whose
bars may have any length: syntax alone counts.

With an ending, the last bar of a piece has a place for its last note (`last_onset`): what comes before may not run over
it, and there stands the tonic, in the octaves that the tune has used, until the bar is full.

What may come depends on little (the ticks in the bar, what is open), so that masks are worked out once and kept."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence

import numpy as np

from musicgen.errors import TokenError
from musicgen.formats.abc_fields import ACCIDENTALS, LETTER_SEMITONES
from musicgen.formats.abc_write import Speller, note_text, spell
from musicgen.tokens.abc_symbols import (
    BAR,
    BARS_LEFT,
    BEATS,
    BEATS_OF,
    CLOSE,
    END,
    END_REPEAT,
    FINAL,
    GRID,
    GRID_OF,
    ID,
    IS_BAR,
    IS_CONTENT,
    IS_KEY,
    IS_LENGTH,
    IS_METRE,
    IS_PITCH,
    IS_TUPLET,
    KEYS,
    LENGTHS,
    METRE_TICKS,
    OPEN,
    PITCH_PARTS,
    POSITION_TICKS,
    REST,
    SIZE,
    STAFF,
    START,
    TIE,
    TUPLETS,
    UNIT,
    VOCABULARY,
    WHOLE_CHORD,
    sounds,
    within,
)
from musicgen.tokens.ending import Ending


@functools.cache
def last_onset(start: int, stop: int, full: int, beat: int) -> int | None:
    """Where in the last bar its last note begins, at `start` or later, to be held until `stop`; None without a place.

    All in ticks since the barline; full: a whole bar. One symbol has the note's length. It begins on the last beat from
    which it lasts half the bar, or else on the first from which it lasts a quarter of a full one, or wherever it is
    longest.
    """
    places = [stop - grid * GRID for grid in (UNIT, *GRID_OF.values())]
    places = [place for place in places if place >= start and (place - start) % GRID == 0]
    on_beat = [place for place in places if place % beat == 0]
    halves = [place for place in on_beat if 2 * (stop - place) >= stop]
    quarters = [place for place in on_beat if 4 * (stop - place) >= full]
    return max(halves) if halves else min(quarters or places, default=None)


MASKS: dict[tuple, np.ndarray] = {}
"""Where in a bar, with what open -> what may come, as SymbolCursor.work_out found it, of all cursors."""


class SymbolCursor:
    """The grammar of symbols. `left` below is the number of bars still to begin, or a big number if nobody counts.

    `ending`, where it is set, has the tonic on which the last bar ends; `compass` is the lowest and the highest MIDI
    pitch that may be written.
    """

    def __init__(self, bars: int | None = None, strict: bool = True) -> None:
        if bars is not None and bars < 1:
            raise TokenError(f"a piece of {bars} bars; ask for 1 or more")
        self.ending: Ending | None = None
        self._bars, self.strict, self.steady = bars, strict, False
        self.done = False
        self.bar = 0
        self.phase = "metre"  # then "key", "body"
        self.full, self.beat = 1920, 480  # ticks of a full bar, and of a beat
        self.at = 0  # ticks of this bar, the default length of an open note included
        self.before = 0  # the same without the note that may still get a length
        self.pickup = "free"  # what the bar at hand may be: "free", "owed" (exactly self.short), "" (full)
        self.short = 0  # the section's pickup: how much short of full it may close
        self.volta = 0  # the ending that we are in, 1 or 2
        self.repeating = False  # since a |: or :: whose :| is still to come
        self.last = START
        self.open_note = False  # a note, chord or rest that may still get a length
        self.tied = False
        self.sounding: list[tuple[str, int, int]] = []  # (letter, octave, alteration) of the last note or chord
        self.came_home = False  # the bar before closed on the tonic, held
        self.used = (128, -1)  # the lowest and highest MIDI pitch so far
        self.compass: tuple[int, int] | None = None
        self.chord: list[int] | None = None  # staff positions so far
        self.tuplet: tuple[int, int, int, int] = (1, 1, 0, 0)  # p, q, notes left, GRID units of the note before
        self.before_tuplet = self.tuplet
        self.speller = Speller(0)

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

        A bar that the prompt has filled to more than its metre counts as full, and so does one of which nothing is left
        that the grammar could fill. What real tunes leave open and no bar is left to close is let go.
        """
        self.strict, self.steady = True, True
        if self.short >= self.full or self.short % GRID:
            self.short = 0
            self.pickup = self.pickup.replace("owed", "")
        self.bars = self.bars  # lets go what can't be closed
        self.at, self.open_note = max(min(self.at, self.limit()), 0), False
        if self.room() % GRID and not any(self.opens(self.room(), *tuplet) for tuplet in TUPLETS.values()):
            self.at = self.limit()

    @property
    def bars(self) -> int | None:
        return self._bars

    @bars.setter
    def bars(self, bars: int | None) -> None:
        """With one bar to come, a pickup that is owed and a first ending can not have the next that they need."""
        self._bars = bars
        if self.left == 1 and self.at == 0 and IS_BAR[self.last]:
            self.pickup = self.pickup.replace("owed", "")
            if self.volta == 1 and self.last != END_REPEAT:
                self.volta, self.repeating = 0, False

    @property
    def closed(self) -> bool:
        """Whether a piece that ends when it likes has just come to a barline as its ending asks: END may stand here."""
        return self.at == 0 and self.last in (FINAL, END_REPEAT) and self.came_home

    @property
    def left(self) -> int:
        return 1000 if self._bars is None else self._bars - self.bar

    # --- what may come ------------------------------------------------------------------------------------------------

    def allowed(self, chosen: Sequence[int] = ()) -> np.ndarray:
        """(SIZE,) bool; see the protocol."""
        if self.tied and self.strict and not self.open_note:
            return self.after_tie()
        last, closing = self.last, self.is_last
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
                self.volta,
                self.repeating,
            ),
            *(last if structural else -1 if last in GRID_OF else -2, self.open_note, chord, self.tuplet),
            *(self.before_tuplet, min(self.left, 3), min(self.bar, 2), self.done),
            *(bool(self.sounding), self.tied),
            *(self.strict, self.steady, self._bars is None, self.ending is None),
            *((self.beat, self.is_home) if closing else ()),
        )
        found = MASKS.get(key)
        if found is None:
            if len(MASKS) > 50_000:
                MASKS.clear()
            found = MASKS[key] = self.work_out()
            found.flags.writeable = False
        if not self.strict or self.phase != "body" or self.done:
            return found
        if self.chord:
            found = found & (self.sounds() > self.chord_top())
        if closing and self.chord is None and self.reach(self.at) == self.at < self.limit():
            return found & ~IS_PITCH | self.last_pitches() if found[IS_PITCH].any() else found
        if self.compass is not None:
            inside = within(self.altered(), *self.compass, WHOLE_CHORD if self.chord == [] else 0)
            if inside is not None and (found & inside).any():
                return found & inside
        return found

    def sounds(self) -> np.ndarray:
        """(SIZE,) the MIDI pitch that each pitch symbol would sound here; of other symbols a big number."""
        return sounds(self.altered())

    def altered(self) -> tuple[int, ...]:
        """By how many semitones each letter, C to B, is altered here where no accidental is written."""
        by_letter, signature = self.speller.by_letter, self.speller.signature
        return tuple([by_letter.get(letter, signature.get(letter, 0)) for letter in "CDEFGAB"])

    def chord_top(self) -> int:
        """The highest MIDI pitch of the chord being written: no pitch stands in it twice."""
        return max(12 * octave + 12 + LETTER_SEMITONES[letter] + alter for letter, octave, alter in self.sounding)

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
                room = self.reach(self.before) - self.before
                whole = self.limit() - self.before if self.is_last and self.is_home else None
                for symbol, grid in GRID_OF.items():
                    mask[symbol] = self.fits(grid, room, self.before_tuplet, whole)
                if not self.fits(UNIT, room, self.before_tuplet, whole):
                    return mask
            if self.open_note and self.sounding:
                over = self.closes()[BAR] and not (self.ending is not None and self.left == 1)
                mask[TIE] = self.reach(self.at) > self.at or self.tuplet[2] or over
            mask |= self.onwards()
        return mask

    def onwards(self) -> np.ndarray:
        """What may come once the last note has its length."""
        mask = np.zeros(SIZE, dtype=bool)
        if self.tuplet[2]:
            mask[REST] = True
            return mask | IS_PITCH
        at_barline = self.at == 0
        if at_barline and self.last in (FINAL, END_REPEAT) and self.volta != 1:
            mask[END] = self.bars is None or self.left == 0
        if at_barline and self.left == 0:
            return mask
        if at_barline and self.last == END_REPEAT and self.volta == 1:
            mask[ID["[2"]] = True
            return mask
        room = self.reach(self.at) - self.at
        if room == 0 and self.is_last and self.room() > 0:
            return mask | IS_PITCH  # the last note
        if room > 0:
            if room % GRID == 0:  # a prompt may have stopped inside a tuplet: then another makes up for it
                mask |= IS_PITCH
                mask[[REST, OPEN]] = True
            for name, (p, q, count) in TUPLETS.items():
                mask[ID[name]] = self.opens(room, p, q, count)
        if not at_barline:
            return mask | self.closes()
        closed = self.last in (ID[":|"], ID["::"], ID["||"], FINAL)
        if closed and not self.short and self.pickup != "owed" and not self.steady:
            mask |= IS_METRE
        if (closed or (IS_METRE[self.last] and self.bar > 0)) and not self.steady:
            mask |= IS_KEY
        if self.last in (ID["||"], FINAL) or (self.bar == 0 and IS_KEY[self.last]):
            mask[ID["|:"]] = True
        if self.last == BAR and not self.volta and self.left >= 2 and self.pickup == "" and self.bar > 1:
            mask[ID["[1"]] = self.repeating
        return mask

    def limit(self) -> int:
        """Ticks that the bar at hand may hold at most."""
        if self.pickup == "owed":
            return self.short
        last = self.left - (self.at == 0)  # bars to begin once this one has begun
        if (self.volta == 1 and last <= 1) or (self.repeating and last == 0):
            return self.full - self.short  # the bar at hand must close a repeat
        return self.full

    def room(self) -> int:
        return self.limit() - self.at

    def fits(self, grid: int, room: int, tuplet: tuple[int, int, int, int], whole: int | None = None) -> bool:
        """Whether a note of that many GRID units leaves of `room` ticks what can be filled, or takes up the `whole`."""
        p, q, notes, before = tuplet
        if not notes:
            return grid * GRID <= room or grid * GRID == whole
        rest = room * p - notes * grid * GRID * q
        return rest >= 0 and rest % (GRID * p) == 0 and before in (0, grid)

    def opens(self, room: int, p: int, q: int, count: int) -> bool:
        """Whether such a tuplet may begin: whole ones, but for a bar whose prompt stopped inside one."""
        if room % GRID:
            return any(self.fits(grid, room, (p, q, count, 0)) for grid in (UNIT, *LENGTHS.values()))
        return count % p == 0 and count * GRID * q // p <= room

    @property
    def is_last(self) -> bool:
        """Whether the bar at hand, or the one that comes now, is the last, and has an ending."""
        if self.ending is None or self._bars is None or not self.strict or self.phase != "body":
            return False
        last = self.last
        begins = self.at == 0 and bool(IS_BAR[last] or IS_KEY[last] or IS_METRE[last])
        return self.left == begins

    @property
    def is_home(self) -> bool:
        """Whether the last note is the tonic, alone."""
        if self.ending is None or len(self.sounding) != 1:
            return False
        letter, _, alteration = self.sounding[0]
        return (LETTER_SEMITONES[letter] + alteration) % 12 == self.ending.tonic

    def reach(self, at: int) -> int:
        """Up to where notes from `at` on may go: in the last bar, to the place of its last one."""
        limit = self.limit()
        place = last_onset(at, limit, self.full, self.beat) if self.is_last else None
        return limit if place is None else place

    def last_pitches(self) -> np.ndarray:
        """(SIZE,) bool: the tonic where the tune has been, or, where it has none there, the nearest to that."""
        assert self.ending is not None
        low, high = self.used
        lowest, highest = self.compass or (0, 127)
        found: dict[int, int] = {}  # symbol -> how far it lies from what was used; an octave farther out of compass
        for pitch in range(self.ending.tonic, 128, 12):
            letter, alteration, octave = spell(pitch, self.speller.fifths)
            symbol = self.symbol(letter, octave, alteration)
            if symbol is not None:
                found[symbol] = max(low - pitch, pitch - high, 0) + 12 * (not lowest <= pitch <= highest)
        mask = np.zeros(SIZE, dtype=bool)
        mask[[symbol for symbol, away in found.items() if away == min(found.values())]] = True
        return mask

    def closes(self) -> np.ndarray:
        """The barlines that may stand where the bar at hand has come to."""
        mask = np.zeros(SIZE, dtype=bool)
        at, left = self.at, self.left
        if self.tuplet[2] or (self.is_last and at < self.limit()):
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
        if self.volta == 1:
            mask[BAR] = full and left >= 2
            mask[END_REPEAT] = short and left >= 1
            return mask
        mask[BAR] = full and left >= 1
        # a section that closes short owes the next one its pickup, and that one needs a bar after it
        short = short and (not self.short or left == 0 or left >= 2)
        if (full or short) and not self.repeating:
            mask[FINAL] = True
            mask[[ID["||"], ID["|:"]]] = left >= 1
        if self.volta == 0 and short:
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
        symbol = self.symbol(letter, octave, alteration)
        assert symbol is not None
        return symbol

    def symbol(self, letter: str, octave: int, alteration: int) -> int | None:
        """The same, or None where there is none."""
        speller = self.speller
        natural = speller.signature.get(letter, 0)
        holds = {speller.by_letter.get(letter, natural), speller.by_octave.get((letter, octave), natural)}
        sign = "" if holds == {alteration} else {0: "=", 1: "^", -1: "_"}[alteration]
        return ID.get(sign + note_text(letter, octave))

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
        mask[END] = self.last in (FINAL, END_REPEAT) and self.volta != 1 and (self.bars is None or self.left == 0)
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
            self.full, self.beat = METRE_TICKS[symbol], BEATS_OF[symbol]
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
        pitch = 12 * (octave + 1) + LETTER_SEMITONES[letter] + alteration
        self.used = min(self.used[0], pitch), max(self.used[1], pitch)
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
        self.came_home = self.is_home and 4 * (self.at - self.before) >= self.full
        if name in (":|", "|:", "::"):
            self.repeating = name != ":|"
        if name == "[1":
            self.volta = 1
        elif name == "[2":
            self.volta, self.pickup = 2, ""
        elif self.at:
            if name == "|":
                if self.pickup == "free" and gap > 0:
                    self.short = self.at
                self.pickup = ""
            elif self.pickup == "free" and name == "|:" and gap > 0:
                self.pickup, self.short = "", 0
            elif self.volta == 1 and name == ":|":
                self.pickup = ""
            else:
                self.short = max(gap, 0)
                self.pickup = "owed" if gap > 0 else ""
                self.volta = 0
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
