"""The loop over the data: one training run, which can stop after any epoch and go on."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hwrnn.directions import how_layers_run
from hwrnn.errors import Diverged, UsageError
from hwrnn.formats import LayerFormats
from hwrnn.model import Model
from hwrnn.training.c_kernel import arithmetic
from hwrnn.training.checkpoint import Checkpoint, digest, foreign
from hwrnn.training.losses import LOSSES
from hwrnn.training.network import Network
from hwrnn.training.optimizer import SCHEDULES, AdamW, clip_norm
from hwrnn.training.options import Options, Progress
from hwrnn.training.preparation import prepared
from hwrnn.training.spectral import SpectralBound
from hwrnn.training.threads import single_thread_blas

if TYPE_CHECKING:
    from hwrnn.data import Dataset

__all__ = ["Run"]


#: Finds formats for a model whose formats so far are given.
Search = Callable[[Model, Sequence[Any]], Sequence[Any]]


@dataclass
class Best:
    """The least validation loss so far, its epoch, its parameters and the formats that it was found with."""

    loss: float
    epoch: int
    masters: np.ndarray
    formats: Sequence[Any] | None


class Run:
    """One training run: its data, its network, and all that a checkpoint must hold.

    Args:
        search: finds the formats of a model anew, after every ``search_every`` epochs but the last.
    """

    def __init__(
        self,
        model: Model,
        dataset: Dataset,
        parts: tuple[np.ndarray, np.ndarray],
        options: Options,
        formats: Sequence[Any] | None,
        progress: Callable[[Progress], None] | None,
        search: Search | None = None,
        search_every: int = 0,
        compiled: bool | None = None,
    ) -> None:
        self.formats, self.search, self.search_every = formats, search, search_every
        self.options, self.progress, self.per_step = options, progress, dataset.per_step
        self.learnt = prepared(model, dataset.train, parts[0])
        self.held = prepared(model, dataset.train, parts[1]) if len(parts[1]) else None
        size, steps = self.learnt.x.shape[:2]
        work = options.epochs * size * steps * sum(layer.multiplications for layer in model.stack)
        in_c = arithmetic([(layer.cell, formats is not None) for layer in model.stack], work, compiled)
        self.network = Network(model, formats, compiled=in_c is not None)
        self.spectral = self._spectral_bound()
        self.optimizer = AdamW(self.network.masters)
        self.loss = LOSSES[options.loss]
        self.rng = np.random.default_rng(options.seed)
        self.decay = self.network.decays * np.float32(options.weight_decay)
        self.batches = math.ceil(len(self.learnt.x) / options.batch)
        self.losses: list[float] = []
        self.norms: list[float] = []  # of the gradients of each epoch the largest, before clipping
        self.best = Best(math.inf, 0, self.network.masters.copy(), formats)
        cells: list[Any] = [(la.cell, la.inputs, la.units) for la in model.stack]
        cells += [model.encoder] * bool(model.encoder) + how_layers_run(model)
        stored = None if formats is None else [(f.values, f.weights, f.bias_frac) for f in formats]
        self.identity = {
            "model": digest(cells, model.every_step, stored, self.network.masters),
            "data": digest(self.learnt.x, self.learnt.y, self.learnt.lengths),
            "options": digest(options.facts, *[search_every] * bool(search_every)),
            "choice of compiled": "numpy" if in_c is None else "C",
            "compiler and CPU": "any" if in_c is None else in_c,
        }

    def go(self, checkpoint: str | os.PathLike[str] | None, resume: bool) -> tuple[Model, dict[str, Any]]:
        """Train to the end; returns the model and what came of it."""
        if resume:
            if checkpoint is None:
                raise UsageError("Resume must come with the path of a checkpoint")
            found = Checkpoint.load(checkpoint, self.identity, len(self.network.masters))
            try:
                self.restore(found)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise foreign(checkpoint) from error
        options, start = self.options, time.perf_counter()
        with single_thread_blas():
            while not self.ended:
                loss = self.epoch()
                validation = self.validate()
                if self.search_every and len(self.losses) % self.search_every == 0 and not self.ended:
                    assert self.search is not None and self.formats is not None
                    self.adopt(self.search(self.network.trained(), self.formats))
                if checkpoint is not None:
                    self.saved().save(checkpoint)
                if self.progress is not None:
                    seconds = time.perf_counter() - start
                    done = len(self.losses)
                    self.progress(Progress(done, options.epochs, loss, validation, seconds, self.norms[-1]))
        outcome: dict[str, Any] = {"training_loss": self.losses[-1], "largest_gradient_norm": max(self.norms)}
        outcome["compiled"] = self.network.compiled
        masters = self.network.masters
        if options.patience is not None:
            masters = self.best.masters
            if self.search_every:
                self.adopt(self.best.formats)
            outcome |= {"validation_loss": self.best.loss, "best_epoch": self.best.epoch}
        return self.network.trained(masters), outcome

    @property
    def ended(self) -> bool:
        """Whether all epochs are done, or none has been better for as many as patience lasts."""
        patience, done = self.options.patience, len(self.losses)
        return done >= self.options.epochs or (patience is not None and done - self.best.epoch >= patience)

    def _spectral_bound(self) -> SpectralBound | None:
        bound = self.options.spectral_norm
        return None if bound is None else SpectralBound(self.network, bound)

    def adopt(self, formats: Sequence[Any] | None) -> None:
        """Go on with other formats; the masters, the optimizer's state and the rate's schedule stay as they are."""
        from hwrnn.quantization import with_hardware_functions

        if formats is None or formats == self.formats:
            return
        masters = self.network.masters
        self.formats = formats
        model = with_hardware_functions(self.network.model, formats)
        self.network = Network(model, formats, compiled=self.network.compiled)
        self.network.masters[...] = masters
        self.spectral = self._spectral_bound()

    def epoch(self) -> float:
        """One pass over the data; returns its mean loss."""
        options, network, data = self.options, self.network, self.learnt
        order = self.rng.permutation(len(data.x))
        steps, total, largest = options.epochs * self.batches, 0.0, 0.0
        schedule = SCHEDULES[options.schedule]
        for start in range(0, len(order), options.batch):
            rows = order[start : start + options.batch]
            x = data.x[rows]
            if options.noise:
                x += np.float32(options.noise) * self.rng.standard_normal(x.shape, np.float32)
            loss = network.loss_and_gradient(x, data.lengths[rows], data.targets(rows, self.per_step), self.loss)
            norm = clip_norm(network.gradient, math.inf if options.clip is None else options.clip)
            if not math.isfinite(loss) or not math.isfinite(norm):
                raise self.diverged()
            largest = max(largest, norm)
            rate = options.rate * schedule(self.optimizer.steps, steps)
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is told below, or by the next loss
                self.optimizer.update(network.masters, network.gradient, rate, self.decay)
            if network.quantized:
                network.project()
            if self.spectral is not None:
                self.spectral.project()
            total += loss * len(rows)
        if not np.isfinite(network.masters).all():
            raise self.diverged()
        self.losses.append(total / len(order))
        self.norms.append(largest)
        return self.losses[-1]

    def diverged(self) -> Diverged:
        """The sentence for a run that left the finite numbers."""
        return Diverged(
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
            self.best = Best(loss, len(self.losses), self.network.masters.copy(), self.formats)
        return loss

    def saved(self) -> Checkpoint:
        """The state after the epochs so far."""
        state: dict[str, Any] = {
            "losses": self.losses,
            "norms": self.norms,
            "updates": self.optimizer.steps,
            "generator": self.rng.bit_generator.state,
            "best_loss": None if self.best.epoch == 0 else self.best.loss,
            "best_epoch": self.best.epoch,
        }
        if self.search_every:
            for name, formats in (("formats", self.formats), ("best_formats", self.best.formats)):
                state[name] = [f.to_json() for f in formats or ()]
        arrays = (self.network.masters, self.optimizer.first, self.optimizer.second, self.best.masters)
        return Checkpoint(*arrays, state=state, identity=self.identity)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to a saved state."""
        state = checkpoint.state
        best_formats = self.formats
        if self.search_every:
            best_formats = [LayerFormats.from_json(f) for f in state["best_formats"]]
            self.adopt([LayerFormats.from_json(f) for f in state["formats"]])
        self.network.masters[...] = checkpoint.masters
        self.optimizer.first[...], self.optimizer.second[...] = checkpoint.first, checkpoint.second
        self.optimizer.steps, self.losses = int(state["updates"]), [float(v) for v in state["losses"]]
        self.norms = [float(v) for v in state["norms"]]
        if not 0 < len(self.losses) == len(self.norms) <= self.options.epochs or self.optimizer.steps < 1:
            raise ValueError  # a checkpoint is written after an epoch
        if not all(map(math.isfinite, (*self.losses, *self.norms))):
            raise ValueError
        self.rng.bit_generator.state = state["generator"]
        loss = math.inf if state["best_loss"] is None else float(state["best_loss"])
        self.best = Best(loss, int(state["best_epoch"]), checkpoint.best.copy(), best_formats)
