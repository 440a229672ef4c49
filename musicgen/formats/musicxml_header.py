"""What stands before the music in a MusicXML file: title, who wrote the file, the order of sections, the part list.

In comes a score, out come the elements that open the file's root (the "score header" of the schema). The part list says
each part's name, abbreviation and sound, and which parts a bracket holds together; drums get one instrument for each
key that is struck.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import groupby, pairwise
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from musicgen.formats.instruments import GRAND_STAFF, abbreviate, has_singers, plain_name, section_of
from musicgen.formats.musicxml_elements import add, clean
from musicgen.formats.musicxml_read import DRAWN_FIELD, ORDER_FIELD
from musicgen.score import Part, Score
from musicgen.score.general_midi import DRUM_KIT, PROGRAM_NAMES


def write_header(root: Element, score: Score, drawn: bool) -> None:
    """Everything up to the first part. drawn: the order of sections is drawn as repeat signs too, for a page."""
    if score.title:
        add(SubElement(root, "work"), "work-title", clean(score.title))
    identification = SubElement(root, "identification")
    encoding = SubElement(identification, "encoding")
    add(encoding, "software", "musicgen")
    for feature in ("accidental", "beam"):
        SubElement(encoding, "supports", element=feature, type="yes")
    if score.order:
        fields = SubElement(identification, "miscellaneous")
        add(fields, "miscellaneous-field", json.dumps(score.order), name=ORDER_FIELD)
        if drawn:
            add(fields, "miscellaneous-field", "yes", name=DRAWN_FIELD)
    part_list = SubElement(root, "part-list")
    for number, part in enumerate(score.parts, 1):
        list_part(part_list, part, number)
    singers, hands = has_singers([part.name for part in score.parts]), find_hands(score.parts)
    sections = [section_of(part.name, part.program, part.is_drum, singers) for part in score.parts]
    bracket_sections(part_list, ["hands" if i in hands else section for i, section in enumerate(sections)])


def _name_once(opening: Element, members: Sequence[Element]) -> None:
    """Where the hands of a player have one name, it stands between their staves."""
    for tag, group_tag in (("part-name", "group-name"), ("part-abbreviation", "group-abbreviation")):
        names = [member.find(tag) for member in members]
        if len({None if name is None else name.text for name in names}) == 1 and names[0] is not None:
            add(opening, group_tag, names[0].text)
            for name in names:
                if name is not None:
                    name.set("print-object", "no")


def find_hands(parts: Sequence[Part]) -> frozenset[int]:
    """Which parts, counted from 0, are a hand of a keyboard player, and so have one staff: neighbours that are called
    right and left, or two that have one name or none, the second lower."""
    found: set[int] = set()
    for i, (upper, lower) in enumerate(pairwise(parts)):
        keyboards = all(p.program in GRAND_STAFF and not p.is_drum and len(p.notes) for p in (upper, lower))
        if not keyboards or upper.program != lower.program:
            continue
        named = all(_HAND.search(plain_name(part.name)) for part in (upper, lower))
        pair = upper.name == lower.name and np.median(lower.notes["pitch"]) < np.median(upper.notes["pitch"])
        if named or (pair and i not in found):
            found |= {i, i + 1}
    return frozenset(found)


_HAND = re.compile(
    r"\b(right|r h|rh|rechts?|rechte hand|droite|destra|upper|left|l h|lh|links?|linke hand|gauche|sinistra|lower)\b"
)


def bracket_sections(part_list: Element, sections: Sequence[str]) -> None:
    """Brackets, as <part-group>, around neighbours of one section, "" for none; one for each <score-part>.

    The "hands" of a keyboard player have a brace. Barlines go through all but the staves of singers, between which the
    words stand.
    """
    listed = part_list.findall("score-part")
    number = 0
    for section, run in groupby(zip(sections, listed, strict=True), key=lambda pair: pair[0]):
        members = [part for _, part in run]
        if not section or len(members) < 2:
            continue
        number += 1
        opening = Element("part-group", number=str(number), type="start")
        if section == "hands":
            _name_once(opening, members)
        add(opening, "group-symbol", "brace" if section == "hands" else "bracket")
        add(opening, "group-barline", "no" if section == "voices" else "yes")
        part_list.insert(list(part_list).index(members[0]), opening)
        closing = Element("part-group", number=str(number), type="stop")
        part_list.insert(list(part_list).index(members[-1]) + 1, closing)


def list_part(part_list: Element, part: Part, number: int) -> None:
    """The part's <score-part>: name, sound, and for drums one instrument a key."""
    listed = add(part_list, "score-part", id=f"P{number}")
    name = clean(part.name) or ("Drumset" if part.is_drum else PROGRAM_NAMES[part.program])
    add(listed, "part-name", name)
    add(listed, "part-abbreviation", abbreviate(name, None if part.is_drum else part.program))
    if part.is_drum:
        keys = sorted({*part.notes["pitch"].tolist(), *part.graces["pitch"].tolist()}) or [38]
        for key in keys:
            add(add(listed, "score-instrument", id=f"P{number}-I{key + 1}"), "instrument-name", _drum_name(key))
        for key in keys:
            midi = add(listed, "midi-instrument", id=f"P{number}-I{key + 1}")
            add(midi, "midi-channel", 10)
            add(midi, "midi-program", 1)
            add(midi, "midi-unpitched", key + 1)
        return
    add(add(listed, "score-instrument", id=f"P{number}-I1"), "instrument-name", PROGRAM_NAMES[part.program])
    midi = add(listed, "midi-instrument", id=f"P{number}-I1")
    channel = (number - 1) % 15 + 1
    add(midi, "midi-channel", channel if channel < 10 else channel + 1)
    add(midi, "midi-program", part.program + 1)


def _drum_name(key: int) -> str:
    return DRUM_KIT.get(key, f"Percussion {key}")
