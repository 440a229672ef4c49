"""What came next the last time."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen.formats import read_score
from musicgen.tokens import BarsTokenizer
from musicgen.tokens.recall import LENGTHS, Recall, Recaller, recall

HOW = Recall(views=((0, 1, 2, 3), (2,)), fields=(0, 1, 2, 3))


def naive(steps: np.ndarray, how: Recall) -> np.ndarray:
    """The definition: for each step and length, look at every earlier passage, the latest first."""
    rows = []
    for t in range(len(steps)):
        row = []
        for view in how.views:
            kept = steps[:, view]
            best, follows = 0, None
            for index, length in enumerate(LENGTHS):
                for end in range(t - 1, length - 2, -1):
                    if t + 1 >= length and np.array_equal(
                        kept[end + 1 - length : end + 1], kept[t + 1 - length : t + 1]
                    ):
                        best, follows = index + 1, end + 1
                        break
            row += [best, *(steps[follows, how.fields] if follows is not None else [0] * len(how.fields))]
        rows.append(row)
    return np.array(rows)


@pytest.fixture(scope="module")
def steps(data) -> np.ndarray:
    """The beginning of a scherzo, whose theme comes back."""
    return BarsTokenizer().encode(read_score(data / "orchestra" / "beethoven-op55-3.mid"))


def test_a_real_piece_is_recalled_as_the_definition_says(steps):
    assert np.array_equal(recall(steps[:300], HOW), naive(steps[:300].astype(np.int64), HOW))


def test_few_values_with_many_repetitions_are_too():
    noise = np.random.default_rng(0).integers(0, 2, (200, 4))
    assert np.array_equal(recall(noise, HOW), naive(noise, HOW))


def test_step_by_step_is_the_same_as_the_whole_at_once(steps):
    recaller = Recaller(HOW)
    assert np.array_equal([recaller.advance(step) for step in steps[:4000]], recall(steps[:4000], HOW))


def test_it_knows_nothing_of_what_is_to_come(steps):
    assert np.array_equal(recall(steps[:500], HOW), recall(steps[:900], HOW)[:500])


def test_a_passage_that_comes_back_is_recalled_note_for_note(steps):
    theme = steps[100:220]
    twice = np.concatenate([theme, theme])
    found = recall(twice, HOW)
    after = slice(120 + 60, 239)
    assert (found[after, 0] == len(LENGTHS)).all()
    assert np.array_equal(found[after, 1:5], twice[120 + 61 :, :4])


def test_at_its_beginning_a_piece_recalls_nothing(steps):
    assert not recall(steps[:1], HOW).any()


def test_what_has_come_three_times_is_not_recalled_a_fourth_time():
    recaller = Recaller(HOW)
    recaller.most = 3
    theme = np.random.default_rng(0).integers(0, 100, (60, 4))
    rows = [np.array([recaller.advance(step)[0] for step in theme]) for _ in range(5)]
    assert (rows[1][1:] > 0).all()
    assert (rows[2] > 0).all()
    assert not rows[3].any()


def test_a_copy_goes_on_by_itself(steps):
    recaller = Recaller(HOW)
    for step in steps[:200]:
        recaller.advance(step)
    other = recaller.copy()
    for step in steps[400:500]:
        other.advance(step)
    assert [list(recaller.advance(step)) for step in steps[200:300]] == recall(steps[:300], HOW)[200:].tolist()
