"""Measure every nonlinearity's error and what its unit costs, and write both into docs/nonlinearities.md.

    python scripts/bench_nonlinearities.py            errors, LUTs (hwrnn[fpga]) and the picture (hwrnn[plot])
    python scripts/bench_nonlinearities.py --print    the tables on standard output, nothing written
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from amaranth.back import verilog
from amaranth.hdl import Module, Signal
from bench import markdown

from hwrnn.activations import nonlinearity
from hwrnn.certificates import certify
from hwrnn.files import atomic_path, atomic_write
from hwrnn.fitting import fitted
from hwrnn.fixed import Format
from hwrnn.report import Progress
from hwrnn.rtl import TARGETS
from hwrnn.rtl.activation import as_stored, is_table
from hwrnn.rtl.numbers import Pipeline
from hwrnn.rtl.ports import shape
from hwrnn.rtl.recipes import FAMILIES, count_cells
from hwrnn.rtl.synthesis import synthesize

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT, PICTURE = ROOT / "docs" / "nonlinearities.md", ROOT / "docs" / "nonlinearities.svg"
START, END = "<!-- {}: written by scripts/bench_nonlinearities.py -->", "<!-- end of {} -->"
NAMES = (
    "hard_sigmoid", "hard_sigmoid_3_16", "plan_sigmoid", "pwl_sigmoid:3", "pwl_sigmoid:4", "pwl_sigmoid:4:2:jumps",
    "pwl_sigmoid:5", "pwl_sigmoid:8", "table_sigmoid", "hard_tanh", "plan_tanh", "pwl_tanh:4", "pwl_tanh:5",
    "pwl_tanh:8", "table_tanh",
)  # fmt: skip
BITS = (8, 4)
#: Fitted without symmetry, for results of so many bits.
GENERAL = ("softsign", "softplus", "elu:1", "leaky:0.3", "hard_line:0.2:0.5", "scaled_tanh:1.7159:0.6667")
GENERAL_BITS = (8, 12)
PART = "ecp5-25k-6"
#: The field's minimax errors: function, terms, form and the errors by segments; None where it gives none.
FIELD = {
    ("sigmoid", 1, "jumps"): (0.0183, 0.0114, 0.0085, 0.0078, 0.0047),
    ("sigmoid", 2, "jumps"): (0.0117, 0.0063, 0.0043, 0.0030, 0.0023),
    ("sigmoid", 2, "continuous"): (0.0151, 0.0083, 0.0053, None, None),
    ("tanh", 1, "jumps"): (0.0370, 0.0229, 0.0172, 0.0158, 0.0096),
    ("tanh", 2, "jumps"): (0.0235, 0.0125, 0.0087, 0.0057, 0.0045),
    ("tanh", 2, "continuous"): (None,) * 5,
}
SEGMENTS = (3, 4, 5, 6, 8)


def formats(name: str, bits: int) -> tuple[Format, Format]:
    """Of a pre-activation and of the result, as quantization chooses them for results of so many bits."""
    if nonlinearity(name).stands_for == "sigmoid":
        return Format(bits + 3, bits - 1), Format(bits, bits, False)
    return Format(bits + 3, bits), Format(bits, bits - 1)


def luts(name: str, bits: int) -> tuple[str, int]:
    """How a unit is built, and its LUTs on the part."""
    source, output = formats(name, bits)
    m = Module()
    x, y = Signal(shape(source), name="x"), Signal(shape(output), name="y_out")
    pipeline = Pipeline(m, "unit")
    applied = pipeline.input(x, source.frac, source.lo, source.hi).apply(nonlinearity(name).in_hardware(output))
    m.d.comb += y.eq(as_stored(applied, output).named("y").raw.value)
    target = TARGETS[PART]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "unit.v").write_text(verilog.convert(m, name="unit", ports=[x, y]))
        netlist = synthesize(target, "unit", "unit.v", Path(folder))
    clipped = nonlinearity(name).in_hardware(output).as_clip() is not None
    built = "clip" if clipped else "table" if is_table(applied, output) else "lines"
    return built, count_cells(netlist, "unit", FAMILIES[target.family]).luts


def units() -> str:
    """The table of functions at formats."""
    able = importlib.util.find_spec("pyosys") is not None
    rows: list[list[Any]] = []
    progress = Progress("nonlinearities")
    for k, name in enumerate(NAMES):
        progress(k, len(NAMES))
        for bits in BITS:
            found = certify(nonlinearity(name), *formats(name, bits))
            cost = luts(name, bits) if able else ("-", "-")
            rows.append([
                f"`{name}`", bits, f"{found.maximum:.4f}", f"{found.mean:.4f}", f"{found.maximum_lsb:.2f}",
                f"{found.mean_lsb:.2f}", *cost,
            ])  # fmt: skip
    progress(len(NAMES), len(NAMES))
    header = ["function", "bits", "maximum", "mean", "maximum in LSB", "mean in LSB", "built as", f"LUTs ({PART})"]
    return markdown(header, rows)


def fits() -> str:
    """Our errors without rounding beside the field's."""
    rows = []
    for (function, terms, form), due in FIELD.items():
        found = (certify(fitted(function, k, terms, 18, form)).maximum for k in SEGMENTS)
        told = ("-" if theirs is None else f"{theirs:.4f}" for theirs in due)
        cells = [f"{ours:.4f} ({theirs})" for ours, theirs in zip(found, told, strict=True)]
        rows.append([f"{function}, {terms} term{'s' * (terms > 1)}, {form}", *cells])
    return markdown(["ours (the field's)", *(f"{k} segments" for k in SEGMENTS)], rows)


def general() -> str:
    """Fits of functions without symmetry: pieces, the bound before rounding, and the error after it."""
    rows: list[list[Any]] = []
    for name in GENERAL:
        for bits in GENERAL_BITS:
            output = Format(bits, bits - 4)
            hardware = nonlinearity(name).in_hardware(output)
            found = certify(nonlinearity(name), Format(bits + 4, bits), output, reach=7.5)
            bound = "exact" if found.bound is None else f"{found.bound / output.step:.2f}"
            rows.append([f"`{name}`", bits, len(hardware.slopes), bound, f"{found.maximum_lsb:.2f}"])
    return markdown(["function", "bits", "pieces", "bound in LSB", "maximum in LSB, rounded"], rows)


def draw() -> None:
    """The curves of some functions and their errors."""
    from hwrnn.errors import require

    require("matplotlib", "plot")
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "hwrnn"
    figure, axes = pyplot.subplots(2, 2, figsize=(9, 5.5), sharex="col")
    x = np.linspace(-8, 8, 1601)
    for column, smooth in zip(axes.T, ("sigmoid", "tanh"), strict=True):
        hard, plan = f"hard_{smooth}", f"plan_{smooth}"
        column[0].plot(x, nonlinearity(smooth).value(x), color="black", label=smooth)
        for name in (hard, plan, f"pwl_{smooth}:4", f"pwl_{smooth}:8"):
            y = nonlinearity(name).value(x)
            column[0].plot(x, y, lw=0.9, label=name)
            column[1].plot(x, y - nonlinearity(smooth).value(x), lw=0.9)
        column[0].legend(fontsize=7)
        column[1].set_ylim(-0.05, 0.05)
        column[1].set_ylabel("error")
    figure.tight_layout()
    with atomic_path(PICTURE) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def main() -> None:
    """Write both tables between their markers, and the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--print", action="store_true", help="print the tables, write nothing")
    given = parser.parse_args()
    tables = {"fits": fits(), "general": general(), "units": units()}
    if given.print:
        print("\n\n".join(tables.values()))
        return
    text = DOCUMENT.read_text()
    for name, table in tables.items():
        before, rest = text.split(START.format(name))
        text = f"{before}{START.format(name)}\n{table}\n{END.format(name)}{rest.split(END.format(name))[1]}"
    atomic_write(DOCUMENT, text.encode())
    draw()


if __name__ == "__main__":
    main()
