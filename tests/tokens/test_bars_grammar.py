"""The grammar of the bars tokenizer: whatever is drawn at random from what it allows is a piece of music."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from musicgen.errors import TokenError
from musicgen.formats import read_score, write_score
from musicgen.score import Score, clip
from musicgen.tokens import BarsTokenizer
from musicgen.tokens.bars_grammar import BarsCursor
from musicgen.tokens.bars_vocabulary import (
    BAR,
    CONDUCTOR,
    DRUM,
    DURATIONS,
    END,
    FIELDS,
    INSTRUMENT,
    KEY,
    KINDS,
    LONGEST_BAR,
    METRE,
    METRE_UNITS,
    PART,
    PITCH,
    POSITION,
    START,
)

DATA = Path(__file__).resolve().parents[2] / "data"
TOKENIZER = BarsTokenizer()
WALKS = 300
PIANO, FLUTE, DRUMS = INSTRUMENT, INSTRUMENT + 8 * 73, INSTRUMENT + 8 * (KINDS - 1)


def draw(cursor: BarsCursor, generator: np.random.Generator) -> list[int]:
    """One step, each field uniform among what is allowed."""
    step: list[int] = []
    for field in FIELDS:
        mask = cursor.allowed(step)
        assert mask.shape == (field.size,)
        choices = np.flatnonzero(mask)
        assert len(choices), f"stuck at {field.name} after {step}"
        step.append(int(generator.choice(choices)))
    return step


def walk(cursor: BarsCursor, generator: np.random.Generator, limit: int = 5000) -> tuple[np.ndarray, np.ndarray]:
    """(steps from START on, coordinates after each) until the end, or after `limit` steps."""
    steps, coordinates = [list(TOKENIZER.start)], [cursor.coordinates()]
    while not cursor.done and len(steps) < limit:
        step = draw(cursor, generator)
        cursor.advance(step)
        steps.append(step)
        coordinates.append(cursor.coordinates())
    return np.array(steps), np.array(coordinates)


@cache
def walks() -> list[tuple[int | None, np.ndarray, np.ndarray]]:
    """(bars asked for, steps, coordinates) of random walks, with and without a number of bars."""
    found = []
    for seed in range(WALKS):
        bars = None if seed % 2 else 1 + seed // 2 % 12
        steps, coordinates = walk(TOKENIZER.cursor(bars), np.random.default_rng(seed))
        found.append((bars, steps, coordinates))
    return found


def bars_of(steps: np.ndarray) -> np.ndarray:
    return np.cumsum(steps[:, 0] == BAR)


# random walks


def test_every_walk_comes_to_its_end():
    for _, steps, _ in walks():
        assert steps[-1, 0] == END
        assert (steps[1:-1, 0] > END).all()


def test_a_walk_has_exactly_the_bars_it_was_asked_for():
    asked = {bars for bars, _, _ in walks() if bars}
    assert asked == set(range(1, 13))
    for bars, steps, _ in walks():
        if bars is not None:
            assert bars_of(steps)[-1] == bars


def test_a_walk_that_is_asked_for_no_number_of_bars_has_notes():
    lengths = set()
    for bars, steps, _ in walks():
        if bars is None:
            assert TOKENIZER.is_note(steps).any()
            lengths.add(int(bars_of(steps)[-1]))
    assert len(lengths) > 5


def test_no_field_is_left_out_where_it_is_needed_and_none_given_where_it_is_not():
    for _, steps, _ in walks():
        when, part, pitch, duration, velocity = steps.T
        note = TOKENIZER.is_note(steps)
        says = (when >= POSITION) & (part == CONDUCTOR)
        assert (steps[note] > 0).all()
        assert ((part > 0) == ((when >= POSITION) | (when == PART))).all()
        assert ((pitch > 0) == (note | says)).all()
        assert ((duration > 0) == (note | (when == BAR))).all()
        assert ((velocity > 0) == note).all()
        assert (pitch[says] >= METRE).all()
        drum = part >= DRUMS
        assert ((pitch[note & ~drum] >= PITCH) & (pitch[note & ~drum] < DRUM)).all()
        assert ((pitch[note & drum] >= DRUM) & (pitch[note & drum] < METRE)).all()


def test_the_bars_of_a_walk_sum_to_their_metre_but_for_a_pickup():
    pickups = 0
    for _, steps, _ in walks():
        score = TOKENIZER.decode(steps)
        lengths = score.bar_lengths
        full = np.array([score.metre_at(int(start)).ticks for start in score.bars])
        assert (lengths[1:] == full[1:]).all()
        assert lengths[0] <= full[0]
        pickups += lengths[0] < full[0]
    assert pickups > WALKS // 10


def test_the_first_thing_in_a_piece_after_its_bar_is_its_metre():
    for _, steps, _ in walks():
        first = int(np.argmax(steps[:, 0] == BAR))
        assert steps[first + 1, :2].tolist() == [POSITION, CONDUCTOR]
        assert METRE <= steps[first + 1, 2] < KEY


def test_the_metre_changes_where_a_bar_is_of_another_length_and_only_there():
    changes = 0
    for _, steps, _ in walks():
        metre = 0
        for step, following in pairwise(steps):
            said = following[1] == CONDUCTOR and METRE <= following[2] < KEY
            assert said == (step[0] == BAR and step[3] != metre)
            if said:
                metre = METRE_UNITS[following[2] - METRE]
                changes += 1
    assert changes > WALKS


def test_the_notes_of_a_walk_are_in_time_then_by_part_then_by_pitch():
    for _, steps, _ in walks():
        placed = steps[:, 0] >= POSITION
        keys = np.column_stack([bars_of(steps), steps[:, :3]])[placed].tolist()
        assert all(a < b for a, b in pairwise(keys))


def test_only_instruments_of_the_roster_play():
    for _, steps, _ in walks():
        roster = steps[steps[:, 0] == PART, 1].tolist()
        assert roster == sorted(set(roster))
        assert set(steps[TOKENIZER.is_note(steps), 1].tolist()) <= set(roster)


def test_the_second_of_a_kind_joins_only_after_the_first():
    for _, steps, _ in walks():
        roster = set(steps[steps[:, 0] == PART, 1].tolist())
        for value in roster:
            kind, instance = divmod(value - INSTRUMENT, 8)
            assert instance == 0 or INSTRUMENT + 8 * kind + instance - 1 in roster


def test_no_note_starts_past_its_bar_or_ends_past_the_last():
    for _, steps, _ in walks():
        score = TOKENIZER.decode(steps)
        unit_lengths = np.append(0, steps[steps[:, 0] == BAR, 3])[bars_of(steps)]
        note = TOKENIZER.is_note(steps)
        assert (steps[note, 0] - POSITION < unit_lengths[note]).all()
        assert all(part.end <= score.length for part in score.parts)


def test_coordinates_of_a_whole_walk_are_those_of_its_steps():
    for bars, steps, coordinates in walks():
        located = TOKENIZER.locate(steps)
        if bars is None:  # how many are left is not told
            assert (coordinates[:, 2] == 0).all()
            located[:, 2] = 0
        assert np.array_equal(located, coordinates)


def test_a_decoded_walk_is_encoded_and_decoded_the_same():
    for _, steps, _ in walks():
        score = TOKENIZER.decode(steps)
        if not score.note_count:
            continue
        assert TOKENIZER.decode(TOKENIZER.encode(score)) == TOKENIZER.quantise(score)


def test_every_walk_is_written_to_midi_and_read_back_the_same(tmp_path):
    for _, steps, _ in walks():
        score = TOKENIZER.decode(steps)
        write_score(score, tmp_path / "walk.mid")
        again = read_score(tmp_path / "walk.mid")
        heard = [p for p in score.parts if len(p.notes)]
        assert list(again.parts) == heard
        length = max((p.end for p in heard), default=0)
        assert again.length == length
        assert again.bars.tolist() == [b for b in score.bars.tolist() if b < max(length, 1)]
        for event in score.keys:
            assert again.key_at(event.onset).fifths == event.fifths
        for event in score.tempos:
            assert again.tempo_at(event.onset).bpm == pytest.approx(event.bpm, abs=0.01)


# going on from a prompt


@cache
def prompt(bars: int, beats: int) -> tuple[Score, np.ndarray]:
    """A fragment of a real movement that breaks off in the middle of a bar, and its steps without END."""
    score = TOKENIZER.quantise(read_score(DATA / "orchestra" / "beethoven-op93-3.mid"))
    fragment = clip(score, int(score.bars[bars]) + 480 * beats)
    return fragment, TOKENIZER.encode(fragment, unfinished=True)


def at_the_seam(steps: np.ndarray, total: int, not_before: int) -> BarsCursor:
    cursor = TOKENIZER.cursor(total)
    for step in steps[1:].tolist():
        cursor.advance(step)
    cursor.keep_course()
    cursor.not_before = not_before
    return cursor


@pytest.mark.parametrize("seed", range(20))
def test_a_continuation_keeps_metre_tempo_key_roster_and_the_seam(seed):
    generator = np.random.default_rng(seed)
    beats = int(generator.integers(0, 3))
    _, steps = prompt(8, beats)
    begun = int(bars_of(steps)[-1])
    total = begun + int(generator.integers(0, 5))
    cursor = at_the_seam(steps, total, 24 * beats)
    drawn, _ = walk(cursor, generator)
    new = drawn[1:]
    assert new[-1, 0] == END
    assert begun + (new[:, 0] == BAR).sum() == total
    assert not (new[:, 1] == CONDUCTOR).any()
    assert set(new[new[:, 0] == BAR, 3].tolist()) <= {72}
    assert set(new[:, 1].tolist()) - {0} <= set(steps[steps[:, 0] == PART, 1].tolist())
    here = new[: int(np.argmax((new[:, 0] == BAR) | (new[:, 0] == END)))]
    assert (here[:, 0] - POSITION >= 24 * beats).all()


def test_the_seam_holds_for_its_bar_only():
    _, steps = prompt(8, 2)
    cursor = at_the_seam(steps, int(bars_of(steps)[-1]) + 1, 48)
    assert np.flatnonzero(cursor.allowed([])).min() == BAR
    assert not cursor.allowed([])[POSITION : POSITION + 48].any()
    assert cursor.allowed([])[POSITION + 48 : POSITION + 72].all()
    cursor.advance((BAR, 0, 0, 72, 0))
    assert cursor.allowed([])[POSITION : POSITION + 72].all()


def test_in_a_bar_that_is_full_nothing_but_the_next_bar_may_come():
    _, steps = prompt(8, 0)
    begun = int(bars_of(steps)[-1])
    cursor = at_the_seam(steps, begun + 1, 72)
    assert np.flatnonzero(cursor.allowed([])).tolist() == [BAR]
    assert np.flatnonzero(at_the_seam(steps, begun, 72).allowed([])).tolist() == [END]


def test_no_note_of_a_continuation_lasts_past_the_bars_asked_for():
    _, steps = prompt(8, 1)
    begun = int(bars_of(steps)[-1])
    for seed in range(10):
        drawn, _ = walk(at_the_seam(steps, begun + 2, 24), np.random.default_rng(seed))
        bar = bars_of(drawn)
        note = TOKENIZER.is_note(drawn)
        ends = (72 * bar + drawn[:, 0] - POSITION + DURATIONS[drawn[:, 3]])[note]
        assert ends.max() <= 3 * 72


def test_ranges_hold_for_the_parts_that_have_one():
    _, steps = prompt(8, 1)
    roster = sorted(set(steps[steps[:, 0] == PART, 1].tolist()))
    cursor = at_the_seam(steps, int(bars_of(steps)[-1]) + 30, 24)
    cursor.ranges = {value: (60 + i, 60 + i + i % 3) for i, value in enumerate(roster[1:])}
    drawn, _ = walk(cursor, np.random.default_rng(5), limit=2000)
    played = set()
    for value in roster:
        pitches = drawn[TOKENIZER.is_note(drawn) & (drawn[:, 1] == value), 2] - PITCH
        low, high = cursor.ranges.get(value, (0, 127))
        assert ((pitches >= low) & (pitches <= high)).all()
        played |= {value} if len(pitches) else set()
    assert len(played) > len(roster) // 2


def test_a_range_holds_for_drums_too():
    cursor = TOKENIZER.cursor(4)
    cursor.ranges = {DRUMS: (36, 38)}
    cursor.advance((PART, DRUMS, 0, 0, 0))
    cursor.advance((BAR, 0, 0, 96, 0))
    cursor.advance((POSITION, CONDUCTOR, METRE, 0, 0))
    assert np.flatnonzero(cursor.allowed([POSITION + 1, DRUMS])).tolist() == [DRUM + 36, DRUM + 37, DRUM + 38]
    cursor.advance((POSITION + 1, DRUMS, DRUM + 37, 1, 1))
    assert np.flatnonzero(cursor.allowed([POSITION + 1, DRUMS])).tolist() == [DRUM + 38]
    cursor.advance((POSITION + 1, DRUMS, DRUM + 38, 1, 1))
    assert not cursor.allowed([])[POSITION + 1]


# what is refused

BEGUN = [(PART, PIANO, 0, 0, 0), (BAR, 0, 0, 96, 0), (POSITION, CONDUCTOR, METRE + 20, 0, 0)]
NOTE_AT_24 = (POSITION + 24, PIANO, PITCH + 60, 24, 5)
NONSENSE = {
    "a second START of no kind": ([*BEGUN], (0, 0, 0, 0, 0), "bar 1"),
    "a value that when has not": (BEGUN, (FIELDS[0].size, PIANO, PITCH + 60, 24, 5), "bar 1"),
    "a value that pitch has not": (BEGUN, (POSITION, PIANO, FIELDS[2].size, 24, 5), "bar 1"),
    "a negative value": (BEGUN, (POSITION, PIANO, PITCH + 60, -1, 5), "bar 1"),
    "a note before the first bar": (BEGUN[:1], (POSITION, PIANO, PITCH + 60, 24, 5), "bar 0"),
    "a note past its bar": (BEGUN, (POSITION + 96, PIANO, PITCH + 60, 24, 5), "bar 1"),
    "a note that goes back": ([*BEGUN, NOTE_AT_24], (POSITION + 23, PIANO, PITCH + 60, 24, 5), "bar 1"),
    "a note of a part that is not there": (BEGUN, (POSITION, FLUTE, PITCH + 60, 24, 5), "bar 1"),
    "a note of no part": (BEGUN, (POSITION, 0, PITCH + 60, 24, 5), "bar 1"),
    "a note without a pitch": (BEGUN, (POSITION, PIANO, 0, 24, 5), "bar 1"),
    "a drum key for a piano": (BEGUN, (POSITION, PIANO, DRUM + 36, 24, 5), "bar 1"),
    "a metre for a piano": (BEGUN, (POSITION, PIANO, METRE, 24, 5), "bar 1"),
    "a note without a duration": (BEGUN, (POSITION, PIANO, PITCH + 60, 0, 5), "bar 1"),
    "a note without a velocity": (BEGUN, (POSITION, PIANO, PITCH + 60, 24, 0), "bar 1"),
    "a conductor who plays": (BEGUN, (POSITION, CONDUCTOR, PITCH + 60, 24, 5), "bar 1"),
    "a part that joins late": (BEGUN, (PART, FLUTE, 0, 0, 0), "bar 1"),
    "a part that joins twice": (BEGUN[:1], (PART, PIANO, 0, 0, 0), "bar 0"),
    "the conductor as a part": ([], (PART, CONDUCTOR, 0, 0, 0), "bar 0"),
    "a bar of no length": (BEGUN, (BAR, 0, 0, 0, 0), "bar 2"),
    "a bar longer than eight quarters": (BEGUN, (BAR, 0, 0, LONGEST_BAR + 1, 0), "bar 2"),
    "an end before it began": (BEGUN[:1], (END, 0, 0, 0, 0), "bar 0"),
    "a step after the end": ([*BEGUN, (END, 0, 0, 0, 0)], NOTE_AT_24, "bar 1"),
}


@pytest.mark.parametrize(("before", "step", "where"), NONSENSE.values(), ids=NONSENSE)
def test_nonsense_is_refused_in_one_line_that_names_the_bar(before, step, where):
    cursor = TOKENIZER.cursor()
    for earlier in before:
        cursor.advance(earlier)
    with pytest.raises(TokenError, match=where) as caught:
        cursor.advance(step)
    assert "\n" not in str(caught.value)


def test_what_is_refused_changes_nothing():
    cursor = TOKENIZER.cursor(3)
    for step in BEGUN:
        cursor.advance(step)
    before = cursor.coordinates(), cursor.notes, cursor.bar, cursor.allowed([]).tolist()
    for _, step, where in NONSENSE.values():
        if where in ("bar 1", "bar 2") and step != NOTE_AT_24 and step[0] != POSITION + 23:
            with pytest.raises(TokenError):
                cursor.advance(step)
    assert before == (cursor.coordinates(), cursor.notes, cursor.bar, cursor.allowed([]).tolist())


@pytest.mark.parametrize("path", sorted(DATA.rglob("*.mid")), ids=lambda p: p.stem)
def test_no_real_piece_is_refused(path):
    cursor = TOKENIZER.cursor()
    for step in TOKENIZER.encode(read_score(path))[:3000].tolist():
        cursor.advance(step)
    assert cursor.bar > 3


def test_a_piece_of_regular_bars_is_within_what_is_allowed_field_by_field():
    score = TOKENIZER.quantise(read_score(DATA / "orchestra" / "beethoven-op93-3.mid"))
    steps = TOKENIZER.encode(clip(score, int(score.bars[40])))
    cursor = TOKENIZER.cursor(40)
    for step in steps[1:].tolist():
        for field in range(len(FIELDS)):
            assert cursor.allowed(step[:field])[step[field]], TOKENIZER.describe(step)
        cursor.advance(step)
    assert cursor.done


def test_the_first_steps_are_a_roster_of_at_least_one():
    cursor = TOKENIZER.cursor()
    assert np.flatnonzero(cursor.allowed([])).tolist() == [PART]
    assert START not in np.flatnonzero(cursor.allowed([]))
    cursor.advance((PART, PIANO, 0, 0, 0))
    assert np.flatnonzero(cursor.allowed([])).tolist() == [BAR, PART]
    joins = np.flatnonzero(cursor.allowed([PART]))
    assert joins[0] == PIANO + 1
    assert (joins[1:] % 8 == PIANO % 8).all()


def test_what_is_sampled_stays_in_the_usual_range_of_each_instrument():
    """A double bass plays no C8, and drums only what General MIDI has a sound for."""
    tokenizer = BarsTokenizer()
    labels = tokenizer.fields[1].labels
    bass, drums = labels.index("Contrabass 1"), labels.index("Drums 1")
    cursor = tokenizer.cursor(2)
    for step in ((4, bass, 0, 0, 0), (4, drums, 0, 0, 0), (3, 0, 0, 96, 0)):
        cursor.advance(step)
    cursor.advance((POSITION, 1, tokenizer.fields[2].labels.index("4/4"), 0, 0))
    pitches = np.flatnonzero(cursor.allowed([POSITION, bass])) - 1
    assert (pitches.min(), pitches.max()) == (28, 67)
    keys = np.flatnonzero(cursor.allowed([POSITION, drums])) - 129
    assert (keys.min(), keys.max()) == (35, 81)
