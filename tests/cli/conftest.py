"""What tests of the commands share: the command line run in this process, a small model, the scherzo."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from musicgen import workflows
from musicgen.cli import main
from musicgen.config import check_config

SMALL = {
    "model": {"dim": 16, "layers": 1},
    "training": {"steps": 4, "streams": 2, "chunk": 16, "evaluate_every": 4, "warmup": 1, "preview": 0.5},
}


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*words: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["musicgen", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        shown = capsys.readouterr()
        return Done(int(ended.value.code or 0), shown.out, shown.err)

    return call


@pytest.fixture(scope="session")
def checkpoint(data, tmp_path_factory) -> Path:
    """A checkpoint that has hardly learnt anything, and is asked for all the same."""
    out = tmp_path_factory.mktemp("checkpoint") / "model"
    workflows.train(data / "orchestra", check_config(SMALL, "test"), out)
    return out


@pytest.fixture
def scherzo(data) -> Path:
    return data / "schubert-d759" / "scherzo.mid"
