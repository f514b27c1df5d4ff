"""For PyTorch alone: the model as a program of ``torch.export``, ``model.pt2``.

Its archive holds the graph as JSON and the weights as they lie in memory: no pickle, and nothing of this project. In it
the recurrent layers are PyTorch's own, one operator each for all layers and steps, whatever device they are moved to.

Traced by the usual way they would fall apart into as many steps as the example has. So they are traced as operators of
ours, of the same signature, about which nothing is known but the shapes, and then get their real names.
"""

from __future__ import annotations

import logging
import math
import warnings
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan
from torch.nn import functional

from data.tables.tokens import END_ID
from stages.export import beside
from stages.lm import stored
from stages.lm.parameters import apart

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stages.lm.parameters import Architecture, Parameters

FILE = "model.pt2"
_OPERATORS = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_LIBRARY = torch.library.Library("rnnlm", "DEF")
_Weights = list[Tensor]


def _shapes(inputs: Tensor, state: Any, *others: object) -> tuple[Tensor, ...]:
    """What a recurrent operator gives, as far as a trace asks: outputs (steps, batch, hidden), then the new state."""
    arrays = [state] if isinstance(state, Tensor) else [*state]
    outputs = inputs.new_empty((inputs.shape[0], inputs.shape[1], arrays[0].shape[-1]))
    return outputs, *map(torch.empty_like, arrays)


for _name in _OPERATORS:
    _signature = str(getattr(torch.ops.aten, _name).input._schema).removeprefix("aten::").replace(".input(", "(", 1)
    _LIBRARY.define(_signature)
    torch.library.register_fake(f"rnnlm::{_name}", _shapes, lib=_LIBRARY)
_REAL = {getattr(torch.ops.rnnlm, name).default: getattr(torch.ops.aten, name).input for name in _OPERATORS}


class _Network(nn.Module):
    """One network; its parameters go by the names of `stages.lm.parameters.Architecture.shapes`."""

    def __init__(self, architecture: Architecture, weights: Parameters) -> None:
        super().__init__()
        self.architecture = architecture
        for name in architecture.shapes():  # in whose order the operators take them
            room, _, own = name.partition(".")
            if not hasattr(self, room):
                self.add_module(room, nn.Module())
            parameter = nn.Parameter(torch.from_numpy(weights[name]), requires_grad=False)
            getattr(self, room).register_parameter(own, parameter)
        kind = f"rnn_{architecture.activation}" if architecture.cell == "rnn" else architecture.cell
        self.operator = getattr(torch.ops.rnnlm, kind)

    def forward(self, ids: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """Ids (steps, batch), states (layers, batch, hidden) → logits (steps, batch, vocab), new states."""
        architecture, rooms = self.architecture, dict(self.named_children())
        if architecture.embedding_size:
            inputs = functional.embedding(ids, rooms["embedding"].weight)
        else:
            inputs = functional.one_hot(ids, architecture.vocab_size).to(torch.float32)
        recur = partial(self._recur, weights=[*rooms["rnn"].parameters()])
        if architecture.ends:
            outputs, after = _cut(recur, inputs, ids, [*states])
        else:
            outputs, *after = recur(inputs, [*states])
        dense = rooms["embedding"].weight if architecture.tie_weights else rooms["dense"].weight
        return functional.linear(outputs, dense, rooms["dense"].bias), *after

    def _recur(self, inputs: Tensor, states: list[Tensor], weights: _Weights) -> Any:
        """Outputs (steps, batch, hidden) of the last layer, then the new states."""
        state = states if len(states) > 1 else states[0]
        return self.operator(inputs, state, weights, True, self.architecture.layers, 0.0, False, False, False)


def _cut(recur: Any, inputs: Tensor, ids: Tensor, states: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Step by step, and a zero state comes in where a document ended."""

    def step(before: list[Tensor], read: tuple[Tensor, Tensor]) -> tuple[list[Tensor], Tensor]:
        row, ends = read
        zero = torch.zeros((), dtype=row.dtype, device=row.device)
        outputs, *after = recur(row[None], [torch.where(ends, zero, array) for array in before])
        return after, outputs[0]

    after, outputs = scan(step, states, (inputs, (ids == END_ID)[..., None]))
    return outputs, after


class _Ensemble(nn.Module):
    """Several networks, whose logits are the log of the mean of their probabilities."""

    def __init__(self, networks: list[_Network]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, ids: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """As of one network; the states are those of the first, and behind them those of the others."""
        each = len(states) // len(self.networks)
        logits, after = [], list[Tensor]()
        for number, network in enumerate(self.networks):
            own, *new = network(ids, *states[number * each : (number + 1) * each])
            logits.append(functional.log_softmax(own, -1))
            after += new
        return torch.logsumexp(torch.stack(logits), 0) - math.log(len(logits)), *after


def write(model: Path, out: Path) -> None:
    """Write ``model.pt2``, ``vocab.json`` and ``README.md``.

    Args:
        model: a model's folder.
        out: an empty one.

    Raises:
        StoreError: no model that can be read, or weights that are not finite.
    """
    found = stored.read(model, finite=True)
    architecture = found.architecture
    networks = [_Network(architecture, one) for one in apart(found.weights, architecture.networks)]
    names = beside.states(architecture)
    # Tensors of their own: two inputs that are one would be one in the graph.
    states = tuple(torch.zeros(architecture.layers, 2, architecture.hidden_size) for _ in names)
    steps, batch = torch.export.Dim("steps"), torch.export.Dim("batch")
    with _quiet(), torch.no_grad():
        program = torch.export.export(
            networks[0] if len(networks) == 1 else _Ensemble(networks),
            (torch.zeros(3, 2, dtype=torch.int64), *states),
            dynamic_shapes={"ids": {0: steps, 1: batch}, "states": tuple({1: batch} for _ in states)},
        )
        _settle(program)
        torch.export.save(program, out / FILE)
    shape = f"{architecture.layers}, 1, {architecture.hidden_size}"
    graph = beside.Graph(
        title="PyTorch's graph",
        file=FILE,
        called=f"`torch.export.load` reads it (written by PyTorch {torch.__version__.partition('+')[0]}) and executes "
        "nothing of anybody's; `model(ids, *states)` gives `(logits, *states)`. `model.to(device)` moves it.",
        imports="import torch",
        load=f'model = torch.export.load("{FILE}").module()\nstates = [torch.zeros({shape})] * {len(names)}',
        step=[
            "logits, *states = model(torch.tensor(ids)[:, None], *states)",
            "likely = (logits[-1, 0, 1:] / 0.8).softmax(-1)  # without <unk>, at temperature 0.8",
            "ids = [1 + int(torch.multinomial(likely, 1))]",
        ],
    )
    beside.write(out, found, graph)


def _settle(program: Any) -> None:
    """Give the recurrent operators their names, and take out what only a trace has to say: where on this machine the
    code lies that was traced, and what it was traced with."""
    for module in program.graph_module.modules():
        for node in module.graph.nodes if hasattr(module, "graph") else ():
            node.target = _REAL.get(node.target, node.target)
            node.meta = {"val": node.meta["val"]} if "val" in node.meta else {}
        if hasattr(module, "graph"):
            module.recompile()
    program.example_inputs = None


@contextmanager
def _quiet() -> Iterator[None]:
    """What PyTorch thinks of its own parts is nothing that a user could mend."""
    logger = logging.getLogger("torch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
