"""A MIDI file's bytes as what a synthesiser is to hear: voices on a clock of seconds, written out again as plain MIDI.

In: a Standard MIDI File with its tempo changes, ports, and channels that several tracks share. Out: files of one track
at one tempo with a few voices each, which every synthesiser takes alike; what they sound like is added up. So an
orchestra of 40 parts keeps all its instruments, and a note that ends in one track does not silence another track's.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from musicgen.errors import RenderError
from musicgen.formats.midi_events import Event, encode_track, read_events
from musicgen.formats.midi_write import DRUM_CHANNEL, PITCHED_CHANNELS

TICKS_A_SECOND = 2_000
"""The clock of the files written here; synthesisers begin notes every 1.3 ms or so."""
MAX_VOICES = 256
MAX_EVENTS = 4_000_000
NOTE_OFF, NOTE_ON, CONTROLLER = 0x80, 0x90, 0xB0
VOLUME, PEDAL, SOSTENUTO, ALL_NOTES_OFF = 7, 64, 66, 123
PLAIN_VOLUME = 100
"""What a channel has before it is told, in General MIDI."""


@dataclass(frozen=True)
class Voice:
    """What one track plays on one channel, and what else that channel is told: (seconds, bytes), in time."""

    is_drum: bool
    events: list[tuple[float, bytes]]


def read_voices(midi: bytes) -> tuple[list[Voice], float]:
    """The voices of a MIDI file that play notes, and when the last note, or the pedal after it, ends, in seconds.

    A channel that several tracks play on gives a voice for each of them, all with the programs and controllers that any
    of the tracks sent to it; drums, whose notes end by themselves, stay together. Raises RenderError.
    """
    division, tracks = read_tracks(midi)
    seconds = _clock(tracks, division)
    said: dict[tuple[int, int], list[tuple[float, int, bytes]]] = defaultdict(list)  # of (port, channel)
    players: dict[tuple[int, int], set[int]] = defaultdict(set)  # the tracks that play on it
    last = 0.0
    for index, events in enumerate(tracks):
        port = 0
        for event in events:
            kind, data = event.status & 0xF0, event.data
            if data[:2] == b"\xff\x21" and len(data) == 4:
                port = data[3]
            elif kind != 0xF0:
                when, place = seconds(event.tick), (port, event.status & 0x0F)
                said[place].append((when, index, bytes([kind]) + data[1:]))
                if kind == NOTE_ON and data[2]:
                    players[place].add(index)
                if _is_note(data) or (kind == CONTROLLER and data[1] == PEDAL):
                    last = max(last, when)
    told = sum(len(found) * len(players[place]) for place, found in said.items())
    count = sum(map(len, players.values()))
    if count > MAX_VOICES or told > MAX_EVENTS:
        raise RenderError(f"{count} voices, told {told:,} things; up to {MAX_VOICES} and {MAX_EVENTS:,} can be played")
    voices = []
    for place, found in sorted(said.items()):
        found.sort(key=lambda event: event[0])  # stable: at one time, in the order of tracks
        if place[1] == DRUM_CHANNEL and players[place]:
            voices.append(Voice(True, [(when, data) for when, _, data in found]))
            continue
        for track in sorted(players[place]):
            mine = [(when, data) for when, index, data in found if index == track or not _is_note(data)]
            voices.append(Voice(False, mine))
    return voices, last


def share_out(voices: Sequence[Voice]) -> list[list[tuple[int, Voice]]]:
    """The voices, each with a channel, in as few rounds as the 15 pitched channels and the one of drums allow."""
    pitched = [voice for voice in voices if not voice.is_drum]
    drums = [voice for voice in voices if voice.is_drum]
    count = max(-(-len(pitched) // len(PITCHED_CHANNELS)), len(drums))
    rounds = []
    for i in range(count):
        mine = list(zip(PITCHED_CHANNELS, pitched[i::count], strict=False))
        rounds.append([*mine, *((DRUM_CHANNEL, drum) for drum in drums[i : i + 1])])
    return rounds


def encode(voices: Sequence[tuple[int, Voice]], stop: float, end: float, volume: float = 1.0) -> bytes:
    """A MIDI file of format 0 with each voice on its channel; what still sounds at `stop` seconds is let go.

    end: till when the file goes on in silence, in seconds. volume: what the volumes of channels are multiplied by,
    0..1; loudness goes with its square.
    """
    events = []
    for channel, voice in voices:
        told = [(0.0, bytes([CONTROLLER, VOLUME, PLAIN_VOLUME]))]
        told += [event for event in voice.events if event[0] <= stop]
        told += [(stop, bytes([CONTROLLER, number, 0])) for number in (PEDAL, SOSTENUTO, ALL_NOTES_OFF)]
        for when, data in told:
            if data[0] == CONTROLLER and data[1] == VOLUME:
                data = bytes([CONTROLLER, VOLUME, round(data[2] * volume)])
            events.append(Event(round(when * TICKS_A_SECOND), bytes([data[0] | channel]) + data[1:]))
    events.sort(key=lambda event: event.tick)  # stable
    header = b"MThd" + (6).to_bytes(4, "big") + b"\0\0\0\1" + (TICKS_A_SECOND // 2).to_bytes(2, "big")
    return header + encode_track(events, round(end * TICKS_A_SECOND))


def _is_note(data: bytes) -> bool:
    return data[0] & 0xF0 in (NOTE_OFF, NOTE_ON)


def read_tracks(midi: bytes) -> tuple[int, list[list[Event]]]:
    """(ticks a quarter note, the events of each track). Raises RenderError."""
    if midi[:4] == b"RIFF" and b"MThd" in midi[:64]:  # the kind RMID: a MIDI file in an envelope
        midi = midi[midi.index(b"MThd") :]
    if midi[:4] != b"MThd" or len(midi) < 14:
        raise RenderError("not a MIDI file (no MThd at its beginning)")
    kind, division = int.from_bytes(midi[8:10], "big"), int.from_bytes(midi[12:14], "big")
    if division & 0x8000 or not division:
        raise RenderError("the MIDI file does not count its time in ticks a quarter note; save it so")
    tracks: list[list[Event]] = []
    at = 8 + int.from_bytes(midi[4:8], "big")
    while at + 8 <= len(midi):
        size = int.from_bytes(midi[at + 4 : at + 8], "big")
        if midi[at : at + 4] == b"MTrk":
            try:
                tracks.append(read_events(midi[at + 8 : at + 8 + size]))
            except IndexError as error:
                raise RenderError(
                    f"track {len(tracks)} of the MIDI file has an event that is none, or breaks off"
                ) from error
        at += 8 + size
    if kind == 2 and len(tracks) > 1:
        raise RenderError("a MIDI file of format 2, patterns without a common time; save it as format 1")
    return division, tracks


def _clock(tracks: list[list[Event]], division: int) -> Callable[[int], float]:
    """From ticks to seconds, through the tempi of all tracks."""
    changes = {0: 500_000}  # microseconds a quarter note
    tempi = [event for events in tracks for event in events if event.data[:3] == b"\xff\x51\x03"]
    for event in sorted(tempi, key=lambda event: event.tick):
        changes[event.tick] = int.from_bytes(event.data[3:6], "big") or 500_000
    ticks = list(changes)
    rates = [microseconds / 1e6 / division for microseconds in changes.values()]
    spans = [(b - a) * rate for a, b, rate in zip(ticks, ticks[1:], rates, strict=False)]
    starts = list(accumulate(spans, initial=0.0))

    def seconds(tick: int) -> float:
        i = bisect_right(ticks, tick) - 1
        return starts[i] + (tick - ticks[i]) * rates[i]

    return seconds
