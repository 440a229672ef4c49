"""The Transformer decoder: every position asks those before it, and carries no hidden vector at all.

Each position makes a query ("what am I looking for?"), a key ("what do I offer?") and a value ("what do I give?").
The query is compared with the keys of the positions before; the softmax of the products says how much of each value to
take (Vaswani et al. 2017). So the way from any step to any other is one step long, and no gradient has far to go.

The memory makes it a decoder like the others (Transformer-XL, Dai et al. 2019): the keys and values of the last W
positions are kept in the state. Three rules make it exact, however a stream is cut into calls:

1. Band mask: each position sees itself and its W predecessors, no more and no fewer, in whichever call they came.
2. Keys are kept before rotation, and positions are counted anew in each call. Rotary attention only knows the distance
   between two positions (Su et al. 2021), so the state needs no clock, and can run for ever.
3. A memory slot that no position has filled yet is masked: `live` is zero there. All zeros means "no past".

A position in layer l sees W positions of layer l - 1, each of which saw W before it: the stack reaches back layers · W.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musicgen.decoders.attention import (
    Blocks,
    attend,
    attend_in_blocks,
    attention_weights,
    band,
    plan_blocks,
    rotate,
    rotations,
)
from musicgen.decoders.decoder import Decoder, Dropout, State, Stepper
from musicgen.decoders.linear import Linear, working_type
from musicgen.decoders.transformer_step import TransformerQuickPast, TransformerStepper


class Transformer(Decoder):
    """Layers of self-attention and a small network each, added to a stream that runs through (pre-norm).

    `memory` is W, in positions. D must divide into `heads` heads of an even width.
    Feed a long sequence in several calls; the outputs are the same.

    State: keys (B, layers, W, D), values (B, layers, W, D), live (B, W): 1 where a position lies in memory, else 0.
    Filled slots lie at the end. A state may come with its first slots cut off, down to none at all: on a GPU, where
    nobody looks whether they are empty, a first call then costs no more than attention without a memory.
    """

    quick = TransformerQuickPast

    def __init__(
        self,
        *,
        dim: int,
        layers: int,
        heads: int,
        dropout: float = 0.0,
        memory: int = 512,
        expansion: int = 4,
        written_out: bool = False,
    ) -> None:
        super().__init__()
        if dim % (2 * heads):
            raise ValueError(f"dim {dim} does not divide into {heads} heads of an even width")
        if memory < 1:
            raise ValueError(f"memory is {memory} positions, and must be 1 at least")
        self.dim = dim
        self.layers = layers
        self.heads = heads
        self.memory = memory
        self.written_out = written_out
        self.blocks = nn.ModuleList(
            Layer(dim=dim, heads=heads, dropout=dropout, expansion=expansion, written_out=written_out)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(dim)
        self._initialise()

    def _initialise(self) -> None:
        """As in GPT-2 (Radford et al. 2019): weights normal, of deviation 0.02; biases zero; the 2 · layers matrices
        that add to the stream scaled down, so that its size does not grow with depth."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 2:
                adds = name.endswith(("attention.project.weight", "network.down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * self.layers) if adds else 0.02)

    def initial_state(
        self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        keys, values = (
            self._zeros(batch, self.layers, self.memory, self.dim, device=device, dtype=dtype) for _ in range(2)
        )
        return keys, values, self._zeros(batch, self.memory, device=device, dtype=dtype)

    def forward(self, inputs: Tensor, state: State, fresh: Tensor | None = None) -> tuple[Tensor, State]:
        keys, values, live = state  # (B, layers, P, D), (B, layers, P, D), (B, P)
        in_blocks = inputs.device.type == "cpu" and not self.written_out
        slots = _filled(live) if in_blocks else live.shape[1]  # a GPU is not kept waiting to be asked
        view = self._view(inputs, live[:, live.shape[1] - slots :], fresh, in_blocks=in_blocks)
        stream, new = inputs, []
        for layer, block in enumerate(self.blocks):
            past = tuple(part[:, layer, part.shape[2] - slots :] for part in (keys, values))  # (B, slots, D) each
            stream, present = block(stream, past, view)
            new.append(present)
        return self.norm(stream), self._remember(state, new, fresh)

    def stepper(self, state: State) -> Stepper:
        return TransformerStepper(self, state)

    @torch.no_grad()
    def attention_maps(self, inputs: Tensor, state: State) -> list[Tensor]:
        """Where each head looks, a map a layer: (B, H, T, W + T), rows that sum to 1, memory first. For pictures."""
        keys, values, live = state
        view = self._view(inputs, live, None, in_blocks=False)
        stream, maps = inputs, []
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, Layer)
            past = keys[:, layer], values[:, layer]
            query, key, _ = block.attention.look(block.attention_norm(stream), past, view)
            maps.append(attention_weights(query, key, view.seen))
            stream, _ = block(stream, past, view)
        return maps

    def _view(self, inputs: Tensor, live: Tensor, fresh: Tensor | None, *, in_blocks: bool) -> View:
        """Who sees whom in this call, for every layer."""
        batch, steps, _ = inputs.shape
        turns = rotations(live.shape[1] + steps, self.dim // self.heads, inputs)
        if not in_blocks:
            causal = fresh is None and live.shape[1] == 0 and steps <= self.memory + 1
            return View(turns, band(live, self.memory, steps, fresh), causal)
        alike = fresh is None and bool(live.all())
        seen = band(live[:1] if alike else live, self.memory, steps, fresh)
        return View(turns, seen, False, plan_blocks(seen, batch, self.heads, working_type(inputs)))

    def _remember(self, state: State, new: list[Memory], fresh: Tensor | None) -> State:
        """The last W positions of the state and of what has come in, `new` keys and values (B, T, D) a layer."""
        keys, values, live = state
        came = min(new[0][0].shape[1], self.memory)  # how many of the new ones go in
        stay = min(live.shape[1], self.memory - came)  # how many of the old ones stay, before them
        live = torch.cat([live[:, live.shape[1] - stay :], live.new_ones(len(live), came)], 1)
        live = F.pad(live, (self.memory - came - stay, 0))
        parts = []
        for past, layers in zip((keys, values), zip(*new, strict=True), strict=True):
            part = past.new_empty(len(past), self.layers, self.memory, self.dim)
            part[:, :, : self.memory - came - stay] = 0.0
            part[:, :, self.memory - came - stay : self.memory - came] = past[:, :, past.shape[2] - stay :]
            for layer, latest in enumerate(layers):
                part[:, layer, self.memory - came :] = latest[:, latest.shape[1] - came :]
            parts.append(part)
        keys, values = parts
        if fresh is not None:
            piece = F.pad(fresh.long().cumsum(1)[:, -self.memory :], (self.memory - came, 0))  # (B, W)
            old = piece < piece[:, -1:]
            keys, values = (part.masked_fill_(old[:, None, :, None], 0.0) for part in (keys, values))
            live = live.masked_fill(old, 0.0)
        return keys, values, live


Memory = tuple[Tensor, Tensor]  # the keys, not rotated, and the values of one layer


class View(NamedTuple):
    """Who sees whom, from where, in one call over P memory slots and T steps.

    turns: (P + T, D / H / 2, 2), how far each position is turned; seen: (B or 1, 1, T, P + T) bool; causal: the same
    as seeing all before, and no memory; blocks: how to go about it on a processor, or None.
    """

    turns: Tensor
    seen: Tensor
    causal: bool
    blocks: Blocks | None = None


class Layer(nn.Module):
    """First the positions talk to each other, then each thinks for itself. Both add to the stream."""

    def __init__(self, *, dim: int, heads: int, dropout: float, expansion: int, written_out: bool) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim=dim, heads=heads, written_out=written_out)
        self.network_norm = nn.LayerNorm(dim)
        self.network = FeedForward(dim=dim, expansion=expansion)
        self.dropout = Dropout(dropout)

    def forward(self, stream: Tensor, past: Memory, view: View) -> tuple[Tensor, Memory]:
        """stream: (B, T, D); past: (B, P, D) each; returns the stream after this layer, and its new keys and values."""
        mixed, new = self.attention(self.attention_norm(stream), past, view)
        stream = stream + self.dropout(mixed)
        stream = stream + self.dropout(self.network(self.network_norm(stream)))
        return stream, new


class SelfAttention(nn.Module):
    """Several heads of attention over the memory and the inputs; a head has D / H of each query, key and value."""

    def __init__(self, *, dim: int, heads: int, written_out: bool) -> None:
        super().__init__()
        self.heads = heads
        self.written_out = written_out
        self.query_key_value = Linear(dim, 3 * dim, bias=False)
        self.project = Linear(dim, dim, bias=False)

    def forward(self, inputs: Tensor, past: Memory, view: View) -> tuple[Tensor, Memory]:
        """inputs: (B, T, D); past: (B, P, D) each; returns what was taken (B, T, D), and the T new keys and values."""
        joint = self.query_key_value(inputs)  # (B, T, 3 · D)
        if view.blocks is not None:
            mixed = attend_in_blocks(joint, past, view.turns, view.blocks, self.heads)  # (B, T, D)
        else:
            query, key, value = self._apart(joint, past, view.turns)
            if self.written_out:
                mixed = attend(query, key, value, view.seen)  # (B, H, T, D / H)
            else:  # the same, in PyTorch's kernel
                seen = None if view.causal else view.seen
                mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen, is_causal=view.causal)
            mixed = mixed.transpose(1, 2).flatten(2)
        _, key, value = joint.chunk(3, -1)
        return self.project(mixed), (key, value)

    def look(self, inputs: Tensor, past: Memory, view: View) -> tuple[Tensor, Tensor, Tensor]:
        """The query (B, H, T, D / H), turned, and the key and value (B, H, P + T, D / H), the key turned too."""
        return self._apart(self.query_key_value(inputs), past, view.turns)

    def _apart(self, joint: Tensor, past: Memory, turns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = joint.chunk(3, -1)  # (B, T, D) each
        steps = query.shape[1]
        if past[0].shape[1]:
            key = torch.cat([past[0].to(key.dtype), key], 1)  # (B, P + T, D)
            value = torch.cat([past[1].to(value.dtype), value], 1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        return rotate(query, turns[len(turns) - steps :]), rotate(key, turns), value


class FeedForward(nn.Module):
    """The small network that each position runs by itself: up, GELU, down."""

    def __init__(self, *, dim: int, expansion: int) -> None:
        super().__init__()
        self.up = Linear(dim, expansion * dim)
        self.down = Linear(expansion * dim, dim)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(inputs)))


def _filled(live: Tensor) -> int:
    """How many slots of memory any row has filled; they lie at the end. live: (B, P)."""
    used = (live != 0).any(0)
    return live.shape[1] - int(used.to(torch.int8).argmax()) if used.any() else 0
