"""Emitted Verilog against its design, element-wise paths against Verilog written by hand; ``scripts/equal`` runs it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import verification
from equivalence import Undecidable, Verdict
from equivalence_designs import DESIGNS, FAULTS, emission_verdict, planted
from equivalence_paths import PATH_FAULTS, emitted, layer_of, path_verdict, planted_in_path

from hwrnn.cells import CELLS
from hwrnn.report import Progress, say
from hwrnn.rtl.timing import SHORTEST, Timing

#: Formats of the paths: bits of the values, the timing, and what else the model is made with.
FORMS: dict[str, tuple[int, Timing, dict[str, Any]]] = {
    "3 bits": (3, SHORTEST, {}),
    "4 bits": (4, SHORTEST, {}),
    "6 bits": (6, SHORTEST, {}),
    "8 bits": (8, SHORTEST, {}),
    "4 bits, many registers": (4, Timing(product=2, sums=True, factors=1), {}),
    "4 bits, products of adders": (4, Timing(sums=True, tree=True), {}),
}
CLIPPED = ("lstm", "lstm-coupled", "lstm-peephole")
FAULTY = ("rnn, 8 lanes", "gru, 8 lanes", "index of the largest")

TEXT = """\
{designs} small networks: the Verilog that hwrnn writes, read by Yosys, shows on its ports in every cycle what the
RTLIL of the same Amaranth design shows, for runs of any length, any input stream that obeys AXI4-Stream and any
back-pressure, after one reset at the start; the payload of a stream counts while its valid is 1. {paths}
element-wise paths: every pre-activation and every stored value equals what Verilog written by hand from the textbook's
equations gives, for all accumulators within the interval of the weights and all old states, at the cycle where the
path promises it. Networks are small (1 to 4 inputs, 1 to 4 units, 3 to 5 bits), for what is distrusted is the
writing of text, which does not depend on sizes; both sides come from one elaboration, so this does not show that
the design is right. Memories without initial content (SPRAM) are left out."""


@dataclass(frozen=True)
class Case:
    """One proof.

    Attributes:
        kind: of the table that it stands in.
        name: unique.
        run: gives the verdict, and what was planted.
    """

    kind: str
    name: str
    run: Callable[[], tuple[Verdict, str]]


def cases(faults: int, seed: int) -> list[Case]:
    """All of them, in order."""
    found = []
    for name in DESIGNS:
        found.append(Case("design", name, lambda name=name: (emission_verdict(DESIGNS[name](), seconds=300), "")))
    forms = [(cell, name, form) for name, form in FORMS.items() for cell in (*CELLS, "dense")]
    forms += [(cell, "4 bits, clipped", (4, SHORTEST, {"cell_clip": 1.0})) for cell in CLIPPED]
    for cell, name, (bits, timing, options) in forms:
        layer = layer_of(cell, bits, **options)
        for k, phase in enumerate(layer.cell.phases):
            case = f"path of {cell}, {phase.combine}, {name}"
            found.append(Case("path", case, lambda a=(layer, k, timing): (path_verdict(*a, seconds=300), "")))
    seeds = range(seed, seed + faults)
    for a in [(name, kind, n) for kind in FAULTS for name in FAULTY for n in seeds]:
        found.append(Case("fault", f"{a[1]} in {a[0]}, {a[2]}", lambda a=a: faulty_design(*a)))
    for a in [(cell, kind, n) for kind in PATH_FAULTS for cell in CELLS for n in seeds]:
        found.append(Case("path fault", f"{a[1]} in path of {a[0]}, {a[2]}", lambda a=a: faulty_path(*a)))
    return found


def faulty_design(name: str, kind: str, seed: int) -> tuple[Verdict, str]:
    """One fault in the Verilog of a design."""
    said = ""

    def change(text: str) -> str:
        nonlocal said
        text, said = planted(text, kind, seed)
        return text

    return emission_verdict(DESIGNS[name](), change, seconds=300), said


def faulty_path(cell: str, kind: str, seed: int) -> tuple[Verdict, str]:
    """One fault in the path of a cell's phase, of 4 bits."""
    layer = layer_of(cell, 4)
    k = seed % len(layer.cell.phases)
    try:
        faulty = planted_in_path(emitted(layer, k), kind, seed)
    except ValueError as none:
        return Verdict("absent", str(none), 0), ""
    return path_verdict(layer, k, path=faulty, seconds=300), kind


def tried(case: Case) -> tuple[Verdict, float, str]:
    """What a case gives, and the processor's seconds."""
    before = os.times()
    try:
        verdict, said = case.run()
    except (Undecidable, AssertionError) as why:
        verdict, said = Verdict("undecided", "nothing", 0), f"{type(why).__name__}: {why}"
    return verdict, sum(os.times()[:4]) - sum(before[:4]), said


def is_wrong(case: Case, verdict: Verdict) -> bool:
    """Whether a proof failed, or a fault was neither found nor proved harmless."""
    return verdict.answer == "undecided" or (case.kind in ("design", "path") and verdict.answer != "equal")


def main() -> int:
    """Run the cases, and record what they gave."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="of the first planted fault (0)")
    parser.add_argument("--faults", type=int, default=4, help="planted of each kind in each design and cell (4)")
    parser.add_argument("--count", type=int, help="of the first cases only, unrecorded")
    parser.add_argument("--only", help="the case of this name only, unrecorded")
    parser.add_argument("--keep", type=Path, help="a file of what was found: what stands in it is not done again")
    given = parser.parse_args()
    todo = cases(given.faults, given.seed)
    if given.only is not None:
        todo = [case for case in todo if case.name == given.only]
    todo = todo[: given.count]
    kept = {}
    if given.keep is not None and given.keep.exists():
        for line in given.keep.read_text().splitlines():
            name, spent, *verdict = json.loads(line)
            kept[name] = Verdict(*verdict), spent
    progress, rows, wrong = Progress("equal"), [], 0
    for k, case in enumerate(todo):
        if case.name in kept:
            rows.append((case, *kept[case.name]))
        else:
            verdict, spent, said = tried(case)
            rows.append((case, verdict, spent))
            if given.keep is not None:
                with given.keep.open("a") as file:
                    file.write(json.dumps([case.name, spent, verdict.answer, verdict.method, verdict.seconds]) + "\n")
            if given.only is not None or is_wrong(case, verdict):
                say(f"{case.name}: {verdict.answer} by {verdict.method}, {spent:.1f} s, {said}")
                for row in verdict.trace[-3:]:
                    say(str(row))
        if is_wrong(*rows[-1][:2]):
            wrong += 1
            say(f'repeat: scripts/equal --seed {given.seed} --faults {given.faults} --only "{case.name}"')
        progress(k + 1, len(todo), case.name)
    if given.count is None and given.only is None:
        record(given, rows)
    return 1 if wrong else 0


def record(given: argparse.Namespace, rows: list[tuple[Case, Verdict, float]]) -> None:
    """The part "equivalence" of the page."""
    of = {kind: [(c, v, s) for c, v, s in rows if c.kind == kind] for kind in ("design", "path", "fault", "path fault")}
    tables = []
    for kind, what in (("design", "Emitted Verilog equals the design as Amaranth elaborates it:"),
                       ("path", "Element-wise paths equal Verilog written by hand, for all inputs:")):  # fmt: skip
        lines = [(c.name.removeprefix("path of "), v.answer, v.method, f"{s:.1f} s") for c, v, s in of[kind]]
        tables.append(verification.Table([kind, "answer", "decided by", "processor time"], lines, what))
    lines = []
    for kind, where in (("fault", "emitted Verilog"), ("path fault", "element-wise paths")):
        for name in FAULTS:
            found = [v.answer for c, v, _ in of[kind] if c.name.startswith(name)]
            counts = [found.count(answer) for answer in ("different", "equal", "undecided")]
            lines.append((where, name, sum(counts), *counts))
    columns = ["planted in", "fault", "planted", "found different", "proved harmless", "undecided"]
    tables.append(verification.Table(columns, lines, "Faults planted at random, one at a time:"))
    equal = {kind: sum(v.answer == "equal" for _, v, _ in of[kind]) for kind in ("design", "path")}
    verification.record(
        "equivalence",
        f"scripts/equal --seed {given.seed} --faults {given.faults}",
        TEXT.format(
            designs=f"{equal['design']} of {len(of['design'])}", paths=f"{equal['path']} of {len(of['path'])}"
        ).replace("\n", " "),
        tables,
    )


if __name__ == "__main__":
    sys.exit(main())
