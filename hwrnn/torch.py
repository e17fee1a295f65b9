"""Every cell as a torch module, from its one definition: trained in any pipeline, on any device, and brought back.

::

    network = hwrnn.torch.Network(hwrnn.build_model(12, 9, cell="gru", hidden=32))
    scores = network(x, lengths)               # (N, T, 12) to (N, 9); train as any module
    model = hwrnn.from_torch(network)          # a Model again
    exact = network.quantized(formats)         # computes golden's numbers, trains straight through the rounding

The classes are made when first asked for, so that this module is imported where torch is not installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from hwrnn.directions import last_recurrent
from hwrnn.errors import UsageError, require
from hwrnn.formats import LayerFormats, Widths
from hwrnn.model import Model
from hwrnn.quantization import QuantizedModel, freeze, with_hardware_functions
from hwrnn.torch_layers import array_of, checked, layer_classes, tensor_of_lengths

__all__ = ["CellLayer", "Network", "Recurrent"]  # noqa: F822


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _classes()[name]


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
    CellLayer, Recurrent = layer_classes()
    nn: Any = torch.nn
    module: Any = nn.Module

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
            buffers: dict[str, Any] = {name: array_of(value) for name, value in self.named_buffers(recurse=False)}
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
            x = checked(x, self._model.inputs)
            lengths = tensor_of_lengths(lengths, x)
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

    Network.__module__, Network.__qualname__ = __name__, "Network"  # where pickle looks for it
    return {"CellLayer": CellLayer, "Recurrent": Recurrent, "Network": Network}
