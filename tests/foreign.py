"""Small foreign networks, written in ONNX's textual form, and their comparison with ONNX Runtime."""

import numpy as np
import onnx
from onnx import numpy_helper, parser

import hwrnn
from hwrnn.errors import require

N, T, F, H = 4, 6, 3, 5
GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
random_numbers = np.random.default_rng(5)
X = random_numbers.standard_normal((N, T, F)).astype(np.float32)


def weights(kind="GRU", directions=1, inputs=F, name="", seed=0):
    """W, R and B of a node."""
    rng, rows = np.random.default_rng([seed, inputs, directions]), GATES[kind] * H
    shapes = {"W": (directions, rows, inputs), "R": (directions, rows, H), "B": (directions, 2 * rows)}
    return {letter + name: rng.normal(0, 0.5, shape).astype(np.float32) for letter, shape in shapes.items()}


def matrix(*shape, seed=1):
    return np.random.default_rng([seed, *shape]).normal(0, 0.5, shape).astype(np.float32)


def write(path, text, constants, opset=17, producer="", ends="(float[N,T,3] x) => (float[N,T,5] y)"):
    """A network in ONNX's textual form, with constants as initializers."""
    domains = '"ai.onnx.ml": 3, "other": 1, "qonnx.custom_op.general": 1'
    head = f'<ir_version: 8, opset_import: ["": {opset}, {domains}], producer_name: "{producer}">'
    proto = parser.parse_model(f"{head} net {ends} {{ {text} }}")
    for name, array in constants.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    for k, node in enumerate(proto.graph.node):
        alone = sum(other.op_type == node.op_type for other in proto.graph.node) == 1
        node.name = f"the_{node.op_type}" if alone else f"the_{node.op_type}_{k}"
    onnx.save(proto, path)
    return path


def compared(path, feeds, tolerance=2e-6, **chosen):
    """What is imported, after its run equalled ONNX Runtime's in every output, shape and element type."""
    runtime = require("onnxruntime", "runtime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    expected = dict(zip(names, session.run(names, feeds), strict=True))
    found = hwrnn.import_onnx(path, **chosen)
    results = found.run({name: value for name, value in feeds.items() if name in found.inputs})
    assert results.keys() == expected.keys()
    for name, array in results.items():
        assert (array.dtype, array.shape) == (expected[name].dtype, expected[name].shape), name
        np.testing.assert_allclose(array, expected[name], tolerance, tolerance, err_msg=name)
    return found, expected


FRONT = "s = Transpose<perm=[1,0,2]>(x) "
CELL = "Y, Yh = GRU<hidden_size=5, linear_before_reset=1>(s, W, R, B) "
BOTH = 'Y, Yh = GRU<hidden_size=5, linear_before_reset=1, direction="bidirectional">(s, W, R, B) '
ONE, TWO = weights(), weights(directions=2)
STEPS = {"one": np.array([1])}
LAST = "(float[N,T,3] x) => (float[N,2] y)"
HEAD = {"M": matrix(5, 2), "c": matrix(2)}
WIDE = {"M": matrix(10, 2), "c": matrix(2)}


LENGTHS = np.array([6, 1, 3, 6], np.int32)
