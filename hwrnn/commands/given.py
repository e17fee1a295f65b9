"""From what a person gave on the command line to models and data, checked before the work begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hwrnn.data import Dataset, load_dataset
from hwrnn.errors import UsageError
from hwrnn.model import Model, build_model
from hwrnn.quantization import QuantizedModel

__all__ = ["check_fits", "check_output", "dataset_of", "float_model", "new_model", "quantized_model", "resumable"]


def dataset_of(given: Any) -> Dataset:
    """The data set that the options name."""
    more = {} if given.horizon is None else {"horizon": given.horizon}
    return load_dataset(given.data, column=given.column, window=given.window, reconstruct=given.reconstruct, **more)


def check_output(path: str) -> None:
    """Refuse a file that cannot be written before the work, not after it.

    Raises:
        UsageError: a folder that does not exist or cannot be written.
    """
    from hwrnn.files import check_writable

    check_writable(Path(path))


@contextmanager
def resumable(given: Any) -> Iterator[None]:
    """Tell somebody who interrupts a run how it goes on, where it left a checkpoint."""
    try:
        yield
    except KeyboardInterrupt:
        if given.checkpoint is not None and Path(given.checkpoint).is_file():
            raise KeyboardInterrupt(f"the same command with --resume goes on from {given.checkpoint!r}") from None
        raise


def new_model(given: Any, data: Dataset) -> Model:
    """The untrained network that the options of ``network_options`` describe, for a data set.

    Raises:
        UsageError: an option outside its range, or an unknown name.
    """
    hidden: Any = [32] if given.hidden is None else given.hidden
    layers = len(hidden) if given.layers is None else given.layers
    names = ("cell", "activation", "gate", "cell_clip", "init", "encoder", "bidirectional")
    chosen = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    return build_model(
        data.inputs, data.outputs, hidden=hidden[0] if len(hidden) == 1 else hidden, layers=layers,
        every_step=data.per_step, task=data.task, seed=given.seed, **chosen,
    )  # fmt: skip


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
    rebuilds = model.task == "regression" and model.every_step and model.inputs == model.outputs == data.inputs
    mend = ": an autoencoder's data need --reconstruct" if rebuilds else ""
    if (model.inputs, model.outputs) != (data.inputs, data.outputs):
        raise UsageError(
            f"Data must have {model.inputs} features and {model.outputs} outputs as the model does, "
            f"not {data.inputs} and {data.outputs}{mend}"
        )
    if model.task != data.task or model.every_step != data.per_step:
        raise UsageError(
            f"Data must be for {model.task}{' of every step' * model.every_step} as the model is, "
            f"not for {data.task}{' of every step' * data.per_step}{mend}"
        )
