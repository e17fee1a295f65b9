"""A layer's plan in compiled C: what ``kernel.Kernel`` does in numpy."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hwrnn.c_source import PANEL, Unprintable, flags
from hwrnn.cells import Cell
from hwrnn.compiler import C, compiler_available, identity, shared_library
from hwrnn.errors import UsageError
from hwrnn.training.c_printer import Rows, print_program
from hwrnn.training.parameters import LayerParameters
from hwrnn.training.plan import View

__all__ = ["CKernel", "arithmetic"]

_PAYS = 5_000_000_000  # multiplications of forward passes that numpy needs seconds for, as a compiler does
_LIBRARIES: dict[str, ctypes.CDLL] = {}  # by their text


class CKernel:
    """The arrays of a layer for up to ``capacity`` steps of ``batch`` sequences, as ``kernel.Kernel`` has them.

    All arrays are float32. Sequences are filled up to whole vectors with copies of the first one, to which no gradient
    belongs; sums over sequences are sums of each place in the vectors first, so they differ from numpy's in rounding.

    Args:
        layer: its cell, sizes and formats.
        matrices: by name, those of the plan's matrices and transposes; read in place, so they may change.
        gradients: by the names of the plan's matrices; written in place.
        whole: whether the gradient of the input is wanted.

    Raises:
        Unprintable: a nonlinearity that has no counterpart in C.
        UsageError: no compiler, or one that fails.
    """

    def __init__(
        self,
        layer: LayerParameters,
        capacity: int,
        batch: int,
        matrices: Mapping[str, np.ndarray],
        gradients: Mapping[str, np.ndarray],
        whole: bool,
    ) -> None:
        self.program = program = print_program(layer.cell, layer.formats is not None)
        self.plan, self.batch, self.inputs, self.units = program.plan, batch, layer.inputs, layer.units
        self.library = library_of(program.text)
        width = self.library.width()
        self.lanes = -(-batch // width) * width
        self.buffers: dict[str, np.ndarray] = {}
        self._views: dict[View, np.ndarray] = {}
        for name, timed in program.buffers.items():
            buffer = self.plan.buffers[name]
            rows = self._rows(buffer.rows)
            steps = (capacity + (buffer.steps or 0),) if timed else ()
            self.buffers[name] = np.zeros((*steps, rows, self.lanes), np.float32)
        for view in self.plan.ones:
            self.buffers[view.buffer][:, self._rows(view.start)] = 1
        starts = self.plan.starts
        for view, vector in ((view, vector) for name, vector in layer.initial.items() for view in starts[name]):
            self._cut(view, 1)[...] = vector[:, None]  # no step writes there
        self._parameters = program.numbers(layer.formats)
        self._matrices = [matrices[name] for name in program.matrices]
        self._panels = [np.empty(-(-m.shape[0] // PANEL) * PANEL * m.shape[1], np.float32) for m in self._matrices]
        self._gradients = [gradients[name] for name in self.plan.matrices]
        def room(rows: int) -> int:
            return -(-rows // width) * width + width

        gradients_of = {op.matrix: op.reads for op in self.plan.after if op.kind == "gradient"}
        stacks = dict.fromkeys(z.buffer for _, z in gradients_of.values())
        tall = {name: room(self._rows(self.plan.buffers[name].rows)) for name in stacks}
        self._across = [np.zeros((self.lanes, size), np.float32) for size in tall.values()]
        summed = [gradients_of[name] for name in self.plan.matrices]
        self._sums = [np.zeros((self._rows(d.rows), tall[z.buffer]), np.float32) for d, z in summed]
        sizes = self.inputs, self.units, self.lanes
        self._forth = (*sizes, _pointers([*self.buffers.values()]), self._parameters.ctypes.data,
                       _pointers(self._matrices), _pointers(self._panels))  # fmt: skip
        lists = self._gradients, self._across, self._sums
        self._back = (*self._forth, *map(_pointers, lists), whole)

    def _rows(self, number: int) -> int:
        return Rows.of(number).at(self.inputs, self.units)

    def _cut(self, view: View, steps: int) -> np.ndarray:
        if view not in self._views:
            start, rows = self._rows(view.start), self._rows(view.rows)
            self._views[view] = self.buffers[view.buffer][view.shift :, start : start + rows]
        return self._views[view][:steps]

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


def arithmetic(layers: Sequence[tuple[Cell, bool]], work: int, compiled: bool | None) -> str | None:
    """Whether to train in C: then all that decides how it rounds, as a digest; else None.

    The choice depends on what is asked for, on the work, and on whether there is a compiler; never on what happens to
    be in the cache folder, since both ways round differently.

    Args:
        layers: the cell of each layer, and whether it rounds to formats.
        work: multiplications in the forward passes of the whole run.
        compiled: True insists on C, False on numpy; None for C where the work pays for compiling.

    Raises:
        UsageError: C insisted on, without a compiler or for a nonlinearity that has no counterpart in C.
    """
    if compiled is False or (compiled is None and (work < _PAYS or not compiler_available(C))):
        return None
    try:
        texts = [print_program(cell, rounds).text for cell, rounds in layers]
        for text in texts:
            library_of(text)
        return identity(flags(), "\0".join(texts), language=C)
    except Unprintable as error:
        if compiled:
            must = "Nonlinearity must have a counterpart in C to train compiled"
            raise UsageError(f"{must}, but {error}: leave compiled out, to train in numpy") from error
    except UsageError:  # a compiler that does not work is none
        if compiled:
            raise
    return None


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
