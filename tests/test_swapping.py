"""Other nonlinearities in a trained network: what is exchanged, what it costs, and the mend."""

from __future__ import annotations

import importlib.util
import json
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hwrnn.activations import NONLINEARITIES
from hwrnn.cells import CELLS
from hwrnn.cli import main
from hwrnn.data import Dataset, Split
from hwrnn.errors import UsageError
from hwrnn.model import Model, build_model
from hwrnn.onnx_io import load, save
from hwrnn.quantization import quantize
from hwrnn.swapping import SwapLoss, measured_swap, retrained, swap, swap_family
from hwrnn.training import train

ROOT = Path(__file__).resolve().parent.parent
EPOCHS = "Fine-tuning epochs must be a whole number of at least 0"
WORDS = "Activations must be hard, plan or pwl:K with a number of segments"


def sums(count: int = 120, task: str = "classification") -> Dataset:
    """Which of three intervals the sum of a channel over 12 steps lies in, or that sum."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((count, 12, 2)).astype(np.float32)
    total = x[:, :, 0].sum(axis=1)
    y = np.digitize(total, [-1.5, 1.5]) if task == "classification" else total[:, None].astype(np.float32)
    parts = [Split(x[a:b], y[a:b], np.full(b - a, 12)) for a, b in ((0, count // 2), (count // 2, count))]
    return Dataset("sums", task, False, *parts)


def smooth(cell: str = "gru", task: str = "classification", gain: float = 1.0) -> Model:
    model = build_model(
        2, 3 if task == "classification" else 1, cell=cell, hidden=6, activation="tanh",
        gate="sigmoid" if CELLS[cell].gated else None, task=task, seed=1,
    )  # fmt: skip
    for layer in model.layers:
        for p in layer.parameters.values():
            p *= gain
    return model


FAMILIES = {
    "hard": ("hard_sigmoid", "hard_tanh"),
    "plan": ("plan_sigmoid", "plan_tanh"),
    "pwl:4": ("pwl_sigmoid:4", "pwl_tanh:4"),
}


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_replaces_every_sigmoid_and_tanh(cell, family):
    model = smooth(cell)
    made = swap_family(model, family)
    gate, state = FAMILIES[family]
    assert made.layers[0].cell.phi.name == state and type(made.layers[0].cell) is type(model.layers[0].cell)
    assert made.layers[0].cell.sigma.name == gate
    assert made.head is model.head
    assert made.layers[0].parameters is model.layers[0].parameters
    assert model.layers[0].cell.phi.name == "tanh", "the model given stays as it is"


def test_an_output_nonlinearity_of_its_own():
    """A family replaces it by its own; an activation for the state is the output's as well."""
    model = build_model(2, 3, cell="lstm", activation="relu", gate="sigmoid", cell_clip=2, output_activation="tanh")
    made = swap_family(model, "plan").layers[0].cell
    assert {role: f.name for role, f in made.functions.items()} == {
        "sigma": "plan_sigmoid", "phi": "relu", "psi": "plan_tanh"
    }  # fmt: skip
    assert swap(model, gate="hard_sigmoid").layers[0].cell.psi.name == "tanh"
    assert swap(model, activation="relu6").layers[0].cell.psi is None


def test_what_stands_for_no_smooth_function_stays():
    model = build_model(2, 3, cell="lstm", activation="relu", gate="sigmoid", cell_clip=2)
    made = swap_family(model, "plan").layers[0].cell
    assert (made.sigma.name, made.phi.name, made.clip) == ("plan_sigmoid", "relu", 2)


def test_single_functions():
    model = build_model(2, 3, cell="lstm", hidden=[4, 3])
    made = swap(model, activation="relu6", gate="plan_sigmoid")
    assert [(la.cell.sigma.name, la.cell.phi.name) for la in made.layers] == [("plan_sigmoid", "relu6")] * 2
    assert swap(model, gate="sigmoid").layers[1].cell.phi.name == "hard_tanh"


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda m: swap_family(m, "soft"), f"{WORDS}, not 'soft'"),
        (lambda m: swap_family(m, "pwl"), f"{WORDS}, not 'pwl'"),
        (lambda m: swap_family(m, "plan:3"), f"{WORDS}, not 'plan:3'"),
        (
            lambda m: swap_family(m, "hard"),
            "Activations must change the model's nonlinearities, which are hard_sigmoid and hard_tanh already",
        ),
        (
            lambda m: swap(m, activation="hard_tanh"),
            "Nonlinearities must be others than the model's, which has hard_sigmoid and hard_tanh already",
        ),
    ],
)
def test_errors(call, text):
    with pytest.raises(UsageError) as caught:
        call(build_model(2, 3, cell="gru"))
    assert str(caught.value) == text


def test_errors_of_names():
    with pytest.raises(UsageError, match=r"^Activations must be hard, plan or pwl:K with a number of segments: "):
        swap_family(smooth(), "pwl:x")
    with pytest.raises(UsageError, match=r"^Nonlinearity must be one of "):
        swap(smooth(), activation="soft")
    told = "^Gate nonlinearity must be given to cells with gates, not 'sigmoid' to rnn$"
    with pytest.raises(UsageError, match=told):
        swap(smooth("rnn"), gate="sigmoid")


def test_the_loss_of_a_classification_is_in_percentage_points():
    data = sums()
    model, broken = smooth(), smooth(gain=-1)
    loss = measured_swap(model, broken, data.train)
    shares = [np.mean(m.predict(data.train.x).argmax(axis=1) == data.train.y) for m in (model, broken)]
    assert (loss.before, loss.after) == tuple(shares) and loss.points == pytest.approx(100 * (shares[0] - shares[1]))
    assert loss.items == 60
    assert SwapLoss("accuracy", 0.9, 0.89, 1.0, 999).bearable and not SwapLoss("accuracy", 0.9, 0.88, 2.0, 999).bearable
    assert SwapLoss("accuracy", 0.9, 0.86, 4.0, 100).bearable and not SwapLoss("accuracy", 0.9, 0.85, 5.0, 100).bearable
    assert SwapLoss("rmse", 1.0, 1.1, 1.0, 3).bearable and not SwapLoss("rmse", 1.0, 1.1, 1.1, 3).bearable
    assert str(SwapLoss("accuracy", 0.97, 0.63, 34.0, 150)) == "34.0 points (accuracy from 97.0 % to 63.0 %)"


@pytest.mark.parametrize("per_step", [False, True])
def test_the_loss_of_a_regression_is_in_hundredths_of_the_deviation(per_step):
    rng = np.random.default_rng(0)
    y = rng.standard_normal((30, 5, 1) if per_step else (30, 1)).astype(np.float32) * 7
    lengths = rng.integers(1, 6, 30)
    split = Split(np.zeros((30, 5, 2), np.float32), y, lengths)
    within = np.arange(5) < lengths[:, None]
    counted = y[within] if per_step else y
    mean = counted.mean()
    exact, guess = (SimpleNamespace(task="regression", predict=lambda x, n, v=v: v) for v in (y, np.full_like(y, mean)))
    loss = measured_swap(exact, guess, split, per_step)
    assert loss.items == (lengths.sum() if per_step else 30)
    assert loss.metric == "rmse" and loss.points == pytest.approx(100, rel=1e-5)


def test_quantizing_smooth_functions_warns_where_they_cost_a_point():
    data, model = sums(), smooth()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        quantize(model, data, 8, method="mse")  # eight segments cost nothing
    broken = replace(NONLINEARITIES["tanh"], function=lambda x: -np.tanh(x))  # hardware fits it by its name
    layer = model.layers[0]
    wrong = replace(model, layers=(replace(layer, cell=replace(layer.cell, phi=broken)),))
    wrong = train(wrong, data, epochs=20, noise=0.0, rate=0.02)
    told = r"^The nonlinearities that hardware computes cost [0-9.]+ points \(accuracy from .* to .*\) on the "
    with pytest.warns(UserWarning, match=told + r"calibration data: take more segments \(pwl:K\) or train on"):
        quantize(wrong, data, 8, method="mse")


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_training_on_mends_what_the_swap_broke(task):
    data = sums(400, task)
    model = train(smooth("lstm", task, gain=2.0), data, epochs=25, noise=0.0, rate=0.02)
    hard = swap_family(model, "hard")
    before = measured_swap(model, hard, data.evaluation)
    assert before.points > 3, "the swap must have something to break"
    after = measured_swap(model, retrained(hard, data, 15), data.evaluation)
    assert after.points < 0.6 * before.points
    mended = retrained(hard, data, 2)
    assert np.array_equal(mended.input_mean, model.input_mean) and mended.facts["rate"] == pytest.approx(0.006)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    data = sums(400)
    save(train(smooth("lstm", gain=2.0), data, epochs=25, noise=0.0, rate=0.02), tmp_path / "m.onnx")
    names = {"x": data.train.x, "y": data.train.y, "x_test": data.test.x, "y_test": data.test.y}
    np.savez(tmp_path / "d.npz", **names)
    return tmp_path


@pytest.mark.filterwarnings("default")
def test_import_measures_warns_and_mends(files, capsys):
    words = ["import", str(files / "m.onnx"), "-o", str(files / "h.onnx"), "--activations"]
    assert main([*words, "hard"]) == 0
    out, err = capsys.readouterr()
    assert err == "hwrnn: What the new nonlinearities cost could not be measured: give --data\n"
    assert "hard_sigmoid, hard_tanh" in out and load(files / "h.onnx").layers[0].cell.phi.name == "hard_tanh"
    data = ["--data", str(files / "d.npz")]
    assert main([*words, "hard", *data, "--json"]) == 0
    out, err = capsys.readouterr()
    lost = json.loads(out)["losses"]["exchanged"]
    assert lost["points"] == pytest.approx(100 * (lost["before"] - lost["after"])) and lost["points"] > 1
    assert err.startswith(f"hwrnn: Activations hard cost {lost['points']:.1f} points (accuracy from ") and "test" in err
    assert err.endswith(": take more segments (pwl:K) or train on with them (--finetune N)\n") and err.count("\n") == 1
    assert main([*words, "pwl:6", *data]) == 0
    assert capsys.readouterr().err == ""
    assert main([*words, "hard", *data, "--finetune", "15", "--json"]) == 0
    losses = json.loads(capsys.readouterr().out)["losses"]
    assert losses["exchanged"]["points"] == lost["points"] and losses["fine-tuned"]["points"] < lost["points"] / 2


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--activations", "hard", "--finetune", "2"], "Fine-tuning must come with the data to train on: give --data"),
        (["--activations", "hard", "--finetune", "-2"], f"{EPOCHS}, not -2"),
        (["--activations", "hard", "--rate", "0.1"], "Rate must come with fine-tuning epochs: give --finetune N"),
        (["--activations", "soft"], f"{WORDS}, not 'soft'"),
    ],
)
def test_errors_of_import(words, text, tmp_path, capsys):
    save(smooth(), tmp_path / "m.onnx")
    assert main(["import", str(tmp_path / "m.onnx"), *words, "-o", str(tmp_path / "h.onnx")]) == 2
    assert capsys.readouterr().err == f"hwrnn: {text}\n"
    assert not (tmp_path / "h.onnx").exists()


@pytest.mark.slow
def test_gunpoint_loses_to_hard_functions_and_not_to_plan():
    """A smooth GRU(16) on GunPoint, five seeds: hard functions cost it tens of points, PLAN at most one."""
    found = importlib.util.spec_from_file_location("public_data", ROOT / "examples" / "public_data.py")
    public_data = importlib.util.module_from_spec(found)
    found.loader.exec_module(public_data)
    try:
        data = public_data.load("gunpoint")
    except public_data.MissingData as error:
        pytest.skip(str(error))
    points = {"hard": [], "plan": [], "mended": []}
    for seed in range(5):
        model = build_model(
            data.inputs, data.outputs, cell="gru", hidden=16, activation="tanh", gate="sigmoid", seed=seed
        )  # fmt: skip
        model = train(model, data, epochs=150, batch=16, rate=0.003, noise=0.1, seed=seed)
        hard = swap_family(model, "hard")
        points["hard"].append(measured_swap(model, hard, data.test).points)
        points["plan"].append(measured_swap(model, swap_family(model, "plan"), data.test).points)
        points["mended"].append(measured_swap(model, retrained(hard, data, 50), data.test).points)
    means = {name: np.mean(values) for name, values in points.items()}
    assert means["hard"] > 10 and abs(means["plan"]) < 1 and means["mended"] < 3, means


def test_a_function_of_values_of_several_formats_is_fitted_for_the_widest():
    """An LSTM's candidate may reach beyond 1 where tanh of the cell state does not; both are one function."""
    model = build_model(1, 1, cell="lstm", hidden=3, activation="scaled_tanh:1.7159:0.6667", every_step=True)
    model.layers[0].parameters["0.b"][-3:] = 2.0  # the candidate is near 1.5
    model.layers[0].parameters["0.b"][:6] = -4.0  # and little of it enters the state and stays there
    x = np.random.default_rng(0).standard_normal((8, 6, 1)).astype(np.float32)
    quantized = quantize(model, Dataset.of("noise", Split(x, model.predict(x), np.full(8, 6))), 12, method="max")
    formats = quantized.layers[0].formats.values
    assert formats["t"].max <= 1 < formats["g"].max and formats["t"].frac > formats["g"].frac
    grid = np.linspace(-2.5, 2.5, 101)
    smooth, fitted = (m.layers[0].cell.phi.value(grid) for m in (model, quantized))
    assert np.abs(smooth - fitted).max() < 0.02
    assert np.abs(quantized.predict(x) - model.predict(x)).max() < 0.02
