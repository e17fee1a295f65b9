"""Study 6: what do 16 to 2 bits cost, after training and with quantization-aware training?

    python examples/few_bits.py [--seeds 5] [--jobs 2] [--write]
"""

from __future__ import annotations

import sys
from typing import Any

from hwrnn import quantize
from hwrnn.comparing import measured
from study import Place, Run, Section, Study, fixed_point, main, trained
from study_page import checked, markdown, spread

DATA = ("japanese-vowels", "spoken-digits")
CELLS: dict[str, dict[str, Any]] = {
    "GRU": {"cell": "gru"},
    "LSTM": {"cell": "lstm", "cell_clip": 2.0},
    "RNN, ReLU clipped to 1": {"cell": "rnn", "activation": "relu1"},
}
BITS = (16, 8, 6, 5, 4, 3, 2)


def work(place: Place, data: str, network: str, bits: int | None, method: str, epochs: int, seed: int,
         check: bool, training: dict[str, Any]) -> dict[str, Any]:  # fmt: skip
    """The metric of one network of 32 units, in float (``bits`` None) or in fixed point."""
    dataset = place.dataset(data)
    model = trained(place, data, training=training, hidden=32, seed=seed, **CELLS[network])
    if bits is None:
        return {"value": measured(model, dataset)[1], "hardware": None}
    return fixed_point(quantize(model, dataset, bits, method=method, finetune=epochs), dataset, check=check)


def measure(run: Run) -> dict[str, Any]:
    """Every data set, network and number of bits."""
    training = {"epochs": 2} if run.quick else {}
    rows = [
        {"data": data, "network": network, "bits": bits, "method": "mse", "epochs": 0, "training": training}
        for data in (DATA[:1] if run.quick else DATA)
        for network in CELLS
        for bits in (None, *(BITS[1:3] if run.quick else BITS))
    ]
    tasks = [row | {"seed": seed, "check": run.checks(seed)} for row in rows for seed in run.seeds]
    results, n = run.each(work, tasks), len(run.seeds)
    return {"rows": [row | {"results": results[k * n : (k + 1) * n]} for k, row in enumerate(rows)]}


def write(results: dict[str, Any]) -> Section:
    """The section."""
    rows = [
        [f"{row['data']}, {row['network']}", row["bits"] or "float", spread([r["value"] for r in row["results"]]),
         checked(row["results"])]
        for row in results["rows"]
    ]  # fmt: skip
    return Section(
        "Few bits", "What do 16 to 2 bits cost?", "See the table.",
        [markdown(["network", "bits", "accuracy in percent", "simulated"], rows)], "Two data sets.",
    )  # fmt: skip


def draw(results: dict[str, Any], figure: Any) -> None:
    """Accuracy against bits."""
    axes = figure.subplots()
    for name in CELLS:
        rows = [r for r in results["rows"] if r["network"] == name and r["bits"]]
        axes.plot([r["bits"] for r in rows], [100 * r["results"][0]["value"] for r in rows], "o-", label=name)
    axes.legend()


STUDY = Study("few_bits", measure, write, draw)

if __name__ == "__main__":
    sys.exit(main(STUDY))
