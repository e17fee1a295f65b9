"""Bounds on what engines cost, with the functions that write the figures."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """scripts/bench_fpga.py."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.delitem(sys.modules, "bench", raising=False)
    return importlib.import_module("bench_fpga")


def test_documents_hold_the_markers(bench: ModuleType) -> None:
    for name, place in bench.PLACES.items():
        text = (SCRIPTS.parent / place).read_text()
        assert text.count(bench.START.format(name)) == text.count(bench.END.format(name)) == 1


def test_the_peers_task_takes_at_most_2540_cycles(bench: ModuleType) -> None:
    engine = bench.engine_of("lstm", bench.PEER_LANES, bench.PEER_TIMING, bench.PEER_SIZE)
    cycles = (bench.PEER_STEPS - 1) * engine.cycles_per_step + engine.latency
    assert cycles <= 2540 < bench.PEER["cycles"] and engine.multipliers <= bench.PEER["multipliers"]


@pytest.mark.fpga
def test_an_element_wise_path_has_less_than_700_lut4(bench: ModuleType) -> None:
    pytest.importorskip("pyosys")
    for name in ("ecp5-25k-6", "up5k", "hx8k"):
        target = bench.TARGETS[name]
        cells = bench.build(target, bench.PathAlone("lstm", target.timing), "clk", 0).cells
        assert 100 < cells.luts < 700, name
