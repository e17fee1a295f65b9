"""Pieces of C that several printers share: the frame of a source, and products by blocks over lanes.

*Lanes* are sequences worked side by side. Every array of the printed programs has them innermost, so that the compiler
turns the loop over them into vector instructions; what differs from one sequence to the next never meets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from hwrnn.compiler import C, native

__all__ = [
    "LONGEST", "MOVES", "PANEL", "TANGENT", "Unprintable", "flags", "floor_shift", "preamble", "product", "smooth",
]  # fmt: skip

#: Rows of a matrix that one pass over its columns multiplies; matrices are packed in panels of this many rows.
PANEL = 4


#: Knots that a value is compared with one after another; with more of them its piece is searched by halving.
LONGEST = 16


class Unprintable(Exception):
    """A layer that there is no C for; the text says why, as the end of a sentence."""


def flags() -> tuple[str, ...]:
    """The compiler's flags: every instruction of this CPU, and IEEE arithmetic except for errno and traps."""
    return ("-std=gnu11", "-O3", "-fno-unswitch-loops", "-w", "-fno-math-errno", "-fno-trapping-math", *native(C))


def floor_shift(name: str, kind: str, count: str) -> str:
    """A function in C99 that shifts whole numbers of a type to the right, without undefined behaviour."""
    return f"""
/* Divided by a power of two, rounded towards minus infinity; C leaves >> of what is negative to the compiler. */
static inline {kind} {name}({kind} value, {count} n)
{{
#if (-3 >> 1) == -2
    return value >> n;
#else
    return value < 0 ? ~(~value >> n) : value >> n;
#endif
}}
"""


def preamble(number: str) -> str:
    """The head of a source whose numbers ``T`` are of a C type; ``V`` is a vector of ``VL`` of them."""
    return f"""#include <stdint.h>
#include <string.h>
#include <math.h>

typedef {number} T;
#if defined(__AVX512F__)
enum {{ BYTES = 64, SIDE = 4 }};
#elif defined(__AVX__)
enum {{ BYTES = 32, SIDE = 2 }};
#else
enum {{ BYTES = 16, SIDE = 2 }};
#endif
enum {{ VL = BYTES / sizeof(T) }};
typedef T V __attribute__((vector_size(BYTES), aligned(sizeof(T)), may_alias));
#if defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif
#if defined(__x86_64__)
#define IN_REGISTER(x) __asm__("" : "+x"(x)) /* a value that is used often, and not an operand in memory each time */
#else
#define IN_REGISTER(x) (void)0
#endif
#define APART static __attribute__((noinline, noclone)) /* copies for special cases only take time to compile */
enum {{ PANEL = {PANEL} }};
#define LOAD(address) (*(const V *)(address))
#define STORE(address, value) (*(V *)(address) = (value))
"""


def product(name: str = "product", weight: str = "w[r * cols + c * PANEL + i]") -> str:
    """``name``: out (rows, n) = [out +] a matrix (rows, cols) times z (cols, n).

    ``n`` is a multiple of ``VL``; rows of z and of out are ``stride`` apart. ``w`` holds the matrix in panels, (rows /
    PANEL, cols, PANEL), padded with rows that are not written; or ``weight`` says where row ``r + i`` and column ``c``
    stand.
    """
    # A sum that is added to starts with what it is added to, so that every partial sum lies within exact bounds.
    return f"""
#define BLOCK(N) do {{ \\
    V s[PANEL][N], x[N]; \\
    for (int i = 0; i < PANEL; i++) \\
        for (int j = 0; j < N; j++) \\
            s[i][j] = add && i < live ? LOAD(out + (r + i) * stride + l + j * VL) : (V){{0}}; \\
    for (long c = 0; c < cols; c++) {{ \\
        for (int j = 0; j < N; j++) {{ \\
            x[j] = LOAD(z + c * stride + l + j * VL); \\
            IN_REGISTER(x[j]); \\
        }} \\
        for (int i = 0; i < PANEL; i++) \\
            for (int j = 0; j < N; j++) \\
                s[i][j] += x[j] * {weight}; \\
    }} \\
    for (int i = 0; i < PANEL; i++) \\
        if (i < live) \\
            for (int j = 0; j < N; j++) \\
                STORE(out + (r + i) * stride + l + j * VL, s[i][j]); \\
    l += N * VL; \\
}} while (0)

APART void {name}(int add, long rows, long cols, long n, long stride, const T *restrict w, const T *restrict z,
    T *restrict out)
{{
    for (long r = 0; r < rows; r += PANEL) {{
        const long live = rows - r;
        long l = 0;
        while (l + SIDE * VL <= n)
            BLOCK(SIDE);
        if (SIDE > 3 && l + 3 * VL <= n)
            BLOCK(3);
        if (l + 2 * VL <= n)
            BLOCK(2);
        if (l < n)
            BLOCK(1);
    }}
}}
#undef BLOCK
"""


class _Symbol:
    """A number of the printed program: a smooth function's own lines say what it is in C."""

    _FUNCTIONS: ClassVar = {"tanh": "tangent", "exp": "expf", "sqrt": "sqrtf", "absolute": "fabsf", "negative": "-",
                            "expm1": "expm1f", "log1p": "log1pf"}  # fmt: skip
    _INFIX: ClassVar = {"add": "+", "subtract": "-", "multiply": "*", "divide": "/", "less": "<", "less_equal": "<="}
    _CHOICES: ClassVar = {"maximum": "<", "minimum": ">"}

    def __init__(self, text: str) -> None:
        self.text = text

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **options: Any) -> _Symbol:
        names = [a.text if isinstance(a, _Symbol) else f"{float(a)!r}f" for a in args]
        if method == "__call__" and not options:
            if ufunc.__name__ in self._INFIX:
                return _Symbol(f"({names[0]} {self._INFIX[ufunc.__name__]} {names[1]})")
            if ufunc.__name__ in self._CHOICES:  # what is not a number stays so
                first, second = names if isinstance(args[0], _Symbol) else names[::-1]
                return _Symbol(f"({first} {self._CHOICES[ufunc.__name__]} {second} ? {second} : {first})")
            if ufunc.__name__ in self._FUNCTIONS:
                return _Symbol(f"{self._FUNCTIONS[ufunc.__name__]}({names[0]})")
        raise Unprintable(f"{ufunc.__name__!r} has no counterpart in C")

    def _with(self, ufunc: np.ufunc, *args: Any) -> _Symbol:
        return self.__array_ufunc__(ufunc, "__call__", *args)

    def __add__(self, other: Any) -> _Symbol:
        return self._with(np.add, self, other)

    def __radd__(self, other: Any) -> _Symbol:
        return self._with(np.add, other, self)

    def __sub__(self, other: Any) -> _Symbol:
        return self._with(np.subtract, self, other)

    def __rsub__(self, other: Any) -> _Symbol:
        return self._with(np.subtract, other, self)

    def __mul__(self, other: Any) -> _Symbol:
        return self._with(np.multiply, self, other)

    def __rmul__(self, other: Any) -> _Symbol:
        return self._with(np.multiply, other, self)

    def __neg__(self) -> _Symbol:
        return self._with(np.negative, self)

    def __truediv__(self, other: Any) -> _Symbol:
        return self._with(np.divide, self, other)

    def __rtruediv__(self, other: Any) -> _Symbol:
        return self._with(np.divide, other, self)


def smooth(function: Callable[[Any], Any], x: str) -> str:
    """What a function of a float array, such as a ``Smooth`` one's, computes of a C variable.

    Raises:
        Unprintable: a function of numpy that has no counterpart here.
    """
    try:
        result = function(_Symbol(x))
    except (TypeError, AttributeError) as error:
        raise Unprintable("a smooth function does what has no counterpart in C") from error
    if not isinstance(result, _Symbol):
        raise Unprintable("a smooth function gives no number of C")
    return result.text


#: ``tangent``, the hyperbolic one, within two units in the last place. S. L. Moshier, Cephes, tanhf and expf.
TANGENT = """
static inline T tangent(T x)
{
    const T size = fabsf(x) < 9.1f ? fabsf(x) : 9.1f, square = x * x;
    const T small = ((((-5.70498872745e-3f * square + 2.06390887954e-2f) * square - 5.37397155531e-2f) * square
                      + 1.33314422036e-1f) * square - 3.33332819422e-1f) * square * x + x;
    const T twice = 2.0f * size, whole = floorf(1.44269504088896341f * twice + 0.5f);
    const T rest = (twice - whole * 0.693359375f) + whole * 2.12194440e-4f;
    const T power = (((((1.9875691500e-4f * rest + 1.3981999507e-3f) * rest + 8.3334519073e-3f) * rest
                       + 4.1665795894e-2f) * rest + 1.6666665459e-1f) * rest + 5.0000001201e-1f) * rest * rest
                    + rest + 1.0f;
    union { int32_t i; T f; } scale = { .i = ((int32_t)whole + 127) << 23 };
    const T large = 1.0f - 2.0f / (power * scale.f + 1.0f);
    return x != x ? x : fabsf(x) < 0.625f ? small : x < 0.0f ? -large : large;
}
"""

#: Moves between the layouts of matrices.
MOVES = """
#define UP(n) (((n) + VL - 1) / VL * VL)

/* A matrix (rows, cols) in panels, rows of zero where it has none. */
APART void pack(long rows, long cols, const T *restrict matrix, T *restrict panels)
{
    for (long r = 0; r < rows; r += PANEL)
        for (long c = 0; c < cols; c++)
            for (long i = 0; i < PANEL; i++)
                panels[r * cols + c * PANEL + i] = r + i < rows ? matrix[(r + i) * cols + c] : 0;
}

/* z (rows, lanes) with lanes outside; what fills a row up to its stride stays as it is. */
APART void transpose(long rows, long lanes, long stride, const T *restrict z, T *restrict to)
{
    for (long l = 0; l < lanes; l += 4)
        for (long r = 0; r < rows; r++)
            for (long i = 0; i < 4; i++)
                to[(l + i) * stride + r] = z[r * lanes + l + i];
}

APART void put(long rows, long cols, long stride, const T *restrict from, T *restrict to)
{
    for (long r = 0; r < rows; r++)
        for (long c = 0; c < cols; c++)
            to[r * cols + c] = from[r * stride + c];
}

long width(void) { return VL; }
"""
