"""Quantization-aware training: every width, cell and nonlinearity, and formats that are searched anew on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import KINDS

from hwrnn.activations import NONLINEARITIES
from hwrnn.cells import CELLS
from hwrnn.cli import main
from hwrnn.data import Dataset, Split
from hwrnn.errors import UsageError
from hwrnn.formats import LayerFormats
from hwrnn.golden import golden
from hwrnn.model import Model, build_model
from hwrnn.onnx_io import load, save
from hwrnn.quantization import QuantizedModel, quantize, with_hardware_functions
from hwrnn.training import finetune, finetune_searching, train
from hwrnn.training.network import Network
from hwrnn.training.run import Run

FUNCTIONS = [*NONLINEARITIES, "leaky_relu", "pwl_sigmoid:5", "pwl_tanh:3"]


def clusters(count: int = 48) -> Dataset:
    """Three classes told apart by the mean of one feature, in sequences of 2 to 6 steps."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, count)
    x = rng.normal(0, 0.5, (count, 6, 2)).astype(np.float32)
    x[:, :, 0] += y[:, None] - 1
    return Dataset("clusters", "classification", False, Split(x, y, rng.integers(2, 7, count)))


def trained(cell: str = "lstm", **options: Any) -> tuple[Model, Dataset]:
    data = clusters()
    return train(build_model(2, 3, cell=cell, hidden=4, seed=1, **options), data, epochs=3, noise=0.1), data


def weights(model: QuantizedModel) -> np.ndarray:
    return np.concatenate([w.ravel() for layer in model.stack for w in layer.weights.values()])


@pytest.mark.filterwarnings("ignore:State ")  # gates that may be negative let a state grow
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("cell", KINDS)
def test_every_cell_and_nonlinearity_trains_what_golden_computes(cell: str, name: str) -> None:
    data = clusters()
    # Products of identities explode in float; so do those of leaky lines where gates read what they make.
    explodes = name in ("identity", "softplus") or (name == "leaky_relu" and "c" in CELLS[cell].phases[0].operands)
    gate = name if CELLS[cell].gated and not explodes else None
    model = build_model(2, 3, cell=cell, hidden=4, activation=name, gate=gate, seed=1)
    model = train(model, data, epochs=1, batch=16, rate=0.003)
    before = quantize(model, data, 4, method="mse")
    after = quantize(model, data, 4, method="mse", finetune=2, batch=16, rate=0.02)
    assert not np.array_equal(weights(before), weights(after)), "the training moved nothing"
    # The network of the rounded weights is the integer machine, in training's forward pass too.
    formats = [layer.formats for layer in after.stack]
    network = Network(with_hardware_functions(after.in_float(), formats), formats)
    x, lengths = data.train.x, data.train.lengths
    raw = network.forward(model.standardised(x), lengths)[0].T * 2.0**after.output_format.frac
    assert np.array_equal(raw, golden(after, after.quantize_input(x), lengths).output)


@pytest.mark.parametrize(
    ("kind", "value"), [("weight_bits", "f.h"), ("activation_bits", "i"), ("state_bits", "h"), ("cell_bits", "c")]
)
def test_every_width_reaches_training(kind: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = trained()
    seen: list[LayerFormats] = []

    class Watched(Network):
        def __init__(self, model: Model, formats: Any = None, **options: Any) -> None:
            seen[:] = formats
            super().__init__(model, formats, **options)

    monkeypatch.setattr("hwrnn.training.run.Network", Watched)
    frozen = quantize(model, data, 8, **{kind: 3}, method="mse", finetune=1)
    forms = {**seen[0].values, **{".".join(key): form for key, form in seen[0].weights.items()}}
    narrow = {name for name, form in forms.items() if form.width == 3}
    assert value in narrow and forms[value] != 8
    others = {"f.h", "i", "h", "c"} - {value}
    assert not narrow & others
    assert [layer.formats for layer in frozen.stack] == seen


def searched(model: Model, data: Dataset, every: int, log: list[Any] | None = None, **options: Any) -> Any:
    """Six epochs in which a search alternates between two sets of formats; the end's model and formats."""
    coarse, fine = ([layer.formats for layer in quantize(model, data, b, method="mse").stack] for b in (4, 8))

    def search(now: Model, known: Any) -> list[LayerFormats]:
        assert known in (coarse, fine)
        if log is not None:
            log.append(known == coarse)
        return fine if known == coarse else coarse

    ready = with_hardware_functions(model, coarse)
    return finetune_searching(ready, data, coarse, 6, search=search, search_every=every, **options)


def numbers(model: Model) -> np.ndarray:
    return np.concatenate([p.ravel() for layer in model.stack for p in layer.parameters.values()])


def test_a_search_comes_every_few_epochs_but_not_at_the_end() -> None:
    model, data = trained()
    for every, calls in ((1, 5), (2, 2), (4, 1), (6, 0), (9, 0), (0, 0)):
        log: list[Any] = []
        _, formats = searched(model, data, every, log)
        assert len(log) == calls
        assert {f.width for f in formats[0].weights.values()} == {8 if calls % 2 else 4}


def test_a_search_that_finds_the_same_disturbs_nothing() -> None:
    model, data = trained("gru")
    formats = [layer.formats for layer in quantize(model, data, 5, method="mse").stack]
    ready = with_hardware_functions(model, formats)
    again = finetune_searching(ready, data, formats, 5, search=lambda now, known: list(known), search_every=2)[0]
    assert np.array_equal(numbers(again), numbers(finetune(ready, data, formats, 5)))


def test_other_formats_keep_the_optimizer_and_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = trained()
    kept: list[Any] = []
    adopt = Run.adopt

    def watched(self: Run, formats: Any) -> None:
        before = (self.network.masters.copy(), self.optimizer.first.copy(), self.optimizer.steps)
        adopt(self, formats)
        after = (self.network.masters.copy(), self.optimizer.first.copy(), self.optimizer.steps)
        kept.append(all(np.array_equal(a, b) for a, b in zip(before, after, strict=True)))
        assert self.network.layers[0].formats is formats[0]

    monkeypatch.setattr(Run, "adopt", watched)
    searched(model, data, 2)
    assert kept == [True, True]


class Stop(Exception):
    """Interrupts a run from its progress."""


@pytest.mark.parametrize("options", [{}, {"validation": 0.25, "patience": 4}, {"spectral_norm": 0.9}])
@pytest.mark.parametrize("after", [1, 2, 3, 5])
def test_a_resumed_run_with_searches_equals_the_uninterrupted_one(
    after: int, options: dict[str, Any], tmp_path: Path
) -> None:
    model, data = trained()
    whole, formats = searched(model, data, 2, **options)

    def interrupt(now: Any) -> None:
        if now.epoch == after:
            raise Stop

    with pytest.raises(Stop):
        searched(model, data, 2, checkpoint=tmp_path / "f.npz", progress=interrupt, **options)
    again, found = searched(model, data, 2, checkpoint=tmp_path / "f.npz", resume=True, **options)
    assert np.array_equal(numbers(again), numbers(whole)) and again.facts == whole.facts
    assert [f.to_json() for f in found] == [f.to_json() for f in formats]
    with pytest.raises(UsageError, match="of the same options"):
        searched(model, data, 3, checkpoint=tmp_path / "f.npz", resume=True, **options)


def test_quantize_searches_on_the_way_and_says_so(tmp_path: Path) -> None:
    model, data = trained()
    q = quantize(model, data, 4, finetune=4, search_every=2)
    assert q.facts["finetuning"]["search_every"] == 2
    save(q, tmp_path / "q.onnx")
    assert np.array_equal(load(tmp_path / "q.onnx").predict(data.train.x), q.predict(data.train.x))
    for layer in q.stack:  # what is frozen is in the formats that were trained with at last
        for key, w in layer.weights.items():
            assert layer.formats.weights[key].lo <= w.min() and w.max() <= layer.formats.weights[key].hi


@pytest.mark.parametrize("every", [-1, 1.5, True])
def test_epochs_between_searches_are_checked(every: Any) -> None:
    model, data = trained()
    with pytest.raises(UsageError) as caught:
        quantize(model, data, 4, finetune=2, search_every=every)
    assert str(caught.value) == f"Epochs between searches must be a whole number of at least 0, not {every!r}"


def test_searches_need_training_and_formats_of_its_own() -> None:
    model, data = trained()
    told = "^Epochs between searches must come with fine-tuning epochs, and not with another's formats$"
    with pytest.raises(UsageError, match=told):
        quantize(model, data, 4, search_every=2)
    with pytest.raises(UsageError, match=told):
        quantize(model, data, finetune=2, search_every=1, formats_of=quantize(model, data, 4))


def test_the_command_line_gives_every_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, data = trained()
    save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", x=data.train.x, y=data.train.y, lengths=data.train.lengths)
    words = ["quantize", str(tmp_path / "m.onnx"), "--data", str(tmp_path / "d.npz"), "--bits", "4"]
    words += ["--finetune", "4", "--search-every", "2", "--rate", "0.002", "-o", str(tmp_path / "q.onnx")]
    assert main(words) == 0
    capsys.readouterr()
    facts = load(tmp_path / "q.onnx").facts["finetuning"]
    assert (facts["epochs"], facts["search_every"], facts["rate"]) == (4, 2, 0.002)
    assert main([*words[:6], "--rate", "0.1", "-o", str(tmp_path / "q.onnx")]) == 2
    assert "must come with fine-tuning epochs" in capsys.readouterr().err
