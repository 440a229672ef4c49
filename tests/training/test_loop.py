"""Training under truncated BPTT: the loop itself, on real music."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch

from musicgen.config import check_config
from musicgen.corpus import split_pieces
from musicgen.decoders import DECODERS, detach
from musicgen.errors import ConfigError
from musicgen.tokens import NONE
from musicgen.training import measure
from musicgen.training.evaluate import evaluate, to_tensors, unigram
from musicgen.training.loop import Trainer, make_streams
from musicgen.training.schedule import learning_rate


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_run_put_away_and_taken_up_ends_in_the_same_weights_bit_by_bit(trainer, decoder):
    whole = trainer(decoder)
    for _ in whole.run():
        pass
    first = trainer(decoder)
    running = first.run()
    for _ in range(7):
        next(running)
    tensors, facts = first.tensors(), first.facts()
    torch.manual_seed(99)
    second = trainer(decoder)
    torch.manual_seed(98)
    second.restore(tensors, facts)
    for _ in second.run():
        pass
    assert second.step == whole.step == 12
    for (name, one), other in zip(whole.model.state_dict().items(), second.model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_loss_falls(trainer, decoder):
    run = trainer(decoder, steps=60, learning_rate=0.01, evaluate_every=60)
    losses = [report.nats_per_step for report in run.run()]
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:5])


def gradients(run: Trainer) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in run.model.named_parameters() if p.grad is not None}


def test_a_chunk_as_long_as_the_piece_gives_the_gradient_of_full_backpropagation(trainer, corpus):
    """The loop's own path (streams, fresh steps, detach, head) against one call over the whole piece."""
    shortest = min(corpus.pieces, key=lambda p: p.length)
    run = trainer(streams=1, chunk=shortest.length - 1, transpose=(0, 0), hide_bars_left=0.0)
    run.streams = make_streams(corpus, [shortest], run.config)
    run.state = tuple(torch.randn_like(part) for part in run.state)  # of a piece before, to be forgotten
    run.model.eval()
    run._gradients()
    ours = gradients(run)

    whole = torch.from_numpy(np.asarray(corpus.steps_of(shortest)).astype(np.int64))
    places = torch.from_numpy(corpus.tokenizer.locate(whole.numpy()).astype(np.int64))
    found = corpus.tokenizer.masks(whole.numpy(), places.numpy(), 1, len(whole))
    masks = {field: torch.from_numpy(mask)[None] for field, mask in found.items()}
    run.model.zero_grad()
    outputs, _ = run.model(whole[None, :-1], places[None, :-1], run.model.initial_state(1))
    everything = torch.ones(1, len(whole) - 1, dtype=torch.bool)
    run.model.head.nll(outputs, whole[None, 1:], everything, masks).sum().div(len(whole) - 1).backward()
    for name, gradient in gradients(run).items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("decoder", DECODERS)
def test_evaluation_does_not_depend_on_how_pieces_are_chunked_or_batched(trainer, corpus, decoder):
    model = trainer(decoder).model.double()
    pieces = sorted(corpus.pieces, key=lambda p: p.length)[:2]
    one = evaluate(model, corpus, pieces, streams=1, chunk=10_000)
    other = evaluate(model, corpus, pieces, streams=2, chunk=37)
    # the head's losses are float32; everything before it is float64 here
    assert other.nats == pytest.approx(one.nats, rel=1e-6)
    assert (one.steps, one.notes) == (other.steps, other.notes)
    assert one.steps == sum(p.length - 1 for p in pieces)
    assert one.notes == sum(p.notes for p in pieces)


def test_the_unigram_reference_equals_counting_by_hand(trainer, corpus):
    train, valid = split_pieces(corpus.pieces, 0.25)
    found = unigram(corpus, train, valid)
    by_hand = 0.0
    for field, spec in enumerate(corpus.tokenizer.fields):
        counts = dict.fromkeys(range(spec.size), 1)
        for piece in train:
            for value in np.asarray(corpus.steps_of(piece))[1:, field].tolist():
                counts[value] += 1
        if field:
            counts.pop(0)
        total = sum(counts.values())
        for piece in valid:
            for value in np.asarray(corpus.steps_of(piece))[1:, field].tolist():
                if value or not field:
                    by_hand -= math.log(counts[value] / total)
    assert found.nats == pytest.approx(by_hand, rel=1e-9)


def test_the_learning_rate_rises_then_falls_to_its_share():
    config = check_config(
        {"training": {"steps": 100, "warmup": 10, "learning_rate": 1.0, "final_share": 0.1}}, ""
    ).training
    rates = [learning_rate(step, config) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[10] == max(rates) == pytest.approx(1.0)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert rates[100] == pytest.approx(0.1)


def test_training_stops_when_validation_has_not_improved_for_long_enough(trainer, corpus):
    run = trainer(steps=500, evaluate_every=1, patience=3, learning_rate=0.5, warmup=0)
    assert run.valid
    for _ in run.run():
        pass
    assert run.step < 500
    assert run.since_best == 3


def test_without_validation_pieces_the_training_loss_decides(trainer, corpus):
    run = trainer(valid_share=0.0)
    run.valid = []
    reports = list(run.run())
    assert len(reports) == 12
    assert any(report.is_best for report in reports)
    assert all(report.evaluation is None for report in reports)


def test_long_gradients_are_clipped_and_counted(trainer):
    run = trainer(clip=1e-3)
    reports = list(run.run())
    assert run.clipped == 12
    assert reports[-1].clipped_share == 1


def test_nothing_that_is_computed_in_training_is_padding(trainer):
    run = trainer()
    rows, padded = [], 0

    def note(module, words, found) -> None:
        nonlocal padded
        rows.append(len(found[0]))
        padded += int((words[2][..., 0] == NONE).sum())

    run.wrapped.register_forward_hook(note)
    assert [report.tokens for report in run.run()] == rows == [3 * 16] * 12
    assert padded == 0  # a step of no kind


def test_the_means_are_over_the_updates_since_the_last_look_also_of_a_resumed_run(trainer):
    first = trainer()
    reports = list(itertools.islice(first.run(), 9))
    second = trainer()
    second.restore(first.tensors(), json.loads(json.dumps(first.facts())))
    reports += second.run()
    for report in reports:
        since = [r for r in reports if (r.step - 1) // 6 == (report.step - 1) // 6 and r.step <= report.step]
        nats = sum(r.nats_per_note * r.notes for r in since)
        assert report.mean_nats_per_note == pytest.approx(nats / sum(r.notes for r in since))
        assert report.mean_nats_per_step == pytest.approx(nats / sum(r.tokens for r in since))


def test_the_best_look_is_kept_and_known_after_a_resume(trainer):
    first = trainer(evaluate_every=3, learning_rate=0.3, warmup=0)
    looks = [report.evaluation for report in first.run() if report.looked]
    assert first.best_look == min(looks, key=lambda look: look.per_step)
    second = trainer()
    second.restore(first.tensors(), json.loads(json.dumps(first.facts())))
    assert second.best_look == first.best_look


@pytest.mark.parametrize("decoder", DECODERS)
def test_accumulated_chunks_give_the_gradient_of_a_larger_chunk_detached_at_the_same_places(trainer, decoder):
    run = trainer(decoder, dropout=0.0, accumulate=3, chunk=16)
    nats, notes = run._gradients()
    ours = gradients(run)

    run = trainer(decoder, dropout=0.0, chunk=48)
    batch = next(run.streams)
    (steps, where, targets, valid, fresh), masks = to_tensors(batch, run.device)
    state, total = run.state, 0.0
    for part in (slice(0, 16), slice(16, 32), slice(32, 48)):
        outputs, state = run.model(steps[:, part], where[:, part], detach(state), fresh[:, part])
        here = {field: mask[:, part] for field, mask in masks.items()}
        total = total + run.model.head.nll(outputs, targets[:, part], valid[:, part], here).sum()
    (total / targets[..., 0].numel()).backward()
    assert notes == batch.notes
    assert float(nats) == pytest.approx(float(total.detach()), rel=1e-5)
    for name, gradient in gradients(run).items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-6)


# the average of the weights


def test_the_average_follows_the_weights_over_a_tenth_of_the_steps(trainer):
    run = trainer(average=0.75)
    expected = {name: value.clone() for name, value in run.model.named_parameters()}
    for step, _ in enumerate(run.run()):
        decay = min(0.75, (1 + step) / (10 + step))
        for name, value in run.model.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * value
    for name, value in run.averaged.named_parameters():
        torch.testing.assert_close(value, expected[name])
        assert not torch.equal(value, run.model.get_parameter(name))


def test_the_average_is_what_is_evaluated_and_kept(trainer):
    run = trainer()
    *_, last = run.run()
    whole = evaluate(run.averaged, run.corpus, run.valid)
    assert last.evaluation.nats == pytest.approx(whole.nats, rel=1e-5)
    assert last.evaluation.nats != pytest.approx(evaluate(run.model, run.corpus, run.valid).nats, rel=1e-5)
    for name, value in run.averaged.state_dict().items():
        assert torch.equal(run.weights()[f"model.{name}"], value)


def test_without_an_average_the_weights_themselves_are(trainer):
    run = trainer(average=0.0)
    list(run.run())
    assert run.averaged is run.model
    assert not any(name.startswith("average.") for name in run.tensors())


# coordinates that are withheld


def test_a_model_without_a_coordinate_is_evaluated_without_it(trainer, corpus):
    run = trainer(without_coordinates=["beat"])
    *_, last = run.run()
    without = evaluate(run.averaged, corpus, run.valid, without=["beat"])
    assert last.evaluation.nats == pytest.approx(without.nats, rel=1e-5)
    assert last.evaluation.nats != pytest.approx(evaluate(run.averaged, corpus, run.valid).nats, rel=1e-4)


def test_a_coordinate_that_is_not_there_is_refused(trainer):
    with pytest.raises(ConfigError, match="known: beat"):
        trainer(without_coordinates=["weather"])


# precision


def test_bf16_trains_to_about_the_same_loss_and_computes_it_in_fp32(trainer):
    both = {
        precision: list(trainer(precision=precision, steps=20, evaluate_every=20).run())
        for precision in ("fp32", "bf16")
    }
    last = {precision: reports[-1].evaluation.per_note for precision, reports in both.items()}
    assert last["bf16"] == pytest.approx(last["fp32"], rel=0.01)
    assert last["bf16"] != last["fp32"]
    run = trainer(precision="bf16")
    next(run.run())
    assert {part.dtype for part in run.state} == {torch.float32}
    assert {p.grad.dtype for p in run.model.parameters() if p.grad is not None} == {torch.float32}


def test_a_small_model_stays_fp32_without_trying(trainer):
    run = trainer()
    next(run.run())
    assert run.precision == "fp32"


@pytest.mark.parametrize(("ratio", "chosen"), [(2.0, "bf16"), (1.1, "fp32"), (0.5, "fp32")])
def test_bf16_is_chosen_where_it_is_clearly_faster(trainer, monkeypatch, ratio, chosen):
    monkeypatch.setattr(measure, "LARGE", 0)
    monkeypatch.setattr(measure, "fast_at_bf16", lambda device: True)
    took = {"fp32": ratio, "bf16": 1.0}
    real = measure._seconds
    monkeypatch.setattr(measure, "_seconds", lambda loss, *rest: real(loss, *rest) * 0 + took[loss.precision])
    run = trainer()
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    random = torch.get_rng_state()
    assert measure.choose_precision(run.model, next(run.streams), run.device) == (chosen, pytest.approx(ratio))
    assert torch.equal(torch.get_rng_state(), random)  # the run is as if nothing had been tried
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())
    assert all(p.grad is None for p in run.model.parameters())


def test_what_was_chosen_is_kept_for_a_resume(trainer):
    run = trainer()
    run.precision = "bf16"
    next(run.run())
    again = trainer()
    again.restore(run.tensors(), run.facts())
    next(again.run())
    assert again.chunk_loss.precision == "bf16"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PyTorch's own
def test_a_compiled_decoder_trains_to_the_same_weights_under_the_same_names(trainer, monkeypatch):
    """Traced forwards and backwards, for chunks of two lengths, but without the minute that a C++ compiler takes."""
    real = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: real(module, backend="aot_eager"))
    plain, compiled = (trainer("transformer", dropout=0.2, steps=4, compile=c, evaluate_every=4) for c in (False, True))
    for run in (plain, compiled):
        torch.manual_seed(1)
        for _ in run.run():
            run.streams.chunk = 24
    assert plain.tensors().keys() == compiled.tensors().keys()
    for name, value in plain.averaged.state_dict().items():
        torch.testing.assert_close(compiled.averaged.state_dict()[name], value, rtol=1e-3, atol=1e-4)


# what a run keeps for the way back


def test_what_a_chunk_keeps_grows_with_the_chunk_and_not_with_the_piece(trainer):
    kept = {}
    for chunk in (16, 32):
        run = trainer(chunk=chunk)
        batches = [next(run.streams) for _ in range(10)]
        kept[chunk] = [measure.kept_bytes(run.chunk_loss, batch, run.device) for batch in batches]
    assert 1.5 < np.mean(kept[32]) / np.mean(kept[16]) < 2.5
    assert max(kept[16]) < 1.5 * min(kept[16])
