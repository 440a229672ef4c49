"""The score model: what it refuses, how it lays out bars, and how it tells time."""

from __future__ import annotations

import numpy as np
import pytest

from musicgen.errors import ScoreError
from musicgen.score import NOTE, Key, Metre, Part, Score, Sign, Tempo, TempoMap, bar_grid, bar_ticks, notes_array

QUARTER = 480


def part(*notes: tuple[int, int, int, int], **kinds) -> Part:
    return Part(notes=notes_array(notes), **kinds)


# what is refused

BAD_PARTS = {
    "a note before tick 0": lambda: part((-1, 480, 60, 80)),
    "a note of no length": lambda: part((0, 0, 60, 80)),
    "a pitch of 128": lambda: part((0, 480, 128, 80)),
    "a pitch of -1": lambda: part((0, 480, -1, 80)),
    "a velocity of 0": lambda: part((0, 480, 60, 0)),
    "a velocity of 128": lambda: part((0, 480, 60, 128)),
    "program 128": lambda: part(program=128),
    "program -1": lambda: part(program=-1),
    "notes of another type": lambda: Part(notes=np.zeros(3, dtype=np.int64)),
}
BAD_SCORES = {
    "a tempo map that begins late": lambda: Score(tempos=(Tempo(10, 120),)),
    "no tempo at all": lambda: Score(tempos=()),
    "a metre map that begins late": lambda: Score(metres=(Metre(1, 4, 4),)),
    "a key map that begins late": lambda: Score(keys=(Key(1, 0),)),
    "a metre of 0/4": lambda: Score(metres=(Metre(0, 0, 4),)),
    "a metre of 4/5": lambda: Score(metres=(Metre(0, 4, 5),)),
    "a tempo of 0": lambda: Score(tempos=(Tempo(0, 0.0),)),
    "a tempo that is no number": lambda: Score(tempos=(Tempo(0, float("nan")),)),
    "a tempo past all reason": lambda: Score(tempos=(Tempo(0, 10_000.0),)),
    "a key of 8 sharps": lambda: Score(keys=(Key(0, 8),)),
    "a key in no mode": lambda: Score(keys=(Key(0, 0, "blue"),)),
    "an end before the last note's": lambda: Score(parts=(part((0, 480, 60, 80)),), length=479),
    "bars that begin late": lambda: Score(bars=np.array([480]), length=960),
    "bars that do not rise": lambda: Score(bars=np.array([0, 480, 480]), length=960),
    "a bar where the score has stopped": lambda: Score(bars=np.array([0, 960]), length=960),
    "no bars": lambda: Score(bars=np.array([], dtype=np.int32), length=960),
    "a sign that is none": lambda: Score(signs=(Sign(0, "encore"),)),
}


@pytest.mark.parametrize("make", BAD_PARTS.values(), ids=BAD_PARTS)
def test_a_part_refuses(make):
    with pytest.raises(ScoreError):
        make()


@pytest.mark.parametrize("make", BAD_SCORES.values(), ids=BAD_SCORES)
def test_a_score_refuses(make):
    with pytest.raises(ScoreError):
        make()


def test_an_error_about_a_part_names_it_in_one_line():
    with pytest.raises(ScoreError, match=r"'Flauto'.*program 200") as caught:
        part(name="Flauto", program=200)
    assert "\n" not in str(caught.value)


def test_the_bounds_themselves_are_allowed():
    whole = part((0, 1, 0, 1), (0, 1, 127, 127), program=127)
    assert Score(parts=(whole,), keys=(Key(0, -7), Key(5, 7, "minor"))).note_count == 2


# what it holds


def test_notes_are_sorted_by_onset_pitch_and_duration():
    notes = [(480, 10, 60, 9), (0, 20, 64, 9), (0, 10, 60, 9), (0, 5, 64, 9)]
    expected = [(0, 10, 60, 9), (0, 5, 64, 9), (0, 20, 64, 9), (480, 10, 60, 9)]
    assert notes_array(notes).tolist() == expected
    assert Part(notes=np.array(notes, dtype=NOTE)).notes.tolist() == expected


def test_the_notes_and_bars_of_a_score_cannot_be_written_to():
    score = Score(parts=(part((0, 480, 60, 80)),))
    with pytest.raises(ValueError, match="read-only"):
        score.parts[0].notes["pitch"] = 61
    with pytest.raises(ValueError, match="read-only"):
        score.bars[0] = 1


def test_building_a_part_leaves_the_array_it_was_given_as_it_was():
    given = np.array([(480, 10, 60, 9), (0, 10, 62, 9)], dtype=NOTE)
    Part(notes=given)
    assert given["onset"].tolist() == [480, 0]
    given["pitch"] = 1  # and writable


def test_maps_are_sorted_and_looked_up_by_the_last_event_at_or_before_a_tick():
    score = Score(metres=(Metre(1920, 3, 4), Metre(0, 4, 4)), length=4000)
    assert [m.onset for m in score.metres] == [0, 1920]
    assert score.metre_at(1919) == Metre(0, 4, 4)
    assert score.metre_at(1920) == Metre(1920, 3, 4)


def test_the_length_is_where_the_last_note_stops_unless_it_is_told():
    notes = part((0, 480, 60, 80), (0, 960, 48, 80), (480, 240, 62, 80))
    assert Score(parts=(notes,)).length == 960
    assert Score(parts=(notes,), length=1920).length == 1920


def test_signs_at_one_barline_apply_in_the_order_in_which_they_are_meant():
    kinds = ["ending", "repeat_start", "final", "double", "repeat_end", "ending_stop"]
    score = Score(signs=[Sign(0, kind) for kind in kinds])
    assert [s.kind for s in score.signs] == kinds[::-1]


def test_two_scores_are_equal_if_and_only_if_all_they_hold_is():
    def make(pitch=60, title="a", bars=None, kind="double"):
        return Score(parts=(part((0, 1920, pitch, 80)),), title=title, bars=bars, signs=(Sign(0, kind),))

    assert make() == make()
    assert make() != make(pitch=61)
    assert make() != make(title="b")
    assert make() != make(bars=np.array([0, 480]))
    assert make() != make(kind="final")
    assert make() != "a score"


# bars


@pytest.mark.parametrize(
    ("numerator", "denominator", "ticks"), [(4, 4, 1920), (3, 4, 1440), (6, 8, 1440), (2, 2, 1920), (1, 64, 30)]
)
def test_a_full_bar_lasts(numerator, denominator, ticks):
    assert bar_ticks(numerator, denominator) == Metre(0, numerator, denominator).ticks == ticks


def test_bars_are_laid_out_to_the_end_of_the_music():
    assert bar_grid([Metre(0, 3, 4)], 3 * 1440).tolist() == [0, 1440, 2880]
    assert bar_grid([Metre(0, 3, 4)], 3 * 1440 + 1).tolist() == [0, 1440, 2880, 4320]


def test_a_score_of_no_length_still_has_a_bar():
    assert bar_grid([Metre(0, 4, 4)], 0).tolist() == [0]
    assert Score().bars.tolist() == [0]


def test_a_pickup_is_a_short_first_bar():
    assert bar_grid([Metre(0, 4, 4)], 5000, pickup=480).tolist() == [0, 480, 2400, 4320]


def test_a_pickup_as_long_as_the_music_is_its_only_bar():
    assert bar_grid([Metre(0, 4, 4)], 480, pickup=480).tolist() == [0]


def test_a_change_of_metre_starts_its_bars_where_it_stands():
    metres = [Metre(0, 4, 4), Metre(1920, 3, 4), Metre(1920 + 1440, 6, 8)]
    assert bar_grid(metres, 1920 + 1440 + 1441).tolist() == [0, 1920, 3360, 4800]


def test_a_change_of_metre_cuts_the_bar_it_falls_in():
    assert bar_grid([Metre(0, 4, 4), Metre(2400, 3, 4)], 5000).tolist() == [0, 1920, 2400, 3840]


def test_a_pickup_and_a_change_of_metre_go_together():
    assert bar_grid([Metre(0, 4, 4), Metre(2400, 3, 4)], 4000, pickup=480).tolist() == [0, 480, 2400, 3840]


def test_a_score_knows_its_pickup():
    notes = part((0, 4000, 60, 80))
    assert Score(parts=(notes,), bars=np.array([0, 480, 2400])).pickup == 480
    assert Score(parts=(notes,)).pickup == 0
    assert Score(parts=(part((0, 480, 60, 80)),)).pickup == 0  # one bar, unfinished: that is no pickup


def test_the_last_bar_is_as_long_as_what_there_is_of_it():
    score = Score(parts=(part((0, 2000, 60, 80)),), bars=np.array([0, 480]))
    assert score.bar_lengths.tolist() == [480, 1520]


def test_a_tick_is_in_the_bar_that_starts_at_or_before_it():
    score = Score(bars=np.array([0, 480, 2400]), length=5000)
    assert [score.bar_at(t) for t in (0, 479, 480, 2399, 2400, 9999)] == [0, 0, 1, 1, 2, 2]


# time


def test_seconds_follow_the_tempo_map():
    score = Score(tempos=(Tempo(0, 60), Tempo(960, 120), Tempo(1920, 240)), length=4000)
    # two quarters of a second each, two of a half, then quarters of a quarter
    assert [score.seconds_at(t) for t in (0, 480, 960, 1440, 1920, 2400, 3360)] == [0, 1, 2, 2.5, 3, 3.25, 3.75]


def test_seconds_of_a_tick_in_the_middle_do_not_depend_on_later_tempi():
    early = Score(tempos=(Tempo(0, 90),), length=4000)
    late = Score(tempos=(Tempo(0, 90), Tempo(960, 30)), length=4000)
    assert early.seconds_at(700) == late.seconds_at(700)
    assert early.seconds_at(1000) < late.seconds_at(1000)


@pytest.mark.parametrize(
    ("key", "name"),
    [
        (Key(0, 2, "minor"), "B minor"),
        (Key(0, 0), "C major"),
        (Key(0, -3), "E flat major"),
        (Key(0, 6), "F sharp major"),
        (Key(0, -7), "C flat major"),
        (Key(0, 7, "minor"), "A sharp minor"),
        (Key(0, 0, "dorian"), "D dorian"),
        (Key(0, -7, "lydian"), "F flat lydian"),
    ],
)
def test_a_key_is_named_as_a_musician_says_it(key, name):
    assert key.name == name


# tempo maps


def test_a_tempo_map_is_a_sequence_of_tempi():
    tempos = (Tempo(0, 60.0), Tempo(480, 90.0), Tempo(960, 120.0))
    score = Score(parts=(part((0, 1920, 60, 80)),), tempos=tempos)
    assert score.tempos == tempos
    assert tuple(score.tempos) == tempos
    assert (len(score.tempos), score.tempos[1], score.tempos[-1], score.tempos[1:]) == (3, *tempos[1:], tempos[1:])
    assert hash(score.tempos) == hash(tempos)
    assert score.tempos != tempos[:2]
    assert score == Score(parts=score.parts, tempos=score.tempos)
    assert [score.tempo_at(t).bpm for t in (0, 479, 480, 959, 960, 5000)] == [60, 60, 90, 90, 120, 120]


def test_tempi_are_put_in_the_order_of_time():
    assert TempoMap(np.array([0, 960, 480]), np.array([60.0, 120.0, 90.0])).bpms.tolist() == [60, 90, 120]


@pytest.mark.parametrize("bpms", [[60.0, 0.0], [60.0, float("nan")], [60.0, 10_000.0], [-1.0, 60.0]])
def test_a_tempo_map_refuses_what_is_no_tempo(bpms):
    with pytest.raises(ScoreError, match="out of range"):
        TempoMap(np.array([0, 480]), np.array(bpms))


def test_two_tempi_at_one_tick_do_not_stop_the_clock():
    score = Score(parts=(part((0, 960, 60, 80)),), tempos=(Tempo(0, 60.0), Tempo(0, 120.0)))
    assert score.seconds_at(960) == 1.0


def test_seconds_are_told_of_whole_arrays():
    score = Score(parts=(part((0, 1920, 60, 80)),), tempos=(Tempo(0, 60.0), Tempo(480, 120.0)))
    ticks = np.array([[0, 480], [960, 1440]])
    assert score.seconds_at(ticks).tolist() == [[0.0, 1.0], [1.5, 2.0]]


def test_a_tempo_map_can_not_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        Score().tempo_map.bpms[0] = 60
