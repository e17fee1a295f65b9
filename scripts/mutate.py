"""Plants faults in emitted Verilog, or in the arithmetic's Python, and records what became of them."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from mutation import DESIGNS, ENDS, KILLED, Mutated, Result, generated
from verification import Table, record

from hwrnn.report import Progress


def mutants_of(name: str, count: int, seed: int, folder: Path) -> Mutated:
    """A design's mutants: an eighth of them in what its memories hold."""
    contents = count // 8
    return Mutated(generated(name, folder / name), folder / f"{name}_mutants", count - contents, contents, seed)


def verilog(given: argparse.Namespace) -> int:
    """Mutants of Verilog; 1 where one that is different got through."""
    names = list(DESIGNS) if given.only is None else [given.only.partition(":")[0]]
    shares = [given.count // len(DESIGNS) + (k < given.count % len(DESIGNS)) for k in range(len(DESIGNS))]
    results: list[Result] = []
    progress = Progress("mutants", every=20.0)
    with tempfile.TemporaryDirectory(prefix="hwrnn-mutants-") as folder:
        for name, count in zip(DESIGNS, shares, strict=True):
            if name not in names or not count:
                continue
            mutated = mutants_of(name, count, given.seed, Path(folder))
            chosen = mutated.mutants
            if given.only is not None:
                chosen = [m for m in chosen if f"{name}:{m.number}" == given.only]
            done = Counter(results=len(results))

            def tell(result: Result, done: Counter[str] = done) -> None:
                done["results"] += 1
                progress(done["results"], given.count, str(result.mutant).partition(":")[0])
                if result.end not in (*KILLED, "equal") or given.only is not None:
                    again = f"scripts/mutate --seed {given.seed} --count {given.count} --only "
                    again += f"{result.mutant.design}:{result.mutant.number}"
                    print(f"{result.end}: {result.mutant} ({result.said}); {again}", flush=True)

            results += mutated.results(chosen, given.seconds, tell)
    ends = Counter(result.end for result in results)
    print(", ".join(f"{count} {end}" for end, count in ends.items()))
    if given.only is None and not given.dry:
        keep(results, given)
    return 1 if ends["different"] else 0


def row(name: str, results: Sequence[Result]) -> list[object]:
    """A row of a table: how many ended how."""
    ends = Counter(result.end for result in results)
    return [name, len(results), sum(ends[end] for end in KILLED), *(ends[end] for end in ENDS)]


def keep(results: Sequence[Result], given: argparse.Namespace) -> None:
    """Record the part of the page."""
    columns = ["faults in", "mutants", "killed", *ENDS]
    designs = [row(name, [r for r in results if r.mutant.design == name]) for name in DESIGNS]
    kinds = list(dict.fromkeys(r.mutant.kind for r in results))
    by_kind = [row(kind, [r for r in results if r.mutant.kind == kind]) for kind in sorted(kinds)]
    ends = Counter(r.end for r in results)
    killed = sum(ends[end] for end in KILLED)
    left = [f"`{r.mutant}`" for r in results if r.end == "undecided"]
    methods = Counter(r.said for r in results if r.end == "equal")
    proofs = ", ".join(f"{count} by {how}" for how, count in methods.most_common())
    text = (
        f"Yosys' `mutate` planted {len(results):,} faults, each by itself, in the emitted Verilog of {len(DESIGNS)}"
        " small networks: pins of cells inverted, stuck, or changed by another bit; one in eight is a flipped bit of a"
        f" weight or bias. The generated test bench, run alone in Icarus, kills {killed:,}. Of the rest {ends['equal']}"
        " are proved to show the same at every port, in every cycle, for all inputs and resets"
        f" ({proofs}), {ends['undecided']} ({100 * ends['undecided'] / len(results):.1f} %) are undecided, and"
        f" {ends['different']} are different. Not shown: faults of two places at once, and faults of other networks."
        " In the proofs the registers that read memories start at 0. A carry or a bit that Yosys' `opt` and `wreduce`"
        " remove gets no fault."
    )
    if left:
        text += "\n\nUndecided: " + "; ".join(left) + "."
    tables = [
        Table(columns, [*designs, row("all", results)], "By network; the words behind *killed* say how:"),
        Table(["kind", *columns[1:]], by_kind, "By kind:"),
    ]
    record("mutation", f"scripts/mutate --seed {given.seed} --count {given.count}", text, tables)


def main() -> int:
    """Plant faults; 1 where one got through that is no equivalent."""
    parser = argparse.ArgumentParser(prog="scripts/mutate", description=__doc__)
    parser.add_argument("--count", type=int, default=1040, metavar="N", help="mutants in all (default: 1040)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the choice (default: 1)")
    parser.add_argument("--seconds", type=float, default=40, metavar="S", help="of each proof (default: 40)")
    parser.add_argument("--only", metavar="DESIGN:NUMBER", help="one mutant, by what a run with that count printed")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    return verilog(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
