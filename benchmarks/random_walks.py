"""Is whatever a grammar allows music? Random walks through each, written to files and read by programs of others.

    python benchmarks/random_walks.py --walks 10000
    python benchmarks/random_walks.py --walks 200 --tokenizers bars grid

A walk chooses evenly among what the cursor allows, field by field, until the piece ends. Each must: end on the bar that
was asked for; decode; have bars that sum to their metre, pickups and repeats included; have the coordinates that
`locate` finds; be written as MIDI, and read back by this program (the same notes), by mido (as many
notes struck) and by music21 (none missing: it makes chords of what is less than a 64th apart, and counts some notes of
them twice). ABC walks are also written as ABC, which Debian's abc2midi must read without a warning, and music21 with
its notes. Prints a table; the exit code is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import mido
import music21
import numpy as np
from tqdm import tqdm

from musicgen.formats import read_score, write_score
from musicgen.score import Score, unfold
from musicgen.tokens import TOKENIZERS, Tokenizer

BARS: dict[str, tuple[int | None, ...]] = {"grid": (1, 2, None)}
"""Bars asked for, in turn; None: the walk ends when it likes. A column of a random grid has new notes in nearly every
voice, and music21 takes seconds for a few bars of that."""
OTHERS: tuple[int | None, ...] = (1, 2, 3, 4, 6, None)
LONGEST = {"grid": 2}
"""Bars from which on a walk that ends when it likes is told to; 6 for the others."""
BLOCK = 50
"""Walks that one job makes."""
OPTIONS: dict[str, tuple[dict, ...]] = {
    "abc": ({}, {"characters": True}),
    "grid": ({}, {"voices": 1, "steps_per_quarter": 12}, {"voices": 3, "holds": False}),
}
"""Ways to build each tokenizer, in turn; the others have one."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--walks", type=int, default=10_000, help="for each grammar")
    parser.add_argument("--tokenizers", nargs="+", choices=list(TOKENIZERS), default=list(TOKENIZERS))
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    if shutil.which("abc2midi") is None:
        print("abc2midi is not installed: ABC walks are not read by it", file=sys.stderr)
    print("| grammar | walks | notes | ends, decodes, bars add up, located | ours, mido, music21 read it | abc2midi |")
    print("|---|---|---|---|---|---|")
    failed = False
    for name in options.tokenizers:
        jobs = [(name, first, min(BLOCK, options.walks - first)) for first in range(0, options.walks, BLOCK)]
        found: Counter[str] = Counter()
        faults: list[str] = []
        with ProcessPoolExecutor(options.workers) as pool:
            for counts, lines in tqdm(pool.map(walks, jobs), total=len(jobs), desc=name):
                found.update(counts)
                faults += lines
        warned = f"{found['abc2midi']:,}" if found["asked abc2midi"] else "-"
        print(
            f"| {name} | {found['walks']:,} | {found['notes']:,} | {found['sound']:,} | {found['read']:,} | {warned} |",
            flush=True,
        )
        for line in faults[:10]:
            print(f"FAULT {name}: {line}")
        failed = failed or bool(faults)
    sys.exit(failed)


def walks(job: tuple[str, int, int]) -> tuple[Counter[str], list[str]]:
    """(counts, a line for each fault) of `count` walks from number `first` on."""
    name, first, count = job
    found: Counter[str] = Counter()
    faults: list[str] = []
    texts: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, first + count):
            ways = OPTIONS.get(name, ({},))
            tokenizer = TOKENIZERS[name](**ways[number % len(ways)])
            lengths = BARS.get(name, OTHERS)
            bars = lengths[number // len(ways) % len(lengths)]
            steps, coordinates = walk(tokenizer, bars, np.random.default_rng([number, len(name)]))
            found["walks"] += 1
            score = tokenizer.decode(steps)
            found["notes"] += score.note_count
            fault = unsound(tokenizer, score, steps, coordinates, bars)
            found["sound"] += not fault
            misread = "" if fault else unreadable(score, Path(folder) / f"{number}.mid")
            if not fault and name == "abc":
                text = tokenizer.text(steps)
                texts.append(text.replace("X:1\n", f"X:{number + 1}\n", 1))
                misread = misread or unreadable_abc(score, text)
            found["read"] += not (fault or misread)
            if fault or misread:
                faults.append(f"walk {number}, {bars} bars: {fault or misread}")
        if texts and shutil.which("abc2midi"):
            found["asked abc2midi"] += len(texts)
            complaints = complaints_of_abc2midi(texts, Path(folder))
            found["abc2midi"] += len(texts) - min(len(complaints), len(texts))
            faults += [f"walks {first} to {first + count}: abc2midi: {line}" for line in complaints]
    return found, faults


def walk(tokenizer: Tokenizer, bars: int | None, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(steps (T, F), coordinates (T, C)), every field chosen evenly among what is allowed."""
    cursor = tokenizer.cursor(bars)
    steps, coordinates = [list(tokenizer.start)], [cursor.coordinates()]
    while not cursor.done:
        if cursor.bars is None and cursor.bar >= LONGEST.get(tokenizer.name, 6):
            cursor.bars = cursor.bar + 1
        step: list[int] = []
        for _ in tokenizer.fields:
            step.append(int(generator.choice(np.flatnonzero(cursor.allowed(step)))))
        cursor.advance(step)
        steps.append(step)
        coordinates.append(cursor.coordinates())
    return np.array(steps, dtype=np.int16), np.array(coordinates)


def unsound(tokenizer: Tokenizer, score: Score, steps: np.ndarray, coordinates: np.ndarray, bars: int | None) -> str:
    """What is wrong with a walk as such; nothing, if all is well."""
    if bars is not None and len(score.bars) != bars:
        return f"has {len(score.bars)} bars"
    if not tokenizer.clock and irregular(score):
        return f"bars {irregular(score)} do not sum to their metre"
    if bars is not None and not np.array_equal(tokenizer.locate(steps), coordinates):
        return "is located elsewhere at once than step by step"
    if tokenizer.bars_begun(steps)[-1] != len(score.bars):
        return "has another number of bars begun"
    return ""


def irregular(score: Score) -> list[int]:
    """Bars that do not sum to their metre, but for pickups and the short ends that make up for them."""
    edges = {sign.onset for sign in score.signs} | {score.length}
    found = []
    for i, (start, length) in enumerate(zip(score.bars.tolist(), score.bar_lengths.tolist(), strict=True)):
        full = score.metre_at(start).ticks
        closes = start + length in edges and length < full
        opens = (start in edges or i == 0) and length < full
        if length != full and not (closes or opens):
            found.append(i + 1)
    return found


def unreadable(score: Score, path: Path) -> str:
    """What goes wrong when the score is written as MIDI and read again; nothing, if all is well."""
    write_score(score, path)
    played = unfold(score)
    struck = sorted(onset_pitch for part in played.parts for onset_pitch in part.notes[["onset", "pitch"]].tolist())
    again = read_score(path)
    ours = sorted(onset_pitch for part in again.parts for onset_pitch in part.notes[["onset", "pitch"]].tolist())
    if ours != struck:
        return "is not the same when it is read again"
    by_mido = sum(m.type == "note_on" and m.velocity > 0 for track in mido.MidiFile(path).tracks for m in track)
    if by_mido != len(struck):
        return f"{len(struck)} notes, of which mido reads {by_mido}"
    by_music21 = struck_in_music21(music21.converter.parse(str(path), forceSource=True, quantizePost=False))
    path.unlink()
    return "" if by_music21 >= len(struck) else f"{len(struck)} notes, of which music21 reads {by_music21}"


def struck_in_music21(stream: music21.stream.Stream) -> int:
    """Notes struck: of tied ones the first, of chords each."""
    found = 0
    for element in stream.recurse().notes:
        members = element.notes if isinstance(element, music21.chord.ChordBase) else (element,)
        found += sum(member.tie is None or member.tie.type == "start" for member in members)
    return found


def unreadable_abc(score: Score, text: str) -> str:
    """Whether music21 can read the walk as ABC."""
    try:
        stream = music21.converter.parse(text, format="abc", forceSource=True)
    except music21.exceptions21.Music21Exception as error:
        return f"music21 can't read it as ABC: {error}"
    return "" if any(True for _ in stream.recurse().notes) or not score.note_count else "music21 reads no notes"


def complaints_of_abc2midi(texts: list[str], folder: Path) -> list[str]:
    """The warnings and errors of abc2midi on many tunes in one file."""
    path = folder / "walks.abc"
    path.write_text("\n".join(texts))
    run = subprocess.run(["abc2midi", path.name], cwd=folder, capture_output=True, text=True, check=False)
    return re.findall(r".*(?:Warning|Error).*", run.stdout + run.stderr)


if __name__ == "__main__":
    main()
