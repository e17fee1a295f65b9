"""Training in the loop with quantization: forward the integer machine, backward straight through the rounding."""

import numpy as np
import pytest
from networks import KINDS

from hwrnn.activations import NONLINEARITIES
from hwrnn.calibration import calibrate
from hwrnn.cells import CELLS, Dense
from hwrnn.data import Split
from hwrnn.fixed import Format
from hwrnn.formats import LayerFormats, Widths, choose_formats
from hwrnn.golden import golden
from hwrnn.model import Layer, Model, build_model
from hwrnn.quantization import freeze, with_hardware_functions
from hwrnn.training.losses import LOSSES
from hwrnn.training.network import Network

LENGTHS = np.array([7, 1, 4, 7, 2, 6, 3, 5])
X = np.random.default_rng(0).standard_normal((len(LENGTHS), 7, 3)).astype(np.float32)


def formats_for(model: Model, widths: Widths) -> list[LayerFormats]:
    return choose_formats(model, calibrate(model, Split(X, np.zeros(len(X), np.int64), LENGTHS)), widths)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("activation, gate", [(None, None), ("tanh", "sigmoid"), ("leaky_relu", "plan_sigmoid")])
@pytest.mark.parametrize("cell", KINDS)
def test_the_forward_pass_is_golden_bit_for_bit(cell, activation, gate, bits, dtype):
    clip = 1.5 if "c" in CELLS[cell].states else None
    gate = gate if CELLS[cell].gated else None
    model = build_model(
        3, 4, cell=cell, hidden=6, layers=2, activation=activation, gate=gate, cell_clip=clip, every_step=True, seed=3
    )
    widths = Widths.of(bits)
    formats = formats_for(model, widths)
    frozen = freeze(model, formats, widths)
    network = Network(with_hardware_functions(model, formats), formats, dtype)
    raw = network.forward(model.standardised(X), LENGTHS).transpose(2, 0, 1) * 2.0**frozen.output_format.frac
    within = np.arange(X.shape[1]) < LENGTHS[:, None]
    due = golden(frozen, frozen.quantize_input(X), LENGTHS).output
    assert np.array_equal(raw[within], due[within])
    assert len(np.unique(raw[within])) > 10


@pytest.mark.parametrize("cell", CELLS)
def test_an_encoder_and_a_decoder_are_golden_bit_for_bit(cell):
    model = build_model(3, 2, cell=cell, hidden=(5, 3, 4), encoder=2, every_step=True, task="regression", seed=3)
    formats = formats_for(model, Widths.of(6))
    frozen = freeze(model, formats, Widths.of(6))
    network = Network(with_hardware_functions(model, formats), formats)
    raw = network.forward(model.standardised(X), LENGTHS).transpose(2, 0, 1) * 2.0**frozen.output_format.frac
    within = np.arange(X.shape[1]) < LENGTHS[:, None]
    assert np.array_equal(raw[within], golden(frozen, frozen.quantize_input(X), LENGTHS).output[within])
    assert len(np.unique(raw[within])) > 10


@pytest.mark.parametrize("cell", CELLS)
def test_with_fine_formats_the_gradient_is_that_of_the_float_network(cell):
    model = build_model(3, 4, cell=cell, hidden=5, every_step=True, seed=3)
    fine = Format(48, 30)
    formats = [
        LayerFormats(
            {name: fine for name in ("x", *_values(layer))},
            {(g, o): fine for p in layer.cell.phases for g, reads in p.gates.items() for o in reads},
            dict.fromkeys(layer.cell.gates, 40),
            {},
        )
        for layer in model.stack
    ]
    labels = np.random.default_rng(1).integers(0, 4, (7, len(X)))
    gradients = []
    for chosen in (None, formats):
        network = Network(model, chosen, np.float64)
        network.loss_and_gradient(X.astype(np.float64), LENGTHS, labels, LOSSES["cross_entropy"])
        gradients.append(network.gradient.copy())
    # Folded slopes change the order of the parameters of neither.
    np.testing.assert_allclose(gradients[1], gradients[0], atol=1e-7)
    assert np.abs(gradients[0]).max() > 1e-3


def _values(layer: Layer) -> list[str]:
    from hwrnn.trace import trace

    lines = trace(layer.cell)
    return [*lines.stores, *(f"a.{gate}" for gate in lines.gates)]


def one_weight(weight: float, value: Format, weight_format: Format) -> Network:
    """y = w x + b on one number, rounded everywhere."""
    cell = Dense(phi=NONLINEARITIES["identity"])
    layer = Layer(cell, 1, 1, {"0.x": np.array([[weight]], np.float32), "0.b": np.zeros(1, np.float32)})
    one = np.ones(1, np.float32)
    model = Model((layer,), None, False, "regression", 0 * one, one, 0 * one, one)
    formats = LayerFormats(
        {"x": Format(8, 4), "y": value, "a.y": Format(24, 12)}, {("y", "x"): weight_format}, {"y": 12}, {}
    )
    return Network(model, [formats])


def gradient_of(network: Network, x: float) -> float:
    inputs, targets = np.full((1, 1, 1), x, np.float32), np.full((1, 1, 1), 100.0)
    network.loss_and_gradient(inputs, np.array([1]), targets, LOSSES["mse"])
    return float(network.gradient[network.layers[0].index["0.x"][0, 0]])


def test_a_saturated_value_passes_no_gradient():
    value, weight = Format(8, 4), Format(8, 4)
    assert gradient_of(one_weight(1.0, value, weight), 2.0) == 2 * (2.0 - 100) * 2.0
    assert gradient_of(one_weight(5.0, value, weight), 2.0) == 0  # 10 is beyond 127/16


def test_values_and_weights_round_half_up():
    network = one_weight(0.09375, Format(8, 3), Format(8, 4))  # 1.5 steps of the weight become 2
    assert network.forward(np.full((1, 1, 1), 0.5, np.float32), np.array([1])).item() == 0.125  # 1/16 is half a step
    network = one_weight(-0.09375, Format(8, 3), Format(8, 4))  # -1.5 become -1
    assert network.forward(np.full((1, 1, 1), 2.0, np.float32), np.array([1])).item() == -0.125


def test_masters_beyond_their_format_are_brought_back():
    network = one_weight(9.0, Format(8, 4), Format(8, 4))
    network.project()
    assert network.masters[network.layers[0].index["0.x"]].item() == Format(8, 4).max
