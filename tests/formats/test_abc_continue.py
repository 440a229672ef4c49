"""Continuing an ABC file in place: its text stays, byte for byte, and with new lines after it, it is the whole."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from musicgen.errors import FormatError
from musicgen.formats.abc import decode_text, read_text, to_text
from musicgen.formats.abc_continue import check_continuation, continued
from musicgen.formats.abc_text import split_tunes
from musicgen.score import Score, notes_array, unfold

TUNES = Path(__file__).resolve().parents[2] / "data" / "irish" / "tunes.abc"
needs_abc2midi = pytest.mark.skipif(shutil.which("abc2midi") is None, reason="abc2midi is not installed")


def with_new(fragment: Score, bars: int = 4, seed: int = 0) -> Score:
    """The fragment, its last bar filled and so many bars more of notes, rests, chords and triplets in each part."""
    generator = np.random.default_rng(seed)
    seam, last = fragment.length, int(fragment.bars[-1])
    bar = fragment.metre_at(last).ticks
    filled = max(last + bar, seam)
    end = filled + bars * bar
    parts = []
    for part in fragment.parts:
        at, new = seam, []
        while at < end:
            length = min(int(generator.choice([60, 80, 120, 160, 240, 240, 480, 720])), end - at)
            pitches = generator.integers(62, 80, size=generator.integers(0, 3))
            new += [(at, length, int(pitch), 80) for pitch in set(pitches.tolist())]
            at += length
        parts.append(part.with_notes(np.concatenate([part.notes, notes_array(new)])))
    starts = np.unique(np.concatenate([fragment.bars, np.arange(filled, end, bar)])).astype(np.int32)
    return replace(fragment, parts=tuple(parts), bars=starts, length=end)


def with_notes(fragment: Score, *new: list[tuple[int, int, int]]) -> Score:
    """The fragment, its last bar filled and one more, with (onset, duration, pitch) more in each part."""
    whole = with_new(fragment, bars=1)
    parts = [
        part.with_notes(np.concatenate([part.notes, notes_array([(*n, 80) for n in notes])]))
        for part, notes in zip(fragment.parts, new, strict=True)
    ]
    return replace(whole, parts=tuple(parts))


def notes_of(score: Score) -> list[list[tuple[int, int, int]]]:
    return [sorted(part.notes[["onset", "duration", "pitch"]].tolist()) for part in score.parts]


def check(text: str, *, as_written: bool = False, seed: int = 0) -> str:
    """The tune goes on, and is read as the whole; returns the text that was put in."""
    fragment = read_text(text)[0]
    if not as_written:
        fragment = unfold(fragment)
    whole = with_new(fragment, seed=seed)
    out = continued(text.encode(), "tune", fragment, whole)
    assert out.startswith(text.encode())
    back = read_text(out.decode())[0]
    back = back if as_written else unfold(back)
    assert notes_of(back) == notes_of(whole)
    assert back.length == whole.length
    return out.decode()[len(text) :]


def tune(body: str, key: str = "G", unit: str = "1/8", more: str = "") -> str:
    return f"X:1\nT:a tune\nM:4/4\nL:{unit}\n{more}K:{key}\n{body}"


def cuts() -> list[str]:
    """The bundled tunes, each broken off after a note or a barline somewhere in a line of music."""
    generator = np.random.default_rng(5)
    found = []
    for _, lines in split_tunes(decode_text(TUNES.read_bytes()))[1]:
        music = [n for n, line in enumerate(lines) if "|" in line and not re.match(r"[A-Za-z]:|%", line)]
        number = int(generator.choice(music))
        places = [m.end() for m in re.finditer(r"[A-Ga-g][,']*\d?(?=[A-Ga-g\s|])|\|", lines[number])]
        text = "\n".join([*lines[:number], lines[number][: int(generator.choice(places))]])
        found.append(text + "\n" * int(generator.integers(2)))
    return found


@pytest.mark.parametrize("as_written", [False, True], ids=["played out", "as written"])
def test_irish_tunes_broken_off_anywhere_go_on(as_written):
    refused = []
    for seed, text in enumerate(cuts()):
        try:
            check(text, as_written=as_written, seed=seed)
        except FormatError as error:
            refused.append(str(error))
    assert len(refused) < 4
    assert all("tuplet" in reason for reason in refused)


@needs_abc2midi
def test_abc2midi_reads_what_goes_on_without_a_new_error(tmp_path):
    def errors(text: str) -> int:
        path = tmp_path / "tune.abc"
        path.write_text(text)
        said = subprocess.run(["abc2midi", str(path), "-o", str(tmp_path / "o.mid")], capture_output=True, text=True)
        return said.stdout.count("Error")

    for seed, text in enumerate(cuts()[:25]):
        try:
            assert errors(text + check(text, seed=seed)) <= errors(text)
        except FormatError:
            continue


def test_a_bar_without_a_barline_is_gone_on_with():
    fragment = read_text(tune("GABc d2e2 | gfed"))[0]
    whole = with_notes(fragment, [(2880, 960, 67), (3840, 1920, 79)])
    out = continued(tune("GABc d2e2 | gfed").encode(), "tune", fragment, whole).decode()
    assert out.endswith('gfed\n% continued from here\n"^continued"G4 | g8 |\n')
    assert read_text(out)[0].bars.tolist() == [0, 1920, 3840]


def test_a_full_bar_without_a_barline_gets_one():
    added = check(tune("GABc d2e2 | gfed cBAG"))
    assert added.split("\n")[2].startswith("| ")


@pytest.mark.parametrize("end", ["|]", ":|", "||", "|"])
def test_a_barline_at_the_end_stays_and_the_new_line_follows_it(end):
    check(tune(f"|: GABc d2e2 | gfed c2B2 {end}\n"))
    check(tune(f"|: GABc d2e2 | gfed c2B2 {end}\n"), as_written=True)


@pytest.mark.parametrize("unit", ["1/16", "1/4", "1/8", "1/2", "1/12"])
def test_lengths_are_in_the_unit_in_force(unit):
    added = check(tune("G4 A4 | B2", unit=unit))
    assert "L:" not in added


def test_accidentals_before_the_seam_hold_to_the_barline_and_no_further():
    text = tune("G2 ^G2 =F2")
    fragment = read_text(text)[0]
    new = [(1440, 240, 67), (1680, 240, 66), (1920, 480, 67), (2400, 480, 66)]  # G natural, F sharp; again
    out = continued(text.encode(), "tune", fragment, with_notes(fragment, new)).decode()
    assert '"^continued"=G^F | G2F2' in out
    assert notes_of(read_text(out)[0])[0][-4:] == new


@pytest.mark.parametrize(
    "key", ["Bb", "F#m", "Ddor", "D exp ^f ^g", "Amix ^g", "HP", "none", "C clef=treble-8", "G octave=-1"]
)
def test_every_kind_of_key_is_gone_on_in(key):
    for seed in range(4):
        check(tune("G2 ^A2 =F2 e2 | f4 ", key=key), seed=seed)


def test_a_change_of_key_metre_and_unit_inside_the_tune_is_what_holds():
    check(tune("G8 | [M:6/8] [K:Eb] [L:1/16] G2A2B2 c4B2 | A6 "))
    check(tune("G8 |\nM:3/4\nK:Eb\nL:1/4\nG A B | c"))


def test_words_decorations_and_comments_stay():
    text = tune('{ag}.G!trill!A "Am"B~c (d2e2) | g2 % a comment\nw: one two three four five\nW: a verse\n% the end\n')
    assert check(text).startswith("% continued from here\n")


def test_text_after_the_tune_stays_after_it():
    text = tune("GABc d2e2 |\n")
    after = "\nThis is from a book.\n"
    fragment = read_text(text)[0]
    out = continued((text + after).encode(), "tune", fragment, with_new(fragment)).decode()
    assert out.startswith(text)
    assert out.endswith(after)
    assert len(read_text(out)) == 1


def test_a_file_in_latin_1_with_windows_line_ends_stays_so():
    data = tune("GABc d2e2 |\n").replace("a tune", "Ó Cáin").replace("\n", "\r\n").encode("latin-1")
    fragment = read_text(decode_text(data))[0]
    out = continued(data, "tune", fragment, with_new(fragment))
    assert out.startswith(data)
    assert out.count(b"\n") == out.count(b"\r\n")
    assert read_text(decode_text(out))[0].title == "Ó Cáin"


def test_a_note_tied_on_into_nothing_is_held():
    text = tune("G4 B4-")
    fragment = read_text(text)[0]
    out = continued(text.encode(), "tune", fragment, with_notes(fragment, [(1920, 960, 71), (2880, 960, 71)])).decode()
    assert notes_of(read_text(out)[0]) == [[(0, 960, 67), (960, 1920, 71), (2880, 960, 71)]]


CHORALE = """X:1
T:two voices and a third
M:4/4
L:1/4
V:S name="Soprano"
V:A name="Alto" octave=-1
V:B clef=bass
K:F
[V:S] F G A B | c2 A2 | G
[V:A] c c c d | c2 c2 | c
V:B
F, E, F, D, | C,2 F,2 | {}
"""


@pytest.mark.parametrize("bass", ["C,", "", "C, D, E, C, |", "C, D,"], ids=["level", "short", "long", "longer"])
def test_each_voice_goes_on_under_its_own_field(bass):
    added = check(CHORALE.format(bass))
    assert [line for line in added.split("\n") if line.startswith("V:")] == ["V:S", "V:A", "V:B"]


def test_chorales_whose_voices_stand_one_after_the_other_go_on():
    from music21 import corpus

    from musicgen.formats.musicxml import from_music21

    text = to_text(from_music21(corpus.parse("bwv253")))
    check(text)
    check(text[: text.rindex("|", 0, -40) - 3])


@pytest.mark.parametrize(
    "body",
    [
        "GABc d2e2 | (3GA",
        "GABc d2e2 | G>",
        "G8 !fine!| A8 !D.C.alfine!|",
    ],
    ids=["a tuplet", "a broken rhythm", "a da capo al fine"],
)
def test_what_cannot_go_on_in_its_own_file_is_refused(body, tmp_path):
    original = tmp_path / "tune.abc"
    original.write_text(tune(body))
    fragment = unfold(read_text(original.read_text())[0])
    with pytest.raises(FormatError, match=r"tune\.abc: ") as refused:
        check_continuation(original, fragment)
    assert "\n" not in str(refused.value)


def test_what_can_go_on_passes_the_check(tmp_path):
    original = tmp_path / "tune.abc"
    for text in (*cuts()[:8], CHORALE.format("C,"), tune("|:GABc d2e2 |1 gfed c2B2 :|2 G8 |]")):
        original.write_text(text)
        written = read_text(text)[0]
        check_continuation(original, unfold(written))
        check_continuation(original, written)
