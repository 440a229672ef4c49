"""`musicgen render`, and what the commands that write music make besides: as a user meets them."""

from __future__ import annotations

import json
import sys
import webbrowser
from pathlib import Path

import pytest


def test_render_names_what_it_made_and_says_who_played(run, scherzo, tmp_path):
    done = run("render", scherzo, "--to", "wav, svg", "--out", tmp_path)
    assert done.code == 0
    assert done.out.splitlines()[0] == str(tmp_path / "scherzo.wav")
    assert all(Path(line).stat().st_size for line in done.out.splitlines())
    assert "played by" in done.err


def test_render_as_json_has_files_player_and_seconds(run, scherzo, tmp_path):
    done = run("render", scherzo, "--to", "roll", "--out", tmp_path / "x", "--json")
    found = json.loads(done.out)
    assert found["files"] == [str(tmp_path / "x.roll.png")]
    assert found["player"] is None
    assert found["seconds"]["roll"] > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "ogg"], "'ogg' is nothing that can be made; choose among wav, mp3"),
        (["--to", " , "], "nothing is asked for; choose among wav, mp3, svg, pdf, png, roll, html"),
        (["--to", "wav", "--soundfont", "nowhere.sf2"], "nowhere.sf2"),
        (["--to", "roll,html", "--soundfont", "nowhere.sf2"], "nowhere.sf2"),
    ],
)
def test_what_can_not_be_rendered_is_one_line_and_exit_code_2(run, scherzo, tmp_path, words, said):
    done = run("render", scherzo, *words, "--out", tmp_path / "x")
    assert done.code == 2
    assert said in done.err
    assert done.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_render_makes_the_folder_that_out_names(run, scherzo, tmp_path):
    done = run("render", scherzo, "--to", "roll", "--out", f"{tmp_path}/new/")
    assert done.out.splitlines() == [str(tmp_path / "new" / "scherzo.roll.png")]


def test_render_of_a_file_that_is_none_is_one_line(run, tmp_path):
    done = run("render", tmp_path / "none.mid", "--to", "mp3")
    assert done.code == 2
    assert done.err.count("\n") == 1


def test_finish_makes_the_page_and_opens_it(run, checkpoint, scherzo, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    words = ["--checkpoint", checkpoint, "--bars", 1, "--out", tmp_path / "f.mid", "--open", "--mp3"]
    done = run("finish", scherzo, *words)
    assert done.code == 0
    assert opened == [(tmp_path / "f.html").as_uri()]
    assert f"made    {tmp_path / 'f.html'}" in done.out
    assert f"made    {tmp_path / 'f.mp3'}" in done.out
    assert (tmp_path / "f.html").read_text().lower().startswith("<!doctype html>")


def test_finish_as_json_names_all_that_was_made_and_says_nothing_else(run, checkpoint, scherzo, tmp_path):
    roll, out = tmp_path / "seen.png", tmp_path / "f.mid"
    words = ["--checkpoint", checkpoint, "--bars", 1, "--out", out, "--roll", roll, "--svg", "--json"]
    assert json.loads(run("finish", scherzo, *words).out)["beside"] == [str(roll), str(out.with_suffix(".svg"))]


def test_without_a_browser_the_page_is_named(run, checkpoint, scherzo, tmp_path, monkeypatch):
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    words = ["--checkpoint", checkpoint, "--bars", 1, "--out", tmp_path / "f.mid", "--open"]
    assert f"open {tmp_path / 'f.html'} in one" in run("finish", scherzo, *words).err


def test_a_bad_soundfont_stops_finish_before_it_composes(run, checkpoint, scherzo, tmp_path):
    (tmp_path / "font.sf2").write_bytes(b"no font at all")
    words = ["--checkpoint", checkpoint, "--out", tmp_path / "f.mid", "--mp3", "--soundfont", tmp_path / "font.sf2"]
    done = run("finish", scherzo, *words)
    assert done.code == 2
    assert "font.sf2" in done.err
    assert not (tmp_path / "f.mid").exists()


@pytest.mark.parametrize("kind", ["html", "svg"])
def test_a_folder_in_the_place_of_a_rendition_stops_finish_before_it_composes(run, scherzo, tmp_path, kind):
    (tmp_path / f"f.{kind}").mkdir()
    done = run("finish", scherzo, "--out", tmp_path / "f.mid", f"--{kind}")
    assert (done.code, done.out) == (2, "")
    assert done.err == f"musicgen: {tmp_path / 'f'}.{kind}: is a folder; choose another --out\n"
    assert len(list(tmp_path.iterdir())) == 1


def test_sample_makes_renditions_of_each_piece_and_a_page_of_all(run, checkpoint, tmp_path):
    done = run("sample", checkpoint, "--out", tmp_path, "-n", 2, "--bars", 2, "--png", "--html")
    assert done.code == 0
    names = {path.name for path in tmp_path.iterdir()}
    assert {"01.mid", "02.mid", "01.png", "02.png", "pieces.html"} <= names


def test_serve_without_its_extra_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    done = run("serve", "--port", 0)
    assert done.code == 2
    assert "pip install 'musicgen[serve]'" in done.err
