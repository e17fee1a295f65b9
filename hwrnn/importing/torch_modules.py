"""Networks of torch as models: hwrnn's own modules, those of ``torch.nn``, and what a ``state_dict`` holds.

A model reads (N, T, features) whatever a module's ``batch_first`` says, and computes what the module computes in
evaluation, without dropout.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hwrnn.cells import Cell, cell_named
from hwrnn.errors import UsageError, require
from hwrnn.importing.chains import Chain, agreeing, dense_of, layer_of
from hwrnn.model import Layer, Model

__all__ = ["CELLS_OF_TORCH", "add_recurrent", "evaluated", "from_torch", "is_recurrent", "numbers"]

#: torch's letters of the gates in the order of their rows.
_ROWS = {"lstm": "ifgo", "gru": "rzn", "rnn-tanh": "h", "rnn-relu": "h"}
#: hwrnn's gates that torch calls otherwise.
_LETTERS = {"nx": "n", "nh": "n"}
CELLS_OF_TORCH: dict[str, Cell] = {
    "lstm": cell_named("lstm", "sigmoid", "tanh"),
    "gru": cell_named("gru", "sigmoid", "tanh"),
    "rnn-tanh": cell_named("rnn", None, "tanh"),
    "rnn-relu": cell_named("rnn", None, "relu"),
}
_NAME = re.compile(
    r"(?:(?P<prefix>.+)\.)?(?P<kind>weight|bias)_(?P<what>ih|hh|hr)(?P<at>(?:_l(?P<layer>\d{1,4})(_reverse)?)?)"
)

#: Gives a parameter by torch's name, or None where there is none of it.
Get = Callable[[str], np.ndarray | None]


def from_torch(
    module: Any,
    *,
    head: Any = None,
    last: bool = False,
    final_state: bool = False,
    cell: str | None = None,
    task: str = "classification",
) -> Model:
    """The float model of a torch module or of a ``state_dict``.

    Args:
        module: a module of ``hwrnn.torch``; an ``RNN``, ``GRU``, ``LSTM`` or one of their cells; a module whose forward
            pass torch.fx can trace, with recurrent modules, Linear layers and activations in a row; or the
            ``state_dict`` of one recurrent module.
        head: what is behind a recurrent module: a Linear layer, or a Sequential of such layers and activations; for a
            ``state_dict`` the name of a Linear layer in it.
        last: whether there is one output for a sequence, of the output at its last step, or one at every step.
        final_state: of a bidirectional module with ``last``, whether the output is that of each direction's own last
            state (``h_n``) and not of the output at the last step.
        cell: what a ``state_dict`` of plain cells does not tell: ``rnn-tanh`` or ``rnn-relu``.
        task: ``classification`` or ``regression``, for a module that is not hwrnn's own.

    Raises:
        UsageError: a module that is not understood (the text names what), arguments that do not belong to it, or a
            module that computes something else than its parts say.
    """
    torch = require("torch", "torch")
    from hwrnn.torch import CellLayer, Network

    options = {"head": head is not None, "last": last, "final_state": final_state}
    given = ", ".join(name for name, value in options.items() if value)
    if not isinstance(module, Mapping) and cell is not None:
        raise UsageError(f"Cell must be given for a state_dict only, not for a {type(module).__name__}")
    if final_state and not last:
        raise UsageError("Final state must come with last=True: there is one output for a sequence then")
    if isinstance(module, Network | CellLayer):
        if given:
            raise UsageError(f"Arguments of a network of hwrnn.torch must be none, as it has its own, not {given}")
        return module.model() if isinstance(module, Network) else _alone(module.layer())
    if isinstance(module, Mapping):
        return _of_state_dict(module, head, last, final_state, cell, task)
    if not isinstance(module, torch.nn.Module):
        raise UsageError(f"Module must be a torch module or a state_dict, not {type(module).__name__}")
    if not is_recurrent(module):
        if given:
            what = type(module).__name__
            raise UsageError(f"Arguments {given} must come with a recurrent module alone, not with a {what}")
        from hwrnn.importing.torch_traced import traced

        return traced(module, task)
    chain = Chain()
    add_recurrent(chain, module)
    if head is not None:
        from hwrnn.importing.torch_functions import add_head

        add_head(chain, head)
    model = chain.model(every_step=not last, final_state=final_state, task=task)
    return agreeing(model, _own(module, head, last, final_state), type(module).__name__)


def _alone(layer: Layer) -> Model:
    chain = Chain()
    chain.add(layer)
    return chain.model(every_step=True)


def is_recurrent(module: Any) -> bool:
    """Whether a module is one of torch's recurrent ones and computes as they do."""
    nn = require("torch", "torch").nn
    kinds = (nn.RNN, nn.GRU, nn.LSTM, nn.RNNCell, nn.GRUCell, nn.LSTMCell)
    return any(isinstance(module, kind) and type(module).forward is kind.forward for kind in kinds)


def evaluated(module: Any) -> Any:
    """A copy of a module for evaluation on the CPU, in float32 or float64."""
    torch = require("torch", "torch")
    twin = copy.deepcopy(module).to("cpu").eval()
    return twin if any(p.dtype == torch.float64 for p in twin.parameters()) else twin.float()


def numbers(tensor: Any) -> np.ndarray:
    """A tensor's values in float64."""
    torch = require("torch", "torch")
    if not tensor.is_floating_point() or tensor.is_meta:
        raise UsageError(f"Parameters must be floating-point numbers in memory, not {tensor.dtype} on {tensor.device}")
    return np.asarray(tensor.detach().to("cpu", torch.float64).numpy())


def kind_of(module: Any) -> str:
    """A recurrent module's kind, by the names of :data:`CELLS_OF_TORCH`."""
    nn = require("torch", "torch").nn
    if hasattr(module, "mode"):
        return str(module.mode).lower().replace("_", "-")
    if isinstance(module, nn.RNNCell):
        return f"rnn-{module.nonlinearity}"
    return "gru" if isinstance(module, nn.GRUCell) else "lstm"


def add_recurrent(chain: Chain, module: Any, initial: Mapping[str, np.ndarray] | None = None) -> int:
    """Put the layers of a recurrent module into a chain; how many directions it has.

    ``initial`` holds first states, (layers * directions, units) by name.
    """

    def get(name: str) -> np.ndarray | None:
        value = getattr(module, name, None)
        return None if value is None else numbers(value)

    kind = kind_of(module)
    if not hasattr(module, "num_layers"):
        _add_layers(chain, kind, get, [[""]], initial)
        return 1
    suffixes = [["", "_reverse"] if module.bidirectional else [""] for _ in range(module.num_layers)]
    _add_layers(chain, kind, get, [[f"_l{k}{s}" for s in own] for k, own in enumerate(suffixes)], initial)
    return len(suffixes[0])


def _add_layers(
    chain: Chain, kind: str, get: Get, ends: list[list[str]], initial: Mapping[str, np.ndarray] | None = None
) -> None:
    """Put layers into a chain; ``ends`` are the ends of their parameters' names, by layer and direction."""
    for k, directions in enumerate(ends):
        made = [_direction(kind, get, end) for end in directions]
        layers = []
        for d, (layer, _) in enumerate(made):
            start = {name: rows[k * len(directions) + d].astype(np.float32) for name, rows in (initial or {}).items()}
            layers.append(Layer(layer.cell, layer.inputs, layer.units, layer.parameters, initial=start, reverse=d == 1))
        chain.add(*layers)
        projections = [projection for _, projection in made]
        if projections[0] is not None:
            if initial:
                raise UsageError("Initial states must be zero for a module with proj_size, not given")
            chain.add(dense_of(_side_by_side([p for p in projections if p is not None]), None))


def _side_by_side(matrices: list[np.ndarray]) -> np.ndarray:
    """Matrices along the diagonal of one."""
    rows, columns = (sum(m.shape[axis] for m in matrices) for axis in (0, 1))
    whole, row, column = np.zeros((rows, columns)), 0, 0
    for m in matrices:
        whole[row : row + m.shape[0], column : column + m.shape[1]] = m
        row, column = row + m.shape[0], column + m.shape[1]
    return whole


def _direction(kind: str, get: Get, end: str) -> tuple[Layer, np.ndarray | None]:
    """One direction of one layer, and its projection or None.

    A projected LSTM hands ``W_hr h`` on, so its recurrent matrix is ``W_hh W_hr`` and the projection a dense layer
    behind it; both begin at zero, since the projection of zero is zero. H. Sak et al., arXiv:1402.1128 (2014).
    """
    cell, letters = CELLS_OF_TORCH[kind], _ROWS[kind]
    w, u, projection = (get(f"weight_{what}{end}") for what in ("ih", "hh", "hr"))
    assert w is not None and u is not None
    units = len(w) // len(letters)
    biases = [get(f"bias_{what}{end}") for what in ("ih", "hh")]
    first, second = (np.zeros(len(w)) if b is None else b for b in biases)
    u = u if projection is None else u @ projection

    def rows(array: np.ndarray, gate: str) -> np.ndarray:
        at = letters.index(_LETTERS.get(gate, gate)) * units
        return array[at : at + units]

    (phase,) = cell.phases
    weights = {(g, o): rows(w if o == "x" else u, g) for g, reads in phase.gates.items() for o in reads}
    sums = {
        gate: ("x" in reads) * rows(first, gate) + ("h" in reads) * rows(second, gate)
        for gate, reads in phase.gates.items()
    }
    return layer_of(cell, weights, sums), projection


# -- what a state_dict holds -------------------------------------------------------------------------------------------
def _of_state_dict(
    given: Mapping[str, Any], head: Any, last: bool, final_state: bool, cell: str | None, task: str
) -> Model:
    torch = require("torch", "torch")
    for name, value in given.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise UsageError(f"State dict must hold tensors by name, not {type(value).__name__} by {name!r}")
    if head is not None and not isinstance(head, str):
        raise UsageError(f"Head must be the name of a Linear layer in the state_dict, not {type(head).__name__}")
    matches = {name: _NAME.fullmatch(name) for name in given}
    prefixes = {m["prefix"] for m in matches.values() if m}
    if len(prefixes) != 1:
        found = " and ".join(sorted(p or "its top" for p in prefixes)) or "none"
        raise UsageError(f"State dict must be of one recurrent module, with weight_ih_l0 and so on, not of {found}")
    own = {f"{m['kind']}_{m['what']}{m['at']}": given[name] for name, m in matches.items() if m}
    others = {name: value for name, value in given.items() if not matches[name]}
    arrays = {name: numbers(value) for name, value in own.items()}
    ends = _ends(own)
    kind = _kind(arrays, ends[0][0], cell)
    _check_shapes(arrays, ends, kind)
    chain = Chain()
    _add_layers(chain, kind, arrays.get, ends)
    if head is not None:
        weight, bias = others.pop(f"{head}.weight", None), others.pop(f"{head}.bias", None)
        if weight is None or weight.ndim != 2 or (bias is not None and tuple(bias.shape) != tuple(weight.shape[:1])):
            raise UsageError(f"Head must be the name of a Linear layer in the state_dict, not {head!r}")
        chain.add(dense_of(numbers(weight), None if bias is None else numbers(bias)))
    if others:
        raise UsageError(
            f"State dict must hold one recurrent module and the head that is named, not also {next(iter(others))!r}:"
            " give head='NAME' for a Linear layer right behind it, or the module itself"
        )
    return chain.model(every_step=not last, final_state=final_state, task=task)


def _ends(names: Mapping[str, Any]) -> list[list[str]]:
    """The ends of the names by layer and direction."""
    if "weight_ih" in names:
        return [[""]]
    layers = 1 + max(int(m["layer"] or 0) for m in map(_NAME.fullmatch, names) if m)
    directions = ["", "_reverse"] if "weight_ih_l0_reverse" in names else [""]
    return [[f"_l{k}{d}" for d in directions] for k in range(layers)]


def _kind(arrays: Mapping[str, np.ndarray], end: str, cell: str | None) -> str:
    w, u = arrays.get(f"weight_ih{end}"), arrays.get(f"weight_hh{end}")
    if w is None or u is None or w.ndim != 2 or u.ndim != 2:
        raise UsageError(f"State dict must hold matrices weight_ih{end} and weight_hh{end}")
    projection = arrays.get(f"weight_hr{end}")
    units = u.shape[1] if projection is None else projection.shape[-1]
    kinds = [kind for kind, letters in _ROWS.items() if len(w) == len(letters) * units]
    if cell is not None and cell not in kinds:
        known = ", ".join(_ROWS) if cell not in _ROWS else " or ".join(kinds) + " by its shapes"
        raise UsageError(f"Cell must be {known}, not {cell!r}")
    if not kinds:
        raise UsageError(f"State dict must hold 1, 3 or 4 gates of {units} units, not weight_ih{end} of {len(w)} rows")
    if cell is None and len(kinds) > 1:
        raise UsageError(f"Cell must be given where the shapes leave it open: cell='{kinds[0]}' or cell='{kinds[1]}'")
    return cell or kinds[0]


def _check_shapes(arrays: Mapping[str, np.ndarray], ends: list[list[str]], kind: str) -> None:
    """Refuse parameters that a module of that kind does not have, or has in another shape."""
    first = ends[0][0]
    inputs, rows = arrays[f"weight_ih{first}"].shape[1], len(arrays[f"weight_ih{first}"])
    units = rows // len(_ROWS[kind])
    projection, biased = arrays.get(f"weight_hr{first}"), f"bias_ih{first}" in arrays
    if projection is not None and kind != "lstm":
        raise UsageError(f"State dict must hold weight_hr of an lstm only, not of a {kind}")
    given = units if projection is None else len(projection)
    due: dict[str, tuple[int, ...]] = {}
    for k, directions in enumerate(ends):
        for end in directions:
            due[f"weight_ih{end}"] = (rows, inputs if k == 0 else given * len(directions))
            due[f"weight_hh{end}"] = (rows, given)
            if projection is not None:
                due[f"weight_hr{end}"] = (given, units)
            if biased:
                due |= {f"bias_ih{end}": (rows,), f"bias_hh{end}": (rows,)}
    for name in (*due, *arrays):
        shape = arrays[name].shape if name in arrays else None
        if shape != due.get(name):
            must = f"hold {name} of shape {due[name]}" if name in due else "hold the parameters of one module"
            raise UsageError(f"State dict must {must}, not {'none' if shape is None else f'{name} of shape {shape}'}")


# -- the module's own outputs ------------------------------------------------------------------------------------------
def _own(module: Any, head: Any, last: bool, final_state: bool) -> Callable[[np.ndarray, Any], np.ndarray]:
    """What a recurrent module and its head compute."""
    torch = require("torch", "torch")
    module, head = (None if m is None else evaluated(m) for m in (module, head))

    def run(x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
        given = torch.from_numpy(x).to(next(module.parameters()).dtype)
        with torch.no_grad():
            if not hasattr(module, "num_layers"):
                state, outs = None, []
                for t in range(given.shape[1]):
                    state = module(given[:, t], state)
                    outs.append(state[0] if isinstance(state, tuple) else state)
                out = torch.stack(outs, 1)
            else:
                out, states = module(given if module.batch_first else given.transpose(0, 1))
                out = out if module.batch_first else out.transpose(0, 1)
            if last:
                final = out[:, -1]
                if final_state and getattr(module, "bidirectional", False):
                    h = states[0] if isinstance(states, tuple) else states
                    final = torch.cat((h[-2], h[-1]), 1)
                out = final
            return np.asarray((out if head is None else head(out)).numpy())

    return run
