"""The grammar of the `bars` tokenizer: a cursor that knows which steps make valid music, field by field.

`allowed` is strict: what is sampled under it has bars that sum to their metre, notes in the order the tokenizer writes
them, no instrument outside the roster and no note past the last bar. `advance` is lenient, because real scores have
bars of odd length: it refuses only what `decode` could not place.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from musicgen.errors import TokenError
from musicgen.formats.instruments import playing_range
from musicgen.score.general_midi import DRUM_KIT
from musicgen.tokens.bars_vocabulary import (
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
    KINDS,
    LONGEST_BAR,
    MAX_PARTS,
    METRE,
    METRE_UNITS,
    METRES,
    PART,
    PART_FIELD,
    PITCH,
    PITCH_FIELD,
    POSITION,
    START,
    TEMPO,
    duration_class,
)
from musicgen.tokens.ending import Ending, usual_low

CHORD_NOTES = 4
"""Notes that one part plays of the chord that closes a piece, at most."""
STILL_PLAYING = 2
"""Who has played in so many bars before the last plays the chord that closes the piece."""

_SHORTEST_METRE = int(METRE_UNITS.min())
_VALUES = np.arange(PART_FIELD.size)
_FIRST_OF_KIND = (_VALUES >= INSTRUMENT) & ((_VALUES - INSTRUMENT) % INSTANCES == 0)


def _is_drum(part: int) -> bool:
    """Whether a value of field `part` is a drum kit."""
    return (part - INSTRUMENT) // INSTANCES == KINDS - 1


def _usual_range(part: int) -> tuple[int, int]:
    """What an instrument plays, within a piano's compass; of drums, the keys that General MIDI names."""
    if part < INSTRUMENT or _is_drum(part):
        return min(DRUM_KIT), max(DRUM_KIT)
    low, high = playing_range((part - INSTRUMENT) // INSTANCES)
    return max(low, 21), min(high, 108)


_RANGES = tuple(_usual_range(part) for part in range(PART_FIELD.size))


class BarsCursor:
    """Implements tokens.tokenizer.Cursor.

    `keep_course()`, called once a prompt has been walked, holds metre, key, tempo and roster as they are;
    `not_before` is the first position of the current bar at which a note may start (a seam);
    `ranges` maps a value of field `part` to the lowest and highest MIDI pitch it may play, where that is not the usual,
    `most` to how many notes it may strike at once, where that is bounded;
    `ending` is the chord that the last bar is to be; the parts in `must_play` that have not played by then, play it.
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
        self.chord: _Chord | None = None
        self.must_play: set[int] = set()
        self.played: dict[int, int] = {}  # part -> the bar it last played in
        self.usual: dict[int, float] = {}  # part -> MIDI pitch of its lower notes, up to the seam
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

    def keep_course(self) -> None:
        """From here on: the same metre, key, tempo and roster."""
        self.steady, self.release = True, 0

    def keep_only(self, parts: Collection[int]) -> None:
        """From here on none but these values of field `part` play."""
        self.roster = [part for part in self.roster if part in parts]
        self.must_play &= set(parts)

    def coordinates(self) -> tuple[int, ...]:
        left = 0 if self.bars is None else 1 + min(max(self.bars - self.bar, 0), BARS_LEFT)
        instrument = 1 + (self.player - INSTRUMENT) // INSTANCES if self.player >= INSTRUMENT else 0
        return (1 + self.position if self.bar else 0, self.bar_units, left, instrument)

    def allowed(self, chosen: Sequence[int]) -> np.ndarray:
        """(size,) bool for field number len(chosen); see tokens.tokenizer.Cursor."""
        field = len(chosen)
        mask = np.zeros(FIELDS[field].size, dtype=bool)
        if self.ending is not None and self.bar == self.bars and not self.metre_due and field < len(FIELDS) - 1:
            if self.chord is None:
                self.chord = _Chord(self, self.ending)
            self.chord.allow(mask, chosen)
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
        mask[POSITION + first : POSITION + self.bar_units] = True
        more = self.bars is None or self.bar < self.bars
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
            mask[self.roster] = True
            mask[CONDUCTOR] = not self.steady

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
        low, high = self._range(part)
        if here and self.last[0] == part and part >= INSTRUMENT:
            low = max(low, self.last[1] + 1)
        mask[low : high + 1] = True

    def _duration(self, mask: np.ndarray, when: int, part: int, pitch: int) -> None:
        if when == BAR:
            if self.metre is None:
                mask[1 : LONGEST_BAR + 1] = True  # a pickup may have any length; its metre is the next step
            elif self.steady:
                mask[self.metre_units] = True
            else:
                mask[METRE_UNITS] = True
        elif when < POSITION or part == CONDUCTOR:
            mask[0] = True
        else:
            mask[1:] = True
            if self.ending is not None:  # nothing sounds into the last bar, which may be the one after the next
                bars = 1 if self.bars is None else self.bars - 1 - self.bar
                bar = self.metre_units if self.steady else _SHORTEST_METRE
                mask[1:] = DURATIONS[1:] <= self.bar_units - (when - POSITION) + bars * bar
            elif self.bars is not None:
                room = self.bar_units - (when - POSITION) + max(self.bars - self.bar, 0) * self.metre_units
                mask[1:] = DURATIONS[1:] <= room

    def _velocity(self, mask: np.ndarray, when: int, part: int, pitch: int, duration: int) -> None:
        plays = when >= POSITION and part >= INSTRUMENT
        mask[1:] = plays
        mask[0] = not plays

    def advance(self, step: Sequence[int]) -> None:
        """Take a step (5 values). Raises TokenError for what could not be decoded."""
        when, part, pitch, duration, velocity = (int(v) for v in step)
        for field, value in zip(FIELDS, step, strict=True):
            if not 0 <= value < field.size:
                raise TokenError(f"bar {self.bar}: {value} is no value of {field.name}")
        if self.done:
            raise TokenError(f"bar {self.bar}: a step after the end")
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
            self.bar += 1
            self.release -= self.bar_units
            self.bar_units = duration
            self.position, self.last = 0, (0, 0)
            if self.bar > 1:
                self.not_before = 0
            self.metre_due = self.metre is None or duration != self.metre_units
            if self.steady:
                self.metre_due = False
        elif when >= POSITION:
            position = when - POSITION
            if not self.bar or position >= self.bar_units or position < self.position:
                raise TokenError(f"bar {self.bar}: position {position} is not in it, or goes back")
            if part == CONDUCTOR and pitch < METRE:
                raise TokenError(f"bar {self.bar}: the conductor says {pitch}, which is no metre, key or tempo")
            if part != CONDUCTOR:
                if part not in self.roster:
                    raise TokenError(f"bar {self.bar}: a note for part {part}, which is not in the roster")
                base = DRUM if _is_drum(part) else PITCH
                if not base <= pitch < base + 128 or not duration or not velocity:
                    raise TokenError(f"bar {self.bar}: a note of part {part} without pitch, duration or velocity")
                self.notes += 1
                self.release = max(self.release, position + int(DURATIONS[duration]))
                self.played[part] = self.bar
                if not self.steady:
                    self.usual[part] = usual_low(self.usual.get(part), pitch - base)
                self.must_play.discard(part)
                if self.chord is not None:
                    self.chord.take(part)
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

    def _range(self, part: int) -> tuple[int, int]:
        """Lowest and highest value of field `pitch` for an instrument."""
        base = DRUM if _is_drum(part) else PITCH
        low, high = self.ranges.get(part) or _RANGES[part]
        return base + low, base + high

    def _parts_here(self) -> np.ndarray:
        """(size of part,) bool: who may still play at the current position, after the last step there."""
        mask = np.zeros(PART_FIELD.size, dtype=bool)
        part, pitch = self.last
        for member in self.roster:
            more = member == part and pitch < self._range(member)[1] and self.together < self.most.get(member, 128)
            mask[member] = member > part or more
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


class _Chord:
    """The last bar of a piece with an ending: what may still come of its chord.

    All strike it together, as soon as there is room in the bar, and hold it to the end: those who have played of late
    or were to play and have not, and who else of the roster will. The root lies lowest; of three or more, one in the
    middle has the third, so that it is a chord.
    """

    def __init__(self, cursor: BarsCursor, ending: Ending) -> None:
        self.cursor = cursor
        first = max(cursor.position, cursor.not_before)
        self.place = first + (first == cursor.position and cursor.last[0] >= INSTRUMENT)
        self.room = cursor.bar_units - self.place
        self.struck: dict[int, int] = {}  # part -> its notes of the chord so far
        since = cursor.bar - STILL_PLAYING
        due = {part for part in cursor.roster if part in cursor.must_play or cursor.played.get(part, -1) >= since}
        ranges = {part: cursor.ranges.get(part) or _RANGES[part] for part in cursor.roster}
        pitched = [part for part in cursor.roster if not _is_drum(part)]
        sounding = [part for part in pitched if part in due] or pitched
        self.root = ending.root({part: ranges[part] for part in sounding}, cursor.usual)
        if self.root is not None:
            due.add(self.root[0])
        self.due = sorted(due)  # who must still strike
        self.tones: dict[int, np.ndarray] = {}  # part -> (size of pitch,) bool: what it may play
        self.first: dict[int, np.ndarray] = {}  # the same of its first note, where that is settled
        for part, (low, high) in ranges.items():
            tones = np.zeros(PITCH_FIELD.size, dtype=bool)
            if _is_drum(part):
                tones[DRUM + low : DRUM + high + 1] = True
            else:
                tones[PITCH : PITCH + 128] = ending.within(low, high)
                if self.root is not None:
                    tones[: PITCH + self.root[1]] = False
            self.tones[part] = tones
        others = {p: self.tones[p][PITCH : PITCH + 128] for p in pitched if p in due and p != (self.root or (0,))[0]}
        third = ending.who_has_the_third(others, cursor.usual)
        if third is not None:
            self.first = {third: np.zeros(PITCH_FIELD.size, dtype=bool)}
            self.first[third][PITCH : PITCH + 128] = others[third] & ending.thirds

    def take(self, part: int) -> None:
        """A part has struck a note of the chord."""
        self.struck[part] = self.struck.get(part, 0) + 1
        if part in self.due:
            self.due.remove(part)

    def allow(self, mask: np.ndarray, chosen: Sequence[int]) -> None:
        """Fill the mask of field number len(chosen), which is not the velocity."""
        if not chosen:
            more = self.room > 0 and bool(self._players())
            if more:
                mask[POSITION + self.place] = True
            mask[END] = not (more and self.due)
        elif chosen[0] == END:
            mask[0] = True
        elif len(chosen) == 1:
            mask[self._players()] = True
        elif len(chosen) == 2:
            part = chosen[1]
            if part in self.struck:
                above = self.cursor.last[1] + 1
                mask[above:] = self.tones[part][above:]
            elif self.root is not None and part == self.root[0]:
                mask[PITCH + self.root[1]] = True
            else:
                mask |= self.first.get(part, self.tones[part])
        elif _is_drum(chosen[1]):
            mask[1:] = DURATIONS[1:] <= self.room
        else:
            mask[duration_class(self.room, round_down=True)] = True

    def _players(self) -> list[int]:
        """Who may strike next: parts in their order, none passed over that must, each a few notes at most."""
        part, pitch = self.cursor.last if self.struck else (0, 0)
        upto = self.due[0] if self.due else PART_FIELD.size
        players = [member for member in self.cursor.roster if part < member <= upto and self.tones[member].any()]
        if (
            part
            and self.struck[part] < min(CHORD_NOTES, self.cursor.most.get(part, CHORD_NOTES))
            and self.tones[part][pitch + 1 :].any()
        ):
            players.append(part)
        return players
