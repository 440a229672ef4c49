"""The compiled corpus: steps on disk, memory-mapped, and a manifest that says where each piece came from.

    steps.bin       int16 (steps, fields)
    melodies.npy    uint32 (pieces, 32): a sketch of each piece's melody, from which near-duplicates are known
    manifest.json   tokenizer; every piece: where its steps lie; every file: hash, and what was kept of it or why not

Opening one parses no music. Several (the shards of one huge folder, or folders that were prepared apart) are joined by
listing them.
"""

from __future__ import annotations

import gc
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate, repeat
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from pydantic_core import from_json

from musicgen.corpus.split import SKETCH, groups_of, split_places
from musicgen.errors import CorpusError
from musicgen.tokens import Tokenizer

LAYOUT = 8
"""Raised whenever readers or tokenizers change what they make of a file: old caches are then left alone."""

STEPS, MELODIES, MANIFEST = "steps.bin", "melodies.npy", "manifest.json"


Row = TypeVar("Row", bound=tuple)


class Piece(NamedTuple):
    """One piece of a corpus: where it came from, where its steps lie, and what is in it."""

    title: str
    file: str
    offset: int
    length: int
    notes: int
    bars: int
    parts: int
    characters: int | None
    fingerprint: str
    metres: Sequence[str] = ()
    tempi_bpm: Sequence[float] = ()
    instruments: Sequence[str] = ()
    split: float = 1.0
    """Where the piece stands in the order of the split, 0..1: the lowest are held out for validation."""
    group: str = ""
    """The fingerprint of the first piece that is nearly the same music; its own where there is none."""
    left_out: int = 0
    """Notes of the score that the tokenizer does not hold: drums in clock time, doubled notes."""
    store: int = 0
    """Which of the joined corpora holds its steps."""


class FileReport(NamedTuple):
    """What became of one file: pieces kept, and a reason for everything that was not."""

    path: str
    sha256: str
    kept: int
    skipped: tuple[str, ...] = ()
    duplicates: int = 0
    """How many of those skipped are the same music as an earlier piece."""


@dataclass(frozen=True)
class Corpus:
    """A compiled corpus. `stores` are memory-mapped arrays (N, F) int16: pieces are slices of them."""

    source: str
    tokenizer: Tokenizer
    folders: tuple[Path, ...]
    key: str
    """Names the music and what was made of it: the same key, the same steps."""
    stores: tuple[np.ndarray, ...]
    pieces: tuple[Piece, ...]
    files: tuple[FileReport, ...]
    cached: bool = False
    ignored: tuple[str, ...] = field(default=())

    def steps_of(self, piece: Piece) -> np.ndarray:
        """(T, F) int16, a view."""
        return self.stores[piece.store][piece.offset : piece.offset + piece.length]

    @property
    def near_duplicates(self) -> tuple[int, int]:
        """(pieces that are nearly the same music as another, groups that they make)."""
        members: dict[str, int] = {}
        for piece in self.pieces:
            members[piece.group] = members.get(piece.group, 0) + 1
        sizes = [count for count in members.values() if count > 1]
        return sum(sizes), len(sizes)


def is_compiled(folder: str | Path) -> bool:
    """Whether a folder is a compiled corpus (made by `musicgen prepare --out`) and not one of scores."""
    return (Path(folder) / MANIFEST).is_file() and (Path(folder) / STEPS).is_file()


def write_manifest(folder: Path, facts: dict[str, Any], pieces: Sequence[Piece], files: Sequence[FileReport]) -> None:
    """manifest.json: facts as they are, pieces and files column by column, a line each."""
    columns: dict[str, Any] = dict(facts)
    for name, kind, rows in (("pieces", Piece, pieces), ("files", FileReport, files)):
        values = list(zip(*rows, strict=True)) or [()] * len(kind._fields)
        columns[name] = dict(zip(kind._fields, values, strict=True))
    lines = []
    for name, value in columns.items():
        if name in ("pieces", "files"):
            inner = ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
            lines.append(f" {json.dumps(name)}: {{\n{inner}\n }}")
        else:
            lines.append(f" {json.dumps(name)}: {json.dumps(value)}")
    (folder / MANIFEST).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def open_corpus(
    folder: str | Path, tokenizer: Tokenizer, *, name: str = "", cached: bool = True, ignored: tuple[str, ...] = ()
) -> Corpus:
    """A compiled corpus from disk. Raises CorpusError if it is damaged, or was made by another tokenizer or version."""
    folder = Path(folder)
    try:
        with _rubbish_left():
            manifest = _parsed((folder / MANIFEST).read_bytes())
        if manifest["layout"] != LAYOUT:
            raise CorpusError(f"{folder}: was prepared by another version of musicgen; prepare it again")
        made = manifest["tokenizer"]
        if made != {"name": tokenizer.name, "options": tokenizer.options}:
            asked, was = f"{tokenizer.name} {tokenizer.options or ''}", f"{made['name']} {made['options'] or ''}"
            raise CorpusError(
                f"{folder}: was prepared for the tokenizer {was.strip()}, and the configuration says {asked.strip()}; "
                "prepare it again, or change the tokenizer"
            )
        manifest["files"]["skipped"] = map(tuple, manifest["files"]["skipped"])
        with _rubbish_left():
            pieces, files = _rows(Piece, manifest["pieces"]), _rows(FileReport, manifest["files"])
        steps = np.zeros((0, len(tokenizer.fields)), dtype=np.int16)
        if pieces:  # an empty file can't be mapped
            steps = np.memmap(folder / STEPS, dtype=np.int16, mode="r").reshape(-1, len(tokenizer.fields))
        offsets = [*manifest["pieces"]["offset"], len(steps)]
        if offsets != list(accumulate(manifest["pieces"]["length"], initial=0)):
            raise ValueError("its pieces do not lie where it says")
        if np.load(folder / MELODIES, mmap_mode="r").shape != (len(pieces), SKETCH):
            raise ValueError("its melodies are of other pieces")
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise CorpusError(f"{folder}: a damaged corpus ({error}); delete the folder and prepare it again") from error
    return Corpus(name or str(folder), tokenizer, (folder,), manifest["key"], (steps,), pieces, files, cached, ignored)


def _rows(kind: type[Row], columns: dict[str, Any]) -> tuple[Row, ...]:
    """As `kind._make` of each row, which costs four times as much. Raises ValueError where a column is wanting."""
    if tuple(columns) != kind._fields:  # type: ignore[attr-defined]
        raise ValueError(f"its columns are {', '.join(columns)}")
    return tuple(map(tuple.__new__, repeat(kind), zip(*columns.values(), strict=True)))  # type: ignore[arg-type]


@contextmanager
def _rubbish_left() -> Iterator[None]:
    """Python looks for rubbish whenever thousands of things were made, and finds none where all of them are kept."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _parsed(data: bytes) -> Any:
    """What JSON holds. Raises ValueError."""
    try:
        return from_json(data, cache_strings="none")  # twice as quick as json, whose reports of damage are plainer
    except ValueError:  # or of a file whose name is no text, which only json reads
        return json.loads(data)


def join(corpora: Sequence[Corpus]) -> Corpus:
    """Several corpora as one: the same music is kept once, and groups and split are found anew over all of them."""
    if len(corpora) == 1:
        return corpora[0]
    pieces: list[Piece] = []
    sketches: list[np.ndarray] = []
    files: list[FileReport] = []
    seen: dict[str, str] = {}
    for store, corpus in enumerate(corpora):
        melodies = np.load(corpus.folders[0] / MELODIES)
        again: dict[str, list[str]] = {}
        for piece, sketch in zip(corpus.pieces, melodies, strict=True):
            if piece.fingerprint in seen:
                reason = f"{piece.title}: the same music as a piece of {seen[piece.fingerprint]}"
                again.setdefault(piece.file, []).append(reason)
                continue
            seen[piece.fingerprint] = piece.file
            pieces.append(piece._replace(store=store))
            sketches.append(sketch)
        for report in corpus.files:
            doubled = again.get(report.path, [])
            files.append(
                report._replace(
                    kept=report.kept - len(doubled),
                    skipped=(*report.skipped, *doubled),
                    duplicates=report.duplicates + len(doubled),
                )
            )
    first = corpora[0]
    return Corpus(
        source=" ".join(corpus.source for corpus in corpora),
        tokenizer=first.tokenizer,
        folders=tuple(folder for corpus in corpora for folder in corpus.folders),
        key=hashlib.sha256(" ".join(corpus.key for corpus in corpora).encode()).hexdigest()[:24],
        stores=tuple(store for corpus in corpora for store in corpus.stores),
        pieces=tuple(in_split_order(pieces, np.array(sketches))),
        files=tuple(files),
        cached=all(corpus.cached for corpus in corpora),
        ignored=tuple(path for corpus in corpora for path in corpus.ignored),
    )


def in_split_order(pieces: Sequence[Piece], sketches: np.ndarray) -> list[Piece]:
    """The same pieces, each told its group and its place in the order of the split. sketches: (P, 32), see `split`."""
    groups = groups_of(sketches)
    fingerprints = [piece.fingerprint for piece in pieces]
    places = split_places(fingerprints, groups)
    return [
        piece._replace(split=place, group=fingerprints[group])
        for piece, place, group in zip(pieces, places, groups.tolist(), strict=True)
    ]


def split_pieces(pieces: Sequence[Piece], valid_share: float) -> tuple[list[Piece], list[Piece]]:
    """(train, valid), by piece: the first of the split's order are held out, groups of near-duplicates whole.

    Valid gets as many pieces as the share asks for, or as few less as groups allow; of two or more groups at least the
    smallest is held out if `valid_share` is not 0, and at least one is left to train on.
    """
    count = round(len(pieces) * valid_share)
    groups: dict[str, list[Piece]] = {}
    for piece in sorted(pieces, key=lambda p: p.split):
        groups.setdefault(piece.group or piece.fingerprint, []).append(piece)
    if valid_share > 0 and len(groups) >= 2:
        smallest, *_, largest = sorted(len(members) for members in groups.values())
        count = min(max(count, smallest), len(pieces) - (largest if len(groups) == 2 else smallest))
        count = max(count, smallest)
    held_out: set[str] = set()
    held = 0
    for name, members in groups.items():
        if held + len(members) <= count and len(held_out) + 1 < len(groups):
            held_out.add(name)
            held += len(members)
    train = [p for p in pieces if (p.group or p.fingerprint) not in held_out]
    return train, [p for p in pieces if (p.group or p.fingerprint) in held_out]
