"""Keras networks as models, compared with what Keras computes; files that hold something else."""

import importlib.util
import io
import json
import warnings
import zipfile

import numpy as np
import pytest

from hwrnn.errors import UsageError
from hwrnn.importing import keras_archives
from hwrnn.importing.keras_archives import check_archive
from hwrnn.importing.keras_files import _Reader, from_keras

pytestmark = [pytest.mark.extras, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
X = np.random.default_rng(0).standard_normal((4, 6, 3)).astype(np.float32)
LENGTHS = np.array([6, 1, 4, 6])


@pytest.fixture(scope="module")
def keras():
    for needed in ("keras", "torch"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    from hwrnn.importing.keras_files import _keras

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _keras()


@pytest.fixture(autouse=True)
def _seeded(keras):
    keras.utils.set_random_seed(1)


def randomised(keras, network):
    """The network with biases and statistics that are not those of a new one."""
    rng = np.random.default_rng(3)
    for layer in network.layers:
        values = [np.asarray(w) for w in layer.get_weights()]
        drawn = [w + 0.2 * rng.standard_normal(w.shape) if w.dtype.kind == "f" else w for w in values]
        if type(layer).__name__ in ("BatchNormalization", "Normalization"):
            drawn = [np.abs(w) + 0.5 if w.dtype.kind == "f" else w for w in drawn]
        layer.set_weights(drawn)
    return network


def predicted(keras, network, x=X):
    return np.asarray(keras.ops.convert_to_numpy(network(keras.ops.convert_to_tensor(x), training=False)))


def close(found, due):
    assert found.shape == due.shape
    np.testing.assert_allclose(found, due, rtol=0, atol=2e-6 * max(1.0, np.abs(due).max()))


NETWORKS = {
    "lstm": lambda L: [L.LSTM(5, return_sequences=True)],
    "lstm-last": lambda L: [L.LSTM(5), L.Dense(2)],
    "lstm-no-bias": lambda L: [L.LSTM(5, use_bias=False, unit_forget_bias=False, dropout=0.3, recurrent_dropout=0.2)],
    "lstm-hard": lambda L: [L.LSTM(5, activation="relu", recurrent_activation="hard_sigmoid")],
    "gru-after": lambda L: [L.GRU(5, reset_after=True, return_sequences=True), L.Dense(3)],
    "gru-before": lambda L: [L.GRU(5, reset_after=False, return_sequences=True), L.Dense(3, use_bias=False)],
    "gru-before-no-bias": lambda L: [L.GRU(5, reset_after=False, use_bias=False, recurrent_activation="hard_sigmoid")],
    "gru-after-no-bias": lambda L: [L.GRU(5, use_bias=False, activation="softsign")],
    "rnn": lambda L: [L.SimpleRNN(5, return_sequences=True)],
    "rnn-relu6": lambda L: [L.SimpleRNN(5, activation="relu6", use_bias=False)],
    "backwards": lambda L: [L.GRU(5, go_backwards=True), L.Dense(2)],
    "both": lambda L: [L.Bidirectional(L.LSTM(4, return_sequences=True)), L.TimeDistributed(L.Dense(2, "tanh"))],
    "both-last": lambda L: [L.Bidirectional(L.GRU(4, reset_after=False)), L.Dropout(0.5), L.Dense(2)],
    "both-stacked": lambda L: [
        L.Bidirectional(L.LSTM(4, return_sequences=True)), L.SpatialDropout1D(0.2),
        L.Bidirectional(L.SimpleRNN(3), backward_layer=L.GRU(3, go_backwards=True)), L.Dense(3, "relu"), L.Dense(2),
    ],
    "stacked": lambda L: [L.LSTM(4, return_sequences=True), L.GRU(3, return_sequences=True), L.SimpleRNN(2)],
    "dense-before": lambda L: [L.Dense(4, "leaky_relu"), L.LSTM(5), L.Dense(3), L.ReLU(6.0), L.Dense(2, "hard_tanh")],
    "normalised": lambda L: [L.Normalization(mean=[1.0, 2, 3], variance=[1.0, 4, 9]), L.GRU(4), L.Dense(2)],
    "scaled": lambda L: [L.Rescaling(0.5, 0.1), L.LSTM(4, return_sequences=True), L.BatchNormalization(), L.Dense(2)],
    "batch-normalised": lambda L: [L.BatchNormalization(), L.GRU(4), L.BatchNormalization(scale=False), L.Dense(2)],
    "activations": lambda L: [L.GRU(4), L.Dense(3), L.LeakyReLU(0.12), L.Dense(3), L.ELU(), L.Activation("softplus")],
    "output-scaled": lambda L: [L.LSTM(4), L.Dense(2), L.Rescaling([3.0, 4.0], [1.0, -1.0])],
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_from_memory_and_from_files(keras, name, tmp_path):
    network = keras.Sequential([keras.layers.Input((None, 3)), *NETWORKS[name](keras.layers)])
    randomised(keras, network)
    due = predicted(keras, network)
    network.save(tmp_path / "n.keras")
    for source in (network, tmp_path / "n.keras"):
        model = from_keras(source)
        close(model.predict(X), due)
        assert model.every_step == (due.ndim == 3)


def test_a_functional_network_in_one_row_and_networks_inside(keras):
    L = keras.layers
    given = L.Input((6, 3))
    inner = keras.Sequential([L.Dense(4), L.LSTM(5)], name="inner")
    network = keras.Model(given, L.Dense(2)(inner(L.GaussianNoise(0.1)(given))))
    close(from_keras(network, task="regression").predict(X), predicted(keras, network))
    assert from_keras(network, task="regression").task == "regression"


def test_a_softmax_is_left_to_the_host(keras):
    L = keras.layers
    for end in ([L.Dense(3, "softmax")], [L.Dense(3), L.Softmax()], [L.Dense(3), L.Activation("softmax")]):
        network = keras.Sequential([L.Input((None, 3)), L.GRU(4), *end])
        with pytest.warns(UserWarning, match="its softmax is left to the host"):
            scores = from_keras(network).predict(X)
        e = np.exp(scores - scores.max(1, keepdims=True))
        close(e / e.sum(1, keepdims=True), predicted(keras, network))


@pytest.mark.parametrize("two", [False, True])
def test_masked_steps_become_lengths(keras, two):
    L = keras.layers
    recurrent = L.Bidirectional(L.LSTM(4)) if two else L.GRU(4)
    network = randomised(keras, keras.Sequential([L.Input((None, 3)), L.Masking(-9.0), recurrent, L.Dense(2)]))
    with pytest.warns(UserWarning, match=r"Masking layer \(-9\) is left out: give a model the lengths"):
        model = from_keras(network)
    padded = np.where((np.arange(6) < LENGTHS[:, None])[:, :, None], X, -9.0).astype(np.float32)
    close(model.predict(padded, LENGTHS), predicted(keras, network, padded))


REFUSED = {
    "conv": (lambda L: [L.Conv1D(4, 3), L.LSTM(4)], "must be of a kind that hwrnn understands .*, not Conv1D"),
    "merge": (lambda L: [L.Bidirectional(L.LSTM(4), merge_mode="sum")], "must have merge_mode 'concat', not 'sum'"),
    "gelu": (lambda L: [L.LSTM(4, activation="gelu")], "must have an activation that hwrnn understands .*, not 'gelu'"),
    "sequences": (lambda L: [L.GRU(4, go_backwards=True, return_sequences=True)],
                  "not return sequences from the last step to the first: go_backwards comes with one output"),
    "both-backwards": (lambda L: [L.Bidirectional(L.GRU(4, go_backwards=True), backward_layer=L.GRU(4))],
                       "have a forward layer that goes forwards and a backward layer that goes backwards"),
    "layer-norm": (lambda L: [L.LSTM(4), L.LayerNormalization()], "not LayerNormalization"),
    "no-recurrence": (lambda L: [L.Dense(4)], "must have a recurrent layer, not none"),
    "threshold": (lambda L: [L.LSTM(4), L.ReLU(threshold=0.5)],
                  "be a ReLU without threshold and up to 1, 6 or without end, not up to None from 0.5"),
    "behind-softmax": (lambda L: [L.LSTM(4), L.Softmax(), L.Dense(2)], "must not stand behind a softmax"),
    "mask-behind": (lambda L: [L.Dense(3), L.Masking(), L.LSTM(4)], "must be the first layer"),
    "softmax-of-steps": (lambda L: [L.LSTM(4, return_sequences=True), L.Softmax(axis=1)], "take its softmax over the"),
    "log-softmax": (lambda L: [L.LSTM(4), L.Dense(2, activation="log_softmax")], "not with a log_softmax"),
    "distributed": (lambda L: [L.TimeDistributed(L.LayerNormalization()), L.LSTM(4)], "not LayerNormalization"),
    "end-of-a-sequence": (lambda L: [L.LSTM(4), L.RepeatVector(3), L.LSTM(2)], "not RepeatVector"),
    "steep": (lambda L: [L.LSTM(4), L.LeakyReLU(negative_slope=1e9)], "have an activation that hwrnn understands: "),
    "custom": (lambda L: [L.LSTM(4, activation=lambda x: x * 2)],
               "have an activation of Keras by name, not '<lambda>'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused_by_layer_and_reason(keras, name):
    layers, text = REFUSED[name]
    network = keras.Sequential([keras.layers.Input((None, 3)), *layers(keras.layers)])
    with pytest.raises(UsageError, match=text):
        from_keras(network)


def quantized(layer):
    layer.build((None, 4))
    layer.quantize("int8")
    return layer


def test_a_recurrent_layer_reads_a_sequence(keras):
    """Keras itself lets no recurrent layer read the end of a sequence."""
    reader = _Reader(None, "n")
    reader.steps = "last"
    with pytest.raises(UsageError, match="read a sequence, not the end of one"):
        reader.layer(keras.layers.GRU(3))


def test_branches_states_and_code_are_refused(keras):
    L = keras.layers
    given = L.Input((6, 3))
    out, state = L.GRU(3, return_sequences=True, return_state=True)(given)
    networks = [
        (keras.Model(given, L.Add()([L.GRU(3, return_sequences=True)(given), given])), "one row of layers"),
        (keras.Model(given, state), "one row of layers"),
        (keras.Model(given, L.GRU(3)(out, initial_state=state)), "one row of layers"),
        (keras.Model(given, L.Dense(2)(out)), "return its output alone \\(return_state=False\\)"),
        (keras.Sequential([L.Input(batch_shape=(2, 6, 3)), L.LSTM(4, stateful=True)]), "start every sequence anew"),
        (keras.Sequential([L.Input((6, 3)), L.BatchNormalization(axis=1), L.LSTM(4)]), "normalise features, not axis"),
        (
            keras.Sequential([
                L.Input((6, 3)), L.Normalization(axis=(1, 2), mean=np.ones((6, 3)), variance=np.ones((6, 3))), L.LSTM(4)
            ]),
            "normalise features, not steps",
        ),
        (keras.Sequential([L.Input((6, 3)), L.LSTM(4), quantized(L.Dense(2))]), "have float weights, not quantized"),
    ]

    class Own(keras.Model):
        def call(self, x):
            return x

    networks.append((Own(name="own"), "'own' must be Sequential or functional, not Own with its own code"))
    for network, text in networks:
        with pytest.raises(UsageError, match=text):
            from_keras(network)
    with pytest.raises(UsageError, match=r"Network must be a \.keras file or a Keras model, not int"):
        from_keras(3)


# -- files that hold something else
def rewritten(file, change=None, weights=None, **parts):
    """The archive with its description changed, its weights or other parts replaced; None leaves one out."""
    with zipfile.ZipFile(file) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    if change is not None:
        description = json.loads(found["config.json"])
        change(description)
        found["config.json"] = json.dumps(description).encode()
    if weights is not None:
        found["model.weights.h5"] = weights
    found |= {name.replace("__", "."): content for name, content in parts.items()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in found.items():
            if content is not None:
                archive.writestr(name, content)


def linked(external: bool) -> bytes:
    import h5py

    made = io.BytesIO()
    with h5py.File(made, "w") as file:
        if external:
            file["layers"] = h5py.ExternalLink("elsewhere.h5", "/weights")
        else:
            file.create_dataset("w", (4,), "f4", external=[("elsewhere.bin", 0, 16)])
    return made.getvalue()


def layer(description):
    return description["config"]["layers"][1]


CHANGES = {
    "foreign module": (lambda d: layer(d).update(module="os", class_name="system"), "Keras only, not 'system' of 'os'"),
    "keras helper": (
        lambda d: layer(d).update(module="keras.utils", class_name="get_file"), "objects of Keras only, not 'get_file'"
    ),
    "lambda": (lambda d: layer(d).update(class_name="Lambda"), "not Lambda"),
    "code": (lambda d: layer(d)["config"].update(activation={"class_name": "__lambda__"}), "not '__lambda__' of"),
    "registered": (lambda d: layer(d).update(registered_name="my>Layer"), "no registered objects, not 'my>Layer'"),
    "nonsense": (lambda d: layer(d)["config"].update(units=-3), "must be one that Keras .* reads"),
    "no layers": (lambda d: d.update(config=[]), "must be one that Keras .* reads"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_descriptions_of_something_else_are_refused(keras, name, tmp_path):
    keras.Sequential([keras.layers.Input((None, 3)), keras.layers.LSTM(4)]).save(tmp_path / "n.keras")
    change, text = CHANGES[name]
    rewritten(tmp_path / "n.keras", change)
    with pytest.raises(UsageError, match=text) as error:
        from_keras(tmp_path / "n.keras")
    assert "\n" not in str(error.value)


def test_archives_that_unpack_to_too_much(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "n.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", b" " * ((1 << 24) + 1))
        archive.writestr("model.weights.h5", b"")
    data = (tmp_path / "n.keras").read_bytes()
    with pytest.raises(UsageError, match=r"File 'n\.keras' must have a description of at most 16 MiB"):
        check_archive(data, "n.keras")
    monkeypatch.setattr("hwrnn.importing.keras_archives._LARGEST", 1 << 24)
    with pytest.raises(UsageError, match=r"File 'n\.keras' must unpack to at most 2 GiB"):
        check_archive(data, "n.keras")


def test_whatever_a_damaged_number_leads_to_is_a_sentence(tmp_path, monkeypatch):
    """h5py takes some for a length beyond the machine's."""
    h5py = pytest.importorskip("h5py")

    def overflow(*_, **__):
        raise OverflowError("Python int too large to convert to C ssize_t")

    monkeypatch.setattr(h5py, "File", overflow)
    with pytest.raises(UsageError, match=r"File 'n\.keras' must hold weights in HDF5"):
        keras_archives._check_weights(b"", "n.keras")


def test_damaged_archives_and_weights_elsewhere_are_refused(keras, tmp_path):
    file = tmp_path / "n.keras"
    hard = keras.layers.LSTM(4, recurrent_activation="hard_sigmoid")
    network = keras.Sequential([keras.layers.Input((None, 3)), hard])
    for parts, text in [
        ({"model__weights__h5": None}, "must hold config.json and model.weights.h5"),
        ({"config__json": None}, "must hold config.json and model.weights.h5"),
        ({"config__json": b"{"}, "must be a .keras file, a zip archive that Keras wrote"),
        ({"weights": b"nonsense"}, "must hold weights in HDF5"),
        ({"weights": linked(True)}, "must hold its weights itself, not link to 'layers'"),
        ({"weights": linked(False)}, "must hold its weights itself, not 'w' elsewhere"),
        ({"metadata__json": b'{"keras_version": "2.15.0"}'}, "must not have a hard_sigmoid of Keras 2.15.0"),
    ]:
        network.save(file)
        rewritten(file, **parts)
        with pytest.raises(UsageError, match=text):
            from_keras(file)
    network.save(file)
    data = file.read_bytes()
    for at in range(0, len(data), len(data) // 12):
        file.write_bytes(data[:at])
        with pytest.raises(UsageError, match="must"):
            from_keras(file)
    with pytest.raises(UsageError, match="must be readable, but is not: No such file"):
        from_keras(tmp_path / "none.keras")


def test_a_network_that_computes_something_else_is_refused(keras):
    network = keras.Sequential([keras.layers.Input((None, 3)), keras.layers.LSTM(4), keras.layers.Dense(2)])
    inside = network.layers[1].call
    network.layers[1].call = lambda x, **more: inside(x, **more) + 0.1
    with pytest.raises(UsageError, match=r"must compute what its layers say, but its own outputs are up to 0\.1 away"):
        from_keras(network)


def test_the_verb_reads_a_file(keras, tmp_path, capsys):
    from hwrnn.cli import main
    from hwrnn.onnx_io import load

    L = keras.layers
    network = randomised(keras, keras.Sequential([L.Input((None, 3)), L.Bidirectional(L.LSTM(4)), L.Dense(2)]))
    file, out = str(tmp_path / "n.keras"), str(tmp_path / "m.onnx")
    network.save(file)
    assert main(["import", file, "--task", "regression", "-o", out]) == 0
    close(load(out).predict(X), predicted(keras, network))
    assert main(["import", file, "--head", "fc", "-o", out]) == 2
    assert "Option --head must be given for a torch file, not for" in capsys.readouterr().err
