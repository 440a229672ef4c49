"""Files by their suffix: what is read, what is written, and what is said where neither can be done."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from musicgen.errors import FormatError, UnsupportedFormat
from musicgen.formats import READERS, WRITERS, files, read_score, read_scores, read_tunes, write_score
from musicgen.score import Part, Score, Sign, notes_array

DATA = Path(__file__).resolve().parents[2] / "data"
TUNE = "X:{}\nT:Tune {}\nL:1/4\nM:4/4\nK:C\n{}|\n"


def score() -> Score:
    return Score(parts=(Part("Violin", 40, False, notes_array([(0, 480, 60, 80), (480, 1440, 64, 80)])),))


@pytest.mark.parametrize("suffix", sorted(WRITERS))
def test_what_is_written_in_a_format_is_read_in_it(suffix, tmp_path):
    write_score(score(), tmp_path / f"piece{suffix}")
    again = read_score(tmp_path / f"piece{suffix}")
    assert [n.tolist()[:3] for n in again.parts[0].notes] == [(0, 480, 60), (480, 1440, 64)]


def test_every_format_that_is_written_can_be_read():
    assert set(WRITERS) <= set(READERS)


def test_a_suffix_may_be_in_capitals(tmp_path):
    write_score(score(), tmp_path / "PIECE.MID")
    assert read_score(tmp_path / "PIECE.MID").note_count == 2


def test_folders_on_the_way_are_made(tmp_path):
    write_score(score(), tmp_path / "a" / "b" / "piece.mid")
    assert (tmp_path / "a" / "b" / "piece.mid").is_file()


def test_a_file_of_many_tunes_gives_them_all_in_order(tmp_path):
    path = tmp_path / "tunes.abc"
    path.write_text("\n".join(TUNE.format(i, i, "CDEF") for i in range(1, 4)))
    assert [s.title for s in read_scores(path)] == ["Tune 1", "Tune 2", "Tune 3"]
    assert read_score(path).title == "Tune 1"


def test_a_bad_tune_among_good_ones_is_an_error_in_its_place(tmp_path):
    path = tmp_path / "tunes.abc"
    path.write_text("\n".join(TUNE.format(i, i, "CDEF" if i != 2 else "[[[") for i in range(1, 4)))
    found = read_tunes(path)
    assert [type(t) is Score for t in found] == [True, False, True]
    assert isinstance(found[1], FormatError)
    assert str(path) in str(found[1])
    assert [s.title for s in read_scores(path)] == ["Tune 1", "Tune 3"]


def test_a_file_of_bad_tunes_only_is_refused(tmp_path):
    path = tmp_path / "tunes.abc"
    path.write_text(TUNE.format(1, 1, "[[["))
    with pytest.raises(FormatError, match=r"tunes\.abc"):
        read_scores(path)


def test_repeats_are_played_out_unless_the_score_is_wanted_as_written(tmp_path):
    path = tmp_path / "tune.abc"
    path.write_text(TUNE.format(1, 1, "|:CDEF:").rstrip("|\n") + "|\n")
    assert read_score(path).note_count == 8
    as_written = read_score(path, as_written=True)
    assert as_written.note_count == 4
    assert "repeat_end" in {sign.kind for sign in as_written.signs}


def test_the_same_music_is_read_from_midi_and_from_musicxml():
    folder = DATA / "schubert-d759"
    played, sheet = read_score(folder / "scherzo.mid"), read_score(folder / "scherzo.musicxml")
    assert played.bars.tolist() == sheet.bars.tolist()
    for a, b in zip(played.parts, sheet.parts, strict=True):
        assert np.array_equal(a.notes[["onset", "pitch"]], b.notes[["onset", "pitch"]])


# what is refused


@pytest.mark.parametrize("name", ["piece.pdf", "piece", "piece.mid.bak"])
def test_a_suffix_without_a_reader_is_refused_and_those_with_one_are_named(name, tmp_path):
    (tmp_path / name).write_bytes(b"something")
    with pytest.raises(UnsupportedFormat, match=r"\.mid .*\.krn") as caught:
        read_score(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_a_suffix_without_a_writer_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(UnsupportedFormat, match=r"no writer for '\.krn'.*\.mid"):
        write_score(score(), tmp_path / "out" / "piece.krn")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", sorted(READERS))
def test_an_empty_file_is_refused(suffix, tmp_path):
    path = tmp_path / f"piece{suffix}"
    path.touch()
    with pytest.raises(FormatError, match="empty") as caught:
        read_score(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r"missing\.mid: No such file"):
        read_score(tmp_path / "missing.mid")


def test_a_folder_named_like_a_file_is_refused(tmp_path):
    (tmp_path / "folder.mid").mkdir()
    with pytest.raises(FormatError, match=r"folder\.mid: is a folder"):
        read_score(tmp_path / "folder.mid")


def test_a_file_past_all_reason_is_refused_before_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 100)
    (tmp_path / "big.mid").write_bytes(bytes(101))
    with pytest.raises(FormatError, match="101 bytes, more than the 100"):
        read_score(tmp_path / "big.mid")


@pytest.mark.parametrize("suffix", sorted(READERS))
@pytest.mark.filterwarnings("ignore::Warning:music21")
def test_bytes_that_are_no_music_are_refused_in_one_line(suffix, tmp_path):
    path = tmp_path / f"noise{suffix}"
    path.write_bytes(np.random.default_rng(1).integers(0, 256, 5000, dtype=np.uint8).tobytes())
    with pytest.raises(FormatError) as caught:
        read_score(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# writing never leaves half a file


def test_where_writing_fails_what_was_there_stays_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "piece.mid"
    write_score(score(), path)
    before = path.read_bytes()

    def fail(score: Score, to: Path) -> None:
        Path(to).write_bytes(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr("musicgen.formats.midi.write", fail)
    with pytest.raises(FormatError, match=r"piece\.mid: the disk is full"):
        write_score(score(), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["piece.mid"]


def test_reading_leaves_the_folder_as_it_was(tmp_path):
    for source in (DATA / "kern" / "new-britain.krn", DATA / "freedoom" / "d_intro.mid"):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    for name in before:
        read_scores(tmp_path / name)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_score_with_repeats_is_written_to_midi_as_it_is_heard(tmp_path):
    signs = (Sign(0, "repeat_start"), Sign(1920, "repeat_end"))
    write_score(Score(parts=score().parts, signs=signs), tmp_path / "piece.mid")
    assert read_score(tmp_path / "piece.mid").note_count == 4
