"""Virtual environments of other Pythons and other versions of dependencies, for the scripts that compare them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DEFAULT", "VERSIONS", "Environment", "environment", "interpreters", "versions_in"]

ROOT = Path(__file__).resolve().parent.parent
#: Pythons that hwrnn runs on.
VERSIONS = ("3.11", "3.12", "3.13")
#: Where environments are kept: they take minutes to make.
DEFAULT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hwrnn" / "environments"


@dataclass(frozen=True)
class Environment:
    """An interpreter with the dependencies of a list."""

    python: Path
    version: str
    dependencies: str


def interpreters(given: Sequence[str] = ()) -> dict[str, Path]:
    """Interpreters by version: those given, else what PATH and pyenv have of :data:`VERSIONS`."""
    places = [Path(found) for name in given if (found := shutil.which(name))]
    if not given:
        places = [Path(found) for v in VERSIONS if (found := shutil.which(f"python{v}"))]
        pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
        places += [file for v in VERSIONS for file in sorted(pyenv.glob(f"versions/{v}.*/bin/python"), reverse=True)]
    found: dict[str, Path] = {}
    for place in places:
        code = "import sys; print('.'.join(map(str, sys.version_info[:2])))"
        told = subprocess.run([place, "-c", code], capture_output=True, text=True, check=False)
        if told.returncode == 0:
            found.setdefault(told.stdout.strip(), place)
    return dict(sorted(found.items()))


def environment(base: Path, dependencies: str, requirements: Path, kept: Path = DEFAULT) -> Environment:
    """The environment of an interpreter and a list of packages, made where it is not there yet.

    Args:
        dependencies: what to call the list.
        requirements: a file for ``pip install --requirement``, with hashes or without.
    """
    text = requirements.read_text(encoding="utf-8")
    listed = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    key = hashlib.sha256(f"{base.resolve()} {listed}".encode()).hexdigest()[:16]
    folder = kept / key
    python, stamp = folder / "bin" / "python", folder / "complete"
    if not stamp.exists():
        print(f"making an environment of {base} with {dependencies} dependencies", file=sys.stderr, flush=True)
        subprocess.run([base, "-m", "venv", "--clear", folder], check=True)
        hashed = ["--require-hashes", "--only-binary=:all:"] if "--hash=" in text else []
        command = [python, "-m", "pip", "install", "-qq", *hashed, "--requirement", requirements]
        subprocess.run([str(part) for part in command], check=True, stdin=subprocess.DEVNULL)
        stamp.touch()
    code = "import platform; print(platform.python_version())"
    version = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    return Environment(python, version, dependencies)


def versions_in(python: Path, packages: Sequence[str]) -> dict[str, str]:
    """The versions of packages in an environment; ``-`` of one that is not there."""
    code = (
        "import sys\nfrom importlib import metadata\nfor name in sys.argv[1:]:\n"
        "    try: print(metadata.version(name))\n    except metadata.PackageNotFoundError: print('-')"
    )
    told = subprocess.run([python, "-c", code, *packages], capture_output=True, text=True, check=True)
    return dict(zip(packages, told.stdout.split(), strict=True))
