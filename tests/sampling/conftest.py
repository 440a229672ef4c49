"""Small models, trained for a few steps only: what the sampler and the finisher guarantee must hold for any model."""

from __future__ import annotations

import pytest

from musicgen import workflows
from musicgen.checkpoint import load_checkpoint
from musicgen.config import check_config

SMALL = {"dim": 24, "layers": 1, "heads": 2, "memory": 64}
BRIEF = {"steps": 30, "streams": 4, "chunk": 32, "warmup": 2, "evaluate_every": 30, "learning_rate": 0.01}


@pytest.fixture(scope="session", params=["rnn", "lstm", "transformer"])
def orchestra(request, data, tmp_path_factory):
    """A `bars` model that has seen a little orchestral music."""
    out = tmp_path_factory.mktemp("orchestra") / request.param
    values = {"model": {"decoder": request.param, **SMALL}, "training": BRIEF}
    workflows.train(data / "orchestra", check_config(values, "test"), out)
    return load_checkpoint(out)


@pytest.fixture(scope="session")
def rock(data, tmp_path_factory):
    """A `bars` model that has seen drums."""
    out = tmp_path_factory.mktemp("rock") / "lstm"
    workflows.train(data / "freedoom", check_config({"model": SMALL, "training": BRIEF}, "test"), out)
    return load_checkpoint(out)


@pytest.fixture(scope="session")
def tunes(data, tmp_path_factory):
    """An `abc` model that has seen a few Irish tunes."""
    out = tmp_path_factory.mktemp("tunes") / "lstm"
    values = {"tokenizer": {"name": "abc"}, "model": SMALL, "training": BRIEF}
    workflows.train(data / "irish", check_config(values, "test"), out)
    return load_checkpoint(out)
