"""Bits per tensor: the cost that the descent lowers, the metric that it keeps, and what hardware makes of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from networks import FEW

from hwrnn.calibration import calibrate
from hwrnn.cells import CELLS
from hwrnn.cli import main
from hwrnn.data import Dataset, Split
from hwrnn.errors import UsageError
from hwrnn.formats import Widths, choose_formats
from hwrnn.golden import golden
from hwrnn.mixed import cost_of, mixed_formats, tensors_of
from hwrnn.model import Model, build_model
from hwrnn.onnx_io import load, save
from hwrnn.quantization import freeze, quantize
from hwrnn.rtl.lanes import factors
from hwrnn.rtl.network import Network
from hwrnn.swapping import measured_swap
from hwrnn.training import train


def clusters(task: str = "classification", count: int = 60) -> Dataset:
    """Three classes told apart by the mean of one feature, or that mean, in sequences of 2 to 6 steps."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, count)
    x = rng.normal(0, 0.6, (count, 6, 2)).astype(np.float32)
    x[:, :, 0] += y[:, None] - 1
    targets = y if task == "classification" else (y[:, None] - 1).astype(np.float32)
    return Dataset("clusters", task, False, Split(x, targets, rng.integers(2, 7, count)))


def trained(cell: str = "gru", task: str = "classification", **options: object) -> tuple[Model, Dataset]:
    data = clusters(task)
    model = build_model(2, data.outputs, cell=cell, hidden=5, task=task, seed=1, **options)
    return train(model, data, epochs=25, noise=0.3, rate=0.03), data


def test_widths_of_single_tensors():
    widths = replace(Widths.of(8), tensors={"0.input": 3, "1.weights": 4, "0.cell": 5})
    assert (widths.input, widths.at(0).activations, widths.at(0).cell, widths.at(1).cell) == (3, 8, 5, 12)
    assert widths.at(1) == Widths(4, 8, 8, 12) and widths.at(2) == Widths.of(8)
    assert Widths.of(8).input == 8 and hash(widths) == hash(replace(widths, tensors=dict(widths.tensors)))


@pytest.mark.parametrize("cell", CELLS)
def test_every_tensor_gets_its_own_bits(cell):
    model, data = build_model(2, 3, cell=cell, hidden=[4, 3], seed=1), clusters()
    seen = calibrate(model, data.train)
    names = tensors_of(model)
    assert names[0] == "0.input" and {"0.weights", "1.weights", "2.weights", "0.state", "1.state"} <= set(names)
    assert ("0.cell" in names) == ("c" in model.layers[0].cell.states) and "2.state" not in names
    for name in names:
        k, kind = name.split(".")
        formats = choose_formats(model, seen, replace(Widths.of(8), tensors={name: 5, "0.input": 7} | {name: 5}))
        for index, f in enumerate(formats):
            hit = index == int(k)
            assert {w.width for w in f.weights.values()} == {5 if hit and kind == "weights" else 8}
            if index < 2:
                assert f.values["h"].width == (5 if hit and kind == "state" else 8)
        assert formats[0].values["x"].width == (5 if kind == "input" else 7)
        if kind == "cell":
            assert formats[int(k)].values["c"].width == 5


@pytest.mark.parametrize("cell", FEW)
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_the_path_lowers_the_cost_and_keeps_the_metric(cell, task):
    model, data = trained(cell, task)
    within = 4.0
    q = quantize(model, data, 6, within=within)
    path = q.facts["mixed"]["path"]
    costs = [step["cost"] for step in path]
    assert costs == sorted(costs, reverse=True) and costs[-1] < 0.7 * costs[0]
    assert all(step["points"] <= within for step in path)
    assert costs[-1] == cost_of(model, [layer.formats for layer in q.stack])
    last = {step["tensor"]: step["bits"] for step in path if step["tensor"]}
    assert {**{"0.input": 6}, **last} == {**{"0.input": 6}, **q.widths.tensors}
    for name, bits in last.items():
        k, kind = name.split(".")
        form = {"weights": next(iter(q.stack[int(k)].formats.weights.values()))}.get(kind)
        form = form or q.stack[int(k)].formats.values[{"input": "x", "state": "h", "cell": "c"}.get(kind, "h")]
        if kind in ("weights", "input", "state", "cell"):
            assert form.width == bits
    # On the data without noise too: the metric is the one that a person would measure.
    exact = measured_swap(model, model, data.train)
    found = measured_swap(model, q, data.train)
    assert found.points <= within and exact.points == 0


def test_the_descent_judges_goldens_integers():
    model, data = trained()
    model = replace(model, facts={**model.facts, "noise": 0.0})
    seen = calibrate(model, data.train)
    widths, formats, path = mixed_formats(model, seen, Widths.of(6), 3.0)
    q = freeze(model, formats, widths)
    scores = golden(q, q.quantize_input(data.train.x), data.train.lengths).output
    assert path[-1].metric == np.mean(scores.argmax(axis=1) == data.train.y)
    exact = np.mean(model.predict(data.train.x, data.train.lengths).argmax(axis=1) == data.train.y)
    assert path[-1].points == pytest.approx(100 * (exact - path[-1].metric))


def test_hardware_profits():
    """Memory and multipliers of the generated engine fall with the bits that the formula counts."""
    model, data = trained()
    wide, narrow = quantize(model, data, 8), quantize(model, data, 8, within=5.0)
    assert Network(narrow, 4).memory_bits < 0.75 * Network(wide, 4).memory_bits
    for before, after in zip(wide.stack, narrow.stack, strict=True):
        assert [s.width for s in factors(after)] <= [s.width for s in factors(before)]


def test_a_single_gate_saves_nothing():
    """A lane's word is as wide as the widest gate's weights: the formula and the engine agree on that."""
    model, data = trained()
    wide = quantize(model, data, 8, method="mse")
    layer = wide.layers[0]
    weights = {k: replace(f, width=3) if k[0] == "z" else f for k, f in layer.formats.weights.items()}
    formats = [replace(layer.formats, weights=weights), wide.stack[1].formats]
    one = freeze(model, formats, wide.widths)
    assert cost_of(model, formats) == cost_of(model, [la.formats for la in wide.stack])
    words = [Network(q, 4).engines[0].lanes.word_bits for q in (wide, one)]
    assert words[0] == words[1]


def test_the_cost_by_hand():
    model = build_model(3, None, cell="lstm", hidden=4)
    seen = calibrate(model, SimpleNamespace(x=np.random.default_rng(0).standard_normal((9, 5, 3)), lengths=[5] * 9))
    formats = choose_formats(model, seen, Widths(4, 6, 5, 9))
    operand = max(formats[0].values[o].width + s for (_, o), s in formats[0].shifts.items())
    memory = 4 * 4 * (3 + 4) * 4 + 2 * 4 * 5 + 4 * 9  # weights, h twice, c once
    products = 6 * 9 + 6 * 6 + 6 * 6  # f c, i g, o t
    assert cost_of(model, formats) == memory + 16 * 4 * operand + products


@pytest.mark.parametrize("within", [0, -1, 100, "1", True, float("nan")])
def test_the_bound_is_checked(within):
    model, data = trained()
    with pytest.raises(UsageError) as caught:
        quantize(model, data, 6, within=within)
    assert str(caught.value) == f"Points to stay within must be a number above 0 and below 100, not {within!r}"


def test_what_cannot_be_kept_is_told():
    model, data = trained()
    told = r"^Bits to begin with must keep the metric within 0.01 points of float, but lose"
    with pytest.raises(UsageError, match=told):
        quantize(model, data, 2, within=0.01)
    told = r"^Points to stay within must come with the search by loss, and not with another's formats$"
    for more in ({"method": "mse"}, {"formats_of": quantize(model, data, 4)}):
        with pytest.raises(UsageError, match=told):
            quantize(model, data, within=1.0, **more)
    bare = SimpleNamespace(train=SimpleNamespace(x=data.train.x, lengths=data.train.lengths))
    with pytest.raises(UsageError, match=r"^Data must have targets to find bits within a loss of the metric$"):
        quantize(model, bare, within=1.0)


def test_the_command_line_prints_the_path_and_the_file_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model, data = trained()
    save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=data.train.x, y=data.train.y, lengths=data.train.lengths)
    words = ["quantize", str(tmp_path / "m.onnx"), "--data", str(tmp_path / "d.npz"), "--bits", "6", "--within", "4"]
    words += ["-o", str(tmp_path / "q.onnx")]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    q = load(tmp_path / "q.onnx")
    assert q.facts["mixed"] == found["mixed"] and found["mixed"]["within"] == 4
    assert q.widths.tensors == found["widths"]["tensors"] and q.widths.tensors
    assert [la.formats for la in q.stack] == [la.formats for la in quantize(model, data, 6, within=4).stack]
    assert main([*words, "--finetune", "2"]) == 0
    out, err = capsys.readouterr()
    step = found["mixed"]["path"][1]
    assert f"{step['tensor']} to {step['bits']} bits: cost {step['cost']:,}, " in err
    assert "points lost" in out and step["tensor"] in out
    tuned = load(tmp_path / "q.onnx")
    assert tuned.widths.tensors == q.widths.tensors and tuned.facts["finetuning"]["epochs"] == 2


def test_files_without_single_tensors_are_read_as_before(tmp_path: Path):
    from hwrnn.onnx_meta import described, rebuilt

    model, data = trained()
    q = quantize(model, data, 6, method="mse")
    text = json.loads(described(q))
    assert text["widths"].pop("tensors") == {}
    save(q, tmp_path / "q.onnx")
    assert load(tmp_path / "q.onnx").widths == q.widths == Widths.of(6)
    stored: dict[str, np.ndarray] = {"input.mean": q.input_mean, "input.scale": q.input_scale}
    stored |= {"output.mean": q.output_mean, "output.scale": q.output_scale}
    for name, layer in zip(("layer0", "head"), q.stack, strict=True):
        stored |= {f"{name}.{g}.{o}": w for (g, o), w in layer.weights.items()}
        stored |= {f"{name}.{g}.b": b for g, b in layer.biases.items()}
    assert rebuilt(json.dumps(text), lambda name, shape, kind: stored[name]).widths == Widths.of(6)
