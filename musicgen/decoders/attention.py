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
from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

QUERIES = 128
"""How many queries of a row a block holds."""

MATCHES = 2**20
"""How many matches of a query with a key a block may hold. As many rows go together: fewer calls, and not yet more
than a core's own cache has room for."""

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
    """Some queries of some rows, and the keys that any of them may see.

    hidden: stretches of these keys, counted from the first, in which are all that not every query sees.
    """

    rows: slice
    queries: slice
    keys: slice
    hidden: tuple[slice, ...]


class Blocks(NamedTuple):
    """How `attend_in_blocks` goes about a call: made once, used by every layer. Blocks of the same rows lie together.

    bias: (B, T, S), 0 where a query may look and -inf where not; the B is 1 if all rows are alike.
    """

    bias: Tensor
    plan: tuple[Block, ...]


def plan_blocks(seen: Tensor, rows: int, heads: int, dtype: torch.dtype) -> Blocks:
    """Blocks that cover all that is seen, (B or 1, 1, T, S), and leave out most of what is not.

    What is seen must be a stretch that ends at the query itself, as in `band`.
    """
    seen = seen[:, 0]
    steps, length = seen.shape[1:]
    slots = length - steps
    bias = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, -math.inf)
    begins = range(0, steps, QUERIES)
    ends = [min(begin + QUERIES, steps) for begin in begins]
    oldest, latest = (  # (B, blocks): what the first and last query of a block see first; later ones see no older
        seen[:, queries].to(torch.int8).argmax(-1).expand(rows, -1) for queries in (list(begins), [e - 1 for e in ends])
    )
    together = max(1, MATCHES // (heads * min(QUERIES, steps) * length))  # rows
    plan = []
    for row in range(0, rows, together):
        mine = slice(row, min(row + together, rows))
        firsts, lasts = oldest[mine].amin(0).tolist(), latest[mine].amax(0).tolist()
        for begin, end, first, last in zip(begins, ends, firsts, lasts, strict=True):
            stop = slots + end
            start = max(stop - -(-(stop - first) // STEP) * STEP, 0)
            upto = slots + begin  # the first query sees this one and none after it
            open_keys = (last, upto) if last < upto else (stop, stop)  # those that all queries see
            hidden = slice(0, open_keys[0] - start), slice(open_keys[1] - start, stop - start)
            plan.append(Block(mine, slice(begin, end), slice(start, stop), hidden))
    return Blocks(bias, tuple(plan))


def _by_rows(blocks: Blocks) -> Iterator[tuple[slice, Iterator[Block]]]:
    """The rows that go together, and their blocks."""
    return groupby(blocks.plan, key=lambda block: block.rows)


@torch.compiler.disable
def attend_in_blocks(joint: Tensor, past: tuple[Tensor, Tensor], turns: Tensor, blocks: Blocks, heads: int) -> Tensor:
    """Rotary attention over memory and inputs, (B, T, D): what `rotate` and `attend` do, on a processor.

    joint: (B, T, 3 · D), queries, keys and values side by side; past: keys and values (B, P, D) of the memory, not
    rotated; turns: (P + T, D / H / 2, 2).
    """
    return _InBlocks.apply(joint, *past, turns, blocks, heads)


class _InBlocks(torch.autograd.Function):
    """The equation and its derivative, some rows after the others: a core's cache holds more of what is at work then.

    Written by hand because autograd would make a gradient as large as all keys for each block's share of them. Weights
    are kept in the precision of the inputs; gradients are summed in single precision at least. Inside, rows and heads
    are one dimension: R = b · H. Shares are laid out anew (`contiguous`) before they are transposed: left to itself, a
    product does both at once, which is slow.
    """

    @staticmethod
    def forward(
        ctx: Any, joint: Tensor, past_keys: Tensor, past_values: Tensor, turns: Tensor, blocks: Blocks, heads: int
    ) -> Tensor:
        slots, width = past_keys.shape[1], joint.shape[2] // (3 * heads)
        mixed = joint.new_empty(*joint.shape[:2], heads, width)
        kept = []
        for rows, cut in _by_rows(blocks):
            types = turns.dtype, turns.dtype, joint.dtype
            parts = joint[rows].chunk(3, -1)
            query, key, value = (_heads(part, heads, dtype) for part, dtype in zip(parts, types, strict=True))
            if slots:
                past = (
                    _heads(part[rows], heads, dtype)
                    for part, dtype in zip((past_keys, past_values), types[1:], strict=True)
                )
                key, value = (torch.cat(both, 1) for both in zip(past, (key, value), strict=True))  # (R, S, d)
            query = _turn(query, turns[slots:] / math.sqrt(width)).to(joint.dtype)  # (R, T, d)
            key = _turn(key, turns).to(joint.dtype)
            kept += [query, key, value]
            bias = blocks.bias[rows if len(blocks.bias) > 1 else slice(1), None]  # (b or 1, 1, T, S)
            for _, queries, keys, hidden in cut:
                match = query[:, queries] @ key[:, keys].contiguous().mT  # (R, t, s)
                for stretch in hidden:
                    match.unflatten(0, (-1, heads))[..., stretch] += bias[..., queries, keys][..., stretch]
                weights = torch.softmax(match, -1, out=match)
                mixed[rows, queries] = (weights @ value[:, keys]).unflatten(0, (-1, heads)).transpose(1, 2)
                kept.append(weights)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(turns, *kept)
            ctx.blocks, ctx.heads, ctx.dtype = blocks, heads, past_keys.dtype
        return mixed.flatten(2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        turns, *saved = ctx.saved_tensors
        kept = iter(saved)
        (batch, steps, dim), slots = gradient.shape, len(turns) - gradient.shape[1]
        by_joint = saved[0].new_empty(batch, steps, 3, ctx.heads, dim // ctx.heads)
        by_past = [gradient.new_empty(batch, slots, dim, dtype=ctx.dtype) for _ in range(2)]
        back = turns * turns.new_tensor([1, -1])
        for rows, cut in _by_rows(ctx.blocks):
            query, key, value = (next(kept) for _ in range(3))
            by_mixed = _heads(gradient[rows], ctx.heads, query.dtype)  # (R, T, d)
            by_query = torch.empty_like(query, dtype=turns.dtype)
            by_key, by_value = (torch.zeros_like(part, dtype=turns.dtype) for part in (key, value))
            for _, queries, keys, _ in cut:
                weights = next(kept)
                by_taken = by_mixed[:, queries]
                by_value[:, keys] += weights.mT @ by_taken
                by_match = by_taken @ value[:, keys].contiguous().mT  # (R, t, s), as yet of the weights
                torch.ops.aten._softmax_backward_data.out(by_match, weights, -1, weights.dtype, grad_input=by_match)
                by_query[:, queries] = by_match @ key[:, keys]
                by_key[:, keys] += by_match.mT @ query[:, queries]
            _turn(by_query, back[slots:] / math.sqrt(query.shape[-1]))
            _turn(by_key, back)
            for i, part in enumerate((by_query, by_key[:, slots:], by_value[:, slots:])):
                by_joint[rows, :, i] = part.unflatten(0, (-1, ctx.heads)).transpose(1, 2)
            for whole, part in zip(by_past, (by_key, by_value), strict=True):
                whole[rows] = part[:, :slots].unflatten(0, (-1, ctx.heads)).transpose(1, 2).flatten(2)
        return by_joint.flatten(2), *by_past, None, None, None


def _heads(vectors: Tensor, heads: int, dtype: torch.dtype) -> Tensor:
    """(b, S, D) -> (R, S, d), laid out anew so."""
    parted = vectors.unflatten(-1, (heads, -1)).transpose(1, 2)
    return parted.to(dtype, copy=True, memory_format=torch.contiguous_format).flatten(0, 1)


def _turn(vectors: Tensor, turns: Tensor) -> Tensor:
    """`rotate`, in place, as a product of complex numbers, which a processor is fastest at."""
    torch.view_as_complex(vectors.unflatten(-1, (-1, 2))).mul_(torch.view_as_complex(turns))
    return vectors
