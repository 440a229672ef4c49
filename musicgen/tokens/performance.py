"""The `performance` tokenizer: piano as it is played, in seconds, one event a step.

The vocabulary is that of Performance RNN (Oore et al. 2018, "This Time with Feeling") and of the Music Transformer
(Huang et al. 2018), so that losses can be set beside theirs: 128 note-ons, 128 note-offs, 100 time shifts of 10 ms to
1 s and 32 velocity bins, after START and END. There is one field, `event`. The first chord of a piece:

    START | shift 500 ms | velocity 17 | on C4 | on E4 | velocity 19 | on G4 | shift 1000 ms | shift 490 ms | off C4 ...

As in Magenta's performance_lib, at one instant note-offs come before note-ons; a velocity stands before a note-on where
the bin changes, and before the first; bin b stands for MIDI velocity 1 + 4 (b - 1); longest shifts come first; silence
before the first note is kept, a note lasts 10 ms at least, times are rounded half up. Two things differ. What starts or
stops at one instant is sorted by pitch, where Magenta goes by which of the notes started first. And silence after the
last note is kept, as a prompt needs it; a MIDI file has none. Published figures are of performances whose notes last as
long as the pedal is held; a Score holds no pedal, so here they last as long as the key.

Time is kept as seconds, not as bars. A decoded score has 125 quarters a minute: with 480 ticks a quarter, a tick is a
millisecond, a time shift is a whole number of ticks, and a bar of its 4/4 is 1.92 s.

Knowingly lost, and nowhere else anything: bars, metre, key and tempo; parts and programs (all pitched parts become one
piano, program 0); drums; the title, part names, chord symbols and grace notes; timing finer than 10 ms; velocity finer
than its bin; overlapping and doubled unisons (a note struck again while it sounds is cut there; of two struck together,
the longer time and the louder velocity are kept). Repeats are played out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from musicgen.errors import TokenError
from musicgen.score import NOTE, Part, Score, Tempo, unfold
from musicgen.score.edit import merge_doubled
from musicgen.tokens.performance_grammar import (
    BAR_TICKS,
    COORDINATES,
    END,
    EVENT,
    OFF,
    ON,
    PITCHES,
    SECONDS,
    SHIFT,
    SHIFTS,
    SIZE,
    SOUNDING,
    START,
    TICKS_OF,
    UNIT,
    VELOCITY,
    PerformanceCursor,
    masks,
    seconds_left,
)
from musicgen.tokens.recall import Recall
from musicgen.tokens.tokenizer import Hearing

TEMPO_BPM = 125.0
"""Of a decoded score: at 480 ticks a quarter, a tick is a millisecond."""
BIN_WIDTH = 4
"""Magenta's ceil(127 / 32): velocities 1..4 are bin 1, 125..127 are bin 32."""
UNTOLD_BIN = 25
"""Of a note before any velocity event, which no encoded piece has; Magenta takes velocity 100 for it."""
LONGEST_SECONDS = 24 * 3600


class PerformanceTokenizer:
    """See the module's opening. Implements tokens.tokenizer.Tokenizer."""

    name: ClassVar[str] = "performance"
    as_written: ClassVar[bool] = False
    clock: ClassVar[bool] = True

    def __init__(self) -> None:
        self.options: dict = {}
        self.fields = (EVENT,)
        self.coordinates = COORDINATES
        self.start = (START,)
        pitch, released = np.full(SIZE, -1), np.zeros(SIZE, dtype=np.int64)
        pitch[ON:OFF] = pitch[OFF:SHIFT] = np.arange(PITCHES)
        released[OFF:SHIFT] = 1
        self.hearing = Hearing(octave=12, places={0: pitch}, kinds={0: released})
        self.recall = Recall(views=((0,),), fields=(0,))

    # --- scores -------------------------------------------------------------------------------------------------------

    def quantise(self, score: Score) -> Score:
        """The score as the tokens hold it: decode(encode(score)) equals this. The docstring above says what is lost.

        Raises TokenError for a score without pitched notes, or one of more than 24 hours.
        """
        name = score.title or "the score"
        played = unfold(score)
        pitched = [part.notes for part in played.parts if len(part.notes) and not part.is_drum]
        if not pitched:
            raise TokenError(f"{name}: no pitched notes")
        longest = played.seconds_at(played.length)
        if longest > LONGEST_SECONDS:
            raise TokenError(f"{name}: lasts {longest / 3600:.0f} hours; a performance is held for 24 at most")
        written = np.concatenate(pitched)
        onset = _units(played, written["onset"])
        end = _units(played, written["onset"].astype(np.int64) + written["duration"])
        notes = np.zeros(len(written), dtype=NOTE)
        notes["onset"] = onset * UNIT
        notes["duration"] = np.maximum(end - onset, 1) * UNIT
        notes["pitch"] = written["pitch"]
        notes["velocity"] = (written["velocity"] - 1) // BIN_WIDTH * BIN_WIDTH + 1
        return _performed(notes, int(_units(played, played.length)) * UNIT)

    def encode(self, score: Score, unfinished: bool = False) -> np.ndarray:
        """(T, 1) int16. Raises TokenError as `quantise` does.

        unfinished: the score breaks off; what sounds there is let go there, and END is left out.
        """
        steps = self.encode_held(self.quantise(score))
        return steps[:-1] if unfinished else steps

    def encode_held(self, held: Score) -> np.ndarray:
        """(T, 1) int16 of a score that `quantise` returned."""
        notes = held.parts[0].notes
        count = len(notes)
        time = np.concatenate([notes["onset"] + notes["duration"], notes["onset"]]) // UNIT
        is_on = np.repeat([False, True], count)
        pitch, velocity_bin = np.tile(notes["pitch"], 2), np.tile((notes["velocity"] - 1) // BIN_WIDTH, 2)
        order = np.lexsort((pitch, is_on, time))
        time, is_on, pitch, velocity_bin = time[order], is_on[order], pitch[order], velocity_bin[order]

        event = np.append(pitch + np.where(is_on, ON, OFF), END)
        wait = np.diff(time, prepend=0, append=held.length // UNIT)
        shifts = -(-wait // SHIFTS)  # how many before each event; all but the last are of 1 s
        bins = velocity_bin[is_on]
        changes = np.zeros(len(event), dtype=np.int64)
        changes[np.flatnonzero(is_on)[np.diff(bins, prepend=-1) != 0]] = 1
        at = 1 + np.cumsum(shifts + changes + 1) - 1  # where each event stands, START being at 0
        steps = np.full(at[-1] + 1, SHIFT + SHIFTS - 1, dtype=np.int16)
        steps[0] = START
        steps[at] = event
        changed = changes > 0
        steps[at[changed] - 1] = VELOCITY + velocity_bin[changed[:-1]]
        waited = wait > 0
        rest = wait - SHIFTS * (shifts - 1)
        steps[(at - changes - 1)[waited]] = SHIFT + rest[waited] - 1
        return steps[:, None]

    def decode(self, steps: np.ndarray) -> Score:
        """The score of any steps (T, 1); what follows END is passed over. TokenError without notes.

        A note that is not let go ends where the music does, or where it is struck again; a note-off of a silent pitch
        says nothing.
        """
        events = _events(steps)
        if len(events) and (events.min() < 0 or events.max() >= SIZE):
            raise TokenError(f"{events[(events < 0) | (events >= SIZE)][0]} is no event of a performance")
        ended = np.flatnonzero(events == END)
        events = events[: ended[0]] if len(ended) else events
        ticks = np.cumsum(TICKS_OF[events])
        keys, before = _keys(events)
        is_on = events[keys] < OFF
        if not is_on.any():
            raise TokenError("no notes in the steps")
        if ticks[-1] > LONGEST_SECONDS * 1000:
            raise TokenError(f"the steps last {ticks[-1] / 3.6e6:.0f} hours; a performance is held for 24 at most")
        length = int(ticks[-1])
        stops = np.append(np.where(before[1:], ticks[keys[1:]], length), length)  # a pitch's next event ends its note
        told = np.maximum.accumulate(np.where(events >= VELOCITY, np.arange(len(events)), -1))
        bins = np.where(told >= 0, events[told] - VELOCITY + 1, UNTOLD_BIN)
        notes = np.zeros(int(is_on.sum()), dtype=NOTE)
        notes["onset"] = ticks[keys][is_on]
        notes["duration"] = np.maximum(stops[is_on] - notes["onset"], UNIT)
        notes["pitch"] = events[keys][is_on] - ON
        notes["velocity"] = (bins[keys][is_on] - 1) * BIN_WIDTH + 1
        return _performed(notes, length)

    # --- where and what -----------------------------------------------------------------------------------------------

    def locate(self, steps: np.ndarray) -> np.ndarray:
        """(T, 4) int16, each 1 + its quantity: whole seconds since the start (at most 299), hundredths of the current
        second, how many notes sound (at most 16), and seconds left, one begun counted whole (at most 120)."""
        events = _events(steps)
        ticks = np.cumsum(TICKS_OF[events])
        keys, was_on = _keys(events, sounding=True)
        change = np.zeros(len(events), dtype=np.int64)
        change[keys] = (events[keys] < OFF).astype(np.int64) - was_on
        sounding = np.cumsum(change)
        columns = (
            1 + np.minimum(ticks // 1000, SECONDS - 1),
            1 + ticks % 1000 // UNIT,
            1 + np.minimum(sounding, SOUNDING),
            seconds_left((ticks[-1] if len(ticks) else 0) - ticks),
        )
        return np.stack(columns, axis=1).astype(np.int16)

    def masks(self, steps: np.ndarray, coordinates: np.ndarray, start: int, stop: int) -> dict[int, np.ndarray]:
        """{0: (stop - start, 390) bool}: notes stop that sound and start that do not, in the order that is written."""
        return {0: masks(_events(steps), start, stop)}

    def bars_begun(self, steps: np.ndarray) -> np.ndarray:
        """(T,) int64: how many bars of 1.92 s have begun after each step; one begins with a note in it or time past
        its start, so that the last is the number of bars of the decoded score."""
        events = _events(steps)
        ticks = np.cumsum(TICKS_OF[events])
        is_on = (events >= ON) & (events < OFF)
        return np.maximum.accumulate(np.where(is_on, ticks // BAR_TICKS + 1, -(-ticks // BAR_TICKS)))

    def is_note(self, steps: np.ndarray) -> np.ndarray:
        """(T,) bool: the note-ons."""
        events = _events(steps)
        return (events >= ON) & (events < OFF)

    def transpose(self, steps: np.ndarray, semitones: int) -> np.ndarray | None:
        """Note-ons and note-offs moved; None where one would leave the 128 pitches."""
        if semitones == 0:
            return steps
        steps = steps.copy()
        keyed = (steps >= ON) & (steps < SHIFT)
        pitch = (steps[keyed] - ON) % PITCHES + semitones
        if len(pitch) and (pitch.min() < 0 or pitch.max() >= PITCHES):
            return None
        steps[keyed] += semitones
        return steps

    def cursor(self, bars: int | None = None) -> PerformanceCursor:
        """A cursor just after START. bars: of 1.92 s each; `PerformanceCursor.ends_at` sets any other length."""
        return PerformanceCursor(bars)

    def characters(self, steps: np.ndarray) -> int | None:
        return None

    def describe(self, step: Sequence[int]) -> str:
        """One step as words: 'on C4', 'off C4', 'shift 120 ms', 'velocity 20' (the bin, of 32)."""
        return EVENT.labels[int(step[0])]


def _units(score: Score, ticks: np.ndarray | int) -> np.ndarray:
    """Ticks of a score as hundredths of a second, half up (what a sum of floats adds or takes decides no half)."""
    return np.floor(np.round(score.seconds_at(ticks) * (1000 / UNIT), 6) + 0.5).astype(np.int64)


def _performed(notes: np.ndarray, length: int) -> Score:
    """The decoded score of NOTE array `notes`, whose ticks are milliseconds."""
    part = Part("Piano", 0, notes=merge_doubled(notes))
    return Score(parts=(part,), tempos=(Tempo(0, TEMPO_BPM),), length=max(length, part.end))


def _events(steps: np.ndarray) -> np.ndarray:
    """(T,) int64 of steps (T, 1)."""
    return np.asarray(steps, dtype=np.int64).reshape(-1)


def _keys(events: np.ndarray, sounding: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Indices (N,) of note-ons and note-offs by pitch, then time; and (N,) bool: the one before is of the same pitch.

    sounding: ... and is a note-on, so that the pitch sounds already.
    """
    keys = np.flatnonzero((events >= ON) & (events < SHIFT))
    pitch = (events[keys] - ON) % PITCHES
    order = np.argsort(pitch, kind="stable")
    keys, pitch = keys[order], pitch[order]
    before = np.zeros(len(keys), dtype=bool)
    before[1:] = pitch[1:] == pitch[:-1]
    if sounding:
        before[1:] &= events[keys[:-1]] < OFF
    return keys, before
