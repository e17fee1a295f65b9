"""Study 6: what do 16 to 2 bits cost, after training and with quantization-aware training?

    python examples/few_bits.py [--seeds 5] [--jobs 2] [--write]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from hwrnn import quantize
from hwrnn.comparing import measured
from recipes import QAT, recipe
from study import Place, Run, Section, Study, fixed_point, main, trained
from study_page import markdown, spread

NETWORKS: dict[str, dict[str, Any]] = {
    "GRU": {"cell": "gru"},
    "LSTM": {"cell": "lstm", "cell_clip": 2.0},
    "RNN, ReLU clipped to 1": {"cell": "rnn", "activation": "relu1"},
}
NAMES = {"japanese-vowels": tuple(NETWORKS), "spoken-digits": ("GRU", "LSTM")}
"""The networks of each data set."""
UNITS = 32
ITEM = 0.3  # points that one item of a test part is worth, about
METHODS = {"max": "largest value", "mse": "least square error", "loss": "least loss"}
BITS = (16, 8, 6, 4, 3, 2)
COMPARED = (8, 4, 3)  # bits at which all methods are compared
AWARE = (4, 2)  # bits that are also trained for
CHECKED = ("loss 8", "loss 4", "aware 4", "aware 2", "aware w2 a4 s4")
"""Forms whose hardware is simulated without being asked, of every network."""
MIXED = {  # weights, activations, state
    "w4 a8 s8": {"bits": 8, "weight_bits": 4},
    "w2 a4 s4": {"bits": 4, "weight_bits": 2},
}


def work(place: Place, data: str, network: str, form: dict[str, Any] | None, training: dict[str, Any], seed: int,
         check: bool) -> dict[str, Any]:  # fmt: skip
    """The accuracy of one network, in float (``form`` None) or quantized with the options of ``form``."""
    dataset = place.dataset(data)
    model = trained(place, data, training=training, hidden=UNITS, seed=seed, **NETWORKS[network])
    if form is None:
        return {"value": measured(model, dataset)[1], "hardware": None}
    return fixed_point(quantize(model, dataset, **form), dataset, check=check)


def _forms(data: str, quick: bool) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """The columns' keys and the options of ``quantize``."""
    aware = QAT[data] | ({"finetune": 2} if quick else {})
    yield "float", None
    for bits in (4,) if quick else BITS:
        for method in METHODS if bits in COMPARED else ("loss",):
            yield f"{method} {bits}", {"bits": bits, "method": method}
    for bits in (4,) if quick else AWARE:
        yield f"aware {bits}", {"bits": bits} | aware
    for name, widths in MIXED.items():
        if not quick:
            yield f"aware {name}", widths | aware


def measure(run: Run) -> dict[str, Any]:
    """Every data set, network and form."""
    rows = [
        {"data": data, "network": network, "name": name, "form": form, "training": recipe(data, run.quick)}
        for data, networks in NAMES.items()
        for network in networks
        if not run.quick or (data, network) == ("japanese-vowels", "GRU")
        for name, form in _forms(data, run.quick)
    ]
    tasks = [
        {key: value for key, value in row.items() if key != "name"}
        | {"seed": seed, "check": run.check_all or (row["name"] in CHECKED and run.checks(seed))}
        for row in rows
        for seed in run.seeds
    ]
    found = iter(run.each(work, tasks))
    results: dict[str, Any] = {}
    for row in rows:
        results.setdefault(f"{row['data']}, {row['network']}", {})[row["name"]] = [next(found) for _ in run.seeds]
    return results


def _values(found: list[dict[str, Any]]) -> list[float]:
    return [one["value"] for one in found]


def _mean(found: list[dict[str, Any]]) -> float:
    return float(np.mean(_values(found)))


def _shown(forms: dict[str, Any], name: str) -> str:
    return spread(_values(forms[name])) if name in forms else "-"


def write(results: dict[str, Any]) -> Section:
    """The section: after training, trained for, mixed widths, and what the calibrations do."""
    present = [bits for bits in BITS if all(f"loss {bits}" in forms for forms in results.values())]
    compared = [bits for bits in present if bits in COMPARED]
    after = [
        [key, _shown(forms, "float"), *(_shown(forms, f"loss {b}") for b in present)] for key, forms in results.items()
    ]
    trained_for = [b for b in AWARE if all(f"aware {b}" in forms for forms in results.values())]
    mixed = [name for name in MIXED if all(f"aware {name}" in forms for forms in results.values())]
    aware = [
        [key, *(_shown(forms, f"aware {b}") for b in trained_for), *(_shown(forms, f"aware {m}") for m in mixed)]
        for key, forms in results.items()
    ]
    body = [
        "Accuracy in percent of networks of 32 units with hard nonlinearities; bits of weights, activations and hidden"
        " state alike, a cell state has four more. After training, ranges chosen by the least loss:",
        markdown(["data, network", "float", *(f"{b} bits" for b in present)], after),
        "With quantization-aware training, which goes on from the float network; wXaYsZ are the bits of weights,"
        " activations and hidden state:",
        markdown(["data, network", *(f"{b} bits" for b in trained_for), *mixed], aware),
        "How the power-of-two ranges are chosen decides at few bits. Means after training, by the largest value seen /"
        " the least square error of each value / the least loss of the task:",
        markdown(["data, network", *(f"{b} bits" for b in compared)], [
            [key, *(" / ".join(f"{100 * _mean(forms[f'{method} {b}']):.1f}" for method in METHODS) for b in compared)]
            for key, forms in results.items()
        ]),
        _best(results, compared),
    ]  # fmt: skip
    return Section(
        "Few bits", "What do 16 to 2 bits cost, after training and with quantization-aware training?", _answer(results),
        body,
        "Two data sets of speech, each some hundred test items, and networks of 32 units: others may need more bits."
        " Recipes were chosen for the GRU. Compare differences with the deviations beside them: many are smaller.",
        "Accuracy against bits, after training and with quantization-aware training", _simulated(),
    )  # fmt: skip


def _answer(results: dict[str, Any]) -> str:
    def worst(name: str) -> float:
        return max(100 * (_mean(forms["float"]) - _mean(forms[name])) for forms in results.values() if name in forms)

    def said(points: float) -> str:
        return f"at most {points:.1f} points" if points > 0.05 else "nothing"

    parts = []
    if all("loss 8" in forms for forms in results.values()):
        parts.append(f"Eight bits after training cost {said(worst('loss 8'))} in the mean over seeds")
    parts.append(f"four cost {said(worst('loss 4'))}, and {said(worst('aware 4'))} when trained for")
    if all("aware w2 a4 s4" in forms for forms in results.values()):
        parts.append(f"with two-bit weights and four-bit values, trained for, it is {said(worst('aware w2 a4 s4'))}")
    return "; ".join(parts) + "."


def _best(results: dict[str, Any], bits: list[int]) -> str:
    """Where the largest value is the better choice of a range, if anywhere."""
    gains = {
        f"{key} at {b} bits": 100 * (_mean(results[key][f"max {b}"]) - _mean(results[key][f"loss {b}"]))
        for key in results
        for b in bits
    }
    better = [f"{case} (by {gain:.1f} points)" for case, gain in gains.items() if gain > ITEM]
    if not better:
        case = max(gains, key=lambda name: gains[name])
        told = f"the most is {gains[case]:.2f} points, {case}" if gains[case] > 0 else "nor by less"
        return (
            f"In none of the {len(gains)} cases is the largest value better than the least loss by more than one test"
            f" item ({ITEM:.1f} points; {told})."
        )
    return (
        f"In {len(better)} of the {len(gains)} cases the largest value is better than the least loss by more than one"
        f" test item: {', '.join(better)}."
    )


def _simulated() -> str:
    told = ", ".join(name.replace("loss", "least loss").replace("aware", "trained for") for name in CHECKED)
    return f"of every network that of seed 0, in these columns of the first two tables: {told}"


def draw(results: dict[str, Any], figure: Any) -> None:
    """A panel for every data set and network."""
    columns = min(3, len(results))
    panels = figure.subplots(-(-len(results) // columns), columns, sharey=True, squeeze=False)
    styles = {
        "max": ("tab:red", "x:"), "mse": ("tab:orange", "+--"), "loss": ("tab:blue", "o-"),
        "aware": ("tab:green", "s-"),
    }  # fmt: skip
    labels = METHODS | {"aware": "trained for it"}
    for axes, (key, forms) in zip(panels.flat, results.items(), strict=False):
        axes.axhline(100 * _mean(forms["float"]), color="0.4", linestyle="--", linewidth=1, label="float")
        for kind, (color, style) in styles.items():
            bits = [b for b in sorted(BITS) if f"{kind} {b}" in forms]
            values = [100 * _mean(forms[f"{kind} {b}"]) for b in bits]
            axes.plot([BITS[::-1].index(b) for b in bits], values, style, color=color, label=labels[kind], markersize=4)
        axes.set_xticks(range(len(BITS)), [str(b) for b in sorted(BITS)])
        axes.set_xlim(-0.4, len(BITS) - 0.6)
        axes.set_title(key, fontsize=9)
        axes.grid(alpha=0.3)
        axes.set_xlabel("bits")
    for axes in panels[:, 0]:
        axes.set_ylabel("accuracy in percent")
    handles, words = panels[0, 0].get_legend_handles_labels()
    empty = panels.flat[len(results) :]
    for axes in empty:
        axes.set_axis_off()
    (empty[0] if len(empty) else panels[0, 0]).legend(handles, words, fontsize=8, loc="center")


STUDY = Study("few_bits", measure, write, draw, (9.5, 5.6), tuple(NAMES))

if __name__ == "__main__":
    sys.exit(main(STUDY))
