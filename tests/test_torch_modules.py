"""The cells as torch modules: float, in the loop with quantization, and back."""

import copy
import io
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwrnn.activations import NONLINEARITIES, PARAMETRIC, nonlinearity
from hwrnn.calibration import calibrate
from hwrnn.cells import CELLS, Dense, cell_named
from hwrnn.data import Split
from hwrnn.errors import UsageError
from hwrnn.exactness import reach, working_bits
from hwrnn.formats import LayerFormats, Widths, choose_formats
from hwrnn.golden import golden
from hwrnn.model import Layer, Model, build_model
from hwrnn.quantization import freeze, with_hardware_functions
from hwrnn.tensors import function_of
from hwrnn.training.losses import LOSSES
from hwrnn.training.network import Network as Trained

LENGTHS = np.array([7, 1, 4, 7, 2, 6, 3, 5])
X = np.random.default_rng(0).standard_normal((len(LENGTHS), 7, 3)).astype(np.float32)
WITHIN = np.arange(X.shape[1]) < LENGTHS[:, None]
FUNCTIONS = [(None, None), ("tanh", "sigmoid"), ("leaky_relu", "plan_sigmoid"), ("table_tanh", "pwl_sigmoid:5")]


@pytest.fixture(autouse=True)
def _one_thread(request):
    """Operations this small gain nothing from several threads, which wait for each other where cores are busy."""
    if request.node.get_closest_marker("extras"):
        pytest.importorskip("torch").set_num_threads(1)


def network_of(cell: str, activation=None, gate=None, **options) -> Model:
    options = {"hidden": 6, "layers": 2, "every_step": True, "seed": 3} | options
    clip = 1.5 if "c" in CELLS[cell].states else None
    gate = gate if CELLS[cell].gated else None
    model = build_model(3, 4, cell=cell, activation=activation, gate=gate, cell_clip=clip, **options)
    rng = np.random.default_rng(1)
    for layer in model.stack:
        for name, values in layer.parameters.items():
            if name.endswith("b"):
                values += 0.3 * rng.standard_normal(values.shape).astype(np.float32)
    model.input_mean[:] = [0.1, -0.2, 0.3]
    model.input_scale[:] = [1.1, 0.7, 1.3]
    return model


def formats_for(model: Model, widths: Widths) -> list[LayerFormats]:
    return choose_formats(model, calibrate(model, Split(X, np.zeros(len(X), np.int64), LENGTHS)), widths)


def test_without_torch_the_module_is_imported_and_a_class_names_the_extra():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import hwrnn, hwrnn.torch\n"
        "try:\n  hwrnn.torch.Network\n"
        "except hwrnn.UsageError as error:\n  print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'hwrnn[torch]'" in done.stdout and "\n" not in done.stdout.strip()


def test_importing_hwrnn_does_not_import_torch():
    code = "import sys, hwrnn, hwrnn.torch; assert 'torch' not in sys.modules; hwrnn.torch.Nothing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "AttributeError: module 'hwrnn.torch' has no attribute 'Nothing'" in done.stderr


@pytest.mark.parametrize("cell", CELLS)
def test_reach_bounds_every_number_of_golden(cell):
    # Golden carries the intervals of actual weights, which lie inside those of all weights.
    model = network_of(cell)
    formats = formats_for(model, Widths.of(8))
    for layer in freeze(model, formats, Widths.of(8)).stack:
        bound = reach(layer.cell, layer.formats, layer.size_of)
        assert bound > max(max(-lo, hi) for lo, hi in layer.accumulators.values())
        assert bound < 2 ** (24 if "peephole" in cell else 23)  # a cell state is four bits wider than other operands


def test_precision_is_chosen_by_the_formats_and_too_many_bits_are_refused():
    model = network_of("gru")
    chosen = []
    for bits in (8, 16, 30):
        layer, formats = model.layers[0], formats_for(model, Widths.of(bits))[0]
        cell = with_hardware_functions(model, formats_for(model, Widths.of(bits))).layers[0].cell
        if bits < 30:
            chosen.append(working_bits(cell, formats, layer.size_of))
        else:
            with pytest.raises(UsageError, match=r"within 53 bits, not .* as this gru layer needs: use fewer"):
                working_bits(cell, formats, layer.size_of)
    assert chosen == [32, 64]


@pytest.mark.extras
@pytest.mark.parametrize("name", [*NONLINEARITIES, *PARAMETRIC, "elu:0.7", "tanh|1.5", "leaky:-0.3|2"])
def test_a_nonlinearity_and_its_slope_are_those_of_the_catalogue(name):
    torch = pytest.importorskip("torch")
    function = nonlinearity(name)
    ends = [float(k) for k in getattr(function, "knots", ())]
    x = np.array([*np.linspace(-7, 7, 301), *ends, 0.0, -0.0, 1e-9, -1e-9, 1.5, -1.5, 40.0, -40.0])
    given = torch.from_numpy(x).requires_grad_()
    y = function_of(function)(given)
    y.sum().backward()
    np.testing.assert_allclose(y.detach().numpy(), function.value(x), atol=1e-12, rtol=1e-12)
    np.testing.assert_allclose(given.grad.numpy(), function.derivative(x), atol=1e-9, rtol=1e-9)


@pytest.mark.extras
@pytest.mark.parametrize(
    "activation, gate", [*FUNCTIONS, ("elu:0.7", "hard_line:0.1:0.4"), ("softsign", "scaled_tanh:0.5:2")]
)
@pytest.mark.parametrize("cell", CELLS)
def test_outputs_are_those_of_the_float_model(cell, activation, gate):
    torch = pytest.importorskip("torch")
    from hwrnn.torch import Network

    for every_step in (True, False):
        model = network_of(cell, activation, gate, every_step=every_step)
        out = Network(model)(torch.from_numpy(X), LENGTHS).detach().numpy()
        due = model.predict(X, LENGTHS)
        if every_step:
            out, due = out[WITHIN], due[WITHIN]
        np.testing.assert_allclose(out, due, atol=1e-5, rtol=0)
        whole = Network(model)(torch.from_numpy(X)).detach().numpy()
        np.testing.assert_allclose(whole, model.predict(X), atol=1e-5, rtol=0)


def branched(every_step: bool, final_state: bool) -> Model:
    """Two directions side by side, a dense layer, a reverse layer with initial states, a head."""
    rng = np.random.default_rng(5)

    def layer(kind, inputs, units, **more) -> Layer:
        shapes = Layer.shapes(kind, inputs, units)
        made = {name: 0.5 * rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        initial = {state: 0.5 * rng.standard_normal(units).astype(np.float32) for state in more.pop("states", ())}
        return Layer(kind, inputs, units, made, initial=initial, **more)

    lstm, gru, dense = cell_named("lstm"), cell_named("gru", "sigmoid", "tanh"), Dense(phi=nonlinearity("relu"))
    layers = (
        layer(lstm, 3, 4, states=("h", "c")),
        layer(gru, 3, 5, reverse=True, beside=True, states=("h",)),
        layer(dense, 9, 6),
        layer(gru, 6, 3),
        layer(lstm, 6, 2, reverse=True, beside=True, states=("c",)),
        layer(Dense(phi=nonlinearity("tanh")), 5, 4),
    )
    like = build_model(3, 2, every_step=every_step)
    head = layer(Dense(phi=nonlinearity("identity")), 4, 2)
    return replace(like, layers=layers, head=head, final_state=final_state)


@pytest.mark.extras
@pytest.mark.parametrize("every_step, final_state", [(True, False), (False, False), (False, True)])
def test_directions_dense_layers_and_initial_states_are_those_of_the_model(every_step, final_state):
    torch = pytest.importorskip("torch")
    from hwrnn.torch import Network

    model = branched(every_step, final_state)
    network = Network(model)
    out, due = network(torch.from_numpy(X), LENGTHS).detach().numpy(), model.predict(X, LENGTHS)
    if every_step:
        out, due = out[WITHIN], due[WITHIN]
    np.testing.assert_allclose(out, due, atol=1e-5, rtol=0)
    whole = network(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(whole, model.predict(X), atol=1e-5, rtol=0)
    formats = formats_for(model, Widths.of(8))
    frozen = freeze(model, formats, Widths.of(8))
    exact, integers = network.quantized(formats)(torch.from_numpy(X), LENGTHS), frozen.predict(X, LENGTHS)
    within = WITHIN if every_step else slice(None)
    assert np.array_equal(exact.detach().numpy()[within], integers[within])
    assert len(np.unique(integers)) > 8
    back = network.model()
    assert np.array_equal(back.predict(X, LENGTHS), model.predict(X, LENGTHS))
    assert back.final_state == final_state and back.groups == model.groups


@pytest.mark.extras
@pytest.mark.parametrize("activation, gate, bits", [(*f, b) for f, b in zip(FUNCTIONS, (4, 8, 16, 8), strict=True)])
@pytest.mark.parametrize("cell", CELLS)
def test_quantized_outputs_are_golden_bit_for_bit(cell, activation, gate, bits):
    torch = pytest.importorskip("torch")
    from hwrnn.torch import Network

    model = network_of(cell, activation, gate)
    formats = formats_for(model, Widths.of(bits))
    frozen = freeze(model, formats, Widths.of(bits))
    exact = Network(model).quantized(formats)
    raw = exact(torch.from_numpy(X), LENGTHS).detach().numpy()[WITHIN] * 2.0**frozen.output_format.frac
    due = golden(frozen, frozen.quantize_input(X), LENGTHS).output[WITHIN]
    assert np.array_equal(raw, due)
    assert len(np.unique(raw)) > 10
    back = exact.frozen(Widths.of(bits))
    assert np.array_equal(golden(back, back.quantize_input(X), LENGTHS).output[WITHIN], due)


@pytest.mark.extras
@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize("activation, gate", [*FUNCTIONS[1:], ("elu:0.7", "hard_line:0.1:0.4")])
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_are_those_of_training(cell, activation, gate, quantized):
    torch = pytest.importorskip("torch")
    from hwrnn.torch import Network

    model = network_of(cell, activation, gate, every_step=False)
    formats = formats_for(model, Widths.of(6)) if quantized else None
    ready = model if formats is None else with_hardware_functions(model, formats)
    labels = np.random.default_rng(1).integers(0, 4, len(X))
    trained = Trained(ready, formats, np.float64)
    x = model.standardised(X)
    loss = trained.loss_and_gradient(x.astype(np.float64), LENGTHS, labels[None], LOSSES["cross_entropy"])
    network = Network(model, formats).double()
    found = torch.nn.functional.cross_entropy(network(torch.from_numpy(X).double(), LENGTHS), torch.from_numpy(labels))
    found.backward()
    assert abs(found.item() - loss) < 1e-5
    for part, layer, module in zip(trained.parts, trained.layers, network.stack, strict=True):
        for name, index in layer.index.items():
            k, operand = name.split(".")
            gradient = getattr(module, f"bias_{k}" if operand == "b" else f"weight_{k}_{operand}").grad.numpy()
            np.testing.assert_allclose(gradient, trained.gradient[part][index], atol=1e-5, rtol=0)
    assert np.abs(trained.gradient).max() > 1e-3


@pytest.mark.extras
def test_a_pickled_or_copied_network_computes_the_same():
    torch = pytest.importorskip("torch")
    from hwrnn.torch import Network

    hard, smooth = network_of("gru", "plan_tanh", "plan_sigmoid"), network_of("lstm", "elu:0.7", "sigmoid")
    for network in (Network(hard, formats_for(hard, Widths.of(8))), Network(smooth)):
        due = network(torch.from_numpy(X), LENGTHS)
        file = io.BytesIO()
        torch.save(network, file)
        file.seek(0)
        for again in (copy.deepcopy(network), torch.load(file, weights_only=False)):
            assert torch.equal(again(torch.from_numpy(X), LENGTHS), due)


@pytest.mark.extras
def test_a_trained_network_comes_back():
    torch = pytest.importorskip("torch")
    from hwrnn.torch import Network

    torch.manual_seed(0)
    labels = torch.arange(len(X)) % 4
    model = network_of("lstm", every_step=False)
    for network in (Network(model), Network(model, formats_for(model, Widths.of(8)))):
        optimizer = torch.optim.Adam(network.parameters(), 0.02)
        losses = []
        for _ in range(40):
            loss = torch.nn.functional.cross_entropy(network(torch.from_numpy(X), LENGTHS), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            network.project()
            losses.append(loss.item())
        assert losses[-1] < losses[0] / 2
        scores = network(torch.from_numpy(X), LENGTHS).detach().numpy()
        if network.formats is None:
            np.testing.assert_allclose(network.model().predict(X, LENGTHS), scores, atol=1e-5)
        else:
            assert np.array_equal(network.frozen(Widths.of(8)).predict(X, LENGTHS), scores)


@pytest.mark.extras
def test_projected_weights_stand_at_the_edge_of_their_format():
    torch = pytest.importorskip("torch")
    from hwrnn.torch import Network

    model = network_of("gru")
    network = Network(model, formats_for(model, Widths.of(8)))
    with torch.no_grad():
        network.stack[0].weight_0_x += 100
    network.project()
    found = network.stack[0].weight_0_x.detach().numpy().reshape(3, 6, 3)
    due = [network.stack[0].formats.weights[gate, "x"].max for gate in ("r", "z", "nx")]
    assert np.array_equal(found, np.broadcast_to(np.array(due)[:, None, None], found.shape))


@pytest.mark.extras
def test_less_exact_arithmetic_that_somebody_switched_on_does_not_reach_the_integers():
    torch = pytest.importorskip("torch")
    from hwrnn.torch import Network

    model = network_of("lstm")
    network = Network(model, formats_for(model, Widths.of(8)))
    due = network(torch.from_numpy(X), LENGTHS)
    try:
        torch.set_float32_matmul_precision("medium")
        assert network.stack[0]._dtype(X) == torch.float64  # not every machine computes less exactly then
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(network(torch.from_numpy(X), LENGTHS), due)
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.extras
@pytest.mark.parametrize("cell", CELLS)
def test_a_layer_gives_its_last_states_and_starts_from_given_ones(cell):
    torch = pytest.importorskip("torch")
    from hwrnn.torch import Recurrent

    layer = Recurrent(3, 5, cell, seed=1)
    x = torch.from_numpy(X)
    out, states = layer(x, LENGTHS)
    assert set(states) == set(CELLS[cell].states)
    last = out[torch.arange(len(x)), torch.from_numpy(LENGTHS) - 1]
    assert torch.equal(states[CELLS[cell].output], last)
    whole, end = layer(x)
    _, middle = layer(x[:, :4])
    rest, again = layer(x[:, 4:], initial=middle)
    torch.testing.assert_close(rest, whole[:, 4:])
    torch.testing.assert_close(again, end)
    other = Recurrent(3, 5, cell, seed=1, batch_first=False)
    torch.testing.assert_close(other(x.transpose(0, 1))[0].transpose(0, 1), whole)


@pytest.mark.extras
def test_mistakes_are_told():
    torch = pytest.importorskip("torch")
    from hwrnn.torch import Network, Recurrent

    model = network_of("gru")
    formats = formats_for(model, Widths.of(8))
    network, layer, x = Network(model), Recurrent(3, 5, "gru"), torch.from_numpy(X)
    for call, text in [
        (lambda: network(X), "Input must be a tensor of floating-point numbers, not ndarray"),
        (lambda: network(x.long()), "Input must be a tensor of floating-point numbers, not Tensor"),
        (lambda: network(x[0]), r"Input must have shape \(sequences, steps, 3\), none 0, not \(7, 3\)"),
        (lambda: network(x, LENGTHS + 1), r"Lengths must be in 1\.\.7, not 8"),
        (lambda: network(x, LENGTHS[1:]), "Lengths must be 8 integers, one per sequence, not int64 of shape"),
        (lambda: network.frozen(Widths.of(8)), "Network must have formats to be frozen"),
        (lambda: network.quantized(formats).frozen(), "Widths must be given where the formats did not come"),
        (lambda: network.quantized(formats[:1]), "Formats must be those of 3 layers as the model has, not 1"),
        (lambda: layer(x, initial={"c": x[:, 0]}), "Initial states must be of h, which gru has, not 'c'"),
        (lambda: layer(x, initial={"h": x[:, 0]}), r"Initial state 'h' must have shape \(8, 5\), not \(8, 3\)"),
        (lambda: Recurrent(3, 0), "Units must be an integer of at least 1, not 0"),
        (lambda: Recurrent(3, 4, "grue"), "Cell must be one of"),
    ]:
        with pytest.raises(UsageError, match=text):
            call()


@pytest.mark.extras
def test_a_quantized_model_alone_makes_its_network_and_wide_biases_are_refused():
    torch = pytest.importorskip("torch")
    from hwrnn.torch import Network

    model = network_of("gru")
    for bits, fits in ((6, True), (16, False)):
        frozen = freeze(model, formats_for(model, Widths.of(bits)), Widths.of(bits))
        if not fits:
            frozen.layers[0].biases["r"][0] = 2**40 + 1
            with pytest.raises(UsageError, match="Biases of a quantized model must fit float32 to be trained on"):
                Network(frozen)
            continue
        scores = Network(frozen)(torch.from_numpy(X), LENGTHS).detach().numpy()
        assert np.array_equal(scores[WITHIN], frozen.predict(X, LENGTHS)[WITHIN])


@pytest.mark.extras
def test_the_code_of_the_page_runs(tmp_path, monkeypatch, capsys):
    torch = pytest.importorskip("torch")
    page = (Path(__file__).parent.parent / "docs" / "pytorch.md").read_text()
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(block, scope)
    equal, accuracy = capsys.readouterr().out.split()
    assert equal == "True" and float(accuracy) > 0.85
    x, module = scope["data"].test.x[:5], scope["module"].eval()
    with torch.no_grad():
        due = module(torch.from_numpy(x)).numpy()
    for model in (scope["model"], scope["same"]):
        np.testing.assert_allclose(model.predict(x), due, atol=1e-5)
    assert scope["bare"].outputs == 32 and (tmp_path / "gru.onnx").exists()
