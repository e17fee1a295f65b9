"""Study 5: is an anomaly of a sensor still found when the autoencoder that looks for it has few bits?

    python examples/anomaly.py [--seeds 5] [--jobs 2] [--write]
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from hwrnn import quantize
from hwrnn.anomaly import Detector, sample_scores, sliding_windows
from hwrnn.rtl import Network
from hwrnn.training.metrics import auc
from public_data import PRESSURE, anomalous_pressure
from recipes import QAT
from study import Place, Run, Section, Study, fixed_point, main, trained
from study_page import checked, markdown, paragraph, spread

DATA, UNITS, QUANTILE, LANES, STRIDE = "arterial-pressure", 16, 0.99, 16, 4
CLOSE = 100
"""Samples: the archive calls an anomaly found where the highest score is no further from it."""

ROWS: dict[str, dict[str, Any] | None] = {
    "float": None,
    "8 bits": {"bits": 8},
    "8 bits, trained": {"bits": 8, **QAT[DATA]},
    "6 bits": {"bits": 6},
    "6 bits, trained": {"bits": 6, **QAT[DATA]},
    "4 bits": {"bits": 4},
    "4 bits, trained": {"bits": 4, **QAT[DATA]},
    "weights 4 bits, all else 8, trained": {"bits": 8, "weight_bits": 4, **QAT[DATA]},
}
"""Options of ``quantize`` by row; None for the float network."""

SHOWN = ("float", "8 bits", "4 bits, trained")
"""Rows of the picture."""


def windows() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The test windows with their starts, whether an anomalous sample is in each, and which samples are anomalous."""
    _, series, anomalous = anomalous_pressure()
    x, starts = sliding_windows(series, *PRESSURE, STRIDE)
    held = sliding_windows(anomalous.astype(np.int64), *PRESSURE, STRIDE)[0].max(axis=(1, 2)) > 0
    return x, starts, held, anomalous


def judged(scores: np.ndarray) -> dict[str, Any]:
    """How good the scores of the test windows are; an anomaly is above 1."""
    _, starts, held, anomalous = windows()
    samples = sample_scores(scores, starts, PRESSURE[0] * PRESSURE[1], len(anomalous))
    places = np.flatnonzero(anomalous)
    distance = int(np.abs(places - int(np.nanargmax(samples))).min())
    return {
        "auc": auc(scores, held),
        "alarms": float(np.mean(scores[~held] > 1)),
        "found": float(np.mean(scores[held] > 1)),
        "distance": distance,
    }


def work(place: Place, row: str, seed: int, check: bool, training: dict[str, Any]) -> dict[str, Any]:
    """One network in float or in fixed point: its scores, and how good they are."""
    data, options = place.dataset(DATA), ROWS[row]
    model: Any = trained(
        place, DATA, training=training, cell="gru", hidden=[UNITS, UNITS], encoder=1, seed=seed
    )
    kept: dict[str, Any] = {"hardware": None}
    if options is not None:
        chosen = options | ({"finetune": 1} if training and "finetune" in options else {})
        model = quantize(model, data, **chosen)
        kept = fixed_point(model, data, check=check, lanes=LANES)
        network = Network(model, LANES)
        kept["cycles"] = [network.cycles_per_step, network.sequence_cycles(PRESSURE[0])]
        kept["built"] = [network.lanes, network.multipliers, network.memory_bits]
    scores = Detector.of(model, data.train, QUANTILE).scores(data.evaluation.x)
    drawn = [float(f"{v:.4g}") for v in scores] if seed == 0 and row in SHOWN else None
    return kept | judged(scores) | {"scores": drawn}


def linear() -> dict[str, Any]:
    """The same from a linear autoencoder: projection onto as many principal components as the code has numbers."""
    normal = sliding_windows(anomalous_pressure()[0], *PRESSURE)[0]
    x, *_ = windows()
    flat, tested = normal.reshape(len(normal), -1), x.reshape(len(x), -1)
    mean = flat.mean(axis=0)
    basis = np.linalg.svd(flat - mean, full_matrices=False)[2][:UNITS]

    def errors(rows: np.ndarray) -> np.ndarray:
        centred = rows - mean
        return np.asarray(np.square(centred - centred @ basis.T @ basis).mean(axis=1))

    return judged(errors(tested) / np.quantile(errors(flat), QUANTILE))


def measure(run: Run) -> dict[str, Any]:
    """Every row, every seed, and the linear autoencoder."""
    training = {"epochs": 2} if run.quick else {}
    rows = list(SHOWN) if run.quick else list(ROWS)
    tasks = [{"row": r, "seed": s, "check": run.checks(s), "training": training} for r in rows for s in run.seeds]
    results, n = run.each(work, tasks), len(run.seeds)
    found = {row: results[k * n : (k + 1) * n] for k, row in enumerate(rows)}
    _, series, anomalous = anomalous_pressure()
    places = np.flatnonzero(anomalous)
    return {
        "rows": found,
        "linear": linear(),
        "anomaly": [int(places[0]), int(places[-1]) + 1],
        "samples": len(series),
        "windows": len(windows()[0]),
    }


def write(results: dict[str, Any]) -> Section:
    """The section."""
    rows, (first, end) = results["rows"], results["anomaly"]

    def area(row: str) -> str:
        return spread([r["auc"] for r in rows[row]], 1, 3) if row in rows else "-"  # a quick run has some rows only

    def near(row: str) -> str:
        found = rows[row]
        return f"{sum(r['distance'] <= CLOSE for r in found)} of {len(found)}"

    table = []
    for row, found in rows.items():
        table.append(
            [row, area(row), spread([r["found"] for r in found]), spread([r["alarms"] for r in found]), near(row),
             "-" if row == "float" else checked(found)]
        )  # fmt: skip
    flat = results["linear"]
    table.append(
        [f"linear, {UNITS} numbers, float", f"{flat['auc']:.3f}", f"{100 * flat['found']:.1f}",
         f"{100 * flat['alarms']:.1f}", f"{int(flat['distance'] <= CLOSE)} of 1", "-"]
    )  # fmt: skip
    steps, width = PRESSURE
    eight = rows["8 bits"][0]
    (a_step, alone), (lanes, multipliers, bits) = eight["cycles"], eight["built"]
    parts = [
        paragraph(f"""KDD-TSAD_135 of the UCR anomaly archive is an arterial blood pressure with one internal bleeding,
        {end - first} of {results['samples']:,} samples; the {anomalous_pressure()[0].size:,} samples to learn from are
        normal. A GRU({UNITS}) with hard nonlinearities reads a window of {steps} steps of {width} samples; its last
        output, the code, is repeated at every step for a second GRU({UNITS}), whose head rebuilds the window. The
        score of a window is its mean square error over a threshold, which {100 * QUANTILE:g} % of the training windows
        stay under, so that a score above 1 is an alarm. AUC is over the {results['windows']:,} test windows, every
        {STRIDE}th; a window is anomalous if it holds an anomalous sample. The archive calls an anomaly found where the
        highest score of all is at most {CLOSE} samples away. "Trained" is with {QAT[DATA]["finetune"]} epochs of
        quantization-aware training. The epochs of both trainings were chosen by the error on the last fifth of the
        normal samples."""),
        markdown(
            ["network", "AUC", "anomalous windows above 1, percent", "normal windows above 1, percent",
             "highest score at the anomaly", "simulated"],
            table,
        ),
        paragraph(f"""In hardware the 8-bit network with {LANES} lanes a layer ({lanes} built, {multipliers}
        multipliers, {bits:,} bits of memory) takes {alone:,} cycles for a window alone. In a row each takes
        {steps} * {a_step} = {steps * a_step:,}, for one window is decoded while the next one is encoded.
        """),
    ]  # fmt: skip
    return Section(
        "Anomaly detection on a sensor",
        """A recurrent autoencoder learnt what a normal signal looks like. Does it still find the anomaly in fixed
        point, through the hardware?""",
        f"""The AUC is {area("float")} in float and {area("8 bits")} at 8 bits ({area("8 bits, trained")} trained for
        it), with the highest score at the anomaly in {near("float")} and {near("8 bits")} networks. With 4 bits for
        everything {area("4 bits, trained")} are left, even trained for it; with 4 bits for the weights alone
        {area("weights 4 bits, all else 8, trained")}. A linear projection onto {UNITS} numbers reaches
        {flat["auc"]:.3f} on this signal.""",
        parts,
        paragraph("""One signal with one anomaly, and windows that overlap: the AUC is about a handful of windows, and
        the spread is over seeds of the training, not over anomalies. It shows what few bits do to a score, not which
        method finds most anomalies: this signal is nearly periodic, so a linear projection does well too. The
        window and the number of units were chosen in earlier trials on this same signal, its test part included."""),
        "The pressure around the bleeding, each sample's score in float and in hardware at 8 and at 4 bits, and the"
        " threshold",
    )  # fmt: skip


def draw(results: dict[str, Any], figure: Any) -> None:
    """Above the signal around the anomaly, below the scores of its samples."""
    _, series, anomalous = anomalous_pressure()
    starts = windows()[1]
    first, end = results["anomaly"]
    shown = np.arange(max(first - 900, 0), min(end + 900, len(series)))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.4))
    above.plot(shown, series[shown], color="0.3", linewidth=0.9)
    above.set_ylabel("pressure, mmHg")
    styles = {"float": ("0.55", 3.0), "8 bits": ("tab:blue", 1.1), "4 bits, trained": ("tab:orange", 1.1)}
    for row, (color, width) in styles.items():
        scores = np.array(results["rows"][row][0]["scores"])
        samples = sample_scores(scores, starts, PRESSURE[0] * PRESSURE[1], len(anomalous))
        name = row if row == "float" else f"hardware, {row}"
        below.plot(shown, samples[shown], color=color, linewidth=width, label=name)
    below.axhline(1, color="tab:red", linewidth=0.8, linestyle="--", label="threshold")
    below.set(yscale="log", xlabel="sample", ylabel="score")
    below.legend(loc="upper right", fontsize=8)
    for axes in (above, below):
        axes.axvspan(first, end, color="tab:red", alpha=0.25, linewidth=0)


STUDY = Study("anomaly", measure, write, draw, (9.0, 4.8))

if __name__ == "__main__":
    sys.exit(main(STUDY))
