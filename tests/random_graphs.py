"""Random foreign networks: recurrent layers with anything before and behind them that moves or computes elements.

Every size is small and often equal to another, so that confusing the batch, the time and the features shows. Half of
the networks leave sizes open.
"""

import random
from dataclasses import dataclass, field

import numpy as np
from onnx import TensorProto, helper, numpy_helper

SIZES = (1, 2, 2, 3, 4, 6)
ROWS = {"RNN": 1, "GRU": 3}
BEFORE = ("Add", "Mul", "Sub", "Div", "MatMul", "Relu", "Slice", "Gather", "Split", "Clip")
LAYOUTS = (
    "Transpose", "Reshape", "Slice", "Gather", "Squeeze", "Unsqueeze", "Flatten", "Split", "Swap", "Concat", "Expand",
    "OpenReshape",
)  # fmt: skip
BEHIND = (
    *LAYOUTS, "MatMul", "MatMul", "Gemm", "Add", "Sub", "Mul", "Div", "Relu", "Tanh", "Sigmoid", "Clip", "Softmax",
    "ReduceSum", "ReduceMean", "Twice",
)  # fmt: skip
LEAST, MOST = -(2**63), 2**63 - 1


@dataclass
class Writer:
    """Nodes and constants; ``shape`` is that of ``value``, the newest value."""

    choose: random.Random
    shape: list[int]
    value: str = "x"
    nodes: list = field(default_factory=list)
    constants: list = field(default_factory=list)

    def __post_init__(self):
        self.numbers = np.random.default_rng(self.choose.randrange(2**31))

    def constant(self, array):
        self.constants.append(numpy_helper.from_array(np.asarray(array), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def normal(self, *shape):
        return self.constant(self.numbers.normal(0, 0.5, shape).astype(np.float32))

    def node(self, operator, inputs, outputs=1, **attributes):
        names = [f"v{len(self.nodes)}_{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(operator, inputs, names, name=f"n{len(self.nodes)}", **attributes))
        return names[0] if outputs == 1 else names

    def put(self, operator, *more, shape=None, **attributes):
        """A node of the newest value, which gives the next one."""
        self.value = self.node(operator, [self.value, *more], **attributes)
        self.shape = self.shape if shape is None else list(shape)

    def axis(self):
        return self.choose.randrange(len(self.shape))

    def changed(self, axis, *sizes):
        return [*self.shape[:axis], *sizes, *self.shape[axis + 1 :]]

    def step(self, names):
        """One random operator; nothing where the drawn one does not fit."""
        name = self.choose.choice(names)
        made = getattr(self, name.lower(), None)
        if made is not None:
            made()
        elif name in ("Add", "Sub", "Mul", "Div"):
            sizes = [n if self.choose.random() < 0.5 else 1 for n in self.shape]
            inputs = [self.value, self.constant(self.numbers.uniform(0.5, 2, sizes[self.axis() :]).astype(np.float32))]
            if name != "Div" and self.choose.random() < 0.3:
                inputs.reverse()
            self.value = self.node(name, inputs)
        elif name in ("Relu", "Tanh", "Sigmoid"):
            self.put(name)
        else:
            raise KeyError(name)

    def transpose(self):
        order = self.choose.sample(range(len(self.shape)), len(self.shape))
        self.put("Transpose", perm=order, shape=[self.shape[k] for k in order])

    def reshape(self):
        sizes, k = list(self.shape), self.choose.randrange(max(len(self.shape) - 1, 1))
        if self.choose.random() < 0.5:
            sizes[k : k + 2] = [int(np.prod(sizes[k : k + 2]))]
        else:
            left, sizes = int(np.prod(self.shape)), []
            while left > 1 or not sizes:
                sizes.append(self.choose.choice([n for n in range(1, left + 1) if left % n == 0]))
                left //= sizes[-1]
            if len(sizes) > 4:
                return
        written = list(sizes)
        if self.choose.random() < 0.5:
            written[self.choose.randrange(len(written))] = -1
        for j, (due, own) in enumerate(zip(sizes, self.shape, strict=False)):
            if due == own and written[j] != -1 and self.choose.random() < 0.3:
                written[j] = 0
        self.put("Reshape", self.constant(written), shape=sizes)

    def openreshape(self):
        k = self.axis()
        if k and len(self.shape) < 5:
            zero, middle, end, one = (self.constant([n]) for n in (0, k, 99, 1))
            shape = self.node("Shape", [self.value])
            parts = [self.node("Slice", [shape, zero, middle]), one, self.node("Slice", [shape, middle, end])]
            self.put("Reshape", self.node("Concat", parts, axis=0), shape=[*self.shape[:k], 1, *self.shape[k:]])

    def slice(self):
        axis, kind = self.axis(), self.choose.random()
        size = self.shape[axis]
        start, end, step = (-1, MOST, 1) if kind < 0.4 else (-1, LEAST, -1)
        if kind > 0.7:
            start, step = self.choose.randint(-size, size - 1), self.choose.choice([1, 1, 2, -1])
            end = self.choose.choice([self.choose.randint(-size, size), MOST, LEAST])
        left = len(range(size)[slice(start, None if step < 0 and end < -size else end, step)])
        if left:
            place = axis - len(self.shape) * self.choose.randint(0, 1)
            numbers = [self.constant([n]) for n in (start, end, place, step)]
            self.put("Slice", *numbers, shape=self.changed(axis, left))

    def gather(self):
        axis, count = self.axis(), self.choose.choice([None, 1, 2, 3])
        size = self.shape[axis]
        drawn = [self.choose.randint(-size, size - 1) for _ in range(count or 1)]
        indices = np.array(drawn[0] if count is None else drawn)
        self.put("Gather", self.constant(indices), axis=axis, shape=self.changed(axis, *indices.shape))

    def squeeze(self):
        single = [k for k, size in enumerate(self.shape) if size == 1]
        if single and len(self.shape) > 1:
            axis = self.choose.choice(single)
            self.put("Squeeze", self.constant([axis]), shape=self.changed(axis))

    def unsqueeze(self):
        if len(self.shape) < 5:
            axis = self.choose.randint(0, len(self.shape))
            self.put("Unsqueeze", self.constant([axis]), shape=[*self.shape[:axis], 1, *self.shape[axis:]])

    def flatten(self):
        axis = self.choose.randint(0, len(self.shape))
        sizes = [int(np.prod(part)) for part in (self.shape[:axis], self.shape[axis:])]
        self.put("Flatten", axis=axis, shape=sizes)

    def _parts(self):
        axis = self.axis()
        first = self.choose.randint(1, max(self.shape[axis] - 1, 1))
        sizes = [first, self.shape[axis] - first]
        names = self.node("Split", [self.value, self.constant(sizes)], 2, axis=axis) if sizes[1] else []
        return axis, sizes, names

    def split(self):
        axis, sizes, names = self._parts()
        if names:
            k = self.choose.randint(0, 1)
            self.value, self.shape = names[k], self.changed(axis, sizes[k])

    def swap(self):
        axis, _, names = self._parts()
        if names:
            self.value = self.node("Concat", names[::-1], axis=axis)

    def concat(self):
        axis = self.axis()
        if np.prod(self.shape) < 500:
            self.put("Concat", self.value, axis=axis, shape=self.changed(axis, 2 * self.shape[axis]))

    def expand(self):
        sizes = [self.choose.randint(1, 3) if n == 1 and self.choose.random() < 0.4 else n for n in self.shape]
        self.put("Expand", self.constant(sizes), shape=sizes)

    def twice(self):
        self.put("Add", self.node("Mul", [self.value, self.constant(np.float32(0.5))]))

    def matmul(self):
        if len(self.shape) > 1:
            units = self.choose.randint(1, 4)
            self.put("MatMul", self.normal(self.shape[-1], units), shape=[*self.shape[:-1], units])

    def gemm(self):
        if len(self.shape) == 2:
            units, turned = self.choose.randint(1, 4), self.choose.randint(0, 1)
            matrix = self.normal(*(self.shape[1], units)[:: -1 if turned else 1])
            bias = self.normal(*self.choose.choice([(units,), (1, units), (1,)]))
            factors = {name: self.choose.choice([1.0, 0.5]) for name in ("alpha", "beta")}
            self.put("Gemm", matrix, bias, transB=turned, shape=[self.shape[0], units], **factors)

    def clip(self):
        self.put("Clip", *(self.constant(np.float32(bound)) for bound in (-0.3, 0.4)))

    def softmax(self):
        self.put("Softmax", axis=self.choose.randint(-len(self.shape), len(self.shape) - 1))

    def reducesum(self):
        self._reduced(lambda axis, keep: self.put("ReduceSum", self.constant([axis]), keepdims=keep))

    def reducemean(self):
        self._reduced(lambda axis, keep: self.put("ReduceMean", axes=[axis], keepdims=keep))

    def _reduced(self, put):
        axis, keep = self.axis(), self.choose.randint(0, 1)
        if len(self.shape) > 1:
            put(axis, keep)
            self.shape = self.changed(axis, *([1] if keep else []))

    def layer(self, units):
        """A recurrent node of (T, N, F); Y and Y_h."""
        kind = self.choose.choice(["RNN", "GRU"])
        direction = self.choose.choice(["forward", "reverse", "bidirectional"])
        count, rows = 1 + (direction == "bidirectional"), ROWS[kind] * units
        weights = [self.normal(count, *s) for s in ((rows, self.shape[2]), (rows, units), (2 * rows,))]
        return *self.node(kind, [self.value, *weights], 2, hidden_size=units, direction=direction), count


def random_network(seed):
    """A network, its input and whether the batch is the input's first axis; None where nothing sensible was drawn."""
    choose = random.Random(seed)
    batch, steps, features, units = (choose.choice(SIZES) for _ in range(4))
    batch_first = choose.random() < 0.5
    shape = [batch, steps, features] if batch_first else [steps, batch, features]
    writer = Writer(choose, list(shape))
    for _ in range(choose.randint(0, 2)):
        writer.step(BEFORE)
    if len(writer.shape) != 3:
        return None
    if batch_first:
        writer.put("Transpose", perm=[1, 0, 2], shape=[writer.shape[k] for k in (1, 0, 2)])
    outputs, finals, count = writer.layer(units)
    if choose.random() < 0.3:
        writer.value = writer.node("Transpose", [outputs], perm=[0, 2, 1, 3])
        writer.put("Reshape", writer.constant([0, 0, -1]), shape=[*writer.shape[:2], count * units])
        outputs, finals, count = writer.layer(units)
    kind = choose.choice(["final", "last step", "steps"])
    writer.value = finals if kind == "final" else outputs
    writer.shape = [*([] if kind == "final" else writer.shape[:1]), count, writer.shape[1], units]
    if kind == "last step":
        writer.put("Gather", writer.constant(-1), axis=0, shape=writer.shape[1:])
    for _ in range(choose.randint(1, 5)):
        writer.step(BEHIND)
    names = ("N", "T") if batch_first else ("T", "N")
    if choose.random() < 0.5:
        shape[:2] = [name if choose.random() < 0.7 else size for name, size in zip(names, shape, strict=False)]
    writer.nodes.append(helper.make_node("Identity", [writer.value], ["y"]))
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    ends.append(helper.make_tensor_value_info("y", TensorProto.FLOAT, None))
    graph = helper.make_graph(writer.nodes, "g", ends[:1], ends[1:], writer.constants)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    sizes = (batch, steps, features) if batch_first else (steps, batch, features)
    return proto, writer.numbers.normal(0, 1, sizes).astype(np.float32), batch_first


