"""Losses, optimizer, threads: each against its definition."""

import math

import numpy as np
import pytest

from hwrnn.training import single_thread_blas
from hwrnn.training.losses import LOSSES, arranged
from hwrnn.training.numpy_printer import _clip, _clip_ufunc, _gradient, _piecewise
from hwrnn.training.optimizer import AdamW, clip_norm, cosine
from hwrnn.training.threads import _openblas

LENGTHS = np.array([2, 3, 1])


def example(name: str, masked: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    rng = np.random.default_rng(0)
    outputs = rng.standard_normal((3, 4, 3))
    targets = rng.integers(0, 4, (3, 3)) if name == "cross_entropy" else rng.standard_normal(outputs.shape)
    return outputs, targets, LENGTHS if masked else None


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_by_hand_and_its_gradient_by_differences(name, masked):
    outputs, targets, lengths = example(name, masked)
    value, slope = LOSSES[name](outputs, targets, lengths)
    terms = []
    for t in range(3):
        for b in range(3):
            if masked and t >= LENGTHS[b]:
                continue
            y = outputs[t, :, b]
            if name == "cross_entropy":
                terms.append(-math.log(math.exp(y[targets[t, b]]) / sum(math.exp(v) for v in y)))
            else:
                terms += [abs(e) if name == "mae" else e * e for e in y - targets[t, :, b]]
    assert value == pytest.approx(sum(terms) / len(terms), rel=1e-12)
    for at in np.ndindex(outputs.shape):
        moved = outputs.copy()
        moved[at] += 1e-6
        assert slope[at] == pytest.approx((LOSSES[name](moved, targets, lengths)[0] - value) / 1e-6, abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_what_stands_beyond_a_length_counts_for_nothing(name):
    outputs, targets, lengths = example(name, True)
    value, slope = LOSSES[name](outputs, targets, lengths)
    outputs[2, :, 0], outputs[1:, :, 2] = np.nan, np.inf
    again, same = LOSSES[name](outputs, targets, lengths)
    assert again == value and np.array_equal(same, slope)


def test_scores_far_apart_do_not_overflow():
    value, slope = LOSSES["cross_entropy"](np.array([[[1e4], [-1e4]]]), np.array([[1]]), None)
    assert value == 2e4 and np.array_equal(slope[0, :, 0], [1, -1])


def test_targets_are_arranged_steps_first():
    assert arranged(np.array([3, 1]), False).shape == (1, 2)
    assert arranged(np.zeros((2, 5), np.int64), True).shape == (5, 2)
    assert arranged(np.zeros((2, 4), np.float32), False).shape == (1, 4, 2)
    assert arranged(np.zeros((2, 5, 4), np.float32), True).shape == (5, 4, 2)


def test_adamw_as_in_the_paper():
    rng = np.random.default_rng(0)
    theta, decay = rng.standard_normal(5), np.array([0.1, 0, 0.1, 0, 0.1])
    optimizer, mine = AdamW(theta), theta.copy()
    first, second = np.zeros(5), np.zeros(5)
    for t in range(1, 6):
        gradient = rng.standard_normal(5)
        optimizer.update(mine, gradient.copy(), 0.01, decay)
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        step = (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
        theta = theta - 0.01 * (step + decay * theta)
    np.testing.assert_allclose(mine, theta, rtol=1e-12)


def test_clipping_keeps_the_direction():
    gradient = np.array([3.0, 4.0])
    assert clip_norm(gradient, 1.0) == 5
    np.testing.assert_allclose(gradient, [0.6, 0.8])
    assert clip_norm(gradient, 2.0) == pytest.approx(1)
    np.testing.assert_allclose(gradient, [0.6, 0.8])


def test_cosine_falls_from_one_to_zero():
    assert cosine(0, 10) == 1 and cosine(5, 10) == pytest.approx(0.5) and cosine(10, 10) == 0


def test_one_thread_inside_the_block_only():
    functions = _openblas()
    if functions is None:
        pytest.skip("numpy uses no OpenBLAS here")
    put, get = functions
    before = get()
    put(2)
    try:
        with pytest.raises(KeyError), single_thread_blas() as done:
            assert done and get() == 1
            raise KeyError
        assert get() == 2
    finally:
        put(before)


def test_the_clip_without_a_ufunc_is_the_same():
    x = np.array([-3.0, -1, 0, 2, 5, np.nan])
    for clip in (_clip, _clip_ufunc()):
        out = np.empty_like(x)
        clip(x, np.array(-1.0), np.array(2.0), out)
        np.testing.assert_array_equal(out, [-1, -1, 0, 2, 2, np.nan])


def test_pieces_and_long_sums_of_the_printer():
    x = np.array([-2.0, -1.0, 0.5, 1.0, 3.0])
    out, slope = np.empty(5), np.empty(5)
    slopes = np.array([0.0, 2.0, 1.0])
    _piecewise(x, np.array([-1.0, 1.0]), slopes, np.array([5.0, 0.0, 1.0]), slopes, out, slope)
    np.testing.assert_array_equal(out, [5, -2, 1, 2, 4])
    np.testing.assert_array_equal(slope, [0, 2, 2, 1, 1])
    rng = np.random.default_rng(0)
    d, z = rng.standard_normal((7, 3, 4)), rng.standard_normal((7, 5, 4))
    for block in (1, 3, 7, 9):
        total = np.empty((3, 5))
        _gradient(d, z, total, np.empty((block, 3, 5)))
        np.testing.assert_allclose(total, np.einsum("trb,tcb->rc", d, z))
