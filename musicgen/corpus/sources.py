"""Where scores come from: a folder, one file, or a part of music21's corpus by name ("music21:bach")."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from musicgen.errors import CorpusError
from musicgen.formats import READERS

MUSIC21 = "music21:"


@dataclass(frozen=True)
class Source:
    """The files of a corpus: `scores` have a reader, `others` have none. `root` is what paths are shown relative to."""

    name: str
    root: Path
    scores: tuple[Path, ...]
    others: tuple[Path, ...]

    def shown(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def find_source(where: str | Path) -> Source:
    """All files at `where`, sorted by path. Raises CorpusError where there is nothing to read."""
    where = str(where)
    if where.startswith(MUSIC21):
        folder = _music21_folder(where.removeprefix(MUSIC21))
    else:
        folder = Path(where)
    if folder.is_file():
        if folder.suffix.lower() not in READERS:
            raise CorpusError(f"{folder}: no reader for {folder.suffix!r}; known: {' '.join(READERS)}")
        return Source(where, folder.parent, (folder,), ())
    if not folder.is_dir():
        raise CorpusError(f"{where}: no such folder or file")
    hidden = {".git", "__pycache__"}
    files = sorted(p for p in folder.rglob("*") if p.is_file() and not hidden & set(p.relative_to(folder).parts))
    scores = tuple(p for p in files if p.suffix.lower() in READERS)
    if not scores:
        raise CorpusError(f"{where}: no scores in it; files that can be read end in {' '.join(READERS)}")
    return Source(where, folder, scores, tuple(p for p in files if p.suffix.lower() not in READERS))


def _music21_folder(name: str) -> Path:
    """A composer or collection of music21's corpus, found without importing music21 (which takes seconds)."""
    spec = importlib.util.find_spec("music21")
    if spec is None or not spec.submodule_search_locations:
        raise CorpusError("music21 is not installed: pip install music21")
    corpus = Path(spec.submodule_search_locations[0]) / "corpus"
    names = sorted(p.name for p in corpus.iterdir() if p.is_dir() and not p.name.startswith("_"))
    if name not in names:
        raise CorpusError(f"music21:{name}: no such collection; there are {' '.join(names)}")
    return corpus / name
