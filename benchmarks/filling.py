"""What it is worth to see both sides of a hole, and the melody before its harmony.

    python benchmarks/filling.py checkpoints/orchestra data/orchestra
    python benchmarks/filling.py checkpoints/orchestra data/orchestra --bars 2 --holes 12 --json out/filling.json

Pieces that the checkpoint was not trained on. Of each, `--holes` holes of `--bars` bars at even distances are held
against the same bars in the order of time: nats a note of the true bars, given what comes before, and given what comes
after as well (4 bars of it, read before the 2 bars that lead in). Then each hole is filled by the model, by repeating
the bars before it, and by going on without looking ahead; beside the true bars stand the leap of the parts over the
seam at either end in semitones, and how much of the distributions of pitch classes, note lengths, intervals and density
they have in common with the true bars.

Harmony: nats a note of all other parts, in the order of time, and with the part that lies highest told four bars ahead.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from musicgen.checkpoint import Checkpoint, load_checkpoint
from musicgen.corpus import load_corpus
from musicgen.decoders.likelihood import nats_of
from musicgen.errors import FinishError
from musicgen.sampling import SamplingConfig, finish
from musicgen.sampling.fill import LEAD, Hole, fill
from musicgen.sampling.harmonise import BLOCK
from musicgen.sampling.takes import from_seam, likeness, overlaps
from musicgen.score import Score, bars_between, clip
from musicgen.score.edit import paste
from musicgen.tokens.bars_preview import BENEATH, HOLE, LONGEST_AHEAD, Block, arrange, follow
from musicgen.tokens.bars_vocabulary import BAR, CONDUCTOR, DRUM_PARTS, INSTRUMENT, PART, POSITION

DRAWING = SamplingConfig(top_p=0.95)


def holes_of(bars: int, length: int, count: int) -> list[Hole]:
    """Up to so many holes at even distances, not at either end."""
    firsts = sorted({int(x) for x in np.linspace(LEAD + 1, bars - length - LONGEST_AHEAD + 1, count)})
    return [Hole(first, first + length - 1) for first in firsts if first > LEAD and first + length <= bars]


def nats_of_hole(loaded: Checkpoint, steps: np.ndarray, hole: Hole) -> tuple[float, float, int]:
    """(nats from left to right, nats with both sides in sight, notes) of the true bars."""

    def inside(told: np.ndarray, bar: np.ndarray) -> np.ndarray:
        return (bar >= hole.first) & (bar <= hole.last) & (told[:, 0] >= POSITION)

    bars = int((steps[:, 0] == BAR).sum())
    block = Block(hole.first - LEAD, LEAD + hole.bars, min(LONGEST_AHEAD, bars - hole.last))
    told = arrange(steps, [block])
    straight, course = follow(steps), follow(told)
    one, two = inside(steps, straight.bar), inside(told, course.bar) & (course.order == HOLE)
    notes = int((one & (steps[:, 1] >= INSTRUMENT)).sum())
    found = [nats_of(loaded.model, loaded.tokenizer, s, w, told=True) for s, w in ((steps, one), (told, two))]
    return found[0], found[1], notes


def nats_of_harmony(loaded: Checkpoint, steps: np.ndarray) -> tuple[float, float, int] | None:
    """(nats from left to right, nats with the highest part told ahead, notes) of all other parts; None for one part."""
    roster = steps[steps[:, 0] == PART, 1]
    pitched = roster[roster < DRUM_PARTS]
    if len(roster) < 2 or not len(pitched):
        return None
    heights = [np.median(steps[(steps[:, 1] == part) & (steps[:, 0] >= POSITION), 2]) for part in pitched]
    melody = int(pitched[int(np.argmax(heights))])
    bars = int((steps[:, 0] == BAR).sum())
    told = arrange(steps, [Block(bar, 0, min(BLOCK, bars - bar + 1)) for bar in range(1, bars + 1, BLOCK)], [melody])

    def others(s: np.ndarray) -> np.ndarray:
        return (s[:, 0] >= POSITION) & (s[:, 1] != melody) & (s[:, 1] != CONDUCTOR)

    one, two = others(steps), others(told) & (follow(told).order == BENEATH)
    found = [nats_of(loaded.model, loaded.tokenizer, s, w, told=True) for s, w in ((steps, one), (told, two))]
    return found[0], found[1], int(one.sum())


def seam_leaps(score: Score, tick: int) -> list[int]:
    """Semitones from the last note of each part before a tick to its first from there on, the highest of a chord."""
    leaps = []
    for part in score.parts:
        before, after = (part.notes[mask] for mask in (part.notes["onset"] < tick, part.notes["onset"] >= tick))
        if not part.is_drum and len(before) and len(after):
            last = before["pitch"][before["onset"] == before["onset"].max()].max()
            leaps.append(abs(int(after["pitch"][after["onset"] == after["onset"].min()].max()) - int(last)))
    return leaps


def ways_to_fill(loaded: Checkpoint, score: Score, hole: Hole, seed: int) -> dict[str, Score]:
    """The whole score with its hole filled: as it was, by the model, by going on blindly, by the bars before."""
    seen = loaded.corpus["seen"].get("part")
    start, stop = hole.ticks(score)
    options = {"takes": 1, "seed": seed, "config": DRAWING, "seen_parts": seen}
    ways = {"the true bars": score}
    ways["filled"] = fill(score, loaded.model, loaded.tokenizer, hole=hole, **options)[0].whole
    onward = finish(clip(score, start), loaded.model, loaded.tokenizer, bars=hole.bars + 1, **options)[0].whole
    rest = [(score, stop, score.length)]
    ways["gone on blindly"] = paste([(onward, 0, stop), *rest])
    before = int(score.bars[hole.first - 1 - hole.bars]) if hole.first > hole.bars else None
    if before is not None and start - before == stop - start:
        ways["the bars before"] = paste([(score, 0, start), (score, before, start), *rest])
    return ways


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", type=Path, help="a `bars` model trained with training.preview")
    parser.add_argument("music", nargs="+", help="folders; what the checkpoint was trained on is left out")
    parser.add_argument("--bars", type=int, default=4, help="bars of a hole")
    parser.add_argument("--holes", type=int, default=8, help="holes a piece")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-writing", action="store_true", help="nats alone")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    given = parser.parse_args(arguments)
    loaded = load_checkpoint(given.checkpoint)
    if loaded.tokenizer.name != "bars" or not loaded.config.training.preview:
        sys.exit(f"{given.checkpoint}: not a `bars` model trained with training.preview")
    corpus = load_corpus(given.music, loaded.tokenizer)
    trained = {piece["fingerprint"] for piece in loaded.corpus["train"]}
    pieces = [piece for piece in corpus.pieces if piece.fingerprint not in trained]
    if not pieces:
        sys.exit("no piece that the checkpoint was not trained on")

    hole_nats, harmony_nats = np.zeros(3), np.zeros(3)
    figures: dict[str, dict[str, list[float]]] = {}
    holes = [(piece, hole) for piece in pieces for hole in holes_of(piece.bars, given.bars, given.holes)]
    for piece, hole in tqdm(holes, unit="hole", disable=None):
        steps = np.asarray(corpus.steps_of(piece))
        hole_nats += nats_of_hole(loaded, steps, hole)
        if given.no_writing:
            continue
        score = loaded.tokenizer.decode(steps)
        start, stop = hole.ticks(score)
        try:
            ways = ways_to_fill(loaded, score, hole, given.seed)
        except FinishError as error:
            print(f"{piece.title}, bars {hole}: {error}", file=sys.stderr)
            continue
        true = bars_between(score, hole.first - 1, hole.last)
        for name, whole in ways.items():
            row = figures.setdefault(name, {"leap in": [], "leap out": [], "like the true bars": []})
            written = from_seam(clip(whole, stop), start)
            row["leap in"] += seam_leaps(whole, start)
            row["leap out"] += seam_leaps(whole, stop)
            alike = likeness(overlaps(true, replace(written, bars=true.bars)))
            row["like the true bars"] += [] if alike is None else [alike]
    for piece in tqdm(pieces, unit="piece", disable=None):
        found = nats_of_harmony(loaded, np.asarray(corpus.steps_of(piece)))
        harmony_nats += (0, 0, 0) if found is None else found

    print(f"{len(holes)} holes of {given.bars} bars in {len(pieces)} pieces, {hole_nats[2]:,.0f} notes\n")
    print("| nats a note | from left to right | with both sides, or the melody, in sight |")
    print("|---|---|---|")
    result: dict = {}
    for name, (straight, told, notes) in (("the hole", hole_nats), ("the other parts", harmony_nats)):
        result[name] = {"straight": straight / max(notes, 1), "told": told / max(notes, 1), "notes": int(notes)}
        print(f"| {name} | {result[name]['straight']:.3f} | {result[name]['told']:.3f} |")
    if figures:
        print("\n| | leap in | leap out | like the true bars |")
        print("|---|---|---|---|")
    for name, row in figures.items():
        means = {key: float(np.mean(values)) if values else float("nan") for key, values in row.items()}
        result[name] = means
        print(f"| {name} | {means['leap in']:.2f} | {means['leap out']:.2f} | {means['like the true bars']:.3f} |")
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
