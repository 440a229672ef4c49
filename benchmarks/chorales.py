"""The chorale benchmark: Bach's chorales as Jsb16thSeparated, negative log-likelihood a token, rnn, lstm, transformer.

    python benchmarks/chorales.py                              # every row: under 15 minutes of one core a model
    python benchmarks/chorales.py --only lstm --minutes 5      # one of them, shorter
    python benchmarks/chorales.py --data Jsb16thSeparated.json --weights out/chorales --test --json chorales.json

The data set (Boulanger-Lewandowski, Bengio & Vincent 2012; in four voices: Huang, Cooijmans et al. 2017) has 229, 76
and 77 chorales to train on, to choose by and to test on. A 16th note is a column of four tokens: soprano, alto, tenor,
bass, each one pitch or a rest; there are no repeated onsets, no bar lines, no keys. What is reported is the negative
log-likelihood in nats, summed over all tokens of all pieces, over their number (73,632 to choose by, 75,600 to test).
The first column counts, the end of a piece is not predicted, each piece is read from its own start: a model is given
the tokens before, the number of the column, and nothing else. What followed in the piece itself the last time that what
has just been heard was heard, is worked out from the tokens before (`musicgen.tokens.recall`). *Changing* counts the
tokens alone that differ from the same voice's token before. *Unshared* counts the pieces alone whose soprano does not
begin, for 20 intervals, as that of a piece trained on (the same hymn in another setting); --leak-free takes such pieces
out of training instead.

Everything is the program's own: steps of four fields, embedding, decoder and head with hearing, and the loop. Minutes
are processor time of one core, so that other work on the machine counts little. The weights of the n-gram's chains, and
of every mixture, are fitted to the pieces to choose by; what they score on test is free of that.
"""

from __future__ import annotations

import argparse
import json
import sys
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from chorale_ngram import Ngram
from tqdm import tqdm

from musicgen.checkpoint import read_tensors, write_tensors
from musicgen.corpus import Corpus, Piece, whole_pieces
from musicgen.decoders.model import Model, ModelConfig
from musicgen.tokens import NONE, Coordinate, Field, Hearing
from musicgen.tokens.recall import Recall
from musicgen.training import TrainingConfig
from musicgen.training.evaluate import to_tensors
from musicgen.training.loop import Trainer

NAME = "Jsb16thSeparated.json"
PLACES = ("../shared/data/jsb-chorales.tar.gz", "../shared/data/jsb-chorales", ".")
VOICES = 4
START, REST, PITCH = 1, 2, 3
SIZE = PITCH + 128
OPENING = 20
"""Intervals of the soprano by which two settings of one hymn are told."""
SOFTENING = 1.15
"""What logits are divided by where it says *softened*: networks are too sure of themselves. Chosen on valid."""

OTHERS = (
    ("n-gram with back-off, as reported", 0.514),
    ("Coconet, read left to right (Huang et al. 2017)", 0.436),
    ("Transformer (Huang et al. 2018)", 0.417),
    ("Transformer with relative attention (the same)", 0.357),
    ("  with musical time and pitch as well", 0.335),
)


class Columns:
    """The protocol's tokens as steps of four fields. What training asks of a tokenizer, and no more."""

    name: ClassVar[str] = "columns"

    def __init__(self) -> None:
        labels = ("-", "START", "rest", *map(str, range(128)))
        self.fields = tuple(Field(voice, labels) for voice in ("soprano", "alto", "tenor", "bass"))
        self.coordinates = (Coordinate("of 16", 17),)
        self.start = (START,) * VOICES
        places = np.full(SIZE, -1)
        places[PITCH:] = np.arange(128)
        self.hearing = Hearing(octave=12, places=dict.fromkeys(range(VOICES), places), rests=(REST,), sustained=True)
        voices = tuple(range(VOICES))
        self.recall = Recall(views=(voices, voices[:1]), fields=voices)
        self.possible = np.zeros(SIZE, dtype=bool)
        self.possible[REST:] = True

    def encode(self, columns: np.ndarray) -> np.ndarray:
        """(1 + T, 4) int16 of columns (T, 4) of MIDI pitches, -1 for a rest."""
        return np.concatenate([[self.start], np.where(columns < 0, REST, PITCH + columns)]).astype(np.int16)

    def locate(self, steps: np.ndarray) -> np.ndarray:
        """(T, 1): which of 16 columns comes next, 1 the first."""
        return 1 + np.arange(len(steps))[:, None] % 16

    def masks(self, steps: np.ndarray, coordinates: np.ndarray, start: int, stop: int) -> dict[int, np.ndarray]:
        return dict.fromkeys(range(VOICES), np.broadcast_to(self.possible, (stop - start, SIZE)))

    def is_note(self, steps: np.ndarray) -> np.ndarray:
        return (np.diff(steps, axis=0, prepend=NONE) != 0).sum(axis=1)

    def transpose(self, steps: np.ndarray, semitones: int) -> np.ndarray:
        return np.where(steps >= PITCH, steps + semitones, steps)


def find_data(given: str | None) -> Path | None:
    """The file, folder or archive that was named, or the first usual place that has the data."""
    for place in (given,) if given else PLACES:
        path = Path(place)
        found = path / NAME if path.is_dir() else path
        if found.is_file():
            return found
    return None


def read_data(path: Path) -> dict[str, list[np.ndarray]]:
    """{train, valid, test: pieces (T, 4) int64, -1 for a rest} of the .json, or of an archive that holds it."""
    if path.suffix == ".json":
        text = path.read_bytes()
    else:
        with tarfile.open(path) as archive:
            member = next((m for m in archive.getmembers() if Path(m.name).name == NAME), None)
            opened = None if member is None else archive.extractfile(member)
            if opened is None:
                raise SystemExit(f"{path}: holds no {NAME}")
            text = opened.read()
    sets = {name: [np.array(piece, dtype=np.int64) for piece in pieces] for name, pieces in json.loads(text).items()}
    if sorted(sets) != ["test", "train", "valid"] or any(p.shape[1:] != (VOICES,) for ps in sets.values() for p in ps):
        raise SystemExit(f"{path}: expected train, valid and test pieces of {VOICES} voices, found {sorted(sets)}")
    return sets


def in_memory(tokenizer: Columns, pieces: Sequence[np.ndarray]) -> Corpus:
    """The pieces as a corpus that was never a folder."""
    encoded = [tokenizer.encode(piece) for piece in pieces]
    offsets = np.cumsum([0, *map(len, encoded)]).tolist()
    made = tuple(
        Piece(str(i), "", offset, len(steps), int(tokenizer.is_note(steps).sum()), 0, VOICES, None, str(i))
        for i, (offset, steps) in enumerate(zip(offsets, encoded, strict=False))
    )
    return Corpus("chorales", tokenizer, (), "", (np.concatenate(encoded),), made, ())  # type: ignore[arg-type]


def opening(piece: np.ndarray) -> tuple[int, ...]:
    """The first 20 intervals of the soprano, in semitones."""
    soprano = piece[piece[:, 0] >= 0, 0]
    return tuple(np.diff(soprano[np.diff(soprano, prepend=-1) != 0])[:OPENING].tolist())


@torch.no_grad()
def costs(model: Model, corpus: Corpus, softening: float = 1.0) -> list[np.ndarray]:
    """The cost of every token of every piece, in nats: a (T, 4) each. One piece at a time: nothing is shared.

    softening: what the logits are divided by.
    """
    model.eval()
    possible = torch.from_numpy(corpus.tokenizer.possible)  # type: ignore[attr-defined]
    found = []
    for piece in corpus.pieces:
        state, parts = model.initial_state(1), []
        for batch in whole_pieces(corpus, [piece], streams=1, chunk=512, recall=model.recall is not None):
            (steps, coordinates, targets, _, fresh), _ = to_tensors(batch, torch.device("cpu"))
            assert steps is not None
            assert coordinates is not None
            assert targets is not None
            outputs, state = model(steps, coordinates, state, fresh)
            context, goal = model.head.context(outputs[0]), targets[0]
            logits = [model.head.field(voice, context, goal.unbind(-1)[:voice]) for voice in range(VOICES)]
            shares = (torch.stack(logits, 1) / softening).masked_fill(~possible, -torch.inf).log_softmax(-1)
            parts.append(-shares.gather(-1, goal[..., None])[..., 0].double().numpy())
        found.append(np.concatenate(parts))
    return found


@dataclass(frozen=True)
class Score:
    """Nats a token: of all, of those that change, of pieces whose hymn was not trained on."""

    all: float
    changing: float
    unshared: float


def score(found: Sequence[np.ndarray], pieces: Sequence[np.ndarray], shared: Sequence[bool]) -> Score:
    changes = [np.diff(piece, axis=0, prepend=-2) != 0 for piece in pieces]
    own = [cost for cost, known in zip(found, shared, strict=True) if not known]
    changing = [cost[change] for cost, change in zip(found, changes, strict=True)]
    return Score(*(float(np.concatenate([c.ravel() for c in some]).mean()) for some in (found, changing, own)))


def mixed(found: Sequence[Sequence[np.ndarray]], weights: np.ndarray) -> list[np.ndarray]:
    """The costs of a mixture: token by token the weighted mean of the models' probabilities."""
    log = np.log(np.maximum(weights, 1e-12))[:, None, None]
    return [-np.logaddexp.reduce(log - np.stack(piece), axis=0) for piece in zip(*found, strict=True)]


def fit(found: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """The weights under which a mixture costs least, by expectation and maximisation, on the pieces to choose by."""
    shares = np.exp(-np.stack([np.concatenate([cost.ravel() for cost in costs]) for costs in found], axis=1))
    weights = np.full(len(found), 1 / len(found))
    for _ in range(100):
        parts = shares * weights
        weights = (parts / parts.sum(axis=1, keepdims=True)).mean(axis=0)
    return weights


MODELS: dict[str, tuple[ModelConfig, dict]] = {
    "rnn": (
        ModelConfig(decoder="rnn", dim=256, layers=2, dropout=0.4, hearing=True, recall=True),
        {"learning_rate": 1e-3},
    ),
    "lstm": (
        ModelConfig(decoder="lstm", dim=256, layers=2, dropout=0.4, hearing=True, recall=True),
        {"mask_notes": 0.2, "weight_decay": 0.05},
    ),
    "transformer": (
        ModelConfig(
            decoder="transformer", dim=192, layers=4, heads=6, memory=256, dropout=0.3, hearing=True, recall=True
        ),
        {"learning_rate": 1e-3, "chunk": 128, "streams": 4, "mask_notes": 0.2, "weight_decay": 0.05},
    ),
}
TRAINING: dict = {
    "steps": 3000,
    "streams": 8,
    "chunk": 64,
    "learning_rate": 2e-3,
    "weight_decay": 0.1,
    "warmup": 150,
    "final_share": 0.02,
    "average": 0.998,
    "mask_notes": 0.25,
    "evaluate_every": 500,
    "patience": 1000,
    "precision": "fp32",
    "transpose": (-5, 6),
}
"""Of every model; MODELS says what one has of its own. Longer runs learn the 229 chorales by heart."""


def build(name: str, corpus: Corpus) -> Model:
    """A model with fresh weights."""
    tokenizer = corpus.tokenizer
    sizes = [field.size for field in tokenizer.fields], [coordinate.size for coordinate in tokenizer.coordinates]
    return Model(MODELS[name][0], *sizes, tokenizer.hearing, tokenizer.recall)


def train(name: str, corpus: Corpus, valid: Corpus, minutes: float | None, seed: int) -> tuple[Model, dict]:
    """A model with its best weights, and what there is to tell; minutes: of processor time, instead of its steps."""
    own = MODELS[name][1]
    budget = None if minutes is None else minutes * 60
    training = TrainingConfig(**{**TRAINING, **own, "seed": seed, "budget": budget})
    torch.manual_seed(seed)
    model = build(name, corpus)
    both = _both(corpus, valid)
    count = len(corpus.pieces)
    trainer = Trainer(
        model,
        both,
        both.pieces[:count],
        both.pieces[count:],
        training,
        torch.device("cpu"),
        clock=time.process_time,
    )
    best, step = model.state_dict(), 0
    with tqdm(desc=f"{name} {seed}", file=sys.stderr) as bar:
        for report in trainer.run():
            bar.total = report.step + round(report.left / max(trainer.seconds, 1e-3) * report.step)
            bar.update()
            if report.looked and report.evaluation:
                bar.set_postfix_str(f"valid {report.evaluation.per_step / VOICES:.4f}")
            if report.is_best:
                best, step = {k: v.clone() for k, v in trainer.averaged.state_dict().items()}, report.step
    model.load_state_dict(best)
    facts = {
        "parameters": model.parameter_count,
        "minutes": trainer.seconds / 60,
        "steps": trainer.step,
        "best_step": step,
    }
    return model, facts


def _both(first: Corpus, second: Corpus) -> Corpus:
    """Two corpora as one, the pieces of the first before those of the second."""
    moved = tuple(piece._replace(store=1) for piece in second.pieces)
    return Corpus("both", first.tokenizer, (), "", (*first.stores, *second.stores), (*first.pieces, *moved), ())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help=f"{NAME}, or the folder or .tar.gz that holds it")
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS), help="which models")
    parser.add_argument("--minutes", type=float, help="of processor time a model, instead of its steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--more", type=int, default=2, help="so many further LSTMs, with other seeds, for the mixture")
    parser.add_argument("--test", action="store_true", help="score the test pieces too: once, when all is chosen")
    parser.add_argument("--leak-free", action="store_true", help="train without the hymns that are held out")
    parser.add_argument(
        "--weights", type=Path, help="keep trained weights in this folder, and use those that are there"
    )
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    torch.set_num_threads(1)
    path = find_data(given.data)
    if path is None:
        print(f"skipped: {given.data or NAME} is not there; --data says where the data set lies", file=sys.stderr)
        raise SystemExit(2 if given.data else 0)
    sets = read_data(path)
    held_out = {opening(piece) for name in ("valid", "test") for piece in sets[name]}
    if given.leak_free:
        sets["train"] = [piece for piece in sets["train"] if opening(piece) not in held_out]
    trained = {opening(piece) for piece in sets["train"]}
    tokenizer = Columns()
    corpora = {name: in_memory(tokenizer, pieces) for name, pieces in sets.items()}
    asked = ["valid", "test"] if given.test else ["valid"]
    shared = {name: [opening(piece) in trained for piece in sets[name]] for name in asked}
    rows: list[dict] = []
    found: dict[str, list[list[np.ndarray]]] = {name: [] for name in asked}

    def tell(label: str, facts: dict, by_set: dict[str, list[np.ndarray]]) -> None:
        scores = {name: score(by_set[name], sets[name], shared[name]) for name in asked}
        rows.append({"model": label, **facts, **{name: vars(s) for name, s in scores.items()}})
        text = " | ".join(f"{s.all:.4f} | {s.changing:.3f} | {s.unshared:.4f}" for s in scores.values())
        size, spent = (f"{facts[k]:{f}}" if k in facts else "" for k, f in (("parameters", ","), ("minutes", ".1f")))
        print(f"| {label} | {size} | {spent} | {text} |", flush=True)

    tokens = {name: sum(piece.size for piece in sets[name]) for name in asked}
    print(
        f"{len(sets['train'])} chorales to train on; "
        + "; ".join(f"{name}: {len(sets[name])} with {tokens[name]:,} tokens" for name in asked)
        + ". Nats a token: all, those that change, pieces whose hymn was not trained on.\n"
    )
    print(
        "| model | parameters | minutes of a core | " + " | ".join(f"{n} | changing | unshared" for n in asked) + " |"
    )
    print("|---|---|---|" + "---|" * 3 * len(asked), flush=True)
    ngram = Ngram(sets["train"], sets["valid"])
    by_ngram = {s: [ngram.costs(piece) for piece in sets[s]] for s in asked}
    tell("n-gram with back-off", {}, by_ngram)
    asked_for = [(name, given.seed) for name in given.only]
    if "lstm" in given.only:
        asked_for += [("lstm", given.seed + 1 + i) for i in range(given.more)]
    for name, seed in asked_for:
        model, facts = _trained(name, corpora, given, seed)
        label = name if seed == given.seed else f"{name}, seed {seed}"
        tell(label, facts, {s: costs(model, corpora[s]) for s in asked})
        by_set = {s: costs(model, corpora[s], SOFTENING) for s in asked}
        label = f"{label}, softened"
        tell(label, {}, by_set)
        weights = fit([by_set["valid"], by_ngram["valid"]])
        tell(f"{label} + {weights[1]:.2f} n-gram", {}, {s: mixed([by_set[s], by_ngram[s]], weights) for s in asked})
        for s in asked:
            found[s].append(by_set[s])
    if len(asked_for) > 1:
        total = {key: sum(row.get(key, 0) for row in rows) for key in ("parameters", "minutes")}
        equal = np.full(len(asked_for), 1 / len(asked_for))
        tell(f"the {len(asked_for)}, equally mixed", total, {s: mixed(found[s], equal) for s in asked})
        weights = fit([*found["valid"], by_ngram["valid"]])
        tell("the same + n-gram, weighted", total, {s: mixed([*found[s], by_ngram[s]], weights) for s in asked})
    print("\nReported by others, on valid: " + "; ".join(f"{label.strip()} {value}" for label, value in OTHERS) + ".")
    if given.json:
        given.json.write_text(json.dumps({"tokens": tokens, "rows": rows}, indent=1) + "\n", encoding="utf-8")


def _trained(name: str, corpora: dict[str, Corpus], given: argparse.Namespace, seed: int) -> tuple[Model, dict]:
    kept = given.weights and given.weights / f"{name}-{seed}{'-leak-free' if given.leak_free else ''}.safetensors"
    if kept and kept.exists():
        tensors, facts = read_tensors(kept)
        model = build(name, corpora["train"])
        model.load_state_dict(tensors)
        return model, facts
    model, facts = train(name, corpora["train"], corpora["valid"], given.minutes, seed)
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(kept, model.state_dict(), facts)
    return model, facts


if __name__ == "__main__":
    main()
