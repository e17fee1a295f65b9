"""A network of the C reference: its layers in a row, a step at a time or, with reverse layers, a sequence at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

import hwrnn
from hwrnn.c_reference_layer import ReferenceLayer
from hwrnn.c_reference_numbers import Tables, bytes_of, c_type, helper_text, literal
from hwrnn.c_source import Unprintable
from hwrnn.fixed import Format
from hwrnn.quantization import QuantizedModel

__all__ = ["ReferenceNetwork", "written"]


class ReferenceNetwork:
    """The sequence of layers, and what the header tells of it.

    Args:
        model: the network.
        name: a plain identifier.
        argmax: whether the index of the largest output leaves instead of the outputs.

    Attributes:
        macro: what the names of macros begin with.
        tables: of all layers, once :meth:`source` was called.
        groups: indices of layers side by side, the head last.
        ports: the types of the elements of input and output vectors.
        state: name, type and count of everything that a sequence keeps from step to step.
        state_bytes: of it.
        buffered: whether whole sequences are taken at once, since a layer reads them from their end.
        work: the type of what such a network works in, and the elements a step.

    Raises:
        Unprintable: a network that needs more than 64 bits.
    """

    def __init__(self, model: QuantizedModel, name: str, argmax: bool) -> None:
        self.model, self.name, self.macro, self.argmax = model, name, name.upper(), argmax
        self.tables, self.layers = Tables(), list[ReferenceLayer]()
        for k, layer in enumerate(model.stack):
            try:
                self.layers.append(ReferenceLayer(layer, f"layer_{k}", self.tables))
            except Unprintable as error:
                raise Unprintable(f"layer {k}: {error}") from error
        self.groups = [*model.groups, *([(len(model.layers),)] if model.head is not None else [])]
        self.ports = _port(model.input_format), "int32_t" if argmax else _port(model.output_format)
        self.state = self._state()
        self.state_bytes = sum(count * bytes_of(kind) for _, kind, count in self.state)
        self.buffered = any(layer.reverse for layer in model.layers)
        formats = [model.stack[group[0]].output for group in self.groups]
        kind = c_type(min(form.lo for form in formats), max(form.hi for form in formats))
        self.work = kind, max(self._width(group) for group in self.groups)

    def _state(self) -> list[tuple[str, str, int]]:
        """Everything that a sequence keeps from step to step, the widest first, so that nothing is padded."""
        found = []
        for k, (layer, made) in enumerate(zip(self.model.stack, self.layers, strict=True)):
            found += [(f"v_{name}_{k}", made.type_of(name), layer.units) for name in layer.cell.states]
        if self.model.encoder and not any(layer.reverse for layer in self.model.layers):
            code = next(group for group in self.groups if group[-1] + 1 == self.model.encoder)
            found.append(("code", self._type_of(code), self._width(code)))
            found += [("steps", "uint32_t", 1), ("left", "uint32_t", 1)]
        return sorted(found, key=lambda entry: -bytes_of(entry[1])) or [("nothing", "uint8_t", 1)]

    def _width(self, group: tuple[int, ...]) -> int:
        return sum(self.model.stack[k].units for k in group)

    def _type_of(self, group: tuple[int, ...]) -> str:
        return self.layers[group[0]].type_of(self.model.stack[group[0]].cell.output)

    def source(self) -> str:
        """The text of ``NAME.c``."""
        functions = self._functions()  # which may add tables
        return "".join([
            f'/* {self.name}: see {self.name}.h. {written()} */\n\n#include "{self.name}.h"\n',
            helper_text(self.tables), "".join(f"\n{text}" for text in self.tables.arrays.values()),
            *(layer.text for layer in self.layers), *functions,
        ])  # fmt: skip

    def _functions(self) -> list[str]:
        name, cut = self.name, self.model.encoder
        if self.buffered:
            return [self._begin(0), self._run()]
        parts = [self._begin(k) for k in ([0, cut] if cut else [0])]
        if cut:
            parts.append(self._more())
        parts.append(self._step())
        lines = ["begin_0(state);", *([f"begin_{cut}(state);", "state->steps = 0;", "state->left = 0;"] if cut else [])]
        parts.append(_function(f"void {name}_init({name}_state *state)", lines))
        return parts

    def _begin(self, first: int) -> str:
        """The start of a sequence for the encoder, the decoder, or the whole network."""
        cut = 0 if self.buffered else self.model.encoder
        lines = []
        for k, layer in enumerate(self.model.stack):
            for name in layer.cell.states if (k >= cut) == (first >= cut) else ():
                value, start = "0", layer.initial.get(name)
                if start is not None and np.any(start):
                    kind = self.layers[k].type_of(name)
                    # A table of small values is signed, whatever the state is.
                    cast = f"({kind})" if kind.startswith("u") else ""
                    value = f"{cast}{self.tables.array(f'layer_{k}_initial_{name}', start)}[k]"
                lines += [f"for (int k = 0; k < {layer.units}; k++)", f"    state->v_{name}_{k}[k] = {value};"]
        return _function(f"static void begin_{first}({self.name}_state *state)", lines or ["(void)state;"])

    def _through(self, groups: Sequence[tuple[int, ...]], value: str) -> tuple[list[str], str]:
        """One step of groups of layers that read an array, and the array that holds the output."""
        lines = []
        for group in groups:
            found = []
            for k in group:
                given, stored = [], self.layers[k].states
                for name in stored:
                    if name in self.model.stack[k].cell.states:
                        given.append(f"state->v_{name}_{k}")
                    else:
                        lines.append(f"{self.layers[k].type_of(name)} v_{name}_{k}[{self.model.stack[k].units}];")
                        given.append(f"v_{name}_{k}")
                lines.append(f"layer_{k}({', '.join([value, *given])});")
                found.append(given[stored.index(self.model.stack[k].cell.output)])
            value = found[0]
            if len(group) > 1:
                value, start = f"beside_{group[0]}", 0
                lines[:0] = [f"{self._type_of(group)} {value}[{self._width(group)}];"]
                for k, one in zip(group, found, strict=True):
                    units = self.model.stack[k].units
                    lines += [f"for (int k = 0; k < {units}; k++)", f"    {value}[{start} + k] = {one}[k];"]
                    start += units
        return lines, value

    def _taken(self, x: str = "x") -> list[str]:
        """An input vector, saturated to its format, in its own type."""
        form, port = self.model.input_format, self.ports[0]
        kind, value = c_type(form.lo, form.hi), f"{x}[k]"
        if port != kind:
            low, high = literal(form.lo), literal(form.hi)
            value = f"({kind})({x}[k] < {low} ? {low} : {x}[k] > {high} ? {high} : {x}[k])"
        count = self.model.inputs
        return [f"{kind} v_x[{count}];", f"for (int k = 0; k < {count}; k++)", f"    v_x[k] = {value};"]

    def _given(self, value: str, y: str = "y") -> list[str]:
        """What the caller gets of an output vector."""
        count = self.model.outputs
        if not self.argmax:
            return [f"for (int k = 0; k < {count}; k++)", f"    {y}[k] = {value}[k];"]
        better = [f"    if ({value}[k] > {value}[{y}[0]])", f"        {y}[0] = k;"]
        return [f"{y}[0] = 0;", f"for (int k = 1; k < {count}; k++)", *better]

    @property
    def _recurrent(self) -> int:
        """The last group with a state, or -1."""
        stack = self.model.stack
        return max((n for n, group in enumerate(self.groups) if any(stack[k].cell.states for k in group)), default=-1)

    def _step(self) -> str:
        model, cut = self.model, self.model.encoder
        head = self._recurrent + 1
        if cut:
            head = next(n for n, group in enumerate(self.groups) if group[0] == cut)
        elif model.every_step:
            head = len(self.groups)
        lines, value = self._through(self.groups[:head], "v_x")
        body = [*self._taken(), *lines]
        if cut:
            body += ["if (state->steps < UINT32_MAX)", "    state->steps++;", "if (!last)", "    return 0;"]
            code = next(count for name, _, count in self.state if name == "code")
            body += [f"for (int k = 0; k < {code}; k++)", f"    state->code[k] = {value}[k];"]
            body += ["state->left = state->steps;", "state->steps = 0;", "begin_0(state);", f"begin_{cut}(state);"]
            body += [f"return {self.name}_more(state, y);"]
        else:
            if not model.every_step:
                body += ["if (!last)", "    return 0;"]
            lines, value = self._through(self.groups[head:], value)
            end = ["if (last)", "    begin_0(state);"] if model.every_step else ["begin_0(state);"]
            body += [*lines, *self._given(value), *end, "return 1;"]
        return _function(self.prototype("step"), body)

    def _more(self) -> str:
        behind = [group for group in self.groups if group[0] >= self.model.encoder]
        lines, value = self._through(behind, "state->code")
        start = ["const uint32_t left = state->left;", "if (left == 0)", "    return 0;"]
        lines = [*start, *lines, *self._given(value), "state->left--;", "return left;"]
        return _function(self.prototype("more"), lines)

    def _run(self) -> str:
        """A whole sequence: each layer from its first step to its last, or back, from one buffer into the other."""
        model, (kind, width) = self.model, self.work
        body = [
            "if (steps == 0)", "    return 0;", "begin_0(state);",
            f"{kind} *const even = work, *const odd = work + {width} * steps;",
        ]  # fmt: skip
        source, size, at = "x", model.inputs, "t"
        for n, group in enumerate(self.groups):
            target, start = ("even", "odd")[n % 2], 0
            for k in group:
                place = f"{target} + {self._width(group)} * t + {start}"
                lines = self._layer_step(k, f"{source} + {size} * {at}", place)
                start += model.stack[k].units
                body += _each("n" if model.stack[k].reverse else "t", lines, model.every_step or n <= self._recurrent)
            if model.final_state and n == self._recurrent:
                body += self._finals(group, target)
            source, size, at = target, self._width(group), "t"
            if group[-1] + 1 == model.encoder:
                at = "(steps - 1)"
        lines = [f"const {kind} *const from = {source} + {size} * t;", *self._given("from")]
        if model.every_step:
            lines[1:1] = [f"{self.ports[1]} *const to = y + {self.outputs} * t;"]
            lines[2:] = self._given("from", "to")
        body += _each("t", lines, model.every_step)
        return _function(self.prototype("run"), [*body, "return steps;" if model.every_step else "return 1;"])

    @property
    def outputs(self) -> int:
        """Elements of what the caller gets."""
        return 1 if self.argmax else self.model.outputs

    def _layer_step(self, k: int, source: str, target: str) -> list[str]:
        """A layer's step between two places of buffers."""
        layer, made = self.model.stack[k], self.layers[k]
        if source.startswith("x "):
            lines = [f"const {self.ports[0]} *const from = {source};", *self._taken("from")]
        else:
            kind = made.type_of("x")
            lines = [f"const {self.work[0]} *const from = {source};", f"{kind} v_x[{layer.inputs}];"]
            lines += [f"for (int k = 0; k < {layer.inputs}; k++)", f"    v_x[k] = ({kind})from[k];"]
        lines.append(f"{self.work[0]} *const to = {target};")
        through, value = self._through([(k,)], "v_x")
        return [*lines, *through, f"for (int k = 0; k < {layer.units}; k++)", f"    to[k] = {value}[k];"]

    def _finals(self, group: tuple[int, ...], buffer: str) -> list[str]:
        """The last states of reverse layers, which stand at the first step, to the last one."""
        lines, start, width = list[str](), 0, self._width(group)
        for k in group:
            units = self.model.stack[k].units
            if self.model.stack[k].reverse:
                lines += [f"for (int k = {start}; k < {start + units}; k++)"]
                lines += [f"    {buffer}[{width} * (steps - 1) + (size_t)k] = {buffer}[k];"]
            start += units
        return lines

    def prototype(self, what: str) -> str:
        """The declaration of ``step``, ``more`` or ``run``."""
        (x, y), name = self.ports, self.name
        if what == "run":
            given = f"{name}_state *state, const {x} *x, size_t steps, {self.work[0]} *work, {y} *y"
            return f"size_t {name}_run({given})"
        more = f"const {x} x[{self.macro}_INPUTS], int last, " if what == "step" else ""
        return f"uint32_t {name}_{what}({name}_state *state, {more}{y} y[{self.macro}_OUTPUTS])"


def written() -> str:
    """Who wrote a file."""
    return f"Written by hwrnn {hwrnn.__version__} and not meant for editing."


def _port(form: Format) -> str:
    return "int32_t" if c_type(form.lo, form.hi) not in ("uint32_t", "int64_t") else "int64_t"


def _each(count: str, lines: list[str], every: bool) -> list[str]:
    """Statements for every step ``t``, from the last one where counted by ``n``, or for the last one alone."""
    if not every:
        start = ["{", "    const size_t t = steps - 1;"]
    else:
        start = [f"for (size_t {count} = 0; {count} < steps; {count}++) {{"]
        start += ["    const size_t t = steps - 1 - n;"] if count == "n" else []
    return [*start, *(f"    {line}" for line in lines), "}"]


def _function(prototype: str, lines: list[str]) -> str:
    return "".join([f"\n{prototype}\n{{\n", *(f"    {line}\n" for line in lines), "}\n"])
