"""The command line of the comparison in tests/ways.py; ``scripts/agree`` runs it."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import verification
import ways
from test_netlist import cell_models
from ways_cases import SPACE, Case, coverage, matrix, parsed, shrunk

from hwrnn.report import Progress
from hwrnn.rtl import TARGETS
from hwrnn.sim import STALLS

_AT_ONCE = 8  # cases in one build: more gain little, and keep their memory longer


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare some cases; 1 where ways differ."""
    parser = argparse.ArgumentParser(prog="scripts/agree", description=__doc__)
    parser.add_argument("--count", type=int, default=200, metavar="N", help="how many cases (default: 200)")
    parser.add_argument("--seed", type=int, default=6, metavar="S", help="of the matrix of cases (default: 6)")
    parser.add_argument("--case", metavar="TEXT", help="one case, as a failure prints it")
    parser.add_argument("--ways", default=",".join(ways.WAYS), metavar="A,B", help="some of the nine (default: all)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes beside each other (default: 2)")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="keep verdicts there, and go on from those kept")
    parser.add_argument("--no-record", action="store_true", help="leave docs/verification.md as it is")
    given = parser.parse_args(arguments)
    chosen = given.ways.split(",")
    if unknown := set(chosen) - set(ways.WAYS):
        parser.error(f"ways must be some of {', '.join(ways.WAYS)}, not {', '.join(sorted(unknown))}")
    if given.case is not None:
        try:
            case = parsed(given.case)
        except ValueError as error:
            parser.error(str(error))
        verdicts = ways.run([case], chosen)
        print(_told(verdicts[0]))
        return int(bool(verdicts[0].differences))
    cases = matrix(given.count, seed=given.seed)
    verdicts = _all(cases, chosen, given.jobs, given.keep)
    wrong = [verdict for verdict in verdicts if verdict.differences]
    for verdict in wrong:
        print(_told(verdict), flush=True)
    if wrong:
        first = wrong[0]
        # Two with every value and one with cycles judge the one that differs.
        judges = {"golden", "oracle", "amaranth", *first.differences}
        smallest = shrunk(first.case, lambda case: ways.fails(case, judges), tries=60)
        print(f"the first of {len(wrong)}, in its smallest form:\n  scripts/agree --case '{smallest}'")
    for row in _by_way(verdicts):
        print(*row, sep="\t")
    whole = set(chosen) == set(ways.WAYS) and given.count >= 200 and not wrong
    if whole and not given.no_record:
        _record(cases, verdicts, given.seed)
    return int(bool(wrong))


def _all(cases: Sequence[Case], chosen: Sequence[str], jobs: int, keep: Path | None) -> list[ways.Verdict]:
    kept = {} if keep is None or not keep.exists() else _kept(keep, {"golden", *chosen})
    verdicts = [kept[case] for case in cases if case in kept]
    left = [case for case in cases if case not in kept]
    parts = [left[k : k + _AT_ONCE] for k in range(0, len(left), _AT_ONCE)]
    progress, differing = Progress("agree", every=60.0), 0
    with ProcessPoolExecutor(jobs) as pool:
        for future in as_completed([pool.submit(ways.run, part, chosen) for part in parts]):
            found = future.result()
            if keep is not None:
                with keep.open("a") as file:
                    for one in found:
                        state = _state_of(one.case["part"], one.values)
                        file.write(json.dumps(vars(one) | {"state": state}) + "\n")
            verdicts += found
            differing = sum(bool(verdict.differences) for verdict in verdicts)
            progress(len(verdicts), len(cases), f"cases, {differing} of them differ")
    return verdicts


#: Modules of the tests that decide what a case is and what its ways say.
_JUDGES = ("networks", "oracle", "plain", "test_c_reference", "test_netlist", "ways", "ways_builds", "ways_cases")


@cache
def _sources() -> bytes:
    """A digest of what is compared and of what compares it."""
    files = sorted(path for part in ("hwrnn", "rtl", "sim") for path in (verification.ROOT / part).rglob("*.py"))
    files += [verification.ROOT / "tests" / f"{name}.py" for name in _JUDGES]
    parts = [part for path in files for part in (path.name.encode(), path.read_bytes())]
    return hashlib.sha256(b"\0".join(parts)).digest()


@cache
def _state(family: str | None) -> str:
    """A digest of all that a verdict follows from, but for versions of tools; with a netlist of a family or without."""
    models = "" if family is None else cell_models(family)
    return hashlib.sha256(_sources() + models.encode()).hexdigest()


def _state_of(part: str, values: Mapping[str, int]) -> str:
    return _state(TARGETS[part].family if "netlist" in values else None)


def _kept(keep: Path, chosen: set[str]) -> dict[Case, ways.Verdict]:
    """What an earlier run in the same state and of the same ways kept."""
    found = {}
    for line in keep.read_text().splitlines():
        one = json.loads(line)
        if one.pop("state", None) == _state_of(one["case"]["part"], one["values"]) and set(one["values"]) == chosen:
            verdict = ways.Verdict(**one | {"case": Case(one["case"])})
            found[verdict.case] = verdict
    return found


def _told(verdict: ways.Verdict) -> str:
    lines = [f"scripts/agree --case '{verdict.case}'"]
    lines += [f"  {sentence}" for sentences in verdict.differences.values() for sentence in sentences[:3]]
    compared = f"  {sum(verdict.values.values()):,} values and {sum(verdict.cycles.values()):,} cycles agree"
    return "\n".join(lines if verdict.differences else [*lines, compared])


def _by_way(verdicts: Sequence[ways.Verdict]) -> list[list[Any]]:
    def total(numbers: str, way: str) -> Any:
        return sum(getattr(verdict, numbers).get(way, 0) for verdict in verdicts)

    return [
        [name, sum(way in v.values for v in verdicts), f"{total('values', way):,}", f"{total('cycles', way):,}",
         sum(way in v.differences for v in verdicts), f"{total('seconds', way):.0f} s"]
        for way, name in ways.WAYS.items()
    ]  # fmt: skip


def _record(cases: Sequence[Case], verdicts: Sequence[ways.Verdict], seed: int) -> None:
    singles, (pairs, of_pairs) = coverage(cases)
    closed = sum(verdict.closed for verdict in verdicts)
    values, cycles = (sum(sum(getattr(v, what).values()) for v in verdicts) for what in ("values", "cycles"))
    differing = sum(bool(verdict.differences) for verdict in verdicts)
    steps = max(sum(case.lengths) for case in cases)
    text = (
        f"{len(cases)} random configurations, computed in nine ways: {differing} of them differ. {values:,} numbers"
        " were compared: what leaves the port in all nine, with its last flag and its channel in the five that have a"
        " port, and every stored value of every unit and step in the first four. So were"
        f" {cycles:,} cycles in which something was transferred or stored, between the five, under stalls of four kinds"
        f" at both ports; and in a run without stalls the closed forms of cycles and latency, in {closed}"
        f" configurations. Sequences are short (at most {steps} steps, back to back), so what only a long run shows is"
        " not seen here. Netlists are simulated without delays; loadable weights are those that a network starts with,"
        " and none is loaded."
    )
    stalls = Counter(case.stalls for case in cases)
    tables = [
        verification.Table(
            ["way", "configurations", "values", "cycles", "differences", "processor"], _by_way(verdicts),
        ),
        verification.Table(
            ["choice", "of the matrix", "possible", "which"],
            [[name, *singles[name], _which(name)] for name in singles],
            f"The matrix has these choices, and {pairs} of the {of_pairs} pairs of those of the dimensions with few:",
        ),
        verification.Table(
            ["input \\ output", *STALLS], [[a, *(stalls[a, b] for b in STALLS)] for a in STALLS],
            "Configurations by the stalls of their ports:",
        ),
    ]  # fmt: skip
    command = "scripts/agree" + ("" if seed == 6 else f" --seed {seed}")
    verification.record("ways", command, text, tables)


def _which(name: str) -> str:
    choices = SPACE[name]
    return (
        ", ".join(map(str, choices))
        if len(choices) <= 9
        else f"{choices[0]} to {choices[-1]}"
        if isinstance(choices[0], int)
        else "the catalogue"
    )


if __name__ == "__main__":
    sys.exit(main())
