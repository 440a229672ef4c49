"""MIDI files to scores, through symusic: structs of arrays straight into numpy.

What of the file is no part of a Score is left: controllers, pitch bends, lyrics, modes other than major and minor. A
first metre of one short bar is a pickup; a part whose program another track sets has that program. symusic drops notes
that are never let go, and reads names as UTF-8, with a mark for what is none; a note of no length lasts a tick.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from operator import itemgetter
from pathlib import Path

import numpy as np
from symusic.core import NoteTickList, ScoreTick, TempoTickList, TimeSignatureTickList

from musicgen.errors import FormatError
from musicgen.formats.midi_programs import with_programs_of_other_tracks
from musicgen.score import (
    DENOMINATORS,
    DRUM_PROGRAM,
    NOTE,
    TICKS_PER_QUARTER,
    Key,
    Metre,
    Part,
    Score,
    TempoMap,
    bar_grid,
)
from musicgen.score.edit import from_zero
from musicgen.score.score import NO_GRACES, PLAIN_TEMPO, bar_ticks, unchecked

MAX_BYTES = 16 * 2**20
"""A million notes fit in half of it; what is larger is sound, a picture, or made to use memory up."""
MAX_NOTES = 1_000_000
MAX_PARTS = 256
MAX_TICKS = 2**30
MAX_BARS = 50_000
MAX_CHANGES = 50_000
"""Of tempo, of metre and of key."""


def read(path: str | Path) -> list[Score]:
    """The one score in a MIDI file, plain or wrapped as RMID. Raises FormatError."""
    path = path if isinstance(path, Path) else Path(path)
    data = _unwrapped(_content(path))
    _check_header(data, path)
    try:
        found = ScoreTick.from_midi(data)
    except Exception as error:  # symusic raises RuntimeError, ValueError and its own kinds for damaged files
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise FormatError(f"{path}: not a readable MIDI file ({reason})") from error
    if b"MTrk" not in data:
        raise FormatError(f"{path}: a MIDI header and nothing after it; the file breaks off")
    score = from_symusic(found, str(path), title=_title(data))
    return [with_programs_of_other_tracks(score, data, path)]


def _content(path: Path) -> bytes:
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise FormatError(
                f"{path}: {size:,} bytes, more than the {MAX_BYTES:,} of MIDI that are read; split the file"
            )
        data = file.read(size)  # at once, where `read()` asks for the size and then for more
        return data if len(data) == size > 0 else data + file.read()


def _unwrapped(data: bytes) -> bytes:
    """The MIDI file inside a RIFF file of the kind RMID; anything else as it is."""
    if data[:4] != b"RIFF" or data[8:12] != b"RMID":
        return data
    at = 12
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"data":
            return data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    return data


def _check_header(data: bytes, path: Path) -> None:
    """Raises FormatError for what no score can be made of, before anything is parsed."""
    if data[:4] != b"MThd" or len(data) < 14:
        raise FormatError(f"{path}: not a MIDI file, or cut short: no whole MThd header at its beginning")
    kind, tracks, division = struct.unpack(">HHH", data[8:14])
    if kind == 2 and tracks > 1:
        raise FormatError(f"{path}: format 2, {tracks} patterns without a common time; save it as format 1")
    if division & 0x8000:
        raise FormatError(f"{path}: its time is counted in SMPTE frames; save it with ticks a quarter note")
    if division == 0:
        raise FormatError(f"{path}: 0 ticks a quarter note; its header is damaged")


def from_symusic(found: ScoreTick, path: str = "score", title: str = "") -> Score:
    """A Score from symusic's; `path` is named in errors."""
    if len(found.tracks) > MAX_PARTS:
        raise FormatError(f"{path}: {len(found.tracks)} parts, more than the {MAX_PARTS} that are read")
    if found.note_num() > MAX_NOTES:
        raise FormatError(f"{path}: {found.note_num():,} notes, more than the {MAX_NOTES:,} that are read")
    tempos, signatures, key_signatures = found.tempos, found.time_signatures, found.key_signatures
    for name, changes in (("tempo", tempos), ("metre", signatures), ("key", key_signatures)):
        if len(changes) > MAX_CHANGES:
            raise FormatError(
                f"{path}: {len(changes):,} changes of {name}, more than the {MAX_CHANGES:,} that are read"
            )
    own = found.ticks_per_quarter
    if own <= 0:
        raise FormatError(f"{path}: {own} ticks a quarter note; SMPTE time is not supported")
    if not 0 <= found.end() * TICKS_PER_QUARTER <= MAX_TICKS * own:  # below 0: past what 32 bits hold
        raise FormatError(f"{path}: the last event is at tick {found.end():,}, too far to be music")
    if found.start() < 0:
        raise FormatError(f"{path}: a note before the beginning; its times are damaged, or too large")

    def ticks(value):
        """The file's ticks, an int or an array of int64, to the nearest of ours; halves go up."""
        return value if own == TICKS_PER_QUARTER else (2 * TICKS_PER_QUARTER * value + own) // (2 * own)

    tracks = [track for track in found.tracks if track.notes]
    parts, length = _parts(tracks, ticks, same_ticks=own == TICKS_PER_QUARTER)
    metres, pickup = _metres(signatures, ticks, length)
    if length > MAX_BARS * SHORTEST_BAR:  # else there can't be as many
        stops = [m.onset for m in metres[1:]] + [length]
        if sum([(stop - m.onset) // m.ticks for m, stop in zip(metres, stops, strict=True)]) > MAX_BARS:
            raise FormatError(f"{path}: more than the {MAX_BARS:,} bars that are read; is its last event a stray one?")
    stated = [(ticks(k.time), k.key, "minor" if k.tonality else "major") for k in key_signatures]
    keys = from_zero([Key(*key) for key in _latest([key for key in stated if -7 <= key[1] <= 7])], _C_MAJOR)
    bars = bar_grid(metres, length, pickup)
    bars.flags.writeable = False
    return unchecked(
        Score,
        parts=parts,
        title=title if title and title not in [part.name for part in parts] else "",
        tempos=_tempos(tempos, ticks),
        metres=metres,
        keys=keys,
        bars=bars,
        length=length,
        signs=(),
        chord_symbols=(),
        order=(),
    )


SHORTEST_BAR = bar_ticks(1, DENOMINATORS[-1])
_FOUR_FOUR, _C_MAJOR = Metre(0, 4, 4), Key(0, 0)


def _parts(tracks: list, ticks: Callable, same_ticks: bool) -> tuple[tuple[Part, ...], int]:
    """(a Part of each of symusic's tracks, the tick where the last note stops).

    The notes of all tracks are made as one NOTE array, of which each part has a slice. Times are not negative.
    same_ticks: `ticks` has nothing to do.
    """
    if not tracks:
        return (), 0
    lists = [track.notes for track in tracks]
    edges = list(accumulate(map(len, lists), initial=0))
    together = lists[0]
    if len(lists) > 1:
        together = NoteTickList(together)  # which shares the notes; the first track is left as it is
        for one in lists[1:]:
            together.extend(one)
    arrays = together.numpy()
    onset, duration, pitch, velocity = arrays["time"], arrays["duration"], arrays["pitch"], arrays["velocity"]
    if not same_ticks:
        onset, stop = ticks(np.array([onset, onset + duration], dtype=np.int64))
        duration = stop - onset
    duration = np.maximum(duration, 1)
    notes = np.empty(edges[-1], dtype=NOTE)
    notes["onset"], notes["duration"], notes["pitch"] = onset, duration, pitch
    np.maximum(velocity, 1, out=notes["velocity"])
    place = np.left_shift(onset, 7, dtype=np.int64)
    place |= pitch
    rising = place[1:] > place[:-1]
    for edge in edges[1:-1]:
        rising[edge - 1] = True
    if np.count_nonzero(rising) < len(rising):
        notes = notes.take(_order(place, duration, edges))
    notes.flags.writeable = False
    parts = []
    for track, first, last in zip(tracks, edges, edges[1:], strict=False):
        drum = track.is_drum
        parts.append(
            unchecked(
                Part,
                name=track.name.strip(),
                program=DRUM_PROGRAM if drum else track.program,
                is_drum=drum,
                notes=notes[first:last],
                graces=NO_GRACES,
            )
        )
    return tuple(parts), int((onset + duration).max())


def _order(place: np.ndarray, duration: np.ndarray, edges: list[int]) -> np.ndarray:
    """The order of the notes in a part by place, which is onset and pitch, and then by duration."""
    for i, edge in enumerate(edges[1:-1], 1):
        place[edge : edges[i + 1]] += i << 40
    order = place.argsort(kind="stable")  # quick, since the notes of a track come in the order of their onsets
    place = place.take(order)
    tied = place[1:] == place[:-1]
    if tied.any():
        rows = np.flatnonzero(np.append(tied, False) | np.append(False, tied))
        order[rows] = order[rows][np.lexsort((duration[order[rows]], place[rows]))]
    return order


def _metres(signatures: TimeSignatureTickList, ticks: Callable, length: int) -> tuple[tuple[Metre, ...], int]:
    """(metres, ticks of a pickup)."""
    stated = [(ticks(m.time), m.numerator, m.denominator) for m in signatures]
    latest = _latest([m for m in stated if m[1] >= 1 and m[2] in DENOMINATORS], bar_ticks)
    metres = from_zero([Metre(*m) for m in latest], _FOUR_FOUR)
    return _pickup(tuple([m for m in metres if m.onset < max(length, 1)]))


def _tempos(stated: TempoTickList, ticks: Callable) -> TempoMap:
    """The tempo map, as `_latest` would have it, but of arrays: played files change the tempo thousands of times."""
    if not stated:
        return PLAIN_TEMPO
    arrays = stated.numpy()
    times, mspq = arrays["time"].astype(np.int64), arrays["mspq"]
    if mspq.min() <= 6000:
        sane = mspq > 6000
        times, mspq = times[sane], mspq[sane]
    onsets, bpm = ticks(times), (60e6 / mspq).round(3)
    if len(onsets) > 1:
        if (onsets[1:] <= onsets[:-1]).any():
            order = np.argsort(onsets, kind="stable")
            onsets, bpm = onsets[order], bpm[order]
            last = np.append(onsets[1:] != onsets[:-1], True)
            onsets, bpm = onsets[last], bpm[last]
        new = bpm[1:] != bpm[:-1]
        if not new.all():
            at = new.nonzero()[0] + 1
            onsets = np.concatenate((onsets[:1], onsets.take(at)))
            bpm = np.concatenate((bpm[:1], bpm.take(at)))
    if not len(onsets) or onsets[0] != 0:
        onsets, bpm = np.append(0, onsets), np.append(120.0, bpm)
    return TempoMap(onsets, bpm)


def _latest(events: list[tuple], bar: Callable[..., int] | None = None) -> list[tuple]:
    """One event (onset, what, what) an onset, the last stated; and none that repeats the one before it.

    bar: of a metre the length of a full bar; what cuts a bar short is kept, though it repeats the one before it.
    """
    if len(events) <= 1:
        return events
    result: list[tuple] = []
    for event in {event[0]: event for event in sorted(events, key=itemgetter(0))}.values():
        same = result and result[-1][1:] == event[1:]
        cuts = same and bar and (event[0] - result[-1][0]) % bar(*event[1:]) != 0
        if not same or cuts:
            result.append(event)
    return result


def _pickup(metres: tuple[Metre, ...]) -> tuple[tuple[Metre, ...], int]:
    """A first metre of one bar, shorter than the next, is how MIDI writes a pickup: (metres, ticks of the pickup)."""
    if len(metres) > 1 and metres[1].onset <= metres[0].ticks and metres[1].onset < metres[1].ticks:
        return (replace(metres[1], onset=0), *metres[2:]), metres[1].onset
    return metres, 0


def _title(data: bytes) -> str:
    """The name of track 0, which in a type 1 file is the piece's, if the file states one before its first note."""
    data = data[:4096]
    start = data.find(b"MTrk") + 8
    if data[8:10] != b"\x00\x01" or start < 8:
        return ""
    while start + 4 < len(data) and data[start] == 0 and data[start + 1] == 0xFF:
        kind, size, at = data[start + 2], 0, start + 3
        for byte in data[at : at + 4]:  # a variable-length quantity
            size, at = size << 7 | byte & 0x7F, at + 1
            if byte < 0x80:
                break
        if kind == 0x03:
            return data[at : at + size].decode("utf-8", errors="replace").strip()
        start = at + size
    return ""
