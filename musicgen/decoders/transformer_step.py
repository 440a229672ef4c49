"""A Transformer that reads one step at a time: its memory stays where it is, and keys are turned once.

The state keeps keys unturned and counts positions anew in each call, so that it needs no clock. Whoever draws music has
one: here a key is turned as it comes in, by its place in the stream, and queries by theirs; only the difference counts.
Memory is a stretch of twice its length that fills up; when it is full its later half moves to the front.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from musicgen.decoders.attention import rotate, rotations
from musicgen.decoders.decoder import State, Stepper

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
        shape = batch, decoder.layers, decoder.heads, self.capacity, self.width
        self.keys, self.values = keys.new_zeros(shape), keys.new_zeros(shape)
        if slots:
            past = keys[:, :, -slots:].unflatten(-1, (decoder.heads, self.width)).transpose(2, 3)  # (B, L, H, S, d)
            self.keys[:, :, :, :slots] = rotate(past.flatten(0, 1), self.turns[:slots]).unflatten(0, (batch, -1))
            values = values[:, :, -slots:].unflatten(-1, (decoder.heads, self.width)).transpose(2, 3)
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
            keys, values = self.keys[:, layer], self.values[:, layer]  # (B, H, capacity, d)
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
        self.keys, self.values, self.hidden = (
            part.index_select(0, rows) for part in (self.keys, self.values, self.hidden)
        )
