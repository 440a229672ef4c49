"""A folder of scores becomes one memory-mapped file of steps and a manifest.

The compiled corpus lies in a cache folder named by its content (the files' hashes, the tokenizer and its options), so
that the same folder is never parsed twice. Files are read in parallel, each by itself: a bad one is a line in the
manifest. Pieces come in the order of their paths, whatever finished first: the same folder gives the same bytes.

    steps.bin       int16 (steps, fields), memory-mapped
    manifest.json   every file: hash, and what was kept of it or why not; every piece: where its steps lie
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from musicgen import __version__
from musicgen.corpus.sources import Source
from musicgen.errors import CorpusError, MusicgenError
from musicgen.formats import read_tunes
from musicgen.score import Score, unfold
from musicgen.score.general_midi import PROGRAM_NAMES
from musicgen.tokens import TOKENIZERS, Tokenizer

LAYOUT = 4
"""Raised whenever readers or tokenizers change what they make of a file: old caches are then left alone."""

MOST_TEMPI = 32
"""A performance may have thousands; the manifest is no place for them."""

PARALLEL_FROM = 8
"""Fewer files than this are read in this process: starting workers costs more."""


@dataclass(frozen=True)
class Piece:
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
    metres: tuple[str, ...] = ()
    tempi_bpm: tuple[float, ...] = ()
    instruments: tuple[str, ...] = ()
    split: float = 1.0
    """Where the piece stands in the order of the split, 0..1: the lowest are held out for validation."""


@dataclass(frozen=True)
class FileReport:
    """What became of one file: pieces kept, and a reason for everything that was not."""

    path: str
    sha256: str
    kept: int
    skipped: tuple[str, ...] = ()
    duplicates: int = 0
    """How many of those skipped are the same music as an earlier piece."""


@dataclass(frozen=True)
class Corpus:
    """A compiled corpus. `steps` (N, F) int16 is memory-mapped: pieces are slices of it."""

    source: str
    tokenizer: Tokenizer
    folder: Path
    steps: np.ndarray
    pieces: tuple[Piece, ...]
    files: tuple[FileReport, ...]
    cached: bool = False
    ignored: tuple[str, ...] = field(default=())

    def steps_of(self, piece: Piece) -> np.ndarray:
        """(T, F) int16, a view."""
        return self.steps[piece.offset : piece.offset + piece.length]


def cache_root() -> Path:
    """$MUSICGEN_CACHE, or the user's cache folder."""
    root = os.environ.get("MUSICGEN_CACHE")
    if root:
        return Path(root)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "musicgen"


def compile_corpus(
    source: Source,
    tokenizer: Tokenizer,
    *,
    cache: Path | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Corpus:
    """Compile, or open what was compiled before. `progress(files done, files)` is called as it goes.

    Raises CorpusError if nothing in the source can be kept; the message counts the reasons.
    """
    hashes = [_hash(path) for path in source.scores]
    identity = {
        "layout": LAYOUT,
        "version": __version__,
        "tokenizer": {"name": tokenizer.name, "options": tokenizer.options},
        "files": [[source.shown(p), h] for p, h in zip(source.scores, hashes, strict=True)],
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]
    folder = (cache or cache_root()) / "corpora" / key
    ignored = tuple(source.shown(path) for path in source.others)
    if (folder / "manifest.json").exists():
        return _open(folder, source.name, tokenizer, cached=True, ignored=ignored)

    folder.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=folder.parent))
    try:
        pieces, files = _build(building, source, hashes, tokenizer, workers, progress)
        if not pieces:
            raise CorpusError(_nothing_kept(source, files))
        manifest = {
            **identity,
            "fields": [f.name for f in tokenizer.fields],
            "licences": licence_notes(source),
            "pieces": [asdict(piece) for piece in in_split_order(pieces)],
            "files": [asdict(report) for report in files],
        }
        (building / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False))
        if not folder.exists():
            building.rename(folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return _open(folder, source.name, tokenizer, cached=False, ignored=ignored)


def _hash(path: Path) -> str:
    """The sha256 of a file; of one that can't be read nothing, and its reader will say why."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _build(
    building: Path,
    source: Source,
    hashes: Sequence[str],
    tokenizer: Tokenizer,
    workers: int | None,
    progress: Callable[[int, int], None],
) -> tuple[list[Piece], list[FileReport]]:
    pieces: list[Piece] = []
    files: list[FileReport] = []
    seen: dict[str, tuple[int, int]] = {}  # fingerprint -> file and piece that had it first
    offset = 0
    jobs = [(str(path), tokenizer.name, tokenizer.options) for path in source.scores]
    with (building / "steps.bin").open("wb") as out:
        for i, (found, skipped) in enumerate(_in_order(jobs, workers)):
            shown = source.shown(source.scores[i])
            kept = doubled = 0
            for draft, steps in found:
                twin = seen.setdefault(draft["fingerprint"], (i, kept))
                if twin != (i, kept):
                    skipped.append(
                        f"{draft['title']}: the same music as a piece of {source.shown(source.scores[twin[0]])}"
                    )
                    doubled += 1
                    continue
                out.write(np.ascontiguousarray(steps, dtype=np.int16).tobytes())
                pieces.append(Piece(file=shown, offset=offset, length=len(steps), **draft))
                offset += len(steps)
                kept += 1
            files.append(FileReport(shown, hashes[i], kept, tuple(skipped), doubled))
            progress(i + 1, len(jobs))
    return pieces, files


def _in_order(jobs: list, workers: int | None) -> Iterator[tuple[list, list[str]]]:
    workers = min(workers or os.cpu_count() or 1, len(jobs))
    if workers == 1 or len(jobs) < PARALLEL_FROM:
        yield from map(encode_file, jobs)
        return
    spawn = multiprocessing.get_context("spawn")
    done = 0
    try:
        with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
            for result in pool.map(encode_file, jobs, chunksize=max(1, min(16, len(jobs) // (workers * 8)))):
                yield result
                done += 1
    except BrokenProcessPool:  # a file has brought its worker down: read the rest one by one, to learn which
        for job in jobs[done:]:
            try:
                with ProcessPoolExecutor(1, mp_context=spawn) as pool:
                    result = pool.submit(encode_file, job).result()
            except BrokenProcessPool:
                result = [], ["the reader crashed, or ran out of memory; please report it"]
            yield result


def encode_file(job: tuple[str, str, dict]) -> tuple[list[tuple[dict, np.ndarray]], list[str]]:
    """All pieces of one file as (facts, steps (T, F)), a line for each that can't be kept. No file makes it raise."""
    path, name, options = job
    tokenizer = TOKENIZERS[name](**options)
    found, skipped = [], []
    try:
        tunes = read_tunes(path)
    except MusicgenError as error:
        return [], [reason_of(error, path)]
    except Exception as error:  # a reader's own fault must not end the run; the line says whose it is
        return [], [f"the reader failed ({type(error).__name__}: {str(error)[:100]}); please report it"]
    for tune in tunes:
        if isinstance(tune, MusicgenError):
            skipped.append(reason_of(tune, path))
            continue
        title = tune.title or Path(path).stem
        try:
            score = tune if tokenizer.as_written else unfold(tune)
            steps = tokenizer.encode(score)
        except MusicgenError as error:
            skipped.append(f"{title}: {error}")
            continue
        except Exception as error:
            skipped.append(f"{title}: the tokenizer failed ({type(error).__name__}: {error}); please report it")
            continue
        facts = {
            "title": title,
            "notes": int(tokenizer.is_note(steps).sum()),
            "bars": len(score.bars),
            "parts": len(score.parts),
            "characters": tokenizer.characters(steps),
            "fingerprint": fingerprint(score),
            "metres": sorted({f"{m.numerator}/{m.denominator}" for m in score.metres}),
            "tempi_bpm": sorted({round(t.bpm, 1) for t in score.tempos})[:MOST_TEMPI],
            "instruments": ["drums" if p.is_drum else PROGRAM_NAMES[p.program] for p in score.parts if len(p.notes)],
        }
        found.append((facts, steps))
    return found, skipped


def reason_of(error: MusicgenError, path: str) -> str:
    """The error's line without the path, which the report names already: "jigs.abc:12: ..." becomes "line 12: ..."."""
    text = str(error)
    if not text.startswith(f"{path}:"):
        return text
    line, colon, rest = text.removeprefix(f"{path}:").partition(":")
    return f"line {line}:{rest}" if colon and line.isdigit() else text.removeprefix(f"{path}:").strip()


def fingerprint(score: Score) -> str:
    """The same for the same notes in any key: a hash of all onsets, durations and intervals, drums by their keys."""
    found = hashlib.sha256()
    for is_drum in (False, True):
        blocks = [part.notes for part in score.parts if part.is_drum == is_drum and len(part.notes)]
        if not blocks:
            continue
        notes = np.concatenate(blocks)
        notes = notes[np.lexsort((notes["duration"], notes["pitch"], notes["onset"]))]
        pitch = notes["pitch"] if is_drum else np.diff(notes["pitch"], prepend=notes["pitch"][:1])
        found.update(b"drums" if is_drum else b"pitched")
        found.update(np.stack([notes["onset"], notes["duration"], pitch], axis=1).astype("<i4").tobytes())
    return found.hexdigest()[:32]


def _open(folder: Path, name: str, tokenizer: Tokenizer, cached: bool, ignored: tuple[str, ...]) -> Corpus:
    manifest = json.loads((folder / "manifest.json").read_text())
    steps = np.memmap(folder / "steps.bin", dtype=np.int16, mode="r").reshape(-1, len(tokenizer.fields))
    return Corpus(
        source=name,
        tokenizer=tokenizer,
        folder=folder,
        steps=steps,
        pieces=tuple(Piece(**piece) for piece in manifest["pieces"]),
        files=tuple(FileReport(**{**f, "skipped": tuple(f["skipped"])}) for f in manifest["files"]),
        cached=cached,
        ignored=ignored,
    )


def _nothing_kept(source: Source, files: list[FileReport]) -> str:
    reasons = [reason for report in files for reason in report.skipped]
    first = f"; the first: {files[0].path}: {reasons[0]}" if reasons else ""
    return f"{source.name}: none of {len(files)} files could be kept{first}"


def in_split_order(pieces: Sequence[Piece]) -> list[Piece]:
    """The same pieces, each told its place in the order of the split: by a hash of its music, whatever its name."""
    hashes = [hashlib.sha256(f"split {piece.fingerprint}".encode()).hexdigest() for piece in pieces]
    places = {h: place for place, h in enumerate(sorted(hashes))}
    return [replace(piece, split=places[h] / len(pieces)) for piece, h in zip(pieces, hashes, strict=True)]


def split_pieces(pieces: Sequence[Piece], valid_share: float) -> tuple[list[Piece], list[Piece]]:
    """(train, valid), by piece: the first of the split's order are held out.

    Valid gets the nearest whole number of pieces, but at least one of two or more if `valid_share` is not 0.
    """
    count = round(len(pieces) * valid_share)
    if valid_share > 0 and len(pieces) >= 2:
        count = min(max(count, 1), len(pieces) - 1)
    held_out = {piece.fingerprint for piece in sorted(pieces, key=lambda p: p.split)[:count]}
    return [p for p in pieces if p.fingerprint not in held_out], [p for p in pieces if p.fingerprint in held_out]


def licence_notes(source: Source) -> list[str]:
    """Files beside the scores that state their terms: LICENSE, COPYING, README and the like."""
    words = ("licen", "copying", "credits", "readme")
    return [source.shown(path) for path in source.others if path.name.lower().startswith(words)]
