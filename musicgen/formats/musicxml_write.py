"""Score to MusicXML 4.0, partwise, built directly as XML: fast for a full orchestra, and nothing is guessed on the way.

Every part is written at sounding pitch (a concert score), so no part transposes. Keyboards and harp with a wide range
get two staves. Notes that overlap go into up to four voices a staff; where those don't do, the bar is written as one
voice of tied chords. Grace notes stand before what begins on their onset, or where nothing does in a voice of their
own. Sections are rehearsal marks, with repeat signs for the order in which they are played where those can say it;
jumps are words and signs that sound. Read back, a written score has the same notes, grace notes, bars, signs and maps.
Here the file is put together and written: `musicxml_header` says what stands before the music, `musicxml_part` a part.

Knowingly lost: a nameless part takes its instrument's name; tempos keep six significant digits; a metre or key that
begins inside a bar is written at the next barline; signs that are off the barlines and chord symbols that don't begin
with a root are left out; grace notes lose gaps in the count of their places, and those of one place share a slash; the
last barline is always drawn as final. Lengths off the grid of 128ths, triplets and quintuplets are exact in sound but
printed as the nearest value: quantise a performance before engraving it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from musicgen.errors import FormatError
from musicgen.formats.musicxml_header import write_header
from musicgen.formats.musicxml_part import PartWriter
from musicgen.formats.sections import draw_order
from musicgen.score import Score


def write(
    score: Score,
    path: str | Path,
    *,
    mark_from: int | None = None,
    mark_until: int | None = None,
    mark_parts: Collection[int] = (),
) -> None:
    """Write one score, zipped where the suffix is .mxl. To tell new notes from old, blue are the noteheads of what
    begins in [mark_from, mark_until), in ticks, until None: to the end; and all of the parts mark_parts, from 0.

    Raises FormatError where the score has no part, or the file can't be written.
    """
    if not score.parts:
        raise FormatError(f"{path}: a score without parts can't be written as MusicXML")
    root = to_tree(score, mark_from=mark_from, mark_until=mark_until, mark_parts=mark_parts)
    ElementTree.indent(root, " ")
    text = (
        '<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE score-partwise PUBLIC '
        '"-//Recordare//DTD MusicXML 4.0 Partwise//EN" "http://www.musicxml.org/dtds/partwise.dtd">\n'
        + ElementTree.tostring(root, encoding="unicode")
        + "\n"
    )
    try:
        if Path(path).suffix.lower() == ".mxl":
            _write_zipped(text, path)
        else:
            Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror or error}") from error


def to_tree(
    score: Score, *, mark_from: int | None = None, mark_until: int | None = None, mark_parts: Collection[int] = ()
) -> Element:
    """The root element of what `write` writes, of a score that has a part."""
    root = Element("score-partwise", version="4.0")
    drawn = draw_order(score)
    write_header(root, score, drawn=bool(drawn))
    if drawn:
        score = replace(score, signs=score.signs + drawn)
    for number, part in enumerate(score.parts, 1):
        marked = (0, None) if number - 1 in mark_parts else (mark_from, mark_until)
        root.append(PartWriter(score, part, number, *marked).write())
    return root


CONTAINER = """<?xml version="1.0" encoding="UTF-8"?>
<container>
 <rootfiles>
  <rootfile full-path="score.musicxml" media-type="application/vnd.recordare.musicxml+xml"/>
 </rootfiles>
</container>
"""
"""META-INF/container.xml of an .mxl: its score is the member score.musicxml."""


def _write_zipped(text: str, path: str | Path) -> None:
    """An .mxl file: the score, and the container that names it. The same score gives the same bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in (("META-INF/container.xml", CONTAINER), ("score.musicxml", text)):
            entry = zipfile.ZipInfo(name)  # dated 1980, as there is no other date
            archive.writestr(entry, content.encode("utf-8"), zipfile.ZIP_DEFLATED)
