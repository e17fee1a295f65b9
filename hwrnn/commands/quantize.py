"""``hwrnn quantize``: turn a float model into integers."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hwrnn import report
from hwrnn.commands.options import data_options, number, whole, width_options
from hwrnn.errors import UsageError

if TYPE_CHECKING:
    from hwrnn.quantization import QuantizedModel

__all__ = ["EXAMPLE", "WORDS", "options", "run"]

WORDS = "turn a float model into integers"
EXAMPLE = "hwrnn quantize m.onnx --data japanese-vowels --bits 8 -o q.onnx"


def options(parser: argparse.ArgumentParser) -> None:
    """Add what the verb is given."""
    parser.add_argument("model", help="a float model of hwrnn")
    data_options(parser)
    width_options(parser)
    parser.add_argument("--like", metavar="FILE", help="take the formats of this quantized model, not --bits")
    parser.add_argument("--within", type=number, metavar="P", help="fewer bits wherever that costs at most P points")
    parser.add_argument("--finetune", type=whole, default=0, metavar="N", help="epochs of training in fixed point")
    parser.add_argument("--rate", type=number, metavar="R", help="learning rate of that training")
    parser.add_argument("--compiled", action=argparse.BooleanOptionalAction, help="that training in compiled C")
    parser.add_argument("--checkpoint", metavar="FILE", help="write a checkpoint (.npz) after every epoch of it")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint, bit for bit")
    parser.add_argument("--search-every", type=whole, default=0, metavar="K", help="formats anew every K epochs")
    parser.add_argument("--spectral-norm", type=number, metavar="S", help="of recurrent matrices in that training")
    parser.add_argument("--prove-states", action="store_true", help="make states so wide that none can ever saturate")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the quantized model, an ONNX file")


def run(given: Any) -> int:
    """Run the verb; the exit code."""
    from hwrnn.commands.given import check_fits, check_output, dataset_of, float_model, quantized_model, resumable
    from hwrnn.comparing import measured
    from hwrnn.onnx_io import save
    from hwrnn.quantization import quantize

    model, data = float_model(given.model), dataset_of(given)
    check_fits(model, data)
    check_output(given.output)
    more: dict[str, Any] = {"progress": report.epochs_bar("fine-tune")} if given.finetune else {}
    if given.resume and given.checkpoint is None:
        raise UsageError("Resume must come with the path of a checkpoint: give --checkpoint FILE")
    names = ("spectral_norm", "rate", "compiled", "checkpoint")
    more |= {name: value for name in names if (value := getattr(given, name)) is not None}
    if given.within is not None:
        more |= {"within": given.within, "descent": lambda step: report.say(step_text(step))}
    if given.like is not None:
        more["formats_of"] = quantized_model(given.like)
    if given.resume:
        more["resume"] = True
    with resumable(given):
        result = quantize(
            model, data, given.bits, weight_bits=given.weight_bits, activation_bits=given.activation_bits,
            state_bits=given.state_bits, cell_bits=given.cell_bits, operand_bits=given.operand_bits,
            method=given.method, finetune=given.finetune, search_every=given.search_every,
            prove_states=given.prove_states, **more,
        )  # fmt: skip
    save(result, given.output)
    metric, before = measured(model, data)
    _, after = measured(result, data)
    if given.json:
        facts = {"model": given.output, "metric": metric, "float": before, "fixed": after}
        if given.like is not None:
            facts["saturated_weights"] = result.facts["saturated_weights"]
        if given.prove_states:
            facts["proved_states"] = result.facts["proved_states"]
        facts |= {name: result.facts[name] for name in ("mixed",) if name in result.facts}
        report.print_json(facts | {"widths": asdict(result.widths), "saturation": result.saturation})
        return 0
    rows = [
        ["model", given.output],
        [f"{metric}, float", report.metric_text(metric, before)],
        [f"{metric}, fixed point", report.metric_text(metric, after)],
    ]
    if given.like is not None:
        count = sum(w.size for layer in result.stack for w in layer.weights.values())
        rows.append(["weights beyond the formats", f"{result.facts['saturated_weights']:,} of {count:,}"])
    for proved in result.facts.get("proved_states", ()):
        rows.append([f"state {proved['state']} of layer {proved['layer']}", f"cannot saturate: {proved['proof']}"])
    parts = [report.table(rows), formats_table(result)]
    if given.within is not None:
        parts.insert(1, path_table(result.facts["mixed"]["path"], metric))
    print("\n\n".join(parts))
    return 0


def step_text(step: Any) -> str:
    """A step of the way to fewer bits, for a person who waits."""
    return f"{step.tensor} to {step.bits} bits: cost {step.cost:,}, {step.points:+.2f} points"


def path_table(path: list[dict[str, Any]], metric: str) -> str:
    """The way to fewer bits, with the metric on noisy calibration data."""
    rows = []
    for n, step in enumerate(path):
        name = step["tensor"] or ("ranges searched again" if n else "start")
        value = report.metric_text(metric, step["metric"])
        rows.append([name, step["bits"] or "-", f"{step['cost']:,}", value, f"{step['points']:.2f}"])
    return report.table(rows, ["tensor", "bits", "cost", f"{metric}, calibration", "points lost"])


def formats_table(model: QuantizedModel) -> str:
    """Every stored value with its format and how often calibration data saturated it."""
    rows = []
    for k, layer in enumerate(model.stack):
        kind = "head" if k == len(model.layers) else f"layer {k}"
        for name, form in layer.formats.values.items():
            share, count = model.saturation.get(f"{k}.{name}"), model.saturated.get(f"{k}.{name}")
            text = report.percent(share, 2) + ("" if count is None else f" ({count[0]:,} of {count[1]:,})")
            rows.append([f"{kind} {name}", form, form.ap_fixed, text])
    return report.table(rows, ["value", "format", "in HLS notation", "saturated"])
