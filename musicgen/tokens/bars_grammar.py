"""The grammar of the `bars` tokenizer: a cursor that knows which steps make valid music, field by field.

`allowed` is strict: what is sampled under it has bars that sum to their metre, notes in the order the tokenizer writes
them, no instrument outside the roster and no note past the last bar. `advance` is lenient, because real scores have
bars of odd length: it refuses only what `decode` could not place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from musicgen.errors import TokenError
from musicgen.tokens.bars_chord import ClosingChord
from musicgen.tokens.bars_preview import BENEATH, GIVEN_AHEAD, HOLE, IN_ORDER, PREVIEW
from musicgen.tokens.bars_vocabulary import (
    AHEAD,
    BACK,
    BAR,
    BARS_LEFT,
    CONDUCTOR,
    DRUM,
    DURATIONS,
    END,
    FIELDS,
    INSTANCES,
    INSTRUMENT,
    KEY,
    LONGEST_BAR,
    MAX_PARTS,
    METRE,
    METRE_UNITS,
    METRES,
    PART,
    PART_FIELD,
    PITCH,
    POSITION,
    START,
    TEMPO,
    USUAL_RANGES,
    duration_class,
    is_drum,
)
from musicgen.tokens.ending import Ending, usual_low

CHORD_GAP = 3
"""Semitones between two notes that a part strikes together beneath a melody, at least."""

_SHORTEST_METRE = int(METRE_UNITS.min())
_VALUES = np.arange(PART_FIELD.size)
_FIRST_OF_KIND = (_VALUES >= INSTRUMENT) & ((_VALUES - INSTRUMENT) % INSTANCES == 0)


class BarsCursor:
    """Implements tokens.tokenizer.Cursor.

    `keep_course()`, called once a prompt has been walked, holds metre, key, tempo and roster as they are;
    `not_before` is the first position of the current bar at which a note may start (a seam);
    `ranges` maps a value of field `part` to the lowest and highest MIDI pitch it may play, where that is not the usual,
    `most` to how many notes it may strike at once, where that is bounded;
    `ending` is the chord that the last bar is to be; the parts in `must_play` that have not played by then, play it;
    `lengths` maps a bar (from 1) to its length in units, where that is settled;
    with `close` the walk is done once a hole is filled; those of `band` are never silent in it for longer than a bar;
    `company` is who plays beneath what a preview told, and how: what was told comes again just so.

    `bar` is the bar that the last step stands in, in a preview too (see tokens.bars_preview).
    """

    def __init__(self, bars: int | None = None) -> None:
        self.bars = bars
        self.done = False
        self.bar = 0
        self.notes = 0
        self.roster: list[int] = []
        self.ranges: dict[int, tuple[int, int]] = {}
        self.most: dict[int, int] = {}
        self.together = 0  # notes of the last part at this position so far
        self.ending: Ending | None = None
        self.chord: ClosingChord | None = None
        self.must_play: set[int] = set()
        self.played: dict[int, int] = {}  # part -> the bar it last played in
        self.usual: dict[int, float] = {}  # part -> MIDI pitch of its lower notes, up to the seam
        self.sounds: dict[int, int] = {}  # part -> when its last note ends, in units from the start of the bar
        self.release = 0  # when the last of the notes so far ends, in units from the start of the bar
        self.metre: tuple[int, int] | None = None
        self.metre_units = 0
        self.bar_units = 0
        self.position = 0
        self.last = (0, 0)  # part and pitch of the last step at this position; (0, 0): none yet
        self.player = 0  # part of the last step, where it has one
        self.metre_due = False
        self.steady = False
        self.not_before = 0
        self.lengths: dict[int, int] = {}
        self.close = False
        self.at_barline = False
        self.company: Company | None = None
        self.band: set[int] = set()
        self.waiting: set[int] = set()  # who is to play at the first chance
        self.line = 0  # the pitch of the last note that came again after a preview
        self.order = IN_ORDER
        self.block: _Block | None = None  # the preview that is being told, or that these bars had

    def keep_course(self) -> None:
        """From here on: the same metre, key, tempo and roster."""
        self.steady, self.release = True, 0

    def keep_only(self, parts: Collection[int]) -> None:
        """From here on none but these values of field `part` play."""
        self.roster = [part for part in self.roster if part in parts]
        self.must_play &= set(parts)

    def coordinates(self) -> tuple[int, ...]:
        if self.order == HOLE and self.block is not None:
            left = 1 + min(self.block.until - 1 - self.bar, BARS_LEFT)
        else:
            left = 0 if self.bars is None else 1 + min(max(self.bars - self.bar, 0), BARS_LEFT)
        instrument = 1 + (self.player - INSTRUMENT) // INSTANCES if self.player >= INSTRUMENT else 0
        return (1 + self.position if self.bar else 0, self.bar_units, left, instrument, self.order)

    def allowed(self, chosen: Sequence[int]) -> np.ndarray:
        """(size,) bool for field number len(chosen); see tokens.tokenizer.Cursor."""
        field = len(chosen)
        mask = np.zeros(FIELDS[field].size, dtype=bool)
        if self.ending is not None and self.bar == self.bars and not self.metre_due and field < len(FIELDS) - 1:
            if self.chord is None:
                self.chord = ClosingChord(self, self.ending)
            self.chord.allow(mask, chosen)
            return mask
        due = self._due()
        if due is not None and field > 1 and tuple(chosen[:2]) == due[:2]:
            mask[due[field]] = True
            return mask
        (self._when, self._part, self._pitch, self._duration, self._velocity)[field](mask, *chosen)
        return mask

    def _when(self, mask: np.ndarray) -> None:
        if self.bar == 0:
            mask[PART] = len(self.roster) < MAX_PARTS and self._may_join().any()
            mask[BAR] = bool(self.roster)
            return
        if self.metre_due:
            mask[POSITION] = True
            return
        first = max(self.position, self.not_before)
        if first == self.position and not self._parts_here().any():
            first += 1
        due = self._due()
        if self._must_enter(POSITION + self.position) and (self.order == HOLE or self.last != (0, 0)):
            mask[POSITION + self.position] = True
            return
        if due is not None:
            mask[min(POSITION + first, due[0]) : due[0] + 1] = True
            return
        closing = self._closes(POSITION + self.position)
        mask[POSITION + first : POSITION + (self.position + 1 if closing else self.bar_units)] = True
        if self._must_wait():
            mask[POSITION + first : POSITION + self.bar_units] = True
            return
        more = self.bars is None or self._next_bar() <= self.bars
        mask[BAR] = more
        mask[END] = (self.bars is None and self.notes > 0) or not more
        if self.ending is not None and more and self.release > self.bar_units:
            mask[END] = False  # something would sound into the bar of the last chord

    def _part(self, mask: np.ndarray, when: int) -> None:
        if when < PART:
            mask[0] = True
        elif when == PART:
            mask |= self._may_join()
        elif self.metre_due:
            mask[CONDUCTOR] = True
        elif when - POSITION == self.position:
            mask |= self._parts_here()
        else:
            mask[list(self._players())] = True
            mask[CONDUCTOR] = not self.steady
        if when >= POSITION:
            due = self._due()
            here = due is not None and due[0] == when
            needed = {due[1]} if due is not None and here else set()
            mask[list(needed)] = True
            if self._must_enter(when):
                needed |= self.waiting
            if needed:
                mask[min(needed) + 1 :] = False

    def _pitch(self, mask: np.ndarray, when: int, part: int) -> None:
        if when < POSITION:
            mask[0] = True
            return
        here = when - POSITION == self.position
        if part == CONDUCTOR:
            if self.metre_due:
                fits = np.greater_equal if self.bar == 1 else np.equal
                mask[METRE:KEY] = fits(METRE_UNITS, self.bar_units)
                return
            said = self.last[1] if here and self.last[0] == CONDUCTOR else 0
            mask[KEY:TEMPO] = said < KEY
            mask[TEMPO:] = said < TEMPO
            return
        low, high = self._compass(part, when)
        if here and self.last[0] == part and part >= INSTRUMENT:
            low = max(low, self.last[1] + self._gap(part))
        high = max(low, high)
        mask[low : high + 1] = True
        final = self.company.final if self.company is not None and self._closes(when) else None
        if final is not None and not is_drum(part) and self._last_told() in final:
            mask[PITCH : PITCH + 128] = final.within(low - PITCH, high - PITCH)

    def _duration(self, mask: np.ndarray, when: int, part: int, pitch: int) -> None:
        if when == BAR:
            if self._next_bar() in self.lengths:
                mask[self.lengths[self._next_bar()]] = True
            elif self.metre is None:
                mask[1 : LONGEST_BAR + 1] = True  # a pickup may have any length; its metre is the next step
            elif self.steady:
                mask[self.metre_units] = True
            else:
                mask[METRE_UNITS] = True
        elif when < POSITION or part == CONDUCTOR:
            mask[0] = True
        elif self._closes(when):
            mask[duration_class(self.bar_units - (when - POSITION), round_down=True)] = True
        else:
            mask[1:] = True
            if self.ending is not None:  # nothing sounds into the last bar, which may be the one after the next
                bars = 1 if self.bars is None else self.bars - 1 - self.bar
                bar = self.metre_units if self.steady else _SHORTEST_METRE
                mask[1:] = DURATIONS[1:] <= self.bar_units - (when - POSITION) + bars * bar
            elif self.bars is not None:
                mask[1:] = DURATIONS[1:] <= self.bar_units - (when - POSITION) + self._room_after()

    def _velocity(self, mask: np.ndarray, when: int, part: int, pitch: int, duration: int) -> None:
        plays = when >= POSITION and part >= INSTRUMENT
        mask[1:] = plays
        mask[0] = not plays

    def advance(self, step: Sequence[int]) -> None:
        """Take a step (5 values). Raises TokenError for what could not be decoded."""
        when, part, pitch, duration, velocity = (int(v) for v in step)
        for known, value in zip(FIELDS, step, strict=True):
            if not 0 <= value < known.size:
                raise TokenError(f"bar {self.bar}: {value} is no value of {known.name}")
        if self.done:
            raise TokenError(f"bar {self.bar}: a step after the end")
        at_barline, self.at_barline = self.at_barline, when == BAR
        if when == END:
            if not self.bar:
                raise TokenError("bar 0: END before the first bar")
            self.done = True
        elif when == PART:
            if self.bar or part in self.roster or part < INSTRUMENT:
                raise TokenError(f"bar {self.bar}: PART {part} again, or no instrument, or after the music has begun")
            self.roster.append(part)
        elif when == BAR:
            if not 1 <= duration <= LONGEST_BAR:
                raise TokenError(f"bar {self.bar + 1}: {duration} is no length of a bar")
            self._begin_bar()
            self.release -= self.bar_units
            self.sounds = {part: left - self.bar_units for part, left in self.sounds.items() if left > self.bar_units}
            self.bar_units = duration
            self._await_band()
            self.position, self.last = 0, (0, 0)
            if self.bar > 1:
                self.not_before = 0
            self.metre_due = self.metre is None or duration != self.metre_units
            if self.steady:
                self.metre_due = False
        elif when == AHEAD:
            if not at_barline or self.order != IN_ORDER:
                raise TokenError(f"bar {self.bar}: AHEAD, and it comes right after a BAR step that stands in order")
            self.order = GIVEN_AHEAD if duration else PREVIEW
            metre = self.metre, self.metre_units
            held = self.played.copy(), self.sounds.copy()
            self.block = _Block(self.bar, duration, self.bar_units, metre, self.metre_due, *held)
        elif when == BACK:
            if (
                self.block is None
                or self.order not in (GIVEN_AHEAD, PREVIEW)
                or not self.block.told + (not self.block.hole)
            ):
                raise TokenError(f"bar {self.bar}: BACK, and no bar has been told ahead")
            self._go_back(self.block)
        elif when >= POSITION:
            position = when - POSITION
            if not self.bar or position >= self.bar_units or position < self.position:
                raise TokenError(f"bar {self.bar}: position {position} is not in it, or goes back")
            if part == CONDUCTOR and pitch < METRE:
                raise TokenError(f"bar {self.bar}: the conductor says {pitch}, which is no metre, key or tempo")
            if part != CONDUCTOR:
                if part not in self.roster:
                    raise TokenError(f"bar {self.bar}: a note for part {part}, which is not in the roster")
                base = DRUM if is_drum(part) else PITCH
                if not base <= pitch < base + 128 or not duration or not velocity:
                    raise TokenError(f"bar {self.bar}: a note of part {part} without pitch, duration or velocity")
                self.notes += 1
                self.release = max(self.release, position + int(DURATIONS[duration]))
                self.sounds[part] = max(self.sounds.get(part, 0), position + int(DURATIONS[duration]))
                self.played[part] = self.bar
                if not self.steady:
                    self.usual[part] = usual_low(self.usual.get(part), pitch - base)
                self.must_play.discard(part)
                self.waiting.discard(part)
                if self.chord is not None:
                    self.chord.take(part)
            if self.block is not None and self.order == PREVIEW:
                self.block.given.append((self.bar, (when, part, pitch, duration, velocity)))
            elif self._due() == (when, part, pitch, duration, velocity) and self.block is not None:
                self.block.given.popleft()
                self.line = pitch if part != CONDUCTOR else self.line
            if position > self.position:
                self.position, self.last = position, (0, 0)
            self.metre_due = False
            if part == CONDUCTOR and METRE <= pitch < KEY:
                self.metre = METRES[pitch - METRE]
                self.metre_units = int(METRE_UNITS[pitch - METRE])
            self.together = self.together + 1 if part == self.last[0] else 1
            self.last = (part, pitch)
        elif when != START:
            raise TokenError(f"bar {self.bar}: {when} is no value of when")
        self.player = part

    def _begin_bar(self) -> None:
        """Count a BAR step; behind the hole, or what the preview told, all is in order again."""
        self.bar = self._next_bar()
        block = self.block
        if block is None:
            return
        if self.order in (GIVEN_AHEAD, PREVIEW):
            block.told += 1
        elif self.bar >= block.until:
            self.done = self.order == HOLE and self.close
            self.order, self.block = IN_ORDER, None

    def _next_bar(self) -> int:
        """The bar that a BAR step begins."""
        block = self.block
        if block is not None and self.order == GIVEN_AHEAD and not block.told:
            return block.bar + block.hole
        return self.bar + 1

    def _go_back(self, block: _Block) -> None:
        """To the bar before which AHEAD stood, and to what held there."""
        self.order = HOLE if block.hole else BENEATH
        self.bar, self.bar_units = block.bar, block.units
        self.position, self.last, self.metre_due = 0, (0, 0), block.metre_due
        self.metre, self.metre_units = block.metre
        self.played, self.sounds = block.played, block.sounds
        self.release = max(self.sounds.values(), default=0)
        block.opening = next(((bar, step[0]) for bar, step in block.given if step[1] != CONDUCTOR), None)
        self.waiting = set(self.company.parts) if self.company is not None and self.order == BENEATH else set()

    def _due(self) -> tuple[int, ...] | None:
        """The next step of this bar that was told in the preview, and comes again before anything after it."""
        block = self.block
        if block is None or self.order != BENEATH or not block.given or block.given[0][0] != self.bar:
            return None
        return block.given[0][1]

    def _closes(self, when: int) -> bool:
        """Whether a note at `when` is struck with the last of a melody that is harmonised, or after it."""
        if self.order != BENEATH or self.bar != self.bars or self.company is None or self.block is None:
            return False
        return all(step[0] <= when for _, step in self.block.given)

    def _last_told(self) -> int:
        """MIDI pitch of what a preview told and is still to come, or of what came last; below 0 for drums, or none."""
        line = next((step[2] for _, step in self.block.given if step[1] != CONDUCTOR), self.line) if self.block else 0
        return line - PITCH if PITCH <= line < DRUM else -1

    def _ceiling(self, when: int) -> int:
        """The value of field `pitch` above which nobody else plays: what the line to be harmonised has; 0: no bound."""
        if self.company is None or not self.company.under or self.order != BENEATH:
            return 0
        due = self._due()
        sounds = due is not None and due[0] == when and due[1] != CONDUCTOR
        return due[2] if due is not None and sounds else self.line

    def _await_band(self) -> None:
        """At the beginning of a bar in the hole: who has been silent for the whole bar before it is to play."""
        if self.order == HOLE and self.close:
            silent = {part for part in self.band if self.played.get(part, 0) < self.bar - 1}
            self.waiting = silent - self.sounds.keys()

    def _must_wait(self) -> bool:
        """Whether the bar can't be left: the last of a block in which somebody who is awaited has not played yet."""
        block = self.block
        if block is None or not self.waiting or self.order != BENEATH:
            return False
        return self.bar == block.until - 1

    def _must_enter(self, when: int) -> bool:
        """Whether all who are awaited play at `when`.

        In a hole on the first beat; beneath a melody with the first note that the preview told, or else at the last.
        """
        if not self.waiting or self.block is None or self.order not in (HOLE, BENEATH):
            return False
        if self.order == HOLE:
            return when == POSITION
        if (self.bar, when) == self.block.opening:
            return True
        return self._must_wait() and (when - POSITION == self.bar_units - 1 or self._closes(when))

    def _room_after(self) -> int:
        """Units after this bar in which what is struck in it may still sound: to the end of the hole, or the piece."""
        last = self.bars or 0
        if self.order == HOLE and self.block is not None:
            last = self.block.until - 1
        if not self.lengths:
            return max(last - self.bar, 0) * self.metre_units
        return sum(self.lengths.get(bar, self.metre_units) for bar in range(self.bar + 1, last + 1))

    def _players(self) -> Sequence[int]:
        """Who may play here."""
        return self.roster if self.order != BENEATH or self.company is None else self.company.parts

    def _range(self, part: int) -> tuple[int, int]:
        """Lowest and highest value of field `pitch` for an instrument."""
        base = DRUM if is_drum(part) else PITCH
        low, high = self.ranges.get(part) or USUAL_RANGES[part]
        return base + low, base + high

    def _compass(self, part: int, when: int) -> tuple[int, int]:
        """The same where it plays beneath a melody: not above what that has there, where it can."""
        low, high = self._range(part)
        ceiling = self._ceiling(when) if not is_drum(part) else 0
        return low, ceiling if low <= ceiling < high else high

    def _gap(self, part: int) -> int:
        """Semitones between two notes of a part's chord, at least: who plays beneath a melody strikes no clusters."""
        beneath = self.order == BENEATH and self.company is not None and part in self.company.parts
        return CHORD_GAP if beneath and not is_drum(part) else 1

    def _parts_here(self) -> np.ndarray:
        """(size of part,) bool: who may still play at the current position, after the last step there."""
        mask = np.zeros(PART_FIELD.size, dtype=bool)
        part, pitch = self.last
        for member in self._players():
            mask[member] = member > part
            if member == part:
                room = pitch + self._gap(part) <= self._compass(part, POSITION + self.position)[1]
                mask[member] = room and self.together < self.most.get(member, 128)
        if not self.steady:
            mask[CONDUCTOR] = part == 0 or (part == CONDUCTOR and pitch < TEMPO)
        return mask

    def _may_join(self) -> np.ndarray:
        """(size of part,) bool: later kinds, and the next of the last one's kind."""
        mask = _FIRST_OF_KIND.copy()
        if self.roster:
            last = self.roster[-1]
            mask[: last + 1] = False
            if last + 1 < len(mask) and not _FIRST_OF_KIND[last + 1]:
                mask[last + 1] = True
        mask[:INSTRUMENT] = False
        return mask


@dataclass(frozen=True)
class Company:
    """Who plays beneath what a preview told, and comes again: values of field `part`.

    All of them strike with its first note in every block of bars, and with its last one, which they hold to the end.
    under: none of them strikes a pitch above it, where their instruments can play below it. final: the chord of which
    they play with its last note, if that belongs to it.
    """

    parts: tuple[int, ...]
    under: bool = False
    final: Ending | None = None


@dataclass
class _Block:
    """A preview and the bars that it is for: see tokens.bars_preview.Block. `told`: BAR steps of it so far."""

    bar: int
    hole: int
    units: int
    metre: tuple[tuple[int, int] | None, int]
    metre_due: bool
    played: dict[int, int]
    sounds: dict[int, int]
    told: int = 0
    given: deque[tuple[int, tuple[int, ...]]] = field(default_factory=deque)
    """(bar, step) of what a preview of the same bars told and has not come again."""

    opening: tuple[int, int] | None = None
    """Bar and `when` of the first note that a preview of the same bars told."""

    @property
    def until(self) -> int:
        """The bar before which all is in order again."""
        return self.bar + (self.hole or self.told + 1)
