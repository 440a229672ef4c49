"""Engraved pages as files: SVG and PNG one a page, PDF all in one.

In comes an engraving, out go files. PDF and PNG are made from the SVG by typst, which brings fonts of its own for text
(those of music are outlines already), so that a page looks the same on every machine.
"""

from __future__ import annotations

import re
import tempfile
from contextlib import suppress
from pathlib import Path

from musicgen.errors import RenderError
from musicgen.render.engraving import Engraving

SUFFIXES = (".svg", ".pdf", ".png")
PIXELS_AN_INCH = 150


def write_sheet(engraving: Engraving, path: Path) -> tuple[Path, ...]:
    """Write all pages in the format of the suffix; after the first page of SVG or PNG comes NAME-2.svg and so on.

    All files are written under temporary names, then renamed. Returns their paths. Raises RenderError.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise RenderError(f"{path}: an engraved sheet is written as {', '.join(SUFFIXES)}")
    contents = [p.encode() for p in engraving.pages] if suffix == ".svg" else _typeset(engraving, suffix[1:], path)
    names = [path if n == 1 else path.with_name(f"{path.stem}-{n}{path.suffix}") for n in range(1, len(contents) + 1)]
    taken = next((name for name in names if name.is_dir()), None)
    if taken is not None:
        raise RenderError(f"{taken}: is a folder; choose another name")
    temporary = [name.with_name(f".{name.stem}.part{name.suffix}") for name in names]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for place, content in zip(temporary, contents, strict=True):
            place.write_bytes(content)
        for place, name in zip(temporary, names, strict=True):
            place.replace(name)
    except OSError as error:
        raise RenderError(f"{path}: {error.strerror or error}") from error
    finally:
        for place in temporary:
            with suppress(OSError):
                place.unlink(missing_ok=True)
    return tuple(names)


def _typeset(engraving: Engraving, kind: str, path: Path) -> list[bytes]:
    """The pages as PNG, one each, or as one PDF. path: for errors."""
    try:
        import typst
    except ImportError as error:
        raise RenderError(f"{path}: typst can't be loaded ({error}); install it: pip install typst") from error
    with tempfile.TemporaryDirectory(prefix="musicgen-") as folder:
        lines = ["#set page(margin: 0pt)"]
        for number, page in enumerate(engraving.pages):
            (Path(folder) / f"{number}.svg").write_text(page, encoding="utf-8")
            width, height = _size(page, engraving.layout.width)
            image = f'#image("{number}.svg", width: 100%, alt: "sheet music")'
            lines.append(f"#page(width: {width:g}mm, height: {height:g}mm)[{image}]")
        main = Path(folder) / "main.typ"
        main.write_text("\n".join(lines), encoding="utf-8")
        try:
            if kind == "pdf":
                made = typst.compile(main, format="pdf")
            else:
                made = typst.compile(main, format="png", ppi=PIXELS_AN_INCH)
        except RuntimeError as error:
            raise RenderError(f"{path}: typst can't make it ({str(error).splitlines()[0]})") from error
    return made if isinstance(made, list) else [made]


def _size(page: str, width: float) -> tuple[float, float]:
    """(width, height) of a page in mm; its proportions are those of its viewBox."""
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', page)
    assert box is not None
    return width, round(width * float(box[2]) / float(box[1]), 2)
