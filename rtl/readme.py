"""What a generated folder says of itself, for people."""

from __future__ import annotations

from typing import Any

__all__ = ["readme_of"]


def readme_of(manifest: dict[str, Any]) -> str:
    """The README of a generated folder, from its manifest."""
    name, source, sink = manifest["name"], manifest["ports"]["input"], manifest["ports"]["output"]
    layers = "".join(_row(layer) for layer in manifest["layers"])
    used = source["format"]["width"]
    silent = "" if manifest["every_step"] and not manifest["repeat"] else " and shows no output"
    rate, latency = manifest["cycles_per_step"], manifest["latency"]
    vectors = "every time step" if manifest["every_step"] else "the last time step of each sequence"
    return f"""# {name}

A recurrent network in portable Verilog, written by hwrnn {manifest["hwrnn"]}. It computes exactly the integers of its
quantized model (SHA-256 `{manifest["model_sha256"]}`).

| layer | inputs | units | lanes | cycles a step | latency | multiplications |
|---|---|---|---|---|---|---|
{layers}
In all: **{rate["value"]} cycles per time step** in steady state, **{latency["value"]} cycles of latency** from the last
input element of a one-step sequence to its last output element (both exact while the ports keep up),
{manifest["multipliers"]} multipliers, {manifest["memory_bits"]:,} bits of memory.{_target(manifest)}{_bound(manifest)}

## Files

| file | content |
|---|---|
| `{name}.v` | the design; top module `{name}` |
| `{name}_tb.v` | a self-checking test bench |
| `stimulus.hex`, `expected.hex` | {_words(manifest)} |
{_more_files(manifest)}{_c_rows(manifest)}| `manifest.json` | everything on this page, and more, for programs |
| `verilator.vlt` | what `verilator --lint-only -Wall verilator.vlt {name}.v` may leave unsaid, and why |
| `SHA256SUMS` | for `sha256sum --check` |
{_project_files(manifest)}
## Ports

{_counted_ports(manifest)} AXI4-Stream ports in one clock domain; one element per transfer.

| port | direction | bits | meaning |
|---|---|---|---|
| `aclk` | in | 1 | clock, rising edge |
| `aresetn` | in | 1 | reset, active low, synchronous; registered, so it acts a cycle later |
| `s_axis_tdata` | in | {source["tdata_bits"]} | input element in the low {used} bits; the rest is ignored |
| `s_axis_tvalid` | in | 1 | an input element is offered |
| `s_axis_tready` | out | 1 | it is taken at the next rising edge |
| `s_axis_tlast` | in | 1 | with the last element of a sequence; ignored with all others |
| `m_axis_tdata` | out | {sink["tdata_bits"]} | output element, {_extended(sink)} |
| `m_axis_tvalid` | out | 1 | an output element is offered; it stays until it is taken |
| `m_axis_tready` | in | 1 | it is taken at the next rising edge |
| `m_axis_tlast` | out | 1 | with the last element of a sequence's last output vector |
{_tid(sink)}{_LOAD_ROWS if manifest["load"] else ""}{_fault_rows(manifest)}
{_channels(manifest)}A time step has {_counted(source["elements_per_vector"], "input element")}, feature by feature.
{_counted(sink["elements_per_vector"], "output element")} leave after {vectors}:
{sink["meaning"]}. `s_axis_tlast` with the last element of a sequence's last time step ends the
sequence: the state returns to zero for the next one, which may follow at once. A stream that never raises it runs on
for ever{silent}. {_decoder(manifest)}Either side may stall in any cycle;
`s_axis_tready` never waits for `s_axis_tvalid`.
{_load(manifest)}{_faults(manifest)}
## Numbers

| port | format | as in HLS | raw values |
|---|---|---|---|
| input | {_format(source)} |
| output | {_format(sink)} |

- Input, for each feature x of a vector: `raw = {source["raw"]}`
  ({source["precision"]}).
{_list("mean", source["mean"])}{_list("scale", source["scale"])}{_output(sink)}
## Running the test bench

The bench looks for the hex files in the folder where the simulator runs, and ends with one line, `PASS` or `FAIL`.

    iverilog -g2005 -o bench {name}_tb.v {name}.v && vvp -n bench

    verilator --binary --timing --top-module {name}_tb verilator.vlt {name}_tb.v {name}.v
    obj_dir/V{name}_tb

Vendors' simulators (Vivado, Questa, Riviera): compile both Verilog files, set `{name}_tb` as the top and run all;
give the hex files to the project as memory files, or copy them to where the simulator runs.

{_c(manifest)}{_projects(manifest)}## How the cycles come about

- Cycles per time step: {rate["formula"]}.
- Latency: {latency["formula"]}.
{_sequences(manifest)}{_formulas(manifest)}"""


def _decoder(manifest: dict[str, Any]) -> str:
    repeat = manifest["repeat"]
    if not repeat:
        return ""
    return (
        "This network encodes a sequence and then decodes it:\nits output vectors, as many as it had steps, leave"
        f" behind its last step, while the next sequence is taken. Steps are\ncounted up to {repeat['most_steps']:,};"
        f" {repeat['beyond']}.\n"
    )


def _sequences(manifest: dict[str, Any]) -> str:
    repeat = manifest["repeat"]
    if not repeat:
        return ""
    return (
        f"- The code, between encoder and decoder: {repeat['latency']['formula']}.\n"
        "- A sequence of T steps alone, from its first input element to its last output element:"
        f" {repeat['sequence_alone']['formula']}.\n"
        f"- Sequences in a row, each: {repeat['sequence_in_a_row']['formula']}.\n"
    )


def _counted_ports(manifest: dict[str, Any]) -> str:
    return "Four" if manifest["load"] else "Two"


def _more_files(manifest: dict[str, Any]) -> str:
    cycles = manifest.get("trace_cycles", 0)
    rows = f"| `trace.hex` | all ports in {cycles:,} cycles of simulated traffic, for the bench |\n" if cycles else ""
    if manifest["load"]:
        rows += "| `load.hex` | the bench's frames of the load port: answer to the frame, `tlast`, byte |\n"
    return rows


_LOAD_ROWS = """\
| `s_load_tdata` | in | 8 | a byte of a frame |
| `s_load_tvalid` | in | 1 | a byte is offered |
| `s_load_tready` | out | 1 | it is taken at the next rising edge |
| `s_load_tlast` | in | 1 | with a frame's last byte |
| `m_load_tdata` | out | 8 | answer to a frame: bits 0 to 1 tell why it was refused, 0 if it was not; bit 7 is `held` |
| `m_load_tvalid` | out | 1 | an answer is offered; the next frame waits until it is taken |
| `m_load_tready` | in | 1 | it is taken at the next rising edge |
| `held` | out | 1 | the network waits for weights and begins no sequence |
"""


def _load(manifest: dict[str, Any]) -> str:
    load = manifest["load"]
    if not load:
        return ""
    rows = "".join(
        f"| {m['target']} | {m['what']} of layer {m['layer']} | {m['words']} | {m['word_bits']} |\n"
        for m in load["memories"]
    )
    first = "There are none at first" if manifest["weights"] == "spram" else "Those of the model are there at first"
    return f"""
## Loading weights

The weights can be exchanged by `s_load`. {first}. A begin frame names the network (`{load["identity"]}`) and holds the
input as soon as the sequences that have begun are through; word frames bring the words of all memories below, in order;
an end frame releases the input. A frame that is wrong in length, place or checksum changes nothing. `hwrnn frames`
makes the frames of another model of the same structure and formats; hwrnn's docs/loading.md describes every byte.

| memory | content | words | bits of a word |
|---|---|---|---|
{rows}"""


def _fault_rows(manifest: dict[str, Any]) -> str:
    outputs = manifest.get("protection", {}).get("outputs", {})
    return "".join(f"| `{port}` | out | 1 | {meaning} |\n" for port, meaning in outputs.items())


_CODES = {
    "parity": "a check bit beside it that tells an odd number of flipped bits",
    "secded": "check bits beside it that correct one flipped bit and tell two",
}


def _faults(manifest: dict[str, Any]) -> str:
    protection = manifest.get("protection")
    if not protection:
        return ""
    text = "\n## Faults\n"
    if protection["memories"] != "none":
        rows = "".join(
            f"| {w['layer']} | {w['what']} | {w['words']} | {w['data_bits']} | {w['check_bits']} |\n"
            for w in protection["words"]
        )
        text += f"""
Every word of the memories of weights and biases has {_CODES[protection["memories"]]}. Words are
checked as they are used. The outputs stay high until the next reset, and rise some cycles after the word was read; the
memory keeps the flipped bit{" and the output element may be wrong" if protection["memories"] == "parity" else ""}.

| layer | content | words | data bits | check bits |
|---|---|---|---|---|
{rows}"""
    if protection["watchdog_cycles"]:
        text += f"""
The watchdog counts {protection["watchdog_cycles"]:,} cycles in a row in which a port waits. `stalled_input` and
`stalled_output` rise in the cycle behind the last of them and fall in the cycle behind the transfer that ends the wait.
Between two sequences the input owes nothing and is not counted.
"""
    return text


def _row(layer: dict[str, Any]) -> str:
    return (
        f"| {layer['cell']} | {layer['inputs']} | {layer['units']} | {layer['lanes']} |"
        f" {layer['cycles_per_step']['value']} | {layer['latency']['value']} | {layer['multiplications']:,} |\n"
    )


def _target(manifest: dict[str, Any]) -> str:
    target = manifest["target"]
    if target is None:
        return ""
    share = target["share"]
    multipliers = "it builds multipliers from logic"
    if share["multipliers"] is not None:
        used, most = target["used"]["multipliers"], target["multipliers"]
        multipliers = f"{used} of {most} multipliers ({share['multipliers']:.0%})"
    part = f"{target['name']} ({target['description']})"
    return f"\n\nOn {part}: {multipliers}, {share['memory_bits']:.0%} of the block memory."


def _bound(manifest: dict[str, Any]) -> str:
    reason = manifest["lanes"].get("reason")
    return "" if reason is None else f"\n\nThe lanes were chosen for this part; what bounds the design: {reason}."


def _c_rows(manifest: dict[str, Any]) -> str:
    if not manifest["c"]["files"]:
        return ""
    name = manifest["name"]
    return (
        f"| `{name}.h`, `{name}.c` | the same integers in C99, for a microcontroller or another test bench |\n"
        f"| `{name}_check.c` | feeds that C the stimulus and compares |\n"
    )


def _c(manifest: dict[str, Any]) -> str:
    name, c = manifest["name"], manifest["c"]
    if not c["files"]:
        return f"## The network in C\n\nThe folder has none: {c['left_out']}.\n\n"
    sizes = f"{c['table_bytes']:,} bytes of constant tables, and {c['state_bytes']:,} bytes of state for each sequence"
    return f"""## The network in C

`{name}.c` computes the integers of the Verilog a step at a time, in integer arithmetic alone, without the standard
library: {sizes} that runs.
`{name}.h` tells how to call it.{_its_weights(manifest)} This ends with one line, `PASS` or `FAIL`:

    cc -std=c99 -O2 -o check {name}_check.c {name}.c && ./check

"""


def _its_weights(manifest: dict[str, Any]) -> str:
    return " Its weights are those of the model, whatever the hardware has loaded." if manifest["load"] else ""


def _project_files(manifest: dict[str, Any]) -> str:
    projects = manifest["projects"]
    if not projects:
        return ""
    name = manifest["name"]
    rows = f"| `{name}_vendor.v` | the same for vendors' tools: memories read `.mem` files |\n"
    for row in projects:
        rows += f"| `{row['script']}`, `{row['constraints']}` | a project for {row['title']}, and its clock |\n"
    return rows


def _projects(manifest: dict[str, Any]) -> str:
    projects = manifest["projects"]
    if not projects:
        return ""
    rows = "".join(f"| {r['title']} | `{r['command']}` | {r['part']} | {r['clock_mhz']:g} MHz |\n" for r in projects)
    return f"""## In a vendor's tool

One command for each. It makes a project of the block alone, without pads, in a new folder where it runs, and takes it
through synthesis, placement and routing to the reports of its size and clock. Another part: set the environment
variable `PART`. The bench also takes `{manifest["name"]}_vendor.v`, with the `.mem` files where the simulator runs.

| tool | command | part | clock asked for |
|---|---|---|---|
{rows}
"""


def _words(manifest: dict[str, Any]) -> str:
    flags = "`tlast`" if manifest["channels"] == 1 else "`tid` and `tlast`"
    return f"what the bench feeds in and what must come out: {flags}, underscore, `tdata`"


def _tid(port: dict[str, Any]) -> str:
    bits = port["tid_bits"]
    return f"| `m_axis_tid` | out | {bits} | the channel of the output vector |\n" if bits else ""


def _channels(manifest: dict[str, Any]) -> str:
    count = manifest["channels"]
    if count == 1:
        return ""
    return (
        f"{count} independent sequences (channels) take turns: the input is a vector of channel 0, one of channel 1,"
        f" and so on to\n{count - 1}, then channel 0's next. Each has its own state and ends its own sequences. Cycles"
        " a step are those\nof one channel's step.\n\n"
    )


def _extended(port: dict[str, Any]) -> str:
    form = port["format"]
    if form["width"] == port["tdata_bits"]:
        return "all bits"
    return f"{form['width']} bits, {'sign' if form['signed'] else 'zero'}-extended"


def _format(port: dict[str, Any]) -> str:
    form = port["format"]
    return f"{form['q']} | `{form['ap_fixed']}` | {form['raw_min']} to {form['raw_max']}"


def _list(what: str, values: list[float]) -> str:
    return f"  - {what}: {', '.join(f'{value!r}' for value in values)}\n"


def _output(port: dict[str, Any]) -> str:
    if "value" not in port:
        return f"- Output: {port['meaning']}.\n"
    scales = _list("mean", port["mean"]) + _list("scale", port["scale"])
    return f"- Output, for each element of a vector: `value = {port['value']}`\n{scales}"


def _formulas(manifest: dict[str, Any]) -> str:
    return "".join(
        f"- Layer {k}, {layer['cell']}:\n"
        f"  - cycles: {layer['cycles_per_step']['formula']}\n"
        f"  - latency: {layer['latency']['formula']}\n"
        for k, layer in enumerate(manifest["layers"])
    )


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
