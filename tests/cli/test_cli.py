"""The commands as a user meets them: what they print, where, and how they refuse."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from musicgen.cli import main
from musicgen.formats import read_score, read_scores, write_score

SMALL = [
    "--set",
    "model.dim=16",
    "--set",
    "model.layers=1",
    "--set",
    "training.streams=2",
    "--set",
    "training.chunk=16",
]
COMMANDS = ("check", "prepare", "train", "sample", "finish", "convert", "tokens", "evaluate", "demo")
BRIEF = [*SMALL, "--set", "training.steps=4", "--set", "training.evaluate_every=2", "--set", "training.warmup=1"]


def process(*words: object) -> subprocess.CompletedProcess:
    """`python -m musicgen`, as a user runs it."""
    command = [sys.executable, "-W", "error::DeprecationWarning", "-m", "musicgen", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def musicgen(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """The same in this process, where PyTorch is loaded already: loading it takes most of the time of a command."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    err = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace", write_through=True)
    argv = ["musicgen", *map(str, words)]
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        contextlib.chdir(cwd or "."),
        mock.patch.dict(os.environ),
        mock.patch.object(sys, "argv", argv),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    out.seek(0)
    err.seek(0)
    return subprocess.CompletedProcess(argv, int(ended.value.code or 0), out.read(), err.read())


@pytest.fixture(scope="module")
def checkpoint(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("cli") / "model"
    done = process("train", data / "freedoom", "--out", out, *BRIEF)
    assert done.returncode == 0, done.stderr
    assert "validation" in done.stdout
    assert "next: musicgen sample" in done.stderr
    assert "step 4/4" in done.stderr  # not a terminal: one line an evaluation
    return out


def test_version_is_printed():
    done = process("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "musicgen")


def test_many_lines_of_one_kind_are_a_few_and_their_number(data, tmp_path):
    for i in range(9):
        shutil.copy(data / "schubert-d759" / "scherzo.mid", tmp_path / f"{i}.mid")
    write_score(read_scores(data / "irish" / "tunes.abc")[0], tmp_path / "tune.abc")
    done = musicgen("check", tmp_path, *SMALL, "--set", "tokenizer.name=abc")
    lines = [line for line in done.stdout.splitlines() if line.startswith("skipped")]
    assert len(lines) == 6
    assert "4 more like these" in lines[-1]
    assert "--set tokenizer.name=abc" in done.stderr


def test_check_says_how_many_notes_the_tokenizer_does_not_hold(data):
    words = ("check", data / "freedoom", *SMALL, "--set", "tokenizer.name=performance", "--json")
    report = json.loads(musicgen(*words).stdout)
    assert report["left_out"] > 0.2 * report["notes"]


def test_help_names_every_command():
    done = process("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert command in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_help(command):
    done = musicgen(command, "--help")
    assert done.returncode == 0
    options = [line for line in done.stdout.splitlines() if line.strip().startswith("--")]
    bare = [line for line in options if len(line.split()) == 1 and "--help" not in line]
    assert options
    assert not bare


def test_check_reports_in_words_and_in_json(data, tmp_path):
    folder = tmp_path / "scores"
    shutil.copytree(data / "freedoom", folder)
    (folder / "broken.mid").write_bytes(b"MThd not really")
    shutil.copy(folder / "d_intro.mid", folder / "twin.mid")
    done = musicgen("check", folder, *SMALL)
    assert done.returncode == 0, done.stderr
    assert "broken.mid" in done.stdout
    assert "the same music as" in done.stdout
    for word in ("notes", "bars", "metres", "tempi", "steps", "memory"):
        assert word in done.stdout
    report = json.loads(musicgen("check", folder, "--json", *SMALL).stdout)
    assert report["duplicates"] == 1
    assert report["notes"] > 1000
    assert {f["path"] for f in report["files"] if f["skipped"]} == {"broken.mid", "twin.mid"}


def test_sample_writes_midi_and_says_what(checkpoint, tmp_path):
    done = musicgen("sample", checkpoint, "--out", tmp_path, "-n", 2, "--bars", 2, "--seed", 3)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    for line in lines:
        assert Path(line.split()[0]).exists()
        assert "2 bars" in line


def test_finish_says_what_it_understood_and_draws_the_roll(checkpoint, data, tmp_path):
    out, roll = tmp_path / "done.mid", tmp_path / "roll.png"
    score = data / "schubert-d759" / "scherzo.mid"
    done = musicgen("finish", score, "--checkpoint", checkpoint, "--out", out, "--bars", 2, "--roll", roll)
    assert done.returncode == 0, done.stderr
    assert "9 bars of 3/4" in done.stderr
    assert "13 parts" in done.stderr
    assert len(read_score(out).bars) == 11
    assert roll.read_bytes()[:4] == b"\x89PNG"


def test_finish_answers_in_json(checkpoint, data, tmp_path):
    score = data / "schubert-d759" / "scherzo.mid"
    words = ("finish", score, "--checkpoint", checkpoint, "--out", tmp_path / "f.mid", "--bars", 1, "--takes", 2)
    report = json.loads(process(*words, "--json").stdout)
    assert report["understood"]["bars"] == 9
    assert len(report["takes"]) == 2


def test_evaluate_leaves_out_what_the_model_was_trained_on(checkpoint, data):
    report = json.loads(musicgen("evaluate", checkpoint, data / "freedoom", "--json").stdout)
    assert report["pieces"] == 1
    assert report["trained_on"] == 3
    assert report["per_note"] > 0


def test_prepare_compiles_shards_that_train_and_check_read_by_listing_them(data, tmp_path):
    shards = [tmp_path / "shards" / f"{k}-of-2" for k in (1, 2)]
    for k, out in enumerate(shards, 1):
        done = musicgen("prepare", data / "freedoom", "--shard", f"{k}/2", "--out", out)
        assert done.returncode == 0, done.stderr
        assert "files kept  2 of 2" in done.stdout
        assert f"next: musicgen train {tmp_path / 'shards'}/*" in done.stderr
    whole = json.loads(musicgen("check", data / "freedoom", "--json", *SMALL).stdout)
    listed = json.loads(musicgen("check", *shards, "--json", *SMALL).stdout)
    assert sorted(p["fingerprint"] for p in listed["pieces"]) == sorted(p["fingerprint"] for p in whole["pieces"])
    done = musicgen("train", *shards, "--out", tmp_path / "model", *BRIEF)
    assert done.returncode == 0, done.stderr
    assert "3 to learn from, 1 kept" in done.stdout


def test_prepare_answers_in_json_and_a_second_time_finds_its_work(data, tmp_path):
    words = ("prepare", data / "freedoom", "--out", tmp_path / "made", "--json")
    first, again = (json.loads(musicgen(*words).stdout) for _ in range(2))
    assert (first["was_there"], again["was_there"]) == (False, True)
    assert first["pieces"] == again["pieces"] == 4


def test_tokens_prints_a_score_in_words_bar_by_bar(data):
    done = musicgen("tokens", data / "schubert-d759" / "scherzo.mid")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "198 notes" in lines[0]
    assert [line for line in lines if line.startswith("bar ")] == [f"bar {i}" for i in range(1, 10)]
    assert "  0 conductor 3/4" in lines
    assert "  0 Violin 1 B4 72 ff" in lines


@pytest.mark.parametrize("tokenizer", ["abc", "bars", "grid", "performance"])
def test_tokens_knows_every_tokenizer_and_answers_in_json(data, tokenizer, tmp_path):
    write_score(read_scores(data / "irish" / "tunes.abc")[0], tmp_path / "tune.abc")
    words = ("--tokenizer", tokenizer, "--set", "tokenizer.voices=1", "--json")
    (piece,) = json.loads(musicgen("tokens", tmp_path / "tune.abc", *words).stdout)
    assert len(piece["steps"]) == len(piece["words"]) == len(piece["bars"])
    assert piece["bars"] == sorted(piece["bars"])
    assert piece["notes"] > 20


def test_a_tune_that_has_no_tokens_is_said_and_the_others_are_printed(tmp_path):
    (tmp_path / "two.abc").write_text("X:1\nT:one\nK:C\nCDEF GABc|\n\nX:2\nT:two\nK:C\nC8 & E4 F4|\n")
    done = musicgen("tokens", tmp_path / "two.abc", "--tokenizer", "abc")
    assert done.returncode == 2
    assert "one: " in done.stdout
    assert "left out" in done.stderr
    assert "two: notes overlap" in done.stderr


def test_convert_plays_repeats_out_unless_told_to_keep_them_as_written(tmp_path):
    (tmp_path / "tune.abc").write_text("X:1\nL:1/4\nM:4/4\nK:G\nGABc|defg:|\n")
    for option, bars in (((), 4), (("--as-written",), 2)):
        out = tmp_path / f"out{bars}.abc"
        assert musicgen("convert", tmp_path / "tune.abc", out, *option).returncode == 0
        assert len(read_score(out, as_written=True).bars) == bars
        assert len(read_score(out).bars) == 4


def test_a_tune_that_can_not_be_converted_is_said_and_the_others_keep_their_places(tmp_path):
    good = "X:{0}\nT:{0}\nK:C\nCDEF GABc|\n\n"
    (tmp_path / "three.abc").write_text(good.format(1) + "X:2\nT:bad\nK:C\nC/0 D|\n\n" + good.format(3))
    done = musicgen("convert", tmp_path / "three.abc", tmp_path / "out.mid")
    assert done.returncode == 2
    assert done.stdout.split() == [str(tmp_path / "out-1.mid"), str(tmp_path / "out-3.mid")]
    assert "three.abc:9" in done.stderr


def test_names_of_any_bytes_are_one_line(tmp_path):
    folder = tmp_path / "music"
    folder.mkdir()
    for name in (b"bad\xff.abc", b"two\nlines.mid", b"good.abc"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_text("X:1\nK:C\nCDEF GABc|]\n")
    done = process("check", folder, *SMALL)
    assert done.returncode == 0, done.stderr
    assert "two\\nlines.mid" in done.stdout
    done = process("tokens", folder / "two\nlines.mid")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_convert_goes_by_suffix(data, tmp_path):
    done = musicgen("convert", data / "kern" / "new-britain.krn", tmp_path / "tune.mid")
    assert done.returncode == 0, done.stderr
    assert read_score(tmp_path / "tune.mid").note_count == read_score(data / "kern" / "new-britain.krn").note_count


def test_resume_goes_on_from_where_it_stopped(checkpoint, data, tmp_path):
    out = Path(shutil.copytree(checkpoint, tmp_path / "more"))
    done = musicgen("train", data / "freedoom", "--out", out, "--resume", "--set", "training.steps=6")
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 6]


def test_resume_keeps_the_runs_own_configuration(checkpoint, data, tmp_path):
    """As the line after Ctrl-C says it, without --config: nothing about the run changes."""
    out = Path(shutil.copytree(checkpoint, tmp_path / "same"))
    before = (out / "config.yaml").read_text()
    done = musicgen("train", data / "freedoom", "--out", out, "--resume")
    assert done.returncode == 0, done.stderr
    assert (out / "config.yaml").read_text() == before
    done = musicgen("train", data / "freedoom", "--out", out, "--resume", "--set", "model.dim=32")
    assert done.returncode == 2
    assert "training.steps" in done.stderr


def test_a_dry_run_needs_no_place_and_leaves_nothing_in_any(data, tmp_path):
    done = musicgen("train", data / "freedoom", "--dry-run", *BRIEF, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for word in ("parameters", "tokens", "memory", "notes/s", "minutes"):
        assert word in done.stdout
    found = json.loads(musicgen("train", data / "freedoom", "--dry-run", "--json", *BRIEF, cwd=tmp_path).stdout)
    assert found["updates"] == 4
    assert found["memory_mib"] > 0
    assert not list(tmp_path.iterdir())


def test_a_budget_is_trained_for_and_told_to_a_program(data, tmp_path):
    words = ("--budget", "1s", "--json", "--set", "training.warmup=1")
    done = musicgen("train", data / "freedoom", "--out", tmp_path / "model", *SMALL, *words)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["step"] >= 1
    assert report["valid"]["notes"] > 0
    assert "clipped" in done.stderr
    assert "minutes left" in done.stderr


def test_a_picture_that_can_not_be_drawn_is_refused_before_anything_is_written(checkpoint, data, tmp_path):
    score = data / "schubert-d759" / "scherzo.mid"
    words = ("finish", score, "--checkpoint", checkpoint, "--out", tmp_path / "f.mid", "--roll", tmp_path / "r.jpg")
    done = musicgen(*words)
    assert done.returncode == 2
    assert ".png" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_place_that_can_not_be_written_is_a_line_and_not_a_traceback(data, tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = process("convert", data / "kern" / "new-britain.krn", tmp_path / "file" / "x.mid")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("musicgen:")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("check", "nowhere"), "no such folder"),
        (("train", "nowhere", "--out", "x"), "no such folder"),
        (("sample", "nowhere", "--out", "x"), "no such checkpoint"),
        (("convert", "nowhere.mid", "x.abc"), "nowhere.mid"),
        (("convert", "README.md", "x.abc"), "no reader"),
        (("convert", "data/kern/new-britain.krn", "x.wav"), "no writer"),
        (("convert", "data/kern/new-britain.krn", "x"), "needs a suffix"),
        (("convert", "data/kern", "x.mid"), "is a folder"),
        (("check", "data/freedoom", "--set", "model.dims=3"), "known: decoder, dim"),
        (("check", "data/freedoom", "--config", "nowhere.yaml"), "nowhere.yaml"),
        (("check", "music21:bax"), "no such collection"),
        (("prepare", "data/freedoom", "--shard", "3"), "--shard 3: expected K/N"),
        (("prepare", "data/freedoom", "--shard", "1/2"), "needs --out"),
        (("prepare", "data/freedoom", "--shard", "9/9", "--out", "x"), "is empty"),
        (("tokens", "data/irish/tunes.abc", "--tokenizer", "remi"), "tokenizer.name"),
        (("tokens", "data/schubert-d759/scherzo.mid", "--tokenizer", "abc"), "parts that play"),
        (("train", "data/freedoom", "--out", "x", "--device", "tpu"), "tpu"),
        (("train", "data/freedoom", "--out", "x", "--set", "training.seed=-1"), "training.seed"),
        (("train", "data/freedoom", "--out", "x", "--resume"), "nothing to resume"),
        (("train", "data/freedoom"), "needs --out"),
        (("train", "data/freedoom", "--out", "x", "--budget", "soon"), "such as 90s, 10m or 1h30m"),
        (("train", "data/freedoom", "--out", "x", "--set", "training.without_coordinates=[tea]"), "known: beat"),
        (("sample", "x", "--out", "x", "--seed", "99999999999999999999"), "seed"),
        (("sample",), "CHECKPOINT"),
    ],
)
def test_a_users_error_is_one_clear_line_and_exit_code_2(words, said, tmp_path):
    root = Path(__file__).resolve().parents[2]
    done = musicgen(*words, cwd=root)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("musicgen:")]) <= 1
    assert not (root / "x").exists()


def test_an_unreadable_fragment_leaves_nothing_behind(checkpoint, tmp_path):
    bad = tmp_path / "bad.mid"
    bad.write_bytes(b"MThd\x00\x00\x00\x06\x00\x01\x00\x01\x01\xe0MTrk\x00\x00\x00\x04\x00\xff\x2f\x00")
    done = musicgen("finish", bad, "--checkpoint", checkpoint, "--out", tmp_path / "out" / "f.mid")
    assert done.returncode == 2
    assert "no notes" in done.stderr
    assert not (tmp_path / "out").exists()
