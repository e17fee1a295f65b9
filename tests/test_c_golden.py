"""The compiled golden model against the one in numpy: outputs, saturation and every kept value."""

from dataclasses import replace

import numpy as np
import pytest
from test_golden import ALL, extremes, quantized

from hwrnn import c_golden
from hwrnn.activations import NONLINEARITIES, nonlinearity
from hwrnn.c_golden import number_for, printed
from hwrnn.c_integers import CNumber, Writer
from hwrnn.c_source import Unprintable
from hwrnn.cells import CELLS
from hwrnn.compiler import C, compiler_available
from hwrnn.errors import UsageError
from hwrnn.fixed import Fixed, Format
from hwrnn.golden import Golden, golden

needs_compiler = pytest.mark.skipif(not compiler_available(C), reason="no C compiler")


def assert_same(one, other):
    assert np.array_equal(one.output, other.output) and one.output.dtype == other.output.dtype
    assert one.saturation == other.saturation and list(one.saturation) == list(other.saturation)
    assert one.values.keys() == other.values.keys()
    for key, value in one.values.items():
        assert np.array_equal(value, other.values[key]) and value.dtype == other.values[key].dtype, key


def check(q, raw, lengths):
    due = golden(q, raw, lengths, keep=True, compiled=False)
    assert_same(due, golden(q, raw, lengths, keep=True, compiled=True))
    found = golden(q, raw, lengths, compiled=True)
    assert np.array_equal(found.output, due.output) and found.saturation == due.saturation and not found.values
    return due


@needs_compiler
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8, 11, 16])
def test_every_cell_at_every_width(cell, bits):
    result = check(*quantized(cell, bits, seed=bits, outputs=3, count=40, steps=7, gain=2.0))
    assert max(result.saturation.values()) > 0


@needs_compiler
@pytest.mark.parametrize("name", ALL)
def test_every_nonlinearity(name):
    """In cells that read both roles as they come; cells differ in nothing else that a nonlinearity could meet."""
    seed = ALL.index(name)
    check(*quantized("gru", (8, 5, 12)[seed % 3], seed=seed, activation=name, gate=name, count=9))
    check(*quantized("rnn", (8, 5, 12)[seed % 3], seed=seed, activation=name, count=9))


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "name"), [(c, f) for j, c in enumerate(CELLS) for k, f in enumerate(ALL) if (j + k) % 3 == 0]
)
def test_many_cells_with_many_nonlinearities_compiled(cell, name):
    """Each with a third of the others: to the printed text a nonlinearity is a clip, pieces or a table."""
    roles = ({"activation": name}, {"gate": name}) if CELLS[cell].gated else ({"activation": name},)
    for k, options in enumerate(roles):
        check(*quantized(cell, (8, 5, 11)[(ALL.index(name) + k) % 3], seed=ALL.index(name), count=9, **options))


@needs_compiler
@pytest.mark.parametrize("cell", CELLS)
def test_mixed_widths(cell):
    check(*quantized(cell, 8, weight_bits=3, activation_bits=9, state_bits=5, cell_bits=7, seed=1))
    check(*quantized(cell, 6, weight_bits=12, activation_bits=4, method="max", seed=2, gain=3.0))


@needs_compiler
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("every_step", [False, True])
@pytest.mark.parametrize("outputs", [None, 3])
def test_layers_heads_and_lengths(cell, every_step, outputs, monkeypatch):
    q, raw, lengths = quantized(
        cell, 7, inputs=2, hidden=[5, 3], layers=2, outputs=outputs, every_step=every_step, count=75, steps=9, seed=3
    )
    assert len(set(lengths.tolist())) > 5
    check(q, raw, lengths)
    monkeypatch.setattr("hwrnn.golden._BATCH", 34)  # neither a multiple of the lanes nor a divisor of the count
    check(q, raw, lengths)


@needs_compiler
def test_an_encoder():
    q, raw, lengths = quantized(
        "gru", 8, inputs=2, hidden=[4, 4], layers=2, outputs=2, every_step=True, encoder=1, count=40, steps=6
    )
    check(q, raw, lengths)


@needs_compiler
def test_clipped_cell_state():
    check(*quantized("lstm", 8, cell_clip=0.5, gain=3.0, count=9))


@needs_compiler
def test_extreme_inputs():
    for cell in CELLS:
        check(*extremes(cell))


@needs_compiler
@pytest.mark.parametrize("cell", CELLS)
def test_the_type_follows_from_formats_and_weights(cell):
    numbers = [number_for(quantized(cell, bits)[0].layers[0]) for bits in (4, 8, 16)]
    assert numbers == ["int32_t", "int32_t", "int64_t"]
    q, raw, lengths = quantized(cell, 16, count=40, steps=6, gain=2.0)
    check(q, raw, lengths)
    q, raw, lengths = quantized(cell, 32, outputs=2, count=2, steps=3)
    with pytest.raises(UsageError, match=r"^Model must fit the integers of C to run compiled, but layer 0 does not "):
        golden(q, raw, lengths, compiled=True)
    assert golden(q, raw, lengths).output.any() and not Golden(q).compiled


def plain_layer(function, weights, biases, x, a, h, bias_frac=0):
    """A layer of two units that reads three inputs and nothing of its state."""
    q, _, _ = quantized("rnn", 8, inputs=3, hidden=2)
    layer = q.layers[0]
    formats = replace(
        layer.formats, values={"x": x, "a.h": a, "h": h}, bias_frac={"h": bias_frac}, shifts={(0, "x"): 0, (0, "h"): 0}
    )
    cell = replace(layer.cell, phi=function)
    matrices = {("h", "x"): np.array(weights), ("h", "h"): np.zeros((2, 2), np.int64)}
    layer = replace(layer, cell=cell, weights=matrices, biases={"h": np.array(biases)}, formats=formats)
    return replace(q, layers=(layer,), head=None, every_step=True)


def test_a_sum_beyond_float_that_its_bias_brings_back():
    """A matrix product leaves the bias out, so that its sum can be too large for what holds the whole."""
    weight, bias = 2**53 // 763 + 2 | 1, -(2**52)
    product = (255 + 255 + 253) * weight
    assert product > 2**53 and product % 2 and 3 * 255 * weight + bias < 2**53
    wide = Format(59, 0)
    model = plain_layer(NONLINEARITIES["relu"], [[0] * 3, [weight] * 3], [0, bias], Format(8, 0, False), wide, wide)
    result = golden(model, np.array([[[255, 255, 253]] * 2]), np.array([2]), compiled=False)
    assert result.output[0].tolist() == [[0, product + bias]] * 2


@needs_compiler
@pytest.mark.parametrize("down", [0, 5, 20])
@pytest.mark.parametrize("bits", [31, 40, 62])
def test_sums_up_to_the_last_bit(bits, down):
    """What fills a type stays in it, one beyond leaves it; and what rounds adds its half to the sum."""
    most, half = 2**bits - 1, (1 << down) >> 1
    form = Format(min(bits, 59), 0) if bits > 31 else Format(31, 0)
    for beyond, narrow in ((-(2 ** (bits - 28)), True), (2 ** (bits - 28), False)):
        biases = [0, most - 3 * 7 * 128 - half + beyond]
        model = plain_layer(NONLINEARITIES["relu"], [[-7] * 3] * 2, biases, Format(8, 0), form, form, down)
        if bits == 62 and not narrow:
            with pytest.raises(Unprintable, match=r"it needs 64 bits and 62 are the most"):
                number_for(model.layers[0])
            continue
        assert number_for(model.layers[0]) == ("int32_t" if bits == 31 and narrow else "int64_t")
        check(model, np.full((1, 2, 3), -128), np.array([2]))


@needs_compiler
@pytest.mark.parametrize(("shift", "up"), [(0, 0), (3, 0), (0, 2), (2, 1)])
def test_shifts_count_by_powers_of_two(shift, up):
    """Of operands before the sum and of sums behind it; 31 bits but for the billionth in hand, and one beyond them."""
    form = Format(31, up)
    for beyond, number in ((-3 << up, "int32_t"), (1 << up, "int64_t")):
        bias = ((2**31 - 1 + beyond) >> up) - (3 * 7 * 128 << shift)
        model = plain_layer(NONLINEARITIES["relu"], [[-7] * 3] * 2, [0, bias], Format(8, 0), form, form)
        layer = model.layers[0]
        formats = replace(layer.formats, shifts={(0, "x"): shift, (0, "h"): 0})
        model = replace(model, layers=(replace(layer, formats=formats),))
        assert number_for(model.layers[0]) == number
        check(model, np.full((1, 2, 3), -128), np.array([2]))


@needs_compiler
@pytest.mark.parametrize("name", ALL)
def test_every_nonlinearity_at_every_input(name):
    """Knots fall on inputs, where PLAN jumps by what the output resolves."""
    h = Format(14, 10)
    function = nonlinearity(name).in_hardware(h)
    model = plain_layer(function, [[1, 0, 0], [-1, 0, 0]], [0, 0], Format(9, 4), Format(10, 4), h, 4)
    raw = np.zeros((1, 512, 3), np.int64)
    raw[0, :, 0] = np.arange(-256, 256)
    result = check(model, raw, np.array([512]))
    assert np.array_equal(result.output[0, :, 0], function(Fixed.of(raw[0, :, 0], Format(9, 4))).to(h).raw)


def test_one_text_serves_all_formats_and_weights():
    texts = {
        c_golden._name(quantized("lstm", bits, seed=seed, hidden=hidden, **more)[0].layers[0])
        for bits, seed, hidden, more in (
            (8, 0, 4, {}),
            (4, 1, 5, {}),
            (6, 2, 4, {"weight_bits": 3, "cell_bits": 9}),
            (8, 3, 9, {"activation": "relu6"}),
        )
    }
    assert len(texts) == 1
    table = quantized("lstm", 8, activation="leaky_relu")[0].layers[0]
    assert c_golden._name(table) not in texts
    assert len(printed(table).parameters) > 50


@needs_compiler
def test_prepared_weights_are_exchanged():
    models = [quantized("gru", bits, seed=seed, outputs=3, count=9) for seed, bits in enumerate((8, 8, 4, 16))]
    _, raw, lengths = models[2]
    prepared = Golden(models[0][0])
    assert prepared.compiled
    for q, _, _ in (*models, models[0]):
        prepared.exchange(q)
        assert prepared.compiled and prepared.model is q
        assert_same(golden(q, raw, lengths, keep=True, compiled=False), prepared.run(raw, lengths, keep=True))
    one, other = models[0][0], models[2][0]
    alike = [replace(new, cell=old.cell) for new, old in zip(other.layers, one.layers, strict=True)]
    prepared.exchange(replace(other, layers=tuple(alike)))  # the cells themselves, in other formats
    assert_same(golden(other, raw, lengths, keep=True, compiled=False), prepared.run(raw, lengths, keep=True))
    wide = quantized("gru", 32, outputs=3)[0]
    prepared.exchange(wide)
    assert not prepared.compiled
    prepared.exchange(models[0][0])
    assert prepared.compiled
    numpy = Golden(models[0][0], compiled=False)
    numpy.exchange(models[1][0])
    assert not numpy.compiled
    assert_same(numpy.run(raw, lengths), golden(models[1][0], raw, lengths, compiled=True))
    with pytest.raises(UsageError) as caught:
        prepared.exchange(quantized("gru", 8, hidden=5, outputs=3)[0])
    assert str(caught.value) == "Model must have the cells and sizes of the one it takes the place of"


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """No library is known, in memory or on disk."""
    monkeypatch.setenv("HWRNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("hwrnn.c_golden._LIBRARIES", {})
    monkeypatch.setattr("hwrnn.c_golden._SPENT", c_golden.Counter())
    return tmp_path / "cache"


@needs_compiler
def test_small_work_compiles_nothing(fresh, monkeypatch):
    q, raw, lengths = quantized("ligru", 8, count=9)
    for _ in range(3):
        golden(q, raw, lengths)
    assert not c_golden._LIBRARIES and not fresh.exists()
    work = int(lengths.sum()) * sum(layer.multiplications for layer in q.stack)
    monkeypatch.setattr("hwrnn.c_golden._LEAST", work)
    monkeypatch.setattr("hwrnn.c_golden._COMPILING", 3 * work)
    for number in (0, 0, 1, 1):
        golden(q, raw, lengths)
        assert len(c_golden._LIBRARIES) == number
    c_golden._LIBRARIES.clear()  # as in a new process, which finds the library on disk
    c_golden._SPENT.clear()
    golden(q, raw, lengths)
    assert len(c_golden._LIBRARIES) == 1


@needs_compiler
def test_a_damaged_library_is_built_anew(fresh):
    q, raw, lengths = quantized("rnn", 8, count=3)
    check(q, raw, lengths)
    (file,) = fresh.glob("golden-*.so")
    whole = file.read_bytes()
    file.unlink()
    file.write_bytes(whole[: len(whole) // 2])
    c_golden._LIBRARIES.clear()
    check(q, raw, lengths)
    assert file.stat().st_size == len(whole)


def test_without_a_compiler_numpy_does_it(fresh, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("hwrnn.c_golden._LEAST", 1)
    monkeypatch.setattr("hwrnn.c_golden._COMPILING", 1)
    q, raw, lengths = quantized("rnn", 8)
    assert_same(golden(q, raw, lengths), golden(q, raw, lengths, compiled=False))
    assert not Golden(q).compiled
    for insist in (lambda: golden(q, raw, lengths, compiled=True), lambda: Golden(q, compiled=True)):
        with pytest.raises(UsageError) as caught:
            insist()
        assert str(caught.value) == (
            "A C compiler must be installed: install gcc or clang, or leave compiled out, since numpy computes the same"
        )


@needs_compiler
def test_a_compiler_that_fails_is_none(fresh, monkeypatch, tmp_path):
    script = tmp_path / "mine"
    script.write_text("#!/bin/sh\necho error: I refuse >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))
    q, raw, lengths = quantized("rnn", 8)
    assert not Golden(q).compiled
    with pytest.raises(UsageError, match=r"must build the golden model, but fails \(error: I refuse\)$"):
        golden(q, raw, lengths, compiled=True)


def test_a_nonlinearity_that_is_no_line_is_left_to_numpy():
    q, _, _ = quantized("rnn", 8)
    layer = replace(q.layers[0], cell=replace(q.layers[0].cell, phi=NONLINEARITIES["tanh"]))
    with pytest.raises(UsageError, match=r"^Model must fit the integers of C to run compiled, but layer 0 does not"):
        c_golden.compiled_layers(replace(q, layers=(layer,)), True)


def test_clipped_intervals_in_c_are_tight():
    number = CNumber(Writer().let("x", 8), 3, -8, 7)
    for lo, hi in ((-4, 20), (-20, 3), (-2, 2), (-20, 20)):
        result = number.clipped(lo, hi)
        assert (result.lo, result.hi) == (max(-8, lo), min(7, hi))
