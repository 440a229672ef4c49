"""Quick steps: a model's step as an ONNX graph, its weights in 8 bits, run by ONNX Runtime on a processor.

One step of one stream reads every weight once, and that is most of what it takes: a quarter of the bytes is a quarter
of the time. And PyTorch's operations each cost more to call than such a step has to compute; a graph is one call.

A decoder that has quick steps names its `QuickPast`, which writes its part of the graph and keeps the past; embedding
and head stand around it. Few streams wait for the weights: they are scaled in blocks of BLOCK values, each to 255
levels. Many streams share that reading and wait for the products: then a row of weights has one scale, and what is
multiplied by it has 255 levels too, which processors have units for. When a model first asks for quick steps, they are
held against exact ones: both read the same music, and if what they say differs by more than TOLERANCE, the next form is
tried, at last with the weights as they are. If none is near enough, or can be run, one line says so, and the model
draws by exact steps. Onnx and onnxruntime are the extra `fast`; without them nothing changes but the time.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from musicgen.decoders.decoder import State
from musicgen.tokens import NONE

if TYPE_CHECKING:
    from musicgen.decoders.model import Model

BLOCK = 128
"""Weights of a row that share a scale, at most. A power of 2, as ONNX Runtime wants it."""
TOLERANCE = 0.01
"""Nats by which the logarithms of the probabilities may differ, in the mean of what would be drawn."""
CHECKED = 24
"""Steps that are compared, of each stream."""

Form = Literal["blocks", "rows", "plain"]
"""How a graph holds weights: in 8 bits with a scale a block or a row, or in 32 bits."""
FEW: tuple[Form, ...] = ("blocks", "plain")
MANY: tuple[Form, ...] = ("rows", "blocks", "plain")
"""What is tried for few and for many streams, the quickest first."""
MANY_STREAMS = 8
"""From so many streams on a scale a row is worth its price: how finely a stream's values are cut then depends a little
on the other streams' values."""

log = logging.getLogger(__name__)


class Graph:
    """Collects the nodes of an ONNX graph. Values are named by what the methods return."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []

    def input(self, name: str, shape: Sequence[int | str], dtype: str = "FLOAT") -> str:
        self.inputs.append(_described(name, shape, dtype))
        return name

    def output(self, name: str, shape: Sequence[int | str], value: str) -> None:
        """`value` goes out by this name."""
        self.outputs.append(_described(name, shape, "FLOAT"))
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [name if given == value else given for given in names]

    def constant(self, values: Tensor | np.ndarray | list[int]) -> str:
        from onnx import numpy_helper

        name = f"constant{len(self.constants)}"
        values = values.detach().numpy() if isinstance(values, Tensor) else values
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(np.asarray(values)), name))
        return name

    def many(self, count: int, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> list[str]:
        """A node of so many outputs. An input that is left out is ""."""
        from onnx import helper

        names = [f"value{len(self.nodes)}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, domain=domain, **attributes))
        return names

    def one(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """A node of one output."""
        return self.many(1, kind, *inputs, domain=domain, **attributes)[0]

    def linear(self, inputs: str, weight: Tensor, bias: Tensor | None = None) -> str:
        """inputs (..., K) -> (..., N); weight: (N, K), bias: (N,)."""
        beside = [] if bias is None else [self.constant(bias)]
        if self.form == "plain":
            product = self.one("MatMul", inputs, self.constant(weight.T))
            return self.one("Add", product, *beside) if beside else product
        if self.form == "rows":
            levels, scales = _levels(weight.detach().numpy())
            given = [
                inputs,
                self.constant(levels.T),
                self.constant(scales),
                self.constant(np.zeros(len(levels), np.int8)),
            ]
            return self.one("DynamicQuantizeMatMul", *given, *beside, domain="com.microsoft")
        wide, deep = weight.shape
        block = min(BLOCK, max(16, 1 << (deep - 1).bit_length()))
        blocks = np.pad(weight.detach().numpy(), ((0, 0), (0, -deep % block))).reshape(wide, -1, block)
        levels, scales = _levels(blocks)  # (N, K / block, block), (N, K / block)
        given = [inputs, self.constant((levels.astype(np.int16) + 128).astype(np.uint8)), self.constant(scales)]
        given += ["", "", *beside] if beside else []
        shape = {"K": deep, "N": wide, "bits": 8, "block_size": block, "accuracy_level": 4}  # 4: inputs in 8 bits too
        return self.one("MatMulNBits", *given, domain="com.microsoft", **shape)

    def norm(self, inputs: str, module: nn.LayerNorm) -> str:
        scale, shift = self.constant(module.weight), self.constant(module.bias)
        return self.one("LayerNormalization", inputs, scale, shift, epsilon=module.eps)

    def session(self) -> Any:
        """What runs the graph, in as many threads as PyTorch has."""
        import onnxruntime
        from onnx import helper

        graph = helper.make_graph(self.nodes, "step", self.inputs, self.outputs, self.constants)
        versions = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=versions, ir_version=9)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        level = onnxruntime.GraphOptimizationLevel  # its fusions (addition and norm in one) are slower on a single step
        options.graph_optimization_level = level.ORT_DISABLE_ALL
        options.log_severity_level = 4  # what goes wrong is raised
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _levels(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows (..., K) as levels from -127 to 127, int8, and what a level of each row is worth, (...) float32."""
    scales = np.maximum(np.abs(rows).max(-1), 1e-12) / 127
    return np.round(rows / scales[..., None]).astype(np.int8), scales.astype(np.float32)


def _described(name: str, shape: Sequence[int | str], dtype: str) -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, getattr(TensorProto, dtype), list(shape))


class QuickPast(ABC):
    """A decoder's past where quick steps read and write it."""

    places: list[tuple[dict[str, Tensor], dict[str, Tensor]]]
    """What the graph reads and what it writes, by name. With two such places steps go from one to the other."""
    turn: int = 0
    """Which place is next."""

    @abstractmethod
    def __init__(self, decoder: Any, state: State) -> None: ...

    @staticmethod
    @abstractmethod
    def write(decoder: Any, graph: Graph, stream: str) -> str:
        """One step of this decoder as nodes of the graph, from vectors (B, D) to outputs (B, D)."""

    @abstractmethod
    def advance(self) -> None:
        """A step was taken."""

    @abstractmethod
    def pick(self, rows: Tensor) -> None:
        """Go on with these rows, in new places."""


def write_model(model: Model, form: Form = "blocks") -> Graph:
    """A step of a model: rows of its tables in, their sum through the decoder, what the head starts from out.

    index: (B, N), rows of the embedding's tables laid end to end. beside: (B, D), added to their sum, if the model
    hears. context: (B, D). first: (B, size), the logits of the first field, where they depend on nothing else.
    """
    graph, head, dim = Graph(form), model.head, model.head.dim
    tables = torch.cat(model.embedding.tables())
    index = graph.input("index", ("B", len(model.embedding.tables())), "INT64")
    stream = graph.one("ReduceSum", graph.one("Gather", graph.constant(tables), index), graph.constant([1]), keepdims=0)
    if model.ear is not None:
        stream = graph.one("Add", stream, graph.input("beside", ("B", dim)))
    assert model.decoder.quick is not None
    context = graph.norm(model.decoder.quick.write(model.decoder, graph, stream), head.norm)
    if head.plain:
        first: Any = head.logits[0]
        graph.output("first", ("B", head.sizes[0]), graph.linear(context, first.weight, first.bias))
    graph.output("context", ("B", dim), context)
    return graph


_sessions: WeakKeyDictionary[Model, tuple[tuple[tuple[int, int], ...], dict[Form, Any]]] = WeakKeyDictionary()
"""Of each model which weights it had, and its sessions by their forms, None where one is not near enough."""


def installed() -> bool:
    """Whether there is what makes graphs and what runs them."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError:
        return False
    return True


def quick_session(model: Model, streams: int = 1) -> Any:
    """What runs the quick steps of a model, checked; None where it is to draw by exact ones."""
    weights = list(model.parameters())
    if model.decoder.quick is None or any(
        weight.device.type != "cpu" or weight.dtype != torch.float32 for weight in weights
    ):
        return None
    if not installed():
        log.info("drawing by exact steps: onnx and onnxruntime (the extra `fast`) are not installed")
        return None
    sign = tuple((weight.data_ptr(), _times_written(weight)) for weight in weights)
    if model not in _sessions or _sessions[model][0] != sign:
        _sessions[model] = sign, {}
    sessions, reason = _sessions[model][1], ""
    for form in FEW if streams < MANY_STREAMS else MANY:
        if form not in sessions:
            sessions[form], reason = _checked(model, form)
        if sessions[form] is not None:
            return sessions[form]
    if reason:  # found in this call
        log.warning("drawing by exact steps: %s", reason)
    return None


def _times_written(weight: Tensor) -> int:
    """A number that changes when the weight does: PyTorch counts, but not what was made in inference mode."""
    return int(weight.view(torch.int32).sum()) if weight.is_inference() else weight._version


def _checked(model: Model, form: Form) -> tuple[Any, str]:
    """The session of this form, or None if it can't be run or is too far off; and why."""
    try:
        session = write_model(model, form).session()
        off = difference(model, session, 4 if form == "rows" else 1)
    except Exception as error:  # ONNX Runtime's own are no class of ours, and older versions know fewer nodes
        return None, f"ONNX Runtime can't run quick ones: {str(error).splitlines()[0]}"
    log.info("quick steps (%s) are %.2g nats off", form, off)
    if off <= TOLERANCE:
        return session, ""
    return None, f"quick ones are {off:.3g} nats off, and {TOLERANCE:g} is the most"


@torch.inference_mode()
def difference(model: Model, session: Any, streams: int = 1) -> float:
    """By how many nats the quick steps of a model differ from the exact ones: the mean of |log p - log q| over what
    would be drawn by p, over the fields of CHECKED steps of each stream from the beginning on, drawn by the exact
    ones."""
    from musicgen.decoders.model_step import ModelStepper, QuickModelStepper

    fields = len(model.head.sizes)
    untold = [[0] * model.coordinates] * streams
    steps = [[0] * fields] * streams
    state = model.initial_state(streams)
    exact, quick = ModelStepper(model, state), QuickModelStepper(model, state, session)
    generator = torch.Generator().manual_seed(0)
    total = 0.0
    for _ in range(CHECKED):
        for stepper in (exact, quick):
            stepper.step([[*step, *told] for step, told in zip(steps, untold, strict=True)])
        steps = [[] for _ in steps]
        for field in range(fields):
            both = [torch.from_numpy(stepper.field(field, steps)) for stepper in (exact, quick)]
            if field:
                for logits in both:
                    logits[:, NONE] = -1e4  # never trained, and never drawn
            mine, other = (logits.log_softmax(-1) for logits in both)
            total += float((mine.exp() * (mine - other).abs()).sum())
            drawn = torch.multinomial(mine.exp(), 1, generator=generator)[:, 0].tolist()
            steps = [[*step, value] for step, value in zip(steps, drawn, strict=True)]
    return total / (CHECKED * fields * streams)
