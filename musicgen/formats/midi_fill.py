"""Filling bars of a MIDI file, and adding tracks to it, without touching the rest: events stay in bytes and order.

In come the original file, the score that was read of it and the whole that it became. Out of the hole go its notes
alone, each with the event that lets it go, wherever that stands; controllers, pitch bends, lyrics, programs and tempi
stay in their places. A note that was struck before the hole stays whole. The new notes stand in the parts' own tracks
and channels, and a marker at either seam. A part whose notes in the hole are still what they were keeps its events.

Of the tracks' bytes only the times between events change, and running status is written out, as in `midi_events`.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from musicgen.errors import FormatError
from musicgen.formats.midi_events import (
    END_OF_TRACK,
    Event,
    Voice,
    assign_voices,
    encode_length,
    encode_track,
    find_voices,
    match_voices,
    open_track,
    read_events,
    read_tracks,
    set_track_count,
)
from musicgen.formats.midi_write import DRUM_CHANNEL, note_messages
from musicgen.score import TICKS_PER_QUARTER, Part, Score

WRITTEN_ANEW = "musicgen: bars {} to {} were written anew"
ONE_ANEW = "musicgen: bar {} was written anew"
GOES_ON = "musicgen: the original goes on here"
ADDED = "musicgen: added"

_FIRST, _KEPT, _LAST = 0, 1, 2
"""Place among the events of one tick: at the end of the hole new ones come before the original's, else after them."""


def check_filling(original: Path, score: Score) -> None:
    """Raises FormatError unless each part can be found in the file's own tracks."""
    header, tracks, _ = read_tracks(original)
    _voices(original, tracks, _Clock(header), score)


def _voices(original: Path, tracks: Sequence[Sequence[Event]], clock: _Clock, score: Score) -> list[Voice]:
    """Where each part lives: the voice that strikes its very notes, else the one that `match_voices` finds."""
    voices = find_voices(tracks)
    struck: dict[tuple[int, int, int], list[tuple[int, int]]] = defaultdict(list)
    for index, events in enumerate(tracks):
        programs = [0] * 16
        for event in events:
            kind, channel = event.status & 0xF0, event.status & 0x0F
            if kind == 0xC0:
                programs[channel] = event.data[1]
            elif kind == 0x90 and event.data[2] > 0:
                struck[index, channel, programs[channel]].append((clock.ours(event.tick), event.data[1]))
    left = [(voice, sorted(struck[voice.track, voice.channel, voice.program])) for voice in voices]
    found: list[Voice] = []
    for part in score.parts:
        notes = sorted(part.notes[["onset", "pitch"]].tolist())
        same = [entry for entry in left if entry[1] == notes and (entry[0].channel == DRUM_CHANNEL) == part.is_drum]
        same.sort(key=lambda entry: part.program not in (entry[0].program, entry[0].sounding))
        if not same:
            break
        left.remove(same[0])
        found.append(same[0][0])
    matched = found if len(found) == len(score.parts) else match_voices(voices, score.parts)
    if matched is None:
        raise FormatError(f"{original}: its tracks and channels can't be told apart; write to .musicxml or .abc")
    return matched


class _Clock:
    """The file's ticks and ours; ours of an event are as `midi_read` has them."""

    def __init__(self, header: bytes) -> None:
        self.division = int.from_bytes(header[12:14], "big")

    def ours(self, tick: int) -> int:
        return (2 * TICKS_PER_QUARTER * tick + self.division) // (2 * self.division)

    def own(self, ticks: np.ndarray | int) -> np.ndarray:
        return np.rint(np.asarray(ticks) * (self.division / TICKS_PER_QUARTER)).astype(np.int64)


def write_filled(original: Path, score: Score, whole: Score, first: int, until: int, path: Path) -> None:
    """Write `original` with the notes that begin in bars first..until-1 (from 0) as `whole` has them.

    A new note lasts at least one of the file's ticks and stops by the end of the hole. Where it would strike a pitch
    that an earlier note of its channel still holds, it comes when that one ends, or not at all. Raises FormatError.
    """
    header, tracks, others = read_tracks(original)
    ends = _ends(original.read_bytes())
    clock = _Clock(header)
    start = int(score.bars[first])
    stop = int(score.bars[until]) if until < len(score.bars) else score.length
    voices = _voices(original, tracks, clock, score)
    anew = [not np.array_equal(_inside(a, start, stop), _inside(b, start, stop)) for a, b in _pairs(score, whole)]
    filled = {(v.track, v.channel, v.program) for v, new in zip(voices, anew, strict=True) if new}
    removed = [_notes_of(index, events, filled, clock, start, stop) for index, events in enumerate(tracks)]
    begin, end = int(clock.own(start)), int(clock.own(stop))

    added: list[list[tuple[int, int, Event]]] = [[] for _ in tracks]  # (tick, place at that tick, event)
    planned: list[tuple[int, int, Voice, Event]] = []
    for voice, part, new in zip(voices, whole.parts, anew, strict=True):
        if new:
            held = _held(tracks[voice.track], voice.channel, removed[voice.track])
            notes = _in_file(_inside(part, start, stop), clock, begin, end, held)
            for tick, message in note_messages(notes, voice.channel):
                order = 2 if message.type == "note_on" else 0
                planned.append((tick, order, voice, Event(tick, bytes(message.bytes()))))
    for track, tick, event in _with_programs(planned, tracks, end):
        added[track].append((tick, _FIRST if tick == end else _LAST, event))
    text = ONE_ANEW.format(first + 1) if until == first + 1 else WRITTEN_ANEW.format(first + 1, until)
    added[0].insert(0, (begin, _LAST, _marker(begin, text)))
    if until < len(score.bars):
        added[0].append((end, _FIRST, _marker(end, GOES_ON)))

    body = bytearray()
    for events, gone, new_events, last in zip(tracks, removed, added, ends, strict=True):
        body += encode_track(_merge(events, gone, new_events), last)
    path.write_bytes(header + bytes(body) + b"".join(others))


def _pairs(score: Score, whole: Score) -> list[tuple[Part, Part]]:
    return list(zip(score.parts, whole.parts, strict=True))


def _inside(part: Part, start: int, stop: int) -> np.ndarray:
    """The part's notes that begin in the hole."""
    return part.notes[(part.notes["onset"] >= start) & (part.notes["onset"] < stop)]


def _ends(data: bytes) -> list[int]:
    """The tick at which each track is closed, which may be later than its last event; of an RMID none is asked for."""
    at, found = 8 + int.from_bytes(data[4:8], "big"), []
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "big")
        body = data[at + 8 : at + 8 + size]
        if data[at : at + 4] == b"MTrk":
            if body.endswith(END_OF_TRACK):  # read as a text, it is an event like others
                body = body[: -len(END_OF_TRACK)] + b"\xff\x01\x00"
            found.append(max((event.tick for event in read_events(body)), default=0))
        at += 8 + size
    return found


def _notes_of(
    track: int, events: Sequence[Event], filled: set[tuple[int, int, int]], clock: _Clock, start: int, stop: int
) -> set[int]:
    """Indices of the note-ons in the hole, of the voices in `filled`, and of the note-offs that belong to them.

    A note-off lets go the earliest note of its pitch that is still held, as symusic has it.
    """
    gone: set[int] = set()
    programs = [0] * 16
    held: dict[tuple[int, int], deque[int]] = defaultdict(deque)
    for index, event in enumerate(events):
        kind, channel = event.status & 0xF0, event.status & 0x0F
        if kind == 0xC0:
            programs[channel] = event.data[1]
        elif kind == 0x90 and event.data[2] > 0:
            held[channel, event.data[1]].append(index)
            if (track, channel, programs[channel]) in filled and start <= clock.ours(event.tick) < stop:
                gone.add(index)
        elif kind in (0x80, 0x90) and held[channel, event.data[1]]:
            struck = held[channel, event.data[1]].popleft()
            if struck in gone:
                gone.add(index)
    return gone


def _held(events: Sequence[Event], channel: int, gone: set[int]) -> dict[int, list[tuple[int, int]]]:
    """Pitch -> (from, to) of the notes of one channel of a track that stay, in the file's ticks."""
    found: dict[int, list[tuple[int, int]]] = defaultdict(list)
    open_notes: dict[int, deque[int]] = defaultdict(deque)
    for index, event in enumerate(events):
        if event.status & 0xE0 != 0x80 or event.status & 0x0F != channel or index in gone:
            continue
        pitch = event.data[1]
        if event.status & 0xF0 == 0x90 and event.data[2] > 0:
            open_notes[pitch].append(event.tick)
        elif open_notes[pitch]:
            found[pitch].append((open_notes[pitch].popleft(), event.tick))
    return found


def _in_file(
    notes: np.ndarray, clock: _Clock, begin: int, end: int, held: dict[int, list[tuple[int, int]]]
) -> np.ndarray:
    """The new notes in the file's ticks, from `begin` to `end`, apart from those that `held` has of their pitches."""
    moved = notes.copy()
    moved["onset"] = np.clip(clock.own(notes["onset"]), begin, end - 1)
    stops = np.minimum(clock.own(notes["onset"] + notes["duration"]), end)
    stops = np.maximum(stops, moved["onset"] + 1)
    for i, pitch in enumerate(notes["pitch"].tolist()):
        for since, to in held.get(pitch, ()):
            if since <= moved["onset"][i] < to:
                moved["onset"][i] = to
            elif moved["onset"][i] < since < stops[i]:
                stops[i] = since
    moved["duration"] = stops - moved["onset"]
    return moved[moved["duration"] > 0]


def _with_programs(
    planned: list[tuple[int, int, Voice, Event]], tracks: Sequence[Sequence[Event]], end: int
) -> list[tuple[int, int, Event]]:
    """(track, tick, event) of the new notes in time, with the programs that their channels need told.

    At the end of the hole a channel has again the program that the original gives it there.
    """
    changes = [
        (event.tick, 1, track, event)
        for track, events in enumerate(tracks)
        for event in events
        if event.status & 0xF0 == 0xC0 and event.tick < end
    ]
    setting = {(i, e.status & 0x0F) for i, events in enumerate(tracks) for e in events if e.status & 0xF0 == 0xC0}
    steps: list = sorted([*changes, *planned], key=lambda step: step[:2])
    told: dict[int, int] = {}  # channel -> program, as it is now; and as one track has set it
    told_in: dict[tuple[int, int], int] = {}
    given: dict[int, int] = {}  # the same, as the original has it
    given_in: dict[tuple[int, int], int] = {}
    found: list[tuple[int, int, Event]] = []

    def tell(track: int, tick: int, channel: int, program: int) -> None:
        told[channel] = told_in[track, channel] = program
        found.append((track, tick, Event(tick, bytes([0xC0 | channel, program]))))

    for tick, order, voice, event in steps:
        channel = event.status & 0x0F
        if order == 1:
            told[channel] = told_in[voice, channel] = given[channel] = given_in[voice, channel] = event.data[1]
            continue
        here = told_in.get((voice.track, channel), 0)
        sets = (voice.track, channel) in setting  # a track that leaves its program to another one goes on doing so
        if order == 2 and sets and (told.get(channel, 0) != voice.sounding or here != voice.program):
            tell(voice.track, tick, channel, voice.sounding)
        found.append((voice.track, tick, event))
    for (track, channel), program in list(told_in.items()):
        before = given_in.get((track, channel), given.get(channel, 0))
        if program != before:
            tell(track, end, channel, before)
    return found


def _marker(tick: int, text: str) -> Event:
    return Event(tick, b"\xff\x06" + encode_length(len(text)) + text.encode("ascii"))


def _merge(events: Sequence[Event], gone: set[int], added: Sequence[tuple[int, int, Event]]) -> list[Event]:
    """What stays and what is new, in time; each of these in the order that it has."""
    kept = [(event.tick, _KEPT, event) for index, event in enumerate(events) if index not in gone]
    return [event for _, _, event in sorted([*kept, *added], key=lambda step: step[:2])]


def write_with_parts(original: Path, score: Score, whole: Score, path: Path) -> None:
    """Write `original` with a track more for each part that `whole` has beyond those of `score`.

    The tracks that are there stay as they are, in every byte; of the header the number of tracks changes, and format 0
    becomes 1. A part for which no channel is left tells its program before each note, and after it the other's.
    """
    header, tracks, _ = read_tracks(original)
    clock, data = _Clock(header), original.read_bytes()
    joining = whole.parts[len(score.parts) :]
    voices = assign_voices(tracks, joining)
    behind = len(header) + sum(len(chunk) for chunk in _chunks(data))
    last = max([int(clock.own(whole.length)), *_ends(data)])
    opened = [open_track(part, voice, tracks) for part, voice in zip(joining, voices, strict=True)]
    body = b""
    for part, voice, events in zip(joining, voices, opened, strict=True):
        notes = _in_file(part.notes, clock, 0, last, {})
        played = [Event(tick, bytes(message.bytes())) for tick, message in note_messages(notes, voice.channel)]
        if voice.channel != DRUM_CHANNEL:
            played = _among(played, voice, [*tracks, *opened])
        body += encode_track([*events, _marker(0, ADDED), *played], last)
    header = set_track_count(header, len(tracks) + len(joining))
    path.write_bytes(header + data[len(header) : behind] + body + data[behind:])


def _among(played: list[Event], voice: Voice, tracks: Sequence[Sequence[Event]]) -> list[Event]:
    """A voice's events on a channel that others may set to another program: told before each note, and set back."""
    changes = sorted(
        (e.tick, e.data[1]) for events in tracks for e in events if e.status == 0xC0 | voice.channel and len(e.data) > 1
    )
    found: list[Event] = []
    set_program = bytes([0xC0 | voice.channel])
    for event in played:
        there = next((program for tick, program in reversed(changes) if tick <= event.tick), 0)
        shared = event.status & 0xF0 == 0x90 and there != voice.program
        found += [Event(event.tick, set_program + bytes([voice.program]))] if shared else []
        found.append(event)
        found += [Event(event.tick, set_program + bytes([there]))] if shared else []
    return found


def _chunks(data: bytes) -> list[bytes]:
    """The file's chunks behind its header, as they stand, up to the last track."""
    at, found, tracks = 8 + int.from_bytes(data[4:8], "big"), [], 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], "big")
        found.append(data[at : at + 8 + size])
        tracks = len(found) if data[at : at + 4] == b"MTrk" else tracks
        at += 8 + size
    return found[:tracks]
