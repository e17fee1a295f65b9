"""Values of a traced forward pass: how far in the row of layers they stand, what their axes mean, what moves axes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hwrnn.importing.chains import Chain
from hwrnn.importing.torch_functions import Refused

__all__ = ["SHAPING", "Axes", "Other", "View"]

#: Methods of :class:`Axes` that torch calls by the same names.
SHAPING = {
    "transpose", "swapaxes", "permute", "unsqueeze", "squeeze", "flatten", "reshape", "view", "select", "getitem",
}  # fmt: skip


@dataclass(frozen=True)
class View:
    """A value that depends on the input.

    Attributes:
        stage: how many steps of the row have been taken; only the newest value can go on.
        axes: the meaning of each axis: ``batch``, ``time``, ``feature``, ``state`` (layers times directions) or, while
            it is not known, ``axis0`` and so on of the input.
        steps: ``all``, ``last`` (the output at the last step) or ``final`` (each direction's own last state).
        entries: of states, which (layer, direction) they are.
        packed: whether sequences are packed.
    """

    stage: int
    axes: tuple[str, ...]
    steps: str = "all"
    entries: tuple[tuple[int, int], ...] = ()
    packed: bool = False


class Other:
    """A value that is known without the input's numbers: a size, a device, zeros, lengths."""

    def __init__(self, kind: str) -> None:
        self.kind = kind


class Axes:
    """What is known of the axes of a network's values, while its graph is read.

    Attributes:
        chain: the layers so far.
        stage: how many steps of the row have been taken.
        roles: what the input's axes have turned out to be.
        entries: (layer, direction) of the states of the newest recurrent module.
        lengths: whether lengths are given to the forward pass.
        scores: whether a softmax was met, behind which nothing may come any more.
        grown: whether an axis of features was put behind the input.
    """

    def __init__(self) -> None:
        self.chain, self.stage = Chain(), 0
        self.roles: dict[str, str] = {}
        self.entries: tuple[tuple[int, int], ...] = ()
        self.lengths = self.scores = self.grown = False

    def refused(self, what: str) -> Any:
        raise Refused(f"not {what}, which hwrnn does not understand")

    def learn(self, own: str, role: str) -> None:
        if own.startswith("axis") and own not in self.roles and role not in self.roles.values():
            self.roles[own] = role

    def read(self, x: View) -> View:
        return replace(x, axes=tuple(self.roles.get(a, a) for a in x.axes))

    def newest(self, x: Any) -> None:
        if not isinstance(x, View):
            self.refused(f"go on from a {type(x).__name__ if not isinstance(x, Other) else x.kind}")
        if x.stage != self.stage:
            raise Refused("be one row of layers, without branches and connections past them")
        if self.scores:
            raise Refused("end with its softmax")

    def next(self, x: View) -> View:
        self.stage += 1
        return replace(x, stage=self.stage)

    def features(self, x: View, what: str) -> View:
        """A view whose last axis is the features of what the chain computes."""
        self.newest(x)
        self.learn(x.axes[-1], "feature")
        x = self.read(x)
        if x.axes[-1] != "feature" or "state" in x.axes or x.packed:
            raise Refused(f"apply {what} to the features of sequences or of their ends")
        if x.entries:
            x = self.whole(x)
        return x

    def whole(self, x: View) -> View:
        """States, where they are those of the last layer's every direction."""
        last = max(k for k, _ in self.entries)
        due = tuple(e for e in self.entries if e[0] == last)
        if x.entries != due:
            names = ", ".join(f"h_n[{self.entries.index(e)}]" for e in due)
            raise Refused(f"read the last layer's states of all directions in order ({names})")
        return replace(x, entries=())

    def at(self, x: View, dim: Any) -> int:
        if not isinstance(dim, int):
            self.refused("choose an axis by a number that it computes")
        return dim % len(x.axes)

    def transpose(self, x: View, dim0: int, dim1: int) -> View:
        axes, a, b = list(x.axes), self.at(x, dim0), self.at(x, dim1)
        axes[a], axes[b] = axes[b], axes[a]
        return replace(x, axes=tuple(axes))

    swapaxes = transpose

    def permute(self, x: View, *dims: Any) -> View:
        order = dims[0] if len(dims) == 1 else dims
        return replace(x, axes=tuple(x.axes[self.at(x, d)] for d in order))

    def unsqueeze(self, x: View, dim: int) -> View:
        if x.stage == 0 and x.axes == ("axis0", "axis1", "axis2") and dim in (-1, 2):
            self.grown = True
            return x
        return self.refused("unsqueeze anything but an input of single numbers")

    def squeeze(self, x: View, dim: Any = None) -> View:
        if dim is not None:
            at = self.at(x, dim)
            if x.axes[at] == "state" and len(x.entries) == 1:
                return replace(x, axes=(*x.axes[:at], *x.axes[at + 1 :]))
            if x.axes[at] == "feature" and self.chain.width == 1:
                return replace(x, axes=(*x.axes[:at], *x.axes[at + 1 :]))
        return self.refused("squeeze an axis that may be longer than 1")

    def flatten(self, x: View, start_dim: int = 0, end_dim: int = -1) -> View:
        start, end = self.at(x, start_dim), self.at(x, end_dim)
        if start == end:
            return x
        if (start, end) == (1, 2) and x.axes == ("batch", "state", "feature"):
            return replace(x, axes=("batch", "feature"))
        return self.refused("flatten axes of time or of the batch")

    def reshape(self, x: View, *shape: Any) -> View:
        sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
        if len(sizes) == 2 and x.axes == ("batch", "state", "feature"):
            return replace(x, axes=("batch", "feature"))
        if len(sizes) == 2 and x.axes == ("batch", "feature"):
            return x
        return self.refused("reshape a value")

    view = reshape

    def select(self, x: View, dim: int, index: Any) -> View:
        at = self.at(x, dim)
        return self.getitem(x, (*[slice(None)] * at, index))

    def getitem(self, x: View, key: Any) -> View:
        x = self.read(x)
        keys = key if isinstance(key, tuple) else (key,)
        if Ellipsis in keys:
            k = keys.index(Ellipsis)
            keys = (*keys[:k], *[slice(None)] * (len(x.axes) - len(keys) + 1), *keys[k + 1 :])
        axes = list(x.axes)
        for place, own in reversed(list(enumerate(keys))):
            if own == slice(None):
                continue
            if axes[place] == "state" and isinstance(own, int):
                x = replace(x, entries=(x.entries[own],))
                del axes[place]
            elif axes[place] == "time" and own == -1 and x.steps == "all" and not self.lengths:
                x = replace(x, steps="last")
                del axes[place]
            else:
                what = f"[{', '.join(map(str, keys))}] of axes {', '.join(axes)}"
                if axes[place] == "time" and self.lengths:
                    what += ", where shorter sequences have no output"
                return self.refused(f"take {what}")
        return replace(x, axes=tuple(axes))

    def cat(self, tensors: Any, dim: Any = 0, axis: Any = None) -> View:
        dim = dim if axis is None else axis
        for x in tensors:
            self.newest(x)
        views = [self.read(x) for x in tensors]
        if any(v.steps != "final" or v.axes != ("batch", "feature") or len(v.entries) != 1 for v in views):
            return self.refused("cat anything but the last states of both directions")
        if self.at(views[0], dim) != 1:
            raise Refused("cat the last states along the features")
        return replace(views[0], entries=tuple(e for v in views for e in v.entries))
