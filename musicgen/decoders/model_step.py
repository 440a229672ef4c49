"""A model that reads one step at a time, for drawing: exactly, or by a graph in 8 bits (see `quick`).

Both keep the past and what the head starts from; whoever draws asks for one field after the other, then says which step
was taken. Steps come in as plain numbers and logits go out as NumPy arrays: a call of PyTorch costs more than so little
has to compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from musicgen.decoders.decoder import State

if TYPE_CHECKING:
    from musicgen.decoders.model import Model

DTYPES = {torch.float32: np.float32, torch.int32: np.int32, torch.int64: np.int64}


class ModelStepper:
    """Reads on as Model.forward does without `fresh`. No gradient flows; dropout is off."""

    context: Tensor
    """What the head starts from, (B, ...), once a step is read."""

    def __init__(self, model: Model, state: State) -> None:
        """state: of B streams, after what the model has read."""
        self.model, self.sizes = model, model.head.sizes
        self.streams, self.device = len(state[0]), state[0].device
        self.ear = None if model.ear is None else state[-1]  # (B, E)
        tables = model.embedding.tables()
        self.starts = np.array([0, *accumulate(len(table) for table in tables)][:-1])
        self._begin(state if model.ear is None else state[:-1])

    def _begin(self, state: State) -> None:
        self.table = torch.cat(self.model.embedding.tables())
        self.decoder = self.model.decoder.stepper(state)

    def step(self, taken: Sequence[Sequence[int]] | np.ndarray) -> None:
        """Read a step of each stream: (B, F + C + R), its fields, and its coordinates and what is recalled beside."""
        model, embedding = self.model, self.model.embedding
        values = np.array(taken, dtype=np.int64)
        if self.ear is None or model.ear is None or embedding.intervals is None:
            context = self._read(values, None)
        else:
            steps = self._tensor(values[:, None, : len(self.sizes)])  # (B, 1, F)
            heard = model.ear(steps, self.ear)  # (B, 1, E)
            intervals = embedding.intervals(steps, heard, self.ear[:, None])[:, 0]
            context = self._read(values, intervals)
            self.ear = heard[:, -1]
            context = torch.cat([context, self.ear], -1)
        if model.recall is not None:
            recalled = self._tensor(values[:, -model.recall.width :])
            context = torch.cat([context, recalled.to(torch.float32)], -1)
        self.context = context

    def _tensor(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    def _read(self, values: np.ndarray, beside: Tensor | None) -> Tensor:
        """What the head starts from, (B, D), after the rows of the tables that they name and `beside` (B, D)."""
        index = self._tensor(values + self.starts)
        vectors = functional.embedding(index, self.table).sum(1)
        return self.model.head.norm(self.decoder.step(vectors if beside is None else vectors + beside))

    def field(self, index: int, known: Sequence[Sequence[int]], rows: Sequence[int] | None = None) -> np.ndarray:
        """Logits (R, size) float32 of a field of the next step, given the values (R, index) of the fields before it.

        rows: R of the streams, those that are asked for; None: all. Good until the next step is read.
        """
        context = self.context if rows is None else self.context[self._tensor(np.array(rows))]
        before = self._tensor(np.array(known, dtype=np.int64).reshape(len(context), index))
        return self.model.head.field(index, context, before.unbind(-1)).float().cpu().numpy()

    def pick(self, rows: Sequence[int]) -> None:
        """Go on with the streams named by `rows`, in that order."""
        self.streams = len(rows)
        self._pick(self._tensor(np.array(rows)))

    def _pick(self, chosen: Tensor) -> None:
        self.context = self.context.index_select(0, chosen)
        if self.ear is not None:
            self.ear = self.ear.index_select(0, chosen)
        self.decoder.pick(chosen)


class QuickModelStepper(ModelStepper):
    """The same by a session of `quick.write_model`, whose logits of the first field come with each step."""

    def __init__(self, model: Model, state: State, session: Any) -> None:
        self.session = session
        self.first: np.ndarray | None = None
        super().__init__(model, state)

    def _begin(self, state: State) -> None:
        assert self.model.decoder.quick is not None
        self.past = self.model.decoder.quick(self.model.decoder, state)
        self._bind()

    def _bind(self) -> None:
        """The session's runs from each place of the past to the next, on arrays that stay where they are."""
        count, head = self.streams, self.model.head
        given = {"index": torch.empty(count, len(self.starts), dtype=torch.int64)}
        if self.ear is not None:
            given["beside"] = torch.empty(count, head.dim)
        found = {"context": torch.empty(count, head.dim)}
        if head.plain:
            found["first"] = torch.empty(count, head.sizes[0])
        self.index, self.beside = given["index"].numpy(), given.get("beside")
        self.found = found["context"], found["first"].numpy() if head.plain else None
        self.runs = []
        for reads, writes in self.past.places:
            run = self.session.io_binding()
            for place, tensors in ((run.bind_input, given | reads), (run.bind_output, found | writes)):
                for name, tensor in tensors.items():
                    place(name, "cpu", 0, DTYPES[tensor.dtype], tuple(tensor.shape), tensor.data_ptr())
            self.runs.append(run)

    def _read(self, values: np.ndarray, beside: Tensor | None) -> Tensor:
        np.add(values, self.starts, out=self.index)
        if beside is not None and self.beside is not None:
            self.beside.copy_(beside)
        self.session.run_with_iobinding(self.runs[self.past.turn])
        self.past.advance()
        context, self.first = self.found
        return context

    def field(self, index: int, known: Sequence[Sequence[int]], rows: Sequence[int] | None = None) -> np.ndarray:
        if index or self.first is None:
            return super().field(index, known, rows)
        return self.first if rows is None else self.first.take(rows, 0)

    def _pick(self, chosen: Tensor) -> None:
        self.context = self.context.index_select(0, chosen)
        self.first = None if self.first is None else self.first.take(chosen.numpy(), 0)
        if self.ear is not None:
            self.ear = self.ear.index_select(0, chosen)
        self.past.pick(chosen)
        self._bind()
