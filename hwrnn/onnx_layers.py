"""Layers as ONNX nodes: a recurrent one is a Scan with the cell's own lines inside, a dense one a matrix product."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
from onnx import helper

from hwrnn.cells import Phase, Values
from hwrnn.errors import UsageError
from hwrnn.model import Layer
from hwrnn.onnx_integers import EXACT_SINGLE, Line, Node, carrier_of
from hwrnn.onnx_numbers import DOUBLE, FLOAT, INT64, FloatNode, Graph, Wire
from hwrnn.quantization import QuantizedLayer
from hwrnn.trace import trace

__all__ = ["dense", "file_parameter", "layer_writer", "recurrent", "value_info"]


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
            (gate, operand): graph.initializer(f"{name}.{gate}.{operand}", file_parameter(layer, gate, operand))
            for phase in layer.cell.phases for gate, reads in phase.gates.items() for operand in (*reads, "b")
        }  # fmt: skip
        self.matrices: dict[tuple[int, str], Wire] = {}
        self.biases: dict[tuple[int, str], Wire] = {}
        for k, phase in enumerate(self.cell.phases):
            first = {gate: next(o for o in phase.operands if o in reads) for gate, reads in phase.gates.items()}
            for operand in phase.operands:
                rows = self.rows(phase, operand)
                whole = self._joined([graph.cast(blocks[gate, operand], kind) for gate in rows])
                self.matrices[k, operand] = graph.op("Transpose", whole, perm=[1, 0])
                if any(first[gate] == operand for gate in rows):  # each bias is added once, with the first product
                    parts = [
                        graph.cast(blocks[gate, "b"], kind) if first[gate] == operand
                        else graph.constant([0] * self.units, kind)
                        for gate in rows
                    ]  # fmt: skip
                    self.biases[k, operand] = self._joined(parts)

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


class IntegerWriter(LayerWriter):
    """An integer layer.

    Where its numbers travel as floating point, its matrices and biases are scaled to units of the pre-activations, with
    the half of the rounding among the biases, so that a floor and a clip round the sums of all gates at once; and gates
    of one nonlinearity and one format go through it together.
    """

    def __init__(self, graph: Graph, name: str, layer: QuantizedLayer, narrowest: int | None = None) -> None:
        self.accumulators, self.formats, self.layer = layer.accumulators, layer.formats, layer
        # A matrix product adds in any order and without the bias, so its partial sums may lie a bias outside.
        reach = max(
            max(-lo, hi) + max(-int(layer.biases[gate].min()), int(layer.biases[gate].max()))
            for gate, (lo, hi) in self.accumulators.items()
        )
        self.narrowest = _narrowest(layer, reach) if narrowest is None else narrowest
        graph.narrowest = self.narrowest
        super().__init__(graph, name, layer, carrier_of(reach, self.narrowest), min(self.narrowest, DOUBLE))
        for stored, form in self.formats.values.items():
            if carrier_of(form.hi) != DOUBLE and not stored.startswith("a."):
                raise UsageError(
                    f"Stored values must have at most 54 bits to be saved, not {form.width} as {stored!r} has"
                )
        for k, phase in enumerate(self.cell.phases):
            for operand in phase.operands:
                self._scale(k, phase, operand)

    def _scale(self, k: int, phase: Phase, operand: str) -> None:
        """Bring a matrix to where the products of its operands meet, or to units of the pre-activations."""
        graph, key, rows = self.graph, (k, operand), self.rows(phase, operand)
        shift = 2.0 ** self.formats.shifts[key]
        if self.kind == INT64:
            factors, half = [int(shift)] * len(rows), 0.0
        else:
            factors, half = [shift * 2.0 ** -self._dropped(gate) for gate in rows], 0.5
        if factors != [1] * len(rows):
            factor = self._columns(factors)
            self.matrices[key] = graph.op("Mul", self.matrices[key], factor)
        if key in self.biases and half:
            first = [operand == next(o for o in phase.operands if o in phase.gates[gate]) for gate in rows]
            scaled = graph.op("Mul", self.biases[key], self._columns([f / shift for f in factors]))
            self.biases[key] = graph.op("Add", scaled, self._columns([half * one for one in first]))

    def _columns(self, values: Sequence[float]) -> Wire:
        """A constant for each gate's columns."""
        same = len(set(values)) == 1
        return self.graph.constant(values[0] if same else np.repeat(values, self.units), self.kind)

    def _dropped(self, gate: str) -> int:
        """The fraction bits of a gate's sum that its pre-activation drops."""
        return self.formats.bias_frac[gate] - self.formats.values[f"a.{gate}"].frac

    def rows(self, phase: Phase, operand: str) -> tuple[str, ...]:
        return tuple(gate for bundle in self._bundles(phase) for gate in bundle if operand in phase.gates[gate])

    def _bundles(self, phase: Phase) -> list[list[str]]:
        """The gates whose sums are rounded at once: they read the same operands and saturate alike."""
        bundles: dict[Any, list[str]] = {}
        for gate, reads in phase.gates.items():
            form = self.formats.values[f"a.{gate}"]
            bundles.setdefault((frozenset(reads), form.lo, form.hi), []).append(gate)
        for gates in bundles.values():  # the gates of one function beside each other
            order = [self._behind(gate) for gate in gates]
            gates.sort(key=lambda gate: order.index(self._behind(gate)))
        return list(bundles.values())

    def _behind(self, gate: str) -> Any:
        """What alone reads a pre-activation: a nonlinearity whose value is stored; its formats too."""
        lines = trace(self.cell)
        at = lines.gates[gate]
        if len(lines.readers(at)) == 1 and lines.operations[lines.readers(at)[0]].kind == "apply":
            applied = lines.readers(at)[0]
            after = [lines.operations[k] for k in lines.readers(applied)]
            if len(after) == 1 and after[0].kind == "store":
                values = self.formats.values
                return lines.operations[applied].function, values[f"a.{gate}"], values[after[0].name], after[0].name
        return gate

    def gates(self, phase: Phase, products: Mapping[str, Wire]) -> dict[str, Any]:
        if self.kind == INT64:
            return super().gates(phase, products)
        bundles = self._bundles(phase)
        sums: dict[int, Wire] = {}
        if len({self.rows(phase, operand) for operand in products}) == 1:  # added before they are split
            total, *others = products.values()
            for other in others:
                total = self.graph.op("Add", total, other)
            products = {next(iter(products)): total}
        for operand, whole in products.items():
            here = [k for k, gates in enumerate(bundles) if operand in phase.gates[gates[0]]]
            for k, part in zip(here, self._split(whole, [len(bundles[k]) for k in here]), strict=True):
                sums[k] = self.graph.op("Add", sums[k], part) if k in sums else part
        found: dict[str, Any] = {}
        for k, gates in enumerate(bundles):
            found |= self._rounded(gates, sums[k])
        return found

    def _split(self, whole: Wire, counts: Sequence[int], names: Sequence[str] = ()) -> list[Wire]:
        """Columns of so many gates each."""
        if len(counts) == 1:
            return [whole]
        sizes = self.graph.constant([self.units * n for n in counts], INT64)
        return self.graph.ops("Split", whole, sizes, names=names or [""] * len(counts), axis=-1)

    def _rounded(self, gates: Sequence[str], total: Wire) -> dict[str, Node]:
        """The pre-activations of a bundle from their sums, which stand in units of theirs with a half added."""
        graph, values = self.graph, self.formats.values
        form = values[f"a.{gates[0]}"]
        # In half units: all that is finer goes with the floor.
        doubled = [
            [Fraction(end) * 2 / Fraction(2) ** self._dropped(gate) for end in self.accumulators[gate]]
            for gate in gates
        ]
        lo, hi = math.floor(min(ends[0] for ends in doubled)), math.ceil(max(ends[1] for ends in doubled))
        number = Node(Line(total, lo, hi, 1, -1), 1, lo, hi, graph).to(replace(form, frac=0))
        whole = number.wire(f"{self.name}.a.{'_'.join(gates)}")
        runs: list[list[str]] = []
        for gate in gates:
            same = runs and self._behind(runs[-1][0])[:-1] == self._behind(gate)[:-1]
            if same and not isinstance(self._behind(gate), str):
                runs[-1].append(gate)
            else:
                runs.append([gate])
        parts = self._split(whole, [len(run) for run in runs], [f"{self.name}.a.{'_'.join(run)}" for run in runs])
        found: dict[str, Node] = {}
        for run, part in zip(runs, parts, strict=True):
            form = values[f"a.{run[0]}"]
            together = Node(part, form.frac, number.lo, number.hi, graph)
            if len(run) == 1:
                found[run[0]] = together
                continue
            function, _, after, _ = self._behind(run[0])
            names = [self._behind(gate)[-1] for gate in run]
            stored = together.apply(function).to(after)
            wires = self._split(stored.wire(f"{self.name}.{'_'.join(names)}"), [1] * len(run),
                                [f"{self.name}.{name}" for name in names])  # fmt: skip
            for gate, wire in zip(run, wires, strict=True):
                unread = Wire("", self.stored)
                found[gate] = Node(unread, form.frac, number.lo, number.hi, graph)
                applied = Node(unread, after.frac, stored.lo, stored.hi, graph)
                found[gate].foresee(function, applied)
                applied.foresee(after, Node(wire, after.frac, stored.lo, stored.hi, graph))
        return found

    def gate(self, name: str, total: Wire) -> Node:
        number = Node(total, self.formats.bias_frac[name], *self.accumulators[name], self.graph)
        return self.store(f"a.{name}", number)

    def old(self, name: str, wire: Wire) -> Node:
        form = self.formats.values[name]
        return Node(wire, form.frac, form.lo, form.hi, self.graph)

    def store(self, name: str, value: Node) -> Node:
        stored = value.to(self.formats.values[name])
        return Node(stored.wire(f"{self.name}.{name}"), stored.frac, stored.lo, stored.hi, self.graph)

    def wire(self, value: Node) -> Wire:
        return self.graph.cast(value.wire(), self.stored)


#: Bits of a number that every multiplier of float32 takes whole, also those that round their operands (TF32).
_SINGLE_OPERAND = 11


def _narrowest(layer: QuantizedLayer, reach: int) -> int:
    """The element type that a layer's numbers begin with: float32 where it holds all that is written."""
    forms = [*layer.formats.weights.values()]
    forms += [layer.formats.values[o] for o in layer.cell.operands]
    if reach >= EXACT_SINGLE or max(form.width for form in forms) > _SINGLE_OPERAND:
        return DOUBLE
    trial = Graph()
    writer = IntegerWriter(trial, "", layer, FLOAT)

    def product(phase: Phase, s: Values) -> dict[str, Any]:
        read = {o: Wire(o, FLOAT) if o == "x" else writer.wire(getattr(s, o)) for o in phase.operands}
        return writer.gates(phase, {o: writer.product(phase, o, wire) for o, wire in read.items()})

    olds = {name: writer.old(name, Wire(name, FLOAT)) for name in layer.cell.states}
    layer.cell.run(product, Values(olds, writer.store))
    return FLOAT if trial.reach < EXACT_SINGLE else DOUBLE


def layer_writer(graph: Graph, name: str, layer: Layer | QuantizedLayer) -> LayerWriter:
    return FloatWriter(graph, name, layer) if isinstance(layer, Layer) else IntegerWriter(graph, name, layer)


def recurrent(layer: LayerWriter, x: Wire) -> Wire:
    """A recurrent layer over (N, T, inputs) as a Scan: its output at every step, (N, T, units)."""
    graph, cell, name, units = layer.graph, layer.cell, layer.name, layer.units
    reading = [k for k, p in enumerate(cell.phases) if "x" in p.operands]
    fed = [layer.product(cell.phases[k], "x", x) for k in reading]  # of all steps at once
    slices = {k: Wire(f"{name}/products{k}", layer.kind) for k in reading}
    batch = graph.op("Shape", x, kind=INT64, start=0, end=1)
    shape = graph.op("Concat", batch, graph.constant([units], INT64), axis=0)
    zero = graph.op("Expand", graph.constant(0, layer.stored), shape)
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
        "Scan", *[zero for _ in olds], *fed,
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
