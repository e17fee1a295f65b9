"""Evolution instead of gradients: a genetic algorithm on the integer weights themselves, judged by golden.

Nothing is differentiated, so rounding and saturation are part of what is searched and not in its way, and the objective
may be anything that can be computed: the share of errors itself, say.
"""

from __future__ import annotations

import math
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hwrnn.checks import as_integer
from hwrnn.directions import how_layers_run
from hwrnn.errors import UsageError
from hwrnn.fixed import Format
from hwrnn.golden import golden
from hwrnn.model import Model, standardised
from hwrnn.quantization import QuantizedModel, quantize
from hwrnn.training.checkpoint import digest, foreign, load_arrays, save_arrays
from hwrnn.training.population import Objective, Problem, assess, genes_of, genome_of, with_genome
from hwrnn.training.preparation import check_fits, standardised_to

if TYPE_CHECKING:
    from hwrnn.data import Dataset

__all__ = ["Generation", "Submits", "evolve", "starting_point"]

_KIND = "hwrnn evolution checkpoint 1"
_CALIBRATED = 512  # sequences that the result's saturation is counted on, as calibration does
_CHUNKS = 16  # of a generation, for an executor whose workers cannot be counted


class Submits(Protocol):
    """What is asked of an executor: the one method of ``concurrent.futures.Executor`` that every cluster's has."""

    def submit(self, fn: Callable[..., Any], /, *args: Any) -> Any:
        """Begin ``fn(*args)`` somewhere; gives an object whose ``result()`` waits for its value."""
        ...


@dataclass(frozen=True)
class Generation:
    """How far an evolution has come.

    Attributes:
        generation: generations done, of ``generations``.
        best: the objective of the best individual, which is to be small.
        loss: the loss of that individual.
        evaluations: networks judged so far.
        seconds: since this call began.
    """

    generation: int
    generations: int
    best: float
    loss: float
    evaluations: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """The options of :func:`evolve`, checked."""

    generations: int
    population: int
    survivors: float
    elite: int
    rate: tuple[float, float]
    step: tuple[float, float]
    spread: float
    batch: int | None
    noise: float
    seed: int

    def __post_init__(self) -> None:
        as_integer("Generations", self.generations, 1)
        as_integer("Population", self.population, 2)
        as_integer("Elite", self.elite, 1)
        as_integer("Seed", self.seed, 0)
        if self.batch is not None:
            as_integer("Batch", self.batch, 1)
        _share("Survivors", self.survivors)
        for name, pair in (("Rate", self.rate), ("Step", self.step)):
            if not isinstance(pair, (tuple, list)) or len(pair) != 2:
                raise UsageError(f"{name} must be a pair, of the first generation and of the last, not {pair!r}")
            for value in pair:
                _share(name, value)
        for name, value in (("Spread", self.spread), ("Noise", self.noise)):
            if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
                raise UsageError(f"{name} must be a finite number of at least 0, not {value!r}")
        if self.elite >= self.population:
            raise UsageError(f"Elite must be smaller than the population of {self.population}, not {self.elite}")

    @property
    def parents(self) -> int:
        """How many individuals have children."""
        return max(2, self.elite, round(self.survivors * self.population))

    def at(self, pair: tuple[float, float], generation: int) -> float:
        """A value that falls (or rises) by the same factor every generation."""
        done = generation / max(1, self.generations - 1)
        return float(pair[0] * (pair[1] / pair[0]) ** done)


def _share(name: str, value: Any) -> None:
    if not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise UsageError(f"{name} must be above 0 and at most 1, not {value!r}")


def starting_point(
    model: Model, dataset: Dataset, bits: int | None = None, *, reach: float = 2.0, **widths: Any
) -> QuantizedModel:
    """An untrained float model as evolution wants it: standardised to the data, and in formats with room to grow.

    Calibration would give the weights and values of an untrained network formats that hold these and no larger ones;
    so it sees a network with weights ``reach`` times as large.

    Args:
        bits, widths: as :func:`hwrnn.quantization.quantize` takes them, but calibrated by ``mse`` where no method is
            given: the loss of an untrained network tells nothing of its formats.
        reach: 2 to 4 served alike in trials, and 1 trained five times worse.

    Raises:
        UsageError: data that do not fit the model, or options outside their range.
    """
    if not isinstance(reach, (int, float)) or not math.isfinite(reach) or reach <= 0:
        raise UsageError(f"Reach must be a finite number above 0, not {reach!r}")
    check_fits(model, dataset)
    model = standardised_to(model, dataset.train, np.arange(len(dataset.train.x)))

    def larger(layer: Any) -> Any:
        return replace(layer, parameters={name: p * np.float32(reach) for name, p in layer.parameters.items()})

    head = None if model.head is None else larger(model.head)
    model = replace(model, layers=tuple(larger(layer) for layer in model.layers), head=head)
    return quantize(model, dataset, bits, **{"method": "mse", **widths})


def evolve(
    model: Model | QuantizedModel,
    dataset: Dataset,
    *,
    generations: int = 150,
    population: int = 128,
    objective: str | Objective = "loss",
    survivors: float = 1 / 8,
    elite: int = 2,
    rate: tuple[float, float] = (0.15, 0.05),
    step: tuple[float, float] = (0.2, 0.01),
    spread: float | None = None,
    batch: int | None = None,
    noise: float = 0.0,
    bits: int | None = None,
    seed: int = 0,
    executor: Executor | Submits | None = None,
    workers: int | None = None,
    progress: Callable[[Generation], None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
) -> QuantizedModel:
    """Search integer weights and biases with a genetic algorithm; the model given stays as it is.

    Every individual is a whole network in the formats of the model given. The best share of a population become
    parents (truncation selection), a child takes each gene from either of two (uniform crossover: Syswerda, ICGA 1989),
    and a share of its genes move by a normally distributed number of steps, at least one; share and step shrink from
    generation to generation. The best few live on unchanged. (Such, Madhavan et al., Deep Neuroevolution,
    arXiv:1712.06567, 2017, show how far this goes.)

    Args:
        model: a quantized model, trained or not, whose formats stay; or a float one, which is quantized first: as it is
            where it was trained, else by :func:`starting_point`.
        dataset: its training part is learnt from; the test part is never looked at.
        generations, population: how many, and individuals in each; ``generations * population`` networks are judged at
            most.
        objective: what is made small. ``loss`` is the cross entropy of a classification and the mean square error of
            the standardised targets of a regression; ``metric`` the share of errors (1 - accuracy), or the RMSE; or a
            function of predictions, targets and lengths (see ``population.Objective``), which must be importable to be
            sent to another process. Of individuals equal in it the one with the smaller loss is better, then the older.
        survivors: share of the population that has children.
        elite: how many live on unchanged.
        rate: share of a child's genes that mutate, in the first generation and in the last.
        step: the standard deviation of a mutation as a share of the range of the weight's format, likewise.
        spread: that of the first population around the model given, for every gene; None for the first step where it
            was trained and one eighth of the range where not.
        batch: sequences that a generation is judged by, drawn anew for each; None for all. The result is then the best
            of the last parents on all of them.
        noise: deviation of Gaussian noise on the standardised input, drawn anew for each generation.
        bits: of a float model, 8 where None.
        seed: of everything random. The result depends on it, not on the executor or the number of workers.
        executor: anything with ``submit``, a cluster's (tried: Dask's ``Client.get_executor()``) or a pool of threads,
            say; None for processes of our own.
        workers: processes, or with an executor the parts that a population is sent in; None for one each core. One
            without an executor is the calling process.
        progress: called after each generation.
        checkpoint: a file that is replaced after each generation.
        resume: go on from the checkpoint; the result is the same, bit for bit, as without the interruption.

    Returns:
        the best network, with the options and values of the search in ``facts["evolution"]``.

    Raises:
        UsageError: an option outside its range, data that do not fit the model, an objective that is not finite,
            processes that cannot start, or a checkpoint that is not of this run.
    """
    trained = isinstance(model, QuantizedModel) or "data" in model.facts
    if isinstance(model, QuantizedModel):
        if bits is not None:
            raise UsageError("Bits must be left out with a model that is quantized already")
    elif trained:
        model = quantize(model, dataset, bits)
    else:
        model = starting_point(model, dataset, bits)
    check_fits(model, dataset)
    if not callable(objective) and objective not in ("loss", "metric"):
        raise UsageError(f"Objective must be loss, metric or a function, not {objective!r}")
    if spread is None:
        spread = step[0] if "data" in model.facts else 1 / 8
    plan = Plan(generations, population, survivors, elite, rate, step, spread, batch, noise, seed)
    if workers is not None:
        workers = as_integer("Workers", workers, 1)
    run = _Evolution(model, dataset, plan, objective, progress)
    if resume:
        if checkpoint is None:
            raise UsageError("Resume must come with the path of a checkpoint")
        run.restore(checkpoint)
    with _sender(executor, workers, objective) as (submit, parts):
        return run.go(submit, parts, checkpoint)


@contextmanager
def _sender(
    executor: Any, workers: int | None, objective: str | Objective
) -> Iterator[tuple[Callable[..., Any] | None, int]]:
    """How work is sent out, None for not at all, and in how many parts."""
    if executor is not None:
        if not callable(getattr(executor, "submit", None)):
            raise UsageError(f"Executor must have a method submit as those of concurrent.futures do, not {executor!r}")
        yield executor.submit, _CHUNKS if workers is None else workers
        return
    if workers is None:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if workers == 1:
        yield None, 1
        return
    try:
        pickle.dumps(objective)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(
            f"Objective must be a function of a module to be sent to processes, not {objective!r}: or give workers=1"
        ) from error
    # A fork would copy threads in any state; a fresh interpreter is the one way that works everywhere.
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        try:
            yield lambda work, *given: _without_interrupts(pool.submit, work, *given), workers
        except BrokenProcessPool as error:
            raise UsageError(
                "Processes must be able to start and to stay: put a script's own work below"
                " if __name__ == '__main__', or give workers=1"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _without_interrupts(submit: Callable[..., Any], *given: Any) -> Any:
    """Submit, where new processes may be started, which are to leave Ctrl-C to the one that ends them.

    It reaches every process of a terminal. What a thread blocks its new processes block too, from their first moment;
    here it is only put off.
    """
    if not hasattr(signal, "pthread_sigmask"):
        return submit(*given)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return submit(*given)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _smallest(form: Format) -> np.dtype:
    """The smallest signed integer type that holds a format: it is sent to other machines."""
    return next(np.dtype(f"i{n}") for n in (1, 2, 4, 8) if form.hi < 1 << (8 * n - 1))


class _Evolution:
    """One run: the population, and all that a checkpoint must hold."""

    def __init__(
        self,
        model: QuantizedModel,
        dataset: Dataset,
        plan: Plan,
        objective: str | Objective,
        progress: Callable[[Generation], None] | None,
    ) -> None:
        self.model, self.data, self.plan = model, dataset, plan
        self.objective, self.progress = objective, progress
        self.genes = genes_of(model)
        self.genomes = self.first(genome_of(model))
        self.values = np.full((plan.population, 2), np.nan)
        self.done = self.evaluations = 0
        part = dataset.train
        name = objective if isinstance(objective, str) else getattr(objective, "__qualname__", "a function")
        self.facts = asdict(plan) | {"objective": name}
        forms = [(f.values, f.weights, f.bias_frac, f.shifts) for f in (layer.formats for layer in model.stack)]
        cells: list[Any] = [(layer.cell, layer.inputs, layer.units) for layer in model.stack]
        cells += how_layers_run(model)
        scaling = (model.input_mean, model.input_scale, model.output_mean, model.output_scale)
        self.identity = {
            "model": digest(cells, forms, model.every_step, model.encoder, genome_of(model), *scaling),
            "data": digest(part.x, part.y, part.lengths),
            "options": digest(self.facts),
        }

    def first(self, start: np.ndarray) -> np.ndarray:
        """The population before the first generation: the start itself, and others around it."""
        plan, genes = self.plan, self.genes
        rng = np.random.default_rng([plan.seed, 0])
        away = rng.standard_normal((plan.population, len(start))) * plan.spread * genes.levels
        away[0] = 0
        return np.clip(start + np.rint(away).astype(np.int64) * genes.quantum, genes.lo, genes.hi)

    @property
    def varies(self) -> bool:
        """Whether each generation is judged by other data, so that earlier values do not compare."""
        count = len(self.data.train.x)
        return self.plan.noise > 0 or (self.plan.batch is not None and self.plan.batch < count)

    def problem(self, generation: int | None) -> Problem:
        """What a generation is judged by; None for the whole training part as it is."""
        part, plan, model = self.data.train, self.plan, self.model
        x, y, lengths = standardised(part.x, model.input_mean, model.input_scale), part.y, part.lengths
        if generation is not None and self.varies:
            rng = np.random.default_rng([plan.seed, 1, generation])
            if plan.batch is not None and plan.batch < len(x):
                rows = np.sort(rng.choice(len(x), plan.batch, replace=False))
                x, y, lengths = x[rows], y[rows], lengths[rows]
            if plan.noise:
                x = x + np.float32(plan.noise) * rng.standard_normal(x.shape, np.float32)
        raw = model.input_format.quantize(x)
        return Problem(model, raw.astype(_smallest(model.input_format)), y, lengths, self.data.per_step, self.objective)

    def go(
        self, submit: Callable[..., Any] | None, parts: int, checkpoint: str | os.PathLike[str] | None
    ) -> QuantizedModel:
        """Evolve to the end; the best network."""
        start, plan = time.perf_counter(), self.plan
        problem = None if self.varies else self.problem(None)
        while self.done < plan.generations:
            if self.done:
                self.breed()
            self.judge(problem or self.problem(self.done), submit, parts)
            self.done += 1
            if checkpoint is not None:
                self.save(checkpoint)
            if self.progress is not None:
                best, loss = map(float, self.values[0])
                loss = best if self.objective == "loss" else loss
                seconds = time.perf_counter() - start
                self.progress(Generation(self.done, plan.generations, best, loss, self.evaluations, seconds))
        if self.varies:
            self.genomes, self.values = self.genomes[: plan.parents], np.full((plan.parents, 2), np.nan)
            self.judge(self.problem(None), submit, parts)
        return self.result()

    def judge(self, problem: Problem, submit: Callable[..., Any] | None, parts: int) -> None:
        """Find the values that are missing and put the population in order, the best first."""
        unknown = np.flatnonzero(np.isnan(self.values[:, 0]))
        genomes = self.genomes[unknown]
        if submit is None:
            found = [assess(problem, genomes)]
        else:
            chunks = [part for part in np.array_split(genomes, min(parts, len(genomes))) if len(part)]
            pending = [submit(assess, problem, chunk) for chunk in chunks]
            found = [one.result() for one in pending]
        self.values[unknown] = np.concatenate(found)
        self.evaluations += len(unknown)
        # Stable, so that of equals the older stays in front, whoever judged it.
        order = np.lexsort((self.values[:, 1], self.values[:, 0]))
        self.genomes, self.values = self.genomes[order], self.values[order]

    def breed(self) -> None:
        """The next generation from a population in order: the elite, and children of the parents."""
        plan, genes = self.plan, self.genes
        rng = np.random.default_rng([plan.seed, 2, self.done])
        children = plan.population - plan.elite
        shape = (children, self.genomes.shape[1])
        mothers, fathers = self.genomes[rng.integers(plan.parents, size=(2, children))]
        born = np.where(rng.random(shape) < 0.5, mothers, fathers)
        moves = np.rint(rng.standard_normal(shape) * plan.at(plan.step, self.done) * genes.levels).astype(np.int64)
        moves += (moves == 0) * rng.choice([-1, 1], shape)
        moves *= rng.random(shape) < plan.at(plan.rate, self.done)
        born = np.clip(born + moves * genes.quantum, genes.lo, genes.hi)
        self.genomes = np.concatenate([self.genomes[: plan.elite], born])
        known = self.values[: plan.elite] if not self.varies else np.full((plan.elite, 2), np.nan)
        self.values = np.concatenate([known, np.full((children, 2), np.nan)])

    def result(self) -> QuantizedModel:
        """The best network, with what is known of its search."""
        best = with_genome(self.model, self.genomes[0])
        part, value = self.data.train, float(self.values[0, 0])
        seen = np.unique(np.linspace(0, len(part.x) - 1, min(len(part.x), _CALIBRATED)).round().astype(int))
        counted = golden(best, best.quantize_input(part.x[seen]), part.lengths[seen])
        facts = {**self.facts, "rate": list(self.plan.rate), "step": list(self.plan.step)}
        facts |= {"evaluations": self.evaluations, "value": value}
        known = {**self.model.facts, "data": self.data.name, "evolution": facts}
        return replace(best, facts=known, saturation=counted.saturation)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint, whole or not at all."""
        arrays = {"genomes": self.genomes, "values": self.values}
        state = {"done": self.done, "evaluations": self.evaluations}
        save_arrays(path, _KIND, arrays, state, self.identity)

    def restore(self, path: str | os.PathLike[str]) -> None:
        """Go back to a saved generation."""
        shapes = {"genomes": (np.dtype(np.int64), self.genomes.shape), "values": (np.dtype(float), self.values.shape)}
        arrays, state = load_arrays(path, _KIND, shapes, self.identity)
        self.genomes, self.values = arrays["genomes"], arrays["values"]
        try:
            self.done, self.evaluations = int(state["done"]), int(state["evaluations"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise foreign(path) from error
