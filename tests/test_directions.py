"""Layers in reverse, side by side, dense ones among them, and initial states: against the oracle and each other."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from plain import plain

import oracle
from hwrnn.activations import NONLINEARITIES
from hwrnn.cells import CELLS, Dense
from hwrnn.compiler import C, compiler_available
from hwrnn.directions import flipped
from hwrnn.errors import UsageError
from hwrnn.golden import Golden, golden
from hwrnn.inspection import describe, description_table
from hwrnn.invariants import layer_ranges
from hwrnn.model import Layer, Model, build_model
from hwrnn.onnx_io import load, save
from hwrnn.quantization import quantize
from hwrnn.rtl.balance import balance
from hwrnn.rtl.generator import generate
from hwrnn.rtl.identity import model_hash
from hwrnn.rtl.network import Network
from hwrnn.rtl.targets import target_named
from hwrnn.sim import check
from hwrnn.sim.amaranth_simulator import run_amaranth
from hwrnn.sim.stimuli import stimulus
from hwrnn.sim.timing import step_distances, typical
from hwrnn.stability import state_bounds

LENGTHS = np.array([6, 1, 4, 2])
#: A cell with two phases and one with a second state every day, the others among the slow: a direction knows of none.
SOME = [c if c in ("gru-reset-before", "lstm") else pytest.param(c, marks=pytest.mark.slow) for c in CELLS]


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


# -- integers ----------------------------------------------------------------------------------------------------------
def quantized(model, bits=8, method="mse", **options):
    """The model in integers, and raw inputs that reach beyond what its formats were chosen on."""
    x, labels = data(model.inputs), np.random.default_rng(0).standard_normal((4, 6, model.outputs)).astype("f4")
    y = labels if model.every_step else labels[:, 0]
    split = SimpleNamespace(x=x, lengths=LENGTHS, y=y)
    q = quantize(model, SimpleNamespace(train=split), bits, method=method, **options)
    return q, q.quantize_input(2 * x)


def assert_equal_oracle(q, raw):
    """Outputs and every stored value of every step equal the oracle's; and those of C equal them."""
    network, result = plain(q), golden(q, raw, LENGTHS, keep=True, compiled=False)
    for n, length in enumerate(LENGTHS):
        output, trails = oracle.run(network, raw[n, :length].tolist())
        assert (result.output[n, :length] if q.every_step else result.output[n]).tolist() == output
        for k, trail in enumerate(trails):
            for t, seen in enumerate(trail):
                for name, values in seen.items():
                    assert result.values[k, name][n, t].tolist() == values, (k, name, t)
            if k < len(q.layers):
                ends = trail[0 if q.layers[k].reverse else -1]
                for state in q.layers[k].cell.states:
                    assert result.final[k, state][n].tolist() == ends[state]
    if compiler_available(C):
        assert_same(result, golden(q, raw, LENGTHS, keep=True, compiled=True))
    return result


def assert_same(one, other):
    assert np.array_equal(one.output, other.output) and one.saturation == other.saturation
    for name in ("values", "final"):
        first, second = getattr(one, name), getattr(other, name)
        assert first.keys() == second.keys() and all(np.array_equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_golden_equals_the_oracle(cell, every_step):
    q, raw = quantized(varied(cell, every_step, seed=1))
    assert q.final_state == (not every_step) and [la.reverse for la in q.layers] == [False, False, True, False, True]
    assert q.layers[1].output == q.layers[2].output == q.layers[3].formats.values["x"]
    assert_equal_oracle(q, raw)
    assert_equal_oracle(replace(q, final_state=False), raw)


def test_golden_of_a_bidirectional_model_without_a_head_and_with_an_encoder():
    for options in ({"every_step": True}, {}):
        q, raw = quantized(build_model(3, None, cell="gru", hidden=[3, 4], bidirectional=True, **options))
        assert_equal_oracle(q, raw)
        assert q.output_format == q.layers[2].output == q.layers[3].output and q.outputs == 8
    q, raw = quantized(build_model(3, 2, hidden=[3, 4], bidirectional=True, every_step=True, encoder=1))
    assert_equal_oracle(q, raw)


def test_dense_layers_behind_a_final_state_read_it():
    q, raw = quantized(varied())
    behind = replace(q, layers=q.layers[:4], head=None, output_mean=np.zeros(6, "f4"), output_scale=np.ones(6, "f4"))
    result = assert_equal_oracle(behind, raw)
    at_last = golden(replace(behind, final_state=False), raw, LENGTHS)
    assert behind.final_state and not np.array_equal(result.output, at_last.output)


@pytest.mark.parametrize("method", ["loss", "max"])
def test_every_way_to_formats(method):
    q, raw = quantized(varied("gru", seed=3), method=method)
    assert_equal_oracle(q, raw)


def test_mixed_precision():
    made = build_model(3, 2, cell="mingru", hidden=2, bidirectional=True, task="regression")
    q, raw = quantized(replace(made, layers=(*made.layers, dense(4, 4))), 4, "loss", within=90.0)
    tensors = {step["tensor"] for step in q.facts["mixed"]["path"]}
    assert "1.weights" in tensors and {"0.state", "2.activations"} & tensors and "1.state" not in tensors
    assert_equal_oracle(q, raw)


def test_proved_states():
    q, raw = quantized(varied("gru", seed=3), prove_states=True)
    assert_equal_oracle(q, raw)
    assert not any(share for name, share in q.saturation.items() if name.endswith(".h"))


def test_initial_states_stand_in_their_formats():
    model = varied(seed=2)
    q, _ = quantized(model, 12)
    for layer, made in zip(model.layers, q.layers, strict=True):
        assert set(made.initial) == set(layer.cell.states) and all(v.dtype == np.int64 for v in made.initial.values())
        for name, raw in made.initial.items():
            form = made.formats.values[name]
            assert np.abs(form.dequantize(raw) - layer.initial[name]).max() <= form.step / 2
            assert np.array_equal(made.start(name), raw)
    back = q.in_float()
    assert back.groups == model.groups and back.final_state and [la.reverse for la in back.layers] == [
        la.reverse for la in model.layers
    ]
    assert np.abs(back.predict(data(), LENGTHS) - model.predict(data(), LENGTHS)).max() < 0.1
    assert np.abs(q.predict(data(), LENGTHS) - model.predict(data(), LENGTHS)).max() < 0.1


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.skipif(
    not compiler_available(C), reason="no C compiler"))])
@pytest.mark.parametrize("cell", ["lstm", "gru-reset-before"])
def test_integers_continue_from_final_states_given_as_initial_ones(cell, compiled):
    q, raw = quantized(build_model(3, None, cell=cell, hidden=[4, 5], every_step=True, seed=2))
    steps = np.array([6, 5, 4, 3])
    whole = golden(q, raw, steps, compiled=compiled)
    first = golden(q, raw[:, :2], np.full(4, 2), compiled=compiled)
    initial = {k: {s: first.final[k, s] for s in q.layers[k].cell.states} for k in range(2)}
    runs = [golden(q, raw[:, 2:], steps - 2, compiled=compiled, initial=initial)]
    runs.append(Golden(q, compiled=compiled).run(raw[:, 2:], steps - 2, initial=initial))
    built = [replace(la, initial={s: v[1] for s, v in initial[k].items()}) for k, la in enumerate(q.layers)]
    fixed = golden(replace(q, layers=tuple(built)), raw[1:2, 2:], steps[1:2] - 2, compiled=compiled)
    assert np.array_equal(fixed.output[0], whole.output[1, 2:])
    for rest in runs:
        assert np.array_equal(rest.output, whole.output[:, 2:])
        assert all(np.array_equal(rest.final[key], whole.final[key]) for key in whole.final)
    form = q.layers[0].formats.values["h"]
    floats = {k: {s: q.layers[k].formats.values[s].dequantize(v) for s, v in states.items()}
              for k, states in initial.items()}  # fmt: skip
    x = q.input_format.dequantize(raw[:, 2:])
    assert np.array_equal(q.predict(x, steps - 2, initial=floats), q.dequantize_output(runs[0].output))
    for end in (form.lo, form.hi):
        assert golden(q, raw, steps, compiled=compiled, initial={0: {"h": np.full((4, 4), end)}}).output.any()
    for wrong in (np.zeros((4, 4)), np.full((4, 4), form.hi + 1), np.full((4, 4), form.lo - 1)):
        with pytest.raises(UsageError) as raised:
            golden(q, raw, steps, initial={0: {"h": wrong}})
        assert str(raised.value) == (
            f"Raw initial state 'h' of layer 0 must be whole numbers between {form.lo} and {form.hi} for {form}"
        )


@pytest.mark.parametrize("activation", ["relu", "hard_tanh"])
@pytest.mark.parametrize("reverse", [False, True])
def test_bounds_hold_from_initial_states_on(activation, reverse):
    layer = build_model(3, None, cell="rnn", hidden=4, activation=activation, init="scaled:0.6").layers[0]
    start = np.array([0.25, -3.0, 40.0, 0.5], np.float32)
    model = model_of([replace(layer, reverse=reverse, initial={"h": start}), dense(4, 3, phi="identity")], None)
    free = replace(model, layers=(replace(model.layers[0], initial={}), model.layers[1]))
    box, without = layer_ranges(model, 1.0), layer_ranges(free, 1.0)
    assert box[0]["h"].hi[2] >= 40 and box[0]["h"].lo[1] <= -3 and without[0]["h"].reach < 40
    x = np.random.default_rng(0).uniform(-1, 1, (50, 6, 3)).astype("f4")
    x[:25] = np.sign(x[:25])
    for k, run in enumerate(model.run_layers(x)):
        name, slack = model.layers[k].cell.output, 1e-4
        assert (run.steps <= box[k][name].hi + slack).all() and (run.steps >= box[k][name].lo - slack).all()
    assert state_bounds(model, 1.0)[0].bound >= 40 and len(state_bounds(model, 1.0)) == 1


# -- files -------------------------------------------------------------------------------------------------------------
def assert_runs_and_comes_back(model, path, expect_format=3):
    """ONNX Runtime computes predict, and golden's integers; what is read back computes the same and saves the same."""
    save(model, path)
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = 2 * data(model.inputs)
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(names, {"x": x, "lengths": LENGTHS}), strict=True))
    back = load(path)
    if isinstance(model, Model):
        np.testing.assert_allclose(found["y"], model.predict(x, LENGTHS), rtol=1e-5, atol=1e-5)
    else:
        assert np.array_equal(found["raw"], golden(model, model.quantize_input(x), LENGTHS).output)
        assert np.array_equal(found["y"], model.predict(x, LENGTHS))
    assert np.array_equal(back.predict(x, LENGTHS), model.predict(x, LENGTHS))
    for one, other in zip(model.stack, back.stack, strict=True):
        assert (one.reverse, one.beside, one.initial.keys()) == (other.reverse, other.beside, other.initial.keys())
        for state in one.initial:
            assert other.initial[state].dtype == one.initial[state].dtype
            assert np.array_equal(one.initial[state], other.initial[state])
    assert back.final_state == model.final_state
    assert json.loads(onnx.load(path).metadata_props[0].value)["format"] == expect_format
    before = path.read_bytes()
    save(back, path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("cell", SOME)
def test_files_run_in_onnx_runtime(cell, every_step, tmp_path):
    model = varied(cell, every_step, seed=4)
    assert_runs_and_comes_back(model, tmp_path / "m.onnx")
    q, _ = quantized(model)
    assert_runs_and_comes_back(q, tmp_path / "q.onnx")
    assert_runs_and_comes_back(replace(q, final_state=False), tmp_path / "p.onnx")


@pytest.mark.parametrize("bits", [5, pytest.param(24, marks=pytest.mark.slow)])
def test_files_of_bidirectional_models(bits, tmp_path):
    for k, options in enumerate(({}, {"every_step": True}, {"every_step": True, "encoder": 1})):
        made = build_model(3, 2 if k == 2 else None, cell="gru", hidden=[3, 4], bidirectional=True, **options)
        assert_runs_and_comes_back(made, tmp_path / "m.onnx")
        assert_runs_and_comes_back(quantized(made, bits)[0], tmp_path / "q.onnx")


def test_files_name_the_least_format_that_says_all(tmp_path):
    plain_model = build_model(3, 2, hidden=4)
    layer = plain_model.layers[0]
    changes = [{}, {"reverse": True}, {"initial": {"c": np.ones(4, "f4")}}]
    for change, due in zip(changes, (1, 3, 3), strict=True):
        assert_runs_and_comes_back(replace(plain_model, layers=(replace(layer, **change),)), tmp_path / "m.onnx", due)
    assert_runs_and_comes_back(replace(plain_model, layers=(layer, dense(4, 4))), tmp_path / "m.onnx", 3)
    assert_runs_and_comes_back(model_of([dense(3, 4), dense(4, 3)]), tmp_path / "m.onnx", 3)


DAMAGES = [
    (lambda w: w["layers"][2].update(beside=1), "describe 'beside' by bool, not int"),
    (lambda w: w["layers"][2].update(beside=False), "describe layers whose inputs are the units before: 4, not 5"),
    (lambda w: w["layers"][0].update(reverse=True), r"describe layers that fit together \(Layer 0 must not be reverse"),
    (lambda w: w["layers"][1].update(initial=["n"]), "describe initial states of 'layer1' that it has, not of 'n'"),
    (lambda w: w["layers"][0].update(initial=["h"]), "describe initial states of 'layer0' that it has, not of 'h'"),
    (lambda w: w["layers"][1].update(initial={}), "describe 'initial' by list, not dict"),
    (lambda w: w.update(final_state=1), "describe 'final_state' by bool, not int"),
    (lambda w: w.update(every_step=True), r"describe layers that fit together \(Final state must be False"),
    (lambda w: w.update(encoder=1), r"describe layers that fit together \(Encoder must be 0 for a network with one"),
]
INTEGER_DAMAGES = [
    (lambda w: w["layers"][2]["values"]["h"].update(width=7), "describe an input format that is the output format"),
    (lambda w: w["layers"][1]["values"]["c"].update(width=2), "hold initial states 'layer1.c.initial' between -2 and"),
]


@pytest.mark.parametrize("case", range(len(DAMAGES) + len(INTEGER_DAMAGES)))
def test_damaged_descriptions_are_refused(case, tmp_path):
    change, message = [*DAMAGES, *INTEGER_DAMAGES][case]
    assert_damage_is_refused(varied() if case < len(DAMAGES) else quantized(varied())[0], change, message, tmp_path)


def test_damaged_formats_of_layers_side_by_side_are_refused(tmp_path):
    model = quantized(build_model(3, None, cell="gru", hidden=3, bidirectional=True, every_step=True))[0]
    message = "describe one format for what layers side by side read, and one for what they give"
    for name in ("x", "h"):
        change = lambda w, name=name: w["layers"][1]["values"][name].update(width=7)  # noqa: E731
        assert_damage_is_refused(model, change, message, tmp_path)


def assert_damage_is_refused(model, change, message, tmp_path):
    save(model, tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    what = json.loads(proto.metadata_props[0].value)
    change(what)
    proto.metadata_props[0].value = json.dumps(what)
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(UsageError, match=f"Model file must {message}"):
        load(tmp_path / "m.onnx")


# -- hardware ----------------------------------------------------------------------------------------------------------
def chained(cell="gru", every_step=False, outputs=2, **places):
    """A network with dense layers before, between and behind recurrent ones, in integers."""
    first = build_model(4, None, cell=cell, hidden=[3, 4], seed=1).layers
    layers = [dense(3, 4, 0), first[0], dense(3, 3, 1), first[1], dense(4, 3, 2)]
    return quantized(model_of(layers, outputs, every_step, **places))[0]


ROWS = [("gru", False, 2), ("lstm", True, None), *((cell, False, 2) for cell in CELLS if cell != "gru")]


@pytest.mark.parametrize("row", [ROWS[0], *(pytest.param(row, marks=pytest.mark.slow) for row in ROWS[1:])])
def test_dense_layers_in_a_row_of_engines(row):
    cell, every_step, outputs = row
    q = chained(cell, every_step, outputs)
    network = Network(q, 3, probed=True)
    report = check(q, 2 * data(), LENGTHS, network=network, simulator="amaranth")
    assert report.mismatches == 0 and report.compared > 0 and report.closed_forms is True
    assert {k for k, name in network.probes if name == "y"} >= {0, 2, 4}


@pytest.mark.slow
def test_dense_layers_in_a_row_of_engines_under_back_pressure_with_channels_and_balanced():
    q = chained()
    stalls = {"input_stall": "bursts", "output_stall": "random"}
    assert check(q, data()[:2], LENGTHS[:2], lanes=2, simulator="amaranth", **stalls).mismatches == 0
    network = Network(q, 3, channels=2)
    report = check(q, data()[:3], np.array([2, 3, 1]), network=network, simulator="amaranth")
    assert report.mismatches == 0
    assert len(balance(q, target_named("ecp5-25k-6")).lanes) == 6


@pytest.mark.slow
@pytest.mark.parametrize(("times", "told"), [(3, None), (12, 34)])
def test_the_rate_seen_at_the_port_is_that_of_full_engines_only(times, told):
    """The second engine of 27 cycles a step holds back few of the fourth's 34: vectors come faster at first."""
    q = chained("lstm")
    x, lengths = np.tile(data(), (times, 1, 1)), np.tile(LENGTHS, times)
    network = Network(q, 4)
    recording = run_amaranth(network, stimulus(network, q.quantize_input(x), lengths))
    seen = typical([step_distances(network, recording, lengths)])
    assert (network.engines[1].cycles_per_step, network.cycles_per_step) == (27, 34) and seen == told


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reverse": True}, "Layers must run forward in hardware, but layer 1 is a reverse one: hardware sees the steps"
         " as they come, and a reverse layer begins with the last one (golden and ONNX Runtime compute it)"),
        ({"beside": True}, "Layers must stand one behind the other in hardware, but layer 1 stands beside another:"
         " engines pass one stream on (golden and ONNX Runtime compute it)"),
    ],
)
def test_hardware_refuses_what_it_cannot_do(change, message, tmp_path):
    q = quantized(build_model(3, None, cell="gru", hidden=[3, 3]))[0]
    first, second = q.layers
    q = replace(q, layers=(first, replace(second, **change)))
    part = "ecp5-25k-6"
    for build in (
        lambda: Network(q), lambda: generate(q, tmp_path / "x"), lambda: balance(q, target_named(part)),
        lambda: generate(q, tmp_path / "x", lanes="auto", target=part), lambda: check(q, data(), LENGTHS),
    ):  # fmt: skip
        with pytest.raises(UsageError) as raised:
            build()
        assert str(raised.value) == message
    assert not (tmp_path / "x").exists()
    zero = replace(q, layers=(first, replace(second, initial={"h": np.zeros(3, np.int64)})))
    assert model_hash(Network(zero).model) == model_hash(replace(q, layers=(first, second))) != model_hash(q)


# -- what is said of them ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["float", "quantized"])
def test_describe_and_inspect(kind):
    plain_text = description_table(describe(build_model(3, 2, hidden=4)))
    assert not any(word in plain_text for word in ("reverse", "reads", "final state", "starts"))
    model = varied(seed=4) if kind == "float" else quantized(varied(seed=4))[0]
    found = describe(model)
    assert found == json.loads(json.dumps(found)) and found["final_state"] is True
    told = [(la["direction"], la["reads"], list(la["initial"])) for la in found["layers"]]
    assert told == [
        ("forward", ["input"], []), ("forward", ["layer0"], ["c", "h"]), ("reverse", ["layer0"], ["c", "h"]),
        ("forward", ["layer1", "layer2"], []), ("reverse", ["layer3"], ["c", "h"]), ("forward", ["layer4"], []),
    ]  # fmt: skip
    start = varied(seed=4).layers[1].initial["c"]
    assert found["layers"][1]["initial"]["c"] == pytest.approx([start.min(), start.max()], abs=0.05)
    text = description_table(found)
    assert "layer2: lstm, 5 inputs, 3 units, in reverse, reads layer0, starts with c from " in text
    assert "layer3: dense, 7 inputs, 6 units, reads layer1 and layer2" in text and "final state" in text
    assert "layer0: dense, 3 inputs, 5 units\n" in text


def test_formats_are_lent_to_networks_that_run_alike():
    q = quantized(varied(seed=4))[0]
    again = quantized(varied(seed=4), None, None, formats_of=q)[0]
    assert [la.formats for la in again.layers] == [la.formats for la in q.layers]
    for change, what in (({"reverse": False}, "layers"), ({}, "outputs")):
        model = varied(seed=4)
        layers = (*model.layers[:4], replace(model.layers[4], **change))
        other = replace(model, layers=layers, final_state=bool(change))
        with pytest.raises(UsageError, match=f"Model must have the {what} of the one that lends its formats"):
            quantized(other, None, None, formats_of=q)


def test_initial_states_that_lent_formats_do_not_hold_are_counted():
    model = varied(seed=4)
    q = quantized(model)[0]
    far = replace(model.layers[1], initial={"h": np.array([100, 0, -100, 0], "f4")})
    other = replace(model, layers=(model.layers[0], far, *model.layers[2:]))
    counts = [quantized(one, None, None, formats_of=q)[0].facts["saturated_weights"] for one in (model, other)]
    assert counts[1] == counts[0] + 2
