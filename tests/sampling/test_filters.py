"""Filters on logits, each against a slow clear version."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musicgen.sampling.filters import SamplingConfig, draw, keep_min_p, keep_top_k, keep_top_p

ROWS = st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=12, unique=True)


def seeded(rows: int) -> list[np.random.Generator]:
    return [np.random.default_rng(i) for i in range(rows)]


def noise(rows: int, values: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(rows, values))


def softmax(row: list[float]) -> np.ndarray:
    return np.exp(row) / np.exp(row).sum()


def kept(logits: np.ndarray) -> set[int]:
    return set(np.flatnonzero(np.isfinite(logits[0])).tolist())


@settings(deadline=None, max_examples=60)
@given(ROWS, st.integers(1, 12))
def test_top_k_keeps_the_k_likeliest(row, k):
    best = sorted(range(len(row)), key=lambda i: -row[i])[:k]
    assert kept(keep_top_k(np.array([row]), k)) == set(best)


@settings(deadline=None, max_examples=60)
@given(ROWS, st.floats(0.05, 0.99))
def test_top_p_keeps_the_fewest_values_that_reach_p(row, p):
    probabilities = softmax(row)
    order = sorted(range(len(row)), key=lambda i: -row[i])
    expected, total = set(), 0.0
    for i in order:
        if total >= p - 1e-6:
            break
        expected.add(i)
        total += float(probabilities[i])
    found = kept(keep_top_p(np.array([row]), p))
    assert found in (expected, expected | {order[min(len(expected), len(order) - 1)]})
    assert order[0] in found


@settings(deadline=None, max_examples=60)
@given(ROWS, st.floats(0.01, 0.9))
def test_min_p_drops_what_is_far_less_likely_than_the_likeliest(row, p):
    shares = softmax(row) / softmax(row).max()
    assert kept(keep_min_p(np.array([row]), p)) == {i for i, share in enumerate(shares) if share >= p}


def test_each_row_is_filtered_by_itself():
    logits = noise(5, 9)
    for keep, strength in ((keep_top_k, 3), (keep_top_p, 0.7), (keep_min_p, 0.3)):
        alone = np.concatenate([keep(row[None], strength) for row in logits])
        assert np.array_equal(keep(logits, strength), alone)


@pytest.mark.parametrize(("keep", "off"), [(keep_top_k, 0), (keep_top_p, 1.0), (keep_min_p, 0.0)])
def test_filters_that_are_off_change_nothing(keep, off):
    logits = noise(4, 9)
    assert np.array_equal(keep(logits, off), logits)


def test_what_the_grammar_forbids_is_never_drawn():
    logits = noise(64, 20)
    logits[:, ::2] = -np.inf
    for settings_ in (SamplingConfig(), SamplingConfig(temperature=5.0, top_k=3, top_p=0.9, min_p=0.05)):
        values, _ = draw(logits, settings_, seeded(64))
        assert all(value % 2 == 1 for value in values)


def test_temperature_zero_takes_the_likeliest():
    logits = noise(8, 20)
    values, _ = draw(logits, SamplingConfig(temperature=0), seeded(8))
    assert np.array_equal(values, logits.argmax(-1))


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_drawing_follows_the_distribution(temperature):
    shares = np.array([0.5, 0.3, 0.2])
    logits = np.log(np.tile(shares, (20_000, 1)))
    values, _ = draw(logits, SamplingConfig(temperature=temperature), [np.random.default_rng(0)] * 20_000)
    expected = shares ** (1 / temperature) / (shares ** (1 / temperature)).sum()
    assert np.bincount(values, minlength=3) / len(values) == pytest.approx(expected, abs=0.015)


def test_what_is_drawn_costs_what_it_did_before_temperature_and_filters():
    logits = np.log(np.tile([0.5, 0.3, 0.2], (50, 1))) + 7.0
    values, nats = draw(logits, SamplingConfig(temperature=2.0, top_k=2), seeded(50))
    assert nats == pytest.approx(-np.log(np.array([0.5, 0.3, 0.2])[values]))


def test_the_same_seed_draws_the_same():
    logits = noise(50, 20)
    one, other = (draw(logits, SamplingConfig(), seeded(50))[0] for _ in range(2))
    assert one == other
