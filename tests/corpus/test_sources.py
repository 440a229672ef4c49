"""Where scores come from: folders, files, and music21's corpus by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from musicgen.corpus import find_source
from musicgen.errors import CorpusError

DATA = Path(__file__).resolve().parents[2] / "data"


def test_a_folder_is_searched_to_its_depths_in_the_order_of_paths(tmp_path):
    for name in ("b/two.abc", "a/deep/one.MID", "c.musicxml", "readme.txt", "b/cover.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    source = find_source(tmp_path)
    assert list(source.score_names) == ["a/deep/one.MID", "b/two.abc", "c.musicxml"]
    assert list(source.other_names) == ["b/cover.png", "readme.txt"]


def test_paths_are_ordered_folder_by_folder_whatever_stands_before_a_slash_in_the_alphabet(tmp_path):
    for name in ("a/x.mid", "a b/x.mid", "a-b.mid", "a.mid", "a/b.c/x.mid", "a/b/x.mid", "ab.mid"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    found = [path.relative_to(tmp_path).parts for path in tmp_path.rglob("*.mid")]
    assert [Path(name).parts for name in find_source(tmp_path).score_names] == sorted(found)


def test_an_ending_is_the_files_and_not_a_folders(tmp_path):
    for name in ("set.mid/notes", "mid", "a.b/tune.MID", "two.ends.mid", "stops."):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert find_source(tmp_path).score_names == ("a.b/tune.MID", "two.ends.mid")


def test_what_git_and_python_keep_beside_the_music_is_no_music(tmp_path):
    for name in (".git/one.mid", "__pycache__/two.mid", "three.mid"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    source = find_source(tmp_path)
    assert [p.name for p in (*source.scores, *source.others)] == ["three.mid"]


def test_what_begins_with_a_dot_and_what_macs_leave_behind_is_no_music(tmp_path):
    for name in ("._one.mid", ".hidden/two.mid", "__MACOSX/._one.mid", "one.mid"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    assert find_source(tmp_path).score_names == ("one.mid",)


def test_links_to_folders_are_followed_and_lead_nowhere_twice(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "one.mid").write_text("x")
    (tmp_path / "music").mkdir()
    (tmp_path / "music" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "music")
    (tmp_path / "music" / "gone.mid").symlink_to(tmp_path / "nothing")
    assert find_source(tmp_path / "music").score_names == ("linked/one.mid",)


def test_one_file_is_a_source_too():
    path = DATA / "irish" / "tunes.abc"
    source = find_source(path)
    assert (source.scores, source.others, source.score_names) == ((path,), (), ("tunes.abc",))


def test_the_bundled_folder_has_scores_in_every_format():
    source = find_source(str(DATA))
    assert {p.suffix for p in source.scores} >= {".mid", ".abc", ".krn", ".mxl", ".musicxml"}
    assert "README.md" in source.other_names


def refused(where: str | Path) -> str:
    with pytest.raises(CorpusError) as caught:
        find_source(where)
    assert "\n" not in str(caught.value)
    assert str(where) in str(caught.value)
    return str(caught.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    assert "no such folder" in refused(tmp_path / "nowhere")


def test_a_folder_without_scores_is_refused_and_what_can_be_read_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("do re mi")
    assert ".mid" in refused(tmp_path)


def test_a_file_without_a_reader_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("do re mi")
    assert "no reader" in refused(tmp_path / "notes.txt")


def test_the_chorales_of_music21_are_found_by_name():
    source = find_source("music21:bach")
    assert len(source.scores) > 400
    assert source.name == "music21:bach"
    assert {"bach"} == {source.root.name}


def test_a_collection_that_music21_has_not_is_refused_and_those_it_has_are_named():
    message = refused("music21:bahc")
    assert " bach " in message
    assert " palestrina " in message


def test_finding_music21s_corpus_does_not_import_music21():
    code = (
        "import sys; from musicgen.corpus.sources import find_source; "
        "assert find_source('music21:bach').scores; sys.exit('music21' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_file_dated_centuries_ahead_is_a_file_like_any_other(tmp_path):
    (tmp_path / "a.abc").write_text("X:1\nK:C\nC|\n")
    try:
        os.utime(tmp_path / "a.abc", ns=(10**18, 10_413_792_000 * 10**9))
    except OSError:
        pytest.skip("this file system dates no file so late")
    assert find_source(tmp_path).stamp
