"""Adding parts to a MusicXML file without touching what is in it: a <score-part> and a <part> more for each.

In come the original file, the score that was read of it and the same with parts behind its own; out goes the original,
byte for byte, with the new parts behind the others, below their braces. Their measures are those of the file one for
one, in number, length and barlines; their music is written at sounding pitch, with clefs by their range, and noteheads
are blue. Of an .mxl every other member of the zip stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import Element

from musicgen.formats.musicxml_continue import check_parts
from musicgen.formats.musicxml_continue_file import in_utf8, open_score, write_score
from musicgen.formats.musicxml_continue_join import choose_model, open_parts, put_in_parts
from musicgen.formats.musicxml_continue_scan import OpenPart, Staff, number, scan
from musicgen.formats.musicxml_elements import add
from musicgen.formats.musicxml_fill_scan import Measure, measures_of
from musicgen.formats.musicxml_part import PartWriter
from musicgen.score import Key, Part, Score


def check_adding(original: Path, score: Score) -> None:
    """Raises FormatError unless parts can be put into the file behind its own."""
    _open(original, in_utf8(open_score(original)[2])[0], score)


def _open(original: Path, data: bytes, score: Score) -> tuple[list[OpenPart], list[Measure]]:
    """(the parts at their ends, the measures of the first of them). Raises FormatError."""
    parts = scan(data, original)
    check_parts(original, parts, score)
    return parts, measures_of(data, score, original)[0]


def write_with_parts(original: Path, score: Score, whole: Score, path: Path) -> None:
    """Write `original` with the parts of `whole` that come after those of `score`. Raises FormatError."""
    members, name, raw = open_score(original)
    data, encoding = in_utf8(raw)
    parts, measures = _open(original, data, score)
    joining, key = whole.parts[len(score.parts) :], whole.keys[0]
    opened = open_parts(data, parts, joining, key)
    keys = () if not choose_model(parts).semitones else whole.keys[1:]  # else they are copied with the others' bars
    written = [_measures(whole, part, own, measures, keys) for part, own in zip(joining, opened, strict=True)]
    made, at = bytearray(), 0
    for offset, more, _ in sorted(put_in_parts(data, parts, joining, opened, written, key), key=lambda put: put[0]):
        made += data[at:offset] + more
        at = offset
    made += data[at:]
    text = bytes(made) if encoding is None else bytes(made).decode("utf-8").encode(encoding)
    write_score(path, text, members, name)


def _measures(
    whole: Score, part: Part, own: OpenPart, measures: Sequence[Measure], keys: Sequence[Key]
) -> list[Element]:
    """A new part's measures, one for each of the file's; `keys`: the changes to be stated in them. Sets its staves."""
    writer = PartWriter(replace(whole, signs=(), chord_symbols=()), part, number(own.identity[1:]) or 1, 0)
    own.staves = [Staff() for _ in writer.staves]
    found = []
    for measure in measures:
        made = Element("measure", number=measure.element.get("number", ""))
        attributes = Element("attributes")
        for key in keys if measure.length else ():
            if measure.start <= key.onset < measure.start + measure.length and not part.is_drum:
                signature = add(attributes, "key")
                add(signature, "fifths", key.fifths)
                add(signature, "mode", key.mode)
        attributes.extend(measure.element.findall("attributes/time")[:1])
        if len(attributes):
            made.append(attributes)
        if measure.length:
            writer._music(made, measure.start, measure.start + measure.length)
        found.append(made)
    return found
