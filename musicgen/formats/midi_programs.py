"""Which program a MIDI part has whose own track sets none: the one that another track sets for its channel.

symusic keeps programs a track and does not tell the channel, so that such a part is a piano. Nearly every file shows
at a glance that no part is concerned; the glances come first, the cheapest before the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from musicgen.errors import FormatError
from musicgen.formats.midi_events import find_voices, read_tracks
from musicgen.formats.midi_write import DRUM_CHANNEL
from musicgen.score import Score

MAX_SEARCHED_BYTES = 2**20
"""Up to this size a part without a program is looked for in the other tracks, event by event."""

_PROGRAM = re.compile(rb"[\xc0-\xcf][\x01-\x7f]")
"""What a program change other than to piano looks like (and much else does)."""
_PROGRAM_STATUSES = [bytes([0xC0 | channel]) for channel in range(16)]
_SILENT = re.compile(
    rb"(?:[\x80-\xff]{0,3}[\x00-\x7f]"  # the delta time, then a change of tempo, or controllers under one status
    rb"(?:\xff\x51\x03[\x00-\xff]{3}|[\xb0-\xbf][\x00-\x7f]{2}(?:[\x80-\xff]{0,3}[\x00-\x7f]{3})*+))*+"
)
"""Events in a row that neither play nor set a program: a played file has thousands."""
_UNTOLD = re.compile(_SILENT.pattern.replace(rb"[\xb0-\xbf]", rb"[\x80-\xbf\xe0-\xef]"))
"""Events in a row that set no program."""


def with_programs_of_other_tracks(score: Score, data: bytes, path: Path) -> Score:
    """A part whose track sets no program has the one that another track sets for its channel.

    The file's events are read one by one, but only where a part may be concerned.
    """
    if len(data) > MAX_SEARCHED_BYTES or all(part.program or part.is_drum for part in score.parts):
        return score
    if not _may_borrow(data, len(score.parts)):
        return score
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
    signed = np.frombuffer(data, dtype=np.int8)  # below 0: a status, or a number that goes on
    hits = (signed[5:-1] & -16) == -64  # 0xC0 to 0xCF
    hits &= signed[6:] > 0
    hits &= signed[4:-2] >= 0
    at = hits.nonzero()[0] + 5
    if not len(at):
        return False
    found = signed.view(np.uint8)
    for back in (3, 4, 5):
        tempo = (found.take(at - back) == 0xFF) & (found.take(at - back + 1) == 0x51) & (found.take(at - back + 2) == 3)
        at = at[~tempo]
    return len(at) > 0


def _may_borrow(data: bytes, parts: int) -> bool:
    """Whether a track may play on a channel whose program another one sets, to other than piano.

    Not so if each track sets the program of its first note's channel before that note, and is one part.
    """
    if not any(map(data.__contains__, _PROGRAM_STATUSES)) or not _sets_programs(data):
        return False
    at, tracks = 8 + int.from_bytes(data[4:8], "big"), []
    while at + 8 <= len(data):
        stop = at + 8 + int.from_bytes(data[at + 4 : at + 8], "big")
        if data[at : at + 4] == b"MTrk":
            tracks.append((at + 8, min(stop, len(data))))
        at = stop
    if len(tracks) < 2 and data.count(b"MTrk") < 2:
        return False
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
