"""A checkpoint is a folder of safetensors and text; what is wrong with one is said in a line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from musicgen import workflows
from musicgen.checkpoint import BEST, LAST, load_checkpoint, read_tensors
from musicgen.config import check_config
from musicgen.errors import CheckpointError, TrainingError

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
    names = {"best.safetensors", "config.yaml", "corpus.json", "last.safetensors", "metrics.jsonl", "vocabulary.json"}
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
