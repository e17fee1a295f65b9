"""The recurrent cells, each written once.

A cell says which rows of weights a unit has (*gates*: the operands that each reads), and how the
pre-activations and the old state make the new one (*combine*). The lines of ``combine`` work on any number:
float arrays predict, symbols record the computation for training, exact integers are the golden model,
hardware values become gates, graph values become ONNX nodes.

Inside ``combine``, ``a.NAME`` is the pre-activation of a gate and ``s`` the unit's values: reading ``s.NAME``
gives the value stored last (before the first assignment, the old state's), assigning stores, which is where
fixed point rounds. So a line such as ``s.c = s.f * s.c + s.i * s.g`` reads as in the textbook.

A new cell is one class with the :func:`catalogued` decorator; nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from hwrnn.activations import NONLINEARITIES, Nonlinearity, nonlinearity
from hwrnn.activations import clip as clip_at

__all__ = ["CELLS", "Cell", "Phase", "Values", "cell_named"]


@dataclass(frozen=True)
class Phase:
    """One matrix product and the element-wise lines behind it.

    Attributes:
        combine: the cell's method that follows the product.
        gates: the gates of this phase in the order of their rows, each with the operands it reads, in order:
            ``x`` is the layer's input, any other name a stored value of all units.
    """

    combine: str
    gates: Mapping[str, tuple[str, ...]]

    @property
    def operands(self) -> tuple[str, ...]:
        """Every operand of the phase, the input first."""
        names = dict.fromkeys(name for reads in self.gates.values() for name in reads)
        return tuple(sorted(names, key=lambda name: name != "x"))

    def rows(self, operand: str) -> tuple[str, ...]:
        """The gates that read an operand, in order."""
        return tuple(gate for gate, reads in self.gates.items() if operand in reads)


def phase(combine: str, **gates: str) -> Phase:
    """A phase from keywords: ``phase("combine", z="x h", n="x")``."""
    return Phase(combine, {gate: tuple(reads.split()) for gate, reads in gates.items()})


class Values:
    """Named values with attribute access; assigning passes through ``store``, which may round or record."""

    def __init__(self, values: Mapping[str, Any], store: Callable[[str, Any], Any] | None = None) -> None:
        object.__setattr__(self, "_values", dict(values))
        object.__setattr__(self, "_store", store)

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(f"No value of this cell is named {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        if self._store is None:
            raise AttributeError(f"Pre-activation {name!r} must not be assigned")
        self._values[name] = self._store(name, value)


@dataclass(frozen=True)
class Cell:
    """A cell with its nonlinearities chosen.

    Attributes:
        sigma: the gates' nonlinearity.
        phi: the state's (candidate's) nonlinearity.
        clip: the bound that a clipped cell state keeps, or None.
        psi: the nonlinearity between a cell state and the output; None where it is ``phi``.
    """

    name: ClassVar[str]
    phases: ClassVar[tuple[Phase, ...]]
    states: ClassVar[tuple[str, ...]] = ("h",)  # what one time step hands to the next
    output: ClassVar[str] = "h"
    bias: ClassVar[Mapping[str, float]] = {}  # initial biases that are not zero
    gated: ClassVar[bool] = True  # whether the gates' nonlinearity is used at all
    default_sigma: ClassVar[str] = "hard_sigmoid"
    default_phi: ClassVar[str] = "hard_tanh"

    sigma: Nonlinearity = NONLINEARITIES["hard_sigmoid"]
    phi: Nonlinearity = NONLINEARITIES["hard_tanh"]
    clip: float | None = None
    psi: Nonlinearity | None = None

    @property
    def functions(self) -> dict[str, Nonlinearity]:
        """The nonlinearities by field: ``sigma``, ``phi``, and ``psi`` where the cell was given one of its own."""
        own = {} if self.psi is None else {"psi": self.psi}
        return {"sigma": self.sigma, "phi": self.phi, **own}

    def with_functions(self, functions: Mapping[str, Nonlinearity]) -> Self:
        """The cell with other nonlinearities for those of :attr:`functions`; a field not named stays."""
        given: dict[str, Any] = dict(functions)
        return replace(self, **given)

    @property
    def operands(self) -> tuple[str, ...]:
        """Every operand of any phase, the input first."""
        names = dict.fromkeys(name for p in self.phases for name in p.operands)
        return tuple(sorted(names, key=lambda name: name != "x"))

    @property
    def gates(self) -> tuple[str, ...]:
        """Every gate, in the order of phases and rows; names are unique in a cell."""
        return tuple(gate for p in self.phases for gate in p.gates)

    def clipped(self, state: Any) -> Any:
        """The cell state between ``-clip`` and ``clip``, where the cell was given a clip."""
        return state if self.clip is None else clip_at(self.clip)(state)

    def shown(self, state: Any) -> Any:
        """The cell state as the output sees it: through ``psi``, or through ``phi`` where there is none."""
        return (self.psi or self.phi)(state)

    def run(self, product: Callable[[Phase, Values], Mapping[str, Any]], s: Values) -> Values:
        """One time step on any kind of number.

        Args:
            product: gives the pre-activations of a phase; it may read the values stored so far.
            s: the values, holding the old state.
        """
        for p in self.phases:
            getattr(self, p.combine)(Values(product(p, s)), s)
        return s


CELLS: dict[str, type[Cell]] = {}


def catalogued(name: str) -> Callable[[type[Cell]], type[Cell]]:
    """Enter a cell class in the catalogue under the name that the command line and the files use."""

    def enter(cls: type[Cell]) -> type[Cell]:
        cls.name = name
        CELLS[name] = cls
        return cls

    return enter


def cell_named(
    name: str,
    sigma: str | None = None,
    phi: str | None = None,
    clip: float | None = None,
    psi: str | None = None,
) -> Cell:
    """A cell of the catalogue with nonlinearities by name; the cell's defaults where None.

    Raises:
        ValueError: an unknown cell or nonlinearity, a gate nonlinearity for a cell without gates, or a clip or an
            output nonlinearity on a cell without a separate cell state.
    """
    if name not in CELLS:
        raise ValueError(f"Cell must be one of {', '.join(CELLS)}, not {name!r}")
    cls = CELLS[name]
    if sigma is not None and not cls.gated:
        raise ValueError(f"Gate nonlinearity must be given to a cell with gates, not to {name!r}")
    if clip is not None and "c" not in cls.states:
        raise ValueError(f"Cell clip must be given to a cell with a cell state, not to {name!r}")
    if psi is not None and "c" not in cls.states:
        raise ValueError(f"Output nonlinearity must be given to a cell with a cell state, not to {name!r}")
    if clip is not None:
        clip_at(clip)
    functions = nonlinearity(sigma or cls.default_sigma), nonlinearity(phi or cls.default_phi)
    return cls(*functions, clip, None if psi is None else nonlinearity(psi))


@catalogued("rnn")
class RNN(Cell):
    """The vanilla network. J. L. Elman, Cognitive Science 14 (1990) 179-211."""

    phases = (phase("combine", h="x h"),)
    gated = False

    def combine(self, a: Any, s: Any) -> None:
        """h' = phi(W x + U h + b)."""
        s.h = self.phi(a.h)


@catalogued("lstm")
class LSTM(Cell):
    """S. Hochreiter, J. Schmidhuber, Neural Computation 9 (1997); forget gate: F. Gers et al., 12 (2000)."""

    phases = (phase("combine", i="x h", f="x h", o="x h", g="x h"),)
    states = ("h", "c")
    bias: ClassVar[Mapping[str, float]] = {"f": 1.0}  # R. Jozefowicz et al., ICML 2015: remember at first

    def combine(self, a: Any, s: Any) -> None:
        """c' = f c + i g; h' = o psi(c')."""
        s.i = self.sigma(a.i)
        s.f = self.sigma(a.f)
        s.o = self.sigma(a.o)
        s.g = self.phi(a.g)
        s.c = self.clipped(s.f * s.c + s.i * s.g)
        s.t = self.shown(s.c)
        s.h = s.o * s.t


@catalogued("gru")
class GRU(Cell):
    """K. Cho et al., EMNLP 2014, with the reset after the product as cuDNN, PyTorch and Keras compute it.

    ONNX calls it ``linear_before_reset=1``.
    """

    phases = (phase("combine", r="x h", z="x h", nx="x", nh="h"),)

    def combine(self, a: Any, s: Any) -> None:
        """n = phi(Wn x + bn + r (Un h + cn)); h' = (1 - z) n + z h."""
        s.r = self.sigma(a.r)
        s.z = self.sigma(a.z)
        s.n = self.phi(a.nx + s.r * a.nh)
        s.h = s.n + s.z * (s.h - s.n)


@catalogued("gru-reset-before")
class GRUResetBefore(Cell):
    """K. Cho et al., EMNLP 2014, with the reset before the product.

    ONNX calls it ``linear_before_reset=0``, its default.
    """

    phases = (phase("reset", r="x h", z="x h"), phase("candidate", n="x p"))

    def reset(self, a: Any, s: Any) -> None:
        """p = r h."""
        s.r = self.sigma(a.r)
        s.z = self.sigma(a.z)
        s.p = s.r * s.h

    def candidate(self, a: Any, s: Any) -> None:
        """n = phi(Wn x + Un p + bn); h' = (1 - z) n + z h."""
        s.n = self.phi(a.n)
        s.h = s.n + s.z * (s.h - s.n)


@catalogued("ligru")
class LiGRU(Cell):
    """The light GRU, without a reset gate.

    M. Ravanelli et al., IEEE Trans. Emerg. Topics Comput. Intell. 2 (2018) 92-102.
    """

    phases = (phase("combine", z="x h", n="x h"),)
    default_phi = "relu1"

    def combine(self, a: Any, s: Any) -> None:
        """h' = z h + (1 - z) phi(Wn x + Un h + b)."""
        s.z = self.sigma(a.z)
        s.n = self.phi(a.n)
        s.h = s.n + s.z * (s.h - s.n)


@catalogued("mingru")
class MinGRU(Cell):
    """Gates from the input only. L. Feng et al., "Were RNNs All We Needed?", arXiv:2410.01201 (2024)."""

    phases = (phase("combine", z="x", n="x"),)

    def combine(self, a: Any, s: Any) -> None:
        """h' = (1 - z) h + z phi(Wn x + b)."""
        s.z = self.sigma(a.z)
        s.n = self.phi(a.n)
        s.h = s.h + s.z * (s.n - s.h)


@catalogued("lstm-peephole")
class LSTMPeephole(Cell):
    """An LSTM whose gates see the cell state. F. Gers, J. Schmidhuber, IJCNN 2000.

    The weights of ``c`` are whole matrices; those of the paper and of ONNX are their diagonals.
    """

    phases = (phase("memory", i="x h c", f="x h c", g="x h"), phase("output_gate", o="x h c"))
    states = ("h", "c")
    bias: ClassVar[Mapping[str, float]] = {"f": 1.0}

    def memory(self, a: Any, s: Any) -> None:
        """c' = f c + i g."""
        s.i = self.sigma(a.i)
        s.f = self.sigma(a.f)
        s.g = self.phi(a.g)
        s.c = self.clipped(s.f * s.c + s.i * s.g)

    def output_gate(self, a: Any, s: Any) -> None:
        """h' = o psi(c'), where o sees c'."""
        s.o = self.sigma(a.o)
        s.t = self.shown(s.c)
        s.h = s.o * s.t


@catalogued("lstm-coupled")
class LSTMCoupled(Cell):
    """An LSTM that forgets as much as it takes in. K. Greff et al., IEEE Trans. Neural Netw. 28 (2017) 2222-2232.

    ONNX calls it ``input_forget=1``.
    """

    phases = (phase("combine", i="x h", o="x h", g="x h"),)
    states = ("h", "c")

    def combine(self, a: Any, s: Any) -> None:
        """c' = (1 - i) c + i g; h' = o psi(c')."""
        s.i = self.sigma(a.i)
        s.o = self.sigma(a.o)
        s.g = self.phi(a.g)
        s.c = self.clipped(s.c + s.i * (s.g - s.c))
        s.t = self.shown(s.c)
        s.h = s.o * s.t


@catalogued("lstm-peephole-coupled")
class LSTMPeepholeCoupled(LSTMPeephole):
    """An LSTM with peepholes that forgets as much as it takes in; see the two cells above."""

    phases = (phase("memory", i="x h c", g="x h"), phase("output_gate", o="x h c"))
    bias: ClassVar[Mapping[str, float]] = {}

    def memory(self, a: Any, s: Any) -> None:
        """c' = (1 - i) c + i g."""
        s.i = self.sigma(a.i)
        s.g = self.phi(a.g)
        s.c = self.clipped(s.c + s.i * (s.g - s.c))


class Dense(Cell):
    """A layer without state: y = phi(W x + b). It is the head, and an engine like any other."""

    name = "dense"
    phases = (phase("combine", y="x"),)
    states = ()
    gated = False
    output = "y"
    default_phi = "identity"

    def combine(self, a: Any, s: Any) -> None:
        """y = phi(W x + b)."""
        s.y = self.phi(a.y)
