"""The cells' lines against textbook equations, and their recorded form against their float flow."""

import numpy as np
import pytest

from hwrnn.activations import NONLINEARITIES, nonlinearity
from hwrnn.cells import CELLS, Cell, Dense, Values, catalogued, cell_named, phase
from hwrnn.model import Layer, build_model
from hwrnn.trace import trace

NAMES = list(CELLS)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def textbook(name, w, u, b, x, old, peepholes=None):
    """One step of a cell with sigmoid gates and tanh, from per-gate matrices; written from the papers."""
    s = {}
    h = old["h"]
    a = {gate: w[gate] @ x + b[gate] if gate in w else b[gate] for gate in b}
    if name == "rnn":
        s["h"] = np.tanh(a["h"] + u["h"] @ h)
    elif name == "lstm":
        s["i"], s["f"], s["o"] = (sigmoid(a[gate] + u[gate] @ h) for gate in "ifo")
        s["g"] = np.tanh(a["g"] + u["g"] @ h)
        s["c"] = s["f"] * old["c"] + s["i"] * s["g"]
        s["h"] = s["o"] * np.tanh(s["c"])
    elif name == "lstm-coupled":
        s["i"], s["o"] = (sigmoid(a[gate] + u[gate] @ h) for gate in "io")
        s["c"] = (1 - s["i"]) * old["c"] + s["i"] * np.tanh(a["g"] + u["g"] @ h)
        s["h"] = s["o"] * np.tanh(s["c"])
    elif name.startswith("lstm-peephole"):
        i = s["i"] = sigmoid(a["i"] + u["i"] @ h + peepholes["i"] @ old["c"])
        f = 1 - i if name.endswith("coupled") else sigmoid(a["f"] + u["f"] @ h + peepholes["f"] @ old["c"])
        s["c"] = f * old["c"] + i * np.tanh(a["g"] + u["g"] @ h)
        s["o"] = sigmoid(a["o"] + u["o"] @ h + peepholes["o"] @ s["c"])
        s["h"] = s["o"] * np.tanh(s["c"])
    elif name == "gru":
        s["r"], s["z"] = (sigmoid(a[gate] + u[gate] @ h) for gate in "rz")
        s["n"] = np.tanh(a["nx"] + s["r"] * (u["nh"] @ h + b["nh"]))
        s["h"] = (1 - s["z"]) * s["n"] + s["z"] * h
    elif name == "gru-reset-before":
        s["r"], s["z"] = (sigmoid(a[gate] + u[gate] @ h) for gate in "rz")
        s["n"] = np.tanh(a["n"] + u["n"] @ (s["r"] * h))
        s["h"] = (1 - s["z"]) * s["n"] + s["z"] * h
    elif name == "ligru":
        s["z"], s["n"] = sigmoid(a["z"] + u["z"] @ h), np.tanh(a["n"] + u["n"] @ h)
        s["h"] = s["z"] * h + (1 - s["z"]) * s["n"]
    elif name == "mingru":
        s["z"], s["n"] = sigmoid(a["z"]), np.tanh(a["n"])
        s["h"] = (1 - s["z"]) * h + s["z"] * s["n"]
    return s


def random_layer(name, sigma="sigmoid", phi="tanh", clip=None, seed=0):
    if name == "dense":
        cell = Dense(phi=nonlinearity(phi))
    else:
        cell = cell_named(name, sigma if CELLS[name].gated else None, phi, clip)
    rng = np.random.default_rng(seed)
    shapes = Layer.shapes(cell, 3, 5)
    return Layer(cell, 3, 5, {key: rng.standard_normal(shape) for key, shape in shapes.items()})


@pytest.mark.parametrize("name", NAMES)
def test_float_steps_equal_the_textbook(name):
    layer, rng = random_layer(name), np.random.default_rng(1)
    gates = {gate: reads for p in layer.cell.phases for gate, reads in p.gates.items()}
    w = {gate: layer.block(gate, "x") for gate, reads in gates.items() if "x" in reads}
    u = {gate: layer.block(gate, o) for gate, reads in gates.items() for o in reads if o in ("h", "p")}
    peepholes = {gate: layer.block(gate, "c") for gate, reads in gates.items() if "c" in reads}
    b = {gate: layer.block(gate, "b") for gate in gates}
    old = {state: rng.standard_normal(5) for state in layer.cell.states}
    for _ in range(4):
        x = rng.standard_normal(3)
        s = layer.step(x[None], {state: value[None] for state, value in old.items()})
        expected = textbook(name, w, u, b, x, old, peepholes)
        for value, right in expected.items():
            assert np.allclose(getattr(s, value)[0], right, rtol=0, atol=1e-12), value
        old = {state: expected[state] for state in layer.cell.states}


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_is_in_the_textbook(name):
    layer = random_layer(name)
    zero = np.zeros(5)
    gates = layer.cell.gates
    matrices = {gate: np.zeros((5, 5)) for gate in gates}
    old = dict.fromkeys(layer.cell.states, zero)
    assert "h" in textbook(name, {}, matrices, dict.fromkeys(gates, zero), None, old, matrices)


@pytest.mark.parametrize("clip", [None, 0.25])
def test_the_cell_state_is_clipped_where_a_clip_is_given(clip):
    layer = random_layer("lstm", clip=clip, seed=3)
    old = {"h": np.ones((1, 5)), "c": np.full((1, 5), 3.0)}
    s = layer.step(np.ones((1, 3)), old)
    raw = s.f * 3.0 + s.i * s.g
    assert np.array_equal(s.c, raw if clip is None else raw.clip(-clip, clip))
    assert np.allclose(s.h, s.o * np.tanh(s.c), rtol=0, atol=0)


def replay(cell, gates, olds):
    """Run a cell's trace on float arrays."""
    lines, values = trace(cell), []
    for op in lines.operations:
        args = [values[k] for k in op.args]
        values.append(
            {
                "gate": lambda op=op: gates[op.name],
                "old": lambda op=op: olds[op.name],
                "constant": lambda op=op: op.value,
                "add": lambda args=args: args[0] + args[1],
                "sub": lambda args=args: args[0] - args[1],
                "mul": lambda args=args: args[0] * args[1],
                "apply": lambda op=op, args=args: op.function(args[0]),
                "store": lambda args=args: args[0],
            }[op.kind]()
        )
    return {name: values[k] for name, k in lines.stores.items()}


@pytest.mark.parametrize("phi", ["tanh", "leaky_relu", "hard_tanh"])
@pytest.mark.parametrize("sigma", ["sigmoid", "hard_sigmoid_3_16", "relu"])
@pytest.mark.parametrize("name", [*NAMES, "dense"])
def test_a_replayed_trace_equals_the_float_flow(name, sigma, phi):
    clip = 0.5 if name == "lstm" else None
    layer, rng, seen = random_layer(name, sigma, phi, clip), np.random.default_rng(2), {}
    old = {state: rng.standard_normal((4, 5)) for state in layer.cell.states}
    layer.step(rng.standard_normal((4, 3)), old, lambda value, array, n: seen.update({value: array}))
    gates = {value[2:]: array for value, array in seen.items() if value.startswith("a.")}
    assert set(gates) == set(layer.cell.gates)
    result = replay(layer.cell, gates, old)
    assert {*result} == {value for value in seen if not value.startswith("a.")}
    for value, array in result.items():
        assert np.array_equal(array, seen[value]), value


@pytest.mark.parametrize("name", [*NAMES, "dense"])
def test_traces_know_their_phases(name):
    cell = random_layer(name).cell
    lines = trace(cell)
    assert set(lines.stores) >= {*cell.states, cell.output}
    assert set(lines.gates) == set(cell.gates) and set(lines.olds) == set(cell.states)
    stored = [value for k in range(len(cell.phases)) for value in lines.stored_in(k)]
    assert sorted(stored) == sorted(lines.stores)
    for k, p in enumerate(cell.phases):
        readable = {"x", *cell.states, *(v for earlier in range(k) for v in lines.stored_in(earlier))}
        assert set(p.operands) <= readable, "an operand must be the input, an old state or stored before"
        assert p.operands[0] == "x"
        assert {gate for o in p.operands for gate in p.rows(o)} == set(p.gates)
    for index, op in enumerate(lines.operations):
        assert all(arg < index for arg in op.args)
        assert all(index in lines.operations[reader].args for reader in lines.readers(index))


def test_values_that_cross_phases():
    lines = trace(cell_named("gru-reset-before"))
    assert lines.crossing(0) == () and lines.crossing(1) == ("z",)
    assert lines.olds_of(0) == ("h",) and lines.olds_of(1) == ("h",)
    assert lines.stored_in(0) == ("r", "z", "p") and lines.stored_in(1) == ("n", "h")


def test_the_catalogue():
    older = ["rnn", "lstm", "gru", "gru-reset-before", "ligru", "mingru"]
    assert [*older, "lstm-peephole", "lstm-coupled", "lstm-peephole-coupled"] == NAMES
    for name, cls in CELLS.items():
        assert cls.name == name and cls.__doc__
        for p in cls.phases:
            assert getattr(cls, p.combine).__doc__
        gates = [gate for p in cls.phases for gate in p.gates]
        assert len(gates) == len(set(gates))
        assert set(cls.bias) <= set(gates)
        assert {cls.default_sigma, cls.default_phi} <= set(NONLINEARITIES)


def test_the_order_of_rows():
    """Model files store parameters in this order."""
    rows = {"rnn": "h", "lstm": "i f o g", "gru": "r z nx nh", "gru-reset-before": "r z n"}
    rows |= {"ligru": "z n", "mingru": "z n", "lstm-peephole": "i f g o", "lstm-coupled": "i o g"}
    rows |= {"lstm-peephole-coupled": "i g o"}
    assert {name: " ".join(cell_named(name).gates) for name in NAMES} == rows


def test_defaults():
    assert cell_named("ligru").phi.name == "relu1" and cell_named("lstm").sigma.name == "hard_sigmoid"
    assert cell_named("lstm", "sigmoid", "tanh", 2).clip == 2
    assert build_model(2, 2, cell="lstm").layers[0].block("f", "b").tolist() == [1.0] * 32


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ("elman",),
            "Cell must be one of rnn, lstm, gru, gru-reset-before, ligru, mingru, lstm-peephole, lstm-coupled,"
            " lstm-peephole-coupled, not 'elman'",
        ),
        (
            ("gru", None, None, None, "relu"),
            "Output nonlinearity must be given to a cell with a cell state, not to 'gru'",
        ),
        (("gru", None, None, 2.0), "Cell clip must be given to a cell with a cell state, not to 'gru'"),
        (("lstm", None, None, -2.0), "Clip must be a positive multiple of 1/256 up to 65536, not -2.0"),
    ],
)
def test_errors(arguments, text):
    with pytest.raises(ValueError) as caught:
        cell_named(*arguments)
    assert str(caught.value) == text


@pytest.mark.parametrize("name", [name for name, cls in CELLS.items() if "c" in cls.states])
def test_an_output_nonlinearity_of_its_own(name):
    """It changes what leaves, and the cell state as little as the state's nonlinearity does without it."""
    own, plain = (cell_named(name, "sigmoid", "tanh", 2, psi) for psi in ("relu", None))
    rng = np.random.default_rng(0)
    assert own.functions == {**plain.functions, "psi": NONLINEARITIES["relu"]} and "psi" not in plain.functions
    gates = {gate: rng.standard_normal(9) for gate in own.gates}
    old = {state: rng.standard_normal(9) for state in own.states}
    shown, as_ever = replay(own, gates, old), replay(plain, gates, old)
    assert np.array_equal(shown["c"], as_ever["c"])
    assert np.array_equal(shown["h"], shown["o"] * np.maximum(shown["c"], 0))
    assert np.array_equal(as_ever["h"], shown["o"] * np.tanh(shown["c"]))


def test_values_have_names():
    s = Values({"h": 1})
    with pytest.raises(AttributeError, match=r"^No value of this cell is named 'q'$"):
        s.q  # noqa: B018
    with pytest.raises(AttributeError, match=r"^Pre-activation 'h' must not be assigned$"):
        s.h = 2


class Twice(Cell):
    """Stores a value twice."""

    name = "twice"
    phases = (phase("combine", h="x h"),)

    def combine(self, a, s):
        s.h = self.phi(a.h)
        s.h = s.h + a.h


class Forgetful(Cell):
    """Has a state that it does not store."""

    name = "forgetful"
    states = ("h", "c")
    phases = (phase("combine", h="x h"),)

    def combine(self, a, s):
        s.h = self.phi(a.h)


def test_a_trace_refuses_what_hardware_could_not_do():
    with pytest.raises(ValueError, match=r"^Value 'h' must be stored once in a step, not twice$"):
        trace(Twice())
    with pytest.raises(ValueError, match=r"^Cell forgetful must store c in every step$"):
        trace(Forgetful())


def test_a_cell_enters_the_catalogue_by_its_decorator():
    try:
        catalogued("twice")(Twice)
        assert isinstance(cell_named("twice"), Twice)
    finally:
        CELLS.pop("twice", None)


class Constant(Cell):
    """Uses constants on either side."""

    name = "constant"
    phases = (phase("combine", h="x"),)

    def combine(self, a, s):
        s.h = 1 - (2 * a.h - 0.5) * 0.25 + 3


def test_constants_in_a_trace():
    a = np.linspace(-3, 3, 7)
    result = replay(Constant(), {"h": a}, {"h": a})
    assert np.array_equal(result["h"], 1 - (2 * a - 0.5) * 0.25 + 3)
