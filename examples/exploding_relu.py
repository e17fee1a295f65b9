"""Study 2: why does my ReLU RNN explode, and what does that mean for the widths of its hardware?

    python examples/exploding_relu.py [--seeds 5] [--jobs 2] [--write]
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np

from hwrnn import quantize
from hwrnn.comparing import measured
from hwrnn.data import Split
from hwrnn.errors import Diverged
from hwrnn.golden import golden
from hwrnn.model import Model
from hwrnn.stability import lengthened, state_bounds
from hwrnn.stability import measure as reached
from study import Place, Run, Section, Study, fixed_point, main, trained
from study_page import checked, markdown, paragraph, spread

DATA, UNITS, LONGER, BITS = "japanese-vowels", 64, 10, 8

ROWS: dict[str, dict[str, Any]] = {
    "Gaussian, norm 4": {"init": "scaled:4", "clip": None},
    "Gaussian, norm 4; gradient clipped": {"init": "scaled:4"},
    "identity": {"init": "identity", "clip": None},
    "identity; gradient clipped": {"init": "identity"},
    "orthogonal": {"init": "orthogonal", "clip": None},
    "orthogonal; gradient clipped": {"init": "orthogonal"},
    "Gaussian, norm 0.9; gradient clipped": {"init": "scaled:0.9"},
    "identity; norm kept at 0.99": {"init": "identity", "spectral_norm": 0.99},
    "orthogonal; norm kept at 0.99": {"init": "orthogonal", "spectral_norm": 0.99},
    "orthogonal; norm kept at 0.9": {"init": "orthogonal", "spectral_norm": 0.9},
    "orthogonal; ReLU clipped at 6": {"init": "orthogonal", "activation": "relu6"},
    "orthogonal; ReLU clipped at 1": {"init": "orthogonal", "activation": "relu1"},
}
"""Initial recurrent matrix and what is done about it: options of ``build_model`` and ``train``, where they differ from
ReLU and from gradients clipped at a norm of 1."""

FREE, KEPT = "orthogonal; gradient clipped", "orthogonal; norm kept at 0.99"


def work(place: Place, row: str, seed: int, check: bool, training: dict[str, Any]) -> dict[str, Any]:
    """What one network learnt, how far its gradient and its state went, and what 8 bits make of it."""
    chosen = {"activation": "relu", "clip": 1.0, "spectral_norm": None} | ROWS[row]
    training = training | {name: chosen.pop(name) for name in ("clip", "spectral_norm")}
    try:
        model = trained(place, DATA, training=training, cell="rnn", hidden=UNITS, seed=seed, **chosen)
    except Diverged:
        return {"diverged": True}
    data = place.dataset(DATA)
    long = lengthened(data.evaluation, LONGER * data.evaluation.x.shape[1])
    integers = quantize(model, data, BITS)
    result = golden(integers, integers.quantize_input(long.x), long.lengths)
    form, proved = integers.layers[0].formats.values["h"], state_bounds(integers)[0].bound
    return {
        "diverged": False,
        "float": measured(model, data)[1],
        "gradient": model.facts["largest_gradient_norm"],
        "norm": float(np.linalg.norm(model.layers[0].block("h", "h"), 2)),
        "state": reached(model, data.evaluation).states["0.h"],
        "state_later": reached(model, long).states["0.h"],
        "growth": growth(model, long),
        "integer_bits": form.width - form.frac,
        "proved": proved if math.isfinite(proved) else None,
        "saturated": result.saturation["0.h"],
        **fixed_point(integers, data, check=check),
    }


def growth(model: Model, split: Split) -> list[float]:
    """The largest state at each step, over all units and sequences (64 of them run side by side)."""
    largest = np.zeros(split.x.shape[1])
    for start in range(0, len(split.x), 64):
        x = model.standardised(split.x[start : start + 64]).astype(np.float64)
        h = model.layers[0].forward(x, split.lengths[start : start + 64])
        largest = np.maximum(largest, np.abs(h).max(axis=(0, 2)))
    return [float(v) for v in largest]


def integer_bits(largest: float) -> int:
    """The bits before the point that hold a value from 0 on."""
    return max(0, math.frexp(largest)[1])


def measure(run: Run) -> dict[str, Any]:
    """Every row, every seed."""
    training = {"epochs": 2} if run.quick else {}
    rows = [FREE, KEPT] if run.quick else list(ROWS)
    tasks = [{"row": r, "seed": s, "check": run.checks(s), "training": training} for r in rows for s in run.seeds]
    results, n = run.each(work, tasks), len(run.seeds)
    steps = run.place.dataset(DATA).evaluation.x.shape[1]
    return {"steps": steps, "rows": {row: results[k * n : (k + 1) * n] for k, row in enumerate(rows)}}


def write(results: dict[str, Any]) -> Section:
    """The section."""
    steps, later = results["steps"], LONGER * results["steps"]
    finished = {row: [r for r in found if not r["diverged"]] for row, found in results["rows"].items()}
    ranges, widths = [], []
    for row, found in finished.items():
        lost = f"{len(results['rows'][row]) - len(found)} of {len(results['rows'][row])}"
        if not found:
            ranges.append([row, "-", "-", "-", "-", "-", lost])
            continue
        each = {key: [r[key] for r in found] for key in found[0]}
        most = {key: number(max(each[key])) for key in ("gradient", "state", "state_later")}
        bits = {key: within(map(integer_bits, each[key])) for key in ("state", "state_later")}
        proved = "unbounded" if None in each["proved"] else within(map(integer_bits, each["proved"]))
        norm, saturated = spread(each["norm"], 1, 2), f"{100 * max(each['saturated']):.2g} %"
        ranges.append([row, spread(each["float"]), norm, most["gradient"], most["state"], most["state_later"], lost])
        widths.append([row, spread(each["value"]), within(each["integer_bits"]), *bits.values(), proved, saturated,
                       checked(found)])  # fmt: skip
    wildest = max((found for found in finished.values() if found), key=lambda found: worst(found, "state_later"))
    (name,) = (row for row, found in finished.items() if found is wildest)
    steepest = max(factor(r["growth"], steps) for found in finished.values() for r in found)
    free, kept = finished[FREE], finished[KEPT]
    return Section(
        "Why does my ReLU RNN explode?",
        """A plain RNN with ReLU learns well, but its gradient and its state grow without an end. What bounds them,
        what does that cost, and how many bits does the state need?""",
        f"""Each step multiplies by the recurrent matrix U, and ReLU has no upper end. Clipping the gradients mends
        the training and leaves the state: in sequences {LONGER} times as long as trained it reaches
        {number(worst(wildest, "state_later"))}, {integer_bits(worst(wildest, "state_later"))} integer bits
        ({name}). With the norm of U kept at 0.99 the accuracy is {percent(kept, "float")} %
        ({percent(free, "float")} % without), and the state at {later} steps is
        {worst(kept, "state_later") / worst(kept, "state"):.2f} times that at {steps}.""",
        [
            paragraph(f"""{DATA}, {UNITS} units, trained by the recipe of all studies. Where a row says nothing of
            the gradient it is left as it is, except that the rows with a bound clip it at a norm of 1 too. The
            largest gradient is the norm over all parameters, before clipping, of any batch of the training. The
            largest state is that of any unit, sequence and step of the test part, once at its own lengths (up to
            {steps} steps) and once with every sequence repeated until it has {later} steps. Gradients and states
            are the worst of all seeds."""),
            markdown(
                ["initial U, and what is done", "accuracy in percent", "norm of U when trained", "largest gradient",
                 f"largest state in {steps} steps", f"in {later} steps", "seeds that diverged"],
                ranges,
            ),
            paragraph(f"""Going forward, a step multiplies the state by U and lets through what is positive; going
            back, the gradient is multiplied by the transpose of U for the units that were let through. So both can
            grow by as much as the norm of U in every step, and a small factor is enough: the steepest line of the
            picture grows by {steepest:.2f} a step. How much they do grow depends on which units are open together,
            so a norm above 1 permits an explosion and does not foretell it: rows of nearly the same norm end
            orders of magnitude apart, and the test at the trained length does not tell them apart. A norm below 1
            forbids it, at any length: ||h|| is at most the largest ||Wx + b|| over 1 - ||U||."""),
            paragraph(f"""For hardware the largest state decides the integer bits. The table gives those of the
            format that calibration chose at {BITS} bits; those that the largest state takes at both lengths; those
            that the bound takes which `hwrnn inspect` proves of the quantized network at any length; and the share
            of the state's values that saturates when a network quantized for the trained length runs {LONGER}
            times as long."""),
            markdown(
                ["initial U, and what is done", f"accuracy in percent at {BITS} bits", "integer bits of the format",
                 f"needed in {steps} steps", f"in {later} steps", "proved at any length", f"saturated in {later} steps",
                 "simulated"],
                widths,
            ),
        ],
        paragraph(f"""One data set with sequences of at most {steps} steps. A norm below 1 makes a network forget,
        so a task with a long memory may pay for it where this one does not; and repeated utterances test the
        range, not the accuracy. The largest state seen is a lower bound of what can happen. What is proved is an
        upper one: it holds for every input that the format can say, and lies far above what these data do."""),
        paragraph(f"""The largest state at each step, the worst of all seeds (a straight line is growth by a factor
        in every step), and the accuracy of every seed at {BITS} bits"""),
    )  # fmt: skip


def mean(found: list[dict[str, Any]], key: str) -> float:
    """Over seeds."""
    return float(np.mean([r[key] for r in found]))


def worst(found: list[dict[str, Any]], key: str) -> float:
    """Over seeds."""
    return float(max(r[key] for r in found))


def percent(found: list[dict[str, Any]], key: str) -> str:
    """The mean of a share over seeds."""
    return f"{100 * mean(found, key):.1f}"


def factor(growth: list[float], steps: int) -> float:
    """By how much a state grows in a step, on average beyond the trained length."""
    return float((growth[-1] / growth[steps - 1]) ** (1 / (len(growth) - steps)))


def number(value: float) -> str:
    """Three digits, and a power of ten where there are more than five before the point."""
    return f"{value:.3g}" if 1e-3 < value < 1e3 else f"{value:,.0f}" if 1 <= value < 1e5 else f"{value:.1e}"


def within(values: Any) -> str:
    """One number, or the least to the largest."""
    found = sorted(set(values))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


WARM = ("#7a0403", "#b5200b", "#dd4a14", "#f07f13", "#f9b233", "#c79a6b", "#8c6d4f")
COOL = ("#123f8c", "#2f7fc2", "#63b7d6", "#1a7a4c", "#79c267")


def draw(results: dict[str, Any], figure: Any) -> None:
    """Left the largest state at each step, right the accuracy in fixed point against the bits that the state needs."""
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    steps, warm, cool = results["steps"], iter(WARM), iter(COOL)
    for row, found in results["rows"].items():
        ends = "activation" in ROWS[row] or "spectral_norm" in ROWS[row]
        style = {"color": next(cool if ends else warm), "label": row}
        found = [r for r in found if not r["diverged"]]
        if not found:
            continue
        h = np.max([r["growth"] for r in found], axis=0)
        left.plot(np.arange(1, len(h) + 1), h, "-" if ends else "--", linewidth=1.6, **style)
        bits = [integer_bits(r["state_later"]) for r in found]
        right.plot(bits, [100 * r["value"] for r in found], "o" if ends else "x", markersize=5, **style)
    left.axvline(steps, color="0.6", linewidth=0.8)
    left.set(yscale="log", xlabel="step", ylabel="largest state")
    left.text(steps + 4, left.get_ylim()[1] / 3, "trained length", ha="left", va="top", fontsize=8, color="0.4")
    right.set(xlabel=f"integer bits that the state takes in {LONGER * steps} steps")
    right.set(ylabel=f"accuracy at {BITS} bits, %")
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center", fontsize=7.5, frameon=False)


STUDY = Study("exploding_relu", measure, write, draw, (11.0, 4.2))

if __name__ == "__main__":
    sys.exit(main(STUDY))
