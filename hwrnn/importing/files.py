"""ONNX files from anywhere, read safely: a sound model or one sentence.

A file may be cut off, changed by accident or written by somebody who means harm. Reading one takes memory of a small
multiple of its size and time in proportion to it, opens no file but itself and the data beside it that it refers to,
and runs nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto

from hwrnn.errors import Damaged, UsageError, plain
from hwrnn.importing.external import fetch_external
from hwrnn.importing.structure import check_model, external_tensors
from hwrnn.importing.tensors import tensor_array
from hwrnn.importing.wire import check_amount

__all__ = ["read_proto", "tensor_array"]

_LARGEST_CHECKED = 1 << 26
_LARGEST_FILE = 2**31 - 1  # protobuf reads no more


def read_proto(path: str | os.PathLike[str], *, external: bool = True) -> ModelProto:
    """Read any ONNX file.

    What comes back is sound: versions are known, names are text and stand for one value each, values are defined before
    they are read, attributes hold what their type says, tensors hold the numbers that their shape says, and nodes with
    all calls of functions are at most 100,000.

    Args:
        path: The file.
        external: Whether data in other files in the model's folder is read, into the tensors; otherwise these tensors
            keep referring to it.

    Raises:
        UsageError: a file that is missing, unreadable, damaged, of an unknown version, or more than a network takes.
    """
    name = os.fspath(path)
    content = _content(Path(path), str(name))
    try:
        check_amount(content)
        model = ModelProto.FromString(content)
        del content
        check_model(model)
        if external:
            fetch_external(external_tensors(model), os.path.dirname(name) or ".")
        _check_operators(model)
    except Damaged as error:
        raise UsageError(f"Model file must {error}, in {name!r}: save or export it again") from error
    except (DecodeError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(
            f"Model file must be an ONNX file, not damaged or of another kind as {name!r} is:"
            " give one that hwrnn or an exporter wrote"
        ) from error
    return model


def _content(path: Path, name: str) -> bytes:
    try:
        if path.is_dir():
            raise UsageError(f"Model file must be a file, not the folder {name!r}")
        if not path.exists():
            raise UsageError(f"Model file must exist, unlike {name!r}: check the path, or train a model first")
        if not path.is_file():
            raise UsageError(f"Model file must be a regular file, not the device {name!r}")
        size = path.stat().st_size
        if not 0 < size <= _LARGEST_FILE:
            raise UsageError(f"Model file must have between 1 byte and 2 GiB, not {size} bytes as {name!r} has")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        if isinstance(error, UsageError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"Model file must be readable, unlike {name!r} ({reason}): check the path") from error


def _check_operators(model: ModelProto) -> None:
    """Let the onnx package look at what operators take: numbers of inputs, names and types of attributes.

    It gets a copy whose tensors are empty, for it writes and reads the whole model again, and would look for data that
    lies elsewhere in the current folder.
    """
    bare = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, functions=model.functions)
    bare.graph.node.extend(model.graph.node)
    for tensor in model.graph.initializer:
        bare.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=[0])
    # The checker wants a name of the graph and shapes at its ends, which mean nothing and which exporters leave out.
    bare.graph.name = "main"
    for infos, copies in ((model.graph.input, bare.graph.input), (model.graph.output, bare.graph.output)):
        for info in infos:
            copy = copies.add()
            copy.CopyFrom(info)
            if info.type.HasField("tensor_type"):
                copy.type.tensor_type.shape.SetInParent()
    if bare.ByteSize() > _LARGEST_CHECKED or any(external_tensors(bare)):
        return
    try:
        onnx.checker.check_model(bare.SerializeToString())
    except (onnx.checker.ValidationError, ValueError) as error:
        reason = plain(error, 300).split(" ==> ")[0]
        raise Damaged(f"be valid ONNX ({reason})") from error
