"""Files from strangers: every damage is told in one sentence, and no other file is read."""

import io
import os
import random
import re
import subprocess
import sys
import warnings
import zipfile

import fuzz_onnx
import numpy as np
import onnx
import pytest
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper

import hwrnn
from hwrnn.errors import UsageError, plain, shown
from hwrnn.importing.files import read_proto, tensor_array
from hwrnn.model import Model

FLOAT, BOOL = TensorProto.FLOAT, TensorProto.BOOL


def network() -> ModelProto:
    """An LSTM, a function that is called, and a graph within the graph."""
    rng = np.random.default_rng(1)
    tensors = [
        numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        for name, shape in (("W", (1, 8, 3)), ("R", (1, 8, 2)), ("B", (1, 16)), ("two", (1,)))
    ]
    imports = [helper.make_opsetid("", 21), helper.make_opsetid("mine", 1)]
    double = helper.make_function(
        "mine", "Double", ["v"], ["d"],
        [helper.make_node("Add", ["v", "v"], ["s"]), helper.make_node("Relu", ["s"], ["d"])], imports[:1],
    )  # fmt: skip
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(op, ["h"], [name])], f"{name} it", [], [helper.make_tensor_value_info(name, FLOAT, None)]
        )
        for name, op in (("then", "Neg"), ("else", "Abs"))
    }
    nodes = [
        helper.make_node("LSTM", ["x", "W", "R", "B"], ["", "h", ""], name="lstm", hidden_size=2, activations=[
            "Sigmoid", "Tanh", "Tanh"]),
        helper.make_node("If", ["c"], ["either"], name="choice", **branches),
        helper.make_node("Double", ["either"], ["doubled"], name="twice", domain="mine"),
        helper.make_node("Mul", ["doubled", "two"], ["y"], name="last"),
    ]  # fmt: skip
    ends = [helper.make_tensor_value_info(n, k, s) for n, k, s in (("x", FLOAT, ["T", 1, 3]), ("c", BOOL, []))]
    out = [helper.make_tensor_value_info("y", FLOAT, None)]
    graph = helper.make_graph(nodes, "main", ends, out, tensors)
    return helper.make_model(graph, opset_imports=imports, functions=[double], ir_version=10)


SOUND = network().SerializeToString()


def read(model, tmp_path, **options):
    path = tmp_path / "m.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return read_proto(path, **options)


def test_a_sound_file_is_read_whole(tmp_path):
    assert read(network(), tmp_path) == network()


def tensor(**fields) -> TensorProto:
    return TensorProto(**{"name": "t", "dims": [2], "data_type": FLOAT, "raw_data": bytes(8), **fields})


def grown(model, levels):
    """The main graph put into itself as a branch, ``levels`` deep."""
    inner = model.graph.node[1].attribute[0].g
    for k in range(levels):
        node = helper.make_node("If", ["c"], [f"deep{k}"], name=f"n{k}")
        for name in ("then_branch", "else_branch"):
            branch = helper.make_attribute(name, onnx.GraphProto(name="g"))
            branch.g.output.add(name="h")
            node.attribute.append(branch)
        inner.node.insert(0, node)
        inner = inner.node[0].attribute[0].g


def laughs(model, levels):
    """Functions that call the one before twice: 2**levels nodes."""
    for k in range(levels):
        function = model.functions.add()
        function.CopyFrom(model.functions[0])
        function.name = f"f{k}"
        function.opset_import.add(domain="mine", version=1)
        for node, before in zip(function.node, ("s", "s"), strict=True):
            node.op_type, node.domain = f"f{k - 1}" if k else "Double", "mine"
            node.input[:] = ["v"] if node.output[0] == before else [before]
    model.graph.node[2].op_type = f"f{levels - 1}"


def recursing(model):
    model.functions[0].node[1].op_type, model.functions[0].node[1].domain = "Double", "mine"
    model.functions[0].opset_import.add(domain="mine", version=1)


def node(number, **fields):
    """Sets or extends fields of a node."""

    def change(model):
        target = model.graph.node[number]
        for name, value in fields.items():
            if isinstance(value, list):
                del getattr(target, name)[:]
                getattr(target, name).extend(value)
            else:
                setattr(target, name, value)

    return change


def attribute(**fields):
    """Replaces the LSTM's hidden_size."""
    return lambda m: m.graph.node[0].attribute[1 if m.graph.node[0].attribute[1].name == "hidden_size" else 0].CopyFrom(
        AttributeProto(name="hidden_size", **fields)
    )


def replaced(**fields):
    return lambda m: m.graph.initializer[0].CopyFrom(tensor(name="W", **fields))


TENSORS = [
    ({"dims": [-2]}, "hold sizes of at least 0 in tensor 't', not -2"),
    ({"dims": [2**31]}, r"hold less than 2\*\*31 numbers in tensor 't', unlike shape \(2147483648,\)"),
    ({"dims": [2**62, 4]}, r"hold less than 2\*\*31 numbers in tensor 't', unlike shape \(4611686018427387904, 4\)"),
    ({"dims": [2**62, 0], "raw_data": b""}, r"hold less than 2\*\*31 numbers in tensor 't'"),
    ({"dims": [1] * 33}, "hold at most 32 dimensions in tensor 't', not 33"),
    ({"dims": [3]}, r"hold 12 bytes in tensor 't' as its shape \(3,\) says, not 8"),
    ({"dims": []}, r"hold 4 bytes in tensor 't' as its shape \(\) says, not 8"),
    ({"data_type": 0}, "hold a known type of number in tensor 't', not type 0"),
    ({"data_type": 99}, "hold a known type of number in tensor 't', not type 99"),
    ({"float_data": [1, 2]}, "hold the data of tensor 't' once, not as float_data and raw_data"),
    ({"raw_data": None, "int32_data": [1, 2]}, "hold the data of tensor 't' as float_data, not int32_data"),
    ({"raw_data": None, "float_data": [1]}, r"hold 2 numbers in tensor 't' as its shape \(2,\) says, not 1"),
    ({"data_type": TensorProto.STRING}, "hold the strings of tensor 't' as string_data, not raw_data"),
    ({"segment": TensorProto.Segment(begin=0, end=1)}, "hold tensor 't' whole, not a segment of it"),
    ({"data_location": TensorProto.EXTERNAL}, "hold the data of tensor 't' in one place, here or in another file"),
]  # fmt: skip

DAMAGES = [
    (lambda m: setattr(m, "ir_version", 99), rf"have an ONNX IR version from 3 to {onnx.IR_VERSION}, not 99"),
    (lambda m: setattr(m, "ir_version", 2), "have an ONNX IR version from 3 to .*, not 2, in"),
    (lambda m: setattr(m.opset_import[0], "version", 99), "have an ONNX opset from 7 to .*, not 99: install a newer"),
    (lambda m: setattr(m.opset_import[0], "version", 6), "have an ONNX opset from 7 to .*, not 6, in"),
    (lambda m: m.opset_import.pop(0), r"name the version of ONNX's operators \(opset_import\)"),
    (lambda m: m.opset_import.add(domain="ai.onnx", version=9),
     "name one version of the operators of domain '', not two"),
    (lambda m: m.opset_import.pop(1), "name the version of domain 'mine', which node 'twice'"),
    (node(3, domain="alien"), r"name the version of domain 'alien', which node 'last' \(Mul\) is of"),
    (lambda m: m.training_info.add(), r"hold a network to run, without a training procedure \(training_info\)"),
    (lambda m: [m.metadata_props.add(key="k") for _ in range(2)], "hold metadata 'k' once"),
    (lambda m: m.functions.append(m.functions[0]), "describe function 'Double' once"),
    (node(2, input=["either", "h"]), r"call node 'twice' \(Double\) with at most 1 inputs, not 2, in"),
    (node(2, output=["doubled", "more"]), r"call node 'twice' \(Double\) with at most 1 outputs, not 2, in"),
    (recursing, "hold functions that end, unlike 'Double', which calls itself"),
    (lambda m: laughs(m, 30), "hold at most 100000 nodes, with all calls of its functions written out"),
    (lambda m: grown(m, 17), "nest at most 16 graphs in each other, unlike graph 'g'"),
    (lambda m: m.graph.sparse_initializer.add().values.CopyFrom(tensor()),
     "hold dense tensors only, unlike the sparse 't'"),
    (lambda m: m.graph.input.append(m.graph.input[0]),
     "define value 'x' once, and not again as an input of graph 'main'"),
    (lambda m: m.graph.initializer.append(m.graph.initializer[0]), "hold tensor 'W' once"),
    (lambda m: m.graph.output.append(m.graph.output[0]), "define output 'y' of graph 'main' once"),
    (lambda m: m.graph.output.add(name="z"), "define output 'z' of graph 'main' somewhere"),
    (lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[1], "dim_value", -1),
     "give 'x' sizes of at least 0, or names for open ones, not -1"),
    (node(3, output=["h"]), r"define value 'h' once, and not again as an output of node 'last' \(Mul\)"),
    (lambda m: setattr(m.graph.input[0], "name", ""), "name an input of graph 'main'"),
    (node(3, input=["doubled", "none"]), r"define value 'none' before node 'last' \(Mul\) reads it, in "),
    (node(2, input=["y"]), r"define value 'y' before node 'twice' \(Double\) reads it and in an order without cycles"),
    (node(2, input=["doubled"]), r"define value 'doubled' before node 'twice' \(Double\) reads it and in an order"),
    (node(3, name="", input=["none", "two"]), r"define value 'none' before the node of 'y' \(Mul\) reads it"),
    (node(0, name="n" * 10**6), r"hold names of at most 4096 characters, unlike node .*'n{59}\.\.\., in "),
    (lambda m: m.graph.node[0].attribute.append(m.graph.node[0].attribute[0]),
     r"give attribute 'activations' of node 'lstm' \(LSTM\) once"),
    (attribute(type=AttributeProto.FLOAT, i=3),
     r"hold attribute 'hidden_size' of node 'lstm' \(LSTM\) as f says, not i"),
    (attribute(i=3), r"hold attribute 'hidden_size' of node 'lstm' \(LSTM\) as a type says, not i"),
    (attribute(type=AttributeProto.INT),
     r"hold attribute 'hidden_size' of node 'lstm' \(LSTM\) as i says, not nothing"),
    (attribute(type=AttributeProto.INT, i=3, f=3), r"hold attribute 'hidden_size' .* as i says, not (f and i|i and f)"),
    (attribute(type=AttributeProto.INT, ref_attr_name="size"),
     r"refer to a parameter of its function with attribute 'hidden_size' of node 'lstm' \(LSTM\), not 'size'"),
    (attribute(type=AttributeProto.INTS, ints=[0] * (2**18 + 1)), "hold at most 262144 values in attribute 'hidden"),
    (attribute(type=AttributeProto.STRING, s=b"\xff"), r"hold text in UTF-8, unlike attribute 'hidden_size' of node"),
    (attribute(type=AttributeProto.STRING, s=b"3"), "be valid ONNX .*hidden_size"),
    (attribute(type=AttributeProto.TENSOR, t=tensor(dims=[-1])),
     "hold sizes of at least 0 in attribute 'hidden_size' of node"),
    (attribute(type=AttributeProto.SPARSE_TENSOR, sparse_tensor=onnx.SparseTensorProto()),
     "hold dense tensors only, unlike attribute 'hidden_size' of node"),
    (node(0, op_type="LSTN"), "be valid ONNX .*LSTN"),
    (node(0, input=["x"]), "be valid ONNX .*"),
    *[(replaced(**fields), text.replace("'t'", "'W'")) for fields, text in TENSORS],
]  # fmt: skip


@pytest.mark.parametrize("change, text", DAMAGES)
def test_damage_is_told_in_a_sentence(change, text, tmp_path):
    model = network()
    change(model)
    with pytest.raises(UsageError, match=f"^Model file must {text}.*'.*m.onnx': save or export it again$") as found:
        read(model, tmp_path)
    assert len(str(found.value)) < 600 and "\n" not in str(found.value)


@pytest.mark.parametrize(
    "content, text",
    [
        (SOUND + b"\xf8\x7f\x01", "hold nothing that ONNX of version .* does not know"),
        (SOUND.replace(b"lstm", b"\xff\xff\xff\xff"), re.escape(r"hold names in UTF-8, unlike node b'\xff")),
    ],
)
def test_bytes_that_protobuf_lets_pass(content, text, tmp_path):
    with pytest.raises(UsageError, match=f"^Model file must {text}"):
        read(content, tmp_path)


@pytest.mark.parametrize("fields, text", TENSORS)
def test_a_tensor_is_checked_before_it_becomes_an_array(fields, text):
    with pytest.raises(UsageError, match=f"^Model file must {text}.*: save or export it again$"):
        tensor_array(tensor(**fields))


@pytest.mark.parametrize("values", [np.arange(6).reshape(2, 3) % 2], ids=[""])
@pytest.mark.parametrize("kind", sorted(helper.get_all_tensor_dtypes()))
def test_tensors_of_all_types(kind, values):
    for raw in (False, True):
        if kind in (TensorProto.UNDEFINED, TensorProto.STRING):
            continue
        expected = values.astype(helper.tensor_dtype_to_np_dtype(kind))
        given = numpy_helper.from_array(expected) if raw else helper.make_tensor("t", kind, (2, 3), expected)
        found = tensor_array(given)
        assert (found.dtype, found.shape) == (expected.dtype, (2, 3)) and not found.flags.writeable
        assert found.tobytes() == expected.tobytes()


def test_tensors_that_are_no_numbers():
    strings = helper.make_tensor("s", TensorProto.STRING, [1], [b"a"])
    with pytest.raises(UsageError, match="must hold numbers in tensor 's', not strings: save"):
        tensor_array(strings)
    found = tensor_array(TensorProto(name="b", data_type=BOOL, dims=[3], raw_data=b"\0\1\2"))
    assert found.tolist() == [False, True, True] and (found == np.array([False, True, True])).all()


def test_a_strangers_text_in_a_sentence():
    assert shown("a\nb") == r"'a\nb'"
    assert shown("x" * 10**6) == f"'{'x' * 59}..." and len(shown("\0" * 99)) == 63
    assert shown("x" * 60) == repr("x" * 60)
    assert shown(b"\xff") == r"b'\xff'"
    assert plain(ValueError("a\n\n  b\0c" + "d" * 999)) == "a b c" + "d" * 195
    assert plain(MemoryError()) == "MemoryError"


# -- data in other files -----------------------------------------------------------------------------------------------
W = np.arange(24, dtype=np.float32).reshape(1, 8, 3)
DATA = b"head" + W.tobytes() + b"tail"


def referring(location="w.bin", offset="4", length="96", **more) -> ModelProto:
    """The network with its W in another file."""
    model = network()
    w = model.graph.initializer[0]
    w.ClearField("raw_data")
    w.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": offset, "length": length, **more}.items():
        if value is not None:
            w.external_data.add(key=key, value=value)
    return model


@pytest.fixture
def folder(tmp_path):
    """A folder of a model's with data in it, and beside it a secret and links to it."""
    (tmp_path / "secret.bin").write_bytes(DATA)
    here = tmp_path / "model"
    (here / "below").mkdir(parents=True)
    for path in (here / "w.bin", here / "below" / "w.bin"):
        path.write_bytes(DATA)
    (here / "short.bin").write_bytes(DATA[:50])
    (here / "link.bin").symlink_to(tmp_path / "secret.bin")
    (here / "inner.bin").symlink_to(here / "w.bin")
    (here / "up").symlink_to(tmp_path)
    os.mkfifo(here / "pipe.bin")
    return here


@pytest.mark.parametrize("place", [{}, {"location": "below/w.bin"}, {"location": "./w.bin", "checksum": "0"}], ids=str)
def test_data_beside_the_model_is_read(place, folder, monkeypatch):
    monkeypatch.chdir(folder / "below")
    for path in (folder, os.path.relpath(folder)):
        found = read(referring(**place), type(folder)(path))
        np.testing.assert_array_equal(tensor_array(found.graph.initializer[0]), W)
        assert found.graph.initializer[1:] == network().graph.initializer[1:]
    (folder / "rest.bin").write_bytes(DATA[4:-4])
    found = read(referring(location="rest.bin", offset=None, length=None), folder)
    np.testing.assert_array_equal(tensor_array(found.graph.initializer[0]), W)
    found = read(referring("none.bin"), folder, external=False).graph.initializer[0]
    with pytest.raises(UsageError, match="hold tensor 'W' itself, and not refer to another file for it: save"):
        tensor_array(found)


@pytest.mark.parametrize(
    "place, text",
    [
        ({"location": "../secret.bin"}, "refer to a file in its own folder for tensor 'W', not to '../secret.bin'"),
        ({"location": "below/../../secret.bin"}, "refer to a file in its own folder for tensor 'W'"),
        ({"location": "/etc/passwd"}, "refer to a file beside it for tensor 'W', not to '/etc/passwd'"),
        ({"location": "C:w.bin"}, "refer to a file beside it for tensor 'W', not to 'C:w.bin'"),
        ({"location": "..\\secret.bin"}, "refer to a file beside it for tensor 'W', not to '..*secret.bin'"),
        ({"location": ""}, "refer to a file beside it for tensor 'W', not to ''"),
        ({"location": "."}, "refer to a file beside it for tensor 'W', not to '.'"),
        ({"location": "w.bin\0"}, "refer to a file beside it for tensor 'W'"),
        ({"location": None}, "refer to a file beside it for tensor 'W', not to ''"),
        ({"location": "x" * 2000}, "refer to a file beside it for tensor 'W', not to 'x{59}..., in"),
        ({"location": "x" * 999}, r"come with 'x{59}..., no link, for tensor 'W' \(File name too long\)"),
        ({"location": "none.bin"}, r"come with 'none.bin', no link, for tensor 'W' \(No such file"),
        ({"location": "link.bin"}, "come with 'link.bin', no link, for tensor 'W' "),
        ({"location": "inner.bin"}, "come with 'inner.bin', no link, for tensor 'W' "),
        ({"location": "up/secret.bin"}, "come with 'up/secret.bin', no link, for tensor 'W' "),
        ({"location": "w.bin/w.bin"}, "come with 'w.bin/w.bin', no link, for tensor 'W' "),
        ({"location": "below"}, "refer to a regular file for tensor 'W', not to 'below'"),
        ({"location": "pipe.bin"}, "refer to a regular file for tensor 'W', not to 'pipe.bin'"),
        ({"location": "short.bin"}, "refer to data in 'short.bin' for tensor 'W', which ends at 50, not 100"),
        ({"offset": "104", "length": None}, r"hold 96 bytes in tensor 'W' as its shape \(1, 8, 3\) says, not 0"),
        ({"offset": "105", "length": None}, "refer to data in 'w.bin' for tensor 'W', which ends at 104, not 105"),
        ({"length": "9" * 19}, "refer to data in 'w.bin' for tensor 'W', which ends at 104, not 1000"),
        ({"length": "9" * 99}, "give the length of tensor 'W' as a whole number, not '999"),
        ({"offset": "-1"}, "give the offset of tensor 'W' as a whole number, not '-1'"),
        ({"offset": "\u0664"}, "give the offset of tensor 'W' as a whole number, not '\u0664'"),
        ({"length": "95"}, r"hold 96 bytes in tensor 'W' as its shape \(1, 8, 3\) says, not 95"),
        ({"link": "x"}, "say where tensor 'W' lies once, by location, .*, not by 'link'"),
    ],
    ids=str,
)
def test_other_files_are_not_read(place, text, folder):
    with pytest.raises(UsageError, match=f"^Model file must {text}.*: save or export it again$"):
        read(referring(**place), folder)


def test_data_elsewhere_is_not_copied_without_end(folder):
    model = referring()
    for k in range(30):
        model.graph.initializer.add().CopyFrom(model.graph.initializer[0])
        model.graph.initializer[-1].name = f"copy {k}"
    with pytest.raises(UsageError, match=r"refer to every part of 'w\.bin' about once, and to less than 2 GiB, in"):
        read(model, folder)
    model.graph.initializer[0].external_data.add(key="location", value="below/w.bin")
    with pytest.raises(UsageError, match=r"tensor 'W' lies once, by location, .*, not by 'location'"):
        read(model, folder)


# -- hwrnn's own files -------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The bytes of a float and a quantized model."""
    found = fuzz_onnx.own_seeds(tmp_path_factory.mktemp("own"), {"gru": {"cell": "gru"}})
    return {name.split()[1]: content for name, content in found}


@pytest.mark.parametrize("kind", ("float", "quantized"))
def test_a_file_that_changed_gives_the_same_model_or_none(kind, own, tmp_path):
    content, rng = own[kind], random.Random(2)
    path, again = tmp_path / "m.onnx", tmp_path / "again.onnx"
    loaded, changed = 0, 0
    for _ in range(400):
        mutant = bytearray(content)
        mutant[rng.randrange(len(mutant))] ^= 1 << rng.randrange(8)
        path.write_bytes(mutant)
        try:
            model = hwrnn.load(path)
        except UsageError as error:
            changed += "which changed since: save the model again" in str(error)
            continue
        loaded += 1
        hwrnn.save(model, again)
        assert again.read_bytes() == content
    assert changed > 20 and loaded < 100


def test_a_change_that_is_meant(own, tmp_path):
    model = ModelProto.FromString(own["float"])
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weights.raw_data = (numpy_helper.to_array(weights) * 2).tobytes()
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    words = r"be as hwrnn wrote it, unlike '.*m\.onnx', which changed since: save the model again, or remove"
    with pytest.raises(UsageError, match=f"^Model file must {words} 'hwrnn.sha256' from its metadata where the change"):
        hwrnn.load(path)
    [seal] = [entry for entry in model.metadata_props if entry.key == "hwrnn.sha256"]
    model.metadata_props.remove(seal)
    path.write_bytes(model.SerializeToString())
    assert isinstance(hwrnn.load(path), Model)
    model.metadata_props.add(key="author", value="somebody")
    path.write_bytes(model.SerializeToString())
    assert isinstance(hwrnn.load(path), Model)


# -- memory and time ---------------------------------------------------------------------------------------------------
def varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def field(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


MANY = 1 << 19


def nested(levels: int) -> bytes:
    content = b""
    for _ in range(levels):
        content = field(1, field(5, field(6, content)))
    return field(7, content)


BOMBS = {
    "nodes": field(7, field(1, b"") * MANY),
    "tensors": field(7, field(5, b"") * MANY),
    "attributes": field(7, field(1, field(5, b"") * MANY)),
    "functions": field(25, b"") * MANY,
    "values": field(7, field(1, field(5, (varint(8 << 3) + b"\0") * 2 * MANY))),
    "small numbers": field(7, field(5, field(8, b"n") + field(7, b"\1" * 2 * MANY) + b"\x10\7\x08" + varint(2 * MANY))),
    "unknown": field(2000, b"") * MANY,
    "nesting": nested(30),
    "deep nesting": nested(2000),
    "a wide tensor": field(7, field(5, b"\x08" + varint(2**40) + b"\x10\1" + field(9, b""))),
    "names": field(7, b"".join(field(1, field(1, b"n%d" % k) + field(4, b"Add")) for k in range(90_000))),
    "a long name": field(7, field(1, field(3, b"n" * 4 * MANY))),
    "a long text": field(7, field(10, b"n" * 4 * MANY)),
    "zeros": bytes(4 * MANY),
    "an endless number": b"\xff" * 4 * MANY,
}

PROGRAM = """
import os, resource, sys
from hwrnn.errors import UsageError
from hwrnn.importing.files import read_proto, tensor_array
for path in sys.argv[1:]:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        continue
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    limit = used + 32 * 2**20 + 16 * os.path.getsize(path)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (5, 5))
    try:
        for tensor in read_proto(path).graph.initializer:
            tensor_array(tensor)
        print("sound", flush=True)
    except UsageError as error:
        print("no memory" if isinstance(error.__context__, MemoryError) else error, flush=True)
    os._exit(0)
"""


def test_memory_and_time_follow_the_size_of_the_file(tmp_path):
    paths = [tmp_path / f"{name}.onnx" for name in BOMBS]
    for path, content in zip(paths, BOMBS.values(), strict=True):
        path.write_bytes(b"\x08\x0a" + field(8, b"\x10\x15") + content)
    done = subprocess.run([sys.executable, "-c", PROGRAM, *paths], capture_output=True, text=True, check=True)
    answers = dict(zip(BOMBS, done.stdout.splitlines(), strict=True))
    assert not done.stderr
    sound = {name for name, answer in answers.items() if answer == "sound"}
    assert sound == {"small numbers", "a long text"}
    many = {name for name, answer in answers.items() if "at most 500000 nodes, names and attributes in all" in answer}
    assert many == {"nodes", "tensors", "attributes", "functions", "values", "unknown"}
    assert all(re.match("Model file must .*: ", answers[name]) for name in set(BOMBS) - sound)


def test_scales_that_leave_float32(tmp_path):
    weights = {"W": np.full((1, 2, 4), 1e10), "R": np.ones((1, 2, 2)), "big": np.full(1, 1e30)}
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    nodes = [
        helper.make_node("Mul", ["x", "big"], ["large"]),
        helper.make_node("Concat", ["large", "x"], ["both"], axis=2),
        helper.make_node("RNN", ["both", "W", "R"], ["", "h"], hidden_size=2),
    ]
    ends = [helper.make_tensor_value_info("x", FLOAT, ["T", "N", 2])]
    graph = helper.make_graph(nodes, "main", ends, [helper.make_tensor_value_info("h", FLOAT, None)], tensors)
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]).SerializeToString())
    with pytest.raises(UsageError, match=r"^Output 'h' must be computed with numbers that float32 holds: scales"):
        hwrnn.import_onnx(path).model  # noqa: B018


# -- data files --------------------------------------------------------------------------------------------------------
def archive(path, **members):
    """An .npz of members as they are, also of the same name where it ends in an underscore."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        warnings.simplefilter("ignore")
        for name, content in members.items():
            file.writestr(f"{name.rstrip('_')}.npy", content)


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


X = npy(np.zeros((2, 3, 1)))


@pytest.mark.parametrize(
    "members, text",
    [
        ({"x": X, "y": npy(np.zeros(100 << 20, np.bool_))}, "it says that it holds more than 256 times its size"),
        ({"x": X.replace(b"(2, 3, 1)", b"(2, 9, 1)"), "y": X}, "'x.npy' is not as long as its shape says"),
        ({"x": X[:-8], "y": X}, "'x.npy' is not as long as its shape says"),
        ({"x": X.replace(b"NUMPY\1", b"NUMPY\7"), "y": X}, "'x.npy' is of an unknown version"),
        ({"x": X, "y": X, "y_": X}, "it holds 'y.npy' more than once"),
        ({f"x{k}": X for k in range(21)}, "it holds more than 20 arrays"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_archives_that_are_not_what_they_say(members, text, tmp_path):
    path = tmp_path / "d.npz"
    archive(path, **members)
    with pytest.raises(UsageError, match=rf"^Data file must be a whole .npz archive .*, not '.*d.npz' \({text}\)$"):
        hwrnn.load_dataset(path)


def test_numbers_that_only_python_takes(tmp_path):
    path = tmp_path / "d.csv"
    for cell in ("1_0", "٣"):
        path.write_text(f"a,b\n1,2\n{cell},3\n")
        words = f"^Column 'a' must hold finite numbers, not '{cell}': line 3 of '.*d.csv'$"
        with pytest.raises(UsageError, match=words):
            hwrnn.load_dataset(path, column="a", window=1)
    path.write_text(",".join(f"c{k}" for k in range(1000)))
    with pytest.raises(UsageError, match=r"^Column must be one of 'c0', 'c1', .*, 'c19', \.\.\., not 'a'$"):
        hwrnn.load_dataset(path, column="a", window=1)
