"""The verbs of the command line: each reads its options, calls the library, and prints a table or JSON."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from hwrnn import report
from hwrnn.comparing import comparison, comparison_table, measured
from hwrnn.data import Dataset, load_dataset
from hwrnn.errors import UsageError
from hwrnn.model import Model, build_model
from hwrnn.quantization import QuantizedModel, quantize

__all__ = [
    "run_compare",
    "run_demo",
    "run_frames",
    "run_generate",
    "run_implement",
    "run_inspect",
    "run_quantize",
    "run_run",
    "run_simulate",
    "run_train",
]


def dataset_of(given: Any) -> Dataset:
    """The data set that the options name."""
    more = {} if given.horizon is None else {"horizon": given.horizon}
    return load_dataset(given.data, column=given.column, window=given.window, **more)


def check_output(path: str) -> None:
    """Refuse a file that cannot be written before the work, not after it.

    Raises:
        UsageError: a folder that does not exist or cannot be written.
    """
    from hwrnn.files import check_writable

    check_writable(Path(path))


def float_model(path: str) -> Model:
    """A float model from a file.

    Raises:
        UsageError: a file that cannot be read, or a quantized model.
    """
    from hwrnn.onnx_io import load

    model = load(path)
    if not isinstance(model, Model):
        raise UsageError(f"Model must be a float model, not the quantized one in {path!r}")
    return model


def quantized_model(path: str) -> QuantizedModel:
    """A quantized model from a file.

    Raises:
        UsageError: a file that cannot be read, or a float model.
    """
    from hwrnn.onnx_io import load

    model = load(path)
    if not isinstance(model, QuantizedModel):
        raise UsageError(f"Model must be quantized, not the float one in {path!r}: run hwrnn quantize first")
    return model


def check_fits(model: Model | QuantizedModel, data: Dataset) -> None:
    """Raise UsageError where a model and a data set do not belong together."""
    if (model.inputs, model.outputs) != (data.inputs, data.outputs):
        raise UsageError(
            f"Data must have {model.inputs} features and {model.outputs} outputs as the model does, "
            f"not {data.inputs} and {data.outputs}"
        )
    if model.task != data.task or model.every_step != data.per_step:
        raise UsageError(
            f"Data must be for {model.task}{' of every step' * model.every_step} as the model is, "
            f"not for {data.task}{' of every step' * data.per_step}"
        )


def run_train(given: Any) -> int:
    """``hwrnn train``."""
    from hwrnn.onnx_io import save
    from hwrnn.training import train

    data = dataset_of(given)
    check_output(given.output)
    hidden: Any = given.hidden
    layers = given.layers if given.layers is not None else len(hidden)
    if len(hidden) == 1:
        hidden = hidden[0]
    model = build_model(
        data.inputs, data.outputs, cell=given.cell, hidden=hidden, layers=layers, activation=given.activation,
        gate=given.gate, cell_clip=given.cell_clip, every_step=data.per_step, task=data.task, init=given.init,
        seed=given.seed,
    )  # fmt: skip
    names = ("epochs", "batch", "rate", "noise", "validation", "patience", "checkpoint", "loss")
    options = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    model = train(model, data, seed=given.seed, resume=given.resume, progress=report.epochs_bar("train"), **options)
    save(model, given.output)
    metric, value = measured(model, data)
    _, fitted = measured(model, data, on_train=True)
    result = {
        "model": given.output, "cell": given.cell, "hidden": given.hidden, "parameters": parameters_of(model),
        "metric": metric, "train": fitted, "test": value if data.test is not None else None,
    }  # fmt: skip
    if given.json:
        report.print_json(result)
        return 0
    rows = [
        ["model", given.output],
        ["network", f"{given.cell}({','.join(map(str, given.hidden))}), {data.inputs} inputs, {data.outputs} outputs"],
        ["parameters", parameters_of(model)],
        [f"{metric} on training data", report.metric_text(metric, fitted)],
    ]
    if data.test is not None:
        rows.append([f"{metric} on test data", report.metric_text(metric, value)])
    print(report.table(rows))
    return 0


def parameters_of(model: Model) -> int:
    """The number of trained parameters."""
    return sum(p.size for layer in model.stack for p in layer.parameters.values())


def run_quantize(given: Any) -> int:
    """``hwrnn quantize``."""
    from hwrnn.onnx_io import save

    model, data = float_model(given.model), dataset_of(given)
    check_fits(model, data)
    check_output(given.output)
    more: dict[str, Any] = {"progress": report.epochs_bar("fine-tune")} if given.finetune else {}
    if given.like is not None:
        more["formats_of"] = quantized_model(given.like)
    result = quantize(
        model, data, given.bits, weight_bits=given.weight_bits, activation_bits=given.activation_bits,
        state_bits=given.state_bits, cell_bits=given.cell_bits, operand_bits=given.operand_bits, method=given.method,
        finetune=given.finetune, **more,
    )  # fmt: skip
    save(result, given.output)
    metric, before = measured(model, data)
    _, after = measured(result, data)
    if given.json:
        facts = {"model": given.output, "metric": metric, "float": before, "fixed": after}
        if given.like is not None:
            facts["saturated_weights"] = result.facts["saturated_weights"]
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
    print(report.table(rows) + "\n\n" + formats_table(result))
    return 0


def formats_table(model: QuantizedModel) -> str:
    """Every stored value with its format and how often calibration data saturated it."""
    rows = []
    for k, layer in enumerate(model.stack):
        kind = "head" if k == len(model.layers) else f"layer {k}"
        for name, form in layer.formats.values.items():
            share = model.saturation.get(f"{k}.{name}")
            rows.append([f"{kind} {name}", form, form.ap_fixed, report.percent(share, 2)])
    return report.table(rows, ["value", "format", "in HLS notation", "saturated"])


def run_compare(given: Any) -> int:
    """``hwrnn compare``."""
    model, data = float_model(given.model), dataset_of(given)
    check_fits(model, data)
    result = comparison(model, data, given.bits, given.method)
    if given.json:
        report.print_json(result)
    else:
        print(comparison_table(result))
    return 0


def run_generate(given: Any) -> int:
    """``hwrnn generate``."""
    from hwrnn.rtl import generate

    model = quantized_model(given.model)
    more = {} if given.name is None else {"name": given.name}
    manifest = generate(
        model, given.output, lanes=given.lanes, argmax=given.argmax, channels=given.channels, target=given.target,
        weights=given.weights, tools=given.tools, clock=given.clock, **more,
    )  # fmt: skip
    if given.json:
        report.print_json(manifest)
        return 0
    print(generated_table(manifest, given.output))
    return 0


def generated_table(manifest: dict[str, Any], folder: str) -> str:
    """What was generated, in a few rows."""
    made = (layer["products_per_lane_multiplier_and_cycle"] for layer in manifest["layers"])
    products = ", ".join(f"{one:.3g}" for one in made)
    rows = [
        ["folder", folder],
        ["lanes asked, built", f"{manifest['lanes']['asked']}, {manifest['lanes']['built']}"],
        ["channels", manifest["channels"]],
        ["cycles a time step", manifest["cycles_per_step"]["value"]],
        ["latency in cycles", manifest["latency"]["value"]],
        ["multipliers", manifest["multipliers"]],
        ["products a lane multiplier and cycle, by layer", products],
        ["memory bits", manifest["memory_bits"]],
    ]
    if "reason" in manifest["lanes"]:
        rows.insert(2, ["lanes of each layer", ", ".join(map(str, manifest["lanes"]["budgets"]))])
    more = [["bound by", manifest["lanes"]["reason"]]] if "reason" in manifest["lanes"] else []
    more += [[project["title"], f"{project['command']} ({project['part']})"] for project in manifest["projects"]]
    return "\n".join([report.table(rows), *(f"{what}: {words}" for what, words in more)])


def run_frames(given: Any) -> int:
    """``hwrnn frames``."""
    from hwrnn.files import atomic_write
    from hwrnn.rtl.load_frames import frames_of_folder, joined

    check_output(given.output)
    frames = frames_of_folder(quantized_model(given.model), given.folder)
    content = joined(frames)
    atomic_write(given.output, content)
    if given.json:
        report.print_json({"file": given.output, "frames": len(frames), "bytes": len(content)})
        return 0
    print(report.table([["file", given.output], ["frames", len(frames)], ["bytes", len(content)]]))
    return 0


def run_simulate(given: Any) -> int:
    """``hwrnn simulate``."""
    from hwrnn.sim import simulate

    model, data = quantized_model(given.model), dataset_of(given)
    check_fits(model, data)
    reference = model.in_float() if given.float is None else float_model(given.float)
    part = data.evaluation
    lanes, timing = _built(model, given.lanes, given.target, given.channels)
    result = simulate(
        model, part.x, part.lengths, y=part.y, float_model=reference, lanes=lanes, timing=timing,
        simulator=given.simulator, argmax=given.argmax, channels=given.channels, count=given.count,
        input_stall=given.input_stall,
        output_stall=given.output_stall, vcd=given.vcd, seed=given.seed, progress=report.Progress("simulate"),
    )  # fmt: skip
    if given.json:
        report.print_json(result.to_json())
    else:
        print(result)
    return 1 if result.fault else 0


def _built(model: QuantizedModel, lanes: Any, target: str | None, channels: int) -> tuple[Any, Any]:
    """The lanes and the registers that ``generate`` builds for a part."""
    from hwrnn.rtl.balance import lanes_for
    from hwrnn.rtl.targets import target_named
    from hwrnn.rtl.timing import SHORTEST

    part = None if target is None else target_named(target)
    timing = SHORTEST if part is None else part.timing
    chosen = lanes_for(model, part, timing, channels) if lanes == "auto" else None
    return (lanes if chosen is None else list(chosen.lanes)), timing


def run_implement(given: Any) -> int:
    """``hwrnn implement``."""
    from hwrnn.rtl.flow import implement

    result = implement(
        given.folder, given.device, board=given.board, baud=given.baud, seeds=given.seeds, steps=given.steps,
        progress=report.Progress("implement"),
    )  # fmt: skip
    if given.json:
        report.print_json(result.to_json())
    else:
        print(result)
    return 0


def run_run(given: Any) -> int:
    """``hwrnn run``."""
    from hwrnn.on_board import run_on_board

    model, data = quantized_model(given.model), dataset_of(given)
    check_fits(model, data)
    part = data.evaluation
    more = {} if given.baud is None else {"baud": given.baud}
    result = run_on_board(
        model, given.port, part.x, part.lengths, y=part.y, count=given.count, timeout=given.timeout,
        progress=report.Progress("run"), **more,
    )  # fmt: skip
    if given.json:
        report.print_json(result.to_json())
    else:
        print(result)
    return 1 if result.mismatches else 0


def run_inspect(given: Any) -> int:
    """``hwrnn inspect``."""
    from hwrnn.inspection import certificate_table, describe, description_table, looks_like_nonlinearity

    if looks_like_nonlinearity(given.file):
        result, text = certificate_table(given.file, given.bits)
    else:
        if given.bits is not None:
            raise UsageError("Bits must be given with a nonlinearity, not with a model")
        result = describe(given.file)
        text = description_table(result)
    if given.json:
        report.print_json(result)
    else:
        print(text)
    return 0


def run_demo(given: Any) -> int:
    """``hwrnn demo``."""
    from hwrnn.demo import demo

    result = demo(Path(given.out), quick=given.quick, seed=given.seed, device=given.device)
    if given.json:
        report.print_json(result.to_json())
    else:
        print(result)
    return 1 if result.report.fault else 0
