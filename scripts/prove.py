"""Run the proofs that tests/formal_*.py list, and record what was proved: docs/verification.md."""

from __future__ import annotations

import argparse
import importlib
import json
import random
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import verification
from formal import FormalError, Proof, missing

from hwrnn.report import Progress, say, table

#: the modules of proofs, each with ``PROOFS`` by name or, where the list takes a while, ``proofs()``
LISTS = ("formal_nonlinearities", "formal_accumulators", "formal_streams", "formal_engine", "formal_state")
LISTS += ("formal_ports",)

TEXT = """Each row is a kind of proof. *Proved* holds for every input and every run of any length, by induction over the
clock cycles or by showing all that can be reached; *bounded* holds for runs of the steps that are named. bitwuzla
decides what Yosys makes of the design. A planted fault is a design with one mistake, which the same proof has to refute
with a run that shows it. What is proved is the circuit before synthesis, on one clock that ticks for ever: nothing is
said of a vendor's tools, of timing, or of the power-up of a part."""


def listed() -> list[Proof]:
    """Every proof, in the order of the lists."""
    found: list[Proof] = []
    for name in LISTS:
        module = importlib.import_module(name)
        found += module.proofs() if hasattr(module, "proofs") else module.PROOFS.values()
    names = [proof.name for proof in found]
    assert len(set(names)) == len(names), "two proofs have one name"
    return found


def run(proofs: Sequence[Proof], keep: Path | None) -> dict[str, dict[str, Any]]:
    """What each proof found, by name; what ``keep`` holds already is not run again."""
    results: dict[str, dict[str, Any]] = {}
    if keep is not None and keep.exists():
        results = {line["name"]: line for line in map(json.loads, keep.read_text().splitlines())}
    show = Progress("prove")
    for k, proof in enumerate(proofs):
        show(k, len(proofs), proof.name)
        if proof.name in results:
            continue
        result = _tried(proof)
        results[proof.name] = result
        if keep is not None:
            with open(keep, "a") as file:
                file.write(json.dumps(result) + "\n")
    show(len(proofs), len(proofs))
    return results


def _tried(proof: Proof) -> dict[str, Any]:
    start = time.monotonic()
    result: dict[str, Any] = {"name": proof.name, "good": False, "depth": 0}
    try:
        outcome = proof.check()
        result |= {"good": True, "depth": outcome.depth}
    except (AssertionError, FormalError) as error:
        say(f"{proof.name}: {str(error)[:500]}\nrepeat it with: scripts/prove --only '{proof.name}'")
    return {**result, "seconds": round(time.monotonic() - start, 2)}


def rows_of(proofs: Iterable[Proof], results: dict[str, dict[str, Any]]) -> list[list[str]]:
    """A row for each kind."""
    kinds: dict[str, list[Proof]] = {}
    for proof in proofs:
        kinds.setdefault(proof.kind, []).append(proof)
    rows = []
    for kind, group in kinds.items():
        good = [p for p in group if results[p.name]["good"]]
        bits = [p.bits for p in group if p.bits is not None]
        methods = list(dict.fromkeys(p.method for p in good if p.expect == "proved"))
        bounded = [results[p.name]["depth"] for p in good if p.expect == "bounded"]
        methods += [f"bounded, {min(bounded)} to {max(bounded)} steps"] if bounded else []
        seconds = [results[p.name]["seconds"] for p in group]
        rows.append(
            [
                kind,
                str(sum(p.expect in ("proved", "covered") for p in good)),
                str(len(bounded)) if bounded else "-",
                f"{min(bits)} to {max(bits)}" if bits else "-",
                ", ".join(methods) or "-",
                str(sum(p.expect == "refuted" for p in good)),
                f"{sum(seconds):.0f} s",
                f"{max(seconds):.0f} s",
                str(len(group) - len(good)),
            ]
        )
    return rows


COLUMNS = ("what", "proved", "bounded", "bits of the input", "method", "planted faults refuted")
COLUMNS += ("together", "slowest", "failed")


def main() -> int:
    """Run them; 1 where one ends otherwise than it must."""
    parser = argparse.ArgumentParser(prog="scripts/prove", description=__doc__)
    parser.add_argument("--only", metavar="NAME", help="proofs whose name or kind contains this; records nothing")
    parser.add_argument("--count", type=int, metavar="N", help="as many of them, chosen at random; records nothing")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of that choice (default: 0)")
    parser.add_argument("--list", action="store_true", help="print their names")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="what was found, so that a second run goes on there")
    given = parser.parse_args()
    if (reason := missing()) is not None:
        say(reason)
        return 2
    proofs = listed()
    if given.only is not None:
        proofs = [p for p in proofs if given.only in p.name or given.only in p.kind]
        if not proofs:
            say(f"Proof must be one that scripts/prove --list prints, not {given.only!r}")
            return 2
    if given.count is not None:
        proofs = random.Random(given.seed).sample(proofs, min(given.count, len(proofs)))
    if given.list:
        print("\n".join(proof.name for proof in proofs))
        return 0
    results = run(proofs, given.keep)
    rows = rows_of(proofs, results)
    print(table(rows, COLUMNS))
    if given.only is None and given.count is None:
        verification.record("formal", "scripts/prove", TEXT, [verification.Table(COLUMNS, rows)])
    return 0 if all(results[p.name]["good"] for p in proofs) else 1


if __name__ == "__main__":
    sys.exit(main())
