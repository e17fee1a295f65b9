"""The study of evolution against gradients: it runs, and its section says what was measured."""

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

from study_runs import quickly  # noqa: E402

import public_data  # noqa: E402
import without_gradients  # noqa: E402
from hwrnn.compiler import CPP, compiler_available  # noqa: E402
from hwrnn.model import build_model  # noqa: E402
from hwrnn.quantization import quantize  # noqa: E402
from hwrnn.training.losses import cross_entropy  # noqa: E402


def italy():
    try:
        return public_data.load(without_gradients.DATA)
    except public_data.MissingData as error:
        pytest.skip(str(error))


def test_the_loss_is_that_of_training():
    data = italy()
    model = quantize(build_model(1, 2, cell="rnn", hidden=4, seed=1), data, 4)
    scores = model.predict(data.train.x)
    due = cross_entropy(scores.T[None], data.train.y[None], None)[0]
    assert without_gradients._loss(model, data) == pytest.approx(due, rel=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not compiler_available(CPP), reason="CXXRTL needs a C++ compiler")
def test_without_gradients_runs(tmp_path):
    data = italy()
    rows = quickly(without_gradients.STUDY, tmp_path)["rows"]
    assert [row["method"] for row in rows] == [
        without_gradients.GRADIENTS, without_gradients.EVOLVED, without_gradients.ACCURACY, without_gradients.AFTER,
    ]  # fmt: skip
    for row in rows:
        (found,) = row["results"]
        assert found["hardware"]["sequences"] == len(data.test.x) and 0 <= found["value"] <= 1 and found["seconds"] > 0
        judged = found["curve"][-1][0] if found["curve"] else 0
        epochs = {without_gradients.GRADIENTS: 4, without_gradients.AFTER: 2}.get(row["method"], 0)
        assert found["sequences"] == (judged + epochs) * len(data.train.x)
    text = (tmp_path / "without_gradients.md").read_text()
    assert f"{100 * np.mean(rows[0]['results'][0]['value']):.1f}" in text and "1 of 1" in text
