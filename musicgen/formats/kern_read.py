"""Humdrum kern to scores through music21, with what music21 drops said to it in other words first.

In comes a path, out come scores as written. A scan over the lines, before music21 sees them, turns section labels
(`*>A`) into comments that keep their place, takes the order of sections (`*>[A,A,B,B]`, the first list without a name)
and the names of parts (`*I"`, `*I:`), numbers every bar, and mends grace notes: `qq` has no slash, and a `P` without
`q` is a note with a length of its own.

An order says all that is played: where there is one, repeat signs are dropped. kern's pitches are sounding pitches,
whatever `*ITr` says. Knowingly lost: orders with a name (`*>norep[...]`), and what `music21_score` says.
"""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from musicgen.errors import FormatError
from musicgen.formats.music21_score import MAX_BEATS, MAX_NOTES, MAX_PARTS, convert, pieces
from musicgen.formats.music21_signs import SECTION_COMMENT
from musicgen.formats.sections import without_repeats
from musicgen.score import Score

MAX_SPINES = 4 * MAX_PARTS
"""Columns of a line: every part may have its dynamics and words beside it, and split into voices."""


INVISIBLE = "=1-;"
"""The barline that is put before a first bar without one; by its fermata it differs from any in a file."""

CODES = {
    "clars": "Clarinet", "clarp": "Clarinet", "clara": "Clarinet", "fag_c": "Contrabassoon", "flt_a": "Flute",
    "fltds": "Recorder", "fltda": "Recorder", "fltdt": "Recorder", "fltdb": "Recorder", "corno": "Cornett",
    "cornt": "Cornet", "flugh": "Flugelhorn", "forte": "Fortepiano", "fluge": "Piano", "violb": "Viola da gamba",
}  # fmt: skip
"""Instrument codes of Humdrum that music21 doesn't know, in English."""


@dataclass
class Head:
    """What the interpretations of one piece say. names: column -> the name printed; tags: column -> its `*part`."""

    order: tuple[str, ...] = ()
    names: dict[int, str] = field(default_factory=dict)
    tags: dict[int, str] = field(default_factory=dict)


def read_kern(path: Path) -> list[Score]:
    """The scores in a .krn file, as written. Raises FormatError: no kern, too large; and whatever music21 raises."""
    lines = _decode(path.read_bytes()).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    _check_size(lines, path)
    lines, heads = _prepare(lines)
    streams = pieces(_parse(lines, path))
    if len(heads) != len(streams):  # which is whose can't be told
        heads = [Head() for _ in streams]
    scores = []
    for stream, head in zip(streams, heads, strict=True):
        _name_parts(stream, head)
        scores.append(_play_in_order(convert(stream, {}, False, str(path)), head.order))
    return scores


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _check_size(lines: list[str], path: Path) -> None:
    """Raises FormatError where there is no kern, or more columns or notes than are read."""
    if not any(line.startswith("**") and "**kern" in line for line in lines):
        raise FormatError(f"{path}: no **kern column in it; is it a Humdrum file?")
    music = [line for line in lines if line and line[0] not in "!*="]
    columns = max((line.count("\t") + 1 for line in lines), default=0)
    if columns > MAX_SPINES:
        raise FormatError(f"{path}: {columns} columns, more than the {MAX_SPINES} that are read")
    for line in lines:
        for beats in re.findall(r"(?:^|\t)\*M(\d+)/", line) if line.startswith("*") else ():
            if len(beats) > 4 or int(beats) > MAX_BEATS:
                raise FormatError(f"{path}: a metre of {beats} beats, more than the {MAX_BEATS} that are read")
    notes = sum(line.count("\t") + line.count(" ") + 1 for line in music)
    if notes > 4 * MAX_NOTES:  # most cells are no notes
        raise FormatError(f"{path}: {notes:,} cells, more than the {4 * MAX_NOTES:,} that are read; split the file")


def _prepare(lines: list[str]) -> tuple[list[str], list[Head]]:
    """The lines as music21 should meet them, and what each piece in them says of itself."""
    made: list[str] = []
    heads = [Head()]
    barred = True
    for line in lines:
        if line.startswith("**"):
            heads.append(Head())
            barred = False
        elif line.startswith("="):
            # in a measure without a number music21 drops what takes no time: grace notes, keys, metres
            line = re.sub(r"(^|\t)(=++)(?!\d)", r"\1\g<2>1", line)
            barred = True
        elif line.startswith("*>"):
            first, *others = line.split("\t")
            listed = re.fullmatch(r"\*>\[(.*)\]\s*", first)
            if listed and not heads[-1].order:
                heads[-1].order = tuple(label.strip() for label in listed[1].split(",") if label.strip())
            elif "[" not in first:
                line = "\t".join([f"!{SECTION_COMMENT}{first[2:].strip()}", *("!" for _ in others)])
        elif line.startswith("*"):
            if not barred:
                _note_names(line, heads[-1])
        elif line and line[0] != "!":
            if not barred:
                made.append("\t".join([INVISIBLE] * (line.count("\t") + 1)))
                barred = True
            line = line.replace("P", "").replace("qq", "Q")
        made.append(line)
    return made, heads[1:]


def _note_names(line: str, head: Head) -> None:
    """Names and part numbers in a line of interpretations before the first bar, where a column is still a part."""
    for column, cell in enumerate(line.split("\t")):
        if cell.startswith('*I"') and cell[3:].strip():
            head.names[column] = cell[3:].strip()
        elif cell.startswith("*I:") and cell[3:].strip(" []"):
            head.names.setdefault(column, cell[3:].strip(" []"))
        elif cell[2:] in CODES and cell.startswith("*I"):
            head.names.setdefault(column, CODES[cell[2:]])
        elif cell.startswith("*part"):
            head.tags[column] = cell


def _name_parts(stream: Any, head: Head) -> None:
    """Parts by the name that is printed, on any staff of theirs; else by their instrument, not its family."""
    from music21.instrument import Instrument

    by_tag = {head.tags[column]: name for column, name in head.names.items() if column in head.tags}
    for part in stream.parts:
        column = int(str(part.id).rpartition("_")[2]) if re.fullmatch(r"spine_\d+", str(part.id)) else -1
        name = head.names.get(column) or by_tag.get(head.tags.get(column, ""))
        if not name:
            bars = part.getElementsByClass("Measure")
            found = list(bars[0].getElementsByClass(Instrument)) if bars else []
            name = found[-1].instrumentName if found else None
        part.partName = name or part.partName


def _parse(lines: list[str], path: Path) -> Any:
    """music21's stream. Raises FormatError where it would go on without a note that it can't read."""
    from music21.humdrum.spineParser import HumdrumDataCollection

    said = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stderr(said):
        warnings.simplefilter("ignore")
        stream = HumdrumDataCollection(lines).parse()
    for what, number in re.findall(r"Error in parsing event \(['\"](.*)['\"]\) at line (\d+)", said.getvalue()):
        if what[:1] not in ("*", "!", "="):
            added = sum(line.startswith(INVISIBLE) for line in lines[: int(number)])
            raise FormatError(f"{path}:{int(number) - added}: {what!r} is no note; mend it or make it a rest")
    return stream


def _play_in_order(score: Score, order: tuple[str, ...]) -> Score:
    """With its order of sections, and then without repeat signs, which would say the same again."""
    if not order or not set(order) <= {s.label for s in score.signs if s.kind == "section"}:
        return score
    return without_repeats(replace(score, order=order))
