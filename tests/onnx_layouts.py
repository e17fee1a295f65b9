"""Networks with a random walk of layout operators behind a recurrent layer; their sizes can be taken for each other.

Whatever is accepted has to equal ONNX Runtime; most of what such a walk does has no meaning in a Model, and may be
refused. The walk knows only shapes, so it also writes what no exporter would.
"""

from __future__ import annotations

import numpy as np
from onnx_matrix import OPERATORS, Case, Expected, Net, Setting, operator_node

Walk = tuple[str, tuple[int, ...]]
"""A value's name and its shape."""
MOST = 8
"""Steps of a walk."""


def _transposed(net: Net, rng: np.random.Generator, x: str, shape: tuple[int, ...]) -> Walk:
    order = [int(k) for k in rng.permutation(len(shape))]
    return net.node("Transpose", x, perm=order), tuple(shape[k] for k in order)


def _reshaped(net: Net, rng: np.random.Generator, x: str, shape: tuple[int, ...]) -> Walk:
    """Neighbours joined, or an axis split in two, or an axis of one put in."""
    sizes = list(shape)
    k = int(rng.integers(len(sizes)))
    choice = rng.integers(4)
    if choice == 0 and k + 1 < len(sizes):
        sizes[k : k + 2] = [sizes[k] * sizes[k + 1]]
    elif choice == 1:
        factors = [f for f in range(2, sizes[k]) if sizes[k] % f == 0]
        if factors:
            f = factors[int(rng.integers(len(factors)))]
            sizes[k : k + 1] = [f, sizes[k] // f]
    elif choice == 2:
        sizes.insert(k, 1)
    else:
        sizes = [int(s) for s in rng.permutation(sizes)]
    written = list(sizes)
    if rng.random() < 0.5:
        written[int(rng.integers(len(written)))] = -1
    return net.reshape(x, *written), tuple(sizes)


def _squeezed(net: Net, rng: np.random.Generator, x: str, shape: tuple[int, ...]) -> Walk:
    ones = [k for k, size in enumerate(shape) if size == 1]
    if not ones or len(shape) < 3:
        k = int(rng.integers(len(shape) + 1))
        return net.axes_of("Unsqueeze", x, k), (*shape[:k], 1, *shape[k:])
    k = ones[int(rng.integers(len(ones)))]
    return net.axes_of("Squeeze", x, k), (*shape[:k], *shape[k + 1 :])


def _gathered(net: Net, rng: np.random.Generator, x: str, shape: tuple[int, ...]) -> Walk:
    k = int(rng.integers(len(shape)))
    if rng.random() < 0.6 and len(shape) > 2:
        index = int(rng.choice([0, -1, shape[k] - 1, int(rng.integers(shape[k]))]))
        return net.gather(x, index, k), (*shape[:k], *shape[k + 1 :])
    order = [int(i) for i in rng.permutation(shape[k])]
    return net.gather(x, order, k), shape


def _sliced(net: Net, rng: np.random.Generator, x: str, shape: tuple[int, ...]) -> Walk:
    k = int(rng.integers(len(shape)))
    size = shape[k]
    if rng.random() < 0.3:
        return net.slice(x, -1, -(2**31), k, -1), shape
    start = int(rng.integers(size))
    end = int(rng.integers(start, size)) + 1
    written = 2**31 - 1 if end == size and rng.random() < 0.5 else end
    given = start - size if rng.random() < 0.5 else start
    return net.slice(x, given, written, k), (*shape[:k], end - start, *shape[k + 1 :])


def _joined(net: Net, rng: np.random.Generator, x: str, shape: tuple[int, ...]) -> Walk:
    """A slice of it, or what is left of it turned around, beside the value."""
    k = int(rng.integers(len(shape)))
    other = x if rng.random() < 0.5 else net.gather(x, [int(i) for i in rng.permutation(shape[k])], k)
    pair = [x, other] if rng.random() < 0.5 else [other, x]
    return net.node("Concat", *pair, axis=k), (*shape[:k], 2 * shape[k], *shape[k + 1 :])


def _computed(net: Net, rng: np.random.Generator, x: str, shape: tuple[int, ...]) -> Walk:
    """A constant along one axis multiplied or added, a dense layer on the last axis, or a sum along one axis."""
    k = int(rng.integers(len(shape)))
    numbers = rng.uniform(0.5, 1.5, [size if j == k else 1 for j, size in enumerate(shape)]).astype(np.float32)
    choice = rng.integers(4)
    if choice == 0:
        return net.node("Mul", x, net.constant(numbers)), shape
    if choice == 1:
        return net.node("Add", net.constant(numbers), x), shape
    if choice == 2:
        matrix = rng.standard_normal((shape[-1], 2)).astype(np.float32)
        return net.node("MatMul", x, net.constant(matrix)), (*shape[:-1], 2)
    return net.node("Add", x, net.node("Transpose", x, perm=[*range(k), *range(k, len(shape))])), shape


STEPS = (_transposed, _reshaped, _reshaped, _squeezed, _gathered, _sliced, _joined, _computed)


def layout_case(number: int) -> Case:
    """A walk of up to eight steps; sizes are 1, 2 or 3, half of the time all the same."""
    rng = np.random.default_rng([number, 7])
    operator = OPERATORS[number % 3]
    steps, batch, hidden = (int(n) for n in (rng.integers(2, 4, 3) if rng.random() < 0.5 else [2, 2, 2]))
    batch = 1 if rng.random() < 0.2 else batch
    direction = [None, "reverse", "bidirectional"][int(rng.integers(3))]
    net, feeds = Net(17), {"x": rng.standard_normal((steps, batch, 2)).astype(np.float32)}
    net.input("x", feeds["x"], [["time", "batch", 2], ["time", batch, 2], None][int(rng.integers(3))])
    setting = Setting(
        operator, 17, direction, hidden=hidden, inputs=2, steps=steps, batch=batch, outputs=("Y", "Y_h")
    )  # fmt: skip
    made = operator_node(net, setting, "x", feeds, rng)
    directions = setting.directions
    x, shape = (made["Y"], (steps, directions, batch, hidden)) if rng.random() < 0.7 else (
        made["Y_h"], (directions, batch, hidden))  # fmt: skip
    for _ in range(int(rng.integers(1, MOST + 1))):
        if np.prod(shape) > 2000 or len(shape) > 6:
            break
        x, shape = STEPS[int(rng.integers(len(STEPS)))](net, rng, x, shape)
    net.output(x, "y")
    proto = net.proto({"y": len(shape)})
    return Case(f"layout {number}", operator, {"walk": str(number)}, proto, feeds, outputs={"y": Expected("")})
