"""The integer reference: the cells' lines on exact integers, vectorised over a batch of sequences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hwrnn.cells import Phase, Values
from hwrnn.errors import UsageError
from hwrnn.fixed import EXACT_FLOAT, Fixed, integers
from hwrnn.quantization import QuantizedLayer, QuantizedModel

__all__ = ["GoldenResult", "golden"]

_BATCH = 128  # sequences worked side by side: their values then fit the cache


@dataclass(frozen=True)
class GoldenResult:
    """What the golden model computed.

    Attributes:
        output: raw int64, (N, outputs) or with ``every_step`` (N, T, outputs); zero beyond a sequence's length.
        saturation: share of the stored values that saturated, by ``"LAYER.NAME"``.
        values: by ``(layer, name)``, raw int64 (N, T, units) of every stored value and pre-activation (of a head that reads
            the last step only, T is 1); empty unless kept.
    """

    output: np.ndarray
    saturation: dict[str, float]
    values: Mapping[tuple[int, str], np.ndarray]


def golden(model: QuantizedModel, x: np.ndarray, lengths: np.ndarray, keep: bool = False) -> GoldenResult:
    """Run raw inputs ``x`` (N, T, inputs) of given lengths (N,) through the integer network.

    Args:
        keep: whether to keep every stored value of every step.

    Raises:
        UsageError: raw inputs outside the input's format.
    """
    form = model.input_format
    if x.size and (x.min() < form.lo or x.max() > form.hi):
        raise UsageError(f"Raw input must lie between {form.lo} and {form.hi} for {form}")
    runs = [_Run(layer, k, keep) for k, layer in enumerate(model.stack)]
    order = np.argsort(-lengths, kind="stable")
    parts = []
    for start in range(0, len(x), _BATCH):
        chosen = order[start : start + _BATCH]
        steps = lengths[chosen]
        value = np.asarray(x[chosen, : steps[0]])
        for run in runs[: len(model.layers)]:
            value = run.sequences(value, steps)
        if not model.every_step:
            value = value[np.arange(len(value)), steps - 1][:, None]
        if model.head is not None:
            n, t = value.shape[:2]
            running = steps if model.every_step else np.ones_like(steps)
            value = runs[-1].vectors(value, running, n, t)
        parts.append(value)
    t = x.shape[1] if model.every_step else 1
    output = _scattered(parts, order, t)
    saturation = {f"{r.index}.{name}": r.clipped[name] / max(r.stored[name], 1) for r in runs for name in r.stored}
    values = {}
    for run in runs:
        span = 1 if run.index == len(model.layers) and not model.every_step else x.shape[1]
        values.update({(run.index, name): _scattered(v, order, span) for name, v in run.kept.items()})
    return GoldenResult(output if model.every_step else output[:, 0], saturation, values)


def _scattered(parts: list[np.ndarray], order: np.ndarray, steps: int) -> np.ndarray:
    """Batches of sorted sequences, (n, t, units) each, back in the order of the data and padded to ``steps``."""
    wide = any(p.dtype == object for p in parts)
    out = np.zeros((len(order), steps, parts[0].shape[2]), object if wide else np.int64)
    start = 0
    for part in parts:
        out[order[start : start + len(part)], : part.shape[1]] = part
        start += len(part)
    return out


class _Run:
    """One layer's integers, packed for matrix products, and what is counted while it runs."""

    def __init__(self, layer: QuantizedLayer, index: int, keep: bool) -> None:
        self.layer, self.index, self.keep = layer, index, keep
        self.stored: dict[str, int] = {}
        self.clipped: dict[str, int] = {}
        self.kept: dict[str, list[np.ndarray]] = {}
        self.now: dict[str, np.ndarray] = {}
        formats = layer.formats
        self.exact = all(max(-lo, hi) < EXACT_FLOAT for lo, hi in layer.accumulators.values())
        kind = np.float64 if self.exact else object
        self.matrices = {
            (k, o): np.concatenate([layer.weights[g, o] for g in phase.rows(o)]).T.astype(kind)
            * kind(1 << formats.shifts[k, o])
            for k, phase in enumerate(layer.cell.phases) for o in phase.operands
        }  # fmt: skip
        self.zero = {name: Fixed.of(np.zeros((1, layer.units)), formats.values[name]) for name in layer.cell.states}

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
        rows: dict[str, list[np.ndarray]] = {gate: [layer.biases[gate]] for gate in phase.gates}
        for name in phase.operands:
            vector = operands[name] if self.exact else integers(operands[name])
            sums = vector @ self.matrices[k, name]
            for j, gate in enumerate(phase.rows(name)):
                rows[gate].append(sums[:, j * units : (j + 1) * units])
        result = {}
        for gate, parts in rows.items():
            total = sum(parts[1:], parts[0] if self.exact else parts[0].astype(object))
            number = Fixed(total, layer.formats.bias_frac[gate], *layer.accumulators[gate])
            result[gate] = self.store(f"a.{gate}", number)
        return result

    def step(self, x: np.ndarray, state: Mapping[str, Fixed]) -> Values:
        """One time step of raw inputs (n, inputs)."""

        def product(phase: Phase, s: Values) -> dict[str, Fixed]:
            return self.product(phase, {o: x if o == "x" else getattr(s, o).raw for o in phase.operands})

        return self.layer.cell.run(product, Values(state, self.store))

    def sequences(self, x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The output at every step, (n, T, units), of sequences sorted by falling length."""
        cell, carrier = self.layer.cell, np.float64 if self.exact else object
        n, steps = x.shape[:2]
        x = x.astype(carrier)
        state = {name: Fixed(np.repeat(z.raw, n, 0), z.frac, z.lo, z.hi) for name, z in self.zero.items()}
        out = np.zeros((n, steps, self.layer.units), carrier)
        kept = {}
        for t in range(steps):
            running = int((lengths > t).sum())
            state = {k: Fixed(v.raw[:running], v.frac, v.lo, v.hi) for k, v in state.items()}
            s = self.step(x[:running, t], state)
            state = {name: getattr(s, name) for name in cell.states}
            out[:running, t] = getattr(s, cell.output).raw
            for name, value in self.now.items():
                kept.setdefault(name, np.zeros_like(out))[:running, t] = value
        for name, value in kept.items():
            self.kept.setdefault(name, []).append(value)
        return out

    def vectors(self, x: np.ndarray, running: np.ndarray, n: int, t: int) -> np.ndarray:
        """A layer without state over (n, t, inputs), zero where a sequence has ended."""
        carrier = np.float64 if self.exact else object
        ended = (np.arange(t) >= running[:, None])[..., None]
        value = getattr(self.step(x.reshape(n * t, -1).astype(carrier), {}), self.layer.cell.output)
        for name, raw in self.now.items():
            self.kept.setdefault(name, []).append(np.where(ended, 0, raw.reshape(n, t, -1)))
        return np.where(ended, 0, value.raw.reshape(n, t, -1))
