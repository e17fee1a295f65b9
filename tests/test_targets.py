"""The table of parts, and what a network needs of one."""

import pytest
from networks import network_of

from hwrnn.errors import UsageError
from hwrnn.rtl import TARGETS, Network, generate
from hwrnn.rtl.targets import Target
from hwrnn.rtl.timing import Timing


def test_targets_count_multipliers_by_their_ports():
    part = Target("p", "f", "d", 10, (25, 18), 1, 1, 1, 1, 1, Timing(), "")
    pairs = [(8, 8), (25, 18), (18, 25), (26, 18), (19, 25), (20, 20), (35, 35), (49, 35), (2, 2)]
    assert [part.multipliers_for(*pair) for pair in pairs] == [1, 1, 1, 2, 2, 2, 4, 4, 1]
    assert all(name == row.name and row.memory_bits > 0 for name, row in TARGETS.items())
    assert {"up5k", "hx8k", "ecp5-25k-6", "ecp5-85k-8", "gw1n-9", "gw2a-18", "xc7s15", "cyclonev"} <= set(TARGETS)


def test_a_target_shows_its_share(tmp_path):
    model = network_of("gru", 3, 5)[0]
    manifest = generate(model, tmp_path / "out", lanes=4, target="ecp5-25k-6")
    target = manifest["target"]
    assert target["used"] == {"multipliers": manifest["multipliers"], "memory_bits": manifest["memory_bits"]}
    assert target["share"]["multipliers"] == manifest["multipliers"] / 28
    assert f"{manifest['multipliers']} of 28 multipliers" in (tmp_path / "out" / "README.md").read_text()
    assert generate(model, tmp_path / "out", lanes=4, target="hx8k")["target"]["share"]["multipliers"] is None
    assert "builds multipliers from logic" in (tmp_path / "out" / "README.md").read_text()
    assert generate(model, tmp_path / "out")["target"] is None


def test_what_cannot_fit_is_told_by_how_much(tmp_path):
    model = network_of("lstm", 2, 8)[0]
    network = Network(model, 64, timing=TARGETS["up5k"].timing)
    more = network.multipliers - 8
    with pytest.raises(UsageError) as caught:
        generate(model, tmp_path / "out", lanes=64, target="up5k")
    assert str(caught.value) == (
        f"Network must need at most 8 multipliers for up5k, not {network.multipliers}, which is {more} too many:"
        " give fewer lanes or a larger part"
    )
    large = network_of("rnn", 64, 256, lengths=(1,))[0]
    bits = Network(large, 1).memory_bits
    with pytest.raises(UsageError) as caught:
        generate(large, tmp_path / "out", lanes=1, target="hx8k")
    assert str(caught.value) == (
        f"Network must need at most 131072 bits of memory for hx8k, not {bits}, which is {bits - 131072} too many:"
        " use fewer bits or units, or a larger part"
    )
    assert list(tmp_path.iterdir()) == []
