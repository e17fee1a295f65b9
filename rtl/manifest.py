"""What a generated folder says of itself, for programs."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np

import hwrnn
from hwrnn.errors import TooLarge
from hwrnn.fixed import Format
from hwrnn.rtl.axi import padded
from hwrnn.rtl.balance import Balance
from hwrnn.rtl.elementwise import units_of
from hwrnn.rtl.engine import Engine
from hwrnn.rtl.identity import function_content, model_hash
from hwrnn.rtl.load_frames import VERSION, contents
from hwrnn.rtl.network import Network
from hwrnn.rtl.protection import MEANINGS as FAULTS
from hwrnn.rtl.resources import multiplier_blocks
from hwrnn.rtl.schedule import OUTPUT_STAGES, PhasePlan
from hwrnn.rtl.targets import Target
from hwrnn.rtl.verilog import Emitted
from hwrnn.rtl.watchdog import MEANINGS as STALLS
from hwrnn.rtl.watchdog import STALLED

__all__ = ["manifest_of", "model_hash"]

#: What each output that tells of faults means.
MEANINGS = {**FAULTS, **STALLS}


def manifest_of(emitted: Emitted, lanes: Any, target: Target | None, chosen: Balance | None = None) -> dict[str, Any]:
    """The manifest, ready for JSON.

    Args:
        lanes: the budget as asked for.
        target: the part, or None.
        chosen: how the lanes were chosen, where nobody gave them.

    Raises:
        TooLarge: the part has too few multipliers or too little memory; the text says how many are missing.
    """
    network = emitted.network
    model = network.model
    layers = [_layer(engine) for engine in network.engines]
    return {
        "hwrnn": hwrnn.__version__,
        "name": emitted.name,
        "model_sha256": model_hash(model),
        "tools": emitted.tools,
        "task": model.task,
        "argmax": network.argmax,
        "every_step": model.every_step,
        "ports": {"input": _input(network), "output": _output(network)},
        "lanes": {
            "asked": list(lanes) if isinstance(lanes, (list, tuple)) else lanes,
            "built": network.lanes,
            **({} if chosen is None else chosen.to_json()),
        },
        "timing": network.timing.to_json(),
        "channels": network.channels,
        "weights": network.weights,
        "load": _load(network) if network.loadable else None,
        **({"protection": _protection(network)} if network.protect != "none" or network.watchdog else {}),
        "repeat": _repeat(network),
        "cycles_per_step": {"value": network.cycles_per_step, "formula": _rate(network)},
        "latency": {"value": network.latency, "formula": _latency(network)},
        "ideal_cycles_per_step": network.ideal_cycles_per_step,
        "multiplications": sum(layer.multiplications for layer in model.stack),
        "multipliers": network.multipliers,
        "memory_bits": network.memory_bits,
        "target": None if target is None else _on(target, network),
        "layers": layers,
    }


def _load(network: Network) -> dict[str, Any]:
    """What a host has to know to load weights; the frames are described in hwrnn's docs/loading.md."""
    memories = [
        {"target": 2 * k + n, "layer": k, "what": what, "words": len(words), "word_bits": bits}
        for k, engine in enumerate(network.engines)
        for n, (what, (words, bits)) in enumerate(zip(("weights", "biases"), contents(engine.lanes), strict=True))
    ]
    return {"version": VERSION, "identity": network.identity.hex(), "memories": memories, "sprams": sum(network.sprams)}


def _protection(network: Network) -> dict[str, Any]:
    """What watches over the network, and the outputs that tell of it."""
    words = [
        {"layer": k, "what": what, "words": len(words), "data_bits": code.bits, "check_bits": code.checks}
        for k, lanes in enumerate(engine.lanes for engine in network.engines)
        for what, words, code in (("weights", lanes.words, lanes.code), ("biases", lanes.bias_words, lanes.bias_code))
    ]
    return {
        "memories": network.protect,
        "words": words if network.protect != "none" else [],
        "watchdog_cycles": network.watchdog,
        "outputs": {name: MEANINGS[name] for name in (*network.faults, *(STALLED if network.watchdog else ()))},
    }


def _repeat(network: Network) -> dict[str, Any] | None:
    """What stands between an encoder and its decoder; None without an encoder."""
    repeat = network.repeat
    if repeat is None:
        return None
    cut, later = network.model.encoder, network.cycles_of_later_step
    halves = (network.recurrent[:cut], network.recurrent[cut:])
    both = " + ".join(f"max({', '.join(str(engine.cycles_per_step) for engine in half)})" for half in halves)
    return {
        "encoder": cut,
        "elements": repeat.units,
        "most_steps": repeat.most_steps,
        "beyond": f"a sequence of more steps leaves as one of {repeat.most_steps}",
        "latency": {"value": repeat.latency, "formula": f"{repeat.units} elements + 1 = {repeat.latency}"},
        "memory_bits": repeat.memory_bits,
        "sequence_alone": {
            "later_step": later,
            "formula": f"{network.model.inputs} inputs - 1 + (T - 1) * ({both}) + {network.latency}",
        },
        "sequence_in_a_row": {
            "step": network.cycles_per_step,
            "formula": f"T * {network.cycles_per_step}, where all sequences have T steps",
        },
    }


def _format(form: Format) -> dict[str, Any]:
    return {**form.to_json(), "q": str(form), "ap_fixed": form.ap_fixed, "raw_min": form.lo, "raw_max": form.hi}


def _input(network: Network) -> dict[str, Any]:
    model, form = network.model, network.input_format
    return {
        "tdata_bits": padded(form.width),
        "elements_per_vector": model.inputs,
        "format": _format(form),
        "mean": [float(v) for v in np.broadcast_to(model.input_mean, model.inputs)],
        "scale": [float(v) for v in np.broadcast_to(model.input_scale, model.inputs)],
        "raw": f"min(max(floor((x - mean) * scale * 2**{form.frac} + 1/2), {form.lo}), {form.hi})",
        "precision": "single up to the product with scale, then exact",
    }


def _output(network: Network) -> dict[str, Any]:
    model, form = network.model, network.output_format
    port = {
        "tdata_bits": padded(form.width),
        "tid_bits": (network.channels - 1).bit_length(),
        "elements_per_vector": network.outputs_per_vector,
        "format": _format(form),
    }
    if network.argmax:
        return {**port, "meaning": "index of the largest output, the first of equals"}
    scores = model.task == "classification"
    return {
        **port,
        "meaning": "score of each class, the largest wins" if scores else "value of each output",
        "mean": [float(v) for v in np.broadcast_to(model.output_mean, model.outputs)],
        "scale": [float(v) for v in np.broadcast_to(model.output_scale, model.outputs)],
        "value": f"raw * 2**{-form.frac} * scale + mean",
    }


def _layer(engine: Engine) -> dict[str, Any]:
    layer, schedule = engine.layer, engine.schedule
    return {
        "cell": layer.cell.name,
        "inputs": layer.inputs,
        "units": layer.units,
        **{role: function_content(function) for role, function in layer.cell.functions.items()},
        "activation_units": units_of(layer),
        "cell_clip": layer.cell.clip,
        **({"initial": engine.starts} if engine.starts else {}),
        # By name: the order in a model depends on who made it, and a file gives another one back.
        "formats": {name: _format(form) for name, form in sorted(layer.formats.values.items())},
        "weights": {f"{gate} {operand}": str(form) for (gate, operand), form in sorted(layer.formats.weights.items())},
        "lanes": schedule.lanes,
        "phases": [_phase(plan) for plan in schedule.phases],
        "cycles_per_step": {"value": engine.cycles_per_step, "formula": _cycles(engine)},
        "channels_without_waiting": engine.channels_without_waiting,
        "latency": {"value": engine.latency, "formula": _engine_latency(engine)},
        "multiplications": layer.multiplications,
        "multipliers": engine.multipliers,
        "products_per_lane_multiplier_and_cycle": engine.products_per_multiplier,
        "accumulator_bits": engine.lanes.sum_shape.width,
        "memory_bits": engine.memory_bits,
    }


def _phase(plan: PhasePlan) -> dict[str, Any]:
    return {
        "rows": [list(row) for row in plan.rows],
        "columns": dict(plan.operands),
        "units_in_parallel": plan.parallel,
        "groups": plan.groups,
        "passes": plan.passes,
        "lanes": plan.lanes,
        "gap": plan.gap,
    }


def _issued(plan: PhasePlan) -> str:
    return f"{plan.groups} groups * {plan.passes} passes * {plan.columns} columns"


def _cycles(engine: Engine) -> str:
    terms = [f"{_issued(p)} + {p.gap} waiting" for p in engine.schedule.phases]
    return f"{' + '.join(terms)} = {engine.cycles_per_step}"


def _rate(network: Network) -> str:
    each = ", ".join(str(engine.cycles_per_step) for engine in network.recurrent)
    return f"max over the layers that work every step ({each}) = {network.cycles_per_step}"


def _engine_latency(engine: Engine) -> str:
    schedule = engine.schedule
    last = schedule.phases[-1]
    issued = [_issued(schedule.phases[0])]
    for p in schedule.phases[1:]:
        own = f"{_issued(p)} + {p.gap} waiting"
        issued.append(own if engine.channels == 1 else f"{engine.channels} channels * ({own})")
    return (
        f"{' + '.join(issued)} + {schedule.mac} to the sums + {last.last_group - 1} units before the last of its group"
        f" + {schedule.depths[-1]} stages of the element-wise path + {OUTPUT_STAGES} of the output = {engine.latency}"
    )


def _latency(network: Network) -> str:
    each = [str(engine.latency) for engine in network.engines]
    if network.repeat is not None:
        each.append(f"{network.repeat.latency} of the code")
    if any(network.queued):
        each.append(f"{sum(network.queued)} behind earlier channels")
    if network.picker is not None:
        each.append(f"{network.picker.latency} of the arg-max")
    return f"sum over the layers: {' + '.join(each)} = {network.latency}"


def _on(target: Target, network: Network) -> dict[str, Any]:
    """What the network needs of a part."""
    engines = network.engines
    blocks = ceil(sum(multiplier_blocks(e.layer, e.schedule, e.timing, target) for e in engines))
    if blocks > target.multipliers > 0:
        raise TooLarge(
            f"Network must need at most {target.multipliers} multipliers for {target.name}, not {blocks}, which is"
            f" {blocks - target.multipliers} too many: give fewer lanes or a larger part"
        )
    bits = network.memory_bits - network.spram_bits
    if bits > target.memory_bits:
        raise TooLarge(
            f"Network must need at most {target.memory_bits} bits of memory for {target.name}, not {bits}, which is"
            f" {bits - target.memory_bits} too many: use fewer bits or units, or a larger part"
        )
    row = {
        "name": target.name, "family": target.family, "description": target.description,
        "multipliers": target.multipliers, "multiplier": list(target.multiplier),
        "memory_blocks": target.memory_blocks, "block_bits": target.block_bits, "timing": target.timing.to_json(),
    }  # fmt: skip
    used = {"multipliers": blocks, "memory_bits": bits}
    share = {"multipliers": blocks / target.multipliers if target.multipliers else None,
             "memory_bits": bits / target.memory_bits}  # fmt: skip
    return {**row, "used": used, "share": share}
