"""``hwrnn export``: write a model in a form that other tools read."""

from __future__ import annotations

import argparse
from typing import Any

from hwrnn import report
from hwrnn.commands.options import data_options
from hwrnn.errors import MissingExtra, UsageError

__all__ = ["EXAMPLE", "FORMS", "WORDS", "options", "run"]

WORDS = "write a model for other tools: standard ONNX operators, QONNX, QDQ or C"
EXAMPLE = "hwrnn export q.onnx --form qonnx -o other.onnx"

#: What each form is, of which kind of model.
FORMS = {
    "onnx": "hwrnn's own file: runs in ONNX Runtime and loads again",
    "standard": "of a float model, ONNX's RNN, GRU and LSTM alone",
    "qonnx": "of a quantized model, a QONNX Quant node behind every stored value: the same bits",
    "qonnx-standard": "of a quantized model, QONNX Quant nodes around standard operators",
    "qdq": "of a quantized model, QuantizeLinear and DequantizeLinear around standard operators",
    "c": "of a quantized model, C99 in a folder: the same bits",
}
_SEQUENCES, _STEPS = 64, 24  # of noise, where there are no data to measure on


def options(parser: argparse.ArgumentParser) -> None:
    """Add what the verb is given."""
    parser.add_argument("model", help="a model of hwrnn")
    forms = "; ".join(f"{name}: {words}" for name, words in FORMS.items())
    parser.add_argument("--form", default="onnx", metavar="F", help=f"{forms} (default onnx)")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="the file; of the form c the folder")
    data_options(parser, required=False)


def run(given: Any) -> int:
    """Run the verb; the exit code."""
    from hwrnn.commands.given import check_fits, check_output, dataset_of
    from hwrnn.onnx_io import load, save
    from hwrnn.quantization import QuantizedModel

    if given.form not in FORMS:
        raise UsageError(f"Form must be one of {', '.join(FORMS)}, not {given.form!r}")
    measured = given.form in ("qonnx", "qonnx-standard", "qdq")
    if given.data is not None and not measured:
        raise UsageError(f"Data must come with a form to measure on them, not with {given.form}")
    model = load(given.model)
    found: dict[str, Any] = {"model": given.model, "form": given.form, "file": given.output}
    if given.form == "c":
        from hwrnn.c_reference import write_c

        if not isinstance(model, QuantizedModel):
            raise UsageError("Model must be quantized for the form c, not a float one: run hwrnn quantize first")
        made = write_c(model, given.output, "network")
        found |= {"files": sorted(made.files), "same_bits": True}
    elif measured:
        from hwrnn.files import atomic_write
        from hwrnn.qonnx import exact, quantized_proto

        proto = quantized_proto(model, given.form)  # type: ignore[arg-type]
        assert isinstance(model, QuantizedModel)
        x, lengths = _noise(model)
        found["measured_on"] = "noise"
        if given.data is not None:
            data = dataset_of(given)
            check_fits(model, data)
            x, lengths = data.evaluation.x, data.evaluation.lengths
            found["measured_on"] = given.data
        atomic_write(given.output, proto.SerializeToString(deterministic=True))
        found["same_bits"] = given.form == "qonnx" and exact(model)
        found["difference_lsb"] = _difference(model, proto, x, lengths)
    else:
        check_output(given.output)
        if given.form == "standard":
            _check_said(model)
        save(model, given.output)
        found["same_bits"] = True
    if given.json:
        report.print_json(found)
    else:
        print(_table(found))
    return 0


def _check_said(model: Any) -> None:
    """Refuse what ONNX's operators cannot say, with the reason."""
    from hwrnn.model import Model
    from hwrnn.onnx_standard import unsaid

    if not isinstance(model, Model):
        raise UsageError(
            "Model must be a float one for the form standard: a quantized one is written as onnx, qonnx or qdq"
        )
    for k, layer in enumerate(model.layers):
        reason = unsaid(layer) if layer.cell.states else None
        if reason is not None:
            raise UsageError(
                f"Layer {k} must be one that standard operators say, but {reason}: take the form onnx, or other"
                " nonlinearities"
            )


def _noise(model: Any) -> tuple[Any, Any]:
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.standard_normal((_SEQUENCES, _STEPS, model.inputs))
    scale = np.where(model.input_scale == 0, 1, model.input_scale)
    return (x / scale + model.input_mean).astype(np.float32), rng.integers(1, _STEPS + 1, _SEQUENCES)


def _difference(model: Any, proto: Any, x: Any, lengths: Any) -> dict[str, float] | str:
    from hwrnn.qonnx import difference

    try:
        off = difference(model, proto, x, lengths)
    except MissingExtra as error:
        return str(error)
    return {"largest": off.largest, "mean": off.mean, "share": off.share, "outputs": off.outputs}


def _table(found: dict[str, Any]) -> str:
    rows = [["written", found["file"]], ["form", found["form"]]]
    notes = [FORMS[found["form"]]]
    if found["form"] in ("qonnx", "qonnx-standard", "qdq"):
        rows.append(["the hardware's bits", "yes" if found["same_bits"] else "not guaranteed"])
        off = found["difference_lsb"]
        if isinstance(off, str):
            notes.append(f"How far it is from the hardware was not measured: {off}")
        else:
            rows += [
                [f"measured on {found['measured_on']}", f"{off['outputs']} outputs"],
                ["largest difference", f"{off['largest']:.4g} LSB of the output"],
                ["mean difference", f"{off['mean']:.4g} LSB of the output"],
                ["outputs that differ", report.percent(off["share"])],
            ]
    if found["form"] == "qonnx" and not found["same_bits"]:
        notes.append("Sums of this model need more than the 24 bits that float32 holds: other bits are possible")
    if found["form"] == "qonnx-standard":
        notes.append("Quant rounds half to even here (its HALF_UP would round half away from zero), hardware half up")
    if found["form"] == "qdq":
        notes.append("QuantizeLinear rounds half to even, hardware half up; values of more than 8 bits are not rounded")
    if found["form"] in ("qdq", "qonnx-standard"):
        notes.append("Inside a standard operator nothing is rounded")
    return "\n".join([report.table(rows), *notes])
