"""Coverage: branches that the tests take, errors whose text they hold, bits of the hardware that its benches toggle.

    scripts/measure_coverage [--tests MARKS ...] [--collected DIR] [--jobs N]

Exits with 1 where a package has less than 95 % of its branches and lines, or an error's text is in no test. Branches
are those of coverage.py; a test counts only for the process that it runs in and those that it starts by Python.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import coverage

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

import messages  # noqa: E402
import toggles  # noqa: E402
import verification  # noqa: E402
from networks import network_of  # noqa: E402

from hwrnn.rtl import generate  # noqa: E402

#: Marks of the tests that .ci/run runs, in its two runs.
RUNS = ("not slow and not fpga and not extras", "(slow or fpga or extras) and not long")
LEAST = 95.0
#: Packages of the table and the folders that hold them.
PACKAGES = {"hwrnn": "hwrnn", "rtl": "rtl", "sim": "sim"}
#: Engines whose benches are watched, with the options of their generation.
DESIGNS = {
    "LSTM, 3 inputs, 5 units, head, 4 lanes": (("lstm", 3, 5, 3), {"lanes": 4}),
    "GRU, 2 inputs, 4 units, arg-max, 1 lane": (("gru", 2, 4, 5), {"lanes": 1, "argmax": True}),
    "LSTM, 3 inputs, 5 units, 3 channels": (("lstm", 3, 5, 3), {"lanes": 4, "channels": 3}),
}  # fmt: skip


def main() -> int:
    """Run, judge and record; 1 where something is missing."""
    parser = argparse.ArgumentParser(prog="scripts/measure_coverage", description=__doc__)
    parser.add_argument("--tests", action="append", metavar="MARKS", help="pytest's -m of one run; several in turn")
    parser.add_argument("--collected", type=Path, metavar="DIR", help="where runs are collected, and those before were")
    parser.add_argument("--no-run", action="store_true", help="judge what --collected holds")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes (default: 2)")
    parser.add_argument("--only", choices=("branches", "messages", "toggles"), help="judge one thing, record nothing")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="coverage") as temporary:
        folder = (given.collected or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        if not given.no_run and given.only != "toggles":
            for marks in given.tests or RUNS:
                run(marks, folder, given.jobs)
        texts, tables, good = [], [], True
        if given.only in (None, "branches"):
            table, least = branches(folder)
            good &= least >= LEAST
            tables.append(table)
            texts.append(
                f"Lines and branches of the package that the tests take, together at least {LEAST:g} % in each part."
            )
        if given.only in (None, "messages"):
            text, none = sentences(folder)
            good &= none
            texts.append(text)
        if given.only in (None, "toggles"):
            tables.append(bits())
            texts.append(
                "Toggle coverage: bits of the emitted Verilog that rise and fall while the generated bench runs. Some"
                " of the others are proved constant for every input by van Eijk's induction; the rest is counters and"
                " comparisons whose top is out of reach of the schedule, biases that have one value in a memory of one"
                " word, and rooms of buffers that no stream of this network fills."
            )
        for table in tables:
            print(table.markdown())
        if given.only is None:
            verification.record("coverage", "scripts/measure_coverage", "\n\n".join(texts), tables)
    return 0 if good else 1


def run(marks: str, folder: Path, jobs: int) -> None:
    """One run of the tests with everything recorded into the folder; a test that fails ends all."""
    settings = folder / "coverage.ini"
    settings.write_text(
        "[run]\nbranch = true\nparallel = true\nsource_pkgs = hwrnn\npatch = subprocess\n"
        f"data_file = {folder / 'data'}\n"
    )
    environment = os.environ | {"HWRNN_MESSAGES": str(folder / "messages"), "PYTHONPATH": str(ROOT)}
    command = ["-m", "coverage", "run", f"--rcfile={settings}", "-m", "pytest", "-q", "-n", str(jobs), "-m", marks]
    if subprocess.run([sys.executable, *command], cwd=ROOT, env=environment).returncode:
        sys.exit(f"scripts/measure_coverage: tests must pass before coverage is told; those of -m {marks!r} did not")


def branches(folder: Path) -> tuple[verification.Table, float]:
    """Lines and branches by package, and the least share."""
    data = coverage.Coverage(data_file=str(folder / "data"), config_file=False, branch=True)
    data.combine([str(folder)], keep=True)
    rows, least = [], 100.0
    for name, top in PACKAGES.items():
        files = [str(ROOT / top / "*")]
        omit = [str(ROOT / "hwrnn" / other / "*") for other in ("rtl", "sim")] if name == "hwrnn" else []
        share = data.report(include=files, omit=omit, file=io.StringIO())
        counted = io.StringIO()
        data.report(include=files, omit=omit, file=counted)
        lines, missed, ways, partial = counted.getvalue().strip().splitlines()[-1].split()[1:5]
        rows.append([f"`{name}`", lines, missed, ways, partial, f"{share:.1f} %"])
        least = min(least, share)
    return verification.Table(["part", "lines", "missed", "branches", "partly", "covered"], rows), least


def sentences(folder: Path) -> tuple[str, bool]:
    """What is said of the errors' texts, and whether none is missing."""
    absent = messages.missing(folder / "messages")
    for place, reason in absent.items():
        print(f"{place}: {reason}", file=sys.stderr)
    total = messages.statements()
    return (
        f"Of {total} statements that raise an error, {total - len(absent)} were met by a test that holds a piece of"
        " the text, or are the house's own assertions."
    ), not absent


def bits() -> verification.Table:
    """Toggled bits by design."""
    rows = []
    for title, (network, options) in DESIGNS.items():
        with tempfile.TemporaryDirectory(prefix="toggles") as name:
            folder = Path(name).resolve() / "design"
            generate(network_of(*network)[0], folder, name="n", **options)
            found = toggles.toggles_of(folder, "n", Path(name).resolve() / "work")
            asked = [(signal, bit) for signal, _, places in found.missing for bit in places]
            constant = toggles.constant_bits((folder / "n.v").read_text(), "n", asked)
            able = found.bits - len(constant)
            share = f"{100 * found.both / able:.1f} %"
            rows.append([title, found.bits, found.both, len(constant), len(asked) - len(constant), share])
            for signal, bit in sorted(set(asked) - constant):
                print(f"  {title}: {signal}[{bit}]", file=sys.stderr)
    columns = ["design", "bits", "toggled", "proved constant", "neither", "toggled of those not constant"]
    return verification.Table(columns, rows)


if __name__ == "__main__":
    sys.exit(main())
