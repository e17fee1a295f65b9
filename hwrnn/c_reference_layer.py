"""One layer of the C reference: the function that takes it a time step on, a unit after the other."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from hwrnn.c_integers import LayerPrinter
from hwrnn.c_reference_numbers import Exact, Tables, Term, Writer, c_type, literal, type_for
from hwrnn.fixed import Number
from hwrnn.quantization import QuantizedLayer

__all__ = ["ReferenceLayer"]


@dataclass(frozen=True)
class _Block:
    """Products of a gate with one operand; their sum stands apart where it is shifted or narrower than the gate's."""

    gate: str
    operand: str
    kind: str
    apart: bool
    diagonal: bool
    shift: int


class ReferenceLayer(LayerPrinter):
    """A layer's function.

    Attributes:
        name: of the function.
        states: the states and, where it is none of them, the output: what the caller keeps, by name.
        text: the function.

    Raises:
        Unprintable: a layer that needs more than 64 bits, or a nonlinearity that is not made of lines.
    """

    def __init__(self, layer: QuantizedLayer, name: str, tables: Tables) -> None:
        super().__init__(layer.cell, layer.formats)
        self.layer, self.name, self.writer = layer, name, Writer(tables)
        self.states = tuple(dict.fromkeys((*layer.cell.states, layer.cell.output)))
        self.used: dict[str, str] = {}
        self.phase = 0
        phases = []
        for k in range(len(layer.cell.phases)):
            self.phase = k
            self.used.clear()
            self.blocks = {block: None for gate in layer.cell.phases[k].gates for block in self._blocks(gate)}
            self.buffered = {
                value
                for value in self.lasting
                if value in self.lines.stored_in(k) and any(b.operand == value and not b.diagonal for b in self.blocks)
            }
            self.walk(k)
            phases.append(self._phase_text())
        self.text = self._function(phases)

    def type_of(self, value: str) -> str:
        """The type of a stored value, or of the input ``x``."""
        form = self.formats.values[value]
        return c_type(form.lo, form.hi)

    # -- the lines of a unit

    def constant(self, value: float) -> Number:
        return Exact(Term(self.writer, "", "int32_t"), 0, 0, 0)._operand(value)

    def loaded(self, name: str) -> Number:
        form = self.formats.values[name]
        kind = type_for(max(-form.lo, form.hi))
        return Exact(Term(self.writer, self.writer.let(kind, f"v_{name}[unit]"), kind), form.frac, form.lo, form.hi)

    def gate(self, gate: str) -> Number:
        form, sums = self.formats.values[f"a.{gate}"], self.layer.accumulators[gate]
        kind = type_for(self._reach(gate))
        self.used[gate] = kind
        start = Exact(Term(self.writer, f"a_{gate}", kind), self.formats.bias_frac[gate], *sums)
        if sums[0] == sums[1]:
            start = start._constant(sums[0], start.frac)
        return start.to(form)

    def stored(self, name: str, value: Number) -> Number:
        form = self.formats.values[name]
        result = value.to(form)
        self.writer.say(f"/* {name}, {form} */")
        if name in self.lasting:
            kind, place = self.type_of(name), f"next_{name}" if name in self.buffered else f"v_{name}"
            self.writer.say(f"{place}[unit] = ({kind}){result.raw};")
        return result

    # -- its products

    def _reach(self, gate: str) -> int:
        """The largest that any partial sum of a gate, with or without its bias, can be in size."""
        phase = self.layer.cell.phases[self.phase]
        sums = [abs(int(b)) for b in self.layer.biases[gate]]
        for operand in phase.gates[gate]:
            most = self._most(operand) << self.formats.shifts[self.phase, operand]
            sizes = np.abs(self.layer.weights[gate, operand]).sum(axis=1).tolist()
            sums = [total + size * most for total, size in zip(sums, sizes, strict=True)]
        return max(sums)

    def _most(self, operand: str) -> int:
        form = self.formats.values[operand]
        return max(-form.lo, form.hi)

    def _blocks(self, gate: str) -> list[_Block]:
        made = []
        whole = type_for(self._reach(gate))
        for operand in self.layer.cell.phases[self.phase].gates[gate]:
            w = self.layer.weights[gate, operand]
            most = self._most(operand)
            kind = type_for(max(int(np.abs(w).sum(axis=1).max()), 1) * most)
            shift = self.formats.shifts[self.phase, operand]
            diagonal = operand != "x" and len(w) > 1 and not (w - np.diag(np.diag(w))).any()
            made.append(_Block(gate, operand, kind, shift > 0 or kind != whole, diagonal, shift))
        return made

    def _phase_text(self) -> str:
        layer, statements = self.layer, self.writer.taken()
        text = "\n".join(statements)
        gates = {gate: kind for gate, kind in self.used.items() if re.search(rf"\ba_{gate}\b", text)}
        blocks = [b for b in self.blocks if b.gate in gates]
        lines = []
        for gate, kind in gates.items():
            bias = self.writer.tables.array(f"{self.name}_b_{gate}", layer.biases[gate])
            lines.append(f"{kind} a_{gate} = {bias}[unit];")
        lines += [f"{b.kind} s_{b.gate}_{b.operand} = 0;" for b in blocks if b.apart and not b.diagonal]
        for operand in layer.cell.phases[self.phase].operands:
            own = [b for b in blocks if b.operand == operand]
            lines += [self._diagonal(b, gates[b.gate]) for b in own if b.diagonal]
            lines += self._columns(operand, [b for b in own if not b.diagonal])
        for b in blocks:
            if b.apart and not b.diagonal:
                lines.append(f"a_{b.gate} += {self._scaled(f's_{b.gate}_{b.operand}', b, gates[b.gate])};")
        inner = "\n".join(f"        {line}" for line in "\n".join([*lines, *statements]).split("\n"))
        units = f"    for (int unit = 0; unit < {layer.units}; unit++) {{\n"
        result = f"{units}{inner}\n    }}\n"
        if self.buffered:
            copies = "".join(f"        v_{name}[unit] = next_{name}[unit];\n" for name in sorted(self.buffered))
            result += f"{units}{copies}    }}\n"
        return result

    def _columns(self, operand: str, blocks: list[_Block]) -> list[str]:
        if not blocks:
            return []
        wide = type_for(self._most(operand))
        lines = [f"for (int k = 0; k < {self.layer.size_of(operand)}; k++) {{", f"    const {wide} e = v_{operand}[k];"]
        for b in blocks:
            w = self.writer.tables.array(f"{self.name}_w_{b.gate}_{operand}", self.layer.weights[b.gate, operand])
            sums = f"s_{b.gate}_{operand}" if b.apart else f"a_{b.gate}"
            factor = f"{w}[unit][k]" if b.kind == wide else f"({b.kind}){w}[unit][k]"
            lines.append(f"    {sums} += {factor} * e;")
        return [*lines, "}"]

    def _diagonal(self, b: _Block, kind: str) -> str:
        w = np.diag(self.layer.weights[b.gate, b.operand])
        name = self.writer.tables.array(f"{self.name}_w_{b.gate}_{b.operand}", w)
        return f"a_{b.gate} += {self._scaled(f'({b.kind}){name}[unit] * v_{b.operand}[unit]', b, b.kind)};"

    def _scaled(self, text: str, b: _Block, kind: str) -> str:
        if not b.shift:
            return text
        return f"{f'({kind})' if kind != b.kind else ''}{text} * {literal(1 << b.shift)}"

    def _function(self, phases: list[str]) -> str:
        layer, body = self.layer, "".join(phases)
        given = [f"const {self.type_of('x')} *v_x", *(f"{self.type_of(name)} *v_{name}" for name in self.states)]
        start = ""
        for name in dict.fromkeys(self.lasting):
            if re.search(rf"\bnext_{name}\b", body):
                start += f"    {self.type_of(name)} next_{name}[{layer.units}];\n"
            if name not in self.states:
                start += f"    {self.type_of(name)} v_{name}[{layer.units}];\n"
        for name in ("x", *self.states):
            if not re.search(rf"\bv_{name}\b", body):
                start += f"    (void)v_{name};\n"
        said = f"{layer.cell.name}, {layer.inputs} inputs, {layer.units} units"
        return f"\n/* {said}: one time step. */\nstatic void {self.name}({', '.join(given)})\n{{\n{start}{body}}}\n"
