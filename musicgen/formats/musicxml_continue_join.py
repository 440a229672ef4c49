"""Parts that join in where a MusicXML file is continued: a <score-part> and a <part> more, of rests up to the seam.

In come the file's parts as `musicxml_continue_scan` found them and the parts that join in, empty up to the seam; out
come parts without a bar of their own, whose tails `musicxml_continue` writes as it does for parts that stopped early,
and then the elements and where in the file they stand: behind the others. Their bars are those of another part: its
numbers, metres, keys and barlines, repeats too.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from xml.etree.ElementTree import Element

from musicgen.formats.instruments import DRUM_STAFF, GRAND_STAFF, clef_for
from musicgen.formats.musicxml_continue_file import find_space_before, serialise_element
from musicgen.formats.musicxml_continue_scan import Bar, Drum, OpenPart, Staff
from musicgen.formats.musicxml_elements import add
from musicgen.formats.musicxml_header import list_part
from musicgen.score import TICKS_PER_QUARTER, Key, Part

_KEPT = ("bar-style", "ending", "repeat")
"""What of another part's barlines is said again."""


def open_parts(data: bytes, parts: Sequence[OpenPart], joining: Sequence[Part], key: Key) -> list[OpenPart]:
    """For each part that joins in one that has no bar yet; key: as it sounds at the seam."""
    bars = choose_model(parts).bars
    taken = {name.decode("utf-8", "replace") for name in re.findall(rb"\bid\s*=\s*[\"']([^\"']+)[\"']", data)}
    found = []
    number = 0
    for part in joining:
        number = next(n for n in range(number + 1, number + len(taken) + 2) if f"P{n}" not in taken)
        opened = OpenPart(f"P{number}", missing=bars, divisions=TICKS_PER_QUARTER, unpitched=part.is_drum)
        opened.fifths = 0 if part.is_drum else key.fifths
        opened.staves = [Staff() for _ in range(1 + (not part.is_drum and part.program in GRAND_STAFF))]
        for pitch in set(part.notes["pitch"].tolist()) if part.is_drum else ():
            step, octave, head = DRUM_STAFF.get(pitch, ("C", 5, "normal"))
            opened.drums[pitch] = Drum(step, str(octave), head, f"{opened.identity}-I{pitch + 1}")
        found.append(opened)
    return found


def put_in_parts(
    data: bytes,
    parts: Sequence[OpenPart],
    joining: Sequence[Part],
    opened: Sequence[OpenPart],
    measures: Sequence[Sequence[Element]],
    key: Key,
) -> list[tuple[int, bytes, int]]:
    """(offset, bytes to put in there, 0) for parts that join in. measures: all of each, as they came from its tail."""
    model = choose_model(parts)
    listing = Element("part-list")
    written = []
    for part, own, bars in zip(joining, opened, measures, strict=True):
        list_part(listing, part, int(own.identity[1:]))
        for index, (bar, measure) in enumerate(zip(model.bars, bars, strict=False)):
            _as_in(bar, measure, own, keys=not model.semitones, first=index == 0)
        _open(bars[0], part, own, model.bars[0], key)
        element = Element("part", id=own.identity)
        element.extend(bars)
        written.append(element)
    places = (re.compile(rb"</part-list\s*>"), list(listing)), (re.compile(rb"</score-partwise\s*>"), written)
    found = []
    for end, elements in places:
        offset = [match.start() for match in end.finditer(data)][-1]
        space = find_space_before(data, offset)
        found.append((offset, b"".join(b"  " + serialise_element(element, 2) + space for element in elements), 0))
    return found


def choose_model(parts: Sequence[OpenPart]) -> OpenPart:
    """A part whose bars the new ones take over: one of the longest, if possible one written as it sounds."""
    most = max(len(part.bars) for part in parts)
    longest = [part for part in parts if len(part.bars) == most]
    return next((part for part in longest if not part.semitones and not part.unpitched), longest[0])


def _as_in(bar: Bar, measure: Element, own: OpenPart, *, keys: bool, first: bool) -> None:
    """A bar of rests made one with the others' bar: its key if `keys`, its barlines, whether it is counted."""
    if bar.number != measure.get("number"):
        return  # half-filled in the others, whole and new in this one
    if bar.measure.get("implicit"):
        measure.set("implicit", bar.measure.get("implicit", ""))
    signature = bar.measure.find("attributes/key")
    if keys and signature is not None and not own.unpitched:
        attributes = _attributes(measure)
        attributes.insert(0, copy.deepcopy(signature))
        attributes[0].attrib.pop("number", None)
    if measure.find("barline") is not None:
        return
    for line in bar.measure.findall("barline"):
        kept = [copy.deepcopy(child) for child in line if child.tag in _KEPT]
        if kept:
            again = Element("barline", location=line.get("location", "right"))
            again.extend(kept)
            measure.insert(0 if again.get("location") == "left" else len(measure), again)


def _open(measure: Element, part: Part, own: OpenPart, bar: Bar, key: Key) -> None:
    """What a part opens with: the length of a quarter, its key and metre, its staves and clefs."""
    attributes = _attributes(measure)
    for divisions in attributes.findall("divisions"):
        attributes.remove(divisions)
    signature, time = attributes.find("key"), attributes.find("time")
    if signature is None:
        signature = Element("key")
        add(signature, "fifths", own.fifths)
        add(signature, "mode", key.mode)
    if time is None and bar.time is not None:
        time = copy.deepcopy(bar.time)
    attributes.clear()
    add(attributes, "divisions", own.divisions)
    attributes.extend([signature, *([time] if time is not None else [])])
    staves = len(own.staves)
    if staves > 1:
        add(attributes, "staves", staves)
    alone = clef_for(part.program, part.notes["pitch"].tolist(), part.name)
    for staff in range(staves):
        sign, line, octave = (("G", 2, 0), ("F", 4, 0))[staff] if staves > 1 else alone
        clef = add(attributes, "clef", **({"number": str(staff + 1)} if staves > 1 else {}))
        add(clef, "sign", "percussion" if part.is_drum else sign)
        if not part.is_drum:
            add(clef, "line", line)
            if octave:
                add(clef, "clef-octave-change", octave)


def _attributes(measure: Element) -> Element:
    """The measure's <attributes>, put in behind a left barline if there are none."""
    found = measure.find("attributes")
    if found is None:
        found = Element("attributes")
        behind = len(measure) > 0 and measure[0].tag == "barline" and measure[0].get("location") == "left"
        measure.insert(int(behind), found)
    return found
