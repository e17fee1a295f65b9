"""Float networks: shapes, lengths, initial parameters, and every refusal word for word."""

from dataclasses import replace

import numpy as np
import pytest

from hwrnn.cells import CELLS
from hwrnn.errors import UsageError
from hwrnn.model import Layer, Model, build_model, check_input

INITIALISATION = (
    "Initialisation must be glorot, orthogonal[:S], identity[:S] or scaled[:S] with S above 0 up to 16, not 'zeros'"
)


def data(n=5, steps=6, inputs=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, steps, inputs)).astype(np.float32), rng.integers(1, steps + 1, n)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize(("outputs", "last"), [(None, 5), (2, 2)])
def test_shapes(cell, every_step, outputs, last):
    model = build_model(3, outputs, cell=cell, hidden=(4, 5), layers=2, every_step=every_step)
    x, lengths = data()
    result = model.predict(x, lengths)
    assert result.shape == ((5, 6, last) if every_step else (5, last)) and result.dtype == np.float32
    assert (model.inputs, model.outputs, len(model.stack)) == (3, last, 2 + (outputs is not None))
    for layer in model.stack:
        assert {k: p.shape for k, p in layer.parameters.items()} == Layer.shapes(
            layer.cell, layer.inputs, layer.units
        )
        assert all(p.dtype == np.float32 for p in layer.parameters.values())
        weights = [p.size for name, p in layer.parameters.items() if not name.endswith("b")]
        assert layer.multiplications == sum(weights)


def test_multiplications_are_those_of_the_textbook():
    count = {"rnn": 8 * 12, "lstm": 4 * 8 * 12, "gru": 3 * 8 * 12, "gru-reset-before": 3 * 8 * 12}
    count |= {"ligru": 2 * 8 * 12, "mingru": 2 * 8 * 4, "lstm-coupled": 3 * 8 * 12}
    count |= {"lstm-peephole": 4 * 8 * 12 + 3 * 8 * 8, "lstm-peephole-coupled": 3 * 8 * 12 + 2 * 8 * 8}
    assert {c: build_model(4, None, cell=c, hidden=8).layers[0].multiplications for c in CELLS} == count


@pytest.mark.parametrize("cell", CELLS)
def test_lengths_end_sequences(cell):
    model = build_model(3, 2, cell=cell, hidden=4, layers=2, seed=1)
    x, lengths = data(9)
    whole = model.predict(x, lengths)
    for n, length in enumerate(lengths):
        alone = model.predict(x[n : n + 1, :length])
        assert np.allclose(alone[0], whole[n], rtol=0, atol=1e-6)
    steps = build_model(3, None, cell=cell, hidden=4, every_step=True).predict(x, lengths)
    beyond = np.arange(6) >= lengths[:, None]
    assert not steps[beyond].any() and steps[~beyond].any()


def test_the_output_is_that_of_the_last_step():
    x, lengths = data()
    last = build_model(3, 2, hidden=4, seed=3).predict(x, lengths)
    every = build_model(3, 2, hidden=4, seed=3, every_step=True).predict(x, lengths)
    assert np.allclose(every[np.arange(5), lengths - 1], last, rtol=0, atol=1e-6)


def test_scaling():
    model = build_model(3, 2, hidden=4)
    x, lengths = data()
    plain = model.predict(x, lengths)
    model.input_mean[:], model.input_scale[:] = (1, 2, 3), (2, 4, 0.5)
    model.output_mean[:], model.output_scale[:] = (1, -1), (3, 0.5)
    moved = x / model.input_scale + model.input_mean
    assert np.allclose(model.predict(moved, lengths), plain * [3, 0.5] + [1, -1], rtol=0, atol=1e-5)
    assert model.standardised(moved.astype(np.float64)).dtype == np.float32


def test_recorders_see_every_value():
    model = build_model(3, 2, cell="lstm", hidden=4, layers=2)
    x, lengths = data()
    seen = {}
    model.forward(model.standardised(x), lengths, lambda *a: seen.setdefault(a[:2], []).append(a[2:]))
    values = {*"ifogcth", "a.i", "a.f", "a.o", "a.g"}
    assert {*seen} == {(k, v) for k in (0, 1) for v in values} | {(2, "y"), (2, "a.y")}
    counts = [n for _, n in seen[0, "h"]]
    assert counts == [int((lengths > t).sum()) for t in range(6) if (lengths > t).any()]
    assert all(value.shape == (n, 4) for value, n in seen[0, "c"])


@pytest.mark.parametrize("init", ["orthogonal", "identity", "glorot"])
@pytest.mark.parametrize("cell", CELLS)
def test_initial_parameters(cell, init):
    layer = build_model(6, 3, cell=cell, hidden=7, init=init, seed=4).layers[0]
    for p in layer.cell.phases:
        for gate, reads in p.gates.items():
            assert set(layer.block(gate, "b")) == {layer.cell.bias.get(gate, 0.0)}
            for operand in reads:
                w = layer.block(gate, operand)
                limit = np.sqrt(6 / sum(w.shape))
                if operand == "x" or init == "glorot":
                    assert limit / 2 < np.abs(w).max() <= limit
                elif init == "identity":
                    assert np.array_equal(w, np.eye(7))
                else:
                    assert np.allclose(w @ w.T, np.eye(7), atol=1e-5)
                    assert np.linalg.det(w) != pytest.approx(0)


def test_seeds_decide():
    a, b, c = (build_model(3, 2, hidden=4, seed=s).layers[0].parameters["0.x"] for s in (1, 1, 2))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    with pytest.raises(KeyError):
        build_model(3, 2, hidden=4).layers[0].block("q", "x")


def test_a_decoder_reads_the_code_at_every_step():
    """The same as two networks one behind the other, the second fed with the first one's last output."""
    model = build_model(3, 2, cell="gru", hidden=[4, 5], encoder=1, every_step=True, seed=2)
    rng = np.random.default_rng(0)
    x, lengths = rng.standard_normal((4, 6, 3)).astype(np.float32), np.array([6, 1, 4, 2])
    unit = [np.zeros(4, np.float32), np.ones(4, np.float32)]
    encoder = Model(model.layers[:1], None, False, "regression", *unit, *unit)
    encoder = replace(encoder, input_mean=model.input_mean, input_scale=model.input_scale)
    decoder = Model(model.layers[1:], model.head, True, "regression", *unit, model.output_mean, model.output_scale)
    found = model.predict(x, lengths)
    for n, length in enumerate(lengths):
        code = encoder.predict(x[n : n + 1, :length])
        due = decoder.predict(np.repeat(code[:, None], length, axis=1))
        np.testing.assert_allclose(found[n, :length], due[0], atol=1e-6)
    x[1, 1:] = 1e6  # beyond its length
    np.testing.assert_array_equal(model.predict(x, lengths)[1, :1], found[1, :1])


def test_gates_of_one_matrix_differ():
    layer = build_model(3, 2, cell="lstm", hidden=4).layers[0]
    assert not np.array_equal(layer.block("i", "h"), layer.block("f", "h"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"inputs": 0}, "Inputs must be a whole number of at least 1, not 0"),
        ({"inputs": 2.5}, "Inputs must be a whole number of at least 1, not 2.5"),
        ({"outputs": 0}, "Outputs must be a whole number of at least 1, not 0"),
        ({"layers": 0}, "Layers must be a whole number of at least 1, not 0"),
        ({"hidden": 0}, "Hidden units must be whole numbers of at least 1, not 0"),
        ({"hidden": 2.5}, "Hidden units must be whole numbers of at least 1, not 2.5"),
        ({"hidden": "32"}, "Hidden units must be whole numbers of at least 1, not '32'"),
        ({"hidden": [3, None], "layers": 2}, "Hidden units must be whole numbers of at least 1, not [3, None]"),
        ({"hidden": [3, 4], "layers": 1}, "Hidden units must be given for each of the 1 layers, not for 2"),
        ({"hidden": []}, "Hidden units must be given for each of the 1 layers, not for 0"),
        ({"encoder": -1}, "Encoder must be a whole number of at least 0, not -1"),
        ({"encoder": 1.5}, "Encoder must be a whole number of at least 0, not 1.5"),
        ({"encoder": True}, "Encoder must be a whole number of at least 0, not True"),
        (
            {"encoder": 2, "layers": 2, "every_step": True},
            "Encoder must leave a layer that decodes, so be less than the 2 layers, not 2: add a layer",
        ),
        (
            {"encoder": 1, "layers": 2},
            "Encoder must be 0 for a network with one output for a sequence, not 1: a decoder gives one at every step",
        ),
        ({"task": "ranking"}, "Task must be classification or regression, not 'ranking'"),
        ({"init": "zeros"}, INITIALISATION),
        (
            {"init": "zeros", "cell": "mingru"},
            INITIALISATION,
        ),
        (
            {"cell": "elman"},
            "Cell must be one of rnn, lstm, gru, gru-reset-before, ligru, mingru, lstm-peephole, lstm-coupled,"
            " lstm-peephole-coupled, not 'elman'",
        ),
        ({"cell": "gru", "cell_clip": 2}, "Cell clip must be given to a cell with a cell state, not to 'gru'"),
        ({"cell_clip": 0}, "Clip must be a positive multiple of 1/256 up to 65536, not 0"),
    ],
)
def test_errors(options, text):
    with pytest.raises(UsageError) as caught:
        build_model(**({"inputs": 3, "outputs": 2} | options))
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("x", "lengths", "text"),
    [
        (np.zeros((2, 3)), None, "Input must have shape (sequences, steps, features), none 0, not (2, 3)"),
        (np.zeros((2, 0, 3)), None, "Input must have shape (sequences, steps, features), none 0, not (2, 0, 3)"),
        (np.zeros((2, 4, 2)), None, "Input must have 3 features as the model does, not 2"),
        ([[["a"]]], None, "Input must be an array of numbers of shape (sequences, steps, features)"),
        ([[[0], [1, 2]]], None, "Input must be an array of numbers of shape (sequences, steps, features)"),
        (np.full((2, 4, 3), np.nan), None, "Input must be finite: remove or fill the NaN and infinite values"),
        (np.full((2, 4, 3), np.inf), None, "Input must be finite: remove or fill the NaN and infinite values"),
        (np.zeros((2, 4, 3)), [1], "Lengths must be 2 whole numbers, one for each sequence"),
        (np.zeros((2, 4, 3)), [1.0, 2.0], "Lengths must be 2 whole numbers, one for each sequence"),
        (np.zeros((2, 4, 3)), [0, 4], "Lengths must be between 1 and 4, not 0 to 4"),
        (np.zeros((2, 4, 3)), [1, 5], "Lengths must be between 1 and 4, not 1 to 5"),
    ],
)
def test_input_errors(x, lengths, text):
    with pytest.raises(UsageError) as caught:
        build_model(3, 2).predict(x, lengths)
    assert str(caught.value) == text


def test_values_beyond_float32_are_not_finite():
    with pytest.raises(UsageError, match="must be finite"):
        check_input(np.full((1, 1, 1), 1e300), None, 1)


def test_absent_lengths_are_whole_sequences():
    x, lengths = check_input([[[1], [2]]], None, 1)
    assert x.dtype == np.float32 and lengths.dtype == np.int64 and lengths.tolist() == [2]


def test_models_are_frozen():
    model = build_model(2, 1)
    assert isinstance(model, Model) and model == model and model != build_model(2, 1)
    with pytest.raises(AttributeError):
        model.task = "regression"
