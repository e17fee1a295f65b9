"""Study 1: ReLU or tanh in an LSTM? A public answer on weekly hotel cancellations, rebuilt; and what fixed point adds.

    python examples/relu_or_tanh.py [--seeds 5] [--jobs 2] [--write]

The hotel's weeks are read from the data folder; ``--quick`` does without them.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from hotel_page import beats, column, draw_hotel, forecasts_told, seeds_of
from hotel_weeks import FORMS, PUBLISHED, SHAPES, TRAINED, alignment, errors, fresh, hotel, yardsticks
from hwrnn import quantize, train
from hwrnn.comparing import measured
from hwrnn.inspection import describe
from hwrnn.report import say
from hwrnn.stability import state_bounds
from one_rounded import alone
from public_data import MissingData, hotel_cancellations
from study import Place, Run, Section, Study, fixed_point, main, trained
from study_page import checked, markdown, paragraph, ranged, spread

EPOCHS = (20, 500)
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
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        quantized = {(method, bits): quantize(model, data, BITS, cell_bits=bits, method=method)
                     for method, bits in CALIBRATIONS}  # fmt: skip
        blame = alone(model, data, BITS) if network == "ReLU" else None
    bounds = {bound.state: bound.bound if np.isfinite(bound.bound) else None for bound in state_bounds(model)}
    return {
        "float": measured(model, data)[1],
        "growth": growth,
        "bounds": bounds,
        "warnings": describe(model)["warnings"],
        "told": list(dict.fromkeys(str(warning.message) for warning in told)),
        "calibrations": [measured(quantized[chosen], data)[1] for chosen in CALIBRATIONS],
        "alone": blame,
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


def range_of(values: Sequence[float], digits: int) -> str:
    """Least to largest over seeds, or one number where they are written alike."""
    return " to ".join(dict.fromkeys(ranged(values, 1, digits).split(" to ")))


def with_least(shares: Sequence[float]) -> str:
    """Mean and deviation in percent, and the worst seed."""
    return f"{spread(shares)} (least {100 * min(shares):.1f})"


def write(results: dict[str, Any]) -> Section:
    """The section."""
    body = [] if results["hotel"] is None else forecasts_told(results, BITS)
    measured_ranges = results["ranges"]
    relu = measured_ranges["ReLU"]
    floats, defaults = column(relu, "float"), [r["calibrations"][-1] for r in relu]
    clipped = measured_ranges["ReLU clipped at 1"]
    worst = [min(r["calibrations"][k] for r in relu) for k in range(len(CALIBRATIONS))]
    body += ranges_told(results)
    answer = f"""In fixed point it matters: an LSTM with ReLU has {100 * np.mean(floats):.1f} % in float and at
    {BITS} bits, by seed and calibration, down to {100 * min(worst):.1f} %, because its cell state has no upper
    end. A wider cell state and ranges searched by the task's loss give {100 * np.mean(defaults):.1f} %; a ReLU
    clipped at 1 has {100 * np.mean([r["calibrations"][0] for r in clipped]):.1f} % by the crudest calibration."""
    if results["hotel"] is not None:
        epochs = results["hotel"][-1]["epochs"]
        tanh, rectified = (seeds_of(results, "published", a, epochs) for a in ("tanh", "relu"))
        flat = results["yardsticks"]["published"][f"the average of weeks 0 to {TRAINED - 1}"]["rmse"]
        hotel_answer = f"""On the hotel's weeks one run of each decides nothing: over {len(tanh)} seeds the
        published form gives an RMSE of {ranged(list(tanh), 1, 0)} with tanh and {ranged(list(rectified), 1, 0)}
        with ReLU, and a run of ReLU beats one of tanh in {100 * beats(results, "published", epochs):.0f} % of all
        pairs, in the honest form in {100 * beats(results, "honest", epochs):.0f} %; one number for all weeks gives
        {flat:.0f}; and the 80 % follow from an index, not from a forecast."""
        answer = f"{hotel_answer} {answer}"
    return Section(
        "ReLU or tanh in an LSTM?",
        """A public answer forecasts a hotel's weekly cancellations with an LSTM(4) and reports for tanh an RMSE of
        92, a mean forecast error of 29 and a directional accuracy of 80 %, for ReLU 96.78, 9.40 and 80 %. Which of
        the two should one take, and which for an FPGA?""",
        answer,
        body,
        paragraph("""The hotel is one series with a test of ten or fifteen weeks: it cannot rank nonlinearities at
        all, and the better figures of the honest form are no proof that an LSTM is the right model for it. The
        ranges are those of one classification task; how far an unbounded state goes depends on the data, and only
        a bound by proof or a clip holds everywhere."""),
        "The hotel's RMSE of every seed; the cell state at each step; accuracy in fixed point of every seed",
    )


def ranges_told(results: dict[str, Any]) -> list[str]:
    """Fixed point."""
    found = results["ranges"]
    relu, count, fewer = found["ReLU"], len(found["ReLU"]), min(map(len, found.values()))
    rows = []
    for name, seeds in found.items():
        cells = [with_least([r["calibrations"][k] for r in seeds]) for k in range(len(CALIBRATIONS))]
        bounds = seeds[0]["bounds"]
        proved = ", ".join(f"{state} {'none' if b is None else f'{b:g}'}" for state, b in bounds.items())
        largest = range_of([max(r["growth"]) for r in seeds], 0)
        rows.append([name, spread(column(seeds, "float")), largest, proved, *cells, checked(seeds)])
    blame = []
    for key, words in ROUNDED.items():
        each = [r["alone"][key] for r in relu]
        told = ["-", "-", "-"]
        if key != "weights":
            lost = [100 * share for share in column(each, "max lost")]
            told = [range_of(column(each, "largest"), 1), range_of(column(each, "max step"), 3), range_of(lost, 0)]
        told += [with_least(column(each, method)) for method in ("max", "mse")]
        blame.append([words, *told])
    warning = relu[0]["warnings"][-1]
    told = [sentence for r in relu for sentence in r.get("told", ())]
    quantizing = f' and `hwrnn quantize` warns "{told[0]}"' if told else ""
    methods = [f"{BITS} bits everywhere, {method}" for method, bits in CALIBRATIONS if bits == BITS]
    return [
        "### In fixed point",
        paragraph(f"""{DATA}, LSTM({UNITS}) with hard sigmoid gates, {count} seeds of ReLU and {fewer} of the
        others, 80 epochs with a noise of 0.3. All values and weights have {BITS} bits, the cell state too in the
        first three columns: by `max`, which holds every value seen, by `mse`, which minimises each value's error,
        and by `loss`, which searches the task's loss. The last column is what `hwrnn quantize` does where nothing
        is said: `loss`, with {WIDER} bits for the cell state. In brackets the worst seed. *Proved* is what no
        input can exceed."""),
        markdown(
            ["nonlinearity of g and c", "float", "largest cell state, test part", "proved: h, c", *methods,
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
        paragraph(f"""It is range that is missing, not bits as such: a state that reaches hundreds on the longest
        utterances leaves coarse steps for all the others. By `max` nothing that was seen saturates, and what falls
        is resolution; `mse` gives up some range for it; `loss` asks the task. What the tool does about it: `hwrnn
        inspect` says "{warning}."{quantizing}; the cell state gets four bits more than the rest; ranges are
        searched by the task's loss; and the clipped forms keep their accuracy with every calibration, and with a
        clip on the cell state the bounds of both states are proved."""),
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
    left.set_ylim(top=60 * left.get_ylim()[1])  # room for the legend
    left.legend(fontsize=6.5, frameon=False, loc="upper left")
    right.set(ylabel="accuracy in fixed point, %")
    right.set_xticks(range(len(CALIBRATIONS)), [f"{method},\ncell {bits}" for method, bits in CALIBRATIONS], fontsize=8)


STUDY = Study("relu_or_tanh", measure, write, draw, (12.0, 4.4), ("hotel-weekly",))

if __name__ == "__main__":
    sys.exit(main(STUDY))
