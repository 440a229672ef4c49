"""The piano roll, as a picture that can be opened; what it looks like is for eyes."""

from __future__ import annotations

import pytest

from musicgen.errors import FormatError
from musicgen.formats import read_score
from musicgen.render.roll import ADDED, GIVEN, draw_roll
from musicgen.score import Score


def test_a_score_with_drums_is_drawn(data, tmp_path):
    draw_roll(read_score(data / "freedoom" / "d_e1m8.mid"), tmp_path / "roll.png", seam=9600)
    assert (tmp_path / "roll.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_what_was_given_and_what_was_added_have_two_colours(data, tmp_path):
    score = read_score(data / "schubert-d759" / "scherzo.mid")
    draw_roll(score, tmp_path / "both.svg", seam=5 * 1440)
    draw_roll(score, tmp_path / "given.svg")
    assert GIVEN in (tmp_path / "both.svg").read_text()
    assert ADDED in (tmp_path / "both.svg").read_text()
    assert ADDED not in (tmp_path / "given.svg").read_text()


def test_a_score_without_notes_is_drawn_empty(tmp_path):
    draw_roll(Score(length=1920), tmp_path / "empty.png")
    assert (tmp_path / "empty.png").exists()


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r"\.png"):
        draw_roll(Score(length=1920), tmp_path / "roll.txt")
    assert not list(tmp_path.iterdir())
