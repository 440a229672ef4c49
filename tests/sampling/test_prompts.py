"""Fragments for every tokenizer: voices on a grid, clock time, and music that was played and not typed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from musicgen.checkpoint import build_model
from musicgen.config import check_config
from musicgen.corpus import find_source
from musicgen.errors import FinishError
from musicgen.formats import read_score, read_scores
from musicgen.sampling import SamplingConfig, Take, finish
from musicgen.sampling.prompts import PROMPTS, heard_as
from musicgen.score import Part, Score, Tempo, clip, notes_array, unfold
from musicgen.tokens import TOKENIZERS, BarsTokenizer, PerformanceTokenizer

SMALL = {"dim": 16, "layers": 1, "heads": 2, "memory": 32}


def continued(fragment: Score, tokenizer: dict, decoder: str = "lstm", **options) -> list[Take]:
    """Takes of a model that knows nothing: the contract must hold for any."""
    config = check_config({"tokenizer": tokenizer, "model": {"decoder": decoder, **SMALL}}, "test")
    built = config.tokenizer.build()
    return finish(fragment, build_model(config, built), built, config=SamplingConfig(), **{"bars": 3, **options})


def assert_kept(fragment: Score, take: Take) -> None:
    """The fragment's notes are there, unchanged; the others start at the seam or later and stop with the piece."""
    for before, after, new in zip(fragment.parts, take.whole.parts, take.new.parts, strict=True):
        assert np.array_equal(after.notes[after.notes["onset"] < fragment.length], before.notes)
        assert not len(new.notes) or new.notes["onset"].min() >= fragment.length
        assert after.end <= take.whole.length


@pytest.fixture(scope="module")
def chorale() -> Score:
    """A chorale with a pickup: bwv 66.6."""
    path = next(p for p in find_source("music21:bach").scores if p.name.startswith("bwv66.6"))
    return unfold(read_score(path))


@pytest.fixture(scope="module")
def piano(data) -> Score:
    """A movement's notes as one piano part, at a tempo of its own."""
    score = read_score(data / "orchestra" / "bach-bwv1048-3.mid")
    notes = np.concatenate([part.notes for part in score.parts if not part.is_drum])
    return replace(score, parts=(Part("Piano", 0, False, notes),), tempos=(Tempo(0, 93.0),))


def test_every_tokenizer_can_finish():
    assert PROMPTS.keys() == TOKENIZERS.keys()


# grid


@pytest.mark.parametrize("decoder", ["rnn", "lstm", "transformer"])
@pytest.mark.parametrize("holds", [True, False])
@pytest.mark.parametrize("cut", [0, 300, 700])
def test_a_chorale_goes_on_where_it_stops_in_its_four_voices(chorale, decoder, holds, cut):
    fragment = clip(chorale, int(chorale.bars[5]) + cut)
    begun = len(fragment.bars)
    (take,) = continued(fragment, {"name": "grid", "holds": holds}, decoder)
    assert_kept(fragment, take)
    assert len(take.whole.bars) == begun + 3
    full = fragment.metre_at(fragment.length).ticks
    assert take.whole.length == int(fragment.bars[-1]) + 4 * full
    assert take.notes > 0
    assert (take.whole.metres, take.whole.keys, take.whole.tempos) == (fragment.metres, fragment.keys, fragment.tempos)


def test_a_fragment_with_too_few_voices_is_refused_with_the_reason(chorale):
    duet = replace(chorale, parts=chorale.parts[:2])
    with pytest.raises(FinishError, match="4 parts"):
        continued(clip(duet, int(duet.bars[4])), {"name": "grid"})


# clock time


@pytest.mark.parametrize("cut", [0, 123, 1000])
def test_a_piano_piece_goes_on_in_clock_time_and_ends_on_the_bar_that_was_asked_for(piano, cut):
    fragment = clip(piano, int(piano.bars[4]) + cut)
    for take in continued(fragment, {"name": "performance"}, bars=2, takes=2):
        assert_kept(fragment, take)
        assert len(take.whole.bars) == len(fragment.bars) + 2
        assert take.whole.length == int(fragment.bars[-1]) + 3 * fragment.metre_at(fragment.length).ticks
        assert take.notes > 0


def test_new_notes_come_at_the_time_that_the_model_gave_them(piano):
    fragment = clip(piano, int(piano.bars[4]))
    (take,) = continued(fragment, {"name": "performance"}, bars=2)
    seconds = [take.whole.seconds_at(tick) for tick in take.new.parts[0].notes["onset"].tolist()]
    since = 100 * (np.array(seconds) - fragment.seconds_at(fragment.length))
    assert np.abs(since - np.rint(since)).max() < 0.15  # all on the model's hundredths of a second, up to a tick


def test_a_violin_piece_in_clock_time_stays_in_the_violins_range(piano):
    violin = Part("Violin", 40, False, piano.parts[0].notes[piano.parts[0].notes["pitch"] >= 60])
    fragment = clip(replace(piano, parts=(violin,)), int(piano.bars[4]))
    (take,) = continued(fragment, {"name": "performance"}, bars=4)
    assert take.new.parts[0].notes["pitch"].min() >= 55


def test_several_parts_are_refused_by_a_model_of_one_instrument(chorale):
    band = replace(chorale, parts=(replace(chorale.parts[0], program=40), *chorale.parts[1:]))
    with pytest.raises(FinishError, match="different instruments"):
        continued(clip(band, int(band.bars[4])), {"name": "performance"})


def test_the_two_hands_of_a_pianist_go_on_each_where_it_has_played(piano):
    notes = piano.parts[0].notes
    hands = tuple(Part(name, 0, False, notes[(notes["pitch"] >= 60) == high]) for name, high in (("R", 1), ("L", 0)))
    fragment = clip(replace(piano, parts=hands), int(piano.bars[4]))
    (take,) = continued(fragment, {"name": "performance"}, bars=4)
    assert_kept(fragment, take)
    right, left = (part.notes["pitch"] for part in take.new.parts)
    assert len(right)
    assert len(left)
    assert right.min() > left.max()


# played and typed


def as_played(score: Score) -> Score:
    """The notes where a sequencer without a click would have put them: a wandering pulse, chords not together."""
    generator = np.random.default_rng(3)
    notes = score.parts[0].notes.copy()
    drift = np.cumsum(generator.normal(0, 25, len(notes))) + generator.normal(0, 12, len(notes))
    notes["onset"] = np.maximum(notes["onset"] * 0.931 + drift, 0)
    return Score(parts=(score.parts[0].with_notes(notes),))


def test_music_that_was_played_is_not_forced_into_bars(piano):
    with pytest.raises(FinishError, match="played, not typed"):
        continued(as_played(piano), {"name": "bars"})


def test_music_that_was_played_goes_on_in_clock_time(piano):
    fragment = clip(as_played(piano), 20_000)
    (take,) = continued(fragment, {"name": "performance"})
    assert_kept(fragment, take)


def test_the_model_reads_loosely_played_music_straightened_and_its_notes_stay_as_they_were(piano):
    generator = np.random.default_rng(4)
    notes = piano.parts[0].notes.copy()
    notes["onset"] = np.maximum(notes["onset"] + generator.integers(-8, 9, len(notes)), 0)
    loose = clip(
        replace(piano, parts=(piano.parts[0].with_notes(notes),), length=piano.length + 20), int(piano.bars[6])
    )
    heard = heard_as(loose, BarsTokenizer())
    assert heard.note_count <= loose.note_count
    assert (heard.parts[0].notes["onset"] % 40 == 0).mean() > 0.95
    (take,) = continued(loose, {"name": "bars"})
    assert_kept(loose, take)


def test_in_clock_time_the_model_reads_what_is_there(piano):
    assert heard_as(piano, PerformanceTokenizer()) is piano


def test_typed_music_is_read_as_it_is(chorale):
    assert heard_as(chorale, BarsTokenizer()) is chorale


def test_a_fragment_of_drums_alone_is_refused_in_clock_time():
    drums = Score(parts=(Part("Drums", 0, True, notes_array([(0, 480, 36, 80), (480, 480, 38, 80)])),))
    with pytest.raises(FinishError, match="drums"):
        continued(drums, {"name": "performance"})


# tunes from MIDI files


@pytest.mark.parametrize("cut", [0, 720])
@pytest.mark.parametrize("early", [0, 1, 3, 11])
def test_a_tune_whose_notes_stop_early_goes_on_in_even_lengths(data, cut, early):
    tune = read_scores(data / "irish" / "tunes.abc")[3]
    notes = tune.parts[0].notes.copy()
    notes["duration"] = np.maximum(notes["duration"] - early, 1)
    whole = replace(tune, parts=(tune.parts[0].with_notes(notes),))
    fragment = clip(whole, int(whole.bars[6]) + cut)
    fragment = replace(fragment, length=fragment.parts[0].end if early else fragment.length)
    for take in continued(fragment, {"name": "abc"}, takes=2):
        assert_kept(fragment, take)
        full = whole.metres[0].ticks
        assert len(take.whole.bars) == len(fragment.bars) + 3
        assert max(take.whole.bar_lengths[len(fragment.bars) - 1 :]) <= full
        assert take.notes > 0
