"""Pieces of C that several printers share: the frame of a source, and products by blocks over lanes.

*Lanes* are sequences worked side by side. Every array of the printed programs has them innermost, so that the compiler
turns the loop over them into vector instructions; what differs from one sequence to the next never meets.
"""

from __future__ import annotations

from hwrnn.compiler import C, native

__all__ = ["PANEL", "flags", "preamble", "product"]

#: Rows of a matrix that one pass over its columns multiplies; matrices are packed in panels of this many rows.
PANEL = 4


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
#define LOAD(address) (*(const V *)(address))
#define STORE(address, value) (*(V *)(address) = (value))
"""


def product() -> str:
    """``product``: out (rows, lanes) = [out +] panels times z (cols, lanes).

    ``panels`` holds the matrix as (rows / PANEL, cols, PANEL), padded with rows that are not written; ``lanes`` is a
    multiple of ``VL``.
    """
    # Sums start where they go on, and every partial sum is one of the exact bound's: no order of terms overflows.
    return f"""
enum {{ PANEL = {PANEL} }};

#define BLOCK(N) do {{ \\
    V s[PANEL][N]; \\
    for (int i = 0; i < PANEL; i++) \\
        for (int j = 0; j < N; j++) \\
            s[i][j] = add && i < live ? LOAD(out + (r + i) * lanes + l + j * VL) : (V){{0}}; \\
    for (long c = 0; c < cols; c++) \\
        for (int j = 0; j < N; j++) {{ \\
            const V x = LOAD(z + c * lanes + l + j * VL); \\
            for (int i = 0; i < PANEL; i++) \\
                s[i][j] += x * panel[c * PANEL + i]; \\
        }} \\
    for (int i = 0; i < PANEL; i++) \\
        if (i < live) \\
            for (int j = 0; j < N; j++) \\
                STORE(out + (r + i) * lanes + l + j * VL, s[i][j]); \\
    l += N * VL; \\
}} while (0)

static void product(int add, long rows, long cols, long lanes, const T *restrict panels, const T *restrict z,
                    T *restrict out)
{{
    for (long r = 0; r < rows; r += PANEL) {{
        const T *panel = panels + r * cols;
        const long live = rows - r;
        long l = 0;
        while (l + SIDE * VL <= lanes)
            BLOCK(SIDE);
        while (l + 2 * VL <= lanes)
            BLOCK(2);
        while (l < lanes)
            BLOCK(1);
    }}
}}
"""
