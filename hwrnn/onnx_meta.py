"""What ONNX cannot say of a model, as versioned JSON: cells, nonlinearities, formats, facts; and back, checked.

Numbers that must come back exactly (knots, slopes, intercepts) are fractions as text, so that reading never fits
anything again. Whatever is wrong with a description raises :class:`hwrnn.errors.Damaged`, to which ``hwrnn.onnx_io``
adds the file's name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from hwrnn import __version__
from hwrnn.activations import NONLINEARITIES, Nonlinearity, PiecewiseLinear, clipped, plainly_named
from hwrnn.cells import CELLS, Cell, Dense, cell_named
from hwrnn.clipping import ClippedLines
from hwrnn.directions import groups_of, layers_fault
from hwrnn.errors import Damaged, UsageError, shown
from hwrnn.fitting import FORMS, Fitted
from hwrnn.fitting_general import Approximation
from hwrnn.fixed import Format
from hwrnn.formats import LayerFormats, Widths
from hwrnn.model import Layer, Model
from hwrnn.quantization import QuantizedLayer, QuantizedModel
from hwrnn.staircase import Staircase
from hwrnn.trace import trace

__all__ = ["FORMAT_VERSION", "described", "rebuilt"]

FORMAT_VERSION = 3
_PLAIN_VERSION = 1  # of models that an older hwrnn reads as they are meant
_ENCODER_VERSION = 2

_LARGEST_SIZE = 1 << 24  # of a layer; beyond it a file is damaged rather than large
_LARGEST_FRAC = 256
_LONGEST_NAME = 200
_FRACTION = re.compile(r"-?[0-9]{1,40}(/[0-9]{1,40})?")
_WIDTHS = tuple(f.name for f in fields(Widths) if f.name != "tensors")

#: Gives a parameter by name, checked against its shape and the element kinds allowed (numpy's ``i`` or ``f``).
Fetch = Callable[[str, tuple[int, ...], str], np.ndarray]


# -- writing -----------------------------------------------------------------------------------------------------------
def described(model: Model | QuantizedModel) -> str:
    """The description of a model as JSON, the same text for equal models.

    Raises:
        UsageError: facts that are no plain JSON values, or a cell that is not in the catalogue.
    """
    what: dict[str, Any] = {
        "format": _version(model),
        "hwrnn": __version__,
        "kind": "quantized" if isinstance(model, QuantizedModel) else "float",
        "task": model.task,
        "every_step": bool(model.every_step),
        "layers": [_layer(layer) for layer in model.layers],
        "head": None if model.head is None else _layer(model.head),
        "facts": model.facts,
    }
    if model.encoder:
        what["encoder"] = int(model.encoder)
    if model.final_state:
        what["final_state"] = True
    if isinstance(model, QuantizedModel):
        what["widths"] = asdict(model.widths)
        what["saturation"] = model.saturation
    try:
        return json.dumps(what, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"Facts and saturation must be plain finite JSON values to be saved, but {error}") from error


def _version(model: Model | QuantizedModel) -> int:
    """The least version that says all of a model, so that whatever hwrnn knows it can read the file."""
    directed = any(layer.reverse or layer.beside or layer.initial for layer in model.layers)
    newer = directed or any(layer.cell.psi is not None for layer in model.stack)
    if newer or not all(layer.cell.states for layer in model.layers):
        return FORMAT_VERSION
    return _ENCODER_VERSION if model.encoder else _PLAIN_VERSION


def _layer(layer: Layer | QuantizedLayer) -> dict[str, Any]:
    cell = layer.cell
    known = Dense if cell.name == Dense.name else CELLS.get(cell.name)
    if type(cell) is not known:
        raise UsageError(f"Cell must be in the catalogue to be saved, not {type(cell).__name__}")
    what: dict[str, Any] = {
        "cell": cell.name, "clip": cell.clip, "inputs": int(layer.inputs), "units": int(layer.units),
        **{role: _function(function) for role, function in cell.functions.items()},
    }  # fmt: skip
    what |= {key: True for key in ("reverse", "beside") if getattr(layer, key)}
    if layer.initial:
        what["initial"] = sorted(layer.initial)
    if isinstance(layer, QuantizedLayer):
        what |= layer.formats.to_json()
    return what


def _function(function: Nonlinearity) -> dict[str, Any]:
    what: dict[str, Any] = {"name": function.name, "stands_for": function.stands_for}
    if function.name not in NONLINEARITIES and plainly_named(function.name) == function:
        return what  # the name says its numbers
    if isinstance(function, ClippedLines):
        return what | {"of": _function(function.inner), "limit": float(function.bound)}
    if isinstance(function, PiecewiseLinear):
        for key in ("knots", "slopes", "intercepts"):
            what[key] = [str(value) for value in getattr(function, key)]
    if isinstance(function, Staircase):
        what["steepness"] = [str(value) for value in function.steepness]
    if isinstance(function, Approximation):
        what["bound"] = function.bound
    if isinstance(function, Fitted):
        what.update(fits=function.fits, segments=function.segments, terms=function.terms, form=function.form)
    return what


# -- reading -----------------------------------------------------------------------------------------------------------
def rebuilt(text: str, fetch: Fetch) -> Model | QuantizedModel:
    """The model of a description and its parameters.

    Raises:
        Damaged: a description that no model has.
    """
    what = json.loads(text)
    version = _get(what, "format", int)
    if not _PLAIN_VERSION <= version <= FORMAT_VERSION:
        newer = ": install a newer hwrnn" if version > FORMAT_VERSION else ""
        known = f"{_PLAIN_VERSION} to {FORMAT_VERSION}"
        raise Damaged(f"have format {known}, not {version}, written by hwrnn {what.get('hwrnn')}{newer}")
    kind, task = _get(what, "kind", str), _get(what, "task", str)
    if kind not in ("float", "quantized") or task not in ("classification", "regression"):
        raise Damaged(f"describe a float or quantized model for classification or regression, not {kind!r}, {task!r}")
    build = _float_layer if kind == "float" else _integer_layer
    layers = [_opened(w, f"layer{k}", build, fetch) for k, w in enumerate(_get(what, "layers", list))]
    if not layers:
        raise Damaged("describe at least one layer")
    head = None if what.get("head") is None else _opened(_get(what, "head", dict), "head", build, fetch)
    stacked = [[layers[k] for k in group] for group in groups_of(layers)] + [[head]] * (head is not None)
    for before, after in pairwise(stacked):
        units = sum(layer.units for layer in before)
        for inputs in (layer.inputs for layer in after):
            if inputs != units:
                raise Damaged(f"describe layers whose inputs are the units before: {units}, not {inputs}")
    common: dict[str, Any] = {"layers": tuple(layers), "head": head, "task": task}
    common.update(every_step=_get(what, "every_step", bool), facts=_get(what, "facts", dict))
    coded = version == _ENCODER_VERSION or "encoder" in what
    common["encoder"] = _whole(what, "encoder", 1, len(layers) - 1) if coded else 0
    common["final_state"] = "final_state" in what and _get(what, "final_state", bool)
    fault = layers_fault(layers, head, common["every_step"], common["encoder"], common["final_state"])
    if fault is not None:
        raise Damaged(f"describe layers that fit together ({fault})")
    for end, size in (("input", layers[0].inputs), ("output", sum(layer.units for layer in stacked[-1]))):
        for part in ("mean", "scale"):
            common[f"{end}_{part}"] = _finite(fetch(f"{end}.{part}", (size,), "f"), f"{end}.{part}")
    if kind == "float":
        return Model(**common)
    for before, after in pairwise(stacked):
        if any(layer.formats.values["x"] != other.output for layer in after for other in before):
            raise Damaged("describe an input format that is the output format of the layer before")
    ends = ({layer.formats.values["x"] for layer in stacked[0]}, {layer.output for layer in stacked[-1]})
    if any(len(formats) > 1 for formats in ends):
        raise Damaged("describe one format for what layers side by side read, and one for what they give")
    given = _get(what, "widths", dict)
    tensors = _get(given, "tensors", dict) if "tensors" in given else {}  # files of 0.1 have none
    exceptions = {name: _whole(tensors, name, 1, 64) for name in tensors}
    kinds = {name: _whole(given, name, 1, 64) for name in _WIDTHS}
    widths = Widths(kinds["weights"], kinds["activations"], kinds["state"], kinds["cell"], kinds["output"], exceptions)
    saturation = _get(what, "saturation", dict)
    if not all(type(v) in (int, float) and 0 <= v <= 1 for v in saturation.values()):
        raise Damaged("describe saturation as shares between 0 and 1")
    return QuantizedModel(**common, widths=widths, saturation=saturation)


def _opened(what: Any, name: str, build: Callable[..., Any], fetch: Fetch) -> Any:
    cell = _cell(what, name == "head")
    sizes = [_whole(what, key, 1, _LARGEST_SIZE) for key in ("inputs", "units")]
    made = build(what, name, cell, *sizes, fetch)
    directions = {key: _get(what, key, bool) for key in ("reverse", "beside") if key in what}
    initial = {}
    for state in _get(what, "initial", list) if "initial" in what else ():
        label = f"{name}.{state}.initial"
        if state not in cell.states:
            raise Damaged(f"describe initial states of {name!r} that it has, not of {str(state)[:40]!r}")
        if isinstance(made, Layer):
            initial[state] = _finite(fetch(label, (made.units,), "f"), label)
            continue
        form = made.formats.values[state]
        initial[state] = fetch(label, (made.units,), "i").astype(np.int64)
        if initial[state].min() < form.lo or initial[state].max() > form.hi:
            raise Damaged(f"hold initial states {label!r} between {form.lo} and {form.hi} as their format says")
    return replace(made, initial=initial, **directions)


def _float_layer(what: Any, name: str, cell: Cell, inputs: int, units: int, fetch: Fetch) -> Layer:
    parameters = {}
    for k, phase in enumerate(cell.phases):
        for operand in (*phase.operands, "b"):
            rows = tuple(phase.gates) if operand == "b" else phase.rows(operand)
            shape = (units,) if operand == "b" else (units, inputs if operand == "x" else units)
            labels = [f"{name}.{gate}.{operand}" for gate in rows]
            blocks = [_finite(fetch(label, shape, "f"), label) for label in labels]
            parameters[f"{k}.{operand}"] = np.concatenate(blocks)
    return Layer(cell, inputs, units, parameters)


def _integer_layer(what: Any, name: str, cell: Cell, inputs: int, units: int, fetch: Fetch) -> QuantizedLayer:
    for function in cell.functions.values():
        if not isinstance(function, PiecewiseLinear) or not function.shift_only:
            raise Damaged(f"describe {function.name!r} of a quantized model by shifts and adds")
    lines = trace(cell)
    formats = _get(what, "values", dict)
    values = {n: _format(formats, n) for n in ("x", *lines.stores, *(f"a.{gate}" for gate in lines.gates))}
    formats, fracs, steps = (_get(what, key, dict) for key in ("weights", "bias_frac", "shifts"))
    weight_formats, weights, biases, bias_frac, shifts = {}, {}, {}, {}, {}
    for k, phase in enumerate(cell.phases):
        for operand in phase.operands:
            shifts[k, operand] = _whole(steps, f"{k}.{operand}", 0, 32)
        for gate, reads in phase.gates.items():
            bias_frac[gate] = _whole(fracs, gate, -2 * _LARGEST_FRAC, 2 * _LARGEST_FRAC)
            biases[gate] = fetch(f"{name}.{gate}.b", (units,), "i").astype(np.int64)
            for operand in reads:
                label, form = f"{name}.{gate}.{operand}", _format(formats, f"{gate}.{operand}")
                w = fetch(label, (units, inputs if operand == "x" else units), "i").astype(np.int64)
                if w.min() < form.lo or w.max() > form.hi:
                    raise Damaged(f"hold weights {label!r} between {form.lo} and {form.hi} as their format says")
                if form.frac + values[operand].frac + shifts[k, operand] != bias_frac[gate]:
                    raise Damaged(f"describe formats whose products meet at the bias, unlike those of {label!r}")
                weight_formats[gate, operand], weights[gate, operand] = form, w
    found = LayerFormats(values, weight_formats, bias_frac, shifts)
    return QuantizedLayer(cell, inputs, units, weights, biases, found)


def _cell(what: Any, head: bool) -> Cell:
    name, clip = _get(what, "cell", str), what.get("clip")
    sigma, phi = _read_function(_get(what, "sigma", dict)), _read_function(_get(what, "phi", dict))
    psi = _read_function(_get(what, "psi", dict)) if "psi" in what else None
    if clip is not None and (type(clip) not in (int, float) or not 2.0**-64 <= clip <= 2.0**64):
        raise Damaged(f"describe the clip of a cell as a positive number, not {shown(clip)}")
    dense = name == Dense.name
    if head and not dense:
        raise Damaged(f"describe a dense head behind recurrent layers, not {name!r}")
    # Refuses an unknown name, and a clip or an output nonlinearity on a cell without a cell state.
    cell_named("rnn" if dense else name, clip=clip, psi=None if psi is None else "identity")
    return Dense(sigma, phi) if dense else CELLS[name](sigma, phi, clip, psi)


def _read_function(what: Mapping[str, Any]) -> Nonlinearity:
    name, stands_for = _get(what, "name", str), what.get("stands_for")
    known = plainly_named(name)
    if "of" in what:
        inner, limit = _get(what, "of", dict), _get(what, "limit", float)
        if "of" in inner or not 0 < limit < math.inf:
            raise Damaged(f"describe {name!r} as a nonlinearity of an input limited to a positive number")
        return clipped(_read_function(inner), limit)
    if "knots" not in what:
        if known is None or (isinstance(known, PiecewiseLinear) and name in NONLINEARITIES):
            raise Damaged(f"describe nonlinearity {name!r} by its knots, slopes and intercepts")
        return known
    if stands_for is not None and (not isinstance(stands_for, str) or plainly_named(stands_for) is None):
        raise Damaged(f"name a function of the catalogue that {name!r} stands for, not {shown(stands_for)}")
    knots, slopes, intercepts = (
        tuple(_fraction(text) for text in _get(what, key, list)) for key in ("knots", "slopes", "intercepts")
    )
    if "segments" in what:
        fits = _get(what, "fits", str)
        if fits and fits not in NONLINEARITIES:
            raise Damaged(f"name a function of the catalogue that {name!r} fits, not {fits!r}")
        segments, terms = _whole(what, "segments", 1, 1 << 16), _whole(what, "terms", 1, 8)
        form = what.get("form", "jumps")  # files of earlier versions name none
        if form not in FORMS:
            raise Damaged(f"describe the form of fit {name!r} as {' or '.join(FORMS)}, not {str(form)[:40]!r}")
        return Fitted(name, stands_for, knots, slopes, intercepts, segments, terms, fits, form)
    if "bound" in what:
        bound = _get(what, "bound", float)
        if not 0 <= bound < math.inf:
            raise Damaged(f"describe the bound of fit {name!r} as a positive number, not {bound!r}")
        return Approximation(name, stands_for, knots, slopes, intercepts, bound)
    if "steepness" in what:
        steepness = tuple(_fraction(text) for text in _get(what, "steepness", list))
        if len(steepness) != len(slopes):
            raise Damaged(f"describe the steepness of {name!r} for each of its {len(slopes)} pieces")
        return Staircase(name, stands_for, knots, slopes, intercepts, steepness)
    function = PiecewiseLinear(name, stands_for, knots, slopes, intercepts)
    return known if known is not None and known == function else function


def _fraction(text: Any) -> Fraction:
    # Nothing but digits: Fraction would also take an exponent, and fill the memory with its digits.
    if not isinstance(text, str) or not _FRACTION.fullmatch(text):
        raise Damaged(f"describe knots, slopes and intercepts as fractions, not {str(text)[:40]!r}")
    return Fraction(text)


def _format(formats: Mapping[str, Any], name: str) -> Format:
    what = _get(formats, name, dict)
    frac = _whole(what, "frac", -_LARGEST_FRAC, _LARGEST_FRAC)
    return Format(_whole(what, "width", 1, 128), frac, _get(what, "signed", bool))


def _whole(what: Mapping[str, Any], key: str, lo: int, hi: int) -> int:
    value = int(_get(what, key, int))
    if not lo <= value <= hi:
        raise Damaged(f"describe {key!r} between {lo} and {hi}, not {shown(value)}")
    return value


def _get(what: Any, key: str, kind: type) -> Any:
    value = what.get(key) if isinstance(what, dict) else None
    if type(value) is not kind:
        raise Damaged(f"describe {key!r} by {kind.__name__}, not {type(value).__name__}")
    if isinstance(value, str) and not (len(value) <= _LONGEST_NAME and value.isprintable()):
        raise Damaged(f"describe {key!r} by at most {_LONGEST_NAME} letters, not {shown(value)}")
    return value


def _finite(array: np.ndarray, name: str) -> np.ndarray:
    if not np.isfinite(array).all():
        raise Damaged(f"hold finite numbers, unlike parameter {name!r}")
    return array
