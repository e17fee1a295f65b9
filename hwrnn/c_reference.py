"""The C reference: a quantized network as dependency-free C99 that computes golden's integers.

For the microcontroller beside an FPGA, for a vendor's test bench, and as one more check of the hardware. Each layer's
lines come from the cell's trace (``hwrnn.c_reference_layer``); here stand the network's sequence of layers, its state
and its header.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import hwrnn
from hwrnn.c_reference_layer import ReferenceLayer, Tables, bytes_of, c_type, helper_text, literal
from hwrnn.c_source import Unprintable
from hwrnn.errors import UsageError
from hwrnn.files import replace_folder
from hwrnn.fixed import Format
from hwrnn.quantization import QuantizedModel
from hwrnn.rtl.identity import model_hash

__all__ = ["CReference", "Unprintable", "c_reference", "write_c"]


@dataclass(frozen=True)
class CReference:
    """A network in C.

    Attributes:
        files: the text of ``NAME.h`` and ``NAME.c`` by name.
        state_bytes: of the state of one sequence, without what alignment adds.
        table_bytes: of all constant tables.
        ports: the types of the elements of input and output vectors.
    """

    files: dict[str, str]
    state_bytes: int
    table_bytes: int
    ports: tuple[str, str]


def write_c(model: QuantizedModel, folder: str | os.PathLike[str], name: str, *, argmax: bool = False) -> CReference:
    """Write a network as ``NAME.h`` and ``NAME.c``; a folder that an earlier call wrote is replaced.

    Args:
        argmax: whether the index of the largest output is returned instead of the outputs; for classification.

    Raises:
        UsageError: a model that is not quantized or needs more than 64 bits, a name that is no plain identifier, argmax
            of a regression, or a folder that cannot be written or holds what was not generated.
    """
    if not isinstance(model, QuantizedModel):
        raise UsageError("Model must be quantized to become C: quantize it first")
    if argmax and model.task != "classification":
        raise UsageError(f"Argmax must be for a model of the task classification, not {model.task}")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,199}", name):
        raise UsageError(f"Name must be a letter and up to 199 letters, digits and underscores, not {name!r}")
    try:
        made = c_reference(model, name, argmax)
    except Unprintable as error:
        raise UsageError(f"Model must fit the integers of C, but does not ({error}): use fewer bits") from error
    with replace_folder(folder) as path:
        for file, text in made.files.items():
            (Path(path) / file).write_bytes(text.encode())
    return made


def c_reference(model: QuantizedModel, name: str, argmax: bool = False) -> CReference:
    """The C of a network whose name is a plain identifier, the same bytes in every run.

    Raises:
        Unprintable: a network that needs more than 64 bits; the text says why, as the end of a sentence.
    """
    network = _Network(model, name, argmax)
    source = network.source()  # first, since the header tells the size of its tables
    files = {f"{name}.h": network.header(), f"{name}.c": source}
    return CReference(files, network.state_bytes, network.tables.size, network.ports)


class _Network:
    """What the two files are made of.

    Attributes:
        tables: of all layers.
        state_bytes: of the state of one sequence.
    """

    def __init__(self, model: QuantizedModel, name: str, argmax: bool) -> None:
        self.model, self.name, self.macro, self.argmax = model, name, name.upper(), argmax
        self.tables, self.layers = Tables(), list[ReferenceLayer]()
        for k, layer in enumerate(model.stack):
            if layer.reverse:
                raise Unprintable(f"layer {k} runs from a sequence's last step to its first")
            try:
                self.layers.append(ReferenceLayer(layer, f"layer_{k}", self.tables))
            except Unprintable as error:
                raise Unprintable(f"layer {k}: {error}") from error
        self.groups = [*model.groups, *([(len(model.layers),)] if model.head is not None else [])]
        self.ports = _port(model.input_format), "int32_t" if argmax else _port(model.output_format)
        self.state = self._state()
        self.state_bytes = sum(count * bytes_of(kind) for _, kind, count in self.state)

    def _state(self) -> list[tuple[str, str, int]]:
        """Name, type and count of everything that a sequence keeps from step to step."""
        found = []
        for k, (layer, made) in enumerate(zip(self.model.stack, self.layers, strict=True)):
            found += [(f"v_{name}_{k}", made.type_of(name), layer.units) for name in layer.cell.states]
        if self.model.encoder:
            code = next(group for group in self.groups if group[-1] + 1 == self.model.encoder)
            found.append(("code", self._type_of(code), self._width(code)))
            found += [("steps", "uint32_t", 1), ("left", "uint32_t", 1)]
        return found or [("nothing", "uint8_t", 1)]

    def _width(self, group: tuple[int, ...]) -> int:
        return sum(self.model.stack[k].units for k in group)

    def _type_of(self, group: tuple[int, ...]) -> str:
        return self.layers[group[0]].type_of(self.model.stack[group[0]].cell.output)

    # -- NAME.c

    def source(self) -> str:
        """The text of ``NAME.c``."""
        functions = self._functions()  # which may add tables
        return "".join([
            f'/* {self.name}: see {self.name}.h. {_written()} */\n\n#include "{self.name}.h"\n',
            helper_text(self.tables), "".join(f"\n{text}" for text in self.tables.arrays.values()),
            *(layer.text for layer in self.layers), *functions,
        ])  # fmt: skip

    def _functions(self) -> list[str]:
        name, cut = self.name, self.model.encoder
        parts = [self._begin(k) for k in ([0, cut] if cut else [0])]
        if cut:
            parts.append(self._more())
        parts.append(self._step())
        lines = ["begin_0(state);", *([f"begin_{cut}(state);", "state->steps = 0;", "state->left = 0;"] if cut else [])]
        parts.append(_function(f"void {name}_init({name}_state *state)", lines))
        return parts

    def _begin(self, first: int) -> str:
        """The start of a sequence for the encoder, the decoder, or the whole network."""
        cut = self.model.encoder
        lines = []
        for k, layer in enumerate(self.model.stack):
            for name in layer.cell.states if (k >= cut) == (first >= cut) else ():
                value, start = "0", layer.initial.get(name)
                if start is not None and np.any(start):
                    value = f"{self.tables.array(f'layer_{k}_initial_{name}', start)}[k]"
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

    def _taken(self) -> list[str]:
        """The input, saturated to its format, in its own type."""
        form, port = self.model.input_format, self.ports[0]
        kind, value = c_type(form.lo, form.hi), "x[k]"
        if not port.startswith(kind):
            low, high = literal(form.lo), literal(form.hi)
            value = f"({kind})(x[k] < {low} ? {low} : x[k] > {high} ? {high} : x[k])"
        count = self.model.inputs
        return [f"{kind} v_x[{count}];", f"for (int k = 0; k < {count}; k++)", f"    v_x[k] = {value};"]

    def _given(self, value: str) -> list[str]:
        """What the caller gets of an output vector."""
        count = self.model.outputs
        if not self.argmax:
            return [f"for (int k = 0; k < {count}; k++)", f"    y[k] = {value}[k];"]
        better = [f"    if ({value}[k] > {value}[y[0]])", "        y[0] = k;"]
        return ["y[0] = 0;", f"for (int k = 1; k < {count}; k++)", *better]

    def _step(self) -> str:
        model, cut = self.model, self.model.encoder
        head = 1 + max((n for n, g in enumerate(self.groups) if any(model.stack[k].cell.states for k in g)), default=-1)
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
        return _function(self._prototype("step"), body)

    def _more(self) -> str:
        behind = [group for group in self.groups if group[0] >= self.model.encoder]
        lines, value = self._through(behind, "state->code")
        start = ["const uint32_t left = state->left;", "if (left == 0)", "    return 0;"]
        lines = [*start, *lines, *self._given(value), "state->left--;", "return left;"]
        return _function(self._prototype("more"), lines)

    def _prototype(self, what: str) -> str:
        x = f"const {self.ports[0]} x[{self.macro}_INPUTS], int last, " if what == "step" else ""
        return f"uint32_t {self.name}_{what}({self.name}_state *state, {x}{self.ports[1]} y[{self.macro}_OUTPUTS])"

    # -- NAME.h

    def header(self) -> str:
        """The text of ``NAME.h``."""
        name, macro = self.name, self.macro
        single = {"steps", "left"}
        fields = "".join(f"    {kind} {at}{'' if at in single else f'[{n}]'};\n" for at, kind, n in self.state)
        begins = "Begins a sequence; one that is under way is dropped. To be called once before anything else."
        takes = f"Takes a vector of raw inputs; what lies beyond their format saturates. {self._returns()}"
        calls = f"{_filled(begins)}void {name}_init({name}_state *state);\n\n"
        calls += f"{_filled(takes)}{self._prototype('step')};\n"
        if self.model.encoder:
            writes = "Writes the next output vector, if one is left: it returns how many were, this one included, or 0."
            calls += f"\n{_filled(writes)}{self._prototype('more')};\n"
        return f"""\
/* {name}: {self._layers()}.

{self._about()}*/

#ifndef {macro}_H
#define {macro}_H

#include <stdint.h>

{self._macros()}
#ifdef __cplusplus
extern "C" {{
#endif

/* What a sequence keeps from step to step; a copy goes on by itself. */
typedef struct {{
{fields}}} {name}_state;

{calls}
#ifdef __cplusplus
}}
#endif

#endif
"""

    def _layers(self) -> str:
        groups = [" beside ".join(f"{a.cell.name} {a.inputs}x{a.units}" for a in map(self.model.stack.__getitem__, g))
                  for g in self.groups]  # fmt: skip
        return ", then ".join(groups)

    def _about(self) -> str:
        model, name, form = self.model, self.name, self.model.input_format
        wide = [str(k) for k, layer in enumerate(self.layers) if "int64_t" in layer.text]
        bits = f"32 bits, except where layer {' and '.join(wide)} needs 64" if wide else "32 bits"
        more = f"n = {name}_more(&state, y)" if model.encoder else "n = 0"
        promise = (
            "It computes the integers of hwrnn's golden model and of the Verilog of this model. Arithmetic is in"
            f" {bits}. There is no dynamic memory, no floating point, nothing of the library but <stdint.h>, and"
            f" nothing global but constant tables of {self.tables.size:,} bytes. A sequence has a state of"
            f" {self.state_bytes:,} bytes that the caller owns:"
        )
        text = f"""\
   {_written()} SHA-256 of the quantized model:
   {model_hash(model)}

{textwrap.fill(promise, 116, initial_indent="   ", subsequent_indent="   ")}

       {name}_state state;
       {name}_init(&state);
       for each step, with last = 1 in a sequence's last one:
           for (uint32_t n = {name}_step(&state, x, last, y); n; {more})
               y holds an output vector;

   Inputs x are raw = min(max(floor((value - mean) * scale * 2**{form.frac} + 1/2), {form.lo}), {form.hi}),
   in single precision up to the product with scale, then exactly:
{_list("mean", np.broadcast_to(model.input_mean, model.inputs))}\
{_list("scale", np.broadcast_to(model.input_scale, model.inputs))}"""
        if self.argmax:
            return text + "   Output y[0] is the index of the largest output, the first of equals.\n"
        what = "scores of classes, the largest wins" if model.task == "classification" else "values"
        return f"""{text}   Outputs y are {what}: value = raw * 2**{-model.output_format.frac} * scale + mean:
{_list("mean", np.broadcast_to(model.output_mean, model.outputs))}\
{_list("scale", np.broadcast_to(model.output_scale, model.outputs))}"""

    def _returns(self) -> str:
        if self.model.encoder:
            return (
                "Without last it returns 0. With last it ends the sequence, writes the first output vector and returns"
                f" how many there are, as many as the sequence had steps. {self.name}_more gives the others; those"
                " that are left when another sequence ends are lost."
            )
        ends = "and the next step begins another sequence."
        if self.model.every_step:
            return f"It writes an output vector and returns 1. With last the sequence ends, {ends}"
        return f"Without last it returns 0. With last it writes the sequence's output vector and returns 1, {ends}"

    def _macros(self) -> str:
        model = self.model
        rows = [(model.inputs, "INPUT", model.input_format), (model.outputs, "OUTPUT", model.output_format)]
        if self.argmax:
            rows[1] = 1, "OUTPUT", Format(max((model.outputs - 1).bit_length(), 1), 0, signed=False)
        text = ""
        for count, what, form in rows:
            for end, value in (("S", count), ("_BITS", form.width), ("_FRAC", form.frac),
                               ("_LOWEST", form.lo), ("_HIGHEST", form.hi)):  # fmt: skip
                text += f"#define {self.macro}_{what}{end} {f'({value})' if value < 0 else value}\n"
        return text


def _port(form: Format) -> str:
    return "int32_t" if c_type(form.lo, form.hi) not in ("uint32_t", "int64_t") else "int64_t"


def _written() -> str:
    return f"Written by hwrnn {hwrnn.__version__} and not meant for editing."


def _list(what: str, values: Any) -> str:
    if len(set(values)) == 1 < len(values):
        values = values[:1]
        what = f"every {what}"
    lines = textwrap.wrap(", ".join(repr(float(value)) for value in values), 100)
    indent = "\n" + " " * (7 + len(what))
    return f"     {what} {indent.join(lines)}\n"


def _filled(text: str) -> str:
    return f"{textwrap.fill(f'/* {text} */', 118, subsequent_indent='   ', break_on_hyphens=False)}\n"


def _function(prototype: str, lines: list[str]) -> str:
    return "".join([f"\n{prototype}\n{{\n", *(f"    {line}\n" for line in lines), "}\n"])
