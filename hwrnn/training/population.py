"""Integer networks as vectors of genes, and how good many of them are: what an evolution's workers do."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hwrnn.errors import UsageError
from hwrnn.golden import Golden
from hwrnn.quantization import QuantizedLayer, QuantizedModel
from hwrnn.training.losses import LOSSES, arranged
from hwrnn.training.metrics import accuracy, rmse
from hwrnn.training.threads import single_thread_blas

__all__ = ["Genes", "Objective", "Problem", "assess", "genes_of", "genome_of", "with_genome"]

#: ``objective(predictions, targets, lengths)`` gives what is to be made small, as one finite number: ``predictions``
#: are golden's, shaped as ``QuantizedModel.predict``'s, ``lengths`` None unless there is a target for every step.
Objective = Callable[[np.ndarray, np.ndarray, np.ndarray | None], float]

_DIGITS = 10  # of a loss: so that the last bit of another machine's exponential selects nobody


@dataclass(frozen=True, eq=False)
class Genes:
    """What values the genes of a genome may take: int64 (genes,) each.

    Attributes:
        lo, hi: the bounds.
        quantum: the step that a mutation changes a gene by at least.
        levels: how many steps there are between the bounds.
    """

    lo: np.ndarray
    hi: np.ndarray
    quantum: np.ndarray

    @property
    def levels(self) -> np.ndarray:
        """How many values a gene can take by steps, float64 (genes,)."""
        return np.asarray((self.hi - self.lo) / self.quantum + 1)


def _blocks(layer: QuantizedLayer) -> list[np.ndarray]:
    return [*layer.weights.values(), *layer.biases.values()]


def genome_of(model: QuantizedModel) -> np.ndarray:
    """All integer weights and biases, layer by layer: int64 (genes,)."""
    return np.concatenate([block.ravel() for layer in model.stack for block in _blocks(layer)])


def genes_of(model: QuantizedModel) -> Genes:
    """The genes of a model: weights within their formats, biases as far as a weight of an input that is always 1.

    A bias sits at the accumulator's fraction, thousands of times finer than a weight. Its step is that of a weight, so
    that evolution does not search through bits that hardly count; where the model's own bias lies further out, the
    bounds follow it.
    """
    lo, hi, quantum = [], [], []
    for layer in model.stack:
        forms = layer.formats.weights
        for key, block in layer.weights.items():
            lo.append(np.full(block.size, forms[key].lo))
            hi.append(np.full(block.size, forms[key].hi))
            quantum.append(np.ones(block.size, np.int64))
        for gate, bias in layer.biases.items():
            reach = max(form.max + form.step for (row, _), form in forms.items() if row == gate)
            step = max(form.step for (row, _), form in forms.items() if row == gate)
            scale = 2.0 ** layer.formats.bias_frac[gate]
            bound = np.maximum(max(1, round(reach * scale)), np.abs(bias))
            lo.append(-bound)
            hi.append(bound)
            quantum.append(np.full(bias.size, max(1, round(step * scale))))
    return Genes(*(np.concatenate(parts).astype(np.int64) for parts in (lo, hi, quantum)))


def with_genome(model: QuantizedModel, genome: np.ndarray) -> QuantizedModel:
    """The model with the weights and biases of a genome.

    It is a new frozen model: the widths of its accumulators follow from these weights.
    """
    stack, start = [], 0

    def taken(block: np.ndarray) -> np.ndarray:
        nonlocal start
        start += block.size
        return genome[start - block.size : start].reshape(block.shape).astype(np.int64)

    for layer in model.stack:
        weights = {key: taken(block) for key, block in layer.weights.items()}
        biases = {gate: taken(bias) for gate, bias in layer.biases.items()}
        stack.append(replace(layer, weights=weights, biases=biases))
    n = len(model.layers)
    return replace(model, layers=tuple(stack[:n]), head=stack[n] if model.head is not None else None)


@dataclass(frozen=True, eq=False)
class Problem:
    """What a worker needs beside genomes; plain arrays and frozen objects, so it can be sent anywhere.

    Attributes:
        model: gives the cells and formats.
        x: raw inputs (N, T, F), in the smallest type that holds them.
        y, lengths: targets and lengths, as a split has them.
        per_step: whether every step has a target.
        objective: ``loss``, ``metric`` or a function.
    """

    model: QuantizedModel
    x: np.ndarray
    y: np.ndarray
    lengths: np.ndarray
    per_step: bool
    objective: str | Objective

    def value(self, prepared: Golden, genome: np.ndarray) -> tuple[float, float]:
        """What is to be made small for one genome, and what decides between equal ones: its loss.

        Args:
            prepared: runs networks of this model's structure.

        Raises:
            UsageError: an objective that is not one finite number.
        """
        prepared.exchange(with_genome(self.model, genome))
        raw = prepared.run(self.x, self.lengths).output
        loss = self.loss(raw)
        if self.objective == "loss":
            return loss, 0.0
        lengths = self.lengths if self.per_step else None
        if self.objective == "metric":
            if self.y.dtype.kind == "i":
                return 1 - accuracy(raw, self.y, lengths), loss
            return round(rmse(self.model.dequantize_output(raw), self.y, lengths), _DIGITS), loss
        assert callable(self.objective)
        return _finite(self.objective(self.model.dequantize_output(raw), self.y, lengths)), loss

    def loss(self, raw: np.ndarray) -> float:
        """The training loss of raw outputs: cross entropy, or mean square error of standardised targets."""
        model, y = self.model, self.y
        outputs = model.output_format.dequantize(raw)
        if y.dtype.kind == "f":
            y = (y - model.output_mean) / model.output_scale
        loss = LOSSES["cross_entropy" if y.dtype.kind == "i" else "mse"]
        shaped = outputs.transpose(1, 2, 0) if model.every_step else outputs.T[None]
        return round(loss(shaped, arranged(y, self.per_step), self.lengths if self.per_step else None)[0], _DIGITS)


def _finite(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"Objective must give one finite number, not {value!r}")
    return number


def assess(problem: Problem, genomes: np.ndarray) -> np.ndarray:
    """The values (K, 2) float64 of genomes (K, genes), each as if it were alone: a worker's task."""
    with single_thread_blas():
        prepared = Golden(problem.model)
        return np.array([problem.value(prepared, genome) for genome in genomes], np.float64).reshape(-1, 2)
