"""Truncated backpropagation through time, proved over every decoder.

A piece is read in chunks; after each, the gradient of that chunk's loss is taken and the state is detached. Then: what
is computed forwards is what an unbroken run computes; what flows backwards stops at the chunk's beginning; and the
memory that it takes depends on the chunk and not on the piece.
"""

from __future__ import annotations

import weakref
from itertools import pairwise

import pytest
import torch

from musicgen.decoders import DECODERS, Rnn, detach, pick

D, LAYERS, B, T = 8, 2, 2, 24
OPTIONS = {
    "rnn": {},
    "rnn written out": {"written_out": True},
    "irnn": {"nonlinearity": "relu", "initialisation": "identity"},
    "gru": {},
    "gru written out": {"written_out": True},
    "lstm": {},
    "lstm written out": {"written_out": True},
    "transformer": {"heads": 2, "memory": 32},
    "transformer written out": {"heads": 2, "memory": 32, "written_out": True},
    "transformer short memory": {"heads": 2, "memory": 5},
}
each_decoder = pytest.mark.parametrize("name", OPTIONS)


def make(name, dtype=torch.float64):
    torch.manual_seed(1)
    kind = "rnn" if name == "irnn" else name.split()[0]
    decoder = DECODERS[kind](dim=D, layers=LAYERS, **OPTIONS[name]).to(dtype)
    larger = {"transformer": ("weight", 10), "irnn": ("weight_ih", 100)}  # nothing small enough to hide
    word, times = larger.get(name.split()[0], ("", 1))
    with torch.no_grad():
        for key, parameter in decoder.named_parameters():
            if word in key and parameter.dim() == 2:
                parameter.mul_(times)
    return decoder


def piece(length=T, dtype=torch.float64):
    """Inputs and targets, (B, length, D) each."""
    generator = torch.Generator("cpu").manual_seed(2)
    drawn = (torch.randn(B, length, D, generator=generator, dtype=torch.float64, device="cpu") for _ in range(2))
    return tuple(part.to(torch.get_default_device(), dtype) for part in drawn)


def loss_of(outputs, targets):
    """A sum over positions, so that the losses of the chunks add up to the piece's."""
    return (outputs - targets).square().sum()


def train_on(decoder, length, chunk, truncated=True):
    """Read a piece in chunks; returns the outputs and the gradient of each parameter, summed over the chunks."""
    inputs, targets = piece(length, next(decoder.parameters()).dtype)
    state, outputs, total = decoder.initial_state(B), [], 0.0
    decoder.zero_grad()
    for x, y in zip(inputs.split(chunk, 1), targets.split(chunk, 1), strict=True):
        output, state = decoder(x, detach(state) if truncated else state)
        outputs.append(output.detach())
        if truncated:
            loss_of(output, y).backward()
        else:
            total = total + loss_of(output, y)
    if not truncated:
        total.backward()
    return torch.cat(outputs, 1), [parameter.grad.clone() for parameter in decoder.parameters()]


def largest_difference(left, right):
    """Relative to the size of each gradient."""
    return max(((a - b).norm() / b.norm()).item() for a, b in zip(left, right, strict=True))


@each_decoder
def test_a_chunk_as_long_as_the_piece_gives_the_gradients_of_full_bptt(name):
    decoder = make(name)
    _, truncated = train_on(decoder, T, T)
    _, full = train_on(decoder, T, T, truncated=False)
    assert all(torch.equal(a, b) for a, b in zip(truncated, full, strict=True))


@each_decoder
def test_without_the_detach_chunks_give_the_gradients_of_full_bptt(name):
    """The state hands on the whole of the past: what truncation loses, it loses by the detach and nothing else."""
    decoder = make(name)
    _, full = train_on(decoder, T, T)
    assert largest_difference(train_on(decoder, T, 5, truncated=False)[1], full) < 1e-10


@each_decoder
@pytest.mark.parametrize("chunk", [1, 5, 8])
def test_shorter_chunks_compute_the_same_forwards_and_less_backwards(name, chunk):
    decoder = make(name)
    outputs, full = train_on(decoder, T, T)
    chunked, truncated = train_on(decoder, T, chunk)
    torch.testing.assert_close(chunked, outputs, rtol=1e-11, atol=1e-11)
    assert largest_difference(truncated, full) > 1e-3


@each_decoder
def test_chunks_of_one_give_the_gradient_with_the_past_held_constant(name):
    """Each position by itself, from the state of the unbroken run taken as a given."""
    decoder = make(name)
    inputs, targets = piece()
    parameters = list(decoder.parameters())
    expected = [torch.zeros_like(parameter) for parameter in parameters]
    for t in range(T):
        with torch.no_grad():
            state = decoder.initial_state(B)
            if t > 0:
                _, state = decoder(inputs[:, :t], state)
        output, _ = decoder(inputs[:, t : t + 1], state)
        gradients = torch.autograd.grad(loss_of(output, targets[:, t : t + 1]), parameters)
        expected = [total + gradient for total, gradient in zip(expected, gradients, strict=True)]
    torch.testing.assert_close(train_on(decoder, T, 1)[1], expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("chunk", [1, 6, T])
def test_the_gradient_of_an_rnn_is_the_one_worked_out_by_hand(chunk):
    """h_t = tanh(W_xh x_t + W_hh h_{t-1} + b), L = sum_t |h_t - y_t|^2. Backwards through a chunk, from its end:

    delta_t = (1 - h_t^2) * (2 (h_t - y_t) + W_hh^T delta_{t+1}), where delta is 0 after the chunk's last position;
    dL/dW_hh = sum_t delta_t h_{t-1}^T;  dL/dW_xh = sum_t delta_t x_t^T;  dL/db = sum_t delta_t.
    """
    decoder = Rnn(dim=D, layers=1).double()
    inputs, targets = piece()
    w_xh, w_hh, b_xh, b_hh = (parameter.detach() for parameter in decoder.parameters())
    hidden = [torch.zeros(B, D, dtype=torch.float64)]
    for t in range(T):
        hidden.append(torch.tanh(inputs[:, t] @ w_xh.T + hidden[-1] @ w_hh.T + b_xh + b_hh))
    grad_xh, grad_hh, grad_b = torch.zeros_like(w_xh), torch.zeros_like(w_hh), torch.zeros_like(b_xh)
    for start in range(0, T, chunk):
        delta = torch.zeros(B, D, dtype=torch.float64)
        for t in reversed(range(start, start + chunk)):
            before, now = hidden[t], hidden[t + 1]
            delta = (1 - now**2) * (2 * (now - targets[:, t]) + delta @ w_hh)
            grad_xh += delta.T @ inputs[:, t]
            grad_hh += delta.T @ before
            grad_b += delta.sum(0)
    outputs, gradients = train_on(decoder, T, chunk)
    torch.testing.assert_close(outputs, torch.stack(hidden[1:], 1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients, [grad_xh, grad_hh, grad_b, grad_b], rtol=1e-10, atol=1e-10)


class Meter:
    """Counts the bytes that autograd keeps for the way back, and the most that it ever kept at once."""

    def __init__(self):
        self.kept = 0
        self.peak = 0

    def watch(self):
        return torch.autograd.graph.saved_tensors_hooks(self._pack, lambda box: box[0])

    def _pack(self, tensor):
        class Box(list):
            """A list that can be watched dying."""

        box, size = Box([tensor]), tensor.nelement() * tensor.element_size()
        self.kept += size
        self.peak = max(self.peak, self.kept)
        weakref.finalize(box, self._release, size)
        return box

    def _release(self, size):
        self.kept -= size


def peak_bytes(name, chunks, truncated=True):
    decoder, meter = make(name, torch.float32), Meter()
    with meter.watch():
        train_on(decoder, 4 * chunks, 4, truncated)
    assert meter.kept == 0
    return meter.peak


@each_decoder
def test_the_memory_that_training_takes_does_not_grow_with_the_length_of_the_piece(name):
    # 16 chunks fill the longest memory here, of which a Transformer keeps no more than has come in
    assert peak_bytes(name, 64) == peak_bytes(name, 16) > 0


@each_decoder
def test_without_the_detach_it_would(name):
    assert peak_bytes(name, 64, truncated=False) > 10 * peak_bytes(name, 4, truncated=False)


@each_decoder
def test_pieces_laid_end_to_end_in_a_chunk_give_the_gradients_of_each_by_itself(name):
    """Row by row they begin elsewhere; what comes before the first of them is the end of an older piece."""
    decoder = make(name)
    inputs, targets = piece()
    begins = [[9, 15], [4]]
    fresh = torch.zeros(B, T, dtype=torch.bool)
    for row, places in enumerate(begins):
        fresh[row, places] = True
    _, state = decoder(inputs, decoder.initial_state(B))
    state = detach(state)
    decoder.zero_grad()
    loss_of(decoder(inputs, state, fresh)[0], targets).backward()
    packed = [parameter.grad.clone() for parameter in decoder.parameters()]

    decoder.zero_grad()
    for row, places in enumerate(begins):
        here = torch.tensor([row])
        for begin, end in pairwise([0, *places, T]):
            past = decoder.initial_state(1) if begin else pick(state, here)
            outputs, _ = decoder(inputs[here, begin:end], past)
            loss_of(outputs, targets[here, begin:end]).backward()
    apart = [parameter.grad.clone() for parameter in decoder.parameters()]
    assert largest_difference(packed, apart) < 1e-10
