"""What a file's checks keep from the interpreter, it refuses itself too; and what is told when a network runs."""

import re

import numpy as np
import pytest
from foreign import CELL, FRONT, ONE, STEPS, X, matrix, write
from onnx import TensorProto, helper, numpy_helper, parser

import hwrnn
from hwrnn.activations import NONLINEARITIES
from hwrnn.errors import Damaged, UsageError
from hwrnn.importing import external, files, structure, wire
from hwrnn.importing.chains import Chain, agreeing, dense_of
from hwrnn.importing.evaluation import Evaluation
from hwrnn.importing.graph import Node, array_of, flattened
from hwrnn.importing.imported import Imported
from hwrnn.importing.layouts import as_view
from hwrnn.importing.operands import operand_of
from hwrnn.importing.operators import OPERATORS, Interpreter
from hwrnn.importing.other_files import from_file
from hwrnn.importing.shapes import Size
from hwrnn.importing.tensors import tensor_array
from hwrnn.importing.values import BATCH, Constant, Open, View

HEAD = '<ir_version: 8, opset_import: ["": 17]> net (float[N,T,3] x) => (float y) {'
BODY = FRONT + "y = GRU<hidden_size=5>(s, W, R, B) }"


def proto_of(body=BODY, head=HEAD):
    proto = parser.parse_model(f"{head} {body}")
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in ONE.items())
    return proto


def no_outputs(proto):
    del proto.graph.output[:]


def twice(field):
    return lambda proto: getattr(proto.graph, field).append(getattr(proto.graph, field)[0])


def an_output_of_nobody(proto):
    proto.graph.output[0].name = "z"


def a_sequence(proto):
    proto.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = 1


def other_input(proto):
    proto.graph.node[1].input[0] = "q"


def the_same_name(proto):
    proto.graph.node[1].output[0] = "s"


UNSOUND = {
    "Network must have an output": no_outputs,
    "Outputs of the network must have different names, not 'y' twice": twice("output"),
    "Inputs of the network must have different names, not 'x' twice": twice("input"),
    "Output 'z' must be computed by a node": an_output_of_nobody,
    "Input 'x' must be a tensor: sequences, maps and optional values are not read": a_sequence,
    "must read what a node before it or an input gives, not 'q'": other_input,
    "Value 's' must be given by one node, not by two": the_same_name,
}


@pytest.mark.parametrize("sentence", UNSOUND)
def test_graphs_that_no_checked_file_holds(sentence):
    proto = proto_of()
    UNSOUND[sentence](proto)
    with pytest.raises(UsageError, match=re.escape(sentence)):
        _ = Imported(Interpreter(proto)).model


def test_a_graph_inside_a_node_has_no_inputs():
    proto = proto_of(FRONT + "q = GRU<hidden_size=5>(s, W, R, B) y = If (c) <then_branch = a () => (float[N] r) "
                     "{ r = Identity(q) }, else_branch = b () => (float[N] r2) { r2 = Identity(q) }> }")  # fmt: skip
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "c"))
    for attribute in proto.graph.node[2].attribute:
        attribute.g.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1]))
    with pytest.raises(UsageError, match="Graph inside a node must have no input of its own, as 'z' is"):
        _ = Imported(Interpreter(proto)).model


SCHEMAS = {
    "be an operator of its operator set, which 17 is": helper.make_node("Tulip", ["x"], ["y"], name="n"),
    "have no attribute 'tulip', which operator set 17 does not know": helper.make_node(
        "Relu", ["x"], ["y"], name="n", tulip=1
    ),
    "have 1 to 1 inputs in operator set 17, not 2": helper.make_node("Relu", ["x", "z"], ["y"], name="n"),
}


@pytest.mark.parametrize("sentence", SCHEMAS)
def test_what_an_operator_set_does_not_know(sentence):
    with pytest.raises(UsageError, match=f"Node 'n' .* must {sentence}"):
        Node(SCHEMAS[sentence], 17, [None]).check_schema()


def test_a_graph_that_a_node_lacks():
    with pytest.raises(UsageError, match="must have the attribute 'then_branch'"):
        Node(helper.make_node("If", ["c"], ["y"], name="n"), 17, [None]).graph("then_branch")


def test_numbers_of_a_tensor():
    with pytest.raises(UsageError, match=r"Numbers of W must be float32, .*, not"):
        array_of(helper.make_tensor("W", TensorProto.COMPLEX64, [1], [1j]), "W")
    with pytest.raises(UsageError, match="Model file must hold numbers in tensor 's', not strings"):
        tensor_array(helper.make_tensor("s", TensorProto.STRING, [1], [b"a"]))
    tensor = numpy_helper.from_array(np.zeros(2, np.float32), "W")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    with pytest.raises(UsageError, match="must hold tensor 'W' itself, and not refer to another file for it"):
        tensor_array(tensor)


def test_functions_of_another_operator_set():
    head = '<ir_version: 9, opset_import: ["": 17, "own": 1]> net (float[N,T,3] x) => (float y) {'
    inside = '<opset_import: ["": 16], domain: "own"> Double (a) => (b) { b = Add(a, a) }'
    proto = parser.parse_model(f"{head} y = own.Double(x) }} {inside}")
    with pytest.raises(UsageError, match="Function 'Double' must use the operator set of its file, 17, not 16"):
        flattened(proto)


def test_functions_that_do_not_fit_their_calls():
    head = '<ir_version: 9, opset_import: ["": 17, "own": 1]> net (float[N,T,3] x) => (float y) {'
    inside = '<opset_import: ["": 17], domain: "own"> Double (a) => (b) { b = Add(a, a) }'
    proto = parser.parse_model(f"{head} y = own.Double(x, x) }} {inside}")
    with pytest.raises(UsageError, match="Functions of the network must fit their calls: "):
        flattened(proto)


#: Nodes without an input or attribute that their operator set demands, which a checker misses: the set, the sentence.
LACKING = {
    "Expand": (17, ["x", ""], "have a shape"),
    "Unsqueeze": (17, ["x", ""], "have axes"),
    "Slice": (17, ["x", "", ""], "have starts and ends"),
}


@pytest.mark.parametrize("kind", LACKING)
def test_what_a_node_lacks(kind):
    opset, inputs, sentence = LACKING[kind]
    node = Node(helper.make_node(kind, inputs, ["y"], name="n"), opset, [Constant(np.zeros(3)), None, None])
    with pytest.raises(UsageError, match=rf"Node 'n' \({kind}\) must {sentence}"):
        OPERATORS[kind](node, Interpreter(proto_of()))


def test_numbers_that_hold_open_sizes():
    with pytest.raises(ValueError, match="it computes with one of them"):
        as_view(Constant(np.array([Size.of("n")], object)))


def test_steps_without_an_axis():
    """No operator loses the axis of the time: what takes it off takes one step."""
    net = Interpreter(proto_of())
    (source,) = net.sources.of(net.outputs["y"].columns)
    columns, ones = source.channels, np.ones(5)
    x = View(((), (Open(BATCH, net.sizes[BATCH]),), (5,)), columns, ones, 0 * ones, np.dtype(np.float32))
    with pytest.raises(UsageError, match="must read steps along the time, or a single one"):
        operand_of(Node(helper.make_node("GRU", ["x"], ["y"], name="n"), 17, [x]), net, False, 5)


def test_a_network_of_endlessly_many_axes():
    count = 64
    nodes = " ".join(f"y{k} = MatMul(z{k}, square)" for k in range(count))
    inputs = ", ".join(f"float[3] z{k}" for k in range(count))
    proto = proto_of(f"{nodes} {BODY}", HEAD.replace("float[N,T,3] x", f"float[N,T,3] x, {inputs}"))
    proto.graph.initializer.append(numpy_helper.from_array(matrix(3, 3), "square"))
    with pytest.raises(UsageError, match="Inputs of the network must have less than 64 axes in all"):
        Interpreter(proto)


def test_sizes_that_may_divide_each_other():
    n, t = Size.of("n"), Size.of("t")
    for divided, by, sentence in (
        (n, n + 1, "whether n + 1 divides n is not known"), (n, t, "whether t divides n is not known"),
        (n, 2, "whether 2 divides n is not known"), (6, n, "whether n divides 6 is not known"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=re.escape(sentence)):
            divided // by


# -- files -------------------------------------------------------------------------------------------------------------
def test_limits_of_a_file(tmp_path, monkeypatch):
    path = write(tmp_path / "n.onnx", BODY.removesuffix("}"), ONE, ends="(float[N,T,3] x) => (float y)")
    monkeypatch.setattr(wire, "_SMALL", 0)
    (tmp_path / "noise.onnx").write_bytes(b"\xff" * 40)
    with pytest.raises(UsageError, match="Model file must be an ONNX file, not damaged or of another kind"):
        hwrnn.import_onnx(tmp_path / "noise.onnx")
    monkeypatch.setattr(wire, "MOST_FIELDS", 3)
    with pytest.raises(UsageError, match="must hold at most 3 nodes, names and attributes in all"):
        hwrnn.import_onnx(path)
    monkeypatch.undo()
    monkeypatch.setattr(structure, "_MOST_NODES", 1)
    with pytest.raises(UsageError, match="Model file must hold at most 1 nodes"):
        hwrnn.import_onnx(path)


def test_paths_that_are_no_model_file(tmp_path, monkeypatch):
    (tmp_path / "empty").touch()
    for path, sentence in (
        (tmp_path, "Model file must be a file, not the folder"),
        (tmp_path / "no", "Model file must exist, unlike .*: check the path, or train a model first"),
        ("/dev/null", "Model file must be a regular file, not the device '/dev/null'"),
        (tmp_path / "empty", "Model file must have between 1 byte and 2 GiB, not 0 bytes"),
    ):
        with pytest.raises(UsageError, match=sentence):
            hwrnn.import_onnx(path)

    def denied(self):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "empty").write_bytes(b"a")
    monkeypatch.setattr(type(tmp_path), "read_bytes", denied)
    with pytest.raises(UsageError, match=r"must be readable, unlike .* \(Permission denied\): check the path"):
        files.read_proto(tmp_path / "empty")


def test_data_that_change_while_they_are_read(tmp_path, monkeypatch):
    tensor = TensorProto(name="W", data_type=TensorProto.FLOAT, dims=[4])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="w.bin")
    (tmp_path / "w.bin").write_bytes(bytes(16))
    monkeypatch.setattr(external, "_read", lambda *given: b"")
    with pytest.raises(Damaged, match=r"refer to data that stays as it is, unlike 'w\.bin'"):
        external.fetch_external([(tensor, "tensor 'W'")], str(tmp_path))


def test_endings_of_other_files(tmp_path):
    with pytest.raises(UsageError, match=r"File must end in \.keras, .*, not 'a.tulip'"):
        from_file("a.tulip")


# -- running -----------------------------------------------------------------------------------------------------------
def imported(tmp_path, text, ends="(float[N,T,3] x) => (float y)", **constants):
    known = {**ONE, **STEPS, **constants}
    used = {k: v for k, v in known.items() if re.search(rf"\b{k}\b", text)}
    return hwrnn.import_onnx(write(tmp_path / "n.onnx", FRONT + text, used, ends=ends))


def test_inputs_that_do_not_fit_what_the_file_fixes(tmp_path, monkeypatch):
    lengths = np.array([6, 1, 3, 6], np.int32)
    found = imported(tmp_path, "y = GRU<hidden_size=5>(s, W, R, B, fixed)", fixed=lengths)
    with pytest.raises(UsageError, match=r"Input 'x' must have 4 sequences, not 3 as in \(3, 6, 3\)"):
        found.run({"x": X[:3]})
    monkeypatch.setattr(Evaluation, "_lengths", lambda self, given, steps: lengths[:2])
    with pytest.raises(UsageError, match="Input must hold 2 sequences, as sequence_lens does, not 4"):
        found.run({"x": X})
    monkeypatch.undo()
    found = imported(tmp_path, "y = GRU<hidden_size=5>(s, W, R, B, , h0)", h0=matrix(1, 4, 5))
    own = Evaluation.vector
    monkeypatch.setattr(Evaluation, "vector", lambda self, operand: own(self, operand)[:3])
    with pytest.raises(UsageError, match="Input must hold 4 sequences, as the initial states do, not 3"):
        found.run({"x": X})
    monkeypatch.undo()
    found = imported(tmp_path, CELL + "y = Gather<axis=0>(Y, three)", three=np.array(3))
    with pytest.raises(UsageError, match="Input must have more than 2 steps, to have step 3"):
        found.run({"x": X[:, :2]})


def test_outputs_that_do_not_depend_on_the_sequences(tmp_path):
    ends = "(float[N,T,3] x, float[5] z) => (float Y, float y)"
    found = imported(tmp_path, CELL + "y = MatMul(z, square)", ends, square=matrix(5, 5))
    with pytest.raises(UsageError, match="Output must keep the batch and the time among its axes, where there is more"):
        found.run({"x": X, "z": X[0, 0, [0, 1, 2, 0, 1]]})
    found = imported(tmp_path, CELL + "y = Relu(z)", ends)
    with pytest.raises(UsageError, match="Input 'z' must be read by a recurrent node, which names its axes"):
        found.run({"x": X, "z": X[0, 0, [0, 1, 2, 0, 1]]})


def test_what_is_left_of_a_state_that_is_zero(tmp_path):
    text = "Y = GRU<hidden_size=5>(s, W, R, B, , h) y = Softmax(h)"
    known = {k: v for k, v in ONE.items()}
    path = write(tmp_path / "n.onnx", FRONT + text, known, ends="(float[N,T,3] x, float[1,N,5] h) => (float y)")
    with pytest.raises(UsageError, match="Output 'y' must depend on the network's input, to be a model's"):
        _ = hwrnn.import_onnx(path, initial="zero").model


def test_more_memory_than_there_is(tmp_path, monkeypatch):
    def out_of_memory(*given):
        raise MemoryError

    found = imported(tmp_path, "y = GRU<hidden_size=5>(s, W, R, B)")
    monkeypatch.setattr("hwrnn.importing.evaluation.Evaluation.output", out_of_memory)
    with pytest.raises(UsageError, match="Input must need no more memory than there is: give fewer sequences or step"):
        found.run({"x": X})


# -- chains of layers --------------------------------------------------------------------------------------------------
def test_chains():
    with pytest.raises(UsageError, match="Weights must be finite and within float32"):
        dense_of(np.full((2, 2), 1e39), None)
    with pytest.raises(UsageError, match="Nonlinearity must come behind a layer, not before the first"):
        Chain().apply(NONLINEARITIES["relu"])
    chain = Chain()
    model = imported_model()
    with pytest.raises(UsageError, match=r"Net must give outputs of shape \(.*\) as its layers do, not \("):
        agreeing(model, lambda x, lengths: np.zeros((1, 1)), "Net", [False], np.asarray, "mend it")
    assert chain.width is None


def imported_model():
    from hwrnn.model import build_model

    return build_model(2, 2, cell="gru", hidden=3, seed=0)
