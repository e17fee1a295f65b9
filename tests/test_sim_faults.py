"""Faults planted in the hardware: each must be found, and named by place. A check that finds none proves nothing."""

from dataclasses import replace

import pytest
from amaranth.hdl import Const
from networks import network_of

import hwrnn.rtl.elementwise
import hwrnn.rtl.engine
import hwrnn.rtl.lanes
from hwrnn.rtl.argmax import ArgMax
from hwrnn.rtl.engine import Engine
from hwrnn.rtl.front import Front
from hwrnn.rtl.network import Network
from hwrnn.rtl.ports import OutputBuffer
from hwrnn.rtl.schedule import Schedule
from hwrnn.sim import check, simulate

AMARANTH = {"simulator": "amaranth"}


def overridden(monkeypatch, component, statements):
    """The component with statements added to its module; the last assignment of a signal holds."""
    elaborate = component.elaborate

    def patched(self, platform):
        m = elaborate(self, platform)
        m.d.comb += statements(self)
        return m

    monkeypatch.setattr(component, "elaborate", patched)


def fails(network, **options):
    with pytest.raises(AssertionError) as error:
        check(*network, **AMARANTH, **options)
    return str(error.value)


def flipped(model, layer, gate, operand, place, bit):
    """The model with one bit of one weight flipped."""
    stack = list(model.layers)
    weights = {key: array.copy() for key, array in stack[layer].weights.items()}
    weights[gate, operand][place] ^= bit
    stack[layer] = replace(stack[layer], weights=weights)
    return replace(model, layers=tuple(stack))


@pytest.mark.parametrize("layer, gate, unit", [(0, "g", 2), (0, "i", 0), (1, "o", 1)])
def test_a_flipped_weight_is_named(layer, gate, unit):
    model, x, lengths = network_of("lstm", 2, 3, layers=2, every_step=True, bits=6)
    faulty = flipped(model, layer, gate, "h", (unit, 1), 16)
    report = simulate(model, x, lengths, network=Network(faulty, 4, probed=True), **AMARANTH)
    first = report.first_difference
    # The state is zero in the first step of a sequence, so that is right in spite of the weight.
    assert (first.layer, first.value, first.unit) == (layer, f"a.{gate}", unit)
    assert first.sequence == 0 and first.step > 0
    golden_value = first.expected
    assert first.actual != golden_value and 0 < report.mismatches < report.compared
    with pytest.raises(AssertionError) as error:
        check(model, x, lengths, network=Network(faulty, 4, probed=True), **AMARANTH)
    place = f"sequence 0, step {first.step}, unit {unit}"
    assert str(error.value) == (
        f"value 'a.{gate}' of layer {layer} must be {golden_value} at {place}, not {first.actual} as in cycle "
        f"{first.cycle} ({report.mismatches} of {report.compared} values differ)"
    )


def test_a_fault_is_found_at_the_port_alone():
    model, x, lengths = network_of("gru", 2, 3, every_step=True)
    faulty = replace(model, head=replace(model.head, biases={"y": model.head.biases["y"] + [0, 1 << 12, 0]}))
    report = simulate(model, x, lengths, network=Network(faulty, 4), **AMARANTH)
    assert (report.first_difference.value, report.first_difference.unit) == ("output", 1)
    assert report.compared == 2 * 3 * lengths.sum()  # outputs and their last flags


def test_a_gap_one_too_small(monkeypatch):
    """The operand's column is issued a cycle before the drain has written it."""
    model, x, lengths = network_of("rnn", 1, 4, lengths=(6, 6), every_step=True)
    assert Network(model, 4).engines[0].schedule.phases[0].gap > 1
    plan = hwrnn.rtl.engine.plan

    def shorter(*arguments):
        found = plan(*arguments)
        return replace(found, phases=tuple(replace(p, gap=max(p.gap - 1, 0)) for p in found.phases))

    monkeypatch.setattr(hwrnn.rtl.engine, "plan", shorter)
    assert "'a.h' of layer 0" in fails((model, x, lengths), lanes=4)


def test_a_gap_one_too_large(monkeypatch):
    """Right values too late: the closed forms say so."""
    model, x, lengths = network_of("rnn", 1, 4, lengths=(6, 6), every_step=True)
    due = Network(model, 4).cycles_per_step
    elaborate = Front.elaborate

    def slower(self, platform):
        p = self.schedule.phases[0]
        self.schedule = replace(self.schedule, phases=(replace(p, gap=p.gap + 1),))
        return elaborate(self, platform)

    monkeypatch.setattr(Front, "elaborate", slower)
    text = fails((model, x, lengths), lanes=4)
    assert text.startswith(f"hardware must take {due} cycles a step and ") and f", not {due + 1} and " in text


def test_a_front_that_does_not_wait(monkeypatch):
    overridden(monkeypatch, Front, lambda self: self.settled.eq(1))
    assert "layer 0" in fails(network_of("rnn", 1, 4, lengths=(6, 6)), lanes=4)


def test_a_state_bank_that_does_not_alternate(monkeypatch):
    monkeypatch.setattr(Engine, "_banked", lambda self, name: False)
    # Several groups: the first one's new state overwrites what the later ones still read.
    assert "layer 0" in fails(network_of("rnn", 6, 6, lengths=(6, 6)), lanes=2)


def test_a_state_that_survives_its_sequence(monkeypatch):
    network = network_of("lstm", 2, 3, lengths=(3, 3))
    original = Engine._operand

    def stale(self, *given):
        *rest, _ = given  # the last one tells that a sequence begins
        return original(self, *rest, Const(0))

    monkeypatch.setattr(Engine, "_operand", stale)
    assert "sequence 1, step 0" in fails(network)


def test_an_input_that_does_not_wait(monkeypatch):
    overridden(monkeypatch, Engine, lambda self: self.i.ready.eq(1))
    assert "layer 0" in fails(network_of("gru", 2, 3, lengths=(5, 5)))


@pytest.mark.parametrize("lanes", [1, 4, 100])
def test_credits_given_back_too_early(monkeypatch, lanes):
    """However slow the engine, bursts of the output's stall fill its buffer."""
    network = network_of("gru", 2, 5, None, lengths=(9, 9), every_step=True)
    check(*network, lanes=lanes, output_stall="bursts", **AMARANTH)
    overridden(monkeypatch, OutputBuffer, lambda self: self.taken.eq(self.o.valid))
    assert "must be" in fails(network, lanes=lanes, output_stall="bursts")


def test_an_argmax_that_does_not_wait(monkeypatch):
    network = network_of("gru", 2, 3, 2, lengths=(9, 9), every_step=True)
    check(*network, lanes=100, argmax=True, output_stall="bursts", **AMARANTH)
    overridden(monkeypatch, ArgMax, lambda self: self.i.ready.eq(1))
    assert " of layer 1 must be" in fails(network, lanes=100, argmax=True, output_stall="bursts")


def test_a_last_flag_that_is_missing(monkeypatch):
    overridden(monkeypatch, Network, lambda self: self.o.payload["last"].eq(0))
    assert "'last'" in fails(network_of("rnn"))


def test_a_rounding_without_its_half(monkeypatch):
    for module in (hwrnn.rtl.elementwise, hwrnn.rtl.lanes):
        monkeypatch.setattr(module, "rounding_half", lambda layer, gate: 0)
    assert "'a.h' of layer 0" in fails(network_of("rnn"))


def test_outputs_too_many(monkeypatch):
    """An engine that returns every step where the last one is due; the surplus shows at the first sequence's end."""
    model, x, lengths = network_of("rnn", outputs=None, lengths=(1, 2))
    faulty = replace(model, every_step=True)
    report = simulate(model, x, lengths, network=Network(model, probed=True), **AMARANTH)
    assert report.mismatches == 0
    network = Network(faulty, probed=True)
    network.model = model
    with pytest.raises(AssertionError, match=r"beyond the last one|must be"):
        check(model, x, lengths, network=network, **AMARANTH)


def test_a_deadlock_ends(monkeypatch):
    monkeypatch.setattr(Schedule, "buffer", property(lambda self: self.phases[-1].parallel - 1))
    report = simulate(*network_of("rnn", 2, 3), **AMARANTH)
    assert report.first_difference.actual is None
    assert "but never came" in str(report.first_difference)
    assert report.cycles < 20_000
    assert report.accuracy["hardware"] is None and report.closed_forms is None
    assert " must be " in fails(network_of("rnn", 2, 3))
