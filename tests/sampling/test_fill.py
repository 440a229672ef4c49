"""Filling holes in real scores with models that have hardly been trained: what is guaranteed holds for any model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from musicgen.errors import FinishError
from musicgen.formats import read_score
from musicgen.sampling import SamplingConfig
from musicgen.sampling.band import pitch_range
from musicgen.sampling.fill import Hole, around, check_fills, fill, parse_hole
from musicgen.score import Score
from musicgen.tokens import TOKENIZERS

CONFIG = SamplingConfig(top_p=0.98)


@pytest.fixture(scope="module")
def quartet() -> Score:
    """Haydn's quartet op. 74 no. 1, first movement: four parts, ties, chords and triplets."""
    music21 = pytest.importorskip("music21")
    return replace(read_score(music21.corpus.getWork("haydn/opus74no1/movement1.mxl")), signs=())


@pytest.fixture(scope="module")
def scherzo(data) -> Score:
    return read_score(data / "schubert-d759" / "scherzo.musicxml")


def filled(loaded, score, hole, **options):
    return fill(score, loaded.model, loaded.tokenizer, hole=hole, config=CONFIG, **options)


def outside(score: Score, start: int, stop: int) -> list[np.ndarray]:
    return [p.notes[(p.notes["onset"] < start) | (p.notes["onset"] >= stop)] for p in score.parts]


@pytest.mark.parametrize("hole", [Hole(1, 2), Hole(4, 4), Hole(3, 6), Hole(2, 8)], ids=str)
def test_what_was_given_comes_back_and_the_new_stays_in_the_hole(orchestra, scherzo, hole):
    start, stop = hole.ticks(scherzo)
    for take in filled(orchestra, scherzo, hole, takes=2):
        for before, after in zip(outside(scherzo, start, stop), outside(take.whole, start, stop), strict=True):
            assert np.array_equal(before, after)
        assert take.notes > 0
        for part in take.new.parts:
            assert (part.notes["onset"] >= start).all()
            assert (part.notes["onset"] + part.notes["duration"] <= stop).all()
        assert (take.whole.metres, take.whole.tempos) == (scherzo.metres, scherzo.tempos)
        assert (take.whole.bars.tolist(), take.whole.length) == (scherzo.bars.tolist(), scherzo.length)


def test_only_parts_of_the_score_play_and_in_their_ranges(orchestra, quartet):
    hole = Hole(20, 23)
    (take,) = filled(orchestra, quartet, hole)
    given = around(quartet, hole)
    for before, part in zip(given.parts, take.new.parts, strict=True):
        if len(part.notes):
            low, high = pitch_range(before)
            assert low <= part.notes["pitch"].min()
            assert part.notes["pitch"].max() <= high


@pytest.mark.parametrize("bars", [1, 2, 5])
def test_who_plays_close_by_on_both_sides_is_never_silent_for_two_bars(orchestra, quartet, bars):
    for first in (10, 80):
        hole = Hole(first, first + bars - 1)
        for take in filled(orchestra, quartet, hole, takes=2, seed=first):
            for before, part in zip(around(quartet, hole).parts, take.new.parts, strict=True):
                both = np.concatenate([before.notes, part.notes])
                for bar in range(hole.first - 1, hole.last):
                    until = int(quartet.bars[bar + 1])
                    since = int(quartet.bars[max(bar - 1, hole.first - 1 - (bars == 1))])
                    sounds = (both["onset"] < until) & (both["onset"] + both["duration"] > since)
                    assert sounds.any() or bar == hole.first - 1


def test_a_part_that_plays_one_note_at_a_time_still_does(orchestra, data):
    music21 = pytest.importorskip("music21")
    chorale = replace(read_score(music21.corpus.getWork("bach/bwv307.mxl")), signs=())
    for take in filled(orchestra, chorale, Hole(4, 7), takes=3):
        for part in take.whole.parts:
            assert (part.notes["onset"][1:] >= (part.notes["onset"] + part.notes["duration"])[:-1]).all()


def test_nobody_has_to_play_in_a_hole_at_the_beginning(orchestra, quartet):
    """There a part that enters later may well be silent."""
    from musicgen.sampling.fill import _hold
    from musicgen.tokens.bars_grammar import BarsCursor

    cursor = BarsCursor(len(quartet.bars))
    _hold(cursor, quartet, Hole(1, 2), {0: 0})
    assert not cursor.band


def test_a_held_note_is_not_struck_again(orchestra, quartet):
    """A note that sounds into the hole stays as it is; its part may play others."""
    bar = 30
    start = int(quartet.bars[bar])
    first = quartet.parts[0]
    long = np.array([(start - 480, 480 * 3, 67, 80)], dtype=first.notes.dtype)
    score = replace(quartet, parts=(first.with_notes(np.concatenate([first.notes, long])), *quartet.parts[1:]))
    for take in filled(orchestra, score, Hole(bar + 1, bar + 2), takes=4):
        new = take.new.parts[0].notes
        assert not ((new["pitch"] == 67) & (new["onset"] < start + 960)).any()


def test_the_same_seed_fills_alike_and_another_does_not(orchestra, scherzo):
    one, two, three = (filled(orchestra, scherzo, Hole(4, 6), seed=seed)[0] for seed in (1, 1, 2))
    assert one.whole == two.whole
    assert one.whole != three.whole


def test_metre_changes_in_the_hole_stand_and_its_bars_keep_their_lengths(orchestra, data):
    from musicgen.score import Metre

    score = read_score(data / "schubert-d759" / "scherzo.musicxml")
    cut = int(score.bars[4])
    two = score.metre_at(0)
    bars = np.array([*score.bars[:5], *(cut + 960 * np.arange(1, 5))], dtype=score.bars.dtype)
    score = replace(
        score,
        bars=bars,
        metres=(two, Metre(cut, 2, 4)),
        length=int(bars[-1]) + 960,
        parts=tuple(
            p.with_notes(p.notes[p.notes["onset"] + p.notes["duration"] <= bars[-1] + 960]) for p in score.parts
        ),
    )
    hole = Hole(3, 6)
    (take,) = filled(orchestra, score, hole)
    assert take.whole.metres == score.metres
    assert np.array_equal(take.whole.bars, score.bars)


@pytest.mark.parametrize(("words", "found"), [("9-12", Hole(9, 12)), (" 3 ", Hole(3, 3)), ("1 - 2", Hole(1, 2))])
def test_the_bars_of_a_hole_are_read(words, found):
    assert parse_hole(words) == found


@pytest.mark.parametrize("words", ["", "12-9", "0-3", "nine", "3-", "1-2-3"])
def test_what_is_no_hole_is_refused(words):
    with pytest.raises(FinishError, match="--bars"):
        parse_hole(words)


def test_a_hole_past_the_end_or_at_it_is_refused(scherzo):
    count = len(scherzo.bars)
    with pytest.raises(FinishError, match=f"has {count} bars"):
        around(scherzo, Hole(2, count + 1))
    with pytest.raises(FinishError, match="musicgen finish"):
        around(scherzo, Hole(count - 1, count))


def test_a_score_whose_only_notes_are_in_the_hole_is_refused(scherzo):
    start, stop = Hole(2, 3).ticks(scherzo)
    parts = [p.with_notes(p.notes[(p.notes["onset"] >= start) & (p.notes["onset"] < stop)]) for p in scherzo.parts]
    with pytest.raises(FinishError, match="all notes"):
        around(replace(scherzo, parts=tuple(parts)), Hole(2, 3))


def test_models_that_know_no_previews_say_no():
    with pytest.raises(FinishError, match="left to right"):
        check_fills(TOKENIZERS["abc"](), True)
    with pytest.raises(FinishError, match="previews"):
        check_fills(TOKENIZERS["bars"](), False)
