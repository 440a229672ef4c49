"""Continuing a MIDI file without touching it: every original event stays, byte for byte and in its order.

The `Score` keeps notes; a MIDI file holds more (controllers, pitch bends, lyrics, texts in odd encodings). So a
continuation is not written from the score: its events are put into the original's own tracks, after what is there, and
what changes of metre, key and tempo into the first. Parts that join in at the seam have tracks of their own, behind the
others; the one thing that may then change of the original is its header: how many tracks there are, and format 0,
which has one, becomes format 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mido
import numpy as np

from musicgen.errors import FormatError
from musicgen.formats.midi_write import DRUM_CHANNEL, PITCHED_CHANNELS, name_instrument, name_key, note_messages
from musicgen.score import TICKS_PER_QUARTER, Key, Metre, Part, Tempo

END_OF_TRACK = b"\xff\x2f\x00"


@dataclass
class Event:
    """One event of a track: when, in the file's own ticks, and its bytes with the status byte always written out."""

    tick: int
    data: bytes

    @property
    def status(self) -> int:
        return self.data[0]


@dataclass(frozen=True)
class Voice:
    """Where a part lives in a file: track index, channel and the program its track sets; and what it plays.

    A program belongs to a channel, and some files set it in another track than the notes: `sounding` is the program
    that the channel really had at the voice's last note.
    """

    track: int
    channel: int
    program: int
    sounding: int
    notes: int
    pitch_sum: int


def read_tracks(path: Path) -> tuple[bytes, list[list[Event]], list[bytes]]:
    """(header chunk, events of each track without its end, whatever else there is). Raises FormatError."""
    data = path.read_bytes()
    if data[:4] != b"MThd" or len(data) < 14:
        raise FormatError(f"{path}: not a MIDI file (no MThd at its beginning)")
    size = int.from_bytes(data[4:8], "big")
    header, at = data[: 8 + size], 8 + size
    tracks: list[list[Event]] = []
    others: list[bytes] = []
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "big")
        body = data[at + 8 : at + 8 + size]
        if kind == b"MTrk":
            if len(body) < size:
                raise FormatError(f"{path}: breaks off in track {len(tracks)}")
            try:
                tracks.append(read_events(body))
            except IndexError as error:
                raise FormatError(
                    f"{path}: track {len(tracks)} has an event that is no event, or breaks off"
                ) from error
        else:
            others.append(data[at : at + 8 + size])
        at += 8 + size
    others.append(data[at:])
    if not tracks:
        raise FormatError(f"{path}: a MIDI header and no track after it")
    return header, tracks, others


def read_events(body: bytes) -> list[Event]:
    """The events in what a track's chunk holds, up to its end-of-track, which is left out.

    Raises IndexError at data before any status byte, and where the event of a channel breaks off.
    """
    events: list[Event] = []
    at = tick = running = 0
    while at < len(body):
        delta, at = _read_length(body, at)
        tick += delta
        status = body[at]
        if status < 0x80:
            status = running
            if not running:
                raise IndexError
        else:
            at += 1
        if status == 0xFF:
            size, after = _read_length(body, at + 1)
            data = bytes([status]) + body[at : after + size]
            at = after + size
        elif status in (0xF0, 0xF7):
            size, after = _read_length(body, at)
            data = bytes([status]) + body[at : after + size]
            at = after + size
        else:
            running = status
            size = 1 if status & 0xF0 in (0xC0, 0xD0) else 2
            if at + size > len(body):
                raise IndexError
            data = bytes([status]) + body[at : at + size]
            at += size
        if data[:2] == END_OF_TRACK[:2]:
            break
        events.append(Event(tick, data))
    return events


def _read_length(body: bytes, at: int) -> tuple[int, int]:
    """A variable-length quantity: (value, where it ends)."""
    value = 0
    while True:
        byte = body[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at


def encode_length(value: int) -> bytes:
    """A variable-length quantity: seven bits a byte, the highest first, and the top bit set in all bytes but the last.

    value: 0 or more.
    """
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(value & 0x7F | 0x80)
    return bytes(reversed(out))


def find_voices(tracks: Sequence[Sequence[Event]]) -> list[Voice]:
    """Each (track, channel, program) that plays notes, in the order of its first note in its track."""
    changes: list[list[tuple[int, int]]] = [[] for _ in range(16)]  # of each channel, over all tracks: (tick, program)
    for events in tracks:
        for event in events:
            if event.status & 0xF0 == 0xC0:
                changes[event.status & 0x0F].append((event.tick, event.data[1]))
    for of_channel in changes:
        of_channel.sort(key=lambda change: change[0])
    played: dict[tuple[int, int, int], list[tuple[int, int]]] = {}  # (tick, pitch) of each note
    for index, events in enumerate(tracks):
        programs = [0] * 16
        for event in events:
            kind, channel = event.status & 0xF0, event.status & 0x0F
            if kind == 0xC0:
                programs[channel] = event.data[1]
            elif kind == 0x90 and event.data[2] > 0:
                played.setdefault((index, channel, programs[channel]), []).append((event.tick, event.data[1]))
    voices = []
    for (track, channel, program), notes in played.items():
        set_before = [p for tick, p in changes[channel] if tick <= notes[-1][0]]
        sounding = set_before[-1] if set_before else program
        voices.append(Voice(track, channel, program, sounding, len(notes), sum(pitch for _, pitch in notes)))
    return voices


def match_voices(voices: Sequence[Voice], parts: Sequence[Part]) -> list[Voice] | None:
    """The voice of each part (as formats.midi reads them), or None where they can't be told apart.

    A voice is known by its notes; where damage has cost some of them, by its program and their number.
    """
    left = list(voices)
    found = []
    for part in parts:
        of_kind = [v for v in left if (v.channel == DRUM_CHANNEL) == part.is_drum]
        fits = [v for v in of_kind if part.is_drum or part.program in (v.program, v.sounding)]
        as_many = [v for v in fits if v.notes == len(part.notes)]
        same = [v for v in as_many if v.pitch_sum == int(part.notes["pitch"].sum())]
        best = same or as_many or fits
        if not best:
            return None
        left.remove(best[0])
        found.append(best[0])
    return found


def check_voices(original: Path, parts: Sequence[Part]) -> None:
    """Raises FormatError unless each part, as formats.midi reads them, can be found in the file's own tracks."""
    if match_voices(find_voices(read_tracks(original)[1]), parts) is None:
        raise FormatError(f"{original}: its tracks and channels can't be told apart; convert it to .musicxml first")


_BEGINS = b"musicgen: the continuation begins here"


def marked_seam(path: Path) -> int | None:
    """The tick, at 480 a quarter, where a continuation of ours begins in a MIDI file; None where there is none."""
    header, tracks, _ = read_tracks(path)
    division = int.from_bytes(header[12:14], "big")
    mark = b"\xff\x06" + encode_length(len(_BEGINS)) + _BEGINS
    found = [event.tick for events in tracks for event in events if event.data == mark]
    return round(found[0] * TICKS_PER_QUARTER / division) if found else None


def write_continuation(
    original: Path,
    parts: Sequence[Part],
    new: Sequence[np.ndarray],
    seam: int,
    end: int,
    path: Path,
    *,
    joining: Sequence[Part] = (),
    changes: Sequence[Metre | Key | Tempo] = (),
) -> None:
    """Write `original` with new notes in its own tracks.

    parts: the original's, as formats.midi reads them. new: for each a NOTE array at 480 ticks a quarter, no onset
    before `seam`; `end`: where the piece now stops. A marker stands at the seam. A new note lasts at least one of the
    file's ticks, and a channel that several programs share is told the program before each note that needs it. joining:
    parts that play from the seam on alone. changes: of metre, key and tempo from there on. Raises FormatError.
    """
    header, tracks, others = read_tracks(original)
    division = int.from_bytes(header[12:14], "big")
    voices = match_voices(find_voices(tracks), parts)
    if voices is None:
        raise FormatError(f"{original}: its tracks and channels can't be told apart; convert it to .musicxml first")

    start = _seam_tick(tracks, seam, division)
    voices += assign_voices(tracks, joining)
    opened = [open_track(part, voice, tracks) for part, voice in zip(joining, voices[len(parts) :], strict=True)]
    header = set_track_count(header, len(tracks) + len(joining)) if joining else header
    tracks = [*tracks, *opened]
    new = [*new, *(part.notes for part in joining)]

    def own(ticks: np.ndarray) -> np.ndarray:
        """480ths to the file's ticks; the seam and what comes before it are `start`."""
        exact = np.rint(ticks * (division / TICKS_PER_QUARTER)).astype(np.int64)
        return np.where(ticks <= seam, start, np.maximum(exact, start))

    # (tick, order at one tick, voice, event): program changes of the original after the seam, note-offs, note-ons
    planned: list[tuple[int, int, Voice | None, Event]] = [
        (e.tick, 0, None, e) for events in tracks for e in events if e.status & 0xF0 == 0xC0 and e.tick >= start
    ]
    for voice, notes in zip(voices, new, strict=True):
        moved = notes.copy()
        moved["onset"] = own(notes["onset"])
        moved["duration"] = np.maximum(own(notes["onset"] + notes["duration"]) - moved["onset"], 1)
        for tick, message in note_messages(moved, voice.channel):
            planned.append((tick, 2 if message.type == "note_on" else 1, voice, Event(tick, bytes(message.bytes()))))
    planned.sort(key=lambda p: p[:2])

    text = _BEGINS
    added: list[list[Event]] = [[] for _ in tracks]
    added[0].append(Event(start, b"\xff\x06" + encode_length(len(text)) + text))
    added[0] += [Event(int(own(np.array(change.onset))), _said(change)) for change in changes]
    programs: dict[int, int] = {}
    for tick, order, playing, event in planned:
        channel = event.status & 0x0F
        if playing is None:
            programs[channel] = event.data[1]
            continue
        if order == 2 and programs.get(channel) != playing.sounding:
            programs[channel] = playing.sounding
            added[playing.track].append(Event(tick, bytes([0xC0 | channel, playing.sounding])))
        added[playing.track].append(event)
    last = int(own(np.array(end)))
    body = b"".join(encode_track(_merge(events, more), last) for events, more in zip(tracks, added, strict=True))
    path.write_bytes(header + body + b"".join(others))


def assign_voices(tracks: Sequence[Sequence[Event]], joining: Sequence[Part]) -> list[Voice]:
    """A voice for each part that joins in, in tracks behind the others, on a channel of its own while there is one.

    After that it shares one that has its program, or the last.
    """
    programs: dict[int, set[int]] = {}  # of the channels in use
    for event in (e for events in tracks for e in events if e.status < 0xF0):
        of_channel = programs.setdefault(event.status & 0x0F, set())
        if event.status & 0xF0 == 0xC0:
            of_channel.add(event.data[1])
    found = []
    for number, part in enumerate(joining, len(tracks)):
        free = [channel for channel in PITCHED_CHANNELS if channel not in programs]
        alike = [c for c in PITCHED_CHANNELS if part.program in programs.get(c, ())]
        channel = DRUM_CHANNEL if part.is_drum else next(iter([*free, *alike]), PITCHED_CHANNELS[-1])
        programs.setdefault(channel, set()).add(part.program)
        pitches = part.notes["pitch"]
        found.append(Voice(number, channel, part.program, part.program, len(pitches), int(pitches.sum())))
    return found


def open_track(part: Part, voice: Voice, tracks: Sequence[Sequence[Event]]) -> list[Event]:
    """What a new track opens with: the part's name, and its program unless others play on that channel."""
    name = (part.name or name_instrument(part)).encode("utf-8")
    events = [Event(0, b"\xff\x03" + encode_length(len(name)) + name)]
    if not any(e.status < 0xF0 and e.status & 0x0F == voice.channel for events in tracks for e in events):
        events.append(Event(0, bytes([0xC0 | voice.channel, voice.program])))
    return events


def set_track_count(header: bytes, count: int) -> bytes:
    """The header chunk of a file of so many tracks, in format 1 if it was of the one track of format 0."""
    kind = max(int.from_bytes(header[8:10], "big"), 1)
    return header[:8] + kind.to_bytes(2, "big") + count.to_bytes(2, "big") + header[12:]


def _said(change: Metre | Key | Tempo) -> bytes:
    """A change as the bytes of its meta event."""
    if isinstance(change, Metre):
        said = mido.MetaMessage("time_signature", numerator=change.numerator, denominator=change.denominator)
    elif isinstance(change, Key):
        said = mido.MetaMessage("key_signature", key=name_key(change))
    else:
        said = mido.MetaMessage("set_tempo", tempo=min(round(60e6 / change.bpm), 0xFFFFFF))
    return bytes(said.bytes())


def _seam_tick(tracks: Sequence[Sequence[Event]], seam: int, division: int) -> int:
    """The seam in the file's ticks: where its last note stops, if that is the seam; a finer clock than ours is kept."""
    last = max((e.tick for events in tracks for e in events if e.status & 0xF0 in (0x80, 0x90)), default=0)
    exact = seam * division / TICKS_PER_QUARTER
    return last if abs(last - exact) * TICKS_PER_QUARTER <= division else round(exact)


def _merge(events: list[Event], more: list[Event]) -> list[Event]:
    """Both, in time; at one tick the original's come first."""
    return sorted([*events, *more], key=lambda e: e.tick)  # a stable sort


def encode_track(events: list[Event], last: int) -> bytes:
    """The MTrk chunk of events that are in time, closed at tick `last`, or at its last event where that is later."""
    body, now = bytearray(), 0
    for event in events:
        body += encode_length(event.tick - now) + event.data
        now = event.tick
    body += encode_length(max(last - now, 0)) + END_OF_TRACK
    return b"MTrk" + len(body).to_bytes(4, "big") + bytes(body)
