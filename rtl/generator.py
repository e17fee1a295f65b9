"""A folder with everything that somebody needs to use a network in Verilog."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import hwrnn
from hwrnn.c_reference import Unprintable, c_reference
from hwrnn.errors import UsageError
from hwrnn.files import replace_folder
from hwrnn.model import check_input
from hwrnn.quantization import QuantizedModel
from hwrnn.rtl.balance import lanes_for
from hwrnn.rtl.bench import bench_files, check_file
from hwrnn.rtl.bench_sequences import random_sequences
from hwrnn.rtl.bench_trace import check_trace
from hwrnn.rtl.manifest import manifest_of, model_hash
from hwrnn.rtl.names import plain_name
from hwrnn.rtl.network import Network
from hwrnn.rtl.projects import clock_checked, project_files, tools_named
from hwrnn.rtl.protection import check_protect
from hwrnn.rtl.readme import readme_of
from hwrnn.rtl.targets import TARGETS, target_named
from hwrnn.rtl.timing import SHORTEST, Timing
from hwrnn.rtl.verilog import Emitted, emit
from hwrnn.rtl.watchdog import check_watchdog
from hwrnn.rtl.weights import check_weights, is_loadable, with_any_weights

__all__ = ["default_name", "generate"]


def generate(
    model: QuantizedModel,
    folder: str | os.PathLike[str],
    *,
    lanes: Any = 16,
    name: str | None = None,
    argmax: bool = False,
    channels: Any = 1,
    target: str | None = None,
    timing: Timing | None = None,
    weights: str = "auto",
    protect: str = "none",
    watchdog: int = 0,
    trace: int = 0,
    tools: str | Sequence[str] = (),
    clock: float | None = None,
    samples: Any = None,
    lengths: Any = None,
) -> dict[str, Any]:
    """Write a network as Verilog and as C, with a manifest, a self-checking test bench and a README.

    The same model and options give the same bytes. A folder that an earlier call wrote is replaced, if nobody changed
    what it held; it is whole or as it was. What ``implement`` made of other Verilog that stood there goes with it.

    Args:
        model: a quantized model.
        folder: NAME.v, NAME_tb.v, stimulus.hex, expected.hex, NAME.h, NAME.c, NAME_check.c, manifest.json,
            verilator.vlt and README.md go there; where weights are loaded, load.hex too. A network that needs more than
            64 bits has no C (``hwrnn.c_reference``): a warning and the manifest say so.
        lanes: the budget of multipliers, as :class:`hwrnn.rtl.Network` takes it; or ``"auto"``: those of each layer
            with which the target is fastest (:mod:`hwrnn.rtl.balance`).
        name: of the Verilog top; by default made of the cell and the sizes.
        argmax: whether the index of the largest output leaves instead of the outputs; for classification.
        channels: independent sequences that take turns, as :class:`hwrnn.rtl.Network` takes them.
        target: a part (``hwrnn.rtl.TARGETS``) that the network has to fit. The Verilog runs on any part.
        timing: where registers stand (``hwrnn.rtl.Timing``); where None the target's choice, or without a target the
            shortest pipeline.
        weights: what memories they get: ``auto``, ``block``, ``distributed``, ``loadable`` or ``spram``, see
            :class:`hwrnn.rtl.Network`; ``spram`` only with a target that has it.
        protect: check bits of weights and biases: ``none``, ``parity`` or ``secded``, likewise.
        watchdog: cycles of waiting at a port that are told; 0 for none.
        trace: cycles of random traffic, with stalls of all lengths and short resets, that are simulated here and that
            the bench plays back in the end, comparing every port in every cycle: it also finds what comes at another
            time. They go to trace.hex, some thousand a second. Without samples there are then also sequences that show
            each flipped bit of a weight or bias which some of thousands show. 0 for none.
        tools: vendors' tools that the folder gets projects for: some of ``vivado``, ``quartus``, ``radiant``. Each
            gets a script, the clock's constraint and memory files; see ``hwrnn.rtl.projects``.
        clock: MHz of that constraint; where None the target's goal, or a figure that suits the tool's own part.
        samples: float (N, T, inputs): the sequences that the bench runs, the first ones several times; else random
            ones over the whole input format, the more, the quicker the network.
        lengths: int (N,) of the samples, each T where None.

    Returns:
        the content of manifest.json.

    Raises:
        UsageError: a model that is not quantized, an option outside its range, a network that does not fit the
            target, or a folder that cannot be written or holds what generate did not write.
    """
    if not isinstance(model, QuantizedModel):
        raise UsageError("Model must be quantized to become Verilog: quantize it first")
    if argmax and model.task != "classification":
        raise UsageError(f"Argmax must be for a model of the task classification, not {model.task}")
    if samples is None and lengths is not None:
        raise UsageError("Lengths must come with samples, not without")
    part = None if target is None else target_named(target)
    projects = tools_named(tools)
    clock = clock_checked(clock, projects)
    if samples is not None:
        x, steps = check_input(samples, lengths, model.inputs)
        x = model.quantize_input(x)
    if timing is None:
        timing = SHORTEST if part is None else part.timing
    if check_weights(weights) == "spram" and (part is None or not part.sprams):
        having = ", ".join(row.name for row in TARGETS.values() if row.sprams)
        raise UsageError(f"Weights must be 'spram' only for a target that has it ({having}), not for {target or 'any'}")
    check_protect(protect), check_watchdog(watchdog), check_trace(trace, weights)
    if weights == "spram" and isinstance(lanes, str):
        raise UsageError("Lanes must be given as a number beside weights 'spram', not as 'auto'")
    like = with_any_weights(model) if is_loadable(weights) else model
    automatic = isinstance(lanes, str) and lanes == "auto"
    chosen = lanes_for(like, part, timing, channels, protect) if automatic else None
    built = lanes if chosen is None else list(chosen.lanes)
    network = Network(
        model, built, argmax, timing=timing, channels=channels, weights=weights, protect=protect, watchdog=watchdog
    )
    emitted = emit(network, default_name(model) if name is None else name)
    if samples is None:
        x, steps = random_sequences(model, network.cycles_per_step, network.channels, argmax, thorough=trace > 0)
    manifest = manifest_of(emitted, lanes, part, chosen)
    if trace:
        manifest["trace_cycles"] = trace
    files = {f"{emitted.name}.v": _header(emitted, built) + emitted.text}
    files |= bench_files(emitted.network, emitted.name, hwrnn.__version__, x, steps, trace)
    beside, manifest["c"] = _c_files(network, emitted.name)
    files |= beside
    more, manifest["projects"] = project_files(emitted.name, files[f"{emitted.name}.v"], projects, part, clock)
    files |= more
    files["manifest.json"] = json.dumps(manifest, indent=2) + "\n"
    waivers = (resources.files("hwrnn.rtl") / "verilator.vlt").read_text()
    files["verilator.vlt"] = waivers.replace('-file "*"', f'-file "*{emitted.name}.v"')
    files["README.md"] = readme_of(manifest)
    former = Path(folder) / f"{emitted.name}.v"
    same = former.is_file() and former.read_bytes() == files[former.name].encode()
    with replace_folder(folder, stale=None if same else "implementation-*") as path:
        for file, text in files.items():
            (path / file).write_bytes(text.encode())
    return manifest


def default_name(model: QuantizedModel) -> str:
    """A name for a model's Verilog top, such as ``hwrnn_lstm_12_32_9``."""
    layers = [layer.cell.name for layer in model.layers]
    sizes = [model.inputs, *(layer.units for layer in model.layers)]
    if model.head is not None:
        sizes.append(model.outputs)
    return plain_name("_".join(["hwrnn", *dict.fromkeys(layers), *map(str, sizes)]))[:200]


def _c_files(network: Network, name: str) -> tuple[dict[str, str], dict[str, Any]]:
    """The network as C with a program that checks it, and what the manifest says of it."""
    try:
        made = c_reference(network.model, name, network.argmax)
    except Unprintable as error:
        warnings.warn(f"The folder has no C of the network: {error}", stacklevel=3)
        return {}, {"files": [], "left_out": str(error)}
    files = made.files | check_file(network, name, hwrnn.__version__, made.ports)
    sizes = {"state_bytes": made.state_bytes, "table_bytes": made.table_bytes}
    return files, {"files": list(files), "left_out": None, **sizes}


def _header(emitted: Emitted, lanes: Any) -> str:
    network, tools = emitted.network, emitted.tools
    options = f"lanes={lanes!r}, name={emitted.name!r}" + (", argmax=True" if network.argmax else "")
    options += f", channels={network.channels}" if network.channels > 1 else ""
    options += f", timing=hwrnn.rtl.{network.timing}" if network.timing != SHORTEST else ""
    options += f", weights={network.weights!r}" if network.weights != "auto" else ""
    options += f", protect={network.protect!r}" if network.protect != "none" else ""
    options += f", watchdog={network.watchdog}" if network.watchdog else ""
    options += ", target=TARGET" if network.weights == "spram" else ""
    names = [f"{e.layer.cell.name} {e.layer.inputs}x{e.layer.units}" for e in network.engines]
    if network.repeat is not None:
        names[network.model.encoder - 1] += ", its last output repeated"
    cells = ", then ".join(names)
    writers = f"hwrnn {hwrnn.__version__} (Amaranth {tools['amaranth']}, Yosys {tools['yosys']})"
    return f"""\
// {emitted.name}: {cells}; {network.cycles_per_step} cycles per time step, latency {network.latency}
//
// Written by {writers} and not meant for editing. To write it again, in Python, with
// FILE the quantized model of SHA-256 {model_hash(network.model)}:
//   hwrnn.rtl.generate(hwrnn.load(FILE), FOLDER, {options})
// A signal named tN is a part of an expression; NAME_N is NAME N cycles later, or the N-th of its kind.

"""
