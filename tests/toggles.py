"""Toggle coverage of a generated folder: which bits of its Verilog rise and fall while its own bench runs in Icarus."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import equivalence
from vcd.reader import TokenKind, tokenize

DUMP = """module dump;
    initial begin
        $dumpfile("toggles.vcd");
        $dumpvars(0, {top}.{dut});
    end
endmodule
"""


@dataclass(frozen=True)
class Toggles:
    """Bits of all signals of a design, those that no equal name repeats.

    Attributes:
        bits: how many there are.
        both: how many rose and fell.
        missing: the others by signal: (instance.signal, bits, those that did not toggle from the least one).
    """

    bits: int
    both: int
    missing: tuple[tuple[str, int, tuple[int, ...]], ...]


def toggles_of(folder: Path, name: str, work: Path, dut: str = "dut") -> Toggles:
    """Run the bench of a generated folder in Icarus and count.

    Raises:
        AssertionError: a bench that does not pass.
    """
    work.mkdir(parents=True, exist_ok=True)
    (work / "dump.v").write_text(DUMP.format(top=f"{name}_tb", dut=dut))
    sources = [str(folder / f"{name}_tb.v"), str(folder / f"{name}.v"), str(work / "dump.v")]
    tops = ["-s", f"{name}_tb", "-s", "dump"]
    subprocess.run(["iverilog", "-g2005", "-o", str(work / "sim"), *tops, *sources], check=True, cwd=folder)
    done = subprocess.run(
        ["vvp", "-n", str(work / "sim")], check=True, cwd=folder, capture_output=True, text=True, timeout=600
    )
    assert "PASS" in done.stdout, done.stdout
    try:
        return counted(folder / "toggles.vcd")
    finally:
        (folder / "toggles.vcd").unlink()


def counted(dump: Path) -> Toggles:
    """Count the toggles in a value change dump."""
    names: dict[str, str] = {}
    width: dict[str, int] = {}
    last: dict[str, str] = {}
    rose: dict[str, int] = defaultdict(int)
    fell: dict[str, int] = defaultdict(int)
    scopes: list[str] = []
    with dump.open("rb") as file:
        for token in tokenize(file):
            if token.kind is TokenKind.SCOPE:
                scopes.append(token.scope.ident)
            elif token.kind is TokenKind.UPSCOPE:
                scopes.pop()
            elif token.kind is TokenKind.VAR:
                if token.var.type_.value in ("wire", "reg"):
                    names.setdefault(token.var.id_code, ".".join([*scopes[2:], token.var.reference]))
                    width[token.var.id_code] = token.var.size
            elif token.kind is TokenKind.CHANGE_SCALAR:
                _change(token.scalar_change.id_code, str(token.scalar_change.value), width, last, rose, fell)
            elif token.kind is TokenKind.CHANGE_VECTOR:
                value = token.vector_change.value
                code = token.vector_change.id_code
                text = value if isinstance(value, str) else f"{value:b}"
                _change(code, text, width, last, rose, fell)
    bits = both = 0
    missing = []
    for code, name in sorted(names.items(), key=lambda pair: pair[1]):
        size = width[code]
        done = rose[code] & fell[code]
        bits, both = bits + size, both + done.bit_count()
        if done.bit_count() < size:
            missing.append((name, size, tuple(k for k in range(size) if not done >> k & 1)))
    return Toggles(bits, both, tuple(missing))


def _change(
    code: str, text: str, width: dict[str, int], last: dict[str, str], rose: dict[str, int], fell: dict[str, int]
) -> None:
    if code not in width:
        return
    fill = "0" if text[0] in "01" else text[0]
    new, old = text.rjust(width[code], fill), last.get(code)
    last[code] = new
    if old is None or old == new:
        return
    for k, (before, after) in enumerate(zip(reversed(old), reversed(new), strict=True)):
        if (before, after) == ("0", "1"):
            rose[code] |= 1 << k
        elif (before, after) == ("1", "0"):
            fell[code] |= 1 << k


#: From a flat design whose questioned bits are outputs to the reachable states' approximation that van Eijk's induction
#: finds: an output that it leaves as 0 or 1 has that value in every run.
CONSTANTS = """
read_json gold.json
setundef -undriven -zero
setundef -zero
techmap
opt -fast
dffunmap
simplemap
opt_clean
aigmap
opt_clean
write_aiger -zinit -symbols asked.aig
"""


def constant_bits(text: str, top: str, asked: Sequence[tuple[str, int]], seconds: float = 120) -> set[tuple[str, int]]:
    """Those of the bits ``(signal, bit)`` of a design that keep one value in every run, whatever its inputs.

    The others are not decided: some only toggle for inputs that nobody sends.
    """
    with tempfile.TemporaryDirectory(prefix="toggles") as name:
        folder = Path(name)
        equivalence.read(text, top, "gold", folder)
        file = folder / "gold.json"
        netlist = json.loads(file.read_text())
        module = netlist["modules"]["gold"]
        known = set()
        for port in [p for p, said in module["ports"].items() if said["direction"] == "output"]:
            del module["ports"][port]
        for k, (signal, bit) in enumerate(asked):
            wire = module["netnames"].get(signal)
            if wire is None:  # swept: nothing reads it
                continue
            net = wire["bits"][bit]
            if isinstance(net, str):
                known.add((signal, bit))
            else:
                module["ports"][f"asked_{k}"] = {"direction": "output", "bits": [net]}
        file.write_text(json.dumps(netlist))
        equivalence.yosys("asked", CONSTANTS, folder)
        equivalence.abc("read_aiger asked.aig; strash; scorr; dc2; scorr -F 2; write_aiger found.aig", folder, seconds)
        before, after = _outputs(folder / "asked.aig"), _outputs(folder / "found.aig")
        for literal, label in zip(after.literals, before.names, strict=True):
            if literal in (0, 1):
                known.add(tuple(asked[int(label.removeprefix("asked_"))]))
        return known


@dataclass(frozen=True)
class _Outputs:
    literals: list[int]
    names: list[str]


def _outputs(path: Path) -> _Outputs:
    """The literals of an AIGER file's outputs, and their names where it has them: http://fmv.jku.at/aiger."""
    lines = path.read_bytes().split(b"\n")
    _, _, _, latches, outputs, *_ = (int(word) if word.isdigit() else 0 for word in lines[0].split())
    literals = [int(line) for line in lines[1 + latches : 1 + latches + outputs]]
    names = dict(re.findall(rb"^o(\d+) (\S+)$", path.read_bytes(), re.MULTILINE))
    return _Outputs(literals, [names[b"%d" % k].decode() for k in range(outputs)] if names else [])
