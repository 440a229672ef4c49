"""What may be asked of a continuation: who plays, a copy tuned to the fragment, a checkpoint that need not be named."""

from __future__ import annotations

import pytest
import torch

from musicgen import given, workflows
from musicgen.errors import CheckpointError, FinishError
from musicgen.formats import read_score, read_scores, write_score
from musicgen.score import clip


@pytest.fixture(scope="module")
def scherzo(data):
    return data / "schubert-d759" / "scherzo.mid"


def test_only_the_parts_named_play_from_the_seam_on(orchestra, scherzo, tmp_path):
    names = ["violino i", " Viola"]
    report = workflows.finish_score(scherzo, orchestra.folder, tmp_path / "a.mid", bars=4, parts=names)
    new = report.takes[0].new
    assert {part.name for part in new.parts if len(part.notes)} == {"Violino I", "Viola"}


def test_a_part_that_is_not_there_is_told_and_nothing_is_written(orchestra, scherzo, tmp_path):
    with pytest.raises(FinishError, match="no part is called 'Kazoo'; there are Flauti, Oboi"):
        workflows.finish_score(scherzo, orchestra.folder, tmp_path / "a.mid", bars=4, parts=["Kazoo"])
    assert not list(tmp_path.iterdir())


def test_a_model_of_one_melody_can_not_choose_parts(tunes, data, tmp_path):
    tune = tmp_path / "tune.mid"
    write_score(clip(read_score(data / "orchestra" / "bach-bwv1048-3.mid"), 1920), tune)
    with pytest.raises(FinishError):
        workflows.finish_score(tune, tunes.folder, tmp_path / "a.mid", bars=2, parts=["Violin 1"])


def test_adapting_says_what_it_did_and_leaves_the_checkpoint_alone(orchestra, scherzo, tmp_path):
    before = {path.name: path.read_bytes() for path in orchestra.folder.iterdir() if path.is_file()}
    report = workflows.finish_score(scherzo, orchestra.folder, tmp_path / "a.mid", bars=2, adapting=True)
    assert report.adaptation is not None
    assert report.adaptation.in_words in report.page.read_text()
    assert {path.name: path.read_bytes() for path in orchestra.folder.iterdir() if path.is_file()} == before


def test_adapting_twice_with_one_seed_gives_one_file(orchestra, scherzo, tmp_path):
    for name in ("a.mid", "b.mid"):
        workflows.finish_score(scherzo, orchestra.folder, tmp_path / name, bars=2, adapting=True, seed=3)
        torch.randn(3)  # whatever else is drawn in between
    assert (tmp_path / "a.mid").read_bytes() == (tmp_path / "b.mid").read_bytes()


def test_a_checkpoint_that_is_not_named_is_found_by_what_the_score_is(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("folk", "orchestra"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "best.safetensors").touch()
    tune = read_scores(data / "irish" / "tunes.abc")[0]
    band = read_score(data / "schubert-d759" / "scherzo.mid")
    assert given.checkpoint_for(tune).name == "folk"
    assert given.checkpoint_for(band).name == "orchestra"


def test_without_any_checkpoint_it_is_said_what_to_do(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(given, "__file__", str(tmp_path / "elsewhere" / "given.py"))
    with pytest.raises(CheckpointError, match="name one, or `make checkpoints`"):
        given.checkpoint_for(read_score(data / "schubert-d759" / "scherzo.mid"))


def test_nobody_strikes_more_notes_at_once_than_they_have_so_far(orchestra, scherzo, tmp_path):
    report = workflows.finish_score(scherzo, orchestra.folder, tmp_path / "a.mid", bars=8, takes=2)

    def together(part) -> int:
        onsets = part.notes["onset"].tolist()
        return max((onsets.count(onset) for onset in set(onsets)), default=0)

    for take in report.takes:
        for old, new in zip(read_score(scherzo).parts, take.new.parts, strict=True):
            assert together(new) <= together(old), old.name


def test_nobody_plays_more_than_a_fifth_beyond_what_they_have(orchestra, scherzo, tmp_path):
    report = workflows.finish_score(scherzo, orchestra.folder, tmp_path / "a.mid", bars=8, takes=2)
    for take in report.takes:
        for old, new in zip(read_score(scherzo).parts, take.new.parts, strict=True):
            if len(new.notes):
                assert old.notes["pitch"].min() - 7 <= new.notes["pitch"].min(), old.name
                assert new.notes["pitch"].max() <= old.notes["pitch"].max() + 7, old.name
