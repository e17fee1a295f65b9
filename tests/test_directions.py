"""Layers in reverse, side by side, dense ones among them, and initial states: against the oracle and each other."""

from dataclasses import replace

import numpy as np
import pytest

from hwrnn.activations import NONLINEARITIES
from hwrnn.cells import CELLS, Dense
from hwrnn.directions import flipped
from hwrnn.errors import UsageError
from hwrnn.model import Layer, Model, build_model

LENGTHS = np.array([6, 1, 4, 2])


def data(inputs=3, seed=0):
    return np.random.default_rng(seed).standard_normal((4, 6, inputs)).astype(np.float32)


def dense(inputs, units, seed=0, phi="relu"):
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((units, inputs)).astype(np.float32) * 0.5
    return Layer(Dense(phi=NONLINEARITIES[phi]), inputs, units, {"0.x": weights, "0.b": np.full(units, 0.1, "f4")})


def with_initial(layer, seed=0):
    rng = np.random.default_rng(seed)
    return replace(layer, initial={s: rng.uniform(-0.7, 0.7, layer.units).astype("f4") for s in layer.cell.states})


def model_of(layers, outputs=2, every_step=False, **options):
    head = dense(sum(la.units for la in layers[-1:]) if outputs else 0, outputs, 9, "identity") if outputs else None
    one, zero = np.ones, np.zeros
    inputs, last = layers[0].inputs, outputs or layers[-1].units
    scaling = zero(inputs, "f4"), one(inputs, "f4"), zero(last, "f4"), one(last, "f4")
    return Model(tuple(layers), head, every_step, "regression", *scaling, **options)


def varied(cell="lstm", every_step=False, seed=0, hidden=(4, 3)):
    """A dense layer, a bidirectional layer with initial states, a dense layer, a reverse layer, and a head."""
    made = build_model(5, None, cell=cell, hidden=list(hidden), seed=seed).layers
    first = with_initial(made[0], seed)
    back = replace(build_model(5, None, cell=cell, hidden=3, seed=seed + 1).layers[0], reverse=True, beside=True)
    last = build_model(6, None, cell=cell, hidden=4, seed=seed + 2).layers[0]
    layers = [dense(3, 5, seed), first, with_initial(back, seed + 5), dense(hidden[0] + 3, 6, seed + 1),
              with_initial(replace(last, reverse=True), seed + 7)]  # fmt: skip
    return model_of(layers, every_step=every_step, final_state=not every_step)


def test_flipped_turns_what_is_within_the_lengths():
    x = np.arange(24).reshape(4, 6, 1)
    turned = flipped(x, LENGTHS)
    assert turned[..., 0].tolist() == [
        [5, 4, 3, 2, 1, 0], [6, 7, 8, 9, 10, 11], [15, 14, 13, 12, 16, 17], [19, 18, 20, 21, 22, 23],
    ]  # fmt: skip
    assert np.array_equal(flipped(turned, LENGTHS), x)


@pytest.mark.parametrize("cell", CELLS)
def test_a_reverse_layer_is_the_forward_one_on_flipped_sequences(cell):
    layer = with_initial(build_model(3, None, cell=cell, hidden=4, seed=1).layers[0])
    x = data()
    run = replace(layer, reverse=True).run(x, LENGTHS)
    for n, length in enumerate(LENGTHS):
        alone = layer.run(x[n : n + 1, :length][:, ::-1], LENGTHS[n : n + 1])
        assert np.allclose(run.steps[n, :length], alone.steps[0, ::-1], rtol=0, atol=1e-6)
        assert not run.steps[n, length:].any()
        assert np.allclose(run.final["h"][n], run.steps[n, 0]) and np.allclose(run.final["h"][n], alone.final["h"][0])


@pytest.mark.parametrize("cell", CELLS)
def test_a_sequence_continues_from_final_states_given_as_initial_ones(cell):
    model = build_model(3, None, cell=cell, hidden=[4, 5], every_step=True, seed=2)
    x = data()
    whole = model.run_layers(x)
    first = model.run_layers(x[:, :2])
    rest = model.run_layers(x[:, 2:], initial={k: run.final for k, run in enumerate(first)})
    for k, run in enumerate(whole):
        assert np.allclose(run.steps[:, 2:], rest[k].steps, rtol=0, atol=1e-6)
        assert all(np.allclose(run.final[s], rest[k].final[s], rtol=0, atol=1e-6) for s in run.final)
        assert set(run.final) == set(CELLS[cell].states)
    assert np.array_equal(model.predict(x[:, 2:], initial={k: r.final for k, r in enumerate(first)}), rest[1].steps)
    constant = {k: {s: np.array(v[0]) for s, v in run.final.items()} for k, run in enumerate(first)}
    built = replace(model, layers=tuple(replace(la, initial=constant[k]) for k, la in enumerate(model.layers)))
    assert np.allclose(built.predict(x[:1, 2:]), whole[1].steps[:1, 2:], rtol=0, atol=1e-6)


def test_groups_stand_side_by_side_and_final_states_are_each_layers_own():
    model = varied()
    assert model.groups == ((0,), (1, 2), (3,), (4,)) and [model.sources(k) for k in range(6)] == [
        (), (0,), (0,), (1, 2), (3,), (4,),
    ]  # fmt: skip
    x, runs = data(), model.run_layers(data(), LENGTHS)
    assert [run.steps.shape for run in runs] == [(4, 6, units) for units in (5, 4, 3, 6, 4)]
    side = np.concatenate([runs[1].steps, runs[2].steps], axis=2)
    assert np.array_equal(runs[3].steps, model.layers[3].forward(side, LENGTHS))
    assert np.allclose(model.predict(x, LENGTHS), model.head.step(runs[4].final["h"], {}).y, rtol=0, atol=1e-6)
    at_last = replace(model, final_state=False).predict(x, LENGTHS)
    last = runs[4].steps[np.arange(4), LENGTHS - 1]
    assert np.allclose(at_last, model.head.step(last, {}).y) and not np.allclose(at_last[0], model.predict(x)[0])


def test_a_bidirectional_model():
    model = build_model(3, 2, cell="gru", hidden=[4, 5], bidirectional=True, seed=3)
    assert model.groups == ((0, 1), (2, 3)) and model.final_state and model.head.inputs == 10
    assert [(la.reverse, la.beside, la.inputs, la.units) for la in model.layers] == [
        (False, False, 3, 4), (True, True, 3, 4), (False, False, 8, 5), (True, True, 8, 5),
    ]  # fmt: skip
    runs = model.run_layers(data(), LENGTHS)
    both = np.concatenate([runs[2].final["h"], runs[3].final["h"]], axis=1)
    assert np.allclose(model.predict(data(), LENGTHS), model.head.step(both, {}).y, rtol=0, atol=1e-6)
    headless = build_model(3, None, hidden=4, bidirectional=True, every_step=True)
    assert headless.outputs == 8 and not headless.final_state and headless.predict(data()).shape == (4, 6, 8)
    coder = build_model(3, 2, hidden=[4, 5], bidirectional=True, every_step=True, encoder=1)
    assert coder.encoder == 2 and coder.predict(data(), LENGTHS).shape == (4, 6, 2)


def test_final_state_is_false_where_it_makes_no_difference():
    forward = build_model(3, 2, hidden=4)
    assert not replace(forward, final_state=True).final_state
    reverse = replace(forward, layers=(replace(forward.layers[0], reverse=True),))
    assert replace(reverse, final_state=True).final_state


def broken():
    made = build_model(3, 2, hidden=[4, 5])
    first, second = made.layers
    many = build_model(3, 2, hidden=4, bidirectional=True, layers=3, every_step=True)
    gru = build_model(3, 2, cell="gru", hidden=4)
    nan = np.full(4, np.nan, np.float32)
    return [
        (made, {"layers": ()}, "Layers must be at least one, not none"),
        (made, {"layers": (replace(first, beside=True), second)},
         "Layer 0 must not stand beside another, since there is none before it: leave beside out"),
        (made, {"layers": (first, replace(second, beside=True))},
         "Layer 1 must have the 3 inputs that the input gives, not 4"),
        (made, {"layers": (first, replace(first, beside=True), second)},
         "Layer 2 must have the 8 inputs that layer 0 and 1 gives, not 4"),
        (made, {"layers": (first,)}, "Head must have the 4 inputs that layer 0 gives, not 5"),
        (made, {"layers": (replace(dense(3, 4), reverse=True), second)},
         "Layer 0 must not be reverse, since a dense layer has no state that runs through the steps"),
        (made, {"head": replace(made.head, beside=True)}, "Head must not stand beside a layer: put it into the layers"),
        (made, {"head": replace(made.head, initial={"h": np.zeros(2)})},
         "Head must have initial states of none, having no state, not of 'h'"),
        (gru, {"layers": (replace(gru.layers[0], initial={"c": np.zeros(4)}),)},
         "Layer 0 must have initial states of h, not of 'c'"),
        (made, {"layers": (replace(first, initial={"c": np.zeros(5)}), second)},
         "Layer 0 must have an initial state 'c' of shape (4,), not (5,)"),
        (made, {"layers": (replace(first, initial={"h": nan}), second)},
         "Layer 0 must have finite numbers in initial state 'h'"),
        (many, {"encoder": 3}, "Encoder must end where layers side by side end, not between them, as 3 does"),
        (many, {"final_state": True},
         "Final state must be False for a network with an output at every step, not True"),
    ]  # fmt: skip


@pytest.mark.parametrize("case", range(13))
def test_layers_that_do_not_fit_are_refused(case):
    model, change, message = broken()[case]
    with pytest.raises(UsageError) as raised:
        replace(model, **change)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("initial", "message"),
    [
        ({2: {"h": np.zeros((4, 4))}}, "Initial states must be given for layers 0 to 1, not for 2"),
        ({0: {"n": np.zeros((4, 4))}}, "Layer 0 must have initial states of h or c, not of 'n'"),
        ({0: {"h": np.zeros(4)}}, "Layer 0 must have an initial state 'h' of shape (4, 4), not (4,)"),
    ],
)
def test_initial_states_that_do_not_fit_a_call_are_refused(initial, message):
    model = build_model(3, 2, hidden=[4, 5])
    for call in (model.predict, model.run_layers):
        with pytest.raises(UsageError) as raised:
            call(data(), initial=initial)
        assert str(raised.value) == message
    with pytest.raises(UsageError, match="Bidirectional must be True or False, not 1"):
        build_model(3, 2, bidirectional=1)
