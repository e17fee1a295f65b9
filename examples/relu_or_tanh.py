"""Study 1: ReLU or tanh in an LSTM? A public answer on weekly hotel cancellations, rebuilt; and what fixed point adds.

    python examples/relu_or_tanh.py [--seeds 5] [--jobs 2] [--write]

The hotel's weeks are read from the data folder; ``--quick`` does without them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from hotel_weeks import FORMS, KNOWN, LAGS, LEARNT, TRAINED, WEEKS, alignment, errors, fresh, hotel, yardsticks
from hwrnn import quantize, train
from hwrnn.comparing import measured
from hwrnn.inspection import describe
from hwrnn.report import say
from hwrnn.stability import state_bounds
from one_rounded import alone
from public_data import MissingData, hotel_cancellations
from study import Place, Run, Section, Study, fixed_point, main, trained
from study_page import checked, markdown, paragraph, ranged, spread

SHAPES = {"tanh": "tanh", "relu": "ReLU", "hard_tanh": "hard tanh", "relu1": "ReLU clipped at 1"}
EPOCHS = (20, 500)
PUBLISHED = {"tanh": (92.0, 29.0), "relu": (96.78, 9.40)}
"""RMSE and mean forecast error of the public answer; its directional accuracy is 80 % for both."""

DATA, UNITS, BITS, WIDER = "japanese-vowels", 64, 8, 12
NETWORKS: dict[str, dict[str, Any]] = {
    "ReLU": {"activation": "relu"},
    "ReLU, cell clipped at 8": {"activation": "relu", "cell_clip": 8.0},
    "ReLU clipped at 6": {"activation": "relu6"},
    "ReLU clipped at 1": {"activation": "relu1"},
    "ReLU clipped at 1, cell clipped at 8": {"activation": "relu1", "cell_clip": 8.0},
    "hard tanh": {"activation": "hard_tanh"},
    "hard tanh, cell clipped at 2": {"activation": "hard_tanh", "cell_clip": 2.0},
}
CALIBRATIONS = (("max", BITS), ("mse", BITS), ("loss", BITS), ("loss", WIDER))
"""Method, and bits of the cell state; the last is what ``quantize`` does where nothing is said."""


def forecast(place: Place, form: str, activation: str, epochs: int, seed: int, check: bool) -> dict[str, Any]:
    """One network's errors on the test weeks, in float and at 8 bits."""
    weeks = hotel_cancellations(place.data_folder)
    data, low, high = hotel(weeks, form)
    model = train(
        fresh(data.inputs, activation, seed, low, high), data, epochs=epochs, batch=1, rate=1e-3, weight_decay=0.0,
        clip=None, noise=0.0, seed=seed, schedule="constant", standardise=False,
    )  # fmt: skip
    predictions = model.predict(data.evaluation.x)[:, 0]
    return {
        "predictions": [float(v) for v in predictions],
        **errors(weeks, form, predictions),
        **fixed_point(quantize(model, data, BITS), data, check=check),
    }


def ranges(place: Place, network: str, seed: int, check: bool, training: dict[str, Any]) -> dict[str, Any]:
    """How far the cell state of one network goes, and what every calibration makes of 8 bits."""
    data = place.dataset(DATA)
    model = trained(place, DATA, training=training, cell="lstm", hidden=UNITS, seed=seed, **NETWORKS[network])
    growth: list[float] = []

    def record(layer: int, name: str, value: np.ndarray, count: int) -> None:
        if (layer, name) == (0, "c"):
            growth.append(float(np.abs(value[:count]).max()))

    model.forward(model.standardised(data.evaluation.x), data.evaluation.lengths, record)
    quantized = {(method, bits): quantize(model, data, BITS, cell_bits=bits, method=method)
                 for method, bits in CALIBRATIONS}  # fmt: skip
    bounds = {bound.state: bound.bound if np.isfinite(bound.bound) else None for bound in state_bounds(model)}
    return {
        "float": measured(model, data)[1],
        "growth": growth,
        "bounds": bounds,
        "warnings": describe(model)["warnings"],
        "calibrations": [measured(quantized[chosen], data)[1] for chosen in CALIBRATIONS],
        "alone": alone(model, data, BITS) if network == "ReLU" else None,
        **fixed_point(quantized[CALIBRATIONS[-1]], data, check=check),
    }


def measure(run: Run) -> dict[str, Any]:
    """The ranges and the forecasts; twice as many seeds as asked for where single seeds decide."""
    more = run.seeds if run.quick else range(2 * len(run.seeds))
    networks = ["ReLU", "ReLU clipped at 1"] if run.quick else list(NETWORKS)
    training = {"epochs": 2} if run.quick else {"noise": 0.3}
    tasks: list[dict[str, Any]] = [
        {"network": network, "seed": seed, "check": run.checks(seed), "training": training}
        for network in networks
        for seed in (more if network == "ReLU" else run.seeds)
    ]
    found: dict[str, list[Any]] = {}
    for task, result in zip(tasks, run.each(ranges, tasks), strict=True):
        found.setdefault(task["network"], []).append(result)
    results: dict[str, Any] = {"ranges": found}
    try:
        weeks = hotel_cancellations(run.place.data_folder)
    except MissingData as error:
        if not run.quick:
            raise
        say(f"Without the hotel's weeks: {error}")
        return results | {"hotel": None}
    rows: list[dict[str, Any]] = [
        {"form": form, "activation": activation, "epochs": epochs}
        for form in FORMS
        for activation in (PUBLISHED if run.quick else SHAPES)
        for epochs in ((1,) if run.quick else EPOCHS)
    ]
    for row in rows:
        row["seeds"] = list(more if row["activation"] in PUBLISHED else run.seeds)
    tasks = [
        {key: row[key] for key in ("form", "activation", "epochs")} | {"seed": seed, "check": run.checks(seed)}
        for row in rows
        for seed in row["seeds"]
    ]
    forecasts = iter(run.each(forecast, tasks))
    told = [row | {"results": [next(forecasts) for _ in row["seeds"]]} for row in rows]
    first = np.array(told[0]["results"][0]["predictions"])
    return results | {
        "hotel": told,
        "yardsticks": yardsticks(weeks),
        "alignment": alignment(weeks[list(FORMS["published"])], first),
    }


ROUNDED = {
    "x": "input", "i": "input gate", "f": "forget gate", "o": "output gate", "g": "candidate g", "c": "cell state c",
    "t": "t, the nonlinearity of c", "h": "hidden state h", "weights": "all weights",
}  # fmt: skip


def column(found: Sequence[dict[str, Any]], key: str) -> list[float]:
    """One figure of every seed."""
    return [r[key] for r in found]


def with_least(shares: Sequence[float]) -> str:
    """Mean and deviation in percent, and the worst seed."""
    return f"{spread(shares)} (least {100 * min(shares):.1f})"


def forecast_table(results: dict[str, Any], form: str) -> str:
    """The rows of a form: what was published, what needs no network, and the networks."""
    rows = []
    if form == "published":
        rows += [[f"published: {SHAPES[a]}", f"{r:g}", "-", f"{b:g}", "-", "-", "-"] for a, (r, b) in PUBLISHED.items()]
    for name, found in results["yardsticks"][form].items():
        error = f"{found['rmse']:.1f}"
        rows.append([name, error, "-", f"{found['bias']:.1f}", f"{100 * found['direction']:.0f}", "-", "-"])
    for row in results["hotel"]:
        if row["form"] == form:
            found = row["results"]
            rmses, biases, directions = (column(found, key) for key in ("rmse", "bias", "direction"))
            rows.append([
                f"{SHAPES[row['activation']]}, {row['epochs']} epochs", spread(rmses, 1), ranged(rmses, 1),
                ranged(biases, 1), spread(directions, 100, 0), spread(column(found, "value"), 1), checked(found),
            ])  # fmt: skip
    header = ["forecast", "RMSE", "its range", "mean forecast error", "direction right, percent",
              f"RMSE at {BITS} bits", "simulated"]  # fmt: skip
    return markdown(header, rows)


def seeds_of(results: dict[str, Any], form: str, activation: str, epochs: int, key: str = "rmse") -> np.ndarray:
    """One figure of a row of the hotel, by seed."""
    for row in results["hotel"]:
        if (row["form"], row["activation"], row["epochs"]) == (form, activation, epochs):
            return np.array(column(row["results"], key))
    raise KeyError((form, activation, epochs))


def pairs_table(results: dict[str, Any]) -> str:
    """ReLU against tanh, seed by seed."""
    rows = []
    for form in FORMS:
        for epochs in sorted({row["epochs"] for row in results["hotel"]}):
            gap = seeds_of(results, form, "relu", epochs) - seeds_of(results, form, "tanh", epochs)
            rows.append([f"{form}, {epochs} epochs", spread(gap, 1), f"{int((gap < 0).sum())} of {len(gap)}"])
    return markdown(["form", "RMSE of ReLU minus that of tanh", "seeds in which ReLU is the better"], rows)


def inside(results: dict[str, Any], activation: str) -> str:
    """Where a published row lies among the seeds, in words."""
    found = []
    for epochs in sorted({row["epochs"] for row in results["hotel"]}):
        ends = []
        for key, value in zip(("rmse", "bias"), PUBLISHED[activation], strict=True):
            seeds = seeds_of(results, "published", activation, epochs, key)
            ends.append(bool(seeds.min() <= value <= seeds.max()))
        words = {(True, True): "both figures", (True, False): "the RMSE", (False, True): "the mean forecast error"}
        found.append(f"{words.get((ends[0], ends[1]), 'neither figure')} at {epochs} epochs")
    return " and ".join(found)


def write(results: dict[str, Any]) -> Section:
    """The section."""
    body = [] if results["hotel"] is None else forecasts_told(results)
    measured_ranges = results["ranges"]
    relu = measured_ranges["ReLU"]
    floats, defaults = column(relu, "float"), [r["calibrations"][-1] for r in relu]
    worst = [min(r["calibrations"][k] for r in relu) for k in range(len(CALIBRATIONS))]
    body += ranges_told(results)
    answer = f"""In fixed point it matters: an LSTM with ReLU has {100 * np.mean(floats):.1f} % in float and at
    {BITS} bits, by seed and calibration, down to {100 * min(worst):.1f} %, because its cell state has no upper
    end. A wider cell state and ranges searched by the task's loss give {100 * np.mean(defaults):.1f} %; a ReLU
    clipped at 1 needs neither."""
    if results["hotel"] is not None:
        epochs = results["hotel"][-1]["epochs"]
        tanh, rectified = (seeds_of(results, "published", a, epochs) for a in ("tanh", "relu"))
        flat = results["yardsticks"]["published"][f"the average of weeks 0 to {TRAINED - 1}"]["rmse"]
        hotel_answer = f"""On the hotel's weeks nothing can be said: over {len(tanh)} seeds the published form
        gives an RMSE of {ranged(list(tanh), 1, 0)} with tanh and {ranged(list(rectified), 1, 0)} with ReLU, one
        number for all weeks gives {flat:.0f}, and the 80 % follow from an index, not from a forecast."""
        answer = f"{hotel_answer} {answer}"
    return Section(
        "ReLU or tanh in an LSTM?",
        """A public answer forecasts a hotel's weekly cancellations with an LSTM(4) and reports for tanh an RMSE of
        92, a mean forecast error of 29 and a directional accuracy of 80 %, for ReLU 96.78, 9.40 and 80 %. Which of
        the two should one take, and which for an FPGA?""",
        answer,
        body,
        """The hotel is one series with a test of ten or fifteen weeks: it cannot rank nonlinearities at all, and
        the better figures of the honest form are no proof that an LSTM is the right model for it. The ranges are
        those of one classification task; how far an unbounded state goes depends on the data, and only a bound by
        proof or a clip holds everywhere.""",
        "The hotel's RMSE of every seed; the cell state at each step; accuracy in fixed point of every seed",
    )


def forecasts_told(results: dict[str, Any]) -> list[str]:
    """The hotel."""
    count, fewer = (ends(len(row["results"]) for row in results["hotel"]) for ends in (max, min))
    yards = results["yardsticks"]["published"]
    flat = yards[f"the average of weeks 0 to {TRAINED - 1}"]
    better = [
        f"{SHAPES[row['activation']]}, {row['epochs']} epochs"
        for row in results["hotel"]
        if row["form"] == "published"
        and np.mean(column(row["results"], "value")) < 0.95 * np.mean(column(row["results"], "rmse"))
    ]
    clipping = f"""Where {BITS} bits have a clearly smaller RMSE than float ({"; ".join(better)}), the formats
    saturate: the rescaled windows drive the network beyond all that it learnt, and the saturation clips what it
    makes of them."""
    clipping = clipping if better else ""
    arrays = [values[0] for values in results["alignment"].values()]
    return [
        "### The hotel, as published and honestly",
        paragraph(f"""*As published:* the scaler sees {KNOWN} weeks; {LEARNT} windows of the first {TRAINED} are
        learnt from, as many as the published log prints; the five lags enter as **one** time step of five
        features, so that nothing recurs: the recurrent matrix and the forget gate meet a state of zero. The
        targets are weeks {KNOWN + LAGS} to {WEEKS - 1}, and the columns of the test windows are rescaled by *their
        own* least and largest values, so the network sees other numbers than it learnt to read. *Honestly:* the
        scaler sees weeks 0 to {TRAINED - 1}, the five lags are five time steps of one feature, and the targets are
        weeks {KNOWN} to {WEEKS - 1}. In both: LSTM(4), a dense output, smooth sigmoid gates, Keras's initial
        values, mean square error, Adam at a constant 0.001, one window a batch, no noise, no decay; {count} seeds
        of the two that were published, {fewer} of the others. Only the nonlinearity of candidate and cell differs.
        At {BITS} bits the smooth functions are fitted lines."""),
        "As published:",
        forecast_table(results, "published"),
        "Honestly:",
        forecast_table(results, "honest"),
        paragraph(f"""The published row of tanh lies within the range of the seeds with {inside(results, "tanh")};
        that of ReLU with {inside(results, "relu")}. So one run of each, which is what was published, could have
        come out in any order:"""),
        pairs_table(results),
        paragraph(f"""The yardsticks need no network. On the ten published weeks, repeating the week before has an
        RMSE of {yards["the week before"]["rmse"]:.1f} and one number for all weeks, the average of the first
        {TRAINED}, {flat["rmse"]:.1f}; the two published networks have {PUBLISHED["tanh"][0]:g} and
        {PUBLISHED["relu"][0]:g}. {clipping}"""),
        paragraph(f"""**The 80 %.** The published directional accuracy is the share of equal signs of `actual[1:] -
        actual[:-1]` and `predicted[1:] - predicted[:-1]`. Both are pandas series there, which subtract what has
        the same *label*: n-2 of the n differences are a value minus itself, on both sides, and agree; the first
        and the last are NaN and do not. The result is (n-2)/n for every forecast: 8/10 = 0.80, 12/14 = 0.857,
        13/15 = 0.867. The script does that subtraction by hand, with {len(arrays)} forecasts of the ten weeks:"""),
        markdown(
            ["forecast of weeks 105 to 114", "on plain arrays, percent", "by label, percent"],
            [[name, f"{100 * a:.0f}", f"{100 * b:.0f}"] for name, (a, b) in results["alignment"].items()],
        ),
        paragraph("""`hwrnn.training.mean_directional_accuracy` works on arrays, and compares both changes with the
        last *actual* week; the tables above use it. (Then repeating the week before is never right, and the
        average of the past is right whenever the series turns back to it.)"""),
    ]


def ranges_told(results: dict[str, Any]) -> list[str]:
    """Fixed point."""
    found = results["ranges"]
    relu, count = found["ReLU"], len(found["ReLU"])
    rows = []
    for name, seeds in found.items():
        cells = [with_least([r["calibrations"][k] for r in seeds]) for k in range(len(CALIBRATIONS))]
        bounds = seeds[0]["bounds"]
        proved = ", ".join(f"{state} {'-' if b is None else f'{b:g}'}" for state, b in bounds.items())
        largest = ranged([max(r["growth"]) for r in seeds], 1, 0)
        rows.append([name, spread(column(seeds, "float")), largest, proved, *cells, checked(seeds)])
    blame = []
    for key, words in ROUNDED.items():
        each = [r["alone"][key] for r in relu]
        told = ["-", "-", "-"]
        if key != "weights":
            told = [ranged(column(each, "largest"), 1, 1), ranged(column(each, "max step"), 1, 3),
                    ranged(column(each, "max lost"), 100, 0)]  # fmt: skip
        told += [with_least(column(each, method)) for method in ("max", "mse")]
        blame.append([words, *told])
    warning = relu[0]["warnings"][-1]
    methods = [f"{BITS} bits everywhere, {method}" for method, bits in CALIBRATIONS if bits == BITS]
    return [
        "### In fixed point",
        paragraph(f"""{DATA}, LSTM({UNITS}) with hard sigmoid gates, {count} seeds, 80 epochs with a noise of 0.3.
        All values and weights have {BITS} bits, the cell state too in the first three columns: by `max`, which
        holds every value seen, by `mse`, which minimises each value's error, and by `loss`, which searches the
        task's loss. The last column is what `hwrnn quantize` does where nothing is said: `loss`, with {WIDER} bits
        for the cell state. In brackets the worst seed. *Proved* is what no input can exceed."""),
        markdown(
            ["nonlinearity of g and c", "float", "largest cell state", "proved: h, c", *methods,
             f"loss, cell state of {WIDER} bits", "simulated"],
            rows,
        ),
        paragraph("""Why ReLU falls: with tanh, g stays within 1 and t within 1, and only c can add up; with ReLU
        nothing ends, so c grows with the length of the sequence, and c is handed on as t and h. One value at a
        time at 8 bits, all else in float, tells which of them is to blame (*rounded to nothing*: the share of the
        values other than zero that are smaller than half a step):"""),
        markdown(
            ["only this at 8 bits", "largest on the training part", "step by max", "rounded to nothing, percent",
             "accuracy by max", "accuracy by mse"],
            blame,
        ),
        paragraph(f"""It is range, not the number of bits as such: a state that reaches hundreds on the longest
        utterances leaves steps of 1 or more for all the others, and a state that is narrower saturates exactly
        there. Which of the two costs more differs from seed to seed, hence the spread. What the tool does about
        it: `hwrnn inspect` says "{warning}."; the cell state gets four bits more than the rest; ranges are
        searched by the task's loss; and the clipped forms, whose bound is proved, keep their accuracy with every
        calibration."""),
    ]


COLOURS = ("#c0392b", "#e67e22", "#d4ac0d", "#1e8449", "#52be80", "#1f618d", "#5dade2")


def draw(results: dict[str, Any], figure: Any) -> None:
    """The hotel's seeds, the cell state by step, the accuracies by seed."""
    widths = (1.3, 1, 1) if results["hotel"] else (1, 1)
    axes = list(figure.subplots(1, len(widths), width_ratios=widths))
    if results["hotel"]:
        draw_hotel(results, axes.pop(0))
    left, right = axes
    colours = dict(zip(NETWORKS, COLOURS, strict=True))
    for name, seeds in results["ranges"].items():
        left.plot(range(1, len(seeds[0]["growth"]) + 1), np.max(column(seeds, "growth"), axis=0), color=colours[name],
                  label=name)  # fmt: skip
        for k in range(len(CALIBRATIONS)):
            at = k + (list(results["ranges"]).index(name) - 3) * 0.11
            values = [100 * r["calibrations"][k] for r in seeds]
            right.plot([at] * len(values), values, "o", color=colours[name], markersize=3)
    left.set(yscale="log", xlabel="step", ylabel="largest cell state, worst seed")
    left.legend(fontsize=6.5, frameon=False)
    right.set(ylabel="accuracy in fixed point, %")
    right.set_xticks(range(len(CALIBRATIONS)), [f"{method},\ncell {bits}" for method, bits in CALIBRATIONS], fontsize=8)


def draw_hotel(results: dict[str, Any], axes: Any) -> None:
    """The RMSE of every seed."""
    labels = []
    for at, row in enumerate(results["hotel"]):
        published = row["form"] == "published"
        axes.plot(column(row["results"], "rmse"), [at] * len(row["results"]), "o" if published else "s", markersize=3,
                  color="#c0392b" if row["activation"] == "relu" else "#1f618d", alpha=0.7)  # fmt: skip
        labels.append(f"{SHAPES[row['activation']]}, {row['epochs']}")
        if published and row["activation"] in PUBLISHED:
            axes.plot(PUBLISHED[row["activation"]][0], at, "kx", markersize=6)
    half = sum(row["form"] == "published" for row in results["hotel"])
    for form, low, high in (("published", -0.5, half - 0.5), ("honest", half - 0.5, len(labels) - 0.5)):
        for (name, found), style in zip(results["yardsticks"][form].items(), (":", "--", "-"), strict=True):
            label = name if form == "published" else None
            axes.plot([found["rmse"]] * 2, [low, high], style, color="0.5", linewidth=1, label=label)
    axes.set_yticks(range(len(labels)), labels, fontsize=7)
    axes.invert_yaxis()
    axes.set(xlabel="RMSE of every seed (x: as published)")
    axes.axhline(half - 0.5, color="0.7", linewidth=0.8)
    axes.legend(fontsize=6.5, frameon=False, loc="lower right")


STUDY = Study("relu_or_tanh", measure, write, draw, (13.0, 4.6), ("hotel-weekly",))

if __name__ == "__main__":
    sys.exit(main(STUDY))
