"""Adapting a copy of a model to a fragment."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from musicgen.checkpoint import build_model
from musicgen.config import check_config
from musicgen.corpus import Corpus, Piece
from musicgen.training.adapt import adapt, held_out_loss
from musicgen.training.evaluate import evaluate

SMALL = {"decoder": "lstm", "dim": 24, "layers": 1, "dropout": 0.0}


@pytest.fixture(scope="module")
def model(corpus):
    torch.manual_seed(0)
    return build_model(check_config({"model": SMALL}, "test"), corpus.tokenizer).eval()


@pytest.fixture(scope="module")
def fragment(corpus) -> np.ndarray:
    """The first 600 steps of a real piece, cut in the middle of a bar."""
    return np.asarray(corpus.steps_of(max(corpus.pieces, key=lambda piece: piece.length)))[:600]


@pytest.fixture(scope="module")
def adapted(model, corpus, fragment):
    return adapt(model, corpus.tokenizer, fragment, updates=40, learning_rate=3e-3)


def test_the_copy_predicts_the_fragments_own_last_bars_better(adapted):
    _, made = adapted
    assert made.updates > 0
    assert made.after < made.before - 0.1


def test_the_model_itself_is_not_touched(corpus, fragment, model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tuned, _ = adapt(model, corpus.tokenizer, fragment, updates=5)
    assert tuned is not model
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training


def test_the_same_seed_gives_the_same_copy(adapted, model, corpus, fragment):
    again, made = adapt(model, corpus.tokenizer, fragment, updates=40, learning_rate=3e-3)
    assert made == adapted[1]
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), adapted[0].parameters(), strict=True))


def test_where_no_update_helps_the_model_comes_back_as_it_was(model, corpus, fragment):
    tuned, made = adapt(model, corpus.tokenizer, fragment, updates=10, learning_rate=30.0)
    assert tuned is model
    assert made.updates == 0
    assert made.after == made.before


def test_a_fragment_of_a_few_notes_is_too_short_to_learn_from(model, corpus, fragment):
    assert adapt(model, corpus.tokenizer, fragment[:20]) == (model, None)


def test_when_the_time_is_up_it_says_so(model, corpus, fragment):
    seconds = iter(range(0, 10_000, 100))
    _, made = adapt(model, corpus.tokenizer, fragment, updates=40, seconds=150, clock=lambda: next(seconds))
    assert not made.in_time


def test_the_loss_of_the_last_steps_is_the_evaluations_of_the_whole_less_that_of_the_beginning(corpus, model, fragment):
    first = 400

    def whole(steps):
        piece = Piece("", "", 0, len(steps), int(corpus.tokenizer.is_note(steps).sum()), 0, 0, None, "")
        return evaluate(model, Corpus("", corpus.tokenizer, (), "", (steps,), (piece,), ()), [piece])

    both, beginning = whole(fragment), whole(fragment[:first])
    expected = (both.nats - beginning.nats) / (both.notes - beginning.notes)
    assert held_out_loss(model, corpus.tokenizer, fragment, first) == pytest.approx(expected, rel=1e-5)
