"""Music told ahead of its turn: the piece stays the same, and where we are in it is known throughout."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen.errors import TokenError
from musicgen.formats import read_tunes
from musicgen.tokens import BarsTokenizer
from musicgen.tokens.bars_grammar import Company
from musicgen.tokens.bars_preview import (
    BENEATH,
    GIVEN_AHEAD,
    HOLE,
    IN_ORDER,
    LONGEST_HOLE,
    PREVIEW,
    Block,
    arrange,
    follow,
    in_order,
    preview_at_random,
)
from musicgen.tokens.bars_vocabulary import AHEAD, BACK, BAR, CONDUCTOR, END, INSTRUMENT, PART, POSITION

TOKENIZER = BarsTokenizer()


@pytest.fixture(scope="module")
def pieces(data) -> list[np.ndarray]:
    """A symphony's movement, the scherzo, a rock piece with drums, a song, a quartet in kern and a tune."""
    paths = [
        data / "orchestra" / "beethoven-op21-3.mid",
        data / "schubert-d759" / "scherzo.musicxml",
        *sorted((data / "freedoom").glob("*.mid"))[:1],
        *sorted((data / "irish").glob("*.abc"))[:1],
        *sorted((data / "songs").glob("*.mxl"))[:2],
        *sorted((data / "kern").glob("*.krn"))[:2],
    ]
    return [TOKENIZER.encode(read_tunes(path)[0]) for path in paths]


@pytest.fixture
def piece(pieces) -> np.ndarray:
    return pieces[0]


def orders(steps: np.ndarray, count: int = 6) -> list[np.ndarray]:
    return [preview_at_random(steps, np.random.default_rng(seed)) for seed in range(count)]


def test_without_its_previews_a_piece_is_what_it_was(pieces):
    for steps in pieces:
        for told in orders(steps):
            assert np.array_equal(in_order(told), steps)


def test_an_order_drawn_is_another_order(pieces):
    for steps in pieces:
        assert all((told[:, 0] == AHEAD).any() for told in orders(steps))


def test_both_kinds_of_order_are_drawn(piece):
    kinds = {int(value) for told in orders(piece, 12) for value in np.unique(follow(told).order)}
    assert kinds == {IN_ORDER, GIVEN_AHEAD, HOLE, PREVIEW, BENEATH}


def test_a_preview_of_all_that_follows_a_hole_is_that_music_note_for_note(piece):
    told = arrange(piece, [Block(9, 4, 3)])
    order = follow(told).order
    whole = np.cumsum(piece[:, 0] == BAR)
    preview = told[(order == GIVEN_AHEAD) & (told[:, 0] != AHEAD)]
    assert np.array_equal(preview, piece[(whole >= 13) & (whole <= 15)])


def test_the_score_is_the_same_whatever_the_order(pieces):
    for steps in pieces:
        expected = TOKENIZER.decode(steps)
        assert all(TOKENIZER.decode(told) == expected for told in orders(steps, 3))


def test_a_hole_comes_after_what_follows_it(piece):
    told = arrange(piece, [Block(9, 4, 2)])
    course = follow(told)
    ahead, hole = course.order == GIVEN_AHEAD, course.order == HOLE
    assert set(course.bar[ahead & (told[:, 0] != AHEAD)].tolist()) == {13, 14}
    assert set(course.bar[hole].tolist()) == set(range(9, 13))
    assert np.flatnonzero(ahead).max() < np.flatnonzero(hole).min()
    after = np.flatnonzero(hole).max() + 1
    assert (course.bar[after], course.order[after]) == (13, IN_ORDER)


def test_in_a_hole_the_bars_left_are_those_of_the_hole(piece):
    course = follow(arrange(piece, [Block(9, 4, 3)]))
    hole = course.order == HOLE
    assert (course.left[hole] == 12 - course.bar[hole]).all()
    total = int((piece[:, 0] == BAR).sum())
    assert (course.left[~hole] == total - course.bar[~hole]).all()


def test_a_preview_tells_what_is_given_of_the_bars_that_follow_whole(piece):
    given = piece[piece[:, 0] == PART, 1][:1].tolist()
    told = arrange(piece, [Block(1, 0, 4)], given)
    course = follow(told)
    ahead, beneath = course.order == PREVIEW, course.order == BENEATH
    notes = told[:, 0] >= POSITION
    assert set(told[ahead & notes, 1].tolist()) <= {CONDUCTOR, *given}
    assert set(course.bar[beneath].tolist()) == {1, 2, 3, 4}
    whole = np.cumsum(piece[:, 0] == BAR)
    assert np.array_equal(told[beneath & notes], piece[(whole >= 1) & (whole <= 4) & (piece[:, 0] >= POSITION)])


def test_what_a_preview_told_comes_again_just_so(piece):
    """Walking under the grammar, whatever else is drawn: the conductor's and the given part's steps are all there."""
    given = piece[piece[:, 0] == PART, 1][:1].tolist()
    told = arrange(piece, [Block(1, 0, 3)], given)
    begins = int(np.flatnonzero(told[:, 0] == BACK)[0]) + 1
    previewed = [step for step in told[:begins].tolist() if step[0] >= POSITION]
    generator = np.random.default_rng(0)
    for _ in range(20):
        cursor = TOKENIZER.cursor(3)
        for step in told[1:begins]:
            cursor.advance(step)
        cursor.keep_course()
        cursor.company = Company(tuple(part for part in cursor.roster if part not in given))
        cursor.waiting = set(cursor.roster[-2:])
        walked: list[list[int]] = []
        while not cursor.done:
            step: list[int] = []
            while len(step) < 5:
                allowed = np.flatnonzero(cursor.allowed(step))
                leave = len(step) == 0 and generator.random() < 0.5  # or it would stay in one bar for hundreds of notes
                step.append(int(allowed[0] if leave else generator.choice(allowed)))
            cursor.advance(step)
            walked.append(step)
        assert [s for s in walked if s[0] >= POSITION and s[1] in (CONDUCTOR, *given)] == previewed
        assert {s[1] for s in walked} >= set(cursor.roster[-2:])


def test_a_hole_may_be_the_last_but_one_thing_of_a_piece(piece):
    bars = int((piece[:, 0] == BAR).sum())
    told = arrange(piece, [Block(bars - 3, 3, 1)])
    assert np.array_equal(in_order(told), piece)
    assert (follow(told).order[-1], told[-1, 0]) == (IN_ORDER, END)


def test_steps_that_break_off_in_a_hole_are_put_in_order_as_far_as_they_go(piece):
    told = arrange(piece, [Block(9, 4, 3)])
    course = follow(told)
    cut = told[: int(np.flatnonzero((course.order == HOLE) & (course.bar == 11))[-1]) + 1]
    assert np.array_equal(in_order(cut), piece[np.cumsum(piece[:, 0] == BAR) <= 11])


def test_coordinates_at_once_are_those_step_by_step(pieces):
    for steps in pieces:
        for told in orders(steps, 4):
            cursor = TOKENIZER.cursor(int((steps[:, 0] == BAR).sum()))
            walked = [cursor.coordinates()]
            for step in told[1:]:
                cursor.advance(step)
                walked.append(cursor.coordinates())
            assert np.array_equal(np.array(walked), TOKENIZER.locate(told))
            assert cursor.done


def test_no_mask_forbids_what_a_piece_in_any_order_says(pieces):
    for steps in pieces:
        for told in orders(steps, 3):
            for field, mask in TOKENIZER.masks(told, TOKENIZER.locate(told), 1, len(told)).items():
                values = told[1:, field]
                assert (mask[np.arange(len(values)), values] | (values == 0)).all()


def test_marks_are_given_and_cost_nothing(piece):
    """Where the order changes no model has to guess, and nowhere else does it spend probability on a mark."""
    told = arrange(piece, [Block(9, 4, 3)])
    when = TOKENIZER.masks(told, TOKENIZER.locate(told), 1, len(told))[0]
    marks = np.isin(told[1:, 0], (AHEAD, BACK))
    assert (when[marks].sum(axis=1) == 1).all()
    assert not when[~marks][:, [AHEAD, BACK]].any()


def test_holes_drawn_are_no_longer_than_what_is_said(piece):
    lengths = [int(step[3]) for told in orders(piece, 20) for step in told[told[:, 0] == AHEAD]]
    assert max(lengths) <= LONGEST_HOLE
    assert len(set(lengths)) > 8


def test_a_piece_of_one_bar_is_left_alone_or_told_part_by_part(piece):
    short = np.concatenate([piece[: int(np.flatnonzero(piece[:, 0] == BAR)[1])], piece[-1:]])
    for told in orders(short):
        assert np.array_equal(in_order(told), short)
        assert not (told[told[:, 0] == AHEAD, 3] > 0).any()


@pytest.mark.parametrize(
    ("steps", "found"),
    [
        ([(AHEAD, 0, 0, 2, 0)], "AHEAD"),
        ([(PART, INSTRUMENT, 0, 0, 0), (BAR, 0, 0, 96, 0), (BACK, 0, 0, 0, 0)], "BACK"),
        ([(PART, INSTRUMENT, 0, 0, 0), (BAR, 0, 0, 96, 0), (AHEAD, 0, 0, 2, 0), (BACK, 0, 0, 0, 0)], "BACK"),
        ([(PART, INSTRUMENT, 0, 0, 0), (BAR, 0, 0, 96, 0), (AHEAD, 0, 0, 0, 0), (AHEAD, 0, 0, 0, 0)], "AHEAD"),
    ],
    ids=["before the first bar", "without AHEAD", "with nothing told", "twice"],
)
def test_marks_out_of_place_are_refused(steps, found):
    cursor = TOKENIZER.cursor()
    for step in steps[:-1]:
        cursor.advance(step)
    with pytest.raises(TokenError, match=found):
        cursor.advance(steps[-1])


def test_marks_are_never_drawn(piece):
    cursor = TOKENIZER.cursor(4)
    for step in arrange(piece, [Block(2, 1, 2)])[1:200]:
        allowed = cursor.allowed([])
        assert not allowed[[AHEAD, BACK]].any()
        cursor.advance(step)
