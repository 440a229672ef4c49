"""A checkpoint is a folder of safetensors and text; what is wrong with one is said in a line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from musicgen import checkpoint, workflows
from musicgen.checkpoint import BEST, LAST, MELODIES, load_checkpoint, read_tensors, write_tensors
from musicgen.config import check_config
from musicgen.corpus import load_corpus
from musicgen.errors import CheckpointError, TrainingError
from musicgen.runs import resume_config
from musicgen.score.lines import as_known, find_lines, longest_run

VALUES = {
    "model": {"dim": 16, "layers": 1, "decoder": "gru"},
    "training": {"steps": 8, "streams": 2, "chunk": 16, "evaluate_every": 4, "warmup": 1},
}


@pytest.fixture(scope="module")
def made(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made") / "small"
    workflows.train(data / "freedoom", check_config(VALUES, "test"), out)
    return out


@pytest.fixture
def copy(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "copy"))


def test_a_checkpoint_holds_weights_configuration_vocabulary_and_metrics(made):
    names = {"best.safetensors", "last.safetensors", "melodies.safetensors"}
    names |= {"config.yaml", "corpus.json", "metrics.jsonl", "vocabulary.json", "curves.png", "samples"}
    assert {p.name for p in made.iterdir()} == names
    lines = [json.loads(line) for line in (made / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8]
    assert all(line["valid_nats_per_note"] > 0 for line in lines)


def test_a_loaded_model_gives_the_same_outputs_each_time(made):
    one, other = load_checkpoint(made), load_checkpoint(made)
    for a, b in zip(one.model.parameters(), other.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not one.model.training


def test_the_best_weights_are_those_of_the_best_evaluation(made):
    tensors, facts = read_tensors(made / BEST)
    lines = [json.loads(line) for line in (made / "metrics.jsonl").read_text().splitlines()]
    best = min(lines, key=lambda line: line["valid_nats_per_step"])
    assert facts["step"] == best["step"]
    assert all(name.startswith("model.") for name in tensors)


@pytest.mark.parametrize("name", ["config.yaml", "vocabulary.json", "corpus.json", BEST])
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(copy)


def test_damaged_weights_are_refused_in_one_line(copy):
    (copy / BEST).write_bytes(b"\x80\x04pickle me not")
    with pytest.raises(CheckpointError, match="damaged") as caught:
        load_checkpoint(copy)
    assert "\n" not in str(caught.value)


def test_weights_of_another_shape_are_refused(copy):
    config = (copy / "config.yaml").read_text()
    (copy / "config.yaml").write_text(config.replace("dim: 16", "dim: 32"))
    with pytest.raises(CheckpointError, match="do not fit"):
        load_checkpoint(copy)


def test_another_vocabulary_is_refused(copy):
    vocabulary = json.loads((copy / "vocabulary.json").read_text())
    vocabulary["fields"]["when"][0] = "something else"
    (copy / "vocabulary.json").write_text(json.dumps(vocabulary))
    with pytest.raises(CheckpointError, match="train it again"):
        load_checkpoint(copy)


@pytest.mark.parametrize(("name", "text"), [("vocabulary.json", "[]"), ("corpus.json", "{}"), ("config.yaml", "7")])
def test_a_text_of_another_shape_is_refused_and_named(copy, name, text):
    (copy / name).write_text(text)
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(copy)


def test_a_half_written_line_of_metrics_does_not_stop_a_resume(copy, data):
    with (copy / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "epo')
    workflows.train(data / "freedoom", check_config(VALUES, "test"), copy, resume=True)
    assert [json.loads(line)["step"] for line in (copy / "metrics.jsonl").read_text().splitlines()] == [4, 8]


def test_a_run_whose_loss_is_no_number_says_so(data, tmp_path):
    values = {**VALUES, "training": {**VALUES["training"], "learning_rate": 1e30, "warmup": 0, "steps": 50}}
    with pytest.raises(TrainingError, match="learning_rate"):
        workflows.train(data / "freedoom", check_config(values, "test"), tmp_path / "out")


def test_without_validation_pieces_every_look_is_saved_and_logged(data, tmp_path):
    values = {**VALUES, "training": {**VALUES["training"], "valid_share": 0.0}}
    workflows.train(data / "freedoom", check_config(values, "test"), tmp_path / "out")
    assert [json.loads(line)["step"] for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()] == [
        4,
        8,
    ]
    assert read_tensors(tmp_path / "out" / LAST)[1]["step"] == 8


def test_a_folder_that_is_not_there_is_said_so():
    with pytest.raises(CheckpointError, match="musicgen train"):
        load_checkpoint("nowhere")


def test_a_second_run_into_the_same_folder_needs_resume(made, data):
    with pytest.raises(CheckpointError, match="--resume"):
        workflows.train(data / "freedoom", check_config(VALUES, "test"), made)


def test_resume_without_a_run_is_refused(data, tmp_path):
    with pytest.raises(CheckpointError, match="nothing to resume"):
        workflows.train(data / "freedoom", check_config(VALUES, "test"), tmp_path / "none", resume=True)


def test_resume_on_other_music_is_refused(copy, data):
    with pytest.raises(CheckpointError, match="other music"):
        workflows.train(data / "orchestra", check_config(VALUES, "test"), copy, resume=True)


def test_a_run_stopped_from_the_keyboard_and_resumed_ends_in_the_same_weights(made, data, tmp_path):
    """Ctrl-C after the fifth step: saved, resumed, and bit by bit the run that was never stopped."""
    import signal

    def interrupt(report) -> None:
        if report.step == 4:
            signal.raise_signal(signal.SIGINT)

    out = tmp_path / "stopped"
    report = workflows.train(data / "freedoom", check_config(VALUES, "test"), out, on_step=interrupt)
    assert report.interrupted
    assert report.step == 5 or report.step == 4
    workflows.train(data / "freedoom", check_config(VALUES, "test"), out, resume=True)
    for name in (BEST, LAST):
        whole, _ = read_tensors(made / name)
        resumed, _ = read_tensors(out / name)
        for key, value in whole.items():
            assert torch.equal(value, resumed[key]), key
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == [4, 8]


# the melodies of the training pieces


def test_the_melody_lines_of_the_training_pieces_come_back(made, data):
    loaded = load_checkpoint(made)
    found = loaded.melodies()
    corpus = load_corpus(data / "freedoom", loaded.tokenizer)
    trained = {piece["fingerprint"] for piece in loaded.corpus["train"]}
    pieces = [piece for piece in corpus.pieces if piece.fingerprint in trained]
    assert found.of == len(found.titles) == len(pieces)
    assert set(found.titles) == {piece.title for piece in pieces}
    lengths = []
    for piece in pieces:
        lines = find_lines(loaded.tokenizer.decode(corpus.steps_of(piece)))
        run = longest_run(lines, found.known)
        assert run.notes > 20
        assert found.title_at(run.place) == piece.title
        lengths.append(len(as_known(lines)))
    assert sorted(np.diff(found.ends, prepend=0).tolist()) == sorted(lengths)


def test_a_piece_held_out_is_not_among_them(made):
    loaded = load_checkpoint(made)
    held_out = {piece["title"] for piece in loaded.corpus["valid"]}
    assert held_out
    assert not held_out & set(loaded.melodies().titles)


def test_no_more_melodies_are_kept_than_there_is_room_for(data, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "MOST_TURNS", 1300)
    workflows.train(data / "freedoom", check_config(VALUES, "test"), tmp_path / "m")
    found = load_checkpoint(tmp_path / "m").melodies()
    assert 0 < len(found.known) <= 1300
    assert len(found.titles) < found.of
    _, facts = read_tensors(tmp_path / "m" / MELODIES)
    assert (facts["pieces"], facts["of"], facts["most"]) == (len(found.titles), found.of, 1300)


def test_a_checkpoint_without_melodies_works_and_knows_none(copy):
    (copy / MELODIES).unlink()
    assert load_checkpoint(copy).melodies() is None


def test_damaged_melodies_are_told_and_hurt_nothing_else(copy):
    tensors, facts = read_tensors(copy / MELODIES)
    for damage in (
        {"ends": tensors["ends"] + 1},
        {"ends": tensors["ends"][:1]},
        {"turns": tensors["turns"][:, :1].contiguous()},
        {"pieces": tensors["pieces"] + 1000},
    ):
        write_tensors(copy / MELODIES, {**tensors, **damage}, facts)
        loaded = load_checkpoint(copy)
        with pytest.raises(CheckpointError, match=r"melodies\.safetensors: damaged"):
            loaded.melodies()


def test_a_resumed_run_leaves_its_melodies_as_they_are(copy, data):
    before = (copy / MELODIES).read_bytes()
    config = resume_config(copy, ["training.steps=10"])
    workflows.train(data / "freedoom", config, copy, resume=True)
    assert (copy / MELODIES).read_bytes() == before
