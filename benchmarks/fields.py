"""What steps of fields buy: the same music as flat tokens, with the same decoder, for the same time of one core.

    python benchmarks/fields.py --grid music21:bach --bars folder-of-orchestral-midi --minutes 4
    python benchmarks/fields.py --bars folder --forms fields --ablate --json fields.json
    python benchmarks/fields.py --bars data/orchestra --limit 3 --quick

Chorales are read as `grid` steps, a column of four voices each, and orchestral music as `bars` steps, a note each.
*Fields* is the program as it is. *Flat* writes the used fields of a step one after the other, a token each, of one
vocabulary: the same music exactly. What the grammar rules out in a field is ruled out in its token; coordinates are of
the last whole step, as for the fields' head, and one more says which field is next, for neither form is to pay for
knowing what kind of value comes. So nats are of the same events, and compare note by note and field by field.

Both are trained by the program's own loop, from its own configurations, for the same processor time, and scored on the
same pieces that were held out, each from its own start; the scoring is not counted. A chunk of *flat* holds as much
music as one of *fields*, so an update learns from as many notes and the gradient reaches as far back in the music; a
chunk of *flat-short* has as many tokens as one of *fields* has steps: more and smaller updates, a shorter reach.
*Fields, as many updates* stops when it has read as much music as *flat* did, its schedule landed there: what is left of
the difference is not speed. The memory of the transformer is as many steps or tokens; how many notes those are is said.
With hearing, *flat* is heard as one line, whatever the part: a single token does not say whose note it is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # as musicgen.cli does: waiting threads do not spin for long

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from musicgen.checkpoint import build_model
from musicgen.config import RunConfig, load_config
from musicgen.corpus import Corpus, Piece, compile_corpus, find_source, split_pieces, whole_pieces
from musicgen.decoders.model import Model
from musicgen.tokens import NONE, Coordinate, Field, Hearing, Tokenizer
from musicgen.tokens.recall import Recall
from musicgen.training.chunk import ChunkLoss
from musicgen.training.evaluate import to_tensors
from musicgen.training.loop import Trainer

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
RECIPES = {"grid": "chorales-grid", "bars": "orchestra"}
"""Tokenizer -> the configurations whose decoders are compared: NAME-lstm.yaml and so on."""
FORMS = ("fields", "flat", "flat-short")
KEPT = 64
"""Pieces that a `Flat` remembers taken apart: those that the rows of a batch are playing."""


@dataclass(frozen=True)
class Apart:
    """A piece of N tokens, taken apart. `tokens` is kept so that its identity stays its own."""

    tokens: np.ndarray  # (N, 1)
    steps: np.ndarray  # (T, F), what the tokens stand for
    at: np.ndarray  # (N,) which step a token belongs to
    field: np.ndarray  # (N,) which field of it
    last: np.ndarray  # (N,) bool: it completes its step


class Flat:
    """Any tokenizer of steps with several fields, its steps written as one token a used field.

    Token 0 stands for nothing; field f's value v is token `offsets[f] + v`, v from 1. The first field is used by every
    step, and which others are follows from those before them. What training asks of a tokenizer, and no more.
    """

    name: ClassVar[str] = "flat"

    def __init__(self, of: Tokenizer) -> None:
        """Raises ValueError for a tokenizer of one field, which is flat already."""
        if len(of.fields) < 2:
            raise ValueError(f"{of.name} has one field: it is flat already")
        self.of = of
        sizes = [field.size - 1 for field in of.fields]
        self.offsets = np.cumsum([0, *sizes[:-1]])
        self.kinds = np.repeat(np.arange(-1, len(sizes)), [1, *sizes])  # (V,): which field a token is of
        labels = (f"{field.name} {label}" for field in of.fields for label in field.labels[1:])
        self.fields = (Field("token", ("-", *labels)),)
        self.coordinates = (*of.coordinates, Coordinate("next field", 1 + len(of.fields)))
        (first,) = self.flatten(np.array([of.start]))[:, 0].tolist()
        self.start = (first,)
        self._apart: dict[int, Apart] = {}

    @property
    def recall(self) -> Recall:
        """A passage is its tokens."""
        return Recall(views=((0,),), fields=(0,))

    @property
    def hearing(self) -> Hearing:
        """The pitches of all fields in one line, told apart by their field where several have some.

        Raises ValueError where the tokenizer's own pitches are of several kinds.
        """
        own = self.of.hearing
        if own.kinds:
            raise ValueError(f"{self.of.name} has kinds of pitches, and flat tokens have no place for them")
        places, kinds = np.full(len(self.kinds), -1), np.zeros(len(self.kinds), dtype=np.int64)
        for kind, (field, values) in enumerate(sorted(own.places.items())):
            here = self._block(field)
            places[here], kinds[here] = values[1:], kind
        return Hearing(octave=own.octave, places={0: places}, kinds={0: kinds}, struck=len(own.places))

    def _block(self, field: int) -> slice:
        """The tokens of a field, its values from 1 on."""
        first = 1 + int(self.offsets[field])
        return slice(first, first + self.of.fields[field].size - 1)

    def flatten(self, steps: np.ndarray) -> np.ndarray:
        """(N, 1) int16 tokens of steps (T, F)."""
        return (steps + self.offsets)[np.asarray(steps) != NONE].astype(np.int16)[:, None]

    def steps(self, tokens: np.ndarray) -> np.ndarray:
        """(T, F) int16: the steps that tokens (N, 1) were made of."""
        return self.apart(tokens).steps

    def apart(self, tokens: np.ndarray) -> Apart:
        """Tokens (N, 1) of a whole piece, taken apart; the latest pieces are remembered."""
        found = self._apart.get(id(tokens))
        if found is None:
            values = np.asarray(tokens, dtype=np.int64)[:, 0]
            field = self.kinds[values]
            at = np.cumsum(field == 0) - 1
            steps = np.zeros((int(at[-1]) + 1, len(self.of.fields)), dtype=np.int16)
            steps[at, field] = values - self.offsets[field]
            found = Apart(tokens, steps, at, field, np.append(field[1:] == 0, True))
            while len(self._apart) >= KEPT:
                del self._apart[next(iter(self._apart))]
            self._apart[id(tokens)] = found
        return found

    def locate(self, tokens: np.ndarray) -> np.ndarray:
        """(N, C + 1): where the last whole step left us, so that nothing of a step is told before it is said; and 1 +
        which field comes next."""
        piece = self.apart(tokens)
        known = self.of.locate(piece.steps)[np.where(piece.last, piece.at, piece.at - 1)]
        following = np.where(piece.last, 0, np.append(piece.field[1:], 0))
        return np.concatenate([known, 1 + following[:, None]], axis=1).astype(np.int16)

    def masks(self, tokens: np.ndarray, coordinates: np.ndarray, start: int, stop: int) -> dict[int, np.ndarray]:
        """{0: (stop - start, V) bool}: of a token's field what the tokenizer allows, NONE aside; of others nothing."""
        piece = self.apart(tokens)
        at, field = piece.at[start:stop], piece.field[start:stop]
        of_steps = coordinates[piece.last, :-1]  # (T, C)
        allowed = self.of.masks(piece.steps, of_steps, int(at[0]), int(at[-1]) + 1)
        found = np.zeros((stop - start, len(self.kinds)), dtype=bool)
        for f in range(len(self.of.fields)):
            rows = np.flatnonzero(field == f)
            found[rows, self._block(f)] = allowed[f][at[rows] - at[0], 1:] if f in allowed else True
        return {0: found}

    def is_note(self, tokens: np.ndarray) -> np.ndarray:
        """(N,) how many notes each token completes."""
        piece = self.apart(tokens)
        return np.where(piece.last, np.asarray(self.of.is_note(piece.steps), dtype=np.int64)[piece.at], 0)

    def transpose(self, tokens: np.ndarray, semitones: int) -> np.ndarray | None:
        moved = self.of.transpose(self.steps(tokens), semitones)
        return None if moved is None else self.flatten(moved)

    def characters(self, tokens: np.ndarray) -> int | None:
        return self.of.characters(self.steps(tokens))


def flat_corpus(corpus: Corpus) -> Corpus:
    """The same pieces as flat tokens, in memory; split and groups stay."""
    tokenizer = Flat(corpus.tokenizer)
    tokens = [tokenizer.flatten(np.asarray(corpus.steps_of(piece))) for piece in corpus.pieces]
    offsets = np.cumsum([0, *map(len, tokens)]).tolist()
    pieces = tuple(
        piece._replace(offset=offset, length=len(own), store=0)
        for piece, offset, own in zip(corpus.pieces, offsets, tokens, strict=False)
    )
    stores = (np.concatenate(tokens),)
    return replace(corpus, tokenizer=tokenizer, stores=stores, pieces=pieces, folders=())  # type: ignore[arg-type]


@dataclass(frozen=True)
class Held:
    """What was found on the pieces that were held out, in nats a note."""

    all: float
    by_field: dict[str, float]


@torch.no_grad()
def held_out(
    model: Model, corpus: Corpus, pieces: Sequence[Piece], hide: bool = True, without: Sequence[str] = ()
) -> Held:
    """Every step after START counts, each piece from its own start, split by field in either form."""
    model.eval()
    chunk_loss = ChunkLoss(model)
    tokenizer: Tokenizer | Flat = corpus.tokenizer
    fields = tokenizer.of.fields if isinstance(tokenizer, Flat) else tokenizer.fields
    nats, notes = np.zeros(len(fields)), 0
    state = model.initial_state(min(16, len(pieces)))
    for batch in whole_pieces(
        corpus, pieces, streams=16, chunk=256, hide=hide, without=without, recall=model.recall is not None
    ):
        tensors, masks = to_tensors(batch, torch.device("cpu"))
        costs, state = chunk_loss(*tensors, masks, tuple(part[: len(batch.steps)] for part in state))
        if isinstance(tokenizer, Flat):
            kinds = tokenizer.kinds[batch.targets.ravel()]
            nats += np.bincount(kinds, costs[:, 0].double().numpy(), minlength=len(fields))
        else:
            nats += costs.double().sum(0).numpy()
        notes += batch.notes
    by_field = (nats / notes).tolist()
    return Held(sum(by_field), dict(zip((field.name for field in fields), by_field, strict=True)))


@dataclass(frozen=True)
class Row:
    """One run, and what became of it. Times are of the processor, in training alone."""

    music: str
    form: str
    change: str
    decoder: str
    hearing: bool
    parameters: int
    minutes: float
    updates: int
    best_update: int
    notes_read: int
    notes_per_second: float
    nats_a_note: float
    by_field: dict[str, float]
    told_length: float
    """Nats a note where the model is told how many bars are left."""
    notes_in_memory: float
    notes_in_chunk: float


def train(corpus: Corpus, config: RunConfig, looks: int, words: str) -> dict:
    """The figures of one run, of its weights that did best in `looks` looks at the held-out pieces.

    The looks are evenly spaced, the last is at the end, and they are off the clock.
    """
    train_on, valid = split_pieces(corpus.pieces, config.training.valid_share)
    torch.manual_seed(config.training.seed)
    model = build_model(config, corpus.tokenizer)
    trainer = Trainer(model, corpus, train_on, [], config.training, torch.device("cpu"), clock=time.process_time)
    without = config.training.without_coordinates
    notes, seconds, looked = 0, 0.0, 0
    found: list[tuple[Held, int, dict[str, Tensor]]] = []
    with tqdm(desc=words, unit=" updates", file=sys.stderr, mininterval=2, leave=False) as bar:
        for report in trainer.run():
            notes, seconds = notes + report.notes, seconds + report.seconds
            bar.update()
            budget = config.training.budget
            done = trainer.seconds / budget if budget else report.step / config.training.steps
            if trainer.finished or int(done * looks) > looked:
                looked = int(done * looks)
                weights = {name: tensor.clone() for name, tensor in trainer.averaged.state_dict().items()}
                found.append((held_out(trainer.averaged, corpus, valid, without=without), report.step, weights))
    best, step, weights = min(found, key=lambda look: look[0].all)
    model.load_state_dict(weights)
    steps_a_note = sum(piece.length - 1 for piece in train_on) / sum(piece.notes for piece in train_on)
    return {
        "decoder": config.model.decoder,
        "hearing": config.model.hearing,
        "parameters": model.parameter_count,
        "minutes": trainer.seconds / 60,
        "updates": trainer.step,
        "best_update": step,
        "notes_read": notes,
        "notes_per_second": notes / seconds,
        "nats_a_note": best.all,
        "by_field": best.by_field,
        "told_length": held_out(model, corpus, valid, hide=False, without=without).all,
        "notes_in_memory": config.model.memory / steps_a_note,
        "notes_in_chunk": config.training.chunk / steps_a_note,
    }


ABLATIONS: dict[str, dict] = {
    "never told the beat": {"without_coordinates": ("beat",)},
    "never told the bar's length": {"without_coordinates": ("bar_length",)},
    "never told the instrument": {"without_coordinates": ("instrument",)},
    "never told anything": {"without_coordinates": ("beat", "bar_length", "bars_left", "instrument")},
    "bars left always hidden": {"hide_bars_left": 1.0},
    "bars left never hidden": {"hide_bars_left": 0.0},
    "4 streams": {"streams": 4},
    "16 streams": {"streams": 16},
    "half the chunk": {"chunk": 0.5},
    "hears": {"hearing": True},
    "recalls": {"recall": True},
    "hears and recalls": {"hearing": True, "recall": True},
}
"""Change -> options. Bars left are hidden in evaluation, so `always hidden` is never to be told them."""


def changed(config: RunConfig, changes: dict, known: Sequence[str] = ()) -> RunConfig:
    """The configuration with some options of training changed, `chunk` by a factor, or the model's hearing and recall.

    known: the coordinates that there are; others need not be left out.
    """
    changes = dict(changes)
    model = config.model.model_copy(update={n: changes.pop(n, getattr(config.model, n)) for n in ("hearing", "recall")})
    if "without_coordinates" in changes:
        changes["without_coordinates"] = tuple(name for name in changes["without_coordinates"] if name in known)
    if "chunk" in changes:
        changes["chunk"] = round(config.training.chunk * changes["chunk"])
    training = config.training.model_copy(update=changes)
    return config.model_copy(update={"model": model, "training": training})


def runs(music: str, corpus: Corpus, options: argparse.Namespace) -> Iterator[Row]:
    """Every row of one music's table, as it is found."""
    flat = flat_corpus(corpus)
    longer = sum(piece.length for piece in flat.pieces) / sum(piece.length for piece in corpus.pieces)
    known = [coordinate.name for coordinate in corpus.tokenizer.coordinates]

    def row(form: str, config: RunConfig, change: str = "") -> Row:
        words = " ".join(filter(None, (music, config.model.decoder, form, change)))
        return Row(music, form, change, **train(corpus if form == "fields" else flat, config, options.looks, words))

    for decoder in options.decoders:
        config = load_config(CONFIGS / f"{RECIPES[music]}-{decoder}.yaml", options.changes)
        of_model = {"memory": options.memory, **(QUICK if options.quick else {})}
        of_training = {"budget": options.minutes * 60, "precision": options.precision, "seed": options.seed}
        of_training["preview"] = 0.0  # flat music has none
        for hears in {"off": (False,), "on": (True,), "both": (False, True)}[options.hearing]:
            model = config.model.model_copy(update={**of_model, "hearing": hears, "recall": options.recall})
            base = changed(config.model_copy(update={"model": model}), of_training)
            updates = 0
            for form in options.forms:
                found = row(form, changed(base, {"chunk": longer}) if form == "flat" else base)
                updates = found.updates if form == "flat" else updates
                yield found
            if options.as_much and updates:
                warmup = round(base.training.warmup * updates / base.training.steps)
                fewer = changed(base, {"budget": None, "steps": updates, "warmup": warmup})
                yield row("fields", fewer, "as many updates")
            for change, changes in ABLATIONS.items() if options.ablate else ():
                other = changed(base, changes, known)
                if other != base:
                    yield row("fields", other, change)


QUICK = {"dim": 16, "layers": 1, "heads": 2}


def load(music: str, where: str, limit: int | None) -> Corpus:
    """A compiled corpus, of at most `limit` files, evenly spaced."""
    config = load_config(CONFIGS / f"{RECIPES[music]}-lstm.yaml")
    source = find_source(where)
    if limit and len(source.scores) > limit:
        source = find_source(where, (1, -(-len(source.scores) // limit)))
    return compile_corpus(source, config.tokenizer.build())


def print_head(music: str, where: str, corpus: Corpus, options: argparse.Namespace) -> None:
    train_on, valid = split_pieces(corpus.pieces, 0.1)
    print(
        f"### {music}: {where}, {len(train_on)} pieces to learn from ({sum(p.notes for p in train_on):,} notes), ",
        end="",
    )
    print(f"{len(valid)} held out ({sum(p.notes for p in valid):,} notes)\n")
    names = [field.name for field in corpus.tokenizer.fields]
    head = ["decoder", "form", "parameters", "minutes", "updates", "notes/s", "nats a note", *names, "told its length"]
    print("| " + " | ".join([*head, f"notes in {options.memory} steps", "notes in a chunk"]) + " |")
    print("|---|---|" + "---:|" * (len(head)), flush=True)


def print_row(row: Row) -> None:
    form = ", ".join(
        filter(None, (row.form, "hearing" if row.hearing and "hears" not in row.change else "", row.change))
    )
    figures = [f"{row.parameters:,}", f"{row.minutes:.1f}", f"{row.updates:,}", f"{row.notes_per_second:,.0f}"]
    figures += [f"**{row.nats_a_note:.3f}**", *(f"{nats:.3f}" for nats in row.by_field.values())]
    figures += [f"{row.told_length:.3f}", f"{row.notes_in_memory:.0f}", f"{row.notes_in_chunk:.0f}"]
    print(f"| {row.decoder} | {form} | {' | '.join(figures)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", help="chorales: a folder, a file, or music21:NAME, of four parts each")
    parser.add_argument("--bars", help="music for any number of parts: the same")
    parser.add_argument("--limit", type=int, help="at most so many files of each, evenly spaced")
    parser.add_argument(
        "--decoders", nargs="+", choices=("rnn", "gru", "lstm", "transformer"), default=["lstm", "transformer"]
    )
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=["fields", "flat"])
    parser.add_argument("--hearing", choices=("off", "on", "both"), default="off")
    parser.add_argument("--recall", action="store_true", help="every model recalls")
    parser.add_argument("--as-much", action="store_true", help="fields once more, for as many updates as flat made")
    parser.add_argument("--ablate", action="store_true", help="fields once more with each of some options changed")
    parser.add_argument("--minutes", type=float, default=4.0, help="of processor time, each run")
    parser.add_argument(
        "--looks", type=int, default=2, help="at the held-out pieces, off the clock; the best one counts"
    )
    parser.add_argument("--memory", type=int, default=512, help="of the transformer, in steps or tokens")
    parser.add_argument("--precision", choices=("fp32", "bf16", "auto"), default="fp32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="NAME=VALUE", help="of every run")
    parser.add_argument("--quick", action="store_true", help="tiny models, a second each: only to see that it runs")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args()
    if not (options.grid or options.bars):
        parser.error("name some music with --grid, --bars or both")
    if options.quick:
        options.minutes = 1 / 60
    torch.set_num_threads(1)
    rows: list[Row] = []
    for music in RECIPES:
        where = getattr(options, music)
        if not where:
            continue
        corpus = load(music, where, options.limit)
        print_head(music, where, corpus, options)
        for row in runs(music, corpus, options):
            print_row(row)
            rows.append(row)
            if options.json:
                options.json.write_text(json.dumps([asdict(r) for r in rows], indent=1) + "\n", encoding="utf-8")
        print()


if __name__ == "__main__":
    main()
