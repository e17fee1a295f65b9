"""What parts make of the choices of memories: which blocks are taken, and that the netlist still computes."""

from collections import Counter
from pathlib import Path

import pytest
from networks import network_of
from test_netlist import mapped, run, share

from hwrnn.errors import UsageError
from hwrnn.rtl import TARGETS, generate
from hwrnn.rtl.flow import implement
from hwrnn.rtl.placement import bitstream, constraints, place
from hwrnn.rtl.recipes import FAMILIES, count_cells
from hwrnn.rtl.synthesis import NETLIST, check_fits, synthesize

pytestmark = pytest.mark.fpga


def cells_of(weights: str, device: str, folder: Path) -> Counter:
    """The cells of a network with weights and biases of 88 and some more words."""
    share()
    generated = folder / weights
    generate(network_of("gru", 12, 32, 4, bits=8)[0], generated, lanes=20, name="net", target=device, weights=weights)
    work = folder / f"{weights}-work"
    work.mkdir()
    (work / "network.v").write_bytes((generated / "net.v").read_bytes())
    netlist = synthesize(TARGETS[device], "net", "network.v", work)
    return Counter(count_cells(netlist, "net", FAMILIES[TARGETS[device].family]).types)


@pytest.mark.long
def test_block_and_distributed_weights_on_ecp5(tmp_path: Path) -> None:
    cells = {w: cells_of(w, "ecp5-25k-6", tmp_path) for w in ("auto", "block", "distributed")}
    assert cells["distributed"]["DP16KD"] == 0
    assert cells["block"]["DP16KD"] > cells["auto"]["DP16KD"]
    assert cells["block"]["LUT4"] < cells["auto"]["LUT4"] <= cells["distributed"]["LUT4"]


@pytest.mark.parametrize(
    "device, weights, cell, units",
    [
        ("up5k", "spram", "lstm", 5),
        ("up5k", "loadable", "gru", 4),
        ("hx8k", "loadable", "rnn", 4),
        ("ecp5-25k-6", "loadable", "rnn", 4),
        pytest.param("ecp5-25k-6", "block", "lstm", 5, marks=pytest.mark.long),
        pytest.param("ecp5-25k-6", "distributed", "lstm", 5, marks=pytest.mark.long),
    ],
)
def test_the_netlist_gives_the_golden_integers(
    device: str, weights: str, cell: str, units: int, tmp_path: Path
) -> None:
    model, x, lengths = network_of(cell, 3, units, 2, bits=6, lengths=(2, 1))
    options = {"lanes": 2, "name": "net", "samples": x, "lengths": lengths}
    generate(model, tmp_path / "verilog", target=device, weights=weights, **options)
    work = tmp_path / "work"
    work.mkdir()
    # So small a network would have its weights elsewhere than in a block.
    blocks = device.startswith("ecp5") and weights == "loadable"
    netlist, types = mapped(TARGETS[device], tmp_path / "verilog", work, blocks)
    assert (types.get("SB_SPRAM256KA", 0) > 0) == (weights == "spram")
    assert not blocks or types["DP16KD"]
    verdict = run(tmp_path / "verilog" / "net_tb.v", netlist, TARGETS[device].family, work)
    assert verdict.startswith("PASS net"), verdict


def test_spram_goes_to_parts_that_have_it(tmp_path: Path) -> None:
    generate(network_of("rnn", 2, 3)[0], tmp_path / "v", lanes=1, target="up5k", weights="spram")
    words = r"^Network must have weights other than 'spram' for hx8k, which has no such memory$"
    with pytest.raises(UsageError, match=words):
        implement(tmp_path / "v", "hx8k")


#: A network between shift registers, for it has more ports than the part has pins.
_PINS = """
module pins (input aclk, input aresetn, input i, input s, output o);
  reg [63:0] in = 0, out = 0;
  wire [63:0] seen;
  always @(posedge aclk) begin in <= {in, i}; out <= s ? seen : out << 1; end
  assign o = out[63];
  net net (.aclk(aclk), .aresetn(aresetn), .s_axis_tdata(in[7:0]), .s_axis_tvalid(in[8]), .s_axis_tlast(in[9]),
    .s_axis_tready(seen[0]), .m_axis_tdata(seen[17:2]), .m_axis_tvalid(seen[18]), .m_axis_tlast(seen[19]),
    .m_axis_tready(in[10]), .s_load_tdata(in[18:11]), .s_load_tvalid(in[19]), .s_load_tlast(in[20]),
    .s_load_tready(seen[1]), .m_load_tdata(seen[27:20]), .m_load_tvalid(seen[28]), .m_load_tready(in[21]),
    .held(seen[29]));
  assign seen[63:30] = 0;
endmodule
"""


def test_spram_is_placed(tmp_path: Path) -> None:
    share()
    generate(network_of("lstm", 2, 4)[0], tmp_path / "v", lanes=4, name="net", target="up5k", weights="spram")
    (tmp_path / "network.v").write_text((tmp_path / "v" / "net.v").read_text() + _PINS)
    target = TARGETS["up5k"]
    netlist = synthesize(target, "pins", "network.v", tmp_path)
    cells = check_fits(target, netlist, "pins")
    assert cells.sprams == 2
    constraints(target, netlist["modules"]["pins"]["ports"], "aclk", tmp_path)
    best = place(target, NETLIST, tmp_path, range(1, 2))[0]
    assert best.fmax_mhz > 20
    assert bitstream(target, best.design, "pins", tmp_path)
