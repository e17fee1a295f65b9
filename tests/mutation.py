"""Faults planted in emitted Verilog, and what the generated test bench, run alone in Icarus, says of each.

Yosys' ``mutate`` plants them: many in one netlist, each awake under a number of its own that the simulation is given,
so that one compilation serves hundreds. Bits of what memories hold for ever, which that pass does not reach, are
flipped in the netlist's text in the same way. What the bench lets through goes to the equivalence checker.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from networks import network_of

from hwrnn.rtl import generate
from hwrnn.rtl.tools import run_all, yosys_job

#: Networks that are mutated, and how they are generated: small, so that the bench takes a fraction of a second.
DESIGNS = {
    "lstm": (dict(cell="lstm", inputs=2, units=3, outputs=None, every_step=True, bits=4), dict(lanes=4)),
    "gru": (dict(cell="gru", inputs=2, units=3, outputs=2, bits=4), dict(lanes=3)),
    "argmax": (dict(cell="rnn", inputs=2, units=3, outputs=3, bits=4), dict(lanes=3, argmax=True)),
    "channels": (dict(cell="ligru", inputs=2, units=2, outputs=2, bits=4), dict(lanes=2, channels=2)),
}
#: How a mutant ends.
ENDS = ("wrong value", "handshake", "cycles", "time-out", "trace", "equal", "undecided", "different")
KILLED = ENDS[:5]
#: Cycles of their benches' traces.
TRACE = 20_000
#: Seconds after which a simulation is ended; the longest of the designs takes one.
LIMIT = 60
_TOGETHER = 12  # survivors that one process makes ready for their proofs
_DIGITS = 5  # of the number that awakes a mutant, which has 16 bits
#: Pins of a memory that Verilog has no words for: a read that is always on has no enable.
_UNSAID = re.compile(r" -port RD_(EN|CLK|ARST|SRST) ")
#: From a netlist to what the checker reads. What starts without a value starts at 0, in the mutant as in the design.
_FLAT = """hierarchy -check -top {top}
proc -norom
flatten
setundef -init -zero
opt_clean
memory -nomap
memory_map
opt -fast
setundef -init -zero
setundef -zero
opt_clean
write_rtlil {name}.il
"""
#: From a netlist in which a wire ``excited`` tells of the fault to what ABC reads.
_EXCITED = """read_json excited_{number}.json
hierarchy -check -top {top}
flatten
delete -output {top}/o:*
expose {top}/w:*excited
opt_clean
memory -nomap
memory_map
opt -fast
setundef -init -zero
setundef -undriven -zero
setundef -zero
techmap
opt -fast
dffunmap
simplemap
setundef -zero
aigmap
opt_clean
write_aiger -zinit excited_{number}/product.aig
design -reset
"""


@dataclass(frozen=True)
class Mutant:
    """One fault.

    Attributes:
        design: its network's name.
        number: among those of the design, from 1.
        kind: ``inv``, ``const0``, ``const1``, ``cnot0``, ``cnot1`` of Yosys' ``mutate``, or ``content``.
        where: the arguments of ``mutate``; or of a memory the module, the word and the bit.
    """

    design: str
    number: int
    kind: str
    where: str

    def __str__(self) -> str:
        return f"{self.design} {self.number}: {self.kind} {self.where}"


@dataclass(frozen=True)
class Result:
    """What became of a mutant.

    Attributes:
        end: one of ``ENDS``, or ``PASS`` as long as nobody has looked at what the bench let through.
        said: the bench's verdict, or what decided.
    """

    mutant: Mutant
    end: str
    said: str


def generated(name: str, folder: Path, trace: int = TRACE) -> Path:
    """A design's folder as ``generate`` writes it."""
    model, options = DESIGNS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generate(network_of(**model)[0], folder, name=name, trace=trace, **options)
    return folder


class Mutated:
    """A generated network and mutants of it.

    Args:
        source: the folder that ``generate`` wrote.
        work: a folder for what is made.
        count: mutants of the netlist.
        contents: flipped bits of what memories hold.
    """

    def __init__(self, source: Path, work: Path, count: int, contents: int, seed: int) -> None:
        self.work = work
        work.mkdir(parents=True, exist_ok=True)
        for file in source.iterdir():
            if file.suffix in (".v", ".hex"):
                shutil.copy(file, work)
        (bench,) = work.glob("*_tb.v")
        self.name = bench.stem.removesuffix("_tb")
        # What a tool would remove at first sight, such as a carry that nobody reads, is not worth a fault.
        tidied = ["proc", "memory_collect", "opt -full", "wreduce", "opt_clean -purge"]
        self._yosys(
            "prepare",
            [
                f"read_verilog {self.name}.v", f"hierarchy -check -top {self.name}", *tidied, "write_rtlil prepared.il",
                "write_json prepared.json", "write_verilog -noattr prepared.v",
                f"mutate -list {count + count // 4 + 4} -seed {seed} -o list.txt",
            ],
            "list.txt",
        )  # fmt: skip
        # Of a register some bits of which are constant, Yosys takes their missing initial values for a contradiction.
        text = (work / "prepared.il").read_text()
        text = re.sub(r"(?<=attribute \\init )\d+'[01x]*[01][01x]*", lambda hit: hit[0].replace("x", "0"), text)
        (work / "begun.il").write_text(text)
        lines = (work / "list.txt").read_text().splitlines()
        found = [re.fullmatch(r"mutate -mode (\w+) (.*?)(?: -wire .*| -src .*)?", line) for line in lines]
        planted = [(hit[1], hit[2]) for hit in found if hit is not None and not _UNSAID.search(f"{hit[2]} ")][:count]
        if len(planted) != count:
            raise ValueError(f"Yosys made {len(planted)} mutants of {self.name}, not {count}")
        places = list(constants((work / "prepared.v").read_text()))
        chosen = random.Random(seed).sample(places, min(contents, len(places)))
        planted += [("content", " ".join(map(str, place))) for place in chosen]
        self.mutants = [Mutant(self.name, k, kind, where) for k, (kind, where) in enumerate(planted, 1)]

    def _yosys(self, name: str, commands: Iterable[str], makes: str) -> None:
        (self.work / f"{name}.ys").write_text("\n".join(commands) + "\n")
        (fault,) = run_all([yosys_job(f"{name}.ys", f"{name}.log", makes)], self.work)
        if fault is not None:
            raise fault

    def together(self, mutants: Sequence[Mutant]) -> str:
        """One simulation of all of them for :meth:`run`."""
        name = f"mutants_{mutants[0].number}"
        commands = ["read_rtlil prepared.il"]
        for mutant in mutants:
            if mutant.kind != "content":
                commands.append(f"mutate -ctrl mutsel 16 {mutant.number} -mode {mutant.kind} {mutant.where}")
        ports = f"delete -port {self.name}/w:mutsel"  # the bench knows nothing of it
        self._yosys(name, [*commands, ports, f"write_verilog -noattr {name}.v"], f"{name}.v")
        before, top, after = (self.work / f"{name}.v").read_text().partition(f"\nmodule {self.name}(")
        awake = '  reg [15:0] mutsel;\n  initial if (!$value$plusargs("mutsel=%d", mutsel)) mutsel = 0;\n'
        text = before + top + after.replace("  wire [15:0] mutsel;\n", awake, 1)
        for mutant in mutants:
            if mutant.kind == "content":
                mask = f' ^ ($test$plusargs("mutsel={mutant.number:0{_DIGITS}d}") ? {{0}} : 0)'
                text = flipped(text, mutant.where, mask)
        (self.work / f"{name}.v").write_text(text)
        return self.compiled(name)

    def alone(self, mutant: Mutant) -> str:
        """One mutant's Verilog by itself: its file's name without the ending."""
        name = f"mutant_{mutant.number}"
        if mutant.kind == "content":
            text = flipped((self.work / "prepared.v").read_text(), mutant.where, " ^ {0}")
            (self.work / f"{name}.v").write_text(text)
        else:
            commands = ["read_rtlil prepared.il", f"mutate -mode {mutant.kind} {mutant.where}"]
            self._yosys(name, [*commands, f"write_verilog -noattr {name}.v"], f"{name}.v")
        return name

    def compiled(self, name: str) -> str:
        """The bench with the Verilog of that name."""
        files = [f"{self.name}_tb.v", f"{name}.v"]
        command = ["iverilog", "-g2005", "-s", f"{self.name}_tb", "-o", f"{name}.vvp", *files]
        subprocess.run(command, cwd=self.work, check=True, capture_output=True, stdin=subprocess.DEVNULL)
        return f"{name}.vvp"

    def run(self, compiled: str, number: int = 0) -> tuple[str, str]:
        """The bench on the mutant of that number, 0 being the design as it is: how that ends, and what it said."""
        command = ["vvp", "-n", compiled, f"+mutsel={number:0{_DIGITS}d}"]
        try:
            done = subprocess.run(
                command, cwd=self.work, capture_output=True, text=True, timeout=LIMIT, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired:
            return "time-out", f"no verdict within {LIMIT} s"
        return judged(done.stdout)

    def results(
        self, mutants: Sequence[Mutant], seconds: float, tell: Callable[[Result], object] = lambda result: None
    ) -> list[Result]:
        """Run mutants, and decide on those that the bench lets through.

        Args:
            seconds: that the checker may take for each.
            tell: is called with each result, and with that of the bench alone before a proof is tried.

        Raises:
            AssertionError: the bench fails the netlist with all faults asleep.
        """
        found = list(self.simulated(mutants, tell))
        survivors = [result.mutant for result in found if result.end == "PASS"]
        decided = {}
        for k in range(0, len(survivors), _TOGETHER):
            decided |= {r.mutant: r for r in self.decided(survivors[k : k + _TOGETHER], seconds, tell)}
        return [decided.get(result.mutant, result) for result in found]

    def simulated(
        self, mutants: Sequence[Mutant], tell: Callable[[Result], object] = lambda result: None
    ) -> Iterator[Result]:
        """What the bench says of each; ``PASS`` of those that it lets through."""
        compiled = self.together(mutants)
        end, said = self.run(compiled)
        assert end == "PASS", f"{self.name} must pass without a fault: {said}"
        for mutant in mutants:
            result = Result(mutant, *self.run(compiled, mutant.number))
            tell(result)
            yield result

    def decided(
        self, mutants: Sequence[Mutant], seconds: float, tell: Callable[[Result], object] = lambda result: None
    ) -> Iterator[Result]:
        """What the checker says of mutants: it compares their ports with the design's, in every cycle."""
        from equivalence import Undecidable, equivalent  # needs pyosys

        dormant = self.dormant(mutants, seconds / 4)
        begun = (self.work / "begun.il").read_text()
        script = ["read_rtlil begun.il", _FLAT.format(top=self.name, name="flat")]
        for mutant in mutants:
            source = [f"mutate -mode {mutant.kind} {mutant.where}"]
            read = ["read_rtlil begun.il", *source]
            if mutant.kind == "content":
                (self.work / f"mutant_{mutant.number}.il").write_text(flipped_memory(begun, mutant.where))
                read = [f"read_rtlil mutant_{mutant.number}.il"]
            script += ["design -reset", *read, _FLAT.format(top=self.name, name=f"flat_{mutant.number}")]
        self._yosys("flat", script, f"flat_{mutants[-1].number}.il")
        gold = (self.work / "flat.il").read_text()
        for mutant in mutants:
            if mutant in dormant:
                tell(Result(mutant, "equal", "never excited"))
                yield Result(mutant, "equal", "never excited")
                continue
            if self.parted(mutant, seconds / 4):
                tell(Result(mutant, "equal", "its module"))
                yield Result(mutant, "equal", "its module")
                continue
            gate = (self.work / f"flat_{mutant.number}.il").read_text()
            try:
                verdict = equivalent(gold, gate, self.name, seconds=seconds, resets="any")
                result = Result(mutant, verdict.answer, verdict.method)
            except (Undecidable, AssertionError) as why:
                result = Result(mutant, "undecided", str(why))
            tell(result)
            yield result

    def parted(self, mutant: Mutant, seconds: float) -> bool:
        """Whether its module, or one around that, is proved to do the same with the fault, whatever its inputs are.

        A proof about a part holds for the whole, and its control is small.
        """
        from equivalence import Undecidable, equivalent  # needs pyosys

        given = re.findall(r"-module (\S+)", mutant.where) or mutant.where.split()[:1]
        parents = {
            cell["type"]: name
            for name, module in json.loads((self.work / "prepared.json").read_text())["modules"].items()
            for cell in module["cells"].values()
        }
        chain = [given[0]]
        while chain[-1] in parents:
            chain.append(parents[chain[-1]])
        for top in chain[:-2][:3]:
            names = [f"part_{mutant.number}_gold", f"part_{mutant.number}_gate"]
            source = f"read_rtlil mutant_{mutant.number}.il"
            faulty = [source] if mutant.kind == "content" else [
                "read_rtlil begun.il", f"mutate -mode {mutant.kind} {mutant.where}"
            ]  # fmt: skip
            script = ["read_rtlil begun.il", _FLAT.format(top=top, name=names[0]), "design -reset", *faulty]
            self._yosys("part", [*script, _FLAT.format(top=top, name=names[1])], f"{names[1]}.il")
            gold, gate = ((self.work / f"{name}.il").read_text() for name in names)
            try:
                verdict = equivalent(gold, gate, top, seconds=seconds, payload="always", resets="free")
            except (Undecidable, AssertionError):
                continue
            if verdict.answer == "equal":
                return True
        return False

    def dormant(self, mutants: Sequence[Mutant], seconds: float) -> set[Mutant]:
        """Those that are proved never to change the bit that they stand at, whatever the inputs are.

        That is a property of the design alone, and mostly of its control.
        """
        from equivalence import decide  # needs pyosys

        netlist = (self.work / "prepared.json").read_text()
        asked = []
        for mutant in mutants:
            text = excited(netlist, mutant)
            if text is not None:
                (self.work / f"excited_{mutant.number}.json").write_text(text)
                (self.work / f"excited_{mutant.number}").mkdir(exist_ok=True)
                asked.append(mutant)
        if not asked:
            return set()
        script = [_EXCITED.format(number=mutant.number, top=self.name) for mutant in asked]
        self._yosys("excited", script, f"excited_{asked[-1].number}/product.aig")
        return {m for m in asked if decide(self.work / f"excited_{m.number}", seconds)[0] == "equal"}


def excited(netlist: str, mutant: Mutant) -> str | None:
    """The netlist (JSON of Yosys) with a wire ``excited`` that is 1 while a fault changes its bit; None: always."""
    given = dict(re.findall(r"-(\w+) (\S+)", mutant.where))
    if mutant.kind not in ("const0", "const1", "cnot0", "cnot1"):
        return None
    design = json.loads(netlist)
    module = design["modules"][given["module"]]
    bits = module["cells"][given["cell"]]["connections"][given["port"]]
    bit = bits[int(given["ctrlbit" if mutant.kind.startswith("cnot") else "portbit"])]
    fresh = 1 + max(b for net in module["netnames"].values() for b in net["bits"] if isinstance(b, int))
    module["netnames"]["excited"] = {"hide_name": 0, "bits": [fresh], "attributes": {"keep": "1"}}
    module["cells"]["excited_gate"] = {
        "hide_name": 0,
        "type": "$_BUF_" if mutant.kind in ("const0", "cnot1") else "$_NOT_",
        "parameters": {},
        "attributes": {},
        "port_directions": {"A": "input", "Y": "output"},
        "connections": {"A": [bit], "Y": [fresh]},
    }
    return json.dumps(design)


def constants(text: str) -> Iterator[tuple[str, str, int]]:
    """Module, word and bit of all that memories hold for ever, in Verilog that Yosys wrote."""
    for module in re.finditer(r"^module (\S+)\(.*?^endmodule", text, re.MULTILINE | re.DOTALL):
        for word in re.finditer(r"^    ((\w+)\[\d+\]) = (\d+)'h[0-9a-f]+;$", module[0], re.MULTILINE):
            if not re.search(rf"^ +{word[2]}\[.*\] <= ", module[0], re.MULTILINE):
                for bit in range(int(word[3])):
                    yield module[1], word[1], bit


def flipped(text: str, where: str, flip: str) -> str:
    """The text with ``flip``, which has a hole for a mask, behind a memory's word."""
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


def flipped_memory(text: str, where: str) -> str:
    """The same of a netlist in RTLIL, so that all names stay: a proof goes by them."""
    module, word, bit = where.split()
    name, _, address = word.rstrip("]").partition("[")
    begin = text.index(f"\nmodule \\{module}\n")
    begin = text.index(f'parameter \\MEMID "\\\\{name}"\n', begin, text.index("\nend\n", begin))
    cell = text[begin : text.index("\n  end\n", begin)]
    width = int(re.search(r"parameter \\WIDTH (\d+)", cell)[1])
    hit = re.search(r"parameter \\INIT \d+'([01x]+)", cell)
    at = begin + hit.end() - 1 - (int(address) * width + int(bit))
    return text[:at] + "10"[int(text[at])] + text[at + 1 :]


#: How a mutant was killed, by the words of the bench.
WAYS = {
    "no transfer for too long": "time-out",
    r"output element \d+ is|m_axis_tid is wrong": "wrong value",
    r"takes? \d+ cycles": "cycles",
    "of trace.hex": "trace",
    "": "handshake",
}


def judged(output: str) -> tuple[str, str]:
    """How a run of the bench ended, by what it printed."""
    lines = [line for line in output.splitlines() if line.startswith(("PASS", "FAIL"))]
    if len(lines) != 1:
        return "time-out", f"{len(lines)} verdicts"
    if lines[0].startswith("PASS"):
        return "PASS", lines[0]
    return next(how for words, how in WAYS.items() if re.search(words, lines[0])), lines[0]


