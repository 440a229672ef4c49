"""One measure of a MusicXML file with new notes: which bytes go, and what stands in their place.

In come the measure and the new notes, rests, backups and forwards of each staff, with lengths in ticks; out come edits
of the file's bytes. What the measure holds beside its music stays, byte for byte, at its place in time: before the new
note of its staff that begins there, or behind them all with a step back. Lengths become the file's `divisions`, or
finer ones stated first, where these have no whole number for one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from math import gcd, lcm
from xml.etree.ElementTree import Element

from musicgen.formats.musicxml_continue_file import find_space_before, serialise_element
from musicgen.formats.musicxml_continue_scan import number
from musicgen.formats.musicxml_elements import add
from musicgen.formats.musicxml_fill_scan import MUSIC, Child, Measure
from musicgen.score import TICKS_PER_QUARTER

Edit = tuple[int, int, bytes]
"""(from, to, what stands there instead), as offsets in the file."""


def bar_edits(data: bytes, measure: Measure, staves: list[list[Element]], divisions: int) -> tuple[list[Edit], int]:
    """What changes in a measure that is written anew, and the divisions at its end.

    staves: the new elements of each, lengths in ticks; divisions: as they are, in what is written, before it.
    """
    music = measure.music()
    at = measure.children.index(music[0]) if music else _lead(measure)
    behind = measure.children.index(music[-1]) + 1 if music else at
    lead, middle, trail = measure.children[:at], measure.children[at:behind], measure.children[behind:]
    entries, ends = _laid(staves, measure.length)
    loose = _put_among(entries, [c for c in middle if c.element.tag not in MUSIC], staves, ends)
    stream: list[Element | Child] = [entry for group in entries for entry in group]
    cursor = Fraction(measure.length)
    for child in loose:
        cursor = _step_to(stream, cursor, child.at * TICKS_PER_QUARTER)
        stream.append(child)
    timed = [child for child in trail if child.element.tag not in ("barline", "print", "attributes")]
    if timed and music and timed[0].at * TICKS_PER_QUARTER != cursor:
        _step_to(stream, cursor, timed[0].at * TICKS_PER_QUARTER)

    elements = [entry for entry in stream if isinstance(entry, Element)]
    fine = _finer(elements, measure.divisions)
    states = any(child.element.find("divisions") is not None for child in lead)
    found: list[Edit] = []
    if states:
        divisions = measure.divisions
    if divisions != measure.divisions and any(child.element.find("offset") is not None for child in lead):
        found.append(state(data, measure))
        divisions = measure.divisions
    begin = music[0].begin if music else measure.children[at].begin if trail else measure.close
    end = music[-1].end if music else begin
    space = find_space_before(data, measure.children[0].begin if measure.children else measure.close) or b"\n"
    texts = []
    if fine != divisions:
        texts.append(serialise_element(_statement(fine), 3))
    scale = Fraction(fine, TICKS_PER_QUARTER)
    for entry in stream:
        if isinstance(entry, Element):
            for length in (e for e in entry.iter() if e.tag in ("duration", "offset")):
                length.text = str(int(int(length.text or 0) * scale))
            texts.append(serialise_element(entry, 3))
        else:
            texts.append(_rescaled(data[entry.begin : entry.end], fine, measure.divisions))
    if music:
        found.append((begin, end, space.join(texts)))
    elif measure.opens:
        inner = b"".join(space + b"  " + text for text in texts)
        found.append((data.rindex(b"/", 0, measure.after), measure.after, b">" + inner + space + b"</measure>"))
    else:
        found.append((begin, begin, b"".join(text + find_space_before(data, begin) for text in texts)))
    for child in (*lead, *trail):
        old = data[child.begin : child.end]
        new = _plainly(old) if child.element.tag == "attributes" else old
        new = _rescaled(new, fine, measure.divisions) if child in trail else new
        found += [(child.begin, child.end, new)] if new != old else []
    return found, fine


def state(data: bytes, measure: Measure) -> Edit:
    """The divisions that a measure's lengths are in, put in at its beginning."""
    statement = serialise_element(_statement(measure.divisions), 3)
    if measure.opens:
        return (data.rindex(b"/", 0, measure.after), measure.after, b">" + statement + b"</measure>")
    first = measure.children[0].begin if measure.children else measure.close
    return (first, first, statement + find_space_before(data, first))


def _lead(measure: Measure) -> int:
    """How many children of a measure without music stand before it: all up to the barline at its end."""
    for index, child in enumerate(measure.children):
        if child.element.tag == "barline" and child.element.get("location", "right") != "left":
            return index
    return len(measure.children)


def _laid(staves: list[list[Element]], length: int) -> tuple[list[list[Element | Child]], list[tuple[int, int, int]]]:
    """(the elements of all staves, each in a group of its own; (staff, group, ticks) before each, and at each end)."""
    entries: list[list[Element | Child]] = []
    places = []
    for staff, elements in enumerate(staves):
        if staff:
            back = Element("backup")
            add(back, "duration", length)
            entries.append([back])
        at = 0
        for element in elements:
            if element.find("chord") is None:
                places.append((staff, len(entries), at))
                duration = number(element.findtext("duration")) or 0
                at += -duration if element.tag == "backup" else duration
            entries.append([element])
        places.append((staff, len(entries), at))
    entries.append([])
    return entries, places


def _put_among(
    entries: list[list[Element | Child]],
    kept: Sequence[Child],
    staves: Sequence[list[Element]],
    places: Sequence[tuple[int, int, int]],
) -> list[Child]:
    """What is kept of a measure put before the first new element of its staff at its time; returns what finds none."""
    loose = []
    for child in kept:
        staff = min(child.staff, len(staves) - 1)
        at = child.at * TICKS_PER_QUARTER
        group = next((group for of, group, ticks in places if of == staff and ticks == at), None)
        if group is None:
            loose.append(child)
        else:
            there = sum(isinstance(entry, Child) for entry in entries[group])
            entries[group].insert(there, child)
    return loose


def _step_to(stream: list[Element | Child], cursor: Fraction, to: Fraction) -> Fraction:
    """A backup or forward at the end of the stream, to a place in ticks."""
    if to != cursor:
        add_to = Element("forward" if to > cursor else "backup")
        add(add_to, "duration", round(abs(to - cursor)))
        stream.append(add_to)
    return to


def _finer(elements: Sequence[Element], divisions: int) -> int:
    """The fewest divisions, a multiple of the file's, in which all lengths (in ticks) are whole numbers."""
    lengths = [int(e.text or 0) for element in elements for e in element.iter() if e.tag in ("duration", "offset")]
    return lcm(divisions, TICKS_PER_QUARTER // gcd(TICKS_PER_QUARTER, *lengths))


def _statement(divisions: int) -> Element:
    attributes = Element("attributes")
    add(attributes, "divisions", divisions)
    return attributes


def _rescaled(text: bytes, fine: int, divisions: int) -> bytes:
    """What is kept of the file, its offsets and durations in other divisions."""
    if fine == divisions:
        return text
    pattern = rb"(<(?:offset|duration)\b[^>]*>)\s*(-?\d+(?:\.\d+)?)\s*(?=</)"
    return re.sub(pattern, lambda m: m[1] + b"%d" % round(Fraction(m[2].decode()) * fine / divisions), text)


def _plainly(attributes: bytes) -> bytes:
    """Attributes without signs that draw bars as repeated, as slashes or as one long rest."""
    return re.sub(rb"\s*<measure-style\b.*?</measure-style\s*>", b"", attributes, flags=re.DOTALL)
