"""Themes of real music, held against a slow and plain search, and where another music quotes them."""

from __future__ import annotations

from collections import defaultdict

import pytest

from musicgen.formats import read_score, read_scores
from musicgen.score import Part, Score, bars_between, notes_array, transpose, unfold
from musicgen.score.lines import MOST_GAP, OPENING, PLAIN, find_lines
from musicgen.score.themes import FEWEST_NOTES, MOST_NOTES, find_themes, quotations

EROICA = "orchestra/beethoven-op55-3.mid"
SCORES = (EROICA, "orchestra/beethoven-op67-3.mid", "orchestra/schubert-d485-1.mid")


@pytest.fixture(scope="module", params=SCORES)
def score(request, data) -> Score:
    return read_score(data / request.param)


@pytest.fixture(scope="module")
def eroica(data) -> Score:
    return read_score(data / EROICA)


@pytest.fixture(scope="module")
def bluehill(data) -> Score:
    tunes = read_scores(data / "irish" / "tunes.abc")
    return unfold(next(tune for tune in tunes if tune.title == "Boys of Bluehill"))


def steps_of(score: Score) -> dict[int, tuple[list[tuple[int, int]], list[int]]]:
    """Part -> its line's (interval, gap) pairs, and its onsets."""
    return {
        line.part: (list(zip(line.intervals.tolist(), line.gaps.tolist(), strict=True)), line.onsets.tolist())
        for line in find_lines(score)
    }


def slowly(score: Score, figure: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """(onset, part) of every statement: each place of each part is tried, and those that overlap are left out."""
    found = []
    for part, (steps, onsets) in steps_of(score).items():
        at = 0
        while at + len(figure) <= len(steps):
            alike = steps[at : at + len(figure)] == figure
            if alike:
                found.append((onsets[at], part))
            at += len(figure) + 1 if alike else 1
    return sorted(found)


def figure_of(theme) -> list[tuple[int, int]]:
    intervals = [b - a for a, b in zip(theme.pitches, theme.pitches[1:], strict=False)]
    return list(zip(intervals, theme.gaps, strict=True))


def melody(*notes: tuple[int, int], bar: int = 1920) -> Score:
    """One part: (pitch, duration) one after the other; pitch 0 is a rest."""
    rows, at = [], 0
    for pitch, duration in notes:
        if pitch:
            rows.append((at, duration, pitch, 80))
        at += duration
    return Score(parts=(Part("Flute", 73, notes=notes_array(rows)),), bars=range(0, at, bar), length=at)


TUNE = ((60, 480), (64, 240), (67, 240), (65, 480), (62, 480), (71, 960), (72, 960))


def test_every_statement_is_one_that_a_slow_search_finds_and_none_is_missed(score):
    themes = find_themes(score)
    assert len(themes) == 5
    for theme in themes:
        assert [(s.onset, s.part) for s in theme.statements] == slowly(score, figure_of(theme))


def test_the_first_theme_is_the_weightiest_figure_that_a_slow_search_finds(bluehill):
    ((steps, _),) = steps_of(bluehill).values()
    weights = []
    for notes in range(FEWEST_NOTES, MOST_NOTES + 1):
        places = defaultdict(list)
        for at in range(len(steps) - notes + 2):
            places[tuple(steps[at : at + notes - 1])].append(at)
        for figure, found in places.items():
            times, after = 0, 0
            for at in found:
                if at >= after:
                    times, after = times + 1, at + notes
            if len({interval for interval, _ in figure[:OPENING]}) >= PLAIN and MOST_GAP not in [g for _, g in figure]:
                weights.append(notes * (times - 1))
    theme = find_themes(bluehill)[0]
    assert len(theme.notes) * (theme.times - 1) == max(weights)


def test_the_tune_of_the_eroica_s_scherzo_is_its_weightiest_theme(eroica):
    theme = find_themes(eroica)[0]
    assert " ".join(theme.notes) == "Bb5 Bb5 Bb5 Bb5 Bb5 Bb5 C6 Bb5 A5 G5 F5 Eb5 D5 F5 D5 C5"
    assert (eroica.parts[theme.first.part].name, theme.first.bar) == ("Oboe 1", 8)
    assert {0, -12, 5, -7} <= {statement.semitones for statement in theme.statements}


def test_the_fugue_of_beethoven_s_fifth_is_found_in_four_parts(data):
    score = read_score(data / "orchestra" / "beethoven-op67-3.mid")
    theme = find_themes(score)[0]
    assert " ".join(theme.notes) == "B2 C3 D3 G2 A2 B2 C3 B2 C3 D3 E3"
    names = {score.parts[statement.part].name for statement in theme.statements}
    assert {"Violoncello", "Viola", "Violin 1", "Violin 2"} <= names


def test_the_a_part_of_a_tune_comes_back(bluehill):
    theme = find_themes(bluehill)[0]
    assert [statement.bar for statement in theme.statements] == [1, 5, 9, 13, 21, 29]


def test_nothing_of_five_notes_comes_back_in_the_nine_bars_of_the_scherzo(data):
    assert find_themes(read_score(data / "schubert-d759" / "scherzo.musicxml")) == []


def test_no_theme_is_contained_in_another(score):
    figures = [figure_of(theme) for theme in find_themes(score)]
    for one in figures:
        for other in figures:
            if one is not other:
                assert not any(other[at : at + len(one)] == one for at in range(len(other)))


def test_two_parts_that_play_a_tune_together_once_have_no_theme():
    part = melody(*TUNE).parts[0]
    assert not find_themes(Score(parts=(part, part), bars=[0], length=part.end))


def test_a_trill_a_scale_and_repeated_notes_are_no_theme():
    scale = [(60 + step, 240) for step in (0, 2, 4, 5, 7, 9, 11, 12)]
    assert not find_themes(melody(*[(72, 120), (74, 120)] * 40, *[(60, 240)] * 40, (0, 960), *scale, (0, 480), *scale))


def test_a_figure_is_not_one_across_a_long_rest():
    parted = (*TUNE[:4], (0, 9600), *TUNE[4:])
    assert not find_themes(melody(*parted, (0, 960), *parted))


def test_no_notes_and_drums_have_no_themes():
    drums = Part("Drums", is_drum=True, notes=melody(*TUNE, *TUNE).parts[0].notes)
    assert find_themes(Score(parts=(drums,), bars=[0], length=drums.end)) == []


def test_a_score_quotes_its_own_themes_wherever_it_states_them(score):
    themes = find_themes(score)
    found = quotations(themes, score)
    for number, theme in enumerate(themes):
        whole = {(q.onset, q.part, q.semitones) for q in found if (q.theme, q.notes) == (number, len(theme.notes))}
        stated = {(s.onset, s.part, s.semitones) for s in theme.statements}
        begun = {(q.onset, q.part) for q in found if q.theme != number}
        assert {s for s in stated if s[:2] not in begun} <= whole


def test_a_quotation_says_where_in_which_part_and_how_far_moved(eroica):
    themes = find_themes(eroica)
    first = themes[0].first
    bars = transpose(bars_between(eroica, first.bar - 2, first.bar + 10), -3)
    found = [q for q in quotations(themes, bars, first_bar=101) if q.theme == 0]
    assert (found[0].part, found[0].bar, found[0].notes, found[0].semitones) == (first.part, 102, 16, -3)


def test_the_beginning_of_a_theme_is_quoted_too_and_its_length_told():
    theme = find_themes(melody(*TUNE, (0, 960), *TUNE))
    assert len(theme[0].notes) == 7
    short = melody((48, 960), *TUNE[:5], (40, 240))
    assert [(q.notes, q.bar, q.semitones) for q in quotations(theme, short, first_bar=9)] == [(5, 9, 0)]
    assert not quotations(theme, melody((48, 960), *TUNE[:4], (40, 240)))


def test_another_rhythm_is_no_quotation():
    theme = find_themes(melody(*TUNE, (0, 960), *TUNE))
    assert not quotations(theme, melody(*((pitch, 480) for pitch, _ in TUNE)))
