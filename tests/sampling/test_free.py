"""Metre, tempo and key that may change: what is drawn of them stands in the file, and bars add up all the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from musicgen import workflows
from musicgen.checkpoint import build_model
from musicgen.config import check_config
from musicgen.errors import FinishError
from musicgen.formats import read_score, read_scores, write_score
from musicgen.formats.continuation import check_continuation, write_continuation
from musicgen.formats.midi_events import read_tracks
from musicgen.sampling import SamplingConfig, finish
from musicgen.sampling.finish import Take, make_prompt
from musicgen.sampling.joining import join_up
from musicgen.sampling.recalled import RecalledBars
from musicgen.score import Key, Metre, Score, Tempo, clip, unfold
from musicgen.tokens import TOKENIZERS

BARS = 6
CONFIG = SamplingConfig()


def untrained(name: str):
    torch.manual_seed(5)
    values = {"model": {"dim": 16, "layers": 1}, "tokenizer": {"name": name}}
    return build_model(check_config(values, "test"), TOKENIZERS[name]()).eval()


@pytest.fixture(scope="module")
def model():
    return untrained("bars")


def in_place(original: Path, model, out: Path, seed: int = 0, name: str = "bars") -> tuple[Score, Take]:
    """(what a file of the original's own format is read as, what was to be written)"""
    written = read_score(original, as_written=True)
    fragment = written if name == "abc" else unfold(written)
    check_continuation(original, written, fragment)
    tokenizer = TOKENIZERS[name]()
    take = finish(fragment, model, tokenizer, bars=BARS, seed=seed, config=CONFIG, free=True)[0]
    write_continuation(original, fragment, take.whole, out)
    return read_score(out, as_written=name == "abc"), take


def course(score: Score) -> tuple:
    """Bars, metres, keys and tempi to a tenth."""
    tempos = [(tempo.onset, round(tempo.bpm, 1)) for tempo in score.tempos]
    return score.bars.tolist(), score.metres, score.keys, tempos


def changes(score: Score, seam: int) -> int:
    events = (*score.metres, *score.keys, *score.tempos)
    return sum(event.onset >= seam for event in events)


@pytest.mark.parametrize("suffix", [".mid", ".musicxml"])
@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_drawn_stands_in_the_file(model, data, tmp_path, suffix, seed):
    back, take = in_place(data / "schubert-d759" / f"scherzo{suffix}", model, tmp_path / f"out{suffix}", seed)
    assert changes(take.whole, take.seam) > 0
    assert course(back) == course(take.whole)
    assert len(back.bars) == 9 + BARS


@pytest.mark.parametrize("name", ["schubert-das-wandern-d795-1.mxl", "schubert-wandrers-nachtlied-d768.mxl"])
def test_what_is_drawn_after_a_song_stands_in_its_file(model, data, tmp_path, name):
    back, take = in_place(data / "songs" / name, model, tmp_path / "out.mxl")
    assert changes(take.whole, take.seam) > 0
    assert course(back) == course(take.whole)


@pytest.mark.parametrize("suffix", [".mid", ".musicxml"])
def test_a_half_filled_bar_keeps_its_metre(model, data, tmp_path, suffix):
    whole = read_score(data / "schubert-d759" / "scherzo.mid")
    original = tmp_path / f"cut{suffix}"
    write_score(clip(whole, int(whole.bars[5]) + 480), original)
    back, take = in_place(original, model, tmp_path / f"out{suffix}")
    assert back.bars.tolist()[:7] == whole.bars.tolist()[:7]
    assert course(back) == course(take.whole)


def test_every_event_of_the_original_stays(model, data, tmp_path):
    original = data / "schubert-d759" / "scherzo.mid"
    in_place(original, model, tmp_path / "out.mid")
    for old, new in zip(read_tracks(original)[1], read_tracks(tmp_path / "out.mid")[1], strict=True):
        rest = iter([(e.tick, e.data) for e in new])
        assert all((e.tick, e.data) in rest for e in old)


def test_a_tune_that_changes_goes_on_in_its_own_abc(tmp_path):
    """By a model of ABC, whose metre and key may change after a double bar; an untrained one does so before long."""
    original = tmp_path / "tune.abc"
    original.write_text("X:1\nT:t\nM:4/4\nL:1/16\nK:D\nd4d2B2 A2B2A2F2|d4d2B2 A4F2E2|d2B2A2F2 E4D4||\n")
    model, changed = untrained("abc"), 0
    for seed in range(4):
        back, take = in_place(original, model, tmp_path / "out.abc", seed, "abc")
        assert (tmp_path / "out.abc").read_text().startswith(original.read_text())
        assert back.bars.tolist() == take.whole.bars.tolist()
        assert (back.metres, back.keys) == (take.whole.metres, take.whole.keys)
        assert back.parts[0].notes["pitch"].tolist() == take.whole.parts[0].notes["pitch"].tolist()
        changed += changes(take.whole, take.seam)
    assert changed


def test_voices_of_a_grid_may_change_their_metre(data):
    tunes = (unfold(tune) for tune in read_scores(data / "irish" / "tunes.abc"))
    tune = clip(next(t for t in tunes if not t.pickup and not (t.parts[0].notes["onset"] % 120).any()), 8 * 1440)
    fragment = replace(tune, parts=tune.parts * 4)
    one = untrained("grid")
    takes = finish(fragment, one, TOKENIZERS["grid"](), bars=BARS, takes=4, seed=1, config=CONFIG, free=True)
    assert sum(changes(take.whole, take.seam) for take in takes) > 0
    for take in takes:
        new = take.whole.bars[len(fragment.bars) :].tolist()
        assert len(new) == BARS
        assert take.whole.bar_lengths[-BARS:].tolist() == [take.whole.metre_at(start).ticks for start in new]


def test_unless_they_are_free_nothing_changes(model, data):
    fragment = read_score(data / "schubert-d759" / "scherzo.mid")
    (take,) = finish(fragment, model, TOKENIZERS["bars"](), bars=BARS, seed=0, config=CONFIG)
    assert (take.whole.metres, take.whole.keys) == (fragment.metres, fragment.keys)
    assert list(take.whole.tempos) == list(fragment.tempos)


def test_changes_inside_a_bar_hold_from_the_next_one_and_what_goes_on_is_not_said_again(data):
    """But for the tempo, which may change anywhere; a step of the vocabulary's less than 3% is none."""
    fragment = read_score(data / "schubert-d759" / "scherzo.mid")
    seam, bpm = fragment.length, fragment.tempo_at(fragment.length).bpm
    bars = [*fragment.bars.tolist(), seam, seam + 1440]
    none = [part.notes[:0] for part in fragment.parts]
    said = (
        [Metre(seam, 3, 4), Metre(seam + 10, 2, 4)],
        [Key(seam, 2, "minor"), Key(seam + 480, -1, "major"), Key(seam + 1441, 3, "major")],
        [Tempo(seam, bpm * 1.02), Tempo(seam + 480, bpm * 1.2)],
    )
    whole, _ = join_up(fragment, none, np.array(bars, dtype=np.int32), seam + 2400, (), said)
    assert whole.metres[len(fragment.metres) :] == (Metre(seam + 1440, 2, 4),)
    assert whole.keys[len(fragment.keys) :] == (Key(seam + 1440, -1, "major"),)
    assert list(whole.tempos)[len(fragment.tempos) :] == [Tempo(seam + 480, bpm * 1.2)]


# what can't be done is said


def test_a_model_of_clock_time_says_that_it_writes_none_of_them(data):
    fragment = read_score(data / "schubert-d759" / "scherzo.mid")
    one = Score(parts=(fragment.parts[-1],), bars=fragment.bars, length=fragment.length)
    with pytest.raises(FinishError, match="--free: a `performance` model writes no metre"):
        make_prompt(one, TOKENIZERS["performance"](), free=True)


def test_a_model_of_characters_says_so_too(data):
    tune = read_scores(data / "irish" / "tunes.abc")[0]
    with pytest.raises(FinishError, match="--free: a model of characters"):
        make_prompt(tune, TOKENIZERS["abc"](characters=True), free=True)


def test_bars_are_not_brought_back_into_a_metre_that_nobody_knows(model, data):
    fragment = read_score(data / "schubert-d759" / "scherzo.mid")
    with pytest.raises(FinishError, match="leave out --free"):
        finish(
            fragment,
            model,
            TOKENIZERS["bars"](),
            bars=BARS,
            config=CONFIG,
            free=True,
            recalled=[RecalledBars(1, 2, 2)],
        )


@pytest.mark.parametrize("orchestra", ["lstm"], indirect=True)
def test_the_report_says_that_they_were_free(orchestra, data, tmp_path):
    original = data / "schubert-d759" / "scherzo.mid"
    report = workflows.finish_score(original, orchestra.folder, tmp_path / "a.mid", bars=3, free=True)
    assert "metre, tempo and key were free to change" in report.page.read_text()
    assert course(read_score(report.files[0])) == course(report.takes[0].whole)
