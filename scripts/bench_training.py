"""Time of one training step: hwrnn in C and in numpy against the same cell in PyTorch's eager mode, in one run.

All take a batch of the same shape through forward pass, loss, backward pass, clipping of the gradient's norm and an
update by Adam, in float32 on one thread; once in float, once with quantization in the loop at 8 bits. They alternate in
short turns, the medians of the turns are compared, and what counts is the processor's time of this process (with one
thread the time that passes, unless others keep the machine busy). PyTorch's version is what one would
write by hand: an explicit loop over time, the input's product taken out of it, one matrix for all gates; with
quantization every weight and every value that hwrnn stores goes through ``fake_quantize_per_tensor_affine``, of all
gates of a kind at once.

    python scripts/bench_training.py [--cell lstm] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from hwrnn.calibration import calibrate
from hwrnn.formats import Widths, choose_formats
from hwrnn.model import build_model
from hwrnn.quantization import with_hardware_functions
from hwrnn.training import c_kernel
from hwrnn.training.losses import arranged, cross_entropy
from hwrnn.training.network import Network
from hwrnn.training.optimizer import AdamW, clip_norm
from hwrnn.training.threads import single_thread_blas

BITS = 8


def ours(
    args: argparse.Namespace, x: np.ndarray, labels: np.ndarray, quantized: bool, compiled: bool
) -> Callable[[], float]:
    """One training step of hwrnn."""
    clip = args.cell_clip if args.cell == "lstm" else None
    model, formats = build_model(args.inputs, args.classes, cell=args.cell, hidden=args.hidden, cell_clip=clip), None
    lengths = np.full(len(x), x.shape[1])
    if quantized:
        formats = choose_formats(model, calibrate(model, SimpleNamespace(x=x, lengths=lengths)), Widths.of(BITS))
        model = with_hardware_functions(model, formats)
    network = Network(model, formats, compiled=compiled)
    optimizer = AdamW(network.masters)
    decay = np.zeros_like(network.masters)

    def step() -> float:
        loss = network.loss_and_gradient(x, lengths, arranged(labels, False), cross_entropy)
        clip_norm(network.gradient, 1.0)
        optimizer.update(network.masters, network.gradient, 1e-3, decay)
        if quantized:
            network.project()
        return loss

    return step


def first_call(args: argparse.Namespace, x: np.ndarray, labels: np.ndarray, quantized: bool) -> float:
    """Seconds until the first step is done where nothing has been compiled yet."""
    before = os.environ.get("HWRNN_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HWRNN_CACHE"] = folder
        c_kernel._LIBRARIES.clear()
        start = time.perf_counter()
        ours(args, x, labels, quantized, True)()
        seconds = time.perf_counter() - start
    os.environ.pop("HWRNN_CACHE")
    if before is not None:
        os.environ["HWRNN_CACHE"] = before
    return seconds


def theirs(args: argparse.Namespace, x: np.ndarray, labels: np.ndarray, quantized: bool) -> Callable[[], float]:
    """One training step of PyTorch's eager mode."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(1)
    units, clip = args.hidden, args.cell_clip
    gates = {"lstm": 4, "gru": 3}[args.cell]
    source, state = torch.nn.Linear(args.inputs, gates * units), torch.nn.Linear(units, gates * units)
    head = torch.nn.Linear(units, args.classes)
    parameters = [p for layer in (source, state, head) for p in layer.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=1e-3)
    data, target = torch.from_numpy(x), torch.from_numpy(labels)

    def to(a: torch.Tensor, frac: int, bits: int = BITS, signed: bool = True) -> torch.Tensor:
        if not quantized:
            return a
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        return torch.fake_quantize_per_tensor_affine(a, 2.0**-frac, 0, low, high)

    def linear(a: torch.Tensor, layer: torch.nn.Linear) -> torch.Tensor:
        return functional.linear(a, to(layer.weight, BITS - 1), layer.bias)

    def sigma(a: torch.Tensor) -> torch.Tensor:
        return to(functional.hardtanh(to(a, BITS - 1, BITS + 3) * 0.25 + 0.5, 0.0, 1.0), BITS, signed=False)

    def phi(a: torch.Tensor) -> torch.Tensor:
        return to(functional.hardtanh(a), BITS - 1)

    def lstm() -> torch.Tensor:
        h, c = torch.zeros(len(x), units), torch.zeros(len(x), units)
        for a in linear(to(data, BITS - 3), source).unbind(1):
            block = a + linear(h, state)
            i, f, o = sigma(block[:, : 3 * units]).chunk(3, 1)
            c = f * c + i * phi(to(block[:, 3 * units :], BITS, BITS + 3))
            if clip is not None:
                c = functional.hardtanh(c, -clip, clip)
            c = to(c, BITS, BITS + 4)
            h = to(o * phi(c), BITS - 1)
        return h

    def gru() -> torch.Tensor:
        h = torch.zeros(len(x), units)
        for a in linear(to(data, BITS - 3), source).unbind(1):
            b = linear(h, state)
            r, z = sigma(a[:, : 2 * units] + b[:, : 2 * units]).chunk(2, 1)
            n = phi(to(a[:, 2 * units :], BITS, BITS + 3) + r * to(b[:, 2 * units :], BITS - 1, BITS + 2))
            h = to(n + z * (h - n), BITS - 1)
        return h

    run = {"lstm": lstm, "gru": gru}[args.cell]

    def step() -> float:
        optimizer.zero_grad()
        loss = functional.cross_entropy(to(linear(run(), head), BITS, 2 * BITS), target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss.item()

    return step


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", choices=["lstm", "gru"], default="lstm")
    for name, value in (("inputs", 12), ("hidden", 32), ("batch", 64), ("steps", 30), ("classes", 9), ("turns", 40)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--cell-clip", type=float, default=None)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    x = rng.standard_normal((args.batch, args.steps, args.inputs), dtype=np.float32)
    labels = rng.integers(0, args.classes, args.batch)
    results = {}
    with single_thread_blas():
        for quantized in (False, True):
            steps = {
                "c": ours(args, x, labels, quantized, True),
                "numpy": ours(args, x, labels, quantized, False),
                "pytorch": theirs(args, x, labels, quantized),
            }
            times: dict[str, list[float]] = {name: [] for name in steps}
            for turn in range(args.turns + 3):
                for name, step in steps.items():
                    start = time.process_time()
                    for _ in range(5):
                        step()
                    if turn >= 3:  # the first turns allocate
                        times[name].append((time.process_time() - start) / 5)
            ms = {f"{name}_ms": 1e3 * statistics.median(values) for name, values in times.items()}
            ms["ratio"] = ms["pytorch_ms"] / ms["c_ms"]
            ms["first_call_s"] = first_call(args, x, labels, quantized)
            results["quantized" if quantized else "float"] = ms
    if args.json:
        print(json.dumps({"cell": args.cell, **results}))
        return
    for kind, ms in results.items():
        print(
            f"training step, {args.cell}, {kind}: hwrnn in C {ms['c_ms']:.2f} ms"
            f" (first call {ms['first_call_s']:.1f} s), in numpy {ms['numpy_ms']:.2f} ms,"
            f" PyTorch eager {ms['pytorch_ms']:.2f} ms:"
            f" {ms['ratio']:.1f} times as fast"
        )


if __name__ == "__main__":
    main()
