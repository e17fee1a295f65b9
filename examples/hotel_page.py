"""The hotel's part of the first study's page: tables, text and picture of forecasts by many seeds."""

from __future__ import annotations

from typing import Any

import numpy as np

from hotel_weeks import FORMS, KNOWN, LAGS, LEARNT, PUBLISHED, SHAPES, TRAINED, WEEKS
from study_page import checked, markdown, paragraph, ranged, spread

__all__ = ["beats", "column", "draw_hotel", "forecasts_told", "seeds_of"]


def column(found: list[dict[str, Any]], key: str) -> list[float]:
    """One figure of every seed."""
    return [r[key] for r in found]


def forecast_table(results: dict[str, Any], form: str, bits: int) -> str:
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
              f"RMSE at {bits} bits", "simulated"]  # fmt: skip
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
            rows.append([
                f"{form}, {epochs} epochs", spread(gap, 1), f"{int((gap < 0).sum())} of {len(gap)}",
                f"{100 * beats(results, form, epochs):.0f}",
            ])  # fmt: skip
    header = ["form", "RMSE of ReLU minus that of tanh, same seed", "seeds in which ReLU is the better",
              "a run of ReLU beats a run of tanh, percent"]  # fmt: skip
    return markdown(header, rows)


def beats(results: dict[str, Any], form: str, epochs: int) -> float:
    """In which share of all pairs of seeds a run of ReLU has a smaller RMSE than a run of tanh."""
    tanh, relu = (seeds_of(results, form, activation, epochs) for activation in ("tanh", "relu"))
    return float(np.mean(relu[:, None] < tanh[None]))


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


def forecasts_told(results: dict[str, Any], bits: int) -> list[str]:
    """Both forms, what the seeds say of the published rows, the yardsticks, and the 80 %."""
    count, fewer = (ends(len(row["results"]) for row in results["hotel"]) for ends in (max, min))
    yards = results["yardsticks"]["published"]
    flat = yards[f"the average of weeks 0 to {TRAINED - 1}"]
    better = [
        f"{SHAPES[row['activation']]}, {row['epochs']} epochs"
        for row in results["hotel"]
        if row["form"] == "published"
        and np.mean(column(row["results"], "value")) < 0.95 * np.mean(column(row["results"], "rmse"))
    ]
    clipping = f"""Where {bits} bits have a clearly smaller RMSE than float ({"; ".join(better)}), the formats
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
        At {bits} bits the smooth functions are fitted lines."""),
        "As published:",
        forecast_table(results, "published", bits),
        "Honestly:",
        forecast_table(results, "honest", bits),
        paragraph(f"""The published row of tanh lies within the range of the seeds with {inside(results, "tanh")};
        that of ReLU with {inside(results, "relu")}. The ranges overlap, so one run of each, which is what was
        published, may come out in either order. Over many seeds there is a tendency, and it depends on the form:
        as published, where rescaled windows ask for what was never learnt and a function without an end goes
        farthest astray, ReLU is mostly the worse; honestly, the difference is within its own deviation. In all
        pairs of seeds:"""),
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
        place = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "top"}
        axes.text(0.98, low + 0.15, f"{form} form", fontsize=8, **place)
        for (name, found), style in zip(results["yardsticks"][form].items(), (":", "--", "-"), strict=True):
            label = name if form == "published" else None
            axes.plot([found["rmse"]] * 2, [low, high], style, color="0.5", linewidth=1, label=label)
    axes.set_yticks(range(len(labels)), labels, fontsize=7)
    axes.invert_yaxis()
    axes.set(xlabel="RMSE of every seed (x: as published)")
    axes.axhline(half - 0.5, color="0.7", linewidth=0.8)
    axes.legend(fontsize=6.5, frameon=False, loc="lower right")
