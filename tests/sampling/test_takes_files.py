"""The files of a set of takes: all of them or none, and nothing left over of an earlier set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from musicgen import finishing, workflows
from musicgen.errors import FormatError
from musicgen.sampling.takes_files import left_over, page_path, take_paths, write_set

PAGE = """\
| take | file | notes |
|---|---|---:|
| - | the fragment itself | 9 |
| 1 | f.mid | 3 |
| 2 | f-take2.mid | 3 |
| 3 | f-take3.mid | 3 |
"""


def make(path: Path, text: str = "old", at: int = 1_000) -> None:
    path.write_text(text)
    os.utime(path, (at, at))


@pytest.fixture
def earlier(tmp_path) -> Path:
    """An earlier run of three takes."""
    out = tmp_path / "f.mid"
    for path in take_paths(out, 3):
        make(path)
    make(page_path(out), PAGE)
    return out


def listing(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(folder.iterdir())}


def test_takes_are_numbered_from_the_second_on(tmp_path):
    assert [p.name for p in take_paths(tmp_path / "f.mid", 3)] == ["f.mid", "f-take2.mid", "f-take3.mid"]


def test_all_files_are_there_once_all_are_written(tmp_path):
    out = tmp_path / "new" / "f.mid"
    write_set(take_paths(out, 2), lambda n, path: path.write_text(f"take {n}"), page_path(out), "the page")
    assert listing(out.parent) == {"f.mid": "take 0", "f-take2.mid": "take 1", "f.mid.report.md": "the page"}


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), FormatError("no"), KeyboardInterrupt()])
def test_a_run_that_breaks_off_leaves_the_earlier_files_as_they_were(earlier, fault):
    before = listing(earlier.parent)

    def write(number: int, path: Path) -> None:
        path.write_text("half")
        if number == 1:
            raise fault

    with pytest.raises(KeyboardInterrupt if isinstance(fault, KeyboardInterrupt) else FormatError):
        write_set(take_paths(earlier, 3), write, page_path(earlier), "the page")
    assert listing(earlier.parent) == before


def test_the_file_that_was_meant_is_named_and_not_its_temporary_name(tmp_path):
    def write(number: int, path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    with pytest.raises(FormatError) as told:
        write_set([tmp_path / "f.mid"], write, tmp_path / "page.md", "the page")
    assert str(told.value) == f"{tmp_path / 'f.mid'}: No space left on device"


def test_a_folder_in_the_way_of_one_file_keeps_all_from_being_written(tmp_path):
    (tmp_path / "f-take2.mid").mkdir()
    out = tmp_path / "f.mid"
    with pytest.raises(FormatError, match="is a folder"):
        write_set(take_paths(out, 2), lambda n, path: path.write_text("x"), page_path(out), "the page")
    assert [path.name for path in tmp_path.iterdir()] == ["f-take2.mid"]


def test_further_takes_that_the_earlier_page_lists_are_left_over(earlier):
    assert [path.name for path in left_over(earlier, 1)] == ["f-take2.mid", "f-take3.mid"]
    assert [path.name for path in left_over(earlier, 2)] == ["f-take3.mid"]
    assert left_over(earlier, 3) == []


def test_a_take_that_somebody_has_worked_on_since_stays(earlier):
    make(earlier.with_name("f-take3.mid"), "edited", at=2_000)
    assert [path.name for path in left_over(earlier, 1)] == ["f-take2.mid"]


def test_a_file_that_no_page_lists_stays(earlier):
    make(earlier.with_name("f-take4.mid"))
    assert left_over(earlier, 3) == []


def test_without_a_page_nothing_is_anybodys(earlier):
    page_path(earlier).unlink()
    assert left_over(earlier, 1) == []


@pytest.mark.parametrize("orchestra", ["lstm"], indirect=True)
def test_fewer_takes_replace_the_whole_earlier_set(orchestra, data, tmp_path):
    score, out = data / "schubert-d759" / "scherzo.mid", tmp_path / "f.mid"
    workflows.finish_score(score, orchestra.folder, out, bars=1, takes=3)
    report = workflows.finish_score(score, orchestra.folder, out, bars=1, takes=2, seed=1)
    assert [path.name for path in report.removed] == ["f-take3.mid"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f-take2.mid", "f.mid", "f.mid.report.md"]


@pytest.mark.parametrize("orchestra", ["lstm"], indirect=True)
def test_a_take_that_can_not_be_written_leaves_no_other(orchestra, data, tmp_path, monkeypatch):
    score, out = data / "schubert-d759" / "scherzo.mid", tmp_path / "f.mid"
    write, calls = finishing.write_continuation, []

    def full(original, fragment, whole, path) -> None:
        calls.append(path)
        if len(calls) == 3:
            raise FormatError(f"{path}: No space left on device")
        write(original, fragment, whole, path)

    monkeypatch.setattr(finishing, "write_continuation", full)
    with pytest.raises(FormatError, match=r"f-take3\.mid: No space left"):
        workflows.finish_score(score, orchestra.folder, out, bars=1, takes=4)
    assert list(tmp_path.iterdir()) == []
