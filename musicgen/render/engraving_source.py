"""What verovio is given to engrave: MusicXML, with everything blue that is new.

In comes a score, or a file. MusicXML is taken as it is written, with its slurs and words; ABC as our reader reads it,
with its slurs, words and ornaments put back by `engraving_abc`; anything else as a score. Out comes the text of a
MusicXML file, in which notes and rests that are new have a colour, and neighbours of one section a bracket, if the
file itself has none.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from musicgen.errors import FormatError, RenderError
from musicgen.formats import read_score
from musicgen.formats.files import MAX_FILE_BYTES, WRITERS
from musicgen.formats.instruments import has_singers, section_of
from musicgen.formats.musicxml_continue_file import open_score
from musicgen.formats.musicxml_header import bracket_sections
from musicgen.formats.musicxml_part import MARK_COLOUR
from musicgen.formats.musicxml_write import to_tree
from musicgen.render.engraving_abc import put_in_marks, read_marked
from musicgen.render.engraving_score import for_page
from musicgen.score import TICKS_PER_QUARTER, Score

MAX_UNZIPPED = 4 * MAX_FILE_BYTES
MAX_NOTES = 250_000
"""Five times a long symphonic movement."""
MAX_STAVES = 100


@dataclass(frozen=True)
class New:
    """What is new: whatever begins in [seam, until), in quarter notes, and all of some parts, counted from 0.

    seam None: no such stretch, or new and old stand side by side in it. until None: to the end.
    """

    seam: float | None = None
    until: float | None = None
    parts: frozenset[int] = frozenset()

    def reaches(self, quarters: float) -> bool:
        """Whether the stretch has this moment in it."""
        after = self.until is not None and quarters >= self.until - 1e-4
        return self.seam is not None and quarters >= self.seam - 1e-4 and not after


@dataclass(frozen=True)
class Source:
    """text: MusicXML. staves: how many a system has. name: of the score, for errors."""

    text: str
    staves: int
    name: str
    new: New


def read_source(
    source: Score | Path, seam: int | None = None, until: int | None = None, new_parts: Collection[int] = ()
) -> Source:
    """The MusicXML to engrave. What is new as `engraving.engrave` takes it. Raises FormatError or RenderError."""
    begin, stop = (None if tick is None else tick / TICKS_PER_QUARTER for tick in (seam, until))
    new = New(begin, stop, frozenset(new_parts))
    if isinstance(source, Score):
        return _finished(_tree_of(source, source.title), new, source.title or "the score")
    kind = WRITERS.get(source.suffix.lower())
    if kind == "musicxml":
        return _finished(_read_tree(source), new, str(source))
    if kind == "abc":
        tune = read_marked(source)
        root = _tree_of(tune.score, str(source))
        put_in_marks(root, tune, _first_notes(root))
    else:
        root = _tree_of(read_score(source, as_written=True), str(source))
    return _finished(root, new, str(source))


def _tree_of(score: Score, name: str) -> Element:
    if not score.parts:
        raise RenderError(f"{name or 'the score'}: has no parts, so there is nothing to engrave")
    root = to_tree(for_page(score))
    if len(score.parts) == 1 and not score.parts[0].name:  # a tune for anything
        for element in root.iterfind("part-list/score-part/*"):
            if element.tag in ("part-name", "part-abbreviation"):
                element.text = ""
    return root


def _read_tree(path: Path) -> Element:
    """The root of a plain or zipped MusicXML file."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise FormatError(f"{path}: more than the {MAX_FILE_BYTES:,} bytes that are read; split the file")
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if sum(info.file_size for info in archive.infolist()) > MAX_UNZIPPED:
                    raise FormatError(f"{path}: unpacks to more than the {MAX_UNZIPPED:,} bytes that are read")
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror or error}") from error
    data = open_score(path)[2]
    if b"<!ENTITY" in data.replace(b"\0", b""):
        raise FormatError(f"{path}: it declares XML entities, which no score needs; remove the <!ENTITY lines")
    try:
        return ElementTree.fromstring(data)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise FormatError(f"{path}: not well-formed XML ({error}); export it again") from error


def _finished(root: Element, new: New, name: str) -> Source:
    """The source, its colours and brackets put in."""
    if root.tag != "score-partwise" or root.find("part/measure") is None:
        raise RenderError(f"{name}: no parts and bars as a <score-partwise> has them; export it again")
    staves = sum(max([1, *(_whole(e.text) for e in part.iter("staves"))]) for part in root.iterfind("part"))
    if staves > MAX_STAVES:
        raise RenderError(f"{name}: {staves} staves, more than the {MAX_STAVES} that are engraved; take fewer parts")
    notes = sum(1 for _ in root.iter("note"))
    if notes > MAX_NOTES:
        raise RenderError(f"{name}: {notes:,} notes, more than the {MAX_NOTES:,} that are engraved; cut it in pieces")
    _clear(root)
    _head(root)
    found = _colour(root, new)
    _bracket(root)
    return Source(ElementTree.tostring(root, encoding="unicode"), staves, name, found)


def _clear(root: Element) -> None:
    """Take out what was said of another page: its measures, and texts at places on it (title and names are said
    elsewhere too). Names of parts have one line, and a tempo mark in words that has no place goes above the staff."""
    for tag in ("defaults", "credit"):
        for element in root.findall(tag):
            root.remove(element)
    for name in root.iterfind("part-list/score-part/*"):
        if name.tag in ("part-name", "part-abbreviation"):
            name.text = " ".join((name.text or "").split())
    for direction in root.iter("direction"):
        words = direction.find("direction-type/words")
        if words is not None and "placement" not in direction.attrib and words.get("font-weight") == "bold":
            direction.set("placement", "above")


def _head(root: Element) -> None:
    """Title and what stands under it, said as verovio prints it: it takes the movement's title, and its number."""
    said = {name: (root.findtext(name) or "").strip() for name in ("movement-number", "movement-title")}
    work = (root.findtext("work/work-title") or "").strip()
    title, number = said["movement-title"] or work, said["movement-number"]
    if number and said["movement-title"] and not title.startswith(number):
        title = f"{number}. {title}"
    under = [work] if work and work not in title else []
    for creator in root.iterfind("identification/creator"):
        role, name = creator.get("type", ""), (creator.text or "").strip()
        if name and role in _ROLES and len(name) <= LONGEST_NAME:
            under.append(_ROLES[role] + name)
    for name, text in (("movement-number", " · ".join(under)), ("movement-title", title)):
        element = root.find(name)
        if element is None:
            element = Element(name)
            root.insert(1 if root.find("work") is not None else 0, element)
        element.text = text


LONGEST_NAME = 60
"""Letters of a creator's name beyond which it is none, but a note on sources."""
_ROLES = {"composer": "", "lyricist": "words: ", "poet": "words: ", "arranger": "arranged by "}


def _whole(text: str | None) -> int:
    return int(text) if text and text.strip().isdigit() else 0


# --- what is new ------------------------------------------------------------------------------------------------------


def notes_in_time(root: Element) -> Iterator[tuple[int, Element, float]]:
    """(number of the part from 0, a <note>, its onset in quarter notes) for every note and rest of a score."""
    parts = [part.findall("measure") for part in root.iterfind("part")]
    positions = [list(_positions(measures)) for measures in parts]
    starts = [0.0]
    for number in range(max(map(len, parts))):
        starts.append(starts[-1] + max(found[number][1] for found in positions if number < len(found)))
    for part, found in enumerate(positions):
        for start, (notes, _) in zip(starts, found, strict=False):
            for note, place in notes:
                yield part, note, start + place


def _first_notes(root: Element) -> list[dict[int, Element]]:
    """For each part, onset in ticks -> the <note> that opens what begins there, in the first voice that has one."""
    found: list[dict[int, Element]] = [{} for _ in root.findall("part")]
    for part, note, onset in notes_in_time(root):
        if note.find("rest") is None and note.find("grace") is None:
            found[part].setdefault(round(onset * TICKS_PER_QUARTER), note)
    return found


def _positions(measures: list[Element]) -> Iterator[tuple[list[tuple[Element, float]], float]]:
    """For each bar of a part (its notes and their places in it, its length), in quarter notes."""
    divisions = 1.0
    for measure in measures:
        notes: list[tuple[Element, float]] = []
        at = begun = length = 0.0
        for element in measure:
            if element.tag == "attributes":
                divisions = _number(element.findtext("divisions")) or divisions
                continue
            if element.tag not in ("note", "backup", "forward"):
                continue
            duration = _number(element.findtext("duration")) / divisions
            if element.tag == "note":
                if element.find("chord") is not None:
                    notes.append((element, begun))
                    continue
                begun = at
                notes.append((element, at))
            at += -duration if element.tag == "backup" else duration
            length = max(length, at)
        yield notes, length


def _number(text: str | None) -> float:
    try:
        return float(text or 0)
    except ValueError:
        return 0.0


def _colour(root: Element, new: New) -> New:
    """Colour whole notes, where so far a head is blue at the most, and the rests among them; returns what is new.

    Where heads are blue already, the stretch counts only as far as they agree with it.
    """
    timed = list(notes_in_time(root))
    heads = [note for note in timed if _is_blue(note[1])]
    if heads:
        first = min(onset for _, _, onset in heads)
        old = [at for part, note, at in timed if part not in new.parts and _begins(note) and not _is_blue(note)]
        last = max(old, default=-1.0)
        if new.seam is not None and new.until is not None:
            if any(new.reaches(at) for at in old):
                new = replace(new, seam=None)  # old and new side by side: the rests there are anybody's
        elif new.parts:
            new = replace(new, seam=None)
        elif last >= first - 1e-6:
            new = replace(new, seam=None)  # it is old music after it that is new in places
        elif new.seam is None or not last < new.seam <= first:
            new = replace(new, seam=first)
    held: dict[tuple[int, str], bool] = {}  # (part, pitch) -> whether what is tied on there is new
    for part, note, onset in timed:
        blue = part in new.parts or new.reaches(onset)
        if note.find("rest") is None:
            ties = {tie.get("type") for tie in note.iterfind("tie")}
            pitch = "".join(e.text or "" for e in note.iterfind("pitch/*"))
            if heads:
                blue = _is_blue(note)
            elif "stop" in ties:
                blue = held.get((part, pitch), blue)
            if "start" in ties:
                held[(part, pitch)] = blue
        if blue:
            note.set("color", MARK_COLOUR)
            for sign in note.iterfind("notations/*"):
                if sign.tag in ("tied", "slur"):
                    sign.set("color", MARK_COLOUR)
    return new


def _begins(note: Element) -> bool:
    """Whether it is a note, and not held from one before it."""
    return note.find("rest") is None and all(tie.get("type") != "stop" for tie in note.iterfind("tie"))


def _is_blue(note: Element) -> bool:
    head = note.find("notehead")
    return head is not None and head.get("color", "").lower() == MARK_COLOUR


# --- brackets ---------------------------------------------------------------------------------------------------------


def _bracket(root: Element) -> None:
    """Brackets by section, for a file that says nothing of any."""
    part_list = root.find("part-list")
    if part_list is None or part_list.find("part-group") is not None:
        return
    listed = part_list.findall("score-part")
    names = [part.findtext("part-name") or "" for part in listed]
    singers = has_singers(names)
    sections = []
    for name, part in zip(names, listed, strict=True):
        midi = part.find("midi-instrument")
        program = 0 if midi is None else min(max(_whole(midi.findtext("midi-program")) - 1, 0), 127)
        is_drum = midi is not None and midi.find("midi-unpitched") is not None
        sections.append(section_of(name, program, is_drum, singers))
    bracket_sections(part_list, sections)
