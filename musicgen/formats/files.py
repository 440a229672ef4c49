"""Which module reads and writes which suffix. The modules are imported where used: music21 takes seconds to load."""

from __future__ import annotations

import importlib
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from musicgen.errors import FormatError, UnsupportedFormat
from musicgen.score import Score, unfold

READERS: dict[str, str] = {
    ".mid": "midi",
    ".midi": "midi",
    ".abc": "abc",
    ".musicxml": "musicxml",
    ".xml": "musicxml",
    ".mxl": "musicxml",
    ".krn": "musicxml",
}
"""Suffix -> module of this package with `read(path) -> list[Score]`, scores as written (repeat signs kept)."""

WRITERS: dict[str, str] = {
    ".mid": "midi",
    ".midi": "midi",
    ".abc": "abc",
    ".musicxml": "musicxml",
    ".xml": "musicxml",
    ".mxl": "musicxml",
}
"""Suffix -> module of this package with `write(score, path)`."""

MAX_FILE_BYTES = 64 * 2**20


def read_scores(path: str | Path, as_written: bool = False) -> list[Score]:
    """Every piece in a file (an ABC file may hold many), repeats played out unless `as_written`.

    Raises FormatError, naming the file and, where known, the line or bar.
    """
    found = read_tunes(path)
    scores = [tune for tune in found if isinstance(tune, Score)]
    if not scores:
        raise next(tune for tune in found if isinstance(tune, FormatError))
    return scores if as_written else [unfold(score) for score in scores]


def read_tunes(path: str | Path) -> list[Score | FormatError]:
    """Every piece in a file as written; in place of a tune that can't be read, the error that says why.

    Raises FormatError where nothing of the file can be read.
    """
    path = Path(path)
    if path.is_dir():
        raise FormatError(f"{path}: is a folder; name one file in it")
    if path.suffix.lower() not in READERS:
        known = " ".join(READERS)
        raise UnsupportedFormat(f"{path}: no reader for {path.suffix or 'a file without suffix'!r}; known: {known}")
    try:
        return _read(path, path.stat().st_size)
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror or error}") from error


def _read(path: Path, size: int) -> list[Score | FormatError]:
    if not path.is_file():
        raise FormatError(f"{path}: not a file")
    if size == 0:
        raise FormatError(f"{path}: the file is empty")
    if size > MAX_FILE_BYTES:
        raise FormatError(f"{path}: {size:,} bytes, more than the {MAX_FILE_BYTES:,} that are read; split the file")
    if path.suffix.lower() == ".abc":  # the one format in which one file holds many pieces, good and bad
        from musicgen.formats import abc_read

        return abc_read.read_tunes(abc_read.decode_text(path.read_bytes()), str(path))
    return _module(READERS[path.suffix.lower()]).read(path)


def read_score(path: str | Path, as_written: bool = False) -> Score:
    """The one piece in a file; the first, where a file holds several."""
    return read_scores(path, as_written)[0]


def no_writer(path: Path) -> UnsupportedFormat:
    """The error that says which suffixes can be written."""
    if not path.suffix:
        return UnsupportedFormat(f"{path}: the name needs a suffix, one of {' '.join(WRITERS)}")
    return UnsupportedFormat(f"{path}: no writer for {path.suffix!r}; known: {' '.join(WRITERS)}")


def write_score(
    score: Score,
    path: str | Path,
    mark_from: int | None = None,
    mark_until: int | None = None,
    mark_parts: Collection[int] = (),
) -> None:
    """Write a score in the format of the suffix, to a temporary file first, then renamed.

    New, and drawn in blue where the format has colours (MusicXML), are notes that begin in [mark_from, mark_until), in
    ticks, until None: to the end; and all notes of the parts mark_parts, counted from 0.
    """
    path = Path(path)
    if path.suffix.lower() not in WRITERS:
        raise no_writer(path)
    temporary = path.with_name(f".{path.name}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = _module(WRITERS[path.suffix.lower()])
        if WRITERS[path.suffix.lower()] == "musicxml":
            writer.write(score, temporary, mark_from=mark_from, mark_until=mark_until, mark_parts=mark_parts)
        else:
            writer.write(score, temporary)
        temporary.replace(path)
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _module(name: str):
    return importlib.import_module(f"musicgen.formats.{name}")
