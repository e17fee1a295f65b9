"""The engine against golden: every stored value, and the cycle of each."""

from dataclasses import replace

import numpy as np
import pytest
from networks import FEW, KINDS, diagonals, network_of, started

from hwrnn.activations import NONLINEARITIES, PARAMETRIC, nonlinearity
from hwrnn.cells import CELLS
from hwrnn.errors import UsageError
from hwrnn.fitting_general import Approximation
from hwrnn.fixed import Format
from hwrnn.rtl.network import Network
from hwrnn.rtl.timing import SHORTEST, Timing
from hwrnn.sim import STALLS, check
from hwrnn.sim.amaranth_simulator import run_amaranth
from hwrnn.sim.stimuli import stimulus
from hwrnn.sim.timing import rate_is_bounded_by_steps


def hardware_of(name):
    return nonlinearity(name).in_hardware(Format(8, 7))


def verify(model, x, lengths, lanes=4, argmax=False, *stalls, seed=0, timing=SHORTEST):
    """Every value, in Amaranth's simulator, under each pair of stalls; with no port stalled the closed forms too."""
    network = Network(model, lanes, argmax, probed=True, timing=timing)
    for pair in stalls or [("always", "always")]:
        options = dict(zip(("input_stall", "output_stall"), pair, strict=True), seed=seed)
        report = check(model, x, lengths, network=network, simulator="amaranth", **options)
        assert report.mismatches == 0 and report.compared > 0
        assert report.closed_forms is (True if pair == ("always", "always") else None)


# (inputs, units, lanes): fewer lanes than gates, one lane for each of a unit's gates, whole units, all rows at once,
# more lanes than can be used; groups that do not divide the units; one input, one unit.
SHAPES = [
    *((2, 3, 1), (3, 5, 2), (3, 5, 3), (1, 6, 4), (5, 1, 8)),
    *((1, 1, 1), (1, 1, 100), (4, 5, 9), (2, 7, 16), (3, 4, 100)),
]


@pytest.mark.parametrize("shape", SHAPES, ids="{0[0]}-{0[1]}-{0[2]}".format)
@pytest.mark.parametrize("cell", FEW)
def test_every_value(cell, shape):
    inputs, units, lanes = shape
    verify(*network_of(cell, inputs, units, seed=lanes), lanes)


@pytest.mark.parametrize("cell", FEW)
@pytest.mark.parametrize(
    "options",
    [
        {"outputs": None},
        {"outputs": None, "every_step": True},
        {"outputs": 1, "every_step": True},
        {"outputs": 5, "layers": 2},
        {"outputs": 2, "layers": 2, "every_step": True, "units": [3, 4]},
        {"outputs": None, "layers": 2, "units": [1, 3]},
    ],
    ids=str,
)
def test_layers_and_heads(cell, options):
    verify(*network_of(cell, **options), 3)


@pytest.mark.parametrize("outputs", [None, 1, 2, 5])
@pytest.mark.parametrize("every_step", [False, True])
def test_argmax(outputs, every_step):
    verify(*network_of("gru", 2, 4, outputs, every_step=every_step), argmax=True)


def test_argmax_of_equals_is_the_first():
    model, x, lengths = network_of("rnn", 1, 2, 4, every_step=True, lengths=(6, 6))
    weights = {key: np.zeros_like(w) for key, w in model.head.weights.items()}
    biases = {"y": np.array([0, -(1 << 20), 1 << 20, 1 << 20])}
    model = replace(model, head=replace(model.head, weights=weights, biases=biases))
    assert set(model.predict(x, lengths).argmax(-1).ravel()) == {2}
    verify(model, x, lengths, argmax=True)


@pytest.mark.parametrize("output_stall", STALLS)
@pytest.mark.parametrize("input_stall", STALLS)
@pytest.mark.parametrize("cell", FEW)
def test_back_pressure(cell, input_stall, output_stall):
    seed = STALLS.index(input_stall) * len(STALLS) + STALLS.index(output_stall)
    options = {"layers": 1 + seed % 2, "every_step": seed % 3 > 0, "outputs": (2, None)[seed % 5 == 4]}
    lanes = (2, 5, 12)[seed % 3]
    network = network_of(cell, 2, 3, seed=seed, **options)
    verify(*network, lanes, seed % 7 == 0, (input_stall, output_stall), seed=seed)


@pytest.mark.parametrize("output_stall", STALLS)
def test_back_pressure_on_a_group_a_cycle(output_stall):
    """One column and one lane a unit: a group may end in every cycle, and the decision for it stands a cycle before."""
    network = network_of("mingru", 1, 7, None, every_step=True, lengths=(9, 9))
    verify(*network, 100, False, ("always", output_stall))


# Pipelines for parts with multipliers that hold registers, for parts without multipliers, and every option at once.
TIMINGS = {
    "deep": Timing(operand=1, product=2, sums=True, factors=1),
    "tree": Timing(sums=True, tree=True),
    "deepest": Timing(memory=3, operand=2, product=3, sums=True, factors=2),
    "deepest tree": Timing(memory=2, operand=1, sums=True, factors=1, tree=True),
}


@pytest.mark.parametrize("timing", TIMINGS)
@pytest.mark.parametrize("shape", [(2, 3, 1), (1, 6, 8), (1, 1, 100)], ids=str)
@pytest.mark.parametrize("cell", FEW)
def test_timings(cell, shape, timing):
    """Values and closed forms; then values under back-pressure."""
    inputs, units, lanes = shape
    network = network_of(cell, inputs, units, 2, seed=lanes, lengths=(3, 1, 2), every_step=lanes % 3 == 0)
    stalls = STALLS[1 + lanes % 3], STALLS[1 + (lanes + list(TIMINGS).index(timing)) % 3]
    verify(*network, lanes, False, ("always", "always"), stalls, timing=TIMINGS[timing])


@pytest.mark.parametrize("timing", TIMINGS)
@pytest.mark.parametrize("cell", FEW)
def test_widths_and_timings(cell, timing):
    """A tree is as deep as its narrower factor is wide, so each product of a path may have a depth of its own."""
    widths = {"weight_bits": 3, "activation_bits": 5, "state_bits": 9, "cell_bits": 12}
    verify(*network_of(cell, 2, 3, 2, widths=widths, layers=2, lengths=(3, 1)), 3, timing=TIMINGS[timing])


FITTED = [name for name in (*NONLINEARITIES, *PARAMETRIC) if isinstance(hardware_of(name), Approximation)]
EVERY_DAY = [name for name in (*NONLINEARITIES, *PARAMETRIC) if name not in FITTED[1:]]


@pytest.mark.parametrize(
    "name", [*EVERY_DAY, "affine:-0.75:0.125", *(pytest.param(name, marks=pytest.mark.slow) for name in FITTED[1:])]
)
def test_nonlinearities(name):
    """As the gates' and as the state's."""
    verify(*network_of("lstm", gate=name, lengths=(3, 1)))
    verify(*network_of("lstm", activation=name, lengths=(3, 1)))


@pytest.mark.parametrize("name", ["pwl_tanh:7", "pwl_sigmoid:5:1", "leaky_relu:1", "leaky_relu:15"])
def test_parameters_of_nonlinearities(name):
    verify(*network_of("gru", gate=name, activation=name, lengths=(3, 1)))


def test_an_output_nonlinearity_of_its_own():
    verify(*network_of("lstm", output_activation="relu6"))
    verify(*network_of("lstm-peephole", output_activation="plan_sigmoid"))


@pytest.mark.parametrize("cell", KINDS)
def test_initial_states(cell):
    """Every value, cycle and latency."""
    model, x, lengths = network_of(cell, 2, 3, seed=1, lengths=(3, 1, 2))
    verify(started(model, 1), x, lengths, 3)


def test_initial_states_of_a_stack():
    model, x, lengths = network_of("gru", 2, 3, layers=2, every_step=True, lengths=(3, 1, 2))
    verify(started(model), x, lengths, 5, False, ("bursts", "random"))


@pytest.mark.slow
@pytest.mark.parametrize("output_stall", STALLS)
@pytest.mark.parametrize("input_stall", STALLS)
def test_initial_states_under_back_pressure(input_stall, output_stall):
    """Every pair of stalls, over the cells."""
    seed = STALLS.index(input_stall) * len(STALLS) + STALLS.index(output_stall)
    cell, sizes = list(CELLS)[seed % len(CELLS)], (1 + seed % 3, 1 + seed % 4)
    model, x, lengths = network_of(cell, *sizes, seed=seed, every_step=seed % 3 > 0)
    verify(started(model, seed), x, lengths, (2, 5, 12)[seed % 3], False, (input_stall, output_stall), seed=seed)


def test_initial_states_that_are_not_read_break_the_comparison():
    model, x, lengths = network_of("gru", 2, 3)
    given = started(model)
    with pytest.raises(AssertionError):
        network = Network(model, 4, probed=True)
        assert check(given, x, lengths, network=network, simulator="amaranth").mismatches == 0


@pytest.mark.parametrize("clip", [0.5, 1.0, 4.0])
def test_clipped_cell_state(clip):
    verify(*network_of("lstm", cell_clip=clip))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("cell", FEW)
def test_widths(cell, seed):
    rng = np.random.default_rng([seed, list(CELLS).index(cell)])
    names = ("weight_bits", "activation_bits", "state_bits", "cell_bits")
    widths = {name: int(rng.integers(2, 17)) for name in names}
    if seed == 0:
        widths = dict.fromkeys(names, 2)
    verify(*network_of(cell, 2, 3, 2, widths=widths, seed=seed, lengths=(3, 1)), 4)


@pytest.mark.parametrize("cell", ["lstm", "gru-reset-before"])
def test_widest(cell):
    verify(*network_of(cell, bits=32, lengths=(3, 1)))


def timed(network, model, x, lengths):
    """Cycles between the steps that the bounding engine ends, and the latency of the first sequence."""
    recording = run_amaranth(network, stimulus(network, model.quantize_input(x), lengths))
    engine = network.engines.index(network.bounding)
    layer = network.bounding.layer
    times = recording.probes[engine, layer.cell.output][1][layer.units - 1 :: layer.units]
    # A later engine's second step may wait for the one before it to get going.
    distances = np.diff(times)[1 if engine else 0 :]
    return distances, recording.output_cycles[network.outputs_per_vector - 1] - recording.input_cycles[model.inputs - 1]


def verify_closed_forms(cell, rng, layers=1, timing=SHORTEST):
    inputs, outputs = int(rng.integers(1, 9)), (None, 1, 4, 9)[rng.integers(4)]
    units = [int(rng.integers(1, 10)) for _ in range(layers)]
    every_step = bool(rng.integers(2))
    budgets = rng.choice([1, 2, 3, 4, 5, 7, 12, 16, 36, 100], layers + (outputs is not None)).tolist()
    model, x, lengths = network_of(
        cell, inputs, units, outputs, layers=layers, every_step=every_step, lengths=(1, 9, 9), bits=4
    )
    network = Network(model, budgets, argmax=bool(rng.integers(2)), probed=True, timing=timing)
    distances, latency = timed(network, model, x, lengths)
    assert latency == network.latency
    if rate_is_bounded_by_steps(network, lengths[1:]):
        assert set(distances.tolist()) == {network.cycles_per_step}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("cell", KINDS)
def test_closed_forms(cell, seed):
    """Not only typically: every step takes exactly the promised cycles, from the first one on."""
    verify_closed_forms(cell, np.random.default_rng([seed, 1]), layers=1 + (seed == 5))


@pytest.mark.parametrize("timing", TIMINGS)
@pytest.mark.parametrize("cell", FEW)
def test_closed_forms_of_timings(cell, timing):
    verify_closed_forms(cell, np.random.default_rng([5, list(TIMINGS).index(timing)]), timing=TIMINGS[timing])


@pytest.mark.slow
@pytest.mark.parametrize(("cell", "timing"), diagonals(KINDS, ["shortest", *TIMINGS]))
def test_closed_forms_of_many(cell, timing):
    for seed in range(8):
        verify_closed_forms(cell, np.random.default_rng([seed, 2]), 1 + seed % 3, TIMINGS.get(timing, SHORTEST))


@pytest.mark.slow  # many more, in nine ways, come by name: scripts/agree
@pytest.mark.parametrize("part", range(1))
@pytest.mark.parametrize("cell", FEW)
def test_random_designs(cell, part):
    for seed in range(part * 8, part * 8 + 8):
        rng = np.random.default_rng([seed, 3])
        layers = int(rng.integers(1, 4))
        units = [int(rng.integers(1, 8)) for _ in range(layers)]
        outputs = (None, 1, 2, 5)[rng.integers(4)]
        names = ("weight_bits", "activation_bits", "state_bits")
        model, x, lengths = network_of(
            cell, int(rng.integers(1, 6)), units, outputs, layers=layers, every_step=bool(rng.integers(2)), seed=seed,
            lengths=(1, 5, 3, 1), widths={name: int(rng.integers(2, 17)) for name in names},
        )  # fmt: skip
        lanes = rng.choice([1, 2, 3, 4, 5, 6, 8, 11, 16, 40, 100], layers + (outputs is not None)).tolist()
        argmax, stalls = bool(rng.integers(2)), tuple(rng.choice(STALLS, 2).tolist())
        verify(model, x, lengths, lanes, argmax, stalls, seed=seed, timing=rng.choice([SHORTEST, *TIMINGS.values()]))


# Measured on a prototype before the engine was written (but for the last row): the figures that it must keep.
FIGURES = [(12, 32, 4, 1408), (12, 32, 16, 352), (12, 32, 128, 44), (1, 20, 4, 420), (6, 20, 16, 130)]


@pytest.mark.parametrize("inputs, units, lanes, cycles", FIGURES)
def test_figures_of_the_lstm(inputs, units, lanes, cycles):
    model, _, _ = network_of("lstm", inputs, units, lengths=(1,))
    network = Network(model, lanes)
    assert network.cycles_per_step == cycles == network.ideal_cycles_per_step


@pytest.mark.parametrize("lanes", [0, -1, 2.0, True, "4", None])
def test_lanes_must_be_a_whole_number(lanes):
    model, _, _ = network_of(lengths=(1,))
    with pytest.raises(UsageError, match=f"^Lanes must be a whole number of at least 1, not {lanes!r}$"):
        Network(model, lanes)


def test_lanes_are_given_once_or_for_each_layer():
    model, _, _ = network_of(layers=2, lengths=(1,))
    with pytest.raises(UsageError, match=r"^Lanes must be given once or for each of 3 layers, not 2 times$"):
        Network(model, [4, 4])
    assert [engine.schedule.lanes for engine in Network(model, [4, 12, 1]).engines] == [4, 12, 1]
