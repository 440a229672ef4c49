"""The decoder interface: vectors in, vectors out, and a state that carries the past from one call to the next.

A decoder runs over time and knows nothing of music. `outputs, state = decoder(inputs, state)`: the next T steps of B
streams go in, as many come out, and `state` is all that the past is ever asked for again. However a stream is cut into
calls, the outputs are the same.

State is plain: a tuple of float tensors whose first dimension is the batch, and all zeros means "no past". So letting
go of the gradient, of the past, or of some of the streams takes one line each, and serves every decoder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]


class Decoder(nn.Module, ABC):
    """What rnn, gru, lstm and transformer have in common. A new decoder writes `forward` and `initial_state`."""

    dim: int
    """D: the width of what goes in, what comes out and what is hidden."""

    @abstractmethod
    def forward(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """Read on. inputs: (B, T, D), T >= 1; returns outputs (B, T, D) and the state after the last of them.

        outputs[:, t] depends on the state and on inputs[:, : t + 1]. Gradients flow back through the state until
        somebody detaches it.
        """

    @abstractmethod
    def initial_state(
        self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """No past, for `batch` streams: zeros, on the decoder's device and in its dtype unless told otherwise."""

    def __call__(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        return super().__call__(inputs, state)

    def _zeros(self, *shape: int, device: torch.device | str | None, dtype: torch.dtype | None) -> Tensor:
        own = next(self.parameters())
        return torch.zeros(
            shape, device=own.device if device is None else device, dtype=own.dtype if dtype is None else dtype
        )


def detach(state: State) -> State:
    """The same past, as a fact and no longer as a computation: backpropagation through time stops here."""
    return tuple(part.detach() for part in state)


def forget(state: State, fresh: Tensor) -> State:
    """The streams that are fresh, (B,) bool, lose their past; the others keep theirs, gradients and all."""
    return tuple(part.masked_fill(fresh.view(-1, *[1] * (part.dim() - 1)), 0.0) for part in state)


def pick(state: State, rows: Tensor) -> State:
    """The past of the streams named by `rows`, (R,) int64, in that order; a row may be picked twice or not at all."""
    return tuple(part.index_select(0, rows) for part in state)
