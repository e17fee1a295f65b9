"""Modules and state_dicts of torch as models, compared with torch's own outputs."""

import itertools
from functools import lru_cache

import numpy as np
import pytest

from hwrnn.errors import UsageError
from hwrnn.importing.torch_modules import from_torch

pytestmark = pytest.mark.extras

LENGTHS = np.array([6, 1, 4, 6])
X = np.random.default_rng(0).standard_normal((4, 6, 3)).astype(np.float32)
WITHIN = np.arange(6) < LENGTHS[:, None]
KINDS = {
    "lstm": ("LSTM", {}),
    "gru": ("GRU", {}),
    "tanh": ("RNN", {"nonlinearity": "tanh"}),
    "relu": ("RNN", {"nonlinearity": "relu"}),
}


@pytest.fixture(autouse=True)
def _seeded():
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    torch.set_num_threads(1)


def close(found, due):
    due = np.asarray(due, np.float64)
    assert found.shape == due.shape
    np.testing.assert_allclose(found, due, rtol=0, atol=1e-6 * max(1.0, np.abs(due).max()))


def packed_output(module, x, lengths):
    """The outputs (N, T, H) and the last hidden states of a module on sequences of given lengths."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    given = torch.as_tensor(x, dtype=next(module.parameters()).dtype)
    first = module.batch_first
    packed = pack_padded_sequence(given if first else given.transpose(0, 1), lengths, first, enforce_sorted=False)
    with torch.no_grad():
        out, states = module.eval()(packed)
        out = pad_packed_sequence(out, batch_first=True)[0].numpy()
    return out, (states[0] if isinstance(states, tuple) else states).numpy()


def configurations():
    for kind, layers, two, first, bias, double in itertools.product(
        KINDS, (1, 2), (False, True), (False, True), (False, True), (False, True)
    ):
        if (layers, first, bias) in ((1, True, True), (2, False, True), (2, True, False)):
            yield kind, {"num_layers": layers, "bidirectional": two, "batch_first": first, "bias": bias}, double
    for layers, two, bias in itertools.product((1, 2), (False, True), (False, True)):
        more = {"num_layers": layers, "bidirectional": two, "bias": bias, "proj_size": 2, "batch_first": True}
        yield "lstm", more, bias
    yield "lstm", {"num_layers": 3, "dropout": 0.5}, False


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize("kind, options, double", list(configurations()))
def test_recurrent_modules_and_their_state_dicts(kind, options, double):
    import torch

    make, more = KINDS[kind]
    module = getattr(torch.nn, make)(3, 5, **more, **options).to(torch.float64 if double else torch.float32)
    cell = f"rnn-{kind}" if make == "RNN" else None
    due, last = packed_output(module, X, LENGTHS)
    for model in (from_torch(module), from_torch(module.state_dict(), cell=cell)):
        found = model.predict(X, LENGTHS)
        close(found[WITHIN], due[WITHIN])
        whole = packed_output(module, X, [6] * 4)[0]
        close(model.predict(X), whole)
    final = from_torch(module, last=True, final_state=True).predict(X, LENGTHS)
    directions = last[-2:] if module.bidirectional else last[-1:]
    close(final, np.concatenate(directions, axis=1))
    ends = due[np.arange(4), LENGTHS - 1]
    close(from_torch(module, last=True).predict(X, LENGTHS), ends)


@pytest.mark.parametrize("make", ["RNNCell", "GRUCell", "LSTMCell"])
@pytest.mark.parametrize("bias", [False, True])
def test_cells(make, bias):
    import torch

    module = getattr(torch.nn, make)(3, 5, bias=bias)
    state, due = None, []
    with torch.no_grad():
        for t in range(X.shape[1]):
            state = module(torch.from_numpy(X[:, t]), state)
            due.append(state[0] if isinstance(state, tuple) else state)
    due = torch.stack(due, 1).numpy()
    close(from_torch(module).predict(X), due)
    cell = "rnn-tanh" if make == "RNNCell" else None
    close(from_torch(module.state_dict(), cell=cell).predict(X), due)


@lru_cache(maxsize=1)
def written():
    """What makes a module whose forward pass is one that people write, by name."""
    import torch
    from torch import nn

    global pack_padded_sequence, pad_packed_sequence  # where a file's imports are
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    class Written(nn.Module):
        """A forward pass as people write them, by name."""

        def __init__(self, way: str, make="LSTM", two=False, layers=1, first=True, out=4) -> None:
            super().__init__()
            self.way, self.hidden, self.layers = way, 5, layers
            self.rnn = getattr(nn, make)(3, 5, num_layers=layers, bidirectional=two, batch_first=first)
            self.fc = nn.Linear(10 if two else 5, out)
            self.fc1, self.fc2 = nn.Linear(10 if two else 5, 7), nn.Linear(7, out)
            self.before, self.drop, self.relu = nn.Linear(3, 3), nn.Dropout(0.5), nn.ReLU()
            self.bn = nn.BatchNorm1d(5)
            nn.init.uniform_(self.bn.weight), nn.init.uniform_(self.bn.running_mean), nn.init.uniform_(self.bn.bias)
            self.register_buffer("mean", torch.randn(3))
            self.register_buffer("std", torch.rand(3) + 0.5)
            self.h0 = nn.Parameter(torch.randn(layers * (1 + two), 1, 5))

        def every(self, x):
            return self.fc(self.rnn(x)[0])

        def last(self, x):
            out, _ = self.rnn(x)
            return self.fc(out[:, -1])

        def last_of_time(self, x):
            out, _ = self.rnn(x)
            return self.fc(self.drop(out[-1]))

        def tutorial(self, x):
            h0 = torch.zeros(self.layers, x.size(0), self.hidden).to(x.device)
            c0 = torch.zeros(self.layers, x.shape[0], self.hidden, device=x.device)
            out, (_hn, _cn) = self.rnn(x, (h0.requires_grad_().detach(), c0.detach()))
            return self.fc(out[:, -1, :])

        def hidden_state(self, x):
            _, h = self.rnn(x)
            h = h[0] if isinstance(self.rnn, nn.LSTM) else h
            return self.fc(h[-1])

        def squeezed(self, x):
            _, (h, _) = self.rnn(x)
            return self.fc(h.squeeze(0))

        def both(self, x):
            _, (h, _c) = self.rnn(x)
            return self.fc(torch.cat((h[-2], h[-1]), dim=1))

        def both_written_out(self, x):
            _, (h, _c) = self.rnn(x)
            return self.fc(torch.cat([h[-2, :, :], h[-1, :, :]], dim=-1))

        def both_flat(self, x):
            _, (h, _c) = self.rnn(x)
            return self.fc(h.permute(1, 0, 2).reshape(x.size(0), -1))

        def deep(self, x):
            x = self.relu(self.before(x))
            out, _ = self.rnn(x)
            y = torch.tanh(self.fc1(out[:, -1, :]))
            return self.fc2(y)

        def standardised(self, x):
            out, _ = self.rnn((x - self.mean) / self.std)
            return self.fc(out)[:, -1] * 3.5 + 10

        def learned(self, x):
            out, _ = self.rnn(x, self.h0.expand(-1, x.size(0), -1).contiguous())
            return self.fc(out)

        def time_major(self, x):
            out, _ = self.rnn(x.transpose(0, 1))
            return self.fc(out).transpose(0, 1)

        def scaled_between(self, x):
            return self.fc(1 - self.rnn(x)[0] * 2.5)

        def batch_normalised(self, x):
            return self.fc(self.bn(self.rnn(x)[0][:, -1]))

        def batch_normalised_steps(self, x):
            return self.fc(self.bn(self.rnn(x)[0]))

        def activation_alone(self, x):
            return self.fc(torch.relu(self.rnn(x)[0]))

        def twice(self, x):
            return self.fc(self.rnn(x)[0]) + self.rnn(x)[0][..., :1]

        def residual(self, x):
            return self.rnn(x)[0][..., :3] + x

        def mean_over_time(self, x):
            return self.fc(self.rnn(x)[0].mean(1))

        def first_step(self, x):
            return self.fc(self.rnn(x)[0][:, 0])

        def reverse_first(self, x):
            _, (h, _c) = self.rnn(x)
            return self.fc(torch.cat((h[-1], h[-2]), dim=1))

        def gelu(self, x):
            return nn.functional.gelu(self.fc(self.rnn(x)[0]))

        def random_start(self, x):
            h0 = torch.randn(self.layers, x.size(0), self.hidden)
            return self.fc(self.rnn(x, h0)[0])

        def branching(self, x):
            return self.every(x) if x.mean() > 0 else self.last(x)

        def cell_state(self, x):
            _, (_h, c) = self.rnn(x)
            return self.fc(c[-1])

        def packed(self, x, lengths):
            given = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
            _, (h, _) = self.rnn(given)
            return self.fc(torch.cat((h[-2], h[-1]), 1) if self.rnn.bidirectional else h[-1])

        def packed_steps(self, x, lengths):
            given = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            out, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(given)[0], batch_first=True)
            return self.fc(out)

        def packed_last(self, x, lengths):
            given = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            out, _ = pad_packed_sequence(self.rnn(given)[0], batch_first=True)
            return self.fc(out[:, -1])

        def softmax(self, x):
            return torch.softmax(self.fc(self.rnn(x)[0][:, -1]), dim=-1)

        def with_state(self, x):
            out, state = self.rnn(x)
            return self.fc(out), state

        def optional_state(self, x, state=None):
            out, state = self.rnn(x, state) if state is not None else self.rnn(x)
            return self.fc(out)

        def regression(self, x):
            return self.fc(self.rnn(x)[0][:, -1]).squeeze(-1)

        def softmax_of_steps(self, x):
            return torch.softmax(self.fc(self.rnn(x)[0]), dim=1)

        def behind_softmax(self, x):
            return self.fc(torch.softmax(self.rnn(x)[0][:, -1], dim=-1))

        def states_of_all_layers(self, x):
            return self.rnn(x)[1][0]

        def the_input(self, x):
            self.rnn(x)
            return x

        def own_lengths(self, x):
            return self.fc(self.rnn(pack_padded_sequence(x, torch.tensor([6, 1, 3, 6]), batch_first=True))[1][0][-1])

        def computed_start(self, x):
            return self.fc(self.rnn(x, x)[0])

        def axes_exchanged(self, x):
            return self.rnn(self.rnn(x)[0].transpose(0, 1))[0]

        def lengths_computed(self, x, lengths):
            return self.fc(self.rnn(pack_padded_sequence(x, lengths + 1, batch_first=True))[1][0][-1])

        def axes_lost(self, x):
            return self.fc(self.rnn(x)[0]).permute(0, 1)

        def over_batch(self, x):
            _, (h, _) = self.rnn(x)
            return self.fc(torch.cat((h[-2], h[-1]), 0))

        def dense_of_states(self, x):
            return self.fc(self.rnn(x)[1][0])

        def once_more(self, x):
            return self.fc(self.rnn(self.rnn(x)[0][:, -1])[0])

    def make(way: str, **options):
        cls = type("Written", (Written,), {"forward": getattr(Written, way)})
        return cls(way, **options)

    return make


@pytest.mark.parametrize(
    "way, options",
    [
        ("every", {}), ("every", {"two": True, "layers": 2}), ("last", {}), ("last", {"two": True}),
        ("last", {"make": "GRU", "layers": 2}), ("last_of_time", {"first": False}), ("tutorial", {}),
        ("tutorial", {"layers": 2}), ("hidden_state", {}), ("hidden_state", {"make": "GRU", "layers": 2}),
        ("squeezed", {}), ("both", {"two": True}), ("both", {"two": True, "layers": 2}),
        ("both_written_out", {"two": True}), ("both_flat", {"two": True}), ("deep", {}), ("deep", {"make": "RNN"}),
        ("standardised", {}), ("learned", {"make": "GRU", "layers": 2}), ("time_major", {"first": False}),
        ("learned", {"make": "GRU", "two": True}), ("activation_alone", {}), ("scaled_between", {}),
        ("batch_normalised", {}), ("regression", {"out": 1}), ("optional_state", {"make": "GRU"}),
    ],
)  # fmt: skip
def test_forward_passes_that_people_write(way, options):
    import torch

    module = written()(way, **options)
    model = from_torch(module)
    x = torch.from_numpy(X)
    time_first = way == "last_of_time"
    with torch.no_grad():
        due = module.eval()(x.transpose(0, 1) if time_first else x).numpy()
    found = model.predict(X)
    close(found[:, 0] if way == "regression" else found, due)
    assert model.every_step == (due.ndim == 3)


@pytest.mark.parametrize(
    "way, options, text",
    [
        ("twice", {}, "must be one row of layers, without branches and connections past them"),
        ("residual", {}, r"must not take \[Ellipsis|must not take \[slice"),
        ("mean_over_time", {}, "must use operations that hwrnn understands, not mean"),
        ("first_step", {}, r"must not take \[slice\(None, None, None\), 0\] of axes batch, time, feature"),
        ("reverse_first", {"two": True}, r"the last layer's states of all directions in order \(h_n\[0\], h_n\[1\]\)"),
        ("batch_normalised_steps", {}, "apply BatchNorm1d to one vector of features for a sequence"),
        ("gelu", {}, "must use operations that hwrnn understands, not gelu"),
        ("random_start", {"make": "GRU"}, "not apply randn|understands, not randn"),
        ("branching", {}, "must be one that torch.fx can trace"),
        ("cell_state", {}, "the last cell state"),
        ("last_of_time", {}, "axes"),
        ("packed_last", {}, "where shorter sequences have no output"),
        ("softmax_of_steps", {}, "must take Softmax over the features"),
        ("behind_softmax", {}, "must end with its softmax"),
        ("states_of_all_layers", {"layers": 2}, "return outputs, not the states of several layers"),
        ("the_input", {}, "must return what comes from its last layer"),
        ("own_lengths", {}, "pack sequences by lengths that its forward pass is given, by a name with 'len' in it"),
        ("over_batch", {"two": True}, "must cat the last states along the features"),
        ("dense_of_states", {"layers": 2}, "must apply .* to the features of sequences or of their ends"),
        ("once_more", {}, "sequences with three axes, not 2"),
        ("computed_start", {"make": "GRU"}, "start its recurrent module at zero, or at constants"),
        ("axes_exchanged", {"make": "GRU"}, "give GRU axes of batch, time, feature, not time, batch, feature of all"),
        ("lengths_computed", {}, "must not apply add to lengths"),
        ("axes_lost", {}, "must return axes of batch, feature, time, not batch, time"),
    ],
)
def test_forward_passes_that_are_not_understood_are_refused_by_name(way, options, text):
    with pytest.raises(UsageError, match=text) as error:
        from_torch(written()(way, **options))
    assert "from_torch(module.lstm, head=module.fc, last=True)" in str(error.value)


@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize("way", ["packed", "packed_steps"])
def test_packed_sequences_become_lengths(way, two):
    import torch

    module = written()(way, two=two)
    model = from_torch(module)
    with torch.no_grad():
        due = module.eval()(torch.from_numpy(X), torch.from_numpy(LENGTHS)).numpy()
    found = model.predict(X, LENGTHS)
    within = WITHIN if way == "packed_steps" else slice(None)
    close(found[within], due[within])


def test_what_is_left_to_the_host_is_told():
    import torch

    module = written()("softmax")
    with pytest.warns(UserWarning, match="its softmax is left to the host, and the model gives the scores"):
        model = from_torch(module)
    with torch.no_grad():
        due = module.eval()(torch.from_numpy(X))
    close(torch.softmax(torch.from_numpy(model.predict(X)), -1).numpy(), due.numpy())
    with pytest.warns(UserWarning, match="of the values that it returns, the model gives the first"):
        from_torch(written()("with_state"))


def test_a_sequential_and_a_head_given_beside():
    import torch
    from torch import nn

    lstm = nn.LSTM(3, 5, bidirectional=True, batch_first=True)
    heads = [
        nn.Linear(10, 2, bias=False),
        nn.Sequential(nn.Linear(10, 4), nn.ReLU(), nn.Dropout(0.4), nn.Linear(4, 2)),
        nn.Sequential(nn.Hardtanh(), nn.Linear(10, 4), nn.Hardsigmoid(), nn.LeakyReLU(0.125)),
        nn.Sequential(nn.Linear(10, 4), nn.ELU(0.7), nn.Linear(4, 3), nn.LeakyReLU(), nn.Softsign(), nn.Softplus()),
    ]
    for head in heads:
        with torch.no_grad():
            out, (h, _) = lstm(torch.from_numpy(X))
            ends = torch.cat((h[-2], h[-1]), 1)
            due = [head.eval()(v).numpy() for v in (out, out[:, -1], ends)]
        for options, own in zip(({}, {"last": True}, {"last": True, "final_state": True}), due, strict=True):
            close(from_torch(lstm, head=head, **options).predict(X), own)
    model = from_torch(lstm, head=heads[0], last=True, task="regression")
    assert (model.task, model.outputs, model.every_step) == ("regression", 2, False)


def test_a_head_may_be_named_in_a_state_dict():
    import torch

    module = written()("last", make="GRU")
    state = {k: v for k, v in module.state_dict().items() if k.startswith(("rnn.", "fc."))}
    with torch.no_grad():
        close(from_torch(state, head="fc", last=True).predict(X), module(torch.from_numpy(X)).numpy())


def state_dict_of(make="LSTM", **options):
    import torch

    return dict(getattr(torch.nn, make)(3, 5, **options).state_dict())


def changed(state, **changes):
    import torch

    state = dict(state)
    for name, value in changes.items():
        if value is None:
            del state[name]
        else:
            state[name] = torch.zeros(value)
    return state


def test_mistakes_are_told():
    import torch
    from torch import nn

    lstm, fc = nn.LSTM(3, 5), {"fc.weight": torch.zeros(2, 2)}
    own = type("Own", (nn.Module,), {})()
    for make, text in [
        (lambda: from_torch(lstm, final_state=True), "Final state must come with last=True"),
        (lambda: from_torch(lstm, cell="lstm"), "Cell must be given for a state_dict only, not for a LSTM"),
        (lambda: from_torch(nn.Sequential(lstm), last=True), "Arguments last must come with a recurrent module alone"),
        (lambda: from_torch("lstm"), "Module must be a torch module or a state_dict, not str"),
        (lambda: from_torch(lstm, head=5), "Head must be a Linear layer, or a Sequential of such layers"),
        (lambda: from_torch(lstm, head=nn.Sequential(nn.Linear(5, 2), nn.Softplus(beta=2))), "have a Softplus with a"),
        (lambda: from_torch(lstm, head=nn.Sequential(nn.Linear(5, 2), nn.Hardtanh(-2, 3))), "have a Hardtanh from -1"),
        (lambda: from_torch(lstm, head=nn.Sequential(nn.Linear(5, 2), nn.LeakyReLU(1e9))), "a nonlinearity of hwrnn's"),
        (lambda: from_torch(lstm, head=own), "have modules that hwrnn understands, not Own"),
        (lambda: from_torch(state_dict_of(), head=nn.Linear(5, 2)), "the name of a Linear layer in the state_dict"),
        (lambda: from_torch(lstm, head=nn.GELU()), "Head must use operations that hwrnn understands, not gelu"),
        (lambda: from_torch(lstm, head=nn.Linear(6, 2)), "Layer must read the 5 features before it, not 6"),
        (lambda: from_torch(lstm, task="ranking"), "Task must be classification or regression, not 'ranking'"),
        (lambda: from_torch(nn.Sequential(nn.Linear(3, 2))), "must have a recurrent module, and it has none"),
        (lambda: from_torch(nn.GRU(3, 5, device="meta")), "Parameters must be floating-point numbers in memory"),
        (lambda: from_torch(state_dict_of("RNN")), "Cell must be given where the shapes leave it open: cell='rnn-t"),
        (lambda: from_torch(state_dict_of(), cell="gru"), "Cell must be lstm by its shapes, not 'gru'"),
        (lambda: from_torch(state_dict_of(), cell="elman"), "Cell must be lstm, gru, rnn-tanh, rnn-relu, not 'elman'"),
        (lambda: from_torch({}), "State dict must be of one recurrent module, with weight_ih_l0 and so on"),
        (lambda: from_torch({"weight_ih_l0": 3}), "State dict must hold tensors by name, not int by 'weight_ih_l0'"),
        (
            lambda: from_torch({f"{m}.{k}": v for m in "ab" for k, v in lstm.state_dict().items()}),
            "not of a and b",
        ),
        (lambda: from_torch(state_dict_of() | fc), "not also 'fc.weight': give head='NAME'"),
        (lambda: from_torch(state_dict_of() | fc, head="fd"), "Head must be the name of a Linear layer"),
        (lambda: from_torch(state_dict_of() | fc, head="fc"), "Layer must read the 5 features"),
        (lambda: from_torch(changed(state_dict_of(), weight_hh_l0=None)), "hold matrices weight_ih_l0 and weight"),
        (lambda: from_torch(changed(state_dict_of(), bias_hh_l0=None)), r"hold bias_hh_l0 of shape \(20,\), not none"),
        (lambda: from_torch(changed(state_dict_of(), bias_ih_l0=(19,))), r"of shape \(20,\), not bias_ih_l0"),
        (lambda: from_torch(changed(state_dict_of(), weight_ih_l0=(21, 3))), "hold 1, 3 or 4 gates of 5 units, not"),
        (lambda: from_torch(changed(state_dict_of(), weight_ih_l2=(20, 5))), "hold weight_ih_l1 of shape"),
        (lambda: from_torch(changed(state_dict_of("GRU"), weight_hr_l0=(2, 5))), "of an lstm only, not of a gru"),
    ]:
        with pytest.raises(UsageError, match=text):
            make()


def test_modules_that_no_row_of_layers_has():
    import torch
    from torch import nn

    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(3, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.cell(x)

    class Projected(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(3, 5, proj_size=2, batch_first=True)
            self.h, self.c = nn.Parameter(torch.ones(1, 1, 2)), nn.Parameter(torch.ones(1, 1, 5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.rnn(x, (self.h, self.c))[0]

    with pytest.raises(UsageError, match="must use GRUCell outside a loop of its own, as RNN, GRU or LSTM do"):
        from_torch(Cell())
    with pytest.raises(UsageError, match="Initial states must be zero for a module with proj_size, not given"):
        from_torch(Projected())


def test_an_old_torch_reads_no_files(tmp_path, monkeypatch):
    import torch

    from hwrnn.importing.other_files import from_file

    monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
    with pytest.raises(UsageError, match=r"Module 'torch' must be 2\.6 or newer to read files safely, not 2\.5\.1"):
        from_file(str(tmp_path / "w.pt"))


def test_a_module_that_computes_something_else_is_refused():
    import torch
    from torch import nn

    lstm = nn.LSTM(3, 5)
    lstm.register_forward_hook(lambda module, args, output: (output[0] * 1.01, output[1]))
    with pytest.raises(UsageError, match=r"LSTM must compute what its layers say, but .* up to 0\.0\d+"):
        from_torch(lstm)

    class Sneaky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.fc = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 2)
            self.fc.register_forward_hook(lambda module, args, output: output + 0.1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.lstm(x)[0])

    with pytest.raises(UsageError, match="Sneaky must compute what its layers say"):
        from_torch(Sneaky())


def test_modules_of_hwrnn_come_back():
    from hwrnn.torch import Network, Recurrent

    model = from_torch(Network(from_torch(Recurrent(3, 4, "ligru", reverse=True))))
    assert model.layers[0].cell.name == "ligru" and model.layers[0].reverse and model.head is None and model.every_step
    with pytest.raises(UsageError, match=r"Arguments of a network of hwrnn\.torch must be none"):
        from_torch(Network(model), last=True)


def test_the_verb_reads_a_state_dict_and_runs_nothing(tmp_path, capsys):
    import torch

    from hwrnn.cli import main
    from hwrnn.onnx_io import load

    module = written()("last", two=True)
    state = {k: v for k, v in module.state_dict().items() if k.startswith(("rnn.", "fc."))}
    file, out, ran = tmp_path / "s.pt", tmp_path / "m.onnx", tmp_path / "ran"
    torch.save(state, file)
    assert main(["import", str(file), "--head", "fc", "--last", "--task", "regression", "-o", str(out)]) == 0
    model = load(out)
    assert model.task == "regression"
    with torch.no_grad():
        close(model.predict(X), module(torch.from_numpy(X)).numpy())

    class Runs:
        def __reduce__(self):
            return open, (str(ran), "w")

    capsys.readouterr()
    for made, words, text in [
        (lambda: torch.save(state, file), [], "not also 'fc.weight'"),
        (lambda: torch.save({"weight_ih_l0": Runs()}, file), [], "must hold a state_dict, as torch.save"),
        (lambda: torch.save(module.fc, file), [], "must hold a state_dict, as torch.save"),
        (lambda: torch.save([1, 2], file), [], "must hold a state_dict, not list"),
        (lambda: file.write_bytes(b"PK\x03\x04 nothing"), [], "must hold a state_dict, as torch.save"),
        (lambda: file.unlink(), [], "must be readable, but is not: No such file"),
        (lambda: None, ["--take", "y"], "Option --take must be given for ONNX files"),
    ]:
        made()
        assert main(["import", str(file), *words, "-o", str(out)]) == 2
        told = capsys.readouterr().err
        assert text in told and told.count("\n") == 1
    assert not ran.exists()
