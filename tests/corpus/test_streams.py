"""Streams of steps for training, and whole pieces for evaluation: each step once, in its place, and nothing else."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musicgen.corpus import Corpus, Piece, Streams, whole_pieces
from musicgen.corpus.streams import Batch
from musicgen.errors import ConfigError
from musicgen.formats import read_scores
from musicgen.tokens import HIDDEN, NONE, TOKENIZERS, BarsTokenizer, Tokenizer
from musicgen.tokens.bars_vocabulary import AHEAD

DATA = Path(__file__).resolve().parents[2] / "data"
LEFT = 2  # the place of bars_left among the coordinates


def in_memory(steps: list[np.ndarray], tokenizer: Tokenizer) -> Corpus:
    ends = np.cumsum([len(s) for s in steps])
    pieces = [
        Piece(f"p{i}", "f", int(end) - len(s), len(s), int(tokenizer.is_note(s).sum()), 1, 1, None, f"{i:032x}")
        for i, (s, end) in enumerate(zip(steps, ends, strict=True))
    ]
    return Corpus("tunes", tokenizer, (), "key", (np.concatenate(steps),), tuple(pieces), ())


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    """Eleven Irish tunes of different lengths, as steps in memory."""
    tokenizer = BarsTokenizer()
    return in_memory([tokenizer.encode(s) for s in read_scores(DATA / "irish" / "tunes.abc")[:11]], tokenizer)


def streams(corpus: Corpus, seed: int = 0, **options) -> Streams:
    options = {"streams": 3, "chunk": 64, **options}
    return Streams(corpus, corpus.pieces, generator=np.random.default_rng(seed), **options)


Play = list[tuple[np.ndarray, np.ndarray, np.ndarray]]
"""What was read of one piece, from its start: (step, target, coordinates) by (step, target, coordinates)."""


def plays(batches: list[Batch]) -> list[Play]:
    """What each row read from each fresh step on, in the order of those steps in time, then of rows."""
    found: dict[tuple[int, int], Play] = {}
    playing: dict[int, Play] = {}
    time = 0
    for batch in batches:
        rows, length = batch.fresh.shape
        for row in range(rows):
            for t in range(length):
                if batch.fresh[row, t]:
                    playing[row] = found[time + t, row] = []
                playing[row].append((batch.steps[row, t], batch.targets[row, t], batch.coordinates[row, t]))
        time += length
    return [found[key] for key in sorted(found)]


def joined(play: Play, which: int) -> np.ndarray:
    return np.array([step[which] for step in play])


def epochs(stream: Streams, count: int = 1) -> list[Batch]:
    """Batches until every piece of that many epochs has been played to its end."""
    lengths = [p.length for p in stream.pieces]
    steps = count * sum(lengths) // stream.streams + 3 * max(lengths)
    return [next(stream) for _ in range(-(-steps // stream.chunk))]


@pytest.mark.parametrize(
    "options", [{}, {"streams": 1}, {"streams": 16}, {"chunk": 7}, {"chunk": 3_000}, {"chunk": 1, "streams": 4}]
)
def test_every_step_of_every_piece_is_read_once_an_epoch_and_in_order(options, corpus):
    count = len(corpus.pieces)
    played = plays(epochs(streams(corpus, **options), 2))
    expected = sorted(corpus.steps_of(p)[:-1].tolist() for p in corpus.pieces)
    for first in (0, count):  # the plays of the first epoch, and of the second
        assert sorted(joined(play, 0).tolist() for play in played[first : first + count]) == expected


@settings(max_examples=20, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 300), min_size=1, max_size=12),
    rows=st.integers(1, 7),
    chunk=st.integers(2, 90),
    seed=st.integers(0, 9),
)
def test_nothing_is_padding_and_nothing_is_lost_whatever_the_lengths(lengths, rows, chunk, seed):
    tokenizer = TOKENIZERS["performance"]()
    made = [
        np.concatenate([[tokenizer.start], np.full((n - 1, 1), 3 + i)]).astype(np.int16) for i, n in enumerate(lengths)
    ]
    corpus = in_memory(made, tokenizer)
    batches = epochs(streams(corpus, seed, streams=rows, chunk=chunk))
    for batch in batches:
        assert batch.steps.shape == (rows, chunk, 1)
        assert batch.valid.all()
    played = [joined(play, 0)[:, 0].tolist() for play in plays(batches)[: len(lengths)]]
    assert sorted(played) == sorted(steps[:-1, 0].tolist() for steps in made)


def test_the_targets_are_the_steps_that_follow(corpus):
    by_beginning = {corpus.steps_of(p)[:30].tobytes(): corpus.steps_of(p) for p in corpus.pieces}
    assert len(by_beginning) == len(corpus.pieces)
    for play in plays(epochs(streams(corpus)))[: len(corpus.pieces)]:
        piece = by_beginning[joined(play, 0)[:30].astype(np.int16).tobytes()]
        assert np.array_equal(joined(play, 1), piece[1:])


def test_the_coordinates_are_those_of_the_whole_piece(corpus):
    for play in plays(epochs(streams(corpus)))[: len(corpus.pieces)]:
        whole = np.concatenate([joined(play, 0), joined(play, 1)[-1:]])
        assert np.array_equal(joined(play, 2), corpus.tokenizer.locate(whole)[:-1])


def test_a_step_is_fresh_where_it_begins_a_piece_and_nowhere_else(corpus):
    start = list(corpus.tokenizer.start)
    for batch in epochs(streams(corpus)):
        assert ((batch.steps == start).all(axis=2) == batch.fresh).all()


@pytest.mark.parametrize("hide_each", [0.0, 1.0])
def test_the_masks_are_those_of_each_piece_across_its_beginning_and_its_end(hide_each, corpus):
    """Whatever the model is told of coordinates."""
    tokenizer = corpus.tokenizer
    masks: dict[int, list[np.ndarray]] = {0: [], 1: [], 2: []}
    stream = streams(corpus, streams=1, chunk=50, hide_each=hide_each)
    batches = epochs(stream)
    assert any(batch.fresh[0, 1:].any() for batch in batches)
    for batch in batches:
        assert set(batch.masks) == set(masks)
        for field, mask in batch.masks.items():
            masks[field].append(mask[0])
    at = 0
    for play in plays(batches)[: len(corpus.pieces)]:
        whole = np.concatenate([joined(play, 0), joined(play, 1)[-1:]]).astype(np.int16)
        expected = tokenizer.masks(whole, tokenizer.locate(whole), 1, len(whole))
        for field, parts in masks.items():
            assert np.array_equal(np.concatenate(parts)[at : at + len(play)], expected[field])
        at += len(play)


def test_the_notes_of_a_batch_are_its_targets_that_are_notes(corpus):
    for batch in epochs(streams(corpus, streams=8)):
        assert batch.notes == corpus.tokenizer.is_note(batch.targets[batch.valid]).sum()


def test_the_same_generator_gives_the_same_batches_and_another_others(corpus):
    one, two, other = (streams(corpus, seed, transpose=(-3, 3), hide=0.5, mask=0.1) for seed in (4, 4, 5))
    same = different = True
    for _ in range(20):
        a, b, c = next(one), next(two), next(other)
        same &= np.array_equal(a.steps, b.steps)
        different &= np.array_equal(a.steps, c.steps)
    assert same
    assert not different


EVERYTHING = {"transpose": (-3, 3), "hide": 0.5, "hide_each": 0.3, "mask": 0.2}


def assert_same(one: Batch, other: Batch) -> None:
    for name in ("steps", "coordinates", "targets", "valid", "fresh"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert one.notes == other.notes
    for field, mask in one.masks.items():
        assert np.array_equal(mask, other.masks[field])


@pytest.mark.parametrize("before", [0, 1, 7, 40])
def test_a_restored_stream_goes_on_as_the_one_that_was_saved(before, corpus):
    saved = streams(corpus, 1, **EVERYTHING)
    for _ in range(before):
        next(saved)
    state = json.dumps(saved.state())  # plain values
    expected = [next(saved) for _ in range(30)]
    restored = streams(corpus, 99, **EVERYTHING)
    restored.restore(json.loads(state))
    for batch in expected:
        assert_same(next(restored), batch)
    assert restored.epoch == saved.epoch


@pytest.mark.parametrize("count", [2, 3, 6])
def test_shares_of_the_rows_read_by_themselves_are_the_rows_read_together(count, corpus):
    """And a share can be restored from the state of all rows."""
    whole = streams(corpus, 1, streams=6, **EVERYTHING)
    shares = [streams(corpus, 1, streams=6, part=(k, count), **EVERYTHING) for k in range(count)]
    for i in range(20):
        if i == 7:
            state = whole.state()
            assert [row for share in shares for row in share.state()["rows"]] == state["rows"]
            for share in shares:
                share.restore(state)
        batch, parts = next(whole), [next(share) for share in shares]
        assert batch.notes == sum(part.notes for part in parts)
        for name in ("steps", "coordinates", "targets", "fresh"):
            assert np.array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(batch, name))


def test_a_share_keeps_nothing_of_the_rows_that_others_read(corpus):
    share = streams(corpus, streams=6, part=(1, 3))
    for _ in range(200):
        next(share)
    assert share.epoch > 10
    assert share.order.waiting.keys() == {2, 3}
    assert sum(len(plays) for plays in share.order.waiting.values()) < len(corpus.pieces)


def test_shares_agree_where_transposing_changes_how_long_a_piece_is():
    """ABC in another key has other accidentals, and so another number of characters."""
    tokenizer = TOKENIZERS["abc"](characters=True)
    tunes = read_scores(DATA / "irish" / "tunes.abc", as_written=True)[:5]
    corpus = in_memory([tokenizer.encode(tune) for tune in tunes], tokenizer)
    whole, *shares = (streams(corpus, streams=4, part=part, transpose=(-5, 6)) for part in ((0, 1), (0, 2), (1, 2)))
    lengths = set()
    for _ in range(40):
        batch, parts = next(whole), [next(share) for share in shares]
        assert np.array_equal(np.concatenate([part.steps for part in parts]), batch.steps)
        lengths |= {len(row.reading.steps) for row in whole.rows if row is not None}
    assert lengths - {p.length for p in corpus.pieces}


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
    for play in plays(epochs(streams(corpus, transpose=(-2, 3)), 4))[: 4 * len(corpus.pieces)]:
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


# what is withheld


def test_hiding_withholds_how_many_bars_are_left_for_whole_plays(corpus):
    played = plays(epochs(streams(corpus, hide=0.5), 4))[: 4 * len(corpus.pieces)]
    hidden = [bool((joined(play, 2)[:, LEFT] == HIDDEN).all()) for play in played]
    told = [bool((joined(play, 2)[:, LEFT] != HIDDEN).all()) for play in played]
    assert [h != t for h, t in zip(hidden, told, strict=True)] == [True] * len(played)
    assert 10 < sum(hidden) < len(played) - 10
    for play in played:  # and nothing else
        whole = np.concatenate([joined(play, 0), joined(play, 1)[-1:]])
        assert np.array_equal(joined(play, 2)[:, :LEFT], corpus.tokenizer.locate(whole)[:-1, :LEFT])


@pytest.mark.parametrize(("hide", "share"), [(0.0, 0), (1.0, 1)])
def test_hiding_never_and_always_are_just_that(hide, share, corpus):
    for batch in epochs(streams(corpus, hide=hide)):
        assert ((batch.coordinates[..., LEFT] == HIDDEN) == bool(share)).all()


def test_each_other_coordinate_is_hidden_by_itself_for_whole_plays(corpus):
    played = plays(epochs(streams(corpus, hide_each=0.5), 4))[: 4 * len(corpus.pieces)]
    hidden = set()
    for play in played:
        coordinates = joined(play, 2)
        whole = corpus.tokenizer.locate(np.concatenate([joined(play, 0), joined(play, 1)[-1:]]))[:-1]
        which = tuple(not coordinates[:, i].any() and bool(whole[:, i].any()) for i in range(coordinates.shape[1]))
        for i, hides in enumerate(which):
            assert hides or np.array_equal(coordinates[:, i], whole[:, i])
        hidden.add(which)
    assert {which[LEFT] for which in hidden} == {False}
    others = {tuple(hides for i, hides in enumerate(which) if i != LEFT) for which in hidden}
    assert len(others) > 3


def test_a_coordinate_that_the_model_does_without_is_hidden_in_training_and_evaluation(corpus):
    names = [c.name for c in corpus.tokenizer.coordinates]
    batches = epochs(streams(corpus, without=("beat",)))
    batches += list(whole_pieces(corpus, corpus.pieces, streams=4, chunk=64, hide=False, without=("beat",)))
    for batch in batches:
        assert not batch.coordinates[..., names.index("beat")].any()
        assert batch.coordinates[..., LEFT].all()


def test_a_coordinate_that_is_not_there_is_refused_with_those_that_are(corpus):
    with pytest.raises(ConfigError, match=r"'beats'; known: beat, .*bars_left"):
        streams(corpus, without=("beats",))


@pytest.mark.parametrize("name", ["bars", "abc"])
def test_masking_puts_out_a_share_of_what_is_read_and_leaves_what_is_asked(name):
    tokenizer = TOKENIZERS[name]()
    tunes = read_scores(DATA / "irish" / "tunes.abc", as_written=name == "abc")[:6]
    corpus = in_memory([tokenizer.encode(tune) for tune in tunes], tokenizer)
    plain, masked = streams(corpus), streams(corpus, mask=0.3)
    out = used = 0
    for _ in range(30):
        a, b = next(plain), next(masked)
        assert np.array_equal(a.targets, b.targets)
        assert np.array_equal(a.coordinates, b.coordinates)
        assert np.array_equal(a.steps[a.fresh], b.steps[b.fresh])
        assert ((b.steps == a.steps) | (b.steps == NONE)).all()
        out += int((b.steps != a.steps).sum())
        used += int((a.steps[~a.fresh] != NONE).sum())
    assert 0.27 < out / used < 0.33


# whole pieces


@pytest.mark.parametrize(("rows", "chunk"), [(1, 64), (3, 50), (4, 10_000), (20, 33)])
def test_evaluation_plays_each_piece_once_whole_from_its_start(rows, chunk, corpus):
    batches = list(whole_pieces(corpus, corpus.pieces, streams=rows, chunk=chunk))
    assert all(batch.steps.shape[1] <= chunk for batch in batches)
    assert all(len(one.steps) >= len(other.steps) for one, other in pairwise(batches))
    found = [(joined(play, 0).tolist(), joined(play, 1).tolist()) for play in plays(batches)]
    expected = [(corpus.steps_of(p)[:-1].tolist(), corpus.steps_of(p)[1:].tolist()) for p in corpus.pieces]
    assert sorted(found) == sorted(expected)
    assert sum(batch.notes for batch in batches) == sum(p.notes for p in corpus.pieces)


def test_evaluation_pads_nothing_and_keeps_its_rows_level(corpus):
    batches = list(whole_pieces(corpus, corpus.pieces, streams=4, chunk=64))
    assert sum(batch.valid.size for batch in batches) == sum(p.length - 1 for p in corpus.pieces)
    had_no_row_left_early = sum(4 * batch.valid.shape[1] for batch in batches)
    assert sum(batch.valid.size for batch in batches) > 0.9 * had_no_row_left_early


@pytest.mark.parametrize("hide", [True, False])
def test_evaluation_withholds_how_many_bars_are_left_unless_told_otherwise(hide, corpus):
    for batch in whole_pieces(corpus, corpus.pieces, streams=4, chunk=64, hide=hide):
        assert ((batch.coordinates[..., LEFT] == HIDDEN) == hide).all()


def test_plays_with_previews_come_again_for_the_same_seed(corpus):
    first, second = (streams(corpus, streams=4, chunk=256, preview=1.0) for _ in range(2))
    marks = 0
    for _ in range(20):
        one, two = next(first), next(second)
        assert np.array_equal(one.steps, two.steps)
        assert np.array_equal(one.coordinates, two.coordinates)
        marks += int((one.steps[..., 0] == AHEAD).sum())
    assert marks > 20


def test_no_play_has_previews_unless_it_is_asked_for(corpus):
    read = streams(corpus, streams=4, chunk=256)
    assert not any((next(read).steps[..., 0] == AHEAD).any() for _ in range(20))


def test_a_stream_of_plays_with_previews_is_taken_up_where_it_was_left(corpus):
    read = streams(corpus, streams=2, chunk=128, preview=0.5)
    for _ in range(9):
        next(read)
    again = streams(corpus, streams=2, chunk=128, preview=0.5, seed=99)
    again.restore(read.state())
    for _ in range(5):
        one, two = next(read), next(again)
        assert np.array_equal(one.steps, two.steps)
        assert np.array_equal(one.targets, two.targets)


def test_a_tokenizer_without_previews_refuses_them():
    tokenizer = TOKENIZERS["abc"]()
    corpus = in_memory([tokenizer.encode(s) for s in read_scores(DATA / "irish" / "tunes.abc")[:1]], tokenizer)
    with pytest.raises(ConfigError, match="preview"):
        streams(corpus, streams=2, chunk=32, preview=0.5)
