"""Scores to MIDI files, through mido: type 1, 480 ticks a quarter, track 0 with title, metres, keys and tempi, then a
track a part on its own channel, drums on channel 10.

What a MIDI file does not hold is lost: parts without notes, rests after the last note, modes other than major and
minor, repeat signs (they are played out), chord symbols, grace notes, tempi under 3.6 quarters a minute. A part without
a name is named after its instrument. A bar of irregular length is written as a metre of its own, since MIDI has no
other word for it. Of two notes of one pitch that overlap in one part the first is cut where the second starts.
"""

from __future__ import annotations

from pathlib import Path

import mido
import numpy as np

from musicgen.score import TICKS_PER_QUARTER, Key, Part, Score, bar_ticks, unfold
from musicgen.score.edit import merge_doubled
from musicgen.score.general_midi import PROGRAM_NAMES
from musicgen.score.score import MINOR_MODES

DRUM_CHANNEL = 9
PITCHED_CHANNELS = tuple(channel for channel in range(16) if channel != DRUM_CHANNEL)


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
            (0, mido.MetaMessage("track_name", name=part.name or name_instrument(part))),
            (0, mido.Message("program_change", channel=channel, program=part.program)),
        ]
        for tick, message in note_messages(part.notes, channel):
            if channel in crowded and message.type == "note_on":  # another program may have been set since
                messages.append((tick, mido.Message("program_change", channel=channel, program=part.program)))
            messages.append((tick, message))
        file.tracks.append(_track(messages, score.length))
    return file


def name_instrument(part: Part) -> str:
    """What General MIDI calls the part's program, or "Drums"."""
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
        messages.append((key.onset, mido.MetaMessage("key_signature", key=name_key(key))))
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
        if metre.numerator > 255:  # MIDI has a byte for it
            shown = _metre_of(metre.ticks) or (255, metre.denominator)
        last = i + 1 == len(score.bars)
        if lengths[i] != metre.ticks and not last:
            shown = _metre_of(int(lengths[i])) or shown
        if not written or written[-1][1:] != shown or (start - written[-1][0]) % bar_ticks(*shown):
            written.append((start, *shown))
    return written


def _metre_of(ticks: int) -> tuple[int, int] | None:
    """The plainest numerator/denominator of a bar of that many ticks, quarters before eighths; None if none fits."""
    for denominator in (4, 8, 16, 32, 64, 2, 1):
        beat = 4 * TICKS_PER_QUARTER // denominator
        if ticks % beat == 0 and ticks // beat <= 255:
            return ticks // beat, denominator
    return None


_SHARPS_MAJOR = ("Cb", "Gb", "Db", "Ab", "Eb", "Bb", "F", "C", "G", "D", "A", "E", "B", "F#", "C#")
_SHARPS_MINOR = ("Abm", "Ebm", "Bbm", "Fm", "Cm", "Gm", "Dm", "Am", "Em", "Bm", "F#m", "C#m", "G#m", "D#m", "A#m")


def name_key(key: Key) -> str:
    """The key as mido names its signature: the major key with it ("Bb"), or for modes like minor the minor ("F#m")."""
    return (_SHARPS_MINOR if key.mode in MINOR_MODES else _SHARPS_MAJOR)[key.fifths + 7]


def _track(messages: list, length: int) -> mido.MidiTrack:
    """Absolute ticks to mido's deltas, closed at `length`."""
    track, now = mido.MidiTrack(), 0
    for tick, message in messages:
        track.append(message.copy(time=tick - now))
        now = tick
    track.append(mido.MetaMessage("end_of_track", time=max(length - now, 0)))
    return track
