"""What every decoder promises, whatever it is made of. A new decoder goes into VARIANTS and inherits the lot."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from musicgen.decoders import DECODERS, detach, forget, pick

D, LAYERS, B, T = 16, 2, 3, 50
VARIANTS = {
    "rnn": partial(DECODERS["rnn"]),
    "rnn-written-out": partial(DECODERS["rnn"], written_out=True),
    "rnn-relu": partial(DECODERS["rnn"], nonlinearity="relu"),
    "irnn": partial(DECODERS["rnn"], nonlinearity="relu", initialisation="identity"),
    "irnn-written-out": partial(DECODERS["rnn"], nonlinearity="relu", initialisation="identity", written_out=True),
    "gru": partial(DECODERS["gru"]),
    "gru-written-out": partial(DECODERS["gru"], written_out=True),
    "lstm": partial(DECODERS["lstm"]),
    "lstm-written-out": partial(DECODERS["lstm"], written_out=True),
    "transformer": partial(DECODERS["transformer"], heads=2, memory=20),
    "transformer-long-memory": partial(DECODERS["transformer"], heads=4, memory=64),
    "transformer-memory-of-one": partial(DECODERS["transformer"], heads=1, memory=1),
    "transformer-written-out": partial(DECODERS["transformer"], heads=2, memory=20, written_out=True),
}
CHUNKS = {
    "sixteens": [16, 16, 16, 2],
    "ragged": [1, 7, 30, 2, 10],
    "one by one": [1] * T,
    "longer than the memory, then one": [T - 1, 1],
}


def make(name, *, dropout=0.0, dtype=torch.float64):
    """A decoder in eval mode, with weights larger than they start, so that nothing is small enough to hide."""
    torch.manual_seed(1)
    decoder = VARIANTS[name](dim=D, layers=LAYERS, dropout=dropout).to(dtype).eval()
    larger = {"transformer": ("weight", 15), "irnn": ("weight_ih", 100)}
    word, times = larger.get(name.split("-")[0], ("", 1))
    with torch.no_grad():
        for key, parameter in decoder.named_parameters():
            if word in key and parameter.dim() == 2:
                parameter.mul_(times)
    return decoder


def noise(*shape, seed=2, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def read(decoder, inputs, lengths, state=None):
    """Outputs and state after reading `inputs` in chunks of these lengths."""
    state = decoder.initial_state(len(inputs)) if state is None else state
    outputs = []
    for chunk in inputs.split(lengths, 1):
        output, state = decoder(chunk, state)
        outputs.append(output)
    return torch.cat(outputs, 1), state


def assert_same(left, right, tolerance=1e-11):
    torch.testing.assert_close(left, right, rtol=tolerance, atol=tolerance)


each_decoder = pytest.mark.parametrize("name", VARIANTS)


def test_every_decoder_is_under_contract():
    assert {type(make(name)) for name in VARIANTS} == set(DECODERS.values())


@each_decoder
@pytest.mark.parametrize("lengths", CHUNKS.values(), ids=CHUNKS.keys())
def test_chunks_equal_one_long_call(name, lengths):
    decoder, inputs = make(name), noise(B, T, D)
    whole, end = read(decoder, inputs, [T])
    chunked, chunked_end = read(decoder, inputs, lengths)
    assert_same(chunked, whole)
    assert_same(chunked_end, end)


@each_decoder
def test_a_long_run_from_state_to_state_stays_exact(name):
    """Many times the memory: nothing in the state counts, drifts or runs out."""
    decoder, inputs = make(name), noise(1, 400, D)
    assert_same(read(decoder, inputs, [16] * 25)[0], read(decoder, inputs, [400])[0], 1e-10)


@each_decoder
def test_changing_an_input_changes_no_output_before_it(name):
    decoder, inputs = make(name), noise(B, T, D)
    changed = inputs.clone()
    changed[:, 30] += noise(B, D, seed=3)  # not a constant, which a layer norm takes out again
    before, after = read(decoder, inputs, [T])[0], read(decoder, changed, [T])[0]
    assert torch.equal(before[:, :30], after[:, :30])
    assert not torch.allclose(before[:, 30], after[:, 30])


@each_decoder
def test_the_state_carries_the_past(name):
    decoder, inputs = make(name), noise(B, T, D)
    _, state = decoder(noise(B, 9, D, seed=3), decoder.initial_state(B))
    assert not torch.allclose(decoder(inputs, state)[0][:, 0], decoder(inputs, decoder.initial_state(B))[0][:, 0])


@each_decoder
def test_a_forgotten_row_starts_afresh_and_the_others_are_untouched(name):
    decoder, inputs = make(name), noise(B, T, D)
    _, state = decoder(noise(B, 33, D, seed=3), decoder.initial_state(B))
    outputs, _ = decoder(inputs, forget(state, torch.tensor([False, True, False])))
    assert_same(outputs[[1]], decoder(inputs[[1]], decoder.initial_state(1))[0])
    assert_same(outputs[[0, 2]], decoder(inputs, state)[0][[0, 2]])


@each_decoder
def test_forgetting_every_row_is_the_initial_state(name):
    decoder = make(name)
    _, state = decoder(noise(B, 33, D), decoder.initial_state(B))
    assert all(
        torch.equal(part, zero)
        for part, zero in zip(forget(state, torch.ones(B, dtype=torch.bool)), decoder.initial_state(B), strict=True)
    )


@each_decoder
def test_forgetting_cuts_the_gradient_of_the_fresh_row_only(name):
    decoder, past = make(name), noise(B, 5, D).requires_grad_()
    _, state = decoder(past, decoder.initial_state(B))
    outputs, _ = decoder(noise(B, 4, D, seed=3), forget(state, torch.tensor([False, True, False])))
    (gradient,) = torch.autograd.grad(outputs.square().sum(), past)
    assert (gradient.abs().sum((1, 2)) > 0).tolist() == [True, False, True]


@each_decoder
def test_picked_rows_go_on_as_the_rows_they_were(name):
    decoder, inputs = make(name), noise(4, 12, D)
    past = noise(B, 33, D, seed=3)
    rows = torch.tensor([2, 0, 0, 1])
    _, state = decoder(past, decoder.initial_state(B))
    _, same = decoder(past[rows], decoder.initial_state(4))
    assert_same(pick(state, rows), same)
    assert_same(decoder(inputs, pick(state, rows))[0], decoder(inputs, same)[0])


@each_decoder
def test_streams_side_by_side_do_not_hear_each_other(name):
    decoder, inputs = make(name), noise(B, T, D)
    together, _ = read(decoder, inputs, [20, 30])
    for row in range(B):
        assert_same(together[[row]], read(decoder, inputs[[row]], [20, 30])[0])


@each_decoder
def test_gradients_flow_through_the_state_and_stop_at_a_detach(name):
    decoder, past = make(name), noise(B, 5, D).requires_grad_()
    _, state = decoder(past, decoder.initial_state(B))
    through = decoder(noise(B, 4, D, seed=3), state)[0]
    stopped = decoder(noise(B, 4, D, seed=3), detach(state))[0]
    assert torch.equal(through, stopped)
    assert torch.autograd.grad(through.square().sum(), past)[0].abs().sum() > 0
    assert torch.autograd.grad(stopped.square().sum(), past, allow_unused=True)[0] is None


@each_decoder
def test_every_parameter_is_reached_by_a_gradient(name):
    decoder = make(name)
    outputs, _ = read(decoder, noise(B, T, D), [T])
    outputs.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in decoder.parameters())


@each_decoder
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_state_is_batch_first_and_its_size_does_not_depend_on_the_past(name, dtype):
    decoder = make(name, dtype=dtype)
    shapes = [(part.shape, part.dtype) for part in decoder.initial_state(B)]
    assert all(shape[0] == B and kind == dtype for shape, kind in shapes)
    for length in (1, 7, 70):
        outputs, state = decoder(noise(B, length, D, dtype=dtype), decoder.initial_state(B))
        assert isinstance(state, tuple)
        assert [(part.shape, part.dtype) for part in state] == shapes
        assert (outputs.shape, outputs.dtype) == ((B, length, D), dtype)


@each_decoder
def test_the_initial_state_is_zeros_of_the_dtype_asked_for(name):
    state = make(name).initial_state(2, device="cpu", dtype=torch.float16)
    assert all(part.dtype == torch.float16 and not part.any() for part in state)


@each_decoder
def test_single_precision_chunks_equal_one_long_call(name):
    decoder, inputs = make(name, dtype=torch.float32), noise(B, T, D, dtype=torch.float32)
    assert_same(read(decoder, inputs, CHUNKS["ragged"])[0], read(decoder, inputs, [T])[0], 2e-4)


@each_decoder
def test_without_gradients_the_outputs_are_the_same(name):
    decoder, inputs = make(name, dtype=torch.float32), noise(B, T, D, dtype=torch.float32)
    outputs, _ = read(decoder, inputs, CHUNKS["ragged"])
    with torch.no_grad():
        assert_same(read(decoder, inputs, CHUNKS["ragged"])[0], outputs, 2e-4)


@each_decoder
def test_reading_changes_neither_the_inputs_nor_the_state(name):
    decoder, inputs = make(name), noise(B, 8, D)
    _, state = decoder(inputs, decoder.initial_state(B))
    kept, copies = inputs.clone(), tuple(part.clone() for part in state)
    with torch.no_grad():
        decoder(inputs, state)
    assert torch.equal(inputs, kept)
    assert all(torch.equal(part, copy) for part, copy in zip(state, copies, strict=True))


@each_decoder
def test_dropout_acts_in_training_and_rests_in_evaluation(name):
    decoder, inputs = make(name, dropout=0.5), noise(B, T, D)
    state = decoder.initial_state(B)
    assert torch.equal(decoder(inputs, state)[0], decoder(inputs, state)[0])
    assert_same(decoder(inputs, state)[0], make(name)(inputs, state)[0])
    decoder.train()
    assert not torch.allclose(decoder(inputs, state)[0], decoder(inputs, state)[0])


@each_decoder
def test_a_saved_decoder_comes_back_the_same(name):
    decoder, inputs = make(name), noise(B, T, D)
    other = VARIANTS[name](dim=D, layers=LAYERS).to(torch.float64).eval()
    other.load_state_dict(decoder.state_dict())
    assert_same(read(other, inputs, [T])[0], read(decoder, inputs, [T])[0])
