"""Layers of a quantized model as ONNX nodes that compute golden's integers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from hwrnn.cells import Phase, Values
from hwrnn.errors import UsageError
from hwrnn.model import Layer
from hwrnn.onnx_integers import EXACT_SINGLE, Line, Node, carrier_of
from hwrnn.onnx_layers import FloatWriter, LayerWriter
from hwrnn.onnx_numbers import DOUBLE, FLOAT, INT64, Graph, Wire
from hwrnn.quantization import QuantizedLayer
from hwrnn.trace import trace

__all__ = ["IntegerWriter", "layer_writer"]


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
        factors, half = [shift] * len(rows), 0.0
        if self.kind != INT64:
            factors, half = [shift * 2.0 ** -self._dropped(gate) for gate in rows], 0.5
        if factors != [1] * len(rows):
            factor = self._columns(factors)
            self.matrices[key] = graph.op("Mul", self.matrices[key], factor, name=f"{self.name}/scaled{k}.{operand}")
        if key in self.biases and half:
            first = [operand == next(o for o in phase.operands if o in phase.gates[gate]) for gate in rows]
            scaled = graph.op("Mul", self.biases[key], self._columns([f / shift for f in factors]))
            self.biases[key] = graph.op("Add", scaled, self._columns([half * one for one in first]))

    def _columns(self, values: Sequence[float]) -> Wire:
        """A constant for each gate's columns."""
        same = len(set(values)) == 1
        label = "" if same else f"{self.name}/powers_of_gates"
        return self.graph.constant(values[0] if same else np.repeat(values, self.units), self.kind, label)

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
    """What writes a layer, float or quantized."""
    return FloatWriter(graph, name, layer) if isinstance(layer, Layer) else IntegerWriter(graph, name, layer)
