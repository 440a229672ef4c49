"""A recurrent decoder that reads one step at a time: by PyTorch's cells, or by a graph in 8 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from musicgen.decoders.decoder import State, Stepper, pick
from musicgen.decoders.quick import Graph, QuickPast

if TYPE_CHECKING:
    from musicgen.decoders.recurrent import Recurrent


class RecurrentStepper(Stepper):
    """PyTorch's cell, a call a layer."""

    def __init__(self, decoder: Recurrent, state: State) -> None:
        super().__init__(decoder, state)
        cells: dict[str, Any] = {"LSTM": torch.lstm_cell, "GRU": torch.gru_cell, "RNN": torch.rnn_tanh_cell}
        self.cell = cells[type(decoder.kernel).__name__]
        if getattr(decoder.kernel, "nonlinearity", "tanh") == "relu":
            self.cell = torch.rnn_relu_cell
        self.weights = [decoder.layer_parameters(layer) for layer in range(decoder.layers)]
        self.carried = [tuple(part[:, layer] for part in state) for layer in range(decoder.layers)]  # each (B, D)

    def step(self, inputs: Tensor) -> Tensor:
        for layer, weights in enumerate(self.weights):
            carried = self.carried[layer]
            if len(carried) > 1:
                self.carried[layer] = self.cell(inputs, carried, *weights)
            else:
                self.carried[layer] = (self.cell(inputs, carried[0], *weights),)
            inputs = self.carried[layer][0]
        return inputs

    def pick(self, rows: Tensor) -> None:
        self.carried = [pick(carried, rows) for carried in self.carried]


class RecurrentQuickPast(QuickPast):
    """What is carried lies in two places, and steps go from one to the other and back."""

    def __init__(self, decoder: Recurrent, state: State) -> None:
        self._lay([part.transpose(0, 1).contiguous() for part in state])  # (layers, B, D) each

    def _lay(self, state: list[Tensor]) -> None:
        self.states = state, [torch.empty_like(part) for part in state]
        named = [
            [{f"{kind}{part}_{layer}": tensor for part, of in enumerate(place) for layer, tensor in enumerate(of)}
             for kind in ("carried", "present")]
            for place in self.states
        ]  # fmt: skip
        self.places = [(named[0][0], named[1][1]), (named[1][0], named[0][1])]
        self.turn = 0

    @staticmethod
    def write(decoder: Recurrent, graph: Graph, stream: str) -> str:
        shape = "B", decoder.dim
        for layer in range(decoder.layers):
            carried = [graph.input(f"carried{part}_{layer}", shape) for part in range(decoder.carried)]
            carried = decoder.write_step(graph, stream, carried, *decoder.layer_parameters(layer))
            for part, value in enumerate(carried):
                graph.output(f"present{part}_{layer}", shape, value)
            stream = f"present0_{layer}"
        return stream

    def advance(self) -> None:
        self.turn = 1 - self.turn

    def pick(self, rows: Tensor) -> None:
        self._lay([part.index_select(1, rows) for part in self.states[self.turn]])
