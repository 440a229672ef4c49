"""Filters on logits, each against a slow clear version."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from musicgen.sampling.filters import SamplingConfig, draw, keep_min_p, keep_top_k, keep_top_p

ROWS = st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=12, unique=True)


def seeded(rows: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(i) for i in range(rows)]


def kept(logits: torch.Tensor) -> set[int]:
    return set(torch.isfinite(logits).nonzero().flatten().tolist())


@settings(deadline=None, max_examples=60)
@given(ROWS, st.integers(1, 12))
def test_top_k_keeps_the_k_likeliest(row, k):
    best = sorted(range(len(row)), key=lambda i: -row[i])[:k]
    assert kept(keep_top_k(torch.tensor(row), k)) == set(best)


@settings(deadline=None, max_examples=60)
@given(ROWS, st.floats(0.05, 0.99))
def test_top_p_keeps_the_fewest_values_that_reach_p(row, p):
    probabilities = torch.tensor(row, dtype=torch.float64).softmax(-1)
    order = sorted(range(len(row)), key=lambda i: -row[i])
    expected, total = set(), 0.0
    for i in order:
        if total >= p - 1e-6:
            break
        expected.add(i)
        total += float(probabilities[i])
    found = kept(keep_top_p(torch.tensor(row, dtype=torch.float64), p))
    assert found in (expected, expected | {order[min(len(expected), len(order) - 1)]})
    assert order[0] in found


@settings(deadline=None, max_examples=60)
@given(ROWS, st.floats(0.01, 0.9))
def test_min_p_drops_what_is_far_less_likely_than_the_likeliest(row, p):
    probabilities = torch.tensor(row, dtype=torch.float64).softmax(-1)
    found = kept(keep_min_p(torch.tensor(row, dtype=torch.float64), p))
    assert found == {i for i, q in enumerate(probabilities.tolist()) if q >= p * float(probabilities.max())}


@pytest.mark.parametrize("config", [{"top_k": 0}, {"top_p": 1.0}, {"min_p": 0.0}])
def test_filters_that_are_off_change_nothing(config):
    logits = torch.randn(4, 9)
    assert torch.equal(keep_top_k(logits, config.get("top_k", 0)), logits)
    assert torch.equal(keep_top_p(logits, config.get("top_p", 1.0)), logits)
    assert torch.equal(keep_min_p(logits, config.get("min_p", 0.0)), logits)


def test_what_the_grammar_forbids_is_never_drawn():
    logits = torch.randn(64, 20)
    logits[:, ::2] = -torch.inf
    for settings_ in (SamplingConfig(), SamplingConfig(temperature=5.0, top_k=3, top_p=0.9, min_p=0.05)):
        values = draw(logits, settings_, seeded(64))
        assert (values % 2 == 1).all()


def test_temperature_zero_takes_the_likeliest():
    logits = torch.randn(8, 20)
    assert torch.equal(draw(logits, SamplingConfig(temperature=0), seeded(8)), logits.argmax(-1))


def test_drawing_follows_the_distribution():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.2])).expand(20_000, 3)
    values = draw(logits, SamplingConfig(), [torch.Generator().manual_seed(0)] * 20_000)
    shares = torch.bincount(values, minlength=3) / len(values)
    assert torch.allclose(shares, torch.tensor([0.5, 0.3, 0.2]), atol=0.015)


def test_the_same_seed_draws_the_same():
    logits = torch.randn(50, 20)
    one, other = (draw(logits, SamplingConfig(), seeded(50)) for _ in range(2))
    assert torch.equal(one, other)
