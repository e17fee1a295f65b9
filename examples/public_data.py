"""Public data that hwrnn does not ship, as its data sets: from a folder, or from the wheel of a package on PyPI.

The folder is the one given, the environment variable ``HWRNN_DATA``, or the nearest ``shared/data`` above this file.
Packages are never imported: their files are read where they lie, so ``pip install --no-deps`` is enough.
"""

from __future__ import annotations

import csv
import importlib.metadata
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hwrnn.anomaly import sliding_windows
from hwrnn.data import DATASETS, Dataset, Split, forecast_windows, load_dataset
from hwrnn.errors import UsageError

__all__ = ["PRESSURE", "PUBLIC", "MissingData", "anomalous_pressure", "hotel_cancellations", "load", "seattle_weather"]

VARIABLE = "HWRNN_DATA"
_VERSIONS = {"aeon": "1.6.0", "vega_datasets": "0.9.0"}


class MissingData(UsageError):
    """Data that are not on this machine; the text says how to get them."""


def data_folder(given: str | os.PathLike[str] | None = None) -> Path | None:
    """The folder with data: the one given, that of the environment, or the nearest ``shared/data`` above this file."""
    named = given or os.environ.get(VARIABLE)
    if named:
        if not Path(named).is_dir():
            raise UsageError(f"Data folder must be an existing folder, not {os.fspath(named)!r}")
        return Path(named)
    found = (parent / "shared" / "data" for parent in Path(__file__).resolve().parents)
    return next((folder for folder in found if folder.is_dir()), None)


def load(name: str, folder: str | os.PathLike[str] | None = None) -> Dataset:
    """A data set by its name in ``PUBLIC``, or one that hwrnn has built in.

    Raises:
        MissingData: its files are not on this machine.
        UsageError: an unknown name, or a folder that does not exist.
    """
    if name in DATASETS:
        return load_dataset(name)
    if name not in PUBLIC:
        raise UsageError(f"Data must be one of {', '.join([*DATASETS, *PUBLIC])}, not {name!r}")
    return PUBLIC[name](data_folder(folder))


def _in_folder(folder: Path | None, file: str) -> Path:
    if folder is None or not (folder / file).is_file():
        raise MissingData(
            f"File {file!r} must be in a data folder: name its folder with --data-folder or in {VARIABLE}"
        )
    return folder / file


def _in_package(package: str, file: str) -> Path:
    """A file of an installed distribution, found without importing it."""
    try:
        found = Path(str(importlib.metadata.distribution(package).locate_file(f"{package}/{file}")))
    except importlib.metadata.PackageNotFoundError:
        found = None
    if found is None or not found.is_file():
        wheel = f"{package}=={_VERSIONS[package]}"
        raise MissingData(f"Package {package!r} must be installed for its data: run pip install --no-deps {wheel}")
    return found


def spoken_digits(folder: Path | None) -> Dataset:
    """Free Spoken Digit Dataset as 13 MFCC a frame, ten classes; the official test part is the recordings 0 to 4.

    3,000 recordings of six speakers, of 7 to 64 frames of 16 ms; 2,700 to train, 300 to test. Z. Jackson et al.,
    CC BY-SA 4.0.
    """
    with np.load(_in_folder(folder, "fsdd_mfcc13_q8.npz"), allow_pickle=False) as stored:
        frames, lengths, digits, index = (stored[key] for key in ("x", "length", "digit", "index"))
    lengths = lengths.astype(np.int64)
    x = np.zeros((len(lengths), lengths.max(), frames.shape[1]), np.float32)
    x[np.arange(x.shape[1]) < lengths[:, None]] = frames * 2.0**-8
    test = index <= 4
    parts = [Split(x[rows], digits[rows].astype(np.int64), lengths[rows]) for rows in (~test, test)]
    return Dataset.of("spoken-digits", *parts)


def hotel_cancellations(folder: str | os.PathLike[str] | None = None) -> np.ndarray:
    """Weekly cancelled bookings of the city hotel H2, 115 weeks from 2015-W27 on: float64 (115,).

    The first and the last week are partial. N. Antonio, A. de Almeida, L. Nunes, Data in Brief 22 (2019) 41-49,
    CC BY 4.0; summed to weeks.
    """
    with _in_folder(data_folder(folder), "hotel_weekly_cancellations.csv").open(newline="") as file:
        return np.array([float(row["h2_city_cancellations"]) for row in csv.DictReader(file)])


def _hotel(folder: Path | None) -> Dataset:
    """From five weeks the next one; targets 100 to 114 are the test part, so 95 windows are learnt from."""
    return Dataset.of("hotel-weekly", *forecast_windows(hotel_cancellations(folder), 5, 1, 15))


SEATTLE = ("precipitation", "temp_max", "temp_min", "wind")
"""Features of a day: mm, C, C, m/s."""


def seattle_weather() -> tuple[np.ndarray, np.ndarray]:
    """Days (1461, 4) float64 in the order of ``SEATTLE``, and years (1461,) from 2012 to 2015. NOAA, public domain."""
    with _in_package("vega_datasets", "_data/seattle-weather.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    days = np.array([[float(row[name]) for name in SEATTLE] for row in rows])
    return days, np.array([int(row["date"][:4]) for row in rows])


def _seattle(folder: Path | None) -> Dataset:
    """The maximum temperature of a day from the 14 days before; 2012 to 2014 to learn from, 2015 to test."""
    days, years = seattle_weather()
    x = np.lib.stride_tricks.sliding_window_view(days, 14, axis=0)[:-1].transpose(0, 2, 1)
    y, year = days[14:, 1:2], years[14:]
    return Dataset.of("seattle-weather", *(Split(x[rows], y[rows]) for rows in (year < 2015, year == 2015)))


def anomalous_pressure() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Arterial pressure: normal samples (1200,) to learn from, samples (7501,), and which are anomalous, bool (7501,).

    Number 135 of the UCR anomaly archive (KDD 2021), R. Wu, E. Keogh.
    """
    stem = "datasets/data/KDD-TSAD_135/135_UCR_Anomaly_InternalBleeding16"
    parts = []
    for end in ("TRAIN", "TEST"):
        path = _in_package("aeon", f"{stem}_{end}.csv")
        parts.append(np.loadtxt(path, delimiter=",", skiprows=1, usecols=(1, 2), ndmin=2))
    return parts[0][:, 0], parts[1][:, 0], parts[1][:, 1] > 0


PRESSURE = (16, 4)
"""Steps of a window of the pressure, and samples of a step."""


def _pressure(folder: Path | None) -> Dataset:
    """Windows of the arterial pressure, to be rebuilt: every normal one to learn from, every fourth one to test."""
    normal, series, _ = anomalous_pressure()
    windows = (sliding_windows(values, *PRESSURE, stride)[0] for values, stride in ((normal, 1), (series, 4)))
    return Dataset.of("arterial-pressure", *(Split(x, x) for x in windows))


def _ucr(name: str, steps: int, features: int = 1) -> Callable[[Path | None], Dataset]:
    """A reader of a set of the UCR archive with equal lengths; ``features`` samples are given in one step."""

    def read(folder: Path | None) -> Dataset:
        parts = []
        for end in ("TRAIN", "TEST"):
            text = _in_package("aeon", f"datasets/data/{name}/{name}_{end}.ts").read_text()
            lines = [line for line in text.splitlines() if line[:1] not in ("#", "@", "")]
            rows = [line.rsplit(":", 1) for line in lines]
            x = np.array([[float(v) for v in values.split(",")] for values, _ in rows])
            y = np.array([int(float(label)) - 1 for _, label in rows])
            parts.append(Split(x.reshape(len(x), steps, features), y))
        return Dataset.of(name, *parts)

    return read


PUBLIC: dict[str, Callable[[Path | None], Dataset]] = {
    "spoken-digits": spoken_digits,
    "hotel-weekly": _hotel,
    "seattle-weather": _seattle,
    "italy-power-demand": _ucr("ItalyPowerDemand", 24),
    "gunpoint": _ucr("GunPoint", 30, 5),
    "arterial-pressure": _pressure,
}
"""Data sets by name; each reader takes the data folder."""
