"""What leaves hwrnn as ONNX: standard operators where they can say it, checked files, names, round trips, old files."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import shape_inference

from hwrnn.activations import nonlinearity
from hwrnn.cells import CELLS
from hwrnn.cli import main
from hwrnn.clipping import clipped
from hwrnn.data import Dataset, Split
from hwrnn.errors import UsageError, require
from hwrnn.golden import golden
from hwrnn.importing import import_onnx
from hwrnn.model import build_model
from hwrnn.onnx_graph import Style, model_proto
from hwrnn.onnx_io import load, save
from hwrnn.onnx_standard import OPERATORS, activation_of, unsaid
from hwrnn.quantization import quantize

FILES = Path(__file__).parent / "files"
RNG = np.random.default_rng(7)
X = RNG.normal(0, 1.2, (7, 6, 3)).astype(np.float32)
LENGTHS = np.array([6, 1, 4, 6, 2, 5, 3])
DATA = Dataset.of("noise", Split(X, np.arange(7) % 4, LENGTHS))
ACTIVATIONS = (
    "tanh", "relu", "hard_tanh", "relu1", "relu6", "leaky_relu:3", "identity", "hard_sigmoid_1_5", "elu:0.7",
    "softsign", "softplus", "scaled_tanh:1.5:0.5", "thresholded:0.2", "hard_line:0.3:0.4", "leaky:0.3",
)  # fmt: skip
GATES = ("hard_sigmoid", "leaky_relu:2", "pwl_sigmoid", "relu")
RECURRENT = {"RNN", "GRU", "LSTM"}


def network(cell="lstm", activation="tanh", gate="sigmoid", seed=1, **chosen):
    """A network with nothing at its default; peepholes are diagonal, as ONNX's are."""
    gate = gate if CELLS[cell].gated else None
    model = build_model(3, 4, cell=cell, activation=activation, gate=gate, seed=seed, **{"hidden": 5, **chosen})
    rng = np.random.default_rng(seed)
    for layer in model.stack:
        for name, value in layer.parameters.items():
            if name.endswith(".b"):
                value += rng.normal(0, 0.3, value.shape).astype(np.float32)
            if name.endswith(".c"):
                value[np.tile(np.eye(layer.units), (len(value) // layer.units, 1)) == 0] = 0
    layers = tuple(
        dataclasses.replace(layer, initial={s: rng.normal(0, 0.5, layer.units).astype(np.float32)
                                            for s in layer.cell.states}) if k == 0 else layer
        for k, layer in enumerate(model.layers)
    )  # fmt: skip
    ends = {"input_mean": X.mean((0, 1)), "input_scale": 1 / X.std((0, 1))}
    return dataclasses.replace(model, layers=layers, **{k: v.astype(np.float32) for k, v in ends.items()})


def run(proto, x=X, lengths=LENGTHS):
    """Outputs of a checked graph in ONNX Runtime by name."""
    runtime = require("onnxruntime", "runtime")
    checked(proto)
    session = runtime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"x": x, "lengths": lengths}), strict=True))


def checked(proto):
    """The checker with everything, and shapes inferred strictly and with data."""
    onnx.checker.check_model(proto, full_check=True)
    inferred = shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    assert [o.type for o in inferred.graph.output] == [o.type for o in proto.graph.output]


def operators(proto):
    return [node.op_type for node in proto.graph.node]


SHAPES = (
    {"every_step": True},
    {"layers": 2},
    {"bidirectional": True},
    {"bidirectional": True, "layers": 2, "every_step": True},
)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("cell", OPERATORS)
def test_a_standard_operator_says_a_layer(cell, shape):
    model = network(cell, **shape)
    proto = model_proto(model)
    kinds = operators(proto)
    assert kinds.count(OPERATORS[cell].name) == shape.get("layers", 1) and "Scan" not in kinds
    np.testing.assert_allclose(run(proto)["y"], model.predict(X, LENGTHS), rtol=1e-5, atol=2e-6)
    scanned = model_proto(model, Style(operators=False))
    assert not RECURRENT & set(operators(scanned))
    np.testing.assert_allclose(run(scanned)["y"], model.predict(X, LENGTHS), rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("cell", CELLS)
def test_with_every_pair_of_nonlinearities(cell):
    said = 0
    pairs = [*itertools.product(ACTIVATIONS, ("sigmoid",)), *itertools.product(("tanh",), GATES)]
    for activation, gate in pairs:
        model = network(cell, activation, gate)
        proto = model_proto(model)
        due = unsaid(model.layers[0]) is None
        assert due == bool(RECURRENT & set(operators(proto)))
        expected = model.predict(X, LENGTHS)
        limit = 2e-5 * max(1, float(np.abs(expected).max()))
        np.testing.assert_allclose(run(proto)["y"], expected, rtol=1e-4, atol=limit)
        said += due
    assert (said > 0) == (cell in OPERATORS)


def test_what_the_operators_cannot_say():
    reasons = {
        "no operator for cell 'mingru'": network("mingru"),
        "do not clip a cell state": network("lstm", cell_clip=2),
        "no activation for 'pwl_tanh:4'": network("rnn", "pwl_tanh"),
        "'hard_tanh' by clipping the input of every gate": network("gru", "hard_tanh"),
    }
    full = network("lstm-peephole")
    full.layers[0].parameters["0.c"][0, 1] = 1
    reasons["peepholes are the diagonals"] = full
    for text, model in reasons.items():
        assert text in (unsaid(model.layers[0]) or "")


def test_a_clip_that_every_gate_bears():
    """ONNX Runtime's clip bounds what enters the gates and the candidate, not the state before an LSTM's output."""
    bound = {name: clipped(nonlinearity(name), 0.8) for name in ("sigmoid", "tanh")}
    for cell, psi in (("lstm", nonlinearity("tanh")), ("gru", None), ("gru-reset-before", None), ("rnn", None)):
        model = network(cell)
        (layer,) = model.layers
        made = dataclasses.replace(layer.cell, sigma=bound["sigmoid"], phi=bound["tanh"], psi=psi)
        model = dataclasses.replace(model, layers=(dataclasses.replace(layer, cell=made),))
        assert unsaid(model.layers[0]) is None
        np.testing.assert_allclose(run(model_proto(model))["y"], model.predict(X, LENGTHS), rtol=1e-5, atol=2e-6)
        if psi is not None:
            other = dataclasses.replace(layer, cell=dataclasses.replace(made, psi=None))
            assert "clipping the input" in (unsaid(other) or "")


def test_the_bound_of_an_input_is_a_clip_of_an_rnn():
    model = network("rnn", "hard_tanh")
    (node,) = [n for n in model_proto(model).graph.node if n.op_type == "RNN"]
    found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    assert found["activations"] == [b"Affine"] and found["clip"] == 1
    assert found["activation_alpha"] == [1] and found["activation_beta"] == [0]
    assert activation_of(model.layers[0].cell.phi).clip == 1


# -- round trips -------------------------------------------------------------------------------------------------------
def stripped(proto):
    """The file as somebody else's tool would have written it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.metadata_props[:]
    copy.producer_name = "somebody"
    return copy


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("cell", OPERATORS)
def test_export_import_export_gives_the_same_bits(cell, shape, tmp_path):
    model = network(cell, **shape)
    onnx.save(stripped(model_proto(model)), tmp_path / "m.onnx")
    found = import_onnx(tmp_path / "m.onnx", task=model.task)
    again = found.model
    for old, new in zip(model.stack, again.stack, strict=True):
        assert (type(old.cell), old.reverse, old.beside) == (type(new.cell), new.reverse, new.beside)
        for name, value in old.parameters.items():
            np.testing.assert_array_equal(new.parameters[name], value)
    for name in ("input_mean", "input_scale", "output_mean", "output_scale"):
        np.testing.assert_array_equal(getattr(again, name), getattr(model, name))
    np.testing.assert_array_equal(again.predict(X, LENGTHS), model.predict(X, LENGTHS))
    first, second = (stripped(model_proto(m)).SerializeToString(deterministic=True) for m in (model, again))
    assert first == second
    quantized = [quantize(m, DATA, 8, method="mse") for m in (model, again)]
    raw = [golden(q, q.quantize_input(X), LENGTHS).output for q in quantized]
    np.testing.assert_array_equal(*raw)


# -- files of earlier versions -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", sorted(path.stem for path in FILES.glob("format*.onnx")))
def test_files_of_formats_1_and_2(name, tmp_path):
    told = np.load(FILES / "expected.npz")
    model = load(FILES / f"{name}.onnx")
    if name.endswith("float"):
        np.testing.assert_allclose(model.predict(told["x"], told["lengths"]), told[name], rtol=1e-5, atol=1e-6)
    else:
        raw = golden(model, model.quantize_input(told["x"]), told["lengths"]).output
        np.testing.assert_array_equal(raw, told[name])
    save(model, tmp_path / "again.onnx")
    found = run(onnx.load(tmp_path / "again.onnx"), told["x"], told["lengths"])
    if not name.endswith("float"):
        np.testing.assert_array_equal(found["raw"], told[name])


def test_files_of_unknown_formats_are_refused_by_name(tmp_path):
    proto = onnx.load(FILES / "format1_lstm_8bits.onnx")
    told = json.loads(proto.metadata_props[0].value)
    told["format"], told["hwrnn"] = 99, "7.5.0"
    proto.metadata_props[0].value = json.dumps(told)
    onnx.save(proto, tmp_path / "new.onnx")
    with pytest.raises(UsageError, match=r"format .*99, written by hwrnn 7\.5\.0: install a newer hwrnn"):
        load(tmp_path / "new.onnx")


# -- the verb ----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save(network("gru", every_step=False), folder / "m.onnx")
    save(network("lstm", "hard_tanh", "hard_sigmoid"), folder / "hard.onnx")
    save(quantize(network("lstm", "hard_tanh", "hard_sigmoid"), DATA, 8, method="mse"), folder / "q.onnx")
    return folder


@pytest.mark.parametrize("form", ("onnx", "standard", "qonnx", "qonnx-standard", "qdq", "c"))
def test_every_form_on_the_command_line(form, models, tmp_path, capsys):
    source = models / ("m.onnx" if form == "standard" else "q.onnx")
    assert main(["export", str(source), "--form", form, "-o", str(tmp_path / "out"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["same_bits"] == (form not in ("qonnx-standard", "qdq"))
    if form == "c":
        assert (tmp_path / "out" / "network.c").is_file()
        return
    checked(onnx.load(tmp_path / "out"))
    if form == "qonnx":
        assert found["difference_lsb"]["largest"] == 0 and found["difference_lsb"]["outputs"] == 64 * 4
    assert main(["export", str(source), "--form", form, "-o", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert ("LSB of the output" in text) == (form in ("qonnx", "qonnx-standard", "qdq"))
    assert ("half to even" in text) == (form in ("qonnx-standard", "qdq"))


@pytest.mark.parametrize(
    "words, text",
    [
        (["m.onnx", "--form", "pickle"], "Form must be one of onnx, standard, qonnx, qonnx-standard, qdq, c, not"),
        (["m.onnx", "--form", "qdq"], "Model must be quantized for the form qdq, not a float one: run hwrnn quantize"),
        (["m.onnx", "--form", "c"], "Model must be quantized for the form c"),
        (["q.onnx", "--form", "standard"], "Model must be a float one for the form standard"),
        (["hard.onnx", "--form", "standard"], "Layer 0 must be one that standard operators say, but ONNX says"),
        (["m.onnx", "--data", "japanese-vowels"], "Data must come with a form to measure on them, not with onnx"),
        (["q.onnx", "--form", "qdq", "--data", "japanese-vowels"], "Data must have 3 features"),
    ],
)
def test_what_cannot_be_exported(words, text, models, tmp_path, capsys):
    assert main(["export", str(models / words[0]), *words[1:], "-o", str(tmp_path / "out")]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# -- what the checker and people see -----------------------------------------------------------------------------------
@pytest.mark.parametrize("cell", CELLS)
def test_integer_graphs_are_checked_and_named(cell):
    shape = {"layers": 2, "encoder": 1, "every_step": True, "bidirectional": cell == "gru"}
    model = quantize(network(cell, "hard_tanh", "plan_sigmoid", **shape), DATA, 8, method="mse")
    for one in (model_proto(model), model_proto(model.in_float()), model_proto(network(cell, **shape))):
        checked(one)
        assert one.graph.doc_string and all(info.doc_string for info in (*one.graph.input, *one.graph.output))
        names = [node.name for node in one.graph.node]
        assert all(names) and len(set(names)) == len(names)
        scopes = {name.partition("/")[0] for name in names}
        assert {"input", "layer0", "code", "output"} <= scopes
        assert all("/" in name for name in names)


@pytest.mark.parametrize("cell", CELLS)
def test_any_batch_and_length_in_integers(cell):
    model = quantize(network(cell, "pwl_tanh", "hard_sigmoid"), DATA, 8, method="mse")
    runtime = require("onnxruntime", "runtime")
    session = runtime.InferenceSession(model_proto(model).SerializeToString(), providers=["CPUExecutionProvider"])
    for n, steps in ((1, 1), (1, 17), (33, 1), (5, 6)):
        rng = np.random.default_rng(n)
        x = (rng.standard_normal((n, steps, 3)) * 2).astype(np.float32)
        lengths = rng.integers(1, steps + 1, n)
        expected = golden(model, model.quantize_input(x), lengths).output
        np.testing.assert_array_equal(session.run(["raw"], {"x": x, "lengths": lengths})[0], expected)
