"""The score model: parts of notes on an exact integer clock, with maps of bars, metre, key and tempo.

A `Score` is frozen and knows nothing of files, tokens or models. Time is counted in ticks, 480 to the quarter note
(480 = 2^5 * 3 * 5), so that triplets, quintuplets and 128ths are exact. Notes live in one structured array a part, so
that transposing, cutting and encoding are vector operations.

Bars are stated, not derived: `bars` holds the tick at which each bar starts, whatever its length. A pickup, a short bar
before a repeat sign and a bar with a beat too many are all just bars, and the metre says what a full one would be.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, overload

import numpy as np

from musicgen.errors import ScoreError

TICKS_PER_QUARTER = 480

DRUM_PROGRAM = 0
"""The program a drum part carries: General MIDI's standard kit."""

NOTE = np.dtype([("onset", "<i4"), ("duration", "<i4"), ("pitch", "<i2"), ("velocity", "<i2")])
"""One note: onset and duration in ticks (duration >= 1), MIDI pitch 0..127 (of drum parts the key), velocity 1..127."""

GRACE = np.dtype([("onset", "<i4"), ("place", "<i2"), ("pitch", "<i2"), ("slashed", "?")])
"""One grace note: the onset in ticks of the note it leads to, its place among the graces of that onset (0 is played
first, equal places are a grace chord), MIDI pitch 0..127, whether its stem is slashed. It takes no time of its own."""

MODE_FIFTHS = {"major": 0, "minor": 3, "dorian": 2, "phrygian": 4, "lydian": -1, "mixolydian": 1, "locrian": 5}
"""Mode -> how many fifths its tonic lies above that of the major key with the same signature."""
MODES = tuple(MODE_FIFTHS)
MINOR_MODES = ("minor", "dorian", "phrygian", "locrian")
"""Modes with a minor third: where only major and minor can be told, they are minor."""


def notes_array(notes: Iterable[tuple[int, int, int, int]] = ()) -> np.ndarray:
    """A NOTE array, sorted by onset, pitch, duration, from (onset, duration, pitch, velocity) tuples."""
    array = np.array([tuple(n) for n in notes], dtype=NOTE)
    return array[np.argsort(array, order=("onset", "pitch", "duration"), kind="stable")]


def graces_array(graces: Iterable[tuple[int, int, int, bool]] = ()) -> np.ndarray:
    """A GRACE array, sorted by onset, place, pitch, from (onset, place, pitch, slashed) tuples."""
    array = np.array([tuple(g) for g in graces], dtype=GRACE)
    return array[np.argsort(array, order=("onset", "place", "pitch"), kind="stable")]


NO_GRACES = graces_array()
"""Of a part without grace notes."""
NO_GRACES.flags.writeable = False


@dataclass(frozen=True)
class Tempo:
    """From `onset` on, `bpm` quarter notes a minute (whatever the metre's beat is)."""

    onset: int
    bpm: float


class TempoMap(Sequence[Tempo]):
    """Tempi in time, as two arrays: a performance has thousands, and only arrays are quick to make and to ask.

    onsets: (n,) int64 ticks, not falling, the first 0. bpms: (n,) float64 quarter notes a minute. To Python it is a
    sequence of Tempo. The arrays are frozen. Raises ScoreError.
    """

    __slots__ = ("bpms", "onsets")

    def __init__(self, onsets: np.ndarray, bpms: np.ndarray) -> None:
        if not len(onsets) or onsets[0] != 0:
            raise ScoreError(f"tempos must begin at tick 0, found {onsets[:1]}")
        if len(onsets) > 1 and bool((onsets[1:] < onsets[:-1]).any()):
            order = np.argsort(onsets, kind="stable")
            onsets, bpms = onsets[order], bpms[order]
            if onsets[0] != 0:
                raise ScoreError(f"tempos must begin at tick 0, found {onsets[:1]}")
        if not (bpms.min() > 0 and bpms.max() < 10_000):
            wrong = np.flatnonzero(~((bpms > 0) & (bpms < 10_000)))
            raise ScoreError(f"a tempo of {bpms[wrong[0]]:g} quarter notes a minute is out of range")
        onsets.flags.writeable = bpms.flags.writeable = False
        self.onsets, self.bpms = onsets, bpms

    @classmethod
    def of(cls, tempos: Iterable[Tempo]) -> TempoMap:
        if isinstance(tempos, TempoMap):
            return tempos
        events = sorted(tempos, key=lambda tempo: tempo.onset)
        return cls(np.array([t.onset for t in events], dtype=np.int64), np.array([float(t.bpm) for t in events]))

    def __len__(self) -> int:
        return len(self.onsets)

    @overload
    def __getitem__(self, index: int) -> Tempo: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Tempo, ...]: ...
    def __getitem__(self, index: int | slice) -> Tempo | tuple[Tempo, ...]:
        if isinstance(index, slice):
            return tuple(map(Tempo, self.onsets[index].tolist(), self.bpms[index].tolist()))
        return Tempo(int(self.onsets[index]), float(self.bpms[index]))

    def __iter__(self) -> Iterator[Tempo]:
        return map(Tempo, self.onsets.tolist(), self.bpms.tolist())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TempoMap):
            return np.array_equal(self.onsets, other.onsets) and np.array_equal(self.bpms, other.bpms)
        return tuple(self) == other if isinstance(other, tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))


PLAIN_TEMPO = TempoMap(np.zeros(1, dtype=np.int64), np.full(1, 120.0))


DENOMINATORS = (1, 2, 4, 8, 16, 32, 64)
"""Note values that a metre can count."""


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
    """A sign at a barline of a score as written: where repeats, endings and sections begin and stop, and jumps.

    kind: "repeat_start", "repeat_end" (with `passes` 1 and 2 the music goes back twice), "ending" (a volta begins here;
    `passes` says for which passes), "ending_stop", "double" (a thin double bar), "final"; "section" (a part of the
    piece begins here, `label` is its name); "segno" and "coda" (what is jumped to begins here); "to_coda", "fine",
    "da_capo" and "dal_segno" (the music leaves here: the onset is the end of the last bar that is played; the `label`
    of a jump back is "al fine", "al coda" or nothing). At one onset they apply in the order of SIGN_ORDER.
    """

    onset: int
    kind: str
    passes: tuple[int, ...] = ()
    label: str = ""


SIGN_ORDER = (
    *("ending_stop", "to_coda", "fine", "da_capo", "dal_segno", "repeat_end", "double", "final"),
    *("section", "segno", "coda", "repeat_start", "ending"),
)


@dataclass(frozen=True)
class ChordSymbol:
    """A chord symbol over the staff, as in lead sheets: "Am7"."""

    onset: int
    text: str


Made = TypeVar("Made", "Part", "Score")


def unchecked(kind: type[Made], **fields: Any) -> Made:
    """A Part or Score of all its fields, as its constructor would have left them, and none of them looked at.

    For readers that have just made the arrays themselves, sorted, within bounds and frozen: on short files the checks
    take longer than the reading.
    """
    made = object.__new__(kind)
    made.__dict__.update(fields)
    return made


@dataclass(frozen=True, eq=False)
class Part:
    """One instrument: a name, a General MIDI program 0..127, its notes, sorted by onset, pitch, duration, and its
    grace notes, sorted by onset, place, pitch.
    """

    name: str = ""
    program: int = 0
    is_drum: bool = False
    notes: np.ndarray = field(default_factory=notes_array)
    graces: np.ndarray = field(default_factory=lambda: NO_GRACES)

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
        if len(self.graces):
            self._check_graces()

    def _check_graces(self) -> None:
        if self.graces.dtype != GRACE:
            raise ScoreError(f"part {self.name!r}: grace notes are {self.graces.dtype}, expected the GRACE dtype")
        graces = self.graces[np.lexsort((self.graces["pitch"], self.graces["place"], self.graces["onset"]))]
        if graces["onset"][0] < 0 or graces["pitch"].min() < 0 or graces["pitch"].max() > 127:
            raise ScoreError(f"part {self.name!r}: a grace note's onset is below 0, or its pitch is not in 0..127")
        graces.flags.writeable = False
        object.__setattr__(self, "graces", graces)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Part):
            return NotImplemented
        same = (self.name, self.program, self.is_drum) == (other.name, other.program, other.is_drum)
        return same and np.array_equal(self.notes, other.notes) and np.array_equal(self.graces, other.graces)

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
    signs:   repeat signs, sections and jumps, for a score as written; empty once unfolded (see `unfold`).
    order:   labels of the sections in the order they are played; empty where they are played as they stand.
    """

    parts: tuple[Part, ...] = ()
    title: str = ""
    tempos: Sequence[Tempo] = PLAIN_TEMPO
    metres: tuple[Metre, ...] = (Metre(0, 4, 4),)
    keys: tuple[Key, ...] = (Key(0, 0),)
    bars: np.ndarray = None  # type: ignore[assignment]
    length: int = None  # type: ignore[assignment]
    signs: tuple[Sign, ...] = ()
    chord_symbols: tuple[ChordSymbol, ...] = ()
    order: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        tempos = self.tempos if isinstance(self.tempos, TempoMap) else TempoMap.of(self.tempos)
        object.__setattr__(self, "tempos", tempos)
        for name in ("metres", "keys"):
            events = tuple(sorted(getattr(self, name), key=lambda e: e.onset))
            if not events or events[0].onset != 0:
                raise ScoreError(f"{name} must begin at tick 0, found {events[:1]}")
            object.__setattr__(self, name, events)
        for metre in self.metres:
            if metre.numerator < 1 or metre.denominator not in DENOMINATORS:
                raise ScoreError(f"{metre.numerator}/{metre.denominator} is no metre")
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
        plain = ("parts", "title", "tempos", "metres", "keys", "length", "signs", "chord_symbols", "order")
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
        return self.tempos[max(int(np.searchsorted(self.tempo_map.onsets, tick, side="right")) - 1, 0)]

    def bar_at(self, tick: int) -> int:
        """Index of the bar that holds `tick`, counted from 0."""
        return int(np.searchsorted(self.bars, tick, side="right")) - 1

    @property
    def tempo_map(self) -> TempoMap:
        """`tempos`, known to be a TempoMap."""
        assert isinstance(self.tempos, TempoMap)
        return self.tempos

    def seconds_at(self, tick):
        """Clock time of a tick (int to float) or of an array of ticks (to float64), by the tempo map."""
        onsets = self.tempo_map.onsets
        seconds_a_tick = 60.0 / (TICKS_PER_QUARTER * self.tempo_map.bpms)
        starts = np.concatenate([[0.0], np.cumsum(np.diff(onsets) * seconds_a_tick[:-1])])
        place = np.maximum(np.searchsorted(onsets, tick, side="right") - 1, 0)
        found = starts[place] + (np.asarray(tick) - onsets[place]) * seconds_a_tick[place]
        return float(found) if np.ndim(tick) == 0 else found


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
    """Bar starts (n,) int32 laid out from the metres, the first at 0, to `length`, after a pickup of that many ticks.

    A metre change cuts the bar it falls in: the new metre's first bar starts there.
    """
    runs, last = [], -1
    if 0 < pickup < length:
        runs, last = [np.array([0, pickup], dtype=np.int32)], pickup
    for i, metre in enumerate(metres):
        stop = metres[i + 1].onset if i + 1 < len(metres) else length
        ticks = metre.ticks
        first = metre.onset if metre.onset > last else last + ticks
        run = np.arange(first, min(stop, length), ticks, dtype=np.int32)
        if len(run):
            runs.append(run)
            last = int(run[-1])
    if len(runs) == 1:
        return runs[0]
    return np.concatenate(runs) if runs else np.zeros(1, dtype=np.int32)
