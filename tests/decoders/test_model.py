"""The embedding and the head, around any decoder."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from musicgen.decoders import DECODERS
from musicgen.decoders.model import Head, Model, ModelConfig
from musicgen.tokens import TOKENIZERS

FIELDS, COORDINATES = (7, 5, 11), (4, 3)


def small(decoder: str) -> Model:
    torch.manual_seed(0)
    return Model(ModelConfig(decoder=decoder, dim=16, layers=2, heads=2, memory=8, dropout=0.0), FIELDS, COORDINATES)


def steps_of(batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator("cpu").manual_seed(1)
    like = {"generator": generator, "device": "cpu"}
    steps = torch.stack([torch.randint(1, n, (batch, length), **like) for n in FIELDS], -1)
    where = torch.stack([torch.randint(0, n, (batch, length), **like) for n in COORDINATES], -1)
    return steps.to(torch.get_default_device()), where.to(torch.get_default_device())


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_decoder_fits_between_the_same_embedding_and_head(decoder):
    model = small(decoder)
    steps, where = steps_of(3, 12)
    outputs, state = model(steps, where, model.initial_state(3))
    assert outputs.shape == (3, 12, 16)
    assert all(part.shape[0] == 3 for part in state)


def test_the_probabilities_of_all_steps_sum_to_one():
    """p(a) p(b | a) p(c | a, b) over every combination of values: no probability is lost on fields not being used."""
    torch.manual_seed(0)
    head = Head((3, 4, 5), 8).double()
    outputs = torch.randn(1, 1, 8, dtype=torch.float64)
    every = torch.cartesian_prod(torch.arange(3), torch.arange(1, 4), torch.arange(1, 5))
    nll = head.nll(outputs.expand(1, len(every), 8), every[None], torch.ones(1, len(every), dtype=torch.bool))
    assert nll.sum(-1).neg().exp().sum().item() == pytest.approx(1.0, abs=1e-6)


def test_a_field_that_a_step_does_not_use_costs_nothing():
    head = Head(FIELDS, 16)
    targets = torch.tensor([[[3, 0, 0], [3, 2, 0]]])
    nll = head.nll(torch.randn(1, 2, 16), targets, torch.ones(1, 2, dtype=torch.bool))
    assert nll.shape == (2, 3)
    assert nll[0, 1:].tolist() == [0.0, 0.0]
    assert nll[1, 1] > 0
    assert nll[1, 2] == 0


def test_padding_costs_nothing_and_gives_no_gradient():
    head = Head(FIELDS, 16)
    outputs = torch.randn(2, 3, 16, requires_grad=True)
    targets = torch.ones(2, 3, 3, dtype=torch.long)
    valid = torch.tensor([[True, True, False], [True, False, False]])
    nll = head.nll(outputs, targets, valid)
    assert nll.shape == (3, 3)
    nll.sum().backward()
    assert outputs.grad is not None
    assert outputs.grad[~valid].abs().max() == 0
    assert (outputs.grad[valid].abs().sum(-1) > 0).all()


def test_with_one_field_the_loss_is_plain_cross_entropy_over_the_normalised_output():
    head = Head((9,), 16)
    outputs, targets = torch.randn(2, 5, 16), torch.randint(0, 9, (2, 5, 1))
    ours = head.nll(outputs, targets, torch.ones(2, 5, dtype=torch.bool)).sum()
    logits = head.logits[0](head.norm(outputs))
    theirs = nn.functional.cross_entropy(logits.reshape(-1, 9), targets.reshape(-1), reduction="sum")
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_later_fields_are_told_the_earlier_ones():
    head = Head(FIELDS, 16)
    context = head.context(torch.randn(1, 16))
    one = head.field(2, context, [torch.tensor([1]), torch.tensor([2])])
    other = head.field(2, context, [torch.tensor([4]), torch.tensor([2])])
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_every_tokenizer_works_with_every_decoder(name, decoder):
    tokenizer = TOKENIZERS[name]()
    config = ModelConfig(decoder=decoder, dim=16, layers=1, heads=2, memory=8)
    model = Model(config, [f.size for f in tokenizer.fields], [c.size for c in tokenizer.coordinates])
    steps = torch.tensor([[tokenizer.start]])
    where = torch.zeros(1, 1, len(tokenizer.coordinates), dtype=torch.long)
    outputs, _ = model(steps, where, model.initial_state(1))
    assert torch.isfinite(outputs).all()
