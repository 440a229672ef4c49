"""Filling bars of a MIDI file: what stands outside stays, event by event, and no note is cut or hangs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import mido
import numpy as np
import pytest

from musicgen.errors import FormatError
from musicgen.formats import read_score
from musicgen.formats.filling import check_filling, write_filled, write_with_parts
from musicgen.score import Part, Score, notes_array

DATA = Path(__file__).resolve().parents[2] / "data"
GAME = DATA / "freedoom" / "d_e1m8.mid"  # drums, controllers, pitch bends
SYMPHONY = DATA / "orchestra" / "beethoven-op21-3.mid"


def events(path: Path) -> list[list[tuple[int, bytes]]]:
    """(tick, bytes) of every event of each track, its end too, as mido reads them."""
    found = []
    for track in mido.MidiFile(path, charset="latin-1").tracks:
        now, own = 0, []
        for message in track:
            now += message.time
            own.append((now, bytes(message.bytes())))
        found.append(own)
    return found


def is_note(event: tuple[int, bytes]) -> bool:
    return event[1][0] & 0xE0 == 0x80


def notes_of(score: Score) -> list[list[tuple]]:
    return [part.notes.tolist() for part in score.parts]


def song(path: Path, played: list[tuple[int, mido.Message]], kind: int = 1) -> Path:
    file = mido.MidiFile(type=kind, ticks_per_beat=480)
    track, now = mido.MidiTrack(), 0
    for tick, message in played:
        track.append(message.copy(time=tick - now))
        now = tick
    track.append(mido.MetaMessage("end_of_track", time=100))
    file.tracks.append(track)
    file.save(path)
    return path


def on(pitch: int, velocity: int = 80, channel: int = 0) -> mido.Message:
    return mido.Message("note_on", note=pitch, velocity=velocity, channel=channel)


def off(pitch: int, channel: int = 0) -> mido.Message:
    return mido.Message("note_off", note=pitch, velocity=1, channel=channel)


@pytest.mark.parametrize(("first", "until"), [(0, 2), (30, 34)])
@pytest.mark.parametrize("original", [GAME, SYMPHONY], ids=["game", "symphony"])
def test_a_filled_file_is_read_as_the_whole(
    original: Path, first: int, until: int, tmp_path: Path, pasted, as_read
) -> None:
    score = read_score(original, as_written=True)
    whole = pasted(score, first, until, 12)
    check_filling(original, score, first, until)
    write_filled(original, score, whole, first, until, tmp_path / "out.mid")
    assert notes_of(read_score(tmp_path / "out.mid")) == notes_of(whole)


def test_every_event_but_the_notes_of_the_hole_stays_in_its_order(tmp_path: Path, pasted) -> None:
    score = read_score(GAME, as_written=True)
    write_filled(GAME, score, pasted(score, 30, 34, 12), 30, 34, tmp_path / "out.mid")
    division = mido.MidiFile(GAME).ticks_per_beat
    start, stop = (int(score.bars[bar]) * division // 480 for bar in (30, 34))
    for old, new in zip(events(GAME), events(tmp_path / "out.mid"), strict=True):
        new = [e for e in new if b"musicgen: " not in e[1]]
        for kept in (lambda e: not is_note(e), lambda e: e[0] < start, lambda e: e[0] > stop + division):
            assert [e for e in new if kept(e)] == [e for e in old if kept(e)]


def test_controllers_and_pitch_bends_in_the_hole_stay(tmp_path: Path, pasted) -> None:
    score = read_score(GAME, as_written=True)
    write_filled(GAME, score, pasted(score, 0, 8, 12), 0, 8, tmp_path / "out.mid")
    kinds = [
        Counter(e[1][0] & 0xF0 for track in events(path) for e in track if e[1][0] < 0xF0 and not is_note(e))
        for path in (GAME, tmp_path / "out.mid")
    ]
    assert kinds[0] == kinds[1]
    assert {0xB0, 0xE0} & set(kinds[0])


def test_both_seams_have_a_marker(tmp_path: Path, pasted) -> None:
    score = read_score(GAME, as_written=True)
    write_filled(GAME, score, pasted(score, 8, 12, 20), 8, 12, tmp_path / "out.mid")
    file = mido.MidiFile(tmp_path / "out.mid")
    now, found = 0, []
    for message in file.tracks[0]:
        now += message.time
        if message.type == "marker" and message.text.startswith("musicgen"):
            found.append((now * 480 // file.ticks_per_beat, message.text))
    assert found == [
        (score.bars[8], "musicgen: bars 9 to 12 were written anew"),
        (score.bars[12], "musicgen: the original goes on here"),
    ]


def test_a_part_that_plays_what_it_did_keeps_its_events(tmp_path: Path, pasted) -> None:
    score = read_score(SYMPHONY, as_written=True)
    write_filled(SYMPHONY, score, pasted(score, 30, 34, 12, parts=(0,)), 30, 34, tmp_path / "out.mid")
    old, new = events(SYMPHONY), events(tmp_path / "out.mid")
    assert sum(a != b for a, b in zip(old[1:], new[1:], strict=True)) == 1


def test_a_note_struck_before_the_hole_sounds_on_into_it(tmp_path: Path) -> None:
    original = song(tmp_path / "a.mid", [(0, on(60)), (1920, on(64)), (2400, off(64)), (3000, off(60)), (5760, on(62)),
                                         (6000, off(62))])  # fmt: skip
    score = read_score(original)
    new = notes_array([(1920, 960, 65, 70), (3360, 480, 60, 70)])
    kept = score.parts[0].notes[score.parts[0].notes["pitch"] != 64]
    whole = replace(score, parts=(score.parts[0].with_notes(np.concatenate([kept, new])),))
    write_filled(original, score, whole, 1, 2, tmp_path / "out.mid")
    assert notes_of(read_score(tmp_path / "out.mid")) == notes_of(whole)


def test_a_note_of_the_hole_goes_with_its_note_off_behind_it(tmp_path: Path) -> None:
    original = song(tmp_path / "a.mid", [(0, on(60)), (480, off(60)), (1920, on(64)), (4200, on(64)), (4300, off(64)),
                                         (4800, on(64, 0)), (5760, on(62)), (6000, off(62))])  # fmt: skip
    score = read_score(original)
    kept = score.parts[0].notes[score.parts[0].notes["onset"] != 1920]
    whole = replace(score, parts=(score.parts[0].with_notes(kept),))
    write_filled(original, score, whole, 1, 2, tmp_path / "out.mid")
    played = [e for e in events(tmp_path / "out.mid")[0] if is_note(e)]
    assert [(tick, data[1]) for tick, data in played] == [(0, 60), (480, 60), (4200, 64), (4800, 64), (5760, 62),
                                                          (6000, 62)]  # fmt: skip


def test_a_pitch_that_is_still_held_is_not_struck_before_it_ends(tmp_path: Path) -> None:
    original = song(tmp_path / "a.mid", [(0, on(60)), (2400, off(60)), (5760, on(62)), (6000, off(62))])
    score = read_score(original)
    new = notes_array([(1920, 240, 60, 70), (2160, 960, 60, 70)])
    whole = replace(score, parts=(score.parts[0].with_notes(np.concatenate([score.parts[0].notes, new])),))
    write_filled(original, score, whole, 1, 2, tmp_path / "out.mid")
    found = read_score(tmp_path / "out.mid").parts[0].notes[["onset", "duration", "pitch"]].tolist()
    assert found == [(0, 2400, 60), (2400, 720, 60), (5760, 240, 62)]


def test_a_part_keeps_its_program_where_its_channel_has_another(tmp_path: Path) -> None:
    """One player changes from flute to piccolo; the hole is played by the piccolo before and after the change."""
    flute, piccolo = (mido.Message("program_change", program=p) for p in (73, 72))
    original = song(tmp_path / "a.mid", [(0, flute), (0, on(60)), (480, off(60)), (3840, on(62)), (4320, off(62)),
                                         (5760, piccolo), (5760, on(80)), (6240, off(80))])  # fmt: skip
    score = read_score(original)
    parts = [p.with_notes(np.concatenate([p.notes, notes_array([(1920, 480, 85, 70)])])) if p.program == 72 else p
             for p in score.parts]  # fmt: skip
    whole = replace(score, parts=tuple(parts))
    write_filled(original, score, whole, 1, 2, tmp_path / "out.mid")
    assert notes_of(read_score(tmp_path / "out.mid")) == notes_of(whole)


def test_the_end_of_a_track_stays_where_it_was(tmp_path: Path, pasted) -> None:
    score = read_score(SYMPHONY, as_written=True)
    write_filled(SYMPHONY, score, pasted(score, 30, 34, 12), 30, 34, tmp_path / "out.mid")
    assert [t[-1] for t in events(SYMPHONY)] == [t[-1] for t in events(tmp_path / "out.mid")]


def test_bars_that_are_not_there_are_refused(tmp_path: Path) -> None:
    score = read_score(GAME, as_written=True)
    with pytest.raises(FormatError, match="bars 400 to 402 of a score of"):
        check_filling(GAME, score, 399, 402)


# --- parts behind the others ------------------------------------------------------------------------------------------


def with_two(score: Score) -> Score:
    """The score, a cello that doubles its busiest part an octave lower, and a kit."""
    notes = max(score.parts, key=lambda part: len(part.notes) if not part.is_drum else 0).notes.copy()
    notes["pitch"] -= 12
    kit = notes_array((int(bar), 120, 38, 80) for bar in score.bars)
    return replace(score, parts=(*score.parts, Part("Cello", 42, False, notes), Part("Kit", 0, True, kit)))


@pytest.mark.parametrize("original", [GAME, SYMPHONY], ids=["game", "symphony"])
def test_added_parts_have_tracks_of_their_own_and_the_others_stay_in_every_byte(original: Path, tmp_path: Path) -> None:
    score = read_score(original, as_written=True)
    whole = with_two(score)
    write_with_parts(original, score, whole, tmp_path / "out.mid")
    old, new = original.read_bytes(), (tmp_path / "out.mid").read_bytes()
    assert new[14 : len(old)] == old[14:]
    again = read_score(tmp_path / "out.mid")
    assert notes_of(again) == notes_of(whole)
    assert [(p.name, p.program, p.is_drum) for p in again.parts[-2:]] == [("Cello", 42, False), ("Kit", 0, True)]


def test_a_file_of_format_0_becomes_one_of_format_1(tmp_path: Path) -> None:
    original = song(tmp_path / "a.mid", [(0, on(60)), (1920, off(60))], kind=0)
    score = read_score(original)
    whole = with_two(score)
    write_with_parts(original, score, whole, tmp_path / "out.mid")
    file = mido.MidiFile(tmp_path / "out.mid")
    assert (file.type, len(file.tracks)) == (1, 3)
    assert notes_of(read_score(tmp_path / "out.mid")) == notes_of(whole)


def test_where_no_channel_is_left_a_part_tells_its_program_before_each_note(tmp_path: Path) -> None:
    played = [(0, mido.Message("program_change", channel=c, program=c)) for c in range(16)]
    played += [(0, on(60, channel=c)) for c in range(16)] + [(1920, off(60, c)) for c in range(16)]
    original = song(tmp_path / "a.mid", played)
    score = read_score(original)
    whole = with_two(score)
    write_with_parts(original, score, whole, tmp_path / "out.mid")
    again = read_score(tmp_path / "out.mid")
    assert notes_of(again) == notes_of(whole)
    assert [p.program for p in again.parts] == [p.program for p in whole.parts]
