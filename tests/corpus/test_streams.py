"""Streams of steps for training, and whole pieces for evaluation: each step once, in its place, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from musicgen.corpus import Corpus, Piece, Streams, whole_pieces
from musicgen.corpus.streams import Batch, chunk_length
from musicgen.formats import read_scores
from musicgen.tokens import HIDDEN, BarsTokenizer

DATA = Path(__file__).resolve().parents[2] / "data"
LEFT = 2  # the place of bars_left among the coordinates


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """Eleven Irish tunes of different lengths, as steps in memory."""
    tokenizer = BarsTokenizer()
    steps = [tokenizer.encode(s) for s in read_scores(DATA / "irish" / "tunes.abc")[:11]]
    ends = np.cumsum([len(s) for s in steps])
    pieces = [
        Piece(f"p{i}", "f", int(end) - len(s), len(s), int(tokenizer.is_note(s).sum()), 1, 1, None, f"{i:032x}")
        for i, (s, end) in enumerate(zip(steps, ends, strict=True))
    ]
    return Corpus("tunes", tokenizer, (), "key", (np.concatenate(steps),), tuple(pieces), ())


def streams(corpus: Corpus, seed: int = 0, **options) -> Streams:
    options = {"streams": 3, "chunk": 64, **options}
    return Streams(corpus, corpus.pieces, generator=np.random.default_rng(seed), **options)


def plays(batches: list[Batch]) -> list[list[tuple[np.ndarray, np.ndarray, np.ndarray]]]:
    """What was played from each fresh start on, in the order of the starts: (steps, targets, coordinates) a chunk."""
    found: list[list] = []
    playing: dict[int, list] = {}
    for batch in batches:
        for row in range(len(batch.fresh)):
            if batch.fresh[row]:
                playing[row] = []
                found.append(playing[row])
            valid = batch.valid[row]
            playing[row].append((batch.steps[row, valid], batch.targets[row, valid], batch.coordinates[row, valid]))
    return found


def joined(play: list, which: int) -> np.ndarray:
    return np.concatenate([chunk[which] for chunk in play])


def epoch(stream: Streams, epochs: int = 1) -> list[Batch]:
    """Batches until every piece of that many epochs has been drawn and played to its end."""
    batches = []
    while stream.epoch <= epochs:
        batches.append(next(stream))
    longest = max(p.length for p in stream.pieces)
    return batches + [next(stream) for _ in range(2 * longest // stream.chunk + 2)]


@pytest.mark.parametrize(
    "options", [{}, {"streams": 1}, {"streams": 16}, {"chunk": 7}, {"chunk": 10_000}, {"chunk": 1}]
)
def test_every_step_of_every_piece_is_seen_exactly_once_an_epoch(options, corpus):
    count = len(corpus.pieces)
    played = plays(epoch(streams(corpus, **options), epochs=2))
    for first in (0, count):  # the plays of the first epoch, and of the second
        found = [joined(play, 0).tolist() for play in played[first : first + count]]
        expected = [corpus.steps_of(p)[:-1].tolist() for p in corpus.pieces]
        assert sorted(found) == sorted(expected)


def test_the_targets_are_the_steps_that_follow(corpus):
    by_beginning = {corpus.steps_of(p)[:30].tobytes(): corpus.steps_of(p) for p in corpus.pieces}
    assert len(by_beginning) == len(corpus.pieces)
    for play in plays(epoch(streams(corpus)))[: len(corpus.pieces)]:
        steps, targets = joined(play, 0), joined(play, 1)
        piece = by_beginning[steps[:30].astype(np.int16).tobytes()]
        assert np.array_equal(steps, piece[:-1])
        assert np.array_equal(targets, piece[1:])


def test_the_coordinates_are_those_of_the_whole_piece(corpus):
    for play in plays(epoch(streams(corpus)))[: len(corpus.pieces)]:
        whole = np.concatenate([joined(play, 0), joined(play, 1)[-1:]])
        assert np.array_equal(joined(play, 2), corpus.tokenizer.locate(whole)[:-1])


def test_a_row_is_fresh_where_it_begins_a_piece_and_nowhere_else(corpus):
    start = list(corpus.tokenizer.start)
    for batch in epoch(streams(corpus)):
        assert ((batch.steps[:, 0] == start).all(axis=1) == batch.fresh).all()
        assert not (batch.steps[:, 1:] == start).all(axis=2).any()


def test_padding_is_at_the_end_of_a_row_zero_and_not_valid(corpus):
    padded = 0
    for batch in epoch(streams(corpus, streams=8)):
        assert (np.diff(batch.valid.astype(int), axis=1) <= 0).all()
        assert batch.valid[:, 0].all()
        for array in (batch.steps, batch.targets, batch.coordinates):
            assert not array[~batch.valid].any()
        assert batch.targets[batch.valid][:, 0].all()
        padded += int((~batch.valid).sum())
    assert padded > 0


def test_the_notes_of_a_batch_are_its_valid_targets_that_are_notes(corpus):
    for batch in epoch(streams(corpus, streams=8)):
        assert batch.notes == corpus.tokenizer.is_note(batch.targets[batch.valid]).sum()


def test_no_chunk_is_longer_than_asked(corpus):
    assert max(batch.steps.shape[1] for batch in epoch(streams(corpus, chunk=50))) == 50


def test_the_same_generator_gives_the_same_batches_and_another_others(corpus):
    one, two, other = (streams(corpus, seed, transpose=(-3, 3), hide=0.5) for seed in (4, 4, 5))
    same = different = True
    for _ in range(20):
        a, b, c = next(one), next(two), next(other)
        same &= a.steps.shape == b.steps.shape and np.array_equal(a.steps, b.steps)
        different &= a.steps.shape == c.steps.shape and np.array_equal(a.steps, c.steps)
    assert same
    assert not different


@pytest.mark.parametrize("before", [0, 1, 7, 40])
def test_a_restored_stream_goes_on_as_the_one_that_was_saved(before, corpus):
    options = {"transpose": (-3, 3), "hide": 0.5}
    saved = streams(corpus, 1, **options)
    for _ in range(before):
        next(saved)
    state = json.dumps(saved.state())  # plain values
    expected = [next(saved) for _ in range(30)]
    restored = streams(corpus, 99, **options)
    restored.restore(json.loads(state))
    for batch in expected:
        again = next(restored)
        for name in ("steps", "coordinates", "targets", "valid", "fresh"):
            assert np.array_equal(getattr(again, name), getattr(batch, name))
        assert again.notes == batch.notes
    assert restored.epoch == saved.epoch


def test_a_state_stays_as_it_was_taken_while_the_stream_goes_on(corpus):
    stream = streams(corpus, 1)
    next(stream)
    state = stream.state()
    before = json.dumps(state)
    for _ in range(30):
        next(stream)
    assert json.dumps(state) == before


def test_a_piece_is_transposed_as_a_whole_and_within_the_bounds(corpus):
    originals = {p.offset: corpus.steps_of(p) for p in corpus.pieces}
    shifts = set()
    for play in plays(epoch(streams(corpus, transpose=(-2, 3)), epochs=4))[: 4 * len(corpus.pieces)]:
        steps = joined(play, 0)
        found = [
            semitones
            for semitones in range(-6, 7)
            for piece in originals.values()
            if len(piece) == len(steps) + 1 and np.array_equal(corpus.tokenizer.transpose(piece, semitones)[:-1], steps)
        ]
        assert found
        shifts |= set(found)
    assert shifts == set(range(-2, 4))


def test_hiding_withholds_how_many_bars_are_left_for_whole_plays(corpus):
    played = plays(epoch(streams(corpus, hide=0.5), epochs=4))[: 4 * len(corpus.pieces)]
    hidden = [bool((joined(play, 2)[:, LEFT] == HIDDEN).all()) for play in played]
    told = [bool((joined(play, 2)[:, LEFT] != HIDDEN).all()) for play in played]
    assert [h != t for h, t in zip(hidden, told, strict=True)] == [True] * len(played)
    assert 10 < sum(hidden) < len(played) - 10
    for play in played:  # and nothing else
        whole = np.concatenate([joined(play, 0), joined(play, 1)[-1:]])
        assert np.array_equal(joined(play, 2)[:, :LEFT], corpus.tokenizer.locate(whole)[:-1, :LEFT])


@pytest.mark.parametrize(("hide", "share"), [(0.0, 0), (1.0, 1)])
def test_hiding_never_and_always_are_just_that(hide, share, corpus):
    for batch in epoch(streams(corpus, hide=hide)):
        assert ((batch.coordinates[batch.valid][:, LEFT] == HIDDEN) == bool(share)).all()


# the length of a chunk


def share_used(remaining: list[int], length: int) -> float:
    return sum(min(left, length) for left in remaining) / (length * len(remaining))


@pytest.mark.parametrize("asked", [1, 2, 7, 16, 33])
def test_the_length_of_a_chunk_pads_least_of_those_at_which_a_piece_ends(asked):
    generator = np.random.default_rng(asked)
    for _ in range(300):
        remaining = generator.integers(1, 3 * asked + 2, size=generator.integers(1, 9)).tolist()
        most = min(asked, max(remaining))
        candidates = [c for c in {asked, *remaining} if min(asked / 2, most) <= c <= most]
        best = max(share_used(remaining, c) for c in candidates)
        chosen = chunk_length(remaining, asked)
        assert chosen in candidates
        assert share_used(remaining, chosen) == pytest.approx(best)
        assert chosen == max(c for c in candidates if share_used(remaining, c) > best - 1e-9)


@pytest.mark.parametrize(
    ("remaining", "length"),
    [([200, 300], 100), ([60, 300], 60), ([50, 300], 50), ([49, 300], 100), ([60, 70, 3], 60), ([5, 9], 9), ([1], 1)],
)
def test_a_chunk_of_100_is_as_long_as(remaining, length):
    assert chunk_length(remaining, 100) == length


# whole pieces


@pytest.mark.parametrize(("rows", "chunk"), [(1, 64), (3, 50), (4, 10_000), (20, 33)])
def test_evaluation_plays_each_piece_once_whole_from_its_start(rows, chunk, corpus):
    groups = [list(group) for group in whole_pieces(corpus, corpus.pieces, streams=rows, chunk=chunk)]
    found = []
    for group in groups:
        assert group[0].fresh.all()
        assert not any(batch.fresh.any() for batch in group[1:])
        assert all(batch.steps.shape[1] <= chunk for batch in group)
        for row in range(len(group[0].fresh)):
            found.append(
                (
                    np.concatenate([batch.steps[row, batch.valid[row]] for batch in group]).tolist(),
                    np.concatenate([batch.targets[row, batch.valid[row]] for batch in group]).tolist(),
                )
            )
    expected = [(corpus.steps_of(p)[:-1].tolist(), corpus.steps_of(p)[1:].tolist()) for p in corpus.pieces]
    assert sorted(found) == sorted(expected)
    assert sum(b.notes for g in groups for b in g) == sum(p.notes for p in corpus.pieces)


def test_evaluation_puts_similar_lengths_side_by_side(corpus):
    groups = [list(group) for group in whole_pieces(corpus, corpus.pieces, streams=4, chunk=10_000)]
    lengths = [[int(valid.sum()) for valid in group[0].valid] for group in groups]
    assert [n for row in lengths for n in row] == sorted(p.length - 1 for p in corpus.pieces)


@pytest.mark.parametrize("hide", [True, False])
def test_evaluation_withholds_how_many_bars_are_left_unless_told_otherwise(hide, corpus):
    for group in whole_pieces(corpus, corpus.pieces, streams=4, chunk=64, hide=hide):
        for batch in group:
            assert ((batch.coordinates[batch.valid][:, LEFT] == HIDDEN) == hide).all()
