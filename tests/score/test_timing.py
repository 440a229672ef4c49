"""Timing: what was typed is left alone, what is only loose is put straight, what was played is refused."""

from __future__ import annotations

import tarfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from musicgen.errors import ScoreError
from musicgen.formats import read_score
from musicgen.score import Metre, Part, Score, notes_array
from musicgen.score.timing import as_typed, for_notation, in_even_lengths, onset_error, straighten, timing, was_played

DATA = Path(__file__).resolve().parents[2] / "data"
BUNDLED = sorted(DATA.rglob("*.mid"))
PLAIN = [p for p in BUNDLED if read_score(p).note_count > 250 and timing(read_score(p)).error < 0.02][:12]


def melody(onsets, bars=None, duration: int = 100, **kinds) -> Score:
    part = Part(notes=notes_array((int(o), duration, 60 + i % 5, 80) for i, o in enumerate(onsets)))
    return Score(parts=(part,), bars=bars, **kinds)


def loosened(score: Score, ticks: float, seed: int = 0, delay: int = 0) -> Score:
    """Each onset moved by a normal deviate of that many ticks, and all by `delay`; the notes keep their order."""
    generator = np.random.default_rng(seed)
    parts = []
    for part in score.parts:
        notes = part.notes.copy()
        notes["onset"] = np.maximum(notes["onset"] + np.rint(generator.normal(delay, ticks, len(notes))).astype(int), 0)
        parts.append(part.with_notes(notes))
    return replace(score, parts=tuple(parts), length=max(score.length, *(p.end for p in parts)))


def recorded(score: Score, bpm: float, wobble: float, seed: int = 0) -> Score:
    """The score played freely and recorded without a click: 120 a minute and 4/4 on paper, 960 ticks a second.

    The tempo strays around `bpm` by that share; hands differ by 10 ms.
    """
    generator = np.random.default_rng(seed)
    quarters = score.length // 480 + 2
    stray = np.zeros(quarters)
    for i in range(1, quarters):
        stray[i] = 0.9 * stray[i - 1] + generator.normal(0, wobble * 0.19**0.5)
    clock = np.concatenate([[0.0], np.cumsum(60 / bpm / np.exp(stray))])
    parts = []
    for part in score.parts:
        ends = part.notes["onset"] + part.notes["duration"]
        on, off = (np.interp(t / 480, np.arange(quarters + 1), clock) for t in (part.notes["onset"], ends))
        notes = part.notes.copy()
        notes["onset"] = np.maximum(np.rint(960 * (0.5 + on + generator.normal(0, 0.01, len(on)))), 0)
        notes["duration"] = np.maximum(np.rint(960 * (0.5 + off)) - notes["onset"], 1)
        parts.append(part.with_notes(notes))
    return Score(parts=tuple(parts))


def notes_on_grid(score: Score) -> set[tuple[int, int, int]]:
    """(part, nearest grid step, pitch) of every note."""
    return {
        (i, (onset + 10) // 20, pitch)
        for i, part in enumerate(score.parts)
        for onset, _, pitch, _ in part.notes.tolist()
    }


@pytest.fixture(scope="module")
def freedoom(shared_data, tmp_path_factory) -> Path:
    """A folder of the 111 pieces of Freedoom."""
    folder = tmp_path_factory.mktemp("freedoom")
    with tarfile.open(shared_data / "freedoom-midi.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "freedoom-midi"


# the error


def test_onsets_on_the_grid_have_no_error_and_half_a_step_is_the_most():
    assert onset_error(melody(range(0, 9600, 120))) == 0
    assert onset_error(melody(range(10, 9600, 120))) == 0.5
    assert onset_error(melody(range(10, 9600, 120)), step=10) == 0


def test_random_onsets_are_a_quarter_of_a_step_off():
    onsets = np.sort(np.random.default_rng(1).integers(0, 500_000, 4000))
    assert onset_error(melody(onsets)) == pytest.approx(0.25, abs=0.01)


def test_a_score_without_notes_has_no_error_and_is_typed():
    assert onset_error(Score()) == 0
    assert timing(Score()).kind == "typed"
    assert as_typed(Score()) == Score()


def test_a_bar_of_a_length_that_is_no_number_of_steps_moves_the_grid():
    bars = np.arange(0, 40 * 487, 487)
    score = melody(np.concatenate([bars, bars + 240]), bars=bars)
    assert onset_error(score) == 0
    assert onset_error(replace(score, bars=None)) > 0.2


def test_64ths_are_typed_though_the_grid_has_them_not():
    score = melody(range(0, 9600, 30), duration=30)
    assert onset_error(score) == 0.25
    assert timing(score).kind == "typed"


# typed


@pytest.mark.parametrize("path", PLAIN, ids=lambda p: p.stem)
def test_a_typed_score_is_returned_as_it_is(path):
    score = read_score(path)
    assert as_typed(score) is score
    assert straighten(score) is score


def test_few_onsets_say_nothing():
    assert timing(melody([3, 491, 1003])).kind == "typed"


# all late by the same


def test_a_file_whose_notes_all_lie_beside_the_grid_is_moved_back_to_it(freedoom):
    score = read_score(freedoom / "d_dm01.mid")
    found = timing(score)
    assert (found.kind, found.late, round(found.error, 2)) == ("late", -5, 0.25)
    assert onset_error(as_typed(score)) < 0.001


@pytest.mark.parametrize("ticks", [7, 28, -13])
def test_a_delay_of_every_note_is_taken_off(ticks):
    score = melody([480 * i + j for i in range(1, 60) for j in (0, 120, 240)])
    moved = replace(score, parts=loosened(score, 0, delay=ticks).parts, length=score.length + 100)
    assert timing(moved).late == ticks
    assert notes_on_grid(as_typed(moved)) == notes_on_grid(score)


def test_no_note_is_moved_before_the_beginning():
    score = melody([0, *(480 * i + 7 for i in range(1, 60))])
    assert as_typed(score).parts[0].notes["onset"][:3].tolist() == [0, 480, 960]


# loose


@pytest.mark.parametrize("path", PLAIN, ids=lambda p: p.stem)
def test_onsets_loosened_by_five_ms_come_back_to_where_they_were(path):
    score = read_score(path)
    loose = loosened(score, 5)  # at 120 a minute
    assert timing(loose).kind == "loose"
    right = notes_on_grid(score)
    straight = len(right & notes_on_grid(as_typed(loose))) / len(right)
    rounded = len(right & notes_on_grid(loose)) / len(right)
    assert straight > max(rounded, 0.97)


def test_of_the_pieces_loosened_by_ten_ms_and_a_delay_nine_notes_of_ten_come_back():
    came, all_of_them, rounded = 0, 0, 0
    for path in PLAIN:
        score = read_score(path)
        loose = loosened(score, 10, delay=15)
        if timing(loose).kind == "loose":
            right = notes_on_grid(score)
            came += len(right & notes_on_grid(as_typed(loose)))
            rounded += len(right & notes_on_grid(loose))
            all_of_them += len(right)
    assert came > 0.9 * all_of_them
    assert rounded < 0.4 * all_of_them


def test_straightening_loses_no_note_and_keeps_pitches_velocities_and_bars():
    score = loosened(read_score(PLAIN[0]), 10)
    straight = straighten(score)
    for before, after in zip(score.parts, straight.parts, strict=True):
        assert sorted(before.notes[["pitch", "velocity"]].tolist()) == sorted(
            after.notes[["pitch", "velocity"]].tolist()
        )
    assert straight.bars.tolist() == score.bars.tolist()
    assert onset_error(straight) < 0.001


def test_what_is_straight_is_typed():
    straight = as_typed(loosened(read_score(PLAIN[0]), 10))
    assert as_typed(straight) is straight


def test_loose_triplets_are_put_on_triplets_and_loose_16ths_on_16ths():
    onsets = [1920 * i + j for i in range(1, 30) for j in (0, 120, 240, 360, 480, 640, 800)]
    loose = loosened(melody(onsets), 8)
    assert as_typed(loose).parts[0].notes["onset"].tolist() == onsets


def test_loose_32nds_are_not_made_chords_of():
    onsets = [480 * i + j for i in range(1, 30) for j in range(0, 480, 60)]
    loose = loosened(melody(onsets, duration=50), 5)
    assert as_typed(loose).parts[0].notes["onset"].tolist() == onsets


def test_a_note_just_before_the_bar_line_belongs_to_the_bar_after_it():
    onsets = [480 * i for i in range(1, 80)]
    loose = melody([o - 9 * (i % 3) for i, o in enumerate(onsets)])
    assert as_typed(loose).parts[0].notes["onset"].tolist() == onsets


# played


@pytest.mark.parametrize("bpm", [57.0, 84.5, 133.0])
@pytest.mark.parametrize("wobble", [0.0, 0.05, 0.15])
def test_a_recording_without_a_click_is_refused_in_one_line(bpm, wobble):
    for path in PLAIN[:4]:
        score = recorded(read_score(path), bpm, wobble)
        assert was_played(score)
        with pytest.raises(ScoreError, match=r"played, not typed: onsets are 0\.2\d of a grid step off") as caught:
            as_typed(score)
        assert "\n" not in str(caught.value)


def test_playing_to_the_click_leaves_usable_bar_lines():
    for path in PLAIN[:4]:
        assert not was_played(recorded(read_score(path), 120, 0.0))


def test_a_played_score_is_not_moved_about():
    score = recorded(read_score(PLAIN[0]), 84.5, 0.1)
    assert straighten(score) is score


def test_of_111_pieces_the_one_of_another_tempo_than_it_says_counts_as_played(freedoom):
    assert [p.stem for p in sorted(freedoom.glob("*.mid")) if was_played(read_score(p))] == ["d_map19"]


def test_nothing_bundled_counts_as_played():
    assert [p.name for p in BUNDLED if timing(read_score(p)).kind != "typed"] == []


def test_a_short_piece_is_not_let_in_by_chance():
    generator = np.random.default_rng(3)
    found = [timing(melody(np.sort(generator.integers(0, 9600, 24)))).kind for _ in range(200)]
    assert found.count("loose") + found.count("late") <= 2


def test_metre_and_pickup_make_no_difference():
    onsets = [240, 480, *(720 + 180 * i for i in range(200))]
    bars = np.array([0, *range(240, 30_000, 720)])
    score = melody(onsets, bars=bars, metres=(Metre(0, 6, 16),))
    assert timing(score).kind == "typed"


# real files beside the repository


@pytest.fixture(scope="module")
def symphony(shared_data) -> Path:
    return shared_data / "schubert-d759-unfinished"


def test_the_scherzo_that_is_to_be_finished_has_usable_bar_lines(symphony):
    score = read_score(symphony / "D759_mvt3_sequenced-yokota.mid")
    straight = as_typed(score)
    assert timing(score).kind == "loose"
    assert straight.note_count == score.note_count
    assert onset_error(straight) == 0


def test_chords_of_the_sequenced_first_movement_are_together_again(symphony):
    score = read_score(symphony / "D759_mvt1_sequenced-yokota.mid")

    def onsets(s: Score) -> int:
        return len(np.unique(np.concatenate([p.notes["onset"] for p in s.parts])))

    assert onsets(as_typed(score)) < 0.55 * onsets(score)


def test_the_engraved_movements_are_typed(symphony):
    for path in sorted(symphony.glob("*lilypond.mid")):
        assert timing(read_score(path)).kind == "typed"


def test_a_file_of_two_thousand_notes_takes_two_milliseconds():
    score = loosened(melody(range(0, 2000 * 120, 120)), 10)

    def best(call) -> float:
        spans = []
        for _ in range(10):
            start = time.process_time()
            call(score)
            spans.append(time.process_time() - start)
        return min(spans)

    assert best(timing) < 0.002
    assert best(as_typed) < 0.006  # 2 ms on a free core


# for a page


def test_notes_that_stop_a_little_early_or_late_are_held_to_the_next():
    notes = notes_array([(0, 235, 60, 80), (240, 250, 62, 80), (480, 471, 64, 80), (960, 300, 65, 80)])
    even = in_even_lengths(Score(parts=(Part(notes=notes),)))
    assert even.parts[0].notes["duration"].tolist() == [240, 240, 480, 300]


def test_what_is_played_short_is_written_long_on_a_page_and_nowhere_else():
    notes = notes_array([(0, 130, 60, 80), (240, 50, 62, 80), (480, 477, 64, 80), (960, 959, 65, 80)])
    score = Score(parts=(Part(notes=notes),))
    assert for_notation(score).parts[0].notes["duration"].tolist() == [240, 60, 480, 960]
    assert in_even_lengths(score).parts[0].notes["duration"].tolist() == [140, 60, 480, 960]


def test_a_score_that_is_typed_to_the_tick_is_left_as_it_is(data):
    score = read_score(data / "schubert-d759" / "scherzo.mid")
    assert for_notation(score) is score


def test_played_music_has_no_page():
    generator = np.random.default_rng(0)
    onsets = np.cumsum(generator.integers(50, 500, 200))
    score = Score(parts=(Part(notes=notes_array((int(at), 100, 60, 80) for at in onsets)),))
    with pytest.raises(ScoreError, match="played"):
        for_notation(score)
