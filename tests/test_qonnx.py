"""Quantized graphs: those of other tools are read as ONNX Runtime computes them, and their integers come out again."""

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import network_of as small_network
from onnx import TensorProto, helper, numpy_helper

from hwrnn.cells import CELLS
from hwrnn.data import Dataset, Split
from hwrnn.errors import UsageError, require
from hwrnn.golden import golden
from hwrnn.importing import import_onnx
from hwrnn.importing.grids import Grid
from hwrnn.model import build_model
from hwrnn.onnx_standard import OPERATORS
from hwrnn.qonnx import FORMS, Quants, difference, exact, quantized_proto
from hwrnn.quantization import quantize

RNG = np.random.default_rng(0)
X = RNG.normal(0, 0.7, (6, 5, 3)).astype(np.float32)
DATA = Dataset.of("noise", Split(X, np.zeros((6, 4), np.float32), np.full(6, 5)))
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
KINDS = {
    "int8": (TensorProto.INT8, 8), "uint8": (TensorProto.UINT8, 8), "int16": (TensorProto.INT16, 16),
    "int4": (TensorProto.INT4, 4),
}  # fmt: skip


def tensor(name, array, kind):
    return helper.make_tensor(name, kind, array.shape, array.reshape(-1).tolist())


def quantized_file(path, operator="LSTM", kind="int8", scale=2.0**-6, per_axis=False, zero=0, ports=True, opset=21):
    """A recurrent node whose weights, input and output are quantized; the integers of its weights."""
    units, inputs, rows = 4, 3, GATES[operator] * 4
    code, bits = KINDS[kind]
    low, high = (0, 2**bits - 1) if kind.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    rng = np.random.default_rng(5)
    raw = {
        "W": rng.integers(low, high + 1, (1, rows, inputs)), "R": rng.integers(low, high + 1, (1, rows, units)),
        "B": rng.integers(-300, 300, (1, 2 * rows)),
    }  # fmt: skip
    raw["B"][:, rows:] = 0
    scales = {"W": np.float32(scale), "R": np.float32(scale / 2), "B": np.float32(2.0**-10)}
    if per_axis:
        for name in "WR":
            steps = np.repeat(np.arange(GATES[operator]) % 2, units)
            scales[name] = (scales[name] * 2.0**steps).astype(np.float32)
    nodes, constants = [], []
    for name, numbers in raw.items():
        own = TensorProto.INT32 if name == "B" else code
        axes = {"axis": 1} if np.ndim(scales[name]) else {}
        constants += [tensor(f"{name}_raw", numbers, own), numpy_helper.from_array(scales[name], f"{name}_scale")]
        reads = [f"{name}_raw", f"{name}_scale"]
        if name != "B":
            constants.append(tensor(f"{name}_zero", np.full(np.shape(scales[name]), zero), own))
            reads.append(f"{name}_zero")
        nodes.append(helper.make_node("DequantizeLinear", reads, [name], **axes))
    constants += [numpy_helper.from_array(np.float32(2.0**-5), "x_scale"), tensor("x_zero", np.array(0), 3),
                  numpy_helper.from_array(np.float32(2.0**-7), "y_scale")]  # fmt: skip
    x = "x"
    if ports:
        nodes += [helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["xq"]),
                  helper.make_node("DequantizeLinear", ["xq", "x_scale", "x_zero"], ["xd"])]  # fmt: skip
        x = "xd"
    reset = {"linear_before_reset": 1} if operator == "GRU" else {}
    nodes.append(helper.make_node(operator, [x, "W", "R", "B"], ["Y"], hidden_size=units, **reset))
    y = "Y"
    if ports:
        nodes += [helper.make_node("QuantizeLinear", ["Y", "y_scale", "x_zero"], ["yq"]),
                  helper.make_node("DequantizeLinear", ["yq", "y_scale", "x_zero"], ["yd"])]  # fmt: skip
        y = "yd"
    constants.append(numpy_helper.from_array(np.array([1]), "one"))
    nodes.append(helper.make_node("Squeeze", [y, "one"], ["out"]))
    ends = [helper.make_tensor_value_info("x", 1, ["T", "N", inputs]),
            helper.make_tensor_value_info("out", 1, ["T", "N", units])]  # fmt: skip
    proto = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:], constants), ir_version=10,
        opset_imports=[helper.make_opsetid("", opset)],
    )  # fmt: skip
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, path)
    return raw


def run_file(path, x):
    runtime = require("onnxruntime", "runtime")
    options = runtime.SessionOptions()
    # Its optimiser moves quantizers behind the Squeeze, with another type, and then refuses them.
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


@pytest.mark.parametrize("operator, kind, per_axis", [
    *((operator, "int8", per_axis) for operator in GATES for per_axis in (False, True)),
    *(("LSTM", kind, per_axis) for kind in KINDS for per_axis in (False, True) if kind != "int8"),
])  # fmt: skip
def test_what_the_file_computes_and_its_integers(operator, kind, per_axis, tmp_path):
    path = tmp_path / "q.onnx"
    scale = 2.0 ** -(11 if kind == "int16" else 2 if kind == "int4" else 6)
    raw = quantized_file(path, operator, kind, scale, per_axis)
    found = import_onnx(path, task="regression")
    x = X.transpose(1, 0, 2)
    np.testing.assert_allclose(found.run({"x": x})["out"], run_file(path, x), atol=2.0**-7 + 1e-5)
    assert (np.abs(found.run({"x": x})["out"] - run_file(path, x)) > 1e-5).mean() < 0.05  # a tie may fall elsewhere
    model = found.model
    told = {name: (form["width"], form["frac"]) for name, form in model.facts["formats"]["values"].items()}
    assert told == {"0.x": (8, 5), "0.h": (8, 7)}
    made = quantize(model, DATA, method="mse")
    layer = made.layers[0]
    assert made.input_format.frac == 5 and made.output_format.frac == 7
    order = {"RNN": ["h"], "GRU": ["z", "r", "n"], "LSTM": ["i", "o", "f", "g"]}[operator]
    for k, gate in enumerate(order):
        for name, operand in (("W", "x"), ("R", "h")):
            key = (gate + operand if operator == "GRU" and gate == "n" else gate), operand
            due = raw[name][0, 4 * k : 4 * k + 4]
            due_frac = round(-np.log2(scale)) - (per_axis and k % 2) + (name == "R")
            form = layer.formats.weights[key]
            np.testing.assert_array_equal(layer.weights[key], due << (form.frac - due_frac))
            assert form.frac == due_frac or (per_axis and form.frac > due_frac)


def network_of(cell, activation, gate, **shape):
    model = build_model(3, 4, cell=cell, hidden=5, seed=3, activation=activation,
                        gate=gate if CELLS[cell].gated else None, every_step=True, **shape)  # fmt: skip
    made = quantize(model, SEQUENCES, 8, method="mse")
    for layer in made.layers:  # ONNX's peepholes are diagonals
        for (_, operand), w in layer.weights.items():
            if operand == "c":
                w[np.eye(layer.units) == 0] = 0
    return made


SEQUENCES = Dataset.of("noise", Split(X, np.arange(30).reshape(6, 5) % 4, np.array([5, 1, 3, 5, 2, 4])))
LENGTHS = SEQUENCES.train.lengths
FUNCTIONS = (("hard_tanh", "hard_sigmoid"), ("tanh", "sigmoid"), ("pwl_tanh", "plan_sigmoid"))


@pytest.mark.parametrize("cell", CELLS)
def test_the_form_qonnx_computes_golden_bits(cell):
    for activation, gate in FUNCTIONS if cell in ("lstm", "gru") else FUNCTIONS[:1]:
        model = network_of(cell, activation, gate, bidirectional=activation == "tanh" or cell == "ligru")
        proto = quantized_proto(model, "qonnx")
        onnx.checker.check_model(proto, full_check=True)
        found = difference(model, proto, X, LENGTHS)
        assert found.largest == 0 and found.outputs == 4 * LENGTHS.sum()


def test_a_planted_fault_is_seen(monkeypatch):
    model = network_of("lstm", "hard_tanh", "hard_sigmoid")
    monkeypatch.setattr(Quants, "value", lambda self, graph, wire, form, name="": self._quant(
        graph, wire, form, "FLOOR", name))  # fmt: skip
    assert difference(model, quantized_proto(model, "qonnx"), X, LENGTHS).share > 0.5


def test_float32_holds_only_so_much():
    model = build_model(3, 4, cell="lstm", hidden=5, every_step=True)
    assert exact(quantize(model, SEQUENCES, 8, method="mse"))
    assert not exact(quantize(model, SEQUENCES, 14, method="mse"))


@pytest.mark.parametrize("form", ("qonnx-standard", "qdq"))
@pytest.mark.parametrize("cell", CELLS)
def test_forms_around_standard_operators(cell, form, tmp_path):
    for activation, gate in FUNCTIONS[:2]:
        if cell not in OPERATORS and activation == "tanh":
            continue
        activation = "relu1" if (cell, activation) == ("rnn", "hard_tanh") else activation
        model = network_of(cell, activation, gate)
        proto = quantized_proto(model, form)
        onnx.checker.check_model(proto, full_check=True)
        kinds = {node.op_type for node in proto.graph.node}
        assert ("Scan" in kinds) != bool(kinds & set(GATES))
        found = difference(model, proto, X, LENGTHS)
        assert found.largest * model.output_format.step < 0.25
        if "Scan" in kinds:
            continue
        assert found.largest > 0  # nothing rounds inside the operator
        onnx.save(proto, tmp_path / "q.onnx")
        again = quantize(import_onnx(tmp_path / "q.onnx", task="classification").model, SEQUENCES, method="mse")
        assert again.input_format == model.input_format
        for old, new in zip(model.stack, again.stack, strict=True):
            for key, form_of in old.formats.weights.items():
                assert new.formats.weights[key] == form_of
                np.testing.assert_array_equal(new.weights[key], old.weights[key])


def test_pairs_that_onnx_runtime_fuses_inside_a_scan():
    """It refuses fused pairs whose scale it cannot see to be a scalar, as one from outside the Scan."""
    model = network_of("lstm", "thresholded:0.2", "hard_line:0.3:0.4")
    proto = quantized_proto(model, "qdq")
    assert "Scan" in {node.op_type for node in proto.graph.node}
    assert difference(model, proto, X, LENGTHS).outputs


def test_models_that_a_form_does_not_hold():
    for form in FORMS:
        with pytest.raises(UsageError, match=f"Model must be quantized for the form {form}, not a float one: run"):
            quantized_proto(build_model(2, 2, cell="gru", hidden=2), form)
    with pytest.raises(UsageError, match="Form must be one of qonnx, qonnx-standard, qdq, not 'tulip'"):
        quantized_proto(small_network("gru")[0], "tulip")
    told = "Weights and biases must have at most 32 bits for the form qdq, not .*: use fewer bits"
    with pytest.raises(UsageError, match=told):
        quantized_proto(small_network("gru", bits=32)[0], "qdq")


def test_grids_that_are_no_powers_of_two_are_told(tmp_path):
    path = tmp_path / "q.onnx"
    quantized_file(path, scale=0.013)
    found = import_onnx(path, task="regression")
    model = found.model
    assert not model.facts["formats"]["weights"]
    (note,) = [n for n in found.notes if "no powers of two" in n]
    assert "differ by at most 0.5" in note and "least significant bits" in note
    made = quantize(model, DATA, method="mse")
    assert golden(made, made.quantize_input(X), np.full(6, 5)).output.any()


def test_bits_that_are_asked_for_come_before_the_files(tmp_path):
    path = tmp_path / "q.onnx"
    quantized_file(path)
    model = import_onnx(path, task="regression").model
    made = quantize(model, DATA, 4, method="mse")
    assert {form.width for form in made.layers[0].formats.weights.values()} == {4} and "formats" not in made.facts
    assert quantize(model, DATA, method="mse").facts["formats"] == model.facts["formats"]


def test_zero_points_of_weights(tmp_path):
    path = tmp_path / "q.onnx"
    quantized_file(path, kind="uint8", zero=128)
    found = import_onnx(path, task="regression")
    x = X.transpose(1, 0, 2)
    np.testing.assert_allclose(found.run({"x": x})["out"], run_file(path, x), atol=2.0**-7 + 1e-5)
    json.dumps(found.model.facts)


@pytest.mark.parametrize(
    "formats, text",
    [
        ({"values": {}}, "Facts must name formats of values and of weights"),
        ({"values": {"0.z": {}}, "weights": {}}, "of the model's own values, not '0.z'"),
        ({"values": {}, "weights": {"3.i.x": {}}}, "of the model's own weights, not '3.i.x'"),
        ({"values": {}, "weights": {"0.i.x": {"width": 0, "frac": 1, "signed": True}}}, "own weights, not '0.i.x'"),
    ],
)
def test_facts_that_are_no_formats(formats, text, tmp_path):
    path = tmp_path / "q.onnx"
    quantized_file(path)
    model = import_onnx(path, task="regression").model
    model.facts["formats"] = formats
    with pytest.raises(UsageError, match=text):
        quantize(model, DATA, method="mse")


# -- Brevitas ----------------------------------------------------------------------------------------------------------
FILES = Path(__file__).parent / "files"


#: What is changed of its node (an attribute, or an input's numbers) and the sentence.
ODD = {
    "a coupled gate": (
        {"cifg": 1}, {}, "have a forget gate of its own (cifg 0), since Brevitas' coupled one is not 1 - i"),
    "weights of another shape": (
        {}, {3: lambda _: np.ones((2, 2), np.float32)},
        "have weights (units, inputs) and (units, units) and biases (units,) for each gate"),
    "two first states": ({}, {1: lambda h: np.arange(2 * h.shape[-1], dtype=np.float32).reshape(2, -1)},
                         "start every sequence with one constant state"),
    "a scale of 0": (
        {}, {15: np.zeros_like}, "have one scale, zero point and number of bits and a known rounding for output"),
    "a rounding": ({"cell_tanh_rounding_mode": "TULIP"}, {}, "and a known rounding for cell_tanh"),
    "half a bit": ({}, {17: lambda bits: bits + 0.5}, "have whole numbers of bits and zero points for output"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_what_brevitas_does_not_write(name, tmp_path):
    attributes, arrays, sentence = ODD[name]
    proto = onnx.load(FILES / "brevitas_powers.onnx")
    (node,) = [node for node in proto.graph.node if node.op_type == "QuantLSTMCell"]
    for key, value in attributes.items():
        for old in [a for a in node.attribute if a.name == key]:
            node.attribute.remove(old)
        node.attribute.append(helper.make_attribute(key, value))
    for k, change in arrays.items():
        given = [numpy_helper.to_array(t) for t in proto.graph.initializer if t.name == node.input[k]]
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(change(*given or [None])), "odd"))
        node.input[k] = "odd"
    onnx.save(proto, tmp_path / "odd.onnx")
    with pytest.raises(UsageError, match=re.escape(sentence)):
        import_onnx(tmp_path / "odd.onnx")


@pytest.mark.parametrize("name", ("powers", "defaults", "weights"))
def test_what_brevitas_computes(name):
    told = np.load(FILES / "brevitas.npz")
    found = import_onnx(FILES / f"brevitas_{name}.onnx", task="regression")
    x, due = told[f"brevitas_{name}_x"], told[f"brevitas_{name}_y"]
    (given,) = found.inputs
    y = found.run({given: x})[found.output]
    np.testing.assert_allclose(y, due, atol=1e-6)
    if name == "defaults":
        assert sum("no power" in note for note in found.notes) == 3  # the input, the values inside, the weights
    model = found.model
    formats = model.facts.get("formats", {"weights": {}, "values": {}})
    assert (len(formats["weights"]), len(formats["values"])) == {
        "powers": (8, 12), "defaults": (0, 0), "weights": (8, 0)
    }.get(name)  # fmt: skip
    n = x.shape[1]
    split = Split(x.transpose(1, 0, 2), np.zeros((n, 6, 4), np.float32), np.full(n, 6))
    made = quantize(model, Dataset.of("noise", split), method="mse")
    layer = made.layers[0]
    for key, form in formats["weights"].items():
        _, gate, operand = key.split(".")
        own = layer.formats.weights[gate, operand]
        block = model.layers[0].block(gate, operand)
        np.testing.assert_array_equal(own.dequantize(layer.weights[gate, operand]), block)
        assert own.frac >= form["frac"]
    for key, form in formats["values"].items():
        assert layer.formats.values[key.partition(".")[2]].to_json() == form
    if name == "powers":  # both round every value to the same formats; the tables and two roundings of the state differ
        near = made.predict(x.transpose(1, 0, 2)).transpose(1, 0, 2)
        assert np.abs(near - due).max() < 4 * layer.output.step


def test_what_overflows_on_the_way_to_a_grid_becomes_its_end():
    grid = Grid(4, True, 2.0**-100)
    found = grid.rounded(np.array([1e30, -1e30, 3 * 2.0**-100], np.float32))
    assert found.tolist() == [7 * 2.0**-100, -8 * 2.0**-100, 3 * 2.0**-100]
    assert Grid(4, True, 2.0**126).rounded(np.array([3e38], np.float32)).tolist() == [np.inf]  # as runtimes have it


def test_layers_that_depend_on_their_numbers_keep_no_formats(tmp_path):
    """A row of two zeros is no bias: the output is repeated; dyed, it is a bias of two numbers."""
    proto = quantized_proto(small_network("rnn", 2, 2, 1)[0], "qonnx-standard")
    for tensor in proto.graph.initializer:
        if tensor.name in ("head.y.b", "output.scale", "output.mean"):
            value = float(tensor.name == "output.scale")
            tensor.CopyFrom(numpy_helper.from_array(np.full(2, value, np.float32), tensor.name))
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 2
    onnx.save(proto, tmp_path / "q.onnx")
    found = import_onnx(tmp_path / "q.onnx", initial="zero", task="regression")
    assert [layer.units for layer in found.model.stack] == [2, 1, 2]
    assert "Formats of weights are left out, because what the layers are depends on their numbers" in found.notes
    assert not found.model.facts["formats"]["weights"]
