"""Modules whose forward pass torch.fx can trace: recurrent modules, Linear layers and activations in a row.

Every value of the traced graph is read as a :class:`View`: how far in the row of layers it stands, what its axes are,
and which steps it has. What has no such meaning is refused by name; what has one is compared with the module's own
outputs afterwards.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np

from hwrnn.activations import Nonlinearity
from hwrnn.errors import UsageError, require
from hwrnn.importing.chains import agreeing, dense_of, log_softmax, softmax
from hwrnn.importing.torch_functions import Refused, function_of_module, function_of_name
from hwrnn.importing.torch_modules import add_recurrent, evaluated, is_recurrent, numbers
from hwrnn.importing.torch_views import SHAPING, Axes, Other, View
from hwrnn.model import Model

__all__ = ["traced"]

_MEND = "give the recurrent module and what is behind it, as from_torch(module.lstm, head=module.fc, last=True)"


_SIZE, _ZEROS, _LENGTHS, _IGNORED, _ARGUMENT = (
    Other(kind) for kind in ("a size", "zeros", "lengths", "the last cell state", "an argument besides the input")
)


def traced(module: Any, task: str) -> Model:
    """The model of a module whose forward pass can be traced.

    Raises:
        UsageError: what is not understood, with the remedy.
    """
    name = type(module).__name__
    twin = evaluated(module)
    graph = _graph(twin, name)
    reader = _Reader(twin)
    try:
        output = reader.run(graph)
        model = reader.model(output, task)
    except UsageError as error:
        text = str(error) if isinstance(error, Refused) else f"have layers that fit together ({error})"
        raise UsageError(f"Forward of {name} must {text}: {_MEND}") from error
    lengths = [True, False] if reader.lengths else [False]
    model = agreeing(model, reader.original(output), name, lengths, reader.finish, _MEND)
    for note in reader.notes:
        warnings.warn(f"{name}: {note}", stacklevel=4)
    return model


def _graph(module: Any, name: str) -> Any:
    torch = require("torch", "torch")
    fx = _fx()
    utils = torch.nn.utils.rnn
    functions = (utils.pack_padded_sequence, utils.pad_packed_sequence)

    def recorded(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            found = [a for a in (*args, *options.values()) for a in (a if isinstance(a, tuple | list) else (a,))]
            proxies = [a for a in found if isinstance(a, fx.Proxy)]
            if not proxies:
                return function(*args, **options)
            return proxies[0].tracer.create_proxy("call_function", function, args, options)

        return call

    signature = inspect.signature(module.forward)
    defaults = {
        p.name: p.default for p in signature.parameters.values()
        if p.default is not p.empty and (p.default is None or isinstance(p.default, bool | int | float | str))
        and "len" not in p.name
    }  # fmt: skip
    makers = ("zeros", "ones", "randn", "rand", "empty", "full")
    try:
        tracer = fx.Tracer(autowrap_functions=functions)
        with ExitStack() as stack:
            for place, names in ((torch, makers), (utils, [f.__name__ for f in functions])):
                for own in names:
                    stack.enter_context(mock.patch.object(place, own, recorded(getattr(place, own))))
            return tracer.trace(module, concrete_args=defaults or None)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        must = f"Forward of {name} must be one that torch.fx can trace"
        raise UsageError(f"{must}, but it cannot ({reason}): {_MEND}") from error


def _fx() -> Any:
    return require("torch.fx", "torch")


class _Reader(Axes):
    """Reads a graph from its input on.

    Attributes:
        notes: what was left to the host.
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module
        self.modules = dict(module.named_modules())
        self.notes: list[str] = []
        self.inputs: list[str] = []
        self.finish: Callable[[np.ndarray], np.ndarray] = np.asarray

    # -- the graph
    def run(self, graph: Any) -> Any:
        values: dict[Any, Any] = {}
        for node in graph.nodes:
            known = lambda a: values[a]  # noqa: E731
            fx = _fx()
            args = fx.node.map_arg(node.args, known)
            options = fx.node.map_arg(node.kwargs, known)
            try:
                values[node] = self.value(node, args, options)
            except Refused as error:
                raise Refused(f"{error} (at {node.name})") from error
        return values[node]

    def value(self, node: Any, args: Any, options: Any) -> Any:
        if node.op == "placeholder":
            return self.placeholder(node)
        if node.op == "output":
            return args[0]
        if node.op == "get_attr":
            value = self.module
            for part in node.target.split("."):
                value = getattr(value, part)
            return value
        if node.op == "call_module":
            return self.call_module(self.modules[node.target], args, options)
        name = node.target if node.op == "call_method" else getattr(node.target, "__name__", str(node.target))
        return self.call(name.rstrip("_") if node.op == "call_method" else name, args, options)

    def placeholder(self, node: Any) -> Any:
        if not self.inputs:
            self.inputs.append(node.name)
            return View(0, ("axis0", "axis1", "axis2"))
        return _LENGTHS if "len" in str(node.target) else _ARGUMENT

    # -- modules
    def call_module(self, module: Any, args: Any, options: Any) -> Any:
        nn = require("torch", "torch").nn
        kind = type(module).__name__
        if is_recurrent(module):
            return self.recurrent(module, *args, **options)
        x = args[0]
        self.newest(x)
        if type(module) is nn.Linear:
            return self.linear(x, numbers(module.weight), None if module.bias is None else numbers(module.bias))
        if isinstance(module, nn.Identity) or kind.endswith("Dropout") or kind.startswith("Dropout"):
            return x
        if isinstance(module, nn.Softmax | nn.LogSoftmax):
            return self.softmax(x, module.dim, kind.lower())
        if isinstance(module, nn.Flatten):
            return self.flatten(x, module.start_dim, module.end_dim)
        if isinstance(module, nn.BatchNorm1d):
            return self.batch_norm(x, module)
        return self.activation(x, function_of_module(module))

    def batch_norm(self, x: View, module: Any) -> View:
        x = self.features(x, "BatchNorm1d")
        if x.axes != ("batch", "feature") or module.running_var is None:
            raise Refused("apply BatchNorm1d to one vector of features for a sequence, with statistics of its training")
        scale = 1 / np.sqrt(numbers(module.running_var) + module.eps)
        self.chain.affine(scale, -numbers(module.running_mean) * scale)
        if module.affine:
            self.chain.affine(numbers(module.weight), numbers(module.bias))
        return self.next(x)

    def recurrent(self, module: Any, x: Any, hx: Any = None) -> Any:
        if not hasattr(module, "num_layers"):
            raise Refused(f"use {type(module).__name__} outside a loop of its own, as RNN, GRU or LSTM do")
        self.newest(x)
        due = ("batch", "time", "feature") if module.batch_first else ("time", "batch", "feature")
        if x.packed:
            due = x.axes
        if len(x.axes) != 3:
            raise Refused(f"give {type(module).__name__} sequences with three axes, not {len(x.axes)}")
        for own, role in zip(x.axes, due, strict=True):
            self.learn(own, role)
        x = self.read(x)
        if x.axes != due or x.steps != "all":
            axes = f"{', '.join(x.axes)} of {x.steps} steps"
            raise Refused(f"give {type(module).__name__} axes of {', '.join(due)}, not {axes}")
        initial = self.initial(module, hx)
        directions = add_recurrent(self.chain, module, initial)
        self.entries = tuple((k, d) for k in range(module.num_layers) for d in range(directions))
        out = self.next(replace(x, entries=()))
        state = View(out.stage, ("state", "batch", "feature"), "final", self.entries)
        return (out, (state, _IGNORED)) if type(module).__name__ == "LSTM" else (out, state)

    def initial(self, module: Any, hx: Any) -> dict[str, np.ndarray] | None:
        torch = require("torch", "torch")
        found = {}
        given = hx if isinstance(hx, tuple | list) else (hx,)
        for name, value in zip("hc", given, strict=False):
            if value is None or value is _ZEROS:
                continue
            if not isinstance(value, torch.Tensor) or value.ndim != 3 or value.shape[1] != 1:
                raise Refused("start its recurrent module at zero, or at constants")
            found[name] = numbers(value[:, 0])
        return found or None

    def linear(self, x: View, weight: np.ndarray, bias: np.ndarray | None) -> View:
        x = self.features(x, "Linear")
        self.chain.add(dense_of(weight, bias))
        return self.next(x)

    def activation(self, x: View, function: Nonlinearity) -> View:
        x = self.features(x, function.name)
        self.chain.apply(function)
        return self.next(x)

    def softmax(self, x: View, dim: Any, what: str) -> View:
        x = self.features(x, "Softmax")
        if dim is None or x.axes[dim] != "feature":
            raise Refused("take Softmax over the features")
        self.notes.append("its softmax is left to the host, and the model gives the scores that it reads")
        self.finish = log_softmax if what.startswith("log") else softmax
        self.scores = True
        return self.next(x)

    # -- functions and methods
    def call(self, name: str, args: Any, options: Any) -> Any:
        if name in ("zeros", "new_zeros", "zeros_like"):
            return _ZEROS
        if name in ("_assert", "_assert_is_none", "eq"):  # fx checks arguments that it took to be constant
            return None
        if name in ("pack_padded_sequence", "pad_packed_sequence"):
            return self.packing(name, *args, **options)
        if name in ("cat", "concat", "concatenate"):
            return self.cat(*args, **options)
        if name == "getattr":
            return _SIZE if args[1] in ("shape", "device", "dtype") else self.refused(f"read .{args[1]}")
        x, *rest = args
        if isinstance(x, Other):
            return self.of_other(name, x, rest)
        if name == "getitem" and isinstance(x, tuple):
            return x[rest[0]]
        if name in ("add", "sub", "mul", "truediv", "iadd", "isub", "imul", "itruediv", "div"):
            return self.arithmetic(name.removeprefix("i").replace("truediv", "div"), x, *rest)
        if not isinstance(x, View):
            return self.of_constant(name, x, rest)
        if name in _PLAIN:
            return x
        if name in ("size", "dim"):
            return _SIZE
        if name in SHAPING:
            return getattr(self, name)(x, *rest, **options)
        if name in ("softmax", "log_softmax"):
            return self.softmax(x, options.get("dim", rest[0] if rest else None), name)
        if name == "dropout":
            return x
        return self.activation(x, function_of_name(name, rest, options))

    def of_other(self, name: str, x: Other, rest: list[Any]) -> Other:
        if name in ("cpu", "to", "cuda", "long", "int", "float", "double", "type_as", "requires_grad"):
            return x
        if x is _SIZE and name in ("getitem", "add", "sub", "mul", "floordiv", "truediv", "int", "eq", "__index__"):
            return _SIZE
        if x in (_ZEROS, _IGNORED) and name in (*_PLAIN, "unsqueeze", "squeeze", "expand", "repeat", "getitem"):
            return x
        raise Refused(f"not apply {name} to {x.kind}")

    def of_constant(self, name: str, x: Any, rest: list[Any]) -> Any:
        torch = require("torch", "torch")
        if isinstance(x, torch.Tensor) and name in ("expand", "repeat", "contiguous", "to", "unsqueeze"):
            return x if name != "unsqueeze" else x.unsqueeze(*rest)
        return self.refused(f"apply {name} to a {type(x).__name__}")

    def packing(self, name: str, x: Any, lengths: Any = None, batch_first: bool = False, **options: Any) -> Any:
        self.newest(x)
        if name == "pack_padded_sequence":
            if lengths is not _LENGTHS:
                raise Refused("pack sequences by lengths that its forward pass is given, by a name with 'len' in it")
            self.lengths = True
            due = ("batch", "time") if batch_first else ("time", "batch")
            for own, role in zip(x.axes, (*due, "feature"), strict=True):
                self.learn(own, role)
            return replace(self.read(x), packed=True)
        if options.get("total_length") is not None:
            self.refused("pad to total_length")
        axes = ("batch", "time", "feature") if lengths or batch_first else ("time", "batch", "feature")
        return replace(x, packed=False, axes=axes), _LENGTHS

    def arithmetic(self, name: str, a: Any, b: Any) -> Any:
        torch = require("torch", "torch")
        behind = not isinstance(a, View)  # whether the network's value is the second
        view, other = (b, a) if behind else (a, b)
        if isinstance(other, torch.Tensor) and other.ndim <= 3 and all(n == 1 for n in other.shape[:-1]):
            number: Any = numbers(other).reshape(other.shape[-1:])
        elif isinstance(other, int | float):
            number = float(other)
        else:
            return self.refused(f"{name} values of the network to each other")
        if behind and name == "div":
            return self.refused("divide by what comes from the input")
        view = self.features(view, name)
        if name in ("mul", "div"):
            if name == "div" and not np.all(number):
                return self.refused("divide by zero")
            self.chain.affine(number if name == "mul" else 1 / number, 0.0)
        else:
            sign = -1.0 if name == "sub" else 1.0
            self.chain.affine(sign if behind else 1.0, number if behind else sign * number)
        return self.next(view)

    # -- the end
    def model(self, output: Any, task: str) -> Model:
        if isinstance(output, tuple | list):
            first, *more = output
            if more:
                self.notes.append("of the values that it returns, the model gives the first")
            output = first
        if not isinstance(output, View) or output.stage != self.stage:
            raise Refused("return what comes from its last layer")
        output = self.read(output)
        if not self.entries:
            raise Refused("have a recurrent module, and it has none")
        if "state" in output.axes:
            raise Refused("return outputs, not the states of several layers")
        output = self.whole(output) if output.entries else output
        due = {"batch", "time", "feature"} if output.steps == "all" else {"batch", "feature"}
        if self.chain.width == 1 and "feature" not in output.axes:
            due.discard("feature")
        if set(output.axes) != due:
            raise Refused(f"return axes of {', '.join(sorted(due))}, not {', '.join(output.axes)}")
        every = output.steps == "all"
        return self.chain.model(every_step=every, final_state=output.steps == "final", task=task)

    def original(self, output: Any) -> Callable[[np.ndarray, np.ndarray | None], np.ndarray]:
        """What the module itself gives, its axes in a model's order and before its softmax's normalisation."""
        torch = require("torch", "torch")
        first = output[0] if isinstance(output, tuple | list) else output
        axes = self.read(first).axes
        places = [self.roles.get(f"axis{k}", role) for k, role in enumerate(("batch", "time", "feature"))]

        def run(x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
            order = [("batch", "time", "feature").index(p) for p in places]
            given = torch.from_numpy(np.ascontiguousarray(x.transpose(order))).to(next(self.module.parameters()).dtype)
            given = given[..., 0] if self.grown else given
            steps = lengths if lengths is not None or not self.lengths else np.full(len(x), x.shape[1])
            with torch.no_grad():
                out = self.module(given, *([torch.from_numpy(steps)] if steps is not None and self.lengths else []))
            out = out[0] if isinstance(out, tuple | list) else out
            if "time" in axes and axes.index("time") < axes.index("batch"):
                out = out.transpose(0, 1)
            return np.asarray(out.numpy())

        return run


_PLAIN = {"contiguous", "to", "float", "double", "detach", "clone", "cpu", "cuda", "type_as"}
