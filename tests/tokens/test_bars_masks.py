"""The vectorised masks that training reads, against real scores and against the grammar, step by step."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen.formats import read_score
from musicgen.tokens import BarsTokenizer
from musicgen.tokens.bars_vocabulary import BAR

TOKENIZER = BarsTokenizer()


@pytest.fixture(scope="module", params=["freedoom/d_e1m8.mid", "schubert-d759/scherzo.mid", "kern/new-britain.krn"])
def steps(request, data) -> np.ndarray:
    return TOKENIZER.encode(read_score(data / request.param))


def test_every_step_of_a_real_score_is_possible(steps):
    masks = TOKENIZER.masks(steps, TOKENIZER.locate(steps), 1, len(steps))
    for field, mask in masks.items():
        values = steps[1:, field].astype(int)
        used = (values != 0) | (field == 0)
        assert mask[np.arange(len(values)), values][used].all()


def test_whatever_the_strict_grammar_allows_is_possible(steps):
    """The masks may be wider than the cursor's, never narrower."""
    cursor = TOKENIZER.cursor(int((steps[:, 0] == BAR).sum()))
    masks = TOKENIZER.masks(steps, TOKENIZER.locate(steps), 1, len(steps))
    for i, step in enumerate(steps[1:600]):
        for field, mask in masks.items():
            if step[field] or not field:
                strict = cursor.allowed(step[:field].tolist()).copy()
                strict[0] = False  # NONE is never a value of a field that is used
                assert not (strict & ~mask[i]).any(), (i, step, field)
        cursor.advance(step)


def test_a_chunk_has_the_masks_of_the_whole(steps):
    where = TOKENIZER.locate(steps)
    whole = TOKENIZER.masks(steps, where, 1, len(steps))
    part = TOKENIZER.masks(steps, where, 10, 30)
    for field, mask in part.items():
        assert np.array_equal(mask, whole[field][9:29])


def test_masks_say_nothing_about_the_step_itself_but_its_earlier_fields(steps):
    """Changing a step's own pitch, duration or velocity changes none of its masks: nothing leaks."""
    where = TOKENIZER.locate(steps)
    at = int(np.flatnonzero(TOKENIZER.is_note(steps))[20])
    other = steps.copy()
    other[at, 2:] = (other[at, 2] + 3, other[at, 3] + 1, 1)
    one, two = (TOKENIZER.masks(s, where, at, at + 1) for s in (steps, other))
    for field in one:
        assert np.array_equal(one[field], two[field])
