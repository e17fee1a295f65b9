"""Model files: the same bits in ONNX Runtime, the same model back, and a sentence for every file that is none."""

import dataclasses
import json
import os
import random
import subprocess
import sys

import networks
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import hwrnn
from hwrnn.activations import NONLINEARITIES, PARAMETRIC, PiecewiseLinear, nonlinearity
from hwrnn.cells import CELLS
from hwrnn.data import Dataset, Split
from hwrnn.errors import UsageError, require
from hwrnn.fixed import Fixed, Format
from hwrnn.golden import golden
from hwrnn.inspection import certificate_table, describe, description_table, looks_like_nonlinearity
from hwrnn.model import build_model
from hwrnn.onnx_integers import EXACT_INTEGER, Node, carrier_of
from hwrnn.onnx_io import load, save
from hwrnn.onnx_numbers import BOOL, DOUBLE, FLOAT, INT64, FloatNode, Graph, Wire
from hwrnn.quantization import quantize

NAMES = [*NONLINEARITIES, *PARAMETRIC, "leaky_relu:1", "pwl_sigmoid:6:1", "pwl_tanh:3"]
NAMES += ["leaky:-0.25", "affine:-0.75:0.3", "thresholded:0.5", "scaled_tanh:1.7159:0.6667", "elu:-0.5|1.5"]
NAMES += ["sigmoid|2", "relu|2", "pwl_tanh:3|1", "table_tanh|1"]

random_numbers = np.random.default_rng(0)
X = (random_numbers.standard_normal((11, 9, 3)) * [1, 4, 0.3] + [0, 2, -1]).astype(np.float32)
LENGTHS = np.array([9, 1, 4, 9, 2, 7, 7, 3, 9, 5, 6])
DATA = Dataset.of("noise", Split(X, np.arange(11) % 4, LENGTHS))


def float_model(seed=1, **chosen):
    """A small model with every parameter away from its default."""
    head = chosen.pop("head", True)
    chosen = {"hidden": 6, "every_step": True, **chosen}
    model = build_model(3, 4 if head else None, seed=seed, **chosen)
    rng = np.random.default_rng(seed)
    for layer in model.stack:
        for name, value in layer.parameters.items():
            if name.endswith(".b"):
                value += rng.normal(0, 0.3, value.shape).astype(np.float32)
    ends = {
        "input_mean": X.mean((0, 1)), "input_scale": 1 / X.std((0, 1)),
        "output_mean": rng.normal(0, 1, model.outputs), "output_scale": rng.uniform(0.5, 2, model.outputs),
    }  # fmt: skip
    facts = {"epochs": 3, "loss": [0.5, 0.25], "data": "noise", "seed": None, "größe": "μ"}
    ends = {name: value.astype(np.float32) for name, value in ends.items()}
    return dataclasses.replace(model, facts=facts, **ends)


def run_onnx(path, x=X, lengths=LENGTHS):
    """Outputs by name of a model file in ONNX Runtime, which must find nothing to warn about."""
    runtime = require("onnxruntime", "runtime")
    onnx.checker.check_model(os.fspath(path), full_check=True)
    session = runtime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"x": x, "lengths": lengths}), strict=True))


def assert_same(a, b, where="model"):
    """Equal field for field: types, element types, shapes and values."""
    assert type(a) is type(b), where
    if dataclasses.is_dataclass(a):
        for f in dataclasses.fields(a):
            assert_same(getattr(a, f.name), getattr(b, f.name), f"{where}.{f.name}")
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype, where
        np.testing.assert_array_equal(a, b, where)
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}[{key!r}]")
    elif isinstance(a, (tuple, list)):
        assert len(a) == len(b), where
        for k, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f"{where}[{k}]")
    else:
        assert a == b, where


def assert_bits(model, path):
    """Saved, run and read back, a quantized model computes golden's integers and predict's scores."""
    save(model, path)
    found = run_onnx(path)
    expected = golden(model, model.quantize_input(X), LENGTHS).output
    assert found["raw"].dtype == np.int64 and found["y"].dtype == np.float64
    np.testing.assert_array_equal(found["raw"], expected)
    np.testing.assert_array_equal(found["y"], model.predict(X, LENGTHS))
    assert_same(model, load(path))
    return found["raw"]


SHAPES = [
    {"layers": layers, "head": head, "every_step": every_step}
    for layers, head, every_step in ((1, True, False), (1, True, True), (2, False, True), (2, True, False))
]
SHAPES += [{"hidden": (5, 6, 4), "head": head, "every_step": True, "encoder": 1 + head} for head in (True, False)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("cell", CELLS)
def test_a_float_model_computes_alike_and_comes_back(cell, shape, tmp_path):
    model = float_model(cell=cell, **shape)
    path = tmp_path / "m.onnx"
    save(model, path)
    found, expected = run_onnx(path)["y"], model.predict(X, LENGTHS)
    assert found.dtype == np.float32 and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert_same(model, load(path))


def test_only_an_encoder_needs_the_newer_format(tmp_path):
    """Whoever cannot repeat a code must not read the file as if there were none; other files stay readable for all."""
    for encoder, due in ((0, 1), (1, 2)):
        path = tmp_path / f"{encoder}.onnx"
        save(float_model(layers=2, encoder=encoder), path)
        described = json.loads(onnx.load(path).metadata_props[0].value)
        assert described["format"] == due and ("encoder" in described) == bool(encoder)


@pytest.mark.parametrize("cell", ["lstm", "lstm-peephole-coupled"])
def test_an_output_nonlinearity_of_its_own(cell, tmp_path):
    """Whoever does not know it must not compute with the state's instead: such files are of the newest format."""
    model, path = float_model(cell=cell, output_activation="sigmoid"), tmp_path / "m.onnx"
    save(model, path)
    assert json.loads(onnx.load(path).metadata_props[0].value)["format"] == 3
    np.testing.assert_allclose(run_onnx(path)["y"], model.predict(X, LENGTHS), rtol=1e-5, atol=1e-5)
    assert_same(model, load(path))
    assert_bits(quantize(model, DATA, 8, method="mse"), tmp_path / "q.onnx")


@pytest.mark.parametrize("name", NAMES)
def test_a_float_model_with_every_nonlinearity(name, tmp_path):
    for k, chosen in enumerate(({"activation": name}, {"gate": name, "activation": "hard_tanh"})):
        model = float_model(cell=("lstm", "ligru")[k], **chosen)
        path = tmp_path / f"{k}.onnx"
        save(model, path)
        np.testing.assert_allclose(run_onnx(path)["y"], model.predict(X, LENGTHS), rtol=1e-4, atol=1e-4)
        assert_same(model, load(path))


@pytest.mark.parametrize("bits", (4, 8, 16))
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("cell", networks.KINDS)
def test_a_quantized_model_computes_golden_bits(cell, shape, bits, tmp_path):
    raw = assert_bits(quantize(float_model(cell=cell, **shape), DATA, bits, method="mse"), tmp_path / "q.onnx")
    assert len(np.unique(raw)) > 4  # equal because both are stuck would prove nothing
    if shape["every_step"]:
        assert not raw[np.arange(X.shape[1]) >= LENGTHS[:, None]].any()


@pytest.mark.parametrize("name", NAMES)
def test_a_quantized_model_with_every_nonlinearity(name, tmp_path):
    assert_bits(quantize(float_model(cell="lstm", activation=name), DATA, 8, method="mse"), tmp_path / "phi.onnx")
    model = float_model(cell="lstm", cell_clip=2, gate=name)  # with the clip it stays bounded even with linear gates
    assert_bits(quantize(model, DATA, 7, method="mse"), tmp_path / "sigma.onnx")


def test_widths_of_every_kind_and_a_clip(tmp_path):
    model = float_model(cell="lstm", cell_clip=2, layers=2)
    for chosen in (
        {"bits": 8, "weight_bits": 2, "cell_bits": 9},
        {"bits": 3, "state_bits": 17, "method": "max"},
        {"bits": 20},
    ):
        assert_bits(quantize(model, DATA, **{"method": "mse", **chosen}), tmp_path / "q.onnx")


@pytest.mark.parametrize("cell", CELLS)
def test_wide_models_use_int64_and_still_wider_ones_are_refused(cell, tmp_path):
    model = float_model(cell=cell, activation="pwl_tanh:5" if cell != "ligru" else None)
    path = tmp_path / "q.onnx"
    assert_bits(quantize(model, DATA, 26, method="mse"), path)
    kinds = {n.attribute[0].i for n in onnx.load(path).graph.node if n.op_type == "Cast"}
    assert TensorProto.INT64 in kinds
    with pytest.raises(
        UsageError, match=r"stay below 2\*\*62 to be saved as an ONNX graph, .*: quantize to fewer bits"
    ):
        save(quantize(model, DATA, 32, method="mse"), path)
    load(path)  # a refused save leaves the file as it was


def test_any_batch_and_any_number_of_steps(tmp_path):
    model = quantize(float_model(cell="gru", layers=2, every_step=False), DATA, 6, method="mse")
    path = tmp_path / "q.onnx"
    save(model, path)
    rng = np.random.default_rng(3)
    for n, steps in ((1, 1), (1, 40), (200, 2)):
        x = (rng.standard_normal((n, steps, 3)) * 3).astype(np.float32)
        lengths = rng.integers(1, steps + 1, n)
        expected = golden(model, model.quantize_input(x), lengths).output
        np.testing.assert_array_equal(run_onnx(path, x, lengths)["raw"], expected)


def test_steps_beyond_the_length_do_not_count(tmp_path):
    model = quantize(float_model(cell="lstm", every_step=False), DATA, 8, method="mse")
    path = tmp_path / "q.onnx"
    save(model, path)
    junk = np.where(np.arange(X.shape[1])[:, None] >= LENGTHS[:, None, None], np.float32(1e30), X)
    np.testing.assert_array_equal(run_onnx(path, junk)["raw"], run_onnx(path)["raw"])


# -- numbers -----------------------------------------------------------------------------------------------------------
def evaluated(build, **inputs):
    """What a small graph of ``build(graph)`` computes; inputs are float64."""
    runtime = require("onnxruntime", "runtime")
    graph = Graph()
    result = build(graph, *(Wire(name, DOUBLE) for name in inputs))
    final = graph.op("Cast", result.wire(), kind=INT64, to=INT64, name="out")
    infos = [helper.make_tensor_value_info(name, DOUBLE, ["N"]) for name in inputs]
    out = helper.make_tensor_value_info(final.name, INT64, ["N"])
    proto = helper.make_model(
        helper.make_graph(graph.nodes, "g", infos, [out], graph.initializers),
        opset_imports=[helper.make_opsetid("", 18)], ir_version=8,
    )  # fmt: skip
    session = runtime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {name: np.asarray(value, np.float64) for name, value in inputs.items()})[0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("source", (Format(16, 12), Format(12, -2), Format(13, 40, False)), ids=str)
def test_a_nonlinearity_of_every_input(name, source):
    output = Format(9, 7)
    function = nonlinearity(name).in_hardware(output)
    raw = np.arange(source.lo, source.hi + 1)
    expected = function(Fixed.of(raw, source)).to(output).raw

    def build(graph, x):
        return function(Node(x, source.frac, source.lo, source.hi, graph)).to(output)

    np.testing.assert_array_equal(evaluated(build, x=raw), expected)


@pytest.mark.parametrize("bits", (12, 25, 30))
def test_arithmetic_with_both_carriers(bits):
    form, output = Format(bits, 7), Format(24, 5)
    rng = np.random.default_rng(bits)
    a, b = (rng.integers(form.lo, form.hi + 1, 500) for _ in range(2))
    a[:4], b[:4] = (form.lo, form.hi, form.lo, form.hi), (form.lo, form.lo, form.hi, form.hi)

    def formula(u, v):
        return ((u * v - u * 3 + 0.25) * 0.5 + (1 - v)).to(output)

    def build(graph, *wires):
        return formula(*(Node(w, form.frac, form.lo, form.hi, graph) for w in wires))

    expected = formula(Fixed.of(a, form), Fixed.of(b, form)).raw
    np.testing.assert_array_equal(evaluated(build, a=a, b=b), expected.astype(np.int64))


def test_wide_numbers_saturate_although_clip_of_int64_errs():
    """ONNX Runtime's Clip, Min and Max of int64 return numbers outside the bounds from 2**31 on."""
    source, output = Format(60, 3), Format(30, 3)
    raw = np.random.default_rng(1).integers(-(2**34), 2**34, 20_000)

    def build(graph, x):
        return Node(graph.cast(x, INT64), source.frac, source.lo, source.hi, graph).to(output)

    np.testing.assert_array_equal(evaluated(build, x=raw), np.clip(raw, output.lo, output.hi))


def test_carriers_end_where_they_are_no_longer_exact():
    assert carrier_of(2**24 - 1, FLOAT) == FLOAT and carrier_of(2**24, FLOAT) == DOUBLE
    assert carrier_of(1) == carrier_of(2**53 - 1) == DOUBLE
    assert carrier_of(2**53) == carrier_of(EXACT_INTEGER - 1) == INT64
    with pytest.raises(UsageError, match=r"must stay below 2\*\*62"):
        carrier_of(EXACT_INTEGER)


def test_a_smooth_function_without_an_operator_is_refused():
    unknown = dataclasses.replace(NONLINEARITIES["tanh"], name="mish", known_as=None)
    with pytest.raises(UsageError, match="Smooth nonlinearity must be one that ONNX has, not 'mish'"):
        FloatNode(Graph(), Wire("x", BOOL)).apply(unknown)


def floors(number, frac):
    """Rounds down instead of half up."""
    return number.floored(frac) if frac < number.frac else number.aligned(frac)


def saturates_early(number, form):
    """Never reaches the lowest value."""
    return number.clipped(form.lo + 1, form.hi)


@pytest.mark.parametrize("name, wrong", [("rounded", floors), ("saturated", saturates_early)])
def test_a_planted_fault_is_caught(name, wrong, tmp_path, monkeypatch):
    model = quantize(float_model(cell="lstm"), DATA, 5, method="mse")
    assert_bits(model, tmp_path / "right.onnx")
    monkeypatch.setattr(Node, name, wrong)
    with pytest.raises(AssertionError, match="Mismatched elements"):
        assert_bits(model, tmp_path / "wrong.onnx")


# -- files -------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A float and a quantized model file."""
    folder = tmp_path_factory.mktemp("saved")
    model = float_model(cell="lstm", hidden=3, gate="plan_sigmoid", activation="pwl_tanh:4")
    save(model, folder / "m.onnx")
    save(quantize(model, DATA, 8, method="mse"), folder / "q.onnx")
    return {"float": folder / "m.onnx", "quantized": folder / "q.onnx"}


KINDS = pytest.mark.parametrize("kind", ("float", "quantized"))


@KINDS
def test_same_model_same_bytes(kind, saved, tmp_path):
    save(load(saved[kind]), tmp_path / "again.onnx")
    content = (tmp_path / "again.onnx").read_bytes()
    assert content == saved[kind].read_bytes()
    program = f"import hwrnn; hwrnn.save(hwrnn.load({os.fspath(saved[kind])!r}), {str(tmp_path / 'other.onnx')!r})"
    subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ, "PYTHONHASHSEED": "77"})
    assert content == (tmp_path / "other.onnx").read_bytes()


def test_the_file_says_what_is_in_it(saved):
    proto = onnx.load(saved["quantized"])
    weights = {t.name: t for t in proto.graph.initializer}
    assert weights["layer0.f.h"].data_type == TensorProto.INT8 and list(weights["layer0.f.h"].dims) == [3, 3]
    assert weights["layer0.f.b"].data_type == TensorProto.INT32
    assert numpy_helper.to_array(weights["head.y.x"]).shape == (4, 3)
    meta = json.loads(proto.metadata_props[0].value)
    assert (meta["format"], meta["hwrnn"], meta["layers"][0]["cell"]) == (1, hwrnn.__version__, "lstm")
    body = next(n for n in proto.graph.node if n.op_type == "Scan").attribute[0].g
    assert {"layer0.a.g", "layer0.f", "layer0.c"} <= {name for node in body.node for name in node.output}
    names = {t.name for t in onnx.load(saved["float"]).graph.initializer}
    assert {"layer0.f.h", "layer0.f.b", "head.y.x", "input.mean", "output.scale"} <= names


def test_reading_never_fits_again(saved, monkeypatch):
    def refuse(*_):
        raise AssertionError("fitted while reading")

    monkeypatch.setattr("hwrnn.fitting.fit", refuse)
    monkeypatch.setattr("hwrnn.fitting.fit", refuse)
    assert isinstance(load(saved["quantized"]).layers[0].cell.phi, PiecewiseLinear)


@pytest.mark.parametrize(
    "change, text",
    [
        ({"facts": {"loss": float("nan")}}, "Facts and saturation must be plain finite JSON values"),
        ({"facts": {"x": X}}, "Facts and saturation must be plain finite JSON values"),
        ({"input_mean": np.zeros(3)}, "Parameters must be float32 to be saved, but input mean is float64"),
        (
            {"output_scale": np.full(4, np.inf, np.float32)},
            "Parameters must be finite to be saved, unlike output scale",
        ),
    ],
)
def test_a_model_that_cannot_be_saved(change, text, tmp_path):
    with pytest.raises(UsageError, match=text):
        save(dataclasses.replace(float_model(), **change), tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_model_is_not_saved(tmp_path):
    with pytest.raises(UsageError, match="Model must be a Model or a QuantizedModel to be saved, not dict"):
        save({}, tmp_path / "m.onnx")
    model = quantize(float_model(), DATA, 4, method="mse")
    model.layers[0].weights["f", "h"][0, 0] = 8
    with pytest.raises(UsageError, match=r"Weights must lie in their format to be saved: those of f\.h in"):
        save(model, tmp_path / "m.onnx")
    with pytest.raises(UsageError, match="Output path must be in an existing folder"):
        save(float_model(), tmp_path / "none" / "m.onnx")


def foreign():
    """An ONNX file of somebody else's."""
    node = helper.make_node("Relu", ["x"], ["y"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    return helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:])).SerializeToString()


PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89"


@pytest.mark.parametrize(
    "content, text",
    [
        (b"", "must have between 1 byte and 2 GiB, not 0 bytes"),
        (PNG, "must be an ONNX file, not damaged or of another kind"),
        (b"# a text\n" * 9, "must be an ONNX file, not damaged or of another kind"),
        (foreign(), "must be written by hwrnn, unlike .*: hwrnn import turns other ONNX networks into one"),
    ],
    ids=("empty", "png", "text", "foreign"),
)
def test_files_that_are_no_models(content, text, tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=f"Model file {text}"):
        load(path)


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(UsageError, match=r"Model file must exist, unlike '.*none\.onnx'"):
        load(tmp_path / "none.onnx")
    with pytest.raises(UsageError, match="Model file must be a file, not the folder"):
        load(tmp_path)
    with pytest.raises(UsageError, match="Model file must be a regular file, not the device"):
        load(os.devnull)
    with pytest.raises(UsageError, match="Model file must"):
        load("a\0b")
    with pytest.raises(UsageError, match="Model file must"):
        load(tmp_path / ("a" * 300))


def test_a_file_that_may_not_be_read(saved, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(
        UsageError, match=r"Model file must be readable, unlike .* \(Permission denied\): check the path"
    ):
        load(saved["float"])


def changed(path, tmp_path, change=None, meta=None):
    """A copy of a model file with its protobuf or its description changed."""
    proto = onnx.load(path)
    if change is not None:
        change(proto, {t.name: t for t in proto.graph.initializer})
    if meta is not None:
        what = json.loads(proto.metadata_props[0].value)
        meta(what)
        proto.metadata_props[0].value = json.dumps(what)
    copy = tmp_path / "changed.onnx"
    copy.write_bytes(proto.SerializeToString())
    return copy


def outside(proto, tensors):
    tensors["layer0.f.h"].ClearField("raw_data")
    tensors["layer0.f.h"].data_location = TensorProto.EXTERNAL
    tensors["layer0.f.h"].external_data.add(key="location", value="weights.bin")


@pytest.mark.parametrize(
    "change, text",
    [
        (lambda p, t: p.graph.initializer.remove(t["layer0.f.h"]), "define value 'layer0.f.h' before"),
        (lambda p, t: p.graph.node.clear() or p.graph.output.clear() or p.graph.initializer.clear(),
         "hold parameter 'layer0.i.[xb]'"),
        (lambda p, t: t["layer0.f.h"].CopyFrom(numpy_helper.from_array(np.zeros((3, 3)), "layer0.f.h")),
         "hold parameter 'layer0.f.h' as "),
        (lambda p, t: t["layer0.f.h"].dims.append(1),
         r"hold parameter 'layer0.f.h' of shape \(3, 3\), not \(3, 3, 1\)"),
        (lambda p, t: t["layer0.f.h"].dims.__setitem__(0, 2**62), "hold less than .* in tensor 'layer0.f.h', unlike"),
        (lambda p, t: t["layer0.f.h"].dims.__setitem__(0, -3), "hold sizes of at least 0 in tensor 'layer0.f.h'"),
        (outside, "hold its parameters itself, and not refer to another file for 'layer0.f.h'"),
        (lambda p, t: setattr(t["layer0.f.h"], "raw_data", b"\0"), "hold .* in tensor 'layer0.f.h' as .* not 1"),
        (lambda p, t: p.metadata_props.pop(0), "hold hwrnn's description once"),
        (lambda p, t: p.metadata_props.append(p.metadata_props[0]), "hold metadata 'hwrnn' once"),
        (lambda p, t: setattr(p.metadata_props[0], "value", "{"), "be as hwrnn wrote it"),
        (lambda p, t: setattr(p.metadata_props[0], "value", "[]"), "describe 'format' by int, not NoneType"),
        (lambda p, t: setattr(p.metadata_props[0], "value", "[" * 100_000), "be as hwrnn wrote it"),
        (lambda p, t: setattr(p.metadata_props[0], "value", '{"format": ' + "9" * 5000 + "}"), "be as hwrnn wrote it"),
    ],
)  # fmt: skip
@KINDS
def test_damaged_files(kind, change, text, saved, tmp_path):
    with pytest.raises(UsageError, match=f"^Model file must .*{text}.*: save "):
        load(changed(saved[kind], tmp_path, change))


def in_layer(**values):
    return lambda what: what["layers"][0].update(values)


@pytest.mark.parametrize(
    "meta, text",
    [
        (lambda w: w.update(format=4), "have format 1 to 3, not 4, written by hwrnn .*: install a newer hwrnn"),
        (lambda w: w.update(format=0), "have format 1 to 3, not 0"),
        (lambda w: w.update(format=True), "describe 'format' by int, not bool"),
        (lambda w: w.update(kind="complex"), "describe a float or quantized model"),
        (lambda w: w.update(format=2), "describe 'encoder' by int, not NoneType"),
        (lambda w: w.update(format=2, encoder=1), "describe 'encoder' between 1 and 0, not 1"),
        (lambda w: w.update(layers=[]), "describe at least one layer"),
        (lambda w: w.update(every_step=1), "describe 'every_step' by bool, not int"),
        (lambda w: w.update(head=w["layers"][0]), "describe a dense head behind recurrent layers, not 'lstm'"),
        (lambda w: w["layers"].append(w["layers"][0]), "hold parameter 'layer1"),
        (in_layer(cell="transformer"), "Cell must be one of rnn, .* not 'transformer'"),
        (in_layer(psi={"name": "sigmoid2"}), "describe nonlinearity 'sigmoid2' by its knots"),
        (in_layer(units=2**40), "describe 'units' between 1 and 16777216, not 1099511627776"),
        (in_layer(units=2**24), "of shape .*16777216"),
        (in_layer(inputs=0), "describe 'inputs' between 1 and"),
        (in_layer(clip=-1), "describe the clip of a cell as a positive number, not -1"),
        (in_layer(sigma={"name": "sigmoid2"}), "describe nonlinearity 'sigmoid2' by its knots"),
        (in_layer(sigma={"name": "s", "knots": ["1e999999999"]}), "as fractions, not '1e999999999'"),
        (in_layer(sigma={"name": "s", "knots": ["1/0"], "slopes": [], "intercepts": []}), "be as hwrnn wrote it"),
        (in_layer(sigma={"name": "s", "knots": [], "slopes": ["1"], "intercepts": []}), "Slopes and intercepts must"),
    ],
)  # fmt: skip
@KINDS
def test_descriptions_that_no_model_has(kind, meta, text, saved, tmp_path):
    with pytest.raises(UsageError, match=f"^Model file must .*(?:{text})"):
        load(changed(saved[kind], tmp_path, meta=meta))


@pytest.mark.parametrize(
    "meta, text",
    [
        (in_layer(sigma={"name": "sigmoid"}), "describe 'sigmoid' of a quantized model by shifts and adds"),
        (in_layer(values={}), "describe 'x' by dict"),
        (lambda w: w["layers"][0]["values"]["c"].update(width=2**70), "describe 'width' between 1 and 128"),
        (lambda w: w["layers"][0]["values"]["c"].update(frac=10**9), "describe 'frac' between"),
        (lambda w: w["layers"][0]["shifts"].update({"0.h": 17}), "describe formats whose products meet at the bias"),
        (lambda w: w["layers"][0]["weights"]["f.h"].update(width=2), "hold weights 'layer0.f.h' between -2 and 1"),
        (lambda w: w["head"]["values"]["x"].update(signed=False), "is the output format of the layer before"),
        (lambda w: w["widths"].pop("cell"), "describe 'cell' by int"),
        (lambda w: w["saturation"].update({"0.f": 2}), "describe saturation as shares"),
    ],
)  # fmt: skip
def test_descriptions_that_no_quantized_model_has(meta, text, saved, tmp_path):
    with pytest.raises(UsageError, match=f"^Model file must .*{text}"):
        load(changed(saved["quantized"], tmp_path, meta=meta))


@KINDS
def test_mutated_files_are_told_in_a_sentence(kind, saved, tmp_path):
    content, rng, path = saved[kind].read_bytes(), random.Random(5), tmp_path / "mutant.onnx"
    refused = 0
    for trial in range(300):
        mutant = bytearray(content)
        if trial % 3 == 0:
            del mutant[rng.randrange(1, len(mutant)) :]
        elif trial % 3 == 1:
            at = rng.randrange(len(mutant))
            mutant[at : at + rng.randrange(40)] = mutant[rng.randrange(len(mutant)) :][: rng.randrange(40)]
        for _ in range(trial % 3 * rng.randrange(4) + (trial % 3 == 2)):
            mutant[rng.randrange(len(mutant))] = rng.randrange(256)
        path.write_bytes(mutant)
        refused += not survives(path)
    assert refused > 150


@KINDS
def test_mutated_descriptions_are_told_in_a_sentence(kind, saved, tmp_path):
    rng, refused = random.Random(6), 0
    values = (None, True, -1, 0, 1, 2**31, 2**64, 1e300, "", "x", "1/3", "h", [], ["1"], {}, {"name": "tanh"})

    def meta(what):
        while True:
            keys = list(what) if isinstance(what, dict) else range(len(what))
            if not keys:
                return
            key = rng.choice(list(keys))
            if not isinstance(what[key], (dict, list)) or not what[key] or rng.random() < 0.1:
                what[key] = rng.choice(values)
                return
            what = what[key]

    for _ in range(300):
        refused += not survives(changed(saved[kind], tmp_path, meta=meta))
    assert refused > 150


def survives(path):
    try:
        load(path)
    except UsageError as error:
        assert str(error) and "\n" not in str(error)
        return False
    return True


# -- names and inspection ----------------------------------------------------------------------------------------------
def test_names_of_the_package_are_imported_when_asked_for():
    program = (
        "import sys, hwrnn; assert not {'numpy', 'onnx'} & set(sys.modules); assert 'load' in dir(hwrnn);"
        "hwrnn.build_model, hwrnn.load; assert {'numpy', 'onnx'} <= set(sys.modules); hwrnn.nothing"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr.endswith("AttributeError: module 'hwrnn' has no attribute 'nothing'\n")
    assert (hwrnn.save, hwrnn.load, hwrnn.quantize, hwrnn.UsageError) == (save, load, quantize, UsageError)


@KINDS
def test_describe(kind, saved):
    found = describe(saved[kind])
    assert found == json.loads(json.dumps(found)) == describe(load(saved[kind]))
    assert (found["kind"], found["inputs"], found["outputs"], found["every_step"]) == (kind, 3, 4, True)
    layer, head = found["layers"]
    assert (layer["name"], layer["cell"], layer["units"], head["name"]) == ("layer0", "lstm", 3, "head")
    assert found["parameters"] == 4 * 3 * (3 + 3 + 1) + 4 * (3 + 1)
    assert found["multiplications_per_step"] == 4 * 3 * (3 + 3) + 4 * 3
    assert found["facts"]["epochs"] == 3
    assert layer["nonlinearities"].keys() == {"i", "f", "o", "g", "t"}
    gate = layer["nonlinearities"]["f"]
    assert gate["function"] == "plan_sigmoid" and 0.017 < gate["certificate"]["maximum"] < 0.03
    recurrent = layer["recurrent"]["f.h"]
    assert 0 < recurrent["spectral_radius"] <= recurrent["norm"] * (1 + 1e-9) and 0.8 < recurrent["norm"] < 1.2
    if kind == "quantized":
        assert gate["certificate"]["maximum_lsb"] > 0
        form = load(saved[kind]).input_format
        assert found["input_format"]["q"] == str(form) and found["input_format"]["ap_fixed"] == form.ap_fixed
        assert layer["weight_formats"]["f.h"]["width"] == 8
        assert layer["accumulator_bits"]["f"] > 8 and layer["saturation"].keys() >= {"a.f", "c", "h"}


@pytest.mark.parametrize("cell", networks.KINDS)
def test_describe_every_cell(cell):
    gate = "sigmoid" if CELLS[cell].gated else None
    for chosen in ({}, {"activation": "tanh", "gate": gate}):
        model = float_model(cell=cell, **chosen)
        for one in (model, quantize(model, DATA, 16, method="mse"), quantize(model, DATA, 32, method="mse")):
            assert json.dumps(describe(one), allow_nan=False)


@KINDS
def test_a_description_for_people(kind, saved):
    text = description_table(describe(saved[kind]))
    assert "layer0: lstm, 3 inputs, 3 units" in text and "head: dense, 3 inputs, 4 units" in text
    assert "plan_sigmoid" in text and "spectral radius" in text
    assert ("ap_fixed<" in text) == (kind == "quantized")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bits", (None, 4, 12))
def test_certificates_of_nonlinearities(name, bits):
    assert looks_like_nonlinearity(name)
    found, text = certificate_table(name, bits)
    assert json.dumps(found, allow_nan=False) and found["function"] in text
    if found["certificate"] is not None:
        step = 0 if bits is None else 2.0**-bits
        assert found["certificate"]["maximum"] < 0.25 + step


def test_what_has_no_certificate(tmp_path, monkeypatch):
    assert not looks_like_nonlinearity("model.onnx")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tanh").touch()
    assert not looks_like_nonlinearity("tanh")
    with pytest.raises(UsageError, match="Bits of a nonlinearity must be between 1 and 16, not 17"):
        certificate_table("tanh", 17)
    with pytest.raises(UsageError, match="Leaky slope must be"):
        certificate_table("leaky_relu:99")


def test_a_constant_of_a_body_stands_in_it():
    graph = Graph()
    with graph.body() as nodes:
        graph.own_constant(2.0, FLOAT)
    assert [node.op_type for node in nodes] == ["Constant"] and not graph.initializers
    graph.own_constant(2.0, FLOAT)
    assert len(graph.initializers) == 1


def test_what_no_output_comes_of_goes_with_its_constants():
    graph = Graph()
    x = Wire("x", FLOAT)
    inner = graph.op("Mul", x, graph.constant(3.0, FLOAT))
    graph.op("Add", inner, graph.constant(5.0, FLOAT))  # of no use
    graph.op("Neg", x)
    weights = graph.initializer("weights", np.zeros(2, np.float32))  # a parameter stays, used or not
    out = graph.op("Add", inner, graph.constant(7.0, FLOAT))
    assert [node.op_type for node in graph.used([out])] == ["Mul", "Add"]
    assert [t.name for t in graph.initializers] == ["float/3.0", weights.name, "float/7.0"]


def test_numbers_on_either_side_of_an_operator():
    runtime, graph, x = require("onnxruntime", "runtime"), Graph(), np.array([-1.5, 0.25, 4], np.float32)
    node = FloatNode(graph, Wire("x", FLOAT))
    made = {"a": 1.5 - node, "b": node - 1.5, "c": 3.0 * node, "d": node + 1.5, "e": 1.5 + node, "f": node * node}
    outputs = [helper.make_tensor_value_info(value.wire.name, FLOAT, ["N"]) for value in made.values()]
    proto = helper.make_model(
        helper.make_graph(graph.nodes, "g", [helper.make_tensor_value_info("x", FLOAT, ["N"])], outputs,
                          graph.initializers),
        opset_imports=[helper.make_opsetid("", 18)], ir_version=8,
    )  # fmt: skip
    session = runtime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    due = [1.5 - x, x - 1.5, 3 * x, x + 1.5, 1.5 + x, x * x]
    assert [found.tolist() for found in session.run(None, {"x": x})] == [value.tolist() for value in due]
