"""Matrix products on one thread: those of recurrent networks are too small to share."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any

__all__ = ["single_thread_blas"]


@cache
def _openblas() -> tuple[Any, Any] | None:
    """OpenBLAS' setter and getter of the number of threads, as numpy itself is linked to; None where there is none."""
    library = None
    for package in ("numpy._core", "numpy.core"):  # numpy 2 and 1
        try:
            # Looked up through numpy's own extension, so another OpenBLAS in the process is not mistaken for it.
            library = ctypes.CDLL(import_module(f"{package}._multiarray_umath").__file__)
            break
        except (ImportError, OSError):
            continue
    if library is None:
        return None
    for prefix in ("scipy_", ""):
        for suffix in ("64_", "", "_64", "64"):
            name = f"{prefix}openblas_{{}}_num_threads{suffix}"
            try:
                put, get = getattr(library, name.format("set")), getattr(library, name.format("get"))
            except AttributeError:
                continue
            put.argtypes, put.restype = [ctypes.c_int], None
            get.argtypes, get.restype = [], ctypes.c_int
            return put, get
    return None


@contextmanager
def single_thread_blas() -> Iterator[bool]:
    """Let numpy's OpenBLAS use one thread inside the block; does nothing where numpy uses another library.

    Yields whether it took effect.
    """
    functions = _openblas()
    if functions is None:
        yield False
        return
    put, get = functions
    before = get()
    put(1)
    try:
        yield True
    finally:
        put(before)
