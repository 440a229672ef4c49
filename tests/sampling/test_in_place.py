"""Finishing a file in its own format: what a model writes is put into the original, of which every byte stays."""

from __future__ import annotations

from itertools import chain

import pytest

from musicgen import workflows
from musicgen.errors import FormatError
from musicgen.formats import read_score

IRISH = """X:1
T:unfinished
M:4/4
L:1/8
K:D
|:"D"d2{e}dB (3ABA FA|!trill!d2dB A2 (fe):|
w: one two three
dBAF E2D2|dBAF E
"""


def is_in(part: bytes, whole: bytes) -> bool:
    lines = iter(whole.split(b"\n"))
    return all(any(line == other for other in lines) for line in part.split(b"\n"))


@pytest.mark.parametrize("orchestra", ["lstm"], indirect=True)
def test_the_scherzo_goes_on_in_its_own_musicxml(orchestra, data, tmp_path):
    original = data / "schubert-d759" / "scherzo.musicxml"
    report = workflows.finish_score(original, orchestra.folder, tmp_path / "out.musicxml", bars=4, takes=2, seed=1)
    for path, take in zip(report.files, report.takes, strict=True):
        assert is_in(original.read_bytes(), path.read_bytes())
        back = read_score(path)
        assert back.bars.tolist() == take.whole.bars.tolist()
        assert [sorted(p.notes[["onset", "duration", "pitch"]].tolist()) for p in back.parts] == [
            sorted(p.notes[["onset", "duration", "pitch"]].tolist()) for p in take.whole.parts
        ]


@pytest.mark.parametrize("orchestra", ["lstm"], indirect=True)
def test_a_new_file_of_another_format_is_written_whole(orchestra, data, tmp_path):
    original = data / "schubert-d759" / "scherzo.mid"
    report = workflows.finish_score(original, orchestra.folder, tmp_path / "out.mxl", bars=2, seed=1)
    (path,), (take,) = report.files, report.takes
    assert read_score(path).note_count == take.whole.note_count


def test_a_tune_goes_on_in_its_own_abc(tunes, tmp_path):
    original = tmp_path / "tune.abc"
    original.write_text(IRISH)
    report = workflows.finish_score(original, tunes.folder, tmp_path / "out.abc", bars=4, takes=3, seed=1)
    for path, take in zip(report.files, report.takes, strict=True):
        assert path.read_text().startswith(IRISH)
        back = read_score(path, as_written=True)
        onsets, expected = (s.parts[0].notes[["onset", "duration", "pitch"]].tolist() for s in (back, take.whole))
        assert onsets == expected


def test_an_original_that_cannot_go_on_leaves_no_file(tunes, tmp_path):
    original = tmp_path / "tune.abc"
    original.write_text(IRISH + "(3AB")
    with pytest.raises(FormatError, match="tuplet"):
        workflows.finish_score(original, tunes.folder, tmp_path / "out.abc", bars=4)
    assert list(chain(tmp_path.glob("out*"), tmp_path.glob(".*"))) == []


def test_the_continuation_alone_is_written_anew(tunes, tmp_path):
    original = tmp_path / "tune.abc"
    original.write_text(IRISH)
    (path,) = workflows.finish_score(original, tunes.folder, tmp_path / "out.abc", bars=4, new_only=True).files
    assert "continued" not in path.read_text()
