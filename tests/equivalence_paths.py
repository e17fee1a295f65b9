"""The element-wise path of a cell against Verilog that was written by hand, for all inputs.

``tests/handwritten/CELL.v`` holds a module for each of the cell's phases, named as the cell's method, without clock:
from the accumulators (``acc_GATE``) and the old values (``old_NAME``) to the pre-activations (``a_GATE``) and all
stored values. It knows of a layer nothing but its formats and the names of its nonlinearities.

The path gets what the lanes give it: the accumulator with the rounding half that the bias carries. It is a pipeline
without feedback, so what it shows some cycles after any state whatever depends on its inputs only: the proof unrolls
the cycles of its depth from a state that is free, and so proves the delays too.

One stored value is proved after the other, in the order in which they are computed: equal to that written by hand, and
within the interval that the path relies on. Where a later one reads it, it may then be anything in that interval. Most
functions that are left have few enough inputs to try all of them (``tests/gates.py``); of the others those parts are
merged that have, and ABC sweeps what remains.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from amaranth.back import rtlil
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from equivalence import Verdict, abc, constant, yosys
from gates import Cone, Gates
from networks import network_of

from hwrnn.cells import CELLS
from hwrnn.quantization import QuantizedLayer
from hwrnn.rtl.elementwise import ElementWise
from hwrnn.rtl.ports import shape
from hwrnn.rtl.timing import SHORTEST, Timing

__all__ = ["HANDWRITTEN", "PATH_FAULTS", "emitted", "handwritten", "layer_of", "path_verdict", "planted_in_path"]

HANDWRITTEN = Path(__file__).resolve().parent / "handwritten"

MITER = """
read_verilog -defer functions.v cell.v proof.v
read_rtlil path.il
hierarchy -check -top proof
proc
flatten
setattr -unset init
opt -full
setundef -undriven -zero
setundef -zero
write_verilog -noattr flat.v
techmap
opt -fast
dffunmap
simplemap
opt_clean
aigmap
opt_clean
write_aiger -ascii -symbols product.aag
"""


FEW, MANY = 24, 28  # inputs of a function all of whose values are tried at once, or in the last resort


class Path_(wiring.Component):
    """One phase's path, with ports for all that enters it and all that it stores."""

    def __init__(self, layer: QuantizedLayer, index: int, timing: Timing = SHORTEST) -> None:
        self.layer, self.index, self.timing = layer, index, timing
        self.found = found = ElementWise.build(None, layer, index, "path", timing)
        ports: dict[str, Any] = {f"sum_{gate}": In(signal.shape()) for gate, signal in found.gates.items()}
        ports |= {f"old_{name}": In(signal.shape()) for name, signal in found.olds.items()}
        ports |= {_port(name): Out(shape(layer.formats.values[name])) for name in found.stored}
        super().__init__(ports)

    def elaborate(self, platform: object) -> Module:
        """The path and nothing else."""
        m = Module()
        path = ElementWise.build(m, self.layer, self.index, "path", self.timing)
        m.d.comb += [signal.eq(getattr(self, f"sum_{gate}")) for gate, signal in path.gates.items()]
        m.d.comb += [signal.eq(getattr(self, f"old_{name}")) for name, signal in path.olds.items()]
        m.d.comb += [getattr(self, _port(name)).eq(wire.raw.value) for name, wire in path.stored.items()]
        return m


def _port(name: str) -> str:
    return name.replace(".", "_")


def layer_of(cell: str, bits: int = 4, **options: Any) -> QuantizedLayer:
    """A layer of a small network, its accumulators those of its weights; the head where no cell is named so."""
    model = network_of(cell if cell in CELLS else "rnn", 2, 3, bits=bits, **options)[0]
    layer = model.layers[0] if cell in CELLS else model.head
    assert layer is not None
    return layer


def handwritten(cell: str) -> Path:
    """The file of a cell."""
    return HANDWRITTEN / f"{cell}.v"


def emitted(layer: QuantizedLayer, index: int, timing: Timing = SHORTEST) -> str:
    """The RTLIL of a path."""
    return rtlil.convert(Path_(layer, index, timing), name="path", emit_src=False)


def proof(layer: QuantizedLayer, index: int, timing: Timing) -> tuple[str, dict[str, int]]:
    """The Verilog that sets a path beside the module written by hand, and each stored value's stage."""
    cell, values = layer.cell, layer.formats.values
    path = ElementWise.build(None, layer, index, "path", timing)
    parameters = {"SIGMA": cell.sigma.name, "PHI": cell.phi.name, "PSI": (cell.psi or cell.phi).name}
    text = handwritten(cell.name).read_text()
    method = cell.phases[index].combine
    known = set(re.findall(r"\b([A-Z]\w*) =", text[text.index(f"module {method}") :].split(") (", 1)[0]))
    given = [f'.{name}("{kind}")' for name, kind in parameters.items() if name in known]
    if cell.clip is not None and "CLIP" in known:
        assert cell.clip == int(cell.clip), "functions.v limits to whole numbers"
        given.append(f".CLIP({int(cell.clip)})")
    free, body, path_wired, hand_wired = ["input clk"], [], [".clk(clk)", ".rst(1'b0)"], []
    shown: dict[str, str] = {}
    for gate in path.gates:
        lo, hi = layer.accumulators[gate]
        frac, bits = layer.formats.bias_frac[gate], max(lo.bit_length(), hi.bit_length()) + 1
        form = values[f"a.{gate}"]
        half = 1 << (frac - form.frac - 1) if frac > form.frac else 0
        given += [f".W_acc_{gate}({bits})", f".F_acc_{gate}({frac})"]
        free.append(f"input signed [{bits - 1}:0] acc_{gate}")
        wide = max(bits, half.bit_length()) + 2
        body.append(f"  wire signed [{wide - 1}:0] sum_{gate} = acc_{gate} + $signed({wide}'d{half});")
        path_wired.append(f".sum_{gate}(sum_{gate}[{len(path.gates[gate]) - 1}:0])")
        hand_wired.append(f".acc_{gate}(acc_{gate})")
        shown[f"fits_{gate}"] = f"acc_{gate} >= {_signed(lo, bits)} && acc_{gate} <= {_signed(hi, bits)}"
    for name in path.olds:
        free.append(f"input [{values[name].width - 1}:0] old_{name}")
        path_wired.append(f".old_{name}(old_{name})")
        hand_wired.append(f".old_{name}(old_{name})")
    for name in sorted({*path.olds, *path.stored}):
        form, port = values[name], _port(name)
        given += [f".W_{port}({form.width})", f".F_{port}({form.frac})", f".S_{port}({int(form.signed)})"]
        assert form.frac >= 0, f"fraction bits of {name} must be at least 0 for functions.v, not {form.frac}"
    for name, wire in path.stored.items():
        port, form = _port(name), values[name]
        sign, bits = "signed " if form.signed else "", form.width
        free += [f"output {sign}[{bits - 1}:0] path_{port}", f"output [{bits - 1}:0] hand_{port}"]
        path_wired.append(f".{port}(path_{port})")
        hand_wired.append(f".{port}(hand_{port})")
        for k in range(1, wire.stage + 1):
            before = f"hand_{port}" if k == 1 else f"late_{k - 1}_{port}"
            body.append(f"  reg [{bits - 1}:0] late_{k}_{port}; always @(posedge clk) late_{k}_{port} <= {before};")
        shown[f"differs_{port}"] = f"path_{port} != late_{wire.stage}_{port}"
        letter = "s" if form.signed else ""
        bounds = [f"{'-' if v < 0 else ''}{bits + 1}'{letter}d{abs(v)}" for v in (wire.lo, wire.hi)]
        shown[f"strays_{port}"] = f"path_{port} < {bounds[0]} || path_{port} > {bounds[1]}"
    free += [f"output {name}" for name in shown]
    body += [f"  assign {name} = {term};" for name, term in shown.items()]
    body.append(f"  path path ({', '.join(path_wired)});")
    body.append(f"  {method} #({', '.join(given)}) hand ({', '.join(hand_wired)});")
    stages = {_port(name): wire.stage for name, wire in path.stored.items()}
    return "\n".join([f"module proof ({', '.join(free)});", *body, "endmodule", ""]), stages


def _signed(value: int, bits: int) -> str:
    return f"{'-' if value < 0 else ''}{bits}'sd{abs(value)}"


def path_verdict(
    layer: QuantizedLayer,
    index: int,
    timing: Timing = SHORTEST,
    *,
    path: str | None = None,
    cell: str | None = None,
    seconds: float = 60,
) -> Verdict:
    """Whether a phase's path equals the module written by hand, for all accumulators and old values.

    The method tells how the hardest of the stored values was decided. The trace of a difference is a row: the values
    at the inputs, bit by bit.

    Args:
        layer: with nonlinearities that ``tests/handwritten/functions.v`` knows.
        index: of the phase.
        timing: of the path.
        path: RTLIL in the place of the path's own.
        cell: Verilog in the place of the file written by hand.
        seconds: that ABC may take for a value.
    """
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text, stages = proof(layer, index, timing)
        (folder / "proof.v").write_text(text)
        (folder / "path.il").write_text(emitted(layer, index, timing) if path is None else path)
        (folder / "functions.v").write_text((HANDWRITTEN / "functions.v").read_text())
        (folder / "cell.v").write_text(handwritten(layer.cell.name).read_text() if cell is None else cell)
        yosys("product", MITER, folder)
        gates = Gates((folder / "product.aag").read_text())
        found = []
        for value in stages:
            answer, method = decided(gates, stages, value, folder, seconds)
            found.append(method)
            if answer != "equal":
                break
        trace: list[dict[str, str]] = []
        if answer == "different":
            trace = witness(gates, stages, value, folder, seconds)
            answer = "different" if trace else "undecided"
        hardest = max(found, key=METHODS.index)
        return Verdict(answer, hardest, time.monotonic() - start, tuple(trace))


def broken(cone: Cone, stages: Mapping[str, int], name: str, earlier: Sequence[str]) -> int:
    """The literal that says that a stored value is wrong, though the accumulators and the earlier values are right."""
    outputs = cone.gates.outputs
    at = stages[name]
    bad = cone.either(*(cone.at(outputs[f"{what}_{name}"][0], at) for what in ("differs", "strays")))
    reads = {support.partition("[")[0] for support in cone.support(bad)}
    for other in earlier:
        if other in reads:
            bad = cone.both(bad, cone.at(outputs[f"strays_{other}"][0], stages[other]) ^ 1)
    for gate in [key.removeprefix("fits_") for key in outputs if key.startswith("fits_")]:
        if f"acc_{gate}" in reads:
            bad = cone.both(bad, cone.at(outputs[f"fits_{gate}"][0], 0))
    return bad


def decided(gates: Gates, stages: Mapping[str, int], name: str, folder: Path, seconds: float) -> tuple[str, str]:
    """Whether a stored value is right where the earlier ones are, and how that was found."""
    cone = Cone(gates)
    earlier = list(stages)[: list(stages).index(name)]
    for other in earlier:
        pairs = zip(gates.outputs[f"path_{other}"], gates.outputs[f"hand_{other}"], strict=True)
        for k, (a, b) in enumerate(pairs):
            cone.cut(a, stages[other], b, 0, f"{other}[{k}]")
    bad = broken(cone, stages, name, earlier)
    if len(cone.support(bad)) > FEW:
        bad = cone.merged(bad, FEW)
    inputs = len(cone.support(bad))
    if inputs > FEW:
        (folder / "cone.aig").write_bytes(cone.aiger(bad))
        (folder / "swept.aig").unlink(missing_ok=True)
        abc("read_aiger cone.aig; strash; &get; &fraig -x -C 10000; &put; write_aiger swept.aig", folder, seconds)
        if (folder / "swept.aig").exists() and constant(folder / "swept.aig"):
            return "equal", "merging and SAT"
        if inputs > MANY:
            return "undecided", "merging and SAT"
    return "equal" if cone.exhaustive(bad) is None else "different", "all patterns"


def witness(gates: Gates, stages: Mapping[str, int], name: str, folder: Path, seconds: float) -> list[dict[str, str]]:
    """Inputs for which a stored value is wrong; nothing where none are found."""
    cone = Cone(gates)
    bad = broken(cone, stages, name, ())
    found = cone.random(bad, 64)
    if not found:
        (folder / "cone.aig").write_bytes(cone.aiger(bad))
        (folder / "run.txt").unlink(missing_ok=True)
        abc("read_aiger cone.aig; strash; sat; write_cex run.txt", folder, seconds)
        if (folder / "run.txt").exists():
            bits = (folder / "run.txt").read_text().split()[0]
            found = dict(zip(cone.support(bad), bits, strict=True))
    return [found] if found else []


#: How a stored value may be decided, the harder ones behind.
METHODS = ("all patterns", "merging and SAT")


#: Faults to plant in a path's RTLIL: a pattern of a cell's text that is found once or more, and its replacement.
PATH_FAULTS: dict[str, Callable[[str], str]] = {
    "a constant": lambda cell: re.sub(r"(connect \\B \d+'[01]*)([01])([01]{2})$", _flipped, cell, flags=re.MULTILINE),
    "an operator": lambda cell: cell.replace("cell $sub ", "cell $add "),
    "swapped operands": lambda cell: re.sub(r"\\([AB])(?=_| )", lambda m: "\\" + "BA"["AB".index(m[1])], cell)
    if "cell $sub " in cell
    else cell,
}


def _flipped(found: re.Match[str]) -> str:
    return f"{found[1]}{'10'[int(found[2])]}{found[3]}"


def planted_in_path(text: str, kind: str, seed: int) -> str:
    """A path's RTLIL with one fault in one of its cells.

    Raises:
        ValueError: there is no place for it.
    """
    cells = re.findall(r"^ +cell .*?^ +end$", text, re.MULTILINE | re.DOTALL)
    places = [(cell, faulty) for cell in cells if (faulty := PATH_FAULTS[kind](cell)) != cell]
    if not places:
        raise ValueError(f"there is no place for {kind}")
    cell, faulty = places[seed % len(places)]
    return text.replace(cell, faulty)
