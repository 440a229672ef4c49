"""The recurrent decoders are what the textbook says: PyTorch's kernels and the equations written out agree."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from musicgen.decoders import Gru, Lstm, Rnn

D, LAYERS, B, T = 12, 3, 2, 20
TWINS = {
    "rnn": (Rnn, nn.RNN, {}),
    "rnn-relu": (lambda **options: Rnn(nonlinearity="relu", **options), nn.RNN, {"nonlinearity": "relu"}),
    "gru": (Gru, nn.GRU, {}),
    "lstm": (Lstm, nn.LSTM, {}),
}
each_twin = pytest.mark.parametrize("name", TWINS)


def inputs():
    drawn = torch.randn(B, T, D, dtype=torch.float64, generator=torch.Generator("cpu").manual_seed(3), device="cpu")
    return drawn.to(torch.get_default_device())


def assert_same(left, right):
    torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-11)


def pair(name):
    """A decoder as it runs by default, and the same written out."""
    make, _, _ = TWINS[name]
    default = make(dim=D, layers=LAYERS).double()
    written = make(dim=D, layers=LAYERS, written_out=True).double()
    written.load_state_dict(default.state_dict())
    return default, written


@each_twin
def test_the_equations_written_out_equal_the_kernel_in_values_and_gradients(name):
    kernel, written = pair(name)
    _, past = kernel(inputs().flip(1), kernel.initial_state(B))
    results = []
    for decoder in (kernel, written):
        x = inputs().requires_grad_()
        state = tuple(part.detach().requires_grad_() for part in past)
        outputs, end = decoder(x, state)
        loss = outputs.pow(3).sum() + sum(part.pow(3).sum() for part in end)
        results.append((outputs, end, torch.autograd.grad(loss, [x, *state, *decoder.parameters()])))
    assert_same(results[0], results[1])


@each_twin
def test_packed_pieces_written_out_equal_the_default_in_values_and_gradients(name):
    default, written = pair(name)
    _, past = default(inputs().flip(1), default.initial_state(B))
    fresh = torch.zeros(B, T, dtype=torch.bool)
    fresh[0, [0, 7, 8]] = True
    fresh[1, T - 1] = True
    results = []
    for decoder in (default, written):
        x = inputs().requires_grad_()
        state = tuple(part.detach().requires_grad_() for part in past)
        outputs, end = decoder(x, state, fresh)
        loss = outputs.pow(3).sum() + sum(part.pow(3).sum() for part in end)
        results.append((outputs, end, torch.autograd.grad(loss, [x, *state, *decoder.parameters()])))
    assert_same(results[0], results[1])


@each_twin
def test_under_autocast_outputs_and_gradients_are_those_of_single_precision_within_its_rounding(name, device):
    make, _, _ = TWINS[name]
    torch.manual_seed(0)
    decoder = make(dim=64, layers=2)
    x = torch.randn(B, 100, 64)
    results = []
    for half in (False, True):
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            outputs, state = decoder(x, decoder.initial_state(B))
        assert {part.dtype for part in state} == {torch.float32}
        gradients = torch.autograd.grad(outputs[:, :, 0].float().sum(), list(decoder.parameters()))
        results.append([outputs.float(), *gradients])
    for single, rounded in zip(*results, strict=True):
        assert (single - rounded).norm() < 0.06 * single.norm()


@each_twin
@pytest.mark.parametrize("written_out", [False, True])
def test_it_equals_pytorchs_own_module_with_the_same_weights(name, written_out):
    make, module, options = TWINS[name]
    decoder = make(dim=D, layers=LAYERS, written_out=written_out).double()
    theirs = module(D, D, LAYERS, batch_first=True, **options).double()
    theirs.load_state_dict({key.removeprefix("kernel."): value for key, value in decoder.state_dict().items()})
    outputs, state = decoder(inputs(), decoder.initial_state(B))
    expected, end = theirs(inputs())
    assert_same(outputs, expected)
    assert_same(state, tuple(part.transpose(0, 1) for part in (end if name == "lstm" else (end,))))


def test_one_step_of_the_rnn_is_the_equation_of_the_lecture():
    decoder = Rnn(dim=D, layers=1).double()
    w_xh, w_hh, b_xh, b_hh = decoder.kernel.parameters()
    hidden = torch.zeros(B, D, dtype=torch.float64)
    outputs, _ = decoder(inputs(), decoder.initial_state(B))
    for t in range(T):
        hidden = torch.tanh(inputs()[:, t] @ w_xh.T + hidden @ w_hh.T + b_xh + b_hh)
        assert_same(outputs[:, t], hidden)


def test_the_forget_gate_starts_open_and_the_other_gates_as_pytorch_starts_them():
    torch.manual_seed(5)
    decoder = Lstm(dim=D, layers=LAYERS)
    torch.manual_seed(5)
    theirs = nn.LSTM(D, D, LAYERS)
    for layer in range(LAYERS):
        bias = getattr(decoder.kernel, f"bias_ih_l{layer}") + getattr(decoder.kernel, f"bias_hh_l{layer}")
        plain = getattr(theirs, f"bias_ih_l{layer}") + getattr(theirs, f"bias_hh_l{layer}")
        assert torch.equal(bias[D : 2 * D], torch.ones(D))
        assert torch.equal(bias[:D], plain[:D])
        assert torch.equal(bias[2 * D :], plain[2 * D :])


def test_an_open_forget_gate_keeps_the_cell_and_its_gradient():
    decoder = Lstm(dim=D, layers=1, forget_bias=50.0).double()
    hidden, cell = decoder.initial_state(B)
    cell = (cell + 1).requires_grad_()
    with torch.no_grad():
        for name, parameter in decoder.kernel.named_parameters():
            if name.startswith("weight"):
                parameter.zero_()
    _, (_, end) = decoder(inputs(), (hidden, cell))
    assert_same(torch.autograd.grad(end.sum(), cell)[0], torch.ones_like(cell))


def test_identity_initialisation_keeps_what_is_not_driven():
    decoder = Rnn(dim=D, layers=LAYERS, nonlinearity="relu", initialisation="identity").double()
    with torch.no_grad():
        for layer in range(1, LAYERS):
            getattr(decoder.kernel, f"weight_ih_l{layer}").zero_()
    past = torch.rand(B, LAYERS, D, dtype=torch.float64)
    _, (end,) = decoder(torch.zeros(B, 100, D, dtype=torch.float64), (past,))
    assert torch.equal(end, past)


def test_an_irnn_over_a_long_stream_stays_within_bounds():
    torch.manual_seed(0)
    decoder = Rnn(dim=64, layers=2, nonlinearity="relu", initialisation="identity")
    with torch.no_grad():
        outputs, _ = decoder(torch.randn(2, 2000, 64), decoder.initial_state(2))
    assert outputs.max() < 100


def gradient_over(decoder, steps):
    """|dh_T / dh_0| for a silent input: what is left of the gradient after so many steps."""
    (state,) = decoder.initial_state(1)
    state = (state + 0.1).requires_grad_()
    outputs, _ = decoder(torch.zeros(1, steps, D, dtype=torch.float64), (state,))
    return torch.autograd.grad(outputs[0, -1].sum(), state)[0].norm().item()


def test_the_gradient_vanishes_in_a_plain_rnn_and_not_in_an_irnn():
    torch.manual_seed(0)
    plain = Rnn(dim=D, layers=1).double()
    irnn = Rnn(dim=D, layers=1, nonlinearity="relu", initialisation="identity").double()
    assert gradient_over(plain, 100) < 1e-6 * gradient_over(plain, 1)
    assert gradient_over(irnn, 100) == pytest.approx(gradient_over(irnn, 1))


def test_dropout_lies_between_layers_only():
    decoder = Rnn(dim=D, layers=1, dropout=0.9).double().train()
    outputs, _ = decoder(inputs(), decoder.initial_state(B))
    assert torch.equal(outputs, decoder(inputs(), decoder.initial_state(B))[0])


@pytest.mark.parametrize("written_out", [False, True])
def test_in_training_a_quarter_of_what_goes_up_a_layer_is_dropped(written_out):
    torch.manual_seed(0)
    decoder = Rnn(dim=64, layers=2, dropout=0.25, nonlinearity="relu", written_out=written_out).train()
    with torch.no_grad():  # layer 0 gives ones; layer 1 hands on what it gets
        for parameter in decoder.parameters():
            parameter.zero_()
        decoder.kernel.bias_ih_l0.fill_(1.0)
        nn.init.eye_(decoder.kernel.weight_ih_l1)
    outputs, _ = decoder(torch.zeros(8, 30, 64), decoder.initial_state(8))
    assert (outputs == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    torch.testing.assert_close(outputs[outputs != 0].unique(), torch.tensor([4 / 3]), rtol=2**-8, atol=0)
