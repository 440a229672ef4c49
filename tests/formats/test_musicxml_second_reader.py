"""A second, plain reader of MusicXML against ours, on real music.

It takes notes straight from the XML, by the letter of <duration>, <tie> and <transpose>, without music21 and without
our code, and shares with ours only what a bar's length is. It found that music21 stretches bars for marks past the
barline.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections import Counter
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

import pytest

from musicgen.formats.musicxml import read

STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


def load(path: Path) -> ElementTree.Element:
    if path.suffix != ".mxl":
        return ElementTree.parse(path).getroot()
    with zipfile.ZipFile(path) as archive:
        name = next(n for n in archive.namelist() if n.endswith(("xml",)) and not n.startswith("META-INF"))
        return ElementTree.fromstring(archive.read(name))


def plain_notes(path: Path) -> list[Counter]:
    """A part: Counter of (onset, duration, sounding pitch) in ticks; tied notes joined, pitched notes only."""
    root = load(path)
    parts = [_measures(part) for part in root.findall("part")]
    lengths = []
    for i in range(max(map(len, parts))):
        held, full = {p[i][0] for p in parts if i < len(p)}, parts[0][min(i, len(parts[0]) - 1)][2]
        slip = full in held and full < max(held) < full + Fraction(1, 2)
        lengths.append(full if slip else max(held))
    starts = [sum(lengths[:i], Fraction(0)) for i in range(len(lengths))]
    return [_join(part, starts) for part in parts]


def _measures(part: ElementTree.Element) -> list[tuple[Fraction, list, Fraction]]:
    """(length, [(place, duration, pitch, tie types, voice)], length by its metre) of each bar, in quarters."""
    divisions, shift, made, tremolo, full = 1, 0, [], None, Fraction(4)
    for measure in part.findall("measure"):
        at = longest = chord_at = Fraction(0)
        notes: list = []
        for element in measure:
            length = Fraction(element.findtext("duration") or 0) / divisions
            if element.tag == "attributes":
                divisions = int(element.findtext("divisions") or divisions)
                if element.find("time/beats") is not None:
                    beats, unit = element.findtext("time/beats") or "4", element.findtext("time/beat-type") or "4"
                    full = Fraction(4 * sum(map(int, beats.split("+"))), int(unit))
                transpose = element.find("transpose")
                if transpose is not None:
                    octaves = int(transpose.findtext("octave-change") or 0)
                    shift = int(transpose.findtext("chromatic") or 0) + 12 * octaves
            elif element.tag == "backup":
                at = max(at - length, Fraction(0))
            elif element.tag == "forward":
                at += length
            elif element.tag == "note" and element.find("grace") is None:
                if element.find("chord") is None:
                    chord_at, at = at, at + length
                pitch = element.find("pitch")
                if pitch is not None and element.find("cue") is None:
                    number = 12 * int(pitch.findtext("octave") or 0) + 12 + STEPS[pitch.findtext("step") or "C"] + shift
                    number += round(float(pitch.findtext("alter") or 0))
                    ties = {t.get("type") for t in element.findall("tie")}
                    notes.append([chord_at, length, number, ties, element.findtext("voice")])
                    mark = element.find("notations/ornaments/tremolo[@type='start']")
                    stop = element.find("notations/ornaments/tremolo[@type='stop']")
                    if mark is not None:
                        tremolo = (chord_at, length)
                    if stop is not None:
                        tremolo = (tremolo[0], tremolo[1], chord_at, length)
                if tremolo and len(tremolo) == 4 and element.find("chord") is None and stop is None:
                    tremolo = None
                if tremolo and len(tremolo) == 4:
                    first, span, second, rest = tremolo
                    for note in notes:  # both sides sound together for the whole span
                        if note[4] == element.findtext("voice") and note[0] == first and note[1] == span:
                            note[1] = span + rest
                    for note in notes:
                        if note[4] == element.findtext("voice") and note[0] == second and note[1] == rest:
                            note[0], note[1] = first, span + rest
            longest = max(longest, at)
        made.append((longest, notes, full))
        tremolo = None
    return made


def _join(measures: list[tuple[Fraction, list, Fraction]], starts: list[Fraction]) -> Counter:
    whole: list[list] = []
    waiting: list[list] = []  # [note, voice]
    for (_, notes, _), start in zip(measures, starts, strict=False):
        for place, length, pitch, ties, voice in sorted(notes, key=lambda n: (n[0], "stop" not in n[3])):
            onset = start + place
            held = [w for w in waiting if w[0][2] == pitch and w[0][0] + w[0][1] == onset] if "stop" in ties else []
            held.sort(key=lambda w: w[1] != voice)
            if held:
                waiting.remove(held[0])
                note = held[0][0]
                note[1] += length
            else:
                note = [onset, length, pitch]
                whole.append(note)
            if "start" in ties:
                waiting.append([note, voice])
    return Counter((round(o * 480), round((o + d) * 480) - round(o * 480), p) for o, d, p in whole)


# --- against ours -----------------------------------------------------------------------------------------------------


def ours(path: Path) -> list[Counter]:
    return [Counter(n[:3] for n in part.notes.tolist()) for part in read(path)[0].parts]


@pytest.mark.parametrize(
    "name",
    [
        "mozart/k155/movement3",  # marks past the barline of a pickup
        "mozart/k458/movement3",
        pytest.param("beethoven/opus59no1/movement1", marks=pytest.mark.slow),  # chords partly tied
        pytest.param("haydn/opus74no1/movement1", marks=pytest.mark.slow),  # a tie that leads to another pitch
        pytest.param("haydn/opus1no1/movement3", marks=pytest.mark.slow),  # a bar overfilled by a slip
        pytest.param("schoenberg/opus19/movement2", marks=pytest.mark.slow),
    ],
)
def test_corpus_pieces_have_the_same_notes_in_both_readers(name):
    from music21 import corpus

    path = Path(str(corpus.getWork(name)))
    assert ours(path) == plain_notes(path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("archive", "name"),
    [
        ("schubert-lieder-mxl", "Coronach"),  # tremolos between two notes, pages of them
        ("schubert-lieder-mxl", "Bootgesang"),  # a whole rest in a short bar
        ("schubert-lieder-mxl", "Die_Stadt"),  # nonuplets whose divisions don't add up
        ("schubert-lieder-mxl", "Die_Sterne"),
        ("openscore-orchestra-mxl", "Bach_BWV.1048_2"),
    ],
)
def test_openscore_pieces_have_the_same_notes_in_both_readers(shared_data, tmp_path, archive, name):
    packed = shared_data / f"{archive}.tar.gz"
    if not packed.is_file():
        pytest.skip(f"{packed} is not there")
    with tarfile.open(packed) as members:
        found = next(m for m in members if name in m.name)
        path = tmp_path / "piece.mxl"
        path.write_bytes(members.extractfile(found).read())
    assert ours(path) == plain_notes(path)
