"""A network from elsewhere: what its outputs are, computed with hwrnn's layers, and the model that it is."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from hwrnn.errors import UsageError, shown
from hwrnn.importing.assembly import Assembly, assembled
from hwrnn.importing.evaluation import Evaluation
from hwrnn.importing.operators import Interpreter
from hwrnn.importing.quantizers import with_formats
from hwrnn.importing.values import Value
from hwrnn.model import Model

__all__ = ["Imported", "import_onnx"]


def import_onnx(
    path: str | os.PathLike[str], *, output: str | None = None, initial: str | None = None, task: str | None = None
) -> Imported:
    """Read a network that other tools wrote as an ONNX file, with standard operators.

    Args:
        output: the output that :attr:`Imported.model` computes; None for the first of the file.
        initial: ``zero`` sets every input that holds initial states to zero; None leaves them inputs, which
            :meth:`Imported.run` takes and :attr:`Imported.model` refuses.
        task: ``classification`` or ``regression``; None takes a network that ends in Softmax or ArgMax for a classifier
            and every other one for a regression.

    Raises:
        UsageError: a file that cannot be read, an operator or argument that hwrnn has no counterpart for, with the name
            of its node and the reason, or an unknown output.
    """
    from hwrnn.importing.files import read_proto

    if initial not in (None, "zero"):
        raise UsageError(f"Initial states must be zero or, left out, inputs as in the file, not {initial!r}")
    if task not in (None, "classification", "regression"):
        raise UsageError(f"Task must be classification or regression, not {task!r}")
    found = Imported(Interpreter(read_proto(path), zero_initial=initial == "zero"), output, task)
    for sentence in found.warnings:
        warnings.warn(sentence, stacklevel=2)
    return found


class Imported:
    """A network of an ONNX file, understood.

    Attributes:
        inputs: names of the inputs that :meth:`run` takes.
        outputs: names of the outputs that are understood, in the file's order; that of ``model`` is ``output``.
        output: the output that ``model`` computes.
        notes: sentences about what is not as in the file.
        warnings: those of the notes that a person must not miss.
    """

    def __init__(self, net: Interpreter, output: str | None = None, task: str | None = None) -> None:
        self._net = net
        self._values: dict[str, Value] = {}
        refusals: dict[str, UsageError] = {}
        for name, value in net.outputs.items():
            if isinstance(value, UsageError):
                refusals[name] = value
            else:
                self._values[name] = value
        if not net.outputs:
            raise UsageError("Network must have an output")
        if output is not None and output not in net.outputs:
            known = ", ".join(shown(name) for name in list(net.outputs)[:20])
            raise UsageError(f"Output must be one of {known}, not {output!r}")
        self.output = next(iter(net.outputs)) if output is None else output
        if self.output in refusals:
            raise refusals[self.output]
        self.inputs, self.outputs = tuple(net.inputs), tuple(self._values)
        self.warnings = list(net.warnings)
        self.notes = [*net.warnings, *net.notes]
        self.notes += [f"Output {shown(name)} is not understood: {error}" for name, error in refusals.items()]
        facts: dict[str, Any] = {"imported": " ".join(f"{net.producer} {net.proto.producer_version}".split()) or "ONNX"}
        self._found: Assembly | UsageError
        try:
            found = assembled(net, self.output, self._values[self.output], task, facts)
            self._found = with_formats(net, found, self.output, task)
            self.notes += self._found.notes
            others = [shown(name) for name in self.outputs if name != self.output]
            if others:
                self.notes.append(f"The model gives output {shown(self.output)}; not taken: {', '.join(others)}")
        except UsageError as error:
            self._found = error

    @property
    def model(self) -> Model:
        """The network as a model.

        Raises:
            UsageError: what stops it, where the output cannot be computed by layers one behind the other.
        """
        if isinstance(self._found, UsageError):
            raise self._found
        return self._found.model

    def run(self, feeds: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The file's own outputs, in its own layout, of arrays for its inputs.

        Computed in float32 with hwrnn's layers; only what an output needs has to be fed.

        Raises:
            UsageError: an input that is missing, unknown or of the wrong shape, lengths outside 1..T, or numbers that
                are not finite.
        """
        run = Evaluation(self._net, feeds)
        try:
            return {name: run.output(value, self._net.declared[name]) for name, value in self._values.items()}
        except MemoryError as error:
            raise UsageError("Input must need no more memory than there is: give fewer sequences or steps") from error
