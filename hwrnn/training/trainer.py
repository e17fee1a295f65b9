"""Training a model by gradients, in float or in the loop with quantization."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hwrnn.errors import UsageError
from hwrnn.model import Model
from hwrnn.training.checkpoint import Checkpoint, digest
from hwrnn.training.losses import LOSSES
from hwrnn.training.network import Network
from hwrnn.training.optimizer import AdamW, clip_norm, cosine
from hwrnn.training.options import Options, Progress, default_loss, default_noise
from hwrnn.training.plan import FormatsLike
from hwrnn.training.preparation import check_fits, hold_out, prepared, standardised_to
from hwrnn.training.threads import single_thread_blas

if TYPE_CHECKING:
    from hwrnn.data import Dataset

__all__ = ["finetune", "train"]

_FINER = 0.3  # of the training rate, for fine-tuning


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
    progress: Callable[[Progress], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
) -> Model:
    """Train a model by backpropagation through time; the model given stays as it is.

    AdamW with a rate that falls along a cosine, clipping of the gradient's norm, Gaussian noise on the input, shuffled
    batches. The result holds the standardisation of the training data and, in ``facts``, the options and the losses.

    Args:
        dataset: its training part is learnt from; the test part is never looked at.
        noise: None for 0.7 in a classification and 0 in a regression.
        loss: None for ``cross_entropy`` in a classification and ``mse`` in a regression (or ``mae``).
        progress: called after each epoch.
        checkpoint: a file that is replaced after each epoch.
        resume: go on from the checkpoint; the result is the same, bit for bit, as without the interruption.

    The other options are those of :class:`hwrnn.training.options.Options`.

    Raises:
        UsageError: an option outside its range, data that do not fit the model, a loss that ceases to be finite, or a
            checkpoint that is not of this run.
    """
    check_fits(model, dataset)
    if noise is None:
        noise = default_noise(dataset.task)
    loss = default_loss(dataset.task, loss)
    options = Options(epochs, batch, rate, weight_decay, clip, noise, validation, patience, seed, loss)
    learnt, held = hold_out(dataset, options.validation, options.seed)
    model = standardised_to(model, dataset.train, learnt)
    run = _Run(model, dataset, (learnt, held), options, None, progress)
    trained, outcome = run.go(checkpoint, resume)
    return replace(trained, facts={**model.facts, "data": dataset.name, **options.facts, **outcome})


def finetune(
    model: Model,
    dataset: Dataset,
    formats: Sequence[FormatsLike],
    epochs: int = 20,
    *,
    rate: float | None = None,
    progress: Callable[[Progress], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    **options: Any,
) -> Model:
    """Train on with every value and weight rounded to frozen formats, the gradient passing straight through.

    The forward pass is that of the integer machine. The nonlinearities must be those that hardware computes; the
    standardisation stays as it is. The result's parameters are floats that are still to be rounded.

    Args:
        formats: of every layer of ``model.stack``.
        rate: None for 0.3 of the rate that the model was trained with.
        options: further options of :func:`train`; where not given, those the model was trained with.

    Raises:
        UsageError: as :func:`train` does.
    """
    check_fits(model, dataset)
    if len(formats) != len(model.stack):
        raise UsageError(f"Formats must be given for each of the {len(model.stack)} layers, not for {len(formats)}")
    default = {"batch": 32, "weight_decay": 1e-4, "clip": 1.0, "validation": 0.0, "patience": None, "seed": 0}
    default["noise"] = default_noise(dataset.task)
    unknown = sorted(set(options) - {*default, "loss"})
    if unknown:
        raise UsageError(f"Options of fine-tuning must be among {', '.join([*default, 'loss'])}, not {unknown[0]!r}")
    known = {**default, **{k: model.facts[k] for k in (*default, "loss") if k in model.facts}, **options}
    known["loss"] = default_loss(dataset.task, known.get("loss"))
    if rate is None:
        rate = _FINER * float(model.facts.get("rate", 0.01))
    chosen = Options(epochs=epochs, rate=rate, **known)
    parts = hold_out(dataset, chosen.validation, chosen.seed)
    trained, outcome = _Run(model, dataset, parts, chosen, formats, progress).go(checkpoint, resume)
    return replace(trained, facts={**model.facts, "finetuning": {**chosen.facts, **outcome}})


@dataclass
class _Best:
    """The least validation loss so far, its epoch and its parameters."""

    loss: float
    epoch: int
    masters: np.ndarray


class _Run:
    def __init__(
        self,
        model: Model,
        dataset: Dataset,
        parts: tuple[np.ndarray, np.ndarray],
        options: Options,
        formats: Sequence[FormatsLike] | None,
        progress: Callable[[Progress], None] | None,
    ) -> None:
        self.options, self.progress, self.per_step = options, progress, dataset.per_step
        self.learnt = prepared(model, dataset.train, parts[0])
        self.held = prepared(model, dataset.train, parts[1]) if len(parts[1]) else None
        self.network = Network(model, formats)
        self.optimizer = AdamW(self.network.masters)
        self.loss = LOSSES[options.loss]
        self.rng = np.random.default_rng(options.seed)
        self.decay = self.network.decays * np.float32(options.weight_decay)
        self.batches = math.ceil(len(self.learnt.x) / options.batch)
        self.losses: list[float] = []
        self.best = _Best(math.inf, 0, self.network.masters.copy())
        cells = [(la.cell, la.inputs, la.units) for la in model.stack]
        stored = None if formats is None else [(f.values, f.weights, f.bias_frac) for f in formats]
        self.identity = {
            "model": digest(cells, model.every_step, stored, self.network.masters),
            "data": digest(self.learnt.x, self.learnt.y, self.learnt.lengths),
            "options": digest(options.facts),
        }

    def go(self, checkpoint: str | os.PathLike[str] | None, resume: bool) -> tuple[Model, dict[str, Any]]:
        """Train to the end; returns the model and what came of it."""
        if resume:
            if checkpoint is None:
                raise UsageError("Resume must come with the path of a checkpoint")
            self.restore(Checkpoint.load(checkpoint, self.identity, len(self.network.masters)))
        options, start = self.options, time.perf_counter()
        with single_thread_blas():
            while len(self.losses) < options.epochs and not self.impatient:
                loss = self.epoch()
                validation = self.validate()
                if checkpoint is not None:
                    self.saved().save(checkpoint)
                if self.progress is not None:
                    seconds = time.perf_counter() - start
                    self.progress(Progress(len(self.losses), options.epochs, loss, validation, seconds))
        outcome: dict[str, Any] = {"training_loss": self.losses[-1]}
        masters = self.network.masters
        if options.patience is not None:
            masters = self.best.masters
            outcome |= {"validation_loss": self.best.loss, "best_epoch": self.best.epoch}
        return self.network.trained(masters), outcome

    @property
    def impatient(self) -> bool:
        patience = self.options.patience
        return patience is not None and len(self.losses) - self.best.epoch >= patience

    def epoch(self) -> float:
        """One pass over the data; returns its mean loss."""
        options, network, data = self.options, self.network, self.learnt
        order = self.rng.permutation(len(data.x))
        steps, total = options.epochs * self.batches, 0.0
        for start in range(0, len(order), options.batch):
            rows = order[start : start + options.batch]
            x = data.x[rows]
            if options.noise:
                x += np.float32(options.noise) * self.rng.standard_normal(x.shape, np.float32)
            loss = network.loss_and_gradient(x, data.lengths[rows], data.targets(rows, self.per_step), self.loss)
            norm = clip_norm(network.gradient, math.inf if options.clip is None else options.clip)
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise self.diverged()
            rate = options.rate * cosine(self.optimizer.steps, steps)
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is told below, or by the next loss
                self.optimizer.update(network.masters, network.gradient, rate, self.decay)
            if network.quantized:
                network.project()
            total += loss * len(rows)
        if not np.isfinite(network.masters).all():
            raise self.diverged()
        self.losses.append(total / len(order))
        return self.losses[-1]

    def diverged(self) -> UsageError:
        """The sentence for a run that left the finite numbers."""
        return UsageError(
            f"Training must stay finite, but its loss or gradient does not in epoch {len(self.losses) + 1}:"
            f" lower the rate from {self.options.rate:g} or the clip from {self.options.clip}"
        )

    def validate(self) -> float | None:
        """The loss on the part held out; keeps the parameters where it is the least so far."""
        if self.held is None:
            return None
        total, held = 0.0, self.held
        for start in range(0, len(held.x), self.options.batch):
            rows = np.arange(start, min(start + self.options.batch, len(held.x)))
            outputs = self.network.forward(held.x[rows], held.lengths[rows])
            lengths = held.lengths[rows] if self.per_step else None
            total += self.loss(outputs, held.targets(rows, self.per_step), lengths)[0] * len(rows)
        loss = total / len(held.x)
        if loss < self.best.loss:
            self.best = _Best(loss, len(self.losses), self.network.masters.copy())
        return loss

    def saved(self) -> Checkpoint:
        """The state after the epochs so far."""
        state = {
            "losses": self.losses,
            "updates": self.optimizer.steps,
            "generator": self.rng.bit_generator.state,
            "best_loss": None if self.best.epoch == 0 else self.best.loss,
            "best_epoch": self.best.epoch,
        }
        arrays = (self.network.masters, self.optimizer.first, self.optimizer.second, self.best.masters)
        return Checkpoint(*arrays, state=state, identity=self.identity)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a saved state."""
        state = checkpoint.state
        self.network.masters[...] = checkpoint.masters
        self.optimizer.first[...], self.optimizer.second[...] = checkpoint.first, checkpoint.second
        self.optimizer.steps, self.losses = int(state["updates"]), [float(v) for v in state["losses"]]
        self.rng.bit_generator.state = state["generator"]
        loss = math.inf if state["best_loss"] is None else float(state["best_loss"])
        self.best = _Best(loss, int(state["best_epoch"]), checkpoint.best.copy())
