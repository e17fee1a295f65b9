"""The header of the C reference: what a caller has to know, as declarations, macros and words."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from hwrnn.c_reference_network import ReferenceNetwork, written
from hwrnn.fixed import Format
from hwrnn.rtl.identity import model_hash

__all__ = ["header_of"]


def header_of(network: ReferenceNetwork) -> str:
    """The text of ``NAME.h``, of a network whose source is written."""
    name, macro = network.name, network.macro
    single = {"steps", "left"}
    fields = "".join(f"    {kind} {at}{'' if at in single else f'[{n}]'};\n" for at, kind, n in network.state)
    return f"""\
/* {name}: {_layers(network)}.

   {written()} SHA-256 of the quantized model:
   {model_hash(network.model)}

{_promise(network)}
{_ports(network)}*/

#ifndef {macro}_H
#define {macro}_H

{"#include <stddef.h>" + chr(10) if network.buffered else ""}#include <stdint.h>

{_macros(network)}
#ifdef __cplusplus
extern "C" {{
#endif

/* What a sequence keeps from step to step; a copy goes on by itself. */
typedef struct {{
{fields}}} {name}_state;

{_calls(network)}
#ifdef __cplusplus
}}
#endif

#endif
"""


def _layers(network: ReferenceNetwork) -> str:
    def named(k: int) -> str:
        layer = network.model.stack[k]
        return f"{layer.cell.name} {layer.inputs}x{layer.units}{' in reverse' if layer.reverse else ''}"

    return ", then ".join(" beside ".join(map(named, group)) for group in network.groups)


def _promise(network: ReferenceNetwork) -> str:
    name = network.name
    wide = [str(k) for k, layer in enumerate(network.layers) if "int64_t" in layer.text]
    bits = f"32 bits, except where layer {' and '.join(wide)} needs 64" if wide else "32 bits"
    verilog = "" if network.buffered else " and of the Verilog of this model"
    promise = (
        f"It computes the integers of hwrnn's golden model{verilog}. Arithmetic is in {bits}. There is no dynamic"
        " memory, no floating point, nothing of the library but types, and nothing global but constant tables of"
        f" {network.tables.size:,} bytes. A sequence has a state of {network.state_bytes:,} bytes that the caller owns:"
    )
    more = f"n = {name}_more(&state, y)" if network.model.encoder else "n = 0"
    use = f"""\
       {name}_state state;
       {name}_init(&state);
       for each step, with last = 1 in a sequence's last one:
           for (uint32_t n = {name}_step(&state, x, last, y); n; {more})
               y holds an output vector;
"""
    if network.buffered:
        many = "steps" if network.model.every_step else "1"
        use = f"""\
       {name}_state state;
       {network.work[0]} work[{network.macro}_WORK(STEPS)];
       {network.ports[0]} x[STEPS * {network.macro}_INPUTS];
       {network.ports[1]} y[{"STEPS * " if network.model.every_step else ""}{network.macro}_OUTPUTS];
       {name}_run(&state, x, steps, work, y);    returns {many}, the output vectors in y
"""
    return f"{textwrap.fill(promise, 116, initial_indent='   ', subsequent_indent='   ')}\n\n{use}"


def _ports(network: ReferenceNetwork) -> str:
    model, form = network.model, network.model.input_format
    text = f"""\
   Inputs x are raw = min(max(floor((value - mean) * scale * 2**{form.frac} + 1/2), {form.lo}), {form.hi}),
   in single precision up to the product with scale, then exactly:
{_list("mean", np.broadcast_to(model.input_mean, model.inputs))}\
{_list("scale", np.broadcast_to(model.input_scale, model.inputs))}"""
    if network.argmax:
        return text + "   Output y[0] is the index of the largest output, the first of equals.\n"
    what = "scores of classes, the largest wins" if model.task == "classification" else "values"
    return f"""{text}   Outputs y are {what}: value = raw * 2**{-model.output_format.frac} * scale + mean:
{_list("mean", np.broadcast_to(model.output_mean, model.outputs))}\
{_list("scale", np.broadcast_to(model.output_scale, model.outputs))}"""


def _calls(network: ReferenceNetwork) -> str:
    name = network.name
    if network.buffered:
        takes = (
            "Takes a whole sequence of raw inputs, vector after vector; what lies beyond their format saturates. What"
            " the state and work hold before is of no account. It returns the number of output vectors."
        )
        return f"{_filled(takes)}{network.prototype('run')};\n"
    begins = "Begins a sequence; one that is under way is dropped. To be called once before anything else."
    takes = f"Takes a vector of raw inputs; what lies beyond their format saturates. {_returns(network)}"
    calls = f"{_filled(begins)}void {name}_init({name}_state *state);\n\n"
    calls += f"{_filled(takes)}{network.prototype('step')};\n"
    if network.model.encoder:
        writes = "Writes the next output vector, if one is left: it returns how many were, this one included, or 0."
        calls += f"\n{_filled(writes)}{network.prototype('more')};\n"
    return calls


def _returns(network: ReferenceNetwork) -> str:
    if network.model.encoder:
        return (
            "Without last it returns 0. With last it ends the sequence, writes the first output vector and returns how"
            f" many there are, as many as the sequence had steps. {network.name}_more gives the others; those that are"
            " left when another sequence ends are lost."
        )
    ends = "and the next step begins another sequence."
    if network.model.every_step:
        return f"It writes an output vector and returns 1. With last the sequence ends, {ends}"
    return f"Without last it returns 0. With last it writes the sequence's output vector and returns 1, {ends}"


def _macros(network: ReferenceNetwork) -> str:
    model = network.model
    rows = [(model.inputs, "INPUT", model.input_format), (model.outputs, "OUTPUT", model.output_format)]
    if network.argmax:
        rows[1] = 1, "OUTPUT", Format(max((model.outputs - 1).bit_length(), 1), 0, signed=False)
    text = ""
    for count, what, form in rows:
        values = {"S": count, "_BITS": form.width, "_FRAC": form.frac, "_LOWEST": form.lo, "_HIGHEST": form.hi}
        for end, value in values.items():
            text += f"#define {network.macro}_{what}{end} {f'({value})' if value < 0 else value}\n"
    if network.buffered:
        text += "/* Elements to work in for a sequence of so many steps. */\n"
        text += f"#define {network.macro}_WORK(steps) ({2 * network.work[1]} * (steps))\n"
    return text


def _list(what: str, values: Any) -> str:
    if len(set(values)) == 1 < len(values):
        values = values[:1]
        what = f"every {what}"
    lines = textwrap.wrap(", ".join(repr(float(value)) for value in values), 100)
    indent = "\n" + " " * (7 + len(what))
    return f"     {what} {indent.join(lines)}\n"


def _filled(text: str) -> str:
    return f"{textwrap.fill(f'/* {text} */', 118, subsequent_indent='   ', break_on_hyphens=False)}\n"
