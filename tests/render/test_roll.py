"""The piano roll, as a picture that can be opened; what it looks like is for eyes."""

from __future__ import annotations

import re

import numpy as np
import pytest

from musicgen.errors import FormatError
from musicgen.formats import read_score
from musicgen.render.roll import ADDED, GIVEN, draw_roll
from musicgen.score import Part, Score, notes_array


def svg_words(path) -> str:
    """What is written in a drawing of matplotlib's, whose letters are outlines: it keeps the words as comments."""
    return " | ".join(re.findall(r"<!-- (.*?) -->", path.read_text()))


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


def test_the_same_score_gives_the_same_picture(data, tmp_path):
    score = read_score(data / "schubert-d759" / "scherzo.mid")
    for name in ("one.svg", "two.svg"):
        draw_roll(score, tmp_path / name, seam=1440)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_a_long_score_is_drawn_as_a_whole_and_near_the_join(data, tmp_path):
    score = read_score(data / "orchestra" / "beethoven-op21-3.mid")
    draw_roll(score, tmp_path / "roll.svg", seam=int(score.bars[50]))
    words = svg_words(tmp_path / "roll.svg")
    assert f"the whole, {len(score.bars)} bars" in words
    assert "the join, bars 43 to 58" in words
    assert "given to bar 50" in words


def test_a_long_score_without_a_join_is_drawn_near_its_beginning(data, tmp_path):
    draw_roll(read_score(data / "orchestra" / "beethoven-op21-3.mid"), tmp_path / "roll.svg")
    assert "the beginning, bars 1 to 16" in svg_words(tmp_path / "roll.svg")


def test_bars_are_numbered_where_they_begin_after_a_pickup_too(tmp_path):
    score = Score((Part(notes=notes_array([(0, 4000, 60, 80)])),), bars=np.array([0, 480, 2400]), length=4320)
    draw_roll(score, tmp_path / "roll.svg")
    assert re.findall(r"\b(\d+) \|", svg_words(tmp_path / "roll.svg")) == ["1", "2", "3"]


def test_drums_alone_are_drawn_with_their_names(tmp_path):
    strokes = notes_array([(0, 100, 36, 80), (480, 100, 38, 80)])
    draw_roll(Score((Part("Drums", is_drum=True, notes=strokes),), length=1920), tmp_path / "roll.svg")
    words = svg_words(tmp_path / "roll.svg")
    assert words.index("bass drum") < words.index("snare drum")  # from below


@pytest.mark.parametrize(
    "score",
    [
        Score(length=1920),
        Score((Part(notes=notes_array([(0, 1, 60, 80)])),)),
        Score((Part(),), title="$ and 交響曲", length=10),
    ],
    ids=["no part", "one short note", "a part without notes"],
)
def test_next_to_nothing_is_drawn(score, tmp_path):
    draw_roll(score, tmp_path / "roll.png")
    assert (tmp_path / "roll.png").exists()


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r"\.png"):
        draw_roll(Score(length=1920), tmp_path / "roll.txt")
    assert not list(tmp_path.iterdir())


def test_bars_that_were_filled_are_blue_and_named(data, tmp_path):
    score = read_score(data / "schubert-d759" / "scherzo.mid")
    draw_roll(score, tmp_path / "roll.svg", seam=int(score.bars[4]), until=int(score.bars[7]))
    draw_roll(score, tmp_path / "rest.svg", seam=score.length - 1, until=score.length)
    assert "bars 5 to 7 new, in blue" in svg_words(tmp_path / "roll.svg")
    assert ADDED in (tmp_path / "roll.svg").read_text()
    assert GIVEN in (tmp_path / "roll.svg").read_text()
    assert ADDED not in (tmp_path / "rest.svg").read_text()


def test_new_parts_are_blue_and_named(tmp_path):
    names = ("Flute", "Violin", "Viola")
    score = Score(tuple(Part(name, notes=notes_array([(0, 480, 60 + i, 80)])) for i, name in enumerate(names)))
    draw_roll(score, tmp_path / "roll.svg", new_parts=(1, 2))
    draw_roll(score, tmp_path / "all.svg", new_parts=range(3))
    assert "new in blue: Violin, Viola" in svg_words(tmp_path / "roll.svg")
    assert GIVEN in (tmp_path / "roll.svg").read_text()
    assert GIVEN not in (tmp_path / "all.svg").read_text()
