"""The studies of ReLU: how far its states go, and what an LSTM with it was said to forecast."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

import exploding_relu  # noqa: E402
import study  # noqa: E402
from hwrnn.compiler import CPP, compiler_available  # noqa: E402
from hwrnn.data import Split, load_dataset  # noqa: E402
from hwrnn.model import build_model  # noqa: E402
from hwrnn.stability import measure, repeated  # noqa: E402


@pytest.mark.parametrize(
    ("largest", "bits"), [(0.0, 0), (0.4, 0), (0.5, 0), (1.0, 1), (1.9, 1), (6.0, 3), (8.0, 4), (1e24, 80)]
)
def test_integer_bits_hold_the_value_and_one_fewer_does_not(largest, bits):
    assert exploding_relu.integer_bits(largest) == bits
    assert largest < 2.0**bits and (bits == 0 or largest >= 2.0 ** (bits - 1))


def test_growth_ends_where_the_largest_state_is():
    data = load_dataset("japanese-vowels")
    model = build_model(data.inputs, data.outputs, cell="rnn", hidden=4, activation="relu", init="scaled:1.5")
    some = Split(data.test.x[:70], data.test.y[:70], data.test.lengths[:70])  # more than run side by side
    long = repeated(some, 60)
    h = exploding_relu.growth(model, long)
    assert len(h) == 60
    for steps in (1, 29, 60):
        assert max(h[:steps]) == measure(model, some, steps).states["0.h"]


def quick(module, folder):
    """A quick run's results."""
    assert study.main(module.STUDY, ["--quick", "--out", str(folder)]) == 0
    name = module.STUDY.name
    assert (folder / f"{name}.png").stat().st_size > 1000 and (folder / f"{name}.md").stat().st_size > 1000
    return json.loads((folder / f"{name}.json").read_text())["results"]


@pytest.mark.slow
@pytest.mark.skipif(not compiler_available(CPP), reason="CXXRTL needs a C++ compiler")
def test_exploding_relu_runs(tmp_path):
    results = quick(exploding_relu, tmp_path)
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
