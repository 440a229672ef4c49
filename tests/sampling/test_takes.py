"""The figures of continuations, held against slow and plain counts on real scores, and the order of takes."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from itertools import pairwise

import numpy as np
import pytest

from musicgen.formats import read_score, read_scores
from musicgen.sampling import SamplingConfig, finish, understand
from musicgen.sampling.takes import (
    Copied,
    Figures,
    bar_density,
    from_seam,
    late_bars,
    likeness,
    longest_copy,
    measure,
    measure_own,
    melodic_intervals,
    melodies_of,
    note_lengths,
    order_of_takes,
    overlap,
    overlaps,
    pitch_classes,
    repetition,
)
from musicgen.sampling.takes_report import NO_MELODIES, report_page
from musicgen.score import Part, Score, bars_between, clip, transpose


@pytest.fixture(scope="module")
def movement(data) -> Score:
    """Beethoven, the third movement of the first symphony."""
    return read_score(data / "orchestra" / "beethoven-op21-3.mid")


@pytest.fixture(scope="module")
def scherzo(data) -> Score:
    return read_score(data / "schubert-d759" / "scherzo.musicxml")


@pytest.fixture(scope="module")
def reel(data) -> Score:
    return read_scores(data / "irish" / "tunes.abc")[0]


def halves(score: Score) -> tuple[Score, Score]:
    middle = len(score.bars) // 2
    return bars_between(score, 0, middle), bars_between(score, middle, len(score.bars))


# likeness


def test_pitch_classes_are_those_of_the_notes(scherzo):
    slow = Counter(int(note["pitch"]) % 12 for part in scherzo.parts for note in part.notes)
    assert pitch_classes(scherzo).tolist() == [slow[i] for i in range(12)]


def test_note_lengths_next_to_each_other_are_a_half_power_of_two_apart(reel):
    slow = Counter(int(note["duration"]) for note in reel.parts[0].notes)
    found = note_lengths(reel)
    for ticks, place in ((120, 4), (160, 5), (240, 6), (360, 7), (480, 8), (720, 9), (960, 10)):
        assert found[place] == slow.pop(ticks, 0)
    assert not slow


def test_melodic_intervals_are_those_of_the_line(reel):
    pitches = reel.parts[0].notes["pitch"].tolist()
    slow = Counter(b - a for a, b in pairwise(pitches))
    assert melodic_intervals(reel).tolist() == [slow[i] for i in range(-12, 13)]


def test_density_counts_the_notes_of_full_bars_only(reel):
    """A reel with a pickup: eight eighths a bar, or seven and a longer one."""
    bars = reel.bars.tolist()
    full = [(a, b) for a, b in zip(bars, [*bars[1:], reel.length], strict=True) if b - a >= reel.metres[0].ticks]
    onsets = reel.parts[0].notes["onset"]
    slow = Counter(int(((onsets >= a) & (onsets < b)).sum()) for a, b in full)
    expected = np.zeros(25, dtype=int)
    for count, how_many in slow.items():
        expected[0 if count == 0 else 1 + round(2 * np.log2(count))] += how_many
    assert bar_density(reel).tolist() == expected.tolist()


def test_overlap_is_the_common_area():
    assert overlap(np.array([1, 1]), np.array([2, 2])) == 1.0
    assert overlap(np.array([1, 0]), np.array([0, 1])) == 0.0
    assert overlap(np.array([3, 1]), np.array([1, 1])) == pytest.approx(0.75)
    assert overlap(np.array([1, 0]), np.array([0, 0])) is None


def test_music_is_wholly_like_itself(movement):
    assert list(overlaps(movement, movement).values()) == pytest.approx([1.0] * 4)


def test_a_movements_second_half_is_more_like_its_first_than_another_key_is(movement):
    first, second = halves(movement)
    own, moved = overlaps(first, second), overlaps(first, transpose(second, 6))
    assert own["pitch classes"] > moved["pitch classes"] + 0.2
    assert own["intervals"] == moved["intervals"]
    assert likeness(own) > likeness(moved)


def test_a_movements_own_end_is_more_like_it_than_a_tunes(movement, reel):
    first, second = halves(movement)
    assert likeness(overlaps(first, second)) > likeness(overlaps(first, reel)) + 0.1


def test_drums_have_no_pitch_classes_and_likeness_does_without(data):
    drums = tuple(part for part in read_score(data / "freedoom" / "d_e1m8.mid").parts if part.is_drum)
    found = overlaps(Score(drums), Score(drums))
    assert found["pitch classes"] is None
    assert found["density"] == pytest.approx(1.0)
    assert likeness(found) == pytest.approx(1.0)


# repetition


def test_a_bar_that_comes_again_exactly_is_repetition(movement):
    bars = range(len(movement.bars))
    seen: set[tuple] = set()
    again = sounding = 0
    for bar in bars:
        cut = bars_between(movement, bar, bar + 1)
        start, stop = int(movement.bars[bar]), int(movement.bars[bar]) + cut.length
        held = tuple(
            (number, int(n["onset"]) - start, int(n["pitch"]), int(n["duration"]))
            for number, part in enumerate(movement.parts)
            for n in part.notes
            if start <= n["onset"] < stop
        )
        again += bool(held) and held in seen
        sounding += bool(held)
        seen.add(held)
    assert repetition(movement) == pytest.approx(again / sounding)
    assert again > 10


def test_silence_is_no_repetition():
    assert repetition(Score(parts=(Part("Flute", 73),), length=8 * 1920)) == 0.0


# originality


def test_a_theme_copied_in_another_key_is_named_with_its_place_and_source(movement, scherzo):
    theme = bars_between(movement, 20, 28)
    run = longest_copy(transpose(theme, 3), melodies_of(movement), first_bar=101)
    whole = max(len(np.unique(part.notes["onset"])) for part in theme.parts)
    assert 0.5 * whole < run.notes <= whole + 1
    assert run.source == movement.title
    assert 101 <= run.bar <= 108
    assert run.part in {part.name for part in movement.parts}
    assert longest_copy(scherzo, melodies_of(movement)).notes < run.notes


def test_what_is_measured_of_a_continuation_begins_at_the_seam(movement):
    begun = int(movement.bars[10]) + 480
    rest = from_seam(movement, begun)
    assert rest.note_count == sum(int((part.notes["onset"] >= begun).sum()) for part in movement.parts)
    assert rest.length == movement.length - begun
    assert rest.bars[1] == int(movement.bars[11]) - begun


def test_a_fragments_own_figures_are_of_its_second_half_beside_its_first(movement):
    own, (first, second) = measure_own(movement, melodies_of(movement)), halves(movement)
    beside = measure(first, second, first_bar=len(first.bars) + 1)
    assert (own.overlaps, own.quoted) == (beside.overlaps, beside.quoted)
    assert own.repetition == repetition(movement)
    assert own.copied.notes > 100
    assert beside.copied is None


def test_a_single_bar_has_no_halves(scherzo):
    own = measure_own(bars_between(scherzo, 0, 1))
    assert own.likeness is None
    assert own.quoted == Copied(0)


# the order of takes


def figures(nats: float, like: float, repeated: float = 0.2, copied: int | None = None, late: float = 0.5) -> Figures:
    return Figures(1, nats, like, {}, repeated, None if copied is None else Copied(copied), Copied(0), late)


def test_a_take_that_is_better_in_all_comes_first():
    takes = [figures(3, 0.5, 0.9, 40), figures(2, 0.6, 0.3, 9, 0.6), figures(4, 0.4, 1.0, 90)]
    assert order_of_takes(takes, own_repetition=0.2, own_nats=2.2) == [1, 0, 2]


def test_a_take_that_costs_as_much_as_its_fragment_comes_before_a_likelier_one():
    pedal, music, chaos = (figures(nats, 0.5) for nats in (0.5, 2.1, 5.0))
    assert order_of_takes([pedal, chaos, music], own_repetition=0.2, own_nats=2.2) == [2, 0, 1]


def test_likelihood_counts_for_nothing_where_that_of_the_fragment_is_not_known():
    assert order_of_takes([figures(2.1, 0.5), figures(0.5, 0.5)], own_repetition=0.2) == [0, 1]


def test_likeness_counts_more_than_any_other_figure():
    alike, other = figures(4, 0.6, 0.9), figures(2, 0.5, 0.2)
    assert order_of_takes([other, alike], own_repetition=0.5, own_nats=2) == [1, 0]


def test_likeness_to_the_end_counts_as_much_as_to_the_whole():
    whole, end, neither = figures(2, 0.6, late=0.4), figures(2, 0.5, late=0.5), figures(2, 0.4, late=0.4)
    assert order_of_takes([neither, end, whole], own_repetition=0.2) == [2, 1, 0]


def test_a_loop_does_not_come_first_because_it_is_likely():
    loop, music = figures(0.5, 0.3, 1.0, 60), figures(2, 0.6, 0.2, 9)
    assert order_of_takes([loop, music], own_repetition=0.2, own_nats=1) == [1, 0]


def test_of_equal_sums_the_one_more_alike_comes_first_and_then_the_first_drawn():
    takes = [figures(2, 0.5, late=0.6), figures(2, 0.6, late=0.5), figures(2, 0.5, late=0.6)]
    assert order_of_takes(takes, own_repetition=0.2) == [0, 2, 1]
    assert order_of_takes(takes[:2], own_repetition=0.2) == [1, 0]


def test_short_runs_are_in_all_music_and_count_alike():
    assert order_of_takes([figures(2, 0.5, 0.2, 8), figures(2, 0.5, 0.2, 2)], own_repetition=0.2) == [0, 1]


def test_the_last_bars_of_a_fragment_are_as_many_as_the_take_has_and_eight_at_least(movement):
    assert late_bars(movement, 12) == bars_between(movement, len(movement.bars) - 12, len(movement.bars))
    assert late_bars(movement, 1) == late_bars(movement, 8)
    assert len(late_bars(movement, 10_000).bars) == len(movement.bars)


def test_late_likeness_is_that_to_the_last_bars(movement):
    """A copy of the last bars is wholly like them, and less so like the movement."""
    found = measure(movement, late_bars(movement, 16))
    assert found.late_likeness == pytest.approx(1)
    assert found.likeness is not None
    assert found.likeness < 0.95


# takes of a model


@pytest.fixture(scope="module")
def takes(orchestra, scherzo):
    fragment = clip(scherzo, 6 * 1440 + 720)
    made = finish(
        fragment,
        orchestra.model,
        orchestra.tokenizer,
        bars=4,
        takes=4,
        config=SamplingConfig(),
        seen_parts=orchestra.corpus["seen"]["part"],
        melodies=orchestra.melodies(),
    )
    return fragment, made


def test_every_take_has_its_figures(takes):
    fragment, made = takes
    for take in made:
        rest = from_seam(take.new, take.seam)
        assert take.figures.notes == take.notes == rest.note_count
        assert take.figures.overlaps == overlaps(fragment, rest)
        assert take.figures.repetition == repetition(rest)
        assert take.figures.nats_per_note == take.nats_per_note
        assert take.figures.copied is not None
        assert not take.figures.copied.notes or 7 <= take.figures.copied.bar <= 11


def test_the_report_holds_every_take_and_is_the_same_each_time(takes, orchestra):
    fragment, made = takes
    names = [f"take {i}.mid" for i in range(4)]
    own = measure_own(fragment, orchestra.melodies())
    page, again = (report_page(understand(fragment), own, made, names, ["4 bars"]) for _ in range(2))
    assert page == again
    for take, name in zip(made, names, strict=True):
        (row,) = [line for line in page.splitlines() if name in line and line.startswith("|")]
        assert f"| {take.notes} |" in row
        assert f"{take.figures.likeness:.2f}" in row
    assert "the fragment itself" in page
    assert "bar 7 is filled to 1.5 of 3 quarters" in page
    assert str(orchestra.folder) not in page
    assert len(page.splitlines()) < 70


def test_where_no_melodies_are_kept_the_report_says_so(takes):
    fragment, made = takes
    unknown = [replace(take, figures=replace(take.figures, copied=None)) for take in made]
    page = report_page(understand(fragment), measure_own(fragment), unknown, ["a", "b", "c", "d"], [])
    assert NO_MELODIES in page


def test_figures_are_plain_values(takes):
    _, made = takes
    assert asdict(made[0].figures)["copied"].keys() == {"notes", "part", "bar", "source"}
