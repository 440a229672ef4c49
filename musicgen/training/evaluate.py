"""Held-out loss: nats a step, a note and (for text) a character, over whole pieces, each from its own start."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from musicgen.corpus import Batch, Corpus, Piece, whole_pieces
from musicgen.decoders.model import Model
from musicgen.training.chunk import ChunkLoss
from musicgen.training.processes import Processes


@dataclass(frozen=True)
class Evaluation:
    """Total negative log-likelihood of some pieces, in nats, and over how much of each unit it was spread."""

    nats: float
    steps: int
    notes: int
    characters: int | None
    pieces: int
    nats_by_field: dict[str, float]

    @property
    def per_step(self) -> float:
        return self.nats / max(self.steps, 1)

    @property
    def per_note(self) -> float:
        return self.nats / max(self.notes, 1)

    @property
    def per_character(self) -> float | None:
        return None if self.characters is None else self.nats / max(self.characters, 1)


def to_tensors(batch: Batch, device: torch.device) -> tuple[list[Tensor | None], dict[int, Tensor]]:
    """([steps, coordinates, targets, valid, fresh], masks) of a Batch on `device`; fresh is None where nothing begins,
    so that nothing need look for it."""

    def moved(array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)

    tensors: list[Tensor | None] = [
        moved(array) for array in (batch.steps, batch.coordinates, batch.targets, batch.valid)
    ]
    tensors.append(moved(batch.fresh) if batch.fresh.any() else None)
    return tensors, {field: moved(mask) for field, mask in batch.masks.items()}


@torch.no_grad()
def evaluate(
    model: Model,
    corpus: Corpus,
    pieces: Sequence[Piece],
    *,
    streams: int = 16,
    chunk: int = 256,
    hide: bool = True,
    without: Iterable[str] = (),
    precision: str = "fp32",
    processes: Processes | None = None,
) -> Evaluation:
    """Every step after START counts, END included. `hide`: the model is not told how many bars are left.

    without: names of coordinates that it is not told either. In several processes each reads a share of the pieces.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    processes = processes or Processes()
    own = sorted(pieces, key=lambda p: p.length)[processes.rank :: processes.count]
    chunk_loss = ChunkLoss(model, precision)
    total = torch.zeros(len(corpus.tokenizer.fields), dtype=torch.float64)
    steps = notes = 0
    state = model.initial_state(min(streams, len(own)))
    recall = model.recall is not None
    for batch in whole_pieces(corpus, own, streams=streams, chunk=chunk, hide=hide, without=without, recall=recall):
        tensors, masks = to_tensors(batch, device)
        state = tuple(part[: len(batch.steps)] for part in state)  # rows that have ended are the last
        nats, state = chunk_loss(*tensors, masks, state)
        total += nats.cpu().double().sum(dim=0)
        steps += batch.valid.size
        notes += batch.notes
    model.train(was_training)
    all_steps, all_notes, *by_field = processes.total([steps, notes, *total.tolist()])
    characters = [p.characters for p in pieces]
    return Evaluation(
        nats=sum(by_field),
        steps=int(all_steps),
        notes=int(all_notes),
        characters=None if None in characters else sum(c for c in characters if c is not None),
        pieces=len(pieces),
        nats_by_field={f.name: nats for f, nats in zip(corpus.tokenizer.fields, by_field, strict=True)},
    )


def unigram(corpus: Corpus, train: Sequence[Piece], pieces: Sequence[Piece]) -> Evaluation:
    """The score on `pieces` of a model that knows how often each value of each field occurs in `train` (plus one)."""
    fields = corpus.tokenizer.fields
    counts = [np.ones(f.size) for f in fields]
    for piece in train:
        steps = np.asarray(corpus.steps_of(piece))[1:]
        for i, count in enumerate(counts):
            count += np.bincount(steps[:, i], minlength=len(count))
    for count in counts[1:]:
        count[0] = 0  # NONE carries no loss
    costs = [-np.log(np.maximum(count, 1) / count.sum()) for count in counts]
    for cost in costs[1:]:
        cost[0] = 0.0
    by_field = np.zeros(len(fields))
    steps_read = notes = 0
    for piece in pieces:
        steps = np.asarray(corpus.steps_of(piece))[1:]
        by_field += [float(cost[steps[:, i]].sum()) for i, cost in enumerate(costs)]
        steps_read += len(steps)
        notes += piece.notes
    characters = [p.characters for p in pieces]
    return Evaluation(
        nats=float(by_field.sum()),
        steps=steps_read,
        notes=notes,
        characters=None if None in characters else sum(c for c in characters if c is not None),
        pieces=len(pieces),
        nats_by_field={f.name: float(n) for f, n in zip(fields, by_field, strict=True)},
    )
