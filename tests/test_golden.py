"""The integer reference against the oracle, value by value."""

import ast
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from networks import KINDS
from plain import plain

import oracle
from hwrnn.activations import NONLINEARITIES, PARAMETRIC
from hwrnn.cells import CELLS
from hwrnn.compiler import C, compiler_available
from hwrnn.errors import UsageError
from hwrnn.fixed import Format
from hwrnn.golden import golden
from hwrnn.model import build_model
from hwrnn.quantization import quantize

PARAMETERS = {  # of every parametric nonlinearity; a new one must be entered here to be tested
    "leaky_relu": ("leaky_relu", "leaky_relu:1", "leaky_relu:5"),
    "pwl_sigmoid": ("pwl_sigmoid:3", "pwl_sigmoid:5:1"),
    "pwl_tanh": ("pwl_tanh:4", "pwl_tanh:6:1"),
    "clip": ("clip:1.5", "clip:8"),
    "leaky": ("leaky:0.01", "leaky:-0.25"),
    "thresholded": ("thresholded:0.5",),
    "affine": ("affine:-0.75:0.125",),
    "hard_line": ("hard_line:0.2:0.5",),
    "scaled_tanh": ("scaled_tanh:1.7159:0.6667",),
    "elu": ("elu:1", "elu:-0.5|1.5"),
}
#: ONNX's with parameters and smooth ones: lines like all others once they are fitted.
FOREIGN = ("softsign", "softplus", *(n for base in tuple(PARAMETRIC)[4:] for n in PARAMETERS[base]))
ALL = [*NONLINEARITIES, *(name for base in PARAMETRIC for name in PARAMETERS[base])]


def quantized(cell, bits=8, *, inputs=3, hidden=4, outputs=None, seed=0, count=3, steps=5, gain=1.0, **options):
    """A random network, quantized on random data, and raw inputs with lengths that reach saturation now and then."""
    rng = np.random.default_rng(seed)
    chosen = {k: options.pop(k) for k in list(options) if k.endswith("_bits") or k == "method"}
    model = build_model(inputs, outputs, cell=cell, hidden=hidden, seed=seed, **options)
    for layer in model.stack:
        for name, p in layer.parameters.items():
            noise = rng.standard_normal(p.shape) * (0.5 if name.endswith(".b") else 0.2)
            p[...] = gain * (p + noise)
    x = rng.standard_normal((count, steps, inputs)).astype(np.float32)
    lengths = rng.integers(1, steps + 1, count)
    lengths[0] = steps
    data = SimpleNamespace(train=SimpleNamespace(x=x, lengths=lengths))
    q = quantize(model, data, bits, **{"method": "mse", **chosen})
    return q, q.quantize_input(2 * x), lengths


def assert_equal_oracle(q, raw, lengths):
    """Outputs and every stored value of every step equal the oracle's."""
    network, result = plain(q), golden(q, raw, lengths, keep=True)
    for n, length in enumerate(lengths):
        output, trails = oracle.run(network, raw[n, :length].tolist())
        if q.every_step:
            assert result.output[n, :length].tolist() == output
            assert not result.output[n, length:].any()
        else:
            assert result.output[n].tolist() == output
        for k, trail in enumerate(trails):
            for t, seen in enumerate(trail):
                for name, values in seen.items():
                    assert result.values[k, name][n, t].tolist() == values, (k, name, t)
    return result


def test_the_oracle_imports_nothing_of_the_project():
    tree = ast.parse((Path(__file__).parent / "oracle.py").read_text())
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module)
        assert not (isinstance(node, ast.Name) and node.id in ("__import__", "eval", "exec"))
    assert modules == {"fractions"}


@pytest.mark.parametrize(
    ("name", "cell"), [(name, cell) for name in ALL for cell in (("lstm", "rnn") if name in FOREIGN else KINDS)]
)
def test_every_cell_with_every_nonlinearity(cell, name):
    roles = ({"activation": name}, {"gate": name}) if CELLS[cell].gated else ({"activation": name},)
    for k, options in enumerate(roles):
        bits = (8, 5, 11)[(ALL.index(name) + k) % 3]
        assert_equal_oracle(*quantized(cell, bits, seed=ALL.index(name), **options))


@pytest.mark.parametrize("cell", [name for name in CELLS if "c" in CELLS[name].states])
def test_an_output_nonlinearity_of_its_own(cell):
    for name in ("relu", "plan_tanh", "pwl_tanh:3"):
        q, raw, lengths = quantized(cell, output_activation=name, layers=2, cell_clip=2)
        assert len({id(f) for f in q.layers[0].cell.functions.values()}) == 3
        assert_equal_oracle(q, raw, lengths)


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 12, 16])
@pytest.mark.parametrize("cell", CELLS)
def test_every_width(cell, bits):
    assert_equal_oracle(*quantized(cell, bits, seed=bits, outputs=3))


@pytest.mark.parametrize("cell", CELLS)
def test_mixed_widths(cell):
    assert_equal_oracle(*quantized(cell, 8, weight_bits=3, activation_bits=9, state_bits=5, cell_bits=7, seed=1))
    assert_equal_oracle(*quantized(cell, 6, weight_bits=12, activation_bits=4, method="max", seed=2, gain=3.0))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("outputs", [None, 3])
def test_layers_and_heads(cell, every_step, outputs):
    q, raw, lengths = quantized(
        cell, 7, inputs=2, hidden=[4, 3], layers=2, outputs=outputs, every_step=every_step, count=6, seed=3
    )
    assert len(set(lengths.tolist())) > 1
    assert_equal_oracle(q, raw, lengths)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("hidden, encoder, outputs", [([4, 3], 1, 2), ([3, 2, 4], 1, None), ([3, 2, 4], 2, 3)])
def test_an_encoder_and_a_decoder(cell, hidden, encoder, outputs):
    q, raw, lengths = quantized(
        cell, 7, inputs=2, hidden=hidden, encoder=encoder, outputs=outputs, every_step=True, count=6, seed=4
    )
    lengths[1] = 1
    assert q.encoder == encoder and len(set(lengths.tolist())) > 2
    result = assert_equal_oracle(q, raw, lengths)
    if compiler_available(C):
        assert np.array_equal(golden(q, raw, lengths, compiled=True).output, result.output)
    plainly = golden(replace(q, encoder=0), raw, lengths).output
    assert (result.output != plainly).any()  # the code is not what the layer behind would read without it


def test_clipped_cell_state():
    q, raw, lengths = quantized("lstm", 8, cell_clip=0.5, gain=3.0)
    result = assert_equal_oracle(q, raw, lengths)
    form = q.layers[0].formats.values["c"]
    assert np.abs(form.dequantize(result.values[0, "c"])).max() == 0.5


@pytest.mark.parametrize("cell", CELLS)
def test_wide_formats_leave_float64(cell):
    # 32-bit weights, activations and states: products of 64 bits and sums beyond are far above 2**53.
    q, raw, lengths = quantized(cell, 32, outputs=2, count=2, steps=3)
    assert max(hi for layer in q.stack for lo, hi in layer.accumulators.values()) > 2**53
    assert_equal_oracle(q, raw, lengths)


@pytest.mark.parametrize("cell", CELLS)
def test_sums_beyond_float64_are_exact_to_the_last_bit(cell):
    """Pre-activations stored at the accumulator's own fraction, so that no rounding hides a lost bit."""
    q, raw, lengths = quantized(cell, 31, count=2, steps=3, gain=0.3)
    layer = q.layers[0]
    fine = {f"a.{gate}": Format(63, frac) for gate, frac in layer.formats.bias_frac.items()}
    formats = replace(layer.formats, values={**layer.formats.values, **fine})
    result = assert_equal_oracle(replace(q, layers=(replace(layer, formats=formats),)), raw, lengths)
    assert max(np.abs(result.values[0, name]).max() for name in fine) > 2**54


@pytest.mark.parametrize("gate", ["sigmoid", "hard_sigmoid", "leaky_relu", "relu6"])
@pytest.mark.parametrize("activation", ["tanh", "leaky_relu", "relu"])
@pytest.mark.parametrize("cell", KINDS)
def test_unusual_gates_work_end_to_end(cell, gate, activation):
    gate = gate if CELLS[cell].gated else None
    q, raw, lengths = quantized(cell, 8, gate=gate, activation=activation, outputs=2, seed=7)
    assert_equal_oracle(q, raw, lengths)


def extremes(cell):
    """A network with the lowest, the highest, no and alternating inputs."""
    q, raw, lengths = quantized(cell, 8, count=4)
    form = q.input_format
    raw[0], raw[1], raw[2] = form.lo, form.hi, 0
    raw[3] = np.where(np.arange(raw[3].size).reshape(raw[3].shape) % 2, form.lo, form.hi)
    return q, raw, lengths


def test_extreme_inputs():
    for cell in CELLS:
        assert_equal_oracle(*extremes(cell))


@pytest.mark.parametrize("every_step", [False, True])
def test_sequences_do_not_influence_each_other(every_step, monkeypatch):
    q, raw, lengths = quantized("lstm", 8, outputs=3, every_step=every_step, layers=2, hidden=[5, 4], count=23, steps=9)
    whole = golden(q, raw, lengths).output
    order = np.random.default_rng(0).permutation(len(raw))
    assert np.array_equal(golden(q, raw[order], lengths[order]).output, whole[order])
    for n in range(len(raw)):
        alone = golden(q, raw[n : n + 1], lengths[n : n + 1]).output
        assert np.array_equal(alone[0], whole[n])
    monkeypatch.setattr("hwrnn.golden._BATCH", 4)
    split = golden(q, raw, lengths, keep=True)
    monkeypatch.undo()
    joint = golden(q, raw, lengths, keep=True)
    assert np.array_equal(split.output, whole)
    assert split.saturation == joint.saturation
    assert split.values.keys() == joint.values.keys()
    assert all(np.array_equal(split.values[key], value) for key, value in joint.values.items())


@pytest.mark.parametrize("every_step", [False, True])
def test_what_lies_beyond_a_length_has_no_effect(every_step):
    q, raw, lengths = quantized("gru", 8, outputs=2, every_step=every_step, count=8, steps=6)
    beyond = np.arange(6) >= lengths[:, None]
    assert beyond.any()
    other = np.where(beyond[..., None], q.input_format.hi, raw)
    a, b = golden(q, raw, lengths, keep=True), golden(q, other, lengths, keep=True)
    assert np.array_equal(a.output, b.output)
    assert a.saturation == b.saturation
    for key, value in a.values.items():
        assert value.dtype == np.int64
        if value.shape[1] == 6:
            assert not value[beyond].any(), key


def test_kept_values_have_their_shapes():
    q, raw, lengths = quantized("lstm", 8, outputs=2, count=3, steps=4)
    values = golden(q, raw, lengths, keep=True).values
    assert values[0, "c"].shape == (3, 4, 4)
    assert values[0, "a.i"].shape == (3, 4, 4)
    assert values[1, "y"].shape == (3, 1, 2)
    assert golden(q, raw, lengths).values == {}


def test_saturation_is_counted():
    # A cell without feedback, so that the share follows from the inputs alone: relu of w x + b in a narrow state.
    q, raw, lengths = quantized("rnn", 8, activation="relu", method="max", count=40, gain=2.0)
    result = golden(q, raw, lengths, keep=True)
    valid = np.arange(raw.shape[1]) < lengths[:, None]
    h, form = result.values[0, "h"][valid], q.layers[0].formats.values["h"]
    share = result.saturation["0.h"]
    assert 0 < share < 1
    network, over = plain(q), 0
    for n, length in enumerate(lengths):
        for seen in oracle.run(network, raw[n, :length].tolist())[1][0]:
            a = q.layers[0].formats.values["a.h"]
            over += sum(v * 2.0**-a.frac >= form.max + form.step / 2 for v in seen["a.h"])
    assert share == over / h.size


def test_arg_max_takes_the_first_of_equals():
    scores = np.array([[3, 5, 5], [7, 7, 7], [-2, -3, -2]])
    assert [oracle.arg_max(row) for row in scores.tolist()] == [1, 0, 0] == scores.argmax(-1).tolist()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda x, n: (x[0], n), "Raw input must have shape (sequences, steps, 3), none 0, not (5, 3)"),
        (lambda x, n: (x[:, :, :2], n), "Raw input must have shape (sequences, steps, 3), none 0, not (3, 5, 2)"),
        (lambda x, n: (x.astype(float), n), "Raw input must be of an integer type, not 'float64'"),
        (lambda x, n: (x, n[:2]), "Lengths must be 3 whole numbers, one for each sequence"),
        (lambda x, n: (x, n * 0), "Lengths must be between 1 and 5, not 0 to 0"),
        (lambda x, n: (x, n + 5), "Lengths must be between 1 and 5, not 8 to 10"),
        (lambda x, n: (x * 0 + 128, n), "Raw input must lie between -128 and 127 for Q3.5"),
    ],
)
def test_errors(change, text):
    q, raw, lengths = quantized("gru", 8)
    with pytest.raises(UsageError) as caught:
        golden(q, *change(raw, lengths))
    assert str(caught.value) == text


def test_a_quantized_model_predicts_in_the_targets_units():
    q, raw, lengths = quantized("gru", 8, outputs=2)
    q.output_scale[:], q.output_mean[:] = (4.0, 0.5), (1.0, -1.0)
    x = q.input_format.dequantize(raw)
    expected = q.output_format.dequantize(golden(q, raw, lengths).output) * [4.0, 0.5] + [1.0, -1.0]
    assert np.array_equal(q.predict(x, lengths), expected)
