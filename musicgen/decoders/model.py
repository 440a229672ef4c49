"""A model is embedding -> decoder -> head; only the decoder differs between architectures.

The embedding turns a step (its fields and its musical coordinates) into a vector, the decoder runs over time, the head
predicts the next step's fields one after the other, each given those before it. With one field this is the plain
language model of the lecture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from musicgen.decoders import DECODERS
from musicgen.decoders.decoder import Dropout, State
from musicgen.decoders.hearing import Ear, Intervals, Relative
from musicgen.decoders.model_step import ModelStepper, QuickModelStepper
from musicgen.decoders.quick import quick_session
from musicgen.decoders.recall import Pointing, Recollection
from musicgen.tokens import NONE, Hearing
from musicgen.tokens.recall import Recall


class ModelConfig(BaseModel):
    """Which decoder, and how large. A field that the chosen decoder has no use for is passed over."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    decoder: Literal["rnn", "gru", "lstm", "transformer"] = Field("lstm", description="the architecture")
    dim: int = Field(256, ge=8, le=4096, description="width of every vector")
    layers: int = Field(2, ge=1, le=64, description="decoder layers")
    dropout: float = Field(0.1, ge=0, lt=1, description="share of values dropped while training")
    hearing: bool = Field(
        False, description="hear and score pitches by their distance from what was heard: the same in every key"
    )
    recall: bool = Field(
        False, description="be told what came next the last time the passage just heard was heard in this piece"
    )
    heads: int = Field(8, ge=1, le=64, description="transformer: attention heads; divides dim")
    memory: int = Field(512, ge=1, le=16384, description="transformer: how many past steps each position sees")
    nonlinearity: Literal["tanh", "relu"] = Field("tanh", description="rnn: the f of h = f(W_hh h + W_xh x + b)")
    initialisation: Literal["uniform", "identity"] = Field("uniform", description="rnn: how W_hh starts")


OPTIONS = {"rnn": ("nonlinearity", "initialisation"), "gru": (), "lstm": (), "transformer": ("heads", "memory")}
"""Which fields of ModelConfig each decoder takes besides dim, layers and dropout."""


class Embedding(nn.Module):
    """Sums a step's field embeddings and its coordinates into a vector. NONE adds nothing."""

    def __init__(
        self,
        fields: Sequence[int],
        coordinates: Sequence[int],
        dim: int,
        dropout: float = 0.0,
        ear: Ear | None = None,
        recall: Recall | None = None,
    ) -> None:
        super().__init__()
        self.intervals = None if ear is None else Intervals(ear, dim)
        self.recollection = None if recall is None else Recollection(recall, fields, dim)
        self.fields = nn.ModuleList(nn.Embedding(size, dim) for size in fields)
        self.coordinates = nn.ModuleList(nn.Embedding(size, dim) for size in coordinates)
        self.dropout = Dropout(dropout)
        for table in (*self.fields, *self.coordinates):
            nn.init.normal_(
                table.get_parameter("weight"), std=0.1
            )  # small, so that a value never met in training says little
        if len(fields) > 1:
            for table in self.fields:
                nn.init.zeros_(table.get_parameter("weight")[NONE])

    def tables(self) -> list[Tensor]:
        """What is summed for a step: a table for each of its fields, its coordinates and what is recalled, in order."""
        recalled: Iterable[nn.Module] = () if self.recollection is None else self.recollection.tables
        return [table.get_parameter("weight") for table in (*self.fields, *self.coordinates, *recalled)]

    def forward(
        self, steps: Tensor, coordinates: Tensor, heard: Tensor | None = None, before: Tensor | None = None
    ) -> Tensor:
        """steps: (B, T, F) int64, coordinates: (B, T, C + R) int64; heard, before: (B, T, E). Returns (B, T, D).

        heard, before: what the ear holds after and before each step, if there is one. R: what is recalled, if anything.
        """
        vector = sum(table(steps[..., i]) for i, table in enumerate(self.fields))
        vector = vector + sum(table(coordinates[..., i]) for i, table in enumerate(self.coordinates))
        if self.intervals is not None and heard is not None and before is not None:
            vector = vector + self.intervals(steps, heard, before)
        if self.recollection is not None:
            vector = vector + self.recollection(coordinates[..., len(self.coordinates) :])
        return self.dropout(vector)  # (B, T, D)


class Head(nn.Module):
    """Predicts the fields of the next step one after the other: p(when) p(part | when) p(pitch | when, part) ...

    The first field is read off the decoder's output. For each later one the embeddings of the fields already known are
    added to the output, and one hidden layer mixes them. With an ear, outputs have what was heard beside them, and
    every field of pitches is scored by intervals too; with recall, what is recalled, which the head may point to.
    """

    def __init__(
        self,
        fields: Sequence[int],
        dim: int,
        dropout: float = 0.0,
        ear: Ear | None = None,
        recall: Recall | None = None,
    ) -> None:
        super().__init__()
        self.sizes = tuple(fields)
        self.dim = dim
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(dim)
        self.logits = nn.ModuleList(nn.Linear(dim, size) for size in fields)
        self.known = nn.ModuleList(nn.Embedding(size, dim) for size in fields[:-1])
        pitched = () if ear is None else ear.pitched
        self.relative = nn.ModuleDict({str(i): Relative(ear, i, dim) for i in pitched if ear is not None})
        self.mix = nn.ModuleDict({str(i): nn.Linear(dim, dim) for i in range(len(fields)) if i or i in pitched})
        self.heard = 0 if ear is None else ear.width
        told = () if recall is None else recall.fields
        self.pointing = nn.ModuleDict({str(i): Pointing(recall, i, dim) for i in told if recall is not None})
        for table in self.known:
            nn.init.normal_(table.get_parameter("weight"), std=0.1)

    @property
    def plain(self) -> bool:
        """Whether the logits of the first field are a linear function of the context's first D values."""
        return not any("0" in of for of in (self.relative, self.mix, self.pointing))

    def context(self, outputs: Tensor) -> Tensor:
        """What every field starts from: (..., D), and beside it what was heard and is recalled."""
        if outputs.shape[-1] == self.dim:
            return self.dropout(self.norm(outputs))
        return torch.cat([self.dropout(self.norm(outputs[..., : self.dim])), outputs[..., self.dim :]], -1)

    def field(self, index: int, context: Tensor, known: Sequence[Tensor]) -> Tensor:
        """Logits (..., size) of field `index`, given `known`: the values (...) of the fields before it."""
        mixed = context[..., : self.dim]
        for table, value in zip(self.known, known[:index], strict=False):
            mixed = mixed + table(value)
        if str(index) in self.relative:
            relative = self.relative[str(index)]
            assert isinstance(relative, Relative)
            added, last = relative(context[..., self.dim : self.dim + self.heard], known)
            mixed = self._mixed(index, mixed + added)
            logits = relative.scores(mixed, last, self.logits[index](mixed))
        else:
            mixed = self._mixed(index, mixed)
            logits = self.logits[index](mixed)
        if str(index) in self.pointing:
            logits = self.pointing[str(index)](logits, mixed, context[..., self.dim + self.heard :].long(), known)
        return logits

    def _mixed(self, index: int, vectors: Tensor) -> Tensor:
        """What is known and what the decoder says, mixed by a hidden layer; the first field may have none."""
        if str(index) not in self.mix:
            return vectors
        return vectors + self.dropout(functional.gelu(self.mix[str(index)](vectors)))

    def nll(self, outputs: Tensor, targets: Tensor, valid: Tensor, masks: Mapping[int, Tensor] | None = None) -> Tensor:
        """Negative log-likelihood of each field of each target, in nats.

        outputs: the model's, (B, T, ...); targets: (B, T, F) int64; valid: (B, T) bool, False for padding. Returns
        (N, F) float32 for the N valid positions, in order; zero where a step does not use the field. masks: field ->
        (B, T, size) bool, values that could have stood there; no probability goes to others.
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

    def __init__(
        self,
        config: ModelConfig,
        fields: Sequence[int],
        coordinates: Sequence[int],
        hearing: Hearing | None = None,
        recall: Recall | None = None,
    ) -> None:
        """fields, coordinates: their sizes, in the tokenizer's order.

        hearing, recall: the tokenizer's, for a model that hears or recalls.

        Raises ValueError if the configuration asks for one of them and there is none.
        """
        super().__init__()
        if config.hearing and hearing is None:
            raise ValueError("a model that hears needs the tokenizer's hearing")
        if config.recall and recall is None:
            raise ValueError("a model that recalls needs the tokenizer's recall")
        options = {name: getattr(config, name) for name in OPTIONS[config.decoder]}
        self.ear = Ear(hearing, fields) if config.hearing and hearing is not None else None
        self.recall = recall if config.recall else None
        self.embedding = Embedding(fields, coordinates, config.dim, config.dropout, self.ear, self.recall)
        self.decoder = DECODERS[config.decoder](dim=config.dim, layers=config.layers, dropout=config.dropout, **options)
        self.head = Head(fields, config.dim, config.dropout, self.ear, self.recall)

    def initial_state(self, batch: int) -> State:
        """The state of `batch` streams with no past, on the model's device and in its type: the decoder's, and last the
        ear's, if there is one."""
        weight = next(self.parameters())
        state = self.decoder.initial_state(batch, device=weight.device, dtype=weight.dtype)
        if self.ear is None:
            return state
        return *state, torch.zeros(batch, self.ear.width, device=weight.device, dtype=weight.dtype)

    def forward(
        self, steps: Tensor, coordinates: Tensor, state: State, fresh: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """steps: (B, T, F), coordinates: (B, T, C + R), both int64; returns outputs and the state after them.

        fresh: (B, T) bool, true at a step that begins a piece: nothing before it is remembered. With recall the last R
        coordinates are what is recalled after each step. Outputs are (B, T, D), beside which stands what the head takes
        from elsewhere: what was heard (E), and what is recalled (R).
        """
        if coordinates.shape[-1] != self.coordinates:
            raise ValueError(f"{coordinates.shape[-1]} coordinates a step, and the model takes {self.coordinates}")
        if self.ear is None:
            outputs, after = self.decoder(self.embedding(steps, coordinates), state, fresh)
        else:
            *past, ear = state
            heard = self.ear(steps, ear, fresh)  # (B, T, E)
            before = torch.cat([ear[:, None], heard[:, :-1]], 1)
            if fresh is not None:
                before = before.masked_fill(fresh[..., None], 0.0)
            outputs, after = self.decoder(self.embedding(steps, coordinates, heard, before), tuple(past), fresh)
            outputs, after = torch.cat([outputs, heard], -1), (*after, heard[:, -1])
        if self.recall is not None:
            recalled = coordinates[..., -self.recall.width :]
            outputs = torch.cat([outputs, recalled.to(torch.float32)], -1)
        return outputs, after

    def stepper(self, state: State, exact: bool = False) -> ModelStepper:
        """What reads on one step at a time, for drawing, from a state of B streams.

        exact: the numbers of `forward`; otherwise in 8 bits where that is possible and near enough (`quick`).
        """
        session = None if exact else quick_session(self, len(state[0]))
        return ModelStepper(self, state) if session is None else QuickModelStepper(self, state, session)

    @property
    def coordinates(self) -> int:
        """C + R: how many coordinates a step has."""
        return len(self.embedding.coordinates) + (0 if self.recall is None else self.recall.width)

    @property
    def parameter_count(self) -> int:
        return sum(p.numel() for p in self.parameters())
