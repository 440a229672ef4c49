"""What stands before the music in a MusicXML file: title, who wrote the file, the order of sections, the part list.

In comes a score, out come the elements that open the file's root (the "score header" of the schema). The part list says
each part's name, abbreviation and sound; drums get one instrument for each key that is struck.
"""

from __future__ import annotations

import json
from xml.etree.ElementTree import Element, SubElement

from musicgen.formats.instruments import abbreviate
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
