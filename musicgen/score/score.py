"""The score model: parts of notes on an exact integer clock, with maps of bars, metre, key and tempo.

A `Score` is frozen and knows nothing of files, tokens or models. Time is counted in ticks, 480 to the quarter note
(480 = 2^5 * 3 * 5), so that triplets, quintuplets and 128ths are exact. Notes live in one structured array a part, so
that transposing, cutting and encoding are vector operations.

Bars are stated, not derived: `bars` holds the tick at which each bar starts, whatever its length. A pickup, a short bar
before a repeat sign and a bar with a beat too many are all just bars, and the metre says what a full one would be.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from musicgen.errors import ScoreError

TICKS_PER_QUARTER = 480

DRUM_PROGRAM = 0
"""The program a drum part carries: General MIDI's standard kit."""

NOTE = np.dtype([("onset", "<i4"), ("duration", "<i4"), ("pitch", "<i2"), ("velocity", "<i2")])
"""One note: onset and duration in ticks (duration >= 1), MIDI pitch 0..127 (of drum parts the key), velocity 1..127."""

MODE_FIFTHS = {"major": 0, "minor": 3, "dorian": 2, "phrygian": 4, "lydian": -1, "mixolydian": 1, "locrian": 5}
"""Mode -> how many fifths its tonic lies above that of the major key with the same signature."""
MODES = tuple(MODE_FIFTHS)
MINOR_MODES = ("minor", "dorian", "phrygian", "locrian")
"""Modes with a minor third: where only major and minor can be told, they are minor."""


def notes_array(notes: Iterable[tuple[int, int, int, int]] = ()) -> np.ndarray:
    """A NOTE array, sorted by onset, pitch, duration, from (onset, duration, pitch, velocity) tuples."""
    array = np.array([tuple(n) for n in notes], dtype=NOTE)
    return array[np.argsort(array, order=("onset", "pitch", "duration"), kind="stable")]


@dataclass(frozen=True)
class Tempo:
    """From `onset` on, `bpm` quarter notes a minute (whatever the metre's beat is)."""

    onset: int
    bpm: float


@dataclass(frozen=True)
class Metre:
    """From `onset` on, bars of numerator/denominator."""

    onset: int
    numerator: int
    denominator: int

    @property
    def ticks(self) -> int:
        """Length of a full bar in ticks."""
        return bar_ticks(self.numerator, self.denominator)


@dataclass(frozen=True)
class Key:
    """From `onset` on, a signature of `fifths` sharps (negative: flats, -7..7) with a mode from MODES."""

    onset: int
    fifths: int
    mode: str = "major"

    @property
    def name(self) -> str:
        """As a musician says it: "B minor", "E flat major"."""
        place = self.fifths + MODE_FIFTHS[self.mode] + 1  # on the circle of fifths, F = 0
        return (
            "FCGDAEB"[place % 7]
            + (" sharp" * (place // 7) if place >= 0 else " flat" * -(place // 7))
            + f" {self.mode}"
        )


@dataclass(frozen=True)
class Sign:
    """A sign at a barline of a score as written: where repeats and endings begin and stop.

    kind: "repeat_start", "repeat_end", "ending" (a volta begins here; `passes` says for which passes),
    "ending_stop", "double" (a thin double bar), "final". At one onset they apply in the order
    ending_stop, repeat_end, double, final, repeat_start, ending.
    """

    onset: int
    kind: str
    passes: tuple[int, ...] = ()


SIGN_ORDER = ("ending_stop", "repeat_end", "double", "final", "repeat_start", "ending")


@dataclass(frozen=True)
class ChordSymbol:
    """A chord symbol over the staff, as in lead sheets: "Am7"."""

    onset: int
    text: str


@dataclass(frozen=True, eq=False)
class Part:
    """One instrument: a name, a General MIDI program 0..127, and its notes, sorted by onset, pitch, duration."""

    name: str = ""
    program: int = 0
    is_drum: bool = False
    notes: np.ndarray = field(default_factory=notes_array)

    def __post_init__(self) -> None:
        if self.notes.dtype != NOTE:
            raise ScoreError(f"part {self.name!r}: notes are {self.notes.dtype}, expected the NOTE dtype")
        if not 0 <= self.program <= 127:
            raise ScoreError(f"part {self.name!r}: program {self.program} is not in 0..127")
        order = np.lexsort((self.notes["duration"], self.notes["pitch"], self.notes["onset"]))
        notes = np.ascontiguousarray(self.notes[order])
        if len(notes):
            if notes["onset"][0] < 0 or notes["duration"].min() < 1:
                raise ScoreError(f"part {self.name!r}: a note starts before 0 or lasts less than one tick")
            if notes["pitch"].min() < 0 or notes["pitch"].max() > 127:
                raise ScoreError(f"part {self.name!r}: a pitch is not in 0..127")
            if notes["velocity"].min() < 1 or notes["velocity"].max() > 127:
                raise ScoreError(f"part {self.name!r}: a velocity is not in 1..127")
        notes.flags.writeable = False
        object.__setattr__(self, "notes", notes)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Part):
            return NotImplemented
        return (self.name, self.program, self.is_drum) == (
            other.name,
            other.program,
            other.is_drum,
        ) and np.array_equal(self.notes, other.notes)

    @property
    def end(self) -> int:
        """The tick at which the last sounding note stops."""
        return int((self.notes["onset"] + self.notes["duration"]).max()) if len(self.notes) else 0

    def with_notes(self, notes: np.ndarray) -> Part:
        return replace(self, notes=notes)


@dataclass(frozen=True, eq=False)
class Score:
    """A piece of music, whole or unfinished.

    parts:   in score order, top to bottom.
    bars:    (n,) int32, the tick where each bar starts; bars[0] == 0. Left out, it is laid out from the metres.
    length:  the tick where the music stops, trailing rests included. Left out, it is where the last note stops.
    signs:   repeat signs, for a score as written; empty once unfolded (see `unfold`).
    """

    parts: tuple[Part, ...] = ()
    title: str = ""
    tempos: tuple[Tempo, ...] = (Tempo(0, 120.0),)
    metres: tuple[Metre, ...] = (Metre(0, 4, 4),)
    keys: tuple[Key, ...] = (Key(0, 0),)
    bars: np.ndarray = None  # type: ignore[assignment]
    length: int = None  # type: ignore[assignment]
    signs: tuple[Sign, ...] = ()
    chord_symbols: tuple[ChordSymbol, ...] = ()

    def __post_init__(self) -> None:
        for name in ("tempos", "metres", "keys"):
            events = tuple(sorted(getattr(self, name), key=lambda e: e.onset))
            if not events or events[0].onset != 0:
                raise ScoreError(f"{name} must begin at tick 0, found {events[:1]}")
            object.__setattr__(self, name, events)
        for metre in self.metres:
            if metre.numerator < 1 or metre.denominator not in (1, 2, 4, 8, 16, 32, 64):
                raise ScoreError(f"{metre.numerator}/{metre.denominator} is no metre")
        for tempo in self.tempos:
            if not 0 < tempo.bpm < 10_000:
                raise ScoreError(f"a tempo of {tempo.bpm} quarter notes a minute is out of range")
        for key in self.keys:
            if not -7 <= key.fifths <= 7 or key.mode not in MODES:
                raise ScoreError(f"key of {key.fifths} fifths, {key.mode}, is not known")
        object.__setattr__(self, "parts", tuple(self.parts))
        last = max((part.end for part in self.parts), default=0)
        length = last if self.length is None else int(self.length)
        if length < last:
            raise ScoreError(f"the score stops at tick {length}, but a note sounds until {last}")
        object.__setattr__(self, "length", length)
        bars = bar_grid(self.metres, length) if self.bars is None else np.asarray(self.bars, dtype=np.int32)
        if len(bars) == 0 or bars[0] != 0 or np.any(np.diff(bars) <= 0) or (len(bars) > 1 and bars[-1] >= length):
            raise ScoreError("bars must begin at tick 0, rise, and start before the score stops")
        bars = np.array(bars, dtype=np.int32)
        bars.flags.writeable = False
        object.__setattr__(self, "bars", bars)
        for sign in self.signs:
            if sign.kind not in SIGN_ORDER:
                raise ScoreError(f"{sign.kind!r} is no sign at a barline; there are {' '.join(SIGN_ORDER)}")
        signs = tuple(sorted(self.signs, key=lambda s: (s.onset, SIGN_ORDER.index(s.kind))))
        object.__setattr__(self, "signs", signs)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Score):
            return NotImplemented
        plain = ("parts", "title", "tempos", "metres", "keys", "length", "signs", "chord_symbols")
        return all(getattr(self, n) == getattr(other, n) for n in plain) and np.array_equal(self.bars, other.bars)

    @property
    def note_count(self) -> int:
        return sum(len(part.notes) for part in self.parts)

    @property
    def pickup(self) -> int:
        """Length in ticks of an incomplete first bar; 0 where the first bar is full (or the only one)."""
        if len(self.bars) < 2:
            return 0
        first = int(self.bars[1])
        return first if first < self.metres[0].ticks else 0

    @property
    def bar_lengths(self) -> np.ndarray:
        """(n,) the length of each bar in ticks; the last is what there is of it."""
        return np.diff(np.append(self.bars, max(self.length, int(self.bars[-1]) + 1)))

    def metre_at(self, tick: int) -> Metre:
        return _at(self.metres, tick)

    def key_at(self, tick: int) -> Key:
        return _at(self.keys, tick)

    def tempo_at(self, tick: int) -> Tempo:
        return _at(self.tempos, tick)

    def bar_at(self, tick: int) -> int:
        """Index of the bar that holds `tick`, counted from 0."""
        return int(np.searchsorted(self.bars, tick, side="right")) - 1

    def seconds_at(self, tick: int) -> float:
        """Clock time of a tick, by the tempo map."""
        seconds = 0.0
        for i, tempo in enumerate(self.tempos):
            stop = self.tempos[i + 1].onset if i + 1 < len(self.tempos) else tick
            span = min(stop, tick) - tempo.onset
            if span <= 0:
                break
            seconds += span / TICKS_PER_QUARTER * 60.0 / tempo.bpm
        return seconds


def _at(events: Sequence, tick: int):
    """The last event at or before `tick`."""
    found = events[0]
    for event in events:
        if event.onset > tick:
            break
        found = event
    return found


def bar_ticks(numerator: int, denominator: int) -> int:
    """Length in ticks of a full bar of numerator/denominator."""
    return 4 * TICKS_PER_QUARTER * numerator // denominator


def bar_grid(metres: Sequence[Metre], length: int, pickup: int = 0) -> np.ndarray:
    """Bar starts (n,) int32 laid out from the metres up to `length`, after an optional pickup of that many ticks.

    A metre change cuts the bar it falls in: the new metre's first bar starts there.
    """
    starts = [0]
    if 0 < pickup < length:
        starts.append(pickup)
    for i, metre in enumerate(metres):
        stop = metres[i + 1].onset if i + 1 < len(metres) else length
        for tick in range(max(metre.onset, starts[-1]), min(stop, length), metre.ticks):
            if tick > starts[-1]:
                starts.append(tick)
    return np.array(starts, dtype=np.int32)
