"""Random command lines over a folder of small files, some of them damaged; for the fuzzer in ``fuzz_onnx``.

The grammar is the parser itself: a new verb or option is tried without anybody thinking of it. What its values are
comes from its type and its words for the help; the few options whose honest values let a run last for minutes, and the
few whose good values nobody guesses, are listed by name.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fuzz_mutators as mutators
import numpy as np

from hwrnn import cli, locks
from hwrnn.activations import NONLINEARITIES
from hwrnn.cells import CELLS
from hwrnn.errors import UsageError
from hwrnn.rtl.targets import TARGETS

#: Verbs and how often each is tried; those that are not named once. Of ``demo`` and ``implement`` only what ends before
#: the work: the tools are not to be found.
OFTEN = {"inspect": 4, "train": 4, "quantize": 3, "export": 3, "compare": 2, "import": 3, "evolve": 2, "detect": 2}
_REFUSING = ("demo",)  # verbs that begin to work whatever they are given
#: Options that repeat work: their values are small or no numbers of a repetition at all.
REPEATING = {
    "epochs", "finetune", "generations", "population", "seeds", "layers", "hidden", "batch", "channels", "count",
    "window", "steps", "horizon", "order", "lanes", "workers", "patience", "search_every", "timeout", "encoder",
}  # fmt: skip
_SMALL = ("1", "2", "3", "1", "2", "0", "-1", "1.5", "x", "", "1e3", "-0", "٣", "2,2", "1,0", ",", "nan")
_NUMBERS = ("0", "1", "-1", "0.5", "1e-9", "1e400", "nan", "inf", "-inf", "2", "x", "", "0x10", "1_0", "3", "8", "64")
_NAMED: dict[str, Sequence[str]] = {
    "cell": tuple(CELLS), "activation": tuple(NONLINEARITIES), "gate": tuple(NONLINEARITIES),
    "device": tuple(TARGETS), "target": tuple(TARGETS), "board": ("icebreaker", "ulx3s"),
    "method": ("mse", "max", "loss"), "simulator": ("amaranth", "cxxrtl", "icarus", "verilator"),
    "form": ("onnx", "standard", "qonnx", "qonnx-standard", "qdq", "c"), "column": ("value", "k", "", "K"),
    "loss": ("mse", "mae", "cross_entropy"), "schedule": ("cosine", "constant"), "objective": ("loss", "metric"),
    "init": ("orthogonal", "identity", "scaled", "scaled:2", "glorot"), "task": ("classification", "regression"),
    "activations": ("hard", "plan", "pwl:3"), "initial": ("zero",), "weights": ("auto", "loadable", "block", "spram"),
    "tools": ("vivado", "quartus", "vivado,radiant"), "input_stall": ("always", "random", "bursts", "waits"),
    "output_stall": ("always", "random", "bursts", "waits"), "name": ("top", "a b", "module", "t" * 300),
    "port": ("/dev/null", "loop://", "nothing", "/dev/ttyUSB99"), "workers": ("1", "0", "-1", "x"),
    "protect": ("parity", "secded", "none"),
}  # fmt: skip
_WORDS = ("", "x", "é", "-1", "--", "a" * 300, "relu", "lstm", "\n", "%s", "pwl_tanh:4", "pwl_sigmoid:999", "../x", "0")
OUT = "out"  # the only folder that a command line may change


# -- the folder --------------------------------------------------------------------------------------------------------
def prepare(folder: Path) -> None:
    """Fill a folder with small models, data, generated folders and checkpoints, and damaged copies of them."""
    import killing

    killing.Material(folder)
    words = ["train", "--data", str(folder / "d.npz"), "--hidden", "2", "--epochs", "1", "--no-compiled"]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = cli.main([*words, "-o", str(folder / "t.onnx"), "--checkpoint", str(folder / "c.npz")])
    assert code == 0
    rng = random.Random(0)
    for name in ("m0.onnx", "q0.onnx", "d.npz", "s.csv", "c.npz"):
        content = (folder / name).read_bytes()
        stem, _, suffix = name.partition(".")
        for k in range(3):
            (folder / f"{stem}-damaged{k}.{suffix}").write_bytes(mutators.damage_bytes(content, content, rng))
    shutil.copytree(folder / "v", folder / "v-damaged")
    text = (folder / "v" / "manifest.json").read_text()
    (folder / "v-damaged" / "manifest.json").write_text(mutators.damage_json(text, rng))
    shutil.copy(folder / "q0.onnx", folder / "q.npz")
    (folder / "empty.onnx").touch()
    (folder / "a folder").mkdir()
    (folder / "nowhere.onnx").symlink_to("missing.onnx")
    (folder / "itself.npz").symlink_to("itself.npz")
    os.mkfifo(folder / "pipe.onnx")
    os.mkfifo(folder / "pipe.csv")
    wave = np.sin(np.arange(40) / 3)
    np.savez(folder / "series.npz", x=wave[:, None, None].astype(np.float32), y=wave.astype(np.float32))


# -- command lines -----------------------------------------------------------------------------------------------------
class Grammar:
    """Command lines by a number, from hwrnn's own parser."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        [verbs] = [a for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction)]
        self.verbs = {name: parser for name, parser in verbs.choices.items() if name not in _REFUSING}
        self.names = [name for name in self.verbs for _ in range(OFTEN.get(name, 1))]
        self.files = sorted(path.name for path in folder.iterdir())

    def line(self, seed: int, number: int) -> list[str]:
        """Command line ``number`` of a run, with ``{m}`` for the folder of files and ``{f}`` for that of outputs."""
        rng = random.Random(f"commands {seed} {number}")
        verb = rng.choice(self.names)
        words = [verb]
        good = rng.random() < 0.6  # mostly right, so that many command lines get as far as the work
        for action in self.verbs[verb]._actions:
            if isinstance(action, argparse._HelpAction) and rng.random() > 0.01:
                continue
            chance = 0.97 if action.required or not action.option_strings else 0.08 if good else 0.2
            if action.dest == "data":
                chance = max(chance, 0.5)
            if good and action.dest in ("column", "window", "horizon"):
                chance = 0.9 if "{m}/s.csv" in words else 0.02
            if rng.random() < chance:
                words += self.given(action, verb, good, rng)
        if verb == "evolve" and "--workers" not in words:
            words += ["--workers", "1"]  # a process for each core would be new ones for each line
        if verb == "evolve" and "--generations" not in words:
            words += ["--generations", "2"]  # as many as it makes by itself are honest work of seconds
        while rng.random() < (0.01 if good else 0.15):
            at = rng.randrange(len(words) + 1)
            words[at:at] = [rng.choice((*_WORDS, *words, "--json", "--help", "--versio", "--da", "--data=x"))]
        return [word.replace("\0", "") for word in words]

    def given(self, action: argparse.Action, verb: str, good: bool, rng: random.Random) -> list[str]:
        """An option or an argument with values."""
        name = [rng.choice(action.option_strings)] if action.option_strings else []
        if action.nargs == 0:
            return name
        return [*name, self.value(action, verb, good and rng.random() < 0.95, rng)]

    def value(self, action: argparse.Action, verb: str, good: bool, rng: random.Random) -> str:
        """A value for an action."""
        kind, dest = getattr(action.type, "__name__", ""), action.dest
        if dest in ("output", "checkpoint", "vcd", "out"):
            return "{f}/" + rng.choice(("o.onnx", "o", "old.onnx", "old-folder", "c.npz", "no/where", "", "o.npz"))
        if action.choices is not None and good:
            return str(rng.choice(list(action.choices)))
        if dest in _NAMED and (good or rng.random() < 0.7):
            return rng.choice(_NAMED[dest])
        if dest in REPEATING:
            return rng.choice(_SMALL[:5] if good else _SMALL)
        if kind in ("whole", "number", "wholes", "lane_count"):
            numbers = ("8", "4", "2", "6", "1", "0.5") if good else (*_NUMBERS, *map(str, mutators.NUMBERS))
            return rng.choice(numbers)
        if kind == "words":
            return ",".join(rng.choice(_WORDS[:7]) for _ in range(rng.randrange(4)))
        if not action.option_strings or action.metavar in ("FILE", "D", "DIR", "F"):
            return self.file(dest, verb, good, rng)
        return rng.choice((*_WORDS, *mutators.TEXTS))

    def file(self, dest: str, verb: str, good: bool, rng: random.Random) -> str:
        """A path of an input."""
        if not good:
            named = ["{m}/" + name for name in self.files]
            return rng.choice((*named, "{m}", "", "{f}/old.onnx", *_WORDS, "/dev/null"))
        if dest == "data":
            return "{m}/" + rng.choice(("d.npz", "d.npz", "d.npz", "s.csv", "series.npz"))
        if dest == "folder":
            return "{m}/" + rng.choice(("v", "w", "v-damaged"))
        floats = verb in ("quantize", "compare", "import") or dest == "float"
        return "{m}/" + rng.choice(("m0.onnx", "m1.onnx", "t.onnx") if floats else ("q0.onnx", "q1.onnx", "m0.onnx"))


# -- running one -------------------------------------------------------------------------------------------------------
#: What keeps a command line from starting programs, and from looking at anything but its folders.
NOWHERE = {"PATH": "/nowhere", "CC": "/nowhere/cc", "CXX": "/nowhere/c++"}


def alone() -> None:
    """Let this process start no programs and open no ports: there are none, or they are refused where they would start.
    """
    from amaranth._toolchain.yosys import YosysError
    from amaranth.back import verilog

    from hwrnn.rtl import flow, tools

    def refuse(*_: object, **__: object) -> Any:
        raise YosysError("no programs here")

    def fail(*_: object, **__: object) -> Any:
        raise tools.ToolError("no programs here", "")

    def no_board(*_: object, **__: object) -> Any:  # its pins are written by a program too
        raise UsageError("no programs here")

    verilog.convert, flow._run, flow.design_for = refuse, fail, no_board
    with contextlib.suppress(ImportError):
        import serial

        def no_port(*_: object, **__: object) -> Any:
            raise serial.SerialException("no ports here")

        serial.serial_for_url = no_port
    os.environ.update(NOWHERE)
    locks._renameat2()


class Wrong(Exception):
    """A command line did what none must do."""


def run(words: Sequence[str], inputs: Path, work: Path) -> None:
    """Run a command line, its outputs below ``work``; UsageError where it was refused with a sentence.

    Raises:
        Wrong: another exit code than 0, 1 and 2, more or less than a sentence, or an output that a refusal changed.
        UsageError: it was refused as it should be.
    """
    out = work / OUT
    shutil.rmtree(out, ignore_errors=True)
    (out / "old-folder").mkdir(parents=True)
    (out / "old.onnx").write_bytes(b"earlier")
    (out / "old-folder" / "mine").write_bytes(b"earlier")
    if "implement" in words[:1]:  # writes into the folder that it is given
        for name in ("v", "w", "v-damaged"):
            shutil.copytree(inputs / name, out / name)
        words = [word.replace("{m}/", "{f}/") for word in words]
    before = _contents(out)
    line = [word.replace("{m}", str(inputs)).replace("{f}", str(out)) for word in words]
    told, printed = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(told):
        try:
            code: Any = cli.main(line)
        except SystemExit as end:  # argparse, behind its help
            code = end.code
    text = told.getvalue()
    if code not in (0, 1, 2):
        raise Wrong(f"ended with {code}")
    if "Traceback" in text or "Traceback" in printed.getvalue():
        raise Wrong("printed a traceback")
    after = _contents(out)
    left = [name for name in after if locks.is_temporary(Path(name))]
    if left:
        raise Wrong("left a temporary file")
    if any(after.get(name) != before[name] for name in before if name != "old.onnx" or code == 2):
        raise Wrong("changed what a person had in the folder")
    if code != 2:
        if "--json" in line and code == 0 and printed.getvalue() and "--help" not in line and "-h" not in line:
            json.loads(printed.getvalue())
        return
    fresh = {name for name in after if name not in before} - {"c.npz", "o", "o.onnx", "o.npz"}
    checkpointed = "--checkpoint" in line
    if fresh or (set(after) - set(before) and not checkpointed):
        raise Wrong("left an output that it refused")
    lines = [row for row in text.splitlines() if row.startswith("hwrnn: ")]
    if len(line) == 0 or not lines:
        raise Wrong("refused without a sentence")
    if printed.getvalue():
        raise Wrong("printed a result beside a refusal")
    raise UsageError(lines[-1].removeprefix("hwrnn: "))


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def encoded(words: Sequence[str]) -> bytes:
    """A command line as the content of a file."""
    return json.dumps(list(words)).encode()


def decoded(content: bytes) -> list[str]:
    """The command line again."""
    return [str(word) for word in json.loads(content)]
