"""Metrics: each against its definition written out, and the sentence where it has no value."""

import math
from itertools import pairwise, product

import numpy as np
import pytest

from hwrnn.data import Split
from hwrnn.errors import UsageError
from hwrnn.training import (
    accuracy,
    auc,
    confusion,
    evaluate,
    mae,
    mean_directional_accuracy,
    mean_forecast_error,
    rmse,
)


def sentence(function, *args):
    with pytest.raises(UsageError) as caught:
        function(*args)
    return str(caught.value)


def test_metrics_by_hand():
    scores = np.array([[0.1, 0.9], [0.5, 0.5], [0.2, 0.3]])
    assert accuracy(scores, np.array([1, 0, 0])) == pytest.approx(2 / 3)
    steps = np.array([[[0, 1], [1, 0]], [[1, 0], [0, 1]]])
    labels = np.array([[1, 1], [0, 0]])
    assert accuracy(steps, labels, np.array([2, 1])) == pytest.approx(2 / 3)
    values, targets = np.array([[1.0], [2.0]]), np.array([[1.0], [4.0]])
    assert rmse(values, targets) == pytest.approx(math.sqrt(2)) and mae(values, targets) == 1
    assert mean_forecast_error(values, targets) == -1
    per_step = np.array([[[1.0], [9.0]], [[2.0], [5.0]]])
    due = np.array([[[0.0], [0.0]], [[2.0], [3.0]]])
    assert rmse(per_step, due, np.array([1, 2])) == pytest.approx(math.sqrt(5 / 3))
    assert mae(per_step, due, np.array([1, 2])) == 1
    assert mean_forecast_error(per_step, due, np.array([1, 2])) == 1


def test_confusion_counts_pairs_and_its_diagonal_is_the_accuracy():
    rng = np.random.default_rng(0)
    scores, labels = rng.standard_normal((5, 7, 3)), rng.integers(0, 3, (5, 7))
    lengths = np.array([7, 1, 3, 6, 2])
    counts = np.zeros((3, 3), int)
    for n in range(5):
        for t in range(lengths[n]):
            counts[labels[n, t], scores[n, t].argmax()] += 1
    found = confusion(scores, labels, lengths)
    assert np.array_equal(found, counts) and found.sum() == lengths.sum()
    assert np.trace(found) / found.sum() == pytest.approx(accuracy(scores, labels, lengths))
    assert confusion(scores[0], np.full(7, 2))[:2].sum() == 0


def test_auc_is_the_share_of_pairs_in_order_and_a_tie_is_half_a_pair():
    rng = np.random.default_rng(1)
    for n in (2, 5, 40):
        scores, labels = rng.integers(0, 6, n), rng.integers(0, 2, n)
        labels[:2] = 0, 1
        pairs = list(product(scores[labels == 1], scores[labels == 0]))
        assert auc(scores, labels) == pytest.approx(np.mean([(p > n) + (p == n) / 2 for p, n in pairs]))
    assert auc(np.array([1.0, 2.0, 3.0]), np.array([False, False, True])) == 1
    assert auc(np.array([1.0, 2.0, 3.0]), np.array([True, False, False])) == 0
    assert auc(np.zeros(4), np.array([0, 1, 1, 0])) == 0.5
    assert auc(np.array([-np.inf, 0.0, np.inf]), np.array([0, 1, 1])) == 1


def test_directional_accuracy_by_the_definition():
    rng = np.random.default_rng(2)
    actual, predicted = rng.standard_normal(30), rng.standard_normal(30)
    right = [
        math.copysign(1, predicted[t] - before) == math.copysign(1, now - before)
        for t, (before, now) in enumerate(pairwise(actual), 1)
    ]
    assert mean_directional_accuracy(predicted, actual) == pytest.approx(np.mean(right))
    assert mean_directional_accuracy(predicted[1:], actual[1:], actual[:-1]) == pytest.approx(np.mean(right))
    assert mean_directional_accuracy(actual, actual) == 1
    assert mean_directional_accuracy(-actual, actual, np.zeros(30)) == 0
    # Changes between predictions say nothing: these rise as the actual values do, from far above.
    assert mean_directional_accuracy(np.array([9.0, 10, 11]), np.array([3.0, 2, 1])) == 0


def test_directional_accuracy_where_nothing_changes():
    actual = np.array([1.0, 1.0, 2.0, 2.0])
    assert mean_directional_accuracy(np.array([0.0, 1.0, 1.0, 2.5]), actual) == pytest.approx(1 / 3)
    persistence = np.array([0.0, *actual[:-1]])
    assert mean_directional_accuracy(persistence, actual) == pytest.approx(2 / 3)
    assert mean_directional_accuracy(np.array([[1.0, 3.0]]), np.array([[2.0, 1.0]]), np.array([[1.5]])) == 0


class Labelled:
    """A series as pandas has it: subtraction aligns by label and gives NaN where one side has none."""

    def __init__(self, values, labels):
        self.values, self.labels = np.asarray(values, float), list(labels)

    def __array__(self, dtype=None, copy=None):
        return self.values.astype(dtype or float)

    def __getitem__(self, chosen):
        return Labelled(self.values[chosen], self.labels[chosen])

    def __sub__(self, other):
        theirs = dict(zip(other.labels, other.values, strict=True))
        ours = dict(zip(self.labels, self.values, strict=True))
        labels = sorted({*ours, *theirs})
        nan = float("nan")
        return Labelled([ours.get(k, nan) - theirs.get(k, nan) for k in labels], labels)


@pytest.mark.parametrize("n, published", [(10, 0.80), (14, 0.857), (15, 0.867)])
def test_labels_of_a_series_play_no_part(n, published):
    """The classic fault: by label, shifted series compare each value with itself, and any forecast looks good."""
    rng = np.random.default_rng(n)
    actual, predicted = rng.standard_normal((2, n))
    series, forecast = Labelled(actual, range(n)), Labelled(predicted, range(n))
    signs = [np.sign((s[1:] - s[:-1]).values) for s in (series, forecast)]
    assert np.mean(signs[0] == signs[1]) == pytest.approx(published, abs=5e-4)
    value = mean_directional_accuracy(forecast, series)
    assert value == mean_directional_accuracy(predicted, actual) and abs(value - published) > 0.05
    assert mean_directional_accuracy(forecast[1:], series[1:], series[:-1]) == value


def test_evaluate_gives_the_metrics_of_the_task():
    x = np.zeros((2, 3, 1), np.float32)
    labels = Split(x, np.array([0, 1]))
    assert evaluate(lambda x, n: np.eye(2), labels, "classification", False) == {"accuracy": 1, "auc": 1}
    assert evaluate(lambda x, n: np.eye(2, 3), labels, "classification", False) == {"accuracy": 1}
    one_class = Split(x, np.array([0, 0]))
    assert evaluate(lambda x, n: np.eye(2), one_class, "classification", False) == {"accuracy": 0.5}
    steps = Split(x, np.array([[0, 1, 1], [1, 0, 0]]), np.array([3, 1]))
    scores = np.zeros((2, 3, 2))
    scores[0, 1:, 1] = 1
    found = evaluate(lambda x, n: scores, steps, "classification", True)
    assert found == {"accuracy": 0.75, "auc": pytest.approx(2.5 / 3)}
    values = Split(x, np.array([[0.0], [2.0]]))
    found = evaluate(lambda x, n: np.ones((2, 1)), values, "regression", False)
    assert list(found.items()) == [("rmse", 1), ("mae", 1), ("mean_forecast_error", 0)]
    said = sentence(evaluate, lambda x, n: np.ones((2, 3)), values, "regression", False)
    assert said == "Predictions must have shape (2, 1) as the targets do, not (2, 3)"


def test_what_has_no_value_is_told():
    # Shapes that numpy would broadcast into a wrong answer.
    for metric in (rmse, mae, mean_forecast_error, mean_directional_accuracy):
        for shape, due in (((3,), (3, 1)), ((0, 1), (0, 1))):
            told = f"Predictions must have the targets' shape {due}, none 0, not {shape}"
            assert sentence(metric, np.zeros(shape), np.zeros(due)) == told
    assert sentence(mean_directional_accuracy, [1.0], [2.0]) == (
        "Series must have at least 2 values to change between, not 1: give the previous ones"
    )
    assert sentence(mean_directional_accuracy, np.zeros(3), np.zeros(3), np.zeros(2)) == (
        "Previous values must fit the targets' shape (3,), not (2,)"
    )
    assert sentence(accuracy, np.zeros((3, 2)), np.zeros((3, 1), int)) == (
        "Scores must have the shape of the labels, (3, 1) with a score for each class behind, none 0, not (3, 2)"
    )
    assert sentence(confusion, np.zeros((2, 3)), np.array([0, 3])) == (
        "Labels must be in 0..2 as there are 3 scores, not 3"
    )
    assert sentence(auc, [1.0, 2.0], [1, 1]) == (
        "Labels must hold both classes, not 0 of class 0 and 2 of class 1"
    )
    assert sentence(auc, [1.0, 2.0], [1, 2]) == "Labels must be 0 or 1, not 2"
    assert sentence(auc, [1.0, math.nan], [1, 0]) == "Scores must be numbers, not NaN"
    assert sentence(auc, [1.0, 2.0], [1]) == "Scores and labels must have one shape (N,), not (2,) and (1,)"
