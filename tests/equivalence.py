"""Whether two designs with the same ports do the same for ever, decided by Yosys and ABC.

Both stand in one product machine that starts as the designs do, with a reset of one cycle. Its inputs obey the rule of
streams by construction: what is offered stays until it is taken. A difference of their outputs raises ``bad``; where a
stream's ``valid`` is 0, its payload may differ. ABC then simulates, merges what corresponds by induction over signals
(van Eijk, IEEE Trans. CAD 19 (2000) 814-819), unrolls, and searches an inductive invariant (N. Een, A. Mishchenko,
R. Brayton, FMCAD 2011): "equal" holds for runs of any length and for every stream, "different" comes with a run.

What is modelled: registers start with their initial value, and where they have none with any; memories likewise. An
``x`` that an expression makes (a read beyond a memory's end) is 0 in both.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import and_, eq
from pathlib import Path
from typing import Any

import pyosys

from hwrnn.rtl.tools import run_all, yosys_job

__all__ = ["Undecidable", "Verdict", "equivalent"]

ABC = Path(pyosys.__file__).parent / "yosys-abc"

CLOCKS = ("aclk", "clk")
RESETS = {"aresetn": 0, "rst": 1, "reset": 1}  # by name: the level that resets

#: From one design to a flat one of small registers, gates and nothing else.
READ = """
{reader} {name}.text
hierarchy -check -top {top}
setattr -mod -unset keep_hierarchy
proc -norom
flatten
opt_clean
memory -nomap
memory_map
opt -fast
async2sync
dffunmap
opt_clean
rename {top} {name}
write_json {name}.json
"""

PRODUCT = """
read_json gold.json
read_json gate.json
read_verilog product.v
hierarchy -check -top product
proc
flatten
opt -full
setundef -undriven -zero
setundef -zero
write_verilog -noattr flat.v
techmap
opt -fast
dffunmap
simplemap
setundef -zero
opt_clean
aigmap
opt_clean
write_aiger -zinit -symbols product.aig
"""


#: In order: a name, ABC's command, and the share of the time that it may take.
METHODS = (
    ("simulation", "sim3 -F 1000 -W 8 -R 1 -T {seconds}", 0.1),
    ("correspondence", "scorr; dc2; scorr -F 2", 0.5),
    ("unrolling", "bmc3 -T {seconds}", 0.25),
    ("invariant", "pdr -T {seconds}", 1),
)
REDUCING = ("correspondence",)

#: A port of a stream that says no for long: random inputs alone fill no queue. Any sequence is still possible.
REST = (
    "  reg resting_{name} = 1'b0;",
    "  always @(posedge {clock}) resting_{name} <= resting_{name} ? |rest_{name} : ~|rest_{name}[4:0];",
)


class Undecidable(Exception):
    """What this module doesn't model: other ports, latches, loops."""


@dataclass(frozen=True)
class Port:
    """A port of the top."""

    name: str
    input: bool
    bits: int


@dataclass(frozen=True)
class Verdict:
    """What was found.

    Attributes:
        answer: ``equal``, ``different`` or ``undecided``.
        method: what decided, of ``METHODS``; what was tried last where undecided.
        seconds: that it took.
        trace: of a difference, the ports' values in binary, cycle by cycle from the reset to the difference: inputs by
            name, outputs as ``gold_NAME`` and ``gate_NAME``. Icarus has run it.
    """

    answer: str
    method: str
    seconds: float
    trace: tuple[Mapping[str, str], ...] = ()

    @property
    def differing(self) -> list[str]:
        """The outputs that differ at the end of the trace."""
        last = self.trace[-1] if self.trace else {}
        golds = [name.removeprefix("gold_") for name in last if name.startswith("gold_")]
        return [name for name in golds if last[f"gold_{name}"] != last[f"gate_{name}"]]


def equivalent(
    gold: str, gate: str, top: str, *, seconds: float = 60, payload: str = "valid", resets: str = "start"
) -> Verdict:
    """Whether ``gate`` shows what ``gold`` shows, at every cycle behind the reset and for all inputs.

    Args:
        gold: Verilog or RTLIL with a module ``top``.
        gate: likewise, with the same ports.
        seconds: that the search may take, reading not counted.
        payload: ``valid`` compares the payload of a stream (``P_tvalid``, ``P_tready`` and all ``P_t*``, or
            ``P__valid`` and so on; without a ready ``NAME_valid`` and ``NAME``) where its valid is 1; ``always`` at
            every cycle.
        resets: ``start`` resets in the first cycle and never again; ``any`` in the first and in any other one; ``free``
            leaves all inputs to themselves, the reset among them, compares all outputs in every cycle and begins with
            the initial values: that is for a part of a design, whatever stands around it.

    Raises:
        Undecidable: different ports, or something that this module does not model.
    """
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (ports, starts), (others, starts_too) = (
            read(text, top, side, folder) for side, text in (("gold", gold), ("gate", gate))
        )
        if ports != others:
            raise Undecidable(f"ports must be the same, not {ports} and {others}")
        (folder / "product.v").write_text(product(list(ports.values()), (starts, starts_too), payload, resets))
        yosys("product", PRODUCT, folder)
        answer, method = decide(folder, seconds)
        trace: list[dict[str, str]] = []
        if answer == "different":
            trace = replay(folder, list(ports.values()))
            if trace[-1]["bad"] != "1":
                raise AssertionError("a run that ABC found shows no difference in Icarus: a fault of this checker")
        return Verdict(answer, method, time.monotonic() - start, tuple(trace))


def yosys(name: str, script: str, folder: Path) -> None:
    """Run a script; it ends with the file that it writes last."""
    (folder / f"{name}.ys").write_text(script)
    made = script.split()[-1]
    fault = run_all([yosys_job(f"{name}.ys", f"{name}.log", made)], folder)[0]
    if fault is not None:
        raise Undecidable(f"Yosys: {fault}")


def read(text: str, top: str, name: str, folder: Path) -> tuple[dict[str, Port], dict[str, set[str]]]:
    """Flatten one design into ``name.json``; its ports by name, and ports for what registers without a value hold."""
    (folder / f"{name}.text").write_text(text)
    reader = "read_rtlil" if re.search(r"^(attribute|autoidx|module \\)", text, re.MULTILINE) else "read_verilog"
    yosys(name, READ.format(reader=reader, name=name, top=top), folder)
    file = folder / f"{name}.json"
    netlist = json.loads(file.read_text())
    module = netlist["modules"][name]
    check(module)
    ports = {
        port: Port(port, said["direction"] == "input", len(said["bits"])) for port, said in module["ports"].items()
    }
    starts = begin(module)
    file.write_text(json.dumps(netlist))
    return ports, starts


def begin(module: dict[str, Any]) -> dict[str, set[str]]:
    """Give registers without initial value one from ports ``begin_N``, as long as a new port ``begun`` is 0.

    The result tells by port what a register's bit is called.
    """
    nets, cells, ports = module["netnames"], module["cells"], module["ports"]
    first: dict[int, str] = {}
    names: dict[int, set[str]] = {}
    for name, net in nets.items():
        values = net["attributes"].get("init", "")[::-1].ljust(len(net["bits"]), "x")
        plain = re.sub(r"[^A-Za-z0-9]+", "_", re.sub(r"\$\d+$", "", name))
        for k, (bit, value) in enumerate(zip(net["bits"], values, strict=False)):
            if value in "01":
                first[bit] = value
            names.setdefault(bit, set()).add(f"{plain}[{k}]")
    used = [b for net in nets.values() for b in net["bits"] if isinstance(b, int)]
    fresh = iter(range(max(used, default=1) + 1, 1 << 62))
    begun = next(fresh)
    ports["begun"] = {"direction": "input", "bits": [begun]}
    starts: dict[str, set[str]] = {}
    for name, cell in list(cells.items()):
        if not cell["type"].startswith(("$dff", "$sdff", "$_DFF", "$_SDFF")):
            continue
        bits = cell["connections"]["Q"]
        unknown = [bit for bit in bits if bit not in first]
        if not unknown:
            continue
        inner = [next(fresh) for _ in bits]
        values = [first.get(bit) or next(fresh) for bit in bits]
        cell["connections"]["Q"] = inner
        nets[f"{name}_inner"] = {"hide_name": 1, "bits": inner, "attributes": {"init": "0" * len(bits)}}
        for bit in unknown:
            port = f"begin_{len(starts)}"
            starts[port] = names[bit]
            ports[port] = {"direction": "input", "bits": [values[bits.index(bit)]]}
        cells[f"{name}_begin"] = {
            "type": "$mux",
            "parameters": {"WIDTH": f"{len(bits):032b}"},
            "attributes": {},
            "port_directions": {"A": "input", "B": "input", "S": "input", "Y": "output"},
            "connections": {"A": values, "B": inner, "S": [begun], "Y": bits},
        }
    return starts


def matched(gold: Mapping[str, set[str]], gate: Mapping[str, set[str]]) -> dict[str, str]:
    """The register of ``gold`` that holds at first what one of ``gate`` does: by any name that both have, or similar.

    Each is taken once, and those without stay free. So whatever the registers of ``gate`` hold, there is a start of
    ``gold`` that the proof compares with, however they are matched.
    """
    by_name = {name: port for port, names in gold.items() for name in names}
    found: dict[str, str] = {}
    for port, names in gate.items():
        partners = (by_name[name] for name in sorted(names) if name in by_name)
        partner = next((p for p in partners if p not in found.values()), None)
        if partner is not None:
            found[port] = partner
    # What is read from a memory has no name of its own: then the same bits under a name that begins alike.
    left = grouped({port: names for port, names in gold.items() if port not in found.values()})
    for name, bits in grouped({port: names for port, names in gate.items() if port not in found}).items():
        alike = [other for other in left if left[other].keys() == bits.keys()]
        if alike:
            other = left.pop(max(alike, key=lambda other: sum(accumulate(map(eq, name, other), and_))))
            found |= {port: other[bit] for bit, port in bits.items()}
    return found


def grouped(starts: Mapping[str, set[str]]) -> dict[str, dict[str, str]]:
    """By a register's name the ports of its bits."""
    found: dict[str, dict[str, str]] = {}
    for port, names in starts.items():
        name, bit = min(names).split("[")
        found.setdefault(name, {})[bit] = port
    return found


def check(module: Mapping[str, Any]) -> None:
    """Refuse what the product can't hold: a register that another clock or edge moves, or a latch."""
    clock = next((said["bits"][0] for port, said in module["ports"].items() if port in CLOCKS), None)
    for name, cell in module["cells"].items():
        kind, wired = cell["type"], cell["connections"]
        coarse, fine = (
            re.fullmatch(r"\$s?dff(e|ce)?", kind),
            re.fullmatch(r"\$_S?DFF(?:C?E)?_([PN])[PN]?[01]?[PN]?_", kind),
        )
        if coarse:
            moved, rising = wired["CLK"], int(cell["parameters"]["CLK_POLARITY"], 2) == 1
        elif fine:
            moved, rising = wired["C"], fine[1] == "P"
        elif re.search(r"ff|FF|latch|LATCH|\$sr|\$_SR|\$mem|clock|init", kind):
            raise Undecidable(f"cell {name} is a {kind}")
        else:
            continue
        if moved != [clock] or not rising:
            raise Undecidable(f"register {name} has a clock of its own")


def streams(ports: Sequence[Port]) -> dict[str, tuple[str, list[str]]]:
    """By the name of each ``valid``: its ready (or nothing) and its payload."""
    names, found = {port.name: port for port in ports}, {}
    for port in ports:
        prefix = re.fullmatch(r"(.+?(?:__|_t|_))valid", port.name)
        if prefix is None or port.bits != 1:
            continue
        ready, stem = prefix[1] + "ready", prefix[1].removesuffix("_")
        if ready in names and names[ready].input != port.input:
            rest = [n for n in names if n.startswith(prefix[1]) and n not in (port.name, ready)]
            found[port.name] = ready, [n for n in rest if names[n].input == port.input]
        elif stem in names and not port.input:
            found[port.name] = "", [stem]
    return found


def product(
    ports: Sequence[Port], starts: tuple[Mapping[str, set[str]], Mapping[str, set[str]]], payload: str, resets: str
) -> str:
    """The product machine's Verilog."""
    if payload not in ("valid", "always") or resets not in ("start", "any", "free"):
        raise ValueError(f"payload and resets must be known ones, not {payload!r} and {resets!r}")
    clock = next((p.name for p in ports if p.name in CLOCKS), "")
    reset = next((p.name for p in ports if p.name in RESETS), "") if resets != "free" else ""
    flows = streams(ports) if resets != "free" else {}
    offered = {
        valid: flow for valid, flow in flows.items() if flow[0] and next(p for p in ports if p.name == valid).input
    }
    free, body = [], []
    calm = "running" if reset else "1'b1"  # no stream moves under reset
    if clock:
        body += ["  reg begun = 1'b0;", f"  always @(posedge {clock}) begun <= 1'b1;"]
    for port in ports:
        span = f"[{port.bits - 1}:0]"
        if port.name == clock:
            free.append(f"input {port.name}")
        elif port.name == reset:
            level = RESETS[port.name]
            # Seldom: under random inputs a design has to come somewhere between two resets.
            free += ["input [8:0] reset_again"] if resets == "any" else []
            more = " & |reset_again" if resets == "any" else ""
            body.append(f"  wire running = begun{more};")
            body.append(f"  (* keep *) wire {port.name} = {'running' if level == 0 else '~running'};")
        elif port.input:
            free.append(f"input {span} free_{port.name}")
            if port.name in flows or port.name in (ready for ready, _ in flows.values()):
                free.append(f"input [5:0] rest_{port.name}")
                body += [line.format(name=port.name, clock=clock) for line in REST]
            if not any(port.name in (valid, *flow[1]) for valid, flow in offered.items()):
                rests = f" & ~resting_{port.name}" if f"input [5:0] rest_{port.name}" in free else ""
                body.append(f"  (* keep *) wire {span} {port.name} = free_{port.name}{rests};")
        else:
            body.append(f"  (* keep *) wire {span} gold_{port.name}, gate_{port.name};")
    for valid, (ready, carried) in offered.items():
        body.append(f"  reg kept_{valid} = 1'b0;")
        body.append(f"  (* keep *) wire {valid} = {calm} & (kept_{valid} | free_{valid} & ~resting_{valid});")
        body.append(f"  always @(posedge {clock}) kept_{valid} <= {valid} & ~gold_{ready};")
        for name in carried:
            bits = next(p.bits for p in ports if p.name == name)
            body.append(f"  reg [{bits - 1}:0] kept_{name} = 0;")
            body.append(f"  (* keep *) wire [{bits - 1}:0] {name} = kept_{valid} ? kept_{name} : free_{name};")
            body.append(f"  always @(posedge {clock}) kept_{name} <= {name};")
    guard = {} if payload == "always" else {name: valid for valid, (_, carried) in flows.items() for name in carried}
    terms = []
    for port in ports:
        if not port.input:
            differ = f"gold_{port.name} != gate_{port.name}"
            when = f"gold_{guard[port.name]} & " if port.name in guard else ""
            terms.append(f"({when}({differ}))")
    same = matched(*starts)
    free += [f"input gold_{name}" for name in starts[0]]
    free += [f"input gate_{name}" for name in starts[1] if name not in same]
    for side, names in zip(("gold", "gate"), starts, strict=True):
        wired = ", ".join(f".{p.name}({p.name if p.input else f'{side}_{p.name}'})" for p in ports)
        wired += ", .begun(begun)"
        for name in names:
            tied = f"gold_{same[name]}" if side == "gate" and name in same else f"{side}_{name}"
            wired += f", .{name}({tied})"
        body.append(f"  {side} {side} ({wired});")
    body.append(f"  assign bad = {calm} & ({' | '.join(terms)});")
    return "\n".join([f"module product ({', '.join([*free, 'output bad'])});", *body, "endmodule", ""])


def decide(folder: Path, seconds: float) -> tuple[str, str]:
    """ABC on the product: the answer, and what found it; of a difference it leaves the run in ``run.txt``."""
    end = time.monotonic() + seconds
    current, method = "product.aig", "nothing"
    for method, command, share in METHODS:
        left = end - time.monotonic()
        if left <= 0:
            break
        most = max(1, round(min(left, seconds * share)))
        ending = "write_aiger next.aig" if method in REDUCING else "write_cex -s -n run.txt"
        said = abc(f"read_aiger {current}; strash; {command.format(seconds=most)}; {ending}", folder, most + 5)
        if "was asserted in frame" in said:
            return "different", method
        if "Property proved" in said:
            return "equal", method
        if method in REDUCING and (folder / "next.aig").exists():
            current = f"{method}.aig"
            (folder / "next.aig").rename(folder / current)
            if constant(folder / current):
                return "equal", method
    return "undecided", method


def constant(aig: Path) -> bool:
    """Whether nothing is left but an output that is 0."""
    head, rest = aig.read_bytes().split(b"\n", 1)
    latches, ands = (int(head.split()[k]) for k in (3, 5))
    return latches == ands == 0 and rest.split(b"\n", 1)[0] == b"0"


def abc(script: str, folder: Path, seconds: float) -> str:
    """What ABC writes, and nothing where it takes too long."""
    command = [str(ABC), "-q", script]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return ""
    with (folder / "abc.log").open("a") as log:
        log.write(f"{script}\n{done.stdout}{done.stderr}")
    return done.stdout


def replay(folder: Path, ports: Sequence[Port]) -> list[dict[str, str]]:
    """Icarus runs what ABC found, before gates were made of it: every port's value in every cycle, in binary.

    Outputs are ``gold_NAME`` and ``gate_NAME``.
    """
    run: dict[int, dict[str, int]] = {}
    for name, bit, cycle, value in re.findall(r"(\S+?)(?:\[(\d+)\])?@(\d+)=([01])", (folder / "run.txt").read_text()):
        values = run.setdefault(int(cycle), {})
        values[name] = values.get(name, 0) | int(value) << int(bit or 0)
    inputs = re.findall(r"input (?:\[(\d+):0\] )?(\w+)", (folder / "product.v").read_text().split(");", 1)[0])
    clock = next((p.name for p in ports if p.name in CLOCKS), "")
    shown = [p.name for p in ports if p.input and p.name != clock]
    shown += [f"{side}_{p.name}" for p in ports if not p.input for side in ("gold", "gate")]
    lines = ["module bench;", *(f"  reg [{high or 0}:0] {name} = 0;" for high, name in inputs), "  wire bad;"]
    lines.append(f"  product product ({', '.join(f'.{name}({name})' for _, name in inputs)}, .bad(bad));")
    lines.append("  initial begin")
    for _, values in sorted(run.items()):
        lines += [f"    {name} = {values.get(name, 0)};" for _, name in inputs if name != clock]
        form = " ".join(f"{name}=%b" for name in shown)
        lines.append(f'    #1 $display("{form} bad=%b", {", ".join(f"product.{name}" for name in shown)}, bad);')
        lines.append(f"    {clock} = 1; #1 {clock} = 0;" if clock else "    #1;")
    (folder / "bench.v").write_text("\n".join([*lines, "  end", "endmodule", ""]))
    for command in (["iverilog", "-g2005", "-o", "bench", "bench.v", "flat.v"], ["vvp", "bench"]):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    return [dict(item.split("=") for item in line.split()) for line in done.stdout.splitlines()]
