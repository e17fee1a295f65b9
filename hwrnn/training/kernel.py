"""A plan with its arrays: what runs a layer forward and backward for one size of batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hwrnn.training.numpy_printer import compiled
from hwrnn.training.plan import Plan, View

__all__ = ["Kernel"]

_PARTS = 32  # time steps whose weight gradients are computed before they are added up


class Kernel:
    """The arrays of a layer for up to ``capacity`` steps of ``batch`` sequences, used again in every training step.

    Args:
        matrices: by name, those of ``plan.matrices`` and ``plan.transposes``; read in place, so they may change.
        gradients: by the names of ``plan.matrices``; written in place.
        initial: where states start, (units,) by name; zero where not given.
    """

    def __init__(
        self,
        plan: Plan,
        capacity: int,
        batch: int,
        matrices: Mapping[str, np.ndarray],
        gradients: Mapping[str, np.ndarray],
        initial: Mapping[str, np.ndarray],
    ) -> None:
        self.plan, self.capacity, self.batch = plan, capacity, batch
        dtype = next(iter(matrices.values())).dtype
        self.buffers: dict[str, np.ndarray] = {}
        for name, buffer in plan.buffers.items():
            scratch = buffer.steps is None and plan.recurrent
            shape = (buffer.rows, batch) if scratch else (capacity + (buffer.steps or 0), buffer.rows, batch)
            self.buffers[name] = np.zeros(shape, dtype)
        for view in plan.ones:
            self.buffers[view.buffer][:, view.start] = 1
        for view, vector in ((view, vector) for name, vector in initial.items() for view in plan.starts[name]):
            self._cut(view, 1)[...] = vector[:, None]  # no step writes there
        names: dict[str, Any] = {
            "buffers": self.buffers,
            "matrices": matrices,
            "gradients": gradients,
            "parts": {n: np.empty((min(_PARTS, capacity), *shape), dtype) for n, shape in plan.matrices.items()},
            "masks": np.empty((capacity, plan.output_gradient.rows, batch), np.bool_),
            "capacity": capacity,
        }
        self._forward, self._backward = compiled(plan, dtype, names)

    def _cut(self, view: View, steps: int) -> np.ndarray:
        shift = view.shift
        return self.buffers[view.buffer][shift : shift + steps, view.start : view.start + view.rows]

    def forward(self, x: np.ndarray) -> np.ndarray:
        """The output at every step, a view (steps, units, batch), of inputs ``x`` (steps, inputs, batch)."""
        steps = len(x)
        for view in self.plan.inputs:
            self._cut(view, steps)[...] = x
        self._forward(steps)
        return self._cut(self.plan.output, steps)

    def output_gradient(self, steps: int) -> np.ndarray:
        """Where the gradient of the output belongs before :meth:`backward`, a view (steps, units, batch)."""
        return self._cut(self.plan.output_gradient, steps)

    def backward(self, steps: int) -> np.ndarray:
        """Leave the gradients of the matrices in their places and return the input's, a view (steps, inputs, batch)."""
        self._backward(steps)
        return self._cut(self.plan.input_gradient, steps)

    def forget_beyond(self, lengths: np.ndarray, steps: int) -> None:
        """Zero whatever the forward pass computed beyond each sequence's length.

        Nothing there belongs to the loss, but where it overflowed, zero times infinity would reach the gradients.
        """
        beyond = (np.arange(steps)[:, None] >= lengths)[:, None, :]
        written = {v for op in (*self.plan.before, *self.plan.step) for v in op.writes} | set(self.plan.inputs)
        for view in written:
            if self.plan.buffers[view.buffer].steps is not None or not self.plan.recurrent:
                np.copyto(self._cut(view, steps), 0, where=beyond)
