"""The chord that closes a piece: whatever is drawn of what a grammar with an ending allows, closes on it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from musicgen.formats import read_score
from musicgen.score import Key, Metre, Part, Score, clip, notes_array
from musicgen.tokens import BarsTokenizer, GridTokenizer
from musicgen.tokens.bars_grammar import BarsCursor
from musicgen.tokens.bars_vocabulary import (
    BAR,
    CONDUCTOR,
    DRUM_PARTS,
    DURATIONS,
    INSTRUMENT,
    METRE,
    METRES,
    PART,
    PITCH,
    POSITION,
)
from musicgen.tokens.ending import Ending
from musicgen.tokens.grid_grammar import GridCursor

DATA = Path(__file__).resolve().parents[2] / "data"
BARS = BarsTokenizer()
GRIDS = {"holds": GridTokenizer(), "plain": GridTokenizer(voices=3, holds=False)}
COMMON = METRE + METRES.index((4, 4))
SEEDS = pytest.mark.parametrize("seeds", [range(30), pytest.param(range(30, 300), marks=pytest.mark.slow)], ids=len)


def score_of(*parts: Part, **kinds) -> Score:
    return Score(parts=parts, length=max(part.end for part in parts), **kinds)


def line(program: int, *pitches: int, drums: bool = False, quarters: int = 1) -> Part:
    """A part of one pitch after the other."""
    length = 480 * quarters
    notes = notes_array((length * i, length, pitch, 80) for i, pitch in enumerate(pitches))
    return Part(f"part {program}", program, drums, notes)


# the chord


def test_the_ending_is_the_tonic_chord_of_the_fragment():
    minor = score_of(line(73, 69, 71, 72, 74, 76, 80, 81, 76), line(42, 45, 52, 57, 45), keys=(Key(0, 0),))
    assert Ending.of(minor) == Ending(9, (9, 0, 4))


def test_drums_alone_have_an_ending_without_a_tonality():
    assert Ending.of(score_of(line(0, 36, 38, 36, 38, drums=True))) == Ending(0, (0, 4, 7))


def test_the_root_is_in_the_voice_that_usually_lies_lowest_and_near_there():
    ending = Ending(2, (2, 6, 9))
    assert ending.root({0: (40, 84), 1: (40, 84)}, {0: 71.0, 1: 51.0}) == (1, 50)
    assert ending.root({0: (40, 84), 1: (40, 84)}, {0: 45.0, 1: 51.0}) == (0, 50)


def test_the_root_lies_where_the_others_have_a_tone_above_it():
    """The piccolo's D can't be the lowest note beside a double bass that reaches no higher than G3."""
    ending = Ending(2, (2, 6, 9))
    assert ending.root({0: (74, 108), 1: (28, 55)}, {0: 40.0, 1: 50.0}) == (1, 50)


def test_a_voice_without_a_root_leaves_it_to_the_next():
    ending = Ending(0, (0, 4, 7))
    assert ending.root({0: (61, 71), 1: (60, 90)}, {}) == (1, 60)
    assert ending.root({0: (49, 58), 1: (59, 90)}, {}) is None
    assert ending.root({}, {}) is None


def test_where_no_tone_of_the_chord_lies_the_nearest_is_taken():
    ending = Ending(0, (0, 4, 7))
    assert np.flatnonzero(ending.within(60, 72)).tolist() == [60, 64, 67, 72]
    assert np.flatnonzero(ending.within(61, 63)).tolist() == [61, 63]
    assert np.flatnonzero(ending.within(69, 70)).tolist() == [69, 70]


# walks


def draw(cursor, fields, generator: np.random.Generator, dense: float) -> list[int]:
    """One step, drawn from what is allowed; with a chance of `dense`, the first that there is."""
    step: list[int] = []
    for field in fields:
        choices = np.flatnonzero(cursor.allowed(step))
        assert len(choices), f"stuck at {field.name} after {step}"
        places = choices[choices >= POSITION] if not step else choices[:0]
        chosen = places[0] if len(places) and generator.random() < dense else generator.choice(choices)
        step.append(int(chosen))
    return step


def walk(cursor, tokenizer, generator: np.random.Generator, dense: float = 0.0, most: int = 6) -> np.ndarray:
    """(T, F) steps until the end; who may end when he likes does as `sample` says."""
    end = tokenizer.fields[0].labels.index("END")
    steps = []
    while not cursor.done:
        assert len(steps) < 4000
        if cursor.bars is None and cursor.bar >= most - 2:
            cursor.bars = cursor.bar + 2
        step = draw(cursor, tokenizer.fields, generator, dense)
        if step[0] == end and cursor.bars is None:
            cursor.bars = cursor.bar + 1
            step = draw(cursor, tokenizer.fields, generator, dense)
        cursor.advance(step)
        steps.append(step)
    return np.array(steps)


def random_ending(generator: np.random.Generator) -> Ending:
    tonic = int(generator.integers(12))
    return Ending(tonic, (tonic, (tonic + 3 + int(generator.integers(2))) % 12, (tonic + 7) % 12))


def random_ranges(voices, generator: np.random.Generator, narrow: bool) -> dict[int, tuple[int, int]]:
    """A range for some of the voices, of two octaves or, if narrow, of hardly anything."""
    ranges = {}
    for voice in voices:
        if generator.random() < 0.7:
            low = int(generator.integers(36, 80))
            ranges[voice] = (low, low + (int(generator.integers(8)) if narrow else 24))
    return ranges


@cache
def bars_prompt(bars: int) -> tuple[np.ndarray, tuple[int, ...]]:
    """The beginning of a movement for orchestra that breaks off in a bar, and its roster."""
    score = BARS.quantise(read_score(DATA / "orchestra" / "beethoven-op93-3.mid"))
    steps = BARS.encode(clip(score, int(score.bars[bars]) + 480), unfinished=True)
    return steps, tuple(steps[steps[:, 0] == PART, 1].tolist())


def assert_closes(steps: np.ndarray, cursor: BarsCursor, ending: Ending, not_before: int = 0) -> np.ndarray:
    """The steps (T, 5) of a whole piece end on its chord; (n, 5) the notes of it."""
    bar = np.cumsum(steps[:, 0] == BAR)
    lengths = np.append(0, steps[steps[:, 0] == BAR, 3])
    note = BARS.is_note(steps)
    last = steps[note & (bar == bar[-1]) & (steps[:, 0] - POSITION >= not_before)]
    assert len(last)
    assert len(set(last[:, 0])) == 1
    assert np.bincount(last[:, 1]).max() <= 4
    ends = last[:, 0] - POSITION + DURATIONS[last[:, 3]]
    pitched = last[:, 1] < DRUM_PARTS
    assert (ends[pitched] == lengths[-1]).all()
    assert (ends <= lengths[-1]).all()
    assert set(last[pitched, 1]) <= set(cursor.roster)
    return last


@SEEDS
@pytest.mark.parametrize("narrow", [False, True], ids=["two octaves", "a few keys"])
def test_every_walk_from_a_seam_closes_on_the_chord_at_the_bar_asked_for(narrow, seeds):
    silent = 0
    for seed in seeds:
        generator = np.random.default_rng(seed)
        prompt, roster = bars_prompt(2 + seed % 7)
        begun = int(BARS.bars_begun(prompt)[-1])
        total = None if seed % 3 == 0 else begun + seed % 4
        cursor = BARS.cursor(total)
        for step in prompt[1:].tolist():
            cursor.advance(step)
        cursor.keep_course()
        seam = 24 + int(generator.integers(24))
        cursor.not_before, cursor.ending = seam, random_ending(generator)
        cursor.ranges = random_ranges(roster, generator, narrow)
        band = set(generator.choice(roster, 4).tolist())
        cursor.must_play = set(band)
        ending = cursor.ending
        drawn = walk(cursor, BARS, generator, dense=0.9 * (seed % 2), most=begun + 6)
        steps = np.concatenate([prompt, drawn])
        bar = np.cumsum(steps[:, 0] == BAR)
        assert bar[-1] == total if total is not None else begun < bar[-1] <= begun + 6
        new = np.arange(len(steps)) >= len(prompt)
        last = assert_closes(steps, cursor, ending, not_before=seam if bar[-1] == begun else 0)

        # who was to play has, and who played in the two bars before does in the last
        note = BARS.is_note(steps)
        assert band <= set(steps[note & new, 1])
        assert set(steps[note & (bar >= bar[-1] - 2), 1]) == set(last[:, 1]) | set(steps[note & (bar == bar[-1]), 1])
        silent += len(set(roster) - set(last[:, 1]))

        # nothing new sounds into it
        before = steps[note & new & (bar < bar[-1])]
        stops = 72 * bar[note & new & (bar < bar[-1])] + before[:, 0] - POSITION + DURATIONS[before[:, 3]]
        assert (stops <= 72 * bar[-1]).all()

        # its pitches: within the ranges, of the chord, the root below
        pitches = last[:, 2] - PITCH
        ranges = [cursor.ranges.get(part, (0, 127)) for part in last[:, 1]]
        assert all(low <= pitch <= high for pitch, (low, high) in zip(pitches, ranges, strict=True))
        if not narrow:
            assert set(pitches % 12) <= set(ending.triad)
            assert pitches.min() % 12 == ending.tonic
        assert BARS.decode(steps).note_count
    assert silent


@SEEDS
def test_walks_from_the_start_close_on_the_chord_too_whatever_their_metres_and_instruments(seeds):
    for seed in seeds:
        generator = np.random.default_rng(seed)
        cursor = BARS.cursor(None if seed % 2 else 1 + seed % 5)
        cursor.ending = ending = random_ending(generator)
        steps = np.concatenate([[BARS.start], walk(cursor, BARS, generator, dense=0.8)])
        last = assert_closes(steps, cursor, ending)
        score = BARS.decode(steps)
        start = int(score.bars[-1])
        for part in score.parts:
            sounding = part.notes[part.notes["onset"] + part.notes["duration"] > start]
            assert (sounding["onset"] == sounding["onset"].max(initial=0)).all()
            if not part.is_drum:
                assert set(sounding["pitch"] % 12) <= set(ending.triad)
        pitches = last[last[:, 1] < DRUM_PARTS, 2] - PITCH
        assert not len(pitches) or pitches.min() % 12 == ending.tonic
        located = BARS.locate(steps)
        assert located[-1, 2] == 1


def test_a_cursor_whose_ending_is_not_set_allows_what_it_did():
    """All durations and END, in the last bar but one and in a piece that ends when it likes."""
    for bars in (None, 3):
        cursor = BARS.cursor(bars)
        for step in ((PART, INSTRUMENT, 0, 0, 0), (BAR, 0, 0, 96, 0), (POSITION, CONDUCTOR, COMMON, 0, 0)):
            cursor.advance(step)
        cursor.advance((POSITION, INSTRUMENT, PITCH + 60, 96, 5))
        cursor.advance((POSITION + 48, INSTRUMENT, PITCH + 61, 192, 5))
        assert cursor.allowed([])[2] == (bars is None)
        assert cursor.allowed([POSITION + 50, INSTRUMENT, PITCH + 60])[1:].sum() == (248 if bars is None else 193)


# the grid


@SEEDS
@pytest.mark.parametrize("narrow", [False, True], ids=["two octaves", "a few keys"])
@pytest.mark.parametrize("name", GRIDS)
def test_every_walk_on_a_grid_closes_on_a_chord_of_all_voices(name, narrow, seeds):
    tokenizer = GRIDS[name]
    programs = (73, 40, 41, 42)[-tokenizer.voices :]
    parts = [line(program, *(48 + 9 * i + (4 * k) % 7 for k in range(11))) for i, program in enumerate(programs)]
    for seed in seeds[::2]:
        generator = np.random.default_rng(seed)
        score = score_of(*parts[::-1], metres=(Metre(0, 3, 4),))
        fragment = clip(score, 1440 * (seed % 3) + 120 * int(generator.integers(1, 13)))
        prompt = tokenizer.encode(fragment, unfinished=True)
        begun = int(tokenizer.bars_begun(prompt)[-1])
        full = len(tokenizer.columns(prompt)) == 12 * begun
        total = None if seed % 3 == 0 else begun + seed % 4 + full
        cursor = tokenizer.cursor(total)
        for step in prompt[1:].tolist():
            cursor.advance(step)
        cursor.keep_course()
        cursor.heard = (1,) * tokenizer.voices
        cursor.ending = ending = random_ending(generator)
        cursor.ranges = random_ranges(range(tokenizer.voices), generator, narrow)
        check_grid(tokenizer, cursor, prompt, walk(cursor, tokenizer, generator, most=begun + 4), ending, narrow)
        assert cursor.bar == total if total is not None else begun < cursor.bar <= begun + 4


def check_grid(tokenizer, cursor: GridCursor, prompt, drawn, ending: Ending, narrow: bool) -> None:
    columns = tokenizer.columns(np.concatenate([prompt, drawn]))
    assert len(columns) == 12 * cursor.bar
    chord = columns[max(12 * (cursor.bar - 1), len(tokenizer.columns(prompt))) :]
    assert len(chord)
    assert (chord == chord[0]).all()
    assert (chord >= 0).all()
    if tokenizer.holds:
        assert (drawn[-1 - len(chord), :] >= 3).all()
        assert (drawn[-len(chord) : -1] == 2).all()
    if not narrow:
        assert set(chord[0] % 12) <= set(ending.triad)
        assert chord[0].min() % 12 == ending.tonic
    for voice, (low, high) in cursor.ranges.items():
        assert low <= chord[0, voice] <= high


def test_a_grid_from_the_start_closes_on_the_chord_with_or_without_a_pickup():
    tokenizer = GridTokenizer(voices=2)
    pickups = 0
    for seed in range(40):
        generator = np.random.default_rng(seed)
        cursor = tokenizer.cursor(None if seed % 2 else 1 + seed % 5)
        cursor.ending = ending = random_ending(generator)
        steps = np.concatenate([[tokenizer.start], walk(cursor, tokenizer, generator, most=4)])
        score = tokenizer.decode(steps)
        pickups += score.pickup > 0
        last = [part.notes[-1] for part in score.parts]
        assert all(note["onset"] == score.bars[-1] for note in last)
        assert all(note["onset"] + note["duration"] == score.length for note in last)
        assert {note["pitch"] % 12 for note in last} <= set(ending.triad)
        assert min(note["pitch"] for note in last) % 12 == ending.tonic
    assert pickups
