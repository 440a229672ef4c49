"""Continuing a MusicXML file in place: every byte of the original stays, and it reads back as the whole.

A real score is cut in its XML, at a barline or inside a bar, and goes on with its own true rest, or with notes that its
divisions have no number for.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
import pytest

from musicgen.errors import FormatError
from musicgen.formats import read_score
from musicgen.formats.musicxml_continue import check_continuation, write_continuation
from musicgen.formats.musicxml_continue_file import open_score
from musicgen.score import Score, notes_array, unfold

DATA = Path(__file__).resolve().parents[2] / "data"
SONGS = sorted((DATA / "songs").glob("*.mxl"))
SCHERZO = DATA / "schubert-d759" / "scherzo.musicxml"
BLUE = "#1f5fbf"


def cut(score: Path, bars: int, quarters: Fraction | None, target: Path) -> Path:
    """The file without its later measures, and of the last one that is left only what ends in so many quarters."""
    root = ElementTree.fromstring(open_score(score)[2])
    for part in root.findall("part"):
        divisions = 1
        for index, measure in enumerate(part.findall("measure")):
            divisions = int(measure.findtext("attributes/divisions") or divisions)
            if index >= bars:
                part.remove(measure)
            elif index == bars - 1 and quarters is not None:
                cut_measure(measure, quarters * divisions)
    target.write_bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))
    return target


def cut_measure(measure: Element, limit: Fraction) -> None:
    at = now = onset = 0
    for element in list(measure):
        measure.remove(element)
        length = int(element.findtext("duration") or 0)
        if element.tag in ("backup", "forward"):
            at += -length if element.tag == "backup" else length
        elif element.tag == "note":
            alone = element.find("chord") is None and element.find("grace") is None
            onset = at if element.find("chord") is None else onset
            at += length if alone else 0
            if onset + length <= limit and onset < limit:
                if alone and now != onset:
                    step = ElementTree.SubElement(measure, "backup" if now > onset else "forward")
                    ElementTree.SubElement(step, "duration").text = str(abs(now - onset))
                    now = onset
                now += length if alone else 0
                measure.append(element)
        elif at <= limit and element.tag != "barline":
            measure.append(element)


def with_rest(fragment: Score, full: Score) -> Score:
    """The fragment with what the full score has from the seam on."""
    seam = fragment.length
    parts = [
        replace(
            now,
            notes=np.concatenate([now.notes, then.notes[then.notes["onset"] >= seam]]),
            graces=np.concatenate([now.graces, then.graces[then.graces["onset"] >= seam]]),
        )
        for now, then in zip(fragment.parts, full.parts, strict=True)
    ]
    begins = ("repeat_start", "ending", "section", "segno", "coda")
    signs = [s for s in full.signs if s.onset > seam or (s.onset == seam and s.kind in begins)]
    return replace(full, parts=tuple(parts), signs=(*(s for s in fragment.signs if s not in signs), *signs))


def with_new(fragment: Score, bars: int = 2, seed: int = 0) -> Score:
    """The fragment, its last bar filled and so many bars more, with notes of 128ths, triplets and so on."""
    generator = np.random.default_rng(seed)
    seam, last = fragment.length, int(fragment.bars[-1])
    bar = fragment.metre_at(last).ticks
    filled = max(last + bar, seam)
    end = filled + bars * bar
    parts = []
    for part in fragment.parts:
        at, new = seam, []
        while at < end:
            length = min(int(generator.choice([30, 80, 120, 160, 240, 480, 720])), end - at)
            pitches = generator.choice(part.notes["pitch"], size=2) if len(part.notes) else [60]
            new += [(at, length, int(pitch), 80) for pitch in set(pitches) if generator.random() < 0.7]
            at += length
        parts.append(part.with_notes(np.concatenate([part.notes, notes_array(new)])))
    starts = np.concatenate([fragment.bars, np.arange(filled, end, bar)]).astype(np.int32)
    return replace(fragment, parts=tuple(parts), bars=starts, length=end)


def notes_of(score: Score) -> list[list[tuple[int, int, int]]]:
    return [sorted(part.notes[["onset", "duration", "pitch"]].tolist()) for part in score.parts]


def continued(original: Path, whole: Score | None = None, *, played: bool = False) -> tuple[Path, Score]:
    """(the file that goes on, the whole that it should be)"""
    written = read_score(original, as_written=True)
    fragment = unfold(written) if played else written
    check_continuation(original, written, fragment)
    whole = with_new(fragment) if whole is None else with_rest(fragment, whole)
    out = original.with_name(f"continued{original.suffix}")
    write_continuation(original, fragment, whole, out)
    return out, whole


def is_in(part: bytes, whole: bytes) -> bool:
    """Whether the lines of one are lines of the other, in their order."""
    lines = iter(whole.split(b"\n"))
    return all(any(line == other for other in lines) for line in part.split(b"\n"))


def check_elements(original: Path, out: Path) -> list[Element]:
    """Every element of the original is in its measure of the output, in its order; returns what is new."""
    old, new = (ElementTree.fromstring(open_score(path)[2]) for path in (original, out))
    for tree in (old, new):
        for element in tree.iter():
            element.tail = None
            element.text = (element.text or "").strip()
    extra: list[Element] = []
    assert [ElementTree.tostring(e) for e in old if e.tag != "part"] == [
        ElementTree.tostring(e) for e in new if e.tag != "part"
    ]
    for part_old, part_new in zip(old.findall("part"), new.findall("part"), strict=True):
        measures = part_new.findall("measure")
        for before, after in zip(part_old.findall("measure"), measures, strict=False):
            assert before.attrib == after.attrib
            waiting = [ElementTree.tostring(e) for e in before]
            for element in after:
                if waiting and ElementTree.tostring(element) == waiting[0]:
                    waiting.pop(0)
                else:
                    extra.append(element)
            assert not waiting
        extra += measures[len(part_old.findall("measure")) :]
    return extra


def check_full(original: Path, out: Path) -> None:
    """In each new measure the first voice of each staff lasts as long as the bar; no voice overlaps itself."""
    old, new = (ElementTree.fromstring(open_score(path)[2]) for path in (original, out))
    for part_old, part in zip(old.findall("part"), new.findall("part"), strict=True):
        divisions, begun = 1, len(part_old.findall("measure"))
        staves = {n.findtext("staff") or "1" for n in part.iter("note")}
        metre = Fraction(4)
        for index, measure in enumerate(part.findall("measure")):
            at, ends, filled = Fraction(0), Counter(), Counter()
            for element in measure:
                if element.tag == "attributes":
                    divisions = int(element.findtext("divisions") or divisions)
                    if element.find("time") is not None:
                        metre = Fraction(
                            4 * int(element.findtext("time/beats")), int(element.findtext("time/beat-type"))
                        )
                length = Fraction(int(element.findtext("duration") or 0), divisions)
                if element.tag == "backup":
                    at -= length
                elif element.tag == "forward":
                    at += length
                elif element.tag == "note" and element.find("chord") is None and length:
                    key = (element.findtext("staff") or "1", element.findtext("voice"))
                    if index >= begun:
                        assert ends[key] <= at, f"voice {key} of measure {measure.get('number')} overlaps itself"
                    ends[key] = at + length
                    filled[key] += length
                    at += length
            if index >= begun and measure.get("implicit") != "yes":
                for staff in staves:
                    assert max(n for (of, _), n in filled.items() if of == staff) == metre


CUTS = [(path, bars, quarters) for path in [*SONGS, SCHERZO] for bars, quarters in [(7, None), (7, Fraction(1))]]


@pytest.mark.parametrize(("path", "bars", "quarters"), CUTS, ids=lambda value: getattr(value, "stem", str(value)))
def test_a_real_score_goes_on_with_its_own_rest(path, bars, quarters, tmp_path):
    original = cut(path, bars, quarters, tmp_path / "original.musicxml")
    out, whole = continued(original, read_score(path, as_written=True))
    assert is_in(original.read_bytes(), out.read_bytes())
    check_elements(original, out)
    check_full(original, out)
    back = read_score(out, as_written=True)
    assert notes_of(back) == notes_of(whole)
    assert back.bars.tolist() == whole.bars.tolist()
    assert (back.length, back.metres, back.keys, back.tempos) == (whole.length, whole.metres, whole.keys, whole.tempos)


@pytest.mark.parametrize("quarters", [None, Fraction(1, 2), Fraction(3, 2)], ids=str)
@pytest.mark.parametrize("path", [*SONGS, SCHERZO], ids=lambda p: p.stem)
def test_notes_that_the_divisions_cannot_say_come_back_exactly(path, quarters, tmp_path):
    original = cut(path, 9, quarters, tmp_path / "original.musicxml")
    out, whole = continued(original, played=True)
    assert is_in(original.read_bytes(), out.read_bytes())
    check_full(original, out)
    back = unfold(read_score(out, as_written=True))
    assert notes_of(back) == notes_of(whole)
    assert back.bars.tolist() == whole.bars.tolist()


def test_new_notes_are_blue_and_no_old_one_is(tmp_path):
    original = cut(SONGS[0], 7, Fraction(1), tmp_path / "original.musicxml")
    out, _ = continued(original)
    notes = [n for e in check_elements(original, out) for n in e.iter("note") if n.find("rest") is None]
    blue = [n for n in notes if n.find("notehead").get("color") == BLUE]
    assert notes
    assert len(blue) == len(notes) == out.read_bytes().count(BLUE.encode())


def test_measure_numbers_go_on(tmp_path):
    original = cut(SCHERZO, 9, None, tmp_path / "original.musicxml")
    out, _ = continued(original)
    measures = ElementTree.parse(out).getroot().find("part").findall("measure")
    assert [m.get("number") for m in measures] == [str(n) for n in range(1, 12)]


def test_an_mxl_keeps_every_other_member(tmp_path):
    original = tmp_path / "original.mxl"
    original.write_bytes(SONGS[0].read_bytes())
    with zipfile.ZipFile(original, "a") as archive:
        archive.writestr("Thumbnails/thumbnail.png", b"a picture")
    out, whole = continued(original, played=True)
    with zipfile.ZipFile(original) as before, zipfile.ZipFile(out) as after:
        assert before.namelist() == after.namelist()
        name = open_score(original)[1]
        for member in before.namelist():
            assert (before.read(member) == after.read(member)) == (member != name)
    assert is_in(open_score(original)[2], open_score(out)[2])
    assert notes_of(unfold(read_score(out, as_written=True))) == notes_of(whole)


@pytest.mark.parametrize("suffix", [".mxl", ".xml"])
def test_a_plain_file_may_go_on_as_a_zip_and_the_other_way_round(suffix, tmp_path):
    original = SCHERZO if suffix == ".mxl" else SONGS[0]
    fragment = unfold(read_score(original, as_written=True))
    out = tmp_path / f"out{suffix}"
    write_continuation(original, fragment, with_new(fragment), out)
    assert is_in(open_score(original)[2], open_score(out)[2])


# --- small scores, each for one fact ---

HEAD = """<?xml version="1.0" encoding="{encoding}"?>
<!DOCTYPE score-partwise PUBLIC "-//Recordare//DTD MusicXML 4.0 Partwise//EN" "http://www.musicxml.org/dtds/partwise.dtd">
<!-- a comment with </part> and <measure> in it -->
<score-partwise version="4.0">
  <part-list>{listed}</part-list>
  {parts}
</score-partwise>
"""
ATTRIBUTES = (
    "<attributes><divisions>2</divisions><key><fifths>{fifths}</fifths></key><time><beats>4</beats><beat-type>4"
    "</beat-type></time>{more}</attributes>"
)


def note(step: str, octave: int, length: int, more: str = "", alter: str = "") -> str:
    altered = f"<alter>{alter}</alter>" if alter else ""
    pitch = f"<pitch><step>{step}</step>{altered}<octave>{octave}</octave></pitch>"
    kind = {1: "eighth", 2: "quarter", 4: "half", 8: "whole", 6: "half"}[length]
    return f"<note>{pitch}<duration>{length}</duration>{more}<voice>1</voice><type>{kind}</type></note>"


def made(
    folder: Path, *measures: str, fifths: int = 0, more: str = "", encoding: str = "UTF-8", name="Clarino"
) -> Path:
    """A score of one part of measures, each the text of its elements."""
    listed = f'<score-part id="P1"><part-name>{name}</part-name></score-part>'
    bars = [f'<measure number="{n}">{text}</measure>' for n, text in enumerate(measures, 1)]
    bars[0] = bars[0].replace('">', '">' + ATTRIBUTES.format(fifths=fifths, more=more), 1)
    text = HEAD.format(encoding=encoding, listed=listed, parts='<part id="P1">' + "".join(bars) + "</part>")
    path = folder / "original.musicxml"
    path.write_bytes(text.encode(encoding))
    return path


def new_elements(original: Path, out: Path, tag: str) -> list[Element]:
    return [found for element in check_elements(original, out) for found in element.iter(tag)]


def with_notes(fragment: Score, end: int, *new: tuple[int, int, int]) -> Score:
    """The fragment with (onset, duration, pitch) more in its first part, in bars up to `end`."""
    part = fragment.parts[0]
    notes = np.concatenate([part.notes, notes_array([(*n, 80) for n in new])])
    filled = int(fragment.bars[-1]) + 1920
    bars = np.concatenate([fragment.bars, np.arange(filled, end, 1920)]).astype(np.int32)
    return replace(fragment, parts=(part.with_notes(notes), *fragment.parts[1:]), bars=bars, length=end)


def gone_on(original: Path, end: int, *new: tuple[int, int, int]) -> Path:
    written = read_score(original, as_written=True)
    fragment = unfold(written)
    check_continuation(original, written, fragment)
    out = original.with_name("out.musicxml")
    write_continuation(original, fragment, with_notes(fragment, end, *new), out)
    return out


def test_a_transposing_part_goes_on_at_its_written_pitch_and_key(tmp_path):
    transpose = "<transpose><diatonic>-1</diatonic><chromatic>-2</chromatic></transpose>"
    original = made(tmp_path, note("D", 5, 8), fifths=2, more=transpose)  # sounds C, in C major
    out = gone_on(original, 3840, (1920, 1920, 76))
    (pitch,) = new_elements(original, out, "pitch")
    assert [child.text for child in pitch] == ["F", "1", "5"]  # sounds E
    assert not new_elements(original, out, "accidental")
    assert notes_of(read_score(out)) == [[(0, 1920, 72), (1920, 1920, 76)]]


def test_a_half_filled_bar_is_gone_on_with_in_its_own_measure(tmp_path):
    original = made(tmp_path, note("C", 5, 4))
    out = gone_on(original, 3840, (960, 960, 74), (1920, 1920, 76))
    measures = ElementTree.parse(out).getroot().findall("part/measure")
    assert [len(m.findall("note")) for m in measures] == [2, 1]
    assert read_score(out).bars.tolist() == [0, 1920]


def test_an_accidental_before_the_seam_is_taken_back_after_it(tmp_path):
    original = made(tmp_path, note("F", 4, 4, alter="1"))
    out = gone_on(original, 1920, (960, 480, 65), (1440, 480, 65))
    assert [a.text for a in new_elements(original, out, "accidental")] == ["natural"]


def test_a_note_tied_on_into_nothing_is_held(tmp_path):
    original = made(tmp_path, note("C", 5, 8, '<tie type="start"/>'))
    out = gone_on(original, 3840, (1920, 960, 72), (2880, 960, 72))
    assert notes_of(read_score(out)) == [[(0, 2880, 72), (2880, 960, 72)]]


def test_a_note_that_is_not_tied_on_is_struck_again(tmp_path):
    original = made(tmp_path, note("C", 5, 8))
    out = gone_on(original, 3840, (1920, 1920, 72))
    assert notes_of(read_score(out)) == [[(0, 1920, 72), (1920, 1920, 72)]]


def test_what_is_left_of_a_bar_that_closes_a_repeat_is_a_short_measure_after_it(tmp_path):
    end = '<barline location="right"><bar-style>light-heavy</bar-style><repeat direction="backward"/></barline>'
    original = made(tmp_path, note("C", 5, 8), note("D", 5, 6) + end)
    out = gone_on(original, 2 * 3360 + 480 + 1920, (6720, 480, 74), (7200, 1920, 76))
    measures = ElementTree.parse(out).getroot().findall("part/measure")
    assert [m.get("implicit") for m in measures] == [None, None, "yes", None]
    assert notes_of(read_score(out)) == [
        [(0, 1920, 72), (1920, 1440, 74), (3360, 1920, 72), (5280, 1440, 74), (6720, 480, 74), (7200, 1920, 76)]
    ]


def test_a_final_barline_stays_before_what_is_new(tmp_path):
    final = '<barline location="right"><bar-style>light-heavy</bar-style></barline>'
    original = made(tmp_path, note("C", 5, 4) + final)
    out = gone_on(original, 3840, (960, 960, 74), (1920, 1920, 76))
    measures = ElementTree.parse(out).getroot().findall("part/measure")
    assert [[e.tag for e in m][-1] for m in measures] == ["barline", "barline"]


def test_drums_go_on_at_their_places_with_their_instruments(tmp_path):
    def strike(step: str, octave: int, instrument: str) -> str:
        place = f"<display-step>{step}</display-step><display-octave>{octave}</display-octave>"
        return (
            f"<note><unpitched>{place}</unpitched><duration>4</duration><instrument id='{instrument}'/>"
            "<voice>1</voice><type>half</type><notehead>x</notehead></note>"
        )

    original = made(tmp_path, strike("B", 3, "P1-Kick") + strike("A", 5, "P1-Hat"), name="Drumset")
    listed = "".join(
        f'<midi-instrument id="{name}"><midi-channel>10</midi-channel><midi-unpitched>{key}</midi-unpitched>'
        "</midi-instrument>"
        for name, key in (("P1-Kick", 37), ("P1-Hat", 43))
    )
    text = original.read_text().replace("</part-name>", "</part-name>" + listed)
    original.write_text(text)
    out = gone_on(original, 3840, (1920, 960, 42), (2880, 960, 36))
    places = [[c.text for c in found] for found in new_elements(original, out, "unpitched")]
    assert places == [["A", "5"], ["B", "3"]]
    assert [i.get("id") for i in new_elements(original, out, "instrument")] == ["P1-Hat", "P1-Kick"]
    assert [p for _, _, p in notes_of(read_score(out))[0]] == [36, 42, 42, 36]


@pytest.mark.parametrize("encoding", ["ISO-8859-1", "UTF-16-LE"])
def test_the_encoding_stays(encoding, tmp_path):
    plain = made(tmp_path, note("C", 5, 4), encoding="UTF-8", name="Flöte").read_text(encoding="utf-8")
    data = plain.replace("UTF-8", encoding.removesuffix("-LE")).encode(encoding)
    original = tmp_path / "original.musicxml"
    original.write_bytes(b"\xff\xfe" + data if "16" in encoding else data)
    out = gone_on(original, 3840, (960, 960, 74), (1920, 1920, 76))
    text = out.read_bytes().decode("utf-16" if "16" in encoding else encoding)
    assert "Flöte" in text
    assert len(read_score(out).parts[0].notes) == 3


def test_a_measure_that_is_an_empty_tag_is_opened(tmp_path):
    original = made(tmp_path, note("C", 5, 4))
    text = original.read_text().replace("</score-part>", '</score-part><score-part id="P2"><part-name/></score-part>')
    original.write_text(
        text.replace("</score-partwise>", '<part id="P2"><measure number="1"/></part></score-partwise>')
    )
    out = gone_on(original, 3840, (960, 960, 74), (1920, 1920, 76))
    assert [len(m) > 0 for m in ElementTree.parse(out).getroot().findall("part[@id='P2']/measure")] == [True, True]
    assert notes_of(read_score(out)) == [[(0, 960, 72), (960, 960, 74), (1920, 1920, 76)], []]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda t: (
                t.replace("score-partwise", "score-timewise").replace('<part id="P1">', "").replace("</part>", "")
            ),
            "",
        ),
        (lambda t: t.replace('number="2">', 'number="2"><direction><sound dacapo="yes"/></direction>', 1), "jumps"),
    ],
    ids=["in time order", "a da capo al fine at the end"],
)
def test_what_cannot_go_on_in_its_own_file_is_refused(change, reason, tmp_path):
    fine = '<direction><direction-type><words>Fine</words></direction-type><sound fine="yes"/></direction>'
    original = made(tmp_path, note("C", 5, 8) + fine, note("D", 5, 8))
    fragment = read_score(original)
    text = change(original.read_text())
    original.write_text(text)
    written = fragment if "timewise" in text else read_score(original, as_written=True)
    with pytest.raises(FormatError, match=reason or "bars hold parts") as refused:
        check_continuation(original, written, unfold(written))
    assert "write to .mid" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("length", [8, 4], ids=["full", "half-filled"])
def test_a_part_with_fewer_bars_than_another_rests_until_the_seam(length, tmp_path):
    original = made(tmp_path, note("C", 5, 8), note("D", 5, 8), note("E", 5, length))
    text = original.read_text().replace("</score-part>", '</score-part><score-part id="P2"><part-name/></score-part>')
    bar = '<measure number="1">' + ATTRIBUTES.format(fifths=0, more="") + note("G", 4, 8) + "</measure>"
    original.write_text(text.replace("</score-partwise>", f'<part id="P2">{bar}</part></score-partwise>'))
    fragment = read_score(original)
    seam, end = fragment.length, 5760 + 1920
    first, second = fragment.parts
    whole = with_notes(fragment, end, (5760, 1920, 77))
    notes = np.concatenate([second.notes, notes_array([(seam, 480, 65, 80)])])
    whole = replace(whole, parts=(whole.parts[0], second.with_notes(notes)))
    out = tmp_path / "out.musicxml"
    write_continuation(original, fragment, whole, out)
    parts = ElementTree.parse(out).getroot().findall("part")
    assert [[m.get("number") for m in part.findall("measure")] for part in parts] == [["1", "2", "3", "4"]] * 2
    assert notes_of(read_score(out)) == notes_of(whole)
    check_elements(original, out)
    assert first.end == seam


# --- larger ones ---


def members(shared_data: Path, archive: str, names: tuple[str, ...], folder: Path) -> list[Path]:
    path = shared_data / archive
    if not path.exists():
        pytest.skip(f"{archive} is not there")
    with tarfile.open(path) as tar:
        found = [m for m in tar.getmembers() if m.name.endswith(names)]
        tar.extractall(folder, found, filter="data")
    return sorted(folder.rglob("*.mxl"))


@pytest.mark.slow
@pytest.mark.parametrize(("bars", "quarters"), [(100, None), (61, Fraction(1))], ids=str)
def test_an_orchestra_of_transposing_instruments_goes_on(bars, quarters, shared_data, tmp_path):
    (path,) = members(shared_data, "openscore-orchestra-mxl.tar.gz", ("Beethoven_Op.68_4.mxl",), tmp_path)
    original = cut(path, bars, quarters, tmp_path / "original.musicxml")
    out, whole = continued(original, read_score(path, as_written=True))
    assert is_in(original.read_bytes(), out.read_bytes())
    check_full(original, out)
    back = read_score(out, as_written=True)
    assert notes_of(back) == notes_of(whole)
    assert back.bars.tolist() == whole.bars.tolist()


@pytest.mark.slow
def test_songs_cut_anywhere_go_on(shared_data, tmp_path):
    songs = members(shared_data, "schubert-lieder-mxl.tar.gz", (".mxl",), tmp_path)
    generator = np.random.default_rng(3)
    for number in generator.permutation(len(songs))[:4]:
        full = read_score(songs[number], as_written=True)
        quarters = [None, Fraction(1, 2), Fraction(1), Fraction(2)][generator.integers(4)]
        bars = int(generator.integers(5, len(full.bars)))
        original = cut(songs[number], bars, quarters, tmp_path / "original.musicxml")
        out, whole = continued(original, full)
        check_elements(original, out)
        assert notes_of(read_score(out, as_written=True)) == notes_of(whole), (songs[number].name, bars, quarters)


def test_music21_hears_the_whole_without_our_reader(tmp_path):
    import warnings

    from music21 import converter

    original = cut(SONGS[0], 7, Fraction(2), tmp_path / "original.musicxml")
    out, whole = continued(original, read_score(SONGS[0], as_written=True))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        heard = converter.parse(out).toSoundingPitch().stripTies()
    pitches = Counter(p.midi for n in heard.recurse().notes if not n.duration.isGrace for p in n.pitches)
    assert pitches == Counter(p for part in whole.parts for p in part.notes["pitch"].tolist())
