"""An unfinished MusicXML file as it stands: where its parts stop, in bytes and in time, and how they are written.

In come the bytes of a score in part order, out comes an OpenPart for each <part>: the offsets at which something can be
put in without touching what is there, and what holds at its end (divisions, signature, transposition, voices of each
staff, places of drums). Nothing outside the file is ever fetched.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import takewhile
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.parsers import expat

from musicgen.errors import FormatError
from musicgen.formats.instruments import DRUM_STAFF
from musicgen.formats.music21_score import STAFF_DRUMS
from musicgen.formats.tail import ELSEWHERE
from musicgen.score import TICKS_PER_QUARTER

STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}


@dataclass(frozen=True)
class Drum:
    """How a file writes one key of the drum set: place on the staff, notehead, the id of its instrument or ""."""

    step: str
    octave: str
    head: str
    instrument: str


@dataclass
class Staff:
    """A staff of a part at its end: its voices, the usual one first; where its last bar stops, in quarters from the
    barline; the pitches written on it."""

    voices: list[str] = field(default_factory=list)
    end: Fraction = Fraction(0)
    pitches: list[int] = field(default_factory=list)
    alters: dict[tuple[str, str], int] = field(default_factory=dict)
    """Of the last bar: (step, octave) -> what its last note there was altered by."""


@dataclass
class Bar:
    """A measure of a part: its number, what it holds in quarters, the <time> that is stated in it, and whether what it
    holds is a full bar of its metre; and the measure itself."""

    number: str
    length: Fraction
    time: Element | None
    full: bool
    measure: Element


@dataclass
class OpenPart:
    """One <part> and what holds at its end. Places in time are quarters from the beginning of its last bar."""

    identity: str
    begins: int = 0
    """Offset in the file of the last measure."""
    inside: int = 0
    """Offset before the barline or the end tag of the last measure."""
    after: int = 0
    """Offset behind the last measure."""
    opens: bool = False
    """Whether the last measure is an empty tag, which has to be opened to hold anything."""
    bars: list[Bar] = field(default_factory=list)
    missing: list[Bar] = field(default_factory=list)
    """Bars at the end that other parts have and this one has not."""
    divisions: int = 1
    fifths: int = 0
    semitones: int = 0  # sounding less written pitch
    staves: list[Staff] = field(default_factory=list)
    cursor: Fraction = Fraction(0)  # where the last measure's last element leaves off
    barline: bool = False  # the last measure has a barline of its own
    goes_back: bool = False  # ... which closes a repeat
    held: list[int] = field(default_factory=list)  # sounding pitches that are tied on into nothing
    unpitched: bool = False
    drums: dict[int, Drum] = field(default_factory=dict)  # by key 0..127
    instrument: str = ""  # the id that its last note names


def scan(data: bytes, source: Path) -> list[OpenPart]:
    """The parts of a score as UTF-8 bytes, whatever encoding it declares. Raises FormatError."""
    root = ElementTree.fromstring(data, parser=ElementTree.XMLParser(encoding="utf-8"))
    if root.tag != "score-partwise":
        raise FormatError(
            f"{source}: its bars hold parts (<{root.tag}>), not its parts bars, and can't be continued in place; "
            + ELSEWHERE
        )
    parts = _find_places(data)
    for part, element in zip(parts, root.findall("part"), strict=True):
        if not part.after:
            raise FormatError(f"{source}: part {part.identity} has no measures; {ELSEWHERE}")
        listed = next((p for p in root.iter("score-part") if p.get("id") == part.identity), None)
        _read_part(part, element, listed)
    longest = max(parts, key=lambda part: len(part.bars))
    for part in parts:
        part.missing = longest.bars[len(part.bars) :]
    return parts


def _find_places(data: bytes) -> list[OpenPart]:
    """The parts with their offsets alone."""
    parts: list[OpenPart] = []
    path: list[str] = []
    children: list[tuple[str, int]] = []  # tag and offset of what the measure holds
    begun = 0
    parser = expat.ParserCreate("utf-8")

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal begun
        path.append(tag)
        if path[1:] == ["part"]:
            parts.append(OpenPart(attributes.get("id", "")))
        elif path[1:] == ["part", "measure"]:
            begun = parser.CurrentByteIndex
            children.clear()
        elif len(path) == 4 and path[1] == "part":
            children.append((tag, parser.CurrentByteIndex))

    def end(tag: str) -> None:
        if path[1:] == ["part", "measure"]:
            part, here = parts[-1], parser.CurrentByteIndex
            part.begins = begun
            part.opens = not data.startswith(b"</measure", here)  # then the parser stands behind the tag
            part.after = here if part.opens else data.index(b">", here) + 1
            barlines = list(takewhile(lambda child: child[0] == "barline", reversed(children)))
            part.inside = part.after if part.opens else barlines[-1][1] if barlines else here
        path.pop()

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.Parse(data, True)
    return parts


def _read_part(part: OpenPart, element: Element, listed: Element | None) -> None:
    struck = _struck(listed)
    only = next(iter(struck.values())) if len(struck) == 1 else None
    measures = element.findall("measure")
    count = max([number(s.text) or 1 for s in element.iter("staves")], default=1)
    part.staves = [Staff() for _ in range(count)]
    used: Counter[tuple[str, int]] = Counter()  # (voice, staff)
    bars: Counter[str] = Counter()  # in how many bars a voice plays
    drums: dict[int, Counter[Drum]] = {}
    at = length = Fraction(0)
    ends: list[Fraction] = []
    held: list[tuple[int, Fraction]] = []  # (pitch, where it stops)
    metre, time = Fraction(4), None
    for measure in measures:
        time = None
        for of_staff in part.staves:
            of_staff.alters.clear()
        at = length = Fraction(0)
        ends, held = [Fraction(0)] * count, []
        heard = set()
        onset = at  # of the note that a chord's further notes share
        for child in measure:
            if child.tag == "attributes":
                _read_attributes(part, child)
                time = child.find("time") if child.find("time") is not None else time
                metre = _metre(child) or metre
            if child.tag not in ("note", "backup", "forward"):
                continue
            duration = Fraction(number(child.findtext("duration")) or 0, part.divisions)
            if child.tag == "backup":
                at = max(at - duration, Fraction(0))
                continue
            staff = min(max((number(child.findtext("staff")) or 1) - 1, 0), count - 1)
            if child.tag == "note":
                chord = child.find("chord") is not None
                onset = onset if chord else at
                voice = child.findtext("voice") or "1"
                used[voice, staff] += 1
                heard.add(voice)
                instrument = child.find("instrument")
                part.instrument = instrument.get("id", "") if instrument is not None else part.instrument
                pitch = written_pitch(child)
                place = place_of(child)
                if pitch is not None and place is not None:
                    part.staves[staff].alters[place[0]] = place[1]
                    part.staves[staff].pitches.append(pitch)
                    if any(tie.get("type") == "start" for tie in child.findall("tie")):
                        held.append((pitch + part.semitones, onset + duration))
                elif child.find("unpitched") is not None:
                    part.unpitched = True
                    key, drum = _drum(child, struck, only)
                    drums.setdefault(key, Counter())[drum] += 1
                if chord or child.find("grace") is not None:
                    continue
                ends[staff] = max(ends[staff], at + duration)
            at += duration
            length = max(length, at)
        bars.update(heard)
        part.bars.append(Bar(measure.get("number", ""), length, time, length == metre, measure))
    for of_staff, end in zip(part.staves, ends, strict=True):
        of_staff.end = end
    part.cursor = at
    part.held = [pitch for pitch, stop in held if stop == length]
    last = measures[-1]
    part.barline = any(b.get("location", "right") == "right" for b in last.findall("barline"))
    part.goes_back = any(r.get("direction") == "backward" for r in last.iter("repeat"))
    part.drums = {
        key: Drum(step, str(octave), head, identity)
        for identity, key in struck.items()
        for step, octave, head in [DRUM_STAFF.get(key, ("C", 5, "normal"))]
    }
    part.drums |= {key: found.most_common(1)[0][0] for key, found in drums.items()}
    _share_voices(part, used, bars)


def _share_voices(part: OpenPart, used: Counter[tuple[str, int]], bars: Counter[str]) -> None:
    """Each voice to the staff on which most of its notes stand; the one that plays in most bars comes first."""
    for voice in sorted(bars, key=lambda v: (-bars[v], len(v), v)):
        staff = max(range(len(part.staves)), key=lambda s: used[voice, s])
        part.staves[staff].voices.append(voice)


def _read_attributes(part: OpenPart, attributes: Element) -> None:
    divisions = number(attributes.findtext("divisions"))
    part.divisions = max(divisions or part.divisions, 1)
    for key in attributes.findall("key"):
        part.fifths = number(key.findtext("fifths")) or 0
    for transpose in attributes.findall("transpose"):
        octaves = number(transpose.findtext("octave-change")) or 0
        part.semitones = (number(transpose.findtext("chromatic")) or 0) + 12 * octaves


def _metre(attributes: Element) -> Fraction | None:
    """Quarters of a full bar of the metre that is stated; None where none is, or one that is no plain number."""
    beats, unit = number(attributes.findtext("time/beats")), number(attributes.findtext("time/beat-type"))
    return Fraction(4 * beats, unit) if beats and unit else None


def place_of(note: Element) -> tuple[tuple[str, str], int] | None:
    """((step, octave), alter) of a note as written; None of a rest or a struck drum."""
    pitch = note.find("pitch")
    if pitch is None:
        return None
    alter = round(float(pitch.findtext("alter") or 0))
    return ((pitch.findtext("step") or "C").strip(), (pitch.findtext("octave") or "4").strip()), alter


def written_pitch(note: Element) -> int | None:
    """The written pitch of a note, as MIDI numbers it; None of a rest or a struck drum."""
    place = place_of(note)
    if place is None:
        return None
    (step, octave), alter = place
    return STEPS.get(step, 0) + alter + 12 * ((number(octave) or 0) + 1)


def _struck(listed: Element | None) -> dict[str, int]:
    """Instrument id -> key 0..127, as the part list has it."""
    found = {}
    for midi in listed.findall("midi-instrument") if listed is not None else []:
        key = number(midi.findtext("midi-unpitched"))
        if key is not None and 1 <= key <= 128:
            found[midi.get("id", "")] = key - 1
    return found


def _drum(note: Element, struck: dict[str, int], only: int | None) -> tuple[int, Drum]:
    """(key, how it is written) of an unpitched note, read as `musicxml_read` reads it."""
    place, instrument = note.find("unpitched"), note.find("instrument")
    assert place is not None
    step, octave = place.findtext("display-step") or "C", place.findtext("display-octave") or "5"
    identity = instrument.get("id", "") if instrument is not None else ""
    key = struck.get(identity, only)
    if key is None:
        key = STAFF_DRUMS.get((step, number(octave) or 5), 38)
    return key, Drum(step, octave, note.findtext("notehead") or "normal", identity)


def number(text: str | None) -> int | None:
    """A whole number as MusicXML writes it; None where there is none."""
    match = re.match(r"\s*[+-]?\d+", text or "")
    return int(match[0]) if match else None


def ticks(quarters: Fraction) -> int:
    """Quarters in ticks, to the nearest."""
    return round(quarters * TICKS_PER_QUARTER)
