"""Quick steps are those of the model, up to what 8 bits lose; and where they are not, the exact ones are taken."""

from __future__ import annotations

import logging
import sys

import pytest
import torch

from musicgen.decoders import DECODERS, quick
from musicgen.decoders.model import Model, ModelConfig
from musicgen.decoders.model_step import ModelStepper, QuickModelStepper
from musicgen.tokens import TOKENIZERS

FIELDS, COORDINATES, MEMORY = (12, 7), (5,), 6
NEAR = {"atol": 0.05, "rtol": 0.02}
KINDS = [*((name, {}) for name in DECODERS), ("rnn", {"nonlinearity": "relu"}), ("transformer", {"dim": 24})]
with_onnx = pytest.mark.skipif(not quick.installed(), reason="onnx and onnxruntime are not installed")


def build(name: str, dim: int = 32, **options) -> Model:
    torch.manual_seed(0)
    config = ModelConfig(decoder=name, dim=dim, layers=2, heads=2, memory=MEMORY, dropout=0.0, **options)
    return Model(config, FIELDS, COORDINATES).eval()


@pytest.fixture(params=KINDS, ids=lambda kind: "-".join([kind[0], *map(str, kind[1].values())]))
def model(request):
    return build(request.param[0], **request.param[1])


@pytest.fixture
def music(device):
    """Steps and coordinates of three streams, far longer than the memory."""
    if device.type != "cpu":
        pytest.skip("quick steps are for a processor")
    length = 10 * MEMORY + 2
    steps = torch.stack([torch.randint(size, (3, length)) for size in FIELDS], -1)
    return steps, torch.randint(COORDINATES[0], (3, length, 1))


def begun(model: Model, steps, coordinates, state=None):
    """A quick stepper that has read these steps (B, T, F) in one call."""
    _, state = model(steps, coordinates, state or model.initial_state(len(steps)))
    stepper = model.stepper(state)
    assert isinstance(stepper, QuickModelStepper)
    return stepper


def read_on(stepper: ModelStepper, steps, coordinates):
    """The logits of the first field after each step, (B, T, size)."""
    found = []
    for t in range(steps.shape[1]):
        stepper.step(torch.cat([steps[:, t], coordinates[:, t]], 1).numpy())
        found.append(torch.from_numpy(stepper.field(0, [[]] * stepper.streams).copy()))
    return torch.stack(found, 1)


def whole(model: Model, steps, coordinates, state=None):
    outputs, _ = model(steps, coordinates, state or model.initial_state(len(steps)))
    return model.head.field(0, model.head.context(outputs), [])


@with_onnx
@torch.inference_mode()
def test_quick_steps_are_near_those_of_one_call_far_beyond_the_memory(model, music):
    stepper = begun(model, *(part[:, :1] for part in music))
    found = read_on(stepper, *(part[:, 1:] for part in music))
    torch.testing.assert_close(found, whole(model, *music)[:, 1:], **NEAR)


@with_onnx
@pytest.mark.parametrize("before", [3, MEMORY, 2 * MEMORY + 1])
@torch.inference_mode()
def test_they_go_on_from_any_state(model, music, before):
    stepper = begun(model, *(part[:, :before] for part in music))
    found = read_on(stepper, *(part[:, before:] for part in music))
    torch.testing.assert_close(found, whole(model, *music)[:, before:], **NEAR)


@with_onnx
@torch.inference_mode()
def test_streams_that_are_picked_go_on_alone(model, music):
    rows = torch.tensor([2, 0])
    stepper = begun(model, *(part[:, :2] for part in music))
    read_on(stepper, *(part[:, 2:7] for part in music))
    stepper.pick(rows.numpy())
    found = read_on(stepper, *(part[rows, 7:] for part in music))
    torch.testing.assert_close(found, whole(model, *music)[rows, 7:], **NEAR)


@with_onnx
@torch.inference_mode()
def test_streams_with_pasts_of_different_length_keep_to_their_own(model, music):
    steps, coordinates = music
    states = [
        model(steps[row, None, :length], coordinates[row, None, :length], model.initial_state(1))[1]
        for row, length in enumerate((5, 2, 3))
    ]
    state = tuple(torch.cat(parts) for parts in zip(*states, strict=True))
    rest = steps[:, 6:], coordinates[:, 6:]
    stepper = begun(model, *(part[:, :1] for part in rest), state)
    found = read_on(stepper, *(part[:, 1:] for part in rest))
    torch.testing.assert_close(found, whole(model, *rest, state)[:, 1:], **NEAR)


@with_onnx
@torch.inference_mode()
def test_exact_steps_can_be_had(model, music):
    _, state = model(*(part[:, :1] for part in music), model.initial_state(3))
    stepper = model.stepper(state, exact=True)
    found = read_on(stepper, *(part[:, 1:] for part in music))
    torch.testing.assert_close(found, whole(model, *music)[:, 1:], atol=1e-5, rtol=1e-4)


@with_onnx
@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["lstm", "transformer"])
@pytest.mark.parametrize("name", ["abc", "bars", "grid", "performance"])
@pytest.mark.parametrize("options", [{}, {"hearing": True, "recall": True}])
def test_every_model_of_every_tokenizer_has_quick_steps_within_a_hundredth_of_a_nat(decoder, name, options):
    tokenizer = TOKENIZERS[name]()
    torch.manual_seed(0)
    config = ModelConfig(decoder=decoder, dim=64, layers=2, heads=2, memory=MEMORY, **options)
    sizes = [field.size for field in tokenizer.fields], [place.size for place in tokenizer.coordinates]
    model = Model(config, *sizes, tokenizer.hearing, tokenizer.recall).eval()
    for form in quick.MANY:
        assert quick.difference(model, quick.write_model(model, form).session(), streams=3) < quick.TOLERANCE, form


@with_onnx
@torch.inference_mode()
def test_a_model_that_8_bits_are_too_few_for_keeps_its_weights_and_is_quick_all_the_same(music, monkeypatch):
    monkeypatch.setattr(quick, "TOLERANCE", 1e-5)
    model = build("gru")
    stepper = begun(model, *(part[:, :1] for part in music))
    found = read_on(stepper, *(part[:, 1:] for part in music))
    torch.testing.assert_close(found, whole(model, *music)[:, 1:], atol=1e-5, rtol=1e-4)


@with_onnx
@torch.inference_mode()
def test_few_and_many_streams_have_sessions_of_their_own_forms(model, music):
    assert quick.quick_session(model, 3) is quick.quick_session(model, 1)
    assert quick.quick_session(model, quick.MANY_STREAMS) is not quick.quick_session(model, 1)
    many = [torch.cat([part] * 3) for part in music]
    stepper = begun(model, *(part[:, :1] for part in many))
    found = read_on(stepper, *(part[:, 1:] for part in many))
    torch.testing.assert_close(found, whole(model, *many)[:, 1:], **NEAR)


@with_onnx
@torch.inference_mode()
def test_where_a_scale_a_row_is_too_coarse_many_streams_take_blocks(music, monkeypatch):
    """One weight a thousand times as large as its row's others leaves these no level but zero."""
    model = build("lstm")
    with torch.no_grad():
        model.decoder.kernel.weight_ih_l0[:, 0] = 1000.0
        for table in model.embedding.tables():
            table[:, 0] = 0.0  # nothing is ever multiplied by it
    monkeypatch.setattr(quick, "BLOCK", 16)
    session = quick.quick_session(model, quick.MANY_STREAMS)
    assert quick.difference(model, quick.write_model(model, "rows").session(), 3) > quick.TOLERANCE
    assert session is quick.quick_session(model, 1)


@with_onnx
def test_a_broken_kernel_is_found_out_and_the_exact_steps_are_taken(music, caplog, monkeypatch):
    linear = quick.Graph.linear
    monkeypatch.setattr(quick.Graph, "linear", lambda self, inputs, weight, *bias: linear(self, inputs, -weight, *bias))
    model = build("lstm")
    _, state = model(*(part[:, :1] for part in music), model.initial_state(3))
    stepper = model.stepper(state)
    assert not isinstance(stepper, QuickModelStepper)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "nats off" in record.getMessage()


@with_onnx
def test_a_graph_that_onnxruntime_refuses_is_a_line_and_no_error(caplog, monkeypatch):
    write = quick.Graph.one
    monkeypatch.setattr(quick.Graph, "one", lambda self, kind, *given, **more: write(self, kind + "X", *given, **more))
    assert quick.quick_session(build("lstm")) is None
    assert "can't run quick ones" in caplog.records[0].getMessage()


@with_onnx
def test_weights_that_change_get_a_session_of_their_own():
    model = build("lstm")
    before = quick.quick_session(model)
    assert quick.quick_session(model) is before
    with torch.no_grad():
        next(model.decoder.parameters()).add_(0.1)
    assert quick.quick_session(model) is not before


def test_without_onnxruntime_steps_are_exact(music, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert quick.quick_session(build("transformer")) is None
