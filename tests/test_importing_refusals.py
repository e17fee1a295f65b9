"""Networks of standard ONNX that are not understood, or are no model: refused by operator, node and reason."""

import re

import numpy as np
import pytest
from foreign import (
    BOTH,
    CELL,
    FRONT,
    LENGTHS,
    ONE,
    STEPS,
    F,
    N,
    T,
    X,
    compared,
    matrix,
    weights,
    write,
)  # fmt: skip

import hwrnn
from hwrnn.errors import UsageError
from hwrnn.importing.graph import Node
from hwrnn.importing.operators import OPERATORS


def bare(attributes="hidden_size=5", inputs="s, W, R, B", outputs="Y", kind="GRU"):
    return f"{FRONT} {outputs} = {kind}<{attributes}>({inputs})"


Y = "(float[N,T,3] x) => (float[T,1,N,5] Y)"
ANY = "(float[N,T,3] x) => (float y)"
#: The nodes, changes of the constants, the ends of the graph, and the sentence.
REFUSALS = {
    "an operator": (bare() + " y = Conv(Y, W)", {}, ANY, r"Node 'the_Conv' \(Conv\) must be of an operator that hwrnn"),
    "another domain": (bare() + " y = other.Thing(Y)", {}, ANY, r"\(other.Thing\) must be of an operator that hwrnn"),
    "a direction": (bare('hidden_size=5, direction="up"'), {}, Y, "a direction of forward, reverse, bidi.*'up'"),
    "a layout": (bare("hidden_size=5, layout=2"), {}, Y, r"Node 'the_GRU' \(GRU\) must have layout 0 or 1, not 2"),
    "a wrong size": (bare("hidden_size=4"), {}, Y, r"have W of shape \(1, 12, inputs\) and R of shape \(1, 12, 4\)"),
    "a clip": (bare("hidden_size=5, clip=-1.0"), {}, Y, "must have a clip above 0, not -1.0"),
    "few activations": (bare('hidden_size=5, activations=["Tanh"]'), {}, Y, "must have 2 activations, not 1"),
    "an activation": (bare('hidden_size=5, activations=["Tanh","Sin"]'), {}, Y, "have activations of Relu, .*'Sin'"),
    "an alpha left out": (bare('hidden_size=5, activations=["Sigmoid","Affine"]'), {}, Y,
                          "have activation_alpha for Affine: runtimes do not agree on what it is without"),
    "an alpha too many": (bare("hidden_size=5, activation_alpha=[0.5]"), {}, Y, "many values of activation_alpha"),
    "computed weights": (FRONT + "P = Transpose<perm=[1,2,0]>(s) Y = GRU<hidden_size=5>(s, P, R, B)", {}, Y,
                         "must have a constant as W, not a computed value"),
    "weights not finite": (bare(), {"W": ONE["W"] * np.float32(np.inf)}, Y, "must be finite"),
    "types mixed": (bare(), {"W": ONE["W"].astype(np.float64)}, Y, "must have numbers of one type, not of float32 "),
    "peepholes of a wrong shape": (bare(inputs="s, W4, R4, B4, , , , P", kind="LSTM"), {"P": matrix(1, 5)}, Y,
                                   r"must have P of shape \(1, 15\), not \(1, 5\)"),
    "three axes": ("Y = GRU<hidden_size=5>(x, W, R, B)", {}, "(float[T,3] x) => (float[T,1,N,5] Y)",
                   "must have an X of three axes, not 2"),
    "other features": (bare(), {}, "(float[N,T,4] x) => (float[T,1,N,5] Y)", "have 3 features along axis 2 of X.* 4"),
    "lengths computed": (bare(inputs="s, W, R, B, twice") .replace("Y =", "twice = Add(lens, lens) Y ="), {},
                         "(float[N,T,3] x, int32[N] lens) => (float[T,1,N,5] Y)",
                         r"\(Add\) must compute with floats, not with computed int32 numbers"),
    "the mean of nothing": (bare() + " m = ReduceMean(c) y = Mul(Y, m)", {"c": np.zeros((0, 3), np.float32)}, ANY,
                            r"\(ReduceMean\) must reduce at least one number"),
    "two lower bounds": (bare() + " y = Clip(Y, c)", {"c": np.zeros(2, np.float32)}, ANY,
                         r"\(Clip\) must have one number as min, not 2"),
    "the mean of the steps": (bare() + " y = ReduceMean<axes=[0]>(Y)", {}, ANY,
                              r"\(ReduceMean\) must not reduce it: the time steps lie along axis 0"),
    "some of the steps": (bare() + " y = Slice(Y, one, three)", {"three": np.array([3])}, ANY,
                          r"\(Slice\) must take all steps or one along axis 0, not a part of them"),
    "a sequence": (bare() + " y = Gather<axis=2>(Y, one)", {}, ANY, r"\(Gather\) must not take some of the seq"),
    "steps as features": (bare() + " y = Reshape(Y, flat)", {"flat": np.array([-1, 10])}, ANY,
                          r"\(Reshape\) must have a shape that keeps batch, time and features apart, not "),
    "joined steps": (bare() + " y = Concat<axis=0>(Y, Y)", {}, ANY, r"\(Concat\) must not join along it: the ti"),
    "a product of two": (bare() + " y = Mul(Y, Y)", {}, ANY, r"\(Mul\) must have a constant among its values"),
    "softmax over time": (bare() + " y = Softmax<axis=0>(Y)", {}, ANY, r"must not have Softmax there: the time "),
    "constants per step": (bare() + " y = Add(Y, rows)", {"rows": matrix(T, 1, 1, 1)}, ANY.replace("N,T", "4,6"),
                           "compute with constants that are the same for every sequence and every step"),
    "an embedding": ("e = Gather(E, ids) Y = GRU<hidden_size=5>(e, W, R, B)", {"E": matrix(7, 3)},
                     "(int64[T,N] ids) => (float[T,1,N,5] Y)", "a table of vectors .an embedding. is no layer of hw"),
    "a condition": (bare() + " h = Shape(x) e = Equal(h, three) g = Gather(e, z0) y = If (g) <then_branch = a () => "
                    "(float[N] r) { r = Identity(Y) }, else_branch = b () => (float[N] r2) { r2 = Identity(Y) }>",
                    {"three": np.array([3]), "z0": np.array(0)}, ANY,
                    r"\(Equal\) must not depend on sizes that the file leaves open: whether "),
    "an attribute of a later version": (bare() + " q = Squeeze<axes=[1]>(Y) y = Identity(q)", {}, ANY,
                                        "have no attribute 'axes'|Unrecognized attribute: axes"),
    "no recurrent node": ("y = Relu(x)", {}, ANY, "Network must hold an RNN, GRU or LSTM node, not only Relu: "),
    "training": (bare() + " y = Dropout(Y, half, true)", {"half": np.float32(0.5), "true": np.array(True)}, ANY,
                 r"\(Dropout\) must have training_mode false: export the network for inference"),
    "two axes of time": ("f = Slice(x, last, end, one) r = RNN<hidden_size=5>(f, WR, RR, BR) y = Identity(r)",
                         {"last": np.array([-1]), "end": np.array([2**62]),
                          **{f"{k}R": v for k, v in weights("RNN").items()}}, ANY,
                         "Input 'x' must have one axis of time, not two: a node takes one step of one, and a"),
    "a cell for a constant": ("Y = GRU<hidden_size=5>(s0, W, R, B) y = Add(Y, Y)", {"s0": matrix(T, N, F)}, ANY,
                              "must read the network's input, not a constant"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_not_understood_is_refused(name, tmp_path):
    text, changes, ends, sentence = REFUSALS[name]
    constants = {**ONE, **STEPS, **{f"{k}4": v for k, v in weights("LSTM").items()}, **changes}
    used = {k: v for k, v in constants.items() if re.search(rf"\b{k}\b", text)}
    path = write(tmp_path / "n.onnx", text, used, ends=ends)
    with pytest.raises(UsageError, match=sentence):
        hwrnn.import_onnx(path)


#: Networks that run, and whose outputs are no model: the nodes, the ends, and the sentence.
NO_MODELS = {
    "a cell state": ("Y, Yh, Yc = LSTM<hidden_size=5>(s, W4, R4, B4) y = Squeeze(Yc, z)",
                     "not read the cell state of 'the_LSTM', which hardware keeps to itself"),
    "an early step": (CELL + "y = Gather<axis=0>(Y, two)", "take all steps of 'the_GRU' or the last one, not step 2"),
    "steps turned": (CELL + "y = Slice(Y, m1, low, z, m1)", "have the steps of 'the_GRU' in the order of time, not in"),
    "a way around a layer": (
        CELL + "q = Squeeze(Y, one) k = Concat<axis=2>(q, s) Z = LSTM<hidden_size=5>(k, W8, R8, B8) "
        "y = Squeeze(Z, one)",
        "come from layers one behind the other: here a layer reads several that are not side by side"),
    "a mixture": (BOTH.replace("W, R, B", "W7, R7, B7") + "l = Gather<axis=0>(Y, end) y = Concat<axis=2>(Yh, l)",
                  "take one kind of results of layers side by side, not"),
    "a constant": (CELL + "y = Add(one, one)", "depend on the network's input, to be a model's"),
    "a last step that is not the sequence's": (
        "Y = GRU<hidden_size=5>(s, W, R, B, lens) y = Gather<axis=0>(Y, end)",
        r"take the last state \(Y_h\) of 'the_GRU' rather than its output at the last step, which is 0 where"),
    "lengths that are constant": (
        "Y = GRU<hidden_size=5>(s, W, R, B, fixed) y = Squeeze(Y, one)",
        "not depend on the constant sequence_lens of 'the_GRU': make them an input"),
    "softmax in between": (CELL + "q = Squeeze(Y, one) p = Softmax(q) Z = LSTM<hidden_size=5>(p, W5, R5, B5) "
                           "y = Squeeze(Z, one)", "come from layers one behind the other"),
}  # fmt: skip


@pytest.mark.parametrize("name", NO_MODELS)
def test_what_is_understood_and_is_no_model_is_told(name, tmp_path):
    text, sentence = NO_MODELS[name]
    constants = {
        **ONE, **STEPS, "z": np.array([0]), "two": np.array(2), "m1": np.array([-1]), "low": np.array([-(2**62)]),
        "end": np.array(-1), "fixed": LENGTHS, **{f"{k}4": v for k, v in weights("LSTM").items()},
        **weights(directions=2, name="7"), **weights("LSTM", inputs=8, name="8"), **weights("LSTM", inputs=5, name="5"),
    }  # fmt: skip
    used = {k: v for k, v in constants.items() if re.search(rf"\b{k}\b", text)}
    more, feeds = (", int32[N] lens", {"lens": LENGTHS}) if "lens)" in text else ("", {})
    kind = "int64" if name == "a constant" else "float"
    path = write(tmp_path / "n.onnx", FRONT + text, used, ends=f"(float[N,T,3] x{more}) => ({kind} y)")
    found, _ = compared(path, {"x": X, **feeds})
    with pytest.raises(UsageError, match=f"Output 'y' must {sentence}"):
        _ = found.model


def test_outputs_are_named_and_told(tmp_path):
    ends = "(float[N,T,3] x) => (float[T,1,N,5] Y, float[1,N,5] Yh, float[T] other)"
    path = write(tmp_path / "n.onnx", FRONT + CELL + "other = Det(Y)", ONE, ends=ends)
    found = hwrnn.import_onnx(path)
    assert found.outputs == ("Y", "Yh")
    assert "The model gives output 'Y'; not taken: 'Yh'" in found.notes
    assert any(note.startswith("Output 'other' is not understood: Node 'the_Det' (Det) must") for note in found.notes)
    assert hwrnn.import_onnx(path, output="Yh").model.every_step is False
    with pytest.raises(UsageError, match="Output must be one of 'Y', 'Yh', 'other', not 'Z'"):
        hwrnn.import_onnx(path, output="Z")
    with pytest.raises(UsageError, match=r"\(Det\) must be of an operator"):
        hwrnn.import_onnx(path, output="other")
    with pytest.raises(UsageError, match="Initial states must be zero or, left out, inputs as in the file, not 'one'"):
        hwrnn.import_onnx(path, initial="one")
    with pytest.raises(UsageError, match="Task must be classification or regression, not 'guessing'"):
        hwrnn.import_onnx(path, task="guessing")
    assert hwrnn.import_onnx(path, task="classification").model.task == "classification"


@pytest.mark.parametrize(
    ("feeds", "text"),
    [
        ({"z": X}, "Inputs must be those of the network, 'x', not 'z'"),
        ({"x": X[0]}, r"Input 'x' must have 3 axes, none of size 0, not the shape \(6, 3\)"),
        ({"x": X[:, :, :2]}, r"Input 'x' must have 3 features, not 2 as in \(4, 6, 2\)"),
        ({"x": X * np.float32(np.nan)}, "Input 'x' must be finite: remove or fill"),
        ({"x": X > 0}, "Input 'x' must hold float32 numbers, not bool"),
        ({}, "Input 'x' must be given, to compute what depends on it"),
    ],
)
def test_wrong_feeds_are_refused(feeds, text, tmp_path):
    found = hwrnn.import_onnx(write(tmp_path / "n.onnx", bare(), ONE, ends=Y))
    with pytest.raises(UsageError, match=text):
        found.run(feeds)


# -- nothing is accepted and ignored -----------------------------------------------------------------------------------
def test_what_a_handler_does_not_read_is_refused(tmp_path, monkeypatch):
    """A handler that forgets an attribute, an input or an output cannot get away with it."""
    path = write(tmp_path / "n.onnx", bare() + " y = Dropout(Y, half)", {**ONE, "half": np.float32(0.5)}, ends=ANY)
    fine = OPERATORS["Dropout"]
    assert hwrnn.import_onnx(path).outputs == ("y",)
    for careless, text in (
        (lambda node, net: [node.value(0)], "have no input 1, which hwrnn does not read there"),
        (lambda node, net: [node.value(0) for _ in fine(node, net)], None),
    ):
        monkeypatch.setitem(OPERATORS, "Dropout", careless)
        if text is None:
            hwrnn.import_onnx(path)
            continue
        with pytest.raises(UsageError, match=text):
            hwrnn.import_onnx(path)
    monkeypatch.undo()
    careful = OPERATORS["GRU"]
    monkeypatch.setitem(OPERATORS, "GRU", lambda node, net: careful(_Blind(node), net))
    with pytest.raises(UsageError, match="must have no attribute 'hidden_size', which hwrnn does not know there"):
        hwrnn.import_onnx(path)
    other = write(tmp_path / "o.onnx", bare() + " u, v = Split<axis=3>(Y, parts) y = Concat<axis=3>(u, v)",
                  {**ONE, "parts": np.array([2, 3])}, ends=ANY)  # fmt: skip
    monkeypatch.undo()
    splits = OPERATORS["Split"]
    monkeypatch.setitem(OPERATORS, "Split", lambda node, net: list(splits(node, net))[:1])
    with pytest.raises(UsageError, match="must not be asked for output 1, which hwrnn does not give"):
        hwrnn.import_onnx(other)


def test_values_that_break_a_handler_are_refused(tmp_path, monkeypatch):
    def broken(node, net):
        node.value(0)
        return [np.zeros(3).reshape(2)]

    monkeypatch.setitem(OPERATORS, "Relu", broken)
    path = write(tmp_path / "n.onnx", bare() + " y = Relu(Y)", ONE, ends=ANY)
    with pytest.raises(UsageError, match=r"Node 'the_Relu' \(Relu\) must have values that fit its operator \(can"):
        hwrnn.import_onnx(path)


def test_a_file_cannot_ask_for_endless_work(tmp_path, monkeypatch):
    text = FRONT + "Y = GRU<hidden_size=5>(s, W, R, B) y = Expand(Y, huge)"
    path = write(tmp_path / "n.onnx", text, {**ONE, "huge": np.array([1, 2**24, 1, 1])}, ends=ANY)
    with pytest.raises(UsageError, match=r"Network must take at most .* numbers to understand, not more"):
        hwrnn.import_onnx(path)
    monkeypatch.setattr("hwrnn.importing.operators._MOST_VISITS", 3)
    with pytest.raises(UsageError, match="Network must be understood in 3 looks at its nodes, not in more"):
        hwrnn.import_onnx(write(tmp_path / "n.onnx", bare(), ONE, ends=Y))


class _Blind(Node):
    """A node whose reader forgets one attribute."""

    def __init__(self, node):
        self.__dict__ = node.__dict__

    def integer(self, name, default=None):
        return default if name == "hidden_size" else super().integer(name, default)
