"""rnn, lstm and transformer of this package on Irish tunes: trained by its own loop, scored a character, sampled.

A corpus of `text` steps is made in memory; model, streams and trainer are the package's. `RECIPES` says what was
chosen for each decoder, on tunes held out of the training tunes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from irish_tunes.grammar import TuneCursor
from irish_tunes.lab import Score, Tune
from irish_tunes.text import IrishTokenizer
from musicgen.corpus import Corpus, Piece
from musicgen.corpus.streams import read
from musicgen.decoders.model import Model, ModelConfig
from musicgen.sampling.filters import SamplingConfig
from musicgen.sampling.sampler import sample
from musicgen.training import TrainingConfig
from musicgen.training.loop import Trainer

COPYING = ("ago", "run", "match", "sequence")
USUAL = ("usual",)
"""Coordinates with one of these words in their name tell what the tune said before."""
PLACES = ("position", "room", "part", "line", "tuplet", "digit", "number")
KEYS_TOLD = ("tonic", "mode", "metre")


@dataclass(frozen=True)
class Recipe:
    """One model and how it is trained.

    left_out: words in the names of coordinates that are not told. memory: what usually comes next in the training tunes
    is told. degrees: see IrishTokenizer. parted: see `parts`. pointing: see `point_at_guesses`.
    """

    model: ModelConfig
    training: TrainingConfig
    degrees: bool = True
    left_out: tuple[str, ...] = ()
    memory: bool = True
    parted: bool = True
    pointing: bool = True


COMMON = TrainingConfig(
    streams=8,
    chunk=128,
    steps=1500,
    warmup=60,
    weight_decay=0.1,
    average=0.998,
    hide_coordinates=0.1,
    mask_notes=0.05,
    transpose=(0, 0),  # degrees are the same in every key
    evaluate_every=10**9,  # nothing is held out by the trainer, and nothing saved
    save_every=10**9,
)
RECIPES = {
    "rnn": Recipe(
        ModelConfig(decoder="rnn", dim=256, layers=2, dropout=0.3, recall=True),
        COMMON.model_copy(update={"learning_rate": 1e-3, "steps": 3000}),
    ),
    "lstm": Recipe(
        ModelConfig(decoder="lstm", dim=256, layers=2, dropout=0.5, recall=True),
        COMMON.model_copy(update={"steps": 2500}),
    ),
    "transformer": Recipe(
        ModelConfig(decoder="transformer", dim=256, layers=4, heads=4, dropout=0.35, memory=256, recall=True),
        COMMON.model_copy(update={"mask_notes": 0.02, "steps": 1700}),
    ),
}


@dataclass
class Fitted:
    """A trained model (its averaged weights), and what its training took."""

    model: Model
    tokenizer: IrishTokenizer
    seconds: float
    tokens: int
    steps: int
    epochs: int
    precision: str | None
    parted: bool
    train_loss: float = field(default=0.0)

    @property
    def tokens_a_second(self) -> float:
        return self.tokens / max(self.seconds, 1e-9)


def in_memory(tokenizer: IrishTokenizer, tunes: Sequence[Tune], parted: bool) -> Corpus:
    """A corpus of tunes, as the trainer reads it. parted: header and body are pieces of their own (`parts`)."""
    pieces: list[Piece] = []
    rows: list[np.ndarray] = []
    for number, tune in enumerate(tunes):
        steps = tokenizer.encode_text(tune.text)
        for part in parts(tokenizer, steps) if parted else (steps,):
            rows.append(part)
            at = pieces[-1].offset + pieces[-1].length if pieces else 0
            notes = int(tokenizer.is_note(part).sum())
            pieces.append(Piece(f"{number}", "", at, len(part), notes, 0, 1, None, f"{len(pieces)}"))
    return Corpus("Irish tunes", tokenizer, (), "", (np.concatenate(rows),), tuple(pieces), ())


def parts(tokenizer: IrishTokenizer, steps: np.ndarray) -> tuple[np.ndarray, ...]:
    """A tune's header, START to key, and its body, which begins with what of the header it depends on.

    That is the kind of tune (the line of Z:), metre and key. A model that reads a body with its title learns by heart
    which tune that is: with 734 tunes it helps nothing, and hurts. A tune without such a header stays in one part.
    """
    keys = np.flatnonzero((steps[:, 0] >= tokenizer.first_key) & (steps[:, 0] < tokenizer.first_pitch))
    if not len(keys):
        return (steps,)
    key = int(keys[0])
    names = [tokenizer.line_of(int(symbol)) for symbol in steps[:key, 0]]
    kept = [i for i, name in enumerate(names) if name.lstrip().startswith(("Z:", "M:"))]
    return steps[: key + 1], steps[[*kept, *range(key, len(steps))]]


def fit(
    recipe: Recipe,
    tunes: Sequence[Tune],
    *,
    seconds: float | None = None,
    clock: Callable[[], float] = time.process_time,
    look: Callable[[Fitted], None] | None = None,
    looks: int = 4,
) -> Fitted:
    """Train as many steps as the recipe says, or for so many seconds of `clock`, preparing included.

    look: called now and then, off the clock, with the averaged model.
    """
    began = clock()
    texts = [tune.text for tune in tunes]
    names = [c.name for c in IrishTokenizer.learn(texts).coordinates]
    left_out = [n for n in names if any(word in n.split() or word == n for word in recipe.left_out)]
    tokenizer = IrishTokenizer.learn(texts, recipe.degrees, left_out)
    corpus = in_memory(tokenizer, tunes, recipe.parted)
    if recipe.memory:
        tokenizer.remember([np.asarray(corpus.steps_of(piece)) for piece in corpus.pieces])
    for piece in corpus.pieces:
        tokenizer.locate(np.asarray(corpus.steps_of(piece)))
    before = clock() - began
    config = recipe.training
    if seconds is not None:
        config = config.model_copy(update={"budget": max(seconds - before, 1.0)})
    torch.manual_seed(config.seed)
    sizes = [f.size for f in tokenizer.fields], [c.size for c in tokenizer.coordinates]
    model = Model(recipe.model, *sizes, tokenizer.hearing, tokenizer.recall)
    if recipe.pointing:
        point_at_guesses(model, tokenizer)
    trainer = Trainer(model, corpus, corpus.pieces, [], config, torch.device("cpu"), clock=clock)
    tokens, due = 0, 1
    found = Fitted(trainer.averaged, tokenizer, 0.0, 0, 0, 0, None, recipe.parted)
    for report in trainer.run():
        tokens += report.tokens
        found.seconds, found.precision = before + trainer.seconds, trainer.precision
        found.tokens, found.steps, found.epochs = tokens, report.step, report.epoch
        found.train_loss = report.mean_nats_per_step
        done = report.step / config.steps if seconds is None else found.seconds / seconds
        if look and done >= due / looks and due < looks:
            due += 1
            look(found)
            trainer.recent = []
    found.model.eval()
    if look:
        look(found)
    return found


@torch.no_grad()
def point_at_guesses(model: Model, tokenizer: IrishTokenizer) -> None:
    """Begin with coordinates that name a symbol meaning what the head means by it: what is guessed is likelier."""
    for coordinate, table in zip(tokenizer.coordinates, model.embedding.coordinates, strict=True):
        if "symbol" in coordinate.name and coordinate.size > 1:
            table.get_parameter("weight")[1:] = 2 * model.head.logits[0].get_parameter("weight")[1:]


@torch.no_grad()
def step_costs(fitted: Fitted, tunes: Sequence[Tune], rows: int = 16) -> list[np.ndarray]:
    """Nats of every step after START, an array (T - 1,) a tune, each tune from its own start."""
    tokenizer, model = fitted.tokenizer, fitted.model
    model.eval()
    pieces: list[tuple[int, int, np.ndarray]] = []  # tune, first target that counts, steps
    for i, tune in enumerate(tunes):
        steps = tokenizer.encode_text(tune.text)
        found = parts(tokenizer, steps) if fitted.parted else (steps,)
        pieces.append((i, 1, found[0]))
        if len(found) > 1:
            pieces.append((i, len(found[0]) + len(found[1]) - len(steps), found[1]))
    nats: dict[int, list[np.ndarray]] = {}
    order = sorted(range(len(pieces)), key=lambda number: len(pieces[number][2]))
    costs: list[np.ndarray] = [np.zeros(0)] * len(pieces)
    for at in range(0, len(order), rows):
        group = order[at : at + rows]
        lengths = [len(pieces[number][2]) for number in group]
        steps = torch.zeros(len(group), max(lengths), 3, dtype=torch.long)
        width = len(tokenizer.coordinates) + (model.recall.width if model.recall else 0)
        coordinates = torch.zeros(len(group), max(lengths), width, dtype=torch.long)
        for row, number in enumerate(group):
            piece = pieces[number][2]
            steps[row, : len(piece)] = torch.from_numpy(piece.astype(np.int64))
            told = read(piece, tokenizer, recall=model.recall is not None).coordinates  # type: ignore[arg-type]
            coordinates[row, : len(piece)] = torch.from_numpy(told.astype(np.int64))
        outputs, _ = model(steps[:, :-1], coordinates[:, :-1], model.initial_state(len(group)))
        valid = torch.arange(max(lengths) - 1)[None] < torch.tensor(lengths)[:, None] - 1
        losses = model.head.nll(outputs, steps[:, 1:], valid).sum(-1).split(valid.sum(1).tolist())
        for number, found in zip(group, losses, strict=True):
            costs[number] = found.double().numpy()[pieces[number][1] - 1 :]
    for (i, _, _), found in zip(pieces, costs, strict=True):
        nats.setdefault(i, []).append(found)
    return [np.concatenate(nats[i]) for i in range(len(tunes))]


def score_steps(tokenizer: IrishTokenizer, tunes: Sequence[Tune], costs: Sequence[np.ndarray]) -> Score:
    """Costs of steps, in nats a character of the tunes' text; END pays for the separator."""
    score = Score()
    for tune, nats in zip(tunes, costs, strict=True):
        score.add(tune, tokenizer.costs(tokenizer.encode_text(tune.text), nats.tolist()))
    return score


def score_model(fitted: Fitted, tunes: Sequence[Tune]) -> Score:
    """Every tune from its own start, in nats a character of its text."""
    return score_steps(fitted.tokenizer, tunes, step_costs(fitted, tunes))


def averaged(costs: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """The costs of several models mixed, each of the same weight: probabilities are averaged step by step."""
    return [np.log(len(costs)) - np.logaddexp.reduce([-nats for nats in tune]) for tune in zip(*costs, strict=True)]


def sample_tunes(fitted: Fitted, count: int, seed: int = 0, most_bars: int = 80) -> list[str]:
    """Tunes drawn at temperature 1 under the grammar, header and all."""
    return [sample_tune(fitted, np.random.SeedSequence([seed, number]), most_bars) for number in range(count)]


def sample_tune(fitted: Fitted, seed: np.random.SeedSequence, most_bars: int) -> str:
    """One tune: where header and body are read apart, the header first, then the body that begins as it says."""
    tokenizer = fitted.tokenizer
    cursor = TuneCursor(tokenizer, header_alone=fitted.parted)
    seeds = [int(value) for value in seed.generate_state(2)]
    prompt = np.array([tokenizer.start])
    steps = draw(fitted.model, cursor, prompt, tokenizer.locate(prompt), seeds[0], most_bars)
    if fitted.parted:
        _, body = parts(tokenizer, np.concatenate([prompt, steps]))
        cursor.go_on()
        draw(fitted.model, cursor, body, tokenizer.locate(body), seeds[1], most_bars)
    return cursor.text.strip() + "\n"


def draw(
    model: Model, cursor: TuneCursor, prompt: np.ndarray, coordinates: np.ndarray, seed: int, most_bars: int
) -> np.ndarray:
    """(T, 3): the steps that the package's sampler draws until the cursor is done."""
    (drawn,) = sample(
        model,
        cursor.tokenizer,  # type: ignore[arg-type]
        [cursor],
        prompt,
        config=SamplingConfig(),
        seed=seed,
        most_bars=most_bars,
        prompt_coordinates=coordinates,
    )
    return drawn.steps


def small(recipe: Recipe) -> Recipe:
    """The same in little, for seeing whether it runs."""
    model = recipe.model.model_copy(update={"dim": 32, "layers": 1, "heads": 2})
    return replace(recipe, model=model, training=recipe.training.model_copy(update={"precision": "fp32"}))


def _trained(recipe: Recipe, **changes: object) -> Recipe:
    return replace(recipe, training=recipe.training.model_copy(update=changes))


ABLATIONS: dict[str, Callable[[Recipe], Recipe]] = {
    "letters, not degrees": lambda recipe: replace(recipe, degrees=False),
    "without what the tune said before": lambda recipe: replace(recipe, left_out=COPYING),
    "without what is usual in other tunes": lambda recipe: replace(recipe, memory=False, left_out=USUAL),
    "header and body read as one": lambda recipe: replace(recipe, parted=False),
    "guesses not pointed at": lambda recipe: replace(recipe, pointing=False),
    "without the place in the music": lambda recipe: replace(recipe, left_out=PLACES),
    "without any coordinates": lambda recipe: replace(recipe, left_out=(*COPYING, *USUAL, *PLACES, *KEYS_TOLD)),
    "without recall": lambda recipe: replace(recipe, model=recipe.model.model_copy(update={"recall": False})),
    "without averaging": lambda recipe: _trained(recipe, average=0.0),
    "without dropout": lambda recipe: replace(recipe, model=recipe.model.model_copy(update={"dropout": 0.0})),
    "without hidden coordinates and values": lambda recipe: _trained(recipe, hide_coordinates=0.0, mask_notes=0.0),
    "without weight decay": lambda recipe: _trained(recipe, weight_decay=0.0),
}
"""Name -> the recipe without one of the things that should help."""
