"""A finished piece ends when told, on its tonic chord, with the whole band: for models that know nothing of music."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from musicgen.checkpoint import build_model
from musicgen.config import check_config
from musicgen.corpus import find_source
from musicgen.formats import read_score
from musicgen.formats.instruments import playing_range
from musicgen.sampling import SamplingConfig, Take, finish
from musicgen.sampling.prompts import settle
from musicgen.score import Metre, Part, Score, clip, notes_array, unfold
from musicgen.score.tonality import find_tonality

DATA = Path(__file__).resolve().parents[2] / "data"
SMALL = {"dim": 16, "layers": 1, "heads": 2, "memory": 32}
LATE = (5755, 5, 81, 80)
BARS, GRID, PLAIN_GRID = {"name": "bars"}, {"name": "grid"}, {"name": "grid", "holds": False}


def takes_of(
    fragment: Score, tokenizer: dict, decoder: str = "lstm", fond_of_ending: float = 0, **options
) -> list[Take]:
    """Takes of a model that was never trained, whose END is more likely by so many nats."""
    config = check_config({"tokenizer": tokenizer, "model": {"decoder": decoder, **SMALL}}, "test")
    built = config.tokenizer.build()
    model = build_model(config, built)
    model.head.logits[0].bias.data[built.fields[0].labels.index("END")] += fond_of_ending
    return finish(fragment, model, built, config=SamplingConfig(), **{"bars": 3, **options})


@cache
def piece(name: str) -> Score:
    """A real piece: of the bundled data ("orchestra/haydn-104-1.mid") or of music21 ("music21:bach bwv66.6")."""
    if not name.startswith("music21:"):
        return unfold(read_score(DATA / name))
    corpus, wanted = name.split()
    return unfold(read_score(next(p for p in find_source(corpus).scores if wanted in str(p))))


def cut(name: str, bars: int, ticks: int = 0) -> Score:
    """The piece broken off `ticks` after the end of so many bars."""
    score = piece(name)
    return clip(score, int(score.bars[bars]) + ticks)


def lately(fragment: Score) -> list[int]:
    """Numbers of the parts that sound in the last eight bars, or of all that play."""
    bars = settle(fragment).bars
    since = int(bars[max(len(bars) - 8, 0)])
    return [i for i, part in enumerate(fragment.parts) if len(part.notes) and part.end > since]


def assert_ends(fragment: Score, take: Take, bars: int | None, struck_once: bool = True) -> None:
    """On the bar asked for, with nothing but the tonic chord from its first beat, or from the seam, to its end."""
    whole, begun = take.whole, settle(fragment)
    last = int(whole.bars[-1])
    assert whole.length - last == max(begun.metre_at(begun.bars[-1]).ticks, begun.length - last)
    if bars is not None:
        assert len(whole.bars) == len(begun.bars) + bars
    start = max(last, fragment.length)
    tonality = find_tonality(fragment)
    notes = np.concatenate([part.notes for part in whole.parts if not part.is_drum])
    stops = notes["onset"] + notes["duration"]
    notes, stops = notes[stops > start], stops[stops > start]
    assert (stops == whole.length).all()
    assert (notes["onset"] <= start).all()
    if struck_once:
        assert (notes["onset"] == start).all()
    assert set(notes["pitch"] % 12) <= set(tonality.triad)
    assert notes["pitch"].min() % 12 == tonality.tonic
    struck = [part for part in whole.parts if not part.is_drum and (part.notes["onset"] >= start).any()]
    if len(struck) > 2 and struck_once:  # a chord, and not only its root and fifth
        assert tonality.triad[1] in set(notes["pitch"] % 12)


def assert_same_band(fragment: Score, take: Take) -> None:
    """Who was playing plays again, nobody else begins to, and all stay in the range of their instrument."""
    for i in lately(fragment):
        assert len(take.new.parts[i].notes), f"{fragment.parts[i].name} is silent"
    for before, new in zip(fragment.parts, take.new.parts, strict=True):
        pitches = new.notes["pitch"].tolist()
        low, high = (127, 0) if before.is_drum else playing_range(before.program)
        used = before.notes["pitch"].tolist()
        assert all(min(low, *used) <= pitch <= max(high, *used) for pitch in pitches)


FRAGMENTS = {
    "scherzo": (BARS, ("schubert-d759/scherzo.musicxml", 8), {}),
    "scherzo in mid-bar": (BARS, ("schubert-d759/scherzo.musicxml", 6, 480), {}),
    "beethoven": (BARS, ("orchestra/beethoven-op67-3.mid", 30), {}),
    "beethoven in mid-bar": (BARS, ("orchestra/beethoven-op93-3.mid", 20, 1000), {}),
    "brandenburg, one bar": (BARS, ("orchestra/bach-bwv1048-3.mid", 12), {"bars": 1}),
    "haydn, one bar, mid-bar": (BARS, ("orchestra/haydn-104-1.mid", 24, 720), {"bars": 1}),
    "drums": (BARS, ("freedoom/d_e1m8.mid", 16), {}),
    "drums in mid-bar": (BARS, ("freedoom/d_dm14.mid", 8, 333), {}),
    "song": (BARS, ("songs/schubert-wandrers-nachtlied-d768.mxl", 6), {}),
    "quartet": (BARS, ("music21:haydn opus74no1/movement3", 16), {}),
    "chorale": (GRID, ("music21:bach bwv66.6", 4), {}),
    "chorale in mid-bar": (GRID, ("music21:bach bwv66.6", 4, 480), {}),
    "chorale, one bar": (GRID, ("music21:bach bwv269", 5, 960), {"bars": 1}),
    "plain chorale": (PLAIN_GRID, ("music21:bach bwv269", 4), {}),
    "quartet in a grid": (GRID, ("music21:haydn opus74no1/movement3", 16, 480), {"steps": 12}),
}


@pytest.mark.parametrize(("tokenizer", "where", "options"), FRAGMENTS.values(), ids=FRAGMENTS)
def test_a_piece_ends_on_its_tonic_chord_with_all_who_were_playing(tokenizer, where, options):
    fragment = cut(*where)
    options = {"bars": 2, **options}
    if steps := options.pop("steps", None):
        tokenizer = {**tokenizer, "steps_per_quarter": steps}
    for take in takes_of(fragment, tokenizer, takes=4, **options):
        assert_ends(fragment, take, options["bars"], struck_once=tokenizer.get("holds", True))
        assert_same_band(fragment, take)
        if tokenizer["name"] == "grid":
            chord = int(max(take.whole.bars[-1], fragment.length))
            assert all(part.end == take.whole.length for part in take.new.parts if len(part.notes))
            assert all((part.notes["onset"] <= chord).any() for part in take.new.parts)


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["rnn", "lstm", "transformer"])
@pytest.mark.parametrize("name", ["scherzo", "drums in mid-bar", "quartet", "chorale in mid-bar"])
def test_of_a_hundred_takes_a_hundred_end_so(name, decoder):
    tokenizer, where, _ = FRAGMENTS[name]
    fragment = cut(*where)
    for take in takes_of(fragment, tokenizer, decoder, takes=100, bars=2):
        assert_ends(fragment, take, 2)
        assert_same_band(fragment, take)


@pytest.mark.parametrize(("fond_of_ending", "most"), [(0, 6), (20, 40), pytest.param(2, 40, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["scherzo in mid-bar", "drums", "chorale", "plain chorale"])
def test_a_piece_that_may_end_when_it_likes_ends_with_an_ending_too(name, fond_of_ending, most):
    tokenizer, where, _ = FRAGMENTS[name]
    fragment = cut(*where)
    takes = takes_of(fragment, tokenizer, takes=8, bars=None, max_bars=most, fond_of_ending=fond_of_ending)
    for take in takes:
        new = len(take.whole.bars) - len(settle(fragment).bars)
        assert new == 1 if fond_of_ending == 20 else 1 <= new <= most
        assert_ends(fragment, take, None, struck_once=tokenizer.get("holds", True))
        assert_same_band(fragment, take)


def test_who_played_in_the_two_bars_before_the_last_plays_in_the_last():
    fragment = cut("schubert-d759/scherzo.musicxml", 8)
    joined = 0
    for take in takes_of(fragment, BARS, takes=20, bars=3):
        first, last = int(take.whole.bars[-3]), int(take.whole.bars[-1])
        for part in take.new.parts:
            onsets = part.notes["onset"]
            if ((onsets >= first) & (onsets < last)).any():
                assert (onsets == last).any(), part.name
                joined += 1
    assert joined > 50


def test_a_part_that_rested_for_long_need_not_play_again():
    """A trombone that has played only in the first of twelve bars of a flute."""
    flute = Part("Flute", 73, notes=notes_array((480 * i, 480, 72 + i % 5, 80) for i in range(48)))
    trombone = Part("Trombone", 57, notes=notes_array([(0, 480, 48, 80)]))
    takes = takes_of(Score(parts=(flute, trombone), length=48 * 480), BARS, takes=30, bars=1)
    assert all(len(take.new.parts[0].notes) for take in takes)
    assert not all(len(take.new.parts[1].notes) for take in takes)


def test_drums_alone_go_on_and_end_on_one_stroke():
    fragment = cut("freedoom/d_e1m8.mid", 16)
    fragment = replace(fragment, parts=tuple(part for part in fragment.parts if part.is_drum and len(part.notes)))
    for take in takes_of(fragment, BARS, takes=8, bars=2):
        assert_same_band(fragment, take)
        last = int(take.whole.bars[-1])
        assert {onset for part in take.new.parts for onset in part.notes["onset"] if onset >= last} <= {last}


@pytest.mark.parametrize(("numerator", "denominator"), [(1, 4), (1, 8), (1, 16), (5, 8), (2, 1)])
def test_bars_of_any_length_end_so(numerator, denominator):
    metre = Metre(0, numerator, denominator)
    notes = [(i * metre.ticks, metre.ticks, 62 + (0, 4, 7, 12)[i % 4], 80) for i in range(12)]
    parts = (Part("Violin", 40, notes=notes_array(notes)), Part("Cello", 42, notes=notes_array(notes)))
    score = Score(parts=parts, length=12 * metre.ticks, metres=(metre,), bars=np.arange(12) * metre.ticks)
    for fragment in (score, clip(score, score.length - metre.ticks // 2)):
        for bars in (1, 3):
            for take in takes_of(fragment, BARS, takes=4, bars=bars):
                assert_ends(fragment, take, bars)
                assert_same_band(fragment, take)


def test_a_note_just_before_the_seam_leaves_no_room_for_another_there():
    """Its onset is nearer to the barline than the grid is fine, which makes the bar a unit longer for the model."""
    violin = Part("Violin", 40, notes=notes_array([*((480 * i, 480, 69 + i % 4, 80) for i in range(12)), LATE]))
    fragment = Score(parts=(violin,), length=5760)
    for take in takes_of(fragment, BARS, takes=50, bars=1):
        assert_ends(fragment, take, 1)
        assert (take.new.parts[0].notes["duration"] == 1920).all()
