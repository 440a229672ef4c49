"""A run and what surrounds it: killed, resumed, in several processes, measured beforehand."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest
import torch

from musicgen import cli, runs, workflows
from musicgen.checkpoint import BEST, LAST, load_checkpoint, read_tensors
from musicgen.config import RunConfig, check_config, dump_config
from musicgen.corpus import load_corpus
from musicgen.dry_run import TRIED
from musicgen.errors import CheckpointError, ConfigError
from musicgen.terminal import train_with_progress
from musicgen.training.loop import Trainer
from musicgen.training.processes import started

MODEL = {"dim": 16, "layers": 1, "decoder": "lstm", "dropout": 0.1}
TRAINING = {"steps": 8, "streams": 2, "chunk": 16, "evaluate_every": 4, "warmup": 1, "hide_coordinates": 0.2}


def config(model=None, **training) -> RunConfig:
    return check_config({"model": {**MODEL, **(model or {})}, "training": {**TRAINING, **training}}, "test")


def metrics(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def assert_same_weights(one: Path, other: Path) -> None:
    """And moments, average, state, random generators."""
    for name in (BEST, LAST):
        (expected, _), (found, _) = read_tensors(one / name), read_tensors(other / name)
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            assert torch.equal(value, found[key]), key


def command(run: RunConfig, data: Path, out: Path, *words: str) -> list[str]:
    out.parent.mkdir(parents=True, exist_ok=True)
    written = out.with_suffix(".yaml")
    written.write_text(dump_config(run))
    return ["-m", "musicgen", "train", str(data / "freedoom"), "--config", str(written), "--out", str(out), *words]


ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


@pytest.mark.slow
def test_a_run_killed_between_two_looks_is_gone_on_with_to_the_same_weights(data, tmp_path):
    run = config(steps=120, evaluate_every=50, save_every=0)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    workflows.train(data / "freedoom", run, whole)
    process = subprocess.Popen(
        [sys.executable, *command(run, data, killed)],
        env={**os.environ, **ENVIRONMENT},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (killed / LAST).exists() or read_tensors(killed / LAST)[1]["step"] < 10:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert 10 <= read_tensors(killed / LAST)[1]["step"] < 120
    workflows.train(data / "freedoom", run, killed, resume=True)
    assert_same_weights(whole, killed)
    assert [line["step"] for line in metrics(killed)] == [50, 100, 120]


def test_a_run_that_is_asked_to_end_saves_and_can_be_gone_on_with(data, tmp_path):
    """By SIGTERM, as a cluster does before it takes a machine away."""

    def end(report) -> None:
        if report.step == 5:
            signal.raise_signal(signal.SIGTERM)

    whole, ended = tmp_path / "whole", tmp_path / "ended"
    workflows.train(data / "freedoom", config(), whole)
    report = workflows.train(data / "freedoom", config(), ended, on_step=end)
    assert report.interrupted
    assert read_tensors(ended / LAST)[1]["step"] == report.step == 6
    workflows.train(data / "freedoom", config(), ended, resume=True)
    assert_same_weights(whole, ended)


def test_the_averaged_weights_are_those_that_a_checkpoint_gives(data, tmp_path):
    workflows.train(data / "freedoom", config(steps=4, evaluate_every=4), tmp_path / "out")
    tensors, _ = read_tensors(tmp_path / "out" / LAST)
    for name, value in load_checkpoint(tmp_path / "out").model.state_dict().items():
        assert torch.equal(value, tensors[f"average.{name}"])
    assert not torch.equal(tensors["average.head.norm.weight"], tensors["model.head.norm.weight"])


def test_a_look_is_a_line_of_json_that_tells_loss_speed_and_clipping(data, tmp_path):
    workflows.train(data / "freedoom", config(), tmp_path / "out")
    for line in metrics(tmp_path / "out"):
        by_field = line["valid_nats_per_note_by_field"]
        assert sum(by_field.values()) == pytest.approx(line["valid_nats_per_note"], rel=1e-6)
        assert line["notes_per_second"] > 0
        assert 0 <= line["clipped_share"] <= 1
        assert line["precision"] == "fp32"


def test_a_coordinate_withheld_in_training_says_nothing_to_the_checkpoint_either(data, tmp_path):
    run = config(without_coordinates=["beat", "bars_left"])
    workflows.train(data / "freedoom", run, tmp_path / "out")
    loaded = load_checkpoint(tmp_path / "out")
    names = [c.name for c in loaded.tokenizer.coordinates]
    steps = torch.ones(1, 5, len(loaded.tokenizer.fields), dtype=torch.long)
    told = torch.ones(1, 5, len(names), dtype=torch.long)
    for name in names:
        withheld = told.clone()
        withheld[..., names.index(name)] = 0
        with_it, _ = loaded.model(steps, told, loaded.model.initial_state(1))
        without_it, _ = loaded.model(steps, withheld, loaded.model.initial_state(1))
        assert torch.equal(with_it, without_it) == (name in ("beat", "bars_left")), name


@pytest.fixture
def wound_clock(monkeypatch) -> None:
    """A second goes by from each time that a trainer looks at its clock to the next: an update or a look takes one."""
    clock = itertools.count().__next__
    monkeypatch.setattr(runs, "Trainer", functools.partial(Trainer, clock=clock))


def test_a_budget_ends_a_run_that_steps_would_not_and_more_of_it_goes_on(data, tmp_path, wound_clock):
    run = config(budget=20, patience=10_000)
    report = workflows.train(data / "freedoom", run, tmp_path / "out")
    assert report.step > run.training.steps
    assert 18 <= report.seconds <= 20
    assert not report.stopped_early
    more = workflows.resume_config(tmp_path / "out", ["training.budget=30s"])
    again = workflows.train(data / "freedoom", more, tmp_path / "out", resume=True)
    assert again.step > report.step
    assert 28 <= again.seconds <= 30


def test_after_a_budget_only_a_few_pieces_learnt_from_are_evaluated(data, tmp_path, monkeypatch, wound_clock):
    evaluated: list[int] = []
    real = Trainer.evaluated

    def note(trainer, model, pieces, processes=None):
        evaluated.append(sum(piece.length for piece in pieces))
        return real(trainer, model, pieces, processes)

    monkeypatch.setattr(Trainer, "evaluated", note)
    report = workflows.train(data / "freedoom", config(budget=20), tmp_path / "out")
    *looks, last = evaluated
    assert len(looks) == len(metrics(tmp_path / "out"))
    assert report.train is not None
    shortest = min(piece.length for piece in load_corpus(data / "freedoom", config().tokenizer.build()).pieces)
    assert last <= max(looks[0], shortest)
    assert report.train.steps == last - report.train.pieces


def test_the_validation_loss_that_is_reported_is_that_of_the_best_look(data, tmp_path):
    report = workflows.train(data / "freedoom", config(steps=12, learning_rate=0.3), tmp_path / "out")
    looks = metrics(tmp_path / "out")
    assert report.valid is not None
    assert report.valid.per_note == min(line["valid_nats_per_note"] for line in looks)
    again = workflows.train(data / "freedoom", config(steps=12), tmp_path / "out", resume=True)  # nothing is left to do
    assert again.valid == report.valid


def test_the_mean_training_loss_of_a_look_is_nats_by_notes(data, tmp_path):
    seen = []
    workflows.train(data / "freedoom", config(), tmp_path / "out", on_step=seen.append)
    for line, since in zip(metrics(tmp_path / "out"), (seen[:4], seen[4:]), strict=True):
        nats, notes = sum(r.nats_per_note * r.notes for r in since), sum(r.notes for r in since)
        assert line["train_nats_per_note"] == pytest.approx(nats / notes)


def test_the_best_that_a_terminal_shows_is_that_of_the_whole_run_also_after_a_resume(data, tmp_path, capsys):
    folders, out = [str(data / "freedoom")], tmp_path / "out"
    train_with_progress(folders, config(learning_rate=0.01), out, False, "cpu")
    worse = config(learning_rate=1.0, warmup=0, average=0.0, steps=12)
    capsys.readouterr()
    train_with_progress(folders, worse, out, True, "cpu")
    found = [line["valid_nats_per_note"] for line in metrics(out)]
    assert found[2] > found[1]
    assert re.findall(r"best (\d\S*)\)", capsys.readouterr().err) == [f"{min(found):.3f}"]


@pytest.mark.parametrize("lacking", ["precision", "best_look"])
def test_a_run_of_an_earlier_version_is_not_resumed(lacking, data, tmp_path):
    from musicgen.checkpoint import write_tensors

    workflows.train(data / "freedoom", config(), tmp_path / "out")
    tensors, facts = read_tensors(tmp_path / "out" / LAST)
    facts.pop(lacking)
    write_tensors(tmp_path / "out" / LAST, tensors, facts)
    with pytest.raises(CheckpointError, match="earlier version"):
        workflows.train(data / "freedoom", config(), tmp_path / "out", resume=True)


# the dry run


def test_a_dry_run_says_what_a_run_costs_and_keeps_nothing(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = workflows.dry_run(data / "freedoom", config())
    assert not list(tmp_path.iterdir())
    report = workflows.train(data / "freedoom", config(), tmp_path / "out")
    assert found.parameters == report.parameters
    assert (found.pieces, found.valid_pieces) == (report.pieces, report.valid_pieces)
    assert found.weights_mib * 2**20 == 4 * found.parameters
    assert found.memory_mib > found.weights_mib + found.activations_mib > found.weights_mib
    assert found.updates == 8
    assert found.epochs == pytest.approx(8 * 2 * 16 / found.tokens)
    assert 0 < found.minutes < 10


def test_a_dry_run_times_every_update_it_makes_but_the_first(data, monkeypatch):
    made = []
    real = Trainer._update
    monkeypatch.setattr(Trainer, "_update", lambda *words: made.append(1) or real(*words))
    workflows.dry_run(data / "freedoom", config())
    assert len(made) == 1 + TRIED


def test_a_dry_run_of_a_budget_says_how_far_it_will_come(data):
    found = workflows.dry_run(data / "freedoom", config(budget="2m"))
    assert found.minutes == 2
    assert found.updates > 100


# TensorBoard


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is not None, reason="TensorBoard is installed")
def test_without_tensorboard_the_option_says_how_to_get_it_and_nothing_is_begun(data, tmp_path):
    with pytest.raises(ConfigError, match=r"pip install 'musicgen\[tensorboard\]'"):
        workflows.train(data / "freedoom", config(), tmp_path / "out", tensorboard=True)
    assert not (tmp_path / "out").exists()


def test_tensorboard_is_told_every_step_and_every_look(data, tmp_path, monkeypatch):
    told: list[tuple[str, int]] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            assert folder == str(tmp_path / "out" / "tensorboard")
            told.append(("from here on anew", purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            told.append((name, step))

        def close(self) -> None:
            told.append(("closed", 0))

    fake = types.ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    workflows.train(data / "freedoom", config(), tmp_path / "out", tensorboard=True)
    assert [step for name, step in told if name == "train/nats a note"] == list(range(1, 9))
    assert [step for name, step in told if name == "validation/nats a note"] == [4, 8]
    assert told[-1][0] == "closed"
    workflows.train(data / "freedoom", config(steps=10), tmp_path / "out", tensorboard=True, resume=True)
    assert [step for name, step in told if name == "from here on anew"] == [1, 9]


# several processes


def together(count: int, arguments: list[str]) -> subprocess.CompletedProcess:
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count), *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, **ENVIRONMENT})


SHARED = {
    "model": {"dropout": 0.0, "hearing": True},  # dropout is drawn in each process by itself
    **{"streams": 4, "mask_notes": 0.1, "accumulate": 2, "steps": 8, "evaluate_every": 2, "final_share": 1.0},
}
HALF = {**SHARED, "steps": 4}


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "run"
    workflows.train(data / "freedoom", config(**SHARED), out)
    return out


def assert_same_curve(found: list[dict], expected: list[dict]) -> None:
    assert [line["step"] for line in found] == [line["step"] for line in expected]
    for one, other in zip(found, expected, strict=True):
        for name in ("train_nats_per_step", "train_nats_per_note", "valid_nats_per_note", "gradient_norm"):
            assert one[name] == pytest.approx(other[name], rel=1e-5), (one["step"], name)


@pytest.mark.slow
def test_two_processes_have_the_curve_of_one_and_one_goes_on_from_them(data, alone, tmp_path):
    out = tmp_path / "out"
    done = together(2, command(config(**HALF), data, out))
    assert done.returncode == 0, done.stderr
    assert "2 processes" in done.stderr
    assert done.stdout.count("nats a note") == 1  # one of them speaks
    assert_same_curve(metrics(out), metrics(alone)[:2])
    workflows.train(data / "freedoom", workflows.resume_config(out, ["training.steps=8"]), out, resume=True)
    assert_same_curve(metrics(out), metrics(alone))


@pytest.mark.slow
def test_two_processes_go_on_from_one(data, alone, tmp_path):
    out = tmp_path / "out"
    workflows.train(data / "freedoom", config(**HALF), out)
    words = ("train", str(data / "freedoom"), "--out", str(out), "--resume", "--set", "training.steps=8")
    done = together(2, ["-m", "musicgen", *words])
    assert done.returncode == 0, done.stderr
    assert_same_curve(metrics(out), metrics(alone))


@pytest.mark.parametrize("rank", ["0", "1"])
def test_with_fewer_gpus_than_processes_each_of_them_says_so(rank, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="start one process a GPU"), started(torch.device("cuda")):
        pass


@pytest.mark.parametrize(("rank", "said"), [("0", "musicgen: no"), ("1", "musicgen: process 1: no")])
def test_what_one_process_alone_has_met_is_said_by_it(rank, said, monkeypatch, capsys):
    def fail() -> None:
        raise ConfigError("no")

    waited: list[float] = []
    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(cli.time, "sleep", waited.append)
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("GOMP_SPINCOUNT", "3000")
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err.strip() == said
    assert len(waited) == int(rank)  # for the first to say it, if it met it too


@pytest.mark.slow
def test_rows_that_do_not_divide_among_processes_are_refused_in_one_line(data, tmp_path):
    done = together(3, command(config(streams=4), data, tmp_path / "out"))
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if line.startswith("musicgen:")]
    assert said == ["musicgen: training.streams 4: does not divide among 3 processes"]
    assert not (tmp_path / "out").exists()
