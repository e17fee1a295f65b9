"""Training through layers in reverse, side by side, dense ones among them, and from initial states."""

import json
from dataclasses import replace

import numpy as np
import pytest
from test_directions import SOME, dense, varied
from test_training_compiled import check as check_compiled
from test_training_gradients import check
from test_training_quantized import LENGTHS, X, formats_for

from hwrnn.calibration import calibrate
from hwrnn.cells import CELLS
from hwrnn.cli import main
from hwrnn.compiler import C, compiler_available
from hwrnn.data import Dataset, Split
from hwrnn.errors import UsageError
from hwrnn.formats import Widths
from hwrnn.golden import golden
from hwrnn.model import build_model
from hwrnn.onnx_io import load
from hwrnn.quantization import freeze, quantize, with_hardware_functions
from hwrnn.training import evaluate, train
from hwrnn.training.evolution import evolve
from hwrnn.training.network import Network

NEEDS_COMPILER = pytest.mark.skipif(not compiler_available(C), reason="no C compiler")


def models(cell):
    """One network of everything, with an output for every step and for a whole sequence; and an encoder of pairs."""
    for every_step in (False, True):
        yield varied(cell, every_step, seed=3)
    yield replace(varied(cell, seed=3), final_state=False)
    pairs = {"hidden": [3, 4], "bidirectional": True, "every_step": True, "encoder": 1}
    yield build_model(3, 2, cell=cell, task="regression", **pairs)


@pytest.mark.parametrize("cell", SOME)
def test_the_gradient_is_the_derivative(cell):
    for model in models(cell):
        check(model, "mse")


@NEEDS_COMPILER
@pytest.mark.parametrize("cell", CELLS)
def test_training_in_c_is_training_in_numpy(cell):
    for model in models(cell):
        check_compiled(model, "mse")


def test_dense_layers_behind_own_last_states_learn_through_them():
    made = build_model(3, 2, cell="gru", hidden=4, bidirectional=True, seed=1)
    check(replace(made, layers=(*made.layers, dense(8, 8, phi="identity"))))


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=NEEDS_COMPILER)])
@pytest.mark.parametrize("cell", SOME)
def test_the_forward_pass_with_formats_is_golden_bit_for_bit(cell, compiled):
    for model in models(cell):
        formats = formats_for(model, Widths.of(6))
        frozen = freeze(model, formats, Widths.of(6))
        network = Network(with_hardware_functions(model, formats), formats, compiled=compiled)
        raw = network.forward(model.standardised(X), LENGTHS).transpose(2, 0, 1) * 2.0**frozen.output_format.frac
        due = golden(frozen, frozen.quantize_input(X), LENGTHS).output
        if not model.every_step:
            raw, due = raw[:, 0], due
        else:
            within = np.arange(X.shape[1]) < LENGTHS[:, None]
            raw, due = raw[within], due[within]
        assert np.array_equal(raw, due) and len(np.unique(raw)) > 8


def first_values(count=120, steps=7, seed=0):
    """The label is the sign of the first value, the last thing that a reverse layer reads."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, steps, 2)).astype("f4")
    return Dataset.of("first", Split(x, (x[:, 0, 0] > 0).astype(np.int64), rng.integers(3, steps + 1, count)))


def test_a_trained_model_keeps_its_directions_and_its_initial_states(tmp_path):
    data, start = first_values(), {"h": np.linspace(-0.5, 0.5, 4, dtype="f4")}
    model = build_model(2, 2, cell="gru", hidden=4, bidirectional=True)
    model = replace(model, layers=(replace(model.layers[0], initial=start), model.layers[1]))
    trained = train(model, data, epochs=15, batch=16, rate=0.02, checkpoint=tmp_path / "c.npz")
    assert [(la.reverse, la.beside) for la in trained.layers] == [(False, False), (True, True)] and trained.final_state
    assert np.array_equal(trained.layers[0].initial["h"], start["h"]) and not trained.layers[1].initial
    assert evaluate(trained.predict, data.train, data.task, False)["accuracy"] > 0.9
    q = quantize(trained, data, 8, finetune=2)
    assert evaluate(q.predict, data.train, data.task, False)["accuracy"] > 0.9
    better = evolve(q, data, generations=2, population=8)
    assert [(la.reverse, la.beside) for la in better.layers] == [(False, False), (True, True)]
    assert np.array_equal(better.layers[0].initial["h"], q.layers[0].initial["h"])
    other = replace(model, layers=(model.layers[0], replace(model.layers[1], initial=start)))
    with pytest.raises(UsageError, match="Checkpoint"):
        train(other, data, epochs=15, batch=16, rate=0.02, checkpoint=tmp_path / "c.npz", resume=True)


def test_calibration_sees_initial_states():
    model = build_model(3, 4, cell="gru", hidden=4, every_step=True)
    far = replace(model, layers=(replace(model.layers[0], initial={"h": np.full(4, 7, "f4")}),))
    split = Split(X, np.zeros(len(X), np.int64), LENGTHS)
    assert calibrate(far, split)[0, "h"].hi == 7 > calibrate(model, split)[0, "h"].hi
    assert freeze(far, formats_for(far, Widths.of(8)), Widths.of(8)).layers[0].formats.values["h"].max >= 3.5


def test_the_command_line_trains_in_both_directions(tmp_path, capsys):
    path = tmp_path / "m.onnx"
    options = ["--cell", "gru", "--hidden", "3", "--epochs", "1", "--bidirectional", "-o", str(path)]
    assert main(["train", "--data", "japanese-vowels", *options, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bidirectional"] is True and told["hidden"] == [3]
    assert load(path).groups == ((0, 1),) and load(path).final_state
    assert main(["train", "--data", "japanese-vowels", *options]) == 0
    assert "bidirectional gru(3), 12 inputs, 9 outputs" in capsys.readouterr().out
