"""What is read of each data set, what is refused and why; and does every piece survive every tokenizer?

    python benchmarks/datasets.py folder-of-midi tunes.abc music21:all --json datasets.json

Every file that has a reader is read, by one process a core. Each piece that is read is given to each tokenizer: it is
*held* if it is encoded, and *equal* if decode(encode(score)) is the score as `quantise` says that the tokenizer holds
it: onset, duration, pitch, program or drum, velocity bin, bars, metre, tempo bin, key, signs. Pieces that the tokenizer
refuses (a melody tokenizer four voices, a bar tokenizer a recording without bar lines) are counted with their reasons.

music21's corpus is shown collection by collection. The exit code is 1 if a piece came back unequal.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from musicgen.corpus import find_source
from musicgen.corpus.units import as_wanted, reason_of
from musicgen.errors import MusicgenError
from musicgen.formats.files import read_tunes
from musicgen.score import Score
from musicgen.tokens import TOKENIZERS, Tokenizer


@dataclass
class Fate:
    """What one tokenizer did with the pieces of a set. `unequal` names those that came back different."""

    held: int = 0
    notes: int = 0
    steps: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    unequal: list[str] = field(default_factory=list)


@dataclass
class Row:
    """One data set."""

    files: int = 0
    files_refused: int = 0
    pieces: int = 0
    notes: int = 0
    refused: list[str] = field(default_factory=list)
    """A line for each file or tune that was not read."""
    fates: dict[str, Fate] = field(default_factory=lambda: defaultdict(Fate))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("music", nargs="+", help="folders, files, or music21:NAME; music21:all is all of its corpus")
    parser.add_argument("--json", type=Path, help="write everything found here too")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    options = parser.parse_args()
    rows: dict[str, Row] = defaultdict(Row)
    for place in options.music:
        source = find_source(place)
        jobs = [str(path) for path in source.scores]
        with ProcessPoolExecutor(options.workers) as pool:
            results = pool.map(look, jobs, chunksize=4)
            for name, found in zip(source.score_names, tqdm(results, total=len(jobs), desc=place), strict=True):
                add(rows[f"music21:{name.split('/')[0]}" if place == "music21:all" else source.root.name], name, found)
    print_tables(rows)
    if options.json:
        plain = {name: asdict(replace(row, fates=dict(row.fates))) for name, row in rows.items()}
        options.json.write_text(json.dumps(plain, indent=1))
    sys.exit(any(fate.unequal for row in rows.values() for fate in row.fates.values()))


def look(path: str) -> list[dict]:
    """What became of each piece of a file: {"refused": reason} or {"title", "notes", "fates": {tokenizer: ...}}."""
    try:
        tunes = read_tunes(path)
    except MusicgenError as error:
        return [{"refused": reason_of(error, path)}]
    except Exception as error:
        return [{"refused": f"READER FAILED: {type(error).__name__}: {error}"}]
    found: list[dict] = []
    for tune in tunes:
        if isinstance(tune, MusicgenError):
            found.append({"refused": reason_of(tune, path)})
            continue
        fates = {name: fate(tune, make(), path) for name, make in TOKENIZERS.items()}
        found.append({"title": tune.title or Path(path).stem, "notes": tune.note_count, "fates": fates})
    return found


def fate(tune: Score, tokenizer: Tokenizer, path: str) -> dict:
    """{"refused": reason}, or {"equal", "notes", "steps"}."""
    try:
        score = as_wanted(tune, tokenizer, path)
        steps = tokenizer.encode(score)
    except MusicgenError as error:
        return {"refused": re.sub(r"\d+(\.\d+)?", "N", str(error))[:90]}
    except Exception as error:
        return {"equal": False, "why": f"{type(error).__name__}: {error}", "notes": 0, "steps": 0}
    held = tokenizer.quantise(score)
    again = tokenizer.decode(steps)
    return {"equal": again == held, "notes": int(tokenizer.is_note(steps).sum()), "steps": len(steps), "why": ""}


def add(row: Row, name: str, found: list[dict]) -> None:
    row.files += 1
    row.files_refused += all("refused" in piece for piece in found)
    for piece in found:
        if "refused" in piece:
            row.refused.append(f"{name}: {piece['refused']}")
            continue
        row.pieces += 1
        row.notes += piece["notes"]
        for tokenizer, result in piece["fates"].items():
            counted = row.fates[tokenizer]
            if "refused" in result:
                counted.refused[result["refused"]] = counted.refused.get(result["refused"], 0) + 1
                continue
            counted.held += 1
            counted.notes += result["notes"]
            counted.steps += result["steps"]
            if not result["equal"]:
                counted.unequal.append(f"{name}: {piece['title']} {result['why']}".strip())


def print_tables(rows: dict[str, Row]) -> None:
    names = list(TOKENIZERS)
    print("| music | files | pieces | notes | not read | " + " | ".join(f"{n}: equal of held" for n in names) + " |")
    print("|---" * (5 + len(names)) + "|")
    for music, row in rows.items():
        cells = []
        for name in names:
            held = row.fates[name]
            cells.append(f"{held.held - len(held.unequal):,} of {held.held:,}" if held.held else "-")
        print(
            f"| {music} | {row.files:,} | {row.pieces:,} | {row.notes:,} | {len(row.refused)} | {' | '.join(cells)} |"
        )
    print("\nNot read:")
    for music, row in rows.items():
        for line in row.refused[:20]:
            print(f"- {music}/{line}")
    print("\nRefused by a tokenizer:")
    for music, row in rows.items():
        for name in names:
            for reason, count in sorted(row.fates[name].refused.items(), key=lambda found: -found[1])[:4]:
                print(f"- {music}, {name}: {count} x {reason}")
    for music, row in rows.items():
        for name in names:
            for line in row.fates[name].unequal[:10]:
                print(f"UNEQUAL {music}, {name}: {line}")


if __name__ == "__main__":
    main()
