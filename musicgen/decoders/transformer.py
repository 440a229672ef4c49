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

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musicgen.decoders.decoder import Decoder, State


class Transformer(Decoder):
    """Layers of self-attention and a small network each, added to a stream that runs through (pre-norm).

    `memory` is W, in positions. D must divide into `heads` heads of an even width.
    A call costs T · (W + T): feed a long sequence in several calls; the outputs are the same.

    State: keys (B, layers, W, D), values (B, layers, W, D), live (B, W): 1 where a position lies in memory, else 0.
    """

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
        self.blocks = nn.ModuleList(
            Block(dim=dim, heads=heads, dropout=dropout, expansion=expansion, written_out=written_out)
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

    def forward(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        outputs, state, _ = self._run(inputs, state)
        return outputs, state

    @torch.no_grad()
    def attention_maps(self, inputs: Tensor, state: State) -> list[Tensor]:
        """Where each head looks, a map a layer: (B, H, T, W + T), rows that sum to 1, memory first. For pictures."""
        _, _, maps = self._run(inputs, state, with_maps=True)
        return maps

    def _run(self, inputs: Tensor, state: State, with_maps: bool = False) -> tuple[Tensor, State, list[Tensor]]:
        keys, values, live = state  # (B, layers, W, D), (B, layers, W, D), (B, W)
        live = torch.cat([live, live.new_ones(inputs.shape[:2])], 1)  # (B, W + T): the past, then what comes in
        seen = band(live, self.memory)  # (B, 1, T, W + T)
        turns = rotations(live.shape[1], self.dim // self.heads, inputs)  # (W + T, D / H / 2)
        stream, all_keys, all_values, maps = inputs, [], [], []
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            past = keys[:, layer], values[:, layer]  # (B, W, D) each
            if with_maps:
                query, key, _, _ = block.attention.look(block.attention_norm(stream), past, turns)
                maps.append(attention_weights(query, key, seen))
            stream, (new_keys, new_values) = block(stream, past, seen, turns)
            all_keys.append(new_keys[:, -self.memory :])
            all_values.append(new_values[:, -self.memory :])
        state = torch.stack(all_keys, 1), torch.stack(all_values, 1), live[:, -self.memory :]
        return self.norm(stream), state, maps


Memory = tuple[Tensor, Tensor]  # the keys, not rotated, and the values of one layer


class Block(nn.Module):
    """One layer: first the positions talk to each other, then each thinks for itself. Both add to the stream."""

    def __init__(self, *, dim: int, heads: int, dropout: float, expansion: int, written_out: bool) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.attention = SelfAttention(dim=dim, heads=heads, written_out=written_out)
        self.network_norm = nn.LayerNorm(dim)
        self.network = FeedForward(dim=dim, expansion=expansion)
        self.dropout = nn.Dropout(dropout)

    def forward(self, stream: Tensor, past: Memory, seen: Tensor, turns: Tensor) -> tuple[Tensor, Memory]:
        """stream: (B, T, D); past: (B, W, D) each; returns the stream after this layer, and the past with T more."""
        mixed, past = self.attention(self.attention_norm(stream), past, seen, turns)
        stream = stream + self.dropout(mixed)
        stream = stream + self.dropout(self.network(self.network_norm(stream)))
        return stream, past


class SelfAttention(nn.Module):
    """Several heads of attention over the memory and the inputs; a head has D / H of each query, key and value."""

    def __init__(self, *, dim: int, heads: int, written_out: bool) -> None:
        super().__init__()
        self.heads = heads
        self.written_out = written_out
        self.query_key_value = nn.Linear(dim, 3 * dim, bias=False)
        self.project = nn.Linear(dim, dim, bias=False)

    def forward(self, inputs: Tensor, past: Memory, seen: Tensor, turns: Tensor) -> tuple[Tensor, Memory]:
        """inputs: (B, T, D); past: (B, W, D) each; returns what was taken (B, T, D), and the past with T more."""
        query, key, value, past = self.look(inputs, past, turns)
        if self.written_out:
            mixed = attend(query, key, value, seen)  # (B, H, T, D / H)
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)  # the same, in one kernel
        return self.project(mixed.transpose(1, 2).flatten(2)), past

    def look(self, inputs: Tensor, past: Memory, turns: Tensor) -> tuple[Tensor, Tensor, Tensor, Memory]:
        """The query (B, H, T, D / H), the key and value (B, H, W + T, D / H), and the past with T more."""
        query, key, value = self.query_key_value(inputs).chunk(3, -1)  # (B, T, D) each
        keys = torch.cat([past[0], key], 1)  # (B, W + T, D)
        values = torch.cat([past[1], value], 1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, keys, values))
        return rotate(query, turns[-inputs.shape[1] :]), rotate(key, turns), value, (keys, values)


class FeedForward(nn.Module):
    """The small network that each position runs by itself: up, GELU, down."""

    def __init__(self, *, dim: int, expansion: int) -> None:
        super().__init__()
        self.up = nn.Linear(dim, expansion * dim)
        self.down = nn.Linear(expansion * dim, dim)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(inputs)))


def attention_weights(query: Tensor, key: Tensor, seen: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)): how much each query takes from each key, (B, H, T, S), rows that sum to 1.

    query: (B, H, T, d); key: (B, H, S, d); seen: bool, broadcast to (B, H, T, S), true where the query may look.
    """
    match = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])  # (B, H, T, S)
    return match.masked_fill(~seen, -math.inf).softmax(-1)


def attend(query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
    """Attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V, (B, H, T, d). value: (B, H, S, d), the rest as above."""
    return attention_weights(query, key, seen) @ value


def band(live: Tensor, memory: int) -> Tensor:
    """Who sees whom, (B, 1, T, W + T) bool: itself, and those of its W predecessors that there are.

    live: (B, W + T), not zero where there is a position: memory first, then the T that have just come in.
    """
    here = torch.arange(live.shape[1], device=live.device)  # (W + T,)
    distance = here[memory:, None] - here  # (T, W + T)
    return ((distance >= 0) & (distance <= memory) & (live != 0)[:, None])[:, None]


def rotations(length: int, width: int, like: Tensor) -> Tensor:
    """How far each position turns each pair: (length, width / 2) complex numbers on the unit circle.

    Pair i of a head's `width` coordinates turns by 10000^(-2i / width) a position: the wavelengths of the sinusoidal
    encoding of Vaswani et al. (2017), which is not added to the inputs here but turns queries and keys.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)  # half precision can't count to 512
    pair = torch.arange(0, width, 2, device=like.device, dtype=dtype)
    position = torch.arange(length, device=like.device, dtype=dtype)
    angle = torch.outer(position, 10000.0 ** (-pair / width))  # (length, width / 2)
    return torch.polar(torch.ones_like(angle), angle)


def rotate(vectors: Tensor, turns: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021): each pair of coordinates is a complex number, turned by its position's angle.

    vectors: (B, H, S, d); turns: (S, d / 2) complex. The product of a query turned by m positions and a key turned by n
    depends on m - n alone.
    """
    wide = vectors.to(turns.real.dtype)  # there are no complex numbers in half precision
    pairs = torch.view_as_complex(wide.unflatten(-1, (-1, 2)))  # (B, H, S, d / 2)
    return torch.view_as_real(pairs * turns).flatten(-2).to(vectors.dtype)
