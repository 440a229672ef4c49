"""The whole road, once: overfit two tunes, sample, and get music that sounds like them."""

from __future__ import annotations

from pathlib import Path

import pytest

from musicgen import workflows
from musicgen.config import check_config
from musicgen.formats import read_score, read_scores, write_score
from musicgen.sampling import SamplingConfig

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["rnn", "lstm", "transformer"])
def test_a_model_that_has_learnt_two_tunes_by_heart_plays_them(decoder, data, tmp_path):
    folder = tmp_path / "tunes"
    for i, tune in enumerate(read_scores(data / "irish" / "tunes.abc", as_written=True)[:2]):
        write_score(tune, folder / f"{i}.abc")
    values = {
        "tokenizer": {"name": "abc"},
        "model": {"decoder": decoder, "dim": 64, "layers": 2, "heads": 4, "memory": 128, "dropout": 0.0},
        "training": {
            "steps": 400,
            "streams": 2,
            "chunk": 64,
            "warmup": 20,
            "learning_rate": 0.004,
            "valid_share": 0.0,
            "evaluate_every": 100,
            "transpose": [0, 0],
            "hide_bars_left": 1.0,
        },
    }
    report = workflows.train(folder, check_config(values, "test"), tmp_path / "model")
    assert report.train is not None
    assert report.train.per_note < 0.2
    greedy = SamplingConfig(temperature=0)
    (piece,) = workflows.sample_pieces(tmp_path / "model", tmp_path / "out", count=1, config=greedy, most_bars=64)
    played = read_score(piece.files[1], as_written=True).parts[0].notes["pitch"].tolist()
    known = [read_score(p, as_written=True).parts[0].notes["pitch"].tolist() for p in sorted(folder.iterdir())]
    assert any(played[:24] == tune[:24] for tune in known)


@pytest.mark.slow
def test_the_demo_writes_what_it_says(tmp_path):
    """`musicgen demo` itself, with the checkpoints that ship."""
    import subprocess
    import sys

    command = [sys.executable, "-m", "musicgen", "demo", "--home", str(ROOT), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = ["tune/01.abc", "tune/01.mid", "piece/01.mid", "scherzo-finished.mid", "scherzo-finished.musicxml"]
    for name in (*names, "scherzo-finished.musicxml.report.md", "scherzo-finished.roll.png", "scherzo-finished.html"):
        assert (tmp_path / "out" / name).stat().st_size > 0
        assert name in done.stdout
    assert "next: musicgen finish" in done.stderr
    assert len(read_score(tmp_path / "out" / "scherzo-finished.mid").bars) == 9 + 32
