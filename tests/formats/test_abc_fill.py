"""Filling bars of an ABC tune: the rest of its text stays, byte for byte, and it is read as the whole."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from musicgen.errors import FormatError
from musicgen.formats import read_score
from musicgen.formats.abc_fill import filled
from musicgen.formats.abc_read import read_text
from musicgen.formats.abc_text import decode_text
from musicgen.formats.filling import check_adding, check_filling, write_filled, write_with_parts
from musicgen.score import Part, Score, notes_array

TUNES = (Path(__file__).resolve().parents[2] / "data" / "irish" / "tunes.abc").read_text(encoding="latin-1")
SOME = TUNES.strip().split("\n\n")[:12]
COMMENT = "% musicgen: bars 2 to 3 were written anew\n"
needs_abc2midi = pytest.mark.skipif(shutil.which("abc2midi") is None, reason="abc2midi is not installed")


def tune(music: str, header: str = "M:4/4\nL:1/8\nK:G\n") -> str:
    return f"X:1\nT:Trial\n{header}{music}\n"


def notes_of(score: Score) -> list[Counter]:
    return [Counter(part.notes[["onset", "duration", "pitch"]].tolist()) for part in score.parts]


def with_new(text: str, new: list[tuple[int, int, int]], first: int = 1, until: int = 3) -> str:
    """The tune with these notes, (onset, duration, pitch), in bars first..until-1."""
    score = read_text(text)[0]
    part, start, stop = score.parts[0], int(score.bars[first]), int(score.bars[until])
    kept = part.notes[(part.notes["onset"] < start) | (part.notes["onset"] >= stop)]
    notes = np.concatenate([kept, notes_array((*n, 80) for n in new)])
    graces = part.graces[(part.graces["onset"] < start) | (part.graces["onset"] >= stop)]
    whole = replace(score, parts=(replace(part, notes=notes, graces=graces), *score.parts[1:]))
    return filled(text.encode(), "trial.abc", score, whole, first, until).decode()


SCALE = [(1920 + 480 * i, 480, 67 + pitch) for i, pitch in enumerate((0, 2, 4, 5, 7, 9, 11, 12))]


@pytest.mark.parametrize("text", SOME, ids=[text.split("\n")[1][2:] for text in SOME])
def test_a_filled_tune_is_read_as_the_whole(text: str, tmp_path: Path, pasted, as_read) -> None:
    original, out = tmp_path / "a.abc", tmp_path / "out.abc"
    original.write_text(text + "\n", encoding="latin-1")
    score = read_score(original, as_written=True)
    for first, until, source in ((0, 2, 6), (3, 7, 9), (len(score.bars) - 2, len(score.bars), 2)):
        whole = pasted(score, first, until, source)
        check_filling(original, score, first, until)
        write_filled(original, score, whole, first, until, out)
        assert notes_of(read_score(out, as_written=True)) == as_read(score, whole, first, until)


def test_everything_outside_the_bars_stays() -> None:
    text = tune('|:"G"~G2 (BG) dGBd|gfed cBAG|[1 ABcd edc!fermata!B|\\\n  c2 e2 g4:|[2 G8|]\nw:la la\n% and so on')
    made = with_new(text, SCALE)
    assert COMMENT in made
    assert made.replace(COMMENT, "") == text.replace("gfed cBAG", "G2A2 B2c2").replace(
        "ABcd edc!fermata!B", "d2e2 f2g2"
    )


def test_bars_are_written_in_the_key_and_unit_that_hold_there() -> None:
    text = tune("G2B2 d4|g8|[K:F][L:1/4]F4|c4|]", header="M:4/4\nL:1/8\nK:G\n")
    made = with_new(text, [(1920, 1920, 66), (3840, 480, 70), (4320, 1440, 71)])
    assert "|F8|[K:F][L:1/4]B=B3|c4|]" in made


def test_accidentals_of_a_pipes_key_are_written_out() -> None:
    text = tune("d2f2 d4|A8|A8|A8|]", header="M:4/4\nL:1/8\nK:Amix ^c _b\n")
    again = read_text(with_new(text, [(1920, 960, 70), (2880, 960, 71), (3840, 1920, 73)]))[0]
    assert again.parts[0].notes["pitch"].tolist()[3:6] == [70, 71, 73]


def test_a_note_tied_into_the_bars_is_held_in_them() -> None:
    made = with_new(tune("G4 A4-|A2B2 c4|d8|e8|]"), [(2400, 1440, 72), (3840, 1920, 74)])
    assert "|A2c6|d8|e8|]" in made
    assert (960, 1440, 69) in notes_of(read_text(made)[0])[0]


def test_a_slur_over_the_edges_keeps_both_ends() -> None:
    made = with_new(tune("G4 (A4|c4) d4|d4 (e4|e4) g4|]"), SCALE)
    assert "(A4|G2)A2 B2c2|d2e2 f2(g2|e4) g4|]" in made


def test_a_rest_of_several_bars_is_parted() -> None:
    assert "|Z|G2A2 B2c2|d2e2 f2g2|Z|g8|]" in with_new(
        tune("G8|Z4|g8|]"), [(on + 1920, d, p) for on, d, p in SCALE], 2, 4
    )


def test_one_voice_of_several_is_filled_and_the_other_stays() -> None:
    text = tune("V:1\nG8|A8|B8|c8|]\nV:2\nG,8|A,8|B,8|C8|]")
    made = with_new(text, SCALE)
    assert made == text.replace("V:1\n", f"V:1\n{COMMENT}").replace("|A8|B8|", "|G2A2 B2c2|d2e2 f2g2|")


def test_a_file_in_another_encoding_with_other_line_ends_stays_in_it() -> None:
    text = tune("G8|A8|B8|c8|]").replace("Trial", "Mál").replace("\n", "\r\n")
    data = text.encode("latin-1")
    score = read_text(decode_text(data))[0]
    kept = score.parts[0].notes[[0, 3]]
    made = filled(data, "a.abc", score, replace(score, parts=(score.parts[0].with_notes(kept),)), 1, 3)
    assert made.decode("latin-1").replace(COMMENT.replace("\n", "\r\n"), "") == text.replace("A8|B8", "z8|z8")


def test_a_key_between_the_notes_of_a_bar_is_refused() -> None:
    with pytest.raises(FormatError, match=r"trial.abc:6: \[K:F\] stands between the notes of a bar"):
        with_new(tune("G8|A4[K:F]A4|B8|c8|]"), SCALE)


def test_a_tie_out_of_the_bars_that_carries_an_accidental_is_refused() -> None:
    with pytest.raises(FormatError, match="bars 2 to 3 can't be written in its own text"):
        with_new(tune("G8|A8|^c8-|c8|]"), SCALE)


# --- voices behind the others -----------------------------------------------------------------------------------------


def with_cello(score: Score) -> Score:
    notes = score.parts[0].notes.copy()
    notes["pitch"] -= 12
    snare = notes_array((int(bar), 120, 38, 80) for bar in score.bars)
    return replace(score, parts=(*score.parts, Part("Cello", 42, False, notes), Part("Kit", 0, True, snare)))


@pytest.mark.parametrize("text", SOME[:6], ids=[text.split("\n")[1][2:] for text in SOME[:6]])
def test_added_voices_are_read_behind_the_tune_which_stays(text: str, tmp_path: Path) -> None:
    original, out = tmp_path / "a.abc", tmp_path / "out.abc"
    original.write_text(text + "\n", encoding="latin-1")
    score = read_score(original, as_written=True)
    check_adding(original, score)
    write_with_parts(original, score, with_cello(score), out)
    again = read_score(out, as_written=True)
    assert notes_of(again) == notes_of(with_cello(score))
    assert [(p.name, p.program, p.is_drum) for p in again.parts[1:]] == [("Cello", 42, False), ("Kit", 0, True)]
    lines = iter(out.read_text(encoding="latin-1").split("\n"))
    assert all(any(line == other for other in lines) for line in original.read_text(encoding="latin-1").split("\n"))


@needs_abc2midi
def test_abc2midi_plays_what_was_added(tmp_path: Path) -> None:
    original, out, midi = tmp_path / "a.abc", tmp_path / "out.abc", tmp_path / "out.mid"
    original.write_text(tune("GABc d2e2|g4 f4|edcB A4|G8|]"))
    score = read_score(original, as_written=True)
    whole = replace(score, parts=with_cello(score).parts[:2])
    write_with_parts(original, score, whole, out)
    subprocess.run(["abc2midi", out, "-o", midi], check=True, capture_output=True)
    heard, meant = (
        [Counter((onset // 10, pitch) for onset, pitch in part.notes[["onset", "pitch"]].tolist()) for part in s.parts]
        for s in (read_score(midi), whole)
    )
    assert heard == meant  # but for a tick by which abc2midi is late
