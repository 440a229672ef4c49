"""Continuing a MIDI file in its own tracks: the original does not change, and new notes stand where they should."""

from __future__ import annotations

import tarfile
from collections import Counter
from pathlib import Path

import mido
import numpy as np
import pytest

from musicgen.errors import FormatError, MusicgenError
from musicgen.formats import read_score
from musicgen.formats.midi_events import find_voices, match_voices, read_tracks, write_continuation
from musicgen.score import NOTE, Score, notes_array

DATA = Path(__file__).resolve().parents[2] / "data"
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
BUNDLED = sorted(p for p in DATA.rglob("*.mid") if p.stat().st_size < 60_000)


def messages(path: Path) -> list[list[tuple[int, bytes]]]:
    """(tick, bytes with the status written out) of every event of each track but its end, as mido reads them."""
    tracks = []
    for track in mido.MidiFile(path, charset="latin-1").tracks:
        now, found = 0, []
        for message in track:
            now += message.time
            if message.type != "end_of_track":
                found.append((now, bytes(message.bytes())))
        tracks.append(found)
    return tracks


def additions(old: list[tuple[int, bytes]], new: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """What `new` has besides the events of `old`, which must all be in it, in their order."""
    waiting, extra = iter(old), []
    expected = next(waiting, None)
    for event in new:
        if event == expected:
            expected = next(waiting, None)
        else:
            extra.append(event)
    assert expected is None, f"the original's {expected} is gone"
    return extra


def invented(score: Score, seed: int = 0, count: int = 12) -> list[np.ndarray]:
    """A few new notes a part, on the grid of 24 to the quarter, the first at the seam itself."""
    generator = np.random.default_rng(seed)
    new = []
    for _ in score.parts:
        steps = np.concatenate(([0], np.sort(generator.integers(0, 200, size=count - 1))))
        notes = np.zeros(count, dtype=NOTE)
        notes["onset"] = score.length + 20 * steps
        notes["duration"] = 20 * generator.integers(1, 48, size=count)
        notes["pitch"] = generator.integers(30, 90, size=count)
        notes["velocity"] = generator.integers(1, 128, size=count)
        new.append(notes)
    return new


def continued(original: Path, folder: Path, new: list[np.ndarray] | None = None, end: int = 0) -> Path:
    score = read_score(original)
    out = folder / "continued.mid"
    write_continuation(original, score.parts, invented(score) if new is None else new, score.length, end, out)
    return out


def check(original: Path, out: Path, seam: int) -> None:
    """The contract: the original whole, nothing new before the seam (in the file's ticks), no note that hangs."""
    old, new = messages(original), messages(out)
    assert len(old) == len(new)
    markers = 0
    for before, after in zip(old, new, strict=True):
        sounding: Counter[tuple[int, int]] = Counter()
        for tick, data in additions(before, after):
            assert tick >= seam
            kind, channel = data[0] & 0xF0, data[0] & 0x0F
            if data[:2] == b"\xff\x06":
                markers += 1
                assert tick == seam
            elif kind == 0x90:
                assert data[2] > 0
                sounding[channel, data[1]] += 1
            elif kind == 0x80:
                sounding[channel, data[1]] -= 1
                assert sounding[channel, data[1]] >= 0, "a note-off before its note-on"
            else:
                assert kind == 0xC0
        assert not +sounding, "a note that never ends"
    assert markers == 1


def made(folder: Path, *tracks: list[tuple[int, str]], ticks: int = 480, kind: int = 1, tail: bytes = b"") -> Path:
    """A MIDI file from tracks of (delta, bytes as hex); status bytes may be left out, as running status allows."""
    data = b"MThd" + (6).to_bytes(4, "big") + kind.to_bytes(2, "big") + len(tracks).to_bytes(2, "big")
    data += ticks.to_bytes(2, "big")
    for track in tracks:
        body = b"".join(bytes([d >> 7 | 0x80, d & 0x7F]) + bytes.fromhex(e) for d, e in track) + b"\x00\xff\x2f\x00"
        data += b"MTrk" + len(body).to_bytes(4, "big") + body
    path = folder / "original.mid"
    path.write_bytes(data + tail)
    return path


RICH = [
    (0, "ff 58 04 03 02 18 08"),
    (0, "f0 05 7e 7f 09 01 f7"),  # GM on
    (0, "c0 28"), (0, "b0 07 64"), (0, "0a 40"),  # volume, then pan in running status
    (0, "90 3c 50"), (0, "40 50"),  # a chord in running status
    (10, "ff 05 03 c3 a9 20"),  # a lyric
    (14, "e0 00 50"), (0, "a0 3c 20"), (0, "d0 30"),
    (72, "90 3c 00"), (0, "40 00"),  # note-ons of velocity 0
    (0, "ff 7f 03 00 01 02"), (0, "b0 40 7f"), (24, "40 00"), (48, "ff 01 03 82 a0 82"),
]  # fmt: skip


@pytest.mark.parametrize("path", BUNDLED, ids=lambda p: p.stem)
def test_a_bundled_file_is_continued_without_a_change(path, tmp_path):
    ticks = mido.MidiFile(path, charset="latin-1").ticks_per_beat
    out = continued(path, tmp_path)
    check(path, out, round(read_score(path).length * ticks / 480))


@pytest.mark.parametrize("path", BUNDLED, ids=lambda p: p.stem)
def test_a_continued_file_is_read_as_the_original_and_the_new_notes(path, tmp_path):
    score = read_score(path)
    again = read_score(continued(path, tmp_path))
    new = invented(score)
    assert [(p.name, p.program, p.is_drum) for p in again.parts] == [
        (p.name, p.program, p.is_drum) for p in score.parts
    ]
    for ours, old, added in zip(again.parts, score.parts, new, strict=True):
        assert ours.notes[ours.notes["onset"] < score.length].tolist() == old.notes.tolist()
        later = ours.notes[ours.notes["onset"] >= score.length]
        expected = {(n["onset"], n["pitch"]) for n in added}
        assert {(n["onset"], n["pitch"]) for n in later} == expected
    assert (again.metres, again.keys, again.tempos) == (score.metres, score.keys, score.tempos)


def test_nothing_new_makes_the_same_music_with_a_marker(tmp_path):
    path = BUNDLED[0]
    score = read_score(path)
    out = continued(path, tmp_path, [p.notes[:0] for p in score.parts])
    extra = [e for a, b in zip(messages(path), messages(out), strict=True) for e in additions(a, b)]
    assert [data[:2] for _, data in extra] == [b"\xff\x06"]
    assert read_score(out) == score


def test_controllers_lyrics_sysex_and_running_status_stay_as_they_are(tmp_path):
    path = made(tmp_path, RICH, ticks=96)
    out = continued(path, tmp_path)
    check(path, out, 96)
    assert b"\xff\x05\x03\xc3\xa9\x20" in out.read_bytes()
    assert b"\xf0\x05\x7e\x7f\x09\x01\xf7" in out.read_bytes()
    assert b"\xff\x01\x03\x82\xa0\x82" in out.read_bytes()


def test_events_after_the_seam_stay_where_they_are(tmp_path):
    path = made(tmp_path, RICH, ticks=96)
    out = continued(path, tmp_path)
    kept = [tick for tick, data in messages(out)[0] if data[:2] == b"\xff\x01"]
    assert kept == [168]
    assert any(tick > 168 and data[0] == 0x90 for tick, data in messages(out)[0])


def test_a_file_of_type_0_is_continued_in_its_one_track(tmp_path):
    path = made(
        tmp_path,
        [(0, "c0 28"), (0, "c1 2a"), (0, "90 3c 50"), (0, "91 30 50"), (0, "99 24 50"), (96, "80 3c 40"),
         (0, "81 30 40"), (0, "89 24 40")],
        ticks=96, kind=0,
    )  # fmt: skip
    out = continued(path, tmp_path)
    check(path, out, 96)
    assert mido.MidiFile(out).type == 0
    again, new = read_score(out), invented(read_score(path))
    assert [(p.program, p.is_drum) for p in again.parts] == [(p.program, p.is_drum) for p in read_score(path).parts]
    for ours, added in zip(again.parts, new, strict=True):
        assert {*ours.notes["onset"][1:].tolist()} == {*added["onset"].tolist()}


@pytest.mark.parametrize("ticks", [1, 10, 24, 96, 120, 384, 480, 960, 1000, 1024, 15_360])
def test_any_clock_of_the_file_is_kept(ticks, tmp_path):
    path = made(tmp_path, [(0, "c0 28"), (0, "90 3c 50"), (min(ticks, 16_000), "80 3c 40")], ticks=ticks)
    out = continued(path, tmp_path)
    check(path, out, ticks)
    assert mido.MidiFile(out).ticks_per_beat == ticks
    onsets = [tick for tick, data in messages(out)[0] if data[0] == 0x90][1:]
    expected = sorted({(n["onset"], n["pitch"]) for n in invented(read_score(path))[0]})
    if ticks % 24 == 0:
        assert onsets == [onset * ticks // 480 for onset, _ in expected]
    # on a coarser clock two notes may meet in one tick; none is further than half a tick of either clock from its place
    wanted = np.array([onset for onset, _ in expected]) * ticks / 480
    assert max(np.abs(wanted - onset).min() for onset in onsets) <= 0.5


@pytest.mark.parametrize("duration", range(1, 12))
@pytest.mark.parametrize("ticks", [960, 1024, 7_680])
def test_with_a_finer_clock_than_ours_no_new_note_starts_before_the_last_one_ends(ticks, duration, tmp_path):
    path = made(tmp_path, [(0, "c0 28"), (0, "90 3c 50"), (duration, "80 3c 40")], ticks=ticks)
    score = read_score(path)
    out = continued(path, tmp_path, [notes_array([(score.length, 480, 60, 80)])])
    notes = [(tick, data[0] & 0xF0) for tick, data in messages(out)[0] if data[0] in (0x80, 0x90)]
    assert notes[:3] == [(0, 0x90), (duration, 0x80), (duration, 0x90)]


def test_a_note_shorter_than_a_tick_of_the_file_lasts_one(tmp_path):
    path = made(tmp_path, [(0, "c0 28"), (0, "90 3c 50"), (4, "80 3c 40")], ticks=4)
    out = continued(path, tmp_path, [notes_array([(480, 20, 60, 80), (480, 20, 64, 80)])])
    added = [(tick, data.hex()) for tick, data in messages(out)[0] if data[0] in (0x80, 0x90)][2:]
    assert added == [(4, "903c50"), (4, "904050"), (5, "803c40"), (5, "804040")]


def test_programs_that_share_a_channel_are_told_before_each_note_that_needs_them(tmp_path):
    path = made(
        tmp_path,
        [(0, "c0 28"), (0, "90 3c 50"), (96, "80 3c 40"), (0, "c0 2d"), (0, "90 3e 50"), (96, "80 3e 40")],
        ticks=96,
    )
    score = read_score(path)
    assert {p.program for p in score.parts} == {40, 45}
    new = [
        notes_array([(960 + 480 * i, 240, 60 + part["pitch"][0] % 2, 80) for i in range(4)])
        for part in ({"pitch": p.notes["pitch"] + (p.program == 45)} for p in score.parts)
    ]
    again = read_score(continued(path, tmp_path, new))
    assert {p.program: len(p.notes) for p in again.parts} == {40: 5, 45: 5}
    for before, after, added in zip(score.parts, again.parts, new, strict=True):
        assert after.program == before.program
        assert after.notes[1:].tolist() == added.tolist()


def test_a_program_change_of_the_original_after_the_seam_does_not_reach_the_new_notes(tmp_path):
    path = made(tmp_path, [(0, "c0 28"), (0, "90 3c 50"), (96, "80 3c 40"), (96, "c0 50")], ticks=96)
    out = continued(path, tmp_path, [notes_array([(480 * i, 480, 60, 80) for i in range(1, 6)])])
    check(path, out, 96)
    again = read_score(out)
    assert [(p.program, len(p.notes)) for p in again.parts] == [(40, 6)]


def test_the_file_stops_where_the_piece_does(tmp_path):
    path = made(tmp_path, [(0, "c0 28"), (0, "90 3c 50"), (96, "80 3c 40")], ticks=96)
    out = continued(path, tmp_path, [notes_array([(480, 240, 60, 80)])], end=1920)
    assert sum(message.time for message in mido.MidiFile(out).tracks[0]) == 384


def test_chunks_of_an_unknown_kind_are_kept(tmp_path):
    chunk = b"XYZW" + (5).to_bytes(4, "big") + b"hello"
    path = made(tmp_path, [(0, "90 3c 50"), (96, "80 3c 40")], ticks=96, tail=chunk)
    assert continued(path, tmp_path).read_bytes().endswith(chunk)


def test_bytes_after_the_last_chunk_are_kept(tmp_path):
    path = made(tmp_path, [(0, "90 3c 50"), (96, "80 3c 40")], ticks=96, tail=b"MARK\0\0\xff\xffcut")
    assert continued(path, tmp_path).read_bytes().endswith(b"MARK\0\0\xff\xffcut")


def test_parts_that_are_not_the_files_are_refused_and_nothing_is_written(tmp_path):
    path = made(tmp_path, [(0, "c0 28"), (0, "90 3c 50"), (96, "80 3c 40")], ticks=96)
    other = read_score(BUNDLED[0])
    with pytest.raises(FormatError, match=r"original\.mid"):
        write_continuation(path, other.parts, invented(other), other.length, 0, tmp_path / "out.mid")
    assert not (tmp_path / "out.mid").exists()


def test_voices_of_one_program_are_told_apart_by_how_many_notes_they_play(tmp_path):
    path = made(
        tmp_path,
        [(0, "c0 28"), (0, "90 3c 50"), (96, "80 3c 40")],
        [(0, "c1 28"), (0, "91 3c 50"), (96, "81 3c 40"), (0, "91 3e 50"), (96, "81 3e 40")],
        ticks=96,
    )
    parts = read_score(path).parts
    voices = match_voices(find_voices(read_tracks(path)[1]), parts[::-1])
    assert voices is not None
    assert [(v.track, v.notes) for v in voices] == [(1, 2), (0, 1)]


HEADER = b"MThd\0\0\0\6\0\1\0\1\0\x60"
DAMAGED = {
    "not MIDI": b"X:1\nK:C\nabc and so on",
    "only a header": HEADER,
    "half a header": HEADER[:9],
    "a track that breaks off": HEADER + b"MTrk\0\0\0\x20\0\x90\x3c\x50",
    "an event that breaks off": HEADER + b"MTrk\0\0\0\3\0\x90\x3c",
    "data before any status": HEADER + b"MTrk\0\0\0\4\0\x3c\x50\0",
    "a length without end": HEADER + b"MTrk\0\0\0\3\xff\xff\xff",
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_refused_in_one_line_that_names_it(data, tmp_path):
    path = tmp_path / "damaged.mid"
    path.write_bytes(data)
    with pytest.raises(FormatError) as caught:
        read_tracks(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["D759_mvt1_mutopia-lilypond.mid", "D759_mvt3_sequenced-yokota.mid"])
def test_the_unfinished_symphony_is_continued_without_a_change(name, tmp_path):
    path = SHARED / "schubert-d759-unfinished" / name
    if not path.exists():
        pytest.skip(f"{name} is not beside the repository")
    ticks = mido.MidiFile(path, charset="latin-1").ticks_per_beat
    check(path, continued(path, tmp_path), round(read_score(path).length * ticks / 480))


@pytest.mark.slow
def test_the_parts_of_files_of_many_makers_are_found_in_their_tracks(tmp_path_factory):
    archives = sorted(SHARED.glob("*midi*.tar.gz"))
    if not archives:
        pytest.skip("the shared archives are not beside the repository")
    folder = tmp_path_factory.mktemp("midi")
    found = 0
    for archive in archives:
        with tarfile.open(archive) as tar:
            members = [m for m in tar.getmembers() if m.name.lower().endswith(".mid")]
            tar.extractall(
                folder, [members[i] for i in range(0, len(members), max(1, len(members) // 25))], filter="data"
            )
    for path in sorted(folder.rglob("*.mid")):
        try:
            parts = read_score(path).parts
        except MusicgenError:
            continue
        voices = match_voices(find_voices(read_tracks(path)[1]), parts)
        assert voices is not None, path.name
        assert all((v.channel == 9) == p.is_drum for v, p in zip(voices, parts, strict=True)), path.name
        found += 1
    assert found > 100
