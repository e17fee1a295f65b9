"""Measure what parts make of our networks, and write it between markers into docs/fpga.md and the README.

    scripts/bench --fpga                          everything, some tens of minutes on two cores
    scripts/bench --fpga --only closing           one part, printed only: closing, cost, path, peer, load
    scripts/bench --fpga --only closing --parts ecp5-25k-6,up5k --seeds 2
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from amaranth.back import verilog
from amaranth.hdl import Module
from amaranth.lib.wiring import In, Out
from bench import markdown, quantized

from hwrnn.errors import UsageError
from hwrnn.files import atomic_write
from hwrnn.report import Progress, quantity
from hwrnn.rtl import TARGETS, Network, Timing
from hwrnn.rtl.elementwise import ElementWise
from hwrnn.rtl.engine import Engine
from hwrnn.rtl.folding import fold
from hwrnn.rtl.packing import pack
from hwrnn.rtl.paths import critical_path
from hwrnn.rtl.placement import Placed, constraints, place
from hwrnn.rtl.ports import Part, shape
from hwrnn.rtl.recipes import FAMILIES, Cells, count_cells
from hwrnn.rtl.synthesis import NETLIST, check_fits, synthesize
from hwrnn.rtl.targets import Target
from hwrnn.rtl.tools import check_installed, yosys_package
from hwrnn.rtl.verilog import emit

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- {}: written by scripts/bench --fpga -->", "<!-- end of {} -->"
INPUTS, UNITS, BITS = 12, 32, 8

#: Part, lanes, the MHz that the engine is to reach, and what one bare multiply-accumulate lane reaches on it.
CLOSING = (
    ("ecp5-25k-6", 16, 175, 212),
    ("ecp5-25k-8", 16, 230, 279),
    ("up5k", 4, 45, 50),
    ("hx8k", 2, 110, 160),
    ("gw1n-9", 8, None, None),
    ("gw2a-18", 8, None, None),
)
#: Part, lanes and widths with which two lanes share a multiplier.
SHARING = (
    ("up5k", 8, "8-bit weights, operands of 8 bits", {"operand_bits": 8}),
    ("ecp5-25k-6", 16, "4-bit weights, operands of 9 bits", {"weight_bits": 4, "operand_bits": 9}),
    ("xc7s50", 16, "8-bit weights, operands of 8 bits", {"operand_bits": 8}),
)
COST_PARTS = ("up5k", "hx8k", "ecp5-25k-6", "gw2a-18", "xc7s50", "cyclonev")
COST_CELLS, COST_LANES = ("lstm", "gru", "rnn"), (1, 4, 16)

#: elastic-ai.creator 0.68, measured with GHDL and Yosys.
PEER = {"cycles": 5376, "LUT4": 578, "FF": 475, "multipliers": 8, "memories": 4}
PEER_SIZE, PEER_STEPS, PEER_LANES = (1, 20), 6, 4
#: Registers for few cycles rather than for the highest clock: no stage of its own for each sum.
PEER_TIMING = Timing(operand=1, product=2, factors=1)


@dataclass(frozen=True)
class Built:
    """What a part made of a design.

    Attributes:
        cells: of the netlist, as it goes to placement.
        mapped: of the netlist as Yosys wrote it.
        placed: one for each seed, the best first.
        layers: engines in it.
    """

    target: Target
    cells: Cells
    mapped: Cells
    placed: tuple[Placed, ...]
    layers: int = 1

    @property
    def best(self) -> float:
        """MHz of the best seed, at most what the data sheet allows the part's blocks."""
        rate, limit = self.placed[0].fmax_mhz, self.target.block_mhz
        return min(rate, limit) if limit and self.cells.multipliers else rate

    @property
    def median(self) -> float:
        """Median of the MHz that nextpnr reports."""
        return statistics.median(p.fmax_mhz for p in self.placed)

    @property
    def luts(self) -> int:
        """Logic cells, those for carries and small memories included: of the placed design where there is one."""
        logic = FAMILIES[self.target.family].logic
        return self.placed[0].used[logic]["used"] if self.placed else self.cells.luts

    @property
    def bound(self) -> str:
        """The critical path of the best seed."""
        path = critical_path(self.placed[0].path, self.layers)
        return "-" if path is None else path.name


def build(target: Target, component: Part | Network, clock: str, seeds: int, layers: int = 1) -> Built:
    """Synthesis, and place and route with some seeds.

    Raises:
        UsageError: the design does not fit.
    """
    with tempfile.TemporaryDirectory(prefix="hwrnn-bench-") as folder:
        work = Path(folder)
        if isinstance(component, Network):
            text = emit(component, "top").text
        else:
            text = verilog.convert(component, name="top", emit_src=False, strip_internal_attrs=True)
        (work / "top.v").write_text(text)
        netlist = synthesize(target, "top", "top.v", work)
        mapped = check_fits(target, netlist, "top")
        if target.family == "ecp5":
            fold(netlist, "top")
            pack(netlist, "top")
            (work / NETLIST).write_text(json.dumps(netlist))
        cells = count_cells(netlist, "top", FAMILIES[target.family])
        if not target.place or not seeds:
            return Built(target, cells, mapped, (), layers)
        constraints(target, netlist["modules"]["top"]["ports"], clock, work)
        placed = place(target, NETLIST, work, range(1, seeds + 1))
        return Built(target, cells, mapped, tuple(placed), layers)


def engine_of(cell: str, lanes: int, timing: Timing, size: tuple[int, int] = (INPUTS, UNITS)) -> Engine:
    """The engine of one recurrent layer: no head, and streams for ports."""
    return Engine(quantized(cell, *size).layers[0], lanes, timing=timing)


def told(row: list[Any]) -> list[Any]:
    """A row, printed at once beside the progress: a whole table takes long."""
    print("bench:", " | ".join(str(cell) for cell in row), file=sys.stderr, flush=True)
    return row


def closing(parts: list[str], seeds: int, tell: Any) -> list[str]:
    """The closing table: the engine alone, and the whole network with head and AXI4-Stream ports."""
    rows = []
    chosen = [row for row in CLOSING if not parts or row[0] in parts]
    for k, (name, lanes, bar, bare) in enumerate(chosen):
        target = TARGETS[name]
        tell(k / len(chosen), f"closing table, {name}")
        engine = engine_of("lstm", lanes, target.timing)
        network = Network(quantized("lstm", INPUTS, UNITS), lanes, timing=target.timing)
        designs = [
            ("engine", build(target, engine, "clk", seeds)),
            ("network", build(target, network, "aclk", seeds, len(network.engines))),
        ]
        for what, built in designs:
            raw, mark = built.placed[0].fmax_mhz, "*" if target.family == "gowin" else ""
            if built.placed[0].hold_violations:
                mark += " (hold violations)"
            rate = f"{raw:.1f}{mark}" if built.best == raw else f"{built.best:.0f} (nextpnr {raw:.1f})"
            share = "-" if bare is None else f"{100 * built.best / bare:.0f} %"
            steps = quantity(built.best * 1e6 / network.cycles_per_step)
            cells, wanted = built.cells, bar if bar and what == "engine" else "-"
            rows.append(told(
                [f"{name}, {lanes} lanes, {what}", rate, f"{built.median:.1f}", wanted, share, built.luts,
                 cells.flip_flops, cells.multipliers, cells.memories, steps, built.bound]
            ))  # fmt: skip
    header = ["part", "MHz", "median", "bar", "share of a bare lane", "LUT", "FF", "multipliers", "memories",
              "steps/s", "bound by"]  # fmt: skip
    text = [
        f"LSTM, {INPUTS} inputs, {UNITS} units, {BITS} bits; best and median of {seeds} seeds. *Engine*: the recurrent"
        " layer with its streams as ports. *Network*: with a dense head of 9 outputs and AXI4-Stream ports. The share"
        " is that of the clock that a single multiply-accumulate lane reaches on the part.",
        markdown(header, rows),
    ]
    if not parts:
        text += sharing(seeds)
    if any("*" in row[1] for row in rows):
        text.append("\\* An optimistic estimate: nextpnr's timing model of Gowin leaves the multipliers' delay out.")
    return text


def sharing(seeds: int) -> list[str]:
    """The network, head and ports included, where two lanes share a multiplier."""
    rows = []
    for name, lanes, widths, options in SHARING:
        target = TARGETS[name]
        network = Network(quantized("lstm", INPUTS, UNITS, **options), lanes, timing=target.timing)
        engine = network.engines[0]
        built = build(target, network, "aclk", seeds, len(network.engines))
        rate = f"{built.best:.1f}" if built.placed else "-"
        rows.append(told(
            [f"{name}, {lanes} lanes, {widths}", f"{engine.products_per_multiplier:.1f}", built.cells.multipliers,
             engine.lanes.multipliers, built.luts, built.cells.flip_flops, rate]
        ))  # fmt: skip
    header = ["network", "products a lane multiplier and cycle", "multipliers", "of them lanes", "LUT", "FF", "MHz"]
    return ["Where weights are narrow, two lanes share a multiplier:", markdown(header, rows)]


def cost(parts: list[str], seeds: int, tell: Any) -> list[str]:
    """LUT, FF, multipliers, memories and MHz of an engine, for each family."""
    texts = []
    chosen = [name for name in COST_PARTS if not parts or name in parts]
    total = len(chosen) * len(COST_CELLS) * len(COST_LANES)
    for p, name in enumerate(chosen):
        target, rows = TARGETS[name], []
        for c, cell in enumerate(COST_CELLS):
            for n, lanes in enumerate(COST_LANES):
                tell(((p * len(COST_CELLS) + c) * len(COST_LANES) + n) / total, f"cost, {name}, {cell}, {lanes} lanes")
                words = f"{cell}, {lanes} lane{'s' if lanes > 1 else ''}"
                rows.append(told([words, *cost_row(target, cell, lanes, seeds)]))
        header = [target.description, "LUT", "FF", "multipliers", "memories", "MHz", "cycles a step"]
        texts.append(markdown(header, rows))
    intro = (
        f"Engines of {INPUTS} inputs, {UNITS} units, {BITS} bits, without a head; LUT with carries and small memories,"
        f" MHz the best of {seeds} seeds, `-` where no open tool places and routes."
    )
    return [intro, *texts]


def cost_row(target: Target, cell: str, lanes: int, seeds: int) -> list[Any]:
    """A row of the cost table, or why it has none."""
    engine = engine_of(cell, lanes, target.timing)
    try:
        built = build(target, engine, "clk", seeds)
    except UsageError as error:
        reason = str(error).partition(" must need ")[2].partition(",")[0] or str(error)
        wanted = str(error).partition(", not ")[2].partition(",")[0]
        return [f"does not fit: needs {wanted} where it has {reason.removeprefix('at most ')}", *["-"] * 5]
    rate = f"{built.best:.0f}" if built.placed else "-"
    cells = built.cells
    return [built.luts, cells.flip_flops, cells.multipliers, cells.memories, rate, engine.cycles_per_step]


class PathAlone(Part):
    """The element-wise path of a layer's first phase between registers of its own, to be counted alone."""

    def __init__(self, cell: str, timing: Timing) -> None:
        self.layer, self.timing = quantized(cell, INPUTS, UNITS).layers[0], timing
        path = ElementWise.build(None, self.layer, 0, "path", timing)
        values = self.layer.formats.values
        ports: dict[str, Any] = {f"sum_{gate}": In(signal.shape()) for gate, signal in path.gates.items()}
        ports |= {f"old_{name}": In(signal.shape()) for name, signal in path.olds.items()}
        states = [name for name in self.layer.cell.states if name in path.stored]
        self.kept = states
        ports |= {f"new_{name}": Out(shape(values[name])) for name in states}
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        """The path and its ports."""
        m = Module()
        path = ElementWise.build(m, self.layer, 0, "path", self.timing)
        m.d.comb += [signal.eq(getattr(self, f"sum_{gate}")) for gate, signal in path.gates.items()]
        m.d.comb += [signal.eq(getattr(self, f"old_{name}")) for name, signal in path.olds.items()]
        m.d.comb += [getattr(self, f"new_{name}").eq(path.stored[name].raw.value) for name in self.kept]
        return m


def path(parts: list[str], seeds: int, tell: Any) -> list[str]:
    """The element-wise path alone, without hold registers and control."""
    rows = []
    chosen = [name for name in ("up5k", "hx8k", "ecp5-25k-6", "gw2a-18") if not parts or name in parts]
    for k, name in enumerate(chosen):
        for cell in COST_CELLS:
            tell(k / len(chosen), f"element-wise path, {name}, {cell}")
            cells = build(TARGETS[name], PathAlone(cell, TARGETS[name].timing), "clk", 0).cells
            rows.append([f"{name}, {cell}", cells.luts, cells.flip_flops, cells.multipliers])
    return [
        f"The element-wise path of {BITS} bits alone, which all lanes share; LUT4 with those of carries. HX8K has no"
        " multipliers: an LSTM's three are LUTs there.",
        markdown(["part, cell", "LUT4", "FF", "multipliers"], rows),
    ]


def peer(parts: list[str], seeds: int, tell: Any) -> list[str]:
    """The LSTM of elastic-ai.creator beside ours with as many lanes."""
    target = TARGETS["ecp5-25k-6"]
    rows = [["elastic-ai.creator 0.68", PEER["cycles"], "-", PEER["LUT4"], PEER["FF"], "-", "-", PEER["multipliers"],
             PEER["memories"], "-"]]  # fmt: skip
    for k, (words, timing) in enumerate((("few cycles", PEER_TIMING), ("highest clock", target.timing))):
        tell(k / 2, f"peer, {words}")
        engine = engine_of("lstm", PEER_LANES, timing, PEER_SIZE)
        built = build(target, engine, "clk", seeds)
        cycles = (PEER_STEPS - 1) * engine.cycles_per_step + engine.latency + PEER_SIZE[0] - 1
        cells = built.cells
        rows.append(
            [f"hwrnn, {words}", cycles, f"{built.best:.0f}", built.mapped.types["LUT4"], built.mapped.flip_flops,
             cells.types["LUT4"], cells.flip_flops, cells.multipliers, cells.memories,
             quantity(cycles / (built.best * 1e6), "s")]
        )  # fmt: skip
    header = ["LSTM, 1 input, 20 units, 6 steps, 8 bits, 4 lanes, ECP5", "cycles", "MHz", "LUT4 by Yosys",
              "FF by Yosys", "LUT4 placed", "FF placed", "MULT18X18D", "DP16KD", "time"]  # fmt: skip
    return [
        "LUT4 cells, without carries and small memories. *Placed*: after logic moved into carry chains and registers"
        " into multipliers and memories.",
        markdown(header, rows),
    ]


def load(parts: list[str], seeds: int, tell: Any) -> list[str]:
    """What a load port costs."""
    rows, target = [], TARGETS["ecp5-25k-6"]
    for k, weights in enumerate(("auto", "loadable")):
        tell(k / 2, f"load port, {weights}")
        network = Network(quantized("lstm", INPUTS, UNITS), 16, timing=target.timing, weights=weights)
        built = build(target, network, "aclk", seeds, len(network.engines))
        sums = network.engines[0].lanes.sum_shape.width
        rows.append(told(
            [f"weights {weights}", built.luts, built.cells.flip_flops, built.cells.memories, sums, f"{built.best:.0f}"]
        ))  # fmt: skip
    text = f"The same network, LSTM and head, 16 lanes, on {target.name}; MHz the best of {seeds} seeds."
    return [text, markdown(["16 lanes", "LUT", "FF", "memories", "accumulator bits", "MHz"], rows)]


SECTIONS = {"closing": closing, "cost": cost, "path": path, "peer": peer, "load": load}
#: Where each section goes: the file and the name in its markers.
PLACES = {name: "README.md" if name == "closing" else "docs/fpga.md" for name in SECTIONS}


def put(name: str, text: str) -> None:
    """Write a section between its markers."""
    file, start, end = ROOT / PLACES[name], START.format(name), END.format(name)
    before, found, rest = file.read_text().partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise UsageError(f"{PLACES[name]} must hold the markers {start!r} and {end!r}")
    atomic_write(file, f"{before}{start}\n\n{text}\n\n{end}{after}")


def main() -> None:
    """Measure what was asked for; write it if it is everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SECTIONS, action="append", help="measure a section and print it")
    parser.add_argument("--parts", default="", help="parts, with commas, of the closing, cost and path tables")
    parser.add_argument("--seeds", type=int, default=5, help="of place and route in the closing table (default 5)")
    parser.add_argument("--cost-seeds", type=int, default=2, help="of place and route in the cost table (default 2)")
    parser.add_argument("--write", action="store_true", help="write the sections of --only too")
    given = parser.parse_args()
    yosys_package()
    check_installed([f.placer[0] for f in FAMILIES.values() if f.placer[0]])
    parts = [name for name in given.parts.split(",") if name]
    unknown = [name for name in parts if name not in TARGETS]
    if unknown or given.seeds < 1 or given.cost_seeds < 1:
        parser.error("--parts must name parts, and seeds must be at least 1")
    if parts and (given.write or not given.only):
        parser.error("--parts is for --only without --write: a table is written whole")
    chosen = given.only or list(SECTIONS)
    progress = Progress("bench", every=0)
    for k, name in enumerate(chosen):

        def tell(done: float, words: str, k: int = k) -> None:
            progress(k + done, len(chosen), words)

        seeds = given.cost_seeds if name in ("cost", "load") else given.seeds
        lines = SECTIONS[name](parts, seeds, tell)
        text = "\n\n".join([*lines, f"Measured on {date.today().isoformat()}."])
        print(text, end="\n\n", flush=True)
        if given.write or not given.only:
            put(name, text)
    progress(len(chosen), len(chosen))


if __name__ == "__main__":
    try:
        main()
    except UsageError as error:
        sys.exit(f"bench: {error}")
