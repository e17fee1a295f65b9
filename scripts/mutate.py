"""Plants faults in emitted Verilog, or in the arithmetic's Python, and records what became of them."""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import mutants_python
from mutation import DESIGNS, ENDS, KILLED, TRACE, Mutant, Mutated, Result, generated
from verification import FOLDER, Table, record

from hwrnn.files import atomic_write
from hwrnn.report import Progress

FILE = FOLDER / "mutation.json"
IN_PYTHON = "\n\nIn Python, "


def mutants_of(name: str, count: int, seed: int, folder: Path) -> Mutated:
    """A design's mutants: an eighth of them in what its memories hold."""
    contents = count // 8
    source = folder / name if (folder / name).exists() else generated(name, folder / name)
    return Mutated(source, folder / f"{name}_mutants", count - contents, contents, seed)


class Known:
    """Results on disk: a campaign that was ended goes on where it was.

    Args:
        path: of JSON lines.
        mutants: of the campaign; what the file says of others counts for nothing.
    """

    def __init__(self, path: Path, mutants: Sequence[Mutant]) -> None:
        self.path = path
        self.results: dict[Mutant, Result] = {}
        by_name = {str(m): m for m in mutants}
        lines = path.read_text().splitlines() if path.exists() else []
        for mutant, end, said in map(json.loads, lines):
            if mutant in by_name:
                self.results[by_name[mutant]] = Result(by_name[mutant], end, said)

    def add(self, result: Result) -> None:
        """Keep a result."""
        self.results[result.mutant] = result
        with self.path.open("a") as file:
            file.write(json.dumps([str(result.mutant), result.end, result.said]) + "\n")

    @property
    def proved(self) -> int:
        """Those with which nothing is left to do."""
        return sum(result.end != "PASS" for result in self.results.values())


def verilog(given: argparse.Namespace) -> int:
    """Mutants of Verilog; 1 where one that is different got through."""
    shares = [given.count // len(DESIGNS) + (k < given.count % len(DESIGNS)) for k in range(len(DESIGNS))]
    with ExitStack() as stack:
        folder = given.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hwrnn-mutants-")))
        folder.mkdir(parents=True, exist_ok=True)
        made = {
            name: mutants_of(name, share, given.seed, folder)
            for name, share in zip(DESIGNS, shares, strict=True)
            if share and (given.only is None or given.only.partition(":")[0] == name)
        }
        mutants = [m for each in made.values() for m in each.mutants]
        if given.only is not None:
            mutants = [m for m in mutants if given.only == f"{m.design}:{m.number}"]
        known = Known(folder / f"results_{given.seed}_{given.count}.jsonl", mutants)
        again = f"scripts/mutate --seed {given.seed} --count {given.count} --only"
        progress = Progress("simulated", every=20.0)

        def tell(result: Result) -> None:
            known.add(result)
            done = len(known.results) if result.end == "PASS" or result.end in KILLED else known.proved
            progress(done, len(mutants), result.mutant.design)
            if given.only is not None or result.end in ("undecided", "different"):
                print(f"{result.end}: {result.mutant} ({result.said})", flush=True)
                print(f"    {again} {result.mutant.design}:{result.mutant.number}", flush=True)

        for name, mutated in made.items():
            left = [m for m in mutants if m.design == name and m not in known.results]
            if left:
                list(mutated.simulated(left, tell))
        progress = Progress("proved", every=20.0)
        for name, mutated in made.items():
            left = [m for m in mutants if m.design == name and known.results[m].end == "PASS"]
            for k in range(0, len(left), 12):
                list(mutated.decided(left[k : k + 12], given.seconds, tell))
        results = [known.results[m] for m in mutants]
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
        f" weight or bias. The generated test bench, run alone in Icarus, kills {killed:,}; it was made"
        f" with `--trace {TRACE}`, and the trace, which comes last, finds {ends['trace']} of them, while `--trace` also"
        f" adds sequences that show rare bits. Of the rest {ends['equal']} are proved to show the same at every port,"
        " in every cycle, for all inputs and resets"
        f" ({proofs}), {ends['undecided']} ({100 * ends['undecided'] / len(results):.1f} %) are undecided, and"
        f" {ends['different']} are different. Not shown: faults of two places at once, and faults of other networks."
        " In the proofs the registers that read memories start at 0. A carry or a bit that Yosys' `opt` and `wreduce`"
        " remove gets no fault."
    )
    if left:
        text += "\n\nUndecided (docs/decisions/034 says of each why it should change nothing): " + "; ".join(left) + "."
    tables = [
        Table(columns, [*designs, row("all", results)], "By network; the words behind *killed* say how:"),
        Table(["kind", *columns[1:]], by_kind, "By kind:"),
    ]
    keep_half(f"scripts/mutate --seed {given.seed} --count {given.count}", text, tables)


def keep_half(command: str | None, text: str, tables: Sequence[Table]) -> None:
    """Record one half of the part, with the other one as it stands: what is said of Python has that word in front."""
    old = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {"text": "", "tables": [], "command": ""}
    verilog_text, mark, python_text = old["text"].partition(IN_PYTHON)
    halves = ([], [])
    for table in old["tables"]:
        halves[table["caption"].startswith(IN_PYTHON.strip())].append(Table(**table))
    if command is None:
        text = verilog_text + text
        tables = [*halves[0], *tables]
    else:
        text += mark + python_text
        tables = [*tables, *halves[1]]
    record("mutation", command or old["command"], text, tables)


def python(given: argparse.Namespace) -> int:
    """Mutants of Python; 1 where one got through of which nobody said why."""
    chosen: list[mutants_python.Mutant] = []
    share = -(-given.count // len(mutants_python.MODULES))
    for module in mutants_python.MODULES:
        found = list(mutants_python.mutants(module))
        chosen += sorted(random.Random(f"{given.seed} {module}").sample(found, min(share, len(found))), key=number_of)
    if given.only is not None:
        chosen = [m for m in chosen if f"{m.module}:{m.number}" == given.only]
    path = None if given.work is None else given.work / "python.json"
    known: dict[str, str] = json.loads(path.read_text()) if path is not None and path.exists() else {}
    progress = Progress("mutants of Python", every=20.0)
    for mutant in chosen:
        name = str(mutant)
        if name not in known:
            known[name] = mutants_python.end_of(mutant)
            if path is not None:
                atomic_write(path, json.dumps(known))
        progress(sum(str(m) in known for m in chosen), len(chosen), mutant.module)
        if known[name] == "survived":
            again = f"scripts/mutate --python --seed {given.seed} --count {given.count} --only"
            print(f"survived: {name}; {again} {mutant.module}:{mutant.number}", flush=True)
    ends = Counter(known[str(m)] for m in chosen)
    print(", ".join(f"{count} {end}" for end, count in ends.items()))
    if given.only is None and not given.dry:
        names = ("killed", "equivalent", "survived")
        rows = []
        for module in mutants_python.MODULES:
            own = Counter(known[str(m)] for m in chosen if m.module == module)
            rows.append([f"`{module}`", sum(own.values()), *(own[end] for end in names)])
        rows.append(["all", len(chosen), *(ends[end] for end in names)])
        text = IN_PYTHON + (
            f"of {len(chosen)} faults in the arithmetic (operators, comparisons, constants, ends of intervals; drawn"
            f" evenly from its modules) {ends['killed']} make one of their module's tests fail, {ends['equivalent']}"
            f" change no result for a reason that `tests/mutants_python.py` says, and {ends['survived']} survive."
        )
        caption = f"In Python, by `scripts/mutate --python --seed {given.seed} --count {given.count}`:"
        keep_half(None, text, [Table(["module", "mutants", *names], rows, caption)])
    return 1 if ends["survived"] else 0


def number_of(mutant: mutants_python.Mutant) -> int:
    """What mutants are sorted by."""
    return mutant.number


def main() -> int:
    """Plant faults; 1 where one got through that is no equivalent."""
    parser = argparse.ArgumentParser(prog="scripts/mutate", description=__doc__)
    parser.add_argument("--count", type=int, default=1040, metavar="N", help="mutants in all (default: 1040)")
    parser.add_argument("--seed", type=int, default=1, metavar="S", help="of the choice (default: 1)")
    parser.add_argument("--seconds", type=float, default=40, metavar="S", help="of each proof (default: 40)")
    parser.add_argument("--only", metavar="DESIGN:NUMBER", help="one mutant, by what a run with that count printed")
    parser.add_argument("--work", type=Path, metavar="DIR", help="where a campaign that was ended goes on")
    parser.add_argument("--dry", action="store_true", help="record nothing")
    parser.add_argument("--python", action="store_true", help="the arithmetic's Python in place of Verilog")
    given = parser.parse_args()
    return python(given) if given.python else verilog(given)


if __name__ == "__main__":
    sys.exit(main())
