"""A model that reads one step at a time, for drawing: exactly, or by a graph in 8 bits (see `quick`).

Both keep the past and what the head starts from; whoever draws asks for one field after the other, then says which step
was taken.
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

    def __init__(self, model: Model, state: State, outputs: Tensor) -> None:
        """outputs: (B, ...), the model's last; state: after them."""
        self.model = model
        self.ear = None if model.ear is None else state[-1]  # (B, E)
        tables = model.embedding.tables()
        starts = [0, *accumulate(len(table) for table in tables)][:-1]
        self.starts = torch.tensor(starts, device=outputs.device)
        self.context = model.head.context(outputs)
        self._begin(state if model.ear is None else state[:-1])

    def _begin(self, state: State) -> None:
        self.table = torch.cat(self.model.embedding.tables())
        self.decoder = self.model.decoder.stepper(state)

    def step(self, steps: Tensor, coordinates: Tensor) -> None:
        """Read a step of each stream. steps: (B, F), coordinates: (B, C + R), both int64."""
        model, embedding = self.model, self.model.embedding
        if self.ear is None or model.ear is None or embedding.intervals is None:
            context = self._read(steps, coordinates, None)
        else:
            heard = model.ear(steps[:, None], self.ear)  # (B, 1, E)
            intervals = embedding.intervals(steps[:, None], heard, self.ear[:, None])[:, 0]
            context = self._read(steps, coordinates, intervals)
            self.ear = heard[:, -1]
            context = torch.cat([context, self.ear], -1)
        if model.recall is not None:
            context = torch.cat([context, coordinates[:, -model.recall.width :].to(torch.float32)], -1)
        self.context = context

    def _read(self, steps: Tensor, coordinates: Tensor, beside: Tensor | None) -> Tensor:
        """What the head starts from, (B, D), after the rows of the tables that they name and `beside` (B, D)."""
        index = torch.cat([steps, coordinates], 1) + self.starts
        vectors = functional.embedding(index, self.table).sum(1)
        return self.model.head.norm(self.decoder.step(vectors if beside is None else vectors + beside))

    def field(self, index: int, known: Sequence[Tensor], rows: Tensor | None = None) -> Tensor:
        """Logits (R, size) of a field of the next step, given the values (R,) of the fields before it.

        rows: (R,) int64, of the streams that are asked for; None: all.
        """
        return self.model.head.field(index, self.context if rows is None else self.context[rows], known)

    def pick(self, rows: Tensor) -> None:
        """Go on with the streams named by `rows`, (R,) int64, in that order."""
        self.context = self.context.index_select(0, rows)
        if self.ear is not None:
            self.ear = self.ear.index_select(0, rows)
        self.decoder.pick(rows)


class QuickModelStepper(ModelStepper):
    """The same by a session of `quick.write_model`, whose logits of the first field come with each step."""

    def __init__(self, model: Model, state: State, outputs: Tensor, session: Any) -> None:
        self.session = session
        self.first: Tensor | None = None
        super().__init__(model, state, outputs)

    def _begin(self, state: State) -> None:
        assert self.model.decoder.quick is not None
        self.past = self.model.decoder.quick(self.model.decoder, state)
        self._bind()

    def _bind(self) -> None:
        """The session's runs from each place of the past to the next, on tensors that stay where they are."""
        count, head = len(self.context), self.model.head
        given = {"index": torch.empty(count, len(self.starts), dtype=torch.int64)}
        if self.ear is not None:
            given["beside"] = torch.empty(count, head.dim)
        found = {"context": torch.empty(count, head.dim)}
        if head.plain:
            found["first"] = torch.empty(count, head.sizes[0])
        self.given, self.found, self.runs = given, found, []
        for reads, writes in self.past.places:
            run = self.session.io_binding()
            for place, tensors in ((run.bind_input, given | reads), (run.bind_output, found | writes)):
                for name, tensor in tensors.items():
                    place(name, "cpu", 0, DTYPES[tensor.dtype], tuple(tensor.shape), tensor.data_ptr())
            self.runs.append(run)

    def _read(self, steps: Tensor, coordinates: Tensor, beside: Tensor | None) -> Tensor:
        index = self.given["index"].numpy()  # NumPy takes a third of the time for so little
        np.concatenate([steps.numpy(), coordinates.numpy()], 1, out=index)
        index += self.starts.numpy()
        if beside is not None:
            self.given["beside"].copy_(beside)
        self.session.run_with_iobinding(self.runs[self.past.turn])
        self.past.advance()
        self.first = self.found.get("first")
        return self.found["context"]

    def field(self, index: int, known: Sequence[Tensor], rows: Tensor | None = None) -> Tensor:
        if index or self.first is None:
            return super().field(index, known, rows)
        return self.first if rows is None else self.first[rows]

    def pick(self, rows: Tensor) -> None:
        self.context = self.context.index_select(0, rows)
        self.first = None if self.first is None else self.first.index_select(0, rows)
        if self.ear is not None:
            self.ear = self.ear.index_select(0, rows)
        self.past.pick(rows)
        self._bind()
