"""Networks that run for very long: how far fixed point drifts from float, and whether a state leaves its bound."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace

import numpy as np

from hwrnn.cells import CELLS
from hwrnn.golden import Golden
from hwrnn.intervals import Box
from hwrnn.model import Model, build_model
from hwrnn.quantization import QuantizedModel, quantize
from hwrnn.stability import layer_ranges

#: Kinds of input, each a sequence of its own.
INPUTS = ("noise", "constant", "adversarial")
#: A ReLU network whose states only the norm of its matrix holds, beside every cell of the catalogue.
RELU = "rnn, relu"
NETWORKS = (*CELLS, RELU)
_CHUNK = 5_000  # steps that are kept at a time
_REACH = 2.0  # of the inputs that formats are chosen on


def pair(name: str, bits: int, seed: int = 0, inputs: int = 3, units: int = 8) -> tuple[Model, QuantizedModel]:
    """A float network and its integers; no proof bounds an LSTM's cell state without a clip."""
    options: dict = dict(activation="relu", init="scaled:0.9") if name == RELU else {}
    cell = "rnn" if name == RELU else name
    options |= dict(cell_clip=2.0) if "c" in CELLS[cell].states else {}
    model = build_model(inputs, None, cell=cell, hidden=units, seed=seed, every_step=True, task="regression", **options)
    x = np.random.default_rng(seed).uniform(-_REACH, _REACH, (16, 40, inputs)).astype(np.float32)
    data = SimpleNamespace(train=SimpleNamespace(x=x, lengths=np.full(16, 40)))
    return model, quantize(model, data, bits, method="mse", prove_states=name == RELU)


def raw_inputs(model: QuantizedModel, steps: int, seed: int = 0) -> np.ndarray:
    """Raw int64 (3, steps, inputs): one sequence of each kind of :data:`INPUTS`.

    The adversarial one stands at the ends of the format, with the signs that push the sums of one unit's gates up or
    down, each gate by a coin, and holds them for a random time before it turns to another unit.
    """
    rng, form, layer = np.random.default_rng([seed, 0xD21F]), model.input_format, model.layers[0]
    shape = (steps, model.inputs)
    noise = form.quantize(rng.normal(0, form.max / 2, shape))
    constant = np.broadcast_to(rng.integers(form.lo, form.hi + 1, model.inputs), shape)
    pushes = []
    left = steps
    while left > 0:
        unit, held = rng.integers(layer.units), min(left, int(rng.geometric(1 / 32)))
        rows = [w[unit] * rng.choice((-1, 1)) for (_, operand), w in layer.weights.items() if operand == "x"]
        push = np.where(np.sum(rows, axis=0) >= 0, form.hi, form.lo)
        pushes.append(np.broadcast_to(push, (held, model.inputs)))
        left -= held
    return np.stack([noise, constant, np.concatenate(pushes)]).astype(np.int64)


def proven(model: QuantizedModel) -> dict[str, Box]:
    """What is proved of every stored value of the layer, within its format: where saturation ends it."""
    formats = model.layers[0].formats.values
    return {
        name: box.meet(Box(np.full_like(box.lo, formats[name].min), np.full_like(box.hi, formats[name].max)))
        for name, box in layer_ranges(model)[0].items()
    }


@dataclass(frozen=True)
class Part:
    """A stretch of a long run.

    Attributes:
        start: its first step.
        integers: by name, the stored values as golden has them, float64 (3, steps, units).
        floats: likewise the states of the float network, given the same inputs.
    """

    start: int
    integers: dict[str, np.ndarray]
    floats: dict[str, np.ndarray]


def run(model: Model | None, quantized: QuantizedModel, raw: np.ndarray) -> Iterator[Part]:
    """Both networks over the same inputs, stretch by stretch, each going on where it was; or the integers alone."""
    golden, layer = Golden(quantized), quantized.layers[0]
    at: dict[str, np.ndarray] = {}
    float_at: dict[str, np.ndarray] = {}
    for start in range(0, raw.shape[1], _CHUNK):
        some = raw[:, start : start + _CHUNK]
        lengths = np.full(len(some), some.shape[1])
        result = golden.run(some, lengths, keep=True, initial={0: at} if at else None)
        at = {name: state for (k, name), state in result.final.items() if k == 0}
        integers = {
            name: layer.formats.values[name].dequantize(values) for (k, name), values in result.values.items() if k == 0
        }
        if model is None:
            yield Part(start, integers, {})
            continue
        lines = model.layers[0]
        seen: dict[str, list[np.ndarray]] = {name: [] for name in lines.cell.states}
        x = quantized.input_format.dequantize(some).astype(np.float64)
        float_at = dict(lines.run(x, lengths, float_at, partial(_keep, seen)).final)
        floats = {name: np.stack(values, axis=1) for name, values in seen.items()}
        yield Part(start, integers, floats)


def _keep(seen: dict[str, list[np.ndarray]], name: str, value: np.ndarray, count: int) -> None:
    if name in seen:
        seen[name].append(value[:count].copy())


def escapes(part: Part, bounds: dict[str, Box]) -> list[str]:
    """What is said of every value that left its proven range in a stretch, the first of each."""
    found = []
    for name, values in part.integers.items():
        if name not in bounds:
            continue
        box = bounds[name]
        outside = (values < box.lo) | (values > box.hi)
        if outside.any():
            sequence, step, unit = np.argwhere(outside)[0]
            found.append(
                f"{name}[{unit}] is {values[sequence, step, unit]:g} at step {part.start + step} of the"
                f" {INPUTS[sequence]} input, outside [{box.lo[unit]:g}, {box.hi[unit]:g}]"
            )
    return found


@dataclass
class Drift:
    """How far the states of a network in integers went from those in float.

    Attributes:
        marks: steps at which ``largest`` is told.
        largest: by state, (inputs, marks): the largest difference in any unit up to the mark.
        mean: by state, (inputs,): the mean difference over all units and steps.
        reached: by state, the largest absolute value over all inputs and steps.
        bound: by state, what was proved of it.
        faults: values that left their ranges.
    """

    marks: Sequence[int]
    largest: dict[str, np.ndarray]
    mean: dict[str, np.ndarray]
    reached: dict[str, float]
    bound: dict[str, float]
    faults: list[str]


def drift(
    name: str, bits: int, marks: Sequence[int], seed: int = 0, told: Callable[[int], None] = lambda steps: None
) -> Drift:
    """Run a network of :data:`NETWORKS` as far as the last mark."""
    model, quantized = pair(name, bits, seed)
    bounds = proven(quantized)
    states = quantized.layers[0].cell.states
    found = Drift(
        marks, {s: np.zeros((len(INPUTS), len(marks))) for s in states}, {s: np.zeros(len(INPUTS)) for s in states},
        dict.fromkeys(states, 0.0), {s: bounds[s].reach for s in states}, [],
    )  # fmt: skip
    for part in run(model, quantized, raw_inputs(quantized, marks[-1], seed)):
        found.faults += escapes(part, bounds)
        for state in states:
            values = part.integers[state]
            found.reached[state] = max(found.reached[state], float(np.abs(values).max()))
            apart = np.abs(values - part.floats[state])
            found.mean[state] += apart.mean(axis=2).sum(axis=1) / marks[-1]
            off = apart.max(axis=2)
            for k, mark in enumerate(marks):
                here = off[:, : max(0, mark - part.start)]
                if here.size:
                    column = found.largest[state][:, k]
                    np.maximum(column, here.max(axis=1), out=column)
        told(part.start + values.shape[1])
    return found
