"""Filling bars of a MusicXML file: every byte outside stays, and it is read back as the whole, note for note."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from musicgen.errors import FormatError
from musicgen.formats import read_score
from musicgen.formats.filling import check_filling, write_filled, write_with_parts
from musicgen.formats.musicxml_continue_file import open_score
from musicgen.score import Part, Score, notes_array

DATA = Path(__file__).resolve().parents[2] / "data"
SONG = DATA / "songs" / "schubert-wandrers-nachtlied-d768.mxl"  # voice; piano on two staves, in several voices
SCHERZO = DATA / "schubert-d759" / "scherzo.musicxml"  # orchestra, with instruments that transpose
BLUE = "#1f5fbf"


def notes_of(score: Score) -> list[Counter]:
    return [Counter(part.notes[["onset", "duration", "pitch"]].tolist()) for part in score.parts]


def measures(path: Path) -> list[list[bytes]]:
    """The bytes of each measure, part by part; the first has what stands before it as well."""
    parts = re.split(rb"(?=<part [^>]*>)", open_score(path)[2])
    return [re.split(rb"(?=<measure )", part) for part in parts]


def outside(path: Path, first: int, until: int) -> list[bytes]:
    return [bar for part in measures(path) for i, bar in enumerate(part) if not first < i <= until]


def fill(original: Path, whole: Score, first: int, until: int, out: Path) -> Score:
    score = read_score(original, as_written=True)
    check_filling(original, score, first, until)
    write_filled(original, score, whole, first, until, out)
    return read_score(out, as_written=True)


def maps_of(score: Score) -> tuple:
    return score.bars.tolist(), score.length, score.metres, score.keys, score.tempos, score.signs, score.chord_symbols


def corpus(name: str) -> Path:
    from music21 import corpus

    return Path(corpus.getWork(name))


@pytest.mark.parametrize(("first", "until", "source"), [(0, 2, 7), (5, 8, 1), (11, 14, 4)])
def test_a_filled_song_is_read_as_the_whole(first, until, source, tmp_path: Path, pasted, as_read) -> None:
    score = read_score(SONG, as_written=True)
    whole = pasted(score, first, until, source)
    again = fill(SONG, whole, first, until, tmp_path / "out.mxl")
    assert notes_of(again) == as_read(score, whole, first, until)
    assert maps_of(again) == maps_of(score)
    assert [p.graces.tolist() for p in again.parts] == [p.graces.tolist() for p in whole.parts]


def test_transposing_instruments_are_written_at_their_own_pitch(tmp_path: Path, pasted, as_read) -> None:
    score = read_score(SCHERZO, as_written=True)
    whole = pasted(score, 4, 7, 0)
    assert notes_of(fill(SCHERZO, whole, 4, 7, tmp_path / "out.musicxml")) == as_read(score, whole, 4, 7)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mozart/k155/movement2", "bach/bwv66.6", "schumann_clara/polonaise_op1n1"])
def test_scores_of_other_programs_can_be_filled(name: str, tmp_path: Path, pasted, as_read) -> None:
    original = corpus(name)
    score = read_score(original, as_written=True)
    for first in (1, len(score.bars) // 2):
        whole = pasted(score, first, first + 3, 4)
        again = fill(original, whole, first, first + 3, tmp_path / "out.musicxml")
        assert notes_of(again) == as_read(score, whole, first, first + 3)
        assert maps_of(again) == maps_of(score)


@pytest.mark.slow
def test_another_reader_hears_the_same(tmp_path: Path, pasted, as_read) -> None:
    """music21 by itself, without our preparations."""
    from music21 import converter

    score = read_score(SONG, as_written=True)
    whole = pasted(score, 5, 8, 1)
    fill(SONG, whole, 5, 8, tmp_path / "out.musicxml")
    heard = converter.parse(tmp_path / "out.musicxml").stripTies().parts[0].flatten().notes
    expected = as_read(score, whole, 5, 8)[0]
    found = Counter(
        (round(n.offset * 480), round(n.quarterLength * 480), n.pitch.midi) for n in heard if n.quarterLength
    )
    assert found == expected


def test_every_byte_outside_the_bars_stays(tmp_path: Path, pasted) -> None:
    score = read_score(SONG, as_written=True)
    fill(SONG, pasted(score, 2, 4, 0), 2, 4, tmp_path / "out.musicxml")
    assert outside(tmp_path / "out.musicxml", 2, 4) == outside(SONG, 2, 4)


def test_new_noteheads_are_blue_and_a_note_held_over_stays_black(tmp_path: Path, pasted) -> None:
    score = read_score(SONG, as_written=True)
    fill(SONG, pasted(score, 5, 8, 1), 5, 8, tmp_path / "out.musicxml")
    bar = ElementTree.parse(tmp_path / "out.musicxml").findall("part")[1].findall("measure")[5]
    sounding = [note for note in bar.findall("note") if note.find("rest") is None]
    heads = [(note.find("tie[@type='stop']") is not None, note.find("notehead")) for note in sounding]
    colours = {(held, None if head is None else head.get("color")) for held, head in heads}
    assert colours == {(False, BLUE), (True, None)}


def test_what_is_no_note_stays_in_the_filled_bars(tmp_path: Path, pasted) -> None:
    score = read_score(SONG, as_written=True)
    fill(SONG, pasted(score, 1, 12, 2), 1, 12, tmp_path / "out.musicxml")
    kinds = ("direction", "attributes", "print", "barline", "harmony", "sound")
    divisions = re.compile(rb"<attributes>\s*<divisions>\d+</divisions>\s*</attributes>")
    bars = [ElementTree.fromstring(open_score(p)[2]).iter("measure") for p in (SONG, tmp_path / "out.musicxml")]
    for pair in zip(*bars, strict=True):
        words = [[ElementTree.tostring(e).strip() for e in bar if e.tag in kinds] for bar in pair]
        assert words[0] == [word for word in words[1] if not divisions.fullmatch(word)]


def test_every_slur_and_tie_has_two_ends(tmp_path: Path, pasted) -> None:
    score = read_score(SONG, as_written=True)
    for first in (4, 7, 10):
        fill(SONG, pasted(score, first, first + 2, 1 if first > 5 else 9), first, first + 2, tmp_path / "out.musicxml")
        root = ElementTree.parse(tmp_path / "out.musicxml")
        for tag in ("slur", "tied", "tie", "slide"):
            ends = Counter(mark.get("type") for mark in root.iter(tag))
            assert ends["start"] == ends["stop"]


def test_a_part_that_plays_what_it_did_keeps_its_bars(tmp_path: Path, pasted) -> None:
    score = read_score(SONG, as_written=True)
    fill(SONG, pasted(score, 2, 4, 0, parts=(0,)), 2, 4, tmp_path / "out.musicxml")
    assert measures(tmp_path / "out.musicxml")[2] == measures(SONG)[2]


def test_the_other_members_of_a_zip_stay(tmp_path: Path, pasted) -> None:
    score = read_score(SONG, as_written=True)
    fill(SONG, pasted(score, 2, 4, 0), 2, 4, tmp_path / "out.mxl")
    (old, name, _), (new, _, _) = open_score(SONG), open_score(tmp_path / "out.mxl")
    assert [(i.filename, data) for i, data in old if i.filename != name] == [
        (i.filename, data) for i, data in new if i.filename != name
    ]


# --- small files that hold one hard thing -----------------------------------------------------------------------------

SHARP = "<pitch><step>F</step><alter>1</alter><octave>4</octave></pitch>"
NATURAL = "<pitch><step>G</step><octave>4</octave></pitch>"


def note(pitch: str, duration: int, more: str = "", ties: str = "") -> str:
    tied = "".join(f'<tied type="{t}"/>' for t in ties.split())
    sound = "".join(f'<tie type="{t}"/>' for t in ties.split())
    shape = f"<notations>{tied}{more}</notations>" if tied or more else ""
    kind = {4: "whole", 2: "half", 1: "quarter"}[duration]
    return f"<note>{pitch}<duration>{duration}</duration>{sound}<voice>1</voice><type>{kind}</type>{shape}</note>"


WHOLE, HALF = note(NATURAL, 4), note(NATURAL, 2)
FLUTE = "<part-name>Flute</part-name>"


def file_of(path: Path, *bars: str, listed: str = FLUTE) -> Path:
    attributes = (
        "<attributes><divisions>1</divisions><time><beats>4</beats><beat-type>4</beat-type></time></attributes>"
    )
    body = "\n".join(
        f"<measure number='{i}'/>"
        if bar == "/"
        else f"<measure number='{i}'>\n{attributes * (i == 1)}{bar}\n</measure>"
        for i, bar in enumerate(bars, 1)
    )
    path.write_text(
        f"<score-partwise version='4.0'><part-list><score-part id='P1'>{listed}</score-part></part-list>\n"
        f"<part id='P1'>\n{body}\n</part></score-partwise>"
    )
    return path


def with_new(score: Score, first: int, until: int, new: list[tuple[int, int, int, int]]) -> Score:
    part, start, stop = score.parts[0], int(score.bars[first]), int(score.bars[until])
    kept = part.notes[(part.notes["onset"] < start) | (part.notes["onset"] >= stop)]
    return replace(score, parts=(part.with_notes(np.concatenate([kept, notes_array(new)])),))


def test_a_tie_out_of_the_hole_is_taken_away_and_its_note_gets_the_accidental_it_needs(tmp_path: Path) -> None:
    tied = note(SHARP, 4, ties="start"), note(SHARP, 4, ties="stop")
    original = file_of(tmp_path / "a.musicxml", WHOLE, *tied)
    score = read_score(original)
    again = fill(original, with_new(score, 1, 2, [(1920, 960, 72, 80)]), 1, 2, tmp_path / "out.musicxml")
    behind = ElementTree.parse(tmp_path / "out.musicxml").findall(".//measure")[2]
    assert [e.tag for e in behind.find("note")] == ["pitch", "duration", "voice", "type", "accidental"]
    assert again.parts[0].notes["onset"].tolist() == [0, 1920, 3840]


def test_a_slur_over_a_seam_ends_in_the_hole_on_a_note_and_nothing_changes_outside(tmp_path: Path) -> None:
    original = file_of(
        tmp_path / "a.musicxml",
        note(NATURAL, 4, '<slur type="start" number="1"/>'),
        note(NATURAL, 2, '<slur type="stop" number="1"/>') + note(NATURAL, 2, '<slur type="start" number="2"/>'),
        note(NATURAL, 4, '<slur type="stop" number="2"/>'),
    )
    whole = with_new(read_score(original), 1, 2, [(1920, 480, 72, 80), (2400, 1440, 74, 80)])
    fill(original, whole, 1, 2, tmp_path / "out.musicxml")
    bar = ElementTree.parse(tmp_path / "out.musicxml").findall(".//measure")[1].findall("note")
    slurs = [[(slur.get("type"), slur.get("number")) for slur in element.iter("slur")] for element in bar[:2]]
    assert slurs == [[("stop", "1")], [("start", "2")]]
    assert outside(tmp_path / "out.musicxml", 1, 2) == outside(original, 1, 2)


def test_lengths_finer_than_the_files_divisions_are_stated_and_the_files_again_behind_them(tmp_path: Path) -> None:
    original = file_of(tmp_path / "a.musicxml", *[WHOLE] * 4)
    new = [(1920, 160, 72, 80), (2080, 160, 74, 80), (2240, 160, 76, 80), (2400, 30, 77, 80), (3840, 120, 79, 80)]
    whole = with_new(read_score(original), 1, 3, new)
    again = fill(original, whole, 1, 3, tmp_path / "out.musicxml")
    assert notes_of(again) == notes_of(whole)
    behind = [measures(path)[1][4] for path in (original, tmp_path / "out.musicxml")]
    stated = b"<attributes> <divisions>1</divisions> </attributes>"
    assert b" ".join(behind[1].split()).replace(stated + b" ", b"") == b" ".join(behind[0].split())


def test_empty_measures_are_opened_and_filled(tmp_path: Path) -> None:
    original = file_of(tmp_path / "a.musicxml", WHOLE, WHOLE, WHOLE)
    oboe = "<score-part id='P2'><part-name>Oboe</part-name></score-part></part-list>"
    empty = "<part id='P2'><measure number='1'/><measure number='2'/><measure number='3'/></part></score-partwise>"
    text = original.read_text().replace("</part-list>", oboe).replace("</score-partwise>", empty)
    original.write_text(text)
    score = read_score(original)
    whole = replace(score, parts=(score.parts[0], score.parts[1].with_notes(notes_array([(1920, 1920, 72, 80)]))))
    assert notes_of(fill(original, whole, 1, 2, tmp_path / "out.musicxml")) == notes_of(whole)
    assert outside(tmp_path / "out.musicxml", 1, 2) == outside(original, 1, 2)


def test_a_drum_is_struck_at_the_place_that_the_file_has_for_it(tmp_path: Path) -> None:
    kit = {"P1-A": 39, "P1-B": 57}
    names = "".join(
        f"<score-instrument id='{i}'><instrument-name>Drum</instrument-name></score-instrument>" for i in kit
    )
    key = (
        "<midi-instrument id='{}'><midi-channel>10</midi-channel><midi-unpitched>{}</midi-unpitched></midi-instrument>"
    )
    keys = "".join(key.format(*drum) for drum in kit.items())
    listed = f"<part-name>Drumset</part-name>{names}{keys}"
    hit = "<unpitched><display-step>{}</display-step><display-octave>4</display-octave></unpitched>"

    def bar(step: str, instrument: str) -> str:
        return note(hit.format(step), 4).replace("<voice>", f"<instrument id='{instrument}'/><voice>")

    original = file_of(tmp_path / "a.musicxml", bar("B", "P1-A"), bar("B", "P1-A"), bar("F", "P1-B"), listed=listed)
    whole = with_new(read_score(original), 1, 2, [(1920, 480, 56, 80), (2400, 480, 38, 80)])
    again = fill(original, whole, 1, 2, tmp_path / "out.musicxml")
    assert notes_of(again) == notes_of(whole)
    bars = ElementTree.parse(tmp_path / "out.musicxml").findall(".//measure")
    assert [e.text for e in bars[1].iter("display-step")] == ["F", "B"]


def test_divisions_that_change_between_the_notes_of_a_bar_are_refused(tmp_path: Path) -> None:
    change = "<attributes><divisions>2</divisions></attributes>"
    original = file_of(tmp_path / "a.musicxml", WHOLE, HALF + change + WHOLE, WHOLE)
    with pytest.raises(FormatError, match="in bar 2 of Flute <divisions> change between notes"):
        check_filling(original, read_score(original), 1, 2)


# --- parts behind the others ------------------------------------------------------------------------------------------


def with_three(score: Score) -> Score:
    """The score with a cello that doubles its first part an octave lower, a piano that has both, and a kit."""
    high = score.parts[0].notes
    low = high.copy()
    low["pitch"] -= 12
    kit = notes_array((int(bar), 120, 38, 80) for bar in score.bars)
    more = (
        Part("Cello", 42, False, low),
        Part("Piano", 0, False, np.concatenate([high, low])),
        Part("Kit", 0, True, kit),
    )
    return replace(score, parts=(*score.parts, *more))


@pytest.mark.parametrize("original", [SONG, SCHERZO], ids=["song", "scherzo"])
def test_added_parts_are_read_behind_the_others_which_stay(original: Path, tmp_path: Path) -> None:
    score = read_score(original, as_written=True)
    whole = with_three(score)
    write_with_parts(original, score, whole, tmp_path / "out.musicxml")
    again = read_score(tmp_path / "out.musicxml", as_written=True)
    assert notes_of(again) == notes_of(whole)
    assert maps_of(again) == maps_of(score)
    assert [(p.name, p.program, p.is_drum) for p in again.parts[-3:]] == [("Cello", 42, False), ("Piano", 0, False),
                                                                          ("Kit", 0, True)]  # fmt: skip
    old, new = open_score(original)[2], open_score(tmp_path / "out.musicxml")[2]
    at = 0
    for line in old.split(b"\n"):
        at = new.index(line, at) + len(line)


def test_measures_of_added_parts_are_those_of_the_file(tmp_path: Path) -> None:
    score = read_score(SONG, as_written=True)
    write_with_parts(SONG, score, with_three(score), tmp_path / "out.musicxml")
    parts = ElementTree.parse(tmp_path / "out.musicxml").findall("part")
    named = [[(bar.get("number"), bar.get("implicit")) for bar in part.findall("measure")] for part in parts]
    assert all(bars == named[0] for bars in named)
