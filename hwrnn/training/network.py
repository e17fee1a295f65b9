"""A model prepared for training: all parameters in one vector, forward and backward through the whole stack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hwrnn.directions import flipped, last_recurrent, with_finals
from hwrnn.model import Model
from hwrnn.training.c_kernel import CKernel
from hwrnn.training.kernel import Kernel
from hwrnn.training.losses import Loss
from hwrnn.training.parameters import LayerParameters
from hwrnn.training.plan import FormatsLike

__all__ = ["Network"]

AnyKernel = Kernel | CKernel

_KERNELS = 4  # sizes of batches whose arrays are kept


class Network:
    """The stack of a model with its masters in one vector.

    Args:
        model: gives the structure and the first values.
        formats: of every layer of the stack, for training in the loop with quantization; None for float.
        dtype: float32 to train, float64 to check.
        compiled: whether it runs in compiled C, which float32 can, or in numpy.

    Attributes:
        masters: the trained numbers, (size,).
        gradient: of the loss with respect to them, after :meth:`loss_and_gradient`.
        decays: 1 where weight decay applies.
    """

    def __init__(
        self,
        model: Model,
        formats: Sequence[FormatsLike] | None = None,
        dtype: Any = np.float32,
        compiled: bool = False,
    ) -> None:
        stack = model.stack
        self.compiled = compiled
        chosen: Sequence[FormatsLike | None] = [None] * len(stack) if formats is None else formats
        self.model, self.dtype = model, np.dtype(dtype)
        self.layers = [LayerParameters(layer, f) for layer, f in zip(stack, chosen, strict=True)]
        self.input_format = None if chosen[0] is None else chosen[0].values["x"]
        ends = np.cumsum([layer.size for layer in self.layers])
        self.parts = [slice(end - layer.size, end) for end, layer in zip(ends, self.layers, strict=True)]
        join = np.concatenate
        self.masters = join([layer.packed(la) for layer, la in zip(self.layers, stack, strict=True)]).astype(self.dtype)
        self.decays = join([layer.decays for layer in self.layers]).astype(self.dtype)
        self._slope = join([layer.slope for layer in self.layers]).astype(self.dtype)
        self._intercept = join([layer.intercept for layer in self.layers]).astype(self.dtype)
        self.gradient = np.zeros_like(self.masters)
        # One entry more than there are masters: it stays zero, for the gaps in transposed matrices.
        self._effective = np.zeros(len(self.masters) + 1, self.dtype)
        self._matrices: list[dict[str, np.ndarray]] = []
        self._gradients: list[dict[str, np.ndarray]] = []
        self._transposes: list[tuple[np.ndarray, np.ndarray]] = []
        for layer, part in zip(self.layers, self.parts, strict=True):
            matrices, gradients = {}, {}
            for group in layer.layout.groups:
                at = slice(part.start + group.offset, part.start + group.offset + group.size)
                shape = layer.plan.matrices[group.matrix]
                matrices[group.matrix] = self._effective[at].reshape(shape)
                gradients[group.matrix] = self.gradient[at].reshape(shape)
            for name, (phase, operand) in layer.plan.transposes.items():
                index = layer.layout.transpose(phase, operand)
                matrices[name] = np.zeros(index.shape, self.dtype)
                self._transposes.append((np.where(index < 0, -1, index + part.start), matrices[name]))
            self._matrices.append(matrices)
            self._gradients.append(gradients)
        self._kernels: dict[tuple[int, int], list[AnyKernel]] = {}
        self._run: tuple[list[AnyKernel], np.ndarray, int] | None = None

    @property
    def quantized(self) -> bool:
        """Whether the forward pass rounds."""
        return self.input_format is not None

    def trained(self, masters: np.ndarray | None = None) -> Model:
        """The model with given masters, or the present ones."""
        vector = self.masters if masters is None else masters
        stack = [layer.unpacked(vector[part]) for layer, part in zip(self.layers, self.parts, strict=True)]
        n = len(self.model.layers)
        return replace(self.model, layers=tuple(stack[:n]), head=stack[n] if self.model.head is not None else None)

    def project(self) -> None:
        """Bring masters that left their format's range back to its edge, where the gradient can move them again."""
        for layer, part in zip(self.layers, self.parts, strict=True):
            if layer.grid is not None:
                masters = self.masters[part]
                np.minimum(np.maximum(masters, layer.grid[1], out=masters), layer.grid[2], out=masters)

    def _load(self) -> None:
        """Make the matrices of the masters."""
        if self.quantized:
            for layer, part in zip(self.layers, self.parts, strict=True):
                self._effective[part] = layer.effective(self.masters[part])
        else:
            effective = self._effective[:-1]
            np.multiply(self.masters, self._slope, effective)
            np.add(effective, self._intercept, effective)
        for index, matrix in self._transposes:
            np.take(self._effective, index, out=matrix, mode="wrap")

    def _kernels_for(self, capacity: int, batch: int) -> list[AnyKernel]:
        key = (capacity, batch)
        if key not in self._kernels:
            while len(self._kernels) >= _KERNELS:
                self._kernels.pop(next(iter(self._kernels)))
            kernels: list[AnyKernel] = []
            for k, layer in enumerate(self.layers):
                head = k == len(self.model.layers)
                steps = 1 if head and not self.model.every_step else capacity
                arrays = self._matrices[k], self._gradients[k]
                if self.compiled:
                    kernels.append(CKernel(layer, steps, batch, *arrays, whole=bool(self.model.sources(k))))
                else:
                    kernels.append(Kernel(layer.plan, steps, batch, *arrays, layer.initial))
            self._kernels[key] = kernels
        return self._kernels[key]

    def forward(self, x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Raw outputs (S, outputs, batch) of standardised ``x`` (batch, T, inputs).

        S is the largest length where the model gives every step, else 1; what stands beyond a length means nothing.
        """
        steps = int(lengths.max())
        kernels = self._kernels_for(x.shape[1], len(x))
        self._load()
        if self.input_format is not None:
            form = self.input_format
            x = np.asarray(form.dequantize(form.quantize(x)), self.dtype)
        value = x[:, :steps].transpose(1, 2, 0)
        with np.errstate(over="ignore", invalid="ignore"):
            for group in self.model.groups:
                outputs = [self._through(k, kernels[k], value, lengths) for k in group]
                value = outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=1)
                if self._takes_finals(group):
                    layers = [self.model.layers[k] for k in group]
                    value = with_finals(value.transpose(2, 0, 1), layers, lengths).transpose(1, 2, 0)
                if group[-1] + 1 == self.model.encoder:
                    value = np.broadcast_to(_last(value, lengths), value.shape)
            if not self.model.every_step:
                value = _last(value, lengths)
            if self.model.head is not None:
                value = kernels[-1].forward(value)
        self._run = kernels, lengths, steps
        return value

    def loss_and_gradient(self, x: np.ndarray, lengths: np.ndarray, targets: np.ndarray, loss: Loss) -> float:
        """The loss of a batch, its gradient left in ``gradient``; ``targets`` as ``losses.arranged`` gives them."""
        outputs = self.forward(x, lengths)
        value, slope = loss(outputs, targets, lengths if self.model.every_step else None)
        with np.errstate(over="ignore", invalid="ignore"):
            self._backward(slope)
            if not np.isfinite(np.dot(self.gradient, self.gradient)):
                assert self._run is not None
                kernels, _, steps = self._run
                for kernel in kernels[: len(self.layers) if self.model.every_step else len(self.model.layers)]:
                    kernel.forget_beyond(lengths, steps)
                self._backward(slope)
        return value

    def _through(self, layer: int, kernel: AnyKernel, value: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The output of one of ``layers`` at every step, (steps, units, batch)."""
        if not self.layers[layer].reverse:
            return kernel.forward(value)
        return _turned(kernel.forward(_turned(value, lengths)), lengths)

    def _takes_finals(self, group: tuple[int, ...]) -> bool:
        """Whether the one output for a sequence comes of the own last states of these layers."""
        return self.model.final_state and group == last_recurrent(self.model.layers)

    def _backward(self, slope: np.ndarray) -> None:
        assert self._run is not None
        kernels, lengths, steps = self._run
        model = self.model
        if model.head is not None:
            kernels[-1].output_gradient(len(slope))[...] = slope
            slope = kernels[-1].backward(len(slope))
        below = slope if model.every_step else _at_last(steps, slope[0], lengths)
        for group in reversed(model.groups):
            if self._takes_finals(group):
                below = _at_own_ends(below, [self.layers[k] for k in group], lengths)
            start, flows = 0, []
            for k in group:
                units = slice(start, start := start + self.layers[k].units)
                reverse = self.layers[k].reverse
                gradient = _turned(below[:, units], lengths) if reverse else below[:, units]
                kernels[k].output_gradient(steps)[...] = gradient
                flow = kernels[k].backward(steps)
                flows.append(_turned(flow, lengths) if reverse else flow)
            if model.sources(group[0]):
                below = flows[0] if len(flows) == 1 else np.sum(flows, axis=0)
                if group[0] == model.encoder:  # every step has read the code
                    below = _at_last(steps, below.sum(axis=0), lengths)
        np.multiply(self.gradient, np.sign(self._slope) if self.quantized else self._slope, self.gradient)


def _turned(value: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Each sequence of (steps, rows, batch) from its last step to its first."""
    return flipped(value.transpose(2, 0, 1), lengths).transpose(1, 2, 0)


def _last(value: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The vector of each sequence's last step, (1, units, batch) of (steps, units, batch)."""
    last: np.ndarray = value[lengths - 1, :, np.arange(len(lengths))].T[None]
    return last


def _at_last(steps: int, slope: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """``slope`` (units, batch) at each sequence's last step of (steps, units, batch), 0 elsewhere."""
    gradient = np.zeros((steps, *slope.shape), slope.dtype)
    gradient[lengths - 1, :, np.arange(len(lengths))] = slope.T
    return gradient


def _at_own_ends(gradient: np.ndarray, layers: Sequence[LayerParameters], lengths: np.ndarray) -> np.ndarray:
    """What ``with_finals`` has the gradient (steps, units, batch) of: that of a reverse layer belongs to step 0."""
    result, start, every = gradient.copy(), 0, np.arange(len(lengths))
    for layer in layers:
        units = slice(start, start := start + layer.units)
        if layer.reverse:
            ends = result[lengths - 1, units, every]
            result[lengths - 1, units, every] = 0
            result[0, units] += ends.T
    return result
