"""Tensors of ONNX files: checked against what they say of themselves, and as arrays."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from hwrnn.errors import Damaged, UsageError, shown

__all__ = ["check_tensor", "tensor_array"]

_LARGEST = 2**31 - 1  # elements, and the product of the sizes that are not zero
_MOST_DIMENSIONS = 32  # numpy before 2.0 has no more

_KNOWN = frozenset(TensorProto.DataType.keys())
# Bits of an element; types that an older onnx package does not know are absent.
_BITS: dict[int, int] = {
    TensorProto.DataType.Value(name): bits
    for bits, names in {
        2: "UINT2 INT2", 4: "UINT4 INT4 FLOAT4E2M1", 6: "FLOAT6E2M3 FLOAT6E3M2",
        8: "UINT8 INT8 BOOL FLOAT8E4M3FN FLOAT8E4M3FNUZ FLOAT8E5M2 FLOAT8E5M2FNUZ FLOAT8E8M0",
        16: "UINT16 INT16 FLOAT16 BFLOAT16", 32: "FLOAT INT32 UINT32", 64: "INT64 UINT64 DOUBLE COMPLEX64",
        128: "COMPLEX128",
    }.items()
    for name in names.split()
    if name in _KNOWN
}  # fmt: skip
_PACKED = {2: 4, 4: 2}  # bits -> elements in one number of int32_data
_COMPLEX = {TensorProto.COMPLEX64, TensorProto.COMPLEX128}
_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


def check_tensor(tensor: TensorProto, words: Callable[[], str]) -> None:
    """Find out whether a tensor's sizes, element type and data agree; nothing is allocated.

    Args:
        tensor: The tensor.
        words: Gives its name in a sentence.

    Raises:
        Damaged: a negative or huge size, an unknown type, or data of another length.
    """
    sizes = tuple(tensor.dims)
    if min(sizes, default=0) < 0:
        raise Damaged(f"hold sizes of at least 0 in {words()}, not {min(sizes)}")
    if len(sizes) > _MOST_DIMENSIONS:
        raise Damaged(f"hold at most {_MOST_DIMENSIONS} dimensions in {words()}, not {len(sizes)}")
    if math.prod(size for size in sizes if size) > _LARGEST:
        raise Damaged(f"hold less than 2**31 numbers in {words()}, unlike shape {shown(sizes)}")
    kind, count = tensor.data_type, math.prod(sizes)
    if kind not in _BITS and kind != TensorProto.STRING:
        raise Damaged(f"hold a known type of number in {words()}, not type {kind}")
    if tensor.HasField("segment"):
        raise Damaged(f"hold {words()} whole, not a segment of it")
    raw = tensor.HasField("raw_data")
    filled = [field for field in _FIELDS if len(getattr(tensor, field))]
    external = tensor.data_location == TensorProto.EXTERNAL
    if external != bool(tensor.external_data) or (external and (raw or filled)):
        raise Damaged(f"hold the data of {words()} in one place, here or in another file")
    if external:
        return
    if len(filled) + raw > 1:
        raise Damaged(f"hold the data of {words()} once, not as {' and '.join([*filled, *['raw_data'] * raw])}")
    if raw and kind == TensorProto.STRING:
        raise Damaged(f"hold the strings of {words()} as string_data, not raw_data")
    if raw:
        due, found, unit = (count * _BITS[kind] + 7) // 8, len(tensor.raw_data), "bytes"
    else:
        field = helper.tensor_dtype_to_field(kind)
        if filled and filled != [field]:
            raise Damaged(f"hold the data of {words()} as {field}, not {filled[0]}, for its type {kind}")
        share = _PACKED.get(_BITS.get(kind, 0), 1)
        due, found = -(-count * (2 if kind in _COMPLEX else 1) // share), len(getattr(tensor, field))
        unit = "strings" if kind == TensorProto.STRING else "numbers"
    if found != due:
        raise Damaged(f"hold {due} {unit} in {words()} as its shape {shown(sizes)} says, not {found}")


def tensor_array(tensor: TensorProto) -> np.ndarray:
    """A tensor's numbers as an array that may not be written to; types that numpy lacks come from ``ml_dtypes``.

    What it allocates is bounded by the tensor's own size, whatever its dimensions say.

    Raises:
        UsageError: strings, data in another file (``read_proto`` fetches those), or a tensor that is not sound.
    """
    what = f"tensor {shown(tensor.name)}"
    try:
        check_tensor(tensor, lambda: what)
        if tensor.data_type == TensorProto.STRING:
            raise Damaged(f"hold numbers in {what}, not strings")
        if tensor.data_location == TensorProto.EXTERNAL:
            raise Damaged(f"hold {what} itself, and not refer to another file for it")
    except Damaged as error:
        raise UsageError(f"Model file must {error}: save or export it again") from error
    array = np.asarray(numpy_helper.to_array(tensor))
    if array.dtype == np.bool_:  # a byte of 2 would be true and still differ from True
        array = np.asarray(array.view(np.uint8) != 0)
    array.flags.writeable = False
    return array
