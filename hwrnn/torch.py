"""Every cell as a torch module, from its one definition: trained in any pipeline, on any device, and brought back.

::

    network = hwrnn.torch.Network(hwrnn.build_model(12, 9, cell="gru", hidden=32))
    scores = network(x, lengths)               # (N, T, 12) to (N, 9); train as any module
    model = hwrnn.from_torch(network)          # a Model again
    exact = network.quantized(formats)         # computes golden's numbers, trains straight through the rounding

The classes are made when first asked for, so that this module is imported where torch is not installed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from hwrnn.cells import Phase
from hwrnn.checks import as_integer
from hwrnn.directions import last_recurrent
from hwrnn.errors import UsageError, require
from hwrnn.exactness import bias_bounds, working_bits
from hwrnn.formats import LayerFormats, Widths
from hwrnn.model import Layer, Model, build_model
from hwrnn.quantization import QuantizedModel, freeze, with_hardware_functions
from hwrnn.tensors import Lines, Products, in_format, on_grid

__all__ = ["CellLayer", "Network", "Recurrent"]  # noqa: F822


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _classes()[name]


def _lengths(lengths: Any, x: Any) -> Any:
    """Lengths as an int64 tensor (N,) beside ``x`` (N, T, ...), or None where every sequence is as long as ``x``."""
    torch = require("torch", "torch")
    if lengths is None:
        return None
    given = torch.as_tensor(lengths)
    if given.shape != x.shape[:1] or given.is_floating_point() or given.dtype == torch.bool:
        raise UsageError(f"Lengths must be {len(x)} whole numbers, one for each sequence")
    low, high = int(given.min()), int(given.max())
    if low < 1 or high > x.shape[1]:
        raise UsageError(f"Lengths must be between 1 and {x.shape[1]}, not {low} to {high}")
    return None if low == x.shape[1] else given.to(x.device, torch.int64)


def _checked(x: Any, inputs: int) -> Any:
    torch = require("torch", "torch")
    if not isinstance(x, torch.Tensor) or not x.is_floating_point():
        raise UsageError(f"Input must be a tensor of floating-point numbers, not {type(x).__name__}")
    if x.ndim != 3 or 0 in x.shape or x.shape[2] != inputs:
        raise UsageError(f"Input must have shape (sequences, steps, {inputs}), none 0, not {tuple(x.shape)!r}")
    return x


def _numbers(tensor: Any) -> np.ndarray:
    """A tensor's values in float32, on their own."""
    torch = require("torch", "torch")
    return np.array(tensor.detach().to("cpu", torch.float32).numpy())


def _flipped(x: Any, lengths: Any) -> Any:
    """Sequences (T, N, ...) from their last step to their first; what stands beyond a length stays."""
    torch = require("torch", "torch")
    if lengths is None:
        return x.flip(0)
    steps = torch.arange(len(x), device=x.device)[:, None]
    at = torch.where(steps < lengths, lengths - 1 - steps, steps)
    return x.gather(0, at[:, :, None].expand_as(x))


def _attribute(name: str) -> str:
    """The attribute of a layer's parameter: ``weight_0_x`` of ``0.x``, ``bias_0`` of ``0.b``."""
    k, operand = name.split(".")
    return f"bias_{k}" if operand == "b" else f"weight_{k}_{operand}"


def _float_twin(model: QuantizedModel) -> Model:
    """The float model whose parameters are those of a quantized one.

    Raises:
        UsageError: biases that float32 does not hold.
    """
    twin = model.in_float()
    again = freeze(twin, [layer.formats for layer in model.stack], model.widths)
    for k, (new, old) in enumerate(zip(again.stack, model.stack, strict=True)):
        if any(not np.array_equal(new.biases[gate], old.biases[gate]) for gate in old.biases):
            raise UsageError(
                f"Biases of a quantized model must fit float32 to be trained on, unlike those of layer {k}:"
                " start from the float model, as Network(model, formats=quantized)"
            )
    return twin


@lru_cache(maxsize=1)
def _classes() -> dict[str, Any]:
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
            trained = {_attribute(name): values for name, values in layer.parameters.items()}
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
            made = {name: _numbers(getattr(self, _attribute(name))) for name in names}
            initial = {state: _numbers(getattr(self, f"initial_{state}")) for state in self._started}
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
            return getattr(self, _attribute(f"{k}.{operand}")).split(self.units)

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
            x = _checked(x, self.inputs)
            out, states = self.run(x.transpose(0, 1), _lengths(lengths, x), initial)
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
                x = _flipped(x, lengths)
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
            return (_flipped(out, lengths) if self.reverse else out), state

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

    class Network(module):
        """A model as a module: standardisation, layers and head, as ``Model.predict`` computes them.

        Args:
            model: gives the structure and the first parameters; a QuantizedModel brings its formats.
            formats: of every layer of the stack, or a QuantizedModel that has them; None for float.

        Raises:
            UsageError: formats that are not the model's, or in which float64 would not be exact.
        """

        def __init__(
            self, model: Model | QuantizedModel, formats: QuantizedModel | Sequence[LayerFormats] | None = None
        ) -> None:
            super().__init__()
            self.widths: Widths | None = None
            if isinstance(model, QuantizedModel):
                formats = model if formats is None else formats
                model = _float_twin(model)
            if isinstance(formats, QuantizedModel):
                self.widths = formats.widths
                formats = [layer.formats for layer in formats.stack]
            if formats is not None:
                if len(formats) != len(model.stack):
                    layers = len(model.stack)
                    raise UsageError(f"Formats must be those of {layers} layers as the model has, not {len(formats)}")
                model = with_hardware_functions(model, formats)
            self._model = model
            chosen: Sequence[LayerFormats | None] = [None] * len(model.stack) if formats is None else formats
            self.stack = nn.ModuleList(CellLayer(la, f) for la, f in zip(model.stack, chosen, strict=True))
            for name in ("input_mean", "input_scale", "output_mean", "output_scale"):
                self.register_buffer(name, torch.from_numpy(np.array(getattr(model, name), np.float32)))

        @property
        def formats(self) -> list[LayerFormats] | None:
            """The formats of every layer; None in float."""
            found = [layer.formats for layer in self.stack]
            return None if found[0] is None else found

        def model(self) -> Model:
            """The float model of the present parameters."""
            stack = tuple(layer.layer() for layer in self.stack)
            n = len(self._model.layers)
            buffers: dict[str, Any] = {name: _numbers(value) for name, value in self.named_buffers(recurse=False)}
            head = None if self._model.head is None else stack[n]
            return replace(self._model, layers=stack[:n], head=head, facts=dict(self._model.facts), **buffers)

        def quantized(self, formats: QuantizedModel | Sequence[LayerFormats]) -> Network:
            """A network in the loop with quantization that starts from copies of the present parameters."""
            return Network(self.model(), formats).to(next(self.parameters()).device)

        def frozen(self, widths: Widths | None = None) -> QuantizedModel:
            """The integers of the present parameters: golden computes what this module does.

            Args:
                widths: the bits that the formats were chosen with; None where a QuantizedModel gave the formats.

            Raises:
                UsageError: a float network, or widths that nobody told.
            """
            formats, widths = self.formats, self.widths if widths is None else widths
            if formats is None:
                raise UsageError("Network must have formats to be frozen: make it by quantized(formats)")
            if widths is None:
                raise UsageError("Widths must be given where the formats did not come from a quantized model")
            return freeze(self.model(), formats, widths)

        def project(self) -> None:
            """Bring weights that left their format's range back to its edge: call it after an optimizer's step."""
            for layer in self.stack:
                layer.project()

        def forward(self, x: Any, lengths: Any = None) -> Any:
            """Scores or values: (N, outputs) or, with an output at every step, (N, T, outputs).

            Args:
                x: (N, T, inputs), as data are, not standardised.
                lengths: (N,) whole numbers from 1 to T; None where every sequence has T steps.

            Raises:
                UsageError: a wrong shape, or lengths outside 1..T.
            """
            x = _checked(x, self._model.inputs)
            lengths = _lengths(lengths, x)
            mean, scale = self.input_mean, self.input_scale
            if self.formats is not None:  # the host standardises in float32, and so golden's inputs are made
                x, mean, scale = (v.to(torch.float32) for v in (x, mean, scale))
            value = self.raw((x - mean) * scale, lengths)
            if self.formats is not None and self.formats[-1].values[self._model.stack[-1].cell.output].width <= 24:
                value = value.to(torch.float32)  # which holds the grid too
            return value * self.output_scale + self.output_mean

        def raw(self, x: Any, lengths: Any) -> Any:
            """What the last layer gives for standardised ``x`` (N, T, inputs) and lengths as a tensor or None."""
            value = x.transpose(0, 1)
            last = len(value) - 1 if lengths is None else lengths - 1
            sequences = torch.arange(len(x), device=x.device)
            for group in self._model.groups:
                outputs = [self.stack[k].run(value, lengths)[0] for k in group]
                if self._model.final_state and group == last_recurrent(self._model.layers):
                    at = [0 if self.stack[k].reverse else last for k in group]
                    outputs = [out[t, sequences].expand(out.shape) for t, out in zip(at, outputs, strict=True)]
                value = outputs[0] if len(outputs) == 1 else torch.cat(outputs, 2)
                if group[-1] + 1 == self._model.encoder:
                    value = value[last, sequences].expand(value.shape)
            if not self._model.every_step:
                value = value[last, sequences][None]
            if self._model.head is not None:
                value, _ = self.stack[-1].run(value, lengths if self._model.every_step else None)
            return value.transpose(0, 1) if self._model.every_step else value[0]

    made = {"CellLayer": CellLayer, "Recurrent": Recurrent, "Network": Network}
    for name, cls in made.items():
        cls.__module__, cls.__qualname__ = __name__, name  # where pickle looks for them
    return made
