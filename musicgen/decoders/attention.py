"""Attention over a band: queries, keys and values in, what was taken out. Three ways to the same numbers.

`attend` is the textbook's equation, written out: for reading, for pictures, and for the tests to hold the others to. On
a GPU PyTorch's own kernel runs. On a processor the same equation runs in blocks (`attend_in_blocks`): PyTorch's kernel
there is several times slower than the matrix products it is made of, because it does not use the processor's matrix
units in half precision; and written out in one piece, the matches of all queries with all keys take more room than the
caches have, where most of the time then goes.

Positions are rotary (Su et al. 2021): queries and keys are turned by an angle that grows with the position, so that a
product of the two depends on the distance alone.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

QUERIES = 128
"""How many queries of a row a block holds. A block's matches are to fit into a core's own cache."""

MATCHES = 2**19
"""How many matches of a query with a key a block may hold, for blocks of several short rows."""

STEP = 64
"""A block's keys are counted in these. Kernels are made for a shape and kept; few shapes, few kernels to make."""


def attention_weights(query: Tensor, key: Tensor, seen: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(d)): how much each query takes from each key, (B, H, T, S), rows that sum to 1.

    query: (B, H, T, d); key: (B, H, S, d); seen: bool, broadcast to (B, H, T, S), true where the query may look.
    """
    match = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])  # (B, H, T, S)
    return match.masked_fill(~seen, -math.inf).softmax(-1)


def attend(query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
    """Attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V, (B, H, T, d). value: (B, H, S, d), the rest as above."""
    return attention_weights(query, key, seen) @ value


def band(live: Tensor, memory: int, steps: int, fresh: Tensor | None = None) -> Tensor:
    """Who sees whom, (B, 1, T, S) bool: itself, and those of its `memory` predecessors that there are, in its piece.

    live: (B, P), not zero where there is a position, for the P memory slots; steps: T; S = P + T. fresh: (B, T) bool,
    where a piece begins; the memory belongs to the piece that the call begins in.
    """
    slots = live.shape[1]
    here = torch.arange(slots + steps, device=live.device)  # (S,)
    distance = here[slots:, None] - here  # (T, S)
    there = F.pad(live != 0, (0, steps), value=True)  # (B, S)
    seen = ((distance >= 0) & (distance <= memory)) & there[:, None]  # (B, T, S)
    if fresh is not None:
        piece = F.pad(fresh.long().cumsum(1), (slots, 0))  # (B, S), counted from 0
        seen = seen & (piece[:, slots:, None] == piece[:, None])
    return seen[:, None]


def rotations(length: int, width: int, like: Tensor) -> Tensor:
    """How far each position turns each pair: (length, width / 2, 2), the cosine and the sine of its angle.

    Pair i of a head's `width` coordinates turns by 10000^(-2i / width) a position: the wavelengths of the sinusoidal
    encoding of Vaswani et al. (2017), which is not added to the inputs here but turns queries and keys.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)  # half precision can't count to 512
    pair = torch.arange(0, width, 2, device=like.device, dtype=dtype)
    position = torch.arange(length, device=like.device, dtype=dtype)
    angle = torch.outer(position, 10000.0 ** (-pair / width))  # (length, width / 2)
    return torch.stack([angle.cos(), angle.sin()], -1)


def rotate(vectors: Tensor, turns: Tensor) -> Tensor:
    """Rotary positions: each pair of coordinates is a point in the plane, turned by its position's angle.

    vectors: (B, H, S, d); turns: (S, d / 2, 2). The product of a query turned by m positions and a key turned by n
    depends on m - n alone.
    """
    cosine, sine = turns.unbind(-1)  # (S, d / 2) each
    left, right = vectors.to(turns.dtype).unflatten(-1, (-1, 2)).unbind(-1)  # (B, H, S, d / 2) each
    turned = torch.stack([left * cosine - right * sine, left * sine + right * cosine], -1)
    return turned.flatten(-2).to(vectors.dtype)


class Block(NamedTuple):
    """Some queries of some rows, and the keys that any of them may see."""

    rows: slice
    queries: slice
    keys: slice


class Blocks(NamedTuple):
    """How `attend_in_blocks` goes about a call: made once, used by every layer.

    bias: (B, T, S), 0 where a query may look and -inf where not; the B is 1 if all rows are alike.
    """

    bias: Tensor
    plan: tuple[Block, ...]


def plan_blocks(seen: Tensor, rows: int, heads: int, dtype: torch.dtype) -> Blocks:
    """Blocks that cover all that is seen, (B or 1, 1, T, S), and leave out most of what is not.

    What is seen must be a stretch that ends at the query itself, as in `band`.
    """
    seen = seen[:, 0]
    steps, keys = seen.shape[1:]
    slots = keys - steps
    bias = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, -math.inf)
    oldest = seen[:, ::QUERIES].to(torch.int8).argmax(-1).expand(rows, -1).T.tolist()  # later queries see no older
    plan = []
    for begin, firsts in zip(range(0, steps, QUERIES), oldest, strict=True):
        end = min(begin + QUERIES, steps)
        upto = slots + end
        row, start, most = 0, 0, 0  # rows from `start` on go together, as long as all of them want few keys
        for row, first in enumerate(firsts):
            wanted = -(-(upto - first) // STEP) * STEP
            if row > start and (row + 1 - start) * max(most, wanted) * heads * (end - begin) > MATCHES:
                plan.append(Block(slice(start, row), slice(begin, end), slice(max(upto - most, 0), upto)))
                start, most = row, 0
            most = max(most, wanted)
        plan.append(Block(slice(start, row + 1), slice(begin, end), slice(max(upto - most, 0), upto)))
    return Blocks(bias, tuple(plan))


@torch.compiler.disable
def attend_in_blocks(joint: Tensor, past: tuple[Tensor, Tensor], turns: Tensor, blocks: Blocks, heads: int) -> Tensor:
    """Rotary attention over memory and inputs, (B, T, D): what `rotate` and `attend` do, on a processor.

    joint: (B, T, 3 · D), queries, keys and values side by side; past: keys and values (B, P, D) of the memory, not
    rotated; turns: (P + T, D / H / 2, 2).
    """
    return _InBlocks.apply(joint, *past, turns, blocks, heads)


class _InBlocks(torch.autograd.Function):
    """The equation and its derivative, block by block.

    Written by hand because autograd would make a gradient as large as all keys for each block's share of them. Weights
    are kept in the precision of the inputs; gradients of keys and values are summed in single precision at least.
    """

    @staticmethod
    def forward(
        ctx: Any, joint: Tensor, past_keys: Tensor, past_values: Tensor, turns: Tensor, blocks: Blocks, heads: int
    ) -> Tensor:
        parts = joint.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)  # (3, B, H, T, d)
        slots, width = past_keys.shape[1], parts.shape[-1]
        scaled = turns[slots:] / math.sqrt(width)
        query = _turned([parts[0]], scaled, joint.dtype)  # (B, H, T, d)
        key = _turned([_heads(past_keys, heads), parts[1]], turns, joint.dtype)  # (B, H, S, d)
        value = torch.cat([_heads(past_values, heads).to(joint.dtype), parts[2]], 2)
        mixed = joint.new_empty(joint.shape[0], joint.shape[1], heads, width)
        kept = []
        for rows, queries, keys in blocks.plan:
            bias = blocks.bias[rows if len(blocks.bias) > 1 else slice(1), None, queries, keys]  # (b, 1, t, s)
            bias = bias.expand(rows.stop - rows.start, heads, -1, -1).flatten(0, 1)
            match = torch.baddbmm(bias, _flat(query, rows, queries), _flat(key, rows, keys).mT)  # (b · H, t, s)
            weights = match.softmax(-1)
            taken = weights @ _flat(value, rows, keys)  # (b · H, t, d)
            mixed[rows, queries] = taken.unflatten(0, (-1, heads)).transpose(1, 2)
            kept.append(weights)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(query, key, value, turns, *kept)
            ctx.plan, ctx.heads, ctx.dtype = blocks.plan, heads, past_keys.dtype
        return mixed.flatten(2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        query, key, value, turns, *kept = ctx.saved_tensors
        batch, heads, steps, width = query.shape
        slots = key.shape[2] - steps
        by_mixed = _heads(gradient, heads).to(query.dtype).contiguous()  # (B, H, T, d)
        by_query = torch.empty_like(query, dtype=turns.dtype)
        by_key, by_value = (torch.zeros_like(key, dtype=turns.dtype) for _ in range(2))
        for (rows, queries, keys), weights in zip(ctx.plan, kept, strict=True):
            by_taken = _flat(by_mixed, rows, queries)
            by_weights = by_taken @ _flat(value, rows, keys).mT  # (b · H, t, s)
            by_match = torch.ops.aten._softmax_backward_data(by_weights, weights, -1, weights.dtype)
            _flat(by_value, rows, keys).add_(weights.mT @ by_taken)
            _flat(by_query, rows, queries).copy_(by_match @ _flat(key, rows, keys))
            _flat(by_key, rows, keys).add_(by_match.mT @ _flat(query, rows, queries))
        back = torch.view_as_complex(turns).conj()
        torch.view_as_complex(by_query.unflatten(-1, (-1, 2))).mul_(back[slots:] / math.sqrt(width))
        torch.view_as_complex(by_key.unflatten(-1, (-1, 2))).mul_(back)
        by_joint = query.new_empty(batch, steps, 3, heads, width)
        for i, part in enumerate((by_query, by_key[:, :, slots:], by_value[:, :, slots:])):
            by_joint[:, :, i] = part.transpose(1, 2)
        by_past = (part[:, :, :slots].transpose(1, 2).flatten(2).to(ctx.dtype) for part in (by_key, by_value))
        return by_joint.flatten(2), *by_past, None, None, None


def _heads(vectors: Tensor, heads: int) -> Tensor:
    """(B, S, D) -> (B, H, S, d)"""
    return vectors.unflatten(-1, (heads, -1)).transpose(1, 2)


def _flat(vectors: Tensor, rows: slice, positions: slice) -> Tensor:
    """A block's share of (B, H, S, d): (b · H, s, d), not copied."""
    return vectors[rows, :, positions].flatten(0, 1)


def _turned(parts: list[Tensor], turns: Tensor, dtype: torch.dtype) -> Tensor:
    """`rotate`, of parts (B, H, s, d) laid end to end; as complex numbers, which a processor multiplies fastest."""
    batch, heads, _, width = parts[0].shape
    wide = torch.empty(batch, heads, len(turns), width, dtype=turns.dtype)
    for share, part in zip(wide.split([part.shape[2] for part in parts], 2), parts, strict=True):
        share.copy_(part)
    torch.view_as_complex(wide.unflatten(-1, (-1, 2))).mul_(torch.view_as_complex(turns))
    return wide.to(dtype)
