"""Seeded damage: to bytes, to the structure of protobuf messages, and to JSON.

Every mutator takes a generator of random numbers and is deterministic in it. They know the format but nothing of hwrnn.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.message import Error
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

Random = random.Random

NUMBERS = (
    -1, 0, 1, 2, 3, 7, 8, 16, 63, 64, 127, 128, 255, 256, 1000, 65535, 65536, 2**20, 2**24, 2**31 - 1, 2**31, 2**32 - 1,
    2**32, 2**40, 2**53, 2**62, 2**63 - 1, -2, -3, -128, -(2**31), -(2**63),
)  # fmt: skip
REALS = (
    0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-45, -1e-45, 1e-300, 1e300, 3.4e38, -3.4e38, 1e-7, float("nan"), float("inf"),
    float("-inf"), 0.01, 6.0,
)  # fmt: skip
PATHS = (
    "../canary/secret.bin", "/etc/passwd", "/dev/zero", "link.bin", "w.bin", "../../etc/passwd", ".", "", "w.bin/x",
    "/proc/self/mem", "~/.bashrc", "file:///etc/passwd", "..", "mutant.onnx", "\0", "a" * 5000,
)  # fmt: skip
TEXTS = (
    "", "x", "Y", "h", "W", "\0", "\n", "é", "\U0001f600", "forward", "reverse", "bidirectional", "Tanh", "Sigmoid",
    "Relu", "Affine", "HardSigmoid", "ai.onnx", "com.microsoft", "ai.onnx.ml", "qonnx.custom_op.general", "hwrnn",
    "%s%n", "{0}", "'\"", "a" * 200, *PATHS,
)  # fmt: skip
OPERATORS = (
    "RNN", "GRU", "LSTM", "Transpose", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Slice", "Gather", "Concat",
    "Split", "Identity", "Cast", "Shape", "ConstantOfShape", "Constant", "Expand", "Tile", "Range", "Pad", "Gemm",
    "MatMul", "Add", "Sub", "Mul", "Div", "Pow", "Sqrt", "Relu", "Sigmoid", "Tanh", "Softmax", "ArgMax", "ReduceMean",
    "ReduceSum", "QuantizeLinear", "DequantizeLinear", "Clip", "Loop", "Scan", "If", "ScatterND", "GatherND", "OneHot",
    "Size", "NonZero", "Where", "Equal", "CumSum", "TopK", "Resize", "EyeLike", "RandomNormal", "Mod", "BitShift",
    "Einsum", "Trilu", "ReverseSequence", "SequenceEmpty", "StringConcat", "Quant", "LogSoftmax", "Compress", "Max",
    "Min", "Neg",
)  # fmt: skip
MAX_BYTES = 1 << 20


# -- bytes -------------------------------------------------------------------------------------------------------------
def damage_bytes(content: bytes, other: bytes, rng: Random) -> bytes:
    """One to four changes of bytes; ``other`` is a second file to splice from."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not data:
            break
        at, size = rng.randrange(len(data)), rng.choice((1, 2, 4, 8, 32, 256))
        change = rng.randrange(10)
        if change == 0:
            del data[at:]
        elif change in (1, 2, 3):
            data[at] ^= 1 << rng.randrange(8)
        elif change == 4:
            data[at] = rng.randrange(256)
        elif change == 5:
            start = rng.randrange(len(other) or 1)
            data[at : at + rng.choice((0, size))] = other[start : start + size]
        elif change == 6:
            data[at:at] = data[at : at + size] * rng.choice((1, 2, 30))
        elif change == 7:
            del data[at : at + size]
        elif change == 8:
            data[at : at + 1] = varint(rng.choice(NUMBERS))
        else:
            to = rng.randrange(len(data))
            data[at : at + size], data[to : to + size] = data[to : to + size], data[at : at + size]
    return bytes(data)


def varint(value: int) -> bytes:
    """A number as protobuf writes it; negative ones take ten bytes."""
    value &= 2**64 - 1
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


# -- protobuf ----------------------------------------------------------------------------------------------------------
def damage_model(content: bytes, other: bytes, rng: Random) -> bytes:
    """One to four changes of the structure of a serialized model, with parts of another one."""
    model = ModelProto.FromString(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        change = rng.choice(_CHANGES)
        try:
            change(model, other, rng)
        except (ValueError, TypeError, IndexError, Error):  # nothing to change, or nothing that fits
            continue
    try:
        found: bytes = model.SerializeToString()
    except (Error, ValueError):  # nested deeper than protobuf goes
        return content
    return found if len(found) <= MAX_BYTES else content


def _messages(model: ModelProto, kind: str) -> list[Any]:
    """Graphs, nodes, tensors or attributes of a model, in subgraphs and functions too."""
    found: dict[str, list[Any]] = {"graph": [], "node": [], "tensor": [], "attribute": []}
    waiting: list[Any] = [model.graph, *model.functions]
    while waiting:
        graph = waiting.pop()
        if isinstance(graph, GraphProto):
            found["graph"].append(graph)
            found["tensor"] += graph.initializer
        for node in graph.node:
            found["node"].append(node)
            for attribute in node.attribute:
                found["attribute"].append(attribute)
                if attribute.HasField("g"):
                    waiting.append(attribute.g)
                elif attribute.HasField("t"):
                    found["tensor"].append(attribute.t)
    return found[kind]


def _pick(model: ModelProto, kind: str, rng: Random) -> Any:
    found = _messages(model, kind)
    if not found:
        raise ValueError(kind)
    return rng.choice(found)


def _names(model: ModelProto) -> list[str]:
    names = [info.name for info in model.graph.input]
    names += [tensor.name for tensor in model.graph.initializer]
    names += [name for node in _messages(model, "node") for name in node.output]
    return names or [""]


def _anywhere(model: ModelProto, other: bytes, rng: Random) -> None:
    """A random field of a random message, by the schema."""
    message: Any = model
    while True:
        fields = message.DESCRIPTOR.fields
        inside = [f for f, _ in message.ListFields() if f.message_type is not None]
        if inside and rng.random() < 0.75:
            chosen = rng.choice(inside)
            value = getattr(message, chosen.name)
            message = value[rng.randrange(len(value))] if chosen.is_repeated else value
            continue
        chosen = rng.choice(fields)
        break
    name = chosen.name
    if chosen.is_repeated:
        _damage_list(getattr(message, name), chosen, rng)
    elif rng.random() < 0.2:
        message.ClearField(name)
    elif chosen.message_type is not None:
        getattr(message, name).SetInParent()
    else:
        setattr(message, name, _value(chosen, rng))


def _damage_list(values: Any, field: Any, rng: Random) -> None:
    change = rng.randrange(6)
    if change == 0 or not values:
        if field.message_type is not None:
            values.add()
        else:
            values.append(_value(field, rng))
    elif change == 1:
        del values[rng.randrange(len(values))]
    elif change == 2:
        values.extend([values[rng.randrange(len(values))]])
    elif change == 3:
        del values[:]
    elif field.message_type is not None:
        values[rng.randrange(len(values))].CopyFrom(values[rng.randrange(len(values))])
    else:
        values[rng.randrange(len(values))] = _value(field, rng)


def _value(field: Any, rng: Random) -> Any:
    if field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_INT64, field.CPPTYPE_UINT32, field.CPPTYPE_UINT64):
        return rng.choice(NUMBERS)
    if field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        return rng.choice(REALS)
    if field.cpp_type == field.CPPTYPE_ENUM:
        return rng.choice(field.enum_type.values).number
    text = rng.choice(TEXTS)
    return text.encode() if field.type == field.TYPE_BYTES else text


def _rewire(model: ModelProto, other: bytes, rng: Random) -> None:
    """Another value at an input or an output of a node: cycles, several definitions, missing values."""
    node = _pick(model, "node", rng)
    ends = node.input if rng.random() < 0.7 else node.output
    ends[rng.randrange(len(ends))] = rng.choice(_names(model))


def _retype_operator(model: ModelProto, other: bytes, rng: Random) -> None:
    node = _pick(model, "node", rng)
    node.op_type = rng.choice(OPERATORS)
    if rng.random() < 0.2:
        node.domain = rng.choice(TEXTS)


def _insert_node(model: ModelProto, other: bytes, rng: Random) -> None:
    """A new operator between a value and whoever reads it first."""
    nodes = model.graph.node
    at = rng.randrange(len(nodes))
    target = nodes[at]
    end = rng.randrange(len(target.input))
    more = [_constant(model, rng) for _ in range(rng.choice((0, 1, 1, 2, 4)))]
    attributes: dict[str, Any] = {}
    known = ("axis", "perm", "axes", "to", "keepdims", "starts", "ends", "shape")
    for name in rng.sample(known, rng.choice((0, 0, 1, 2))):
        many = name in ("perm", "axes", "starts", "ends", "shape")
        attributes[name] = [rng.choice(NUMBERS[:8]) for _ in range(3)] if many else rng.choice(NUMBERS[:8])
    ends = [target.input[end], *more] if rng.random() < 0.8 else more
    fresh = f"inserted{len(nodes)}"
    nodes.insert(at, helper.make_node(rng.choice(OPERATORS), ends, [fresh], **attributes))
    nodes[at + 1].input[end] = fresh


def _constant(model: ModelProto, rng: Random) -> str:
    """A new tensor of small or extreme whole or real numbers."""
    count = rng.choice((0, 1, 1, 2, 3, 4))
    name = f"constant{len(model.graph.initializer)}"
    if rng.random() < 0.7:
        values = [rng.choice(NUMBERS) for _ in range(count)]
        raw, kind = struct.pack(f"<{count}q", *values), TensorProto.INT64
    else:
        raw = struct.pack(f"<{count}f", *(v if abs(v := rng.choice(REALS)) < 3.41e38 else 1.0 for _ in range(count)))
        kind = TensorProto.FLOAT
    dims = [count] if count != 1 or rng.random() < 0.5 else []
    model.graph.initializer.add(name=name, data_type=kind, dims=dims, raw_data=raw)
    return name


def _reshape_tensor(model: ModelProto, other: bytes, rng: Random) -> None:
    """Sizes that are huge or negative, swapped, or of the same number of elements."""
    tensor = _pick(model, "tensor", rng)
    change = rng.randrange(5)
    if change == 0 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(NUMBERS)
    elif change == 1:
        sizes = list(tensor.dims)
        rng.shuffle(sizes)
        tensor.dims[:] = sizes
    elif change == 2:
        tensor.dims.insert(rng.randrange(len(tensor.dims) + 1), rng.choice((1, 1, 0, 2)))
    elif change == 3:
        tensor.data_type = rng.randrange(30)
    else:
        tensor.dims[:] = [rng.choice(NUMBERS) for _ in range(rng.randrange(5))]


def _zero_tensor(model: ModelProto, other: bytes, rng: Random) -> None:
    """The right amount of data for sizes that are others than before."""
    tensor = _pick(model, "tensor", rng)
    sizes = [rng.choice((0, 1, 2, 3, 4, 8)) for _ in range(rng.randrange(4))]
    count = 1
    for size in sizes:
        count *= size
    number = struct.pack("<f", rng.choice(REALS[:9])) if rng.random() < 0.8 else b"\xff\xff\xff\x7f"
    tensor.CopyFrom(TensorProto(name=tensor.name, dims=sizes, data_type=TensorProto.FLOAT, raw_data=number * count))


def _outside(model: ModelProto, other: bytes, rng: Random) -> None:
    """Data in another file."""
    tensor = _pick(model, "tensor", rng)
    size = len(tensor.raw_data)
    if rng.random() < 0.9:
        tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=rng.choice(PATHS) if rng.random() < 0.7 else "w.bin")
    for key in ("offset", "length", "checksum", "other"):
        if rng.random() < 0.4:
            tensor.external_data.add(key=key, value=str(rng.choice((*NUMBERS, size, size, "", "x", "1e9"))))


def _change_attribute(model: ModelProto, other: bytes, rng: Random) -> None:
    attribute = _pick(model, "attribute", rng)
    change = rng.randrange(4)
    if change == 0:
        attribute.type = rng.randrange(1, 15)
    elif change == 1:
        attribute.name = rng.choice((*TEXTS[:8], "alpha", "clip", "direction", "layout", "hidden_size", "axis"))
    elif change == 2:
        _new_value(attribute, rng)
    else:
        attribute.ref_attr_name = rng.choice(TEXTS)


def _new_value(attribute: AttributeProto, rng: Random) -> None:
    """A value of the attribute's own type."""
    kind = attribute.type
    if kind == AttributeProto.INT:
        attribute.i = rng.choice(NUMBERS)
    elif kind == AttributeProto.FLOAT:
        attribute.f = rng.choice(REALS)
    elif kind == AttributeProto.STRING:
        attribute.s = rng.choice(TEXTS).encode()
    elif kind == AttributeProto.INTS:
        attribute.ints[:] = [rng.choice(NUMBERS) for _ in range(rng.randrange(6))]
    elif kind == AttributeProto.FLOATS:
        attribute.floats[:] = [rng.choice(REALS) for _ in range(rng.randrange(6))]
    elif kind == AttributeProto.STRINGS:
        attribute.strings[:] = [rng.choice(TEXTS).encode() for _ in range(rng.randrange(8))]


def _add_attribute(model: ModelProto, other: bytes, rng: Random) -> None:
    """An attribute of the recurrent operators, or of none."""
    node = _pick(model, "node", rng)
    names = [rng.choice(TEXTS[12:17]) for _ in range(rng.randrange(1, 7))]
    choices: Sequence[tuple[str, Any]] = (
        ("clip", rng.choice(REALS)), ("direction", rng.choice(("forward", "reverse", "bidirectional", "sideways"))),
        ("layout", rng.choice((0, 1, 2))), ("linear_before_reset", rng.choice((0, 1, -1))), ("input_forget", 1),
        ("hidden_size", rng.choice(NUMBERS)), ("activations", names),
        ("activation_alpha", [rng.choice(REALS) for _ in range(3)]), ("unheard_of", 1), ("axis", rng.choice(NUMBERS)),
        ("activation_beta", [rng.choice(REALS) for _ in range(3)]), ("output_sequence", 1),
    )  # fmt: skip
    name, value = rng.choice(choices)
    node.attribute.append(helper.make_attribute(name, value))


def _nest(model: ModelProto, other: bytes, rng: Random) -> None:
    """The graph as a subgraph of one of its nodes, several times."""
    for _ in range(rng.choice((1, 2, 6, 30))):
        node = _pick(model, "node", rng)
        graph = GraphProto()
        graph.CopyFrom(model.graph)
        if len(graph.node) * len(model.graph.node) > 4000 or model.ByteSize() > MAX_BYTES // 16:
            break
        node.attribute.append(helper.make_attribute(rng.choice(("body", "then_branch", "else_branch")), graph))


def _functions(model: ModelProto, other: bytes, rng: Random) -> None:
    """Functions that call each other, or themselves."""
    model.opset_import.add(domain="f", version=1)
    count = rng.choice((1, 2, 30))
    for k in range(count):
        function = model.functions.add(name=f"f{k}", domain="f", input=["x"], output=["y"])
        function.opset_import.extend(model.opset_import)
        called = f"f{rng.randrange(count) if rng.random() < 0.1 else k + 1}"
        function.node.add(op_type=called if k + 1 < count else "Relu", domain="f", input=["x"], output=["z"])
        function.node.add(op_type=called if k + 1 < count else "Relu", domain="f", input=["z"], output=["y"])
    node = _pick(model, "node", rng)
    node.op_type, node.domain = "f0", "f"


def _borrow(model: ModelProto, other: bytes, rng: Random) -> None:
    """Nodes, tensors or a whole graph of another file."""
    source = ModelProto.FromString(other)
    change = rng.randrange(4)
    if change == 0:
        model.graph.node.extend(source.graph.node)
    elif change == 1:
        model.graph.initializer.extend(source.graph.initializer)
    elif change == 2:
        model.MergeFrom(source)
    else:
        _pick(model, "node", rng).CopyFrom(_pick(source, "node", rng))


def _repeat(model: ModelProto, other: bytes, rng: Random) -> None:
    """Nodes several times, in another order, or without one."""
    nodes = model.graph.node
    change = rng.randrange(3)
    if change == 0:
        nodes.extend(nodes[rng.randrange(len(nodes)) :])
    elif change == 1:
        shuffled = list(nodes)
        rng.shuffle(shuffled)
        copies = [NodeProto.FromString(node.SerializeToString()) for node in shuffled]
        del nodes[:]
        nodes.extend(copies)
    else:
        del nodes[rng.randrange(len(nodes))]


def _versions(model: ModelProto, other: bytes, rng: Random) -> None:
    if rng.random() < 0.5:
        model.ir_version = rng.choice((*NUMBERS, *range(3, 16)))
    else:
        rng.choice(model.opset_import).version = rng.choice((*NUMBERS, *range(6, 30)))


def _description(model: ModelProto, other: bytes, rng: Random) -> None:
    """A change in the JSON of the metadata."""
    entry = rng.choice(model.metadata_props)
    if len(entry.value) < 2 * MAX_BYTES:
        entry.value = damage_json(entry.value, rng)


_CHANGES: Sequence[Callable[[ModelProto, bytes, Random], None]] = (
    _anywhere, _anywhere, _anywhere, _rewire, _retype_operator, _insert_node, _insert_node, _insert_node,
    _reshape_tensor, _zero_tensor, _outside, _change_attribute, _change_attribute, _add_attribute, _nest, _functions,
    _borrow, _repeat, _versions, _description, _description, _description,
)  # fmt: skip


# -- JSON --------------------------------------------------------------------------------------------------------------
_JSON: tuple[Any, ...] = (
    None, True, False, *NUMBERS, *(v for v in REALS if abs(v) < 1e301), "", "x", "h", "1/3", "1/0", "-7", "tanh",
    "1e9999", "9" * 50, "NaN", [], ["1"], [[]], {}, {"name": "tanh"}, "lstm", "dense", "float", "quantized",
    "pwl_tanh:4", 2**80, 10**400, "a" * 10**5, "\0", ["0"] * 1000,
)  # fmt: skip


def damage_json(text: str, rng: Random) -> str:
    """A value somewhere in a JSON text replaced, removed, copied or renamed; or the text itself damaged."""
    if rng.random() < 0.1:
        at = rng.randrange(len(text) + 1)
        return text[:at] + rng.choice(("", "{", "]", '"', ",", "[" * 9999, "9" * 5000, "\\ud800")) + text[at + 1 :]
    try:
        root = json.loads(text)
    except (ValueError, RecursionError):
        return text
    what, found = root, []
    while isinstance(what, dict | list) and what:
        key = rng.choice(list(what)) if isinstance(what, dict) else rng.randrange(len(what))
        found.append((what, key))
        what = what[key]
    if not found:
        return json.dumps(rng.choice(_JSON))
    what, key = found[-1] if rng.random() < 0.5 else rng.choice(found)
    change = rng.randrange(8)
    if change == 0:
        del what[key]
    elif change == 1:
        elsewhere, other = rng.choice(found)
        what[key] = json.loads(json.dumps(elsewhere[other]))
    elif change == 2 and isinstance(what, list):
        what.insert(key, json.loads(json.dumps(what[key])))
    elif change == 3 and isinstance(what, dict):
        what[rng.choice(("x", "h", "c", "format", "clip", "initial", "reverse", "beside", "psi"))] = rng.choice(_JSON)
    elif change == 4 and isinstance(what[key], int | float) and not isinstance(what[key], bool):
        what[key] += rng.choice((1, -1))
    else:
        what[key] = rng.choice(_JSON)
    return json.dumps(root)
