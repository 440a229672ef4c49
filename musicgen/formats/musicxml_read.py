"""MusicXML, zipped MusicXML and Humdrum kern files to scores, through music21.

In comes a path, out come scores as written: sounding pitches, tied notes joined, bars as they stand, repeat signs kept.
What music21 drops or guesses is taken from the XML first: instrument programs, transpositions, which drum an unpitched
note strikes, and which notes are cues (not played). What is knowingly lost is said in `music21_score`.
"""

from __future__ import annotations

import io
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from musicgen.errors import FormatError, MusicgenError
from musicgen.formats.music21_score import MAX_NOTES, MAX_PARTS, STAFF_DRUMS, PartFacts, convert, pieces
from musicgen.score import Score

MAX_UNZIPPED = 256 * 2**20

OWN_SOFTWARE = "musicgen"
"""The <software> that our writer signs with: such a file's programs are taken as they stand."""


def read(path: str | Path) -> list[Score]:
    """The scores in a .musicxml, .xml, .mxl or .krn file, as written (repeats are not played out).

    Raises FormatError: not MusicXML or kern, entity declarations, too large, or damaged.
    """
    path = Path(path)
    try:
        facts: dict[str, PartFacts] = {}
        own = False
        if path.suffix.lower() == ".krn":
            stream = _parse_kern(path)
        else:
            root = _parse_xml(path)
            facts, own = _take_facts(root, path)
            stream = _import_tree(root)
        scores = [convert(piece, facts, own, str(path)) for piece in pieces(stream)]
    except MusicgenError as error:
        raise FormatError(str(error) if str(error).startswith(str(path)) else f"{path}: {error}") from error
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # music21 raises whatever the damage leads to
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise FormatError(
            f"{path}: music21 can't read it ({reason}); open it in a notation program and export it again"
        ) from error
    if not scores:
        raise FormatError(f"{path}: no parts found; is it a score?")
    return scores


# --- before music21: the file's own words -----------------------------------------------------------------------------


def _parse_xml(path: Path) -> ElementTree.Element:
    """The root <score-partwise> of a plain or zipped file. Nothing outside the file is ever fetched."""
    data = path.read_bytes()
    if data[:2] == b"PK":
        data = _unzip(data, path)
    if b"<!ENTITY" in data.replace(b"\0", b""):
        raise FormatError(f"{path}: it declares XML entities, which no score needs; remove the <!ENTITY lines")
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise FormatError(f"{path}: not well-formed XML ({error}); export it again") from error
    if root.tag == "score-timewise":
        raise FormatError(f"{path}: a timewise score; convert it to partwise in a notation program")
    if root.tag != "score-partwise":
        raise FormatError(f"{path}: its root is <{root.tag}>, not <score-partwise>; is it MusicXML?")
    parts = len(root.findall("part"))
    if parts == 0:
        raise FormatError(f"{path}: no parts in it; export it again")
    if parts > MAX_PARTS:
        raise FormatError(f"{path}: {parts} parts, more than the {MAX_PARTS} that are read")
    notes = sum(1 for _ in root.iter("note"))
    if notes > MAX_NOTES:
        raise FormatError(f"{path}: {notes:,} notes, more than the {MAX_NOTES:,} that are read; split the file")
    return root


def _unzip(data: bytes, path: Path) -> bytes:
    """The score inside an .mxl: the container's root file, or the first XML that is not the container."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(info.file_size for info in archive.infolist())
            if size > MAX_UNZIPPED:
                raise FormatError(f"{path}: unpacks to {size:,} bytes, more than the {MAX_UNZIPPED:,} that are read")
            names = [n for n in archive.namelist() if n.lower().endswith((".xml", ".musicxml"))]
            scores = [n for n in names if not n.startswith(("META-INF/", "__MACOSX/"))]
            if "META-INF/container.xml" in names:
                container = archive.read("META-INF/container.xml")
                found = re.search(rb"full-path\s*=\s*[\"']([^\"']+)[\"']", container)
                if found and found.group(1).decode("utf-8", "replace") in archive.namelist():
                    scores.insert(0, found.group(1).decode())
            if not scores:
                raise FormatError(f"{path}: no score in the zip; export it again")
            return archive.read(scores[0])
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise FormatError(f"{path}: a damaged or locked zip ({error}); export it again") from error


def _take_facts(root: ElementTree.Element, path: Path) -> tuple[dict[str, PartFacts], bool]:
    """Facts by part id, and whether our writer signed the file. Changes the tree so that music21 meets no traps:
    transpositions go (they are applied here), struck drums become pitches, cue notes rests."""
    facts: dict[str, PartFacts] = {}
    keys: dict[str, dict[str, int]] = {}  # part id -> instrument id -> drum key
    for listed in root.iter("score-part"):
        name = " ".join((listed.findtext("part-name") or "").split())
        entry = PartFacts(name)
        struck = {}
        for midi in listed.findall("midi-instrument"):
            program = _number(midi.findtext("midi-program"))
            key = _number(midi.findtext("midi-unpitched"))
            if _number(midi.findtext("midi-channel")) == 10:
                entry.is_drum = True
            if key is not None and 1 <= key <= 128:
                struck[midi.get("id", "")] = key - 1
            if program is not None and 1 <= program <= 128:
                entry.programs.append(program - 1)
        identity = listed.get("id", "")
        facts[identity], keys[identity] = entry, struck
    for part in root.findall("part"):
        identity = part.get("id", "")
        entry = facts.setdefault(identity, PartFacts())
        struck = keys.get(identity, {})
        only = next(iter(struck.values())) if len(struck) == 1 else None
        unpitched = 0
        for index, measure in enumerate(part.findall("measure")):
            for attributes in measure.findall("attributes"):
                for transpose in attributes.findall("transpose"):
                    octaves = _number(transpose.findtext("octave-change")) or 0
                    semitones = (_number(transpose.findtext("chromatic")) or 0) + 12 * octaves
                    entry.transposes.append((index, semitones))
                    attributes.remove(transpose)
            for note in measure.findall("note"):
                place = note.find("unpitched")
                if place is not None:
                    unpitched += 1
                    instrument = note.find("instrument")
                    key = struck.get(instrument.get("id", "")) if instrument is not None else None
                    _to_pitch(place, key if key is not None else only)
                if note.find("cue") is not None and note.find("grace") is None:
                    _silence(measure, note)
        entry.is_drum = entry.is_drum or unpitched > 0
    software = {(s.text or "").split(" ")[0] for s in root.iter("software")}
    return facts, OWN_SOFTWARE in software


def _to_pitch(place: ElementTree.Element, key: int | None) -> None:
    """An <unpitched> element made the <pitch> of a drum key; without a key, by its place on the staff."""
    step, octave = place.findtext("display-step") or "C", _number(place.findtext("display-octave"))
    if key is None:
        key = STAFF_DRUMS.get((step, octave if octave is not None else 5), 38)
    place.clear()
    place.tag = "pitch"
    step_name, alter = (("C", 0), ("C", 1), ("D", 0), ("D", 1), ("E", 0), ("F", 0), ("F", 1), ("G", 0), ("G", 1),
                        ("A", 0), ("A", 1), ("B", 0))[key % 12]  # fmt: skip
    for tag, text in (("step", step_name), ("alter", alter), ("octave", key // 12 - 1)):
        ElementTree.SubElement(place, tag).text = str(text)


def _silence(measure: ElementTree.Element, note: ElementTree.Element) -> None:
    """A cue note made a rest: it guides the player and does not sound."""
    if note.find("chord") is not None:
        measure.remove(note)
        return
    for tag in ("cue", "pitch", "unpitched", "tie", "accidental", "notations", "lyric", "notehead"):
        for child in note.findall(tag):
            note.remove(child)
    note.insert(0, ElementTree.Element("rest"))


def _number(text: str | None) -> int | None:
    try:
        return int(float(text)) if text and text.strip() else None
    except ValueError:
        return None


def _import_tree(root: ElementTree.Element) -> Any:
    from music21.musicxml.xmlToM21 import MusicXMLImporter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importer = MusicXMLImporter()
        importer.xmlRootToScore(root, importer.stream)  # into its own stream: staves and spanners go only there
        return importer.stream


def _parse_kern(path: Path) -> Any:
    from music21 import converter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = converter.Converter()
        reader.parseFile(path, format="humdrum", forceSource=True, storePickle=False)
        return reader.stream
