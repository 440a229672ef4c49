"""Continuing a MIDI file without touching it: every original event stays, byte for byte and in its order.

The `Score` keeps notes; a MIDI file holds more (controllers, pitch bends, lyrics, texts in odd encodings). So a
continuation is not written from the score: its events are put into the original's own tracks, after what is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from musicgen.errors import FormatError
from musicgen.formats.midi import DRUM_CHANNEL, note_messages
from musicgen.score import TICKS_PER_QUARTER, Part

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
    """Where a part lives in a file: track index, channel and program; and how many notes are there."""

    track: int
    channel: int
    program: int
    notes: int


def read_tracks(path: Path) -> tuple[bytes, list[list[Event]], list[bytes]]:
    """(header chunk, events of each track without its end, chunks of unknown kind). Raises FormatError."""
    data = path.read_bytes()
    if data[:4] != b"MThd":
        raise FormatError(f"{path}: not a MIDI file (no MThd at its beginning)")
    size = int.from_bytes(data[4:8], "big")
    header, at = data[: 8 + size], 8 + size
    tracks, others = [], []
    while at + 8 <= len(data):
        kind, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "big")
        body = data[at + 8 : at + 8 + size]
        if kind == b"MTrk":
            try:
                tracks.append(_events(body))
            except IndexError as error:
                raise FormatError(f"{path}: track {len(tracks)} breaks off in the middle of an event") from error
        else:
            others.append(data[at : at + 8 + size])
        at += 8 + size
    return header, tracks, others


def _events(body: bytes) -> list[Event]:
    events: list[Event] = []
    at = tick = running = 0
    while at < len(body):
        delta, at = _read_length(body, at)
        tick += delta
        status = body[at]
        if status < 0x80:
            status = running
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


def _length(value: int) -> bytes:
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(value & 0x7F | 0x80)
    return bytes(reversed(out))


def find_voices(tracks: Sequence[Sequence[Event]]) -> list[Voice]:
    """Each (track, channel, program) that plays notes, in the order of its first note in its track."""
    counts: dict[tuple[int, int, int], int] = {}
    for index, events in enumerate(tracks):
        programs = [0] * 16
        for event in events:
            kind, channel = event.status & 0xF0, event.status & 0x0F
            if kind == 0xC0:
                programs[channel] = event.data[1]
            elif kind == 0x90 and event.data[2] > 0:
                key = (index, channel, programs[channel])
                counts[key] = counts.get(key, 0) + 1
    return [Voice(*key, notes) for key, notes in counts.items()]


def match_voices(voices: Sequence[Voice], parts: Sequence[Part]) -> list[Voice] | None:
    """The voice of each part (as formats.midi reads them), or None where they can't be told apart."""
    left = list(voices)
    found = []
    for part in parts:
        drums = [v for v in left if (v.channel == DRUM_CHANNEL) == part.is_drum]
        fits = [v for v in drums if part.is_drum or v.program == part.program]
        exact = [v for v in fits if v.notes == len(part.notes)] or fits
        if not exact:
            return None
        left.remove(exact[0])
        found.append(exact[0])
    return found


def write_continuation(
    original: Path, parts: Sequence[Part], new: Sequence[np.ndarray], seam: int, end: int, path: Path
) -> None:
    """Write `original` with new notes in its own tracks.

    parts: the original's, as formats.midi reads them. new: for each a NOTE array at 480 ticks a quarter, no onset before
    `seam`; `end`: where the piece now stops. A marker stands at the seam. Raises FormatError.
    """
    header, tracks, others = read_tracks(original)
    division = int.from_bytes(header[12:14], "big")
    voices = match_voices(find_voices(tracks), parts)
    if voices is None:
        raise FormatError(f"{original}: its tracks and channels can't be told apart; convert it to .musicxml first")

    def own(tick: int) -> int:
        """480ths to the file's ticks, never before the seam."""
        return max(round(tick * division / TICKS_PER_QUARTER), round(seam * division / TICKS_PER_QUARTER))

    added: list[list[Event]] = [[] for _ in tracks]
    for voice, notes in zip(voices, new, strict=True):
        events = note_messages(notes, voice.channel)
        if events:
            program = bytes([0xC0 | voice.channel, voice.program])
            added[voice.track].append(Event(own(events[0][0]), program))
        added[voice.track] += [Event(own(tick), bytes(message.bytes())) for tick, message in events]
    text = b"musicgen: the continuation begins here"
    added[0].append(Event(own(seam), b"\xff\x06" + _length(len(text)) + text))
    last = own(end)
    body = b"".join(_chunk(_merge(events, more), last) for events, more in zip(tracks, added, strict=True))
    path.write_bytes(header + body + b"".join(others))


def _merge(events: list[Event], more: list[Event]) -> list[Event]:
    """Both, in time; at one tick the original's come first, then note-offs before the rest."""
    tagged = [(e.tick, 0, i, e) for i, e in enumerate(events)]
    tagged += [(e.tick, 2 if e.status & 0xF0 == 0x90 else 1, i, e) for i, e in enumerate(more)]
    return [e for *_, e in sorted(tagged, key=lambda t: t[:3])]


def _chunk(events: list[Event], last: int) -> bytes:
    body, now = bytearray(), 0
    for event in events:
        body += _length(event.tick - now) + event.data
        now = event.tick
    body += _length(max(last - now, 0)) + END_OF_TRACK
    return b"MTrk" + len(body).to_bytes(4, "big") + bytes(body)
