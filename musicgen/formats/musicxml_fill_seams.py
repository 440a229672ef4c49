"""The edges of bars that are written anew in a MusicXML file: ties, slurs and divisions that lead over them.

In come the measures of a part and the new elements; slurs get the end back that stood in the hole, and edits of the
measure behind it come out: a tie from a note that is gone is taken away, the file's divisions are stated again.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from xml.etree.ElementTree import Element

from musicgen.formats.musicxml_continue import ACCIDENTALS
from musicgen.formats.musicxml_continue_scan import number, place_of, written_pitch
from musicgen.formats.musicxml_elements import add
from musicgen.formats.musicxml_fill_bar import Edit, state
from musicgen.formats.musicxml_fill_scan import MUSIC, Child, Measure, Span
from musicgen.formats.notation import signature_alter
from musicgen.score import Part


def taken(counter: Counter[int], pitch: int, asked: bool) -> bool:
    """Whether a pitch is left in the counter, from which it is taken then."""
    if not asked or counter[pitch] <= 0:
        return False
    counter[pitch] -= 1
    return True


def attach(bars: list[list[list[Element]]], span: Span) -> None:
    """The end of a slur that stood in the hole, on the first note of its staff there, or on the last."""
    notes: list[tuple[bool, int, int, Element]] = []
    for index, staves in enumerate(bars):
        at = 0
        for element in staves[min(span.staff, len(staves) - 1)]:
            length = number(element.findtext("duration")) or 0
            if element.tag == "note" and element.find("chord") is None and element.find("grace") is None:
                silent = element.find("rest") is not None
                notes.append((silent, index, at if span.into else at + length, element))
            if element.find("chord") is None:
                at += -length if element.tag == "backup" else length
    if not notes:
        return
    sounding = [note for note in notes if not note[0]] or notes
    key = [note[1:3] for note in sounding]
    best = sounding[key.index(min(key) if span.into else max(key))][3]
    notations = best.find("notations")
    if notations is None:
        notations = add(best, "notations")
    if span.element.tag == "wavy-line":
        notations = add(notations, "ornaments")
    kept = {k: v for k, v in span.element.attrib.items() if k in ("type", "number", "placement", "line-type")}
    add(notations, span.element.tag, **kept)


def restate(data: bytes, measures: Sequence[Measure], until: int, divisions: int) -> list[Edit]:
    """The file's divisions stated again behind the hole, where it has others at its end."""
    if until == len(measures):
        return []
    behind = measures[until]
    lead = behind.children[: next((i for i, c in enumerate(behind.children) if c.element.tag in MUSIC), None)]
    if behind.divisions == divisions or any(child.element.find("divisions") is not None for child in lead):
        return []
    return [state(data, behind)]


def mend_ties(data: bytes, measures: Sequence[Measure], first: int, until: int, part: Part) -> list[Edit]:
    """Ties taken away, in the measure behind the hole, that came from notes which are gone; part: as it was."""
    if until == len(measures):
        return []
    notes, behind = part.notes, measures[until]
    start, stop = measures[first].start, behind.start
    cut = (notes["onset"] >= start) & (notes["onset"] < stop) & (notes["onset"] + notes["duration"] > stop)
    gone = Counter(notes["pitch"][cut].tolist())
    found = []
    for child in behind.music():
        pitch = written_pitch(child.element)
        if pitch is None or child.at or child.element.find("tie[@type='stop']") is None:
            continue
        if taken(gone, pitch + behind.semitones, True):
            found.append((child.begin, child.end, _untied(data[child.begin : child.end], child, behind)))
    return found


def _untied(text: bytes, child: Child, measure: Measure) -> bytes:
    """A note without the tie that leads to it, and with an accidental where it needs one now."""
    for tag in (b"tie", b"tied"):
        text = re.sub(
            rb"\s*<" + tag + rb"\s(?=[^>]*type\s*=\s*[\"']stop[\"'])[^>]*?(?:/>|>\s*</" + tag + rb"\s*>)", b"", text
        )
    text = re.sub(rb"\s*<notations\b[^>/]*>\s*</notations\s*>", b"", text)
    place = place_of(child.element)
    if place is None or child.element.find("accidental") is not None:
        return text
    (step, _), alter = place
    fifths = next((f for at, f in reversed(measure.keys) if not at), measure.fifths)
    if alter == signature_alter(step, fifths):
        return text
    sign = f"<accidental>{ACCIDENTALS.get(alter, 'natural')}</accidental>".encode()
    ends = list(re.finditer(rb"(\s*)(?:<dot\b[^>]*?(?:/>|>\s*</dot\s*>)|</type\s*>|</voice\s*>)", text))
    if not ends:
        return text
    last = max(ends, key=lambda match: match.end())
    space = re.findall(rb"(\s*)<(?:type|voice|duration)\b", text)
    return text[: last.end()] + (space[-1] if space else b"") + sign + text[last.end() :]
