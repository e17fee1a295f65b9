"""Training runs: they learn, repeat, resume bit for bit, stop early, and refuse what is not theirs."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hwrnn.cells import CELLS
from hwrnn.data import Dataset, Split, load_dataset
from hwrnn.errors import Diverged, UsageError
from hwrnn.model import Model, build_model
from hwrnn.quantization import quantize, with_hardware_functions
from hwrnn.training import evaluate, finetune, rmse, train
from hwrnn.training.losses import cross_entropy
from hwrnn.training.network import Network
from hwrnn.training.preparation import prepared


def clusters(per_step: bool = False, count: int = 60) -> Dataset:
    """Three classes told apart by the mean of one feature, in sequences of 2 to 6 steps."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, count)
    x = rng.normal(0, 0.4, (count, 6, 2)).astype(np.float32)
    x[:, :, 0] += y[:, None] - 1
    lengths = rng.integers(2, 7, count)
    labels = np.repeat(y[:, None], 6, axis=1) if per_step else y
    parts = [Split(x[a:b], labels[a:b], lengths[a:b]) for a, b in ((0, 40), (40, count))]
    return Dataset("clusters", "classification", per_step, *parts)


def model_for(data: Dataset, **more: Any) -> Model:
    chosen = {"cell": "gru", "hidden": 5, "task": data.task, "every_step": data.per_step, **more}
    return build_model(data.inputs, data.outputs, **chosen)


def numbers(model: Model) -> np.ndarray:
    return np.concatenate([p.ravel() for layer in model.stack for p in layer.parameters.values()])


class Stop(Exception):
    """Interrupts a run from its progress."""


@pytest.mark.parametrize(
    "options", [{}, {"validation": 0.25}, {"validation": 0.25, "patience": 3, "loss": "cross_entropy"}]
)
@pytest.mark.parametrize("after", [1, 4])
def test_a_resumed_run_equals_the_uninterrupted_one(options: dict[str, Any], after: int, tmp_path: Path) -> None:
    data = clusters()
    model, options = model_for(data), {"epochs": 7, "batch": 16, "seed": 3, **options}
    whole = train(model, data, **options)

    def interrupt(now: Any) -> None:
        if now.epoch == after:
            raise Stop

    with pytest.raises(Stop):
        train(model, data, **options, checkpoint=tmp_path / "run.npz", progress=interrupt)
    resumed = train(model, data, **options, checkpoint=tmp_path / "run.npz", resume=True)
    assert np.array_equal(numbers(resumed), numbers(whole))
    assert resumed.facts == whole.facts
    assert not np.array_equal(numbers(whole), numbers(model)), "the run trained nothing"


def test_a_resumed_fine_tuning_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    data = clusters()
    model = train(model_for(data), data, epochs=2)
    q = quantize(model, data, 6)
    formats = [layer.formats for layer in q.stack]
    ready = with_hardware_functions(model, formats)
    whole = finetune(ready, data, formats, 5)

    def interrupt(now: Any) -> None:
        if now.epoch == 2:
            raise Stop

    with pytest.raises(Stop):
        finetune(ready, data, formats, 5, checkpoint=tmp_path / "f.npz", progress=interrupt)
    resumed = finetune(ready, data, formats, 5, checkpoint=tmp_path / "f.npz", resume=True)
    assert np.array_equal(numbers(resumed), numbers(whole))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rate": 0.02}, "Checkpoint must be of the same options"),
        ({"seed": 1}, "Checkpoint must be of the same"),
        ({"model": {"hidden": 6}}, "Checkpoint must be of the same model"),
        ({"data": 50}, "Checkpoint must be of the same data"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(change: dict[str, Any], told: str, tmp_path: Path) -> None:
    data, path = clusters(), tmp_path / "run.npz"
    train(model_for(data), data, epochs=2, checkpoint=path)
    other = clusters(count=change.pop("data", 60))
    other = (
        replace(other, train=Split(other.train.x[:30], other.train.y[:30], other.train.lengths[:30]))
        if (len(other.test or ()) == 10)
        else other
    )
    model = model_for(other, **change.pop("model", {}))
    with pytest.raises(UsageError, match=told):
        train(model, other, epochs=2, checkpoint=path, resume=True, **change)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "foreign"])
def test_a_damaged_checkpoint_is_refused(damage: str, tmp_path: Path) -> None:
    data, path = clusters(), tmp_path / "run.npz"
    train(model_for(data), data, epochs=1, checkpoint=path)
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "foreign":
        np.savez(path, x=np.zeros(3))
    else:
        path.write_bytes(b"" if damage == "empty" else content[: len(content) // 2])
    with pytest.raises(UsageError, match="Checkpoint must"):
        train(model_for(data), data, epochs=1, checkpoint=path, resume=True)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("generator", "state", "state"), 10**400), (("best_loss",), 10**400), (("losses", 0), 10**400),
        (("losses", 0), math.inf), (("norms", 0), math.nan), (("losses",), []), (("losses",), [0.5, 0.4]),
        (("updates",), 0),
    ],
)  # fmt: skip
def test_a_checkpoint_with_a_number_beyond_its_range_is_refused(
    where: tuple[str | int, ...], value: Any, tmp_path: Path
) -> None:
    data, path = clusters(), tmp_path / "run.npz"
    train(model_for(data), data, epochs=1, checkpoint=path)
    with np.load(path) as stored:
        arrays = dict(stored)
    about = json.loads(str(arrays["about"]))
    part = about["state"]
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    arrays["about"] = np.array(json.dumps(about))
    np.savez(path, **arrays)
    with pytest.raises(UsageError, match="Checkpoint must be a whole file that training wrote"):
        train(model_for(data), data, epochs=1, checkpoint=path, resume=True)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"epochs": 0}, "Epochs must be a whole number of at least 1, not 0"),
        ({"batch": 0}, "Batch must be a whole number of at least 1, not 0"),
        ({"rate": -1.0}, "Rate must be a finite number above 0, not -1.0"),
        ({"rate": float("nan")}, "Rate must be a finite number above 0, not nan"),
        ({"noise": -0.1}, "Noise must be a finite number of at least 0, not -0.1"),
        ({"validation": 1.0}, "Validation must be a share"),
        ({"patience": 2}, "Patience must come with a validation share above 0"),
        ({"loss": "mse"}, "Loss must be cross_entropy for a classification, not 'mse'"),
        ({"loss": "hinge"}, "Loss must be one of"),
        ({"schedule": "linear"}, "Schedule must be one of cosine, constant, not 'linear'"),
        ({"resume": True}, "Resume must come with the path of a checkpoint"),
        ({"rate": 1e30, "clip": None}, "rate"),
    ],
)
def test_options_that_cannot_be(options: dict[str, Any], told: str) -> None:
    data = clusters()
    with pytest.raises(UsageError, match=told):
        train(model_for(data), data, **{"epochs": 3, **options})


def test_a_run_that_leaves_the_finite_numbers_says_so() -> None:
    data = clusters()
    with pytest.raises(Diverged, match="Training must stay finite, but its loss or gradient does not in epoch 1"):
        train(model_for(data), data, epochs=3, rate=1e30, clip=None)


def test_a_seed_repeats_and_another_differs() -> None:
    data = clusters()
    first, again, other = (train(model_for(data), data, epochs=2, seed=s) for s in (1, 1, 2))
    assert np.array_equal(numbers(first), numbers(again))
    assert not np.array_equal(numbers(first), numbers(other))


def test_a_constant_rate_does_not_know_how_many_epochs_follow(tmp_path: Path) -> None:
    data, path = clusters(), tmp_path / "run.npz"

    def interrupt(now: Any) -> None:
        if now.epoch == 2:
            raise Stop

    for schedule, same in (("constant", True), ("cosine", False)):
        short = train(model_for(data), data, epochs=2, schedule=schedule)
        with pytest.raises(Stop):
            train(model_for(data), data, epochs=6, schedule=schedule, checkpoint=path, progress=interrupt)
        with np.load(path) as stored:
            assert np.array_equal(Network(short).masters, stored["masters"]) is same


def test_the_norm_told_is_the_gradients_before_clipping() -> None:
    data, told = clusters(), []
    one_step = {"epochs": 1, "batch": len(data.train), "noise": 0.0}
    for clip in (None, 1e-3):
        model = train(model_for(data), data, **one_step, clip=clip, progress=told.append)
        assert model.facts["largest_gradient_norm"] == told[-1].gradient_norm
    network = Network(replace(model, layers=model_for(data).layers, head=model_for(data).head))
    part = prepared(model, data.train, np.arange(len(data.train)))
    network.loss_and_gradient(part.x, part.lengths, part.targets(np.arange(len(part.x)), False), cross_entropy)
    assert told[0].gradient_norm == told[1].gradient_norm
    assert told[0].gradient_norm == pytest.approx(float(np.linalg.norm(network.gradient)), rel=1e-5)
    longer = train(model_for(data), data, epochs=5, progress=told.append)
    assert longer.facts["largest_gradient_norm"] == max(now.gradient_norm for now in told[2:])


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("per_step", [False, True])
def test_every_cell_learns(cell: str, per_step: bool) -> None:
    data = clusters(per_step)
    epochs = 90 if cell == "lstm-peephole-coupled" else 60  # the most weights for a gate
    model = train(model_for(data, cell=cell, hidden=8), data, epochs=epochs, noise=0.1)
    assert evaluate(model.predict, data.evaluation, data.task, data.per_step)["accuracy"] > 0.8


def test_stacked_layers_learn() -> None:
    data = clusters()
    model = train(model_for(data, layers=2, hidden=[6, 5]), data, epochs=60, noise=0.1)
    assert evaluate(model.predict, data.evaluation, data.task, data.per_step)["accuracy"] > 0.8


def test_a_forecast_beats_the_last_value() -> None:
    data = load_dataset("mackey-glass")
    model = train(model_for(data, hidden=8), data, epochs=6, batch=64)
    part = data.evaluation
    value = evaluate(model.predict, part, data.task, data.per_step)["rmse"]
    assert value < 0.5 * rmse(part.x[:, -1], part.y)


def test_early_stopping_keeps_the_best() -> None:
    data = clusters()
    seen: list[float] = []
    options = {"epochs": 60, "validation": 0.3, "patience": 4, "noise": 0.0, "rate": 0.05, "seed": 2}
    model = train(model_for(data), data, **options, progress=lambda now: seen.append(now.validation))
    assert len(seen) < 60 and int(np.argmin(seen)) == len(seen) - 5
    best = train(model_for(data), data, **{**options, "patience": None})
    assert model.facts["patience"] == 4 and best.facts["patience"] is None


def test_standardisation_is_that_of_the_frames_within_lengths() -> None:
    data = clusters()
    model = train(model_for(data), data, epochs=1)
    frames = data.train.x[np.arange(6) < data.train.lengths[:, None]]
    np.testing.assert_allclose(model.input_mean, frames.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.input_scale, 1 / frames.std(0), rtol=1e-4)


def test_a_model_may_keep_the_scales_that_it_has() -> None:
    data = clusters()
    fresh = replace(model_for(data), input_mean=np.full(2, -1, np.float32), input_scale=np.full(2, 0.25, np.float32))
    kept = train(fresh, data, epochs=2, standardise=False)
    assert np.array_equal(kept.input_mean, fresh.input_mean) and np.array_equal(kept.input_scale, fresh.input_scale)
    scaled = [replace(p, x=(p.x + 1) * np.float32(0.25)) for p in (data.train, data.evaluation)]
    by_hand = train(model_for(data), replace(data, train=scaled[0], test=scaled[1]), epochs=2, standardise=False)
    assert np.array_equal(numbers(kept), numbers(by_hand))
    assert not np.array_equal(numbers(kept), numbers(train(fresh, data, epochs=2)))


def test_fine_tuning_mends_what_few_bits_break() -> None:
    data = load_dataset("japanese-vowels")
    model = train(model_for(data, hidden=8), data, epochs=30)
    value = {
        epochs: evaluate(
            quantize(model, data, 3, method="max", finetune=epochs).predict, data.evaluation, data.task, data.per_step
        )["accuracy"]
        for epochs in (0, 15)
    }
    assert value[15] > value[0] + 0.02
