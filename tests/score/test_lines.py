"""Melody lines, and the longest run that two musics have in common, held against a slow and plain search."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from musicgen.formats import read_score, read_scores
from musicgen.score import Part, Score, notes_array, transpose
from musicgen.score.lines import OPENING, PLAIN, Line, as_known, find_lines, lines, longest_run


@pytest.fixture(scope="module")
def tunes(data) -> list[Score]:
    return read_scores(data / "irish" / "tunes.abc")


@pytest.fixture(scope="module")
def scherzo(data) -> Score:
    return read_score(data / "schubert-d759" / "scherzo.musicxml")


def slowly(found: list[Line], known: list[Line]) -> int:
    """Notes of the longest common run, by trying every place of the one against every place of the other."""
    best = 0
    for one in found:
        a = list(zip(one.intervals.tolist(), one.gaps.tolist(), strict=True))
        for other in known:
            b = list(zip(other.intervals.tolist(), other.gaps.tolist(), strict=True))
            for i in range(len(a)):
                for j in range(len(b)):
                    length = 0
                    while i + length < len(a) and j + length < len(b) and a[i + length] == b[j + length]:
                        length += 1
                    if length >= OPENING and len({interval for interval, _ in a[i : i + OPENING]}) < PLAIN:
                        length = OPENING - 1
                    best = max(best, length + 1 if length else 0)
    return best


def line(intervals: list[int], gaps: list[int], part: int = 0) -> Line:
    onsets = 20 * np.cumsum([0, *gaps])
    return Line(part, onsets, (60 + np.cumsum([0, *intervals])).astype(np.int16))


def test_the_longest_run_is_the_one_that_a_slow_search_finds():
    generator = np.random.default_rng(5)
    lengths = set()
    for trial in range(150):
        most = int(generator.integers(1, 6))  # few different intervals make long runs, and plain ones
        lots = []
        for _ in range(2):
            sizes = generator.integers(0, 40, 3)
            lots.append(
                [
                    line(
                        generator.integers(0, most, n).tolist(),
                        (12 * generator.integers(1, 2 + trial % 2, n)).tolist(),
                        part,
                    )
                    for part, n in enumerate(sizes.tolist())
                ]
            )
        if trial % 3 == 0:  # a stretch of the one set into the other
            lots[1].append(lots[0][0])
        found = longest_run(lots[0], as_known(lots[1])).notes
        assert found == slowly(*lots)
        lengths.add(found)
    assert len(lengths) > 10
    assert max(lengths) > 2 * OPENING


def test_on_real_tunes_too(tunes):
    for i in range(0, 40, 8):
        one, others = find_lines(tunes[i]), [line for tune in tunes[i + 1 : i + 4] for line in find_lines(tune)]
        assert longest_run(one, as_known(others)).notes == slowly(one, others)


def test_a_piece_is_found_whole_in_itself_in_any_key(tunes):
    tune = find_lines(transpose(tunes[7], 5))
    known = as_known([line for other in tunes for line in find_lines(other)])
    assert longest_run(tune, known).notes == len(tune[0].onsets)


def test_a_run_is_known_by_where_it_begins_in_both(scherzo):
    found = find_lines(scherzo)
    number = next(i for i, one in enumerate(found) if scherzo.parts[one.part].name == "Violino I")
    quoted = Line(0, found[number].onsets[3:], found[number].pitches[3:])
    before = [line([1, 2, 3], [1, 1, 1]), quoted]
    known = as_known(found)
    run = longest_run(before, known)
    assert run.notes == len(quoted.onsets)
    assert run.onset == quoted.onsets[0]
    starts = np.cumsum([0, *(len(one.onsets) for one in found)])
    assert starts[number] + 3 == run.place


def test_no_run_goes_from_one_line_into_the_next():
    whole = line([2, 2, 1, 2, 2, 2, 1, -3, 5, -1], [12] * 10)
    halves = [line([2, 2, 1, 2, 2], [12] * 5), line([2, 1, -3, 5, -1], [12] * 5, 1)]
    assert longest_run([whole], as_known(halves)).notes == 6
    assert longest_run(halves, as_known([whole])).notes == 6


def test_the_same_intervals_in_another_rhythm_are_another_run():
    one, other = line([2, 2, 1, 2], [12, 12, 12, 12]), line([2, 2, 1, 2], [24, 12, 24, 12])
    assert longest_run([one], as_known([other])).notes == 2
    assert longest_run([one], as_known([other], rhythm=False), rhythm=False).notes == 5


def test_a_trill_however_long_is_a_short_run():
    trill = line([2, -2] * 50, [6] * 100)
    assert longest_run([trill], as_known([trill])).notes == OPENING


def test_nothing_in_common_is_no_run():
    assert longest_run([line([1, 1], [1, 1])], as_known([line([2, 2], [1, 1])])).notes == 0
    assert longest_run([], as_known([])).notes == 0


def test_a_line_is_the_highest_note_at_each_onset():
    chords = notes_array([(0, 480, 60, 80), (3, 480, 64, 80), (0, 480, 55, 80), (480, 240, 67, 80), (720, 240, 62, 80)])
    piano = Score(parts=(Part("Piano", 0, False, chords), Part("Drums", 0, True, chords), Part("Tuba", 58)))
    (found,) = find_lines(piano)
    assert found.part == 0
    assert found.pitches.tolist() == [64, 67, 62]
    assert found.onsets.tolist() == [0, 480, 720]
    assert found.gaps.tolist() == [24, 12]
    assert [intervals.tolist() for intervals in lines(piano)] == [[3, -5]]


def test_lines_do_not_mind_how_long_notes_are_held(scherzo):
    short = replace(scherzo, parts=tuple(part.with_notes(_staccato(part.notes)) for part in scherzo.parts))
    assert np.array_equal(as_known(find_lines(short)), as_known(find_lines(scherzo)))


def _staccato(notes: np.ndarray) -> np.ndarray:
    notes = notes.copy()
    notes["duration"] = np.maximum(notes["duration"] // 2, 1)
    return notes
