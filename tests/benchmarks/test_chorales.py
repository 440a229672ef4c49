"""The chorale benchmark keeps its protocol: what is counted, what a model is told; and mixtures are probabilities."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

import chorales  # noqa: E402
from chorale_ngram import Ngram, contexts  # noqa: E402

from musicgen.decoders.model import Model, ModelConfig  # noqa: E402

ARCHIVE = "jsb-chorales.tar.gz"


@pytest.fixture(scope="module")
def sets(shared_data: Path) -> dict[str, list[np.ndarray]]:
    return chorales.read_data(shared_data / ARCHIVE)


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    tokenizer = chorales.Columns()
    sizes = [f.size for f in tokenizer.fields], [c.size for c in tokenizer.coordinates]
    config = ModelConfig(decoder="lstm", dim=16, layers=1, dropout=0.0, hearing=True)
    return Model(config, *sizes, tokenizer.hearing).eval()


def test_the_split_and_its_tokens_are_those_of_the_protocol(sets):
    assert [len(sets[name]) for name in ("train", "valid", "test")] == [229, 76, 77]
    assert sum(piece.size for piece in sets["valid"]) == 73632
    assert sum(piece.size for piece in sets["test"]) == 75600


def test_every_token_is_counted_once_and_nothing_else(sets, model):
    corpus = chorales.in_memory(chorales.Columns(), sets["valid"][:3])
    found = chorales.costs(model, corpus)
    assert [cost.shape for cost in found] == [piece.shape for piece in sets["valid"][:3]]
    assert all((cost > 0).all() for cost in found)


def test_what_a_model_pays_for_a_column_depends_on_nothing_that_follows(sets, model):
    piece = sets["valid"][0]
    other = piece.copy()
    other[40:] = sets["valid"][1][40 : len(piece)] if len(sets["valid"][1]) >= len(piece) else piece[40:] + 2
    before, after = (chorales.costs(model, chorales.in_memory(chorales.Columns(), [p]))[0] for p in (piece, other))
    np.testing.assert_allclose(before[:40], after[:40], rtol=1e-5)
    assert not np.allclose(before[40:], after[40:])


def test_the_probabilities_of_a_soprano_sum_to_one_over_its_pitches_and_the_rest(sets, model):
    piece = sets["valid"][0][:6]
    total = 0.0
    for pitch in range(-1, 128):
        changed = piece.copy()
        changed[5, 0] = pitch
        total += np.exp(-chorales.costs(model, chorales.in_memory(chorales.Columns(), [changed]))[0][5, 0])
    assert total == pytest.approx(1.0, abs=1e-4)


def test_the_ngram_is_a_probability_too(sets):
    ngram = Ngram(sets["train"][:5], sets["train"][5:7])
    piece = sets["valid"][0][:6]
    total = 0.0
    for pitch in range(-1, 128):
        changed = piece.copy()
        changed[5, 2] = pitch
        total += np.exp(-ngram.costs(changed)[5, 2])
    assert total <= 1.0
    assert total == pytest.approx(1.0, abs=0.1)  # some intervals from a pitch would leave the 128


def test_the_ngram_counts_the_same_in_every_key(sets):
    piece = sets["train"][0]
    here, there = (list(contexts(p)) for p in (piece, np.where(piece < 0, piece, piece + 3)))
    assert [(t, v) for t, v, _ in here] == [(t, v) for t, v, _ in there]
    same = [a == b for (_, _, a), (_, _, b) in zip(here, there, strict=True)]
    assert np.mean(same) == 1.0


def test_a_mixture_is_fitted_towards_what_costs_less():
    good, bad = [np.full((4, 4), 0.1)], [np.full((4, 4), 2.0)]
    weights = chorales.fit([good, bad])
    assert weights.sum() == pytest.approx(1.0)
    assert weights[0] > 0.9
    assert chorales.mixed([good, bad], np.array([1.0, 0.0]))[0] == pytest.approx(good[0])


def test_two_settings_of_a_hymn_are_told_by_their_soprano_in_any_key(sets):
    piece = sets["train"][0]
    assert chorales.opening(piece) == chorales.opening(np.where(piece < 0, piece, piece - 5))
    assert chorales.opening(piece) != chorales.opening(sets["train"][1])


@pytest.mark.slow
def test_one_command_prints_the_table(sets, tmp_path: Path):
    """Of a few of the pieces; with all of them the n-gram alone takes twenty seconds."""
    few = {name: [piece.tolist() for piece in pieces[:12]] for name, pieces in sets.items()}
    (tmp_path / "few.json").write_text(json.dumps(few))
    command = [sys.executable, "benchmarks/chorales.py", "--data", tmp_path / "few.json", "--only", "rnn"]
    done = subprocess.run([*map(str, command), "--minutes", "0.02"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "| n-gram with back-off |" in done.stdout
    assert "| rnn | " in done.stdout


def test_without_the_data_it_says_so():
    command = [sys.executable, "benchmarks/chorales.py", "--data", "nowhere.json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2
    assert "nowhere.json is not there" in done.stderr
