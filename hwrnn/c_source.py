"""Pieces of C that several printers share: the frame of a source, and products by blocks over lanes.

*Lanes* are sequences worked side by side. Every array of the printed programs has them innermost, so that the compiler
turns the loop over them into vector instructions; what differs from one sequence to the next never meets.
"""

from __future__ import annotations

from hwrnn.compiler import C, native

__all__ = ["PANEL", "Unprintable", "flags", "preamble", "product"]

#: Rows of a matrix that one pass over its columns multiplies; matrices are packed in panels of this many rows.
PANEL = 4


class Unprintable(Exception):
    """A layer that there is no C for; the text says why, as the end of a sentence."""


def flags() -> tuple[str, ...]:
    """The compiler's flags: every instruction of this CPU, and IEEE arithmetic except for errno and traps."""
    return ("-std=gnu11", "-O3", "-w", "-fno-math-errno", "-fno-trapping-math", *native(C))


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

static void {name}(int add, long rows, long cols, long n, long stride, const T *restrict w, const T *restrict z,
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
