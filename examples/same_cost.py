"""Study 3: which cell is the best at the same cost: RNN, LSTM, GRU, LiGRU or minGRU?

    python examples/same_cost.py [--seeds 5] [--jobs 2] [--write]
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from hwrnn import build_model, quantize
from hwrnn.comparing import measured
from recipes import QAT, recipe
from study import Place, Run, Section, Study, fixed_point, main, trained
from study_page import markdown, spread

CELLS: dict[str, dict[str, Any]] = {
    "RNN": {"cell": "rnn"},
    "LSTM": {"cell": "lstm", "cell_clip": 2.0},
    "GRU": {"cell": "gru"},
    "LiGRU": {"cell": "ligru"},
    "minGRU": {"cell": "mingru"},
    "minGRU, 2 layers": {"cell": "mingru", "layers": 2},
}
COSTS = {"japanese-vowels": (500, 2000, 8000), "spoken-digits": (2000,)}
"""Multiplications a step in the recurrent layers, about; the head works once a sequence."""


def multiplications(options: dict[str, Any], inputs: int, units: int) -> int:
    """Weight multiplications in one step of the recurrent layers."""
    return sum(layer.multiplications for layer in build_model(inputs, None, hidden=units, **options).layers)


def units_for(options: dict[str, Any], inputs: int, cost: int) -> int:
    """The number of units whose multiplications a step come closest to ``cost``."""
    units = 1
    while multiplications(options, inputs, units + 1) <= cost:
        units += 1
    over, under = (abs(multiplications(options, inputs, n) - cost) for n in (units + 1, units))
    return units + (over < under)


def work(place: Place, data: str, model: dict[str, Any], training: dict[str, Any], form: dict[str, Any] | None,
         seed: int, check: bool) -> dict[str, Any]:  # fmt: skip
    """Accuracy of one network, in float or quantized, and the bits of its weights."""
    dataset = place.dataset(data)
    network = trained(place, data, training=training, seed=seed, **model)
    if form is None:
        return {"value": measured(network, dataset)[1], "hardware": None, "bits": None}
    quantized = quantize(network, dataset, **form)
    return fixed_point(quantized, dataset, check=check) | {"bits": sum(la.weight_bits for la in quantized.stack)}


def measure(run: Run) -> dict[str, Any]:
    """Every data set, cost, cell and form."""
    rows: list[dict[str, Any]] = []
    for data, costs in COSTS.items():
        if run.quick and data != "japanese-vowels":
            continue
        inputs, aware = run.place.dataset(data).inputs, QAT[data] | ({"finetune": 2} if run.quick else {})
        for cost in costs[:1] if run.quick else costs:
            for name, options in list(CELLS.items())[: 2 if run.quick else None]:
                units = units_for(options, inputs, cost)
                rows.append({
                    "data": data, "cost": cost, "name": name, "model": options | {"hidden": units},
                    "multiplications": multiplications(options, inputs, units), "training": recipe(data, run.quick),
                    "forms": {"float": None, "8 bits": {"bits": 8}, "4 bits": {"bits": 4} | aware},
                })  # fmt: skip
    tasks = [
        {key: row[key] for key in ("data", "model", "training")}
        | {"form": form, "seed": s, "check": run.check_all or (name == "8 bits" and run.checks(s))}
        for row in rows
        for name, form in row["forms"].items()
        for s in run.seeds
    ]
    found = iter(run.each(work, tasks))
    for row in rows:
        row["forms"] = {form: [next(found) for _ in run.seeds] for form in row["forms"]}
    return {"rows": rows}


def _mean(row: dict[str, Any], form: str) -> float:
    return float(np.mean([one["value"] for one in row["forms"][form]]))


def write(results: dict[str, Any]) -> Section:
    """The section: a table for each data set."""
    body, winners = [], []
    for data in dict.fromkeys(row["data"] for row in results["rows"]):
        rows = [row for row in results["rows"] if row["data"] == data]
        body.append(f"{data}, accuracy in percent:")
        body.append(markdown(
            ["cell", "units", "multiplications a step", "float", "8 bits, after training", "4 bits, trained for",
             "weights at 8 bits, kbit"],
            [[row["name"], row["model"]["hidden"], row["multiplications"],
              *(spread([one["value"] for one in row["forms"][form]]) for form in row["forms"]),
              f"{row['forms']['8 bits'][0]['bits'] / 1000:.1f}"] for row in rows],
        ))  # fmt: skip
        for cost in dict.fromkeys(row["cost"] for row in rows):
            same = sorted((row for row in rows if row["cost"] == cost), key=lambda row: -_mean(row, "8 bits"))
            first, last = same[0], same[-1]
            winners.append(
                f"{data} at about {cost:,} multiplications: {first['name']} {100 * _mean(first, '8 bits'):.1f} %,"
                f" {same[1]['name']} {100 * _mean(same[1], '8 bits'):.1f} %, last {last['name']}"
                f" {100 * _mean(last, '8 bits'):.1f} %"
            )
    body.append("Best at 8 bits, by the mean over seeds: " + "; ".join(winners) + ".")
    body.append(_front(results))
    largest = max(abs(row["multiplications"] / row["cost"] - 1) for row in results["rows"])
    body.append(
        f"Sizes are those whose multiplications come closest to each cost (at most {100 * largest:.1f} % away). The"
        " weights include the dense head's, which works once a sequence. minGRU's gates do not see the state, so at the"
        " same cost it has many more units in one layer; with two, the second one's gates see the first one's state."
    )
    return Section(
        "RNN, LSTM, GRU, LiGRU and minGRU at the same cost",
        "Which cell gives the most accuracy for its multiplications, and for its bits?", _answer(results), body,
        "One recipe for all cells, chosen with the GRU, so another cell may be better with its own. Both data sets are"
        " short sequences of speech features; tasks that ask for a long memory may order the cells otherwise. Means are"
        " ranked: where two differ by less than the deviations beside them, five seeds do not tell which is better.",
        "Accuracy against multiplications a step and against bits of weights",
        "of every row the network of seed 0 at 8 bits",
    )  # fmt: skip


def _answer(results: dict[str, Any]) -> str:
    """Each cell's mean place and how far it stays behind the best of its cost."""
    behind: dict[str, list[float]] = {}
    for row in results["rows"]:
        same = [r for r in results["rows"] if (r["data"], r["cost"]) == (row["data"], row["cost"])]
        behind.setdefault(row["name"], []).append(100 * (max(_mean(r, "8 bits") for r in same) - _mean(row, "8 bits")))
    order = sorted(behind, key=lambda name: float(np.mean(behind[name])))
    said = ", ".join(f"{name} {np.mean(behind[name]):.1f}" for name in order)
    return f"At 8 bits and the same multiplications, points behind the best cell of each cost, in the mean: {said}."


def _points(results: dict[str, Any], data: str) -> list[tuple[float, float, str]]:
    """Bits of weights, mean accuracy and a name, of every quantized network."""
    return [
        (row["forms"][form][0]["bits"], _mean(row, form), f"{row['name']}({row['model']['hidden']}), {form}")
        for row in results["rows"]
        if row["data"] == data
        for form in ("8 bits", "4 bits")
    ]


def _pareto(points: list[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Those that no other one beats in both: fewer or as many bits and at least the accuracy."""
    front: list[tuple[float, float, str]] = []
    for point in sorted(points, key=lambda p: (p[0], -p[1])):
        if not front or point[1] > front[-1][1]:
            front.append(point)
    return front


def _front(results: dict[str, Any]) -> str:
    parts = []
    for data in dict.fromkeys(row["data"] for row in results["rows"]):
        told = ", ".join(
            f"{name} ({bits / 1000:.1f} kbit, {100 * v:.1f} %)" for bits, v, name in _pareto(_points(results, data))
        )
        parts.append(f"{data}: {told}")
    return "No other network of the study has both fewer bits and a higher mean than these: " + "; ".join(parts) + "."


def draw(results: dict[str, Any], figure: Any) -> None:
    """For each data set accuracy against multiplications, and against bits with the Pareto front."""
    names = list(dict.fromkeys(row["data"] for row in results["rows"]))
    panels = figure.subplots(len(names), 2, sharex="col", sharey="row", squeeze=False)
    for (left, right), data in zip(panels, names, strict=True):
        for k, name in enumerate(CELLS):
            rows = [row for row in results["rows"] if (row["data"], row["name"]) == (data, name)]
            values = [[100 * one["value"] for one in row["forms"]["8 bits"]] for row in rows]
            spreads = [np.std(v, ddof=min(1, len(v) - 1)) for v in values]
            shift = 1 + 0.02 * (k - len(CELLS) / 2)  # bars of the same cost would hide each other
            left.errorbar([row["multiplications"] * shift for row in rows], [np.mean(v) for v in values], spreads,
                          marker="o", markersize=4, capsize=2, color=f"C{k}", label=name)  # fmt: skip
            for form, marker in (("8 bits", "o"), ("4 bits", "s")):
                bits = [row["forms"][form][0]["bits"] / 1000 for row in rows]
                right.plot(bits, [100 * _mean(row, form) for row in rows], marker, color=f"C{k}", markersize=5)
        front = _pareto(_points(results, data))
        right.step([b / 1000 for b, *_ in front], [100 * v for _, v, _ in front], where="post", color="0.5",
                   linewidth=1, label="Pareto front")  # fmt: skip
        left.set_title(f"{data}, 8 bits", fontsize=9)
        right.set_title(f"{data}: 8 bits (round), 4 bits trained for (square)", fontsize=9)
        left.set_ylabel("accuracy in percent")
        for axes, words, ticks in (
            (left, "multiplications a step", (500, 1000, 2000, 4000, 8000)),
            (right, "bits of weights, thousands", (2, 4, 8, 16, 32, 64)),
        ):
            axes.set_xscale("log")
            axes.set_xticks(ticks, [str(tick) for tick in ticks])
            axes.minorticks_off()
            axes.set_xlabel(words)
            axes.grid(alpha=0.3)
    panels[-1, 0].legend(fontsize=7, loc="upper left")
    panels[0, 1].legend(fontsize=7, loc="lower right")


STUDY = Study("same_cost", measure, write, draw, (9.5, 6.4), tuple(COSTS))

if __name__ == "__main__":
    sys.exit(main(STUDY))
