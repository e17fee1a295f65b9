"""Study 4: how far does a genetic algorithm on the integer weights get, against gradients with quantization?

    python examples/without_gradients.py [--seeds 5] [--jobs 2] [--write]

The data are outside ones: pip install --no-deps aeon==1.6.0.
"""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import numpy as np

import hwrnn
from hwrnn.comparing import measured
from hwrnn.data import Dataset
from hwrnn.model import Model, build_model
from hwrnn.quantization import QuantizedModel
from hwrnn.training.evolution import Generation, evolve, starting_point
from hwrnn.training.population import genome_of
from recipes import recipe
from study import Place, Run, Section, Study, fixed_point, main
from study_page import checked, markdown, spread

DATA = "italy-power-demand"
UNITS = 8
NETWORKS: dict[str, dict[str, Any]] = {
    "RNN, ReLU clipped to 1": {"cell": "rnn", "activation": "relu1"},
    "GRU": {"cell": "gru"},
}
BITS = (8, 4, 3, 2)
GRADIENTS, EVOLVED, ACCURACY, AFTER = (
    "gradients", "evolution on the loss", "evolution on the accuracy", "evolution after gradients",
)  # fmt: skip
#: The noise is that of the gradients' recipe; in cross-validation on the training part it was better than none.
SEARCH: dict[str, Any] = {"generations": 150, "population": 128, "noise": 0.3}
FINETUNE = 20  # epochs with quantization in the loop
QUICK: dict[str, Any] = {"generations": 2, "population": 4}


def work(place: Place, network: str, bits: int, method: str, seed: int, check: bool, quick: bool) -> dict[str, Any]:
    """One network of one seed, by gradients or by evolution."""
    data = place.dataset(DATA)
    fresh = build_model(data.inputs, data.outputs, hidden=UNITS, seed=seed, **NETWORKS[network])
    curve: list[list[float]] = []
    start = time.perf_counter()
    if method in (EVOLVED, ACCURACY):
        model = _evolved(starting_point(fresh, data, bits), data, method, seed, quick, curve)
    else:
        options = recipe(DATA, quick) | {"seed": seed}
        learnt = hwrnn.train(fresh, data, **options)
        epochs = 2 if quick else FINETUNE
        model = hwrnn.quantize(learnt, data, bits, finetune=0 if method == AFTER else epochs)
        if method == AFTER:
            model = _evolved(model, data, method, seed, quick, curve)
    seconds = time.perf_counter() - start
    seen = sum(evaluations for evaluations, _ in curve[-1:]) * len(data.train.x)
    if method in (GRADIENTS, AFTER):
        seen += (recipe(DATA, quick)["epochs"] + (epochs if method == GRADIENTS else 0)) * len(data.train.x)
    facts = {
        "train": measured(model, data, on_train=True)[1], "loss": _loss(model, data), "sequences": seen,
        "seconds": seconds, "weights": int(genome_of(model).size), "curve": curve,
    }  # fmt: skip
    return fixed_point(model, data, check=check) | facts


def _evolved(
    start: QuantizedModel, data: Dataset, method: str, seed: int, quick: bool, curve: list[list[float]]
) -> QuantizedModel:
    """The best network; ``curve`` gets what each generation's best reached after how many evaluations."""

    def note(now: Generation) -> None:
        curve.append([now.evaluations, now.loss])

    options = SEARCH | (QUICK if quick else {}) | {"objective": "metric" if method == ACCURACY else "loss"}
    return evolve(start, data, seed=seed, workers=1, progress=note, **options)  # the study's own processes are busy


def _loss(model: QuantizedModel | Model, data: Dataset) -> float:
    """The mean cross entropy on the training part, in nats."""
    scores = model.predict(data.train.x, data.train.lengths)
    shifted = scores - scores.max(axis=1, keepdims=True)
    likelihood = shifted[np.arange(len(scores)), data.train.y] - np.log(np.exp(shifted).sum(axis=1))
    return float(-likelihood.mean())


def measure(run: Run) -> dict[str, Any]:
    """Every network, number of bits and method."""
    networks = list(NETWORKS)[:1] if run.quick else NETWORKS
    rows = [
        {"network": network, "bits": bits, "method": method}
        for network in networks
        for bits in (BITS[:1] if run.quick else BITS)
        for method in (GRADIENTS, EVOLVED, ACCURACY, AFTER)
        if method != ACCURACY or bits == BITS[0]
    ]
    tasks = [row | {"seed": s, "check": run.checks(s), "quick": run.quick} for row in rows for s in run.seeds]
    results, n = run.each(work, tasks), len(run.seeds)
    return {"rows": [row | {"results": results[k * n : (k + 1) * n]} for k, row in enumerate(rows)]}


def _mean(row: dict[str, Any], name: str) -> float:
    return math.fsum(r[name] for r in row["results"]) / len(row["results"])


def write(results: dict[str, Any]) -> Section:
    """The section."""
    rows = results["rows"]
    table = [
        [row["network"], row["bits"], row["method"], spread([r["value"] for r in row["results"]]),
         spread([r["train"] for r in row["results"]]), f"{_mean(row, 'loss'):.3f}",
         f"{_mean(row, 'sequences') / 1e3:,.0f}", f"{_mean(row, 'seconds'):.1f}", checked(row["results"])]
        for row in rows
    ]  # fmt: skip
    head = [
        "network", "bits", "found by", "test accuracy in percent", "training accuracy", "training loss",
        "thousand sequences run", "seconds", "simulated",
    ]  # fmt: skip
    said = {(row["network"], row["bits"], row["method"]): 100 * _mean(row, "value") for row in rows}
    first, wide, narrow = rows[0]["network"], rows[0]["bits"], rows[-1]["bits"]
    pairs = [
        f"{method} {said[first, wide, method]:.1f} %" for method in (GRADIENTS, EVOLVED, ACCURACY, AFTER)
    ]  # fmt: skip
    few = [
        f"{method} {said[first, narrow, method]:.1f} %" for method in (GRADIENTS, EVOLVED, AFTER)
    ]  # fmt: skip
    cost = _mean(rows[1], "sequences") / _mean(rows[0], "sequences")
    answer = (
        f"{first} of {UNITS} units, mean over seeds: at {wide} bits {', '.join(pairs)}; at {narrow} bits"
        f" {', '.join(few)}. Evolution from nothing ran {cost:.0f} times as many sequences as the gradients did."
    )
    body = [
        "ItalyPowerDemand: 67 days to learn from, 1,029 to test, 24 hourly values; all weights, activations and states"
        f" have the bits of the row. Gradients: {recipe(DATA)['epochs']} epochs in float, then {FINETUNE} with"
        " quantization in the loop and straight-through gradients (after gradients: quantized without these, and"
        f" evolved). Evolution: {SEARCH['generations']} generations of {SEARCH['population']} integer networks, each"
        " judged by golden on the whole training part with Gaussian noise on the input, as the gradients have it;"
        " truncation to an eighth, uniform crossover, mutations that shrink. The loss is golden's cross entropy in"
        " nats, without noise. Seconds are those of one core of a machine that was shared.",
        markdown(head, table),
        "What it is good for: there is no gradient to pass through rounding and saturation, so nothing is assumed about"
        " them; the objective may be anything that can be computed from predictions (the accuracy itself is one row);"
        " and it repairs what rounding broke, starting from a trained network. What it costs: evaluations, and their"
        f" number grows with the weights ({rows[0]['results'][0]['weights']} here in the smallest network).",
    ]
    limits = (
        "One small data set and networks of a few hundred weights; gradients scale to networks where this search does"
        " not. The options of the search are its defaults, not tuned for each row; nor are those of the gradients."
    )
    caption = "The training loss of the best network against networks judged, every seed, and what gradients reach"
    return Section("Without gradients", "How far does a genetic algorithm on the integer weights get, against gradient"
                   " training with quantization?", answer, body, limits, caption)  # fmt: skip


def draw(results: dict[str, Any], figure: Any) -> None:
    """The best's loss against evaluations, one panel for the most bits and one for the fewest."""
    rows = results["rows"]
    bits = sorted({row["bits"] for row in rows}, reverse=True)
    shown = list(dict.fromkeys([bits[0], bits[-1]]))
    for axes, b in zip(np.atleast_1d(figure.subplots(1, len(shown), sharey=True)), shown, strict=True):
        for k, network in enumerate(dict.fromkeys(row["network"] for row in rows)):
            for row in rows:
                if (row["network"], row["bits"]) != (network, b):
                    continue
                if row["method"] == GRADIENTS:
                    axes.axhline(_mean(row, "loss"), color=f"C{k}", linestyle="--", label=f"{network}, gradients")
                elif row["method"] == EVOLVED:
                    for n, result in enumerate(row["results"]):
                        at, loss = np.array(result["curve"]).T
                        axes.plot(at, loss, color=f"C{k}", alpha=0.5, label=None if n else f"{network}, evolution")
        axes.set(title=f"{b} bits", xlabel="networks judged", yscale="log")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("loss on training data (nats)")
    figure.axes[0].legend(fontsize="small")


STUDY = Study("without_gradients", measure, write, draw)

if __name__ == "__main__":
    sys.exit(main(STUDY))
