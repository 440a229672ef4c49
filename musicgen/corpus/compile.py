"""A folder of scores becomes a compiled corpus, on all cores, once.

Files are read in parallel, each by itself: a bad one is a line in the manifest. Pieces come in the order of their
paths, whatever finished first: the same folder gives the same bytes. What has been read is put down in units of a few
files, so that a run that is stopped is gone on with by the next one. The compiled corpus lies in a cache folder named
by its content (the files' hashes, the tokenizer and its options), so that the same music is never parsed twice; while a
folder's files have the sizes and times that they had, not even their hashes are taken again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from musicgen import __version__
from musicgen.corpus.corpus import (
    LAYOUT,
    MELODIES,
    STEPS,
    Corpus,
    FileReport,
    Piece,
    in_split_order,
    is_compiled,
    join,
    open_corpus,
    write_manifest,
)
from musicgen.corpus.sources import Source, find_source
from musicgen.corpus.split import SKETCH
from musicgen.corpus.units import Progress, no_progress, put_text, read_units, unit_path, units_of
from musicgen.errors import CorpusError
from musicgen.tokens import Tokenizer


def cache_root() -> Path:
    """$MUSICGEN_CACHE, or the user's cache folder."""
    root = os.environ.get("MUSICGEN_CACHE")
    if root:
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "musicgen"


def load_corpus(
    places: str | Path | Sequence[str | Path],
    tokenizer: Tokenizer,
    *,
    workers: int | None = None,
    progress: Progress = no_progress,
) -> Corpus:
    """The corpus of one or more places, each a folder, file or collection to compile, or a corpus that was prepared."""
    listed = [places] if isinstance(places, (str, Path)) else list(places)
    found = []
    for place in listed:
        if is_compiled(place):
            found.append(open_corpus(place, tokenizer))
        else:
            found.append(compile_corpus(find_source(place), tokenizer, workers=workers, progress=progress))
    if not found:
        raise CorpusError("no folder of scores was named")
    joined = join(found)
    if not joined.pieces:
        raise CorpusError(f"{joined.source}: no pieces in it; prepare a folder that holds some")
    return joined


def compile_corpus(
    source: Source,
    tokenizer: Tokenizer,
    *,
    cache: Path | None = None,
    out: Path | None = None,
    workers: int | None = None,
    progress: Progress = no_progress,
) -> Corpus:
    """Compile, or open what was compiled before. `progress(files done, files)` is called as it goes.

    out: the folder to leave the corpus in, in place of the cache. Stopped (Ctrl-C) and called again, it goes on with
    the files that are not read yet. Raises CorpusError if nothing in the source can be kept, or if `out` holds
    something else.
    """
    cache = cache or cache_root()
    ignored = source.other_names
    made_by = {
        "layout": LAYOUT,
        "version": __version__,
        "tokenizer": {"name": tokenizer.name, "options": tokenizer.options},
    }
    stamp = hashlib.sha256(json.dumps([source.stamp, made_by], sort_keys=True).encode()).hexdigest()[:24]
    stamped = cache / "stamps" / stamp
    if out is None and stamped.is_file():
        folder = cache / "corpora" / stamped.read_text()
        if is_compiled(folder):
            return open_corpus(folder, tokenizer, name=source.name, ignored=ignored)

    hashes = [_hash(path) for path in source.scores]
    shown = list(source.score_names)
    identity = {**made_by, "files": list(zip(shown, hashes, strict=True))}
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode(errors="surrogateescape")).hexdigest()[:24]
    folder = out or cache / "corpora" / key
    if is_compiled(folder):
        corpus = open_corpus(folder, tokenizer, name=source.name, ignored=ignored)
        if corpus.key != key:
            raise CorpusError(f"{folder}: holds another corpus; delete it, or choose another folder")
        if all(hashes):
            put_text(stamped, key)
        return corpus
    if folder.exists() and any(folder.iterdir()):
        raise CorpusError(f"{folder}: is not empty and no corpus; choose another folder")

    folder.parent.mkdir(parents=True, exist_ok=True)
    units_folder = cache / "units" / key
    units = units_of(source.scores)
    try:
        read_units(units, units_folder, tokenizer, workers, progress)
        facts = {
            **made_by,
            "key": key,
            "fields": [f.name for f in tokenizer.fields],
            "licences": licence_notes(source),
        }
        _put_together(folder, units_folder, len(units), source, hashes, facts, may_be_empty=out is not None)
    except FileNotFoundError:
        if not is_compiled(folder):  # else another run has finished before this one, and cleared up
            raise
    if out is None and all(hashes):  # a file that could not be opened may be readable the next time
        put_text(stamped, key)
    return open_corpus(folder, tokenizer, name=source.name, cached=False, ignored=ignored)


def _put_together(
    folder: Path, units: Path, count: int, source: Source, hashes: Sequence[str], facts: dict, *, may_be_empty: bool
) -> None:
    """The corpus in `folder`, all at once, from its units; these are deleted. Raises CorpusError where it is empty."""
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        pieces, files, melodies = _assemble(building, units, count, source.score_names, hashes)
        if not pieces and not may_be_empty:
            raise CorpusError(_nothing_kept(source, files))
        np.save(building / MELODIES, melodies)
        write_manifest(building, facts, in_split_order(pieces, melodies), files)
        if not is_compiled(folder):
            if folder.exists():
                folder.rmdir()  # an empty folder that was named for it
            building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
        shutil.rmtree(units, ignore_errors=True)


def _hash(path: Path) -> str:
    """The sha256 of a file; of one that can't be read nothing, and its reader will say why."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _assemble(
    building: Path, units: Path, count: int, shown: Sequence[str], hashes: Sequence[str]
) -> tuple[list[Piece], list[FileReport], np.ndarray]:
    """Units to steps.bin, in the order of paths; music that was met before is left out.

    Returns pieces, files and (P, 32) uint32 sketches of their melodies.
    """
    pieces: list[Piece] = []
    files: list[FileReport] = []
    melodies: list[list[int]] = []
    seen: dict[str, tuple[int, int]] = {}  # fingerprint -> file and piece that had it first
    offset = 0
    with (building / STEPS).open("wb") as out:
        for number in range(count):
            path = unit_path(units, number)
            steps = path.with_suffix(".bin").read_bytes()
            found = json.loads(path.read_bytes())
            total = sum(piece["length"] for file in found for piece in file["pieces"])
            width = len(steps) // total if total else 0  # bytes a step
            at = 0
            for file in found:
                i, kept, doubled = len(files), 0, 0
                for draft in file["pieces"]:
                    size = draft["length"] * width
                    twin = seen.setdefault(draft["fingerprint"], (i, kept))
                    if twin == (i, kept):
                        out.write(steps[at : at + size])
                        melodies.append(draft.pop("melody"))
                        pieces.append(Piece(file=shown[i], offset=offset, **draft))
                        offset += draft["length"]
                        kept += 1
                    else:
                        file["skipped"].append(f"{draft['title']}: the same music as a piece of {shown[twin[0]]}")
                        doubled += 1
                    at += size
                files.append(FileReport(shown[i], hashes[i], kept, tuple(file["skipped"]), doubled))
    return pieces, files, np.array(melodies, dtype=np.uint32).reshape(-1, SKETCH)


def _nothing_kept(source: Source, files: list[FileReport]) -> str:
    reasons = [(report.path, reason) for report in files for reason in report.skipped]
    first = f"; the first: {reasons[0][0]}: {reasons[0][1]}" if reasons else ""
    return f"{source.name}: none of {len(files)} files could be kept{first}"


def licence_notes(source: Source) -> list[str]:
    """Files beside the scores that state their terms: LICENSE, COPYING, README and the like."""
    words = ("licen", "copying", "credits", "readme")
    return [name for name in source.other_names if name.rpartition("/")[2].lower().startswith(words)]
