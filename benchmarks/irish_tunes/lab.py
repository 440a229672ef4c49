"""The lecture's own lab on Irish tunes, and what counting alone does: the references of the benchmark.

Text comes in, nats a character go out. The tunes are split as the protocol says (see `read_tunes`), the lab is trained
by its recipe (MIT 6.S191, lab 1: characters, an embedding of 256, one LSTM of 1,024, batches of 8 random windows of 100
characters, Adam at 5e-3, 3,000 iterations, state not carried), written here in plain PyTorch as the lab writes it.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

UNSEEN_BELOW = 26
"""A tune is unseen when the first byte of its text's sha256 is under this: a tenth of them."""

SEPARATOR = "\n\n"
"""What the lab joins tunes with. It ends each tune, and is counted as two of its characters."""


@dataclass(frozen=True)
class Tune:
    """One tune as its file has it, blank lines around it left out."""

    text: str

    @property
    def header(self) -> int:
        """How many characters stand before the body: up to and with the line of the first K:."""
        found = re.search(r"^K:.*$\n?", self.text, re.MULTILINE)
        return found.end() if found else 0

    @property
    def first_byte(self) -> int:
        return hashlib.sha256(self.text.encode()).digest()[0]

    @property
    def characters(self) -> int:
        return len(self.text) + len(SEPARATOR)


def read_tunes(path: str | Path) -> tuple[list[Tune], list[Tune]]:
    """(training tunes, unseen tunes) of an ABC file, in its order; a tune whose body was met before is left out."""
    raw = Path(path).read_text(encoding="utf-8")
    tunes = [Tune(text.strip()) for text in re.split(r"^(?=X:)", raw, flags=re.MULTILINE) if text.strip()]
    bodies: set[str] = set()
    train, unseen = [], []
    for tune in tunes:
        body = tune.text[tune.header :]
        if body in bodies:
            continue
        bodies.add(body)
        (unseen if tune.first_byte < UNSEEN_BELOW else train).append(tune)
    return train, unseen


@dataclass
class Score:
    """Nats over tunes: in all, in the header and the body, and in each third of the tune's characters."""

    nats: float = 0.0
    characters: int = 0
    header: float = 0.0
    header_characters: int = 0
    thirds: tuple[float, float, float] = (0.0, 0.0, 0.0)
    thirds_characters: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def add(self, tune: Tune, costs: Sequence[tuple[int, float]]) -> None:
        """costs: (characters, nats) of the tune's symbols in order, the separator's among them.

        A symbol that reaches over the edge of a part gives each part its share.
        """
        edges = [0, tune.header, tune.characters]
        in_header = spread(costs, edges)
        self.header += in_header[0]
        self.header_characters += tune.header
        self.nats += sum(in_header)
        self.characters += tune.characters
        third = tune.characters / 3
        found = spread(costs, [0, third, 2 * third, tune.characters])
        self.thirds = tuple(a + b for a, b in zip(self.thirds, found, strict=True))  # type: ignore[assignment]
        self.thirds_characters = tuple(a + third for a in self.thirds_characters)  # type: ignore[assignment]

    def figures(self) -> dict[str, float]:
        """Nats a character, in all and of each part."""
        body = self.characters - self.header_characters
        return {
            "nats": self.nats / max(self.characters, 1),
            "header": self.header / max(self.header_characters, 1),
            "body": (self.nats - self.header) / max(body, 1),
            **{
                f"third {i + 1}": nats / max(count, 1)
                for i, (nats, count) in enumerate(zip(self.thirds, self.thirds_characters, strict=True))
            },
        }


def spread(costs: Sequence[tuple[int, float]], edges: Sequence[float]) -> list[float]:
    """How much of the costs falls between each two neighbouring edges, given in characters."""
    found = [0.0] * (len(edges) - 1)
    at = 0.0
    for characters, nats in costs:
        if not characters:  # belongs to what follows, or to the end
            part = next((i for i in range(len(found)) if at < edges[i + 1]), len(found) - 1)
            found[part] += nats
            continue
        for i in range(len(found)):
            inside = min(at + characters, edges[i + 1]) - max(at, edges[i])
            if inside > 0:
                found[i] += nats * inside / characters
        at += characters
    return found


# --- the lab ----------------------------------------------------------------------------------------------------------


class Lab(nn.Module):
    """The lab's model: embedding, one LSTM, a linear layer."""

    def __init__(self, characters: int, embedding: int = 256, hidden: int = 1024) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, embedding)
        self.lstm = nn.LSTM(embedding, hidden, batch_first=True)
        self.linear = nn.Linear(hidden, characters)

    def forward(self, inputs: torch.Tensor, state=None):
        """inputs: (B, T) int64; returns logits (B, T, V) and the LSTM's state."""
        outputs, state = self.lstm(self.embedding(inputs), state)
        return self.linear(outputs), state


@dataclass
class LabRun:
    """The lab after training: its model, its characters, and its loss along the way."""

    model: Lab
    characters: list[str]
    curve: list[dict[str, float]]
    seconds: float


def train_lab(
    train: Sequence[Tune],
    unseen: Sequence[Tune],
    *,
    iterations: int = 3000,
    look_every: int = 250,
    hidden: int = 1024,
    seed: int = 0,
    clock: Callable[[], float] = time.process_time,
    progress: Callable[[dict], None] = lambda facts: None,
) -> LabRun:
    """The lab's recipe, looked at on the unseen tunes as it goes; looking does not count as its time."""
    torch.manual_seed(seed)
    draw = random.Random(seed)
    characters = sorted({c for tune in (*train, *unseen) for c in tune.text + SEPARATOR})
    ids = {c: i for i, c in enumerate(characters)}
    text = torch.tensor([ids[c] for tune in train for c in tune.text + SEPARATOR])
    model = Lab(len(characters), hidden=hidden)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    curve: list[dict[str, float]] = []
    seconds = 0.0
    for iteration in range(1, iterations + 1):
        began = clock()
        starts = [draw.randrange(len(text) - 100) for _ in range(8)]
        window = torch.stack([text[at : at + 101] for at in starts])
        optimizer.zero_grad()
        logits, _ = model(window[:, :-1])
        loss = functional.cross_entropy(logits.flatten(0, 1), window[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        seconds += clock() - began
        if iteration % look_every == 0 or iteration == iterations:
            score = score_lab(model, characters, unseen)
            curve.append({"iteration": iteration, "seconds": seconds, "train": loss.item(), **score.figures()})
            progress(curve[-1])
    return LabRun(model, characters, curve, seconds)


@torch.no_grad()
def score_lab(model: Lab, characters: Sequence[str], tunes: Sequence[Tune]) -> Score:
    """Every tune from its own start: the separator has been read, nothing before it."""
    ids = {c: i for i, c in enumerate(characters)}
    score = Score()
    for tune in tunes:
        text = torch.tensor([[ids[c] for c in SEPARATOR + tune.text + SEPARATOR]])
        logits, _ = model(text[:, :-1])
        costs = functional.cross_entropy(logits[0], text[0, 1:], reduction="none")[len(SEPARATOR) - 1 :]
        score.add(tune, [(1, nats) for nats in costs.tolist()])
    return score


@torch.no_grad()
def sample_lab(run: LabRun, count: int, seed: int = 0, longest: int = 1500) -> Iterator[str]:
    """Tunes drawn freely at temperature 1, each from "X:" (the lab's own prompt) to the next blank line."""
    ids = {c: i for i, c in enumerate(run.characters)}
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        found = "X:"
        logits, state = run.model(torch.tensor([[ids[c] for c in SEPARATOR + found]]))
        while len(found) < longest and not found.endswith(SEPARATOR):
            drawn = int(torch.multinomial(logits[0, -1].softmax(0), 1, generator=generator))
            found += run.characters[drawn]
            logits, state = run.model(torch.tensor([[drawn]]), state)
        yield found.strip() + "\n"


# --- counting ---------------------------------------------------------------------------------------------------------


class Counts:
    """Counts of characters after contexts of every length up to `order`, interpolated as Witten and Bell (1991) do."""

    def __init__(self, order: int) -> None:
        self.order = order
        self.after: dict[str, Counter[str]] = defaultdict(Counter)

    def see(self, past: str, character: str) -> None:
        for n in range(self.order + 1):
            if n <= len(past):
                self.after[past[len(past) - n :]][character] += 1

    def probability(self, past: str, character: str, below: float, shortest: int = 0) -> float:
        """p(character | past), short contexts mixed into long ones; `below` is what the shortest is mixed into."""
        for n in range(shortest, min(self.order, len(past)) + 1):
            counts = self.after.get(past[len(past) - n :])
            if counts:
                total, kinds = counts.total(), len(counts)
                below = (counts[character] + kinds * below) / (total + kinds)
        return below


def score_ngram(train: Sequence[Tune], tunes: Sequence[Tune], *, order: int = 4, own: bool = False) -> Score:
    """An n-gram over characters. own: mixed with the tune's own counts so far, of contexts of `order` to 10."""
    characters = {c for tune in (*train, *tunes) for c in tune.text + SEPARATOR}
    corpus = Counts(order)
    for tune in train:
        text = SEPARATOR + tune.text + SEPARATOR
        for at in range(len(SEPARATOR), len(text)):
            corpus.see(text[max(at - order, 0) : at], text[at])
    score = Score()
    for tune in tunes:
        text = SEPARATOR + tune.text + SEPARATOR
        here = Counts(10)
        costs = []
        for at in range(len(SEPARATOR), len(text)):
            past = text[max(at - here.order, 0) : at]
            p = corpus.probability(past[-order:], text[at], 1 / len(characters))
            if own:
                p = here.probability(past, text[at], p, order)
                here.see(past, text[at])
            costs.append((1, -math.log(p)))
        score.add(tune, costs)
    return score
