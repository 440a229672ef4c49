"""MIDI files to scores and back.

Reading goes through symusic (structs of arrays straight into numpy), writing through mido: type 1, 480 ticks a quarter,
track 0 with title, metres, keys and tempi, then a track a part on its own channel, drums on channel 10.

What a MIDI file does not hold is lost: parts without notes, rests after the last note, modes other than major and
minor, repeat signs (`write` plays them out), chord symbols. A part without a name is named after its instrument. A bar
of irregular length is written as a metre of its own, since MIDI has no other word for it. Of two notes of one pitch
that overlap in one part the first is cut where the second starts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import mido
import numpy as np
from symusic.core import ScoreTick

from musicgen.errors import FormatError
from musicgen.score import (
    DRUM_PROGRAM,
    NOTE,
    TICKS_PER_QUARTER,
    Key,
    Metre,
    Part,
    Score,
    Tempo,
    bar_grid,
    bar_ticks,
    unfold,
)
from musicgen.score.edit import merge_doubled
from musicgen.score.general_midi import PROGRAM_NAMES
from musicgen.score.score import MINOR_MODES

MAX_NOTES = 1_000_000
MAX_PARTS = 256
MAX_TICKS = 2**30
MAX_BARS = 50_000
DRUM_CHANNEL = 9
PITCHED_CHANNELS = tuple(channel for channel in range(16) if channel != DRUM_CHANNEL)

Event = TypeVar("Event", Tempo, Metre, Key)


def read(path: str | Path) -> list[Score]:
    """The one score in a MIDI file. Raises FormatError."""
    data = Path(path).read_bytes()
    try:
        found = ScoreTick.from_midi(data)
    except Exception as error:  # symusic raises RuntimeError, ValueError and its own kinds for damaged files
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise FormatError(f"{path}: not a readable MIDI file ({reason})") from error
    if b"MTrk" not in data:
        raise FormatError(f"{path}: a MIDI header and nothing after it; the file breaks off")
    return [from_symusic(found, str(path), title=_title(data))]


def from_symusic(found: ScoreTick, path: str = "score", title: str = "") -> Score:
    """A Score from symusic's; `path` is named in errors."""
    if len(found.tracks) > MAX_PARTS:
        raise FormatError(f"{path}: {len(found.tracks)} parts, more than the {MAX_PARTS} that are read")
    if found.note_num() > MAX_NOTES:
        raise FormatError(f"{path}: {found.note_num():,} notes, more than the {MAX_NOTES:,} that are read")
    if found.ticks_per_quarter <= 0:
        raise FormatError(f"{path}: {found.ticks_per_quarter} ticks a quarter note; SMPTE time is not supported")
    scale = TICKS_PER_QUARTER / found.ticks_per_quarter
    if found.end() * scale > MAX_TICKS:
        raise FormatError(f"{path}: the last event is at tick {found.end():,}, too far to be music")

    def ticks(value):
        return np.floor(np.asarray(value, dtype=np.float64) * scale + 0.5).astype(np.int64)

    parts = []
    for track in found.tracks:
        arrays = track.notes.numpy()
        onset = ticks(arrays["time"])
        notes = np.zeros(len(onset), dtype=NOTE)
        notes["onset"] = onset
        notes["duration"] = np.maximum(ticks(arrays["time"].astype(np.int64) + arrays["duration"]) - onset, 1)
        notes["pitch"] = arrays["pitch"]  # int8, widened by the assignment
        notes["velocity"] = np.clip(arrays["velocity"].astype(np.int16), 1, 127)
        parts.append(Part(track.name.strip(), DRUM_PROGRAM if track.is_drum else track.program, track.is_drum, notes))
    parts = [part for part in parts if len(part.notes)]
    length = max((part.end for part in parts), default=0)

    metres = _latest(
        Metre(int(ticks(m.time)), m.numerator, m.denominator)
        for m in found.time_signatures
        if m.numerator >= 1 and m.denominator in (1, 2, 4, 8, 16, 32, 64)
    )
    metres = metres if metres and metres[0].onset == 0 else (Metre(0, 4, 4), *metres)
    metres, pickup = _pickup(tuple(m for m in metres if m.onset < max(length, 1)))
    stops = [m.onset for m in metres[1:]] + [length]
    if sum((stop - m.onset) // m.ticks for m, stop in zip(metres, stops, strict=True)) > MAX_BARS:
        raise FormatError(f"{path}: more than the {MAX_BARS:,} bars that are read; is its last event a stray one?")
    keys = _latest(
        Key(int(ticks(k.time)), int(k.key), "minor" if k.tonality else "major")
        for k in found.key_signatures
        if -7 <= k.key <= 7
    )
    tempos = _latest(Tempo(int(ticks(t.time)), round(60e6 / t.mspq, 3)) for t in found.tempos if t.mspq > 6000)
    return Score(
        parts=tuple(parts),
        title=title if title not in [part.name for part in parts] else "",
        tempos=tempos if tempos and tempos[0].onset == 0 else (Tempo(0, 120.0), *tempos),
        metres=metres,
        keys=keys if keys and keys[0].onset == 0 else (Key(0, 0), *keys),
        bars=bar_grid(metres, length, pickup),
        length=length,
    )


def _latest(events: Iterable[Event]) -> tuple[Event, ...]:
    """One event an onset, the last stated; and none that repeats the one before it, unless it cuts a bar short."""
    kept: dict[int, Event] = {}
    for event in sorted(events, key=lambda e: e.onset):
        kept[event.onset] = event
    result: list[Event] = []
    for event in kept.values():
        same = result and replace(result[-1], onset=event.onset) == event
        cuts = same and isinstance(event, Metre) and (event.onset - result[-1].onset) % event.ticks != 0
        if not same or cuts:
            result.append(event)
    return tuple(result)


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


def write(score: Score, path: str | Path) -> None:
    """Write a score as a MIDI file that opens well in any program: see the module's opening."""
    midi_file(score).save(str(path))


def midi_file(score: Score) -> mido.MidiFile:
    """The score as mido's MidiFile, repeats played out."""
    score = unfold(score) if score.signs else score
    file = mido.MidiFile(type=1, ticks_per_beat=TICKS_PER_QUARTER, charset="utf-8")
    file.tracks.append(_conductor(score))
    given = channels(score.parts)
    crowded = {c for c in given if len({p.program for p, own in zip(score.parts, given, strict=True) if own == c}) > 1}
    for part, channel in zip(score.parts, given, strict=True):
        messages = [
            (0, mido.MetaMessage("track_name", name=part.name or _instrument(part))),
            (0, mido.Message("program_change", channel=channel, program=part.program)),
        ]
        for tick, message in note_messages(part.notes, channel):
            if channel in crowded and message.type == "note_on":  # another program may have been set since
                messages.append((tick, mido.Message("program_change", channel=channel, program=part.program)))
            messages.append((tick, message))
        file.tracks.append(_track(messages, score.length))
    return file


def _instrument(part: Part) -> str:
    return "Drums" if part.is_drum else PROGRAM_NAMES[part.program]


def note_messages(notes: np.ndarray, channel: int) -> list[tuple[int, mido.Message]]:
    """(tick, message) of every note-on and note-off, in time; at one tick, offs come before ons."""
    events = []
    for onset, duration, pitch, velocity in merge_doubled(notes).tolist():
        events.append((onset, 1, mido.Message("note_on", channel=channel, note=pitch, velocity=velocity)))
        events.append((onset + duration, 0, mido.Message("note_off", channel=channel, note=pitch, velocity=64)))
    events.sort(key=lambda e: (e[0], e[1], e[2].note))
    return [(tick, message) for tick, _, message in events]


def channels(parts: tuple[Part, ...]) -> list[int]:
    """A MIDI channel a part: its own while the 15 pitched ones last, else one a program; drums on channel 10 (9)."""
    pitched = [part for part in parts if not part.is_drum]
    if len(pitched) <= len(PITCHED_CHANNELS):
        free = iter(PITCHED_CHANNELS)
        return [DRUM_CHANNEL if part.is_drum else next(free) for part in parts]
    programs = list(dict.fromkeys(part.program for part in pitched))
    return [
        DRUM_CHANNEL if part.is_drum else PITCHED_CHANNELS[programs.index(part.program) % len(PITCHED_CHANNELS)]
        for part in parts
    ]


def _conductor(score: Score) -> mido.MidiTrack:
    messages: list[tuple[int, mido.MetaMessage]] = []
    if score.title:
        messages.append((0, mido.MetaMessage("track_name", name=score.title)))
    for onset, numerator, denominator in written_metres(score):
        messages.append((onset, mido.MetaMessage("time_signature", numerator=numerator, denominator=denominator)))
    for key in score.keys:
        messages.append((key.onset, mido.MetaMessage("key_signature", key=_key_name(key))))
    for tempo in score.tempos:
        microseconds = min(round(60e6 / tempo.bpm), 0xFFFFFF)
        messages.append((tempo.onset, mido.MetaMessage("set_tempo", tempo=microseconds)))
    messages.sort(key=lambda m: m[0])
    return _track(messages, score.length)


def written_metres(score: Score) -> list[tuple[int, int, int]]:
    """(onset, numerator, denominator) from which the score's bars can be laid out: irregular bars get their own."""
    written: list[tuple[int, int, int]] = []
    lengths = score.bar_lengths
    for i, start in enumerate(score.bars.tolist()):
        metre = score.metre_at(start)
        shown = (metre.numerator, metre.denominator)
        last = i + 1 == len(score.bars)
        if lengths[i] != metre.ticks and not last:
            shown = _metre_of(int(lengths[i])) or shown
        if not written or written[-1][1:] != shown or (start - written[-1][0]) % bar_ticks(*shown):
            written.append((start, *shown))
    return written


def _metre_of(ticks: int) -> tuple[int, int] | None:
    """The plainest numerator/denominator of a bar of that many ticks, quarters before eighths; None if none fits."""
    for denominator in (4, 8, 16, 32, 64):
        beat = 4 * TICKS_PER_QUARTER // denominator
        if ticks % beat == 0 and ticks // beat <= 255:
            return ticks // beat, denominator
    return None


_SHARPS_MAJOR = ("Cb", "Gb", "Db", "Ab", "Eb", "Bb", "F", "C", "G", "D", "A", "E", "B", "F#", "C#")
_SHARPS_MINOR = ("Abm", "Ebm", "Bbm", "Fm", "Cm", "Gm", "Dm", "Am", "Em", "Bm", "F#m", "C#m", "G#m", "D#m", "A#m")


def _key_name(key: Key) -> str:
    return (_SHARPS_MINOR if key.mode in MINOR_MODES else _SHARPS_MAJOR)[key.fifths + 7]


def _track(messages: list, length: int) -> mido.MidiTrack:
    """Absolute ticks to mido's deltas, closed at `length`."""
    track, now = mido.MidiTrack(), 0
    for tick, message in messages:
        track.append(message.copy(time=tick - now))
        now = tick
    track.append(mido.MetaMessage("end_of_track", time=max(length - now, 0)))
    return track
