"""A layer's plan in compiled C: what ``kernel.Kernel`` does in numpy."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any

import numpy as np

from hwrnn.c_source import PANEL, flags
from hwrnn.compiler import C, shared_library
from hwrnn.training.c_printer import Program, Rows
from hwrnn.training.plan import FormatsLike, View

__all__ = ["CKernel"]

_LIBRARIES: dict[str, ctypes.CDLL] = {}  # by their text


class CKernel:
    """The arrays of a layer for up to ``capacity`` steps of ``batch`` sequences, as :class:`hwrnn.training.kernel.Kernel`.

    All arrays are float32. Sequences are filled up to whole vectors with copies of the first one, to which no gradient
    belongs; sums over sequences are sums of each place in the vectors first, so they differ from numpy's in rounding.

    Args:
        program: of the layer's cell.
        inputs, units: sizes.
        formats: of a program that rounds.
        matrices: by name, those of the plan's matrices and transposes; read in place, so they may change.
        gradients: by the names of the plan's matrices; written in place.
        whole: whether the gradient of the input is wanted.

    Raises:
        UsageError: no compiler, or one that fails.
    """

    def __init__(
        self,
        program: Program,
        inputs: int,
        units: int,
        formats: FormatsLike | None,
        capacity: int,
        batch: int,
        matrices: Mapping[str, np.ndarray],
        gradients: Mapping[str, np.ndarray],
        whole: bool,
    ) -> None:
        self.program, self.plan, self.batch, self.whole = program, program.plan, batch, whole
        self.inputs, self.units = inputs, units
        self.library = library_of(program.text)
        width = self.library.width()
        self.lanes = -(-batch // width) * width
        self.buffers: dict[str, np.ndarray] = {}
        for name, timed in program.buffers.items():
            buffer = self.plan.buffers[name]
            rows = self._rows(buffer.rows)
            steps = (capacity + (buffer.steps or 0),) if timed else ()
            self.buffers[name] = np.zeros((*steps, rows, self.lanes), np.float32)
        for view in self.plan.ones:
            self.buffers[view.buffer][:, self._rows(view.start)] = 1
        self._parameters = program.numbers(formats)
        self._matrices = [matrices[name] for name in program.matrices]
        self._panels = [np.empty(-(-m.shape[0] // PANEL) * PANEL * m.shape[1], np.float32) for m in self._matrices]
        self._gradients = [gradients[name] for name in self.plan.matrices]
        def room(rows: int) -> int:
            return -(-rows // width) * width + width

        stacks = dict.fromkeys(op.reads[1].buffer for op in self.plan.after if op.kind == "gradient")
        tall = {name: room(self._rows(self.plan.buffers[name].rows)) for name in stacks}
        self._across = [np.zeros((self.lanes, size), np.float32) for size in tall.values()]
        self._sums = [
            np.zeros((self._rows(op.reads[0].rows), tall[op.reads[1].buffer]), np.float32)
            for op in sorted((op for op in self.plan.after if op.kind == "gradient"), key=lambda op: [*self.plan.matrices].index(op.matrix))
        ]
        self._forth = (*self._sizes, _pointers([*self.buffers.values()]), self._parameters.ctypes.data,
                       _pointers(self._matrices), _pointers(self._panels))  # fmt: skip
        lists = self._gradients, self._across, self._sums
        self._back = (*self._forth, *map(_pointers, lists), whole)

    @property
    def _sizes(self) -> tuple[int, int, int]:
        return self.inputs, self.units, self.lanes

    def _rows(self, number: int) -> int:
        return Rows.of(number).at(self.inputs, self.units)

    def _cut(self, view: View, steps: int) -> np.ndarray:
        start, rows = self._rows(view.start), self._rows(view.rows)
        return self.buffers[view.buffer][view.shift : view.shift + steps, start : start + rows]

    def forward(self, x: np.ndarray) -> np.ndarray:
        """The output at every step, a view (steps, units, batch), of inputs ``x`` (steps, inputs, batch)."""
        steps = len(x)
        for view in self.plan.inputs:
            place = self._cut(view, steps)
            place[..., : self.batch] = x
            place[..., self.batch :] = x[..., :1]
        self.library.forward(steps, *self._forth)
        return self._cut(self.plan.output, steps)[..., : self.batch]

    def output_gradient(self, steps: int) -> np.ndarray:
        """Where the gradient of the output belongs before :meth:`backward`, a view (steps, units, batch)."""
        return self._cut(self.plan.output_gradient, steps)[..., : self.batch]

    def backward(self, steps: int) -> np.ndarray:
        """Leave the gradients of the matrices in their places and return the input's, a view (steps, inputs, batch).

        Where it is not wanted the view means nothing.
        """
        self.library.backward(steps, *self._back)
        return self._cut(self.plan.input_gradient, steps)[..., : self.batch]

    def forget_beyond(self, lengths: np.ndarray, steps: int) -> None:
        """Zero whatever the forward pass computed beyond each sequence's length, see ``Kernel.forget_beyond``."""
        ends = np.zeros(self.lanes, lengths.dtype)
        ends[: self.batch] = lengths
        beyond = (np.arange(steps)[:, None] >= ends)[:, None, :]
        written = {v for op in (*self.plan.before, *self.plan.step) for v in op.writes} | set(self.plan.inputs)
        for view in written:
            if self.program.buffers.get(view.buffer):
                np.copyto(self._cut(view, steps), 0, where=beyond)


def library_of(text: str) -> ctypes.CDLL:
    """The library of a program, built where there is none yet.

    Raises:
        UsageError: no compiler, or one that fails.
    """
    if text not in _LIBRARIES:
        library = shared_library(
            "training", lambda: text, flags(), text, language=C, purpose="the training's kernel",
            instead="leave compiled out, to train in numpy",
        )  # fmt: skip
        number, pointer = ctypes.c_long, ctypes.c_void_p
        library.width.argtypes, library.width.restype = [], number
        library.forward.argtypes, library.forward.restype = [number] * 4 + [pointer] * 4, None
        library.backward.argtypes, library.backward.restype = [number] * 4 + [pointer] * 7 + [number], None
        _LIBRARIES[text] = library
    return _LIBRARIES[text]


def _pointers(arrays: list[np.ndarray]) -> Any:
    return (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
