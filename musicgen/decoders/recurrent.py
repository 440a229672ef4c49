"""The recurrent decoders: the plain RNN, the GRU and the LSTM. One step of time is one equation.

What comes in is a sequence of vectors x_1 ... x_T. A hidden vector h is carried along it, and every step makes a new
one out of the old one and the vector that has just come in:

    h_t = f(h_{t-1}, x_t)

The same f, with the same weights, at every step. The three decoders differ only in f, and each has its f written out in
`step`. Backpropagation through time multiplies the gradient by the Jacobian of f once a step: over a long sequence it
vanishes or explodes (Bengio, Simard & Frasconi 1994). Clipping stops the explosion; against vanishing the RNN here
has ReLU and identity initialisation, and the GRU and LSTM have gates.

Layers are stacked: the outputs of one are the inputs of the next, with dropout in between (and none along time).

With `written_out=True` the loop over time runs in Python, step by step, as the equations stand: for reading, and for
looking inside. By default the same parameters give the same numbers faster: on a processor with the derivative written
by hand (`unrolled`), which also forgets between steps where pieces are packed; on a GPU inside PyTorch's kernel, which
gives gradients in training mode only, and is called anew where a piece begins.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from musicgen.decoders.decoder import Decoder, Dropout, State, Stepper, cuts, forget
from musicgen.decoders.quick import Graph
from musicgen.decoders.recurrent_step import RecurrentQuickPast, RecurrentStepper
from musicgen.decoders.unrolled import Cell, GruCell, LstmCell, ReluCell, TanhCell, unroll


class Recurrent(Decoder):
    """The loop over layers and over time that the three share.

    `kernel` is PyTorch's own module: it holds the parameters, and runs the loop on a GPU. In layer l they are
    weight_ih_l{l} (G·D, D), which reads the inputs, weight_hh_l{l} (G·D, D), which reads the hidden vector, and the
    biases bias_ih_l{l} and bias_hh_l{l} (G·D,), where G is 1 for the RNN, 3 for the GRU and 4 for the LSTM.

    State: one tensor (B, layers, D) of hidden vectors; the LSTM has a second one for its cells.
    """

    carried: int = 1
    """How many vectors a layer carries from step to step."""

    quick = RecurrentQuickPast

    cell: type[Cell]
    """`step` and its derivative, for `unroll`."""

    def __init__(self, kernel: nn.RNNBase, *, written_out: bool) -> None:
        super().__init__()
        self.kernel = kernel
        self.dim = kernel.hidden_size
        self.layers = kernel.num_layers
        self.written_out = written_out

    def initial_state(
        self, batch: int, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> State:
        return tuple(self._zeros(batch, self.layers, self.dim, device=device, dtype=dtype) for _ in range(self.carried))

    def forward(self, inputs: Tensor, state: State, fresh: Tensor | None = None) -> tuple[Tensor, State]:
        if inputs.device.type == "cpu" and not self.written_out:
            return self._unrolled(inputs, state, fresh)
        read = self._loop if self.written_out else self._kernel
        if fresh is None:
            return read(inputs, state)
        outputs = []
        for begin, end, rows in cuts(fresh):
            output, state = read(inputs[:, begin:end], forget(state, rows))
            outputs.append(output)
        return torch.cat(outputs, 1), state

    def _kernel(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """State goes in and out as (B, layers, D); PyTorch's kernels want the layers first.

        Not under autocast: cuDNN would then compute in fp16, whatever was asked for.
        """
        dtype = self.kernel.get_parameter("weight_ih_l0").dtype
        past = tuple(part.transpose(0, 1).to(dtype).contiguous() for part in state)  # (layers, B, D)
        with torch.autocast(inputs.device.type, enabled=False):
            outputs, present = self.kernel(inputs.to(dtype), past if self.carried > 1 else past[0])
        present = present if self.carried > 1 else (present,)
        return outputs, tuple(part.transpose(0, 1) for part in present)

    def _unrolled(self, inputs: Tensor, state: State, fresh: Tensor | None) -> tuple[Tensor, State]:
        """The loop below, with its derivative written by hand."""
        ends = []
        dropout = Dropout(self.kernel.dropout).train(self.training)
        for layer in range(self.layers):
            weight_ih, weight_hh, bias_ih, bias_hh = self.layer_parameters(layer)
            drives = F.linear(inputs if layer == 0 else dropout(inputs), weight_ih, bias_ih)  # (B, T, G·D)
            carried = tuple(part[:, layer] for part in state)  # each (B, D)
            outputs, end = unroll(self.cell, drives, carried, weight_hh, bias_hh, fresh)
            inputs = outputs.to(weight_hh.dtype)  # the loop itself counts in float32 at least
            ends.append(end)
        return inputs, tuple(torch.stack(part, 1) for part in zip(*ends, strict=True))

    def layer_parameters(self, layer: int) -> tuple[Tensor, ...]:
        """weight_ih, weight_hh, bias_ih, bias_hh of a layer."""
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        return tuple(self.kernel.get_parameter(f"{name}_l{layer}") for name in names)

    def _loop(self, inputs: Tensor, state: State) -> tuple[Tensor, State]:
        """What the kernel does, written out."""
        ends = []  # what each layer carries after the last step
        for layer in range(self.layers):
            weight_ih, weight_hh, bias_ih, bias_hh = self.layer_parameters(layer)
            if layer > 0:
                inputs = F.dropout(inputs, self.kernel.dropout, self.training)
            drives = F.linear(inputs, weight_ih, bias_ih)  # (B, T, G·D): W_xh x_t + b needs no past, so all t at once
            carried = tuple(part[:, layer] for part in state)  # each (B, D)
            outputs = []
            for drive in drives.unbind(1):  # (B, G·D)
                carried = self.step(drive, F.linear(carried[0], weight_hh, bias_hh), carried)
                outputs.append(carried[0])
            inputs = torch.stack(outputs, 1)  # (B, T, D)
            ends.append(carried)
        return inputs, tuple(torch.stack(part, 1) for part in zip(*ends, strict=True))

    def stepper(self, state: State) -> Stepper:
        return RecurrentStepper(self, state)

    @abstractmethod
    def step(self, drive: Tensor, recall: Tensor, carried: State) -> State:
        """One step of one layer: what is carried on, the hidden vector first, each (B, D).

        drive:   (B, G·D), W_xh x_t + b_xh, what the input says;
        recall:  (B, G·D), W_hh h_{t-1} + b_hh, what the past says;
        carried: what the step before carried on, the hidden vector first, each (B, D).
        """

    @abstractmethod
    def write_step(self, graph: Graph, inputs: str, carried: list[str], *weights: Tensor) -> list[str]:
        """The same as nodes of a graph. weights: weight_ih, weight_hh, bias_ih, bias_hh."""


class Rnn(Recurrent):
    """The plain recurrent network (Elman 1990).

    With `nonlinearity="relu"` the slope is 1 wherever a unit is alive, so the nonlinearity no longer shrinks the
    gradient. With `initialisation="identity"` too it is the IRNN (Le, Jaitly & Hinton 2015): W_hh starts as the
    identity and the biases at zero, so that what is not driven is kept as it is, and the gradient with it. W_xh starts
    very small, normal of deviation 0.001 as in the paper: what comes in is summed up over the whole stream, and layer
    upon layer; drawn as large as usual, the sums grow into the thousands.
    """

    def __init__(
        self,
        *,
        dim: int,
        layers: int,
        dropout: float = 0.0,
        nonlinearity: Literal["tanh", "relu"] = "tanh",
        initialisation: Literal["uniform", "identity"] = "uniform",
        written_out: bool = False,
    ) -> None:
        kernel = nn.RNN(
            dim, dim, layers, nonlinearity=nonlinearity, dropout=_between(layers, dropout), batch_first=True
        )
        super().__init__(kernel, written_out=written_out)
        self.cell = TanhCell if nonlinearity == "tanh" else ReluCell
        self.nonlinearity = torch.tanh if nonlinearity == "tanh" else torch.relu
        if initialisation == "identity":
            for name, parameter in kernel.named_parameters():
                if name.startswith("weight_hh"):
                    nn.init.eye_(parameter)
                elif name.startswith("weight_ih"):
                    nn.init.normal_(parameter, std=0.001)
                else:
                    nn.init.zeros_(parameter)

    def step(self, drive: Tensor, recall: Tensor, carried: State) -> State:
        """h_t = f(W_xh x_t + W_hh h_{t-1} + b)"""
        return (self.nonlinearity(drive + recall),)

    def write_step(self, graph: Graph, inputs: str, carried: list[str], *weights: Tensor) -> list[str]:
        return [
            graph.one("Tanh" if self.nonlinearity is torch.tanh else "Relu", _both(graph, inputs, carried, weights))
        ]


class Gru(Recurrent):
    """The gated recurrent unit (Cho et al. 2014), in the form of the cuDNN kernels, with the reset after the product.

    The update gate z mixes the old hidden vector with a candidate: where z is 1 the old is kept, and its gradient
    passes through untouched. The reset gate r says how much of the past the candidate may look at.
    """

    cell = GruCell

    def __init__(self, *, dim: int, layers: int, dropout: float = 0.0, written_out: bool = False) -> None:
        kernel = nn.GRU(dim, dim, layers, dropout=_between(layers, dropout), batch_first=True)
        super().__init__(kernel, written_out=written_out)

    def step(self, drive: Tensor, recall: Tensor, carried: State) -> State:
        """Each gate with its own W_xh, W_hh and b, where + b stands for the biases of both products:

        r   = sigmoid(W_xh x_t + W_hh h_{t-1} + b)     reset
        z   = sigmoid(W_xh x_t + W_hh h_{t-1} + b)     update
        n   = tanh(W_xh x_t + r * (W_hh h_{t-1}) + b)  candidate; its bias b_hh stands inside the bracket
        h_t = (1 - z) * n + z * h_{t-1}
        """
        (hidden,) = carried  # (B, D)
        reset_drive, update_drive, candidate_drive = drive.chunk(3, -1)  # each (B, D)
        reset_recall, update_recall, candidate_recall = recall.chunk(3, -1)
        reset = torch.sigmoid(reset_drive + reset_recall)
        update = torch.sigmoid(update_drive + update_recall)
        candidate = torch.tanh(candidate_drive + reset * candidate_recall)
        return ((1 - update) * candidate + update * hidden,)

    def write_step(self, graph: Graph, inputs: str, carried: list[str], *weights: Tensor) -> list[str]:
        """As above, with (1 - z) * n + z * h_{t-1} as n + z * (h_{t-1} - n)."""
        weight_ih, weight_hh, bias_ih, bias_hh = weights
        sizes = graph.constant(np.array([2 * self.dim, self.dim]))
        drive, candidate_drive = graph.many(2, "Split", graph.linear(inputs, weight_ih, bias_ih), sizes, axis=-1)
        recall, candidate_recall = graph.many(2, "Split", graph.linear(carried[0], weight_hh, bias_hh), sizes, axis=-1)
        reset, update = graph.many(2, "Split", graph.one("Sigmoid", graph.one("Add", drive, recall)), axis=-1)
        inner = graph.one("Add", candidate_drive, graph.one("Mul", reset, candidate_recall))
        candidate = graph.one("Tanh", inner)
        kept = graph.one("Mul", update, graph.one("Sub", carried[0], candidate))
        return [graph.one("Add", candidate, kept)]


class Lstm(Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997), with a forget gate (Gers, Schmidhuber & Cummins 2000).

    Beside the hidden vector runs a cell that is only ever scaled and added to: along it the gradient is multiplied by
    the forget gate and by nothing else. That gate's bias starts at `forget_bias`, 1 by default, so that a new network
    remembers (Jozefowicz, Zaremba & Sutskever 2015).
    """

    carried = 2  # hidden and cell
    cell = LstmCell

    def __init__(
        self, *, dim: int, layers: int, dropout: float = 0.0, forget_bias: float = 1.0, written_out: bool = False
    ) -> None:
        kernel = nn.LSTM(dim, dim, layers, dropout=_between(layers, dropout), batch_first=True)
        super().__init__(kernel, written_out=written_out)
        with torch.no_grad():
            for layer in range(layers):  # the gates lie in the order input, forget, candidate, output
                getattr(kernel, f"bias_ih_l{layer}")[dim : 2 * dim] = forget_bias
                getattr(kernel, f"bias_hh_l{layer}")[dim : 2 * dim] = 0.0

    def step(self, drive: Tensor, recall: Tensor, carried: State) -> State:
        """Each gate with its own W_xh, W_hh and b:

        i, f, o = sigmoid(W_xh x_t + W_hh h_{t-1} + b)  input, forget, output
        g       = tanh(W_xh x_t + W_hh h_{t-1} + b)     candidate
        c_t     = f * c_{t-1} + i * g
        h_t     = o * tanh(c_t)
        """
        _, cell = carried  # (B, D)
        input_gate, forget_gate, candidate, output_gate = (drive + recall).chunk(4, -1)  # each (B, D)
        cell = torch.sigmoid(forget_gate) * cell + torch.sigmoid(input_gate) * torch.tanh(candidate)
        hidden = torch.sigmoid(output_gate) * torch.tanh(cell)
        return hidden, cell

    def write_step(self, graph: Graph, inputs: str, carried: list[str], *weights: Tensor) -> list[str]:
        """As above; the three gates that are sigmoids lie side by side."""
        order = [0, 1, 3, 2]  # input, forget, output, candidate
        weights = tuple(weight.unflatten(0, (4, -1))[order].flatten(0, 1) for weight in weights)
        sizes = graph.constant(np.array([3 * self.dim, self.dim]))
        gates, candidate = graph.many(2, "Split", _both(graph, inputs, carried, weights), sizes, axis=-1)
        input_gate, forget_gate, output_gate = graph.many(
            3, "Split", graph.one("Sigmoid", gates), graph.constant(np.full(3, self.dim)), axis=-1
        )
        added = graph.one("Mul", input_gate, graph.one("Tanh", candidate))
        cell = graph.one("Add", graph.one("Mul", forget_gate, carried[1]), added)
        return [graph.one("Mul", output_gate, graph.one("Tanh", cell)), cell]


def _both(graph: Graph, inputs: str, carried: list[str], weights: tuple[Tensor, ...]) -> str:
    """W_xh x_t + W_hh h_{t-1} + b, as one product."""
    weight_ih, weight_hh, bias_ih, bias_hh = weights
    joint = graph.one("Concat", inputs, carried[0], axis=-1)
    return graph.linear(joint, torch.cat([weight_ih, weight_hh], 1), bias_ih + bias_hh)


def _between(layers: int, dropout: float) -> float:
    """Dropout lies between layers; a single layer has no between, and PyTorch warns if told otherwise."""
    return dropout if layers > 1 else 0.0
