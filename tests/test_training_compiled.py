"""Training in compiled C against training in numpy: outputs, gradients, whole runs, and which of both is chosen."""

from dataclasses import replace

import numpy as np
import pytest
from networks import KINDS
from test_training_gradients import CHOICES, LENGTHS, Odd, Passing, Peeping, batch_for
from test_training_quantized import X, formats_for

from hwrnn.activations import NONLINEARITIES, PARAMETRIC, Smooth, nonlinearity
from hwrnn.cells import CELLS, Dense, cell_named
from hwrnn.cli import main
from hwrnn.compiler import C, compiler_available
from hwrnn.data import Dataset, Split
from hwrnn.errors import UsageError
from hwrnn.formats import Widths
from hwrnn.golden import golden
from hwrnn.model import Layer, Model, build_model
from hwrnn.onnx_io import load
from hwrnn.quantization import freeze, with_hardware_functions
from hwrnn.training import finetune, train
from hwrnn.training.c_printer import print_program
from hwrnn.training.losses import LOSSES
from hwrnn.training.network import Network

pytestmark = pytest.mark.skipif(not compiler_available(C), reason="no C compiler")


def assert_same(model, x, lengths, targets, loss, formats=None, outputs=1e-5, scale=1.0):
    """Loss, gradient and outputs of both; sums in another order differ by rounding."""
    found = []
    for compiled in (False, True):
        network = Network(model, formats, compiled=compiled)
        rng = np.random.default_rng(0)
        for layer, part in zip(network.layers, network.parts, strict=True):
            network.masters[part] += (0.3 * rng.standard_normal(layer.size) * (layer.slope != 0)).astype(np.float32)
        network.masters *= np.float32(scale)
        value = network.loss_and_gradient(x.astype(np.float32), lengths, targets, LOSSES[loss])
        raw = network.forward(x.astype(np.float32), lengths).transpose(2, 0, 1)
        within = np.arange(raw.shape[1]) < (lengths if model.every_step else np.ones_like(lengths))[:, None]
        found.append((value, network.gradient, raw[within]))
    (value, gradient, raw), (value_c, gradient_c, raw_c) = found
    largest = np.abs(gradient).max()
    assert largest > 1e-4
    assert np.abs(gradient_c - gradient).max() <= 1e-6 * largest
    np.testing.assert_allclose(raw_c, raw, rtol=0, atol=outputs * np.abs(raw).max())
    assert value_c == pytest.approx(value, rel=1e-5)


def check(model, loss="cross_entropy", **more):
    x, targets = batch_for(model)
    assert_same(model, x, LENGTHS, targets, loss, **more)


@pytest.mark.parametrize("activation, gate", CHOICES)
@pytest.mark.parametrize("cell", CELLS)
def test_every_cell(cell, activation, gate):
    gate = gate if CELLS[cell].gated else None
    check(build_model(3, 4, cell=cell, hidden=4, activation=activation, gate=gate, seed=3))


@pytest.mark.parametrize("name", [*NONLINEARITIES, *PARAMETRIC, "elu:-0.5|1.5", "sigmoid|0.5", "relu|1"])
def test_every_nonlinearity(name):
    # With gates beyond 1 a state of full size grows from step to step, and what rounding does to it with it.
    check(build_model(3, 4, cell="gru", hidden=4, activation=name, gate=name, seed=3), scale=0.4)


@pytest.mark.parametrize("name", ["relu6", "sigmoid"])
def test_an_output_nonlinearity_of_its_own(name):
    check(build_model(3, 4, cell="lstm", hidden=4, output_activation=name, activation="tanh", seed=3))


@pytest.mark.parametrize("cell", CELLS)
def test_stacked_with_an_output_at_every_step(cell):
    check(build_model(3, 4, cell=cell, hidden=(5, 3), layers=2, every_step=True, seed=3))


@pytest.mark.parametrize("loss", ["mse", "mae"])
def test_regression_with_an_encoder(loss):
    options = {"hidden": (5, 3), "layers": 2, "every_step": True, "task": "regression", "encoder": 1, "seed": 3}
    check(build_model(3, 2, cell="gru", **options), loss)


@pytest.mark.parametrize("every_step", [False, True])
def test_without_a_head(every_step):
    check(build_model(3, None, cell="lstm", hidden=4, every_step=every_step, cell_clip=0.5, seed=3))


@pytest.mark.parametrize("made", [Odd, Peeping, Passing])
def test_cells_unlike_those_of_the_catalogue(made):
    cell = made(NONLINEARITIES["sigmoid"], NONLINEARITIES["hard_tanh"])
    rng = np.random.default_rng(2)

    def layer(inputs, units):
        shapes = Layer.shapes(cell, inputs, units).items()
        return Layer(cell, inputs, units, {n: 0.3 * rng.standard_normal(s).astype(np.float32) for n, s in shapes})

    plain = build_model(3, 4, hidden=4, layers=2, every_step=True)
    check(replace(plain, layers=(layer(3, 4), layer(4, 4))))


@pytest.mark.parametrize("batch", [1, 15, 16, 17, 50, 64])
@pytest.mark.parametrize("units", [1, 4, 7, 17])
def test_every_size_of_batch_and_layer(batch, units):
    model = build_model(2, 3, cell="gru", hidden=units, seed=1)
    rng = np.random.default_rng(batch)
    lengths = rng.integers(1, 6, batch)
    x, labels = rng.standard_normal((batch, 5, 2)), rng.integers(0, 3, (1, batch))
    assert_same(model, x, lengths, labels, "cross_entropy")


ROUNDED = [(None, None), ("tanh", "sigmoid"), ("leaky_relu", "plan_sigmoid"), ("table_tanh", "table_sigmoid")]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("activation, gate", ROUNDED)
@pytest.mark.parametrize("cell", KINDS)
def test_the_forward_pass_is_golden_bit_for_bit(cell, activation, gate, bits):
    """Where sums stay below 2**24 of their steps, as here, they are exact in float32 in any order."""
    clip = 1.5 if "c" in CELLS[cell].states else None
    gate = gate if CELLS[cell].gated else None
    model = build_model(
        3, 4, cell=cell, hidden=6, layers=2, activation=activation, gate=gate, cell_clip=clip, every_step=True, seed=3
    )
    formats = formats_for(model, Widths.of(bits))
    frozen = freeze(model, formats, Widths.of(bits))
    network = Network(with_hardware_functions(model, formats), formats, compiled=True)
    lengths = np.array([7, 1, 4, 7, 2, 6, 3, 5])
    raw = network.forward(model.standardised(X), lengths).transpose(2, 0, 1) * 2.0**frozen.output_format.frac
    within = np.arange(X.shape[1]) < lengths[:, None]
    due = golden(frozen, frozen.quantize_input(X), lengths, compiled=False).output
    assert np.array_equal(raw[within], due[within])
    assert len(np.unique(raw[within])) > 10


@pytest.mark.parametrize("bits", [(4, {}), (8, {"weights": 3, "state": 6}), (8, {"cell": 16})])
@pytest.mark.parametrize("cell", KINDS)
@pytest.mark.parametrize("activation, gate", [ROUNDED[0], ROUNDED[3]])
def test_gradients_through_roundings(cell, bits, activation, gate):
    gate = gate if CELLS[cell].gated else None
    options = {"cell": cell, "activation": activation, "gate": gate, "hidden": 6, "layers": 2}
    model = build_model(3, 4, every_step=True, seed=3, **options)
    formats = formats_for(model, Widths.of(bits[0], **bits[1]))
    labels = np.random.default_rng(1).integers(0, 4, (7, len(X)))
    lengths = np.array([7, 1, 4, 7, 2, 6, 3, 5])
    hardware = with_hardware_functions(model, formats)
    assert_same(hardware, X, lengths, labels, "cross_entropy", formats, outputs=0)


def test_buffers_used_again_remember_nothing():
    model = build_model(3, 4, cell="lstm", hidden=4, layers=2, seed=3)
    rng = np.random.default_rng(0)
    used, lengths = Network(model, compiled=True), np.array([5, 2])
    for steps in ([9, 9], [1, 2], [4, 9]):
        x = rng.standard_normal((2, 9, 3)).astype(np.float32)
        used.loss_and_gradient(x, np.array(steps), np.array([[1, 2]]), LOSSES["cross_entropy"])
    x = rng.standard_normal((2, 9, 3)).astype(np.float32)
    fresh = Network(model, compiled=True)
    for network in (used, fresh):
        network.loss_and_gradient(x, lengths, np.array([[1, 2]]), LOSSES["cross_entropy"])
    assert np.array_equal(used.gradient, fresh.gradient)


@pytest.mark.parametrize(
    "name", ["tanh", "sigmoid", "softsign", "softplus", "elu:1", "scaled_tanh:2:0.5", "elu:-0.5|3"]
)
def test_smooth_functions_are_as_exact_as_numpys(name):
    cell, one = Dense(phi=nonlinearity(name)), np.ones(1, np.float32)
    layer = Layer(cell, 1, 1, {"0.x": np.ones((1, 1), np.float32), "0.b": 0 * one})
    network = Network(Model((layer,), None, False, "regression", 0 * one, one, 0 * one, one), compiled=True)
    x = np.concatenate([np.linspace(-20, 20, 20001), 10.0 ** np.linspace(-30, 30, 601), [0, np.inf, -np.inf]])
    found = network.forward(x[:, None, None].astype(np.float32), np.ones(len(x), np.int64))[0, 0]
    with np.errstate(invalid="ignore"):
        exact = nonlinearity(name).value(x.astype(np.float32).astype(np.float64))
    if name == "softsign":  # both give inf / inf
        assert np.isnan(found[-2:]).all() and np.isnan(exact[-2:]).all()
        found, exact = found[:-2], exact[:-2]
    near_zero = name == "sigmoid"  # where it is 1/2: no relative error there
    np.testing.assert_allclose(found, exact, rtol=0 if near_zero else 1e-6, atol=1e-6 if near_zero else 0)
    assert np.isnan(network.forward(np.full((1, 1, 1), np.nan, np.float32), np.ones(1, np.int64)))


@pytest.mark.parametrize("rounds", [False, True])
def test_one_text_serves_all_sizes_and_formats(rounds):
    chosen = [("hard_sigmoid", "hard_tanh", 2.0), ("hard_sigmoid_3_16", "relu6", 3.0), ("hard_sigmoid", "relu", 1.0)]
    texts = {print_program(cell_named("lstm", *functions), rounds).text for functions in chosen}
    assert len(texts) == 1  # bounds are run-time parameters, and sizes and bits are not even known here
    assert print_program(cell_named("lstm", phi="tanh"), rounds).text not in texts


def test_a_smooth_function_says_itself_what_it_is_in_c():
    softsign = Smooth("softsign", None, lambda x: x / (1 + np.abs(x)), lambda y: (1 - np.abs(y)) * (1 - np.abs(y)))
    model = build_model(3, 4, cell="rnn", hidden=4, seed=3)
    layer = replace(model.layers[0], cell=replace(model.layers[0].cell, phi=softsign))
    check(replace(model, layers=(layer,)))


def dataset(count=48, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.standard_normal((count, 6, 3)).astype(np.float32), rng.integers(0, 3, count)
    split = Split(x, y, rng.integers(1, 7, count))
    return Dataset.of("random", split, split)


RUN = {"epochs": 3, "batch": 16, "noise": 0.1, "seed": 1}


def vector(model):
    return np.concatenate([p.ravel() for layer in model.stack for p in layer.parameters.values()])


def test_a_run_in_c_learns_what_one_in_numpy_does(tmp_path):
    model, data = build_model(3, 3, cell="gru", hidden=5, seed=2), dataset()
    one, other = (train(model, data, compiled=compiled, **RUN) for compiled in (False, True))
    assert not one.facts["compiled"] and other.facts["compiled"]
    np.testing.assert_allclose(vector(other), vector(one), atol=1e-4)
    assert not np.array_equal(vector(other), vector(one))  # or C was not used at all
    formats = formats_for(one, Widths.of(6))
    hardware = with_hardware_functions(one, formats)
    tuned = [finetune(hardware, data, formats, 2, compiled=compiled) for compiled in (False, True)]
    assert [t.facts["finetuning"]["compiled"] for t in tuned] == [False, True]
    np.testing.assert_allclose(vector(tuned[1]), vector(tuned[0]), atol=1e-3)


def stopped(after):
    """A progress that ends the run after an epoch."""

    def progress(told):
        if told.epoch == after:
            raise KeyboardInterrupt

    return progress


def test_resumed_bit_for_bit_or_refused(tmp_path, monkeypatch):
    model, data, path = build_model(3, 3, cell="lstm", hidden=5, seed=2), dataset(), tmp_path / "run.npz"
    whole = train(model, data, compiled=True, **RUN)
    with pytest.raises(KeyboardInterrupt):
        train(model, data, compiled=True, checkpoint=path, progress=stopped(1), **RUN)
    with pytest.raises(UsageError) as caught:
        train(model, data, compiled=False, checkpoint=path, resume=True, **RUN)
    part = "choice of compiled"
    assert str(caught.value) == (
        f"Checkpoint must be of the same {part}, not {str(path)!r}: give the {part} it began with"
    )
    monkeypatch.setattr("hwrnn.training.c_kernel.identity", lambda *given, **more: "another machine's")
    with pytest.raises(UsageError, match=r"^Checkpoint must be of the same compiler and CPU, not "):
        train(model, data, compiled=True, checkpoint=path, resume=True, **RUN)
    monkeypatch.undo()
    resumed = train(model, data, compiled=True, checkpoint=path, resume=True, **RUN)
    assert np.array_equal(vector(resumed), vector(whole)) and resumed.facts == whole.facts


def test_long_runs_are_compiled_whatever_is_cached(monkeypatch, tmp_path):
    model, data = build_model(3, 3, cell="rnn", hidden=4, seed=2), dataset()
    work = RUN["epochs"] * data.train.x.shape[0] * data.train.x.shape[1] * (4 * 3 + 4 * 4 + 3 * 4)
    monkeypatch.setattr("hwrnn.training.c_kernel._PAYS", work)
    monkeypatch.setenv("HWRNN_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("hwrnn.training.c_kernel._LIBRARIES", {})
    assert train(model, data, **RUN).facts["compiled"]
    monkeypatch.setattr("hwrnn.training.c_kernel._PAYS", work + 1)
    assert not train(model, data, **RUN).facts["compiled"]  # though it would cost nothing now


def test_without_a_compiler(monkeypatch, tmp_path):
    model, data = build_model(3, 3, cell="rnn", hidden=4, seed=2), dataset()
    monkeypatch.setattr("hwrnn.training.c_kernel._PAYS", 0)
    monkeypatch.setenv("HWRNN_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("hwrnn.training.c_kernel._LIBRARIES", {})
    script = tmp_path / "mine"
    script.write_text("#!/bin/sh\necho error: I refuse >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))
    assert not train(model, data, **RUN).facts["compiled"]
    with pytest.raises(UsageError, match=r"must build the training's kernel, but fails \(error: I refuse\)$"):
        train(model, data, compiled=True, **RUN)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC")
    assert not train(model, data, **RUN).facts["compiled"]
    with pytest.raises(UsageError) as caught:
        train(model, data, compiled=True, **RUN)
    assert str(caught.value) == (
        "A C compiler must be installed: install gcc or clang, or leave compiled out, to train in numpy"
    )


def test_a_function_without_a_counterpart_is_left_to_numpy(monkeypatch):
    odd = Smooth("odd", None, np.arctan, lambda y: np.cos(y) * np.cos(y))
    model, data = build_model(3, 3, cell="rnn", hidden=4, seed=2), dataset()
    layer = replace(model.layers[0], cell=replace(model.layers[0].cell, phi=odd))
    model = replace(model, layers=(layer,))
    monkeypatch.setattr("hwrnn.training.c_kernel._PAYS", 0)
    assert not train(model, data, **RUN).facts["compiled"]
    with pytest.raises(UsageError) as caught:
        train(model, data, compiled=True, **RUN)
    assert str(caught.value) == (
        "Nonlinearity must have a counterpart in C to train compiled, but 'arctan' has no counterpart in C: "
        "leave compiled out, to train in numpy"
    )


def test_the_command_line_chooses(tmp_path, capsys):
    rng = np.random.default_rng(0)
    data, model, quantized = (str(tmp_path / name) for name in ("d.npz", "m.onnx", "q.onnx"))
    np.savez(data, x=rng.standard_normal((20, 4, 2)).astype(np.float32), y=rng.integers(0, 2, 20))
    for word, compiled in (("--compiled", True), ("--no-compiled", False)):
        assert not main(["train", "--data", data, "--hidden", "3", "--epochs", "1", word, "-o", model])
        assert load(model).facts["compiled"] is compiled
        assert not main(["quantize", model, "--data", data, "--finetune", "1", word, "-o", quantized])
        assert load(quantized).facts["finetuning"]["compiled"] is compiled
    capsys.readouterr()
    assert main(["quantize", model, "--data", data, "--compiled", "-o", quantized]) == 2
    assert "must come with fine-tuning epochs, not without: compiled" in capsys.readouterr().err
