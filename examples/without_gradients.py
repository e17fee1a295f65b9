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
    "LSTM": {"cell": "lstm", "cell_clip": 2.0},
    "RNN, ReLU clipped to 1": {"cell": "rnn", "activation": "relu1"},
}
BITS = (8, 4, 2)
GRADIENTS, EVOLVED, ACCURACY, AFTER = (
    "gradients", "evolution on the loss", "evolution on the accuracy", "evolution after gradients",
)  # fmt: skip
#: The noise is that of the gradients' recipe; in cross-validation on the training part it was better than none.
SEARCH: dict[str, Any] = {"generations": 150, "population": 128, "noise": 0.3}
#: Training with quantization in the loop: as long and as fast as in float, which few bits need and many do not mind.
FINETUNE: dict[str, Any] = {"finetune": 150, "rate": recipe(DATA)["rate"]}


def work(place: Place, network: str, bits: int, method: str, seed: int, check: bool, search: dict[str, Any],
         training: dict[str, Any], finetuning: dict[str, Any]) -> dict[str, Any]:  # fmt: skip
    """One network of one seed, by gradients or by evolution."""
    data = place.dataset(DATA)
    fresh = build_model(data.inputs, data.outputs, hidden=UNITS, seed=seed, **NETWORKS[network])
    curve: list[list[float]] = []  # after each generation: networks judged, and the loss of the best

    def note(now: Generation) -> None:
        curve.append([now.evaluations, now.loss])

    def evolved(model: QuantizedModel) -> QuantizedModel:
        objective = "metric" if method == ACCURACY else "loss"
        # In this process: those of the machine are busy with the other tasks of the study.
        return evolve(model, data, seed=seed, objective=objective, workers=1, progress=note, **search)

    start, epochs = time.process_time(), 0
    if method in (EVOLVED, ACCURACY):
        model = evolved(starting_point(fresh, data, bits))
    else:
        epochs = training["epochs"] + finetuning.get("finetune", 0)
        model = hwrnn.quantize(hwrnn.train(fresh, data, seed=seed, **training), data, bits, **finetuning)
        if method == AFTER:
            model = evolved(model)
    seconds = time.process_time() - start
    seen = (epochs + sum(evaluations for evaluations, _ in curve[-1:])) * len(data.train.x)
    facts = {
        "train": measured(model, data, on_train=True)[1], "loss": _loss(model, data), "sequences": seen,
        "seconds": seconds, "weights": int(genome_of(model).size), "curve": curve,
    }  # fmt: skip
    return fixed_point(model, data, check=check) | facts


def _loss(model: QuantizedModel | Model, data: Dataset) -> float:
    """The mean cross entropy on the training part, in nats."""
    scores = model.predict(data.train.x, data.train.lengths)
    shifted = scores - scores.max(axis=1, keepdims=True)
    likelihood = shifted[np.arange(len(scores)), data.train.y] - np.log(np.exp(shifted).sum(axis=1))
    return float(-likelihood.mean())


def measure(run: Run) -> dict[str, Any]:
    """Every network, number of bits and method."""
    networks = list(NETWORKS)[1:] if run.quick else NETWORKS
    rows = [
        {"network": network, "bits": bits, "method": method}
        for network in networks
        for bits in (BITS[:1] if run.quick else BITS)
        for method in (GRADIENTS, EVOLVED, ACCURACY, AFTER)
        if method != ACCURACY or bits == BITS[0]
    ]
    search = SEARCH | ({"generations": 2, "population": 4} if run.quick else {})
    finetuning = FINETUNE | ({"finetune": 2} if run.quick else {})
    tasks = [
        row | {
            "seed": seed, "check": run.checks(seed),
            "search": {} if row["method"] == GRADIENTS else search,
            "training": recipe(DATA, run.quick) if row["method"] in (GRADIENTS, AFTER) else {},
            "finetuning": finetuning if row["method"] == GRADIENTS else {},
        }
        for row in rows for seed in run.seeds
    ]  # fmt: skip
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
    told = []
    for network in dict.fromkeys(row["network"] for row in rows):
        for bits in dict.fromkeys((rows[0]["bits"], rows[-1]["bits"])):
            found = [f"{said[network, bits, method]:.1f} by {method}" for method in (GRADIENTS, EVOLVED, AFTER)]
            told.append(f"{network} at {bits} bits {', '.join(found)}")
    cost = _mean(rows[1], "sequences") / _mean(rows[0], "sequences")
    answer = (
        f"Accuracy in percent, {UNITS} units: {'; '.join(told)}. Evolution from random weights runs {cost:.0f} times as"
        " many sequences through the network as gradients do."
    )
    weights = " and ".join(str(n) for n in dict.fromkeys(row["results"][0]["weights"] for row in rows))
    body = [
        "ItalyPowerDemand: 67 days to learn from, 1,029 to test, 24 hourly values; all weights, activations and states"
        f" have the bits of the row. Gradients: {recipe(DATA)['epochs']} epochs in float, then"
        f" {FINETUNE['finetune']} at the same rate with quantization in the loop and straight-through gradients"
        " (evolution after gradients: quantized without these, then"
        f" evolved). Evolution: {SEARCH['generations']} generations of {SEARCH['population']} integer networks, each"
        " judged by golden on the whole training part with Gaussian noise on the input, as the gradients have it;"
        " truncation to an eighth, uniform crossover, mutations that shrink. The loss is golden's cross entropy in"
        " nats, without noise. Seconds are those of one core.",
        markdown(head, table),
        "What it is good for: there is no gradient to pass through rounding and saturation, so nothing is assumed about"
        " them; the objective may be anything that can be computed from predictions (the accuracy itself is one row);"
        " and the start may be a network that gradients trained. What it costs: evaluations, and their number"
        f" grows with the weights, here {weights}.",
    ]
    limits = (
        "One small data set and networks of a few hundred weights; gradients scale to networks where this search does"
        " not. The options of the search are its defaults and never saw the test part; how long and how fast gradients"
        " fine-tune was chosen in their favour, by the test accuracy of the LSTM at 4 bits."
    )
    caption = "Training loss of five generations' best against networks judged, seeds and their mean; dashed: gradients"
    return Section(
        "An LSTM without gradients",
        "How far does a genetic algorithm on the integer weights get, against gradient training with quantization?",
        answer, body, limits, caption,
    )  # fmt: skip


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
                    label = f"{network}, gradients (without noise)"
                    axes.axhline(_mean(row, "loss"), color=f"C{k}", linestyle="--", label=label)
                elif row["method"] == EVOLVED:
                    curves = np.array([result["curve"] for result in row["results"]])  # (seeds, generations, 2)
                    near = min(5, curves.shape[1])  # generations to a point: each has other noise
                    curves = curves[:, : curves.shape[1] // near * near].reshape(len(curves), -1, near, 2).mean(2)
                    judged = curves[0, :, 0] / 1e3
                    ends = curves[:, :, 1].min(0), curves[:, :, 1].max(0)
                    axes.fill_between(judged, *ends, color=f"C{k}", alpha=0.2, linewidth=0)
                    label = f"{network}, best of a generation (with noise)"
                    axes.plot(judged, curves[:, :, 1].mean(0), color=f"C{k}", label=label)
        axes.set(title=f"{b} bits", xlabel="thousand networks judged", yscale="log")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("loss on training data (nats)")
    figure.axes[-1].legend(fontsize="x-small")


STUDY = Study("without_gradients", measure, write, draw)

if __name__ == "__main__":
    sys.exit(main(STUDY))
