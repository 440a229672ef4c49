"""What a run leaves behind as it goes: samples to hear it by, and its curves."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from musicgen import run_log, workflows
from musicgen.checkpoint import BEST, read_tensors
from musicgen.config import RunConfig, check_config
from musicgen.errors import RenderError, TokenError
from musicgen.formats import read_score
from musicgen.tokens import TOKENIZERS

VALUES = {
    "model": {"dim": 16, "layers": 1, "decoder": "gru", "dropout": 0.1},
    "training": {"steps": 4, "streams": 2, "chunk": 16, "evaluate_every": 2, "warmup": 1, "sample_bars": 3},
}


def config(**training) -> RunConfig:
    return check_config({**VALUES, "training": {**VALUES["training"], **training}}, "test")


@pytest.fixture(scope="module")
def made(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("made") / "small"
    report = workflows.train(data / "freedoom", config(), out, samples=["roll", "wav"])
    assert report.left == (out / "curves.png", out / "samples")
    return out


def test_each_evaluation_leaves_a_sample_of_as_many_bars_as_were_asked_for(made):
    samples = sorted((made / "samples").glob("*.mid"))
    assert [path.name for path in samples] == ["000002.mid", "000004.mid"]
    for path in samples:
        assert len(read_score(path).bars) == 3
        assert read_score(path).note_count


def test_a_sample_is_played_and_drawn_when_asked(made):
    names = {path.name for path in (made / "samples").iterdir()}
    assert {"000002.wav", "000002.roll.png", "000004.wav", "000004.roll.png"} <= names


def test_a_sample_that_can_not_be_made_is_a_line_and_the_run_goes_on(tmp_path, monkeypatch):
    def fail(*given, **named) -> None:
        raise TokenError("step 3: no such pitch")

    monkeypatch.setattr(run_log, "sample_scores", fail)
    run_log.Samples(tmp_path / "run", config(), TOKENIZERS["bars"]())(None, 2)
    assert (tmp_path / "run" / "samples" / "000002.txt").read_text() == "step 3: no such pitch\n"


def test_curves_are_a_picture_of_every_evaluation(made):
    header = (made / "curves.png").read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", header[16:])
    assert width > 600
    assert height > 500


def test_curves_show_the_very_losses_of_metrics(made, monkeypatch):
    from matplotlib.axes import Axes

    from musicgen.render.curves import draw_curves

    drawn = []
    plot = Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda self, *values, **how: (drawn.append(values[:2]), plot(self, *values, **how))[1]
    )
    looks = [json.loads(line) for line in (made / "metrics.jsonl").read_text().splitlines()]
    draw_curves(looks, made / "again.svg")
    steps = [look["step"] for look in looks]
    assert (steps, [look["train_nats_per_note"] for look in looks]) in drawn
    assert (tuple(steps), tuple(look["valid_nats_per_note"] for look in looks)) in drawn


def test_samples_change_nothing_of_the_weights(made, data, tmp_path):
    workflows.train(data / "freedoom", config(sample_bars=0), tmp_path / "without")
    assert not (tmp_path / "without" / "samples").exists()
    (expected, _), (found, _) = read_tensors(made / BEST), read_tensors(tmp_path / "without" / BEST)
    assert all(value.equal(found[name]) for name, value in expected.items())


def test_a_kind_of_sample_that_is_none_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(RenderError, match=r"'ogg'.*wav, mp3"):
        workflows.train(tmp_path / "nowhere", config(), tmp_path / "out", samples=["ogg"])
    assert not (tmp_path / "out").exists()
