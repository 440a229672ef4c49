"""In clock time a piece ends when told: its last bar is the tonic chord, struck together and held. For any model."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from musicgen.checkpoint import build_model
from musicgen.config import check_config
from musicgen.formats import read_score
from musicgen.sampling import SamplingConfig, Take, finish
from musicgen.sampling.prompts import settle
from musicgen.score import Metre, Part, Score, Tempo, clip, notes_array, unfold
from musicgen.score.tonality import find_tonality
from musicgen.tokens import PerformanceTokenizer
from musicgen.tokens.ending import Ending
from musicgen.tokens.performance_grammar import (
    END,
    OFF,
    ON,
    SHIFT,
    VELOCITY,
    Barlines,
    PerformanceCursor,
    next_of_chord,
)

TOKENIZER = PerformanceTokenizer()
C_MAJOR = Ending(0, (0, 4, 7))


@cache
def untrained():
    config = check_config({"tokenizer": {"name": "performance"}, "model": {"dim": 16, "layers": 1}}, "test")
    return build_model(config, config.tokenizer.build())


def takes_of(fragment: Score, **options) -> list[Take]:
    return finish(fragment, untrained(), TOKENIZER, config=SamplingConfig(), **{"bars": 2, "takes": 4, **options})


def complaint(fragment: Score, whole: Score, bars: int, classes: int = 3) -> str:
    """What is wrong with an ending; nothing, if all is well. classes: pitch classes that its chord has at least."""
    tonality = find_tonality(fragment)
    assert tonality is not None
    notes = np.concatenate([part.notes for part in whole.parts])
    stops = notes["onset"] + notes["duration"]
    chord = notes[notes["onset"] == notes["onset"].max()]
    if len(whole.bars) != bars:
        return f"{len(whole.bars)} bars, not {bars}"
    if set(stops[notes["onset"] == notes["onset"].max()].tolist()) != {whole.length}:
        return "the chord is let go before the piece is over"
    if stops[notes["onset"] < notes["onset"].max()].max() > chord["onset"][0]:
        return "a note sounds into the chord"
    if chord["onset"][0] < whole.bars[-1] or 4 * chord["duration"][0] < whole.length - whole.bars[-1]:
        return "the chord is not held in the last bar"
    found = set((chord["pitch"] % 12).tolist())
    if not found <= set(tonality.triad) or len(found) < classes:
        return f"{found} is not {tonality.name}"
    return "" if chord["pitch"].min() % 12 == tonality.tonic else "the root is not lowest"


@pytest.fixture(scope="module")
def piano(data: Path) -> Score:
    """A movement's notes as one piano part, at a tempo of its own."""
    score = read_score(data / "orchestra" / "bach-bwv1048-1.mid")
    notes = np.concatenate([part.notes for part in score.parts if not part.is_drum])
    return replace(score, parts=(Part("Piano", 0, False, notes),), tempos=(Tempo(0, 93.0),))


# --- the grammar ------------------------------------------------------------------------------------------------------


def test_a_chord_is_written_from_its_root_up_and_lacks_nothing():
    tones = [48, 52, 55, 60, 64, 67]
    assert next_of_chord([], tones, (0, 4, 7)) == ([48, 60], True)
    assert next_of_chord([48], tones[1:], (0, 4, 7)) == ([52, 55, 60, 64], True)
    assert next_of_chord([48, 55], tones[3:], (0, 4, 7)) == ([60, 64], True)
    assert next_of_chord([48, 55, 64], tones[5:], (0, 4, 7)) == ([67], False)


def test_where_the_compass_is_narrow_a_chord_makes_do_with_what_there_is():
    assert next_of_chord([], [52, 55], (0, 4, 7)) == ([52, 55], True)
    assert next_of_chord([60], [64], (0, 4, 7)) == ([64], True)
    assert next_of_chord([60, 64], [], (0, 4, 7)) == ([], False)


def walked(events: list[int], bars: int = 2) -> PerformanceCursor:
    cursor = TOKENIZER.cursor(bars)
    cursor.ending = C_MAJOR
    for event in events:
        assert cursor.allowed()[event]
        cursor.advance([event])
    return cursor


def allowed(cursor: PerformanceCursor) -> list[int]:
    return np.flatnonzero(cursor.allowed()).tolist()


BEGUN = [VELOCITY, ON + 61, ON + 66, SHIFT + 99, SHIFT + 91]
"""Two notes that sound until the second of two bars begins, at 1.92 s."""


def test_no_time_shift_passes_the_beginning_of_the_last_bar():
    shifts = [event - SHIFT + 1 for event in allowed(walked(BEGUN[:4])) if SHIFT <= event < VELOCITY]
    assert max(shifts) == 92
    assert not set(shifts) & set(range(82, 92))  # nor comes so near that a note could not be heard before it


def test_what_sounds_is_let_go_then_the_chord_is_struck_and_held_until_the_end():
    assert allowed(walked(BEGUN)) == [OFF + 61]
    released = [*BEGUN, OFF + 61, OFF + 66]
    ons = [event - ON for event in allowed(walked(released)) if event < OFF]
    assert ons
    assert all(pitch % 12 == 0 for pitch in ons)
    chord = [*released, ON + 48, ON + 52, ON + 55]
    assert SHIFT + 99 in allowed(walked(chord))
    assert allowed(walked([*chord, SHIFT + 99])) == [SHIFT + 91]
    assert allowed(walked([*chord, SHIFT + 99, SHIFT + 91])) == [OFF + 48]
    ended = walked([*chord, SHIFT + 99, SHIFT + 91, OFF + 48, OFF + 52, OFF + 55])
    assert allowed(ended) == [END]
    assert ended.bar == 2


def test_time_does_not_go_on_before_the_triad_is_whole():
    chord = [*BEGUN, OFF + 61, OFF + 66, ON + 48, ON + 52]
    assert not [event for event in allowed(walked(chord)) if SHIFT <= event < VELOCITY]
    assert SHIFT + 99 in allowed(walked([*chord, ON + 55]))


def test_one_voice_ends_on_the_tonic_alone():
    alone = [VELOCITY, ON + 61, SHIFT + 99, SHIFT + 91, OFF + 61, ON + 60]
    assert SHIFT + 99 in allowed(walked(alone))


def test_a_long_bar_is_held_in_part():
    assert Barlines(length=1920).hold == 1920
    assert Barlines(length=4800).hold == 2400
    assert Barlines(length=9000).hold == 3000


@pytest.mark.parametrize("compass", [(21, 108), (55, 103), (60, 64)])
def test_random_walks_end_on_the_chord(compass: tuple[int, int]):
    rng = np.random.default_rng(5)
    for number in range(80):
        bars = (1, 2, 3, None)[number % 4]
        cursor = TOKENIZER.cursor(bars)
        tonic = number % 12 if compass[1] - compass[0] > 12 else 0
        cursor.ending, cursor.compass = Ending(tonic, (tonic, (tonic + 4) % 12, (tonic + 7) % 12)), compass
        steps, coordinates = [0], [cursor.coordinates()]
        while not cursor.done:
            step = int(rng.choice(np.flatnonzero(cursor.allowed())))
            if bars is None and cursor.bars is None and (step == END or len(steps) > 40):
                cursor.bars = cursor.bar + 1
                continue
            cursor.advance([step])
            steps.append(step)
            coordinates.append(cursor.coordinates())
        score = TOKENIZER.decode(np.array(steps)[:, None])
        notes = score.parts[0].notes
        last = notes[notes["onset"] == notes["onset"].max()]
        assert len(score.bars) == cursor.bar == cursor.bars
        assert set((last["onset"] + last["duration"]).tolist()) == {score.length}
        assert last["pitch"].min() % 12 == tonic
        assert score.length - last["onset"][0] in (1910, 1920)
        assert set((last["pitch"] % 12).tolist()) <= set(cursor.ending.triad)
        assert bars is None or np.array_equal(TOKENIZER.locate(np.array(steps)[:, None]), coordinates)


# --- real pieces ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bars", [1, 2])
@pytest.mark.parametrize("cut", [0, 123, 1000])
def test_a_piano_piece_closes_on_its_tonic_chord_in_the_bar_that_was_asked_for(piano: Score, cut: int, bars: int):
    fragment = clip(piano, int(piano.bars[4]) + cut)
    for take in takes_of(fragment, bars=bars):
        assert not complaint(fragment, take.whole, len(fragment.bars) + bars)


def test_the_chord_stands_on_the_barline_to_the_tick(piano: Score):
    fragment = clip(piano, int(piano.bars[4]) + 77)
    for take in takes_of(fragment):
        assert take.new.parts[0].notes["onset"].max() == take.whole.bars[-1]


def test_a_piece_that_ends_when_it_likes_closes_on_its_chord(piano: Score):
    fragment = clip(piano, int(piano.bars[4]) + 300)
    for take in takes_of(fragment, bars=None, max_bars=3):
        assert len(fragment.bars) < len(take.whole.bars) <= len(fragment.bars) + 3
        assert not complaint(fragment, take.whole, len(take.whole.bars))


def test_a_flute_alone_ends_on_its_tonic():
    notes = notes_array([(i * 480, 480, 72 + (0, 2, 4, 5, 7, 4, 2, 0)[i % 8], 80) for i in range(14)])
    fragment = Score(parts=(Part("Flute", 73, False, notes),), metres=(Metre(0, 4, 4),))
    for take in takes_of(fragment, takes=2):
        assert not complaint(fragment, take.whole, 4 + 2, classes=1)


@pytest.mark.slow
def test_a_hundred_takes_of_piano_pieces_cut_anywhere_all_close_on_their_chord(shared_data: Path, tmp_path: Path):
    with tarfile.open(shared_data / "piano-midi-de.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    files = sorted(tmp_path.rglob("*.mid"))
    generator = np.random.default_rng(6)
    for number, index in enumerate(generator.choice(len(files), 25, replace=False).tolist()):
        piece = unfold(read_score(files[index]))
        cut = int(generator.integers(1920, min(piece.length, 12 * 1920)))
        fragment = clip(piece, cut)
        if not fragment.note_count:
            continue
        bars = 1 + number % 2
        for take in takes_of(fragment, bars=bars, seed=number):
            first = finish_bars(fragment)
            assert not complaint(fragment, take.whole, first + bars), files[index].name


def finish_bars(fragment: Score) -> int:
    """Bars of the fragment as they are counted where it is finished: one barely begun does not count."""
    return len(settle(fragment).bars)
