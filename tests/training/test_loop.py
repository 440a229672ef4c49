"""Training under truncated BPTT: the loop itself, on real music."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from musicgen.checkpoint import build_model
from musicgen.config import check_config
from musicgen.corpus import compile_corpus, find_source, split_pieces
from musicgen.decoders import DECODERS, detach, forget
from musicgen.training.evaluate import evaluate, to_tensors, unigram
from musicgen.training.loop import Trainer, learning_rate

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def corpus(data):
    return compile_corpus(find_source(data / "freedoom"), check_config({}, "test").tokenizer.build())


def trainer(corpus, decoder="lstm", **training) -> Trainer:
    settings = {"steps": 12, "streams": 3, "chunk": 16, "warmup": 2, "evaluate_every": 6, **training}
    values = {"model": {"decoder": decoder, "dim": 16, "layers": 1, "heads": 2, "memory": 16}, "training": settings}
    config = check_config(values, "test")
    torch.manual_seed(0)
    train, valid = split_pieces(corpus.pieces, 0.25)
    return Trainer(build_model(config, corpus.tokenizer), corpus, train, valid, config.training, CPU)


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_run_put_away_and_taken_up_ends_in_the_same_weights_bit_by_bit(corpus, decoder):
    whole = trainer(corpus, decoder)
    for _ in whole.run():
        pass
    first = trainer(corpus, decoder)
    running = first.run()
    for _ in range(7):
        next(running)
    tensors, facts = first.tensors(), first.facts()
    torch.manual_seed(99)
    second = trainer(corpus, decoder)
    torch.manual_seed(98)
    second.restore(tensors, facts)
    for _ in second.run():
        pass
    assert second.step == whole.step == 12
    for (name, one), other in zip(whole.model.state_dict().items(), second.model.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("decoder", DECODERS)
def test_the_loss_falls(corpus, decoder):
    run = trainer(corpus, decoder, steps=60, learning_rate=0.01, evaluate_every=60)
    losses = [report.nats_per_step for report in run.run()]
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:5])


def test_chunks_as_long_as_the_piece_give_the_gradient_of_full_backpropagation(corpus):
    """The loop's own path (streams, forget, detach, head) against one call over the whole piece."""
    run = trainer(corpus, streams=1, chunk=10_000, transpose=(0, 0), hide_bars_left=0.0)
    run.streams.pieces = sorted(corpus.pieces, key=lambda p: p.length)[:1]
    run.model.eval()
    batch = next(run.streams)
    (steps, where, targets, valid, fresh), masks = to_tensors(batch, CPU)
    assert steps.shape[1] == run.streams.pieces[0].length - 1
    run.model.zero_grad()
    outputs, _ = run.model(steps, where, forget(detach(run.model.initial_state(1)), fresh))
    run.model.head.nll(outputs, targets, valid, masks).sum().backward()
    ours = {n: p.grad.clone() for n, p in run.model.named_parameters() if p.grad is not None}

    whole = torch.from_numpy(np.asarray(corpus.steps_of(run.streams.pieces[0])).astype(np.int64))
    places = torch.from_numpy(corpus.tokenizer.locate(whole.numpy()).astype(np.int64))
    run.model.zero_grad()
    outputs, _ = run.model(whole[None, :-1], places[None, :-1], run.model.initial_state(1))
    everything = torch.ones(1, len(whole) - 1, dtype=torch.bool)
    run.model.head.nll(outputs, whole[None, 1:], everything, masks).sum().backward()
    for name, parameter in run.model.named_parameters():
        if parameter.grad is not None:
            assert torch.equal(ours[name], parameter.grad), name


@pytest.mark.parametrize("decoder", DECODERS)
def test_evaluation_does_not_depend_on_how_pieces_are_chunked_or_batched(corpus, decoder):
    model = trainer(corpus, decoder).model.double()
    pieces = sorted(corpus.pieces, key=lambda p: p.length)[:2]
    one = evaluate(model, corpus, pieces, streams=1, chunk=10_000)
    other = evaluate(model, corpus, pieces, streams=2, chunk=37)
    # the head's losses are float32; everything before it is float64 here
    assert other.nats == pytest.approx(one.nats, rel=1e-6)
    assert (one.steps, one.notes) == (other.steps, other.notes)
    assert one.steps == sum(p.length - 1 for p in pieces)
    assert one.notes == sum(p.notes for p in pieces)


def test_the_unigram_reference_equals_counting_by_hand(corpus):
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


def test_training_stops_when_validation_has_not_improved_for_long_enough(corpus):
    run = trainer(corpus, steps=500, evaluate_every=1, patience=3, learning_rate=0.5, warmup=0)
    assert run.valid
    for _ in run.run():
        pass
    assert run.step < 500
    assert run.since_best == 3


def test_without_validation_pieces_the_training_loss_decides(corpus):
    run = trainer(corpus, valid_share=0.0)
    run.valid = []
    reports = list(run.run())
    assert len(reports) == 12
    assert any(report.is_best for report in reports)
    assert all(report.evaluation is None for report in reports)


def test_long_gradients_are_clipped_and_counted(corpus):
    run = trainer(corpus, clip=1e-3)
    list(run.run())
    assert run.clipped == 12
