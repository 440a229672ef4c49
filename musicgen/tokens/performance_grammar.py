"""The grammar of the `performance` tokenizer: its vocabulary, a cursor over one piece, and masks over a whole one.

Both say which event may follow which: the cursor step by step, for sampling, within a piano's compass and up to a
length that was asked for; `masks` in one vectorised pass, for training, only what holds for every score that is
encoded. At one instant the order is: note-offs, rising; then note-ons, rising, each with a velocity before it where
the bin changes. Time moves in shifts, the longest first.

With an ending, a piece whose length is settled closes on the tonic chord: when its last bar begins, all that sounds is
let go, the chord is struck, root first, and held until the piece is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from musicgen.errors import TokenError
from musicgen.score.general_midi import PITCH_NAMES
from musicgen.tokens.ending import Ending
from musicgen.tokens.tokenizer import HIDDEN, Coordinate, Field

PITCHES, SHIFTS, BINS = 128, 100, 32
UNIT = 10
"""Milliseconds, and ticks of a decoded score, of the shortest time shift."""
BAR_TICKS = 1920
"""A bar of a decoded score: 4/4 at 125 quarters a minute, 1.92 seconds."""

START, END, ON = 0, 1, 2
OFF = ON + PITCHES
SHIFT = OFF + PITCHES
"""SHIFT + n - 1 moves time by n units."""
VELOCITY = SHIFT + SHIFTS
"""VELOCITY + b - 1 sets bin b, 1..32."""
SIZE = VELOCITY + BINS

EVENT = Field(
    "event",
    (
        "START",
        "END",
        *(f"on {name}" for name in PITCH_NAMES),
        *(f"off {name}" for name in PITCH_NAMES),
        *(f"shift {UNIT * n} ms" for n in range(1, SHIFTS + 1)),
        *(f"velocity {b}" for b in range(1, BINS + 1)),
    ),
)
TICKS_OF = np.zeros(SIZE, dtype=np.int64)
"""(390,) event -> ticks by which it moves time."""
TICKS_OF[SHIFT:VELOCITY] = UNIT * np.arange(1, SHIFTS + 1)

LOWEST, HIGHEST = 21, 108
"""A piano's compass."""

SECONDS, SOUNDING, SECONDS_LEFT = 300, 16, 120
COORDINATES = (
    Coordinate("seconds", 1 + SECONDS),
    Coordinate("centiseconds", 1 + SHIFTS),
    Coordinate("sounding", 2 + SOUNDING),
    Coordinate("seconds_left", 2 + SECONDS_LEFT, ahead=True),
)

CHORD_NOTES = 6
"""Of the chord that closes a piece, at most; three at least, or the root alone where never two have sounded at once."""
LONGEST_HOLD = 4000
"""Ticks for which it is held at most: longer bars are halved, or cut into more equal parts."""
SHORTEST = 10
"""Time units before that chord in which no note begins any more."""

_PITCH = np.arange(PITCHES)


@dataclass(frozen=True)
class Barlines:
    """Where bars lie in clock time, in ticks: `bars` are over at tick `start`, and each further one lasts `length`."""

    bars: int = 0
    start: float = 0.0
    length: float = BAR_TICKS

    def end(self, bars: int) -> int:
        """The tick at which bar number `bars`, counted from 1, is over."""
        return round(self.start + (bars - self.bars) * self.length)

    def begun(self, ticks: int, struck: bool = False) -> int:
        """How many have begun at a tick, give or take one; with a note struck there, the one that begins there too."""
        if struck:
            return self.bars + max(int((ticks + 1 - self.start) // self.length) + 1, 0)
        return self.bars + max(-int((self.start + 1 - ticks) // self.length), 0)

    @property
    def hold(self) -> float:
        """Ticks for which the chord that closes a piece is held: the last bar, or an equal part of a long one."""
        return self.length / -(-self.length // LONGEST_HOLD)


def seconds_left(ticks):
    """Coordinate for ticks that are left: 1 at the very end, then 1 + seconds, those begun counted whole."""
    return 1 + np.minimum(-(-np.maximum(ticks, 0) // 1000), SECONDS_LEFT)


def next_of_chord(chord: list[int], tones: list[int], wanted: tuple[int, ...]) -> tuple[list[int], bool]:
    """(what may be struck next of a chord that is written from the bottom up, whether it still lacks something).

    chord: MIDI pitches so far; tones: its pitches above them, rising; wanted: pitch classes that it is to have, the
    lowest first. Where the tones do not reach, less will do.
    """
    tops = {pitch % 12: pitch for pitch in tones}
    there = {pitch % 12 for pitch in chord}
    missing = [tops[tone] for tone in wanted if tone not in there and tone in tops]
    choice = [pitch for pitch in tones if all(top > pitch or top % 12 == pitch % 12 for top in missing)]
    if not chord:
        roots = [pitch for pitch in tones if pitch % 12 == wanted[0]]
        choice = [pitch for pitch in roots if pitch in choice] or roots or tones
    elif CHORD_NOTES - len(chord) <= len(missing):
        choice = [pitch for pitch in choice if pitch % 12 in {top % 12 for top in missing}]
    return choice, bool(missing)


class PerformanceCursor:
    """Implements tokens.tokenizer.Cursor. Time is in ticks of the decoded score, which are milliseconds.

    `ends_at`, where it is not None, is the tick at which the piece ends exactly (rounded down to 10 ms): no note starts
    there or sounds beyond, and END comes there and nowhere else. Setting `bars` sets it to the end of that bar, as
    `barlines` has them. `ending` is the chord that the last bar is to be.
    `compass` is the lowest and highest MIDI pitch that may be struck: a piano's, unless it is set otherwise.
    `allowed` keeps every rule of the module's opening, so that what is sampled is encoded as it was sampled; `advance`
    is lenient: a pitch struck again while it sounds, a note-off of a silent one and shifts cut up anyhow are taken, as
    `decode` takes them.
    """

    def __init__(self, bars: int | None = None) -> None:
        self.ends_at: int | None = None
        self.barlines = Barlines()
        self.ending: Ending | None = None
        self.compass = (LOWEST, HIGHEST)
        self.bars = bars
        self.done = False
        self.bar = 0
        self.ticks = 0
        self.notes = 0
        self.bin = 0  # 0: none was set yet
        self.sounds = np.zeros(PITCHES, dtype=bool)
        self.together = self.most_together = 0  # how many sound, and the most that ever did
        self.chord: list[int] = []  # the notes of the last chord
        self.last = START
        self.last_on = self.last_off = -1  # the last pitch struck, and let go, at this instant
        self.struck = False  # a velocity or a note-on at this instant: no more note-offs

    @property
    def bars(self) -> int | None:
        return self._bars

    @bars.setter
    def bars(self, bars: int | None) -> None:
        self._bars = bars
        self.ends_at = None if bars is None else self.barlines.end(bars)

    def keep_course(self) -> None:
        """A prompt has been walked: if it stopped in a rest, the rest may go on. There is nothing else to hold."""
        if SHIFT <= self.last < VELOCITY:
            self.last = SHIFT + SHIFTS - 1

    def coordinates(self) -> tuple[int, ...]:
        left = HIDDEN if self.ends_at is None else int(seconds_left(self.ends_at // UNIT * UNIT - self.ticks))
        seconds, rest = divmod(self.ticks, 1000)
        return 1 + min(seconds, SECONDS - 1), 1 + rest // UNIT, 1 + min(self.together, SOUNDING), left

    def allowed(self, chosen: Sequence[int] = ()) -> np.ndarray:
        """(390,) bool; see tokens.tokenizer.Cursor."""
        mask = np.zeros(SIZE, dtype=bool)
        room = SHIFTS if self.ends_at is None else (self.ends_at - self.ticks) // UNIT
        ending = False
        if self.ending is not None and self.ends_at is not None and room > 0:
            wait = self._wait(self.ends_at)
            if wait <= SHORTEST:
                self._close(mask, wait, room, self.ending)
                return mask
            room = wait
            ending = True
        if room < 1:
            if self.sounds.any():
                mask[OFF + int(self.sounds.argmax())] = True  # the lowest first, so that all can be let go
            else:
                mask[END] = True
            return mask
        low, high = self.compass
        playable = (max(low, self.last_on + 1) <= _PITCH) & (high >= _PITCH) & ~self.sounds
        can_play = bool(playable.any())
        if self.bin:
            mask[ON:OFF] = playable
        if self.last >= VELOCITY and can_play:
            return mask
        mask[VELOCITY:] = can_play
        if self.bin:
            mask[VELOCITY + self.bin - 1] = False
        if not self.struck:
            mask[OFF:SHIFT] = self.sounds & (self.last_off < _PITCH)
        if not SHIFT <= self.last < SHIFT + SHIFTS - 1:
            room -= (
                self.ends_at is not None and not ending and not self.notes
            )  # a piece has a note, which lasts a while
            mask[SHIFT : SHIFT + min(room, SHIFTS)] = True
            if ending:  # to the last chord, or not close to it
                mask[SHIFT + room - SHORTEST - 1 : SHIFT + min(room - 1, SHIFTS)] = False
        mask[END] = self.ends_at is None and self.notes > 0 and not self.sounds.any()
        return mask

    def _wait(self, ends_at: int) -> int:
        """Time units until the last chord is due, which is not before the last bar begins."""
        held = int(self.barlines.hold - ends_at % UNIT) // UNIT
        return (ends_at - self.ticks) // UNIT - max(held, 1)

    @property
    def _too_late(self) -> bool:
        """Whether other notes begin at this instant, or are just about to."""
        return not self.chord and (self.last_on >= 0 or (self.struck and bool(self.sounds.any())))

    def _close(self, mask: np.ndarray, wait: int, room: int, ending: Ending) -> None:
        """The last chord, due in `wait` units, `room` before the end: what sounds is let go, it is struck, and held."""
        if wait > 0 or self._too_late:  # nothing new begins before it; where something does, it comes a unit later
            if self.last < VELOCITY:
                mask[SHIFT + max(wait, 1) - 1] = True
                mask[OFF:SHIFT] = self.sounds & (self.last_off < _PITCH) & (not self.struck)
                return
            low, high = self.compass
            mask[ON:OFF] = (max(low, self.last_on + 1) <= _PITCH) & (high >= _PITCH) & ~self.sounds
            return
        if not self.chord and self.together:
            mask[OFF + int(self.sounds.argmax())] = True
            return
        choice: list[int] = []
        missing = False
        if len(self.chord) < CHORD_NOTES and (self.struck or not self.chord):
            tones = np.flatnonzero(ending.within(*self.compass) & (self.last_on < _PITCH)).tolist()
            choice, missing = next_of_chord(self.chord, tones, ending.triad[: 1 if self.most_together == 1 else 3])
        mask[[ON + pitch for pitch in choice if self.bin]] = True
        if self.last < VELOCITY:
            mask[VELOCITY:] = bool(choice)
            if self.bin:
                mask[VELOCITY + self.bin - 1] = False
            mask[SHIFT + min(room, SHIFTS) - 1] = bool(self.chord) and not missing

    def advance(self, step: Sequence[int]) -> None:
        """Take a step (1 value). Raises TokenError for what could not be decoded."""
        event = int(step[0])
        if not START < event < SIZE:
            raise TokenError(f"{self.ticks / 1000:.2f} s: {event} is no event of a performance that has begun")
        if self.done:
            raise TokenError(f"{self.ticks / 1000:.2f} s: an event after the end")
        if event == END and not self.notes:
            raise TokenError(f"{self.ticks / 1000:.2f} s: END before the first note")
        self.last = event
        if event == END:
            self.done = True
        elif event < OFF:
            pitch = event - ON
            due = self.ending is not None and self.ends_at is not None and self._wait(self.ends_at) <= 0
            if due and not self._too_late:
                self.chord.append(pitch)
            self.last_on, self.struck = pitch, True
            self.together += not self.sounds[pitch]
            self.most_together = max(self.most_together, self.together)
            self.sounds[pitch] = True
            self.notes += 1
            self.bar = max(self.bar, self.barlines.begun(self.ticks, struck=True))
        elif event < SHIFT:
            self.last_off = event - OFF
            self.together -= bool(self.sounds[self.last_off])
            self.sounds[self.last_off] = False
        elif event < VELOCITY:
            self.ticks += int(TICKS_OF[event])
            self.last_on = self.last_off = -1
            self.struck = False
            self.bar = max(self.bar, self.barlines.begun(self.ticks))
        else:
            self.bin, self.struck = event - VELOCITY + 1, True


def masks(events: np.ndarray, start: int, stop: int) -> np.ndarray:
    """(stop - start, 390) bool: what events start..stop-1 of an encoded piece could have been, given those before them.

    events: (T,) int64; 1 <= start. Looks at all before `start` once, and closely from the last time shift on.
    """
    shifts = np.flatnonzero(TICKS_OF[events[:start]])
    first = int(shifts[-1]) if len(shifts) else 0
    latest = np.full(SIZE, -1)
    latest[events[:first]] = np.arange(first)  # of each event, where it last was

    before = events[first : stop - 1]  # the instant of the step before `start`, and on
    row = np.arange(len(before))
    is_on = (before >= ON) & (before < OFF)
    is_off = (before >= OFF) & (before < SHIFT)
    is_shift = (before >= SHIFT) & (before < VELOCITY)
    is_velocity = before >= VELOCITY

    def last(which: np.ndarray) -> np.ndarray:
        return np.maximum.accumulate(np.where(which, row, -1))

    instant, on, off, velocity = last(is_shift), last(is_on), last(is_off), last(is_velocity)
    last_on = np.where(on > instant, before[on] - ON, -1)
    last_off = np.where(off > instant, before[off] - OFF, -1)
    struck = np.maximum(on, velocity) > instant
    old_bin = int(latest[VELOCITY:].argmax()) if latest[VELOCITY:].max() >= 0 else -1
    held_bin = np.where(velocity >= 0, before[velocity] - VELOCITY, old_bin)
    any_note = (on >= 0) | (latest[ON:OFF].max() >= 0)

    # each pitch's last event, on (odd) or off (even): the later the larger
    keys = np.zeros((len(before), PITCHES), dtype=np.int32)
    keys[0] = latest[ON:OFF] > latest[OFF:SHIFT]
    keys[is_on, before[is_on] - ON] = 2 * row[is_on] + 3
    keys[is_off, before[is_off] - OFF] = 2 * row[is_off] + 2
    sounds = (np.maximum.accumulate(keys, axis=0) & 1).astype(bool)

    free = ~is_velocity
    mask = np.zeros((len(before), SIZE), dtype=bool)
    mask[:, END] = free & any_note & ~sounds.any(axis=1)
    mask[:, ON:OFF] = ~sounds & (last_on[:, None] < _PITCH) & (held_bin >= 0)[:, None]
    mask[:, OFF:SHIFT] = sounds & (last_off[:, None] < _PITCH) & ~struck[:, None]
    mask[:, SHIFT:VELOCITY] = (free & ~(is_shift & (before < SHIFT + SHIFTS - 1)))[:, None]
    mask[:, VELOCITY:] = free[:, None] & (np.arange(BINS) != held_bin[:, None])
    return mask[start - 1 - first :]
