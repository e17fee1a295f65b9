"""What is held out, what early stopping keeps, what fine-tuning may leave behind, and a checkpoint made by hand."""

import json
from pathlib import Path

import numpy as np
import pytest

from hwrnn.calibration import calibrate
from hwrnn.data import Dataset, Split
from hwrnn.errors import UsageError
from hwrnn.formats import Widths, choose_formats
from hwrnn.model import Model, build_model
from hwrnn.quantization import with_hardware_functions
from hwrnn.training import finetune, train
from hwrnn.training.losses import LOSSES
from hwrnn.training.network import Network
from hwrnn.training.preparation import hold_out, prepared


def uneven(count: int = 80) -> Dataset:
    """Four classes, of which one has half the sequences, barely told apart."""
    rng = np.random.default_rng(0)
    y = np.where(rng.random(count) < 0.5, 0, rng.integers(1, 4, count))
    x = rng.standard_normal((count, 5, 2)) + 0.3 * y[:, None, None]
    return Dataset.of("uneven", Split(x, y))


def gru(data: Dataset) -> Model:
    return build_model(data.inputs, data.outputs, cell="gru", hidden=6)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5])
def test_of_every_class_the_same_share_is_held_out(share):
    data = uneven()
    learnt, held = hold_out(data, share, seed=3)
    assert np.array_equal(np.sort(np.concatenate([learnt, held])), np.arange(len(data.train)))
    assert len(held) == round(share * len(data.train))
    for label in range(4):
        due = share * np.count_nonzero(data.train.y == label)
        assert abs(np.count_nonzero(data.train.y[held] == label) - due) <= 1
    assert np.array_equal(hold_out(data, share, seed=3)[1], held)
    assert not np.array_equal(hold_out(data, share, seed=4)[1], held)


def test_something_must_be_left_to_train_on():
    data = uneven(4)
    with pytest.raises(UsageError) as caught:
        hold_out(data, 0.99, seed=0)
    assert str(caught.value) == "Validation must leave sequences to train on, not hold out 4 of 4"


def test_the_parameters_that_early_stopping_returns_have_the_loss_it_tells():
    data = uneven()
    model = train(gru(data), data, epochs=60, rate=0.05, noise=0.0, validation=0.3, patience=5, seed=1)
    _, held = hold_out(data, 0.3, seed=1)
    part = prepared(model, data.train, held)
    outputs = Network(model).forward(part.x, part.lengths)
    loss, _ = LOSSES["cross_entropy"](outputs, part.targets(np.arange(len(held)), False), None)
    assert loss == pytest.approx(model.facts["validation_loss"], rel=1e-5)
    assert 0 < model.facts["best_epoch"] < 60


def test_fine_tuning_leaves_every_weight_inside_its_format():
    data = uneven()
    model = train(gru(data), data, epochs=20, noise=0.0)
    formats = choose_formats(model, calibrate(model, data.train), Widths.of(4))
    model = with_hardware_functions(model, formats)
    tuned = finetune(model, data, formats, epochs=20, rate=0.05)
    at_the_edge = 0
    for layer, chosen in zip(tuned.stack, formats, strict=True):
        for key, form in chosen.weights.items():
            block = layer.block(*key)
            assert block.min() >= form.min and block.max() <= form.max
            at_the_edge += np.count_nonzero((block == form.min) | (block == form.max))
    assert at_the_edge  # or the bound was never tried


def test_facts_are_plain_json():
    data = uneven()
    model = train(gru(data), data, epochs=np.int64(2), rate=np.float32(0.01), seed=np.int64(1))
    assert json.loads(json.dumps(model.facts)) == model.facts
    assert model.facts["data"] == "uneven" and model.facts["epochs"] == 2


def test_a_checkpoint_whose_state_makes_no_sense_is_refused(tmp_path: Path):
    data, path = uneven(), tmp_path / "run.npz"
    train(gru(data), data, epochs=1, checkpoint=path)
    with np.load(path) as stored:
        arrays = dict(stored)
    about = json.loads(str(arrays["about"]))
    for key, value in (("generator", {}), ("losses", 3), ("updates", None), ("best_epoch", "x")):
        arrays["about"] = np.array(json.dumps({**about, "state": {**about["state"], key: value}}))
        np.savez(path, **arrays)
        with pytest.raises(UsageError) as caught:
            train(gru(data), data, epochs=1, checkpoint=path, resume=True)
        assert str(caught.value).startswith("Checkpoint must be a whole file that training wrote, not ")
