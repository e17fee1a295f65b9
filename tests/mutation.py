"""Faults planted in emitted Verilog, and what the generated test bench, run alone in Icarus, says of each.

Yosys' ``mutate`` plants them: many in one netlist, each awake under a number of its own that the simulation is given,
so that one compilation serves hundreds. Bits of the memories' initial content, which that pass does not reach, are
flipped in the netlist's text in the same way.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from networks import network_of

from hwrnn.rtl import generate
from hwrnn.rtl.tools import run_all, yosys_job

#: Networks that are mutated: small, so that a run of the bench takes a fraction of a second.
DESIGNS = {
    "lstm": (dict(cell="lstm", inputs=2, units=3, outputs=None, every_step=True, bits=4), dict(lanes=4)),
    "gru": (dict(cell="gru", inputs=2, units=3, outputs=2, bits=4), dict(lanes=3)),
    "argmax": (dict(cell="rnn", inputs=2, units=3, outputs=3, bits=4), dict(lanes=2, argmax=True)),
    "channels": (dict(cell="ligru", inputs=2, units=2, outputs=2, bits=4), dict(lanes=2, channels=2)),
}
#: Seconds after which a simulation is ended; the longest of those designs takes half of one.
LIMIT = 30
_BITS = 12  # of the number that awakes a mutant
#: Pins of a memory that Verilog has no words for: a read that is always on has no enable.
_UNSAID = re.compile(r" -port RD_(EN|CLK|ARST|SRST) ")


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        design: its network's name in ``DESIGNS``.
        number: among those of the design, from 1.
        kind: ``inv``, ``const0``, ``const1``, ``cnot0``, ``cnot1`` of Yosys' ``mutate``, or ``content``.
        where: the arguments of ``mutate``, or the word of a memory and its bit.
    """

    design: str
    number: int
    kind: str
    where: str

    def __str__(self) -> str:
        return f"{self.design} {self.number}: {self.kind} {self.where}"


@dataclass(frozen=True)
class Verdict:
    """What the bench said of a mutant: ``how`` is PASS for one that it let through, else how it was killed."""

    how: str
    said: str


def generated(name: str, folder: Path) -> Path:
    """A design's folder as ``generate`` writes it."""
    model, options = DESIGNS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate(network_of(**model)[0], folder, name=name, **options)
    return folder


class Mutated:
    """A generated network and mutants of it.

    Args:
        source: the folder that ``generate`` wrote.
        work: a folder for what is made.
        count: mutants of the netlist.
        contents: flipped bits of initial contents of memories.
    """

    def __init__(self, source: Path, work: Path, count: int, contents: int, seed: int) -> None:
        self.work = work
        work.mkdir(parents=True, exist_ok=True)
        for file in source.iterdir():
            if file.suffix in (".v", ".hex"):
                shutil.copy(file, work)
        (bench,) = work.glob("*_tb.v")
        self.name = bench.stem.removesuffix("_tb")
        self._yosys(
            "prepare",
            [
                f"read_verilog {self.name}.v", f"hierarchy -check -top {self.name}", "proc", "memory_collect",
                "opt -full", "wreduce", "opt_clean -purge", "write_rtlil prepared.il", "write_verilog -noattr prepared.v",
                f"mutate -list {count + count // 4} -seed {seed} -o list.txt",
            ],
            "prepared.v",
        )  # fmt: skip
        lines = (work / "list.txt").read_text().splitlines()
        found = [re.fullmatch(r"mutate -mode (\w+) (.*?)(?: -wire .*| -src .*)?", line) for line in lines]
        planted = [(hit[1], hit[2]) for hit in found if hit is not None and not _UNSAID.search(hit[2])][:count]
        if len(planted) != count:
            raise ValueError(f"Yosys made {len(planted)} mutants of {self.name}, not {count}")
        places = list(constants((work / "prepared.v").read_text()))
        chosen = random.Random(seed).sample(places, min(contents, len(places)))
        planted += [("content", " ".join(map(str, place))) for place in chosen]
        self.mutants = [Mutant(self.name, k, kind, where) for k, (kind, where) in enumerate(planted, 1)]

    def _yosys(self, name: str, commands: Sequence[str], makes: str) -> None:
        (self.work / f"{name}.ys").write_text("\n".join(commands) + "\n")
        (fault,) = run_all([yosys_job(f"{name}.ys", f"{name}.log", makes)], self.work)
        if fault is not None:
            raise fault

    def together(self, mutants: Sequence[Mutant]) -> Path:
        """One simulation of all of them: a compiled file for :meth:`run`."""
        name = f"mutants_{mutants[0].number}"
        commands = ["read_rtlil prepared.il"]
        for mutant in mutants:
            if mutant.kind != "content":
                commands.append(f"mutate -ctrl mutsel {_BITS} {mutant.number} -mode {mutant.kind} {mutant.where}")
        # Mutants of contents only leave nothing that would bring the number in.
        commands += [f"delete -port {self.name}/w:mutsel", f"write_verilog -noattr {name}.v"]
        self._yosys(name, commands, f"{name}.v")
        text = (self.work / f"{name}.v").read_text()
        awake = f"reg [{_BITS - 1}:0] mutsel;\n  initial if (!$value$plusargs(\"mutsel=%d\", mutsel)) mutsel = 0;"
        before, top, after = text.partition(f"\nmodule {self.name}(")
        after = after.replace(f"wire [{_BITS - 1}:0] mutsel;", awake, 1)
        text = before + top + after
        for mutant in mutants:
            if mutant.kind == "content":
                flip = f" ^ ($test$plusargs(\"mutsel={mutant.number:0{_BITS}d}\") ? {{0}} : 0)"
                text = flipped(text, mutant.where, flip)
        (self.work / f"{name}.v").write_text(text)
        return self._compiled(name)

    def alone(self, mutant: Mutant) -> str:
        """The Verilog of one mutant, by itself."""
        name = f"mutant_{mutant.number}"
        if mutant.kind == "content":
            text = flipped((self.work / "prepared.v").read_text(), mutant.where, " ^ {0}")
            (self.work / f"{name}.v").write_text(text)
        else:
            commands = ["read_rtlil prepared.il", f"mutate -mode {mutant.kind} {mutant.where}"]
            self._yosys(name, [*commands, f"write_verilog -noattr {name}.v"], f"{name}.v")
        return name

    def _compiled(self, name: str) -> Path:
        files = [f"{self.name}_tb.v", f"{name}.v"]
        command = ["iverilog", "-g2005", "-s", f"{self.name}_tb", "-o", f"{name}.vvp", *files]
        subprocess.run(command, cwd=self.work, check=True, capture_output=True, stdin=subprocess.DEVNULL)
        return self.work / f"{name}.vvp"

    def run(self, compiled: Path, number: int = 0) -> Verdict:
        """The bench on the mutant of that number; 0 is the design as it is."""
        command = ["vvp", "-n", compiled.name, f"+mutsel={number:0{_BITS}d}"]
        try:
            done = subprocess.run(
                command, cwd=self.work, capture_output=True, text=True, timeout=LIMIT, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            return Verdict("time-out", f"no verdict within {LIMIT} s")
        return judged(done.stdout)


def constants(text: str) -> Iterator[tuple[str, str, int]]:
    """Module, word and bit of all contents that memories keep, in Verilog that Yosys wrote."""
    for module in re.finditer(r"^module (\S+)\(.*?^endmodule", text, re.MULTILINE | re.DOTALL):
        for word in re.finditer(r"^    ((\w+)\[\d+\]) = (\d+)'h[0-9a-f]+;$", module[0], re.MULTILINE):
            if not re.search(rf"^ +{word[2]}\[.*\] <= ", module[0], re.MULTILINE):
                for bit in range(int(word[3])):
                    yield module[1], word[1], bit


def flipped(text: str, where: str, flip: str) -> str:
    """The text with ``flip``, a mask in its hole, behind a memory's word."""
    module, word, bit = where.split()
    begin = text.index(f"module {module}(")
    end = text.index("endmodule", begin)
    pattern = rf"^    {re.escape(word)} = (\d+)'h[0-9a-f]+(?=.*;$)"
    result, count = re.subn(
        pattern, lambda hit: hit[0] + flip.format(f"{hit[1]}'h{1 << int(bit):x}"), text[begin:end], flags=re.MULTILINE
    )
    if count != 1:
        raise ValueError(f"{word} must stand once in {module}, not {count} times")
    return text[:begin] + result + text[end:]


def judged(output: str) -> Verdict:
    """The verdict in what a bench printed."""
    lines = [line for line in output.splitlines() if line.startswith(("PASS", "FAIL"))]
    if len(lines) != 1:
        return Verdict("time-out", f"{len(lines)} verdicts")
    said = lines[0]
    if said.startswith("PASS"):
        return Verdict("PASS", said)
    ways = {
        "time-out": "no transfer for too long",
        "wrong value": "output element \\d+ is|tid is wrong",
        "cycles": "takes \\d+ cycles",
        "handshake": "",
    }
    return Verdict(next(how for how, words in ways.items() if re.search(words, said)), said)
