"""Layers as ONNX nodes: a recurrent one is a Scan with the cell's own lines inside, a dense one a matrix product."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx import helper

from hwrnn.cells import Phase, Values
from hwrnn.model import Layer
from hwrnn.onnx_numbers import FLOAT, INT64, FloatNode, Graph, Wire
from hwrnn.quantization import QuantizedLayer

__all__ = ["FloatWriter", "LayerWriter", "dense", "file_initial", "file_parameter", "recurrent", "value_info"]


def file_parameter(layer: Layer | QuantizedLayer, gate: str, operand: str) -> np.ndarray:
    """A block of weights (or biases, ``"b"``) as the file holds it: float32, or integers as narrow as they may be."""
    if isinstance(layer, Layer):
        return layer.block(gate, operand)
    if operand == "b":
        biases = layer.biases[gate]
        narrow = max(-int(biases.min()) - 1, int(biases.max())) < 2**31
        return biases.astype(np.int32 if narrow else np.int64)
    width = layer.formats.weights[gate, operand].width
    kind = next(k for k in (np.int8, np.int16, np.int32, np.int64) if width <= 8 * np.dtype(k).itemsize)
    return layer.weights[gate, operand].astype(kind)


def file_initial(layer: Layer | QuantizedLayer, state: str) -> np.ndarray:
    """Where a state starts, (units,), as the file holds it: float32, or integers as narrow as they may be."""
    if isinstance(layer, Layer):
        return np.asarray(layer.initial[state])
    width = layer.formats.values[state].width
    kind = next((k for k in (np.int8, np.int16, np.int32) if width < 8 * np.dtype(k).itemsize), np.int64)
    return layer.start(state).astype(kind)


class LayerWriter:
    """One layer as nodes; what a float and an integer layer do differently is left to them.

    Its matrices and biases are made where it is constructed, outside any body, so that they are made once.

    Attributes:
        kind: the element type of products.
        stored: the element type of states and outputs.
    """

    def __init__(self, graph: Graph, name: str, layer: Layer | QuantizedLayer, kind: int, stored: int) -> None:
        self.graph, self.name, self.cell, self.units = graph, name, layer.cell, layer.units
        self.kind, self.stored = kind, stored
        blocks = {
            (gate, operand): self.block(layer, gate, operand)
            for phase in layer.cell.phases for gate, reads in phase.gates.items() for operand in (*reads, "b")
        }  # fmt: skip
        self.matrices: dict[tuple[int, str], Wire] = {}
        self.biases: dict[tuple[int, str], Wire] = {}
        for k, phase in enumerate(self.cell.phases):
            first = {gate: next(o for o in phase.operands if o in reads) for gate, reads in phase.gates.items()}
            for operand in phase.operands:
                rows = self.rows(phase, operand)
                whole = self._joined([graph.cast(blocks[gate, operand], kind) for gate in rows])
                self.matrices[k, operand] = graph.op(
                    "Transpose", whole, perm=[1, 0], name=f"{self.name}/weights{k}.{operand}"
                )
                if any(first[gate] == operand for gate in rows):  # each bias is added once, with the first product
                    parts = [
                        graph.cast(blocks[gate, "b"], kind) if first[gate] == operand
                        else graph.constant([0] * self.units, kind)
                        for gate in rows
                    ]  # fmt: skip
                    self.biases[k, operand] = self._joined(parts)

    def block(self, layer: Layer | QuantizedLayer, gate: str, operand: str) -> Wire:
        """A block of weights, or biases (``"b"``)."""
        return self.graph.initializer(f"{self.name}.{gate}.{operand}", file_parameter(layer, gate, operand))

    def rows(self, phase: Phase, operand: str) -> tuple[str, ...]:
        """The gates that read an operand, in the order of their columns in a product."""
        return phase.rows(operand)

    def _joined(self, parts: list[Wire]) -> Wire:
        return parts[0] if len(parts) == 1 else self.graph.op("Concat", *parts, axis=0)

    def product(self, phase: Phase, operand: str, vector: Wire) -> Wire:
        """Vectors (..., size) times the weights of an operand, (..., rows * units), with biases."""
        key = self.cell.phases.index(phase), operand
        total = self.graph.op("MatMul", self.graph.cast(vector, self.kind), self.matrices[key])
        return self.graph.op("Add", total, self.biases[key]) if key in self.biases else total

    def gates(self, phase: Phase, products: Mapping[str, Wire]) -> dict[str, Any]:
        """The pre-activations of a phase, gate to number, from the products of its operands."""
        graph = self.graph
        together: dict[tuple[str, ...], Wire] = {}
        for operand, part in products.items():  # operands that feed the same gates are added before they are split
            rows = self.rows(phase, operand)
            together[rows] = graph.op("Add", together[rows], part) if rows in together else part
        sums: dict[str, Wire] = {}
        for rows, whole in together.items():
            parts = [whole]
            if len(rows) > 1:
                sizes = graph.constant([self.units] * len(rows), INT64)
                parts = graph.ops("Split", whole, sizes, names=[""] * len(rows), axis=-1)
            for gate, part in zip(rows, parts, strict=True):
                sums[gate] = graph.op("Add", sums[gate], part) if gate in sums else part
        return {gate: self.gate(gate, sums[gate]) for gate in phase.gates}

    def named(self, name: str, wire: Wire) -> Wire:
        """The wire under a name that a person finds in a viewer; runtimes drop the Identity."""
        return self.graph.op("Identity", wire, name=f"{self.name}.{name}")

    def gate(self, name: str, total: Wire) -> Any:
        """The number of a pre-activation."""
        raise NotImplementedError

    def old(self, name: str, wire: Wire) -> Any:
        """The number of an old state."""
        raise NotImplementedError

    def store(self, name: str, value: Any) -> Any:
        """What a cell's assignment does."""
        raise NotImplementedError

    def wire(self, value: Any) -> Wire:
        """The wire of a stored number."""
        raise NotImplementedError


class FloatWriter(LayerWriter):
    """A float layer."""

    def __init__(self, graph: Graph, name: str, layer: Layer) -> None:
        super().__init__(graph, name, layer, FLOAT, FLOAT)

    def gate(self, name: str, total: Wire) -> FloatNode:
        return FloatNode(self.graph, self.named(f"a.{name}", total))

    def old(self, name: str, wire: Wire) -> FloatNode:
        return FloatNode(self.graph, wire)

    def store(self, name: str, value: FloatNode) -> FloatNode:
        return FloatNode(self.graph, self.named(name, value.wire))

    def wire(self, value: FloatNode) -> Wire:
        return value.wire


def recurrent(layer: LayerWriter, x: Wire, of: Layer | QuantizedLayer) -> Wire:
    """A recurrent layer over (N, T, inputs) as a Scan: its output at every step, (N, T, units).

    ``of`` says where its states start.
    """
    graph, cell, name, units = layer.graph, layer.cell, layer.name, layer.units
    reading = [k for k, p in enumerate(cell.phases) if "x" in p.operands]
    fed = [layer.product(cell.phases[k], "x", x) for k in reading]  # of all steps at once
    slices = {k: Wire(f"{name}/products{k}", layer.kind) for k in reading}
    batch = graph.op("Shape", x, kind=INT64, start=0, end=1)
    shape = graph.op("Concat", batch, graph.constant([units], INT64), axis=0)
    starts: dict[str, Wire] = {}
    for state in cell.states:
        if state in of.initial:
            vector = graph.initializer(f"{name}.{state}.initial", file_initial(of, state))
            starts[state] = graph.op("Expand", graph.cast(vector, layer.stored), shape)
    if len(starts) < len(cell.states):
        zero = graph.op("Expand", graph.constant(0, layer.stored), shape)
        starts = {state: starts.get(state, zero) for state in cell.states}
    olds = {state: Wire(f"{name}.{state}/old", layer.stored) for state in cell.states}

    def product(phase: Phase, s: Values) -> dict[str, Any]:
        k = cell.phases.index(phase)
        read = {o: layer.wire(getattr(s, o)) for o in phase.operands if o != "x"}
        parts = {o: slices[k] if o == "x" else layer.product(phase, o, read[o]) for o in phase.operands}
        return layer.gates(phase, parts)

    with graph.body() as nodes:
        s = cell.run(product, Values({n: layer.old(n, w) for n, w in olds.items()}, layer.store))
        results = {f"{name}.{state}/new": state for state in cell.states} | {f"{name}/step": cell.output}
        news = [graph.op("Identity", layer.wire(getattr(s, v)), name=n) for n, v in results.items()]
    inputs = [value_info(w, "N", units) for w in olds.values()]
    inputs += [value_info(w, "N", len(cell.phases[k].rows("x")) * units) for k, w in slices.items()]
    return graph.ops(
        "Scan", *[starts[state] for state in olds], *fed,
        names=[*(f"{name}.{state}/last" for state in cell.states), f"{name}/output"], kind=layer.stored,
        body=helper.make_graph(nodes, name, inputs, [value_info(w, "N", units) for w in news]),
        num_scan_inputs=len(fed), scan_input_axes=[1] * len(fed), scan_output_axes=[1],
    )[-1]  # fmt: skip


def dense(layer: LayerWriter, x: Wire) -> Wire:
    """A layer without state over (..., inputs), all at once."""

    def product(phase: Phase, s: Values) -> dict[str, Any]:
        return layer.gates(phase, {"x": layer.product(phase, "x", x)})

    s = layer.cell.run(product, Values({}, layer.store))
    return layer.wire(getattr(s, layer.cell.output))


def value_info(wire: Wire, *shape: str | int) -> Any:
    return helper.make_tensor_value_info(wire.name, wire.kind, list(shape))
