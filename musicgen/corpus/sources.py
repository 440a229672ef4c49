"""Where scores come from: a folder, one file, or a part of music21's corpus by name ("music21:bach", "music21:all")."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from array import array
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


Found = list[tuple[str, os.stat_result]]
"""The path of each file below the source's root, with its size and times."""


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
        root, found = folder.parent, [(folder.name, folder.stat())]
    elif folder.is_dir():
        root, found = folder, _files(str(folder), "", frozenset())
    else:
        raise CorpusError(f"{where}: no such folder or file")
    scores: Found = []
    others: list[str] = []
    for file in found:
        name = file[0]
        if name[name.rfind(".") :].lower() in READERS:
            scores.append(file)
        else:
            others.append(name)
    if not scores:
        raise CorpusError(f"{where}: no scores in it; files that can be read end in {' '.join(READERS)}")
    mine = scores[number - 1 :: shards]
    if not mine:
        raise CorpusError(f"{where}: shard {number}/{shards} is empty; it holds {len(scores)} scores")
    names = tuple([name for name, _ in mine])
    last = 2**63 - 1  # a clock that was wrong may have dated a file centuries ahead
    times = array("q", [n & last for _, stat in mine for n in (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)])
    stamp = hashlib.sha256("\0".join([os.path.abspath(root), *names]).encode(errors="surrogateescape"))
    stamp.update(times)
    return Source(where, root, names, tuple(others), stamp.hexdigest())


def _files(folder: str, above: str, within: frozenset[object]) -> Found:
    """Every file in a folder, at any depth, links followed, in the order of paths, their parts compared one by one.

    above: what comes before the names of the folder's files. within: the folders above, by device and number on it, to
    which no link leads back.
    """
    stat = os.stat(folder)
    here = (stat.st_dev, stat.st_ino) if stat.st_ino else os.path.realpath(folder)  # not every file system numbers
    if here in within:
        return []
    within |= {here}
    found: Found = []
    with os.scandir(folder) as listed:
        entries = {entry.name: entry for entry in listed if not entry.name.startswith(".")}
    for name in sorted(entries.keys() - PASSED_OVER):
        entry = entries[name]
        try:
            if entry.is_dir():
                found += _files(entry.path, f"{above}{name}/", within)
            elif entry.is_file():
                found.append((above + name, entry.stat()))
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
