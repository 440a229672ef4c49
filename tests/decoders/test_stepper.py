"""One step at a time is the same decoder, whatever it remembers and whoever has left."""

from __future__ import annotations

import pytest
import torch

from musicgen.decoders import DECODERS, pick

DIM, MEMORY = 16, 6
OPTIONS = {"transformer": {"heads": 2, "memory": MEMORY}}
KINDS = [*((name, {}) for name in DECODERS), ("rnn", {"nonlinearity": "relu"})]


def build(name: str, options: dict):
    torch.manual_seed(0)
    return DECODERS[name](dim=DIM, layers=2, **OPTIONS.get(name, {}), **options).eval()


@pytest.fixture(params=KINDS, ids=lambda kind: "-".join([kind[0], *kind[1].values()]))
def decoder(request):
    return build(*request.param)


@torch.inference_mode()
def test_steps_are_those_of_one_call_far_beyond_the_memory(decoder):
    inputs = torch.randn(3, 5 * MEMORY + 2, DIM)
    whole, _ = decoder(inputs, decoder.initial_state(3))
    stepper = decoder.stepper(decoder.initial_state(3))
    steps = torch.stack([stepper.step(inputs[:, t]) for t in range(inputs.shape[1])], 1)
    torch.testing.assert_close(steps, whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("before", [1, 3, MEMORY, 2 * MEMORY + 1])
@torch.inference_mode()
def test_it_goes_on_from_any_state(decoder, before):
    inputs = torch.randn(2, before + 9, DIM)
    whole, _ = decoder(inputs, decoder.initial_state(2))
    _, state = decoder(inputs[:, :before], decoder.initial_state(2))
    stepper = decoder.stepper(state)
    steps = torch.stack([stepper.step(inputs[:, t]) for t in range(before, before + 9)], 1)
    torch.testing.assert_close(steps, whole[:, before:], atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_streams_with_pasts_of_different_length_keep_to_their_own(decoder):
    long, short = torch.randn(1, 5, DIM), torch.randn(1, 2, DIM)
    states = [decoder(past, decoder.initial_state(1))[1] for past in (long, short)]
    both = tuple(torch.cat(parts) for parts in zip(*states, strict=True))
    rest = torch.randn(2, 12, DIM)
    expected, _ = decoder(rest, both)
    stepper = decoder.stepper(both)
    steps = torch.stack([stepper.step(rest[:, t]) for t in range(12)], 1)
    torch.testing.assert_close(steps, expected, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_streams_that_are_picked_go_on_alone(decoder):
    inputs = torch.randn(3, 14, DIM)
    rows = torch.tensor([2, 0])
    _, state = decoder(inputs[:, :7], decoder.initial_state(3))
    expected, _ = decoder(inputs[rows, 7:], pick(state, rows))
    stepper = decoder.stepper(decoder.initial_state(3))
    for t in range(7):
        stepper.step(inputs[:, t])
    stepper.pick(rows)
    steps = torch.stack([stepper.step(inputs[rows, t]) for t in range(7, 14)], 1)
    torch.testing.assert_close(steps, expected, atol=1e-5, rtol=1e-4)
