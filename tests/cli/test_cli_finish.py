"""`musicgen finish` as a user meets it: what it read, what became of each take, and how it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from musicgen import workflows
from musicgen.errors import FinishError
from musicgen.formats import read_score, write_score
from musicgen.score import Part, Score


def test_what_was_read_is_a_block_a_musician_can_check(run, checkpoint, scherzo, tmp_path):
    done = run("finish", scherzo, "--checkpoint", checkpoint, "--out", tmp_path / "f.mid", "--bars", 1)
    assert done.code == 0
    for line in (
        "9 bars of 3/4; bar 9 is complete",
        "B minor",
        "192 quarters a minute",
        "13 parts, 13 playing in the last 8 bars",
        "Violino I        Violin       Eb4 to B5  G3 to G7      19  plays   B4",
    ):
        assert line in done.err
    assert "next: musicgen finish" in done.err


def test_a_table_on_stdout_has_a_row_a_take(run, checkpoint, scherzo, tmp_path):
    words = ("--out", tmp_path / "f.mid", "--bars", 2, "--takes", 3)
    done = run("finish", scherzo, "--checkpoint", checkpoint, *words)
    table = done.out.splitlines()
    assert table[0].split("  ")[0] == "take"
    for column in ("nats a note", "likeness", "repeated bars", "copied notes", "quoted notes"):
        assert column in table[0]
    for name in ("f.mid", "f-take2.mid", "f-take3.mid"):
        assert sum(f"{tmp_path / name} " in line for line in table) == 1


def test_json_has_all_that_was_understood_and_every_figure(run, checkpoint, scherzo, tmp_path):
    words = ("--out", tmp_path / "f.mid", "--bars", 1, "--takes", 2, "--json")
    done = run("finish", scherzo, "--checkpoint", checkpoint, *words)
    found = json.loads(done.out)
    assert found["understood"]["last_complete_bar"] == 9
    assert found["understood"]["parts"][8]["sounding"] == ["B4"]
    for take in found["takes"]:
        assert take["new_bars"] == 1
        assert 0 <= take["figures"]["likeness"] <= 1
        assert set(take["figures"]["overlaps"]) == {"pitch classes", "note lengths", "intervals", "density"}
        assert take["figures"]["repetition"] == 0


def test_what_cannot_be_continued_is_one_line_and_code_2_and_nothing_is_written(run, checkpoint, tmp_path):
    source = tmp_path / "rests.mid"
    write_score(Score((Part("Flute", 73),), length=1920), source)
    words = ("--out", tmp_path / "new" / "f.mid", "--roll", tmp_path / "roll.png")
    done = run("finish", source, "--checkpoint", checkpoint, *words)
    assert done.code == 2
    assert done.out == ""
    assert len(done.err.splitlines()) == 1
    assert "no notes, so there is nothing to continue" in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["rests.mid"]


# takes and their report


def test_the_report_stands_beside_the_takes_with_their_figures(run, checkpoint, scherzo, tmp_path):
    words = ("--out", tmp_path / "f.mid", "--bars", 2, "--takes", 2)
    done = run("finish", scherzo, "--checkpoint", checkpoint, *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f-take2.mid", "f.mid", "f.mid.report.md"]
    page = (tmp_path / "f.mid.report.md").read_text()
    assert f"report  {tmp_path / 'f.mid.report.md'}" in done.out
    for words in ("| f.mid |", "| f-take2.mid |", "the fragment itself", "2 bars asked for, 2 takes, seed 0"):
        assert words in page
    assert str(tmp_path) not in page


def test_the_same_seed_gives_the_same_files_and_the_same_report(run, checkpoint, scherzo, tmp_path):
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        words = ("--out", tmp_path / name / "f.mid", "--bars", 2, "--takes", 2, "--seed", seed)
        assert run("finish", scherzo, "--checkpoint", checkpoint, *words).code == 0
    one, same, other = (
        {path.name: path.read_bytes() for path in sorted((tmp_path / name).iterdir())}
        for name in ("one", "same", "other")
    )
    assert one == same
    assert len(one) == 3
    assert all(one[name] != other[name] for name in one)


def test_what_is_copied_from_the_training_pieces_is_told(run, checkpoint, scherzo, tmp_path):
    done = run("finish", scherzo, "--checkpoint", checkpoint, "--out", tmp_path / "f.mid", "--bars", 4, "--json")
    found = json.loads(done.out)
    assert found["takes"][0]["figures"]["copied"] is not None
    assert found["fragment"]["copied"]["notes"] > 1
    assert found["fragment"]["copied"]["source"]
    assert found["report"] == str(tmp_path / "f.mid.report.md")


def test_where_no_melodies_are_kept_the_command_says_so(run, checkpoint, scherzo, tmp_path):
    bare = Path(shutil.copytree(checkpoint, tmp_path / "bare"))
    (bare / "melodies.safetensors").unlink()
    done = run("finish", scherzo, "--checkpoint", bare, "--out", tmp_path / "f.mid", "--bars", 1)
    assert done.code == 0
    assert "originality unknown: this checkpoint keeps no melodies" in done.out


def test_without_bars_it_ends_by_itself_within_max_bars(run, checkpoint, scherzo, tmp_path):
    words = ("--out", tmp_path / "f.mid", "--max-bars", 3, "--json")
    done = run("finish", scherzo, "--checkpoint", checkpoint, *words)
    assert done.code == 0
    (take,) = json.loads(done.out)["takes"]
    assert 0 <= take["new_bars"] <= 3
    assert len(read_score(tmp_path / "f.mid").bars) == take["bars"]


def test_instruments_are_added_by_name_or_number_with_commas_or_again(run, checkpoint, scherzo, tmp_path):
    out = tmp_path / "f.mid"
    words = ("--checkpoint", checkpoint, "--out", out, "--bars", 2)
    done = run("finish", scherzo, *words, "--add-part", "Tuba, 73", "--add-part", "drums")
    assert done.code == 0
    parts = read_score(out).parts[len(read_score(scherzo).parts) :]
    assert [part.name for part in parts] == ["Tuba", "Flute", "Drums"]
    assert "--add-part 'Tuba, 73' --add-part drums" in done.err.splitlines()[-1]


def test_an_instrument_that_there_is_not_is_one_line_and_code_2(run, checkpoint, scherzo, tmp_path):
    done = run("finish", scherzo, "--checkpoint", checkpoint, "--out", tmp_path / "f.mid", "--add-part", "Kazoo")
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith("musicgen: --add-part: 'Kazoo' is no General MIDI instrument")
    assert list(tmp_path.iterdir()) == []


def test_metre_tempo_and_key_are_free_on_request(run, checkpoint, scherzo, tmp_path):
    out = tmp_path / "f.mid"
    done = run("finish", scherzo, "--checkpoint", checkpoint, "--out", out, "--bars", 8, "--free")
    assert done.code == 0
    assert len(read_score(out).bars) == 9 + 8
    assert "free to change" in (tmp_path / "f.mid.report.md").read_text()


def test_takes_of_an_earlier_run_are_named_as_they_go(run, checkpoint, scherzo, tmp_path):
    words = ("finish", scherzo, "--checkpoint", checkpoint, "--out", tmp_path / "f.mid", "--bars", 1)
    run(*words, "--takes", 3)
    done = run(*words, "--takes", 2)
    assert f"removed {tmp_path / 'f-take3.mid'}, a take of an earlier run" in done.out
    assert not (tmp_path / "f-take3.mid").exists()


@pytest.mark.parametrize("command", ["finish", "sample"])
def test_how_often_a_model_is_reminded_is_an_option(monkeypatch, run, checkpoint, scherzo, tmp_path, command):
    told = []

    def hear(*_, config, **__):
        told.append(config.most_recalled)
        raise FinishError("heard")

    monkeypatch.setattr(workflows, "finish_score" if command == "finish" else "sample_pieces", hear)
    words = (scherzo, "--out", tmp_path / "f.mid") if command == "finish" else ("--out", tmp_path)
    assert run(command, *words, "--reminders", 7).code == 2
    assert run(command, *words).code == 2
    assert told == [7, 3]
