"""The decoder interface: vectors in, vectors out, and a state that carries the past from one call to the next.

A decoder runs over time and knows nothing of music. `outputs, state = decoder(inputs, state)`: the next T steps of B
streams go in, as many come out, and `state` is all that the past is ever asked for again. However a stream is cut into
calls, the outputs are the same.

A stream is pieces laid end to end, and a call may hold the end of one piece and the beginning of the next. `fresh` says
where pieces begin: nothing from before such a step is known at it or after it.

State is plain: a tuple of float tensors whose first dimension is the batch, and all zeros means "no past". So letting
go of the gradient, of the past, or of some of the streams takes one line each, and serves every decoder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from musicgen.decoders.quick import QuickPast

State = tuple[Tensor, ...]


class Decoder(nn.Module, ABC):
    """What rnn, gru, lstm and transformer have in common. A new decoder writes `forward` and `initial_state`."""

    dim: int
    """D: the width of what goes in, what comes out and what is hidden."""

    quick: ClassVar[type[QuickPast] | None] = None
    """Steps in 8 bits, if the decoder has such; see `quick`."""

    @abstractmethod
    def forward(self, inputs: Tensor, state: State, fresh: Tensor | None = None) -> tuple[Tensor, State]:
        """Read on. inputs: (B, T, D), T >= 1; returns outputs (B, T, D) and the state after the last of them.

        outputs[:, t] depends on the state and on inputs[:, : t + 1]. Gradients flow back through the state until
        somebody detaches it.

        fresh: (B, T) bool, true at a step that begins a piece, or None where none does. The row forgets everything
        before that step, as if the call were cut there and `forget` came in between: from there on the outputs
        depend on the piece alone, no gradient flows over its beginning, and the state holds nothing older.
        """

    @abstractmethod
    def initial_state(
        self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        """No past, for `batch` streams: zeros, on the decoder's device and in its dtype unless told otherwise."""

    def stepper(self, state: State) -> Stepper:
        """What reads on from a state one step at a time, for drawing: the numbers of `forward`, less around them."""
        return Stepper(self, state)

    def __call__(self, inputs: Tensor, state: State, fresh: Tensor | None = None) -> tuple[Tensor, State]:
        return super().__call__(inputs, state, fresh)

    def _zeros(self, *shape: int, device: torch.device | str | None, dtype: torch.dtype | None) -> Tensor:
        own = next(self.parameters())
        return torch.zeros(
            shape, device=own.device if device is None else device, dtype=own.dtype if dtype is None else dtype
        )


class Stepper:
    """Reads on one step at a time and keeps the past to itself. No gradient flows; dropout is off.

    This one asks `forward`; a decoder that can do better gives its own.
    """

    def __init__(self, decoder: Decoder, state: State) -> None:
        self.decoder, self.state = decoder, state

    def step(self, inputs: Tensor) -> Tensor:
        """inputs: (B, D); returns outputs (B, D)."""
        outputs, self.state = self.decoder(inputs[:, None], self.state)
        return outputs[:, 0]

    def pick(self, rows: Tensor) -> None:
        """Go on with the streams named by `rows`, (R,) int64, in that order."""
        self.state = pick(self.state, rows)


COARSE = 0.02
"""Shares below this are drawn by PyTorch: scales of 8 bits lie too far apart for them."""


class Dropout(nn.Module):
    """Each value is dropped with probability `share` while training, and the others scaled up to make up for it.

    PyTorch's own draws a number for every value, which on a processor takes up to a quarter of a training step. Here 16
    random bits decide over a value. The scale 1 / (1 - share) is rounded to 8 bits, and the share that is dropped is
    the one that belongs to it: 0.0986 where 0.1 is asked for.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, vectors: Tensor) -> Tensor:
        if not self.training or self.share == 0:
            return vectors
        if vectors.device.type != "cpu" or self.share < COARSE:
            return functional.dropout(vectors, self.share)
        return drop(vectors, self.share)

    def extra_repr(self) -> str:
        return str(self.share)


@torch.compiler.disable
def drop(vectors: Tensor, share: float) -> Tensor:
    """`vectors` with about that share of their values at zero and the others scaled up. See `Dropout`."""
    scale = torch.tensor(1 / (1 - share), dtype=torch.bfloat16)
    least = round(2**16 * (1 - 1 / scale.item())) - 2**15  # bits from here on keep the value
    words = torch.empty(-(-vectors.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = words.view(torch.int16)[: vectors.numel()].view(vectors.shape)
    kept = bits.clamp_(least - 1, least).sub_(least - 1)  # 1 or 0, by the fastest way there is
    return vectors * kept.mul_(scale.view(torch.int16).item()).view(torch.bfloat16).to(vectors.dtype)


def detach(state: State) -> State:
    """The same past, as a fact and no longer as a computation: backpropagation through time stops here."""
    return tuple(part.detach() for part in state)


def forget(state: State, fresh: Tensor) -> State:
    """The streams that are fresh, (B,) bool, lose their past; the others keep theirs, gradients and all."""
    return tuple(part.masked_fill(fresh.view(-1, *[1] * (part.dim() - 1)), 0.0) for part in state)


def cuts(fresh: Tensor) -> list[tuple[int, int, Tensor]]:
    """A call cut so that pieces begin only at a cut: (begin, end, fresh rows (B,) bool), in order, none of them empty.

    fresh: (B, T) bool. For a decoder that reads one step after the other, and so forgets between two reads.
    """
    begins = fresh.any(0).nonzero().flatten().tolist()  # the one wait for a GPU
    if not begins or begins[0] > 0:
        begins.insert(0, 0)
    return [(begin, end, fresh[:, begin]) for begin, end in pairwise([*begins, fresh.shape[1]])]


def pick(state: State, rows: Tensor) -> State:
    """The past of the streams named by `rows`, (R,) int64, in that order; a row may be picked twice or not at all."""
    return tuple(part.index_select(0, rows) for part in state)
