"""The files of a set of takes, all of them or none: the takes, and the page with their figures.

Everything is written under temporary names in the same folder first, and renamed together once all of it is there: a
full disk or Ctrl-C leaves an earlier set as it was. What an earlier run with the same name has left over (four takes
then, two now) goes: files that its page lists and that nobody has touched since. Any other file stays.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from musicgen.errors import FormatError

_MOST_TAKES = 64
"""Further takes that are looked for, at most."""


def take_paths(out: Path, takes: int) -> list[Path]:
    """OUT, and OUT-take2 and so on beside it."""
    return [out, *(out.with_name(f"{out.stem}-take{number}{out.suffix}") for number in range(2, takes + 1))]


def page_path(out: Path) -> Path:
    """Where the page of a set of takes lies."""
    return out.with_name(f"{out.name}.report.md")


def left_over(out: Path, takes: int) -> list[Path]:
    """Further takes of an earlier run that `takes` new ones do not replace: see the module's opening."""
    page = page_path(out)
    try:
        rows, written = page.read_text(encoding="utf-8").split("\n"), page.stat().st_mtime_ns
    except (OSError, UnicodeDecodeError):
        return []
    listed = {cells[2].strip() for cells in (row.split("|") for row in rows) if len(cells) > 3}
    found = []
    for path in take_paths(out, _MOST_TAKES)[takes:]:
        with suppress(OSError):
            if path.name in listed and path.is_file() and path.stat().st_mtime_ns <= written:
                found.append(path)
    return found


def write_set(
    paths: Sequence[Path],
    write: Callable[[int, Path], None],
    page: Path | None = None,
    text: str = "",
    old: Sequence[Path] = (),
) -> None:
    """Write the takes by `write(number, path)`, numbers from 0, and the page if any; rename all, and remove `old`.

    Raises FormatError; then nothing has changed.
    """
    targets = (*paths, *([page] if page else []))
    staged = [path.with_name(f".{path.stem}.new{path.suffix}") for path in targets]
    try:
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        for target in targets:
            if target.is_dir():
                raise FormatError(f"{target}: is a folder; choose another --out")
        for number, path in enumerate(staged[: len(paths)]):
            write(number, path)
        if page:
            staged[-1].write_text(text, encoding="utf-8")
        for path, target in zip(staged, targets, strict=True):
            os.replace(path, target)
        for path in old:
            path.unlink(missing_ok=True)
    except (FormatError, OSError) as error:
        said = f"{error.filename or paths[0]}: {error.strerror}" if isinstance(error, OSError) else str(error)
        for path, target in zip(staged, targets, strict=True):
            said = said.replace(str(path), str(target))
        raise FormatError(said) from error
    finally:
        for path in staged:
            with suppress(OSError):
                path.unlink(missing_ok=True)
