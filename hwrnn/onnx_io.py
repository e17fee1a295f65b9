"""Model files: every model that hwrnn writes is an ONNX file that runs in ONNX Runtime and reads back exactly.

A float model computes in float32 what ``Model.predict`` does; a quantized one computes the integers of the golden
model, bit for bit. Reading takes the parameters from the initializers and the rest from the metadata; it neither
runs the graph nor unpickles anything. A digest of both tells a file that changed since it was written: a flipped bit in
a weight is a sound file of another network.
"""

from __future__ import annotations

import hashlib
import os

import numpy as np
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto

from hwrnn.errors import Damaged, UsageError, plain
from hwrnn.files import atomic_write
from hwrnn.importing.files import read_proto, tensor_array
from hwrnn.model import Model
from hwrnn.onnx_graph import model_proto, parameters
from hwrnn.onnx_meta import described, rebuilt
from hwrnn.quantization import QuantizedModel

__all__ = ["load", "save"]

KEY = "hwrnn"
"""The key of the description among an ONNX file's ``metadata_props``."""
SEAL = "hwrnn.sha256"
"""The key of the digest there; files of older versions have none."""

_KINDS: dict[int, str] = {
    TensorProto.FLOAT: "f", TensorProto.INT8: "i", TensorProto.INT16: "i", TensorProto.INT32: "i",
    TensorProto.INT64: "i",
}  # fmt: skip


def save(model: Model | QuantizedModel, path: str | os.PathLike[str]) -> None:
    """Write a model as an ONNX file, whole or not at all; the same model gives the same bytes.

    Raises:
        UsageError: a model that ONNX cannot express (numbers of 2**62 and more, in models of more than about 25
            bits), parameters that are not finite float32, facts that are not plain JSON values, or a path that
            cannot be written.
    """
    if not isinstance(model, Model | QuantizedModel):
        raise UsageError(f"Model must be a Model or a QuantizedModel to be saved, not {type(model).__name__}")
    _check_parameters(model)
    proto = model_proto(model)
    proto.metadata_props.add(key=KEY, value=described(model))
    try:
        proto.metadata_props.add(key=SEAL, value=digest(proto))
        content = proto.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise UsageError(
            f"Model must fit a file of 2 GiB, not {len(parameters(model))} parameters that large"
        ) from error
    atomic_write(path, content)


def load(path: str | os.PathLike[str]) -> Model | QuantizedModel:
    """Read a model that :func:`save` wrote; equal to the saved one in every field.

    Raises:
        UsageError: a file that is missing, unreadable, damaged, of another format version or not written by hwrnn.
    """
    name = os.fspath(path)
    proto = read_proto(path, external=False)
    try:
        texts = [entry.value for entry in proto.metadata_props if entry.key == KEY]
        if not texts and proto.producer_name != KEY:
            raise UsageError(
                f"Model file must be written by hwrnn, unlike {name!r}: hwrnn import turns other ONNX networks into one"
            )
        if len(texts) != 1:
            raise Damaged("hold hwrnn's description once")
        tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
        model = rebuilt(texts[0], lambda label, shape, kinds: _array(tensors, label, shape, kinds))
        if any(entry.key == SEAL and entry.value != digest(proto) for entry in proto.metadata_props):
            raise UsageError(
                f"Model file must be as hwrnn wrote it, unlike {name!r}, which changed since: save the model again, or"
                f" remove {SEAL!r} from its metadata where the change was meant"
            )
        return model
    except UsageError:
        raise
    except Damaged as error:
        raise UsageError(f"Model file must {error}, in {name!r}: save the model again") from error
    except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError, MemoryError) as error:
        words = f"Model file must be as hwrnn wrote it, unlike {name!r} ({plain(error)}): save it again"
        raise UsageError(words) from error


def digest(proto: ModelProto) -> str:
    """SHA-256 of what a model file computes and of its description."""
    found = hashlib.sha256(proto.graph.SerializeToString(deterministic=True))
    for part in (*proto.opset_import, *proto.functions):
        found.update(part.SerializeToString(deterministic=True))
    for entry in proto.metadata_props:
        if entry.key == KEY:
            found.update(entry.value.encode())
    return found.hexdigest()


def _check_parameters(model: Model | QuantizedModel) -> None:
    arrays = {f"input {n}": getattr(model, f"input_{n}") for n in ("mean", "scale")}
    arrays |= {f"output {n}": getattr(model, f"output_{n}") for n in ("mean", "scale")}
    if isinstance(model, QuantizedModel):
        for layer in model.stack:
            for (gate, operand), form in layer.formats.weights.items():
                w = layer.weights[gate, operand]
                if w.min() < form.lo or w.max() > form.hi:
                    raise UsageError(
                        f"Weights must lie in their format to be saved: those of {gate}.{operand} in {form}"
                    )
    else:
        arrays |= parameters(model)
    for name, array in arrays.items():
        if array.dtype != np.float32:
            raise UsageError(f"Parameters must be float32 to be saved, but {name} is {array.dtype}")
        if not np.isfinite(array).all():
            raise UsageError(f"Parameters must be finite to be saved, unlike {name}: train with a smaller rate")


def _array(tensors: dict[str, TensorProto], label: str, shape: tuple[int, ...], kinds: str) -> np.ndarray:
    """A parameter as a fresh array; nothing is allocated before its shape and size are what they must be."""
    if label not in tensors:
        raise Damaged(f"hold parameter {label!r}")
    tensor = tensors[label]
    if tensor.data_location == TensorProto.EXTERNAL:
        raise Damaged(f"hold its parameters itself, and not refer to another file for {label!r}")
    if _KINDS.get(tensor.data_type) != kinds:
        raise Damaged(f"hold parameter {label!r} as {'float32' if kinds == 'f' else 'integers'}")
    if tuple(tensor.dims) != shape:
        raise Damaged(f"hold parameter {label!r} of shape {shape}, not {tuple(tensor.dims)}")
    return np.array(tensor_array(tensor))
