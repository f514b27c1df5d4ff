"""For runtimes of ONNX: the model as a graph of standard operators, ``model.onnx``. The same model, the same bytes.

ONNX has the gates in another order than PyTorch and a state for each layer; the graph takes and gives states as all
else here does, (layers, batch, hidden).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, checker, helper, numpy_helper

from data.errors import ConfigError
from data.tables.tokens import END_ID
from stages.export import beside
from stages.lm import stored
from stages.lm.parameters import apart

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from stages.lm.parameters import Architecture, Parameters

_Shape = list[str | int | None]
"""A name is a size that each call may choose."""
FILE = "model.onnx"
OPSET, IR = 17, 8
"""Of 2022, so that runtimes that are not new read it too; nothing later is needed."""
LARGEST = (1 << 31) - (1 << 20)
"""Bytes of weights: the format's files end at 2 GiB."""
_GATES = {"rnn": [0], "gru": [1, 0, 2], "lstm": [0, 3, 1, 2]}
"""Where ONNX's gates stand in PyTorch's: of a GRU update, reset, new; of an LSTM input, output, forget, cell."""


class _Graph:
    """Nodes as they come, and what is constant in them.

    Args:
        constants: of the graph that this one is a part of, which it sees.
    """

    def __init__(self, constants: dict[str, TensorProto] | None = None) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants = {} if constants is None else constants
        self._prefix = "" if constants is None else "step."

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """A constant of this name, once."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def axes(self, *axes: int) -> str:
        return self.constant(f"axes{'_'.join(map(str, axes))}", np.array(axes, np.int64))

    def several(self, count: int, operator: str, *inputs: str, **attributes: Any) -> list[str]:
        """What an operator gives, which has so many outputs."""
        name = f"{self._prefix}{operator}{len(self.nodes)}"
        outputs = [f"{name}.{number}" for number in range(count)]
        self.nodes.append(helper.make_node(operator, inputs, outputs, name, **attributes))
        return outputs

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """The same of one with a single output."""
        return self.several(1, operator, *inputs, **attributes)[0]

    def called(self, value: str, name: str) -> None:
        """Give an output its name."""
        self.nodes.append(helper.make_node("Identity", [value], [name], f"{self._prefix}{name}"))


class _Network:
    """One network of several, whose constants go by its number.

    Args:
        architecture: of it.
        weights: as `stages.lm.parameters` names them.
        name: what its constants begin with.
    """

    def __init__(self, architecture: Architecture, weights: Parameters, name: str) -> None:
        self.architecture, self.weights, self.name = architecture, weights, name

    def run(self, graph: _Graph, ids: str, ends: str, states: Sequence[str]) -> tuple[str, list[str]]:
        """From ids (steps, batch), where they end documents (steps, batch, 1) and states to logits and new states."""
        inputs = self._inputs(graph, ids)
        if self.architecture.ends:
            outputs, after = self._cut(graph, inputs, ends, states)
        else:
            outputs, after = self._recur(graph, inputs, states)
        output = "embedding.weight" if self.architecture.tie_weights else "dense.weight"
        weight = graph.add("Transpose", self._weight(graph, output), perm=[1, 0])
        return graph.add("Add", graph.add("MatMul", outputs, weight), self._weight(graph, "dense.bias")), after

    def _weight(self, graph: _Graph, name: str) -> str:
        return graph.constant(self.name + name, self.weights[name])

    def _inputs(self, graph: _Graph, ids: str) -> str:
        """(steps, batch, embedding or vocab)."""
        if self.architecture.embedding_size:
            return graph.add("Gather", self._weight(graph, "embedding.weight"), ids)
        depth = graph.constant("vocab_size", np.array(self.architecture.vocab_size, np.int64))
        return graph.add("OneHot", ids, depth, graph.constant("off_on", np.array([0, 1], np.float32)))

    def _recur(self, graph: _Graph, outputs: str, states: Sequence[str]) -> tuple[str, list[str]]:
        """All steps of all layers: (steps, batch, in), states → (steps, batch, hidden), new states."""
        architecture, layers = self.architecture, self.architecture.layers
        apart = [graph.several(layers, "Split", state, axis=0) if layers > 1 else [state] for state in states]
        attributes: dict[str, Any] = {"hidden_size": architecture.hidden_size}
        if architecture.cell == "gru":
            attributes["linear_before_reset"] = 1
        elif architecture.cell == "rnn":
            attributes["activations"] = [architecture.activation.capitalize()]
        after = []
        for layer, own in enumerate(zip(*apart, strict=True)):
            operands = self._layer(graph, layer)
            every, *new = graph.several(
                1 + len(own), architecture.cell.upper(), outputs, *operands, "", *own, **attributes
            )
            outputs = graph.add("Squeeze", every, graph.axes(1))  # of directions
            after.append(new)
        joined = [graph.add("Concat", *parts, axis=0) if layers > 1 else parts[0] for parts in zip(*after, strict=True)]
        return outputs, joined

    def _layer(self, graph: _Graph, layer: int) -> list[str]:
        """The weights of a layer as ONNX has them: inputs', states', biases."""
        rows = np.arange(len(self.weights[f"rnn.bias_ih_l{layer}"])).reshape(-1, self.architecture.hidden_size)
        order = rows[_GATES[self.architecture.cell]].ravel()
        ours = {
            name: self.weights[f"rnn.{name}_l{layer}"][order]
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        bias = np.concatenate([ours["bias_ih"], ours["bias_hh"]])
        both = {"weight_ih": ours["weight_ih"], "weight_hh": ours["weight_hh"], "bias": bias}
        return [graph.constant(f"{self.name}rnn.{name}_l{layer}", array[None]) for name, array in both.items()]

    def _cut(self, graph: _Graph, inputs: str, ends: str, states: Sequence[str]) -> tuple[str, list[str]]:
        """Step by step, and a zero state comes in where a document ended."""
        body = _Graph(graph.constants)
        zero = graph.constant("zero", np.zeros((), np.float32))
        names = [f"{self.name}before{number}" for number in range(len(states))]
        row, ended = f"{self.name}row", f"{self.name}ended"
        begun = [body.add("Where", ended, zero, name) for name in names]
        outputs, after = self._recur(body, body.add("Unsqueeze", row, graph.axes(0)), begun)
        given = [*after, body.add("Squeeze", outputs, graph.axes(0))]
        architecture = self.architecture
        state: _Shape = [architecture.layers, "batch", architecture.hidden_size]
        width = architecture.embedding_size or architecture.vocab_size
        step = helper.make_graph(
            body.nodes,
            f"{self.name}step",
            [
                *(helper.make_tensor_value_info(name, TensorProto.FLOAT, state) for name in names),
                helper.make_tensor_value_info(row, TensorProto.FLOAT, ["batch", width]),
                helper.make_tensor_value_info(ended, TensorProto.BOOL, ["batch", 1]),
            ],
            [
                *(helper.make_tensor_value_info(name, TensorProto.FLOAT, state) for name in after),
                helper.make_tensor_value_info(given[-1], TensorProto.FLOAT, ["batch", architecture.hidden_size]),
            ],
        )
        *new, every = graph.several(len(given), "Scan", *states, inputs, ends, body=step, num_scan_inputs=2)
        return every, new


def write(model: Path, out: Path) -> None:
    """Write ``model.onnx``, ``vocab.json`` and ``README.md``.

    Args:
        model: a model's folder.
        out: an empty one.

    Raises:
        StoreError: no model that can be read, or weights that are not finite.
        ConfigError: one that is too large for a file of ONNX.
    """
    found = stored.read(model, finite=True)
    architecture, size = found.architecture, sum(array.nbytes for array in found.weights.values())
    if size > LARGEST:
        raise ConfigError(f"ONNX files end at 2 GiB, and the model's weights have {size / 1e9:,.1f} GB: use --to torch")
    names = beside.states(architecture)
    (out / FILE).write_bytes(_model(architecture, apart(found.weights, architecture.networks), names))
    shape = f"{architecture.layers}, 1, {architecture.hidden_size}"
    graph = beside.Graph(
        title="ONNX",
        file=FILE,
        called=f"Standard operators of ONNX, opset {OPSET}; its inputs are `ids` and the states by their names, its "
        "outputs `logits` and the states as `new_…`.",
        imports="import numpy as np\nimport onnxruntime",
        load=f'model = onnxruntime.InferenceSession("{FILE}", providers=["CPUExecutionProvider"])\n'
        f"states = [np.zeros(({shape}), np.float32)] * {len(names)}",
        step=[
            f"given = dict(zip({names}, states))",
            'logits, *states = model.run(None, {"ids": np.array(ids)[:, None], **given})',
            "likely = np.exp(logits[-1, 0, 1:].astype(float) / 0.8)  # without <unk>, at temperature 0.8",
            "ids = [1 + int(np.random.choice(len(likely), p=likely / likely.sum()))]",
        ],
    )
    beside.write(out, found, graph)


def _model(architecture: Architecture, networks: Sequence[Parameters], names: Sequence[str]) -> bytes:
    """The file, checked."""
    graph = _Graph()
    ids, ends = _refusing(graph, architecture.vocab_size), ""
    if architecture.ends:
        ended = graph.add("Equal", ids, graph.constant("end", np.array(END_ID, np.int64)))
        ends = graph.add("Unsqueeze", ended, graph.axes(2))
    each, after, own = [], list[str](), len(names) // len(networks)
    for number, weights in enumerate(networks):
        network = _Network(architecture, weights, f"networks.{number}." if len(networks) > 1 else "")
        logits, new = network.run(graph, ids, ends, names[number * own : (number + 1) * own])
        each.append(logits)
        after += new
    graph.called(_mean(graph, each) if len(each) > 1 else each[0], "logits")
    for name, value in zip(names, after, strict=True):
        graph.called(value, f"new_{name}")
    shape: _Shape = [architecture.layers, "batch", architecture.hidden_size]

    def told(prefix: str) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(prefix + name, TensorProto.FLOAT, shape) for name in names]

    logits_shape: _Shape = ["steps", "batch", architecture.vocab_size]
    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "language_model",
            [helper.make_tensor_value_info("ids", TensorProto.INT64, ["steps", "batch"]), *told("")],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, logits_shape), *told("new_")],
            [*graph.constants.values()],
        ),
        producer_name="rnnlm",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
    )
    checker.check_model(made, full_check=True)
    written: bytes = made.SerializeToString(deterministic=True)
    return written


def _refusing(graph: _Graph, vocab_size: int) -> str:
    """The ids, where all of them are in the vocabulary: one that is not has no row in a table, which is an error.

    Without it an id below 0 would count from the end, and of one that is too large a one-hot row would be all zeros.
    """
    size = graph.constant("vocab_size", np.array(vocab_size, np.int64))
    negative = graph.add("Less", "ids", graph.constant("first_id", np.array(0, np.int64)))
    each = graph.constant("every_id", np.arange(vocab_size))
    return graph.add("Gather", each, graph.add("Where", negative, size, "ids"))


def _mean(graph: _Graph, each: Sequence[str]) -> str:
    """The log of the mean of several networks' probabilities."""
    likely = [graph.add("Unsqueeze", graph.add("LogSoftmax", logits, axis=-1), graph.axes(0)) for logits in each]
    summed = graph.add("ReduceLogSumExp", graph.add("Concat", *likely, axis=0), axes=[0], keepdims=0)
    return graph.add("Sub", summed, graph.constant("log_networks", np.array(math.log(len(each)), np.float32)))
