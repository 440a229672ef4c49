"""A linear layer in half precision has PyTorch's outputs, and gradients within the rounding of half precision."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from musicgen.decoders import linear
from musicgen.decoders.linear import Linear

SIZES = [(24, 40, True), (40, 24, True), (24, 24, False), (8, 72, False)]


def make(wide, high, bias):
    torch.manual_seed(0)
    ours, theirs = Linear(wide, high, bias=bias), nn.Linear(wide, high, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def learn(layer, inputs, half):
    """Outputs, and the gradients of the inputs, the weights and the bias."""
    inputs = inputs.clone().requires_grad_()
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=half):
        outputs = layer(inputs)
    weighing = torch.linspace(-1, 1, outputs.numel()).view_as(outputs)
    return outputs, *torch.autograd.grad((outputs.float() * weighing).sum(), [inputs, *layer.parameters()])


@pytest.mark.parametrize(("wide", "high", "bias"), SIZES)
def test_gradients_are_those_of_single_precision_within_its_rounding(monkeypatch, wide, high, bias):
    monkeypatch.setattr(linear, "LARGE", 0)
    ours, theirs = make(wide, high, bias)
    inputs = torch.randn(3, 50, wide)  # positions that do not divide into what is turned at a time
    single, half = learn(theirs, inputs, half=False), learn(theirs, inputs, half=True)
    found = learn(ours, inputs, half=True)
    assert torch.equal(found[0], half[0])
    for one, other, expected in zip(found, half, single, strict=True):
        assert (one.dtype, one.shape, one.stride()) == (other.dtype, other.shape, other.stride())
        assert (one - expected).norm() < 0.01 * expected.norm()


def test_only_what_is_asked_for_has_a_gradient(monkeypatch):
    monkeypatch.setattr(linear, "LARGE", 0)
    layer = Linear(16, 8)
    layer.weight.requires_grad_(False)
    inputs = torch.randn(5, 16)
    with torch.autocast(inputs.device.type, torch.bfloat16):
        layer(inputs).sum().backward()
    assert layer.weight.grad is None
    assert inputs.grad is None
    torch.testing.assert_close(layer.bias.grad, torch.full((8,), 5.0))


@pytest.mark.parametrize("half", [False, True])
def test_a_small_layer_and_one_in_single_precision_are_pytorchs_own(half):
    ours, theirs = make(16, 8, True)
    inputs = torch.randn(4, 16)
    for one, other in zip(learn(ours, inputs, half), learn(theirs, inputs, half), strict=True):
        assert torch.equal(one, other)
