"""Networks of standard ONNX: what a file means, compared with ONNX Runtime, and the models that come of them.

The matrix of configurations is in test_conformance.py, the files of exporters in test_exported.py; here are the
patterns around recurrent nodes one by one. Refusals are in test_importing_refusals.py.
"""

import json
import warnings

import numpy as np
import onnx
import pytest
from foreign import (
    BOTH,
    CELL,
    FRONT,
    GATES,
    HEAD,
    LAST,
    LENGTHS,
    ONE,
    STEPS,
    TWO,
    WIDE,
    H,
    N,
    T,
    X,
    compared,
    matrix,
    weights,
    write,
)  # fmt: skip
from onnx import parser

import hwrnn
from hwrnn.cli import main
from hwrnn.errors import UsageError
from hwrnn.importing import layouts, values
from hwrnn.importing.functions import ACTIVATIONS, function_named
from hwrnn.importing.shapes import Size, Undecided, equal

#: Name -> the nodes behind (or around) the cell, the constants, the ends of the graph, and what the model has.
PATTERNS = {
    "all steps": (FRONT + CELL + "q = Squeeze(Y, one) y = Transpose<perm=[1,0,2]>(q)", {**ONE, **STEPS}, None,
                  {"every_step": True, "cells": ["gru"]}),
    "last step by Gather": (
        FRONT + CELL + "q = Squeeze(Y, one) l = Gather<axis=0>(q, end) y = Gemm(l, M, c)",
        {**ONE, **STEPS, **HEAD, "end": np.array(-1)}, LAST, {"every_step": False, "cells": ["gru"], "head": True}),
    "last step by Slice": (
        FRONT + CELL + "l = Slice(Y, a, b, z) q = Squeeze(l, axes) y = Gemm(q, M, c)",
        {**ONE, **HEAD, "a": np.array([-1]), "b": np.array([2**62]), "z": np.array([0]), "axes": np.array([0, 1])},
        LAST, {"every_step": False, "cells": ["gru"]}),
    "last state": (FRONT + CELL + "q = Squeeze(Yh, z) y = Gemm(q, M, c)", {**ONE, **HEAD, "z": np.array([0])}, LAST,
                   {"every_step": False, "cells": ["gru"], "final_state": False}),
    "both ways": (
        FRONT + BOTH + "t = Transpose<perm=[2,0,1,3]>(Y) r = Reshape(t, whole) p = MatMul(r, M) y = Add(p, c)",
        {**TWO, **WIDE, "whole": np.array([0, 0, -1])}, "(float[N,T,3] x) => (float[N,T,2] y)",
        {"every_step": True, "cells": ["gru", "gru reverse"], "head": True}),
    "both ways, last states": (
        FRONT + BOTH + "t = Transpose<perm=[1,0,2]>(Yh) r = Flatten(t) y = Gemm(r, M, c)", {**TWO, **WIDE}, LAST,
        {"every_step": False, "final_state": True, "cells": ["gru", "gru reverse"]}),
    "both ways, last step": (
        FRONT + BOTH + "l = Gather<axis=0>(Y, end) t = Transpose<perm=[1,0,2]>(l) r = Flatten(t) y = Gemm(r, M, c)",
        {**TWO, **WIDE, "end": np.array(-1)}, LAST, {"final_state": False, "cells": ["gru", "gru reverse"]}),
    "reverse half of both ways": (
        FRONT + BOTH + "l = Gather<axis=0>(Yh, d) y = Gemm(l, M, c)", {**TWO, **HEAD, "d": np.array(1)}, LAST,
        {"final_state": True, "cells": ["gru reverse"]}),
    "turned, and turned back": (
        FRONT + "v = Slice(s, m1, low, z, m1) Y = GRU<hidden_size=5, linear_before_reset=1>(v, W, R, B) "
        "q = Squeeze(Y, one) w = Slice(q, m1, low, z, m1) y = Transpose<perm=[1,0,2]>(w)",
        {**ONE, **STEPS, "m1": np.array([-1]), "low": np.array([-(2**62)]), "z": np.array([0])}, None,
        {"every_step": True, "cells": ["gru reverse"]}),
    "sum of both ways": (
        FRONT + BOTH + "a, b = Split<axis=1>(Y) d = Add(a, b) q = Squeeze(d, one) y = Transpose<perm=[1,0,2]>(q)",
        {**TWO, **STEPS}, None, {"cells": ["gru", "gru reverse"], "head": True}),
    "two layers": (
        FRONT + CELL + "q = Squeeze(Y, one) Z = LSTM<hidden_size=5>(q, W2, R2, B2) u = Squeeze(Z, one) "
        "y = Transpose<perm=[1,0,2]>(u)", {**ONE, **STEPS, **weights("LSTM", inputs=H, name="2")}, None,
        {"every_step": True, "cells": ["gru", "lstm"]}),
    "dense before, between and behind": (
        "p = MatMul(x, E) e = Relu(p) s = Transpose<perm=[1,0,2]>(e) " + CELL + "q = Squeeze(Yh, z) g = Gemm(q, M, c) "
        "k = Tanh(g) y = Gemm<transB=1>(k, K, c)",
        {**ONE, **HEAD, "z": np.array([0]), "E": matrix(3, 3), "K": matrix(2, 2)}, LAST,
        {"every_step": False, "cells": ["dense", "gru", "dense"], "head": True}),
    "standardised": (
        "a = Sub(x, mean) e = Div(a, deviation) s = Transpose<perm=[1,0,2]>(e) " + CELL + "q = Squeeze(Y, one) "
        "t = Transpose<perm=[1,0,2]>(q) u = Mul(t, deviation5) y = Add(u, mean5)",
        {**ONE, **STEPS, "mean": matrix(3), "deviation": np.abs(matrix(3)) + 0.5, "mean5": matrix(5), "deviation5":
         np.abs(matrix(5)) + 0.5}, None, {"cells": ["gru"], "head": False, "scaled": True}),
    "scaler of sklearn": (
        "e = ai.onnx.ml.Scaler<offset=[1.0,2.0,3.0], scale=[0.5,2.0,1.5]>(f) ", {}, None, None),
    "normalised": (
        FRONT + CELL + "q = Squeeze(Yh, z) b = BatchNormalization(q, g, o, m, v) y = Gemm(b, M, c)",
        {**ONE, **HEAD, "z": np.array([0]), "g": matrix(5) + 2, "o": matrix(5), "m": matrix(5, seed=3),
         "v": np.abs(matrix(5)) + 0.1}, LAST, {"cells": ["gru"], "head": True}),
    "probabilities": (FRONT + CELL + "q = Squeeze(Yh, z) g = Gemm(q, M, c) y = Softmax(g)",
                      {**ONE, **HEAD, "z": np.array([0])}, LAST, {"task": "classification", "host": True}),
    "best class": (
        FRONT + CELL + "q = Squeeze(Yh, z) g = Gemm(q, M, c) h = LogSoftmax(g) y = ArgMax<axis=1, keepdims=0>(h)",
        {**ONE, **HEAD, "z": np.array([0])}, "(float[N,T,3] x) => (int64[N] y)",
        {"task": "classification", "host": True}),
    "some features, in another order": (
        "f = Gather<axis=2>(x, pick) s = Transpose<perm=[1,0,2]>(f) " + CELL + "q = Squeeze(Y, one) "
        "t = Transpose<perm=[1,0,2]>(q) y = Gather<axis=-1>(t, order)",
        {**weights(inputs=2), **STEPS, "pick": np.array([2, 0]), "order": np.array([4, 3, 2, 1, 0])}, None,
        {"cells": ["gru"], "head": True}),
    "zeros of the batch's size": (
        FRONT + "h = Shape(x) n = Gather<axis=0>(h, z0) u = Unsqueeze(n, z) w = Concat<axis=0>(one, u, units) "
        "i = ConstantOfShape(w) Y, Yh = GRU<hidden_size=5, linear_before_reset=1>(s, W, R, B, , i) q = Squeeze(Y, one)"
        " y = Transpose<perm=[1,0,2]>(q)",
        {**ONE, **STEPS, "z0": np.array(0), "z": np.array([0]), "units": np.array([5])}, None, {"cells": ["gru"]}),
    "a first state for every sequence": (
        FRONT + "h = Shape<start=0, end=1>(x) w = Concat<axis=0>(one, h, one) i = Expand(first, w) "
        "Y, Yh = GRU<hidden_size=5, linear_before_reset=1>(s, W, R, B, , i) q = Squeeze(Y, one)"
        " y = Transpose<perm=[1,0,2]>(q)", {**ONE, **STEPS, "first": matrix(1, 1, 5)}, None,
        {"cells": ["gru"], "initial": True}),
    "bounded": (
        FRONT + CELL + "q = Squeeze(Yh, z) g = Gemm(q, M, c) y = Clip(g, low, high)",
        {**ONE, **HEAD, "z": np.array([0]), "low": np.float32(-0.25), "high": np.float32(0.5)}, LAST,
        {"cells": ["gru"], "head": True}),
    "flattened for a product": (
        FRONT + CELL + "q = Squeeze(Y, one) t = Transpose<perm=[1,0,2]>(q) r = Reshape(t, rows) p = MatMul(r, M) "
        "h = Shape(x) n = Slice(h, z, two) k = Concat<axis=0>(n, two) y = Reshape(p, k)",
        {**ONE, **STEPS, **HEAD, "rows": np.array([-1, 5]), "z": np.array([0]), "two": np.array([2])},
        "(float[N,T,3] x) => (float[N,T,2] y)", {"cells": ["gru"], "head": True, "every_step": True}),
    "a decoder": (
        FRONT + CELL + "l = Squeeze(Yh, z) u = Unsqueeze(l, z) h = Shape(s) k = Slice(h, z, one) w = Concat<axis=0>(k, "
        "one, one) r = Expand(u, w) Z = LSTM<hidden_size=5>(r, W2, R2, B2) q = Squeeze(Z, one) "
        "y = Transpose<perm=[1,0,2]>(q)",
        {**ONE, **STEPS, "z": np.array([0]), **weights("LSTM", inputs=H, name="2")}, None,
        {"cells": ["gru", "lstm"], "encoder": 1, "every_step": True}),
}  # fmt: skip
del PATTERNS["scaler of sklearn"]  # needs its own test: the operator reads two axes in ONNX Runtime


def told(model):
    """What PATTERNS say of a model."""
    return {
        "every_step": model.every_step, "final_state": model.final_state, "task": model.task, "encoder": model.encoder,
        "head": model.head is not None, "cells": [f"{la.cell.name}{' reverse' * la.reverse}" for la in model.layers],
        "scaled": bool((model.input_scale != 1).all() and (model.output_scale != 1).all()),
        "initial": bool(model.layers[0].initial),
    }  # fmt: skip


@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_around_a_cell(name, tmp_path):
    text, constants, ends, due = PATTERNS[name]
    path = write(tmp_path / "n.onnx", text, constants, **({} if ends is None else {"ends": ends}))
    found, expected = compared(path, {"x": X})
    model, due = found.model, dict(due)
    if due.pop("host", False):
        assert any("is left to the host" in sentence for sentence in found.notes)
    else:
        np.testing.assert_allclose(model.predict(X), expected["y"], 2e-6, 2e-6)
    assert due.items() <= {k: v for k, v in told(model).items() if k in due}.items()
    again = tmp_path / "m.onnx"
    hwrnn.save(model, again)
    np.testing.assert_array_equal(hwrnn.load(again).predict(X), model.predict(X))


@pytest.mark.parametrize("kind", GATES)
@pytest.mark.parametrize("layout", ("time first", "batch first", "one sequence", "fixed sizes"))
def test_axes_are_found_out(kind, layout, tmp_path):
    """Where the batch and the time lie is nowhere written: the recurrent node tells."""
    node = f"Y, Yh = {kind}<hidden_size=5>(s, W, R, B) "
    text, ends, x = {
        "time first": ("s = Identity(x) " + node, "(float[a,b,3] x) => (float[a,1,b,5] Y, float[1,b,5] Yh)",
                       X.transpose(1, 0, 2)),
        "batch first": (FRONT + node, "(float[a,b,3] x) => (float[b,1,a,5] Y, float[1,a,5] Yh)", X),
        "one sequence": ("s = Unsqueeze(x, one) " + node, "(float[a,3] x) => (float[a,1,1,5] Y, float[1,1,5] Yh)",
                         X[0]),
        "fixed sizes": (FRONT + node, f"(float[{N},{T},3] x) => (float[{T},1,{N},5] Y, float[1,{N},5] Yh)", X),
    }[layout]  # fmt: skip
    path = write(tmp_path / "n.onnx", text, {**weights(kind), **STEPS}, ends=ends)
    found, expected = compared(path, {"x": np.ascontiguousarray(x)})
    y = expected["Y"].transpose(2, 0, 1, 3).reshape(-1, T, H)
    np.testing.assert_allclose(found.model.predict(X[: len(y)]), y, 2e-6, 2e-6)


@pytest.mark.parametrize("direction", ("forward", "reverse", "bidirectional"))
def test_sequences_of_several_lengths(direction, tmp_path):
    count = 1 + (direction == "bidirectional")
    text = f'{FRONT} Y, Yh = GRU<hidden_size=5, direction="{direction}">(s, W, R, B, lens)'
    ends = f"(float[N,T,3] x, int32[N] lens) => (float[T,{count},N,5] Y, float[{count},N,5] Yh)"
    path = write(tmp_path / "n.onnx", text, weights(directions=count), ends=ends)
    found, expected = compared(path, {"x": X, "lens": LENGTHS})
    lengths = LENGTHS.astype(np.int64)
    y = expected["Y"].transpose(2, 0, 1, 3).reshape(N, T, -1)
    np.testing.assert_allclose(found.model.predict(X, lengths), y, 2e-6, 2e-6)
    last = hwrnn.import_onnx(path, output="Yh").model
    due = expected["Yh"].transpose(1, 0, 2).reshape(N, -1)
    np.testing.assert_allclose(last.predict(X, lengths), due, 2e-6, 2e-6)
    for wrong in ([0, 1, 3, 6], [7, 1, 3, 6]):
        with pytest.raises(UsageError, match=f"Lengths must be between 1 and 6, not {min(wrong)} to {max(wrong)}"):
            found.run({"x": X, "lens": np.array(wrong, np.int32)})


@pytest.mark.parametrize("known", (True, False), ids=("sequence_lens", "without"))
@pytest.mark.parametrize("direction", ("forward", "bidirectional"))
def test_each_sequences_last_step(direction, known, tmp_path):
    """A step at the length minus 1, also of a layer that is not told the lengths and so runs on."""
    count = 1 + (direction == "bidirectional")
    text = (
        f'{FRONT} k = Cast<to=6>(lens) Y = GRU<hidden_size=5, direction="{direction}">(s, W, R, B{", k" * known}) '
        "t = Transpose<perm=[2,0,1,3]>(Y) r = Reshape(t, whole) l = Sub(lens, one) u = Unsqueeze(l, one) "
        "y = GatherND<batch_dims=1>(r, u)"
    )
    constants = {**weights(directions=count), **STEPS, "whole": np.array([0, 0, -1])}
    ends = f"(float[N,T,3] x, int64[N] lens) => (float[N,{5 * count}] y)"
    path = write(tmp_path / "n.onnx", text, constants, ends=ends)
    lengths = LENGTHS.astype(np.int64)
    found, expected = compared(path, {"x": X, "lens": lengths})
    if count == 2 and not known:
        with pytest.raises(UsageError, match="take all steps of 'the_GRU' or the last one, not step -1"):
            _ = found.model
    else:
        np.testing.assert_allclose(found.model.predict(X, lengths), expected["y"], 2e-6, 2e-6)


@pytest.mark.parametrize("back", (1, 2))
def test_each_sequences_last_step_by_pytorchs_gather(back, tmp_path):
    text = (
        FRONT + CELL + "q = Squeeze(Y, one) t = Transpose<perm=[1,0,2]>(q) l = Sub(lens, back) u = Reshape(l, form) "
        "e = Expand(u, wide) g = GatherElements<axis=1>(t, e) y = Squeeze(g, one)"
    )
    constants = {**ONE, **STEPS, "back": np.array([back]), "form": np.array([-1, 1, 1]), "wide": np.array([1, 1, H])}
    path = write(tmp_path / "n.onnx", text, constants, ends="(float[N,T,3] x, int64[N] lens) => (float[N,5] y)")
    if back == 2:
        with pytest.raises(UsageError, match=r"\(GatherElements\) must take the step at an input's lengths minus 1"):
            hwrnn.import_onnx(path)
        return
    lengths = LENGTHS.astype(np.int64)
    found, expected = compared(path, {"x": X, "lens": lengths})
    np.testing.assert_allclose(found.model.predict(X, lengths), expected["y"], 2e-6, 2e-6)


def test_a_vector_that_is_repeated_is_no_sequence(tmp_path):
    """Gathering the first vector six times makes six equal steps, of an input that has no steps."""
    text = "r = Gather<axis=0>(x, zeros) Y = GRU<hidden_size=5>(r, W, R, B) y = Squeeze(Y, one)"
    constants = {**ONE, **STEPS, "zeros": np.zeros(T, np.int64)}
    path = write(tmp_path / "n.onnx", text, constants, ends="(float[1,N,3] x) => (float[6,N,5] y)")
    found, _ = compared(path, {"x": X[:, :1].transpose(1, 0, 2)})
    with pytest.raises(UsageError, match="Output 'y' must read input 'x' step by step, not one vector for a sequence"):
        _ = found.model


def test_initial_states_are_inputs_or_zero(tmp_path):
    text = f"{FRONT} Y, Yh, Yc = LSTM<hidden_size=5>(s, W, R, B, , h0, c0) y = Squeeze(Y, one)"
    ends = "(float[N,T,3] x, float[1,N,5] h0, float[1,N,5] c0) => (float[T,N,5] y, float[1,N,5] Yc)"
    path = write(tmp_path / "n.onnx", text, {**weights("LSTM"), **STEPS}, ends=ends)
    states = {name: matrix(1, N, H, seed=k) for k, name in enumerate(("h0", "c0"))}
    found, _ = compared(path, {"x": X, **states})
    assert found.inputs == ("x", "h0", "c0") and found.outputs == ("y", "Yc") and found.output == "y"
    text = "Output 'y' must not depend on the initial states that the inputs 'c0', 'h0' hold: .*--initial zero"
    with pytest.raises(UsageError, match=text):
        _ = found.model
    with pytest.raises(UsageError, match="Input 'h0' must be given, to compute what depends on it"):
        found.run({"x": X})
    zero = hwrnn.import_onnx(path, initial="zero")
    assert zero.inputs == ("x",) and any("'h0', an initial state, is taken to be zero" in s for s in zero.notes)
    _, expected = compared(path, {"x": X, **{name: state * 0 for name, state in states.items()}}, initial="zero")
    np.testing.assert_allclose(zero.model.predict(X), expected["y"].transpose(1, 0, 2), 2e-6, 2e-6)


def test_constant_states_of_a_fixed_batch(tmp_path):
    ends = "(float[N,T,3] x) => (float[T,1,N,5] Y)"
    text = f"{FRONT} Y = GRU<hidden_size=5>(s, W, R, B, , h0)"
    alike = write(tmp_path / "a.onnx", text, {**ONE, "h0": np.repeat(matrix(1, 1, H), N, 1)}, ends=ends)
    found, expected = compared(alike, {"x": X})
    np.testing.assert_allclose(found.model.predict(X), expected["Y"][:, 0].transpose(1, 0, 2), 2e-6, 2e-6)
    with pytest.raises(UsageError, match="Input 'x' must have 4 sequences, not 2"):
        found.run({"x": X[:2]})
    other = write(tmp_path / "b.onnx", text, {**ONE, "h0": matrix(1, N, H)}, ends=ends)
    found, _ = compared(other, {"x": X})
    with pytest.raises(UsageError, match="whose sequences start with the same constant state, unlike those of 'the_G"):
        _ = found.model


def test_a_single_step_becomes_a_model_of_sequences(tmp_path):
    """Whoever keeps the state himself exports one step; hardware keeps the state."""
    text = "s = Unsqueeze(x, z) Y, Yh = GRU<hidden_size=5>(s, W, R, B, , h0) y = Squeeze(Y, both)"
    ends = "(float[N,3] x, float[1,N,5] h0) => (float[N,5] y, float[1,N,5] Yh)"
    constants = {**ONE, "z": np.array([0]), "both": np.array([0, 1])}
    path = write(tmp_path / "n.onnx", text, constants, ends=ends)
    compared(path, {"x": X[:, 0], "h0": matrix(1, N, H)})
    model = hwrnn.import_onnx(path, initial="zero").model
    step, state, due = hwrnn.import_onnx(path), np.zeros((1, N, H), np.float32), []
    for t in range(T):
        found = step.run({"x": X[:, t], "h0": state})
        state = found["Yh"]
        due.append(found["y"])
    np.testing.assert_allclose(model.predict(X), np.stack(due, 1), 2e-6, 2e-6)


@pytest.mark.parametrize("opset", (7, 9, 11, 13, 18, 21, 26))
def test_old_and_new_forms_of_operators(opset, tmp_path):
    """Axes, bounds and parts as attributes and as inputs."""
    new, constants = opset >= 13, {**ONE, **HEAD}
    front = "d = Dropout(x) s = Transpose<perm=[1,0,2]>(d) "
    if opset < 10:
        part = "p = Slice<starts=[-1], ends=[2147483647], axes=[0]>(Y) "
    else:
        part = "p = Slice(Y, a, b, z) "
        constants |= {"a": np.array([-1]), "b": np.array([2**31 - 1]), "z": np.array([0])}
    squeeze = "q = Squeeze(p, axes) " if new else "q = Squeeze<axes=[0,1]>(p) "
    constants |= {"axes": np.array([0, 1])} if new else {}
    clip = "k = Clip<min=-0.2, max=0.3>(g) " if opset < 11 else "k = Clip(g, low, high) "
    constants |= {} if opset < 11 else {"low": np.float32(-0.2), "high": np.float32(0.3)}
    split = "u, v = Split<axis=1, split=[1,1]>(k) " if not new else "u, v = Split<axis=1>(k, parts) "
    constants |= {"parts": np.array([1, 1])} if new else {}
    total = "w = ReduceSum<axes=[1]>(k) " if not new else "w = ReduceSum(k, last) "
    constants |= {"last": np.array([1])} if new else {}
    join = "y = Concat<axis=1>(v, u)"
    text = front + CELL + part + squeeze + "g = Gemm(q, M, c) " + clip + split + total + join
    ends = "(float[N,T,3] x) => (float[N,2] y, float[N,1] w)"
    path = write(tmp_path / "n.onnx", text, constants, opset=opset, ends=ends)
    found, expected = compared(path, {"x": X})
    np.testing.assert_allclose(hwrnn.import_onnx(path, output="w").model.predict(X), expected["w"], 2e-6, 2e-6)
    np.testing.assert_allclose(found.model.predict(X), expected["y"], 2e-6, 2e-6)


def test_softmax_meant_all_axes_behind_until_opset_13(tmp_path):
    """Of (N, 2, 5) the older one makes ten probabilities, the newer one twice five."""
    for opset in (11, 13):
        text = FRONT + BOTH + "t = Transpose<perm=[1,0,2]>(Yh) y = Softmax<axis=1>(t)"
        path = write(tmp_path / f"{opset}.onnx", text, TWO, opset=opset, ends="(float[N,T,3] x) => (float[N,2,5] y)")
        found, expected = compared(path, {"x": X})
        assert np.allclose(expected["y"].sum((1, 2)), 1) == (opset == 11)
        assert found.model.task == "classification"


def test_a_branch_that_is_known_is_taken(tmp_path):
    """PyTorch writes a Squeeze of a size it does not trust as an If."""
    text = (
        FRONT + CELL + "h = Shape(Y) n = Gather<axis=0>(h, one) e = Equal(n, one) k = If (e) <then_branch = a () => "
        "(float[T,N,5] r) { r = Squeeze(Y, one) }, else_branch = b () => (float[T,1,N,5] r2) { r2 = Identity(Y) }> "
        "y = Transpose<perm=[1,0,2]>(k)"
    )
    compared(write(tmp_path / "n.onnx", text, {**ONE, **STEPS}), {"x": X})


def test_local_functions_are_put_in_place(tmp_path):
    text = f"""<ir_version: 9, opset_import: ["": 18, "own": 1]>
        net (float[N,T,3] x) => (float[N,5] y) {{ y = own.network(x) }}
        <domain: "own", opset_import: ["": 18]> network (x) => (y) {{
            s = Transpose<perm=[1,0,2]>(x) {constants_text(ONE)}
            Y, Yh = GRU<hidden_size=5>(s, W, R, B) z = Constant<value_ints=[0]>() y = Squeeze(Yh, z) }}"""
    path = tmp_path / "n.onnx"
    onnx.save(parser.parse_model(text), path)
    compared(path, {"x": X})


def constants_text(arrays):
    parts = []
    for name, array in arrays.items():
        numbers = ",".join(repr(float(v)) for v in array.reshape(-1))
        parts.append(f"{name} = Constant<value = float[{','.join(map(str, array.shape))}] {{{numbers}}}>()")
    return " ".join(parts)


def test_a_scaler_of_sklearn(tmp_path):
    text = ("e = ai.onnx.ml.Scaler<offset=[1.0,2.0,3.0], scale=[0.5,2.0,1.5]>(x) s = Unsqueeze(e, one)"
            " Y, Yh = GRU<hidden_size=5>(s, W, R, B)")  # fmt: skip
    ends = "(float[T,3] x) => (float[T,1,1,5] Y, float[1,1,5] Yh)"
    found, _ = compared(write(tmp_path / "n.onnx", text, {**ONE, **STEPS}, ends=ends), {"x": X[0]})
    np.testing.assert_array_equal(found.model.input_mean, [1, 2, 3])
    np.testing.assert_array_equal(found.model.input_scale, [0.5, 2, 1.5])


def test_the_gru_that_pytorch_exported_wrongly(tmp_path):
    text = FRONT + "Y = GRU<hidden_size=5>(s, W, R, B)"
    ends = "(float[N,T,3] x) => (float[T,1,N,5] Y)"
    for producer, attribute in (("pytorch", ""), ("pytorch", ", linear_before_reset=1"), ("tf2onnx", "")):
        path = write(tmp_path / "n.onnx", text.replace("=5>", f"=5{attribute}>"), ONE, producer=producer, ends=ends)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            notes = hwrnn.import_onnx(path).notes
        trap = [str(w.message) for w in seen]
        assert len(trap) == (producer == "pytorch" and not attribute) and set(trap) <= set(notes)
    with pytest.warns(UserWarning, match=r"Node 'the_GRU' is a GRU that resets before the product .* file of PyTorch"):
        hwrnn.import_onnx(write(tmp_path / "n.onnx", text, ONE, producer="pytorch", ends=ends))


def test_doubles_are_computed_in_single_precision_with_a_note(tmp_path):
    ends = "(double[N,T,3] x) => (double[T,1,N,5] Y)"
    text = FRONT + "Y = GRU<hidden_size=5>(s, W, R, B)"
    path = write(tmp_path / "n.onnx", text, {k: v.astype(np.float64) for k, v in ONE.items()}, ends=ends)
    found = hwrnn.import_onnx(path)
    assert any("'the_GRU' is in float64; hwrnn computes in float32" in sentence for sentence in found.notes)
    assert found.run({"x": X.astype(np.float64)})["Y"].dtype == np.float64


def test_planted_faults_are_found(tmp_path, monkeypatch):
    """The comparison with ONNX Runtime sees a wrong step, a wrong order of elements and a forgotten offset."""
    text, constants, ends, _ = PATTERNS["both ways, last step"]
    path = write(tmp_path / "n.onnx", text, constants, ends=ends)
    compared(path, {"x": X})

    def first(self, columns, at, lengths=None, real=values.Sources.picked):
        return real(self, columns, 0 if at == -1 else at, lengths)

    def mixed(view, axis, indices, real=layouts.taken):
        return real(view, axis, indices[::-1] if indices.ndim else indices)

    text, constants, ends, _ = PATTERNS["some features, in another order"]
    other = write(tmp_path / "o.onnx", text, constants)
    for target, name, fault, file in (
        (values.Sources, "picked", first, path), (layouts, "taken", mixed, other),
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(target, name, fault)
            with pytest.raises(AssertionError, match="Not equal to tolerance"):
                compared(file, {"x": X})


# -- the parts ---------------------------------------------------------------------------------------------------------
def test_open_sizes():
    n, t = Size.of("n"), Size.of("t")
    assert n * t // n == t and (n * 6 * t) // (2 * t) == n * 3 and n - n == 0 and (n + 1) - n == 1
    assert repr(2 * n * t + 1) == "2*n*t + 1" and (2 * n * t + 1).value({"n": 3, "t": 4}) == 25
    assert equal(n, n) and not equal(n + 1, n) and not equal(n, -1) and not equal(2 * n, 1)
    assert hash(n) == hash(Size.of("n")) and n != t and 1 - n == -(n - 1)
    with pytest.raises(Undecided, match="whether n is 3 is not known before the network runs"):
        equal(n, 3)
    for divided in (lambda: n // t, lambda: n // 2, lambda: n // (n + 1), lambda: 6 // n):
        with pytest.raises(Undecided, match="divides"):
            divided()
    with pytest.raises(Undecided, match="too long a sum or product"):
        power = n
        for _ in range(20):
            power = power * n


@pytest.mark.parametrize("name", [n for n, (base, *_) in ACTIVATIONS.items() if base in ("relu", "sigmoid", "tanh")])
def test_functions_without_parameters_have_none(name):
    assert function_named(name).name == ACTIVATIONS[name][0]
    with pytest.raises(ValueError, match=f"have no alpha for {name}, which has none"):
        function_named(name, 0.5)


def test_functions_that_the_catalogue_has_by_other_names():
    for name, alpha, beta, due in (
        ("HardSigmoid", None, None, "hard_sigmoid_1_5"), ("HardSigmoid", 0.25, 0.5, "hard_sigmoid"),
        ("HardSigmoid", 1, 0, "relu1"), ("Affine", 1, 0, "identity"), ("LeakyRelu", 0.125, None, "leaky_relu:3"),
    ):  # fmt: skip
        assert function_named(name, alpha, beta).name == due
    with pytest.raises(ValueError, match=r"have an activation of Relu, .*, not 'sinus'"):
        function_named("sinus")


# -- the command line --------------------------------------------------------------------------------------------------
def test_the_verb_takes_networks_of_other_tools(tmp_path, capsys):
    text, constants, ends, _ = PATTERNS["probabilities"]
    path, made = write(tmp_path / "n.onnx", text, constants, producer="somebody", ends=ends), str(tmp_path / "m.onnx")
    assert main(["import", str(path), "-o", made]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "Note: Softmax is left to the host: the model gives what it reads.\n" in out
    model = hwrnn.load(made)
    assert model.task == "classification" and model.facts["imported"] == "somebody"
    np.savez(tmp_path / "d.npz", x=X, y=np.arange(N) % 2)
    assert main(["import", str(path), "--data", str(tmp_path / "d.npz"), "--json", "-o", made]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy"] == np.mean(model.predict(X).argmax(1) == np.arange(N) % 2) and found["losses"] == {}
    assert found["notes"] and found["nonlinearities"] == {"0": ["sigmoid", "tanh"]}
    words = ["import", str(path), "--activations", "hard", "--data", str(tmp_path / "d.npz"), "-o", made]
    assert main([*words, "--json"]) == 0
    assert hwrnn.load(made).layers[0].cell.phi.name == "hard_tanh"
    assert json.loads(capsys.readouterr().out)["losses"]["exchanged"]["before"] == found["accuracy"]
    assert main(["import", str(path), "--task", "regression", "-o", made]) == 0
    assert hwrnn.load(made).task == "regression"


def test_the_verb_tells_what_a_layer_computes_with(tmp_path, capsys):
    text, constants, ends, _ = PATTERNS["dense before, between and behind"]
    path = write(tmp_path / "n.onnx", text, constants, ends=ends)
    assert main(["import", str(path), "-o", str(tmp_path / "m.onnx")]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("layer")]
    assert rows == [
        ["layer", "0,", "function", "relu"], ["layer", "1,", "gates", "and", "state", "sigmoid,", "tanh"],
        ["layer", "2,", "function", "tanh"],
    ]  # fmt: skip


@pytest.mark.filterwarnings("default")
def test_options_of_the_verb(tmp_path, capsys):
    text = f"{FRONT} Y, Yh = GRU<hidden_size=5>(s, W, R, B, , h0)"
    ends = "(float[N,T,3] x, float[1,N,5] h0) => (float[T,1,N,5] Y, float[1,N,5] Yh)"
    path, made = write(tmp_path / "n.onnx", text, ONE, ends=ends), str(tmp_path / "m.onnx")
    assert main(["import", str(path), "--initial", "zero", "--take", "Yh", "-o", made]) == 0
    assert "Note: Input 'h0', an initial state, is taken to be zero.\n" in capsys.readouterr().out
    assert hwrnn.load(made).every_step is False
    own = ["import", made, "-o", str(tmp_path / "k.onnx")]
    for words, sentence in (
        (["import", str(path), "-o", made], "Output 'Y' must not depend on the initial states that the inputs 'h0'"),
        (["import", str(path), "--initial", "zero", "--data", "d", "--finetune", "2", "-o", made],
         "Fine-tuning must come with other nonlinearities to train on with: give --activations"),
        (own, "Activations must be given for a model of hwrnn, which is one already: give --activations"),
        ([*own, "--take", "y"], f"Option --take must be given for files of other tools, not for {made!r}"),
    ):  # fmt: skip
        assert main(words) == 2
        assert capsys.readouterr().err.startswith(f"hwrnn: {sentence}")
    assert main([*own, "--activations", "hard"]) == 0
    assert capsys.readouterr().err == "hwrnn: What the new nonlinearities cost could not be measured: give --data\n"
