"""The printed forward pass is the model's, and the printed backward pass is its derivative: for every cell."""

from typing import ClassVar

import numpy as np
import pytest
from networks import KINDS

from hwrnn.activations import NONLINEARITIES, PARAMETRIC
from hwrnn.cells import CELLS, Cell, cell_named, phase
from hwrnn.compiler import C, compiler_available
from hwrnn.model import Layer, Model, build_model
from hwrnn.training.losses import LOSSES, Loss, arranged
from hwrnn.training.network import Network

NEEDS_COMPILER = pytest.mark.skipif(not compiler_available(C), reason="no C compiler")
STEPS = 6
LENGTHS = np.array([6, 3, 5, 1, 2])


def network_for(model: Model, seed: int = 0) -> Network:
    """In float64, away from the symmetric start where a wrong sign could hide."""
    network = Network(model, dtype=np.float64)
    rng = np.random.default_rng(seed)
    for layer, part in zip(network.layers, network.parts, strict=True):
        network.masters[part] += 0.3 * rng.standard_normal(layer.size) * (layer.slope != 0)
    return network


def batch_for(model: Model, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((len(LENGTHS), STEPS, model.inputs))
    if model.task == "classification":
        y = rng.integers(0, model.outputs, x.shape[:2] if model.every_step else len(x))
    else:
        y = rng.standard_normal((*(x.shape[:2] if model.every_step else x.shape[:1]), model.outputs))
    return x, arranged(y, model.every_step)


def check_forward(network: Network) -> None:
    model = network.trained()
    x, _ = batch_for(model)
    printed = network.forward(x, LENGTHS).transpose(2, 0, 1)
    plain = model.forward(x, LENGTHS)
    if model.every_step:
        within = np.arange(STEPS) < LENGTHS[:, None]
        printed, plain = printed[within], plain[within]
    else:
        printed = printed[:, 0]
    np.testing.assert_allclose(printed, plain, rtol=1e-5, atol=2e-6)  # the model's parameters are float32


def check_gradient(network: Network, loss: Loss) -> None:
    x, targets = batch_for(network.model)
    network.loss_and_gradient(x, LENGTHS, targets, loss)
    found, due = network.gradient.copy(), np.zeros_like(network.gradient)
    lengths = LENGTHS if network.model.every_step else None
    slope = np.concatenate([layer.slope for layer in network.layers])
    for k in np.flatnonzero(slope):
        ends = []
        start = network.masters[k]
        for sign in (1, -1):
            network.masters[k] = start + sign * 1e-6
            ends.append(loss(network.forward(x, LENGTHS), targets, lengths)[0])
        network.masters[k] = start
        due[k] = (ends[0] - ends[1]) / 2e-6
    assert np.abs(due).max() > 1e-4
    np.testing.assert_allclose(found, due, atol=1e-6 * np.abs(due).max() + 1e-9)


def check(model: Model, loss: str = "cross_entropy") -> None:
    network = network_for(model)
    check_forward(network)
    check_gradient(network, LOSSES[loss])


CHOICES = [(None, None), ("tanh", "sigmoid"), ("relu6", "plan_sigmoid"), ("plan_tanh", "hard_sigmoid_1_6")]


@pytest.mark.parametrize("activation, gate", CHOICES)
@pytest.mark.parametrize("cell", CELLS)
def test_every_cell(cell, activation, gate):
    gate = gate if CELLS[cell].gated else None
    check(build_model(3, 4, cell=cell, hidden=4, activation=activation, gate=gate, seed=3))


@pytest.mark.parametrize("name", [*NONLINEARITIES, *PARAMETRIC, "elu:-0.5|1.5", "sigmoid|0.5", "relu|1"])
def test_every_nonlinearity(name):
    gate = "sigmoid" if name == "elu" else name  # states of thousands would only measure float32
    check(build_model(3, 4, cell="gru", hidden=4, activation=name, gate=gate, seed=3))


@pytest.mark.parametrize("name", ["relu6", "sigmoid"])
def test_an_output_nonlinearity_of_its_own(name):
    check(build_model(3, 4, cell="lstm", hidden=4, output_activation=name, activation="tanh", seed=3))


@pytest.mark.parametrize("cell", CELLS)
def test_stacked_with_an_output_at_every_step(cell):
    check(build_model(3, 4, cell=cell, hidden=(5, 3), layers=2, every_step=True, seed=3))


@pytest.mark.parametrize("cell", KINDS)
@pytest.mark.parametrize("hidden, encoder", [((4, 3), 1), ((3, 4, 2), 1), ((3, 2, 3), 2)])
def test_an_encoder_and_a_decoder(cell, hidden, encoder):
    outputs = None if encoder == 2 else 4
    check(build_model(3, outputs, cell=cell, hidden=hidden, encoder=encoder, every_step=True, seed=3))


def test_clipped_cell_state():
    model = build_model(3, 4, cell="lstm", hidden=4, cell_clip=0.5, seed=3)
    check(model)
    free = build_model(3, 4, cell="lstm", hidden=4, seed=3)
    x, _ = batch_for(model)
    assert not np.allclose(network_for(model).forward(x, LENGTHS), network_for(free).forward(x, LENGTHS))


@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("loss", ["mse", "mae"])
def test_regression_losses(loss, every_step):
    check(build_model(3, 2, cell="gru", hidden=4, every_step=every_step, task="regression", seed=3), loss)


@pytest.mark.parametrize("every_step", [False, True])
def test_without_a_head(every_step):
    check(build_model(3, None, cell="lstm", hidden=4, every_step=every_step, seed=3))


class Odd(Cell):
    """What no cell of the catalogue does: the output reads the old cell state, a gate goes through no function."""

    name: ClassVar[str] = "odd"
    phases = (phase("first", i="x c", g="x h c", v="h"), phase("second", n="x p c"))
    states = ("h", "c")

    def first(self, a, s):
        s.i = self.sigma(a.i)
        s.p = s.i * s.h + a.v
        s.c = 0.5 - s.c * s.i + self.phi(a.g + 0.25 * a.v)

    def second(self, a, s):
        old = s.h
        s.n = self.phi(a.n)
        s.h = s.n * s.c - 0.5 * old + self.sigma(a.n) * self.phi(s.c)


class Peeping(Cell):
    """The output, stored last, reads the cell state of the step before, which the cell state itself does not."""

    name: ClassVar[str] = "peeping"
    phases = (phase("combine", g="x", o="x h"),)
    states = ("h", "c")

    def combine(self, a, s):
        old = s.c
        s.c = self.phi(a.g)
        s.h = self.sigma(a.o) * old + 1.0 * a.o


class Passing(Cell):
    """States that are stored without being computed."""

    name: ClassVar[str] = "passing"
    phases = (phase("combine", h="x h d"),)
    states = ("h", "d", "e")

    def combine(self, a, s):
        s.e = s.d
        s.d = s.h
        s.h = a.h + 0.5 * s.e


@pytest.mark.parametrize("made", [Odd, Peeping, Passing])
def test_cells_unlike_those_of_the_catalogue(made):
    cell = made(NONLINEARITIES["sigmoid"], NONLINEARITIES["hard_tanh"])
    rng = np.random.default_rng(2)

    def layer(inputs: int, units: int) -> Layer:
        shapes = Layer.shapes(cell, inputs, units).items()
        return Layer(cell, inputs, units, {n: 0.3 * rng.standard_normal(s).astype(np.float32) for n, s in shapes})

    plain = build_model(3, 4, hidden=4, layers=2, every_step=True)
    stack = (layer(3, 4), layer(4, 4))
    check(Model(stack, plain.head, True, plain.task, *(getattr(plain, n) for n in (
        "input_mean", "input_scale", "output_mean", "output_scale"))))  # fmt: skip


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=NEEDS_COMPILER)])
def test_what_overflows_beyond_a_sequence_does_not_reach_the_gradient(compiled):
    model = build_model(2, 3, cell="rnn", hidden=4, activation="relu", init="identity", seed=1)
    network = Network(model, compiled=compiled)
    index = network.layers[0].index
    network.masters[index["0.h"]] *= 8  # 8**77 is beyond float32
    network.masters[index["0.x"]] = 0.1
    x = np.ones((3, 80, 2), np.float32)
    x[0, 3:] = x[2, 2:] = 0
    x[1] = -1  # the long one rests, or its own gradient would overflow
    lengths, targets, loss = np.array([3, 80, 2]), np.array([[0, 1, 2]]), LOSSES["cross_entropy"]
    due = np.zeros_like(network.gradient)
    for k in range(3):
        network.loss_and_gradient(x[k : k + 1], lengths[k : k + 1], targets[:, k : k + 1], loss)
        due += network.gradient / 3
    network.loss_and_gradient(x, lengths, targets, loss)
    np.testing.assert_allclose(network.gradient, due, rtol=1e-5)
    outputs = network.forward(x, np.array([80, 80, 80]))
    assert not np.isfinite(outputs).all()  # so the loop did run into what must be forgotten


def test_buffers_used_again_remember_nothing():
    model = build_model(3, 4, cell="lstm", hidden=4, layers=2, seed=3)
    rng = np.random.default_rng(0)
    used, lengths = Network(model), np.array([5, 2])
    for steps in ([9, 9], [1, 2], [4, 9]):
        x = rng.standard_normal((2, 9, 3)).astype(np.float32)
        used.loss_and_gradient(x, np.array(steps), np.array([[1, 2]]), LOSSES["cross_entropy"])
    x = rng.standard_normal((2, 9, 3)).astype(np.float32)
    fresh = Network(model)
    for network in (used, fresh):
        network.loss_and_gradient(x, lengths, np.array([[1, 2]]), LOSSES["cross_entropy"])
    assert np.array_equal(used.gradient, fresh.gradient)


def test_a_model_comes_back_from_its_vector_unchanged():
    for name in CELLS:
        model = build_model(3, 4, cell=name, hidden=4, layers=2, seed=5)
        back = Network(model).trained()
        for before, after in zip(model.stack, back.stack, strict=True):
            assert before.parameters.keys() == after.parameters.keys()
            for key, value in before.parameters.items():
                assert np.array_equal(value, after.parameters[key])


def test_gates_that_read_the_same_are_one_product():
    from hwrnn.training.planning import make_plan

    plan = make_plan(cell_named("lstm"), 12, 32)
    products = [op for op in plan.step if op.kind == "product"]
    assert len(products) == 1 and len(plan.step) <= 9
    assert [op.kind for op in plan.reverse].count("product") == 1 and len(plan.reverse) <= 9
