"""The music that comes with the program: each file accounted for, each score read, the scherzo what it says it is."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from musicgen.formats import read_score, read_scores
from musicgen.formats.files import READERS
from musicgen.score import Key, Metre, Score

DATA = Path(__file__).parent.parent / "data"
FILES = sorted(p for p in DATA.rglob("*") if p.is_file() and "__pycache__" not in p.parts and p.name != ".DS_Store")
SCORES = [p for p in FILES if p.suffix in READERS]
ORCHESTRA = [p for p in SCORES if p.parent.name == "orchestra"]
SCHERZO = DATA / "schubert-d759"
BAR = 3 * 480


def name_of(path: Path) -> str:
    return path.relative_to(DATA).as_posix()


@cache
def read(path: Path) -> Score:
    return read_score(path)


@cache
def encoding() -> ModuleType:
    spec = importlib.util.spec_from_file_location("encode", SCHERZO / "encode.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# the collection


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_every_bundled_file_is_named_in_the_readme(path):
    assert path == DATA / "README.md" or f"`{name_of(path)}`" in (DATA / "README.md").read_text(encoding="utf-8")


def test_the_bundled_music_stays_under_five_megabytes():
    assert sum(p.stat().st_size for p in FILES) < 5_000_000


@pytest.mark.parametrize("path", SCORES, ids=name_of)
def test_every_bundled_score_is_read_and_has_notes(path):
    scores = read_scores(path)
    assert scores
    assert all(score.note_count > 0 for score in scores)


def test_the_scores_use_every_kind_of_file_that_is_read():
    modules = {READERS[p.suffix] for p in SCORES}
    assert modules == set(READERS.values())
    assert {".mid", ".abc", ".musicxml", ".mxl", ".krn"} <= {p.suffix for p in SCORES}


def test_sixty_irish_tunes_are_read_in_six_metres_and_many_keys():
    tunes = read_scores(DATA / "irish" / "tunes.abc")
    assert len(tunes) == 60
    assert len({tune.title for tune in tunes}) == 60
    assert {(t.metres[0].numerator, t.metres[0].denominator) for t in tunes} == {
        (4, 4),
        (2, 2),
        (2, 4),
        (3, 4),
        (6, 8),
        (9, 8),
    }
    assert len({(t.keys[0].fifths, t.keys[0].mode) for t in tunes}) >= 12


@pytest.mark.parametrize("path", ORCHESTRA, ids=name_of)
def test_an_orchestral_movement_has_named_parts_of_orchestral_instruments(path):
    score = read(path)
    assert len(score.parts) >= 9
    assert all(part.name and not part.is_drum for part in score.parts)
    assert {40, 41, 42, 43} <= {part.program for part in score.parts}


@pytest.mark.parametrize("path", ORCHESTRA, ids=name_of)
def test_no_string_part_of_an_orchestral_movement_goes_below_its_lowest_string(path):
    lowest = {40: 55, 41: 48, 42: 36, 43: 24}  # violin, viola, cello; a double bass down to a fifth string's C
    for part in read(path).parts:
        if part.program in lowest:
            assert part.notes["pitch"].min() >= lowest[part.program], part.name


def test_game_music_has_drums_on_a_drum_part():
    for path in SCORES:
        if path.parent.name == "freedoom":
            assert any(part.is_drum for part in read(path).parts), path.name


def test_the_kern_tune_has_a_pickup_and_notes_tied_over_the_bar():
    score = read(DATA / "kern" / "new-britain.krn")
    assert score.pickup == 480
    assert len(score.bars) == 17
    melody = max(score.parts, key=lambda part: part.notes["pitch"].mean()).notes
    assert (melody["duration"] == 5 * 480).sum() == 2


# the scherzo


@pytest.mark.parametrize("name", ["scherzo.musicxml", "scherzo.mid"])
def test_the_scherzo_has_thirteen_parts_and_nine_bars_of_three_four_in_b_minor(name):
    score = read(SCHERZO / name)
    assert len(score.parts) == 13
    assert score.note_count == 198
    assert score.metres == (Metre(0, 3, 4),)
    assert score.keys == (Key(0, 2, "minor"),)
    assert score.bars.tolist() == [BAR * i for i in range(9)]
    assert score.length == 9 * BAR
    assert score.pickup == 0


def test_the_scherzo_has_the_same_music_as_musicxml_and_as_midi():
    sheet, played = read(SCHERZO / "scherzo.musicxml"), read(SCHERZO / "scherzo.mid")
    assert sheet.title == played.title
    assert sheet.tempos == pytest.approx(played.tempos)
    for ours, theirs in zip(sheet.parts, played.parts, strict=True):
        assert (ours.name, ours.program) == (theirs.name, theirs.program)
        for field in ("onset", "duration", "pitch"):
            assert np.array_equal(ours.notes[field], theirs.notes[field]), (ours.name, field)


def test_the_scherzo_as_midi_is_the_score_that_was_encoded():
    assert read(SCHERZO / "scherzo.mid") == encoding().scherzo()


def test_the_scherzo_opens_in_unison():
    for part in read(SCHERZO / "scherzo.mid").parts:
        assert set(part.notes["pitch"][part.notes["onset"] == 0] % 12) == {11}, part.name


def test_encoding_the_scherzo_again_gives_the_same_bytes(tmp_path):
    encoding().main(tmp_path)
    for name in ("scherzo.musicxml", "scherzo.mid"):
        assert (tmp_path / name).read_bytes() == (SCHERZO / name).read_bytes()
