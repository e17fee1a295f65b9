"""Judge every network of the conformance matrix and write docs/conformance.md: right, refused by reason, wrong.

    python scripts/write_conformance.py [--out FILE]

Exits with 1 where something is wrong. The networks are those of the tests (``tests/onnx_*.py``).
"""

from __future__ import annotations

import argparse
import importlib
import platform
import re
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from hwrnn.files import atomic_write
from hwrnn.report import Progress

ROOT = Path(__file__).resolve().parent.parent
OUTCOMES = ("right", "refused", "wrong")
OPERATORS = ("RNN", "GRU", "LSTM")
LONG = ("opset", "hidden units")
"""Features of many values, written as one line each."""

HEAD = """# Conformance: standard ONNX networks, right or refused

`scripts/write_conformance.py` wrote this page. Each network is imported by `hwrnn.import_onnx`; every output of
`Imported.run` is compared with ONNX Runtime's, and each output's `Model` is asked for: its `predict` must equal
the same output in hwrnn's layout, or it must be refused for the reason that the matrix states. **Right**: equal within
{tolerance:g} of the output's largest number (or of 1 where all are smaller); float32's noise ended at {noise:.1g} in
these networks. **Refused**: for the stated reason; a refusal of what has to work, or for another reason, is wrong. A
network given up silently does not exist: **wrong must be 0**.

Versions: {versions}.
"""

DEPARTURES = """## Where ONNX Runtime departs from the standard

Compared with a transcription of the standard's equations in float64 (`tests/onnx_plain.py`) on all networks with the
operator alone, it agrees in all eleven activations, peepholes, `input_forget`, both resets, lengths, directions and
initial states. It departs:

| what | the standard | ONNX Runtime {runtime} | hwrnn |
|---|---|---|---|
| `clip` of an LSTM | bounds the input of every activation | not that of the output activation h | as ONNX Runtime |
| `layout=1` | batch first | refused | right; compared with the same network between Transposes |
| `hidden_size` left out | optional | refused | right: R tells it; compared with it written |
| operator sets 27 and 28 | as 22 for these operators | refused | right; compared with the set called 26 |
| `ThresholdedRelu` without alpha | that of the operator, 1 | another | refused: nobody can say which was meant |
| `Affine`, `ScaledTanh` without alpha, beta | says nothing | something | refused for the same reason |
| a length of 0 | says nothing | a final state of 0, not the initial one | refused when run |
| `clip` of 0 or less | says nothing | RNN: 0 bounds to 0, below 0 is ignored; GRU, LSTM refuse | refused |
| more activations than directions (RNN) | one each | the rest is ignored | refused |
| activation names in small letters | as written | RNN refuses them, GRU and LSTM take them | taken |
| integer weights behind DequantizeLinear | the product of their floats | from its extended optimisations on, MatMul's \
input is quantized too (2e-3 off) | the floats; compared without those optimisations |

"""


def page(groups: dict[str, list[Any]], refused: dict[str, list[Any]], noise: float, judge: Any) -> str:
    """The whole page; ``groups`` are verdicts by family."""
    versions = ", ".join(
        f"{name} {version}"
        for name, version in (
            ("hwrnn", "this tree"), ("onnx", onnx.__version__), ("ONNX Runtime", onnxruntime.__version__),
            ("numpy", np.__version__), ("Python", platform.python_version()),
        )
    )  # fmt: skip
    parts = [HEAD.format(tolerance=judge.TOLERANCE, noise=noise, versions=versions), overview(groups)]
    parts.append(DEPARTURES.format(runtime=onnxruntime.__version__))
    for family in ("the operator alone", "with surroundings"):
        parts.append(f"## By feature: {family}\n\nNetworks by `run`: right / refused / wrong.\n\n")
        parts.append(features(groups[family]))
    parts.append(models([v for verdicts in groups.values() for v in verdicts]))
    parts.append(refusals(refused))
    parts.append(faults([v for verdicts in groups.values() for v in verdicts]))
    return "\n".join(part.rstrip("\n") + "\n" for part in parts if part)


def overview(groups: dict[str, list[Any]]) -> str:
    """Counts by family."""
    lines = ["| networks | number | comparisons | right | refused | wrong |", "|---|--:|--:|--:|--:|--:|"]
    total: Counter[str] = Counter()
    networks = 0
    for family, verdicts in groups.items():
        counted = Counter(v.outcome for v in verdicts)
        number = len({id(v.case) for v in verdicts})
        total, networks = total + counted, networks + number
        row = " | ".join(str(counted[outcome]) for outcome in OUTCOMES)
        lines.append(f"| {family} | {number} | {len(verdicts)} | {row} |")
    row = " | ".join(f"**{total[outcome]}**" for outcome in OUTCOMES)
    lines.append(f"| **all** | **{networks}** | **{sum(total.values())}** | {row} |")
    return "\n".join(lines) + "\n"


def features(verdicts: Iterable[Any]) -> str:
    """Right / refused / wrong of ``run`` by feature and operator."""
    counted: dict[str, dict[str, dict[str, Counter[str]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(Counter))
    )
    for v in verdicts:
        if v.what == "run":
            for key, value in v.case.features.items():
                place = re.match(r"([fgh]) = (\w+)( of direction 2)?$", key)
                if place:
                    key, value = f"activation {place[1]}{place[3] or ''}", place[2]
                counted[key][value][v.case.operator][v.outcome] += 1
    lines = ["| feature | value | RNN | GRU | LSTM |", "|---|---|---|---|---|"]
    for key in sorted(counted, key=lambda name: (name.startswith("activation "), name)):
        values = sorted(counted[key], key=lambda value: (0, float(value), "") if _number(value) else (1, 0.0, value))
        if key in LONG:
            joined = {op: sum((counted[key][value][op] for value in values), Counter()) for op in OPERATORS}
            cells = " | ".join(_cell(joined[op]) for op in OPERATORS)
            lines.append(f"| {key} | each of {values[0]} to {values[-1]} | {cells} |")
            continue
        for value in values:
            cells = " | ".join(_cell(counted[key][value][op]) for op in OPERATORS)
            lines.append(f"| {key} | {value} | {cells} |")
    return "\n".join(lines) + "\n"


def _number(value: str) -> bool:
    return re.fullmatch(r"-?[\d.]+", value) is not None


def _cell(counted: Counter[str]) -> str:
    return " / ".join(str(counted[outcome]) for outcome in OUTCOMES) if counted else ""


def models(verdicts: Iterable[Any]) -> str:
    """What Models were given, and why others were not."""
    found: Counter[tuple[str, str]] = Counter()
    said: dict[tuple[str, str], str] = {}
    for v in verdicts:
        if v.what.startswith("model"):
            key = (v.outcome, re.sub(r"'[^']*'|\d+", "", v.message))
            found[key] += 1
            said.setdefault(key, v.message)
    lines = ["## Models", "", "A `Model` computes one output of the file by layers one behind the other.", ""]
    lines += ["| outcome | outputs | for instance |", "|---|--:|---|"]
    for (outcome, reason), count in sorted(found.items(), key=lambda item: (OUTCOMES.index(item[0][0]), -item[1])):
        lines.append(f"| {outcome} | {count} | {_quoted(said[outcome, reason])} |")
    return "\n".join(lines) + "\n"


def refusals(refused: dict[str, list[Any]]) -> str:
    """What must be refused, and what is said of it."""
    lines = ["## What is refused", "", "| network | operators | what is said |", "|---|---|---|"]
    for title, verdicts in refused.items():
        operators = ", ".join(dict.fromkeys(v.case.operator for v in verdicts))
        lines.append(f"| {title} | {operators} | {_quoted(verdicts[-1].message or 'runs; the model is right')} |")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    text = re.sub(r"'[^']*/([^'/]+)'", r"'\1'", " ".join(text.split()).replace("|", "\\|"))
    return text if len(text) <= 240 else text[:237] + "..."


def faults(verdicts: Iterable[Any]) -> str:
    """The wrong ones, where there are any."""
    wrong = [v for v in verdicts if v.outcome == "wrong"]
    if not wrong:
        return ""
    lines = ["## Wrong", "", "| network | comparison | fault |", "|---|---|---|"]
    lines += [f"| {v.case.name} | {v.what} | {_quoted(v.reason)} |" for v in wrong]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "conformance.md")
    out = parser.parse_args().out
    sys.path.insert(0, str(ROOT / "tests"))
    judge, matrix = importlib.import_module("onnx_judge"), importlib.import_module("onnx_matrix")
    makers = {
        "the operator alone": list(matrix.operator_cases()),
        "with surroundings": list(importlib.import_module("onnx_surroundings").surrounded_cases()),
        "whole networks": list(importlib.import_module("onnx_wholes").whole_cases()),
        "node tests of the onnx package": [lambda c=c: c for c in importlib.import_module("onnx_nodes").node_cases()],
        "files of exporters": [lambda c=c: c for c in importlib.import_module("onnx_exported").exported_cases()],
        "must be refused": list(importlib.import_module("onnx_refusals").refused_cases()),
    }
    groups: dict[str, list[Any]] = {}
    progress, total, done = Progress("judging"), sum(map(len, makers.values())), 0
    with tempfile.TemporaryDirectory() as folder:
        for family, family_makers in makers.items():
            groups[family] = []
            for maker in family_makers:
                groups[family] += judge.judge(maker(), Path(folder))
                progress(done := done + 1, total, "networks")
    refused: dict[str, list[Any]] = defaultdict(list)
    for v in groups["must be refused"]:
        refused[v.case.features["refused"]].append(v)
    verdicts = [v for family in groups.values() for v in family]
    noise = max((v.difference for v in verdicts if v.outcome == "right"), default=0.0)
    atomic_write(out, page(groups, refused, noise, judge).encode())
    counted = Counter(v.outcome for v in verdicts)
    print(" ".join(f"{outcome} {counted[outcome]}" for outcome in OUTCOMES))
    return 1 if counted["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
