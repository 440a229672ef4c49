"""What every decoder promises, whatever it is made of. A new decoder goes into VARIANTS and inherits the lot."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from musicgen.decoders import DECODERS, detach, forget, pick
from musicgen.decoders.model import Model, ModelConfig

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
    """A decoder with weights larger than they start, so that nothing is small enough to hide.

    In eval mode if it has dropout. Without dropout the modes are one, but cuDNN gives gradients in training only.
    """
    torch.manual_seed(1)
    decoder = VARIANTS[name](dim=D, layers=LAYERS, dropout=dropout).to(dtype).train(dropout == 0)
    larger = {"transformer": ("weight", 15), "irnn": ("weight_ih", 100)}
    word, times = larger.get(name.split("-")[0], ("", 1))
    with torch.no_grad():
        for key, parameter in decoder.named_parameters():
            if word in key and parameter.dim() == 2:
                parameter.mul_(times)
    return decoder


def noise(*shape, seed=2, dtype=torch.float64):
    drawn = torch.randn(*shape, generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.float64, device="cpu")
    return drawn.to(torch.get_default_device(), dtype)


def read(decoder, inputs, lengths, state=None, fresh=None):
    """Outputs and state after reading `inputs` in chunks of these lengths."""
    state = decoder.initial_state(len(inputs)) if state is None else state
    beginnings = [None] * len(lengths) if fresh is None else fresh.split(lengths, 1)
    outputs = []
    for chunk, begins in zip(inputs.split(lengths, 1), beginnings, strict=True):
        output, state = decoder(chunk, state, begins)
        outputs.append(output)
    return torch.cat(outputs, 1), state


def beginnings(*places, rows=B, length=T):
    """Where pieces begin, (rows, length) bool, from pairs of row and step."""
    fresh = torch.zeros(rows, length, dtype=torch.bool)
    for row, step in places:
        fresh[row, step] = True
    return fresh


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


PLACES = [(0, 12), (0, 13), (1, 0), (1, 30), (1, 45), (2, T - 1)]  # a piece of one step, a first step, a last one


@each_decoder
def test_a_piece_that_begins_within_a_call_equals_a_cut_and_a_forgotten_row(name):
    decoder, inputs = make(name), noise(B, T, D)
    _, past = decoder(noise(B, 33, D, seed=3), decoder.initial_state(B))
    outputs, end = decoder(inputs, past, beginnings((1, 20)))
    before, state = decoder(inputs[:, :20], past)
    after, cut_end = decoder(inputs[:, 20:], forget(state, torch.tensor([False, True, False])))
    assert_same(outputs, torch.cat([before, after], 1))
    assert_same(end, cut_end)


@each_decoder
def test_a_piece_that_begins_with_the_call_equals_a_forgotten_row(name):
    decoder, inputs = make(name), noise(B, T, D)
    _, past = decoder(noise(B, 33, D, seed=3), decoder.initial_state(B))
    assert_same(
        decoder(inputs, past, beginnings((0, 0), (2, 0))),
        decoder(inputs, forget(past, torch.tensor([True, False, True]))),
    )


@each_decoder
def test_pieces_packed_end_to_end_are_read_as_each_by_itself(name):
    decoder, inputs = make(name), noise(B, T, D)
    _, past = decoder(noise(B, 33, D, seed=3), decoder.initial_state(B))
    outputs, end = decoder(inputs, past, beginnings(*PLACES))
    for row in range(B):
        state = pick(past, torch.tensor([row]))
        steps = [step for place, step in PLACES if place == row]
        for step, until in zip([0, *steps], [*steps, T], strict=True):
            if step in steps:
                state = decoder.initial_state(1)
            if step < until:
                expected, state = decoder(inputs[[row], step:until], state)
                assert_same(outputs[[row], step:until], expected)
        assert_same(pick(end, torch.tensor([row])), state)


@each_decoder
@pytest.mark.parametrize("lengths", CHUNKS.values(), ids=CHUNKS.keys())
def test_packed_pieces_in_chunks_equal_one_long_call(name, lengths):
    decoder, inputs, fresh = make(name), noise(B, T, D), beginnings(*PLACES)
    assert_same(read(decoder, inputs, lengths, fresh=fresh), read(decoder, inputs, [T], fresh=fresh))


@each_decoder
def test_where_no_piece_begins_nothing_is_forgotten(name):
    decoder, inputs = make(name), noise(B, T, D)
    _, past = decoder(noise(B, 9, D, seed=3), decoder.initial_state(B))
    assert_same(decoder(inputs, past, beginnings()), decoder(inputs, past))


@each_decoder
def test_the_state_holds_nothing_from_before_the_piece_it_is_in(name):
    """Whatever went before: the same numbers, and zeros in the same slots of a memory."""
    decoder, inputs = make(name), noise(B, T, D)
    _, past = decoder(noise(B, 33, D, seed=3), decoder.initial_state(B))
    _, end = decoder(inputs, past, beginnings((0, 45), (1, 45), (2, 45)))
    _, expected = decoder(inputs[:, 45:], decoder.initial_state(B))
    assert_same(end, expected)
    assert all(torch.equal(part == 0, other == 0) for part, other in zip(end, expected, strict=True))


@each_decoder
def test_gradients_do_not_cross_the_beginning_of_a_piece_and_flow_within_it(name):
    decoder, past, inputs = make(name), noise(B, 3, D, seed=3).requires_grad_(), noise(B, 5, D).requires_grad_()
    _, state = decoder(past, decoder.initial_state(B))
    outputs, end = decoder(inputs, state, beginnings((1, 1), length=5))
    loss = outputs[:, 1:].square().sum() + sum(part.square().sum() for part in forget(end, torch.arange(B) != 1))
    by_past, by_inputs = (gradient.abs().sum(-1) > 0 for gradient in torch.autograd.grad(loss, [past, inputs]))
    assert by_past[:, -1].tolist() == by_inputs[:, 0].tolist() == [True, False, True]
    assert by_inputs[:, 1:].all()
    assert not by_past[1].any()


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


# Within a model: steps of fields and coordinates go in, and what the head makes of the outputs comes out.

FIELDS, COORDINATES = (7, 5, 11), (4, 3)
MODELS = {name: ModelConfig(decoder=name, dim=D, layers=LAYERS, heads=2, memory=20, dropout=0.0) for name in DECODERS}
each_model = pytest.mark.parametrize("config", MODELS.values(), ids=MODELS.keys())


def music(length=T):
    """Steps (B, T, F) and coordinates (B, T, C)."""
    generator = torch.Generator("cpu").manual_seed(4)
    drawn = [
        torch.stack([torch.randint(1, size, (B, length), generator=generator, device="cpu") for size in sizes], -1)
        for sizes in (FIELDS, COORDINATES)
    ]
    return [part.to(torch.get_default_device()) for part in drawn]


def build(config):
    torch.manual_seed(1)
    return Model(config, FIELDS, COORDINATES).double()


def nats(model, lengths, fresh=None):
    """What each step but the first costs, (N, F), read in chunks; and the state after the last."""
    steps, coordinates = music()
    state, outputs = model.initial_state(B), []
    beginnings = [None] * len(lengths) if fresh is None else fresh.split(lengths, 1)
    for chunk, where, begins in zip(steps.split(lengths, 1), coordinates.split(lengths, 1), beginnings, strict=True):
        output, state = model(chunk, where, state, begins)
        outputs.append(output)
    outputs = torch.cat(outputs, 1)[:, :-1]
    return model.head.nll(outputs, steps[:, 1:], torch.ones(B, T - 1, dtype=torch.bool)), state


@each_model
@pytest.mark.parametrize("lengths", CHUNKS.values(), ids=CHUNKS.keys())
def test_a_model_over_fields_and_coordinates_reads_chunks_as_one_long_call(config, lengths):
    model, fresh = build(config), beginnings(*PLACES)
    assert_same(nats(model, lengths), nats(model, [T]))
    assert_same(nats(model, lengths, fresh), nats(model, [T], fresh))


@each_model
def test_a_model_hears_fields_and_coordinates_of_the_past_and_not_of_the_future(config):
    model, (steps, coordinates) = build(config), music()
    before, _ = model(steps, coordinates, model.initial_state(B))
    for part in (steps, coordinates):
        for index in range(part.shape[-1]):
            part[:, 30, index] = (part[:, 30, index] + 1) % 3  # another value, within every size
            after, _ = model(steps, coordinates, model.initial_state(B))
            assert torch.equal(before[:, :30], after[:, :30])
            assert not torch.allclose(before[:, 30:35], after[:, 30:35])
            before = after


@each_model
def test_a_model_forgets_a_piece_where_the_next_begins(config):
    model, (steps, coordinates) = build(config), music()
    outputs, state = model(steps, coordinates, model.initial_state(B), beginnings((0, 30), (1, 30), (2, 30)))
    expected, end = model(steps[:, 30:], coordinates[:, 30:], model.initial_state(B))
    assert_same(outputs[:, 30:], expected)
    assert_same(state, end)
