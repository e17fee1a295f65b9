"""The choice of formats: how many bits of which weight each value of a network gets.

A person chooses the widths (:class:`Widths`); the fraction bits come from calibration, and those of weights
from the weights themselves and from where the products of a row must meet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np

from hwrnn.activations import Nonlinearity
from hwrnn.calibration import Calibration, Seen, fine_format, format_for, joined
from hwrnn.errors import UsageError
from hwrnn.fixed import Format
from hwrnn.model import Layer, Model, Stack
from hwrnn.trace import trace

__all__ = [
    "PORT",
    "Choice",
    "LayerFormats",
    "Widths",
    "choice_of",
    "choose_formats",
    "derived_formats",
    "first_choice",
    "kinds_of",
    "output_key",
]

#: Bits of the narrowest multiplier's port (iCE40): a shift must not push an operand beyond it.
PORT = 16
_LARGEST_SHIFT = 6  # of an operand before the multiplier


@dataclass(frozen=True)
class Widths:
    """The number of bits of every kind of stored value.

    Attributes:
        weights: of the matrices.
        activations: of the input, the gates and what else enters a multiplier.
        state: of the hidden state.
        cell: of a cell state, which needs integer bits.
        output: of a dense head's scores.
        tensors: where one tensor has other bits than its kind (``hwrnn.mixed``): by ``"K.weights"``,
            ``"K.activations"``, ``"K.state"`` and ``"K.cell"`` of layer K, and ``"0.input"``, the network's input.
    """

    weights: int
    activations: int
    state: int
    cell: int
    output: int = 16
    tensors: Mapping[str, int] = field(default_factory=dict, hash=False)

    @property
    def input(self) -> int:
        """Bits of the network's input."""
        return self.tensors.get("0.input", self.at(0).activations)

    def at(self, layer: int) -> Widths:
        """The widths of one layer, without exceptions."""
        if not self.tensors:
            return self
        kinds = ("weights", "activations", "state", "cell")
        weights, activations, state, cell = (self.tensors.get(f"{layer}.{kind}", getattr(self, kind)) for kind in kinds)
        return Widths(weights, activations, state, cell, self.output)

    @classmethod
    def of(cls, bits: int, **chosen: int | None) -> Widths:
        """All from one number: the cell state gets four bits more; ``chosen`` overrides where not None.

        Raises:
            UsageError: a width outside 2 to 32 (36 for the cell state).
        """
        given = {"bits": bits, **{name: value for name, value in chosen.items() if value is not None}}
        for name, value in given.items():
            most = 36 if name == "cell" else 32
            if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not 2 <= value <= most:
                what = "Bits" if name == "bits" else f"Bits of {name}"
                raise UsageError(f"{what} must be a whole number between 2 and {most}, not {value!r}")
        n = int(given.pop("bits"))
        widths = {"weights": n, "activations": n, "state": n, "cell": n + 4, "output": max(16, n)}
        widths |= {name: int(value) for name, value in given.items()}
        return cls(widths["weights"], widths["activations"], widths["state"], widths["cell"], widths["output"])


@dataclass(frozen=True)
class LayerFormats:
    """Every format of a layer.

    Attributes:
        values: of ``x``, of each stored value by name, and of each pre-activation as ``a.GATE``.
        weights: of each gate's block of each operand, by ``(gate, operand)``.
        bias_frac: fraction bits of each gate's accumulator, at which its bias stands.
        shifts: by how many bits each operand of each phase is shifted left before it enters the multiplier,
            by ``(phase, operand)``, so that the products of all operands of a row meet at one fraction.
    """

    values: Mapping[str, Format]
    weights: Mapping[tuple[str, str], Format]
    bias_frac: Mapping[str, int]
    shifts: Mapping[tuple[int, str], int]

    def to_json(self) -> dict[str, Any]:
        """Plain dictionaries for files."""
        return {
            "values": {name: f.to_json() for name, f in self.values.items()},
            "weights": {f"{gate}.{operand}": f.to_json() for (gate, operand), f in self.weights.items()},
            "bias_frac": {gate: int(frac) for gate, frac in self.bias_frac.items()},
            "shifts": {f"{k}.{operand}": int(shift) for (k, operand), shift in self.shifts.items()},
        }

    @classmethod
    def from_json(cls, what: Mapping[str, Any]) -> LayerFormats:
        """What :meth:`to_json` gave.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: anything else.
        """
        weights, shifts = what["weights"].items(), what["shifts"].items()
        return cls(
            {name: Format(**f) for name, f in what["values"].items()},
            {tuple(name.split(".")): Format(**f) for name, f in weights},
            dict(what["bias_frac"]),
            {(int(k), operand): shift for k, operand, shift in ((*name.split("."), s) for name, s in shifts)},
        )


@dataclass(frozen=True)
class Choice:
    """What calibration chooses; every other format follows from it (:func:`derived_formats`).

    Attributes:
        values: by ``(layer, name)``: the input of layer 0, every stored value, and every pre-activation that enters a
            multiplier. Layers side by side have one format for their outputs, by the first one's name.
        weights: fraction bits by ``(layer, gate, operand)``: the finest that a block may have.
    """

    values: Mapping[tuple[int, str], Format]
    weights: Mapping[tuple[int, str, str], int]


def choose_formats(
    model: Model, seen: Calibration, widths: Widths, method: str = "mse", operand_bits: int = PORT
) -> list[LayerFormats]:
    """The formats of every layer of the stack, from the input on, each value and each block judged by itself.

    Args:
        method: ``mse`` or ``max``; ``hwrnn.search`` goes on from there by the task's loss.
        operand_bits: what no operand's shift may push it beyond.
    """
    return derived_formats(model, seen, widths, first_choice(model, seen, widths, method), operand_bits)


def first_choice(model: Model, seen: Calibration, widths: Widths, method: str) -> Choice:
    """The choice that loses least of each value and of each block of weights (``mse``), or holds all (``max``)."""
    values: dict[tuple[int, str], Format] = {(0, "x"): format_for(seen[0, "x"], widths.input, method)}
    weights: dict[tuple[int, str, str], int] = {}
    for index, layer in enumerate(model.stack):
        for name, width in _stored(model, index, widths.at(index)).items():
            alike = [seen[key] for key in _alike(model, index, name)]
            values[index, name] = format_for(alike[0] if len(alike) == 1 else joined(alike), width, method)
        for gate, reads in ((g, r) for p in layer.cell.phases for g, r in p.gates.items()):
            for o in reads:
                weights[index, gate, o] = _weight_frac(layer.block(gate, o), widths.at(index).weights, method)
    return Choice(values, weights)


def choice_of(model: Model, widths: Widths, formats: Sequence[LayerFormats]) -> Choice:
    """The choice that known formats of a model came of."""
    values = {(0, "x"): formats[0].values["x"]}
    for k, f in enumerate(formats):
        values.update({(k, name): f.values[name] for name in _stored(model, k, widths)})
    weights = {(k, *key): form.frac for k, f in enumerate(formats) for key, form in f.weights.items()}
    return Choice(values, weights)


def kinds_of(model: Model, index: int) -> dict[str, str]:
    """The kind of every stored value of a layer whose format is chosen: a name of :class:`Widths`.

    The output of a layer beside another has that one's format, since the next layer reads both as one vector.
    """
    cell, found = model.stack[index].cell, {}
    last = (len(model.layers),) if model.head is not None else model.groups[-1]
    for name in trace(cell).stores:
        found[name] = "activations"
        if not cell.states:
            found[name] = "output" if index in last else "activations"
        elif name == cell.output:
            found[name] = "state"
        elif name in cell.states:
            found[name] = "cell"
    if output_key(model, index)[0] != index:
        del found[cell.output]
    return found


def output_key(model: Stack[Any], index: int) -> tuple[int, str]:
    """The first of the layers side by side with a layer, and its output, whose format is that of them all."""
    first = next((group[0] for group in model.groups if index in group), index)
    return first, model.stack[first].cell.output


def _alike(model: Model, index: int, name: str) -> list[tuple[int, str]]:
    """The values that share a chosen format."""
    if (index, name) != output_key(model, index):
        return [(index, name)]
    return [(k, model.stack[k].cell.output) for k in next((g for g in model.groups if index in g), (index,))]


def _stored(model: Model, index: int, widths: Widths) -> dict[str, int]:
    """The width of every value of a layer whose format is chosen."""
    found = {name: getattr(widths, kind) for name, kind in kinds_of(model, index).items()}
    lines = trace(model.stack[index].cell)
    for gate, at in lines.gates.items():
        if any(lines.operations[k].kind == "mul" for k in lines.readers(at)):
            found[f"a.{gate}"] = widths.activations + 2
    return found


def derived_formats(
    model: Model, seen: Calibration, widths: Widths, choice: Choice, operand_bits: int = PORT
) -> list[LayerFormats]:
    """All formats of a choice: those of the other pre-activations, of the weights and of the sums."""
    formats: list[LayerFormats] = []
    for index, layer in enumerate(model.stack):
        sources = model.sources(index)
        source = choice.values[output_key(model, sources[0]) if sources else (0, "x")]
        values = _value_formats(layer, index, seen, choice, source, choice.values[output_key(model, index)])
        formats.append(_weight_formats(layer, values, widths.at(index), index, seen, choice, operand_bits))
    return formats


def _value_formats(
    layer: Layer, index: int, seen: Calibration, choice: Choice, source: Format, output: Format
) -> dict[str, Format]:
    values = {"x": source}
    lines = trace(layer.cell)
    for name in lines.stores:
        values[name] = output if name == layer.cell.output else choice.values[index, name]
    for gate, at in lines.gates.items():
        range_ = seen[index, f"a.{gate}"]
        readers = [lines.operations[k] for k in lines.readers(at)]
        function = readers[0].function if len(readers) == 1 and readers[0].kind == "apply" else None
        if function is not None:
            after = [lines.operations[k] for k in lines.readers(lines.readers(at)[0])]
            if len(after) == 1 and after[0].kind == "store":
                values[f"a.{gate}"] = _before(function, values[after[0].name], range_)
                continue
        if (index, f"a.{gate}") in choice.values:
            values[f"a.{gate}"] = choice.values[index, f"a.{gate}"]
        else:
            finest = max(values[name].frac for name in lines.stores)
            values[f"a.{gate}"] = fine_format(range_, finest + 1)
    return values


def _before(function: Nonlinearity, output: Format, range_: Seen) -> Format:
    """The format of a pre-activation that a nonlinearity reads: as wide as it takes to lose next to nothing.

    Its step is at most half the one that moves the output by one step, and it ends where the function is flat
    or its result saturates, or at twice the largest value seen.
    """
    hardware = function.in_hardware(output)
    steepest = max(abs(s) for s in hardware.gradients) or 1  # of a constant nothing need be known
    frac = output.frac + math.ceil(math.log2(steepest)) + 1
    ends = []
    for side, knots in ((0, hardware.knots[:1]), (-1, hardware.knots[-1:])):
        slope, intercept, flat = hardware.slopes[side], hardware.intercepts[side], hardware.flat_beyond[side]
        if flat is None and slope:
            # Outwards from the last knot, where the line leaves the format.
            limit = output.min - output.step if (side == 0) == (slope > 0) else output.max + output.step
            reached = [(limit - float(intercept)) / float(slope), *map(float, knots)]
            flat = min(reached) if side == 0 else max(reached)
        ends.append(flat or 0.0)
    lo, hi = max(2 * range_.lo, ends[0]), min(2 * range_.hi, ends[1])
    return fine_format(replace(range_, lo=min(lo, hi, 0.0), hi=max(lo, hi, 2.0**-frac)), frac, margin=1.0)


def _weight_formats(
    layer: Layer, values: Mapping[str, Format], widths: Widths, index: int, seen: Calibration, choice: Choice, port: int
) -> LayerFormats:
    """Formats of the weights, such that the products of a row meet at one fraction.

    Each block has a finest fraction of its own; where two blocks of a row would not meet, one of them loses
    fraction bits, or the other's operand is shifted. All shifts are tried, and the least error in the sums
    wins.
    """
    weights: dict[tuple[str, str], Format] = {}
    bias_frac: dict[str, int] = {}
    shifts: dict[tuple[int, str], int] = {}
    for k, phase in enumerate(layer.cell.phases):
        finest: dict[tuple[str, str], int] = {}
        for gate, reads in phase.gates.items():
            for operand in reads:
                finest[gate, operand] = choice.weights[index, gate, operand]
        limit = {gate: _finest_sum(layer, gate, values[f"a.{gate}"], widths) for gate in phase.gates}
        most = [max(0, min(_LARGEST_SHIFT, port - values[o].width)) for o in phase.operands]
        best: tuple[float, int] | None = None
        for shift in product(*(range(n + 1) for n in most)):
            if min(shift):
                continue  # a shift that all operands share changes nothing
            point = {o: values[o].frac + s for o, s in zip(phase.operands, shift, strict=True)}
            meet = {
                gate: min(limit[gate], *(finest[gate, o] + point[o] for o in reads))
                for gate, reads in phase.gates.items()
            }
            made = {(g, o): Format(widths.weights, meet[g] - point[o]) for g, o in finest}
            loss = sum(_loss(layer.block(g, o), form) * seen.power(index, o) for (g, o), form in made.items())
            if best is None or (loss, sum(shift)) < best:
                best = (loss, sum(shift))
                weights.update(made)
                bias_frac.update(meet)
                shifts.update({(k, o): s for o, s in zip(phase.operands, shift, strict=True)})
    return LayerFormats(dict(values), weights, bias_frac, shifts)


def _finest_sum(layer: Layer, gate: str, output: Format, widths: Widths) -> int:
    """The most fraction bits that a gate's accumulator may have.

    Blocks of tiny weights (pruned, or decayed to nothing) would otherwise make it as fine as they are. Eight
    bits beyond a product of weights as large as 1 lose nothing of the pre-activation; and a bias must fit
    int64.
    """
    largest = float(np.abs(layer.block(gate, "b")).max())
    return min(output.frac + widths.weights + 8, 61 - math.ceil(math.log2(max(largest, 1.0))))


def _loss(w: np.ndarray, form: Format) -> float:
    """The squared error of a block of weights in a format."""
    error = form.dequantize(form.quantize(w)) - w
    return float((error * error).sum())


def _weight_frac(w: np.ndarray, width: int, method: str) -> int:
    """The fraction bits that lose least on a block of weights."""
    if w.any():
        holds = Format.to_hold(min(float(w.min()), -(2.0**-40)), max(float(w.max()), 0.0), width)
    else:
        holds = Format.to_hold(-1.0, 0.0, width)
    if method == "max":
        return holds.frac
    return min((Format(width, holds.frac + k) for k in range(3)), key=lambda form: _loss(w, form)).frac
