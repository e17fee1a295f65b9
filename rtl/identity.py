"""What a model is, and what a network with exchangeable weights is, as hashes."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from hwrnn.activations import Nonlinearity, PiecewiseLinear
from hwrnn.quantization import QuantizedLayer, QuantizedModel

__all__ = ["function_content", "model_hash", "structure"]


def model_hash(model: QuantizedModel) -> str:
    """SHA-256 over every integer, format, nonlinearity and scale of a model, independent of how it is stored."""
    content = {
        "layers": [_layer_content(layer) for layer in model.stack],
        "head": model.head is not None,
        "every_step": model.every_step,
        **_code_content(model),
        **({"final_state": True} if model.final_state else {}),
        "task": model.task,
        "scales": [
            [float(v).hex() for v in np.ravel(values)]
            for values in (model.input_mean, model.input_scale, model.output_mean, model.output_scale)
        ],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def structure(model: QuantizedModel) -> dict[str, Any]:
    """What a model has in common with every other one whose weights the same gates can take."""
    return {
        "layers": [_shape_content(layer) for layer in model.stack],
        "head": model.head is not None,
        "every_step": model.every_step,
        **_code_content(model),
    }


def _code_content(model: QuantizedModel) -> dict[str, Any]:
    """Where the code is repeated; nothing without an encoder, so that other models keep the hash that they had."""
    return {"encoder": model.encoder} if model.encoder else {}


def _run_content(layer: QuantizedLayer) -> dict[str, Any]:
    """How a layer runs; nothing for a forward one that starts at zero, so that it keeps the hash that it had."""
    flags = {name: True for name in ("reverse", "beside") if getattr(layer, name)}
    initial = {name: raw.tolist() for name, raw in sorted(layer.initial.items()) if raw.any()}
    return {**flags, **({"initial": initial} if initial else {})}


def _shape_content(layer: QuantizedLayer) -> dict[str, Any]:
    formats = layer.formats
    return {
        **_run_content(layer),
        "cell": layer.cell.name,
        "clip": None if layer.cell.clip is None else float(layer.cell.clip).hex(),
        "functions": [function_content(f) | {"name": ""} for f in layer.cell.functions.values()],
        "sizes": [layer.inputs, layer.units],
        "values": {name: form.to_json() for name, form in formats.values.items()},
        "weights": {f"{gate} {operand}": form.to_json() for (gate, operand), form in formats.weights.items()},
        "biases": dict(formats.bias_frac),
        "shifts": {f"{k} {operand}": shift for (k, operand), shift in formats.shifts.items()},
    }


def _layer_content(layer: QuantizedLayer) -> dict[str, Any]:
    formats = layer.formats
    return {
        **_run_content(layer),
        "cell": layer.cell.name,
        "clip": None if layer.cell.clip is None else float(layer.cell.clip).hex(),
        "functions": [function_content(f) for f in layer.cell.functions.values()],
        "sizes": [layer.inputs, layer.units],
        "values": {name: form.to_json() for name, form in formats.values.items()},
        "weights": {
            f"{gate} {operand}": [formats.weights[gate, operand].to_json(), values.tolist()]
            for (gate, operand), values in layer.weights.items()
        },
        "biases": {gate: [formats.bias_frac[gate], values.tolist()] for gate, values in layer.biases.items()},
        "shifts": {f"{phase} {operand}": shift for (phase, operand), shift in formats.shifts.items()},
    }


def function_content(function: Nonlinearity) -> dict[str, Any]:
    """A nonlinearity as hardware has it: between the knots, ``slope * x + intercept``."""
    if not isinstance(function, PiecewiseLinear):
        return {"name": function.name}
    return {
        "name": function.name,
        "knots": [str(v) for v in function.knots],
        "slopes": [str(v) for v in function.slopes],
        "intercepts": [str(v) for v in function.intercepts],
    }
