"""Data sets: what a data set is, the built-in ones, and files.

Inputs are float32 (N, T, F): sequences, time steps, features. Sequences shorter than T are padded with zeros.
Nothing is standardised here; the model holds its own scaling, so that hardware can carry it too.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from hwrnn import synthetic
from hwrnn.checks import as_float32, as_integer, as_lengths, as_targets
from hwrnn.errors import UsageError
from hwrnn.readers import read_column, read_npz


@dataclass(frozen=True, eq=False)
class Split:
    """Sequences with their targets, checked and brought to one form at construction.

    ``x``        (N, T, F) real; becomes float32, and zero beyond each sequence's length whatever stood there.
    ``y``        (N,) class labels, or (N, T) labels per step: integer or bool, becomes int64;
                 (N,), (N, outputs) or (N, T, outputs) values: float, becomes float32 and at least 2-D.
    ``lengths``  (N,) integers in 1..T, becomes int64; None means that every sequence has T steps.

    Raises UsageError where N, T or F is 0, shapes or types do not fit, or a value in use is not finite.
    """

    x: np.ndarray
    y: np.ndarray
    lengths: np.ndarray = None  # type: ignore[assignment]  # an array after construction, for whoever reads it

    def __post_init__(self) -> None:
        x, y = np.asarray(self.x), np.asarray(self.y)
        if x.ndim != 3 or 0 in x.shape:
            raise UsageError(
                f"Inputs must have a shape (sequences, steps, features) without a 0, not {x.shape}"
            )
        if x.dtype.kind not in "fiub":
            raise UsageError(f"Inputs must be real numbers, not of type {str(x.dtype)!r}")
        count, steps = x.shape[:2]
        lengths = as_lengths(self.lengths, count, steps)
        padding = np.arange(steps) >= lengths[:, None]
        object.__setattr__(self, "x", as_float32("Inputs", np.where(padding[:, :, None], 0, x)))
        object.__setattr__(self, "y", as_targets(y, padding))
        object.__setattr__(self, "lengths", lengths)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def task(self) -> str:
        """``classification`` where the targets are labels, else ``regression``."""
        return "classification" if self.y.dtype.kind == "i" else "regression"

    @property
    def per_step(self) -> bool:
        """Whether every time step has a target, not only the sequence."""
        return self.y.ndim == (2 if self.task == "classification" else 3)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A named training part and, where there is one, a test part of the same kind. ``of`` derives the kind.

    ``task``      ``classification`` or ``regression``
    ``per_step``  whether every time step has a target, not only the sequence

    Raises UsageError where a part is of another kind, the parts differ in features or target width, or all
    labels are 0.
    """

    name: str
    task: str
    per_step: bool
    train: Split
    test: Split | None = None

    def __post_init__(self) -> None:
        for part, split in (("Training part", self.train), ("Test part", self.test)):
            if split is None:
                continue
            for what, due, given in (
                ("task", self.task, split.task),
                ("targets per step", self.per_step, split.per_step),
                ("features", self.inputs, split.x.shape[2]),
                ("target width", self._width(self.train), self._width(split)),
            ):
                if given != due:
                    raise UsageError(f"{part} of {self.name!r} must have {what} {due!r}, not {given!r}")
        if self.classes == 1:
            raise UsageError(f"Labels of {self.name!r} must name at least 2 classes, not only 0")

    @classmethod
    def of(cls, name: str, train: Split, test: Split | None = None) -> "Dataset":
        """The data set of these parts, of the kind that the training targets have."""
        return cls(name, train.task, train.per_step, train, test)

    @staticmethod
    def _width(split: Split) -> int:
        return 1 if split.task == "classification" else split.y.shape[-1]

    @property
    def inputs(self) -> int:
        """Features of a time step."""
        return self.train.x.shape[2]

    @property
    def classes(self) -> int | None:
        """Number of classes, counted from 0 to the highest label of both parts; None for a regression."""
        if self.task == "regression":
            return None
        return 1 + max(int(part.y.max()) for part in (self.train, self.test) if part is not None)

    @property
    def outputs(self) -> int:
        """Scores or values that a model gives: the classes, or the width of a target."""
        return self.classes or self.train.y.shape[-1]

    @property
    def evaluation(self) -> Split:
        """The test part where there is one, else the training part."""
        return self.train if self.test is None else self.test


def load_dataset(
    source: str | os.PathLike[str],
    *,
    column: str | None = None,
    window: int | None = None,
    horizon: int = 1,
    seed: int = 0,
    reconstruct: bool = False,
) -> Dataset:
    """Load a built-in data set by its name in ``DATASETS``, or a file by its path.

    An ``.npz`` holds x, y and optionally lengths, x_test, y_test, lengths_test, shaped as in ``Split``.
    A ``.csv`` is a series to forecast: from ``window`` values of ``column``, the one ``horizon`` rows later;
    the last 20 % of the windows are the test part, so no target of it is seen in training.
    ``seed`` draws a synthetic data set; it is one more name for the data, not the seed of a training.
    ``reconstruct`` makes the inputs the targets (:func:`reconstructed`); an ``.npz`` may leave out y and y_test then.

    Raises UsageError where there is no such data, it is unsound, or an option does not apply to it.
    """
    name = os.fspath(source)
    suffix = Path(name).suffix.lower()
    if name not in DATASETS and suffix not in (".npz", ".csv"):
        raise UsageError(
            f"Data must be one of {', '.join(DATASETS)}, or a path that ends in .npz or .csv, not {name!r}"
        )
    is_csv = name not in DATASETS and suffix == ".csv"
    for option, given in (
        ("column", column is not None),
        ("window", window is not None),
        ("horizon", horizon != 1),
    ):
        if given and not is_csv:
            raise UsageError(f"Option {option!r} must be left out with {name!r}: it is for .csv files")
    if reconstruct and horizon != 1:
        raise UsageError("Option 'horizon' must be left out where the inputs are the targets: nothing is forecast")
    if name in DATASETS:
        data = DATASETS[name](as_integer("Seed", seed, 0))
        return reconstructed(data) if reconstruct else data
    _no_seed(name, seed)
    if is_csv:
        data = _forecast(name, column, window, horizon)
        return reconstructed(data) if reconstruct else data
    arrays = read_npz(name, targets=not reconstruct)

    def part(end: str) -> Split:
        keys = [key + end for key in ("x", "y", "lengths") if key + end in arrays]
        if reconstruct:
            return _rebuilding(*(arrays[key] for key in keys if not key.startswith("y")))
        return Split(*(arrays[key] for key in keys))

    return Dataset.of(Path(name).stem, part(""), part("_test") if "x_test" in arrays else None)


def reconstructed(data: Dataset) -> Dataset:
    """The data set whose targets are its inputs, at every step: what an autoencoder learns in place of its own."""
    test = None if data.test is None else _rebuilding(data.test.x, data.test.lengths)
    return Dataset.of(data.name, _rebuilding(data.train.x, data.train.lengths), test)


def _rebuilding(x: np.ndarray, *lengths: np.ndarray) -> Split:
    return Split(x, x.astype(np.float64) if x.dtype.kind in "iub" else x, *lengths)


def forecast_windows(
    series: np.ndarray, window: int, horizon: int, tests: int | None = None
) -> tuple[Split, Split]:
    """Cut ``series`` (values,) into x (N, window, 1) and y (N, 1) = the value ``horizon`` after each window.

    The split is chronological: the last ``tests`` windows (a fifth of them if None) are the test part.
    Training targets all lie before the first test target. Raises UsageError where fewer than 2 windows fit.
    """
    window, horizon = as_integer("Window", window, 1), as_integer("Horizon", horizon, 1)
    series = np.asarray(series, dtype=np.float64)
    count = len(series) - window - horizon + 1
    if count < 2:
        raise UsageError(
            f"Window plus horizon must be at most {len(series) - 1} for {len(series)} values, not"
            f" {window + horizon}"
        )
    x = np.lib.stride_tricks.sliding_window_view(series, window)[:count, :, None]
    y = series[window + horizon - 1 :, None]
    border = count - (max(1, count // 5) if tests is None else tests)
    return Split(x[:border], y[:border]), Split(x[border:], y[border:])


def _forecast(name: str, column: str | None, window: int | None, horizon: int) -> Dataset:
    values = read_column(name, column)
    if window is None:
        raise UsageError(f"Window must be given for {name!r}: the number of values to forecast from")
    return Dataset.of(f"{Path(name).stem}:{column}", *forecast_windows(values, window, horizon))


def _japanese_vowels(seed: int) -> Dataset:
    _no_seed("japanese-vowels", seed)
    file = resources.files("hwrnn.datasets") / "japanese_vowels_q13.npz"
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        frames, lengths, labels, train = (stored[key] for key in ("frames", "lengths", "labels", "train"))
    x = np.zeros((len(lengths), lengths.max(), frames.shape[1]), dtype=np.float32)
    x[np.arange(x.shape[1]) < lengths[:, None]] = frames * 2.0**-13
    return Dataset.of(
        "japanese-vowels",
        Split(x[:train], labels[:train], lengths[:train]),
        Split(x[train:], labels[train:], lengths[train:]),
    )


def _adding(seed: int) -> Dataset:
    rng = np.random.default_rng(seed)
    return Dataset.of("adding", Split(*synthetic.adding(rng, 2000)), Split(*synthetic.adding(rng, 500)))


def _copy_memory(seed: int) -> Dataset:
    rng = np.random.default_rng(seed)
    return Dataset.of(
        "copy-memory", Split(*synthetic.copy_memory(rng, 2000)), Split(*synthetic.copy_memory(rng, 500))
    )


def _mackey_glass(seed: int) -> Dataset:
    """From 20 samples the one 6 later: 2000 windows to train, 975 to test, unit variance over the former."""
    window, horizon, train, test = 20, 6, 2000, 975
    series = synthetic.mackey_glass(np.random.default_rng(seed), window + horizon - 1 + train + test)
    known = series[: window + horizon - 1 + train]
    return Dataset.of(
        "mackey-glass", *forecast_windows((series - known.mean()) / known.std(), window, horizon, test)
    )


DATASETS: dict[str, Callable[[int], Dataset]] = {
    "japanese-vowels": _japanese_vowels,
    "adding": _adding,
    "copy-memory": _copy_memory,
    "mackey-glass": _mackey_glass,
}
"""Built-in data sets: name on the command line -> loader, which takes the seed."""


def _no_seed(name: str, seed: int) -> None:
    if seed != 0:
        raise UsageError(f"Option 'seed' must be left out with {name!r}: it is for synthetic data")
