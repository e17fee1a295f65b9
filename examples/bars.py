"""How well: the figures that hwrnn sets itself, each measured over seeds on the official parts of public data.

    python examples/bars.py [--seeds 5] [--jobs 2] [--write]

Japanese Vowels and Mackey-Glass come with hwrnn; spoken digits and Seattle's weather do not: ``public_data.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hwrnn import quantize
from hwrnn.comparing import measured
from hwrnn.stability import measure as measure_states
from recipes import QAT, recipe
from study import Place, Run, Section, Study, fixed_point, main, trained
from study_page import checked, markdown, spread

Values = Mapping[str, list[float]]
"""Accuracies (0 to 1) or errors per seed, by the form of a network; as ``growth`` that of the largest state."""


@dataclass(frozen=True)
class Bar:
    """A figure to reach by the mean over seeds.

    Attributes:
        form: which form of the network, by its name in :class:`Network`.
        words: the bar as people say it.
        reached: takes the values of all forms of the network, and those of all networks by name.
    """

    form: str
    words: str
    reached: Callable[[Values, Mapping[str, Values]], bool]


@dataclass(frozen=True)
class Network:
    """A network and the forms that it is measured in.

    Attributes:
        name, data: of the rows, and of the data set.
        model: options of ``build_model``.
        forms: options of ``quantize`` by name; None is the float network.
        training: what replaces the data set's recipe.
        states: whether to measure the largest state at the trained length and at ten times it.
    """

    name: str
    data: str
    model: dict[str, Any]
    forms: dict[str, dict[str, Any] | None]
    bars: tuple[Bar, ...]
    training: dict[str, Any] = field(default_factory=dict)
    states: bool = False


def _at_least(form: str, least: float) -> Bar:
    return Bar(form, f">= {100 * least:.1f} %", lambda own, others: _mean(own[form]) >= least)


def _within(form: str, points: float) -> Bar:
    words = f"at most {points:.1f} points below float"
    return Bar(form, words, lambda own, others: _mean(own[form]) >= _mean(own["float"]) - points / 100)


def _mean(values: list[float]) -> float:
    return float(np.mean(values))


def _mse(errors: list[float]) -> float:
    return float(np.mean(np.square(errors)))


def _qat(data: str, **bits: int) -> dict[str, Any]:
    return bits | QAT[data]


VOWELS, DIGITS, SEATTLE, GLASS = "japanese-vowels", "spoken-digits", "seattle-weather", "mackey-glass"
GRU = {"cell": "gru"}
RELU = {"cell": "rnn", "activation": "relu", "hidden": 64}
SPECTRAL = "ReLU RNN(64), norm at most 0.99"
UNBOUNDED = "ReLU RNN(64)"
TRAINED, LONG = 29, 290  # steps

NETWORKS = (
    Network(
        "GRU(32)", VOWELS, GRU | {"hidden": 32},
        {
            "float": None,
            "8 bits": {"bits": 8},
            "w4 a8 s8, QAT": _qat(VOWELS, bits=8, weight_bits=4),
            "w2 a4 s4, QAT": _qat(VOWELS, bits=4, weight_bits=2),
        },
        (_at_least("float", 0.98), _within("8 bits", 0.2), _within("w4 a8 s8, QAT", 0.3),
         _at_least("w2 a4 s4, QAT", 0.978)),
    ),
    Network("GRU(8)", VOWELS, GRU | {"hidden": 8}, {"float": None, "8 bits": {"bits": 8}},
            (_at_least("float", 0.955), _at_least("8 bits", 0.955))),
    Network("GRU(32)", DIGITS, GRU | {"hidden": 32}, {"float": None, "4 bits, QAT": _qat(DIGITS, bits=4)},
            (_at_least("float", 0.993), _at_least("4 bits, QAT", 0.991))),
    Network("GRU(16)", SEATTLE, GRU | {"hidden": 16}, {"float": None, "8 bits": {"bits": 8}},
            (Bar("8 bits", "RMSE <= 2.72 C", lambda own, others: _mean(own["8 bits"]) <= 2.72),)),
    Network(
        "GRU(16)", GLASS, GRU | {"hidden": 16},
        {"float": None, "8 bits": {"bits": 8}, "8 bits, QAT": _qat(GLASS, bits=8), "12 bits": {"bits": 12}},
        (Bar("8 bits, QAT", "MSE at most 1.2 times float's",
             lambda own, others: _mse(own["8 bits, QAT"]) <= 1.2 * _mse(own["float"])),),
    ),
    Network(UNBOUNDED, VOWELS, RELU, {"float": None, "8 bits": {"bits": 8}}, (), states=True),
    Network(
        SPECTRAL, VOWELS, RELU, {"float": None, "8 bits": {"bits": 8}},
        (
            Bar("float", "at most 0.3 points below the unbounded",
                lambda own, others: _mean(own["float"]) >= _mean(others[UNBOUNDED]["float"]) - 0.003),
            Bar("float", f"largest state at {LONG} steps at most 1.5 times that at {TRAINED}",
                lambda own, others: max(own["growth"]) <= 1.5),
            Bar("8 bits", "at most 0.3 points below the unbounded in float",
                lambda own, others: _mean(own["8 bits"]) >= _mean(others[UNBOUNDED]["float"]) - 0.003),
        ),
        training={"spectral_norm": 0.99}, states=True,
    ),
)  # fmt: skip


def work(
    place: Place, data: str, model: dict[str, Any], training: dict[str, Any], form: dict[str, Any] | None, states: bool,
    seed: int, check: bool,
) -> dict[str, Any]:  # fmt: skip
    """The metric of one network in one form, and of a float one perhaps its largest states."""
    dataset = place.dataset(data)
    network = trained(place, data, training=training, seed=seed, **model)
    if form is not None:
        return fixed_point(quantize(network, dataset, **form), dataset, check=check)
    result: dict[str, Any] = {"value": measured(network, dataset)[1], "hardware": None}
    if states:
        reached = [measure_states(network, dataset.evaluation, steps=n).states["0.h"] for n in (TRAINED, LONG)]
        result["states"] = [min(size, 1e38) for size in reached]  # JSON has no infinity
    return result


def measure(run: Run) -> dict[str, Any]:
    """Every network in every form, and the linear forecasts."""
    rows = [
        {"data": network.data, "model": network.model, "training": recipe(network.data, run.quick) | network.training,
         "form": _short(form) if run.quick else form, "states": network.states}
        for network in _measured(run.quick)
        for form in network.forms.values()
    ]  # fmt: skip
    found = iter(run.each(work, [row | {"seed": s, "check": run.checks(s)} for row in rows for s in run.seeds]))
    networks = {
        _key(network): {form: [next(found) for _ in run.seeds] for form in network.forms}
        for network in _measured(run.quick)
    }
    if run.quick:
        return {"networks": networks, "linear": None, "rounded": None}
    glass = {"data": GLASS, "model": GRU | {"hidden": 16}, "training": recipe(GLASS)}
    rounded = run.each(rounded_input, [glass | {"bits": 8, "seed": seed} for seed in run.seeds])
    longer = recipe(GLASS) | {"epochs": recipe(GLASS)["epochs"] + QAT[GLASS]["finetune"]}
    plain = glass | {"training": longer, "form": None, "states": False, "check": False}
    as_long = run.each(work, [plain | {"seed": seed} for seed in run.seeds])
    rounded_long = run.each(rounded_input, [glass | {"training": longer, "bits": 8, "seed": s} for s in run.seeds])
    return {
        "networks": networks, "linear": linear(run.place), "rounded": rounded,
        "as_long": [one["value"] for one in as_long], "rounded_long": rounded_long,
    }  # fmt: skip


def rounded_input(place: Place, data: str, model: dict[str, Any], training: dict[str, Any], bits: int, seed: int
                  ) -> float:  # fmt: skip
    """The RMSE of a float network that sees its input in ``bits`` bits, everything else in float."""
    dataset = place.dataset(data)
    network = trained(place, data, training=training, seed=seed, **model)
    inputs = quantize(network, dataset, bits, method="mse")
    part = dataset.evaluation
    seen = inputs.input_format.dequantize(inputs.quantize_input(part.x)).astype(np.float32)
    output = network.forward(seen, part.lengths) * network.output_scale + network.output_mean
    return float(np.sqrt(np.mean((output.astype(np.float64) - part.y) ** 2)))


def _measured(quick: bool) -> list[Network]:
    return [one for one in NETWORKS if not quick or (one.data == VOWELS and one.model["hidden"] == 8)]


def _short(form: dict[str, Any] | None) -> dict[str, Any] | None:
    return form if form is None or "finetune" not in form else form | {"finetune": 2}


def _key(network: Network) -> str:
    return f"{network.data}, {network.name}"


def linear(place: Place) -> dict[str, float]:
    """RMSE of two forecasts of Seattle's next day without a network: the day before, and least squares on 14 days."""
    data = place.dataset(SEATTLE)
    parts = [(part.x.reshape(len(part), -1).astype(np.float64), part.y[:, 0]) for part in (data.train, data.evaluation)]
    (x, y), (tx, ty) = [(np.column_stack([x, np.ones(len(x))]), y) for x, y in parts]
    weights = np.linalg.lstsq(x, y, rcond=None)[0]
    last = data.evaluation.x[:, -1, 1]
    return {name: float(np.sqrt(np.mean((ty - p) ** 2))) for name, p in (("last", last), ("linear", tx @ weights))}


def write(results: dict[str, Any]) -> Section:
    """The section: a row for every form, with its bar where it has one."""
    values = {
        key: {form: [one["value"] for one in found] for form, found in forms.items()}
        for key, forms in results["networks"].items()
    }
    for key, own in values.items():
        watched = [one["states"] for one in results["networks"][key]["float"] if "states" in one]
        own["growth"] = [long / short for short, long in watched]
    by_name = {key.partition(", ")[2]: own for key, own in values.items()}
    rows, missed, count = [], [], 0
    for network in NETWORKS:
        if _key(network) not in values:
            continue
        own = values[_key(network)]
        for form in network.forms:
            bars = [bar for bar in network.bars if bar.form == form]
            reached = [bar.reached(own, by_name) for bar in bars]
            count += len(bars)
            missed += [f"{_key(network)}, {form}" for good in reached if not good]
            rows.append([
                _key(network), form, "; ".join(bar.words for bar in bars) or "-", _shown(network.data, own[form]),
                "; ".join("yes" if good else "**no**" for good in reached) or "-",
                "-" if network.forms[form] is None else checked(results["networks"][_key(network)][form]),
            ])  # fmt: skip
    answer = f"{count - len(missed)} of the {count} bars are reached in the mean over seeds"
    answer += "." if not missed else "; missed: " + "; ".join(missed) + "."
    body = [
        "Accuracy in percent; for Seattle's weather the root of the mean square error in C, for Mackey-Glass the mean"
        " square error in thousandths (the series has unit variance). wXaYsZ: bits of weights, activations and hidden"
        " state. GRUs have hard nonlinearities, in training and in hardware. *Simulated*: networks of the row whose"
        " hardware was run on the whole test part and gave golden's value in every unit and step.",
        markdown(["data, network", "form", "bar", "measured", "reached", "simulated"], rows),
    ]
    if results["linear"] is not None:
        lines = results["linear"]
        body.append(
            f"Without a network, tomorrow's maximum in Seattle is missed by {lines['last']:.2f} C with today's and by"
            f" {lines['linear']:.2f} C with the least-squares line through the same 14 days of four features."
        )
    body += [_states(results), _glass(values, results)]
    return Section(
        "How well", "Does hwrnn reach, on public data, the figures that it sets itself?", answer,
        [paragraph for paragraph in body if paragraph],
        "Recipes were chosen by cross-validation on training parts (`scripts/choose_recipe.py`; the ReLU RNN takes over"
        " the GRU's), so they suit these data; on others the same options may do worse. On 370 test utterances one is"
        " 0.27 points, on 300 digits 0.33: smaller differences are those of single items.",
    )  # fmt: skip


def _shown(data: str, values: list[float]) -> str:
    if data == GLASS:
        return spread([value**2 for value in values], 1000, 3)
    return spread(values, 1, 3) if data == SEATTLE else spread(values, 100, 2)


def _states(results: dict[str, Any]) -> str:
    """The largest states of the networks that were watched."""
    rows = []
    for network in NETWORKS:
        found = results["networks"].get(_key(network), {}).get("float", [])
        if network.states and found:
            short, long = ([one["states"][k] for one in found] for k in (0, 1))
            growth = max(b / a for a, b in zip(short, long, strict=True))
            rows.append([network.name, f"{max(short):.3g}", f"{max(long):.3g}", f"{growth:.3g}"])
    if not rows:
        return ""
    return (
        f"The largest hidden state on the test part over all seeds, at the {TRAINED} steps of the longest utterance and"
        f" at {LONG} (each utterance over and over), and the largest ratio of the two in a seed:\n\n"
        + markdown(["network", f"{TRAINED} steps", f"{LONG} steps", "largest ratio"], rows)
    )


def _glass(values: Mapping[str, Values], results: dict[str, Any]) -> str:
    """What eight bits cost on Mackey-Glass, said plainly."""
    own = next((own for key, own in values.items() if key.startswith(GLASS)), None)
    if own is None or results["rounded"] is None:
        return ""
    rounded, as_long, rounded_long = (_mse(results[name]) for name in ("rounded", "as_long", "rounded_long"))
    epochs, more, floats = recipe(GLASS)["epochs"], QAT[GLASS]["finetune"], _mse(own["float"])
    times = {form: _mse(found) / _mse(own["float"]) for form, found in own.items() if form != "growth"}
    return (
        f"On Mackey-Glass the mean square error with eight bits is {times['8 bits']:.2f} times that of float after"
        f" training, {times['8 bits, QAT']:.2f} times with quantization-aware training; with twelve bits after training"
        f" {times['12 bits']:.2f} times. The input decides much of it: a float network that sees its input in eight"
        f" bits, everything else in float, has {rounded / floats:.2f} times the error. The float network is the one"
        f" that quantization-aware training starts from, after {epochs} epochs. Trained in float for the {more} epochs"
        f" more that it takes, its error falls to {as_long / floats:.3f} times as much, and eight bits cannot follow:"
        f" the input in eight bits alone makes it {rounded_long / floats:.2f} times."
    )


STUDY = Study("bars", measure, write, data=(VOWELS, DIGITS, SEATTLE, GLASS))

if __name__ == "__main__":
    sys.exit(main(STUDY))
