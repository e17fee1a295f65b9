"""Networks of torch as models: hwrnn's own modules, and those of ``torch.nn``."""

from __future__ import annotations

from typing import Any

from hwrnn.errors import UsageError, require
from hwrnn.model import Model

__all__ = ["from_torch"]


def from_torch(module: Any) -> Model:
    """The float model of a torch module.

    Args:
        module: a ``hwrnn.torch.Network``.

    Raises:
        UsageError: anything else.
    """
    require("torch", "torch")
    from hwrnn.torch import Network

    if isinstance(module, Network):
        return module.model()
    raise UsageError(f"Module must be a network of hwrnn.torch, not {type(module).__name__}")
