"""The command line of the fuzzer in tests/fuzz_onnx.py; ``scripts/fuzz`` runs it, and records the part "fuzzing"."""

from __future__ import annotations

import argparse
import collections
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import fuzz_kinds
import fuzz_onnx
import verification
from fuzz_kinds import KINDS

COLUMNS = ("kind", "inputs", "read", "refused by a sentence", "crashes", "hangs", "files harmed", "seed: inputs")
_HANGS = ("hang", "too slow")


def main() -> int:
    """Fuzz for some time or for some inputs, or look at one saved input; 1 where something failed."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--kind", choices=[*KINDS, "all"], default="model", help="what is damaged (default: model)")
    parser.add_argument("--minutes", type=float, default=1.0, metavar="M", help="how long (default: 1)")
    parser.add_argument("--inputs", type=int, metavar="N", help="how many inputs, in place of a time")
    parser.add_argument("--first", type=int, default=0, metavar="K", help="go on at this number of a seed")
    parser.add_argument("--seed", type=int, default=None, metavar="S", help="of the inputs (default: the time)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes beside each other (default: 1)")
    parser.add_argument("--output", type=Path, metavar="DIR", help="where inputs that fail are saved")
    parser.add_argument("--input", type=Path, metavar="FILE", help="look at one saved input")
    parser.add_argument("--record", action="store_true", help="add the figures to those of docs/verification.md")
    parser.add_argument("--add", type=Path, metavar="LOG", help="add what an earlier run of one kind printed")
    given = parser.parse_args()
    if given.add is not None:
        return _add(given)
    if given.input is not None:
        return _look(given.input, given.output)
    seed = int(time.time()) if given.seed is None else given.seed
    kinds = list(KINDS) if given.kind == "all" else [given.kind]
    whole, failed = sum(KINDS[kind].share for kind in kinds), False
    for kind in kinds:
        share = KINDS[kind].share / whole
        inputs = None if given.inputs is None else max(1, round(given.inputs * share))
        print(f"{kind}: seed {seed}, from {given.first}", flush=True)
        tally = fuzz_kinds.fuzz(
            kind, seed, inputs=inputs, seconds=None if inputs else 60 * given.minutes * share, jobs=given.jobs,
            output=given.output, first=given.first,
        )  # fmt: skip
        print(fuzz_onnx.report(tally), flush=True)
        failed |= bool(tally.failures)
        if given.record:
            _record(kind, seed, given.first, tally.outcomes)
    fuzz_kinds.forget()
    return int(failed)


def _look(path: Path, output: Path | None) -> int:
    content = path.read_bytes()
    kind = next((kind for kind in KINDS.values() if kind.suffix == path.suffix), KINDS["model"])
    if kind.options:
        fuzz_kinds.folder()
    tally = fuzz_onnx.fuzz(lambda _: content, suffix=path.suffix, inputs=1, output=output, **kind.options)
    print(fuzz_onnx.report(tally))
    fuzz_kinds.forget()
    return 1 if tally.failures else 0


def _add(given: argparse.Namespace) -> int:
    """Take the figures of an earlier run from what it printed."""
    text = given.add.read_text()
    seed = re.search(r"seed (\d+)", text)
    if seed is None or re.search(r"^\d+ inputs in ", text, re.MULTILINE) is None or given.kind == "all":
        print("scripts/fuzz: log must be of a run of one kind that ended", file=sys.stderr)
        return 2
    counted = text.partition(" distinct sentences")[0]
    outcomes = {words: int(count) for count, words in re.findall(r"^ +(\d+)  (.+)$", counted, re.MULTILINE)}
    _record(given.kind, int(seed[1]), given.first, collections.Counter(outcomes))
    return 0


def _record(kind: str, seed: int, first: int, outcomes: collections.Counter[str]) -> None:
    """Add a run to the table of the kinds, unless some of its inputs are there."""
    file = verification.FOLDER / "fuzzing.json"
    rows: dict[str, list[Any]] = {}
    if file.exists():
        rows = {row[0].strip("*"): row for row in json.loads(file.read_text(encoding="utf-8"))["tables"][0]["rows"]}
    rows.pop("together", None)
    inputs = sum(outcomes.values())
    row = rows.setdefault(kind, [kind, *(0,) * 6, ""])
    for begun, count in re.findall(rf"(?:^|, ){seed}: (\d+)\+(\d+)", row[7]):
        if int(begun) < first + inputs and first < int(begun) + int(count):
            print(f"scripts/fuzz: {kind} inputs of seed {seed} are recorded already: take another --first")
            return
    hangs, harmed = sum(outcomes[name] for name in _HANGS), outcomes["harm"]
    crashes = inputs - outcomes["accepted"] - outcomes["refused"] - hangs - harmed - outcomes["not counted"]
    for column, more in enumerate((inputs, outcomes["accepted"], outcomes["refused"], crashes, hangs, harmed), 1):
        row[column] += more
    row[7] += (", " if row[7] else "") + f"{seed}: {first}+{inputs}"
    ordered = [rows[name] for name in KINDS if name in rows]
    together = ["together", *(sum(row[column] for row in ordered) for column in range(1, 7)), ""]
    text = (
        f"{together[1]:,} inputs, each known by its kind, seed and number, were damaged and read under limits of time"
        f" and memory, with a watch on every file that is opened or changed: {together[4]} crashes (any exception but a"
        f" refusal, a signal, or memory beyond 384 MB), {together[5]} hangs (4 s of computing, or 20 s without any),"
        f" {together[6]} files harmed that are not the output's own. A refusal is one printable sentence of at most"
        " 1,000 characters. A model is a file of hwrnn's or of another exporter with damaged bytes or structure; a"
        " command is a random line from the parser's own grammar over whole and damaged files, without compilers and"
        " tools, and leaves the inputs and, where it is refused, the outputs as they were. Not shown: that what still"
        " is read means what its author meant (the parts on conformance do), and Keras and torch behind the checks of"
        " their archives."
    )
    table = verification.Table(COLUMNS, [*ordered, together])
    command = "scripts/fuzz --kind all --inputs N --seed S --jobs 2 --record"
    verification.record("fuzzing", command, text, [table])


if __name__ == "__main__":
    sys.exit(main())
