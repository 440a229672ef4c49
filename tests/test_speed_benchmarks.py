"""The benchmarks of speed run to their tables, in small; how fast anything is, is not judged here."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HAS_TRANSFORMERS = importlib.util.find_spec("transformers") is not None
needs_transformers = pytest.mark.skipif(
    not HAS_TRANSFORMERS, reason="transformers is not installed: pip install -e '.[benchmarks]'"
)


def run(*command: object, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@needs_transformers
def test_training_speed_is_compared_for_every_decoder_with_its_loss(tmp_path: Path):
    printed = run(sys.executable, "benchmarks/speed.py", "--quick", "--json", tmp_path / "found.json")
    rows = json.loads((tmp_path / "found.json").read_text())["rows"]
    assert {row["model"].split()[0] for row in rows} == {"transformer", "lstm", "gru", "rnn"}
    assert all(row["ratio"] > 0 and row["held_out"] > 0 for row in rows)
    assert printed.count("\n| ") == 5  # a heading, and a row a model


@pytest.mark.slow
@needs_transformers
def test_what_is_run_on_a_gpu_runs_in_small_without_one(tmp_path: Path):
    run("bash", "benchmarks/gpu.sh", tmp_path, PYTHON=sys.executable, CUDA_VISIBLE_DEVICES="")
    rows = json.loads((tmp_path / "gpu.json").read_text())["rows"]
    assert len(rows) == 7
    failed = [row["failed"] for row in rows if "failed" in row and "compiled" not in row["model"]]
    assert [reason for reason in failed if "out of time" not in reason] == []
    assert " failed" not in (tmp_path / "tests.txt").read_text()
