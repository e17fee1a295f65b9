"""Generated tasks that tell recurrent networks apart, as plain arrays. Same generator state, same arrays."""

import numpy as np

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]
"""x (N, T, F) float32 with zeros for padding, y, lengths (N,) int64."""


def adding(rng: np.random.Generator, count: int, shortest: int = 20, longest: int = 30) -> Arrays:
    """The adding problem: x (count, longest, 2), y (count, 1) float32 = 1/2 + (X1 + X2) / 4, in 0..1.

    The first feature is uniform in -1..1; the second marks the two steps to add with 1 and both ends with -1.
    X1 is among the first ten steps, X2 in the first half. Unlike the original, whose lengths span a tenth of
    the shortest one, lengths are uniform in shortest..longest, and the marked end is never an addend.

    Source: S. Hochreiter, J. Schmidhuber, Long Short-Term Memory, Neural Computation 9 (1997), experiment 4.
    """
    rows = np.arange(count)
    lengths = rng.integers(shortest, longest, count, endpoint=True)
    values = rng.uniform(-1, 1, (count, longest)) * (np.arange(longest) < lengths[:, None])
    first = rng.integers(1, 10, count)
    second = rng.integers(1, lengths // 2 - 1)
    second += second >= first  # skips the step that is taken already
    marks = np.zeros((count, longest))
    marks[:, 0] = marks[rows, lengths - 1] = -1
    marks[rows, first] = marks[rows, second] = 1
    x = np.stack([values, marks], axis=2).astype(np.float32)
    y = 0.5 + (x[rows, first, 0] + x[rows, second, 0]) / 4
    return x, y[:, None], lengths


def copy_memory(
    rng: np.random.Generator, count: int, symbols: int = 4, length: int = 5, delay: int = 10
) -> Arrays:
    """The copy problem: x (count, T, symbols + 2) one-hot, y (count, T) int64, T = 2 * length + delay.

    ``length`` random symbols 1..symbols come first, then blanks (0), with a recall mark (symbols + 1) as the
    last of the ``delay`` steps. The labels are blank until then and repeat the symbols in the last steps.

    Source: Hochreiter and Schmidhuber 1997; this form: M. Arjovsky, A. Shah, Y. Bengio, Unitary Evolution
    Recurrent Neural Networks, ICML 2016, section 5.1.
    """
    steps = 2 * length + delay
    message = rng.integers(1, symbols, (count, length), endpoint=True)
    shown = np.zeros((count, steps), dtype=np.int64)
    shown[:, :length] = message
    shown[:, length + delay - 1] = symbols + 1
    y = np.zeros_like(shown)
    y[:, -length:] = message
    x = np.eye(symbols + 2, dtype=np.float32)[shown]
    return x, y, np.full(count, steps)


def mackey_glass(
    rng: np.random.Generator, count: int, tau: int = 17, substeps: int = 10, transient: int = 1000
) -> np.ndarray:
    """``count`` unit-time samples of dx/dt = 0.2 x(t-tau) / (1 + x(t-tau)**10) - 0.1 x(t): (count,) float64.

    Fourth-order Runge-Kutta in ``substeps`` steps per sample; between steps the delayed value is read from
    the cubic Hermite polynomial, which keeps the order. The first ``transient`` samples, on the way to the
    attractor, are dropped. The history before t = 0 is a constant near 1.2 that ``rng`` draws.

    Source: M. C. Mackey, L. Glass, Oscillation and chaos in physiological control systems, Science 197, 1977.
    """
    h = 1 / substeps
    delay = tau * substeps
    history = float(1.2 + rng.uniform(-0.1, 0.1))
    x = [history] * (delay + 1)
    middles = [history] * delay  # middles[i] lies halfway between x[i] and x[i + 1]

    def slope(now: float, delayed: float) -> float:
        return 0.2 * delayed / (1 + delayed**10) - 0.1 * now

    for i in range((transient + count) * substeps):
        now, old, middle, new = x[-1], x[i], middles[i], x[i + 1]
        k1 = slope(now, old)
        k2 = slope(now + h / 2 * k1, middle)
        k3 = slope(now + h / 2 * k2, middle)
        k4 = slope(now + h * k3, new)
        x.append(now + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
        middles.append((now + x[-1]) / 2 + h / 8 * (k1 - slope(x[-1], new)))
    return np.array(x[delay + transient * substeps :: substeps][:count])
