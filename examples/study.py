"""The frame of a study: a question, many trained networks, tables, a picture and the page they stand on.

A study is a script with a :class:`Study` and ``sys.exit(main(STUDY))``. Its ``measure`` gets a :class:`Run` and
returns plain JSON values; ``write`` turns them into a :class:`~study_page.Section`, whose every number comes from them;
``draw`` draws them. The frame brings the options, the seeds, the progress, the cache of what was measured, and the rule
of the house: a figure of fixed point is golden's, and where :func:`fixed_point` is told to check, the simulated
hardware must give the same values in every unit and step, or the study stops.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the products are too small to share, and the machine is shared

import argparse
import hashlib
import inspect
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import hwrnn
import public_data
from hwrnn.comparing import measured
from hwrnn.data import Dataset
from hwrnn.errors import UsageError, require
from hwrnn.files import atomic_path, atomic_write
from hwrnn.model import Model, build_model
from hwrnn.quantization import QuantizedModel
from hwrnn.report import Progress, say
from recipes import recipe
from study_page import Section, put_section

__all__ = ["HardwareDiffers", "Place", "Run", "Section", "Study", "fixed_point", "main", "trained"]

_PACKAGE = Path(hwrnn.__file__).resolve().parent
_TRAINING = (".", "training")  # folders whose sources decide what a trained model is
_ALL = (*_TRAINING, "rtl", "sim")  # and those of every figure


class HardwareDiffers(Exception):
    """The simulated hardware gave other values than golden; the text names the first."""


@dataclass(frozen=True)
class Place:
    """Where a study reads and keeps things; it may be sent to another process.

    Attributes:
        out: the folder of all studies.
        name: of the study.
        data_folder: of outside data, or None to look for it.
    """

    out: Path
    name: str
    data_folder: Path | None = None

    def dataset(self, name: str) -> Dataset:
        """A data set by its name, as ``public_data.load`` finds it."""
        return public_data.load(name, self.data_folder)

    def kept(self, options: Mapping[str, Any], make: Callable[[], Any]) -> Any:
        """``make()``, plain JSON values, or what it returned when these options were measured by these sources."""
        digest = _digest(options, _sources(_ALL))
        path = self.out / "cache" / self.name / f"{digest}.json"
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, json.dumps({"options": options, "result": make()}))
        return json.loads(path.read_text())["result"]


def trained(place: Place, data: str, *, training: Mapping[str, Any] | None = None, **options: Any) -> Model:
    """A float model trained by the data set's recipe, kept in the folder of all studies and shared by them.

    Args:
        training: options of ``hwrnn.train`` that replace the recipe's.
        options: of ``build_model``; with ``seed``, which also seeds the training.
    """
    seed, chosen = int(options.get("seed", 0)), {**recipe(data), **(training or {})}
    digest = _digest({"data": data, "training": chosen, "model": options}, _sources(_TRAINING))
    path = place.out / "models" / f"{digest}.onnx"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset = place.dataset(data)
        fresh = build_model(dataset.inputs, dataset.outputs, task=dataset.task, every_step=dataset.per_step, **options)
        hwrnn.save(hwrnn.train(fresh, dataset, **{"seed": seed, **chosen}), path)
    model = hwrnn.load(path)
    if not isinstance(model, Model):
        raise UsageError(f"Kept model must be a float model, not {str(path)!r}: remove it")
    return model


def fixed_point(
    model: QuantizedModel, data: Dataset, *, check: bool, count: int | None = None, lanes: int = 8
) -> dict[str, Any]:
    """Golden's metric on the evaluation part, and whether the hardware was checked to give the same.

    Args:
        check: whether to simulate all sequences with CXXRTL and compare every stored value of every step.
        count: only the first sequences are simulated.

    Returns:
        ``value``; and ``hardware``: None, or the ``sequences``, ``steps`` and ``values`` compared.

    Raises:
        HardwareDiffers: hardware and golden differ anywhere.
    """
    metric, value = measured(model, data)
    if not check:
        return {"value": value, "hardware": None}
    from hwrnn.sim import simulate

    part = data.evaluation
    report = simulate(model, part.x, part.lengths, y=part.y, count=count, lanes=lanes, simulator="cxxrtl")
    scores = report.accuracy if metric == "accuracy" else report.rmse
    if report.fault is not None:
        raise HardwareDiffers(f"Hardware differs from golden: {report.fault}")
    if scores["hardware"] != scores["fixed"] or (count is None and scores["fixed"] != value):
        raise HardwareDiffers(f"Hardware must have golden's {metric} {value!r}, not {scores!r}")
    return {
        "value": value,
        "hardware": {"sequences": report.sequences, "steps": report.steps, "values": report.compared},
    }


@dataclass(frozen=True)
class Run:
    """One run of a study.

    Attributes:
        place: where it reads and keeps things.
        seeds: of the networks.
        quick: whether to train next to nothing, for a test that the script runs.
        check_all: whether every network is simulated, not only that of the first seed in a row.
        jobs: processes.
    """

    place: Place
    seeds: tuple[int, ...]
    quick: bool = False
    check_all: bool = False
    jobs: int = 1

    def checks(self, seed: int) -> bool:
        """Whether the networks of this seed are simulated."""
        return self.check_all or seed == self.seeds[0]

    def each(self, work: Callable[..., Any], tasks: Sequence[Mapping[str, Any]]) -> list[Any]:
        """``work(place, **task)`` of every task, in order, each kept by its options and the text of ``work``.

        ``work`` is a function of a module; tasks and results are plain JSON values.
        """
        progress, done = Progress(self.place.name), 0
        keyed = [dict(task) | {"work": f"{work.__name__} {_text_digest(inspect.getsource(work))}"} for task in tasks]

        def told(task: Mapping[str, Any]) -> None:
            nonlocal done
            done += 1
            progress(done, len(tasks), " ".join(str(v) for v in task.values() if isinstance(v, (str, int, float))))

        results = []
        if self.jobs == 1:
            for task, key in zip(tasks, keyed, strict=True):
                results.append(_one(self.place, work, dict(task), key))
                told(task)
            return results
        with ProcessPoolExecutor(self.jobs, mp_context=get_context("spawn")) as pool:
            futures: list[Future[Any]] = [
                pool.submit(_one, self.place, work, dict(task), key) for task, key in zip(tasks, keyed, strict=True)
            ]
            try:
                for task, future in zip(tasks, futures, strict=True):
                    results.append(future.result())
                    told(task)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return results


def _one(place: Place, work: Callable[..., Any], task: dict[str, Any], key: dict[str, Any]) -> Any:
    return place.kept(key, lambda: work(place, **task))


@dataclass(frozen=True)
class Study:
    """A study.

    Attributes:
        name: of its script, in ``study_page.STUDIES``.
        measure: the run to plain JSON values.
        write: these values to the section of ``docs/studies.md``.
        draw: these values onto a matplotlib figure; None for a study without a picture.
        size: of the picture, in inches.
        data: names of data sets that it needs, so that a missing one is told before the work; not for a quick run.
    """

    name: str
    measure: Callable[[Run], dict[str, Any]]
    write: Callable[[dict[str, Any]], Section]
    draw: Callable[[dict[str, Any], Any], None] | None = None
    size: tuple[float, float] = (9.0, 4.2)
    data: tuple[str, ...] = ()


def options(study: Study) -> argparse.ArgumentParser:
    """The options that every study has."""
    parser = argparse.ArgumentParser(
        prog=f"examples/{study.name}.py",
        description=inspect.getmodule(study.measure).__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0 to N-1 (default 5)")
    parser.add_argument("--out", type=Path, default=Path("studies"), help="folder of results (default studies)")
    parser.add_argument("--data-folder", type=Path, help="folder of outside data")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--all", action="store_true", help="simulate the hardware of every seed, not only of the first")
    parser.add_argument("--quick", action="store_true", help="one seed and next to no training: shows that it runs")
    parser.add_argument("--write", action="store_true", help="write the section of docs/studies.md and its picture")
    return parser


def main(study: Study, arguments: Sequence[str] | None = None) -> int:
    """Run a study from the command line: 0, or 2 on a person's mistake, or 1 where the hardware differs."""
    given = options(study).parse_args(arguments)
    try:
        return _main(study, given)
    except UsageError as error:
        say(f"error: {error}")
        return 2
    except HardwareDiffers as error:
        say(f"error: {error}")
        return 1


def _main(study: Study, given: argparse.Namespace) -> int:
    for name in ("seeds", "jobs"):
        if getattr(given, name) < 1:
            raise UsageError(f"{name.capitalize()} must be at least 1, not {getattr(given, name)}")
    if given.write and (given.quick or given.seeds < 2):
        raise UsageError("Page must be written from a whole study of two seeds or more: leave out --write")
    if study.draw is not None:
        require("matplotlib", "plot")  # found out before the work
    place = Place(given.out.resolve(), study.name, given.data_folder)
    for name in () if given.quick else study.data:
        place.dataset(name)
    place.out.mkdir(parents=True, exist_ok=True)
    run = Run(place, (0,) if given.quick else tuple(range(given.seeds)), given.quick, given.all, given.jobs)
    start = time.monotonic()
    results = study.measure(run)
    facts = {"seeds": len(run.seeds), "check_all": run.check_all, "quick": run.quick, "hwrnn": hwrnn.__version__}
    kept = json.dumps({"study": study.name, **facts, "results": results}, indent=1)
    atomic_write(place.out / f"{study.name}.json", kept)
    section = study.write(results)
    text = section.text(study.name, len(run.seeds), run.check_all, study.draw is not None)
    atomic_write(place.out / f"{study.name}.md", text)
    if study.draw is not None:
        _draw(study, results, place.out / f"{study.name}.png")
    print(text)
    if given.write:
        root = Path(__file__).resolve().parent.parent
        if study.draw is not None:
            (root / "docs" / "pictures").mkdir(exist_ok=True)
            _draw(study, results, root / "docs" / "pictures" / f"{study.name}.png")
        put_section(root / "docs" / "studies.md", study.name, text)
    say(f"{study.name}: {time.monotonic() - start:.0f} s; all results are in {given.out / study.name}.json")
    return 0


def _draw(study: Study, results: dict[str, Any], path: Path) -> None:
    assert study.draw is not None
    figure = require("matplotlib.figure", "plot").Figure(figsize=study.size, layout="constrained")
    study.draw(results, figure)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=90, format="png")
    # Pictures are part of the repository: a palette makes them a third as large. Pillow comes with matplotlib.
    picture = require("PIL.Image", "plot").open(drawn).convert("RGB").quantize(128)
    with atomic_path(path) as temporary:
        picture.save(temporary, format="png", optimize=True)


@cache
def _sources(folders: tuple[str, ...]) -> str:
    """A digest of hwrnn's sources in these folders: what other sources measured is measured anew."""
    files = sorted(file for folder in folders for file in (_PACKAGE / folder).glob("*.py"))
    return _text_digest("".join(f"{file.name}\n{file.read_text()}" for file in files))


def _digest(options: Mapping[str, Any], sources: str) -> str:
    return _text_digest(json.dumps([options, sources], sort_keys=True))


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]
