"""A MusicXML file, measure by measure, with the offsets of what each holds: where bars can be written anew.

In come the bytes of a score in part order, out come its parts as lists of measures: each with its place in the file and
in time, what holds at its beginning (divisions, signature, transposition), and its children with theirs. Slurs and
their like that lead into a stretch of measures, or out of it, are found here too. Nothing outside the file is fetched.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element
from xml.parsers import expat

from musicgen.errors import FormatError
from musicgen.formats.music21_staff import Staff, agree_on_bars
from musicgen.formats.musicxml_continue_scan import number
from musicgen.formats.musicxml_read import take_facts
from musicgen.score import Score

ELSEWHERE = "write to .mid, or convert it first and fill the converted file"
"""What to do where bars of an original can't be written in its own file."""

MUSIC = ("note", "backup", "forward")
"""Children of a measure that play or move the clock; what else it holds is said at a place in time."""
SPANNING = ("slur", "glissando", "slide", "wavy-line")
"""Marks on notes with a beginning and an end."""


@dataclass
class Child:
    """What stands in a measure: its first byte and the one behind its last, when, in quarters from the barline, and
    the staff, from 0. A note of a chord stands where the chord does."""

    element: Element
    begin: int
    end: int
    at: Fraction = Fraction(0)
    staff: int = 0


@dataclass
class Measure:
    """A measure of a part: the offsets of its tag, of what it holds and of what follows it, and what holds at its
    beginning."""

    element: Element
    begin: int
    inside: int
    """Offset behind its start tag."""
    close: int = 0
    """Offset of its end tag; of an empty tag, behind it."""
    after: int = 0
    children: list[Child] = field(default_factory=list)
    start: int = 0
    """In ticks from the beginning of the piece."""
    length: int = 0
    divisions: int = 1
    stated: bool = False
    """Whether divisions have been stated at all, by its first note."""
    fifths: int = 0
    semitones: int = 0
    keys: list[tuple[Fraction, int]] = field(default_factory=list)
    """(quarters from the barline, fifths) of the signatures that are stated in it."""
    splits: bool = False
    """Whether it changes its divisions after music."""

    @property
    def opens(self) -> bool:
        """Whether it is an empty tag, which has to be opened to hold anything."""
        return self.close == self.after

    def music(self) -> list[Child]:
        return [child for child in self.children if child.element.tag in MUSIC]


@dataclass
class Span:
    """A mark that leads over the edge of a stretch: its end that stands in it."""

    element: Element
    staff: int
    into: bool
    """Whether it leads into the stretch, and not out of it."""


def measures_of(data: bytes, score: Score, source: Path) -> list[list[Measure]]:
    """The measures of each part, on the clock of the score that was read of them. Raises FormatError."""
    parts = _places(data, _tree(data))
    _put_on_clock(parts, _tree(data), score, source)
    return parts


def _tree(data: bytes) -> Element:
    return ElementTree.fromstring(data, parser=ElementTree.XMLParser(encoding="utf-8"))


def _places(data: bytes, root: Element) -> list[list[Measure]]:
    parts: list[list[Measure]] = []
    trees = [list(part.findall("measure")) for part in root.findall("part")]
    path: list[str] = []
    parser = expat.ParserCreate("utf-8")

    def behind(offset: int) -> int:
        """Behind the tag that begins at an offset."""
        quote, at = 0, offset
        while quote or data[at] != 0x3E:
            quote = 0 if quote == data[at] else quote or (data[at] if data[at] in b"\"'" else 0)
            at += 1
        return at + 1

    def start(tag: str, attributes: dict[str, str]) -> None:
        path.append(tag)
        here = parser.CurrentByteIndex
        if path[1:] == ["part"]:
            parts.append([])
        elif path[1:] == ["part", "measure"]:
            element = trees[len(parts) - 1][len(parts[-1])]
            parts[-1].append(Measure(element, here, behind(here)))
        elif len(path) == 4 and path[1:3] == ["part", "measure"]:
            measure = parts[-1][-1]
            measure.children.append(Child(measure.element[len(measure.children)], here, here))

    def end(tag: str) -> None:
        here = parser.CurrentByteIndex
        closes = data.startswith(b"</", here)  # of an empty tag the parser stands behind it
        if path[1:] == ["part", "measure"]:
            measure = parts[-1][-1]
            measure.close, measure.after = here, behind(here) if closes else here
        elif len(path) == 4 and path[1:3] == ["part", "measure"]:
            parts[-1][-1].children[-1].end = behind(here) if closes else here
        path.pop()

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.Parse(data, True)
    for measures in parts:
        divisions, fifths, semitones, stated = 1, 0, 0, False
        for measure in measures:
            measure.divisions, measure.fifths, measure.semitones = divisions, fifths, semitones
            divisions, fifths, semitones = _walk(measure)
            stated = measure.stated = stated or measure.stated
    return parts


def _walk(measure: Measure) -> tuple[int, int, int]:
    """Puts the children of a measure in time; (divisions, fifths, semitones) at its end."""
    divisions, fifths, semitones = measure.divisions, measure.fifths, measure.semitones
    at = onset = Fraction(0)
    moved = False
    for child in measure.children:
        element = child.element
        child.at = at
        child.staff = max((number(element.findtext("staff")) or 1) - 1, 0)
        if element.tag == "attributes":
            stated = number(element.findtext("divisions"))
            measure.stated |= bool(stated)
            measure.splits |= bool(stated) and moved and stated != divisions
            divisions = max(stated or divisions, 1)
            if not moved:
                measure.divisions = divisions
            for key in element.findall("key"):
                fifths = number(key.findtext("fifths")) or 0
                measure.keys.append((at, fifths))
            for transpose in element.findall("transpose"):
                octaves = number(transpose.findtext("octave-change")) or 0
                semitones = (number(transpose.findtext("chromatic")) or 0) + 12 * octaves
                measure.semitones = measure.semitones if moved else semitones
        if element.tag not in MUSIC:
            continue
        moved = True
        duration = Fraction(number(element.findtext("duration")) or 0, divisions)
        if element.tag == "backup":
            at = max(at - duration, Fraction(0))
            continue
        if element.find("chord") is not None:
            child.at = onset
            continue
        onset = at
        at += 0 if element.find("grace") is not None else duration
    return divisions, fifths, semitones


def _put_on_clock(parts: Sequence[list[Measure]], root: Element, score: Score, source: Path) -> None:
    """Start and length of each measure, as `musicxml_read` has them; changes the tree. Raises FormatError."""
    counts = {len(measures) for measures in parts}
    if len(parts) != len(score.parts) or len(counts) != 1:
        raise FormatError(
            f"{source}: has {len(parts)} parts of {sorted(counts)} measures, {len(score.parts)} are read; {ELSEWHERE}"
        )
    facts = list(take_facts(root).values())
    count = counts.pop()
    staff = Staff([], [0] * count, 0)
    bars, end = agree_on_bars([staff], facts)
    if bars != score.bars.tolist():
        raise FormatError(f"{source}: its measures are not the {len(score.bars)} bars that are read of it; {ELSEWHERE}")
    bounds = [*staff.starts, end]
    for measures in parts:
        for index, measure in enumerate(measures):
            measure.start, measure.length = bounds[index], bounds[index + 1] - bounds[index]


def spans_over(measures: Sequence[Measure], first: int, until: int) -> list[Span]:
    """The ends in measures first..until-1 of slurs and their like whose other end stands outside."""
    marks: list[tuple[int, Fraction, int, Element, int]] = []
    for index, measure in enumerate(measures):
        for child in measure.music():
            for mark in _marks(child.element):
                marks.append((index, child.at, len(marks), mark, child.staff))
    marks.sort(key=lambda m: m[:3])
    waiting: dict[tuple[str, str], tuple[int, Element, int]] = {}
    found = []
    for index, _, _, mark, staff in marks:
        name = (mark.tag, mark.get("number", "1"))
        if mark.get("type") == "start":
            waiting[name] = (index, mark, staff)
        elif mark.get("type") == "stop" and name in waiting:
            begun, start, of_start = waiting.pop(name)
            if begun < first <= index < until:
                found.append(Span(mark, staff, into=True))
            elif first <= begun < until <= index:
                found.append(Span(start, of_start, into=False))
    return found


def _marks(note: Element) -> Iterator[Element]:
    """Marks on a note that have two ends: those that stop there come first."""
    found = [mark for notations in note.findall("notations") for mark in notations.iter() if mark.tag in SPANNING]
    return iter(sorted(found, key=lambda mark: mark.get("type") != "stop"))
