"""Brevitas' quantized LSTM, which its exporter writes as one QuantLSTMCell node of QONNX' domain.

The node rounds every value inside the cell, so its formats are known down to the gates. Brevitas 0.13 rounds ``f c``
and ``i g`` before it adds them, where hwrnn rounds the sum; :meth:`Imported.run` follows Brevitas, a model hwrnn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hwrnn.activations import NONLINEARITIES, Nonlinearity
from hwrnn.cells import CELLS, Phase, Values
from hwrnn.importing.dense import settled
from hwrnn.importing.graph import Node
from hwrnn.importing.grids import MOST_BITS, ROUNDING, Grid
from hwrnn.importing.layouts import constant
from hwrnn.importing.operands import operand_of
from hwrnn.importing.operators import Interpreter, operator
from hwrnn.importing.values import Pass, Steps, Value, View, canonical
from hwrnn.model import Layer

__all__ = ["RoundedLSTM"]

_SIGMOID, _TANH = NONLINEARITIES["sigmoid"], NONLINEARITIES["tanh"]
#: The node's quantizers in the order of its inputs, three for each: its words and the value of hwrnn's LSTM.
_QUANTIZERS = {
    "output": "h", "cell_state": "c", "input_acc": "a.i", "forget_acc": "a.f", "cell_acc": "a.g", "output_acc": "a.o",
    "input_sigmoid": "i", "forget_sigmoid": "f", "cell_tanh": "g", "output_sigmoid": "o", "hidden_state_tanh": "t",
}  # fmt: skip
_GATES = ("i", "f", "g", "o")  # Brevitas' order
_FIRST_WEIGHT, _FIRST_QUANTIZER = 3, 15


@dataclass(frozen=True, eq=False)
class RoundedLSTM(Layer):
    """An LSTM that rounds every value as Brevitas does.

    Attributes:
        grids: of each value by name, with the word for its rounding.
    """

    grids: Mapping[str, tuple[Grid, str]] = field(default_factory=dict, kw_only=True)

    def step(self, x: np.ndarray, state: dict[str, np.ndarray], record: Any = None) -> Values:
        """One time step, ``x`` (n, inputs) and states (n, units)."""

        def store(name: str, value: _Parts) -> _Parts:
            grid, mode = self.grids[name]
            rounded = _Parts(*(grid.rounded(part, mode) for part in value.parts))
            return rounded if len(rounded.parts) == 1 else _Parts(grid.rounded(rounded.whole, mode))

        def product(phase: Phase, s: Values) -> dict[str, _Parts]:
            sums = self.product(phase, lambda name: x if name == "x" else getattr(s, name).whole)
            return {gate: store(f"a.{gate}", _Parts(value)) for gate, value in sums.items()}

        run = self.cell.run(product, Values({name: _Parts(value) for name, value in state.items()}, store))
        return Values({name: getattr(run, name).whole for name in self.cell.states})


class _Parts:
    """A sum whose summands are rounded one by one before it is."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    @property
    def whole(self) -> Any:
        return sum(self.parts[1:], self.parts[0])

    def __add__(self, other: _Parts) -> _Parts:
        return _Parts(*self.parts, *other.parts)

    def __mul__(self, other: _Parts) -> _Parts:
        return _Parts(self.whole * other.whole)

    def apply(self, function: Nonlinearity) -> _Parts:
        return _Parts(function.value(self.whole))


@operator("qonnx.custom_op.general.QuantLSTMCell", "onnx.brevitas.QuantLSTMCell")
def _quant_lstm(node: Node, net: Interpreter) -> Sequence[Value | None]:
    batch_first, reverse = node.flag("batch_first"), node.flag("reverse_input")
    if node.flag("cifg"):
        raise node.refused("have a forget gate of its own (cifg 0), since Brevitas' coupled one is not 1 - i")
    w, r, b = (
        [constant(node, _FIRST_WEIGHT + 4 * k + j, "its weights") for j in range(4)] for k in range(3)
    )
    units, inputs = w[0].shape if w[0].ndim == 2 else (0, 0)
    fits = all(a.shape == (units, inputs) for a in w) and all(a.shape == (units, units) for a in r)
    if not units or not inputs or not fits or any(a.shape != (units,) for a in b):
        raise node.refused("have weights (units, inputs) and (units, units) and biases (units,) for each gate")
    grids = {name: _grid(node, k, words) for k, (words, name) in enumerate(_QUANTIZERS.items())}
    initial = {}
    for k, state in ((1, "h"), (2, "c")):
        start = constant(node, k, "its first states")
        if start.shape[-1] != units or (start.reshape(-1, units) != start.reshape(-1, units)[0]).any():
            raise node.refused("start every sequence with one constant state")
        if start.any():
            initial[state] = start.reshape(-1, units)[0].astype(np.float32)
    cell = CELLS["lstm"](sigma=_SIGMOID, phi=_TANH)
    order = [_GATES.index(gate) for gate in cell.gates]
    parameters = {
        f"0.{name}": np.concatenate([blocks[k] for k in order]).astype(np.float32)
        for name, blocks in (("x", w), ("h", r), ("b", b))
    }
    layer = RoundedLSTM(cell, inputs, units, parameters, initial=initial, reverse=reverse, grids=grids)
    x, time, batch = operand_of(node, net, batch_first, inputs)
    run = Pass(node=node.name, layer=layer, operand=settled(net, x.vector), initial={}, lengths=None)
    steps = net.sources.add(Steps(units=units, timed=True, of=run))
    columns = steps.channels if time else net.sources.picked(steps.channels, -1)
    found: list[Value | None] = [_view([batch, time] if batch_first else [time, batch], columns)]
    found += [_view([batch], net.sources.final(run, state).channels) for state in ("h", "c")]
    if net.dyes is None:
        net.note(
            f"Node {node.name[:80]!r} rounds both products before it adds them to the cell state; a model of hwrnn's"
            " rounds their sum"
        )
    return found


def _view(axes: Sequence[Any], columns: np.ndarray) -> View:
    ones, zeros = np.ones(len(columns)), np.zeros(len(columns))
    return canonical(View((*axes, (len(columns),)), columns, ones, zeros, np.dtype(np.float32)))


def _grid(node: Node, k: int, words: str) -> tuple[Grid, str]:
    """A quantizer's grid and rounding."""
    at = _FIRST_QUANTIZER + 3 * k
    scale, zero, bits = (constant(node, at + j, f"the quantizer {words}") for j in range(3))
    # Brevitas names the attribute of one of them otherwise.
    narrow = node.flag(f"{words}_narrow_range" if node.has(f"{words}_narrow_range") else f"{words}_narrow")
    signed, mode = node.flag(f"{words}_signed", 1), node.text(f"{words}_rounding_mode", "ROUND").upper()
    if mode not in ROUNDING or any(a.size != 1 for a in (scale, zero, bits)) or not float(scale.reshape(-1)[0]) > 0:
        raise node.refused(f"have one scale, zero point and number of bits and a known rounding for {words}")
    width = float(bits.reshape(-1)[0])
    if width not in range(1, MOST_BITS + 1) or float(zero.reshape(-1)[0]) != round(float(zero.reshape(-1)[0])):
        raise node.refused(f"have whole numbers of bits and zero points for {words}")
    return Grid(int(width), signed, float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0]), narrow), mode
