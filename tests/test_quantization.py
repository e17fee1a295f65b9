"""Calibration, the choice of formats, and what the frozen integer network promises."""

import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from networks import KINDS

from hwrnn.calibration import Seen, calibrate, fine_format, format_for
from hwrnn.cells import CELLS
from hwrnn.errors import UsageError
from hwrnn.fixed import Format
from hwrnn.formats import Widths, choose_formats
from hwrnn.golden import golden
from hwrnn.model import build_model
from hwrnn.onnx_io import load, save
from hwrnn.quantization import freeze, hardware_cell, quantize, with_hardware_functions


def split(n=12, steps=7, inputs=3, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, steps + 1, n)
    return SimpleNamespace(x=(scale * rng.standard_normal((n, steps, inputs))).astype(np.float32), lengths=lengths)


def dataset(**options):
    return SimpleNamespace(train=split(**options))


def network(cell="lstm", outputs=4, hidden=6, seed=0, **options):
    """A network with weights of several magnitudes and biases that are not zero."""
    model, rng = build_model(3, outputs, cell=cell, hidden=hidden, seed=seed, **options), np.random.default_rng(seed)
    for layer in model.stack:
        for name, p in layer.parameters.items():
            p += 0.3 * rng.standard_normal(p.shape).astype(np.float32)
            if name.endswith(".x"):
                p *= rng.choice([0.2, 1, 3])
    return model


# -- widths ---------------------------------------------------------------------------------------------------------


def test_widths_from_one_number():
    assert Widths.of(8) == Widths(8, 8, 8, 12, 16)
    assert Widths.of(20) == Widths(20, 20, 20, 24, 20)
    assert Widths.of(32) == Widths(32, 32, 32, 36, 32)
    assert Widths.of(8, weights=4, activations=None, state=6, cell=7, output=9) == Widths(4, 8, 6, 7, 9)
    assert type(Widths.of(np.int64(8)).cell) is int


@pytest.mark.parametrize(
    ("bits", "chosen", "text"),
    [
        (1, {}, "Bits must be a whole number between 2 and 32, not 1"),
        (33, {}, "Bits must be a whole number between 2 and 32, not 33"),
        ("8", {}, "Bits must be a whole number between 2 and 32, not '8'"),
        (8.0, {}, "Bits must be a whole number between 2 and 32, not 8.0"),
        (True, {}, "Bits must be a whole number between 2 and 32, not True"),
        (8, {"weights": 33}, "Bits of weights must be a whole number between 2 and 32, not 33"),
        (8, {"activations": 1}, "Bits of activations must be a whole number between 2 and 32, not 1"),
        (8, {"state": 2.5}, "Bits of state must be a whole number between 2 and 32, not 2.5"),
        (8, {"cell": 37}, "Bits of cell must be a whole number between 2 and 36, not 37"),
        (8, {"output": 0}, "Bits of output must be a whole number between 2 and 32, not 0"),
    ],
)
def test_width_errors(bits, chosen, text):
    with pytest.raises(UsageError) as caught:
        Widths.of(bits, **chosen)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"bits": 1}, "Bits must be a whole number between 2 and 32, not 1"),
        ({"weight_bits": 99}, "Bits of weights must be a whole number between 2 and 32, not 99"),
        ({"method": "kl"}, "Calibration method must be loss, mse or max, not 'kl'"),
        ({"finetune": -1}, "Fine-tuning epochs must be a whole number of at least 0, not -1"),
        ({"finetune": 0.5}, "Fine-tuning epochs must be a whole number of at least 0, not 0.5"),
        (
            {"seed": 1, "rate": 2},
            "Options of training must come with fine-tuning epochs, not without: seed, rate",
        ),
    ],
)
def test_quantize_errors(options, text):
    with pytest.raises(UsageError) as caught:
        quantize(network(), dataset(), **options)
    assert str(caught.value) == text


def test_a_quantized_model_is_not_quantized_again():
    with pytest.raises(UsageError, match=r"^Model must be a float model, not a quantized one$"):
        quantize(quantize(network(), dataset()), dataset())


def test_data_must_fit_the_model():
    with pytest.raises(UsageError, match=r"^Input must have 3 features as the model does, not 5$"):
        quantize(network(), dataset(inputs=5))


# -- calibration ----------------------------------------------------------------------------------------------------


def test_calibration_sees_only_valid_steps():
    model, part = network("lstm"), split()
    beyond = np.arange(7) >= part.lengths[:, None]
    part.x[beyond] = 1e6
    seen = calibrate(model, part)
    assert seen[0, "x"].hi < 10 and seen[0, "h"].hi <= 1
    assert (seen[0, "x"].lo, seen[0, "x"].hi) == (part.x[~beyond].min(), part.x[~beyond].max())
    assert seen[1, "x"] is not None and seen.power(0, "x") == pytest.approx(np.mean(part.x[~beyond] ** 2), rel=1e-4)


def test_calibration_samples_every_unit(monkeypatch):
    monkeypatch.setattr("hwrnn.calibration._SAMPLES", 64)
    model, part = network("rnn", hidden=8, activation="identity"), split(64)
    model.layers[0].parameters["0.b"][:] = np.arange(8) * 100
    model.layers[0].parameters["0.h"][:] = 0
    sample = calibrate(model, part)[0, "h"].sample
    assert set(np.round(sample / 100)) == set(range(8))


def test_a_model_must_stay_finite():
    model = network("rnn", activation="relu")
    model.layers[0].parameters["0.h"][:] = 1e30
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(UsageError, match=r"^Model must stay finite on the data, but 'a.h' of layer 0 does not$"),
    ):
        quantize(model, dataset())


def seen(values):
    values = np.asarray(values, np.float64)
    return Seen(values.min(), values.max(), values, float(np.mean(values**2)))


def test_formats_by_method():
    outlier = seen([*np.random.default_rng(0).uniform(-1, 1, 4000), 7.4])
    assert str(format_for(outlier, 4, "max")) == "Q4.0"
    assert format_for(outlier, 4, "mse").frac > 0
    assert format_for(outlier, 16, "mse") == format_for(outlier, 16, "max")
    assert not format_for(seen([0.5, 3]), 8).signed and format_for(seen([-0.5, 3]), 8).signed


@pytest.mark.parametrize("values", [[0.0], [1e-30, 0.0], [-1e-30]])
def test_a_dead_value_gets_an_ordinary_format(values):
    form = format_for(seen(values), 8, "max")
    assert form.max >= 0.99 and form.frac <= 8


def test_fine_formats_hold_their_margin():
    form = fine_format(seen([-3.0, 5.0]), 6)
    assert form == Format(11, 6) and form.min <= -6 and form.max >= 10 - form.step
    assert fine_format(seen([0.0, 1.0]), 4, margin=1.0) == Format(4, 4, False)
    assert fine_format(seen([0.0, 1e30]), 4).width == 48


# -- formats --------------------------------------------------------------------------------------------------------

CASES = [(cell, bits) for cell in CELLS for bits in (2, 3, 4, 6, 8, 12, 16, 32)]


@pytest.mark.parametrize(("cell", "bits"), CASES)
def test_invariants_of_formats(cell, bits):
    q = quantize(network(cell, hidden=[5, 4], layers=2), dataset(), bits, method="mse")
    for index, layer in enumerate(q.stack):
        f = layer.formats
        for k, p in enumerate(layer.cell.phases):
            assert min(f.shifts[k, o] for o in p.operands) == 0
            assert all(f.shifts[k, o] + f.values[o].width <= max(16, f.values[o].width) for o in p.operands)
            for gate, reads in p.gates.items():
                for o in reads:
                    form, w = f.weights[gate, o], layer.weights[gate, o]
                    assert f.values[o].frac + f.shifts[k, o] + form.frac == f.bias_frac[gate]
                    assert form.width == bits and form.signed
                    assert w.dtype == np.int64 and form.lo <= w.min() and w.max() <= form.hi
                assert layer.biases[gate].dtype == np.int64
        assert all(form.lo <= 0 <= form.hi for form in f.values.values())
        if index:
            previous = q.stack[index - 1]
            assert f.values["x"] == previous.output
        for name in layer.cell.states:
            assert f.values[name].width == (q.widths.cell if name == "c" else q.widths.state)
    assert q.output_format == q.head.formats.values["y"] and q.output_format.width == q.widths.output
    assert q.layers[0].weight_bits == bits * q.layers[0].multiplications


@pytest.mark.parametrize("cell", KINDS)
def test_accumulators_contain_the_worst_sums_and_no_more(cell):
    """The operands that drive each unit to its extremes are found by sign, and the interval's ends are reached."""
    q = quantize(network(cell), dataset(), 6)
    for layer in q.stack:
        for k, p in enumerate(layer.cell.phases):
            for gate, reads in p.gates.items():
                lo, hi = layer.accumulators[gate]
                sums = {"lo": [0], "hi": [0]}
                for u in range(layer.units):
                    least = most = int(layer.biases[gate][u])
                    for o in reads:
                        form, shift = layer.formats.values[o], layer.formats.shifts[k, o]
                        for w in layer.weights[gate, o][u].tolist():
                            ends = (w * (form.lo << shift), w * (form.hi << shift))
                            least, most = least + min(ends), most + max(ends)
                            # Every partial sum on the way lies inside as well.
                            assert lo <= least and most <= hi
                    sums["lo"].append(least)
                    sums["hi"].append(most)
                assert (lo, hi) == (min(sums["lo"]), max(sums["hi"]))


def test_accumulators_by_random_search():
    q, rng = quantize(network("gru"), dataset(), 4), np.random.default_rng(0)
    layer = q.layers[0]
    for _ in range(200):
        for gate, reads in layer.cell.phases[0].gates.items():
            total = layer.biases[gate].copy()
            for o in reads:
                form, w = layer.formats.values[o], layer.weights[gate, o]
                u = rng.integers(layer.units)
                worst = np.where((w[u] > 0) == bool(rng.integers(2)), form.hi, form.lo)  # adversarial to one unit
                total = total + ((w * worst) << layer.formats.shifts[0, o]).sum(axis=1)
            lo, hi = layer.accumulators[gate]
            assert lo <= total.min() and total.max() <= hi


@pytest.mark.parametrize("bits", [4, 8, 32])
def test_tiny_weights_and_large_biases_stay_in_bounds(bits):
    """Pruned blocks must not make an accumulator as fine as they are, and a large bias must fit its integer."""
    model = network("gru")
    model.layers[0].parameters["0.x"] *= 1e-9
    model.layers[0].parameters["0.h"][:] = 0
    model.layers[0].parameters["0.b"][0] = 1000.0
    q = quantize(model, dataset(), bits)
    layer = q.layers[0]
    for gate, frac in layer.formats.bias_frac.items():
        assert frac <= layer.formats.values[f"a.{gate}"].frac + bits + 8
        exact = model.layers[0].block(gate, "b").astype(float)
        assert np.abs(layer.biases[gate] * 2.0**-frac - exact).max() <= max(2.0 ** -(frac + 1), 1e-9)


@pytest.mark.parametrize("bits", [2, 8, 16])
def test_weights_are_the_nearest_representable(bits):
    model = network("lstm")
    q = quantize(model, dataset(), bits, method="max")
    for key, w in q.layers[0].weights.items():
        form = q.layers[0].formats.weights[key]
        error = np.abs(w * form.step - model.layers[0].block(*key))
        assert error.max() <= form.step / 2 + 1e-9


def test_mse_weights_lose_no_more_than_max():
    model = network("lstm", seed=5)
    part = split()
    loss = {}
    for method in ("max", "mse"):
        q = quantize(model, SimpleNamespace(train=part), 4, method=method)
        layer = q.layers[0]
        loss[method] = sum(
            float(np.square(layer.formats.weights[key].dequantize(w) - model.layers[0].block(*key)).sum())
            for key, w in layer.weights.items()
        )
    assert loss["mse"] <= loss["max"]


# -- what the integers compute --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gate", "activation"), [(None, None), ("plan_sigmoid", "plan_tanh"), ("sigmoid", "tanh")])
@pytest.mark.parametrize("cell", CELLS)
def test_sixteen_bits_are_near_float(cell, gate, activation):
    """Against the float model with the functions that hardware computes: within 24 steps of the state's format.

    Seven time steps, 9 columns, weights up to 3: each rounding of half a step is amplified by a row's sum of
    weights, and by the recurrence again. Measured: 20 for the vanilla network, 2 to 9 for the gated ones.
    """
    gate = gate if CELLS[cell].gated else None
    model = network(cell, outputs=None, gate=gate, activation=activation, every_step=True)
    data = dataset()
    if cell.startswith("lstm-peephole"):  # another recurrence, through a state that may be larger than 1
        for layer in model.layers:
            for operand in ("0.c", "1.c"):
                layer.parameters[operand] /= 4
    q = quantize(model, data, 16, method="max")
    formats = [layer.formats for layer in q.stack]
    near = with_hardware_functions(model, formats).predict(data.train.x, data.train.lengths)
    error = np.abs(q.predict(data.train.x, data.train.lengths) - near).max() / q.output_format.step
    assert error <= 24, error


@pytest.mark.parametrize("cell", CELLS)
def test_more_bits_are_nearer(cell):
    model, data = network(cell), dataset()
    exact = model.predict(data.train.x, data.train.lengths)
    errors = []
    for bits in (4, 8, 12, 16):
        q = quantize(model, data, bits, method="max")
        errors.append(np.sqrt(np.mean((q.predict(data.train.x, data.train.lengths) - exact) ** 2)))
    assert errors[0] > errors[1] > errors[2] > errors[3], errors
    assert errors[3] < errors[0] / 200


@pytest.mark.parametrize("bits", range(2, 17))
def test_all_widths_run_with_every_cell(bits):
    for cell in CELLS:
        q = quantize(network(cell), dataset(), bits, method="mse")
        assert np.isfinite(q.predict(dataset().train.x)).all()


@pytest.mark.parametrize(("activation", "bits"), [("hard_tanh", 8), ("leaky_relu", 16)])
def test_leaky_gates_work(activation, bits):
    """Gates without a bound: eight bits do where the state is bounded; where nothing is, range needs more."""
    model, data = build_model(3, 4, gate="leaky_relu", activation=activation, hidden=6), dataset(n=40)
    q = quantize(model, data, bits)
    exact = model.predict(data.train.x, data.train.lengths)
    error = q.predict(data.train.x, data.train.lengths) - exact
    assert np.sqrt(np.mean(error**2)) < 0.1 * exact.std()


def test_saturation_is_reported_for_every_value():
    q = quantize(network("lstm"), dataset(), 8)
    stored = {f"0.{v}" for v in (*"ifogcth", "a.i", "a.f", "a.o", "a.g")} | {"1.y", "1.a.y"}
    assert set(q.saturation) == stored and all(0 <= share <= 1 for share in q.saturation.values())
    result = golden(q, q.quantize_input(dataset().train.x), dataset().train.lengths)
    assert result.saturation == q.saturation


@pytest.mark.parametrize("every_step", [False, True])
def test_saturation_is_counted(every_step, tmp_path):
    q = quantize(network("lstm", every_step=every_step), dataset(n=20), 4, method="mse")
    part = dataset(n=20).train
    kept = golden(q, q.quantize_input(part.x), part.lengths, keep=True).values
    steps = int(part.lengths.sum())
    assert q.saturated.keys() == q.saturation.keys()
    for name, (count, stored) in q.saturated.items():
        assert stored == (4 * (steps if every_step else 20) if name.startswith("1.") else 6 * steps)
        assert count == pytest.approx(q.saturation[name] * stored)
    # What saturated stands at an end of its format, so there are at least as many of those.
    for name in "ifogcth":
        form, raw = q.layers[0].formats.values[name], kept[0, name][np.arange(7) < part.lengths[:, None]]
        assert q.saturated[f"0.{name}"][0] <= np.isin(raw, (form.lo, form.hi)).sum()
    assert max(count for count, _ in q.saturated.values()) > 0
    save(q, tmp_path / "q.onnx")
    assert load(tmp_path / "q.onnx").saturated == q.saturated
    for facts in ({}, {"calibration": 3}, {"calibration": {"steps": -1, "sequences": 2}}):
        assert replace(q, facts=facts).saturated == {}


def test_freezing_without_calibration_data():
    model, data = network("gru"), dataset()
    q = quantize(model, data, 8)
    again = freeze(model, [layer.formats for layer in q.stack], q.widths)
    assert again.saturation == {}
    x = q.quantize_input(data.train.x)
    assert np.array_equal(golden(q, x, data.train.lengths).output, golden(again, x, data.train.lengths).output)


def test_quantizing_the_hardware_functions_changes_nothing():
    """Fine-tuning trains the hardware's functions; freezing them must not fit them anew to something else."""
    for gate in ("sigmoid", "hard_sigmoid_1_6", "pwl_sigmoid:5", "plan_sigmoid"):
        model, data = network("gru", gate=gate, activation="tanh"), dataset()
        q = quantize(model, data, 8, method="mse")
        formats = [layer.formats for layer in q.stack]
        hardware = with_hardware_functions(model, formats)
        for layer, made, form in zip(q.stack, hardware.stack, formats, strict=True):
            assert layer.cell == made.cell == hardware_cell(made.cell, form)


def test_quantization_is_deterministic():
    a, b = (quantize(network("lstm"), dataset(), 8) for _ in range(2))
    for one, other in zip(a.stack, b.stack, strict=True):
        assert one.formats == other.formats
        assert all(np.array_equal(w, other.weights[key]) for key, w in one.weights.items())


def test_the_input_is_standardised_in_float32():
    model = network()
    model.input_mean[:], model.input_scale[:] = 0.1, 3.3
    q = quantize(model, dataset(), 12)
    x = dataset(seed=3).train.x
    expected = q.input_format.quantize(model.standardised(x))
    assert np.array_equal(q.quantize_input(x.astype(np.float64)), expected)


def test_choosing_formats_alone():
    model = network("lstm", hidden=[5, 4], layers=2)
    formats = choose_formats(model, calibrate(model, split()), Widths.of(8))
    assert len(formats) == 3 and formats[2].values["x"] == formats[1].values["h"]


def test_operands_that_may_not_be_shifted():
    model = build_model(3, 2, hidden=4)
    for most in (8, 9, 16):
        result = quantize(model, SimpleNamespace(train=split()), 8, operand_bits=most)
        layer = result.layers[0].formats
        assert max(layer.values[o].width + s for (_, o), s in layer.shifts.items()) <= most
    with pytest.raises(UsageError, match=r"^Operand bits must be an integer of at least 8, not 7$"):
        quantize(model, SimpleNamespace(train=split()), 8, operand_bits=7)
    with pytest.raises(UsageError, match="another model gives the formats"):
        quantize(model, SimpleNamespace(train=split()), operand_bits=8, formats_of=result)


# -- ranges that bits cannot resolve --------------------------------------------------------------------------------


def one_wild_unit(cell):
    """A network with ReLU states, and data that are small but for one step."""
    model = build_model(3, 2, cell=cell, hidden=8, activation="relu", seed=1)
    part = split(n=200)
    part.x[0, 0, :] = 100
    part.x[1:] *= 0.05
    for name, p in model.layers[0].parameters.items():
        p *= 0.3 if name.endswith("h") else 1.0
    return model, SimpleNamespace(train=part)


@pytest.mark.parametrize(("cell", "state"), [("rnn", "h"), ("lstm", "h"), ("gru", "h")])
def test_a_state_far_beyond_its_bits_is_told(cell, state):
    model, data = one_wild_unit(cell)
    with pytest.warns(UserWarning, match=rf"^State {state} of layer 0 reaches ") as caught:
        quantize(model, data, 6, method="mse")
    text = next(str(w.message) for w in caught if str(w.message).startswith(f"State {state} "))
    seen_h = calibrate(model, data.train)[0, state]
    ratio = max(-seen_h.lo, seen_h.hi) / np.sqrt(seen_h.power)
    assert f"reaches {max(-seen_h.lo, seen_h.hi):.3g}, {ratio:.0f} times its root mean square" in text
    assert "6 bits cannot resolve both" in text and "% saturate at" in text
    assert ("a cell clip or a clipped nonlinearity (relu1, relu6)" in text) == (cell == "lstm")
    bits = int(text.split("give it ")[1].split()[0])
    with warnings.catch_warnings():  # the mend that it names does mend it
        warnings.simplefilter("error")
        quantize(model, data, 6, method="mse", state_bits=bits, cell_bits=36)
    with pytest.warns(UserWarning, match="cannot resolve both"):
        quantize(model, data, 6, method="mse", state_bits=bits - 1, cell_bits=36)


@pytest.mark.parametrize("cell", CELLS)
def test_ordinary_states_are_not(cell):
    for bits in (2, 4, 8):
        quantize(network(cell), dataset(n=100), bits, method="mse")  # a warning is an error here
    quantize(one_wild_unit(cell)[0], dataset(n=100), 4, method="mse")
