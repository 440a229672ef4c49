"""What is said of a fragment before it is continued, on real scores; and the refusals, which write nothing."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from musicgen import workflows
from musicgen.checkpoint import build_model
from musicgen.config import check_config
from musicgen.errors import FinishError
from musicgen.formats import read_score, read_scores, write_score
from musicgen.sampling import SamplingConfig, finish
from musicgen.sampling.understanding import in_lines, understand
from musicgen.score import DRUM_PROGRAM, Key, Part, Score, Tempo, clip, notes_array
from musicgen.tokens import BarsTokenizer


@pytest.fixture(scope="module")
def scherzo(data) -> Score:
    return read_score(data / "schubert-d759" / "scherzo.musicxml")


@pytest.fixture(scope="module")
def eroica(data) -> Score:
    return read_score(data / "orchestra" / "beethoven-op55-3.mid")


def test_each_part_is_told_with_what_it_plays_and_what_it_could(scherzo):
    found = understand(scherzo)
    timpani = next(part for part in found.parts if part.name == "Timpani")
    notes = next(part for part in scherzo.parts if part.name == "Timpani").notes
    assert (timpani.instrument, timpani.notes) == ("Timpani", len(notes))
    assert (timpani.lowest, timpani.highest) == ("B2", "F#3")
    assert timpani.can_play == ("C2", "A3")
    assert [part.name for part in found.parts] == [part.name for part in scherzo.parts]


def test_a_part_silent_for_eight_bars_is_told_as_silent(scherzo):
    """The flutes stop after the first bar."""
    flutes = scherzo.parts[0]
    early = replace(scherzo, parts=(flutes.with_notes(flutes.notes[flutes.notes["onset"] < 960]), *scherzo.parts[1:]))
    assert not understand(early).parts[0].plays_lately
    assert understand(clip(early, 8 * 1440)).parts[0].plays_lately


def test_the_last_complete_bar_and_how_far_the_next_is_filled(scherzo):
    found = understand(clip(scherzo, 4 * 1440 + 720))
    assert (found.bars, found.last_complete_bar, found.last_bar_filled) == (5, 4, 0.5)
    assert (found.quarters_there, found.quarters_full) == (1.5, 3)
    whole = understand(scherzo)
    assert (whole.bars, whole.last_complete_bar, whole.last_bar_filled) == (9, 9, 1)


def test_the_notes_that_sound_up_to_the_seam_are_named(scherzo):
    """Cut in the middle of a half note: all that sounds there, and nothing else."""
    fragment = clip(scherzo, 4 * 1440 + 240)
    for part, read in zip(fragment.parts, understand(fragment).parts, strict=True):
        sounds = [n for n in part.notes if n["onset"] + n["duration"] == fragment.length]
        assert len(read.sounding) == len(sounds)
    oboes = understand(scherzo).parts[1]
    assert oboes.sounding == ("B4",)
    assert understand(scherzo).parts[0].sounding == ()


def test_changes_of_metre_and_tempo_are_told_with_their_bars(eroica):
    """The scherzo of the Eroica breaks into two for four bars."""
    found = understand(eroica)
    assert found.metres == ((1, "3/4"), (454, "2/2"), (458, "3/4"))
    assert [bar for bar, _ in found.tempos] == [1, 454, 458]
    assert found.pickup
    text = "\n".join(in_lines(found))
    assert "3/4, 2/2 from bar 454, 3/4 from bar 458" in text
    assert "the first an upbeat" in text


def test_a_written_key_that_the_notes_are_in_stands_alone(scherzo):
    found = understand(scherzo)
    assert (found.key, found.tonality) == ("B minor", None)


def test_where_the_notes_are_in_another_key_than_is_written_both_are_told(eroica):
    found = understand(replace(eroica, keys=(Key(0, 0),)))
    assert (found.key, found.tonality) == ("C major", "E flat major")
    assert "C major as written; by its notes E flat major" in "\n".join(in_lines(found))


def test_a_performances_thousand_tempi_are_one_short_line(scherzo):
    tempi = tuple(Tempo(12 * i, 100 + i % 7) for i in range(1000))
    found = understand(replace(scherzo, tempos=tempi))
    assert len(found.tempos) == 1000
    assert max(map(len, in_lines(found))) < 120
    assert "then 998 changes" in "\n".join(in_lines(found))


def test_the_block_has_a_line_a_part_and_its_columns_stand_under_each_other(scherzo):
    found = in_lines(understand(scherzo))
    table = found[-14:]
    for column in ("instrument", "plays", "can play"):
        at = table[0].index(column)
        assert all(line[at - 1] == " " and line[at] != " " for line in table[1:])


def test_drums_are_told_by_what_they_strike():
    drums = Part("Kit", DRUM_PROGRAM, True, notes_array([(0, 480, 36, 80), (480, 480, 38, 80)]))
    (read,) = understand(Score((drums,))).parts
    assert (read.lowest, read.can_play, read.sounding) == ("-", None, ("Snare Drum",))


def test_all_of_it_is_plain_values(scherzo):
    found = asdict(understand(clip(scherzo, 5000)))
    assert json.loads(json.dumps(found))["parts"][0]["name"] == scherzo.parts[0].name


# refusals


def refused(orchestra, fragment: Score, folder, match: str) -> None:
    """The file is refused with that reason, and nothing lies beside it afterwards."""
    source = folder / "fragment.mid"
    write_score(fragment, source)
    with pytest.raises(FinishError, match=match):
        workflows.finish_score(source, orchestra.folder, folder / "new" / "out.mid", bars=2)
    assert [path.name for path in folder.iterdir()] == ["fragment.mid"]


def test_a_score_of_rests_is_refused(orchestra, scherzo, tmp_path):
    silent = replace(scherzo, parts=tuple(part.with_notes(part.notes[:0]) for part in scherzo.parts))
    refused(orchestra, silent, tmp_path, "no notes, so there is nothing to continue")


def test_an_unknown_drum_map_is_refused(orchestra, data, tmp_path):
    """A real drum part, its keys moved to where no General MIDI drum is."""
    score = read_score(data / "freedoom" / "d_e1m8.mid")
    parts = []
    for part in score.parts:
        notes = part.notes.copy()
        notes["pitch"] = notes["pitch"] % 20 + 90 if part.is_drum else notes["pitch"]
        parts.append(part.with_notes(notes))
    refused(orchestra, replace(score, parts=tuple(parts)), tmp_path, "an unknown drum map, .* General MIDI's 27..87")


def test_a_few_strange_drum_keys_are_no_reason_to_refuse(data):
    score = read_score(data / "freedoom" / "d_e1m8.mid")
    drums = next(part for part in score.parts if part.is_drum and len(part.notes) > 2)
    notes = drums.notes.copy()
    notes["pitch"][0] = 100
    assert understand(Score((drums.with_notes(notes),))).parts[0].notes == len(notes)


def test_more_parts_than_the_vocabulary_holds_are_refused(orchestra):
    note = notes_array([(0, 480, 60, 80)])
    crowd = Score(tuple(Part(f"Part {program}", program, False, note) for program in range(65)))
    with pytest.raises(FinishError, match="65 parts; the vocabulary holds 64"):
        finish(crowd, orchestra.model, orchestra.tokenizer, bars=1, config=SamplingConfig())


def test_as_many_parts_as_the_vocabulary_holds_go_on(orchestra):
    note = notes_array([(i * 480, 480, 60, 80) for i in range(4)])
    band = Score(tuple(Part(f"Part {program}", program, False, note) for program in range(64)))
    assert isinstance(orchestra.tokenizer, BarsTokenizer)
    (take,) = finish(band, orchestra.model, orchestra.tokenizer, bars=1, config=SamplingConfig())
    assert len(take.whole.parts) == 64


# ending by itself


@pytest.mark.parametrize("most", [1, 6])
def test_without_a_number_of_bars_it_ends_within_the_most_that_was_allowed(orchestra, scherzo, most):
    takes = finish(
        scherzo, orchestra.model, orchestra.tokenizer, bars=None, max_bars=most, takes=4, config=SamplingConfig()
    )
    for take in takes:
        assert 9 <= len(take.whole.bars) <= 9 + most
        assert take.whole.length == 1440 * len(take.whole.bars)
        assert np.array_equal(take.whole.bars, 1440 * np.arange(len(take.whole.bars)))


@pytest.mark.parametrize("most", [2, 8])
def test_a_tune_ends_within_the_most_that_was_allowed(tunes, data, most):
    fragment = read_scores(data / "irish" / "tunes.abc", as_written=True)[3]
    fragment = clip(fragment, int(fragment.bars[5]))
    takes = finish(fragment, tunes.model, tunes.tokenizer, bars=None, max_bars=most, takes=3, config=SamplingConfig())
    for take in takes:
        assert len(fragment.bars) <= len(take.whole.bars) <= len(fragment.bars) + most


def test_a_performance_ends_within_the_most_that_was_allowed(data):
    score = read_score(data / "orchestra" / "haydn-104-1.mid")
    violin = next(part for part in score.parts if part.program == 40)
    fragment = clip(replace(score, parts=(violin,)), int(score.bars[20]))
    config = check_config({"tokenizer": {"name": "performance"}, "model": {"dim": 16, "layers": 1}}, "test")
    tokenizer = config.tokenizer.build()
    model = build_model(config, tokenizer)
    for take in finish(fragment, model, tokenizer, bars=None, max_bars=3, takes=2, config=SamplingConfig()):
        assert len(fragment.bars) <= len(take.whole.bars) <= len(fragment.bars) + 3
