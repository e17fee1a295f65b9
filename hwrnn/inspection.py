"""What is in a model: sizes, formats, the errors of its nonlinearities, the stability of its recurrence."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hwrnn import report
from hwrnn.activations import NONLINEARITIES, PARAMETRIC, Nonlinearity, PiecewiseLinear, nonlinearity, plainly_named
from hwrnn.cells import Cell
from hwrnn.certificates import certify
from hwrnn.errors import UsageError
from hwrnn.fixed import Format, bits_for
from hwrnn.model import Layer, Model
from hwrnn.onnx_graph import layer_names
from hwrnn.onnx_io import load
from hwrnn.quantization import QuantizedLayer, QuantizedModel
from hwrnn.stability import REACH, StateBound, matrix_of, spectrum, state_bounds
from hwrnn.trace import trace

__all__ = ["certificate_table", "describe", "description_table", "looks_like_nonlinearity"]

_FINEST = 14  # fraction bits at which a certificate tries inputs: 2**18 of them at most


def describe(model: str | os.PathLike[str] | Model | QuantizedModel) -> dict[str, Any]:
    """What is in a model (or a model file), as plain JSON values.

    Keys: ``kind`` (``float`` or ``quantized``), ``task``, ``every_step``, ``encoder`` (how many layers encode),
    ``final_state``, ``inputs``, ``outputs``, ``parameters``, ``multiplications_per_step``, ``facts``, and ``layers``, a
    list with the head last. Each layer has ``name``, ``cell``, ``inputs``, ``units``, ``direction`` (``forward`` or
    ``reverse``), ``reads`` (``input`` or the names of layers), ``initial`` (the range of each initial state given),
    ``clip``, ``parameters``, ``nonlinearities`` and ``recurrent``: the spectral radius and the 2-norm of every matrix
    that reads a state. A quantized model adds ``widths``, ``input_format``, ``output_format`` and to each layer
    ``formats``, ``weight_formats``, ``accumulator_bits`` and ``saturation``.

    Raises:
        UsageError: a file that :func:`hwrnn.load` refuses.
    """
    if not isinstance(model, Model | QuantizedModel):
        model = load(model)
    stack: Sequence[Layer | QuantizedLayer] = model.stack
    layers = [_layer(name, layer) for name, layer in zip(layer_names(model), stack, strict=True)]
    bounds = state_bounds(model)
    for k, layer in enumerate(layers):
        layer["reads"] = [layers[j]["name"] for j in model.sources(k)] or ["input"]
        layer["states"] = {b.state: _bound(b) for b in bounds if b.layer == k}
    found: dict[str, Any] = {
        "kind": "quantized" if isinstance(model, QuantizedModel) else "float",
        "task": model.task,
        "every_step": bool(model.every_step),
        "encoder": int(model.encoder),
        "final_state": bool(model.final_state),
        "inputs": model.inputs,
        "outputs": model.outputs,
        "parameters": sum(layer["parameters"] for layer in layers),
        "multiplications_per_step": sum(layer.multiplications for layer in stack),
    }
    if isinstance(model, QuantizedModel):
        found["widths"] = asdict(model.widths)
        found["input_format"], found["output_format"] = _notation(model.input_format), _notation(model.output_format)
        for k, layer in enumerate(layers):
            prefix = f"{k}."
            shares = {n.removeprefix(prefix): v for n, v in model.saturation.items() if n.startswith(prefix)}
            layer["saturation"] = dict(sorted(shares.items()))
    return found | {"facts": model.facts, "layers": layers, "warnings": [_warning(b) for b in bounds if b.growing]}


def _bound(found: StateBound) -> dict[str, Any]:
    bounded = math.isfinite(found.bound)
    return {"bound": found.bound if bounded else None, "norm": found.norm, "proof": found.words}


def _warning(found: StateBound) -> str:
    return (
        f"State {found.state} of layer {found.layer} can grow without end, and saturates in fixed point:"
        f" {found.growing} has no upper end. Clip it (relu1, relu6, --cell-clip of an lstm) or train a plain rnn with"
        " --spectral-norm 0.99"
    )


def _layer(name: str, layer: Layer | QuantizedLayer) -> dict[str, Any]:
    cell = layer.cell
    biases = sum(len(phase.gates) for phase in cell.phases) * layer.units
    found: dict[str, Any] = {
        "name": name,
        "cell": cell.name,
        "inputs": layer.inputs,
        "units": layer.units,
        "direction": "reverse" if layer.reverse else "forward",
        "initial": {state: _range(layer, state) for state in sorted(layer.initial)},
        "clip": cell.clip,
        "parameters": layer.multiplications + biases,
        "nonlinearities": _nonlinearities(cell, layer.formats.values if isinstance(layer, QuantizedLayer) else None),
        "recurrent": {
            f"{gate}.{operand}": spectrum(matrix_of(layer, gate, operand))
            for phase in cell.phases for gate, reads in phase.gates.items() for operand in reads if operand != "x"
        },
    }  # fmt: skip
    if isinstance(layer, QuantizedLayer):
        formats = layer.formats
        found["formats"] = {value: _notation(form) for value, form in formats.values.items()}
        found["weight_formats"] = {f"{gate}.{o}": _notation(form) for (gate, o), form in formats.weights.items()}
        found["accumulator_bits"] = {gate: bits_for(*ends)[0] for gate, ends in layer.accumulators.items()}
    return found


def _range(layer: Layer | QuantizedLayer, state: str) -> list[float]:
    """The smallest and the largest value of an initial state."""
    values = layer.initial[state]
    if isinstance(layer, QuantizedLayer):
        values = layer.formats.values[state].dequantize(values)
    return [float(values.min()), float(values.max())]


def _notation(form: Format) -> dict[str, Any]:
    return {"q": str(form), "ap_fixed": form.ap_fixed, **form.to_json()}


def _nonlinearities(cell: Cell, formats: dict[str, Format] | Any) -> dict[str, Any]:
    """By stored value: its nonlinearity, and its certificate, at the formats where there are any."""
    lines = trace(cell)
    found: dict[str, Any] = {}
    for name, at in lines.stores.items():
        for k in lines.operations[at].args:
            applied = lines.operations[k]
            if applied.function is None:
                continue
            source = None if formats is None else _source(formats, lines.operations[applied.args[0]])
            output = None if formats is None else formats[name]
            found[name] = {"function": applied.function.name, **_certificate(applied.function, source, output)}
    return found


def _source(formats: Any, read: Any) -> Format:
    """The format of what a nonlinearity reads; a sum that is nowhere stored is tried on a grid of the finest inputs."""
    form = formats.get(f"a.{read.name}" if read.kind == "gate" else read.name)
    return form or Format(_FINEST + 4, _FINEST)


def _certificate(function: Nonlinearity, source: Format | None, output: Format | None) -> dict[str, Any]:
    itself = function.stands_for == function.name and plainly_named(function.name) == function
    if function.stands_for is None or itself:
        return {"stands_for": function.stands_for, "certificate": None}
    bound = getattr(function, "bound", None)
    if isinstance(function, PiecewiseLinear):
        # A plain copy: a fitted function would be fitted anew for this output, and the model has the one it has.
        function = PiecewiseLinear(
            function.name, function.stands_for, function.knots, function.slopes, function.intercepts
        )
    if source is not None and source.frac > _FINEST:
        source = Format(max(source.width - source.frac + _FINEST, 2), _FINEST, source.signed)
    made = replace(certify(function, source, output), bound=bound)
    figures = {key: value for key, value in asdict(made).items() if key not in ("function", "stands_for")}
    return {"stands_for": function.stands_for, "certificate": {**figures, "inputs": str(source) if source else None}}


def looks_like_nonlinearity(text: str) -> bool:
    """Whether a word names a nonlinearity of the catalogue, and no file."""
    base = text.partition("|")[0].partition(":")[0]
    return (base in NONLINEARITIES or base in PARAMETRIC) and not Path(text).exists()


def certificate_table(name: str, bits: int | None = None) -> tuple[dict[str, Any], str]:
    """A nonlinearity's pieces and its error, as plain JSON values and as a table.

    Args:
        bits: fraction bits of input and output, of which every one within [-8, 8] is tried; a float grid where None.

    Raises:
        UsageError: a name that is not in the catalogue, or bits outside 1 to 16.
    """
    if bits is not None and not 1 <= bits <= 16:
        raise UsageError(f"Bits of a nonlinearity must be between 1 and 16, not {bits!r}")
    try:
        function = nonlinearity(name)
    except ValueError as error:
        raise UsageError(str(error)) from error
    source, output = (None, None) if bits is None else (Format(bits + 5, bits), Format(bits + 5, bits))
    if output is not None:
        function = function.in_hardware(output)
    found: dict[str, Any] = {"function": function.name, **_certificate(function, source, output), "pieces": None}
    rows: list[tuple[Any, ...]] = [("function", function.name), ("stands for", function.stands_for or "-")]
    if found["certificate"] is not None:
        rows += [(key, f"{found['certificate'][key]:.5f}") for key in ("maximum", "mean", "at")]
        if bits is not None:
            rows += [(f"{key} in LSB", f"{found['certificate'][f'{key}_lsb']:.2f}") for key in ("maximum", "mean")]
    text = report.table(rows)
    if isinstance(function, PiecewiseLinear):
        starts = ("-inf", *map(str, function.knots))
        pieces = list(zip(starts, map(str, function.slopes), map(str, function.intercepts), strict=True))
        found["pieces"] = [dict(zip(("from", "slope", "intercept"), piece, strict=True)) for piece in pieces]
        text += "\n\n" + report.table(pieces, ("from", "slope", "intercept"))
    return found, text


def description_table(found: dict[str, Any]) -> str:
    """What :func:`describe` found, as tables for people."""
    scalars = ["kind", "task", "every_step", "encoder", "inputs", "outputs", "parameters", "multiplications_per_step"]
    scalars[3:3] = ["final_state"] * found["final_state"]
    rows: list[tuple[Any, ...]] = [(key.replace("_", " "), found[key]) for key in scalars]
    rows += [(end.replace("_", " "), found[end]["q"]) for end in ("input_format", "output_format") if end in found]
    rows += [(f"fact {key}", value) for key, value in found["facts"].items() if not isinstance(value, (list, dict))]
    parts, before = [report.table(rows)], ["input"]
    for layer in found["layers"]:
        title = f"{layer['name']}: {layer['cell']}, {layer['inputs']} inputs, {layer['units']} units"
        title += f", clipped at {layer['clip']:g}" if layer["clip"] is not None else ""
        title += ", in reverse" if layer["direction"] == "reverse" else ""
        if layer["reads"] != before:
            title += f", reads {' and '.join(layer['reads'])}"
        before = [layer["name"]]
        starts = [f"{state} from {lo:.4g} to {hi:.4g}" for state, (lo, hi) in layer["initial"].items()]
        parts.append(title + (f", starts with {' and '.join(starts)}" if starts else ""))
        functions = []
        for name, f in layer["nonlinearities"].items():
            errors = [f"{f['certificate'][key]:.5f}" if f["certificate"] else "-" for key in ("maximum", "mean")]
            functions.append((name, f["function"], *errors))
        parts.append(report.table(functions, ("value", "nonlinearity", "maximum error", "mean error")))
        if layer["recurrent"]:
            matrices = [(m, f"{v['spectral_radius']:.3f}", f"{v['norm']:.3f}") for m, v in layer["recurrent"].items()]
            parts.append(report.table(matrices, ("matrix", "spectral radius", "2-norm")))
        if layer["states"]:
            given = f" for standardised inputs within {REACH:g}" if found["kind"] == "float" else ""
            states = [(state, v["proof"]) for state, v in layer["states"].items()]
            parts.append(report.table(states, ("state", f"bound at any length{given}")))
        if "formats" in layer:
            shares = layer["saturation"]
            formats = [
                (name, f["q"], f["ap_fixed"], report.percent(shares.get(name), 2))
                for name, f in (*layer["formats"].items(), *layer["weight_formats"].items())
            ]
            parts.append(report.table(formats, ("value", "format", "for HLS", "saturated")))
    parts += [f"Warning: {sentence}." for sentence in found["warnings"]]
    return "\n\n".join(parts)
