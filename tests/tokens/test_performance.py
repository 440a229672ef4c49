"""The performance tokenizer: piano in seconds; what goes in comes out to 10 ms, and what is sampled is music."""

from __future__ import annotations

import copy
import tarfile
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import mido
import numpy as np
import pretty_midi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musicgen.errors import TokenError
from musicgen.formats import read_score, write_score
from musicgen.score import Key, Metre, Part, Score, Sign, Tempo, clip, notes_array, transpose
from musicgen.tokens.performance import PerformanceTokenizer
from musicgen.tokens.performance_grammar import (
    BAR_TICKS,
    END,
    EVENT,
    OFF,
    ON,
    SECONDS_LEFT,
    SHIFT,
    SIZE,
    START,
    TICKS_OF,
    VELOCITY,
    PerformanceCursor,
)

DATA = Path(__file__).resolve().parents[2] / "data"
MOVEMENTS = ("bach-bwv1048-3", "beethoven-op21-2", "beethoven-op21-3", "beethoven-op55-3", "beethoven-op67-3")
ORCHESTRA = [DATA / "orchestra" / f"{name}.mid" for name in MOVEMENTS]
BUNDLED = sorted(DATA.rglob("*.mid"))
TOKENIZER = PerformanceTokenizer()
WALKS = 300
ASKED = (None, 1, 2, 5)
"""Bars that walks are asked for."""

read = cache(read_score)


@pytest.fixture(scope="module")
def piano(shared_data, tmp_path_factory) -> list[Path]:
    """Every 45th performance of piano-midi.de, and every 20th score of ASAP."""
    folder = tmp_path_factory.mktemp("piano")
    for name, every in (("piano-midi-de", 45), ("asap-score-midi", 20)):
        archive = shared_data / f"{name}.tar.gz"
        if not archive.is_file():
            pytest.skip(f"{archive.name} is not beside the repository")
        with tarfile.open(archive) as tar:
            files = sorted((m for m in tar.getmembers() if m.name.endswith(".mid")), key=lambda m: m.name)
            tar.extractall(folder, files[::every], filter="data")
    return sorted(folder.rglob("*.mid"))


def part(*notes: tuple[int, int, int, int], **kinds) -> Part:
    return Part(notes=notes_array(notes), **kinds)


def milliseconds(*notes: tuple[int, int, int, int], **kinds) -> Score:
    """A piano score whose ticks are milliseconds."""
    return Score(parts=(part(*notes),), tempos=(Tempo(0, 125.0),), **kinds)


def held(score: Score) -> Score:
    """What comes back of a score; and that is what `quantise` says, and comes back the same ever after."""
    steps = TOKENIZER.encode(score)
    back = TOKENIZER.decode(steps)
    assert back == TOKENIZER.quantise(score)
    assert np.array_equal(TOKENIZER.encode(back), steps)
    return back


def words(steps: np.ndarray) -> list[str]:
    return [TOKENIZER.describe(step) for step in steps]


def written_plainly(score: Score) -> list[int]:
    """The events of a quantised score, one after the other: what the module's opening says, without numpy."""
    events = []
    for onset, duration, pitch, velocity in score.parts[0].notes.tolist():
        events += [(onset, 1, pitch, (velocity - 1) // 4 + 1), (onset + duration, 0, pitch, 0)]
    steps, now, velocity_bin = [START], 0, 0
    for at, is_on, pitch, wanted in [*sorted(events), (score.length, 2, 0, 0)]:
        while at - now > 1000:
            steps.append(SHIFT + 99)
            now += 1000
        if at > now:
            steps.append(SHIFT + (at - now) // 10 - 1)
            now = at
        if is_on == 1 and wanted != velocity_bin:
            steps.append(VELOCITY + wanted - 1)
            velocity_bin = wanted
        steps.append({0: OFF + pitch, 1: ON + pitch, 2: END}[is_on])
    return steps


# the vocabulary, and the steps themselves


def test_the_vocabulary_is_that_of_performance_rnn_after_start_and_end():
    assert EVENT.size == SIZE == 2 + 128 + 128 + 100 + 32 == 390
    golden = {
        0: "START", 1: "END", 2: "on C-1", 62: "on C4", 129: "on G9", 130: "off C-1", 190: "off C4", 257: "off G9",
        258: "shift 10 ms", 269: "shift 120 ms", 357: "shift 1000 ms", 358: "velocity 1", 389: "velocity 32",
    }  # fmt: skip
    assert {value: TOKENIZER.describe((value,)) for value in golden} == golden
    assert TICKS_OF[[2, 257, 258, 357, 358]].tolist() == [0, 0, 10, 1000, 0]


def test_a_short_piece_is_these_steps():
    score = milliseconds(
        (500, 1490, 60, 65), (500, 1490, 64, 66), (500, 2500, 67, 80), (1990, 10, 60, 80), (3000, 10, 60, 77),
        length=3500,
    )  # fmt: skip
    assert words(TOKENIZER.encode(score)) == [
        "START", "shift 500 ms", "velocity 17", "on C4", "on E4", "velocity 20", "on G4", "shift 1000 ms",
        "shift 490 ms", "off C4", "off E4", "on C4", "shift 10 ms", "off C4", "shift 1000 ms", "off G4",
        "on C4", "shift 10 ms", "off C4", "shift 490 ms", "END",
    ]  # fmt: skip


def test_velocities_fall_into_32_bins_of_four():
    score = milliseconds(*[(10 * v, 10, 60, v) for v in range(1, 128)])
    back = held(score).parts[0].notes["velocity"].tolist()
    assert back == [4 * ((v - 1) // 4) + 1 for v in range(1, 128)]
    steps = TOKENIZER.encode(score)
    assert steps[steps >= VELOCITY].tolist() == list(range(VELOCITY, SIZE))


@pytest.mark.parametrize("path", BUNDLED, ids=lambda p: p.stem)
def test_every_bundled_score_comes_back_quantised(path):
    score = read(path)
    steps = TOKENIZER.encode(score)
    assert steps.dtype == np.int16
    assert steps.shape[1] == 1
    assert steps.reshape(-1).tolist() == written_plainly(held(score))


def test_performances_and_piano_scores_come_back_quantised(piano):
    assert len(piano) > 12
    for path in piano:
        back = held(read(path))
        assert TOKENIZER.encode(read(path)).reshape(-1).tolist() == written_plainly(back), path.name
        assert [(p.name, p.program) for p in back.parts] == [("Piano", 0)]


# time


def check_against_pretty_midi(path: Path) -> float:
    """Every note of the file is within 10 ms of one of ours and the reverse; of pitches never struck while they sound
    (what a note-off then means, programs do not agree on) the ends too. Returns the share of such notes.
    """
    ours = TOKENIZER.decode(TOKENIZER.encode(read(path))).parts[0].notes
    instruments = pretty_midi.PrettyMIDI(str(path)).instruments
    theirs = np.array(sorted((n.start, n.end, n.pitch) for i in instruments if not i.is_drum for n in i.notes))
    compared = 0
    for pitch in np.unique(theirs[:, 2]):
        start, end, _ = theirs[theirs[:, 2] == pitch].T
        notes = ours[ours["pitch"] == pitch]
        onset, stop = notes["onset"] / 1000, (notes["onset"] + notes["duration"]) / 1000
        away = np.abs(start[:, None] - onset)
        assert away.min(axis=1).max() <= 0.01
        assert away.min(axis=0).max() <= 0.01
        if (start[1:] > np.maximum.accumulate(np.maximum(end, start + 0.01))[:-1] - 1e-6).all():
            assert np.abs(stop[away.argmin(axis=1)] - np.maximum(end, start + 0.01)).max() <= 0.01
            compared += len(start)
    return compared / len(theirs)


@pytest.mark.filterwarnings("ignore::RuntimeWarning:pretty_midi")
@pytest.mark.parametrize("path", ORCHESTRA[::5], ids=lambda p: p.stem)
def test_the_seconds_of_a_movement_are_those_of_pretty_midi(path):
    assert check_against_pretty_midi(path) > 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning:pretty_midi")
def test_the_seconds_of_a_performance_are_those_of_pretty_midi(piano):
    ends = [check_against_pretty_midi(path) for path in piano]
    assert np.mean(ends) > 0.5
    assert max(len(read(path).tempos) for path in piano) > 500  # performances: the tempo map breathes


def test_seconds_by_the_tempo_map_are_those_of_the_score():
    score = Score(
        parts=(part((0, 9600, 60, 80)),), tempos=(Tempo(0, 120), Tempo(480, 60), Tempo(1000, 87.3), Tempo(4000, 240))
    )
    ticks = np.arange(0, 9600, 37)
    seconds = np.cumsum([0, *(60 / (480 * score.tempo_at(tick).bpm) for tick in range(9600))])  # tick by tick
    assert score.seconds_at(ticks) == pytest.approx(seconds[ticks])
    assert score.seconds_at(777) == pytest.approx(seconds[777])


def test_a_note_over_a_change_of_tempo_lasts_as_long_as_it_is_heard():
    score = Score(parts=(part((0, 960, 60, 80), (960, 480, 62, 80)),), tempos=(Tempo(0, 120), Tempo(480, 60)))
    assert held(score).parts[0].notes.tolist() == [(0, 1500, 60, 77), (1500, 1000, 62, 77)]


def test_times_are_rounded_to_the_nearest_10_ms_half_up():
    back = held(milliseconds((4, 101, 60, 80), (285, 500, 62, 80), (1014, 41, 64, 80)))
    assert back.parts[0].notes[["onset", "duration"]].tolist() == [(0, 110), (290, 500), (1010, 50)]


def test_a_tick_of_a_decoded_score_is_a_millisecond_and_a_bar_192_hundredths_of_a_second():
    back = held(read(ORCHESTRA[0]))
    assert back.seconds_at(12345) == pytest.approx(12.345)
    assert (np.diff(back.bars) == BAR_TICKS).all()
    assert len(back.bars) == -(-back.length // BAR_TICKS)


# what survives, and what is lost


def test_silence_before_the_first_note_and_after_the_last_is_kept():
    back = held(milliseconds((2340, 500, 60, 80), length=5000))
    assert back.parts[0].notes["onset"].tolist() == [2340]
    assert back.length == 5000


def test_all_pitched_parts_become_one_piano_and_drums_are_dropped():
    parts = (
        part((0, 480, 60, 80), program=40),
        part((0, 480, 36, 80), is_drum=True),
        part((0, 480, 48, 80), program=7),
    )
    back = held(Score(title="lost", parts=parts, metres=(Metre(0, 3, 4),), keys=(Key(0, 2),)))
    assert (back.title, back.metres, back.keys) == ("", (Metre(0, 4, 4),), (Key(0, 0),))
    assert [(p.name, p.program, p.is_drum) for p in back.parts] == [("Piano", 0, False)]
    assert back.parts[0].notes["pitch"].tolist() == [48, 60]


def test_a_unison_of_two_parts_is_struck_again_where_the_second_starts():
    score = Score(parts=(part((0, 1000, 60, 81)), part((600, 800, 60, 41))), tempos=(Tempo(0, 125.0),))
    assert held(score).parts[0].notes.tolist() == [(0, 600, 60, 81), (600, 800, 60, 41)]
    together = Score(parts=(part((0, 1000, 60, 41)), part((4, 600, 60, 81))), tempos=(Tempo(0, 125.0),))
    assert held(together).parts[0].notes.tolist() == [(0, 1000, 60, 81)]


def test_a_note_shorter_than_10_ms_lasts_10_ms():
    assert held(milliseconds((0, 2, 60, 81))).parts[0].notes.tolist() == [(0, 10, 60, 81)]


def test_a_note_may_last_for_minutes():
    assert held(milliseconds((0, 400_000, 60, 81), (10, 50, 62, 81))).parts[0].notes["duration"].tolist() == [
        400_000,
        50,
    ]


def test_repeats_are_played_out():
    signs = (Sign(0, "repeat_start"), Sign(1920, "repeat_end"))
    score = milliseconds((0, 1920, 60, 80), (1920, 1920, 62, 80), signs=signs)
    assert held(score).parts[0].notes["pitch"].tolist() == [60, 60, 62]


def test_a_score_without_pitched_notes_is_refused():
    with pytest.raises(TokenError, match="Solo: no pitched notes"):
        TOKENIZER.encode(Score(title="Solo", parts=(part((0, 480, 36, 80), is_drum=True), part())))


def test_a_score_of_more_than_a_day_is_refused_before_memory_is_spent():
    with pytest.raises(TokenError, match="lasts 2000 hours"):
        TOKENIZER.encode(Score(parts=(part((0, 480 * 12_000, 60, 80)),), tempos=(Tempo(0, 0.1),)))


def test_a_fragment_is_cut_at_its_seam_and_has_no_end():
    score = TOKENIZER.quantise(read(ORCHESTRA[1]))
    onset, duration, *_ = score.parts[0].notes[200].tolist()
    fragment = clip(score, onset + duration // 20 * 10)
    steps = TOKENIZER.encode(fragment, unfinished=True)
    assert np.array_equal(steps, TOKENIZER.encode(fragment)[:-1])
    assert TOKENIZER.decode(steps) == fragment
    assert OFF <= steps[-1, 0] < SHIFT
    cursor = walked(steps, TOKENIZER.cursor())
    assert cursor.ticks == fragment.length
    assert not cursor.sounds.any()


def test_a_fragment_that_stops_in_a_rest_stops_there():
    steps = TOKENIZER.encode(milliseconds((0, 500, 60, 80), length=1700), unfinished=True)
    assert words(steps)[-3:] == ["off C4", "shift 1000 ms", "shift 200 ms"]


# steps that no score was encoded to


def test_a_note_that_is_not_let_go_ends_with_the_music():
    steps = np.array([START, VELOCITY + 19, ON + 60, SHIFT + 99, ON + 64, SHIFT + 49])[:, None]
    assert TOKENIZER.decode(steps).parts[0].notes.tolist() == [(0, 1500, 60, 77), (1000, 500, 64, 77)]


def test_a_note_off_of_a_silent_pitch_says_nothing_and_a_second_note_on_strikes_again():
    steps = np.array([START, OFF + 60, ON + 60, SHIFT + 9, ON + 60, SHIFT + 9, OFF + 60, OFF + 60, END])[:, None]
    assert TOKENIZER.decode(steps).parts[0].notes.tolist() == [(0, 100, 60, 97), (100, 100, 60, 97)]


@pytest.mark.parametrize(
    ("events", "message"), [([START, SHIFT], "no notes"), ([START, 390], "390 is no event"), ([START, -1], "-1 is no")]
)
def test_steps_that_are_no_music_are_refused(events, message):
    with pytest.raises(TokenError, match=message):
        TOKENIZER.decode(np.array(events)[:, None])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from([*range(ON + 58, ON + 62), *range(OFF + 58, OFF + 62), SHIFT, SHIFT + 99, VELOCITY, 380]))
)
def test_any_events_are_decoded_to_what_comes_back_and_located_as_they_are_walked(events):
    steps = np.array([START, *events, ON + 40, SHIFT + 3, END], dtype=np.int16)[:, None]
    back = TOKENIZER.decode(steps)
    assert held(back) == back
    cursor = TOKENIZER.cursor()
    cursor.ends_at = int(TICKS_OF[steps[:, 0]].sum())
    assert np.array_equal(walk_coordinates(steps, cursor), TOKENIZER.locate(steps))
    assert cursor.bar == TOKENIZER.bars_begun(steps)[-1] == len(back.bars)


def test_thirteen_thousand_notes_are_encoded_and_decoded_in_no_time():
    generator = np.random.default_rng(0)
    onset = np.sort(generator.integers(0, 600_000, 13_000))
    score = milliseconds(
        *zip(
            onset,
            generator.integers(20, 3000, 13_000),
            generator.integers(21, 109, 13_000),
            onset % 127 + 1,
            strict=True,
        )
    )
    took = []
    for _ in range(3):
        started = time.process_time()
        TOKENIZER.decode(TOKENIZER.encode(score))
        took.append(time.process_time() - started)
    assert min(took) < 0.2  # 0.01 here


# coordinates, bars, masks, transposition


def walked(steps: np.ndarray, cursor: PerformanceCursor) -> PerformanceCursor:
    for step in steps[1:].tolist():
        cursor.advance(step)
    return cursor


def walk_coordinates(steps: np.ndarray, cursor: PerformanceCursor) -> np.ndarray:
    found = [cursor.coordinates()]
    for step in steps[1:].tolist():
        cursor.advance(step)
        found.append(cursor.coordinates())
    return np.array(found)


@pytest.mark.parametrize("path", ORCHESTRA[:3], ids=lambda p: p.stem)
def test_coordinates_of_a_whole_piece_are_those_of_its_steps(path):
    steps = TOKENIZER.encode(read(path))
    cursor = TOKENIZER.cursor()
    cursor.ends_at = held(read(path)).length
    located = TOKENIZER.locate(steps)
    assert np.array_equal(walk_coordinates(steps, cursor), located)
    assert located.dtype == np.int16
    sizes = [c.size for c in TOKENIZER.coordinates]
    assert (located >= 1).all()
    assert (located < sizes).all()
    assert located[-1].tolist()[2:] == [1, 1]  # nothing sounds, nothing is left
    assert located[:, 3].max() == 1 + SECONDS_LEFT


def test_coordinates_say_when_it_is_what_sounds_and_what_is_left():
    steps = TOKENIZER.encode(milliseconds((0, 1250, 60, 80), (1250, 1000, 64, 80), (1250, 1000, 67, 80)))
    assert words(steps)[6:9] == ["on E4", "on G4", "shift 1000 ms"]
    assert TOKENIZER.locate(steps)[[0, 6, 7, 8, -1]].tolist() == [
        [1, 1, 1, 4], [2, 26, 2, 2], [2, 26, 3, 2], [3, 26, 3, 1], [3, 26, 1, 1],
    ]  # fmt: skip
    assert [c.name for c in TOKENIZER.coordinates if c.ahead] == ["seconds_left"]


def test_without_a_length_seconds_left_is_hidden():
    steps = TOKENIZER.encode(milliseconds((0, 1250, 60, 80)))
    assert not walk_coordinates(steps, TOKENIZER.cursor())[:, 3].any()


@pytest.mark.parametrize("path", ORCHESTRA[:3], ids=lambda p: p.stem)
def test_as_many_bars_have_begun_as_the_decoded_score_has(path):
    steps, score = TOKENIZER.encode(read(path)), held(read(path))
    begun = TOKENIZER.bars_begun(steps)
    assert begun[0] == 0
    assert begun[-1] == len(score.bars)
    cursor = TOKENIZER.cursor()
    for step, bar in zip(steps[1:].tolist(), begun[1:].tolist(), strict=True):
        cursor.advance(step)
        assert cursor.bar == bar
    notes = TOKENIZER.is_note(steps)
    onsets = score.parts[0].notes["onset"]
    assert notes.sum() == len(onsets)
    assert np.array_equal(begun[notes], np.searchsorted(score.bars, onsets, side="right"))


@pytest.mark.parametrize("path", ORCHESTRA[2:4], ids=lambda p: p.stem)
def test_every_step_of_a_movement_is_possible_and_the_cursor_differs_but_in_compass(path):
    steps = TOKENIZER.encode(read(path))
    mask = TOKENIZER.masks(steps, TOKENIZER.locate(steps), 1, len(steps))[0]
    assert mask[np.arange(len(steps) - 1), steps[1:, 0]].all()
    assert mask.mean() < 0.6  # and much is not
    cursor = TOKENIZER.cursor()
    for step, possible in zip(steps[1:2500].tolist(), mask, strict=False):
        possible[[*range(ON, ON + 21), *range(ON + 109, OFF)]] = False
        assert np.array_equal(cursor.allowed(), possible)
        cursor.advance(step)


def test_every_step_of_a_performance_is_possible(piano):
    for path in piano:
        steps = TOKENIZER.encode(read(path))
        mask = TOKENIZER.masks(steps, TOKENIZER.locate(steps), 1, len(steps))[0]
        assert mask[np.arange(len(steps) - 1), steps[1:, 0]].all(), path.name


def test_a_chunk_has_the_masks_of_the_whole_whatever_comes_after_it():
    steps = TOKENIZER.encode(read(ORCHESTRA[4]))[:3000]
    located = TOKENIZER.locate(steps)
    whole = TOKENIZER.masks(steps, located, 1, len(steps))[0]
    generator = np.random.default_rng(0)
    inside_a_chord = 2 + np.flatnonzero((steps[1:-1, 0] >= VELOCITY) & TOKENIZER.is_note(steps[:-2]))
    assert len(inside_a_chord) > 20
    for start in [1, 2, *generator.integers(3, 2900, 60).tolist(), *inside_a_chord[:20].tolist()]:
        stop = start + int(generator.integers(1, 90))
        changed = steps.copy()
        changed[stop - 1 :] = ON + 3  # a mask knows nothing of its own step or later ones
        assert np.array_equal(TOKENIZER.masks(changed, located, start, stop)[0], whole[start - 1 : stop - 1])


def test_transposed_steps_are_those_of_the_transposed_score():
    score = read(ORCHESTRA[2])
    steps = TOKENIZER.encode(score)
    for semitones in (-5, 0, 6):
        assert np.array_equal(TOKENIZER.transpose(steps, semitones), TOKENIZER.encode(transpose(score, semitones)))


def test_what_would_leave_the_128_pitches_is_not_transposed():
    steps = TOKENIZER.encode(milliseconds((0, 100, 3, 80), (0, 100, 120, 80)))
    assert TOKENIZER.transpose(steps, -3) is not None
    assert TOKENIZER.transpose(steps, -4) is None
    assert TOKENIZER.transpose(steps, 7) is not None
    assert TOKENIZER.transpose(steps, 8) is None


# random walks

KINDS = ((ON, OFF, 0.2), (OFF, SHIFT, 0.6), (SHIFT, VELOCITY, 0.5), (VELOCITY, SIZE, 0.05), (END, ON, 0.2))
"""First and last value of each kind of event, and how often it is drawn where it is allowed."""


def walk(cursor: PerformanceCursor, generator: np.random.Generator, limit: int = 3000) -> np.ndarray:
    """Steps (T, 1) drawn at random among what is allowed, until the end."""
    drawn = []
    while not cursor.done:
        mask = cursor.allowed([])
        assert mask.shape == (SIZE,)
        assert mask.any(), f"stuck after {[EVENT.labels[e] for e in drawn[-5:]]}"
        weights = np.array([share * mask[first:last].any() for first, last, share in KINDS])
        first, last, _ = KINDS[generator.choice(len(KINDS), p=weights / weights.sum())]
        drawn.append(first + int(generator.choice(np.flatnonzero(mask[first:last]))))
        cursor.advance(drawn[-1:])
        assert len(drawn) < limit, "no end"
    return np.array(drawn)[:, None]


@cache
def walks(bars: int | None) -> list[np.ndarray]:
    return [
        np.concatenate([[TOKENIZER.start], walk(TOKENIZER.cursor(bars), np.random.default_rng([seed, bars or 0]))])
        for seed in range(WALKS)
    ]


@pytest.mark.parametrize("bars", ASKED)
def test_a_walk_is_a_piece_of_exactly_the_bars_it_was_asked_for(bars):
    lengths = set()
    for steps in walks(bars):
        score = TOKENIZER.decode(steps)
        assert steps[-1, 0] == END
        assert (steps[1:-1, 0] > END).all()
        assert score.note_count == TOKENIZER.is_note(steps).sum() >= 1
        assert bars is None or (score.length, len(score.bars)) == (bars * BAR_TICKS, bars)
        lengths.add(score.length)
    assert len(lengths) > WALKS / 2 or bars


@pytest.mark.parametrize("bars", ASKED)
def test_a_walk_is_encoded_as_it_was_sampled(bars):
    """So it keeps every rule that the encoder keeps: order, velocities where they change, longest shifts first."""
    for steps in walks(bars):
        assert np.array_equal(TOKENIZER.encode(TOKENIZER.decode(steps)), steps)


@pytest.mark.parametrize("bars", ASKED)
def test_a_walk_stays_on_the_keyboard_and_lets_every_note_go(bars):
    for steps in walks(bars):
        pitches = steps[TOKENIZER.is_note(steps)] - ON
        assert pitches.min() >= 21
        assert pitches.max() <= 108
        assert TOKENIZER.locate(steps)[-1, 2] == 1
        assert ((steps >= OFF) & (steps < SHIFT)).sum() == len(pitches)


@pytest.mark.parametrize("bars", ASKED)
def test_whatever_the_cursor_allows_on_a_walk_is_possible(bars):
    for steps in walks(bars)[::5]:
        mask = TOKENIZER.masks(steps, TOKENIZER.locate(steps), 1, len(steps))[0]
        cursor = TOKENIZER.cursor(bars)
        for step, possible in zip(steps[1:].tolist(), mask, strict=True):
            assert not (cursor.allowed() & ~possible).any()
            cursor.advance(step)


@pytest.mark.parametrize("bars", ASKED)
def test_coordinates_of_a_walk_are_those_of_its_steps(bars):
    for steps in walks(bars)[::3]:
        located = TOKENIZER.locate(steps)
        if bars is None:
            located[:, 3] = 0
        assert np.array_equal(walk_coordinates(steps, TOKENIZER.cursor(bars)), located)


@pytest.mark.slow
@pytest.mark.parametrize("bars", ASKED)
def test_a_walk_is_written_to_midi_and_read_back_the_same(bars, tmp_path):
    path = tmp_path / "walk.mid"
    for steps in walks(bars):
        score = TOKENIZER.decode(steps)
        write_score(score, path)
        end = score.parts[0].end  # a MIDI file does not hold the rests after the last note
        assert read_score(path) == replace(score, length=end, bars=score.bars[score.bars < end])
        messages = [m for track in mido.MidiFile(str(path)).tracks for m in track if m.type == "note_on" and m.velocity]
        assert len(messages) == score.note_count


# going on from a prompt


@cache
def fragment(seed: int) -> Score:
    """A movement that breaks off somewhere."""
    generator = np.random.default_rng(seed)
    score = read(ORCHESTRA[seed % len(ORCHESTRA)])
    return clip(score, int(generator.integers(2000, 40_000)))


@pytest.mark.parametrize("seed", range(20))
def test_a_continuation_ends_exactly_where_it_is_asked_to_and_leaves_the_prompt_as_it_is(seed):
    prompt = TOKENIZER.encode(fragment(seed), unfinished=True)
    before = TOKENIZER.decode(prompt)
    cursor = walked(prompt, TOKENIZER.cursor())
    cursor.keep_course()
    assert cursor.ticks == before.length
    cursor.ends_at = before.length + 10 * (seed * 37 % 900)
    whole = TOKENIZER.decode(np.concatenate([prompt, walk(cursor, np.random.default_rng(seed))]))
    assert whole.length == cursor.ends_at
    notes = whole.parts[0].notes
    assert np.array_equal(notes[notes["onset"] < before.length], before.parts[0].notes)


def test_what_sounds_at_a_prompt_cut_anywhere_is_let_go_by_the_end():
    steps = TOKENIZER.encode(read(ORCHESTRA[3]))
    generator = np.random.default_rng(1)
    for stop in generator.integers(2, 4000, 40).tolist():
        cursor = walked(steps[:stop], TOKENIZER.cursor())
        cursor.ends_at = cursor.ticks + int(generator.integers(0, 3000))
        drawn = walk(cursor, generator)
        assert cursor.ticks == cursor.ends_at // 10 * 10 or cursor.notes == 0
        assert not cursor.sounds.any()
        assert len(drawn)


def test_an_end_between_two_hundredths_of_a_second_is_the_one_before():
    cursor = TOKENIZER.cursor()
    cursor.ends_at = 1757
    steps = walk(cursor, np.random.default_rng(0))
    assert cursor.ticks == TICKS_OF[steps[:, 0]].sum() == 1750
    assert cursor.coordinates()[3] == 1


def test_a_piece_too_short_for_anything_else_is_one_note():
    cursor = TOKENIZER.cursor()
    cursor.ends_at = 10
    steps = walk(cursor, np.random.default_rng(0))[:, 0]
    assert steps[0] >= VELOCITY
    assert steps[-2] - OFF in set((steps - ON).tolist())
    assert SHIFT in steps


def test_a_walk_that_is_told_its_bars_on_the_way_ends_there():
    for seed in range(20):
        cursor, generator = TOKENIZER.cursor(), np.random.default_rng(seed)
        while cursor.bar < 2:
            cursor.advance([int(generator.choice(np.flatnonzero(cursor.allowed()[ON:]))) + ON])
        cursor.bars = cursor.bar + 1
        assert (cursor.bars, cursor.ends_at) == (3, 3 * BAR_TICKS)
        walk(cursor, generator)
        assert (cursor.ticks, cursor.bar) == (3 * BAR_TICKS, 3)


def test_a_rest_that_a_prompt_stops_in_may_go_on():
    steps = TOKENIZER.encode(milliseconds((0, 500, 60, 80), length=1700), unfinished=True)
    cursor = walked(steps, TOKENIZER.cursor(3))
    assert not cursor.allowed()[SHIFT:VELOCITY].any()
    cursor.keep_course()
    assert cursor.allowed()[SHIFT:VELOCITY].all()
    cursor.advance([SHIFT + 20])
    assert not cursor.allowed()[SHIFT:VELOCITY].any()


def test_takes_from_one_prompt_do_not_touch_each_other():
    cursor = walked(TOKENIZER.encode(fragment(0), unfinished=True), TOKENIZER.cursor(60))
    one, two = (copy.deepcopy(cursor) for _ in range(2))
    before = two.allowed()
    walk(one, np.random.default_rng(0))
    assert np.array_equal(two.allowed(), before)
    assert not two.done


def test_a_cursor_says_what_may_come_next():
    cursor = TOKENIZER.cursor()

    def may(*events: int) -> list[bool]:
        return cursor.allowed()[list(events)].tolist()

    assert may(START, END, ON + 60, OFF + 60, SHIFT, VELOCITY) == [False, False, False, False, True, True]
    cursor.advance([VELOCITY + 19])  # a velocity, then a note
    assert may(ON + 60, ON + 20, ON + 109, SHIFT, VELOCITY, END) == [True, False, False, False, False, False]
    cursor.advance([ON + 60])  # rising, and nothing is let go at the instant it begins
    assert may(ON + 59, ON + 60, ON + 61, OFF + 60, SHIFT, END) == [False, False, True, False, True, False]
    assert may(VELOCITY + 19, VELOCITY + 20) == [False, True]
    cursor.advance([ON + 64])
    cursor.advance([SHIFT + 49])  # shorter than a second: no other shift
    assert may(SHIFT, SHIFT + 99, OFF + 60, OFF + 64, OFF + 62, ON + 60, ON + 59) == [
        False,
        False,
        True,
        True,
        False,
        False,
        True,
    ]
    cursor.advance([OFF + 64])  # rising here too; what was let go may be struck again
    assert may(OFF + 60, ON + 64, SHIFT, END) == [False, True, True, False]
    cursor.advance([SHIFT + 99])
    assert may(SHIFT, OFF + 60) == [True, True]
    cursor.advance([OFF + 60])
    assert may(END) == [True]


@pytest.mark.parametrize(
    ("before", "event", "message"),
    [
        ([], 390, "0.00 s: 390 is no event"),
        ([SHIFT + 99], START, "1.00 s: 0 is no event"),
        ([SHIFT], END, "0.01 s: END before the first note"),
        ([ON, SHIFT, OFF, END], SHIFT, "0.01 s: an event after the end"),
    ],
)
def test_what_could_not_be_decoded_is_refused_with_its_place(before, event, message):
    cursor = walked(np.array([START, *before])[:, None], TOKENIZER.cursor())
    with pytest.raises(TokenError, match=message):
        cursor.advance([event])
