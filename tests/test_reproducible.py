"""The same model and options give the same bytes: pinned here, and on other Pythons by scripts/reproduce."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pinned_designs import DESIGNS, KINDS, PINS, contents, digests, kind_of, model_of, reordered, tools_of, write

import hwrnn

ROOT = Path(__file__).resolve().parent.parent
COMMAND = 'scripts/reproduce --pin "WHAT CHANGED AND WHY"'


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("designs")
    for name in DESIGNS:
        write(folder, name)
    return folder


def changed(found: dict[str, str], pinned: dict[str, str]) -> list[str]:
    """What to say of each kind of file that is not as it is pinned."""
    return [
        f"Generated files of the kind {kind} must be those that tests/pinned.json pins, not others: if the change was"
        f" meant, run {COMMAND}, which pins them anew and names the change in CHANGES.md"
        for kind, digest in found.items() if digest != pinned.get(kind)
    ]  # fmt: skip


def test_the_bytes_are_the_pinned_ones(made):
    """With other versions of Amaranth and Yosys too, but for these versions in the manifest and in Verilog's head."""
    pins = json.loads(PINS.read_text())
    assert changed(digests(contents(made), pins["tools"]), pins["sha256"]) == []
    if tools_of(made) == pins["tools"]:
        assert digests(contents(made)) == pins["sha256"]


def unnamed(pinned: dict[str, str], changes: str) -> list[str]:
    """What to say of each kind whose pinned digest CHANGES.md does not tell in the first line that tells one."""
    faults = []
    for kind, digest in pinned.items():
        told = re.search(rf"^- Generated {kind} changed to `(\w+)`: \S", changes, re.MULTILINE)
        if told is None or told[1] != digest[:12]:
            line = f"- Generated {kind} changed to `{digest[:12]}`: WHY"
            faults.append(f"CHANGES.md must tell of a change of generated files, in its top section: {line}")
    return faults


def test_changes_names_what_is_pinned():
    pins = json.loads(PINS.read_text())
    assert list(pins["sha256"]) == list(KINDS)
    assert unnamed(pins["sha256"], (ROOT / "CHANGES.md").read_text(encoding="utf-8")) == []


def test_a_planted_change_is_found(made):
    pins = json.loads(PINS.read_text())
    files = contents(made)
    (verilog,) = (name for name in files if re.fullmatch(r"lstm/hwrnn\w+(?<!_tb)\.v", name))
    files[verilog] = files[verilog].replace(b"+", b"-", 1)
    (fault,) = changed(digests(files, pins["tools"]), pins["sha256"])
    assert fault.startswith("Generated files of the kind Verilog must be those") and COMMAND in fault
    del files["gru/load.hex"]
    assert len(changed(digests(files, pins["tools"]), pins["sha256"])) == 2
    text = "".join(f"- Generated Verilog changed to `{d}`: why.\n" for d in ("0123456789ab", "00000000000a"))
    assert unnamed({"Verilog": "0123456789abcdef"}, text) == []
    (fault,) = unnamed({"Verilog": "00000000000abcde"}, text)
    assert fault.endswith("in its top section: - Generated Verilog changed to `00000000000a`: WHY")


def test_every_file_has_a_kind(made):
    loose = {Path(name).name for name in contents(made) if kind_of(name) is None}
    assert loose == {"SHA256SUMS"}
    assert {kind_of(name) for name in contents(made)} - {None} == set(KINDS)


def test_the_order_of_dictionaries_changes_nothing(made, tmp_path):
    turned = reordered(model_of("lstm")).layers[0]
    assert list(turned.weights) == list(model_of("lstm").layers[0].weights)[::-1] != list(turned.weights)[::-1]
    for name in DESIGNS:
        write(tmp_path, name, reordered)
    assert contents(tmp_path) == contents(made)


def test_a_file_that_is_loaded_generates_what_was_saved(made, tmp_path):
    write(tmp_path, "gru", lambda model: _through_file(model, tmp_path / "m.onnx"))
    (tmp_path / "m.onnx").unlink()
    assert contents(tmp_path) == {name: text for name, text in contents(made).items() if name.startswith("gru")}


def _through_file(model, file):
    hwrnn.save(model, file)
    return hwrnn.load(file)


def test_training_repeats_bit_for_bit(tmp_path):
    """On one machine: another one's BLAS may add in another order."""
    found = []
    for seed in ("0", "77"):
        code = "import sys, pathlib, pinned_designs; pinned_designs.write_trained(pathlib.Path(sys.argv[1]))"
        folder = tmp_path / seed
        folder.mkdir()
        paths = os.pathsep.join([str(ROOT / "tests"), str(ROOT), *sys.path])
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": paths}
        subprocess.run([sys.executable, "-c", code, folder], env=environment, cwd=folder, check=True)
        found.append(contents(folder))
    assert found[0] == found[1] and len(found[0]) == 4


# -- names


def nameless(source: str) -> list[str]:
    """Hardware that gets its name from the interpreter's byte code, where Amaranth does not see it on every Python.

    It reads the instruction behind the call. Of several values assigned at once Python 3.13 stores two in one
    instruction, which Amaranth 0.5 does not know: signals lose their names, and the Verilog its bytes.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
            continue
        for call in (value for value in node.value.elts if isinstance(value, ast.Call)):
            function = call.func
            last = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            if last in ("Signal", "like", "read_port", "write_port", "create", "Memory") and not any(
                word.arg == "name" for word in call.keywords
            ):
                found.append(ast.unparse(node))
                break
    return found


@pytest.mark.parametrize("folder", ["rtl", "sim"])
def test_names_do_not_depend_on_the_interpreter(folder):
    faults = {file.name: nameless(file.read_text()) for file in (ROOT / folder).glob("*.py")}
    assert {name: lines for name, lines in faults.items() if lines} == {}


@pytest.mark.parametrize(
    "line, planted",
    [
        ("a, b = Signal(), Signal()", True),
        ("a, b = memory.read_port(), 1", True),
        ("a = Signal()", False),
        ("a, b = Signal(name='a'), Signal(2, name='b')", False),
    ],
)
def test_planted_names_are_found(line, planted):
    assert bool(nameless(line)) is planted


def test_the_integers_of_the_designs_are_known():
    assert model_of("gru").layers[0].weights["r", "h"].tolist()[0] == [16, -30, -29, 15]
