"""`musicgen fill` and `musicgen harmonise` as a user meets them, on real scores, with a model that knows nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from musicgen import workflows
from musicgen.config import check_config
from musicgen.formats import read_score, read_tunes, write_score


@pytest.mark.parametrize("suffix", [".mid", ".musicxml"])
def test_a_filled_score_reads_back_with_all_else_as_it_was(run, checkpoint, data, suffix, tmp_path):
    score = data / "schubert-d759" / f"scherzo{suffix}"
    done = run("fill", score, "--bars", "4-6", "--checkpoint", checkpoint, "--out", tmp_path / f"filled{suffix}")
    assert done.code == 0, done.err
    before, after = read_score(score), read_score(tmp_path / f"filled{suffix}")
    start, stop = int(before.bars[3]), int(before.bars[6])
    assert len(before.parts) == len(after.parts)
    for one, two in zip(before.parts, after.parts, strict=True):
        kept = [n[(n["onset"] < start) | (n["onset"] >= stop)] for n in (one.notes, two.notes)]
        assert np.array_equal(kept[0], kept[1])


def test_another_format_is_written_anew(run, checkpoint, scherzo, tmp_path):
    done = run("fill", scherzo, "--bars", "4-6", "--checkpoint", checkpoint, "--out", tmp_path / "filled.musicxml")
    assert done.code == 0, done.err
    assert len(read_score(tmp_path / "filled.musicxml").bars) == len(read_score(scherzo).bars)


def test_the_takes_stand_in_a_table_and_the_next_command_is_named(run, checkpoint, scherzo, tmp_path):
    done = run("fill", scherzo, "--bars", "4", "--checkpoint", checkpoint, "--out", tmp_path / "f.mid", "--takes", 2)
    assert done.code == 0
    assert done.out.splitlines()[0].split()[:3] == ["take", "file", "notes"]
    assert (tmp_path / "f-take2.mid").exists()
    assert "next: musicgen fill" in done.err


def test_json_holds_the_figures_of_every_take(run, checkpoint, scherzo, tmp_path):
    done = run("fill", scherzo, "--bars", "4", "--checkpoint", checkpoint, "--out", tmp_path / "f.mid", "--json")
    found = json.loads(done.out)
    assert found["bars"] == "4"
    assert found["takes"][0]["notes"] > 0


def test_the_same_seed_fills_the_same_bytes(run, checkpoint, scherzo, tmp_path):
    for name in ("a.mid", "b.mid"):
        assert run("fill", scherzo, "--bars", "3-5", "--checkpoint", checkpoint, "--out", tmp_path / name).code == 0
    assert (tmp_path / "a.mid").read_bytes() == (tmp_path / "b.mid").read_bytes()


@pytest.mark.parametrize(
    ("bars", "said"),
    [("5-3", "--bars 5-3"), ("4-99", "has 9 bars"), ("8-9", "musicgen finish"), ("none", "--bars none")],
)
def test_what_is_no_hole_is_one_line_and_nothing_is_written(run, checkpoint, scherzo, bars, said, tmp_path):
    done = run("fill", scherzo, "--bars", bars, "--checkpoint", checkpoint, "--out", tmp_path / "f.mid")
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_model_without_previews_says_how_to_train_one(run, data, scherzo, tmp_path):
    training = {"steps": 4, "streams": 2, "chunk": 16, "evaluate_every": 4, "warmup": 1, "preview": 0}
    values = {"model": {"dim": 16, "layers": 1}, "training": training}
    workflows.train(data / "orchestra", check_config(values, "test"), tmp_path / "model")
    done = run("fill", scherzo, "--bars", "3", "--checkpoint", tmp_path / "model", "--out", tmp_path / "f.mid")
    assert done.code == 2
    assert "training.preview" in done.err


def test_the_original_is_never_written_over(run, checkpoint, scherzo, tmp_path):
    own = tmp_path / "own.mid"
    own.write_bytes(scherzo.read_bytes())
    for words in (["fill", own, "--bars", "3"], ["harmonise", own]):
        done = run(*words, "--checkpoint", checkpoint, "--out", own)
        assert (done.code, own.read_bytes() == scherzo.read_bytes()) == (2, True)


def test_a_tune_is_harmonised_for_strings(run, checkpoint, data, tmp_path):
    tune = next(t for t in read_tunes(data / "irish" / "tunes.abc"))
    write_score(tune, tmp_path / "tune.musicxml")
    done = run("harmonise", tmp_path / "tune.musicxml", "--checkpoint", checkpoint, "--out", tmp_path / "h.musicxml")
    assert done.code == 0, done.err
    after = read_score(tmp_path / "h.musicxml")
    assert len(after.parts) == 4
    assert np.array_equal(after.parts[0].notes, read_score(tmp_path / "tune.musicxml").parts[0].notes)
    assert "added" in done.out


def test_harmonised_midi_keeps_its_own_tracks_byte_for_byte(run, checkpoint, scherzo, tmp_path):
    done = run(
        "harmonise", scherzo, "--add-part", "piano", "--checkpoint", checkpoint, "--out", tmp_path / "h.mid", "--json"
    )
    assert done.code == 0, done.err
    old, new = scherzo.read_bytes(), (tmp_path / "h.mid").read_bytes()
    assert new[14 : len(old)] == old[14:]  # the header alone says one track more
    assert len(new) > len(old)
    assert json.loads(done.out)["takes"][0]["notes"] > 0


def test_an_instrument_that_nobody_knows_is_refused(run, checkpoint, scherzo, tmp_path):
    done = run("harmonise", scherzo, "--add-part", "kazooo", "--checkpoint", checkpoint, "--out", tmp_path / "h.mid")
    assert (done.code, list(tmp_path.iterdir())) == (2, [])
    assert "kazooo" in done.err
