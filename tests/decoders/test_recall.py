"""A model that is told what came next the last time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from musicgen.decoders.model import Model, ModelConfig
from musicgen.decoders.recall import Pointing
from musicgen.tokens.recall import Recall, recall

HOW = Recall(views=((0, 1), (0,)), fields=(0, 1))
SIZES = [12, 9]


def build(decoder: str = "lstm", recalls: bool = True, dim: int = 32, hearing=None) -> Model:
    torch.manual_seed(0)
    config = ModelConfig(decoder=decoder, dim=dim, layers=1, heads=2, memory=8, dropout=0.0, recall=recalls)
    return Model(config, SIZES, [3], hearing, HOW)


def batch(rows: int, length: int, seed: int = 0, recalls: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Random music of `length` steps that is then played again: (B, 2T, F) steps, (B, 2T, C + R) coordinates."""
    noise = np.random.default_rng(seed)
    steps = noise.integers(1, SIZES, (rows, length, 2))
    steps = np.concatenate([steps, steps], axis=1)
    told = [recall(row, HOW) if recalls else np.zeros((2 * length, 0), dtype=np.int64) for row in steps]
    coordinates = np.concatenate([np.ones((rows, 2 * length, 1), dtype=np.int64), np.stack(told)], axis=2)
    return torch.from_numpy(steps), torch.from_numpy(coordinates)


def loss(model: Model, steps: torch.Tensor, coordinates: torch.Tensor) -> torch.Tensor:
    """(B, 2T - 1) nats of each step after the first."""
    outputs, _ = model(steps[:, :-1], coordinates[:, :-1], model.initial_state(len(steps)))
    valid = torch.ones(steps.shape[0], steps.shape[1] - 1, dtype=torch.bool)
    return model.head.nll(outputs, steps[:, 1:], valid).sum(-1).view(valid.shape)


@pytest.mark.parametrize("decoder", ["rnn", "lstm", "transformer"])
def test_music_that_is_played_again_is_predicted_however_short_the_memory(decoder):
    """Forty random steps are more than eight of memory; without recall the second time is as hard as the first."""
    costs = {}
    for recalls in (True, False):
        model = build(decoder, recalls)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        for update in range(80):
            optimizer.zero_grad()
            loss(model, *batch(8, 40, update, recalls)).mean().backward()
            optimizer.step()
        with torch.no_grad():
            costs[recalls] = float(loss(model, *batch(8, 40, 999, recalls))[:, 45:].mean())
    assert costs[False] > 4.0
    assert costs[True] < 1.0


@pytest.mark.parametrize("decoder", ["rnn", "gru", "lstm", "transformer"])
def test_chunk_by_chunk_is_the_same_as_one_call(decoder):
    model = build(decoder).eval()
    steps, coordinates = batch(2, 12)
    whole, _ = model(steps, coordinates, model.initial_state(2))
    state, parts = model.initial_state(2), []
    for at in range(0, 24, 5):
        part, state = model(steps[:, at : at + 5], coordinates[:, at : at + 5], state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_where_nothing_is_recalled_pointing_changes_nothing():
    pointing = Pointing(HOW, 1, 16)
    torch.nn.init.ones_(pointing.lengths)
    logits, mixed = torch.randn(5, 9), torch.randn(5, 16)
    nothing = torch.zeros(5, HOW.width, dtype=torch.long)
    torch.testing.assert_close(pointing(logits, mixed, nothing, [torch.ones(5, dtype=torch.long)]), logits)


def test_pointing_raises_the_value_recalled_and_no_other():
    pointing = Pointing(HOW, 1, 16)
    torch.nn.init.ones_(pointing.lengths)
    recalled = torch.tensor([[4, 3, 7, 0, 0, 0]])  # first view: a length, field 0 was 3, field 1 was 7
    logits = pointing(torch.zeros(1, 9), torch.zeros(1, 16), recalled, [torch.tensor([3])])
    assert logits.tolist() == [[0, 0, 0, 0, 0, 0, 0, 1, 0]]


def test_pointing_knows_whether_the_step_so_far_is_the_one_recalled():
    pointing = Pointing(HOW, 1, 16)
    with torch.no_grad():
        pointing.lengths[:, 1] = 2.0  # where the fields known agree
    recalled = torch.tensor([[4, 3, 7, 0, 0, 0]] * 2)
    logits = pointing(torch.zeros(2, 9), torch.zeros(2, 16), recalled, [torch.tensor([3, 5])])
    assert logits[:, 7].tolist() == [2, 0]


def test_a_model_that_recalls_needs_to_know_how():
    with pytest.raises(ValueError, match="needs the tokenizer's recall"):
        Model(ModelConfig(decoder="lstm", dim=16, layers=1, recall=True), SIZES, [3])
