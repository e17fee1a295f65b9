"""Quantized graphs of other tools: QuantizeLinear and DequantizeLinear, QONNX's Quant, Brevitas' quantized LSTM.

A quantizer of constants gives the numbers that its integers stand for; one of computed values rounds them, which
:meth:`Imported.run` does and a model leaves out. Where the grids are powers of two they are formats, and
:func:`with_formats` finds which of the model's blocks and values has which. For that the graph is interpreted once
more with the constants of each grid *dyed*, filled with one number that stands for the grid: whatever transposes,
splits and joins weights carries the dye along, and what would add or multiply them gives a number that is no dye.

Definitions: https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html; QONNX: A. Pappalardo et al., arXiv:2206.07527.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import TensorProto

from hwrnn.errors import UsageError
from hwrnn.fixed import Format
from hwrnn.importing.assembly import Assembly, assembled
from hwrnn.importing.brevitas import RoundedLSTM
from hwrnn.importing.dense import settled
from hwrnn.importing.graph import Node, tensor_kind
from hwrnn.importing.grids import MOST_BITS, ROUNDING, Grid, rounded
from hwrnn.importing.layouts import constant, normal_axis
from hwrnn.importing.operators import Interpreter, operator
from hwrnn.importing.values import (
    Constant,
    Final,
    Host,
    Input,
    Pass,
    Pick,
    Source,
    Steps,
    Value,
    Vector,
    View,
    canonical,
)  # fmt: skip
from hwrnn.model import Layer

__all__ = ["Rounding", "with_formats"]

_QONNX = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
_MOST_DYES = 16  # powers of three that float32 holds
_FOUR_BITS = {getattr(TensorProto, "INT4", -1), getattr(TensorProto, "UINT4", -1)}


# -- ONNX's own --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Scales:
    """Scale and zero point of a node: one each, or one for each place along an axis of the quantized tensor."""

    scale: np.ndarray
    zero: np.ndarray
    axis: int | None

    def spread(self, node: Node, shape: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Arrays that broadcast with a tensor of the shape."""
        if self.axis is None:
            return self.scale, self.zero
        at = normal_axis(node, self.axis, len(shape))
        if len(self.scale) != shape[at]:
            raise node.refused(f"have {shape[at]} scales along axis {at}, not {len(self.scale)}")
        form = [1] * len(shape)
        form[at] = -1
        return self.scale.reshape(form), self.zero.reshape(form)


def _scales(node: Node, kind: np.dtype | None) -> tuple[_Scales, np.dtype | None]:
    """Scale, zero point and axis; the type of the integers, which the zero point has too."""
    scale = constant(node, 1, "its scale")
    given = node.optional(2)
    zero = np.zeros_like(scale, np.int64) if given is None else constant(node, 2, "its zero point")
    if given is not None:
        kind = zero.dtype
    axis = node.integer("axis", 1)
    if node.opset >= 21 and node.integer("block_size", 0):
        raise node.refused("have one scale for a tensor or for each place of an axis, not for blocks")
    if scale.ndim > 1 or (scale.shape != zero.shape and zero.size != 1):
        raise node.refused("have a scale and a zero point of one shape, of one axis at most")
    _check_scale(node, scale)
    zero = np.broadcast_to(zero, scale.shape).astype(np.int64)
    if scale.size == 1:
        return _Scales(scale.reshape(()), zero.reshape(()), None), kind
    return _Scales(scale, zero, axis), kind


def _check_scale(node: Node, scale: np.ndarray) -> None:
    if scale.dtype.kind != "f" or not np.isfinite(scale).all() or not (scale > 0).all():
        raise node.refused("have scales above 0")


def _width(node: Node, net: Interpreter, k: int, kind: np.dtype) -> int:
    """The bits of the integers: those of numpy's type, or four where the file says so."""
    name = node.proto.input[k] if k < len(node.proto.input) else ""
    four = any(t.name == name and t.data_type in _FOUR_BITS for t in net.proto.graph.initializer)
    return 4 if four else 8 * kind.itemsize


@operator("DequantizeLinear")
def _dequantize(node: Node, net: Interpreter) -> Sequence[Value]:
    value = node.value(0)
    kind = value.array.dtype if isinstance(value, Constant) else value.kind
    scales, _ = _scales(node, kind)
    if node.opset >= 23 and node.integer("output_dtype", 0) not in (0, TensorProto.FLOAT):
        raise node.refused("give float32")
    if kind.kind not in "iu":
        raise node.refused("read integers")
    if isinstance(value, Constant):
        scale, zero = scales.spread(node, value.array.shape)
        width = _width(node, net, 0, kind)
        numbers = (value.array.astype(np.int64) - zero).astype(np.float32) * scale.astype(np.float32)
        return [_constant(net, numbers, scale, zero, width, kind.kind == "i", False)]
    scale, zero = scales.spread(node, value.shape)
    if scale.size != 1:
        raise node.refused("have one scale and one zero point for a computed value")
    s, z = float(scale.reshape(-1)[0]), float(zero.reshape(-1)[0])
    return [View(value.axes, value.columns, value.scale * s, (value.offset - z) * s, np.dtype(np.float32))]


@operator("QuantizeLinear")
def _quantize(node: Node, net: Interpreter) -> Sequence[Value]:
    value = node.value(0)
    scales, kind = _scales(node, None)
    code = node.integer("output_dtype", 0) if node.opset >= 21 else 0
    if node.opset >= 19:
        node.integer("saturate", 1)  # of 8-bit floats only
    if node.opset >= 23:
        node.integer("precision", 0)
    if kind is None:
        kind = np.dtype(np.uint8) if code == 0 else tensor_kind(code)
    if kind is None or kind.kind not in "iu":
        raise node.refused("give integers of 4, 8 or 16 bits")
    width = 4 if code in _FOUR_BITS else _width(node, net, 2, kind)
    shape = value.array.shape if isinstance(value, Constant) else value.shape
    scale, zero = scales.spread(node, shape)
    if isinstance(value, Constant):
        grids, places = _grids(scale, zero, width, kind.kind == "i", False, value.array.shape)
        numbers = rounded(value.array, grids, places)
        whole = np.round(numbers / scale.astype(np.float32)) + zero
        return [Constant(whole.astype(kind))]
    if scale.size != 1:
        raise node.refused("have one scale and one zero point for a computed value")
    grid = Grid(width, kind.kind == "i", float(scale), int(zero))
    return [_passing(node, net, value, grid, "ROUND", kind)]


# -- QONNX -------------------------------------------------------------------------------------------------------------
@operator(*(f"{domain}.{name}" for domain in _QONNX for name in ("Quant", "IntQuant")))
def _quant(node: Node, net: Interpreter) -> Sequence[Value]:
    value = node.value(0)
    scale, zero, bits = (constant(node, k, words) for k, words in
                         ((1, "its scale"), (2, "its zero point"), (3, "its number of bits")))  # fmt: skip
    signed, narrow = node.flag("signed", 1), node.flag("narrow", 1 if node.operator.endswith("IntQuant") else 0)
    mode = node.text("rounding_mode", "ROUND").upper()
    if mode not in ROUNDING:
        raise node.refused(f"have a rounding mode of {', '.join(ROUNDING)}, not {mode[:40]!r}")
    _check_scale(node, scale)
    if bits.size != 1 or float(bits.reshape(-1)[0]) not in range(1, MOST_BITS + 1):
        raise node.refused(f"have one whole number of bits, of 1 to {MOST_BITS}")
    width = int(bits.reshape(-1)[0])
    if width == 1 and signed:
        raise node.refused("have more than 1 bit where it is signed: BipolarQuant has one")
    if (zero != np.round(zero)).any() or zero.size not in (1, scale.size):
        raise node.refused("have whole zero points, one or as many as scales")
    zero = np.broadcast_to(zero, scale.shape) if zero.size == 1 else zero.reshape(scale.shape)
    if isinstance(value, Constant):
        if value.array.dtype.kind != "f":
            raise node.refused("read floats")
        grids, places = _grids(scale, zero, width, signed, narrow, value.array.shape, node)
        return [_constant(net, rounded(value.array, grids, places, mode), scale, zero, width, signed, narrow)]
    if scale.size != 1:
        raise node.refused("have one scale and one zero point for a computed value")
    grid = Grid(width, signed, float(scale.reshape(-1)[0]), int(zero.reshape(-1)[0]), narrow)
    return [_passing(node, net, value, grid, mode, np.dtype(np.float32))]


@operator(*(f"{domain}.BipolarQuant" for domain in _QONNX))
def _bipolar(node: Node, net: Interpreter) -> Sequence[Value]:
    value, scale = node.value(0), constant(node, 1, "its scale")
    _check_scale(node, scale)
    if not isinstance(value, Constant):
        raise node.refused("quantize weights: hwrnn has no sign function as a nonlinearity")
    signs = np.where(value.array >= 0, np.float32(1), np.float32(-1))
    # Two bits hold both signs; one bit of hwrnn's holds 0 too, and not 1.
    return [_constant(net, signs * scale.astype(np.float32), scale, np.zeros_like(scale), 2, True, True)]


# -- both --------------------------------------------------------------------------------------------------------------
@dataclass(eq=False, kw_only=True)
class Rounding(Host):
    """A quantizer of computed values.

    Attributes:
        grid: where it puts them.
        integers: whether it gives the whole numbers and not what they stand for.
        node: its name.
    """

    grid: Grid
    integers: bool
    node: str

    @property
    def passed(self) -> Vector:
        if not self.integers:
            return self.operand
        columns, scale, offset = self.operand.parts
        return Vector(columns, scale / self.grid.scale, offset / self.grid.scale + self.grid.zero)


def _grids(
    scale: np.ndarray, zero: np.ndarray, width: int, signed: bool, narrow: bool, shape: Sequence[int],
    node: Node | None = None,
) -> tuple[list[Grid], np.ndarray]:  # fmt: skip
    """The grids of a tensor, and which of them each element has."""
    pairs = np.stack(np.broadcast_arrays(scale.astype(np.float64), zero.astype(np.float64)), -1).reshape(-1, 2)
    known: dict[tuple[float, float], int] = {}
    index = np.array([known.setdefault(tuple(pair), len(known)) for pair in pairs.tolist()])
    try:
        places = np.broadcast_to(index.reshape(scale.shape), shape)
    except ValueError as error:
        if node is None:
            raise
        raise node.refused(f"have scales that fit the shape {tuple(shape)}, not {scale.shape}") from error
    return [Grid(width, signed, s, int(z), narrow) for s, z in known], places


def _constant(
    net: Interpreter, numbers: np.ndarray, scale: np.ndarray, zero: np.ndarray, width: int, signed: bool, narrow: bool
) -> Constant:
    """Dequantized numbers, or in their place the dyes of their grids."""
    grids, places = _grids(scale, zero, width, signed, narrow, numbers.shape)
    for grid in grids:
        net.grids[grid] = None
    if net.dyes is None:
        return Constant(numbers.astype(np.float32))
    return Constant(np.array([net.dyes.get(grid, 0) for grid in grids], np.float32)[places])


def _passing(node: Node, net: Interpreter, view: View, grid: Grid, mode: str, kind: np.dtype) -> View:
    """A computed value on a grid: its whole numbers, or with a float ``kind`` what they stand for."""
    integers = kind.kind != "f"
    scale, zero = np.float32(grid.scale), np.float32(grid.zero)

    def function(x: np.ndarray) -> np.ndarray:
        whole = np.clip(ROUNDING[mode](np.asarray(x, np.float32) / scale) + zero, grid.lo, grid.hi)
        return np.asarray(whole if integers else (whole - zero) * scale, np.float32)

    source = Rounding(
        units=view.columns.size, timed=net.sources.timed(view.columns), operand=settled(net, view.vector), kind=kind,
        function=function, words=node.operator, passing=True, grid=grid, integers=integers, node=node.name,
    )  # fmt: skip
    return canonical(net.sources.view(net.sources.add(source), view.axes))


# -- formats -----------------------------------------------------------------------------------------------------------
def with_formats(net: Interpreter, found: Assembly, output: str, task: str | None) -> Assembly:
    """A model with what its file says of formats among its facts, and sentences about what it does not keep.

    ``facts["formats"]`` has ``values`` by ``"LAYER.NAME"`` and ``weights`` by ``"LAYER.GATE.OPERAND"``;
    ``hwrnn.quantize`` takes them.
    """
    roundings = {host.number: host for host in found.passing if isinstance(host, Rounding)}
    if not net.grids and not roundings:
        return found
    notes = list(found.notes)
    values: dict[str, Any] = {}
    for host in roundings.values():
        place, form = _place(net, found, host), host.grid.format
        if place is None or form is None or values.get(place, form.to_json()) != form.to_json():
            why = "its scale is no power of two" if form is None else "its place has no format of its own"
            notes.append(f"Quantizer {host.node[:80]!r} is left out of the model, because {why}; quantize chooses")
        else:
            values[place] = form.to_json()
    for k, member in enumerate(found.members):
        if isinstance(member, Pass) and isinstance(member.layer, RoundedLSTM):
            forms = {name: grid.format for name, (grid, _) in member.layer.grids.items()}
            values |= {f"{k}.{name}": form.to_json() for name, form in forms.items() if form is not None}
            others = ", ".join(name for name, form in forms.items() if form is None)
            if others:
                notes.append(
                    f"Values {others} of layer {k} are rounded to grids that are no powers of two; quantize chooses"
                    " their formats"
                )
    found = replace(found, model=replace(found.model, layers=tuple(map(_plain, found.model.layers))))
    weights = _weights(net, found, output, task, notes) if net.grids else {}
    if not values and not weights:
        return replace(found, notes=tuple(notes))
    facts = {**found.model.facts, "formats": {"values": values, "weights": weights}}
    notes.append(f"Formats of {len(weights)} blocks of weights and {len(values)} values are those of the file")
    return replace(found, model=replace(found.model, facts=facts), notes=tuple(notes))


def _plain(layer: Layer) -> Layer:
    """A layer that rounds nothing."""
    return Layer(layer.cell, layer.inputs, layer.units, layer.parameters, initial=layer.initial,
                 reverse=layer.reverse, beside=layer.beside)  # fmt: skip


def _place(net: Interpreter, found: Assembly, host: Rounding) -> str | None:
    """The value of the model that a quantizer rounds, ``"LAYER.NAME"``."""
    model, vector = found.model, host.operand
    sources = {id(member): k for k, member in enumerate(found.members)}
    owners = {_owner(source) for source in net.sources.of(vector.columns)}
    if len(owners) != 1:
        return None
    (owner,) = owners
    if isinstance(owner, Input):
        scale, mean = model.input_scale.astype(np.float64), model.input_mean.astype(np.float64)
        fits = len(vector.scale) == len(scale) and np.allclose(vector.scale, scale)
        return "0.x" if fits and np.allclose(vector.offset, -mean * scale) else None
    if id(owner) not in sources or not vector.plain:
        return None
    k = sources[id(owner)]
    return f"{k}.{model.stack[k].cell.output}" if k < len(model.stack) else None


def _owner(source: Source) -> Any:
    """The pass, dense layer or input that a source is of."""
    if isinstance(source, Pick):
        return _owner(source.of)
    return source.of if isinstance(source, Steps | Final) else source


def _weights(net: Interpreter, found: Assembly, output: str, task: str | None, notes: list[str]) -> dict[str, Any]:
    """The formats of the blocks of weights that the file has on grids of powers of two."""
    grids = list(net.grids)[:_MOST_DYES]
    dyes = {grid: float(3**k) for k, grid in enumerate(grids)}  # float32 holds them; no sum of two is a third
    dyed = Interpreter(net.proto, bool(net.zeroed), dyes)
    value = dyed.outputs[output]
    if isinstance(value, UsageError):
        return {}
    colours = assembled(dyed, output, value, task, {}).model
    if [_shape(layer) for layer in colours.stack] != [_shape(layer) for layer in found.model.stack]:
        # A layer that does nothing, of ones or zeros, does something once it is dyed.
        notes.append("Formats of weights are left out, because what the layers are depends on their numbers")
        return {}
    known = {dye: grid for grid, dye in dyes.items()}
    weights: dict[str, Any] = {}
    for k, (layer, colour) in enumerate(zip(found.model.stack, colours.stack, strict=True)):
        errors: list[np.ndarray] = []
        for gate, reads in ((gate, reads) for phase in layer.cell.phases for gate, reads in phase.gates.items()):
            for operand in reads:
                block, seen = layer.block(gate, operand), colour.block(gate, operand)
                # A peephole's matrix is its diagonal.
                shades = set(np.unique(seen).tolist()) - ({0.0} if operand == "c" else set())
                grid = known.get(shades.pop()) if len(shades) == 1 else None
                form = None if grid is None else grid.format
                if grid is not None and form is not None and _holds(form, block):
                    weights[f"{k}.{gate}.{operand}"] = form.to_json()
                elif grid is not None and block.any():
                    near = Format.to_hold(min(float(block.min()), 0.0), max(float(block.max()), 0.0), grid.width)
                    errors.append(np.abs(near.dequantize(near.quantize(block)) - block).reshape(-1) / near.step)
        if errors:
            every = np.concatenate(errors)
            notes.append(
                f"Weights of layer {k} stand on grids that are no powers of two: in the nearest formats of as many bits"
                f" they differ by at most {every.max():.2f} and on average {every.mean():.2f} least significant bits"
            )
    return weights


def _shape(layer: Layer) -> tuple[str, int, int]:
    return layer.cell.name, layer.inputs, layer.units


def _holds(form: Format, block: np.ndarray) -> bool:
    return bool((form.dequantize(form.quantize(block)) == block).all())
