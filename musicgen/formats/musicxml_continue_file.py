"""A MusicXML file as bytes: the score out of a plain file or a zip, in UTF-8, and back into the same wrapping.

In comes a path, out come the bytes of its score and of whatever else its zip holds; a changed score goes back among the
same members, in the encoding that it had. Here elements become the bytes that are put in, too.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from musicgen.errors import FormatError
from musicgen.formats.musicxml_continue_scan import OpenPart
from musicgen.formats.musicxml_write import CONTAINER


def open_score(path: Path) -> tuple[list[tuple[zipfile.ZipInfo, bytes]], str, bytes]:
    """(members of the zip with their bytes, none of a plain file; which of them is the score; the score's bytes)."""
    try:
        data = path.read_bytes()
        if data[:2] != b"PK":
            return [], "", data
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(info, archive.read(info)) for info in archive.infolist()]
    except (OSError, zipfile.BadZipFile) as error:
        raise FormatError(f"{path}: {error}") from error
    inside = {info.filename: content for info, content in members}
    named = re.search(rb"full-path\s*=\s*[\"']([^\"']+)[\"']", inside.get("META-INF/container.xml", b""))
    name = named[1].decode("utf-8", "replace") if named else ""
    if name not in inside:
        name = next(n for n in inside if n.endswith((".xml", ".musicxml")) and not n.startswith(("META-INF/", "__MA")))
    return members, name, inside[name]


def in_utf8(data: bytes) -> tuple[bytes, str | None]:
    """(the bytes in UTF-8, the encoding to bring them back into; None where they are left as they are)."""
    marks = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be", b"<\0": "utf-16-le", b"\0<": "utf-16-be"}
    encoding = marks.get(data[:2])
    if encoding is None:
        declared = re.search(rb"^<\?xml[^>]*encoding\s*=\s*[\"']([\w.-]+)[\"']", data[:200])
        encoding = declared[1].decode("ascii").lower() if declared else "utf-8"
    if encoding in ("utf-8", "us-ascii"):
        return data, None
    return data.decode(encoding).encode("utf-8"), encoding


def write_score(path: Path, score: bytes, members: Sequence[tuple[zipfile.ZipInfo, bytes]], name: str) -> None:
    """The score as the suffix has it: plain, or zipped with whatever else the original's zip held."""
    if path.suffix.lower() != ".mxl":
        path.write_bytes(score)
    elif not members:
        name = "score.musicxml"
        members = [(zipfile.ZipInfo("META-INF/container.xml"), CONTAINER.encode()), (zipfile.ZipInfo(name), score)]
        write_score(path, score, members, name)
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for info, content in members:
                archive.writestr(info, score if info.filename == name else content)


def insertions(
    data: bytes, part: OpenPart, filling: Sequence[Element], measures: Sequence[Element]
) -> list[tuple[int, bytes, int]]:
    """(offset, bytes to put in there, how many bytes to leave out) for what is new in a part, in their order.

    Bytes are left out only where an empty tag has to be opened.
    """
    found = []
    space = find_space_before(data, part.begins)
    if filling:
        more = b"".join(serialise_element(element, 3) + find_space_before(data, part.inside) for element in filling)
        if part.opens:
            inner = b"".join(space + b"  " + serialise_element(element, 3) for element in filling)
            found.append((data.rindex(b"/", 0, part.after), b">" + inner + space + b"</measure>", 2))
        else:
            found.append((part.inside, more, 0))
    after = b"".join(space + serialise_element(measure, 2) for measure in measures)
    return [*found, (part.after, after, 0)]


def serialise_element(element: Element, level: int) -> bytes:
    """The element in ASCII, indented by two spaces a level as one that stands at `level`. Changes its white space."""
    ElementTree.indent(element, "  ", level)
    element.tail = None
    return ElementTree.tostring(element, encoding="unicode").encode("ascii", "xmlcharrefreplace")


def find_space_before(data: bytes, offset: int) -> bytes:
    """The white space that stands before an offset."""
    first = offset
    while first and data[first - 1 : first].isspace():
        first -= 1
    return data[first:offset]
