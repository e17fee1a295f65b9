"""From a netlist to a placed and routed design, by nextpnr with several seeds, and on to a bitstream."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from hwrnn.errors import UsageError, require
from hwrnn.rtl.recipes import FAMILIES
from hwrnn.rtl.targets import Target
from hwrnn.rtl.tools import Job, ToolError, run_all

__all__ = ["BOARD_PINS", "Placed", "bitstream", "constraints", "place"]

CONSTRAINTS = "pins.cst"
BOARD_PINS = "board.pins"


@dataclass(frozen=True)
class Placed:
    """What one seed gave.

    Attributes:
        seed: of nextpnr's random generator.
        fmax_mhz: highest clock rate between registers.
        hold_violations: paths that are too short for the clock's spread; the bitstream is not to be trusted with any.
        used: of every kind of cell: how many are used, and how many the part has.
        path: the critical path between registers, as nextpnr reports it.
        design: file in the working folder that the packer reads.
    """

    seed: int
    fmax_mhz: float
    hold_violations: int
    used: dict[str, dict[str, int]]
    path: list[dict[str, Any]]
    design: str


def place(
    target: Target,
    netlist: str,
    folder: Path,
    seeds: Sequence[int],
    tick: Callable[[int], object] | None = None,
    pinned: bool = False,
) -> list[Placed]:
    """Place and route the file ``netlist`` of the working folder with each seed, the best first.

    The best has the fewest hold violations, then the highest clock rate.

    Args:
        pinned: whether every pin and the clock stand in the file ``BOARD_PINS`` of the working folder.

    Raises:
        UsageError: the design does not fit.
        ToolError: nextpnr failed.
    """
    faults = run_all([_job(target, netlist, folder, seed, pinned) for seed in seeds], folder, tick)
    fault = next((f for f in faults if f is not None), None)
    if fault is not None and all(faults):
        full = "unable to place|no more|failed to place|not enough|too many"
        reason = re.search(rf"ERROR: (.*(?:{full}).*)", fault.log, re.IGNORECASE)
        if reason:
            raise UsageError(
                f"Network must fit {target.name}, and nextpnr finds that it does not ({reason[1].strip()}): give fewer"
                " lanes, or take a larger part"
            )
        raise fault
    placed = [_checked(seed, target, folder) for seed, fault in zip(seeds, faults, strict=True) if fault is None]
    return sorted(placed, key=lambda p: (p.hold_violations, -p.fmax_mhz, p.seed))


def _files(target: Target, seed: int) -> tuple[str, str, str]:
    """What a seed writes: the design, nextpnr's report and its log."""
    suffix = {"ice40": "asc", "ecp5": "config", "gowin": "json"}[target.family]
    return f"placed-{seed}.{suffix}", f"timing-{seed}.json", f"placement-{seed}.log"


def _job(target: Target, netlist: str, folder: Path, seed: int, pinned: bool) -> Job:
    design, report, log = _files(target, seed)
    output = {
        "ice40": ("--asc", design, *(("--pcf", BOARD_PINS) if pinned else ("--pcf-allow-unconstrained",))),
        "ecp5": ("--textcfg", design, *(("--lpf", BOARD_PINS) if pinned else ("--lpf-allow-unconstrained",))),
        "gowin": ("--write", design, "--vopt", f"cst={CONSTRAINTS}"),
    }[target.family]
    arguments = [*target.place, "--json", netlist, *output, "--seed", str(seed), "--freq", str(target.goal)]
    arguments += ["--timing-allow-fail", "--report", report]
    return Job.calling(FAMILIES[target.family].placer, arguments, log, report)


def _checked(seed: int, target: Target, folder: Path) -> Placed:
    """What nextpnr reported, where that makes sense."""
    _, report, log = _files(target, seed)
    try:
        return _read(seed, target, folder)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ToolError(f"nextpnr wrote no report into {report}", (folder / log).read_text(errors="replace")) from error


def _read(seed: int, target: Target, folder: Path) -> Placed:
    design, report, log = _files(target, seed)
    facts = json.loads((folder / report).read_text())
    if not facts["fmax"]:
        raise ToolError("nextpnr reported no clock rate", (folder / log).read_text(errors="replace"))
    inner = [p["path"] for p in facts["critical_paths"] if p["from"] == p["to"] != "<async>"]
    held = re.findall(r"(\d+) Hold/min time violations", (folder / log).read_text(errors="replace"))
    return Placed(
        seed=seed,
        fmax_mhz=min(clock["achieved"] for clock in facts["fmax"].values()),
        hold_violations=int(held[-1]) if held else 0,
        used=facts["utilization"],
        path=max(inner, key=lambda path: sum(step["delay"] for step in path), default=[]),
        design=design,
    )


def bitstream(
    target: Target, design: str, name: str, folder: Path, tick: Callable[[int], object] | None = None
) -> str:
    """Make the bitstream of a placed design; the name of its file in the working folder.

    Raises:
        ToolError: the packer failed.
    """
    family = FAMILIES[target.family]
    made = f"{name}.{family.suffix}"
    arguments = [design, made]
    if target.family == "ecp5":
        arguments.insert(0, "--compress")
    elif target.family == "gowin":
        arguments = ["-d", _chip(target), "-o", made, design]
    fault = run_all([Job.calling(family.packer, arguments, "bitstream.log", made)], folder, tick)[0]
    if fault is not None:
        raise fault
    return made


def _chip(target: Target) -> str:
    """The name that apycula has for a Gowin part's data."""
    return next(word.partition("=")[2] for word in target.place if word.startswith("family="))


def constraints(target: Target, ports: dict[str, dict[str, Any]], clock: str, folder: Path) -> None:
    """Write the pins of a design's ports where nextpnr does not choose them itself, which is for Gowin.

    The clock gets a pin with a line to the clock network, everything else pins without a second use.

    Raises:
        UsageError: more ports than pins.
    """
    bits = sum(len(port["bits"]) for port in ports.values())
    if bits > target.pins:
        raise UsageError(
            f"Network must have at most {target.pins} bits of ports for the pins of {target.name}, not {bits}, which is"
            f" {bits - target.pins} too many: use fewer bits, build it into a design of your own, or take a larger part"
        )
    if target.family != "gowin":
        return
    chipdb = require("apycula.chipdb", "fpga")
    chip = _chip(target)
    data = chipdb.load_chipdb(resources.files("apycula") / f"{chip}.msgpack.xz")
    device = next(word for word in target.place if "/" in word)
    package, variant, _ = data.packages[device]
    pinout = data.pinout[variant][package]
    free = iter(sorted(pin for pin, (_, uses) in pinout.items() if not uses))
    clocks = sorted(pin for pin, (_, uses) in pinout.items() if any(use.startswith("GCLKT") for use in uses))
    lines = [
        f'IO_LOC "{port}" {clocks[0] if port == clock else next(free)};' for port in _port_bits(ports)
    ]
    (folder / CONSTRAINTS).write_text("\n".join(lines) + "\n")


def _port_bits(ports: dict[str, dict[str, Any]]) -> Iterator[str]:
    for name, port in ports.items():
        width = len(port["bits"])
        yield from [name] if width == 1 else [f"{name}[{k}]" for k in range(width)]
