"""What is installed is pinned by hashes, what runs opens no connection, what is generated names no machine."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.version import Version

from hwrnn.compiler import CPP, compiler_available
from hwrnn.rtl.tools import without_places

ROOT = Path(__file__).resolve().parent.parent
LISTS = sorted(file.name for file in (ROOT / "scripts").glob("requirements*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(file: str) -> dict[str, tuple[Requirement, list[str]]]:
    """The requirements of a list and their hashes by name; what is no pinned requirement with hashes is refused."""
    found = {}
    text = re.sub(r" *\\\n *", " ", (ROOT / "scripts" / file).read_text(encoding="utf-8"))
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        words, *hashes = line.split(" --hash=sha256:")
        requirement = Requirement(words)
        (pin,) = requirement.specifier
        assert pin.operator == "==" and hashes and all(re.fullmatch(r"[0-9a-f]{64}", h) for h in hashes), line
        assert requirement.name not in found and requirement.url is None
        found[requirement.name] = requirement, hashes
    return found


@pytest.mark.parametrize("file", LISTS)
def test_every_package_is_pinned_by_hashes(file):
    assert len(requirements(file)) >= (1 if "cpu" in file else 10)
    assert "://" not in (ROOT / "scripts" / file).read_text()


def asked(extras: tuple[str, ...]) -> list[Requirement]:
    """What pyproject.toml asks for, with these extras and those that they name."""
    found = [Requirement(text) for text in PROJECT["dependencies"]]
    for extra in extras:
        for text in PROJECT["optional-dependencies"][extra]:
            wanted = Requirement(text)
            found += asked(tuple(wanted.extras)) if wanted.name == "hwrnn" else [wanted]
    return found


def uncovered(wanted: list[Requirement], pinned: dict[str, Version]) -> list[str]:
    """What no pinned version satisfies on this machine."""
    return [
        str(one) for one in wanted if (one.marker is None or one.marker.evaluate())
        and not (one.name in pinned and one.specifier.contains(pinned[one.name]))
    ]  # fmt: skip


def versions(*files: str) -> dict[str, Version]:
    found = {}
    for file in files:
        for name, (requirement, _) in requirements(file).items():
            (pin,) = requirement.specifier
            found[name] = Version(pin.version)
    return found


ALL = tuple(PROJECT["optional-dependencies"])


def test_the_locks_cover_what_is_asked_for():
    main = tuple(extra for extra in ALL if extra not in ("torch", "keras", "bench"))
    assert uncovered(asked(main), versions("requirements.txt")) == []
    others = ("requirements-extras.txt", "requirements-torch.txt")
    assert uncovered(asked(ALL), versions("requirements.txt", *others)) == []
    assert versions("requirements-torch-cpu.txt")["torch"].public == str(versions("requirements-torch.txt")["torch"])
    assert uncovered([Requirement("numpy>=99")], versions("requirements.txt")) == ["numpy>=99"]
    assert uncovered([Requirement("left-pad")], versions("requirements.txt")) == ["left-pad"]


def test_the_minimum_is_what_pyproject_allows():
    """Every lower bound is tested, not another version that happens to be there."""
    least = versions("requirements-minimum.txt")
    for wanted in asked(tuple(extra for extra in ALL if extra not in ("torch", "keras", "bench"))):
        if wanted.marker is not None and not Marker(str(wanted.marker)).evaluate({"sys_platform": "linux"}):
            continue
        bounds = [pin.version for pin in wanted.specifier if pin.operator in (">=", "==")]
        assert len(bounds) == 1, f"{wanted} has no lower bound"
        given, bound = least[wanted.name].release, Version(bounds[0]).release
        assert given[: len(bound)] == bound, wanted


def test_what_is_installed_here_is_what_is_pinned():
    """In the environment of the scripts; elsewhere nothing is claimed."""
    if not (Path(sys.prefix) / "hwrnn.stamp").exists():
        pytest.skip("this is not the environment that scripts/setup.sh makes")
    for name, (requirement, _) in requirements("requirements.txt").items():
        if requirement.marker is None or requirement.marker.evaluate():
            assert requirement.specifier.contains(metadata.version(name)), name


def test_scripts_install_by_hashes():
    setup, ci = ((ROOT / name).read_text() for name in ("scripts/setup.sh", ".ci/run"))
    for line in re.findall(r".*pip install.*", re.sub(r"\\\n", " ", setup + ci)):
        assert "--require-hashes" in line or '--no-deps --no-build-isolation --editable "$ROOT"' in line, line


def audit():
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        spec = importlib.util.spec_from_file_location("audit", ROOT / "scripts" / "audit.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.pop(0)


@pytest.mark.parametrize(
    "listed, code, words",
    [
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', 0, "knows no vulnerability of the 1"),
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "X-1"}]}]}', 1, "a 1 (X-1)"),
        ('{"dependencies": [{"name": "a", "skip_reason": "not found"}]}', 3, "could not be told"),
        ("", 3, "could not be told"),
    ],
)
def test_the_audit_tells_silence_from_a_clean_answer(listed, code, words, tmp_path, monkeypatch):
    module = audit()
    (tmp_path / "pip-audit").write_text(f"#!/bin/sh\ncat <<'E'\n{listed}\nE\n")
    (tmp_path / "pip-audit").chmod(0o755)
    monkeypatch.setattr(module, "tools", lambda kept: tmp_path)
    found, sentence = module.vulnerabilities(tmp_path)
    assert found == code and words in sentence


# -- no network

HOOK = """
import os, sys
def forbid(event, args):
    if event.startswith("socket.") and event != "socket.gethostname":
        os.write(2, f"CONNECTED {event} {args[1:]}\\n".encode())
        os._exit(97)
sys.addaudithook(forbid)
import socket
socket.gethostname = lambda: "quuxhost"
known = os.uname()
os.uname = lambda: os.uname_result((known[0], "quuxhost", *known[2:]))
"""


class Elsewhere:
    """A process, and what Python it starts, of somebody else, that ends where it makes a socket.

    Attributes:
        folder: where it runs.
        words: what would tell on which machine, by whom and where something was made, by what it is.
    """

    def __init__(self, place: Path) -> None:
        self.folder = place / "quuxfolder"
        hook, home = place / "hook", place / "quuxhome"
        for made in (self.folder, hook, home):
            made.mkdir()
        (hook / "sitecustomize.py").write_text(HOOK)
        # Compiled tools take a while to be made.
        cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
        self.environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(hook), str(ROOT), str(ROOT / "tests"), *sys.path]), "HOME": str(home),
            "USER": "quuxlogin", "LOGNAME": "quuxlogin", "HOSTNAME": "quuxhost", "XDG_CACHE_HOME": cache,
            "PYTHONWARNINGS": "ignore",
        }  # fmt: skip
        self.words = {
            "folder": "quuxfolder", "home": "quuxhome", "login": "quuxlogin", "host": "quuxhost", "place": str(place),
            "environment": sys.prefix, "sources": str(ROOT), "temporary folder": "/tm" + "p/", "host itself": HOST,
            "home itself": f"{Path.home()}/",
        }  # fmt: skip

    def python(self, *arguments: str | Path) -> subprocess.CompletedProcess:
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )  # fmt: skip

    def hwrnn(self, *arguments: str) -> None:
        done = self.python("-c", "import sys; from hwrnn.cli import main; sys.exit(main(sys.argv[1:]))", *arguments)
        assert done.returncode == 0, done.stderr[-2000:]

    def traces(self, pattern: str = "*") -> dict[str, list[str]]:
        """By file of the folder, what of the machine stands in it or in its name."""
        found = {}
        for file in sorted(f for f in self.folder.rglob(pattern) if f.is_file()):
            text = str(file.relative_to(self.folder)).encode() + b" " + file.read_bytes()
            if said := [what for what, word in self.words.items() if word.encode() in text]:
                found[str(file.relative_to(self.folder))] = said
        return found


#: This machine's name, where it is one that stands in no file by chance.
HOST = socket.gethostname() if re.search(r"\d|-", socket.gethostname()) else "quuxhost"


@pytest.fixture
def elsewhere(tmp_path):
    return Elsewhere(tmp_path)


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.socket()",
        "import urllib.request; urllib.request.urlopen('http://localhost:1')",
        "import socket; socket.getaddrinfo('localhost', 1)",
        "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', 'import socket; socket.socket()']))",
    ],
)
def test_a_planted_connection_is_found(code, elsewhere):
    done = elsewhere.python("-c", code)
    assert done.returncode == 97 and "CONNECTED socket." in done.stderr


def test_the_job_needs_no_network_and_leaves_no_trace(elsewhere):
    options = ["--data", "adding", "--cell", "gru", "--hidden", "4", "--epochs", "1", "--no-compiled", "-o", "m.onnx"]
    elsewhere.hwrnn("train", *options)
    elsewhere.hwrnn("quantize", "m.onnx", "--data", "adding", "--bits", "6", "--method", "mse", "-o", "q.onnx")
    elsewhere.hwrnn("generate", "q.onnx", "--lanes", "4", "-o", "verilog")
    for form in ("qonnx", "c"):
        elsewhere.hwrnn("export", "q.onnx", "--form", form, "-o", f"exported.{form}")
    simulator = "cxxrtl" if compiler_available(CPP) else "amaranth"
    some = ["--count", "1", "--lanes", "4", "--simulator", simulator, "--vcd", "x.vcd"]
    elsewhere.hwrnn("simulate", "q.onnx", "--data", "adding", *some)
    assert len(list(elsewhere.folder.rglob("*"))) > 15
    assert elsewhere.traces() == {}


@pytest.mark.slow
def test_the_demo_needs_no_network_and_leaves_no_trace(elsewhere):
    elsewhere.hwrnn("demo", "--quick", "--out", "demo")
    assert elsewhere.traces() == {}


@pytest.mark.slow
def test_no_pinned_design_has_a_trace(elsewhere):
    done = elsewhere.python(ROOT / "tests" / "pinned_designs.py", elsewhere.folder, "--every")
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list(elsewhere.folder.rglob("*"))) > 100
    assert elsewhere.traces() == {}


@pytest.mark.fpga
def test_what_is_implemented_has_no_trace(elsewhere):
    """Report, log, netlist and bitstream."""
    done = elsewhere.python(ROOT / "tests" / "pinned_designs.py", elsewhere.folder)
    assert done.returncode == 0, done.stderr[-2000:]
    elsewhere.hwrnn("implement", "lstm", "--device", "ecp5-25k-6", "--seeds", "1")
    assert any("implementation" in file.name for file in (elsewhere.folder / "lstm").iterdir())
    assert elsewhere.traces() == {}


def test_logs_lose_the_folders_of_packages():
    place = Path(pytest.__file__).parent
    log = f"read {place}/share/cells.v:3, {place.parent}/pytest/share/x and /elsewhere/pytest/y".encode()
    clean = b"read pytest/share/cells.v:3, pytest/share/x and /elsewhere/pytest/y"
    assert without_places(log, ["pytest", "is_not_installed"]) == clean


@pytest.mark.parametrize("what", ["folder", "home", "host", "login", "place", "sources", "temporary folder"])
def test_a_planted_trace_is_found(what, elsewhere):
    (elsewhere.folder / "x.v").write_text(f"// from {elsewhere.words[what]} x\n")
    assert what in elsewhere.traces()["x.v"]
    code = {
        "home": "import pathlib; print(pathlib.Path.home())",
        # What watches a test's processes may have asked before.
        "host": "import platform; platform._uname_cache = None; print(platform.node())",
        "login": "import getpass; print(getpass.getuser())", "folder": "import os; print(os.getcwd())",
    }.get(what)  # fmt: skip
    if code is not None:  # and whoever asks is told that word
        (elsewhere.folder / "y.v").write_text(elsewhere.python("-c", code).stdout)
        assert what in elsewhere.traces()["y.v"]
