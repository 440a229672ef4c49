"""A model is embedding -> decoder -> head; only the decoder differs between architectures.

The embedding turns a step (its fields and its musical coordinates) into a vector, the decoder runs over time, the head
predicts the next step's fields one after the other, each given those before it. With one field this is the plain
language model of the lecture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from musicgen.decoders import DECODERS
from musicgen.decoders.decoder import State
from musicgen.tokens import NONE


class ModelConfig(BaseModel):
    """Which decoder, and how large. A field that the chosen decoder has no use for is passed over."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    decoder: Literal["rnn", "gru", "lstm", "transformer"] = Field("lstm", description="the architecture")
    dim: int = Field(256, ge=8, le=4096, description="width of every vector")
    layers: int = Field(2, ge=1, le=64, description="decoder layers")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of values dropped while training")
    heads: int = Field(8, ge=1, le=64, description="transformer: attention heads; divides dim")
    memory: int = Field(512, ge=1, le=16384, description="transformer: how many past steps each position sees")
    nonlinearity: Literal["tanh", "relu"] = Field("tanh", description="rnn: the f of h = f(W_hh h + W_xh x + b)")
    initialisation: Literal["uniform", "identity"] = Field("uniform", description="rnn: how W_hh starts")


OPTIONS = {"rnn": ("nonlinearity", "initialisation"), "gru": (), "lstm": (), "transformer": ("heads", "memory")}
"""Which fields of ModelConfig each decoder takes besides dim, layers and dropout."""


class Embedding(nn.Module):
    """Sums a step's field embeddings and its coordinates into a vector. NONE adds nothing."""

    def __init__(self, fields: Sequence[int], coordinates: Sequence[int], dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.fields = nn.ModuleList(nn.Embedding(size, dim) for size in fields)
        self.coordinates = nn.ModuleList(nn.Embedding(size, dim) for size in coordinates)
        self.dropout = nn.Dropout(dropout)
        for table in (*self.fields, *self.coordinates):
            nn.init.normal_(
                table.get_parameter("weight"), std=0.1
            )  # small, so that a value never met in training says little
        if len(fields) > 1:
            for table in self.fields:
                nn.init.zeros_(table.get_parameter("weight")[NONE])

    def forward(self, steps: Tensor, coordinates: Tensor) -> Tensor:
        """steps: (B, T, F) int64, coordinates: (B, T, C) int64; returns (B, T, D)."""
        vector = sum(table(steps[..., i]) for i, table in enumerate(self.fields))
        vector = vector + sum(table(coordinates[..., i]) for i, table in enumerate(self.coordinates))
        return self.dropout(vector)  # (B, T, D)


class Head(nn.Module):
    """Predicts the fields of the next step one after the other: p(when) p(part | when) p(pitch | when, part) ...

    The first field is read off the decoder's output. For each later one the embeddings of the fields already known are
    added to the output, and one hidden layer mixes them.
    """

    def __init__(self, fields: Sequence[int], dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.sizes = tuple(fields)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(dim)
        self.logits = nn.ModuleList(nn.Linear(dim, size) for size in fields)
        self.known = nn.ModuleList(nn.Embedding(size, dim) for size in fields[:-1])
        self.mix = nn.ModuleList(nn.Linear(dim, dim) for _ in fields[1:])
        for table in self.known:
            nn.init.normal_(table.get_parameter("weight"), std=0.1)

    def context(self, outputs: Tensor) -> Tensor:
        """What every field starts from: (..., D) from the decoder's outputs (..., D)."""
        return self.dropout(self.norm(outputs))

    def field(self, index: int, context: Tensor, known: Sequence[Tensor]) -> Tensor:
        """Logits (..., size) of field `index`, given `known`: the values (...) of the fields before it."""
        if index == 0:
            return self.logits[0](context)
        mixed = context + sum(table(value) for table, value in zip(self.known, known, strict=False))
        return self.logits[index](mixed + functional.gelu(self.mix[index - 1](mixed)))

    def nll(self, outputs: Tensor, targets: Tensor, valid: Tensor, masks: Mapping[int, Tensor] | None = None) -> Tensor:
        """Negative log-likelihood of each field of each target, in nats.

        outputs: (B, T, D); targets: (B, T, F) int64; valid: (B, T) bool, False for padding. Returns (N, F) float32 for
        the N valid positions, in order; zero where a step does not use the field. masks: field -> (B, T, size) bool,
        values that could have stood there; no probability goes to others.
        """
        context = self.context(outputs[valid])  # (N, D)
        goal = targets[valid]  # (N, F)
        losses = []
        for index in range(len(self.sizes)):
            used = goal[:, index] != NONE if index else None
            rows = context if used is None else context[used]
            wanted = goal if used is None else goal[used]
            logits = self.field(index, rows, wanted.unbind(-1)[:index]).float()
            if masks and index in masks:
                possible = masks[index][valid] if used is None else masks[index][valid][used]
                logits = logits.masked_fill(~possible, -torch.inf)
            if index:
                logits = logits.index_fill(-1, torch.tensor(NONE, device=logits.device), -torch.inf)
            loss = functional.cross_entropy(logits, wanted[:, index], reduction="none")
            if used is not None:
                loss = torch.zeros(len(goal), dtype=loss.dtype, device=loss.device).masked_scatter(used, loss)
            losses.append(loss)
        return torch.stack(losses, dim=-1)


class Model(nn.Module):
    """Embedding, decoder and head over one tokenizer's fields and coordinates."""

    def __init__(self, config: ModelConfig, fields: Sequence[int], coordinates: Sequence[int]) -> None:
        """fields, coordinates: their sizes, in the tokenizer's order."""
        super().__init__()
        options = {name: getattr(config, name) for name in OPTIONS[config.decoder]}
        self.embedding = Embedding(fields, coordinates, config.dim, config.dropout)
        self.decoder = DECODERS[config.decoder](dim=config.dim, layers=config.layers, dropout=config.dropout, **options)
        self.head = Head(fields, config.dim, config.dropout)

    def initial_state(self, batch: int) -> State:
        """The state of `batch` streams with no past, on the model's device and in its type."""
        weight = next(self.parameters())
        return self.decoder.initial_state(batch, device=weight.device, dtype=weight.dtype)

    def forward(self, steps: Tensor, coordinates: Tensor, state: State) -> tuple[Tensor, State]:
        """steps: (B, T, F), coordinates: (B, T, C), both int64; returns outputs (B, T, D) and the state after them."""
        return self.decoder(self.embedding(steps, coordinates), state)

    @property
    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters())
