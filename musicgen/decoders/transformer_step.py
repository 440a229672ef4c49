"""A Transformer that reads one step at a time, exactly or by a graph in 8 bits: its memory stays where it is, and keys
are turned once.

The state keeps keys unturned and counts positions anew in each call, so that it needs no clock. Whoever draws music has
one: here a key is turned as it comes in, by its place in the stream, and queries by theirs; only the difference counts.
Memory is a stretch longer than it that fills up; when it is full, the last W positions move to the front.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from musicgen.decoders.attention import rotate, rotations
from musicgen.decoders.decoder import State, Stepper
from musicgen.decoders.quick import Graph, QuickPast

if TYPE_CHECKING:
    from musicgen.decoders.transformer import Transformer

COUNTED = 4096
"""Positions whose turns are worked out at once."""


class TransformerStepper(Stepper):
    """Gives what Transformer.forward gives, up to rounding."""

    def __init__(self, decoder: Transformer, state: State) -> None:
        super().__init__(decoder, ())
        self.model = decoder
        keys, values, live = state  # (B, layers, P, D), (B, layers, P, D), (B, P)
        self.width = decoder.dim // decoder.heads
        self.capacity = 2 * decoder.memory + 1
        used = (live != 0).any(0)
        slots = int(used.sum())  # filled slots lie at the end
        self.end = self.place = slots  # where the next goes in the stretch, and in the stream
        self.turns = rotations(max(COUNTED, 2 * slots), self.width, keys)
        batch = len(live)
        shape = decoder.layers, batch, decoder.heads, self.capacity, self.width  # each layer's lies in one piece
        self.keys, self.values = keys.new_zeros(shape), keys.new_zeros(shape)
        if slots:
            past, values = (
                part[:, :, -slots:].unflatten(-1, (decoder.heads, self.width)).permute(1, 0, 3, 2, 4)
                for part in (keys, values)
            )  # (layers, B, H, S, d)
            self.keys[:, :, :, :slots] = rotate(past.flatten(0, 1), self.turns[:slots]).unflatten(0, (-1, batch))
            self.values[:, :, :, :slots] = values
        self.hidden = torch.zeros(batch, self.capacity, device=keys.device, dtype=keys.dtype)
        self.hidden[:, :slots].masked_fill_(live[:, live.shape[1] - slots :] == 0, -math.inf)
        self.alike = not bool(self.hidden.any())  # no row has less of a past than another

    def step(self, inputs: Tensor) -> Tensor:
        model, heads = self.model, self.model.heads
        if self.end == self.capacity:
            self._move()
        if self.place == len(self.turns):
            self.turns = rotations(2 * self.place, self.width, self.keys)
        turn = self.turns[self.place : self.place + 1]
        first, after = max(self.end - model.memory, 0), self.end + 1
        hidden = None if self.alike else self.hidden[:, None, None, first:after]
        stream = inputs
        for layer, block in enumerate(model.blocks):
            query, key, value = (
                block.attention.query_key_value(block.attention_norm(stream))  # type: ignore[operator, union-attr]
                .view(len(stream), 3, heads, 1, self.width)
                .unbind(1)
            )  # (B, H, 1, d) each
            keys, values = self.keys[layer], self.values[layer]  # (B, H, capacity, d)
            keys[:, :, self.end : after] = rotate(key, turn)
            values[:, :, self.end : after] = value
            scores = rotate(query, turn) @ keys[:, :, first:after].transpose(-1, -2) / math.sqrt(self.width)
            if hidden is not None:
                scores = scores + hidden
            mixed = (scores.softmax(-1) @ values[:, :, first:after]).flatten(1)  # (B, D)
            stream = stream + block.attention.project(mixed)  # type: ignore[operator, union-attr]
            network = block.network
            up = F.gelu(network.up(block.network_norm(stream)))  # type: ignore[operator, union-attr]
            stream = stream + network.down(up)  # type: ignore[operator, union-attr]
        self.end, self.place = after, self.place + 1
        return model.norm(stream)

    def _move(self) -> None:
        """The last W positions to the front of the stretch."""
        memory = self.model.memory
        for part in (self.keys, self.values):
            part[:, :, :, :memory] = part[:, :, :, self.end - memory : self.end].clone()
        self.hidden[:, :memory] = self.hidden[:, self.end - memory : self.end].clone()
        self.hidden[:, memory:] = 0.0
        self.end = memory

    def pick(self, rows: Tensor) -> None:
        self.keys, self.values = (part.index_select(1, rows) for part in (self.keys, self.values))
        self.hidden = self.hidden.index_select(0, rows)


class TransformerQuickPast(QuickPast):
    """ONNX Runtime's attention writes the new keys and values into the stretch, and turns them by their place in it.

    So when the last W positions move to the front, their keys are turned back by as much.
    """

    def __init__(self, decoder: Transformer, state: State) -> None:
        self.window = decoder.memory
        past_keys, past_values, live = state  # (B, layers, P, D), (B, layers, P, D), (B, P)
        heads, width = decoder.heads, decoder.dim // decoder.heads
        capacity = _capacity(decoder.memory)
        self.room = capacity
        self.turns = rotations(capacity, width, past_keys)
        lengths = (live != 0).sum(1).tolist()  # rows may have pasts of different lengths
        shape = 2 * decoder.layers, len(live), heads, capacity, _padded(width)
        self.memory = torch.from_numpy(np.zeros(shape, dtype=np.float32))  # in one piece: NumPy asks for large pages
        for layer in range(decoder.layers):
            for row, length in enumerate(lengths):
                if not length:
                    continue
                keys, values = (
                    past[row, layer, past.shape[2] - length :].unflatten(-1, (heads, width)).transpose(0, 1)
                    for past in (past_keys, past_values)
                )  # (H, length, d)
                self.memory[2 * layer][row, :, :length, :width] = rotate(keys, self.turns[:length])
                self.memory[2 * layer + 1][row, :, :length, :width] = values
        self._lay(lengths)

    @staticmethod
    def write(decoder: Transformer, graph: Graph, stream: str) -> str:
        dim, heads, capacity = decoder.dim, decoder.heads, _capacity(decoder.memory)
        width = dim // heads
        wide = _padded(width)  # a head's vectors end in zeros
        turns = rotations(capacity, wide, torch.empty(0, device="cpu"))
        turns[:, : width // 2] = rotations(capacity, width, turns)
        cosine, sine = (graph.constant(part) for part in turns.unbind(-1))  # (capacity, d / 2) each
        places = graph.input("lengths", ("B",), "INT32"), graph.input("upto", (1,), "INT32")
        shape = "B", heads, capacity, wide
        stream = graph.one("Unsqueeze", stream, graph.constant([1]))  # (B, 1, D)
        blocks: Any = decoder.blocks
        for layer, block in enumerate(blocks):
            attention, network = block.attention, block.network
            into = F.pad(attention.query_key_value.weight.unflatten(0, (-1, width)), (0, 0, 0, wide - width)).flatten(
                0, 1
            )
            out = F.pad(attention.project.weight.unflatten(1, (-1, width)), (0, wide - width)).flatten(1)
            joint = graph.linear(graph.norm(stream, block.attention_norm), into)
            past = [graph.input(f"memory{2 * layer + i}", shape) for i in range(2)]
            mixed, *present = graph.many(
                3, "GroupQueryAttention", joint, "", "", *past, *places, cosine, sine, domain="com.microsoft",
                num_heads=heads, kv_num_heads=heads, do_rotary=1, rotary_interleaved=1,
                local_window_size=decoder.memory + 1, scale=width**-0.5,
            )  # fmt: skip
            for i, part in enumerate(present):
                graph.output(f"present{2 * layer + i}", shape, part)
            stream = graph.one("Add", stream, graph.linear(mixed, out))
            up = graph.linear(graph.norm(stream, block.network_norm), network.up.weight, network.up.bias)
            up = graph.one("Gelu", up, domain="com.microsoft")
            stream = graph.one("Add", stream, graph.linear(up, network.down.weight, network.down.bias))
        return graph.one("Squeeze", graph.norm(stream, decoder.norm), graph.constant([1]))

    def _lay(self, lengths: Sequence[int]) -> None:
        self.end = max(lengths) + 1
        self.counts = np.array([self.end, *lengths], dtype=np.int32)  # positions after this step, before it
        upto, before = torch.from_numpy(self.counts).split([1, len(lengths)])
        given = {f"memory{i}": part for i, part in enumerate(self.memory)}
        found = {f"present{i}": part for i, part in enumerate(self.memory)}  # written where they lie
        self.places = [({"lengths": before, "upto": upto, **given}, found)]

    def advance(self) -> None:
        self.counts += 1
        self.end += 1
        if self.end > self.room:
            self._move()

    def _move(self) -> None:
        """The last W positions to the front of the stretch."""
        for row, length in enumerate(self.counts[1:].tolist()):
            stay = min(length, self.window)
            back = self.turns[length - stay] * self.turns.new_tensor([1.0, -1.0])  # as far, the other way
            for i, part in enumerate(self.memory):
                kept = part[row, :, length - stay : length, : 2 * len(back)].clone()
                part[row, :, :stay, : 2 * len(back)] = rotate(kept, back[None]) if i % 2 == 0 else kept
        np.minimum(self.counts[1:], self.window, out=self.counts[1:])
        self.counts[0] = self.end = int(self.counts[1:].max()) + 1

    def pick(self, rows: Tensor) -> None:
        self.memory = self.memory.index_select(1, rows)
        self._lay(self.counts[1:][rows.numpy()].tolist())


def _capacity(memory: int) -> int:
    """Positions in a stretch: the longer it is, the rarer it has to move, and the more of it is read in vain."""
    return memory + 1 + max(memory // 4, 16)


def _padded(width: int) -> int:
    """A head's width as ONNX Runtime's attention takes it: a multiple of 16."""
    return -(-width // 16) * 16
