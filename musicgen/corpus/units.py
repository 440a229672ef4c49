"""Reading a folder on all cores: units of a few files, put down as they are done, so that a stopped run loses little.

A unit is two files in a folder: NUMBER.bin, the steps of its pieces one after the other, and NUMBER.json, which is
written last and says what they are and what was not kept. No file ends the run: one that can't be read is a line, and
so is one that brings down the process that reads it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from musicgen.corpus.split import fingerprint, melody_sketch
from musicgen.errors import MusicgenError
from musicgen.formats import read_tunes
from musicgen.score import Score, unfold
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

FileFound = tuple[list[tuple[dict, np.ndarray]], list[str]]
"""Of one file: (facts, steps (T, F)) of each piece that is kept, and a line for each that is not."""


def no_progress(done: int, total: int) -> None:
    """For callers that show none."""


def put_text(path: Path, text: str) -> None:
    """Write a small file at once, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)


def units_of(scores: Sequence[Path]) -> list[list[str]]:
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


def read_units(
    units: Sequence[Sequence[str]], folder: Path, tokenizer: Tokenizer, workers: int | None, progress: Progress
) -> None:
    """Read every unit that is not there yet into `folder`; `progress` counts files."""
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(map(len, units))
    done = 0
    waiting = []
    for number, paths in enumerate(units):
        if unit_path(folder, number).exists():
            done += len(paths)
        else:
            waiting.append(number)
    progress(done, total)
    workers = min(workers or os.cpu_count() or 1, len(waiting))
    others = multiprocessing.active_children()  # the caller's own processes, if it has any
    try:
        _read_waiting(units, folder, waiting, done, total, tokenizer, workers, progress)
    except KeyboardInterrupt:
        for worker in multiprocessing.active_children():  # the units in hand are lost, and nothing else
            if worker not in others:
                worker.terminate()
        raise


def _read_waiting(
    units: Sequence[Sequence[str]],
    folder: Path,
    waiting: Sequence[int],
    done: int,
    total: int,
    tokenizer: Tokenizer,
    workers: int,
    progress: Progress,
) -> None:
    """Read the units of those numbers, `workers` at a time; `done` of `total` files are read already."""
    pool = _pool(workers) if workers > 1 and total >= PARALLEL_FROM else None
    if pool is None:
        for number in waiting:
            so_far = done

            def count(files: int, so_far: int = so_far) -> None:
                progress(so_far + files, total)

            encode_unit(units[number], unit_path(folder, number), tokenizer.name, tokenizer.options, count)
            done += len(units[number])
        return
    try:
        jobs: dict[Future, int] = {
            pool.submit(encode_unit, units[n], unit_path(folder, n), tokenizer.name, tokenizer.options): n
            for n in waiting
        }
        for job in as_completed(jobs):
            job.result()
            done += len(units[jobs[job]])
            progress(done, total)
    except BrokenProcessPool:  # a file has brought its worker down: read the rest one by one, to learn which
        pool.shutdown(wait=False, cancel_futures=True)
        for number in waiting:
            if not unit_path(folder, number).exists():
                _encode_alone(units[number], unit_path(folder, number), tokenizer)
                done += len(units[number])
                progress(min(done, total), total)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor | None:
    """Processes to read in; None where none can be started, as from a script that does not guard its main part."""
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_ignore_interrupts)
    try:
        pool.submit(os.getpid).result()
    except (BrokenProcessPool, RuntimeError):
        pool.shutdown(wait=False, cancel_futures=True)
        return None
    return pool


def _ignore_interrupts() -> None:
    """In a worker: Ctrl-C is the parent's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def unit_path(folder: Path, number: int) -> Path:
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
    put_text(target, json.dumps(facts))


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
            score = as_wanted(tune, tokenizer, path)
            steps = tokenizer.encode(score)
        except MusicgenError as error:
            skipped.append(f"{title}: {reason_of(error, path)}")
            continue
        except Exception as error:
            skipped.append(f"{title}: the tokenizer failed ({type(error).__name__}: {error}); please report it")
            continue
        notes = int(tokenizer.is_note(steps).sum())
        facts = {
            "title": title,
            "notes": notes,
            "left_out": max(score.note_count - notes, 0),
            "bars": len(score.bars),
            "parts": len(score.parts),
            "characters": tokenizer.characters(steps),
            "fingerprint": fingerprint(tokenizer.quantise(score) if tokenizer.clock else score),
            "melody": melody_sketch(score).tolist(),
            "metres": sorted({f"{m.numerator}/{m.denominator}" for m in score.metres}),
            "tempi_bpm": sorted({round(t.bpm, 1) for t in score.tempos})[:MOST_TEMPI],
            "instruments": ["drums" if p.is_drum else PROGRAM_NAMES[p.program] for p in score.parts if len(p.notes)],
        }
        found.append((facts, steps))
    return found, skipped


def as_wanted(tune: Score, tokenizer: Tokenizer, path: str | Path) -> Score:
    """A score as it was read from `path`, the way a tokenizer wants it: repeats played out, and what is loose straight.

    Raises ScoreError where it was played without regard to bar lines and the tokenizer counts in bars.
    """
    score = tune if tokenizer.as_written else unfold(tune)
    return as_typed(score) if not tokenizer.clock and Path(path).suffix.lower() in PLAYABLE else score


def reason_of(error: MusicgenError, path: str) -> str:
    """The error's line without the path, which the report names already: "jigs.abc:12: ..." becomes "line 12: ..."."""
    text = str(error)
    if not text.startswith(f"{path}:"):
        return text
    line, colon, rest = text.removeprefix(f"{path}:").partition(":")
    return f"line {line}:{rest}" if colon and line.isdigit() else text.removeprefix(f"{path}:").strip()
