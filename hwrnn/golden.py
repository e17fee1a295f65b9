"""The integer reference: the cells' lines on exact integers, vectorised over a batch of sequences.

The lines run on numpy arrays here; where there is a compiler and enough to do, the same lines printed as C take over
layer by layer (``hwrnn.c_golden``), with the same integers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hwrnn.c_golden import CompiledLayer, chosen_layers, compiled_layers, same_structure
from hwrnn.cells import Phase, Values
from hwrnn.directions import checked_initial, flipped, last_recurrent, with_finals
from hwrnn.errors import UsageError
from hwrnn.fixed import EXACT_FLOAT, Fixed, integers
from hwrnn.model import repeated
from hwrnn.quantization import QuantizedLayer, QuantizedModel

__all__ = ["Golden", "GoldenResult", "golden"]

_BATCH = 512  # sequences worked side by side: measured, fewer cost overhead and more gain nothing


@dataclass(frozen=True)
class GoldenResult:
    """What the golden model computed.

    Attributes:
        output: raw int64, (N, outputs) or with ``every_step`` (N, T, outputs); zero beyond a sequence's
            length.
        saturation: share of the stored values that saturated, by ``"LAYER.NAME"``. Of a pre-activation
            ``a.GATE`` it is harmless where the format ends because the nonlinearity is flat beyond.
        values: by ``(layer, name)``, raw int64 (N, T, units) of every stored value and pre-activation (of a
            head that reads the last step only, T is 1); empty unless kept. A reverse layer's stand at the steps that
            it read.
        final: by ``(layer, state)``, raw int64 (N, units): each state after the last step that its layer ran.
    """

    output: np.ndarray
    saturation: dict[str, float]
    values: Mapping[tuple[int, str], np.ndarray]
    final: Mapping[tuple[int, str], np.ndarray]


#: Raw states by layer and name, (N, units) each.
Initial = Mapping[int, Mapping[str, np.ndarray]]


class Golden:
    """A quantized model prepared for many runs: whoever tries thousands of weights on the same data wants this one.

    It runs in compiled C where there is a compiler, built once for all weights and formats of a structure, and in numpy
    otherwise; the results are those of :func:`golden`, integer for integer::

        prepared = Golden(model)
        for candidate in candidates:  # quantized models of the same cells and sizes
            prepared.exchange(candidate)
            result = prepared.run(raw, lengths)

    Args:
        compiled: True insists on C, False on numpy.

    Attributes:
        model: the one that runs.
        compiled: whether it runs in C.

    Raises:
        UsageError: C insisted on, where there is no compiler or the model needs more than 62 bits.
    """

    def __init__(self, model: QuantizedModel, *, compiled: bool | None = None) -> None:
        self.model = model
        self._asked = compiled
        self._layers = compiled_layers(model, compiled)

    @property
    def compiled(self) -> bool:
        """Whether the model runs in C."""
        return self._layers is not None

    def exchange(self, model: QuantizedModel) -> None:
        """Take another model of the same cells and sizes, whatever its weights, biases and formats.

        Cheap: packing the weights, and a check that everything still fits the integers of C.

        Raises:
            UsageError: a model of other cells or sizes.
        """
        if not same_structure(self.model, model):
            raise UsageError("Model must have the cells and sizes of the one it takes the place of")
        self.model = model
        self._layers = compiled_layers(model, self._asked, self._layers)

    def run(
        self, x: np.ndarray, lengths: np.ndarray, keep: bool = False, initial: Initial | None = None
    ) -> GoldenResult:
        """What :func:`golden` returns for raw inputs ``x`` (N, T, inputs) of given lengths (N,).

        Raises:
            UsageError: as :func:`golden` does.
        """
        return _golden(self.model, x, lengths, keep, initial, lambda work: self._layers)


def golden(
    model: QuantizedModel,
    x: np.ndarray,
    lengths: np.ndarray,
    keep: bool = False,
    *,
    compiled: bool | None = None,
    initial: Initial | None = None,
) -> GoldenResult:
    """Run raw inputs ``x`` (N, T, inputs) of given lengths (N,) through the integer network.

    Args:
        keep: whether to keep every stored value of every step.
        compiled: whether in compiled C or in numpy; None for C where there is a compiler and the work is large enough
            to pay for it. The integers are the same.
        initial: raw states (N, units) by layer and name, over the layers' constants.

    Raises:
        UsageError: raw inputs that are not whole numbers of that shape and of the input's format, lengths outside
            1..T, initial states that do not fit likewise, or C asked for where there is no compiler or the model needs
            more than 62 bits.
    """
    return _golden(model, x, lengths, keep, initial, lambda work: chosen_layers(model, work, compiled))


def _golden(
    model: QuantizedModel,
    x: np.ndarray,
    lengths: np.ndarray,
    keep: bool,
    initial: Initial | None,
    choose: Callable[[int], Sequence[CompiledLayer] | None],
) -> GoldenResult:
    """Golden, with what gives compiled layers, if any, for a number of multiplications."""
    form = model.input_format
    x, lengths = np.asarray(x), np.asarray(lengths)
    if x.ndim != 3 or 0 in x.shape or x.shape[2] != model.inputs:
        shape = f"(sequences, steps, {model.inputs})"
        raise UsageError(f"Raw input must have shape {shape}, none 0, not {x.shape!r}")
    if x.dtype.kind not in "iu":
        raise UsageError(f"Raw input must be of an integer type, not {str(x.dtype)!r}")
    if lengths.shape != x.shape[:1] or lengths.dtype.kind not in "iu":
        raise UsageError(f"Lengths must be {len(x)} whole numbers, one for each sequence")
    if lengths.min() < 1 or lengths.max() > x.shape[1]:
        raise UsageError(f"Lengths must be between 1 and {x.shape[1]}, not {lengths.min()} to {lengths.max()}")
    if (x.min() < form.lo or x.max() > form.hi):
        raise UsageError(f"Raw input must lie between {form.lo} and {form.hi} for {form}")
    given = _checked(model, initial, len(x))
    compiled = choose(int(lengths.sum()) * sum(layer.multiplications for layer in model.stack))
    runs: Sequence[_Runner]
    if compiled is None:
        runs = [_Run(layer, k, keep) for k, layer in enumerate(model.stack)]
    else:
        runs = [_CompiledRun(layer, k, keep) for k, layer in enumerate(compiled)]
    order = np.argsort(-lengths, kind="stable")
    parts = []
    for start in range(0, len(x), _BATCH):
        chosen = order[start : start + _BATCH]
        steps = lengths[chosen]
        value = np.asarray(x[chosen, : steps[0]])
        for group in model.groups:
            layers = [model.layers[k] for k in group]
            outputs = []
            for k in group:
                starts = {name: states[chosen] for name, states in given.get(k, {}).items()}
                outputs.append(_directed(runs[k], model.layers[k], value, steps, starts))
            value = outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=2)
            if model.final_state and group == last_recurrent(model.layers):
                value = with_finals(value, layers, steps)
            if group[-1] + 1 == model.encoder:
                value = repeated(value, steps)
        if not model.every_step:
            value = value[np.arange(len(value)), steps - 1][:, None]
        if model.head is not None:
            value = runs[-1].sequences(value, steps if model.every_step else np.ones_like(steps), {})
        parts.append(value)
    t = x.shape[1] if model.every_step else 1
    output = _scattered(parts, order, t)
    saturation = {
        f"{run.index}.{name}": run.clipped[name] / stored for run in runs for name, stored in run.stored.items()
    }
    values = {}
    for run in runs:
        span = 1 if run.index == len(model.layers) and not model.every_step else x.shape[1]
        values.update({(run.index, name): _scattered(v, order, span) for name, v in run.kept.items()})
    final = {}
    for run in runs:
        for name, found in run.final.items():
            states = found[0] if len(found) == 1 else np.concatenate(found)
            final[run.index, name] = np.empty(states.shape, np.int64)
            final[run.index, name][order] = states
    return GoldenResult(output if model.every_step else output[:, 0], saturation, values, final)


def _checked(model: QuantizedModel, initial: Initial | None, sequences: int) -> dict[int, dict[str, np.ndarray]]:
    """Raw initial states that fit the model."""
    given = checked_initial(model.layers, initial, sequences)
    for k, states in given.items():
        for name, raw in states.items():
            form = model.layers[k].formats.values[name]
            if raw.dtype.kind not in "iu" or raw.min() < form.lo or raw.max() > form.hi:
                must = f"be whole numbers between {form.lo} and {form.hi} for {form}"
                raise UsageError(f"Raw initial state {name!r} of layer {k} must {must}")
    return given


def _directed(
    run: _Runner, layer: QuantizedLayer, x: np.ndarray, lengths: np.ndarray, initial: Mapping[str, np.ndarray]
) -> np.ndarray:
    """The output at every step of a layer that runs its way, and what it keeps, at the steps that it read."""
    if not layer.reverse:
        return run.sequences(x, lengths, initial)
    result = run.sequences(flipped(x, lengths), lengths, initial)
    for parts in run.kept.values():
        parts[-1] = flipped(parts[-1], lengths)
    return flipped(result, lengths)


def _scattered(parts: list[np.ndarray], order: np.ndarray, steps: int) -> np.ndarray:
    """Batches of sorted sequences, (n, t, units) each, back in the data's order and padded to ``steps``."""
    out = np.zeros((len(order), steps, parts[0].shape[2]), np.int64)
    start = 0
    for part in parts:
        out[order[start : start + len(part)], : part.shape[1]] = part
        start += len(part)
    return out


class _Runner(Protocol):
    """What runs a layer.

    Attributes:
        index: of the layer.
        stored, clipped: by name, how many values were stored so far, and how many of them saturated.
        kept: by name, what was kept of each batch, (n, T, units); empty unless asked for.
        final: by name, each state of each batch after its sequences' ends, (n, units).
    """

    index: int
    stored: dict[str, int]
    kept: dict[str, list[np.ndarray]]
    final: dict[str, list[np.ndarray]]

    @property
    def clipped(self) -> Mapping[str, int]: ...

    def sequences(self, x: np.ndarray, lengths: np.ndarray, initial: Mapping[str, np.ndarray]) -> np.ndarray:
        """The output at every step, (n, T, units), of sequences sorted by falling length; zero beyond them.

        ``initial`` holds raw states (n, units) over the layer's constants.
        """


class _CompiledRun:
    """One layer in C, and what is counted while it runs."""

    def __init__(self, layer: CompiledLayer, index: int, keep: bool) -> None:
        self.layer, self.index, self.keep = layer, index, keep
        self.counts = np.zeros(len(layer.stored), np.int64)
        self.stored = dict.fromkeys(layer.stored, 0)
        self.kept: dict[str, list[np.ndarray]] = {}
        self.final: dict[str, list[np.ndarray]] = {}

    @property
    def clipped(self) -> dict[str, int]:
        return dict(zip(self.layer.stored, self.counts.tolist(), strict=True))

    def sequences(self, x: np.ndarray, lengths: np.ndarray, initial: Mapping[str, np.ndarray]) -> np.ndarray:
        out, kept, final = self.layer.run(x, lengths, self.counts, self.keep, initial)
        for name in self.stored:
            self.stored[name] += int(lengths.sum()) * out.shape[2]
        for name, values in kept.items():
            self.kept.setdefault(name, []).append(values)
        for name, state in final.items():
            self.final.setdefault(name, []).append(state)
        return out


class _Run:
    """One layer's integers, packed for matrix products, and what is counted while it runs."""

    def __init__(self, layer: QuantizedLayer, index: int, keep: bool) -> None:
        self.layer, self.index, self.keep = layer, index, keep
        self.stored: dict[str, int] = {}
        self.clipped: dict[str, int] = {}
        self.kept: dict[str, list[np.ndarray]] = {}
        self.final: dict[str, list[np.ndarray]] = {}
        self.now: dict[str, np.ndarray] = {}
        # A matrix product adds in any order and without the bias, so its partial sums may lie a bias outside.
        self.exact = all(
            max(-lo, hi) + int(np.abs(layer.biases[gate]).max()) < EXACT_FLOAT
            for gate, (lo, hi) in layer.accumulators.items()
        )
        self.carrier = np.dtype(np.float64 if self.exact else object)
        self.biases = {gate: bias.astype(self.carrier) for gate, bias in layer.biases.items()}
        self.matrices = {}
        for k, phase in enumerate(layer.cell.phases):
            for name in phase.operands:
                rows = np.concatenate([layer.weights[gate, name] for gate in phase.rows(name)])
                self.matrices[k, name] = rows.T.astype(self.carrier) * (1 << layer.formats.shifts[k, name])

    def store(self, name: str, value: Fixed) -> Fixed:
        """Round and saturate a value to its format, counting what saturates."""
        form = self.layer.formats.values[name]
        rounded = value.rounded(form.frac)
        result = rounded.saturated(form)
        self.stored[name] = self.stored.get(name, 0) + result.raw.size
        if result is not rounded:
            self.clipped[name] = self.clipped.get(name, 0) + int(np.count_nonzero(result.raw != rounded.raw))
        else:
            self.clipped.setdefault(name, 0)
        if self.keep:
            self.now[name] = result.raw
        return result

    def product(self, phase: Phase, operands: Mapping[str, np.ndarray]) -> dict[str, Fixed]:
        """The pre-activations of a phase, rounded to their formats, from raw operand vectors (n, size)."""
        layer, units = self.layer, self.layer.units
        k = layer.cell.phases.index(phase)
        sums = {gate: self.biases[gate] for gate in phase.gates}
        for name in phase.operands:
            vector = operands[name] if self.exact else integers(operands[name])
            rows = vector @ self.matrices[k, name]
            for j, gate in enumerate(phase.rows(name)):
                sums[gate] = sums[gate] + rows[:, j * units : (j + 1) * units]
        result = {}
        for gate, total in sums.items():
            number = Fixed(total, layer.formats.bias_frac[gate], *layer.accumulators[gate])
            result[gate] = self.store(f"a.{gate}", number)
        return result

    def step(self, x: np.ndarray, state: Mapping[str, Fixed]) -> Values:
        """One time step of raw inputs (n, inputs)."""

        def product(phase: Phase, s: Values) -> dict[str, Fixed]:
            return self.product(phase, {o: x if o == "x" else getattr(s, o).raw for o in phase.operands})

        return self.layer.cell.run(product, Values(state, self.store))

    def sequences(self, x: np.ndarray, lengths: np.ndarray, initial: Mapping[str, np.ndarray]) -> np.ndarray:
        """The output at every step, (n, T, units), of sequences sorted by falling length."""
        cell = self.layer.cell
        if not cell.states:
            return self._vectors(x, lengths)
        n, steps = x.shape[:2]
        x = x.astype(self.carrier)
        state = {}
        for name in cell.states:
            raw = initial[name] if name in initial else self.layer.start(name)[None].repeat(n, 0)
            state[name] = Fixed.of(raw, self.layer.formats.values[name])
        final = {name: value.raw.astype(np.int64) for name, value in state.items()}
        out = np.zeros((n, steps, self.layer.units), np.int64)
        kept: dict[str, np.ndarray] = {}
        for t in range(steps):
            running = int((lengths > t).sum())
            state = {k: Fixed(v.raw[:running], v.frac, v.lo, v.hi) for k, v in state.items()}
            s = self.step(x[:running, t], state)
            state = {name: getattr(s, name) for name in cell.states}
            for name, value in state.items():
                final[name][:running] = value.raw
            out[:running, t] = getattr(s, cell.output).raw
            for name, raw in self.now.items():
                kept.setdefault(name, np.zeros_like(out))[:running, t] = raw
        for found, parts in ((kept, self.kept), (final, self.final)):
            for name, raw in found.items():
                parts.setdefault(name, []).append(raw)
        return out

    def _vectors(self, x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """A layer without state over (n, T, inputs), zero where a sequence has ended."""
        valid = np.arange(x.shape[1]) < lengths[:, None]

        def spread(rows: np.ndarray) -> np.ndarray:
            out = np.zeros((*x.shape[:2], self.layer.units), np.int64)
            out[valid] = rows
            return out

        value = getattr(self.step(x[valid].astype(self.carrier), {}), self.layer.cell.output)
        for name, raw in self.now.items():
            self.kept.setdefault(name, []).append(spread(raw))
        return spread(value.raw)
