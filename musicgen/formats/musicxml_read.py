"""MusicXML and zipped MusicXML to scores, through music21; kern has a module of its own, `kern_read`.

In comes a path, out come scores as written: sounding pitches, tied notes joined, bars as they stand, repeat signs kept.
What music21 drops or guesses is taken from the XML first: instrument programs, transpositions, which drum an unpitched
note strikes, which notes are cues (not played), which grace notes are slashed, and where a da capo and the like jump.
A score in time order (timewise) is turned into one in part order. What is knowingly lost is said in `music21_score`;
rehearsal marks are sections only in files that our writer signed.
"""

from __future__ import annotations

import io
import json
import re
import warnings
import zipfile
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from musicgen.errors import FormatError, MusicgenError
from musicgen.formats.kern_read import read_kern
from musicgen.formats.music21_score import MAX_BEATS, MAX_NOTES, MAX_PARTS, STAFF_DRUMS, convert, pieces
from musicgen.formats.music21_signs import LEAVING, Mark
from musicgen.formats.music21_staff import PartFacts
from musicgen.formats.sections import without_repeats
from musicgen.score import TICKS_PER_QUARTER, Score, bar_ticks

MAX_UNZIPPED = 256 * 2**20
MAX_ELEMENTS = 6_000_000
"""XML elements in a file: a note takes ten to thirty."""
MAX_BARS = 50_000
MAX_TICKS = 2**30

OWN_SOFTWARE = "musicgen"
"""The <software> that our writer signs with: such a file's programs are taken as they stand."""


def read(path: str | Path) -> list[Score]:
    """The scores in a .musicxml, .xml, .mxl or .krn file, as written (repeats are not played out).

    Raises FormatError: not MusicXML or kern, entity declarations, too large, or damaged.
    """
    path = Path(path)
    try:
        if path.suffix.lower() == ".krn":
            scores = read_kern(path)
        else:
            root = _parse_xml(path)
            own = OWN_SOFTWARE in {(s.text or "").split(" ")[0] for s in root.iter("software")}
            marks, order = _take_marks(root, own), _take_order(root) if own else ()
            facts = take_facts(root)
            stream = _import_tree(root)
            scores = [convert(piece, facts, own, str(path), marks, order) for piece in pieces(stream)]
            if order and any(f.get("name") == DRAWN_FIELD for f in root.iter("miscellaneous-field")):
                scores = [without_repeats(score) for score in scores]
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
    plain = data.replace(b"\0", b"") if b"\0" in data[:64] else data  # UTF-16 has a zero byte beside each letter
    if b"<!ENTITY" in plain:
        raise FormatError(f"{path}: it declares XML entities, which no score needs; remove the <!ENTITY lines")
    notes, tags = plain.count(b"<note>") + plain.count(b"<note "), plain.count(b"<")
    if notes > MAX_NOTES:
        raise FormatError(f"{path}: {notes:,} notes, more than the {MAX_NOTES:,} that are read; split the file")
    if tags > 2 * MAX_ELEMENTS:
        raise FormatError(f"{path}: {tags:,} XML tags, more than the {2 * MAX_ELEMENTS:,} that are read")
    try:
        root = ElementTree.fromstring(data)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise FormatError(f"{path}: not well-formed XML ({error}); export it again") from error
    del data, plain
    if root.tag == "score-timewise":
        _to_partwise(root)
    if root.tag != "score-partwise":
        raise FormatError(f"{path}: its root is <{root.tag}>, not <score-partwise>; is it MusicXML?")
    parts = len(root.findall("part"))
    if parts == 0:
        raise FormatError(f"{path}: no parts in it; export it again")
    if parts > MAX_PARTS:
        raise FormatError(f"{path}: {parts} parts, more than the {MAX_PARTS} that are read")
    bars = max(len(part.findall("measure")) for part in root.findall("part"))
    if bars > MAX_BARS:
        raise FormatError(f"{path}: {bars:,} bars, more than the {MAX_BARS:,} that are read; split the file")
    for beats in root.iter("beats"):
        if any((_number(number) or 0) > MAX_BEATS for number in (beats.text or "").split("+")):
            raise FormatError(f"{path}: a metre of {beats.text} beats, more than the {MAX_BEATS} that are read")
    _check_lengths(root, path)
    return root


def _check_lengths(root: ElementTree.Element, path: Path) -> None:
    """Raises FormatError where a part's durations, in quarter notes, are longer than a clock of ticks can count."""
    for part in root.findall("part"):
        divisions, total = 1.0, 0.0
        for element in part.iter():
            if element.tag in ("divisions", "duration"):
                try:
                    number = float(element.text or 0)
                except ValueError:
                    number = 0.0
                if element.tag == "divisions":
                    divisions = number if number > 0 else 1.0
                else:
                    total += abs(number) / divisions
        if not total * TICKS_PER_QUARTER < 4 * MAX_TICKS:
            raise FormatError(
                f"{path}: a part of {total:,.0f} quarter notes, more than are read; look at its durations"
            )


def _to_partwise(root: ElementTree.Element) -> None:
    """A timewise score, bars of parts, made into parts of bars, in place."""
    parts: dict[str, ElementTree.Element] = {}
    for measure in root.findall("measure"):
        for part in measure.findall("part"):
            identity = part.get("id", "")
            whole = parts.setdefault(identity, ElementTree.Element("part", id=identity))
            bar = ElementTree.SubElement(whole, "measure", measure.attrib)
            bar.extend(list(part))
        root.remove(measure)
    root.tag = "score-partwise"
    root.extend(parts.values())


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
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise FormatError(f"{path}: a damaged or locked zip ({error}); export it again") from error


def take_facts(root: ElementTree.Element) -> dict[str, PartFacts]:
    """Facts by part id. Changes the tree so that music21 meets no traps: transpositions go (they are applied here),
    struck drums become pitches, cue notes rests, and a grace note without a word of a slash has none."""
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
        divisions, metre = 1, 4 * TICKS_PER_QUARTER
        for index, measure in enumerate(part.findall("measure")):
            at = longest = 0  # in divisions
            for element in list(measure):
                if element.tag == "note":
                    at = max(at + _prepare_note(measure, element, struck, only, entry), 0)
                elif element.tag in ("backup", "forward"):
                    duration = _number(element.findtext("duration")) or 0
                    at = max(at - duration if element.tag == "backup" else at + duration, 0)
                elif element.tag == "attributes":
                    divisions = max(_number(element.findtext("divisions")) or divisions, 1)
                    metre = _bar_length(element) or metre
                    for transpose in element.findall("transpose"):
                        octaves = _number(transpose.findtext("octave-change")) or 0
                        semitones = (_number(transpose.findtext("chromatic")) or 0) + 12 * octaves
                        entry.transposes.append((index, Fraction(at, divisions), semitones))
                        element.remove(transpose)
                elif element.tag == "print":
                    measure.remove(element)
                longest = max(longest, at)
            entry.lengths.append(round(longest * TICKS_PER_QUARTER / divisions))
            entry.full.append(metre)
    return facts


_UNREAD = frozenset(("beam", "lyric", "stem", "accidental", "notehead", "play", "listen"))
_READ_NOTATIONS = frozenset(("tied", "tuplet", "ornaments", "dynamics"))
"""What of a note is not passed on to music21, and what of its notations is: it would only cost time."""


def _prepare_note(
    measure: ElementTree.Element, note: ElementTree.Element, struck: dict[str, int], only: int | None, entry: PartFacts
) -> int:
    """How far a note moves the clock, in divisions: a chord's further notes and grace notes don't."""
    place, grace = note.find("unpitched"), note.find("grace")
    if place is not None:
        entry.is_drum = True
        instrument = note.find("instrument")
        key = struck.get(instrument.get("id", "")) if instrument is not None else None
        _to_pitch(place, key if key is not None else only)
    loudness = note.get("dynamics")
    note.attrib.clear()  # places on the page
    if loudness is not None:
        note.set("dynamics", loudness)
    for element in list(note):
        if element.tag in _UNREAD:
            note.remove(element)
        elif element.tag == "notations":
            for notation in list(element):
                if notation.tag not in _READ_NOTATIONS:
                    element.remove(notation)
    moves = grace is None and note.find("chord") is None
    if note.find("cue") is not None:
        _silence(measure, note)
    elif grace is not None and grace.get("slash") is None:
        grace.set("slash", "no")
    return _number(note.findtext("duration")) or 0 if moves else 0


def _bar_length(attributes: ElementTree.Element) -> int:
    """Length in ticks of a full bar of the metre that stands here; 0 where none does."""
    time = attributes.find("time")
    if time is None:
        return 0
    total = 0
    for beats, unit in zip(time.findall("beats"), time.findall("beat-type"), strict=False):
        count = sum(_number(number) or 0 for number in (beats.text or "").split("+"))
        total += bar_ticks(count, max(_number(unit.text) or 4, 1))
    return total


_JUMPS = (
    ("dacapo", "da_capo"),
    ("dalsegno", "dal_segno"),
    ("tocoda", "to_coda"),
    ("fine", "fine"),
    ("segno", "segno"),
    ("coda", "coda"),
)
"""Attribute of a <sound> -> kind of sign."""
_WORDS = (
    (re.compile(r"(d\.? ?c\.?|da capo)( al (fine|coda).*)?"), "da_capo"),
    (re.compile(r"(d\.? ?s\.?|dal segno)( al (fine|coda).*)?"), "dal_segno"),
    (re.compile(r"(to|alla|al) coda"), "to_coda"),
    (re.compile(r"fine"), "fine"),
)


def _take_marks(root: ElementTree.Element, own: bool) -> list[Mark]:
    """The jumps that any part states, by <sound>, sign or words; of our own files (`own`) the sections as well."""
    found: dict[tuple[int, bool, str, str], Mark] = {}
    for part in root.findall("part"):
        for bar, measure in enumerate(part.findall("measure")):
            late = True  # nothing sounds after this element
            for element in reversed(measure):
                if element.tag == "note":
                    late = False
                elif element.tag in ("direction", "sound"):
                    for kind, label in _marks_of(element, own):
                        mark = Mark(bar, late or kind in LEAVING, kind, label)
                        found.setdefault((bar, mark.at_end, kind, label if kind == "section" else ""), mark)
                elif element.tag == "barline":
                    for kind in ("segno", "coda"):
                        if element.find(kind) is not None or element.get(kind) is not None:
                            at_end = element.get("location", "right") == "right"
                            found.setdefault((bar, at_end, kind, ""), Mark(bar, at_end, kind))
    return sorted(found.values(), key=lambda m: (m.bar, m.at_end))


def _marks_of(element: ElementTree.Element, own: bool) -> list[tuple[str, str]]:
    """(kind, label) of every sign that a <direction> or <sound> states, once each."""
    words = [" ".join((w.text or "").lower().split()).strip(" .") for w in element.iter("words")]
    label = next((f"al {end}" for text in words for end in ("fine", "coda") if text.endswith(f"al {end}")), "")
    kinds = {}
    for sound in element.iter("sound"):
        kinds.update({kind: "" for name, kind in _JUMPS if sound.get(name) not in (None, "no")})
    for text in words:
        for pattern, kind in _WORDS:
            if pattern.fullmatch(text):
                kinds[kind] = ""
    if not kinds:
        kinds.update({kind: "" for kind in ("segno", "coda") if next(element.iter(kind), None) is not None})
    if own:
        for rehearsal in element.iter("rehearsal"):
            kinds["section"] = rehearsal.text or ""
    return [(kind, label if kind in ("da_capo", "dal_segno") else text) for kind, text in kinds.items()]


ORDER_FIELD = "order of sections"
"""The <miscellaneous-field> in which our writer keeps the order in which sections are played."""
DRAWN_FIELD = "repeats drawn from the order"
"""The one which says that the file's repeat signs only draw that order."""


def _take_order(root: ElementTree.Element) -> tuple[str, ...]:
    for entry in root.iter("miscellaneous-field"):
        if entry.get("name") == ORDER_FIELD:
            try:
                labels = json.loads(entry.text or "")
            except ValueError:
                return ()
            return tuple(str(label) for label in labels) if isinstance(labels, list) else ()
    return ()


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
    if note.find("chord") is not None or note.find("grace") is not None:
        measure.remove(note)
        return
    for tag in ("cue", "pitch", "unpitched", "tie", "accidental", "notations", "lyric", "notehead"):
        for child in note.findall(tag):
            note.remove(child)
    note.insert(0, ElementTree.Element("rest"))


def _number(text: str | None) -> int | None:
    try:
        return int(float(text)) if text and text.strip() else None
    except (ValueError, OverflowError):
        return None


def _import_tree(root: ElementTree.Element) -> Any:
    from music21.musicxml.xmlToM21 import MusicXMLImporter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importer = MusicXMLImporter()
        importer.xmlRootToScore(root, importer.stream)  # into its own stream: staves and spanners go only there
        return importer.stream
