"""What a notation program finds on a written page, checked by rules of its own: no code of the writer is used here."""

from __future__ import annotations

import tarfile
from collections import Counter
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from musicgen.formats.abc import read_text, to_text
from musicgen.formats.musicxml import read, write
from musicgen.formats.notation import find_tuplets
from musicgen.score import Key, Metre, Part, Score, Tempo, graces_array, notes_array

VALUES = {"breve": 8, "whole": 4, "half": 2, "quarter": 1, "eighth": Fraction(1, 2)}
VALUES |= {f"{n}{'nd' if n == 32 else 'th'}": Fraction(4, n) for n in (16, 32, 64, 128)}
DIVISIONS = 480


def written(score: Score, folder: Path) -> ElementTree.Element:
    write(score, folder / "page.musicxml")
    return ElementTree.parse(folder / "page.musicxml").getroot()


def placed(measure: ElementTree.Element) -> list[tuple[int, ElementTree.Element]]:
    """(place, <note>) in divisions, grace notes at the place they lead to."""
    at, before, found = 0, 0, []
    for element in measure:
        length = int(element.findtext("duration") or 0)
        if element.tag == "backup":
            at -= length
        elif element.tag == "forward":
            at += length
        elif element.tag == "note":
            if element.find("chord") is None:
                before, at = at, at + length
            found.append((before, element))
    return found


def pitch_of(note: ElementTree.Element) -> tuple[str, str] | None:
    place = note.find("pitch")
    return None if place is None else (place.findtext("step") or "", place.findtext("octave") or "")


def check_page(root: ElementTree.Element) -> None:
    """Every rule below, on every bar of a page."""
    for part in root.findall("part"):
        fifths, open_ties = 0, Counter()
        clock = 0
        for measure in part.findall("measure"):
            where = f"{part.get('id')} bar {measure.get('number')}"
            fifths = int(measure.findtext("attributes/key/fifths") or fifths)
            notes = placed(measure)
            length = max(at + int(n.findtext("duration") or 0) for at, n in notes)
            check_voices(notes, length, where)
            check_values(notes, where)
            check_accidentals(notes, fifths, where)
            open_ties = check_ties(notes, clock, open_ties, where)
            clock += length
        assert not +open_ties, f"ties of {part.get('id')} that lead nowhere: {open_ties}"


def check_voices(notes: list, length: int, where: str) -> None:
    """The first voice of a staff fills the bar; no voice runs over itself or over the barline."""
    voices: dict[tuple, list[tuple[int, int]]] = {}
    for at, note in notes:
        if note.find("chord") is None and note.find("grace") is None:
            key = (note.findtext("staff"), note.findtext("voice"))
            voices.setdefault(key, []).append((at, at + int(note.findtext("duration") or 0)))
    for (_, voice), spans in voices.items():
        assert all(a[1] <= b[0] for a, b in pairwise(spans)), f"{where}: voice {voice} overlaps"
        if voice in ("1", "5"):
            assert sum(end - start for start, end in spans) == length, f"{where}: voice {voice} does not fill the bar"


def check_values(notes: list, where: str) -> None:
    """What is printed (type, dots, tuplet) is as long as the duration says."""
    for _, note in notes:
        if note.find("grace") is not None or note.find("type") is None:
            continue
        value = Fraction(VALUES[note.findtext("type")]) * (2 - Fraction(1, 2 ** len(note.findall("dot"))))
        ratio = note.find("time-modification")
        if ratio is not None:
            value *= Fraction(int(ratio.findtext("normal-notes")), int(ratio.findtext("actual-notes")))
        assert value * DIVISIONS == int(note.findtext("duration")), f"{where}: printed {value}"


SIGNS = {"flat-flat": -2, "flat": -1, "natural": 0, "sharp": 1, "double-sharp": 2}


def check_accidentals(notes: list, fifths: int, where: str) -> None:
    """An accidental where, and only where, the letter last meant something else on this staff in this bar."""
    sharps = {**dict.fromkeys("FCGDAEB"[: max(fifths, 0)], 1), **dict.fromkeys("BEADGCF"[: max(-fifths, 0)], -1)}
    meant: dict[tuple, int] = {}
    heads = sorted(enumerate(notes), key=lambda n: (n[1][0], n[1][1].find("grace") is None, n[0]))
    for _, (_, note) in heads:
        pitch = pitch_of(note)
        if pitch is None or any(t.get("type") == "stop" for t in note.findall("tie")):
            continue
        alter, sign = int(note.findtext("pitch/alter") or 0), note.findtext("accidental")
        place = (note.findtext("staff"), *pitch)
        assert (sign is not None) == (meant.get(place, sharps.get(pitch[0], 0)) != alter), f"{where}: {pitch} {sign}"
        assert sign is None or SIGNS[sign] == alter, f"{where}: {pitch} has {sign}"
        meant[place] = alter


def check_ties(notes: list, clock: int, before: Counter, where: str) -> Counter:
    """Every tie that stops was begun by a note of its pitch that ends there. Returns those still open."""
    now: Counter = Counter(before)
    for at, note in sorted(notes, key=lambda n: n[0]):
        kinds = {t.get("type") for t in note.findall("tie")}
        assert kinds == {t.get("type") for t in note.findall("notations/tied")}, f"{where}: a tie not drawn"
        pitch = (*(pitch_of(note) or ()), note.findtext("pitch/alter"))
        if "stop" in kinds:
            assert now[clock + at, pitch] > 0, f"{where}: a tie to {pitch} from nowhere"
            now[clock + at, pitch] -= 1
        if "start" in kinds:
            now[clock + at + int(note.findtext("duration")), pitch] += 1
    return +now


# --- the rules, on music ----------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["bach/bwv66.6", "bach/bwv7.7"])
def test_a_chorale_keeps_every_rule_of_the_page(name, tmp_path):
    from music21 import corpus

    check_page(written(read(Path(str(corpus.getWork(name))))[0], tmp_path))


def test_chromatic_lines_with_grace_notes_keep_every_rule_of_the_page(tmp_path):
    rng = np.random.default_rng(3)
    onsets = range(0, 1920 * 20, 240)
    lines = [(t, 240 * int(rng.integers(1, 4)), int(rng.integers(48, 84)), 80) for t in onsets]
    graces = [(t, i, int(rng.integers(60, 80)), True) for t in onsets[::5] for i in range(int(rng.integers(1, 4)))]
    part = Part("Piano", 0, False, notes_array(lines), graces_array(graces))
    score = Score(parts=(part,), keys=(Key(0, -4), Key(1920 * 9, 5)))
    check_page(written(score, tmp_path))
    assert read(tmp_path / "page.musicxml")[0] == score


@pytest.mark.parametrize(("actual", "printed"), [(7, "16th"), (9, "32nd"), (11, "32nd"), (13, "32nd")])
def test_seven_or_more_notes_in_a_beat_are_one_tuplet_of_one_value(actual, printed, tmp_path):
    cuts = [round(480 * i / actual) for i in range(actual + 1)]
    notes = [(a, b - a, 60 + i, 80) for i, (a, b) in enumerate(pairwise(cuts))]
    score = Score(parts=(Part("Violin", 40, False, notes_array(notes)),), length=1920)
    root = written(score, tmp_path)
    heads = [n for n in root.iter("note") if n.find("time-modification") is not None]
    assert [n.findtext("type") for n in heads] == [printed] * actual
    assert {n.findtext("time-modification/actual-notes") for n in heads} == {str(actual)}
    assert read(tmp_path / "page.musicxml")[0] == score


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("*/measure/note/accidental", "bar 1: .* None"),
        ("*/measure/note/tie[@type='start']", "a tie not drawn"),
        ("*/measure/note/dot", "printed"),
    ],
)
def test_the_rules_find_what_is_missing_from_a_page(fault, complaint, tmp_path):
    notes = [(0, 720, 61, 80), (720, 240, 62, 80), (960, 1920, 64, 80), (2880, 960, 65, 80)]
    root = written(Score(parts=(Part("Violin", 40, False, notes_array(notes)),)), tmp_path)
    check_page(root)
    holder = root.find(f"{fault}/..")
    holder.remove(holder.find(fault.rpartition("/")[2]))
    with pytest.raises(AssertionError, match=complaint):
        check_page(root)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("archive", "name"),
    [
        ("mozart-sonatas-kern", "sonata11-1b"),
        ("mozart-sonatas-kern", "sonata08-2"),
        ("schubert-lieder-mxl", "Die_Sterne"),
        ("openscore-orchestra-mxl", "Bach_BWV.1048_3"),
    ],
)
def test_real_scores_keep_every_rule_of_the_page(shared_data, tmp_path, archive, name):
    packed = shared_data / f"{archive}.tar.gz"
    if not packed.is_file():
        pytest.skip(f"{packed} is not there")
    with tarfile.open(packed) as members:
        found = next(m for m in members if name in m.name)
        path = tmp_path / Path(found.name).name
        path.write_bytes(members.extractfile(found).read())
    check_page(written(read(path)[0], tmp_path))


@pytest.mark.filterwarnings("ignore")
def test_music21_finds_key_metre_pickup_names_and_clefs_on_the_page(tmp_path):
    from music21 import converter

    names = [("Flute", 73, 79), ("Viola", 41, 60), ("Violoncello", 42, 48), ("Contrabass", 43, 36), ("Timpani", 47, 45)]
    parts = tuple(
        Part(name, program, False, notes_array([(0, 480, pitch, 80), (480, 1440, pitch, 80)]))
        for name, program, pitch in names
    )
    score = Score(parts=parts, keys=(Key(0, -2, "minor"),), metres=(Metre(0, 3, 4),), bars=[0, 480], length=1920)
    write(score, tmp_path / "page.musicxml")
    page = converter.parse(tmp_path / "page.musicxml", forceSource=True)
    assert [p.partName for p in page.parts] == [name for name, _, _ in names]
    first = [part.getElementsByClass("Measure")[0] for part in page.parts]
    assert [m.clef.name for m in first] == ["treble", "alto", "bass", "bass8vb", "bass"]
    assert {(m.keySignature.sharps, m.keySignature.mode) for m in first} == {(-2, "minor")}
    assert {m.timeSignature.ratioString for m in first} == {"3/4"}
    assert {(m.number, m.quarterLength) for m in first} == {(0, 1.0)}


def test_three_notes_for_two_eighths_of_a_jig_are_one_triplet():
    bounds = [240, 480, 720, 880, 1040, 1200, 1440]  # a bar of 6/8 whose second beat begins with (3ABc
    (tuplet,) = find_tuplets(bounds, 0, 1440, 720, True, 1440)
    assert (tuplet.start, tuplet.end, tuplet.actual, tuplet.normal) == (720, 1200, 3, 2)
    late = [240, 480, 720, 960, 1120, 1280, 1440]  # and ends with it
    (tuplet,) = find_tuplets(late, 0, 1440, 720, True, 1440)
    assert (tuplet.start, tuplet.end) == (960, 1440)


@pytest.mark.parametrize(
    ("metre", "bpm", "abc", "dots"),
    [((6, 8), 150.0, "Q:3/8=100", 1), ((4, 4), 150.0, "Q:1/4=150", 0), ((3, 8), 150.0, "Q:1/4=150", 0),
     ((9, 8), 100.0, "Q:1/4=100", 0), ((12, 8), 187.5, "Q:3/8=125", 1)],
)  # fmt: skip
def test_compound_metres_beat_in_dotted_quarters_and_no_tempo_is_bent(metre, bpm, abc, dots, tmp_path):
    notes = notes_array((i * 240, 240, 60 + i, 80) for i in range(12))
    score = Score(parts=(Part("Flute", 73, notes=notes),), metres=(Metre(0, *metre),), tempos=(Tempo(0, bpm),))
    assert abc in to_text(score).splitlines()
    assert read_text(to_text(score))[0].tempos == score.tempos
    write(score, tmp_path / "tempo.musicxml")
    assert (tmp_path / "tempo.musicxml").read_text().count("<beat-unit-dot") == dots
    assert read(tmp_path / "tempo.musicxml")[0].tempos == score.tempos
