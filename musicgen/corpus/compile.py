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
import multiprocessing
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
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
from musicgen.corpus.split import fingerprint, melody_sketch
from musicgen.errors import CorpusError, MusicgenError
from musicgen.formats import read_tunes
from musicgen.score import unfold
from musicgen.score.general_midi import PROGRAM_NAMES
from musicgen.score.timing import as_typed
from musicgen.tokens import TOKENIZERS, Tokenizer

MOST_TEMPI = 32
"""A performance may have thousands; the manifest is no place for them."""

PARALLEL_FROM = 8
"""Fewer files than this are read in this process: starting workers costs more."""

PLAYABLE = (".mid", ".midi")
"""Files that may hold music as it was played, without usable bar lines."""

UNIT_FILES = 32
UNIT_BYTES = 256 * 1024
"""A unit of work ends with the file that takes it past either."""

Progress = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """For callers that show none."""


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
    return join(found)


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
        _put_text(stamped, key)
        return corpus
    if folder.exists() and any(folder.iterdir()):
        raise CorpusError(f"{folder}: is not empty and no corpus; choose another folder")

    folder.parent.mkdir(parents=True, exist_ok=True)
    units_folder = cache / "units" / key
    units = _units(source.scores)
    _read_units(units, units_folder, tokenizer, workers, progress)
    building = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        pieces, files, melodies = _assemble(building, units_folder, len(units), shown, hashes)
        if not pieces:
            shutil.rmtree(units_folder)
            raise CorpusError(_nothing_kept(source, files))
        np.save(building / MELODIES, melodies)
        facts = {
            **made_by,
            "key": key,
            "fields": [f.name for f in tokenizer.fields],
            "licences": licence_notes(source),
        }
        write_manifest(building, facts, in_split_order(pieces, melodies), files)
        if not is_compiled(folder):
            if folder.exists():
                folder.rmdir()  # an empty folder that was named by `out`
            building.rename(folder)
        shutil.rmtree(units_folder, ignore_errors=True)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    if out is None:
        _put_text(stamped, key)
    return open_corpus(folder, tokenizer, name=source.name, cached=False, ignored=ignored)


def _hash(path: Path) -> str:
    """The sha256 of a file; of one that can't be read nothing, and its reader will say why."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _put_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


# ---------------------------------------------------------------------------------------------------------------- units


def _units(scores: Sequence[Path]) -> list[list[str]]:
    """The files cut into units of work, the same whoever does it."""
    units: list[list[str]] = [[]]
    size = 0
    for path in scores:
        if len(units[-1]) >= UNIT_FILES or size >= UNIT_BYTES:
            units.append([])
            size = 0
        units[-1].append(str(path))
        try:
            size += path.stat().st_size
        except OSError:
            continue
    return units


def _read_units(
    units: Sequence[Sequence[str]], folder: Path, tokenizer: Tokenizer, workers: int | None, progress: Progress
) -> None:
    """Read every unit that is not there yet into `folder`; `progress` counts files."""
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(map(len, units))
    done = 0
    waiting = []
    for number, paths in enumerate(units):
        if _unit_path(folder, number).exists():
            done += len(paths)
        else:
            waiting.append(number)
    if done:
        progress(done, total)
    workers = min(workers or os.cpu_count() or 1, len(waiting))
    if workers <= 1 or total < PARALLEL_FROM:
        for number in waiting:
            so_far = done

            def count(files: int, so_far: int = so_far) -> None:
                progress(so_far + files, total)

            encode_unit(units[number], _unit_path(folder, number), tokenizer.name, tokenizer.options, count)
            done += len(units[number])
        return
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_ignore_interrupts)
    try:
        jobs: dict[Future, int] = {
            pool.submit(encode_unit, units[n], _unit_path(folder, n), tokenizer.name, tokenizer.options): n
            for n in waiting
        }
        for job in as_completed(jobs):
            job.result()
            done += len(units[jobs[job]])
            progress(done, total)
    except BrokenProcessPool:  # a file has brought its worker down: read the rest one by one, to learn which
        pool.shutdown(wait=False, cancel_futures=True)
        for number in waiting:
            if not _unit_path(folder, number).exists():
                _encode_alone(units[number], _unit_path(folder, number), tokenizer)
                done += len(units[number])
                progress(min(done, total), total)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _ignore_interrupts() -> None:
    """In a worker: Ctrl-C is the parent's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _unit_path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.json"


def _encode_alone(paths: Sequence[str], target: Path, tokenizer: Tokenizer) -> None:
    """A unit, each file in a process of its own; one that brings it down is a line."""
    spawn = multiprocessing.get_context("spawn")
    found: list[FileFound] = []
    for path in paths:
        try:
            with ProcessPoolExecutor(1, mp_context=spawn, initializer=_ignore_interrupts) as pool:
                found.append(pool.submit(encode_file, (path, tokenizer.name, tokenizer.options)).result())
        except BrokenProcessPool:
            found.append(([], ["the reader crashed, or ran out of memory; please report it"]))
    _write_unit(found, target)


def encode_unit(
    paths: Sequence[str], target: Path, name: str, options: dict, count: Callable[[int], None] = lambda files: None
) -> None:
    """Read some files and put down what was found: facts at `target`, steps beside it. `count(files done)`."""
    found = []
    for i, path in enumerate(paths):
        found.append(encode_file((path, name, options)))
        count(i + 1)
    _write_unit(found, target)


FileFound = tuple[list[tuple[dict, np.ndarray]], list[str]]
"""Of one file: (facts, steps (T, F)) of each piece that is kept, and a line for each that is not."""


def _write_unit(found: Sequence[FileFound], target: Path) -> None:
    """Steps first, then the facts, which say that the unit is whole."""
    steps = [np.ascontiguousarray(s, dtype=np.int16) for pieces, _ in found for _, s in pieces]
    facts = [
        {"pieces": [{**piece, "length": len(s)} for piece, s in pieces], "skipped": skipped}
        for pieces, skipped in found
    ]
    temporary = target.with_name(f".{target.name}-{os.getpid()}")
    temporary.write_bytes(b"".join(s.tobytes() for s in steps))
    temporary.replace(target.with_suffix(".bin"))
    _put_text(target, json.dumps(facts))


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
            path = _unit_path(units, number)
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
    return pieces, files, np.array(melodies, dtype=np.uint32)


def encode_file(job: tuple[str, str, dict]) -> FileFound:
    """All pieces of one file as (facts, steps (T, F)), a line for each that can't be kept. No file makes it raise."""
    path, name, options = job
    tokenizer = TOKENIZERS[name](**options)
    found: list[tuple[dict, np.ndarray]] = []
    skipped: list[str] = []
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
            if not tokenizer.clock and Path(path).suffix.lower() in PLAYABLE:
                score = as_typed(score)
            steps = tokenizer.encode(score)
        except MusicgenError as error:
            skipped.append(f"{title}: {reason_of(error, path)}")
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
            "melody": melody_sketch(score).tolist(),
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


def _nothing_kept(source: Source, files: list[FileReport]) -> str:
    reasons = [(report.path, reason) for report in files for reason in report.skipped]
    first = f"; the first: {reasons[0][0]}: {reasons[0][1]}" if reasons else ""
    return f"{source.name}: none of {len(files)} files could be kept{first}"


def licence_notes(source: Source) -> list[str]:
    """Files beside the scores that state their terms: LICENSE, COPYING, README and the like."""
    words = ("licen", "copying", "credits", "readme")
    return [name for name in source.other_names if name.rpartition("/")[2].lower().startswith(words)]
