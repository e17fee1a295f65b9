"""Training a model by gradients, in float or in the loop with quantization."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hwrnn.errors import UsageError
from hwrnn.model import Model
from hwrnn.training.options import Options, Progress, default_loss, default_noise
from hwrnn.training.preparation import check_fits, hold_out, standardised_to
from hwrnn.training.run import Run, Search

if TYPE_CHECKING:
    from hwrnn.data import Dataset

__all__ = ["finetune", "finetune_searching", "train"]

_FINER = 0.1  # of the training rate, for fine-tuning: measured, docs/decisions/014


def train(
    model: Model,
    dataset: Dataset,
    *,
    epochs: int = 80,
    batch: int = 32,
    rate: float = 0.01,
    weight_decay: float = 1e-4,
    clip: float | None = 1.0,
    noise: float | None = None,
    validation: float = 0.0,
    patience: int | None = None,
    seed: int = 0,
    loss: str | None = None,
    schedule: str = "cosine",
    spectral_norm: float | None = None,
    standardise: bool = True,
    compiled: bool | None = None,
    progress: Callable[[Progress], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
) -> Model:
    """Train a model by backpropagation through time; the model given stays as it is.

    AdamW with a rate that falls along a cosine, clipping of the gradient's norm, Gaussian noise on the input, shuffled
    batches. The result holds the standardisation of the training data and, in ``facts``, the options, the losses and
    the largest norm of a gradient before clipping.

    Args:
        dataset: its training part is learnt from; the test part is never looked at.
        noise: None for 0.7 in a classification and 0 in a regression.
        spectral_norm: keep the 2-norm of every recurrent matrix at or below this, by projection after every update.
        standardise: whether the model takes the standardisation of the training data, or keeps the scales that it has.
        compiled: whether to train in compiled C or in numpy, whose sums round differently; None for C where there is a
            compiler and the run is long enough to pay for it. Which one it was stands in the facts.
        loss: None for ``cross_entropy`` in a classification and ``mse`` in a regression (or ``mae``).
        progress: called after each epoch.
        checkpoint: a file that is replaced after each epoch.
        resume: go on from the checkpoint; the result is the same, bit for bit, as without the interruption. A run in C
            goes on with the same compiler on the same kind of CPU only.

    The other options are those of :class:`hwrnn.training.options.Options`. Initial states stay as they are.

    Raises:
        UsageError: an option outside its range, data that do not fit the model, a loss that ceases to be finite, a
            checkpoint that is not of this run, or C asked for where there is no compiler.
    """
    check_fits(model, dataset)
    if noise is None:
        noise = default_noise(dataset.task)
    loss = default_loss(dataset.task, loss)
    options = Options(
        epochs, batch, rate, weight_decay, clip, noise, validation, patience, seed, loss, schedule, spectral_norm
    )
    learnt, held = hold_out(dataset, options.validation, options.seed)
    if standardise:
        model = standardised_to(model, dataset.train, learnt)
    run = Run(model, dataset, (learnt, held), options, None, progress, compiled=compiled)
    trained, outcome = run.go(checkpoint, resume)
    return replace(trained, facts={**model.facts, "data": dataset.name, **options.facts, **outcome})


def finetune(
    model: Model,
    dataset: Dataset,
    formats: Sequence[Any],
    epochs: int = 20,
    *,
    rate: float | None = None,
    compiled: bool | None = None,
    progress: Callable[[Progress], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    **options: Any,
) -> Model:
    """Train on with every value and weight rounded to frozen formats, the gradient passing straight through.

    As :func:`finetune_searching` without a search, and without the formats in the result.
    """
    return finetune_searching(
        model, dataset, formats, epochs,
        rate=rate, compiled=compiled, progress=progress, checkpoint=checkpoint, resume=resume, **options,
    )[0]  # fmt: skip


def finetune_searching(
    model: Model,
    dataset: Dataset,
    formats: Sequence[Any],
    epochs: int = 20,
    *,
    search: Search | None = None,
    search_every: int = 0,
    rate: float | None = None,
    compiled: bool | None = None,
    progress: Callable[[Progress], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    **options: Any,
) -> tuple[Model, Sequence[Any]]:
    """Train on with every value and weight rounded, and perhaps look for formats anew every few epochs.

    The forward pass is that of the integer machine. The nonlinearities must be those that hardware computes; the
    standardisation stays as it is. The result's parameters are floats that are still to be rounded.

    Args:
        formats: of every layer of ``model.stack``, as ``hwrnn.formats.LayerFormats``.
        search: takes the model so far and its formats and returns formats.
        search_every: epochs between two searches; 0 for formats that stay frozen. Only the formats change there: the
            optimizer's state and the schedule of the rate go on, and a checkpoint holds the formats too.
        rate: None for 0.1 of the rate that the model was trained with.
        compiled: as in :func:`train`.
        options: further options of :func:`train`; where not given, those the model was trained with.

    Returns:
        the model, and the formats that it was trained with at last.

    Raises:
        UsageError: as :func:`train` does, or a number of epochs between searches that is no whole number.
    """
    check_fits(model, dataset)
    if isinstance(search_every, bool) or not isinstance(search_every, (int, np.integer)) or search_every < 0:
        raise UsageError(f"Epochs between searches must be a whole number of at least 0, not {search_every!r}")
    if len(formats) != len(model.stack):
        raise UsageError(f"Formats must be given for each of the {len(model.stack)} layers, not for {len(formats)}")
    default: dict[str, Any] = {"batch": 32, "weight_decay": 1e-4, "clip": 1.0, "noise": default_noise(dataset.task)}
    default |= {"validation": 0.0, "patience": None, "seed": 0, "schedule": "cosine", "spectral_norm": None}
    unknown = sorted(set(options) - {*default, "loss"})
    if unknown:
        raise UsageError(f"Options of fine-tuning must be among {', '.join([*default, 'loss'])}, not {unknown[0]!r}")
    known = {**default, **{k: model.facts[k] for k in (*default, "loss") if k in model.facts}, **options}
    known["loss"] = default_loss(dataset.task, known.get("loss"))
    if rate is None:
        rate = _FINER * float(model.facts.get("rate", 0.01))
    chosen = Options(epochs=epochs, rate=rate, **known)
    parts = hold_out(dataset, chosen.validation, chosen.seed)
    run = Run(model, dataset, parts, chosen, formats, progress, search, int(search_every), compiled)
    trained, outcome = run.go(checkpoint, resume)
    if search_every:
        outcome["search_every"] = int(search_every)
    assert run.formats is not None
    return replace(trained, facts={**model.facts, "finetuning": {**chosen.facts, **outcome}}), run.formats
