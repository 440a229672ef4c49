"""The finish contract, on real scores: the original untouched, an exact seam, the same band, as many bars as asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mido
import numpy as np
import pytest

from musicgen import given, workflows
from musicgen.errors import FinishError, MusicgenError
from musicgen.formats import read_score, write_score
from musicgen.formats.instruments import playing_range
from musicgen.sampling import SamplingConfig, finish, understand
from musicgen.sampling.band import lend_programs, pitch_range
from musicgen.sampling.joining import share_out
from musicgen.sampling.takes import order_of_takes, repetition
from musicgen.score import Metre, Part, Score, clip, notes_array, unfold


def continue_(fragment: Score, loaded, **options):
    options = {"bars": 3, "config": SamplingConfig(), "seen_parts": loaded.corpus["seen"].get("part"), **options}
    return finish(fragment, loaded.model, loaded.tokenizer, **options)


def assert_kept(fragment: Score, take) -> None:
    """Every original note is there, unchanged and in its part; every other note starts at the seam or later."""
    assert take.seam == fragment.length
    assert len(take.whole.parts) == len(fragment.parts)
    for before, after, new in zip(fragment.parts, take.whole.parts, take.new.parts, strict=True):
        assert (before.name, before.program, before.is_drum) == (after.name, after.program, after.is_drum)
        old = after.notes[after.notes["onset"] < fragment.length]
        assert np.array_equal(old, before.notes)
        assert len(after.notes) == len(before.notes) + len(new.notes)
        assert not len(new.notes) or new.notes["onset"].min() >= fragment.length


@pytest.fixture(scope="module")
def scherzo(data) -> Score:
    return read_score(data / "schubert-d759" / "scherzo.musicxml")


def test_the_scherzo_goes_on_exactly_where_it_stops(orchestra, scherzo):
    for take in continue_(scherzo, orchestra, bars=4, takes=3):
        assert_kept(scherzo, take)
        assert len(take.whole.bars) == 9 + 4
        assert take.whole.length == (9 + 4) * 1440
        assert take.whole.metres == scherzo.metres
        assert take.whole.tempos == scherzo.tempos
        assert take.whole.keys == scherzo.keys
        assert take.notes > 0


def test_every_new_note_lies_in_the_range_of_its_instrument(orchestra, scherzo):
    (take,) = continue_(scherzo, orchestra, bars=6)
    for before, new in zip(scherzo.parts, take.new.parts, strict=True):
        low, high = playing_range(before.program)
        low, high = min(low, before.notes["pitch"].min()), max(high, before.notes["pitch"].max())
        assert all(low <= pitch <= high for pitch in new.notes["pitch"].tolist())


def test_of_twelve_parts_of_one_program_none_falls_silent(orchestra, scherzo):
    """The vocabulary holds eight; those after share the eighth's music, each near what it has played."""
    alike = [replace(part, program=48, is_drum=False) for part in scherzo.parts if len(part.notes)]
    fragment = replace(scherzo, parts=tuple(alike))
    assert len(fragment.parts) > 8
    (alone,) = continue_(fragment, orchestra, bars=4, seen_parts=None, only=[9])
    assert [i for i, new in enumerate(alone.new.parts) if len(new.notes)] == [9]
    (take,) = continue_(fragment, orchestra, bars=12, seen_parts=None)
    assert all(len(new.notes) for new in take.new.parts)
    for made in (alone, take):
        assert_kept(fragment, made)
        for before, new in zip(fragment.parts, made.new.parts, strict=True):
            low, high = pitch_range(before)
            assert all(low <= pitch <= high for pitch in new.notes["pitch"].tolist())


def test_what_parts_share_is_dealt_by_pitch_and_doubled_where_one_would_be_silent():
    chord = notes_array([(0, 10, 60, 80), (0, 10, 64, 80), (0, 10, 67, 80), (10, 10, 62, 80)])
    shared = share_out(chord, {5: (55, 75), 6: (55, 75), 7: (55, 75)}, {5, 6, 7})
    assert [part["pitch"].tolist() for part in shared.values()] == [[60, 62], [64], [67]]
    line = chord[-1:]
    shared = share_out(line, {5: (55, 75), 6: (55, 75), 7: (30, 50), 8: (30, 50)}, {5, 6, 7})
    assert {part: notes["pitch"].tolist() for part, notes in shared.items()} == {5: [62], 6: [62], 7: [50], 8: []}


def test_drums_that_share_keep_their_keys():
    kit = notes_array([(0, 10, 36, 80), (0, 10, 41, 80), (0, 10, 46, 80)])
    shared = share_out(kit, {1: (36, 37), 2: (45, 46)}, {1, 2}, drums=True)
    assert {part: notes["pitch"].tolist() for part, notes in shared.items()} == {1: [36], 2: [46]}


def test_a_bar_that_is_half_there_is_filled_and_no_new_note_starts_before_the_seam(orchestra, scherzo):
    """Cut in the middle of bar 5, between two notes of the orchestra."""
    for cut in (4 * 1440 + 480, 4 * 1440 + 613, 5 * 1440 - 1):
        fragment = clip(scherzo, cut)
        (take,) = continue_(fragment, orchestra, bars=2)
        assert_kept(fragment, take)
        assert take.whole.length == 7 * 1440
        assert take.whole.bars.tolist() == [i * 1440 for i in range(7)]


def test_the_same_seed_gives_the_same_music_and_another_seed_other_music(orchestra, scherzo):
    one, same, other = (continue_(scherzo, orchestra, seed=seed)[0] for seed in (1, 1, 2))
    assert one.whole == same.whole
    assert one.whole != other.whole


def test_a_take_does_not_depend_on_how_many_others_are_drawn(orchestra, scherzo):
    alone = continue_(scherzo, orchestra, seed=4)[0]
    among = continue_(scherzo, orchestra, seed=4, takes=3)
    assert any(np.array_equal(alone.new.parts[0].notes, take.new.parts[0].notes) for take in among)


def test_takes_come_best_first(orchestra, scherzo):
    takes = continue_(scherzo, orchestra, takes=4)
    assert order_of_takes([take.figures for take in takes], repetition(scherzo)) == [0, 1, 2, 3]
    assert len({(t.notes, *t.new.parts[0].notes["pitch"].tolist()) for t in takes}) > 1


def test_drums_go_on_with_the_drums_they_have_used(rock, data):
    fragment = read_score(data / "freedoom" / "d_e1m8.mid")
    fragment = clip(fragment, int(fragment.bars[8]))
    assert any(part.is_drum for part in fragment.parts)
    (take,) = continue_(fragment, rock, bars=4)
    assert_kept(fragment, take)
    for before, new in zip(fragment.parts, take.new.parts, strict=True):
        if before.is_drum and len(before.notes):
            low, high = before.notes["pitch"].min(), before.notes["pitch"].max()
            assert all(low <= key <= high for key in new.notes["pitch"].tolist())


def test_a_tune_cut_in_the_middle_of_a_bar_is_finished(tunes, data, tmp_path):
    """ABC in, ABC out: the half-filled bar is filled, then come as many bars as asked."""
    text = "X:1\nT:cut short\nM:6/8\nL:1/8\nK:D\n|:A|dAF DFA|ded cBA|dcd efg|fe"
    source = tmp_path / "cut.abc"
    source.write_text(text)
    fragment = read_score(source, as_written=True)
    (take,) = continue_(fragment, tunes, bars=4)
    assert_kept(fragment, take)
    assert len(take.whole.bars) == len(fragment.bars) + 4
    lengths = take.whole.bar_lengths.tolist()
    assert lengths[: len(fragment.bars)] == [240, 1440, 1440, 1440, 1440]
    target = tmp_path / "finished.abc"
    write_score(take.whole, target)
    again = read_score(target, as_written=True)
    assert np.array_equal(again.parts[0].notes["pitch"], take.whole.parts[0].notes["pitch"])


def test_a_tune_is_finished_by_a_bars_model_too(orchestra, data):
    tune = read_score(data / "irish" / "tunes.abc")
    fragment = clip(tune, int(tune.bars[3]) + 360)
    (take,) = continue_(fragment, orchestra, bars=2)
    assert_kept(fragment, take)


def test_instruments_the_model_never_met_are_lent_the_nearest_it_has(orchestra, scherzo):
    strange = replace(scherzo, parts=tuple(replace(p, program=p.program ^ 1) for p in scherzo.parts))
    (take,) = continue_(strange, orchestra, bars=2)
    assert_kept(strange, take)
    seen = orchestra.corpus["seen"]["part"]
    met = {(value - 2) // 8 for value in seen}
    assert {part.program for part in lend_programs(strange.parts, seen)} <= met


def test_a_part_that_never_played_stays_silent(orchestra, scherzo):
    silent = replace(scherzo, parts=(*scherzo.parts, Part("Tuba", 58)))
    (take,) = continue_(silent, orchestra)
    assert_kept(silent, take)
    assert len(take.new.parts[-1].notes) == 0


def test_a_score_without_notes_is_refused_with_the_reason(orchestra):
    with pytest.raises(FinishError, match="no notes"):
        continue_(Score(parts=(Part("Flute", 73),), length=1920), orchestra)


def test_more_than_one_part_is_refused_by_a_model_of_melodies(tunes, scherzo):
    with pytest.raises(FinishError):
        continue_(scherzo, tunes)


def test_understanding_says_what_was_read(scherzo):
    found = understand(clip(scherzo, 4 * 1440 + 720))
    assert len(found.parts) == 13
    assert (found.metre, found.bars, found.seam) == ("3/4", 5, 4 * 1440 + 720)
    assert found.last_bar_filled == 0.5
    assert found.key == "B minor"


def messages(path) -> list[list[tuple[int, bytes]]]:
    tracks = []
    for track in mido.MidiFile(path, clip=True, charset="latin-1").tracks:
        now, found = 0, []
        for message in track:
            now += message.time
            if message.type != "end_of_track":
                found.append((now, bytes(message.bytes())))
        tracks.append(found)
    return tracks


def assert_original_events(before, after, seam_ticks: int) -> None:
    """Each track's events are all in the continued file, in their order; what was added is at the seam or later."""
    for old, new in zip(messages(before), messages(after), strict=True):
        left = list(new)
        at = 0
        for event in old:
            at = left.index(event, at)
            left.pop(at)
        assert all(tick >= seam_ticks for tick, _ in left)


def test_a_midi_file_is_continued_with_every_original_event_in_place(orchestra, data, tmp_path):
    source, out = data / "schubert-d759" / "scherzo.mid", tmp_path / "finished.mid"
    workflows.finish_score(source, orchestra.folder, out, bars=2)
    assert_original_events(source, out, 12960)
    assert len(read_score(out).bars) == 11


@pytest.mark.slow
@pytest.mark.parametrize("name", ["D759_mvt1_mutopia-lilypond.mid", "D759_mvt3_sequenced-yokota.mid"])
def test_schuberts_own_movements_are_continued_from_midi(orchestra, shared_data, tmp_path, name):
    """22 parts and 477 bars; and a sequencer's file full of controllers and Shift-JIS texts."""
    source, out = shared_data / "schubert-d759-unfinished" / name, tmp_path / "finished.mid"
    fragment = read_score(source)
    report = workflows.finish_score(source, orchestra.folder, out, bars=4)
    (take,) = report.takes
    assert_kept(fragment, take)
    division = mido.MidiFile(source, charset="latin-1").ticks_per_beat
    assert_original_events(source, out, round(fragment.length * division / 480))
    again = read_score(out)
    assert len(again.parts) == len(fragment.parts)
    for before, after in zip(fragment.parts, again.parts, strict=True):
        assert np.array_equal(after.notes[after.notes["onset"] < fragment.length], before.notes)


@pytest.fixture(scope="session")
def first_movement(shared_data) -> tuple[Path, Score]:
    """22 parts and 477 bars as MusicXML, and what is read there; reading them takes music21 five seconds."""
    path = shared_data / "schubert-d759-unfinished" / "D759_mvt1_from-midi.mxl"
    return path, read_score(path)


@pytest.mark.slow
def test_the_first_movement_is_continued_from_musicxml(orchestra, first_movement, tmp_path, monkeypatch):
    source, read = first_movement
    monkeypatch.setattr(given, "read_tunes", {source: [read]}.__getitem__)
    fragment = unfold(read)
    report = workflows.finish_score(source, orchestra.folder, tmp_path / "finished.musicxml", bars=2)
    assert_kept(fragment, report.takes[0])
    assert (tmp_path / "finished.musicxml").stat().st_size > 0


def test_only_the_new_bars_are_written_when_asked(orchestra, data, tmp_path):
    out = tmp_path / "new.mid"
    workflows.finish_score(data / "schubert-d759" / "scherzo.mid", orchestra.folder, out, bars=2, new_only=True)
    assert read_score(out).length <= 2 * 1440


def test_all_takes_are_kept(orchestra, data, tmp_path):
    source = data / "schubert-d759" / "scherzo.mid"
    report = workflows.finish_score(source, orchestra.folder, tmp_path / "f.mid", bars=1, takes=3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f-take2.mid", "f-take3.mid", "f.mid", "f.mid.report.md"]
    assert len(report.files) == 3


def test_the_original_is_never_written_over_by_any_of_the_files(orchestra, data, tmp_path):
    scherzo = (data / "schubert-d759" / "scherzo.mid").read_bytes()
    for name in ("x.mid", "x-take2.mid", "01.mid"):
        (tmp_path / name).write_bytes(scherzo)
    with pytest.raises(MusicgenError, match="it is the original"):
        workflows.finish_score(tmp_path / "x.mid", orchestra.folder, tmp_path / "x.mid")
    with pytest.raises(MusicgenError, match="it is the original"):
        workflows.finish_score(tmp_path / "x-take2.mid", orchestra.folder, tmp_path / "x.mid", takes=2)
    with pytest.raises(MusicgenError, match="it is the original"):
        workflows.sample_pieces(orchestra.folder, tmp_path, count=1, bars=11, prime=tmp_path / "01.mid")
    assert {path.read_bytes() for path in tmp_path.iterdir()} == {scherzo}


def test_a_file_of_several_tunes_is_refused(tunes, data, tmp_path):
    with pytest.raises(FinishError, match="holds 60 tunes"):
        workflows.finish_score(data / "irish" / "tunes.abc", tunes.folder, tmp_path / "x.abc")


def test_a_metre_longer_than_the_vocabulary_holds_is_refused(orchestra):
    long = Score(parts=(Part("Flute", 73, False, notes_array([(0, 480, 60, 80)])),), metres=(Metre(0, 12, 4),))
    with pytest.raises(FinishError, match="12 quarters"):
        continue_(long, orchestra)


def test_bars_that_lie_off_the_grid_go_on_where_they_are(orchestra):
    """4/4, then 3/4 from an odd tick on: the new bars follow the fragment's own, and none is added or lost."""
    notes = notes_array([(i * 480, 480, 60 + i % 5, 80) for i in range(18)])
    fragment = Score(
        parts=(Part("Flute", 73, False, notes),),
        metres=(Metre(0, 4, 4), Metre(5771, 3, 4)),
        bars=np.array([0, 1920, 3840, 5771, 7211]),
        length=8640,
    )
    (take,) = continue_(fragment, orchestra, bars=3)
    assert_kept(fragment, take)
    assert take.whole.bars.tolist() == [0, 1920, 3840, 5771, 7211, 8651, 10091, 11531]
    assert take.whole.length == 12971


@pytest.mark.parametrize(("stop", "bars"), [(1925, 1), (1900, 1), (1860, 1), (1981, 2), (1500, 1)])
def test_a_last_note_let_go_near_the_barline_neither_opens_a_bar_nor_leaves_a_gap(orchestra, stop, bars):
    """Played music: within a 32nd note, the bar counts as full; new notes still wait for the last one to stop."""
    fragment = Score(parts=(Part("Flute", 73, False, notes_array([(0, 960, 60, 80), (960, stop - 960, 64, 80)])),))
    found = understand(fragment)
    assert found.bars == bars
    assert found.seam == stop
    for seed in range(3):
        (take,) = continue_(fragment, orchestra, bars=2, seed=seed)
        assert_kept(fragment, take)
        assert len(take.whole.bars) == bars + 2
        assert take.whole.length == (bars + 2) * 1920
        if stop in (1925, 1900, 1860):
            onsets = take.new.parts[0].notes["onset"]
            assert all(onset >= max(1920, stop) for onset in onsets.tolist())


def test_a_note_struck_across_the_seam_does_not_hang(orchestra):
    notes = notes_array([(0, 480, 60, 80), (480, 960, 64, 80)])
    fragment = Score(parts=(Part("Flute", 73, False, notes),))
    (take,) = continue_(fragment, orchestra, bars=2)
    assert take.whole.length == 3 * 1920
    assert all(part.end <= take.whole.length for part in take.whole.parts)
