"""Layers as torch modules; ``hwrnn.torch`` gives them their public names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from hwrnn.cells import Phase
from hwrnn.checks import as_integer, as_lengths
from hwrnn.errors import UsageError, require
from hwrnn.exactness import bias_bounds, working_bits
from hwrnn.formats import LayerFormats
from hwrnn.model import Layer, build_model
from hwrnn.tensors import Lines, Products, in_format, on_grid

__all__ = ["array_of", "checked", "layer_classes", "tensor_of_lengths"]


def tensor_of_lengths(lengths: Any, x: Any) -> Any:
    """Lengths as an int64 tensor (N,) beside ``x`` (N, T, ...), or None where every sequence is as long as ``x``."""
    torch = require("torch", "torch")
    if lengths is None:
        return None
    known = as_lengths(torch.as_tensor(lengths).cpu().numpy(), len(x), x.shape[1])
    return None if (known == x.shape[1]).all() else torch.from_numpy(known).to(x.device)


def checked(x: Any, inputs: int) -> Any:
    torch = require("torch", "torch")
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        raise UsageError(f"Input must be a tensor of floating-point numbers, not {type(x).__name__}")
    if x.ndim != 3 or 0 in x.shape or x.shape[2] != inputs:
        raise UsageError(f"Input must have shape (sequences, steps, {inputs}), none 0, not {tuple(x.shape)!r}")
    return x


def array_of(tensor: Any) -> np.ndarray:
    """A tensor's values in float32, on their own."""
    torch = require("torch", "torch")
    return np.array(tensor.detach().to("cpu", torch.float32).numpy())


def flipped(x: Any, lengths: Any) -> Any:
    """Sequences (T, N, ...) from their last step to their first; what stands beyond a length stays."""
    torch = require("torch", "torch")
    if lengths is None:
        return x.flip(0)
    steps = torch.arange(len(x), device=x.device)[:, None]
    at = torch.where(steps < lengths, lengths - 1 - steps, steps)
    return x.gather(0, at[:, :, None].expand_as(x))


def attribute(name: str) -> str:
    """The attribute of a layer's parameter: ``weight_0_x`` of ``0.x``, ``bias_0`` of ``0.b``."""
    k, operand = name.split(".")
    return f"bias_{k}" if operand == "b" else f"weight_{k}_{operand}"


@lru_cache(maxsize=1)
def layer_classes() -> tuple[Any, Any]:
    """``CellLayer`` and ``Recurrent``, made when first asked for."""
    torch = require("torch", "torch")
    nn: Any = torch.nn
    module: Any = nn.Module

    class CellLayer(module):
        """A layer of hwrnn as a module, in float or in the loop with quantization.

        Args:
            layer: gives the cell, the sizes and the first parameters.
            formats: of every value; None for float.

        Attributes:
            cell: the cell, with the nonlinearities that hardware computes where there are formats.
            bits: of the float that it computes in where there are formats.

        Raises:
            UsageError: formats in which float64 would not be exact.
        """

        def __init__(self, layer: Layer, formats: LayerFormats | None = None) -> None:
            super().__init__()
            self.cell, self.inputs, self.units, self.formats = layer.cell, layer.inputs, layer.units, formats
            self.reverse, self.beside, self._started = layer.reverse, layer.beside, tuple(layer.initial)
            trained = {attribute(name): values for name, values in layer.parameters.items()}
            trained |= {f"initial_{state}": values for state, values in layer.initial.items()}
            for name, values in trained.items():
                self.register_parameter(name, nn.Parameter(torch.from_numpy(np.array(values, np.float32))))
            self._prepare()

        def __getstate__(self) -> dict[str, Any]:
            return {name: value for name, value in vars(self).items() if name != "_lines"}

        def __setstate__(self, state: dict[str, Any]) -> None:
            super().__setstate__(state)
            self._prepare()

        def _prepare(self) -> None:
            self._lines = Lines(self.cell, self.formats)
            self._bounds: dict[str, float] = {}
            self.bits = 32
            if self.formats is not None:
                self._bounds = bias_bounds(self.cell, self.formats, self.size_of)
                self.bits = working_bits(self.cell, self.formats, self.size_of)

        def size_of(self, operand: str) -> int:
            """The length of an operand vector."""
            return self.inputs if operand == "x" else self.units

        def extra_repr(self) -> str:
            kind = "float" if self.formats is None else "quantized"
            words = [word for word in ("reverse", "beside") if getattr(self, word)]
            return ", ".join([self.cell.name, str(self.inputs), str(self.units), kind, *words])

        def layer(self) -> Layer:
            """The layer with the present parameters, float32."""
            names = Layer.shapes(self.cell, self.inputs, self.units)
            made = {name: array_of(getattr(self, attribute(name))) for name in names}
            initial = {state: array_of(getattr(self, f"initial_{state}")) for state in self._started}
            return Layer(
                self.cell, self.inputs, self.units, made, initial=initial, reverse=self.reverse, beside=self.beside
            )

        def project(self) -> None:
            """Bring weights that left their format's range back to its edge, as training does after every step."""
            with torch.no_grad():
                for k, phase in enumerate(self.cell.phases):
                    for operand in phase.operands:
                        for gate, block in zip(phase.rows(operand), self._blocks(k, phase, operand), strict=True):
                            if self.formats is not None:
                                form = self.formats.weights[gate, operand]
                                block.clamp_(form.min, form.max)

        def _blocks(self, k: int, phase: Phase, operand: str) -> Sequence[Any]:
            return getattr(self, attribute(f"{k}.{operand}")).split(self.units)

        def _dtype(self, x: Any) -> Any:
            """What to compute in: as the parameters are, or what is exact for the formats."""
            if self.formats is None:
                return self._blocks(0, self.cell.phases[0], "b")[0].dtype
            # Without this, matrix products in float32 may be made with as few as 8 bits.
            narrow = self.bits == 32 and torch.get_float32_matmul_precision() == "highest"
            return torch.float32 if narrow else torch.float64

        def _weights(self, dtype: Any) -> tuple[dict[tuple[int, str], Any], dict[tuple[int, str], Any]]:
            """By phase and gate or operand: matrices (size, rows), and biases (units,)."""
            matrices, biases = {}, {}
            for k, phase in enumerate(self.cell.phases):
                for operand in phase.operands:
                    blocks = zip(phase.rows(operand), self._blocks(k, phase, operand), strict=True)
                    parts = [self._weight(gate, operand, block, dtype) for gate, block in blocks]
                    matrices[k, operand] = (parts[0] if len(parts) == 1 else torch.cat(parts)).t()
                for gate, block in zip(phase.gates, self._blocks(k, phase, "b"), strict=True):
                    biases[k, gate] = self._bias(gate, block, dtype)
            return matrices, biases

        def _weight(self, gate: str, operand: str, block: Any, dtype: Any) -> Any:
            if self.formats is None:
                slope, _ = self._lines.folded.get(gate, (1.0, 0.0))
                return block if slope == 1.0 else block * slope
            form = self.formats.weights[gate, operand]
            return on_grid(block, form.step, form.min, form.max, dtype)

        def _bias(self, gate: str, block: Any, dtype: Any) -> Any:
            if self.formats is None:
                slope, intercept = self._lines.folded.get(gate, (1.0, 0.0))
                return block if (slope, intercept) == (1.0, 0.0) else block * slope + intercept
            most = self._bounds[gate]
            return on_grid(block, 2.0 ** -self.formats.bias_frac[gate], -most, most, dtype)

        def forward(self, x: Any, lengths: Any = None, initial: Mapping[str, Any] | None = None) -> tuple[Any, Any]:
            """The output at every step and the last states.

            Args:
                x: (N, T, inputs).
                lengths: (N,) whole numbers from 1 to T; None where every sequence has T steps.
                initial: the states to start from, name to (N, units); those not named start at the layer's own.

            Returns:
                (N, T, units), zero beyond a sequence's length, and state name to (N, units), after the last step that
                the layer ran (step 0 of a reverse one).

            Raises:
                UsageError: a wrong shape, lengths outside 1..T, or a state that the cell does not have.
            """
            x = checked(x, self.inputs)
            out, states = self.run(x.transpose(0, 1), tensor_of_lengths(lengths, x), initial)
            return out.transpose(0, 1), states

        def run(self, x: Any, lengths: Any, initial: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
            """What :meth:`forward` does, time first and unchecked."""
            if self.formats is None:
                return self._run(x, lengths, initial)
            with torch.autocast(x.device.type, enabled=False):  # which computes products in half precision
                return self._run(x, lengths, initial)

        def _run(self, x: Any, lengths: Any, initial: Mapping[str, Any] | None) -> tuple[Any, dict[str, Any]]:
            dtype = self._dtype(x)
            x = x.to(dtype)
            if self.formats is not None:
                x = in_format(x, self.formats.values["x"])
            if self.reverse:
                x = flipped(x, lengths)
            within = None
            if lengths is not None:
                within = (torch.arange(len(x), device=x.device)[:, None] < lengths)[:, :, None]
                x = torch.where(within, x, 0)
            matrices, biases = self._weights(dtype)
            work = Products(self.cell, self.units, self._lines.blocks, matrices, biases, x)
            if not self.cell.states:
                out = self._lines.step(work.all_steps, {})[self.cell.output]
                return (out if within is None else torch.where(within, out, 0)), {}
            state = self._initial(initial, x)
            steps = []
            for t in range(len(x)):
                stored = self._lines.step(work.at(t), state)
                new = {name: stored[name] for name in self.cell.states}
                if within is None:
                    state = new
                else:
                    state = {name: torch.where(within[t], value, state[name]) for name, value in new.items()}
                steps.append(stored[self.cell.output])
            out = torch.stack(steps)
            out = out if within is None else torch.where(within, out, 0)
            return (flipped(out, lengths) if self.reverse else out), state

        def _initial(self, given: Mapping[str, Any] | None, x: Any) -> dict[str, Any]:
            given = given or {}
            unknown = [name for name in given if name not in self.cell.states]
            if unknown:
                known = " and ".join(self.cell.states)
                raise UsageError(f"Initial states must be of {known}, which {self.cell.name} has, not {unknown[0]!r}")
            shape = (x.shape[1], self.units)
            states: dict[str, Any] = {}
            for name in self.cell.states:
                if name in given:
                    value = given[name]
                elif name in self._started:
                    value = getattr(self, f"initial_{name}").expand(shape)
                else:
                    states[name] = x.new_zeros(shape)
                    continue
                if tuple(value.shape) != shape:
                    raise UsageError(f"Initial state {name!r} must have shape {shape}, not {tuple(value.shape)!r}")
                value = value.to(x.dtype)
                states[name] = value if self.formats is None else in_format(value, self.formats.values[name])
            return states

    class Recurrent(CellLayer):
        """One recurrent layer of any cell.

        Called with ``x`` (N, T, inputs), or (T, N, inputs) without ``batch_first``, it returns the output at every step
        and the last states, name to (N, units).

        Args:
            inputs, units: features of an input vector, and hidden units.
            cell: a name of ``hwrnn.cells.CELLS``.
            activation, gate: nonlinearities of the state and of the gates by name; the cell's defaults where None.
            cell_clip: bound of an LSTM's cell state.
            reverse: whether it runs from each sequence's last step to its first.
            init: of the recurrent matrix, as :func:`hwrnn.build_model` takes it.
            batch_first: whether the batch is the first axis of input and output, or time.
            seed: of the first parameters; None draws it from torch's generator.

        Raises:
            UsageError: an argument outside its range, or an unknown name.
        """

        def __init__(
            self,
            inputs: int,
            units: int,
            cell: str = "lstm",
            *,
            activation: str | None = None,
            gate: str | None = None,
            cell_clip: float | None = None,
            init: str = "orthogonal",
            reverse: bool = False,
            batch_first: bool = True,
            seed: int | None = None,
        ) -> None:
            inputs, units = as_integer("Inputs", inputs, 1), as_integer("Units", units, 1)
            seed = int(torch.randint(2**31, ())) if seed is None else seed
            made = build_model(
                inputs, None, cell=cell, hidden=units, activation=activation, gate=gate, cell_clip=cell_clip, init=init,
                seed=seed,
            )  # fmt: skip
            super().__init__(replace(made.layers[0], reverse=reverse))
            self.batch_first = batch_first

        def forward(self, x: Any, lengths: Any = None, initial: Mapping[str, Any] | None = None) -> tuple[Any, Any]:
            if self.batch_first:
                return super().forward(x, lengths, initial)
            out, states = super().forward(x.transpose(0, 1), lengths, initial)
            return out.transpose(0, 1), states

    for cls in (CellLayer, Recurrent):
        cls.__module__, cls.__qualname__ = "hwrnn.torch", cls.__name__  # where pickle looks for them
    return CellLayer, Recurrent
