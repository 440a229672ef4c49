"""Irish tunes, against the lecture's own lab: nats a character of the text of tunes never seen, and bars that add up.

    python benchmarks/irish.py --tunes irish.abc
    python benchmarks/irish.py --tunes irish.abc --only transformer --minutes 4 --out out/tunes --json irish.json

Trains the lab by its recipe (MIT 6.S191, lab 1) and then each model of this package, all on one thread, and prints a
Markdown table; minutes are of processor time, and ours are to take fewer than the lab's. A loss is over every character
of the unseen tunes, header and titles and the blank line after each too, every tune from its own start; a model over
steps is counted by the characters that its steps spell (see `irish_tunes/text.py`), so that all rows are comparable.
Thirds are of each tune: a model that copies within the tune gets better towards its end. Of each model 20 tunes are
drawn at temperature 1, those of the lab freely; *bars add up* where our ABC reader finds that every bar sums to the
metre (pickups and repeats included) and abc2midi, if it is installed, reads the tune without a warning.

A tune is unseen when the first byte of the sha256 of its text is under 26. `--held-out` looks at a part of the training
tunes instead, which is left out of training: what recipes were chosen by. `--ablate` trains one model without each of
the things that should help it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from irish_tunes.grammar import complaints, faults
from irish_tunes.lab import Score, Tune, read_tunes, sample_lab, score_ngram, train_lab
from irish_tunes.models import (
    ABLATIONS,
    RECIPES,
    Fitted,
    Recipe,
    averaged,
    fit,
    sample_tunes,
    score_steps,
    small,
    step_costs,
)

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("nats", "header", "body", "third 1", "third 2", "third 3")
HEAD = "| model | parameters | nats a character | header | body | thirds | minutes | tokens/s | bars add up |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tunes", type=Path, default=ROOT / "data" / "irish" / "tunes.abc", help="an ABC file")
    parser.add_argument("--minutes", type=float, help="for each of ours; else as many steps as its recipe says")
    parser.add_argument("--only", nargs="+", choices=("lab", "counting", *RECIPES), help="these rows alone")
    parser.add_argument("--held-out", action="store_true", help="look at tunes left out of training, not at the unseen")
    parser.add_argument("--ablate", choices=RECIPES, help="this model without each of the things that should help it")
    parser.add_argument("--samples", type=int, default=20, help="tunes drawn from each model")
    parser.add_argument("--out", type=Path, help="write the tunes that were drawn to this folder")
    parser.add_argument("--json", type=Path, help="write all figures, and the lab's loss along the way, to this file")
    parser.add_argument("--quick", action="store_true", help="everything small, in seconds: does it still run?")
    options = parser.parse_args()
    torch.set_num_threads(1)
    train, unseen = read_tunes(options.tunes)
    if options.held_out:
        unseen = [tune for tune in train if second_byte(tune) < 26]
        train = [tune for tune in train if second_byte(tune) >= 26]
    count = sum(tune.characters for tune in unseen)
    print(f"{len(train)} tunes to learn from, {len(unseen)} unseen with {count:,} characters\n", flush=True)
    if not train or not unseen:
        sys.exit(f"{options.tunes}: too few tunes to split; try a larger file")
    recipes = {name: small(recipe) for name, recipe in RECIPES.items()} if options.quick else RECIPES
    chosen = options.only or ("counting", "lab", *RECIPES)
    found: dict[str, dict] = {}
    print(f"{HEAD}\n{'|---' * (HEAD.count('|') - 1)}|", flush=True)
    seconds = 60 * options.minutes if options.minutes else 2.0 if options.quick else None
    if options.ablate:
        recipe = recipes[options.ablate]
        for name, changed in {"as chosen": recipe, **{n: change(recipe) for n, change in ABLATIONS.items()}}.items():
            run_ours(f"{options.ablate}, {name}", changed, train, unseen, seconds, 0, options.out, found)
    else:
        if "counting" in chosen:
            for name, own in (("n-gram", False), ("n-gram, with the tune's own counts", True)):
                row(found, name, score_ngram(train, unseen, own=own))
        if "lab" in chosen:
            run_lab(train, unseen, options, found)
        costs = []
        for name in (n for n in chosen if n in recipes):
            fitted_costs = run_ours(name, recipes[name], train, unseen, seconds, options.samples, options.out, found)
            costs.append(fitted_costs)
        if len(costs) > 1:
            tokenizer = costs[0][0].tokenizer
            together = averaged([each for _, each in costs])
            row(found, "these averaged", score_steps(tokenizer, unseen, together))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def second_byte(tune: Tune) -> int:
    return hashlib.sha256(tune.text.encode()).digest()[1]


def run_lab(train: Sequence[Tune], unseen: Sequence[Tune], options: argparse.Namespace, found: dict) -> None:
    """The lab to its end, a row for its best look and one for its last."""
    sizes = {"iterations": 10, "look_every": 5, "hidden": 32} if options.quick else {}
    run = train_lab(train, unseen, **sizes)
    parameters = sum(p.numel() for p in run.model.parameters())
    texts = list(sample_lab(run, options.samples, longest=200 if options.quick else 1500))
    best = min(run.curve, key=lambda look: look["nats"])
    iterations = int(run.curve[-1]["iteration"])
    for name, look in (
        (f"the lab, at its best (iteration {int(best['iteration'])})", best),
        ("the lab", run.curve[-1]),
    ):
        speed = 800 * look["iteration"] / max(look["seconds"], 1e-9)
        sound = texts if look["iteration"] == iterations and name == "the lab" else None
        row(found, name, look, parameters, look["seconds"], speed, sound)
    found["the lab"]["curve"] = run.curve
    write_tunes(options.out, "lab", texts)


def run_ours(
    name: str,
    recipe: Recipe,
    train: Sequence[Tune],
    unseen: Sequence[Tune],
    seconds: float | None,
    samples: int,
    out: Path | None,
    found: dict,
) -> tuple[Fitted, list]:
    """One of ours: train, score, sample."""
    fitted = fit(recipe, train, seconds=seconds)
    costs = step_costs(fitted, unseen)
    texts = sample_tunes(fitted, samples) if samples else None
    row(
        found,
        name,
        score_steps(fitted.tokenizer, unseen, costs),
        fitted.model.parameter_count,
        fitted.seconds,
        fitted.tokens_a_second,
        texts,
    )
    found[name] |= {"steps": fitted.steps, "epochs": fitted.epochs, "precision": fitted.precision}
    write_tunes(out, name, texts or [])
    return fitted, costs


def row(
    found: dict,
    name: str,
    score: Score | dict,
    parameters: int | None = None,
    seconds: float | None = None,
    speed: float | None = None,
    texts: Sequence[str] | None = None,
) -> None:
    """Print one row of the table, and keep its figures."""
    figures = score.figures() if isinstance(score, Score) else {key: score[key] for key in COLUMNS}
    sound = None if not texts else sum(not faults(text) and not complaints(text) for text in texts)
    found[name] = {**figures, "parameters": parameters, "seconds": seconds, "tokens a second": speed, "sound": sound}
    cells = [
        name,
        "-" if parameters is None else f"{parameters / 1e6:.2f} M",
        f"**{figures['nats']:.3f}**",
        f"{figures['header']:.3f}",
        f"{figures['body']:.3f}",
        ", ".join(f"{figures[f'third {i}']:.2f}" for i in (1, 2, 3)),
        "-" if seconds is None else f"{seconds / 60:.1f}",
        "-" if speed is None else f"{speed:,.0f}",
        "-" if sound is None or texts is None else f"{sound} of {len(texts)}",
    ]
    print(f"| {' | '.join(cells)} |", flush=True)


def write_tunes(folder: Path | None, name: str, texts: Sequence[str]) -> None:
    """The tunes that were drawn, numbered, in one ABC file."""
    if folder is not None and texts:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.abc").write_text("\n".join(texts), encoding="utf-8")


if __name__ == "__main__":
    main()
