"""The study of anomalies: how its scores are judged, and that it runs."""

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

from study_runs import quickly  # noqa: E402

import anomaly  # noqa: E402
import public_data  # noqa: E402
from hwrnn.compiler import CPP, compiler_available  # noqa: E402


@pytest.fixture(autouse=True)
def data_are_there():
    try:
        public_data.anomalous_pressure()
    except public_data.MissingData as error:
        pytest.skip(str(error))


def test_scores_are_judged_by_windows_and_by_the_place_of_the_highest():
    _, _, held, anomalous = anomaly.windows()
    assert anomalous.sum() == 12 and held.sum() == 19
    perfect = anomaly.judged(np.where(held, 2.0, 0.5))
    assert perfect.pop("distance") < 64 and perfect == {"auc": 1, "alarms": 0, "found": 1}
    assert anomaly.judged(np.where(held, 0.5, 2.0))["auc"] == 0
    far = np.full(len(held), 0.5)
    far[0] = 9
    found = anomaly.judged(far)
    assert found["distance"] > 4000 and found["found"] == 0 and found["alarms"] == 1 / (~held).sum()


def test_a_linear_autoencoder_finds_it():
    assert anomaly.linear()["auc"] > 0.99 and anomaly.linear()["distance"] <= anomaly.CLOSE


@pytest.mark.slow
@pytest.mark.skipif(not compiler_available(CPP), reason="CXXRTL needs a C++ compiler")
def test_the_study_runs(tmp_path):
    rows = quickly(anomaly.STUDY, tmp_path)["rows"]
    assert list(rows) == list(anomaly.SHOWN)
    for row, (found,) in rows.items():
        assert (found["hardware"] is None) == (row == "float")
        assert row == "float" or found["hardware"]["steps"] == 16 * 1860
