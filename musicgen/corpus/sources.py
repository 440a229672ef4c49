"""Where scores come from: a folder, one file, or a part of music21's corpus by name ("music21:bach", "music21:all")."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from musicgen.errors import CorpusError
from musicgen.formats import READERS

MUSIC21 = "music21:"
PASSED_OVER = {"__pycache__", "__MACOSX"}
"""Folders that hold no music of the user's; nor does what begins with a dot."""


@dataclass(frozen=True)
class Source:
    """The files of a corpus, as paths below `root`: those that have a reader, and the others.

    stamp: a digest of where the scores lie, their sizes and times. While it is the same, so is the music.
    """

    name: str
    root: Path
    score_names: tuple[str, ...]
    other_names: tuple[str, ...]
    stamp: str

    @property
    def scores(self) -> tuple[Path, ...]:
        return tuple(self.root / name for name in self.score_names)

    @property
    def others(self) -> tuple[Path, ...]:
        return tuple(self.root / name for name in self.other_names)


def find_source(where: str | Path, shard: tuple[int, int] = (1, 1)) -> Source:
    """All files at `where`, sorted by path; of the scores, shard (k, n) has each n-th from the k-th on.

    Raises CorpusError where there is nothing to read.
    """
    where = str(where)
    number, shards = shard
    if not 1 <= number <= shards:
        raise CorpusError(f"shard {number}/{shards}: expected K/N with K from 1 to N")
    folder = _music21_folder(where.removeprefix(MUSIC21)) if where.startswith(MUSIC21) else Path(where)
    if folder.is_file():
        if folder.suffix.lower() not in READERS:
            raise CorpusError(f"{folder}: no reader for {folder.suffix!r}; known: {' '.join(READERS)}")
        root = folder.parent
        found: list[tuple[tuple[str, ...], os.stat_result]] = [((folder.name,), folder.stat())]
    elif folder.is_dir():
        root, found = folder, sorted(_files(str(folder)), key=lambda file: file[0])
    else:
        raise CorpusError(f"{where}: no such folder or file")
    scores, others = [], []
    for parts, stat in found:
        if os.path.splitext(parts[-1])[1].lower() in READERS:
            scores.append(("/".join(parts), stat))
        else:
            others.append("/".join(parts))
    if not scores:
        raise CorpusError(f"{where}: no scores in it; files that can be read end in {' '.join(READERS)}")
    mine = scores[number - 1 :: shards]
    if not mine:
        raise CorpusError(f"{where}: shard {number}/{shards} is empty; it holds {len(scores)} scores")
    stamp = hashlib.sha256(os.path.abspath(root).encode(errors="surrogateescape"))
    lines = "".join(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\n" for name, stat in mine)
    stamp.update(lines.encode(errors="surrogateescape"))
    return Source(where, root, tuple(name for name, _ in mine), tuple(others), stamp.hexdigest())


Found = list[tuple[tuple[str, ...], os.stat_result]]


def _files(folder: str, above: tuple[str, ...] = (), within: frozenset[str] = frozenset()) -> Found:
    """(path below `folder` in parts, its size and times) of every file, at any depth, links followed.

    within: the real paths of the folders above, to which no link leads back.
    """
    found: Found = []
    here = os.path.realpath(folder)
    if here in within:
        return found
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                if entry.name in PASSED_OVER or entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    found += _files(entry.path, (*above, entry.name), within | {here})
                elif entry.is_file():
                    found.append(((*above, entry.name), entry.stat()))
            except OSError:
                continue  # a broken link, or gone in the meantime
    return found


def _music21_folder(name: str) -> Path:
    """A composer or collection of music21's corpus, found without importing music21 (which takes seconds)."""
    spec = importlib.util.find_spec("music21")
    if spec is None or not spec.submodule_search_locations:
        raise CorpusError("music21 is not installed: pip install music21")
    corpus = Path(spec.submodule_search_locations[0]) / "corpus"
    if name == "all":
        return corpus
    names = sorted(p.name for p in corpus.iterdir() if p.is_dir() and not p.name.startswith("_"))
    if name not in names:
        raise CorpusError(f"music21:{name}: no such collection; there are all {' '.join(names)}")
    return corpus / name
