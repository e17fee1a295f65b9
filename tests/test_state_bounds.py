"""Bounds of states: sound for every reachable state, tight where the answer is known, wide enough never to saturate."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from networks import diagonals

from hwrnn.activations import NONLINEARITIES, PARAMETRIC, Smooth, nonlinearity
from hwrnn.cells import CELLS
from hwrnn.data import Dataset, Split
from hwrnn.errors import UsageError
from hwrnn.fixed import Fixed, Format
from hwrnn.golden import _Run, golden
from hwrnn.inspection import describe, description_table
from hwrnn.intervals import Box, through
from hwrnn.invariants import _excess
from hwrnn.model import Model, build_model
from hwrnn.onnx_io import load, save
from hwrnn.quantization import QuantizedModel, quantize
from hwrnn.stability import (
    layer_ranges,
    lengthened,
    matrix_of,
    measure,
    spectrum,
    state_bounds,
    with_proved_states,
)
from hwrnn.training import train

FUNCTIONS = [*NONLINEARITIES, *PARAMETRIC]
PHIS = ["hard_tanh", "relu", "leaky_relu:3", "relu6", "identity"]


def quantized(model: Model, bits: int = 6, reach: float = 1.0, **widths: int) -> QuantizedModel:
    """In integers, the formats chosen on data that reach no further than ``reach``."""
    x = np.random.default_rng(0).uniform(-reach, reach, (8, 6, model.inputs)).astype(np.float32)
    data = SimpleNamespace(train=SimpleNamespace(x=x, lengths=np.full(8, 6)))
    return quantize(model, data, bits, **widths)


def small(cell: str, phi: str, seed: int, units: int = 1, scale: float = 0.6, **more: Any) -> Model:
    model = build_model(1, None, cell=cell, hidden=units, activation=phi, seed=seed, task="regression", **more)
    rng = np.random.default_rng(seed)
    for name, values in model.layers[0].parameters.items():
        spread = scale if name.endswith(".h") or name.endswith(".p") else 1.0
        values[...] = rng.uniform(-spread, spread, values.shape)
    return model


def reachable(model: QuantizedModel) -> dict[str, tuple[int, int]]:
    """The least and the largest raw value of every stored value over all inputs at all times, exactly: by search."""
    layer, form = model.layers[0], model.input_format
    inputs = np.arange(form.lo, form.hi + 1)[:, None]
    seen = {(0,) * len(layer.cell.states)}
    fresh, ends = sorted(seen), dict[str, tuple[int, int]]()
    while fresh:
        run = _Run(layer, 0, keep=True)
        pairs = np.array(list(product(range(len(inputs)), range(len(fresh)))))
        state = {}
        for k, name in enumerate(layer.cell.states):
            raw = np.array([s[k] for s in fresh])[pairs[:, 1], None]
            state[name] = Fixed.of(raw, layer.formats.values[name])
        run.step(inputs[pairs[:, 0]].astype(float), state)
        for name, raw in run.now.items():
            low, high = ends.get(name, (0, 0))
            ends[name] = min(low, int(raw.min())), max(high, int(raw.max()))
        after = set(zip(*(run.now[name][:, 0].astype(int).tolist() for name in layer.cell.states), strict=True))
        fresh = sorted(after - seen)
        seen |= after
        assert len(seen) < 20_000
    return ends


@pytest.mark.parametrize(
    ("cell", "phi"), diagonals([cell for cell in CELLS if not cell.startswith("lstm-")], PHIS, every=2)
)
def test_every_reachable_state_lies_within_its_bound(cell, phi):
    bounded = 0
    for seed in range(2 if cell == "lstm" else 4):
        model = quantized(small(cell, phi, seed), 4, cell_bits=4)
        for name, (low, high) in reachable(model).items():
            box, step = layer_ranges(model)[0][name], model.layers[0].formats.values[name].step
            if name in model.layers[0].cell.states:
                assert box.lo[0] <= low * step and high * step <= box.hi[0], name
        bounded += sum(np.isfinite(b.bound) for b in state_bounds(model))
    assert bounded or cell == "lstm"


@pytest.mark.parametrize("phi", ["relu", "leaky_relu:3", "hard_tanh"])
@pytest.mark.parametrize("cell", ["rnn", "ligru", "mingru", "gru"])
def test_a_state_that_is_proved_never_saturates(cell, phi):
    proved = 0
    for seed in range(4):
        # Formats from data of a quarter of the input's range: without the proof, states do saturate.
        model = quantized(small(cell, phi, seed), 4, 0.25)
        model = with_format(model, "x", Format(5, 3))
        if any(np.isinf(b.bound) for b in state_bounds(model)):
            continue
        wide = with_proved_states(model)
        form, before = wide.layers[0].formats.values["h"], model.layers[0].formats.values["h"]
        assert form.frac == before.frac and form.width >= before.width
        # More bits still change nothing: no value at the end of the format was brought there by saturation.
        roomy = with_format(wide, "h", Format(form.width + 4, form.frac))
        assert reachable(roomy)["h"] == reachable(wide)["h"]
        proved += form.width > before.width
    assert proved or phi == "hard_tanh"


def with_format(model: QuantizedModel, name: str, form: Format) -> QuantizedModel:
    layer = model.layers[0]
    values = {**layer.formats.values, name: form}
    return replace(model, layers=(replace(layer, formats=replace(layer.formats, values=values)),))


def test_bounds_by_hand():
    model = small("rnn", "relu", 0)
    for name, value in (("0.x", 1), ("0.h", 0.5), ("0.b", 0.25)):
        model.layers[0].parameters[name][...] = value
    (found,) = state_bounds(model, reach=1.0)
    assert found.bound == pytest.approx(2.5, rel=1e-6) and found.norm == pytest.approx(0.5)
    assert found.words == "|h| <= 2.5 proved from ||U|| = 0.5000"
    model.layers[0].parameters["0.h"][...] = -0.5  # then h never pushes itself: relu(1.25 - h / 2)
    assert state_bounds(model, reach=1.0)[0].bound == pytest.approx(1.25, rel=1e-6)
    model.layers[0].parameters["0.h"][...] = 1
    (found,) = state_bounds(model)
    assert found.bound == np.inf and found.growing == "relu" and found.norm is None
    assert found.words == "unbounded: relu has no upper end"


def test_a_matrix_of_norm_below_one_bounds_what_intervals_cannot():
    # A rotation by 45 degrees, shrunk: its norm is 0.9, but the absolute values of its entries have norm 1.27.
    model = small("rnn", "identity", 0, units=2)
    c = 0.9 * np.sqrt(0.5)
    for name, value in (("0.x", [[1], [0]]), ("0.h", [[c, -c], [c, c]]), ("0.b", [0, 0])):
        model.layers[0].parameters[name][...] = value
    (found,) = state_bounds(model, reach=1.0)
    assert 9.9 < found.bound < 10.1 and found.norm == pytest.approx(0.9)
    h, worst = np.zeros(2), 0.0
    for _ in range(2000):  # a pushing input comes near the bound of the norm: x follows the rotation
        h = model.layers[0].parameters["0.h"] @ h + [np.sign(h[0] - h[1]) or 1, 0]
        worst = max(worst, np.linalg.norm(h))
    assert 5 < worst <= found.bound


def test_small_weights_bound_a_gated_relu_state_however_they_are_spread():
    # The absolute values of the recurrent matrix have spectral radius 0.9, and one row's sum is far above 1.
    model = small("ligru", "relu", 0, units=2)
    for name, value in (("0.x", [[0], [0], [1], [1]]), ("0.h", [[0, 0], [0, 0], [0, 9], [0.09, 0]]), ("0.b", [0] * 4)):
        model.layers[0].parameters[name][...] = value
    # Fixed point of u = 1 + 9 v, v = 1 + 0.09 u: u = 10 / 0.19
    assert state_bounds(model, reach=1.0)[0].bound == pytest.approx(10 / 0.19, rel=1e-4)
    model.layers[0].parameters["0.h"][...] *= 1.2
    assert state_bounds(model, reach=1.0)[0].bound == np.inf


def test_gates_that_cannot_hold_bound_a_cell_state():
    model = small("lstm", "hard_tanh", 0)
    for gate, bias in (("i", 3), ("f", 0), ("o", 0), ("g", 3)):
        for operand, value in (("x", 0.5), ("h", 0), ("b", bias)):
            model.layers[0].block(gate, operand)[...] = value
    found = {b.state: b for b in state_bounds(model, reach=1.0)}
    # f <= (0.5 / 4 + 1/2), i and g <= 1: c <= 1 / (1 - 0.625)
    assert found["c"].bound == pytest.approx(1 / 0.375, rel=1e-6) and found["h"].bound <= 1
    assert found["c"].words == "|c| <= 2.6667 proved from the ranges of its nonlinearities"
    model.layers[0].block("f", "b")[...] = 3
    assert {b.state: b.words for b in state_bounds(model)} == {
        "h": "|h| <= 1 proved from the ranges of its nonlinearities", "c": "unbounded"
    }  # fmt: skip


@pytest.mark.parametrize("cell", CELLS)
def test_bounded_nonlinearities_bound_every_gated_state(cell):
    model = build_model(3, 2, cell=cell, hidden=4, cell_clip=2 if "c" in CELLS[cell].states else None, seed=1)
    c = 1.0 if "coupled" in cell else 2.0  # between old state and candidate, or up to the clip
    assert {b.state: b.bound for b in state_bounds(model)} in ({"h": 1.0}, {"h": 1.0, "c": c})


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_range_of_a_nonlinearity_holds_all_its_values(name):
    function, rng = nonlinearity(name), np.random.default_rng(0)
    ends = np.sort(rng.uniform(-9, 9, (200, 2)), axis=1)
    box = through(function, Box(ends[:, 0], ends[:, 1]))
    for share in np.linspace(0, 1, 301):
        y = function.value(ends[:, 0] + share * (ends[:, 1] - ends[:, 0]))
        assert (box.lo - 1e-12 <= y).all() and (y <= box.hi + 1e-12).all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_how_far_a_nonlinearity_exceeds_its_argument(name):
    function, x = nonlinearity(name), np.linspace(-40, 40, 320_001)
    largest = (np.abs(function.value(x)) - np.abs(x)).max()
    excess = _excess(function)
    if excess is None:
        assert name in ("sigmoid", "table_sigmoid") or (isinstance(function, Smooth) and function.onnx[0] != "Tanh")
    else:
        assert excess - 1e-3 <= max(largest, 0) <= excess + 1e-12
    steep = replace(nonlinearity("identity"), slopes=(nonlinearity("identity").slopes[0] * 2,))
    assert _excess(steep) is None


def test_a_proved_network_is_saved_and_computes_the_same_wherever_nothing_saturates(tmp_path):
    model = quantized(build_model(2, 3, cell="rnn", activation="relu", hidden=[4, 3], layers=2, init="scaled:0.6"))
    wide = with_proved_states(model)
    assert [b["state"] for b in wide.facts["proved_states"]] == ["h", "h"]
    assert all(b["norm"] < 1 and b["proof"].startswith("|h| <= ") for b in wide.facts["proved_states"])
    assert wide.layers[1].formats.values["x"] == wide.layers[0].output
    assert wide.head is not None and wide.head.formats.values["x"] == wide.layers[1].output
    save(wide, tmp_path / "wide.onnx")
    back = load(tmp_path / "wide.onnx")
    x, lengths = np.random.default_rng(1).uniform(-0.9, 0.9, (8, 6, 2)), np.full(8, 6)
    assert np.array_equal(back.predict(x, lengths), wide.predict(x, lengths))
    raw = model.quantize_input(x)
    if not any(golden(model, raw, lengths).saturation[f"{k}.h"] for k in (0, 1)):
        assert np.array_equal(wide.predict(x, lengths), model.predict(x, lengths))
    result = golden(wide, wide.quantize_input(100 * x), lengths)
    assert result.saturation["0.h"] == result.saturation["1.h"] == 0


@pytest.mark.parametrize("cell, state", [("rnn", "h"), ("gru", "h"), ("lstm", "h")])
def test_a_state_without_a_bound_is_refused(cell, state):
    model = quantized(build_model(2, 2, cell=cell, activation="relu", hidden=3, init="identity:2"))
    with pytest.raises(UsageError) as refused:
        with_proved_states(model)
    assert str(refused.value) == (
        f"State {state!r} of layer 0 ({cell}) must have a bound to be proved, not none: train with --spectral-norm 0.99"
        " (a plain rnn), a cell clip (an lstm), or a nonlinearity that ends, such as relu1"
    )


def test_inspection_tells_bounds_and_warns_of_states_that_grow():
    found = describe(build_model(2, 2, cell="lstm", activation="relu", hidden=3))
    endless = {"bound": None, "norm": None, "proof": "unbounded: relu has no upper end"}
    assert found["layers"][0]["states"] == {"h": endless, "c": endless}
    assert len(found["warnings"]) == 2 and found["warnings"][0].startswith("State h of layer 0 can grow without end")
    text = description_table(found)
    assert "Warning: State c of layer 0 can grow" in text
    assert "bound at any length for standardised inputs within 4" in text
    calm = describe(quantized(build_model(2, 2, cell="gru", hidden=3)))
    assert calm["warnings"] == [] and calm["layers"][0]["states"]["h"]["bound"] == 1.0
    assert "Warning" not in description_table(calm)


@pytest.mark.parametrize("finetune", [0, 1])
def test_quantization_proves_states_and_keeps_the_norm_that_training_kept(finetune):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 24)
    x = (rng.normal(0, 1, (24, 5, 2)) + y[:, None, None]).astype(np.float32)
    data = Dataset.of("two", Split(x, y))
    model = train(build_model(2, 2, cell="rnn", activation="relu", hidden=6), data, epochs=2, spectral_norm=0.9)
    loose = quantize(model, data, 4, method="mse")
    assert spectrum(matrix_of(loose.layers[0], "h", "h"))["norm"] > 0.9, "rounding exceeds the norm"
    more = {"finetune": finetune, "batch": 8} if finetune else {}
    proved = quantize(model, data, 4, method="mse", prove_states=True, **more)
    assert spectrum(matrix_of(proved.layers[0], "h", "h"))["norm"] <= 0.9
    (found,) = proved.facts["proved_states"]
    assert found == {"layer": 0, "state": "h", **{k: found[k] for k in ("bound", "norm", "proof")}}
    form = proved.layers[0].formats.values["h"]
    assert form.frac == loose.layers[0].formats.values["h"].frac and found["bound"] <= form.max
    assert measure(proved, lengthened(data.train, 60)).states["0.h"] <= found["bound"]
    assert proved.saturation["0.h"] == 0 and set(proved.saturation) == set(loose.saturation)
    with pytest.raises(UsageError) as refused:
        quantize(model, data, formats_of=loose, prove_states=True)
    assert str(refused.value) == "Proved states must be left out where another model gives the formats"
