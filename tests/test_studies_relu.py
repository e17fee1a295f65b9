"""The studies of ReLU: how far its states go, and what an LSTM with it was said to forecast."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

from study_runs import quickly  # noqa: E402

import exploding_relu  # noqa: E402
import hotel_weeks  # noqa: E402
import one_rounded  # noqa: E402
import public_data  # noqa: E402
import relu_or_tanh  # noqa: E402
import study  # noqa: E402
from hwrnn.compiler import CPP, compiler_available  # noqa: E402
from hwrnn.data import Split, load_dataset  # noqa: E402
from hwrnn.fixed import Format  # noqa: E402
from hwrnn.model import build_model  # noqa: E402
from hwrnn.stability import lengthened, measure  # noqa: E402


@pytest.mark.parametrize(
    ("largest", "bits"), [(0.0, 0), (0.4, 0), (0.5, 0), (1.0, 1), (1.9, 1), (6.0, 3), (8.0, 4), (1e24, 80)]
)
def test_integer_bits_hold_the_value_and_one_fewer_does_not(largest, bits):
    assert exploding_relu.integer_bits(largest) == bits
    assert largest < 2.0**bits and (bits == 0 or largest >= 2.0 ** (bits - 1))


def test_growth_ends_where_the_largest_state_is():
    data = load_dataset("japanese-vowels")
    model = build_model(data.inputs, data.outputs, cell="rnn", hidden=4, activation="relu", init="scaled:1.5")
    x = data.test.x[:70].copy()  # more than run side by side
    x[-1] *= 10  # the last of them goes the farthest
    some = Split(x, data.test.y[:70], data.test.lengths[:70])
    h = exploding_relu.growth(model, lengthened(some, 60))
    assert len(h) == 60
    for steps in (1, 29, 60):
        assert max(h[:steps]) == measure(model, some, steps).states["0.h"]


@pytest.mark.slow
@pytest.mark.skipif(not compiler_available(CPP), reason="CXXRTL needs a C++ compiler")
def test_exploding_relu_runs(tmp_path):
    results = quickly(exploding_relu.STUDY, tmp_path)
    for found in results["rows"].values():
        assert found[0]["hardware"]["sequences"] == 370 and found[0]["state_later"] >= 0.9 * found[0]["state"]
    (free,), (kept,) = (results["rows"][row] for row in (exploding_relu.FREE, exploding_relu.KEPT))
    assert free["proved"] is None and kept["proved"] > kept["state_later"]
    assert kept["norm"] <= 0.99 < free["norm"]


def test_a_run_that_diverges_is_counted(tmp_path, monkeypatch):
    place = study.Place(tmp_path, "exploding_relu")
    wild = exploding_relu.ROWS[exploding_relu.FREE] | {"clip": None}
    monkeypatch.setitem(exploding_relu.ROWS, exploding_relu.FREE, wild)
    result = exploding_relu.work(place, exploding_relu.FREE, 0, False, {"epochs": 2, "rate": 1e30})
    assert result == {"diverged": True}


@pytest.mark.parametrize(("count", "published"), [(10, 0.80), (14, 0.857), (15, 0.867)])
def test_directions_by_label_are_n_minus_2_of_n_whatever_is_forecast(count, published):
    rng = np.random.default_rng(count)
    actual = rng.normal(300, 100, count)
    arrays = set()
    for predicted in (actual, -actual, actual[::-1], np.zeros(count), *rng.normal(0, 1, (20, count))):
        assert hotel_weeks.directions_by_label(actual, predicted) == (count - 2) / count
        arrays.add(hotel_weeks.directions_on_arrays(actual, predicted))
    assert round((count - 2) / count, 3) == published
    assert {0.0, 1.0} < arrays, "the formula on arrays tells forecasts apart"


def test_subtraction_by_label_is_by_label():
    # By hand: labels 1 and 2 have both parts, 0 and 3 lack one; a step of zero agrees with a step of zero.
    assert hotel_weeks.directions_by_label(np.array([1, 2, 1, 5]), np.array([9, 9, 0, 7])) == 2 / 4
    assert hotel_weeks.directions_on_arrays(np.array([1, 2, 1, 5]), np.array([9, 8, 0, 7])) == 2 / 3


@pytest.fixture(scope="module")
def weeks():
    try:
        return public_data.hotel_cancellations()
    except public_data.MissingData as error:
        pytest.skip(str(error))


def test_the_forms_are_what_was_published_and_what_is_honest(weeks):
    assert weeks.sum() == 33102 and len(weeks) == hotel_weeks.WEEKS
    published, low, high = hotel_weeks.hotel(weeks, "published")
    assert published.train.x.shape == (59, 1, 5) and published.test.x.shape == (10, 1, 5)
    assert (low, high) == (weeks[:100].min(), weeks[:100].max())
    assert np.array_equal(published.train.x[0, 0], weeks[:5]) and published.train.y[0, 0] == weeks[5]
    assert np.array_equal(published.test.y[:, 0], weeks[105:])
    scaled = (published.test.x[:, 0] - low) / (high - low)
    np.testing.assert_allclose([scaled.min(0), scaled.max(0)], [[0] * 5, [1] * 5], atol=1e-6)
    honest, low, high = hotel_weeks.hotel(weeks, "honest")
    assert honest.train.x.shape == (75, 5, 1) and honest.test.x.shape == (15, 5, 1)
    assert (low, high) == (weeks[:80].min(), weeks[:80].max())
    assert np.array_equal(honest.test.x[-1, :, 0], weeks[109:114]) and honest.test.y[-1, 0] == weeks[114]


def test_the_yardsticks_are_the_known_ones(weeks):
    found = hotel_weeks.yardsticks(weeks)
    assert [round(one["rmse"], 1) for one in found["honest"].values()] == [102.8, 66.4, 111.1]
    assert found["published"]["the week before"]["direction"] == 0


def test_in_one_step_nothing_recurs():
    low, high = 20.0, 600.0
    model = hotel_weeks.fresh(5, "relu", 3, low, high)
    layer = model.layers[0]
    assert abs(layer.parameters["0.x"]).max() <= np.sqrt(6 / (5 + 4 * 4))
    np.testing.assert_allclose(layer.parameters["0.h"].T @ layer.parameters["0.h"], np.eye(4), atol=1e-6)
    other = dict(layer.parameters)
    other["0.h"] = other["0.h"] * 7
    other["0.x"] = other["0.x"].copy()
    other["0.x"][4:8] = 9  # the forget gate's rows
    changed = replace(model, layers=(replace(layer, parameters=other),))
    x = np.random.default_rng(0).uniform(low, high, (6, 5))
    assert np.array_equal(model.predict(x[:, None]), changed.predict(x[:, None]))
    assert not np.array_equal(model.predict(np.repeat(x[:, None], 2, 1)), changed.predict(np.repeat(x[:, None], 2, 1)))


@pytest.mark.parametrize("value", ["x", "i", "f", "o", "g", "c", "t", "h"])
def test_one_value_alone_is_rounded(value):
    data = load_dataset("japanese-vowels")
    model = build_model(data.inputs, data.outputs, hidden=3, activation="relu")
    layer, seen = model.layers[0], {}
    x = model.standardised(data.test.x[:4])
    for step in (2.0**-20, 0.5):
        form = Format(32, 20) if step < 0.5 else Format(8, 1)
        changed = one_rounded.OneRounded(layer.cell, layer.inputs, layer.units, layer.parameters, value, form)
        seen[step] = changed.forward(x, data.test.lengths[:4])
    plain = layer.forward(x, data.test.lengths[:4])
    np.testing.assert_allclose(seen[2.0**-20], plain, atol=1e-4)
    assert np.abs(seen[0.5] - plain).max() > 1e-3


@pytest.mark.slow
@pytest.mark.skipif(not compiler_available(CPP), reason="CXXRTL needs a C++ compiler")
def test_relu_or_tanh_runs_without_the_hotel(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(public_data.VARIABLE, str(tmp_path))
    results = quickly(relu_or_tanh.STUDY, tmp_path)
    assert "Without the hotel's weeks: File 'hotel_weekly_cancellations.csv' must be in" in capsys.readouterr().err
    assert results["hotel"] is None
    (relu,), (clipped,) = results["ranges"].values()
    assert relu["hardware"]["sequences"] == clipped["hardware"]["sequences"] == 370
    assert relu["bounds"] == {"h": None, "c": None} and clipped["bounds"]["h"] == 1
    assert any("can grow without end" in sentence for sentence in relu["warnings"])
    assert relu["told"] and not clipped["told"], "quantize warns of what it cannot hold"


@pytest.mark.slow
@pytest.mark.skipif(not compiler_available(CPP), reason="CXXRTL needs a C++ compiler")
def test_relu_or_tanh_runs(weeks, tmp_path):
    results = quickly(relu_or_tanh.STUDY, tmp_path)
    assert [(row["form"], row["activation"]) for row in results["hotel"]] == [
        ("published", "tanh"), ("published", "relu"), ("honest", "tanh"), ("honest", "relu"),
    ]  # fmt: skip
    assert all(row["results"][0]["hardware"]["values"] for row in results["hotel"])
    assert {by_label for _, by_label in results["alignment"].values()} == {0.8}
    assert len({on_arrays for on_arrays, _ in results["alignment"].values()}) > 2


def test_a_whole_study_asks_for_the_hotel(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(study.Run, "each", lambda run, work, tasks: [None] * len(tasks))
    assert study.main(relu_or_tanh.STUDY, ["--data-folder", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "File 'hotel_weekly_cancellations.csv' must be in a data folder" in capsys.readouterr().err
