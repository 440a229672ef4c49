"""MIDI files to scores, through symusic: structs of arrays straight into numpy.

What of the file is no part of a Score is left: controllers, pitch bends, lyrics, modes other than major and minor. A
first metre of one short bar is a pickup; a part whose program another track sets has that program. symusic drops notes
that are never let go, and reads names as UTF-8, with a mark for what is none; a note of no length lasts a tick.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import accumulate
from operator import itemgetter
from pathlib import Path

import numpy as np
from symusic.core import ScoreTick

from musicgen.errors import FormatError
from musicgen.formats.midi_write import DRUM_CHANNEL
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
MAX_SEARCHED_BYTES = 2**20
"""Up to this size a part without a program is looked for in the other tracks, event by event."""

_PROGRAM = re.compile(rb"[\xc0-\xcf][\x01-\x7f]")
"""What a program change other than to piano looks like (and much else does)."""
_SILENT = re.compile(
    rb"(?:[\x80-\xff]{0,3}[\x00-\x7f]"  # the delta time, then a change of tempo, or controllers under one status
    rb"(?:\xff\x51\x03[\x00-\xff]{3}|[\xb0-\xbf][\x00-\x7f]{2}(?:[\x80-\xff]{0,3}[\x00-\x7f]{3})*+))*+"
)
"""Events in a row that neither play nor set a program: a played file has thousands."""
_UNTOLD = re.compile(_SILENT.pattern.replace(rb"[\xb0-\xbf]", rb"[\x80-\xbf\xe0-\xef]"))
"""Events in a row that set no program."""


def read(path: str | Path) -> list[Score]:
    """The one score in a MIDI file, plain or wrapped as RMID. Raises FormatError."""
    path = path if isinstance(path, Path) else Path(path)
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise FormatError(
                f"{path}: {size:,} bytes, more than the {MAX_BYTES:,} of MIDI that are read; split the file"
            )
        data = _unwrapped(file.read())
    _check_header(data, path)
    try:
        found = ScoreTick.from_midi(data)
    except Exception as error:  # symusic raises RuntimeError, ValueError and its own kinds for damaged files
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise FormatError(f"{path}: not a readable MIDI file ({reason})") from error
    if b"MTrk" not in data:
        raise FormatError(f"{path}: a MIDI header and nothing after it; the file breaks off")
    score = from_symusic(found, str(path), title=_title(data))
    return [_with_programs_of_other_tracks(score, data, path)]


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
    for name, changes in (
        ("tempo", found.tempos),
        ("metre", found.time_signatures),
        ("key", found.key_signatures),
    ):
        if len(changes) > MAX_CHANGES:
            raise FormatError(
                f"{path}: {len(changes):,} changes of {name}, more than the {MAX_CHANGES:,} that are read"
            )
    own = found.ticks_per_quarter
    if own <= 0:
        raise FormatError(f"{path}: {own} ticks a quarter note; SMPTE time is not supported")
    if found.end() * TICKS_PER_QUARTER > MAX_TICKS * own:
        raise FormatError(f"{path}: the last event is at tick {found.end():,}, too far to be music")
    if found.start() < 0:
        raise FormatError(f"{path}: a note before the beginning; its times are damaged, or too large")

    def ticks(value):
        """The file's ticks, an int or an array of int64, to the nearest of ours; halves go up."""
        return value if own == TICKS_PER_QUARTER else (2 * TICKS_PER_QUARTER * value + own) // (2 * own)

    parts, length = _parts([track for track in found.tracks if track.notes], ticks)
    metres, pickup = _metres(found, ticks, length)
    stops = [m.onset for m in metres[1:]] + [length]
    if sum([(stop - m.onset) // m.ticks for m, stop in zip(metres, stops, strict=True)]) > MAX_BARS:
        raise FormatError(f"{path}: more than the {MAX_BARS:,} bars that are read; is its last event a stray one?")
    stated = [(ticks(k.time), k.key, "minor" if k.tonality else "major") for k in found.key_signatures]
    keys = from_zero([Key(*key) for key in _latest([key for key in stated if -7 <= key[1] <= 7])], _C_MAJOR)
    bars = bar_grid(metres, length, pickup)
    bars.flags.writeable = False
    return unchecked(
        Score,
        parts=parts,
        title=title if title and title not in [part.name for part in parts] else "",
        tempos=_tempos(found, ticks),
        metres=metres,
        keys=keys,
        bars=bars,
        length=length,
        signs=(),
        chord_symbols=(),
        order=(),
    )


_FOUR_FOUR, _C_MAJOR = Metre(0, 4, 4), Key(0, 0)


def _parts(tracks: list, ticks: Callable) -> tuple[tuple[Part, ...], int]:
    """(a Part of each of symusic's tracks, the tick where the last note stops).

    The notes of all tracks are made as one NOTE array, of which each part has a slice. Times are not negative.
    """
    if not tracks:
        return (), 0
    arrays = [track.notes.numpy() for track in tracks]
    edges = list(accumulate([len(a["time"]) for a in arrays], initial=0))

    def of_all(name: str, kind: type[np.integer]) -> np.ndarray:
        return np.concatenate([a[name] for a in arrays], dtype=kind)

    start, pitch = of_all("time", np.int64), of_all("pitch", np.int16)
    onset = ticks(start)
    stop = np.maximum(ticks(start + of_all("duration", np.int64)), onset + 1)
    notes = np.empty(edges[-1], dtype=NOTE)
    notes["onset"], notes["duration"], notes["pitch"] = onset, stop - onset, pitch
    np.maximum(of_all("velocity", np.int16), 1, out=notes["velocity"])
    place = onset << 7
    place |= pitch
    rising = place[1:] > place[:-1]
    for edge in edges[1:-1]:
        rising[edge - 1] = True
    if not rising.all():
        notes = notes.take(_order(place, stop, edges))
    notes.flags.writeable = False
    parts = tuple(
        [
            unchecked(
                Part,
                name=track.name.strip(),
                program=DRUM_PROGRAM if track.is_drum else track.program,
                is_drum=track.is_drum,
                notes=notes[first:last],
                graces=NO_GRACES,
            )
            for track, first, last in zip(tracks, edges, edges[1:], strict=False)
        ]
    )
    return parts, int(stop.max())


def _order(place: np.ndarray, stop: np.ndarray, edges: list[int]) -> np.ndarray:
    """The order of the notes in a part by place, which is onset and pitch, and then by where they stop."""
    for i, edge in enumerate(edges[1:-1], 1):
        place[edge : edges[i + 1]] += i << 40
    order = place.argsort(kind="stable")  # quick, since the notes of a track come in the order of their onsets
    place = place.take(order)
    tied = place[1:] == place[:-1]
    if tied.any():
        rows = np.flatnonzero(np.append(tied, False) | np.append(False, tied))
        order[rows] = order[rows][np.lexsort((stop[order[rows]], place[rows]))]
    return order


def _metres(found: ScoreTick, ticks: Callable, length: int) -> tuple[tuple[Metre, ...], int]:
    """(metres, ticks of a pickup)."""
    stated = [(ticks(m.time), m.numerator, m.denominator) for m in found.time_signatures]
    latest = _latest([m for m in stated if m[1] >= 1 and m[2] in DENOMINATORS], bar_ticks)
    metres = from_zero([Metre(*m) for m in latest], _FOUR_FOUR)
    return _pickup(tuple([m for m in metres if m.onset < max(length, 1)]))


def _tempos(found: ScoreTick, ticks: Callable) -> TempoMap:
    """The tempo map, as `_latest` would have it, but of arrays: played files change the tempo thousands of times."""
    if not found.tempos:
        return PLAIN_TEMPO
    arrays = found.tempos.numpy()
    times, mspq = arrays["time"].astype(np.int64), arrays["mspq"]
    sane = mspq > 6000
    if not sane.all():
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
            at = np.append(0, new.nonzero()[0] + 1)
            onsets, bpm = onsets.take(at), bpm.take(at)
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


def _with_programs_of_other_tracks(score: Score, data: bytes, path: Path) -> Score:
    """A part whose track sets no program has the one that another track sets for its channel.

    symusic keeps programs a track and does not tell the channel, so that such a part is a piano. The file's events are
    read one by one, but only where a part may be concerned.
    """
    if len(data) > MAX_SEARCHED_BYTES or all(part.program or part.is_drum for part in score.parts):
        return score
    if not _sets_programs(data) or not _may_borrow(data, len(score.parts)):
        return score
    from musicgen.formats.midi_events import find_voices, read_tracks  # not above: it imports this module

    try:
        _, tracks, _ = read_tracks(path)
    except FormatError:  # damaged where symusic was content: left as it is read
        return score
    own = {(i, e.status & 0x0F) for i, events in enumerate(tracks) for e in events if e.status & 0xF0 == 0xC0}
    left = [v for v in find_voices(tracks) if v.channel != DRUM_CHANNEL and v.program == 0]
    parts = []
    for part in score.parts:
        if part.program == 0 and not part.is_drum:
            known = (len(part.notes), int(part.notes["pitch"].sum()))
            voice = next((v for v in left if (v.notes, v.pitch_sum) == known), None)
            if voice is not None:
                left.remove(voice)
                if (voice.track, voice.channel) not in own:
                    part = replace(part, program=voice.sounding)
        parts.append(part)
    return replace(score, parts=tuple(parts))


def _sets_programs(data: bytes) -> bool:
    """Whether a program change other than to piano may stand anywhere: after a delta time, and not within a tempo."""
    found = np.frombuffer(data, dtype=np.uint8)
    at = 5 + ((found[5:-1] & 0xF0) == 0xC0).nonzero()[0]
    if not len(at):
        return False
    value = found.take(at + 1)
    at = at[(found.take(at - 1) < 0x80) & (value > 0) & (value < 0x80)]
    for back in (3, 4, 5):
        tempo = (found.take(at - back) == 0xFF) & (found.take(at - back + 1) == 0x51) & (found.take(at - back + 2) == 3)
        at = at[~tempo]
    return len(at) > 0


def _may_borrow(data: bytes, parts: int) -> bool:
    """Whether a track may play on a channel whose program another one sets, to other than piano.

    Not so if each track sets the program of its first note's channel before that note, and is one part.
    """
    if data.count(b"MTrk") < 2:
        return False
    at, tracks = 8 + int.from_bytes(data[4:8], "big"), []
    while at + 8 <= len(data):
        stop = at + 8 + int.from_bytes(data[at + 4 : at + 8], "big")
        if data[at : at + 4] == b"MTrk":
            tracks.append((at + 8, min(stop, len(data))))
        at = stop
    told = [_first_note_has_program(data, *track) for track in tracks]
    if False not in told and told.count(True) >= parts:
        return False
    return any(
        status & 0xF0 == 0xC0 and data[place]
        for track in tracks
        if _PROGRAM.search(data, *track)
        for status, place in _events(data, *track, _UNTOLD)
    )


def _first_note_has_program(data: bytes, at: int, stop: int) -> bool | None:
    """Of a track's events in data[at:stop]; None if there is no note."""
    told = {DRUM_CHANNEL}
    for status, place in _events(data, at, stop, _SILENT):
        kind, channel = status & 0xF0, status & 0x0F
        if kind == 0xC0:
            told.add(channel)
        elif kind == 0x90 and data[place + 1]:
            return channel in told
    return None


def _events(data: bytes, at: int, stop: int, passing: re.Pattern[bytes]) -> Iterator[tuple[int, int]]:
    """(status, where its data is) of a track's events in data[at:stop], without those that `passing` matches."""
    running = 0
    while at < stop:
        passed = passing.match(data, at, stop)
        at = passed.end() if passed else at
        while at < stop and data[at] >= 0x80:  # the delta time
            at += 1
        at += 1
        if at + 2 > stop:
            return
        status = running
        if data[at] >= 0x80:
            status, at = data[at], at + 1
        if at + 2 > stop:
            return
        yield status, at
        if status < 0xF0:
            running = status
            at += 1 if status & 0xF0 in (0xC0, 0xD0) else 2
        else:
            size, at = 0, at + (status == 0xFF)
            while at < stop:
                size, at = size << 7 | data[at] & 0x7F, at + 1
                if data[at - 1] < 0x80:
                    break
            at += size


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
