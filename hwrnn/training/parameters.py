"""A layer's parameters as one vector, and what the matrices are made of it before every step."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np

from hwrnn.fixed import round_half_up
from hwrnn.model import Layer
from hwrnn.training.layout import Layout
from hwrnn.training.lowering import lower
from hwrnn.training.plan import FormatsLike, Plan
from hwrnn.training.planning import make_plan

__all__ = ["LayerParameters"]


class LayerParameters:
    """How a layer's trained numbers (its *masters*) lie in a vector and become its matrices.

    Without formats, the slope and intercept of a clipped line are folded into the weights of its gate. With formats,
    every weight is rounded to its format and every bias to its fraction, and the gradient passes straight through to
    the masters. Y. Bengio, N. Leonard, A. Courville, arXiv:1308.3432 (2013).
    """

    def __init__(self, layer: Layer, formats: FormatsLike | None) -> None:
        self._layer, self.cell = layer, layer.cell
        self.inputs, self.units, self.formats = layer.inputs, layer.units, formats
        self.layout = Layout(layer.cell, layer.inputs, layer.units)
        self.plan: Plan = make_plan(layer.cell, layer.inputs, layer.units, formats)
        self.size = self.layout.size
        self.reverse, self.initial = layer.reverse, dict(layer.initial)
        if formats is not None:
            values = formats.values
            self.initial = {s: values[s].dequantize(values[s].quantize(v)) for s, v in layer.initial.items()}
        self.index = {name: self.layout.parameter(name) for name in layer.parameters}

    def packed(self, layer: Layer) -> np.ndarray:
        """The vector of a layer's parameters, float64 (size,); zero where no parameter stands."""
        vector = np.zeros(self.size)
        for name, index in self.index.items():
            vector[index] = layer.parameters[name]
        return vector

    def unpacked(self, vector: np.ndarray) -> Layer:
        """The layer of a vector, its parameters in float32."""
        parameters = {name: vector[index].astype(np.float32) for name, index in self.index.items()}
        return replace(self._layer, parameters=parameters)

    def _by_block(self, rest: float, value: dict[tuple[str, str], float]) -> np.ndarray:
        vector = np.full(self.size, rest)
        for (gate, operand), number in value.items():
            vector[self.layout.block(gate, operand)] = number
        return vector

    @property
    def _blocks(self) -> list[tuple[str, str]]:
        return [(g, o) for p in self.cell.phases for g, reads in p.gates.items() for o in (*reads, "b")]

    @cached_property
    def decays(self) -> np.ndarray:
        """1 where weight decay applies, on matrices; 0 on biases."""
        return self._by_block(0.0, {(g, o): float(o != "b") for g, o in self._blocks})

    @cached_property
    def slope(self) -> np.ndarray:
        """What each master is multiplied with on its way into a matrix; 0 where no master stands."""
        folded = lower(self.cell, self.formats).folded
        return self._by_block(0.0, {(g, o): folded.get(g, (1.0, 0.0))[0] for g, o in self._blocks})

    @cached_property
    def intercept(self) -> np.ndarray:
        """What is added to it then."""
        folded = lower(self.cell, self.formats).folded
        return self._by_block(0.0, {(g, "b"): line[1] for g, line in folded.items()})

    @cached_property
    def grid(self) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        """The step, the lowest and the highest value of each master's format; None without formats."""
        if self.formats is None:
            return None
        step, low, high = {}, {}, {}
        for gate, operand in self._blocks:
            key = (gate, operand)
            if operand == "b":
                step[key], low[key], high[key] = 2.0 ** -self.formats.bias_frac[gate], -np.inf, np.inf
            else:
                form = self.formats.weights[key]
                step[key], low[key], high[key] = form.step, form.min, form.max
        return self._by_block(1.0, step), self._by_block(0.0, low), self._by_block(0.0, high)

    def effective(self, masters: np.ndarray) -> np.ndarray:
        """The entries of the matrices."""
        if self.grid is None:
            return masters * self.slope + self.intercept
        step, low, high = self.grid
        return np.minimum(np.maximum(round_half_up(masters.astype(np.float64) / step) * step, low), high)
