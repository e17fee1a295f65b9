"""Long runs of every cell, in fixed point and in float; ``scripts/drift`` runs it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import long_runs
import verification

from hwrnn.errors import require
from hwrnn.files import atomic_path
from hwrnn.report import Progress

ROOT = Path(__file__).resolve().parent.parent
PICTURE = "pictures/drift.svg"
TOLD = (10, 1_000, 100_000)
MARKS = tuple(sorted({round(10 ** (k / 6)) for k in range(31)}))  # six in a decade; those told are among them
BITS = (8, 16)


def rows_of(bits: int, runs: dict[tuple[str, int], long_runs.Drift]) -> list[list[str]]:
    """A row for every state of every network."""
    rows = []
    for (name, width), found in runs.items():
        if width != bits:
            continue
        told = [found.marks.index(mark) for mark in TOLD]
        for state, largest in found.largest.items():
            noise, constant, adversarial = largest
            figures = [noise[k] for k in told] + [constant[told[-1]]] + [adversarial[k] for k in told]
            figures.append(found.mean[state][2])
            ends = [f"{found.bound[state]:.4g}", f"{found.reached[state]:.4g}"]
            rows.append([name, state, *ends, *(f"{figure:.2g}" for figure in figures)])
    return rows


def draw(path: Path, runs: dict[tuple[str, int], long_runs.Drift]) -> None:
    """The largest difference so far against steps, a panel for each width: noise drawn through, adversarial dashed."""
    matplotlib = require("matplotlib", "plot")
    figure = require("matplotlib.figure", "plot").Figure(figsize=(11, 4.4), layout="constrained")
    panels: Any = figure.subplots(1, len(BITS), sharey=False)
    for axes, bits in zip(panels, BITS, strict=True):
        for k, name in enumerate(long_runs.NETWORKS):
            found = runs[name, bits]
            largest = found.largest[next(iter(found.largest))]
            axes.loglog(found.marks, largest[0], color=f"C{k}", label=name)
            axes.loglog(found.marks, largest[2], color=f"C{k}", linestyle="--", linewidth=1)
        axes.axhline(2.0 ** (1 - bits), color="0.4", linewidth=1, linestyle=":")
        axes.set_title(f"{bits} bits")
        axes.set_xlabel("time steps")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("largest difference of a state from float so far")
    panels[-1].legend(fontsize=8, title="noise; dashed: adversarial", title_fontsize=8, loc="center left",
                      bbox_to_anchor=(1.01, 0.5))  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": "hwrnn"}), atomic_path(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def farthest(runs: dict[tuple[str, int], long_runs.Drift], bits: int, kind: int) -> float:
    """The largest difference of any state from float, of one kind of input."""
    return max(float(largest[kind].max()) for (_, b), d in runs.items() if b == bits for largest in d.largest.values())


def main() -> int:
    """Run, and record; 1 where a value left its proven range."""
    parser = argparse.ArgumentParser(prog="scripts/drift", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of networks and inputs (default: 0)")
    parser.add_argument("--count", type=int, metavar="N", help="only the first N networks; nothing is recorded")
    parser.add_argument("--network", choices=long_runs.NETWORKS, help="only this one; nothing is recorded")
    given = parser.parse_args()
    names = [given.network] if given.network else list(long_runs.NETWORKS)[: given.count]
    cases = [(name, bits) for name in names for bits in BITS]
    progress, runs, faults = Progress("drift"), {}, []
    for n, (name, bits) in enumerate(cases):

        def told(steps: int, n: int = n, words: str = f"{name}, {bits} bits") -> None:
            progress(n * MARKS[-1] + steps, len(cases) * MARKS[-1], f"steps, {words}")

        runs[name, bits] = long_runs.drift(name, bits, MARKS, given.seed, told)
        for fault in runs[name, bits].faults:
            faults.append(fault)
            words = f"scripts/drift --seed {given.seed} --network '{name}' repeats it"
            print(f"{name}, {bits} bits: {fault}; {words}", file=sys.stderr)
    columns = [
        "network", "state", "proven bound", "largest", *(f"noise, {mark:,} steps" for mark in TOLD), "constant, all",
        *(f"adversarial, {mark:,}" for mark in TOLD), "its mean",
    ]  # fmt: skip
    tables = [
        verification.Table(columns, rows_of(bits, runs), f"{bits} bits (cell states {bits + 4}):") for bits in BITS
    ]
    print("\n".join(table.markdown() for table in tables))
    if given.count is None and given.network is None:
        draw(ROOT / "docs" / PICTURE, runs)
        record(runs, faults, tables, given.seed)
    return 1 if faults else 0


def record(
    runs: dict[tuple[str, int], long_runs.Drift], faults: list[str], tables: list[verification.Table], seed: int
) -> None:
    """Keep the figures."""
    values = sum(3 * MARKS[-1] * 8 * len(found.largest) for found in runs.values())
    calm, pushed = ({bits: farthest(runs, bits, kind) for bits in BITS} for kind in (0, 2))
    text = (
        f"Every cell, and a ReLU network with a recurrent norm of 0.9, in integers and in float over {MARKS[-1]:,}"
        " steps of the same inputs: noise, a constant, and the ends of the input's format with signs that push a"
        f" unit's gates. {len(faults)} of {values:,} states, and none of the other stored values, lay outside what is"
        " proved of it for all inputs and all times (`hwrnn.stability`, and the end of its format). With noise the"
        f" largest difference of a state from the float network's is {calm[8]:.2g} at 8 bits and {calm[16]:.2g} at 16."
        " An adversary does more: near a threshold a gate opens in one of both and not in the other, and what it let"
        f" in is remembered, up to {pushed[8]:.2g} at 8 bits and {pushed[16]:.2g} at 16; the mean says how much of that"
        f" lasts. Random weights, three inputs, eight units, seed {seed}: other networks drift otherwise, and a sample"
        " of inputs proves no bound, it only could have broken one."
    )
    verification.record("drift", "scripts/drift", text, tables, [PICTURE])


if __name__ == "__main__":
    sys.exit(main())
