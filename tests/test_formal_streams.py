"""Streams lose nothing and double nothing: proofs of every part and of small engines, and faults that refute them."""

import formal_engine
import formal_ports
import formal_state
import formal_streams
import pytest
from formal import missing
from formal_streams import checker

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=missing() or ""),
    pytest.mark.skipif(checker() is None, reason="needs pyosys, which brings ABC"),
]

PROOFS = {**formal_streams.PROOFS, **formal_engine.PROOFS, **formal_state.PROOFS, **formal_ports.PROOFS}
EVERY_DAY = [name for name, proof in PROOFS.items() if not proof.slow]
#: one of each kind; scripts/prove runs the others
SLOW = [
    "output buffer, 5 elements",
    "repeat of 3",
    "engine, lstm of 1 inputs, 2 units, 1 lanes, every step",
    "engine, gru of 1 inputs, 2 units, 8 lanes, last step, 2 channels",
    "engine, lstm-peephole of 1 inputs, 2 units, 2 lanes, last step",
    "engine, gru-reset-before of 1 inputs, 2 units, 2 lanes, every step",
    "engine, fault: a countdown stands still",
    "engine, fault: last with every element",
    "states, lstm of 1 inputs, 2 units, 1 lanes, every step",
    "states, gru-reset-before of 1 inputs, 3 units, 2 lanes, every step, 2 channels",
    "states, fault: a wait a cycle too short",
    "loader",
    "server",
    "ports of a top",
    "ports of a top, ready in a reset (fault)",
    "frame sender, the payload does not wait (fault)",
    "network with argmax, 36 cycles",
]


@pytest.mark.parametrize("name", EVERY_DAY)
def test_streams(name):
    PROOFS[name].check()


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_slow_ones(name):
    PROOFS[name].check()
