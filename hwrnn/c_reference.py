"""The C reference: a quantized network as dependency-free C99 that computes golden's integers.

For the microcontroller beside an FPGA, for a vendor's test bench, and as one more check of the hardware. Each layer's
lines come from the cell's trace: ``hwrnn.c_reference_layer``, with the numbers of ``hwrnn.c_reference_numbers``. The
network around them is ``hwrnn.c_reference_network``, and its header ``hwrnn.c_reference_header``.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from hwrnn.c_reference_header import header_of
from hwrnn.c_reference_network import ReferenceNetwork
from hwrnn.c_source import Unprintable
from hwrnn.errors import UsageError
from hwrnn.files import replace_folder
from hwrnn.quantization import QuantizedModel

__all__ = ["CReference", "Unprintable", "c_reference", "write_c"]


@dataclass(frozen=True)
class CReference:
    """A network in C.

    Attributes:
        files: the text of ``NAME.h`` and ``NAME.c`` by name.
        state_bytes: of the state of one sequence, without what alignment adds.
        table_bytes: of all constant tables.
        ports: the types of the elements of input and output vectors.
    """

    files: dict[str, str]
    state_bytes: int
    table_bytes: int
    ports: tuple[str, str]


def write_c(model: QuantizedModel, folder: str | os.PathLike[str], name: str, *, argmax: bool = False) -> CReference:
    """Write a network as ``NAME.h`` and ``NAME.c``; a folder that an earlier call wrote is replaced.

    Args:
        argmax: whether the index of the largest output is returned instead of the outputs; for classification.

    Raises:
        UsageError: a model that is not quantized or needs more than 64 bits, a name that is no plain identifier, argmax
            of a regression, or a folder that cannot be written or holds what was not generated.
    """
    if not isinstance(model, QuantizedModel):
        raise UsageError("Model must be quantized to become C: quantize it first")
    if argmax and model.task != "classification":
        raise UsageError(f"Argmax must be for a model of the task classification, not {model.task}")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,199}", name):
        raise UsageError(f"Name must be a letter and up to 199 letters, digits and underscores, not {name!r}")
    try:
        made = c_reference(model, name, argmax)
    except Unprintable as error:
        raise UsageError(f"Model must fit the integers of C, but does not ({error}): use fewer bits") from error
    with replace_folder(folder) as path:
        for file, text in made.files.items():
            (Path(path) / file).write_bytes(text.encode())
    return made


def c_reference(model: QuantizedModel, name: str, argmax: bool = False) -> CReference:
    """The C of a network whose name is a plain identifier, the same bytes in every run.

    Raises:
        Unprintable: a network that needs more than 64 bits; the text says why, as the end of a sentence.
    """
    network = ReferenceNetwork(model, name, argmax)
    source = network.source()  # first, since the header tells the size of its tables
    files = {f"{name}.h": header_of(network), f"{name}.c": source}
    return CReference(files, network.state_bytes, network.tables.size, network.ports)
