"""What a part makes of a network: logic, clock, speed and critical path, as a table and for programs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hwrnn import report
from hwrnn.rtl.board import BoardDesign
from hwrnn.rtl.paths import CriticalPath
from hwrnn.rtl.placement import Placed
from hwrnn.rtl.recipes import FAMILIES, Cells
from hwrnn.rtl.targets import Target

__all__ = ["Implementation"]


@dataclass(frozen=True)
class Implementation:
    """What a part makes of a network.

    Attributes:
        target: the part.
        network: the content of manifest.json.
        cells: of the netlist.
        lut, ff: of the placed design, carries and small memories included; before placement, of the netlist.
        placed: one for each seed, the best first; empty where only synthesis is possible.
        path: the critical path of the best; None without placement.
        bitstream: path of the file; None without placement.
        folder: of everything written.
        tools: their versions.
        design: around the network on a board; None on a part alone.
        steps: time steps of a sequence; None where nobody said.
    """

    target: Target
    network: dict[str, Any]
    cells: Cells
    lut: int
    ff: int
    placed: tuple[Placed, ...]
    path: CriticalPath | None
    bitstream: str | None
    folder: str
    tools: dict[str, str]
    design: BoardDesign | None = None
    steps: float | None = None

    @property
    def fmax_mhz(self) -> float | None:
        """Clock rate of the best seed."""
        return round(self.placed[0].fmax_mhz, 2) if self.placed else None

    @property
    def cycles_per_step(self) -> int:
        """Cycles of a time step in steady state."""
        return int(self.network["cycles_per_step"]["value"])

    @property
    def clock_mhz(self) -> float | None:
        """The clock that counts: a board's oscillator, and on a part alone ``fmax_mhz``."""
        return self.fmax_mhz if self.design is None else self.design.clock_mhz

    @property
    def steps_per_second(self) -> float | None:
        """Time steps a second of the network at ``clock_mhz``."""
        return None if self.clock_mhz is None else round(self.clock_mhz * 1e6 / self.cycles_per_step, 1)

    @property
    def uart_steps_per_second(self) -> float | None:
        """Time steps a second that a board's UART can bring, at ten bits for a byte."""
        if self.design is None:
            return None
        port = self.network["ports"]["input"]
        return round(self.design.baud / 10 / (port["elements_per_vector"] * port["tdata_bits"] // 8), 1)

    @property
    def note(self) -> str | None:
        """What a reader has to know of the clock rate."""
        if self.fmax_mhz is None:
            return None
        if self.placed[0].hold_violations:
            return f"with {self.placed[0].hold_violations} hold violations: not to be trusted, try more seeds"
        limit = self.target.block_mhz
        if self.cells.multipliers and limit and self.fmax_mhz > limit:
            return f"the data sheet gives the multipliers about {limit} MHz, which the timing model leaves out"
        return FAMILIES[self.target.family].note

    @property
    def cycles_per_inference(self) -> float | None:
        """Cycles from a sequence's start to the next one's: of its ``steps``, or of a head that takes longer."""
        if self.steps is None:
            return None
        layers = self.network.get("layers", ())
        return max(self.steps * self.cycles_per_step, *(layer["cycles_per_step"]["value"] for layer in layers))

    @property
    def inferences_per_second(self) -> float | None:
        """Sequences of ``steps`` time steps a second, one after the other."""
        cycles = self.cycles_per_inference
        return None if self.clock_mhz is None or cycles is None else self.clock_mhz * 1e6 / cycles

    def table(self) -> str:
        """The report for people."""

        def share(need: int, has: int) -> str:
            return f"{need:,} of {has:,}" if has else f"{need:,}"

        target, cells = self.target, self.cells
        where = target.name if self.design is None else f"{self.design.board}, {target.name}"
        rows: list[list[Any]] = [
            ["LUT", share(self.lut, target.luts)],
            ["FF", share(self.ff, target.flip_flops)],
            ["multipliers", share(cells.multipliers, target.multipliers)],
            ["block memories", share(cells.memories, target.memory_blocks)],
            ["cycles a time step", self.cycles_per_step],
        ]
        if cells.sprams:
            rows.insert(-1, ["SPRAM blocks", share(cells.sprams, target.sprams)])
        if self.fmax_mhz is None or self.steps_per_second is None or self.clock_mhz is None:
            rows.append(["clock, bitstream", "- (synthesis only)"])
            return report.table(rows, [where, "figure"])
        if self.design is not None:
            rows.append(["board's clock", f"{self.design.clock_mhz:g} MHz"])
        rows += [
            ["clock" if self.design is None else "highest clock", f"{self.fmax_mhz:.1f} MHz"],
            ["time steps a second", report.quantity(self.steps_per_second)],
        ]
        if self.design is not None:
            rate = report.quantity(self.uart_steps_per_second or 0)
            rows.append([f"the same over the UART, {self.design.baud} baud", rate])
        per_second = self.inferences_per_second
        if per_second is not None and self.steps is not None:
            rows.append([f"inferences of {self.steps:.4g} steps a second", report.quantity(per_second)])
            rows.append(["time of one", report.quantity(1 / per_second, "s")])
        latency = int(self.network["latency"]["value"]) / (self.clock_mhz * 1e6)
        rows.append(["latency of a step", report.quantity(latency, "s")])
        if self.path is not None:
            rows.append(["critical path", self.path.name])
        if len(self.placed) > 1:
            rates = [f"{p.fmax_mhz:.1f}" for p in sorted(self.placed, key=lambda p: p.seed)]
            rows.append(["MHz of each seed", " ".join(rates)])
        text = report.table(rows, [where, "figure"])
        return text if self.note is None else f"{text}\nclock: {self.note}"

    def __str__(self) -> str:
        files = [["bitstream:", self.bitstream or "-"], ["folder:", self.folder]]
        return f"{self.table()}\n\n{report.table(files)}"

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        latency = int(self.network["latency"]["value"])
        per_second = self.inferences_per_second
        return {
            "device": self.target.name,
            "description": self.target.description,
            "fmax_mhz": self.fmax_mhz,
            "fmax_note": self.note,
            "lut": self.lut,
            "ff": self.ff,
            "multipliers": self.cells.multipliers,
            "bram": self.cells.memories,
            "spram": self.cells.sprams,
            "bitstream": self.bitstream,
            "steps_per_second": self.steps_per_second,
            "steps_per_inference": self.steps,
            "inferences_per_second": None if per_second is None else round(per_second, 1),
            "seconds_per_inference": None if per_second is None else 1 / per_second,
            "cycles_per_step": self.cycles_per_step,
            "latency_cycles": latency,
            "latency_seconds": None if self.clock_mhz is None else latency / (self.clock_mhz * 1e6),
            "critical_path": None if self.path is None else asdict(self.path),
            "hold_violations": self.placed[0].hold_violations if self.placed else None,
            "seeds": [
                {"seed": p.seed, "fmax_mhz": round(p.fmax_mhz, 2), "hold_violations": p.hold_violations}
                for p in sorted(self.placed, key=lambda p: p.seed)
            ],
            "available": {
                "lut": self.target.luts, "ff": self.target.flip_flops, "multipliers": self.target.multipliers,
                "bram": self.target.memory_blocks, "spram": self.target.sprams,
            },
            "cells": dict(self.cells.types),
            "name": self.network["name"],
            "model_sha256": self.network["model_sha256"],
            "lanes": self.network["lanes"]["built"],
            "tools": self.tools,
        } | self._board()  # fmt: skip

    def _board(self) -> dict[str, Any]:
        design = self.design
        if design is None:
            return {}
        facts = {"name": design.board, "clock_mhz": design.clock_mhz, "baud": design.baud}
        return {"board": facts | {"uart_steps_per_second": self.uart_steps_per_second}}
