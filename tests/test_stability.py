"""Stability: the projection keeps its bound in float and in rounded weights, and what is measured is so by hand."""

from __future__ import annotations

import numpy as np
import pytest

from hwrnn.cells import CELLS
from hwrnn.data import Dataset, Split
from hwrnn.errors import UsageError
from hwrnn.model import Model, build_model
from hwrnn.quantization import quantize
from hwrnn.stability import lengthened, measure
from hwrnn.training import finetune, train
from hwrnn.training.network import Network
from hwrnn.training.spectral import SpectralBound, clipped_norm

RECURRENT = [name for name in CELLS if name != "mingru" and not name.startswith("lstm-")]


def two_classes(count: int = 48) -> Dataset:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, count)
    x = rng.normal(0, 1, (count, 8, 2)).astype(np.float32) + y[:, None, None]
    lengths = rng.integers(3, 9, count)
    return Dataset.of("two", Split(x[:32], y[:32], lengths[:32]), Split(x[32:], y[32:], lengths[32:]))


def matrices(model: Model) -> list[np.ndarray]:
    return [
        layer.block(gate, operand).astype(np.float64)
        for layer in model.layers for p in layer.cell.phases
        for gate, reads in p.gates.items() for operand in reads if operand != "x"
    ]  # fmt: skip


def test_clipping_singular_values_is_the_nearest_projection():
    rng = np.random.default_rng(1)
    matrix = rng.standard_normal((3, 5, 5))
    clipped = clipped_norm(matrix, 0.9)
    assert np.linalg.norm(clipped, 2, axis=(1, 2)) == pytest.approx(0.9)
    # Nearest: no convex step towards another matrix within the bound comes closer (the obtuse angle of a projection).
    for _ in range(50):
        other = rng.standard_normal((3, 5, 5))
        other *= 0.9 / np.linalg.norm(other, 2, axis=(1, 2))[:, None, None]
        assert (((matrix - clipped) * (other - clipped)).sum((1, 2)) <= 1e-12).all()
    small = matrix / np.linalg.norm(matrix, 2, axis=(1, 2))[:, None, None] / 2
    np.testing.assert_allclose(clipped_norm(small, 0.9), small, atol=1e-14)


@pytest.mark.parametrize("cell", RECURRENT)
def test_training_keeps_every_recurrent_matrix_at_the_bound(cell):
    data = two_classes()
    model = build_model(2, 2, cell=cell, hidden=[5, 4], layers=2, seed=2)
    free = train(model, data, epochs=3, batch=8, rate=0.05)
    bound = train(model, data, epochs=3, batch=8, rate=0.05, spectral_norm=0.7)
    assert max(np.linalg.norm(m, 2) for m in matrices(free)) > 0.8, "the bound must have something to do"
    assert all(np.linalg.norm(m, 2) <= 0.7 for m in matrices(bound))
    assert bound.facts["spectral_norm"] == 0.7


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("cell", RECURRENT)
def test_rounded_matrices_keep_it_too(cell, bits):
    data = two_classes()
    model = train(build_model(2, 2, cell=cell, hidden=5, seed=2), data, epochs=3, batch=8, spectral_norm=0.7)
    formats = quantize(model, data, bits, finetune=2, rate=0.05, batch=8)
    assert formats.facts["finetuning"]["spectral_norm"] == 0.7, "fine-tuning keeps what training kept"
    for layer in formats.layers:
        for (gate, operand), raw in layer.weights.items():
            if operand != "x":
                assert np.linalg.norm(layer.formats.weights[gate, operand].dequantize(raw), 2) <= 0.7
    # The masters alone would not do: rounding them at these bits exceeds the bound.
    if bits == 3:
        loose = quantize(model, data, bits, finetune=2, rate=0.05, batch=8, spectral_norm=None)
        norms = [
            np.linalg.norm(loose.layers[0].formats.weights[key].dequantize(raw), 2)
            for key, raw in loose.layers[0].weights.items() if key[1] != "x"
        ]  # fmt: skip
        assert max(norms) > 0.7


def test_projection_without_need_changes_no_bit():
    model = build_model(2, 2, cell="gru", hidden=6, init="scaled:0.5", seed=0)
    network = Network(model)
    before = network.masters.copy()
    SpectralBound(network, 0.6).project()
    assert np.array_equal(network.masters, before)
    SpectralBound(network, 0.4).project()
    assert not np.array_equal(network.masters, before)


def test_a_bound_where_there_is_nothing_to_bound_is_refused():
    data = two_classes()
    with pytest.raises(UsageError) as refused:
        train(build_model(2, 2, cell="mingru", hidden=3), data, epochs=1, spectral_norm=0.9)
    expected = "Spectral norm must be given to a network with recurrent matrices, not to mingru, dense"
    assert str(refused.value) == expected


@pytest.mark.parametrize(
    "value, text",
    [
        (1.0, "Spectral norm must be below 1, not 1.0: such as 0.99"),
        (0.0, "Spectral norm must be a finite number above 0, not 0.0"),
        (True, "Spectral norm must be a finite number above 0, not True"),
    ],
)
def test_a_bound_out_of_range_is_refused(value, text):
    data = two_classes()
    model = build_model(2, 2, cell="rnn", hidden=3)
    for run in (lambda: train(model, data, epochs=1, spectral_norm=value),
                lambda: finetune(model, data, [None, None], 1, spectral_norm=value)):  # fmt: skip
        with pytest.raises(UsageError) as refused:
            run()
        assert str(refused.value) == text


@pytest.mark.parametrize(
    "init, norm", [("orthogonal", 1), ("identity", 1), ("scaled", 0.9), ("scaled:0.25", 0.25), ("identity:0.5", 0.5)]
)
def test_initialisations_have_their_norm(init, norm):
    for matrix in matrices(build_model(2, 2, cell="lstm", hidden=7, init=init)):
        assert np.linalg.norm(matrix, 2) == pytest.approx(norm, rel=1e-6)
        singular = np.linalg.svd(matrix, compute_uv=False)
        assert (singular.min() < 0.7 * norm) == init.startswith("scaled"), "only scaled has a spread"


@pytest.mark.parametrize("init", ["scaled:0", "scaled:nan", "scaled:17", "glorot:2", "orthogonal:", "zeros:1", None])
def test_an_unknown_initialisation_is_refused(init):
    known = "glorot, orthogonal[:S], identity[:S] or scaled[:S] with S above 0 up to 16"
    with pytest.raises(UsageError) as refused:
        build_model(2, 2, init=init)
    assert str(refused.value) == f"Initialisation must be {known}, not {init!r}"


def grower(factor: float) -> Model:
    """One unit, h' = relu(x + factor h)."""
    model = build_model(1, 2, cell="rnn", hidden=1, activation="relu")
    model.layers[0].parameters["0.x"][...] = 1
    model.layers[0].parameters["0.h"][...] = factor
    return model


def test_measured_states_by_hand():
    split = Split(np.array([[[1.0], [3.0]], [[2.0], [0.0]]]), np.array([0, 1]), np.array([2, 1]))
    assert measure(grower(2.0), split).states == {"0.h": 5.0}
    assert measure(grower(2.0), split).steps == 2
    # 1, 3, 1, 3: 1, 5, 11, 25; 2, 2, 2, 2: 2, 6, 14, 30
    assert measure(grower(2.0), split, 4).states == {"0.h": 30.0}
    assert measure(grower(2.0), split, 1).states == {"0.h": 2.0}
    lost = measure(grower(2.0), split, 2000)
    assert lost.states == {"0.h": np.inf} and lost.gradient == np.inf
    kept = measure(grower(0.5), split, 2000)
    assert kept.states["0.h"] < 6 and np.isfinite(kept.gradient)


def test_the_measured_gradient_is_training_s():
    data = two_classes()
    model = build_model(2, 2, cell="gru", hidden=4, seed=3)
    from hwrnn.training.losses import LOSSES

    network = Network(model, dtype=np.float64)
    norms = []
    for rows in (np.arange(20), np.arange(20, 32)):
        part = data.train
        targets = part.y[rows][None]
        x = part.x[rows].astype(np.float64)
        network.loss_and_gradient(x, part.lengths[rows], targets, LOSSES["cross_entropy"])
        norms.append(np.linalg.norm(network.gradient))
    assert measure(model, data.train, batch=20).gradient == pytest.approx(max(norms), rel=1e-12)


def test_integers_are_measured_as_golden_has_them():
    data = two_classes()
    model = quantize(build_model(2, 2, cell="lstm", hidden=4, seed=3), data, 8)
    from hwrnn.golden import golden

    result = golden(model, model.quantize_input(data.test.x), data.test.lengths, keep=True)
    found = measure(model, data.test)
    assert found.gradient is None and set(found.states) == {"0.h", "0.c"}
    for name in ("h", "c"):
        form = model.layers[0].formats.values[name]
        assert found.states[f"0.{name}"] == np.abs(form.dequantize(result.values[0, name])).max()


def test_sequences_repeat_from_their_start_with_their_targets():
    split = Split(np.arange(6.0).reshape(2, 3, 1), np.array([[0, 1, 2], [3, 4, 5]]), np.array([3, 2]))
    longer = lengthened(split, 5)
    assert longer.x[:, :, 0].tolist() == [[0, 1, 2, 0, 1], [3, 4, 3, 4, 3]]
    assert longer.y.tolist() == [[0, 1, 2, 0, 1], [3, 4, 3, 4, 3]]
    assert longer.lengths.tolist() == [5, 5]
    single = Split(split.x, np.array([1, 0]), split.lengths)
    assert lengthened(single, 4).y.tolist() == [1, 0]


@pytest.mark.parametrize("options", [{"steps": 0}, {"batch": 0}, {"steps": 2.5}])
def test_a_measurement_of_nothing_is_refused(options):
    with pytest.raises(UsageError, match="must be an integer of at least 1, not"):
        measure(grower(1.0), two_classes().train, **options)
