"""Time of one training step: hwrnn against the same cell in PyTorch's eager mode, side by side in one run.

Both take a batch of the same shape through forward pass, loss, backward pass, clipping of the gradient's norm and an
update by Adam, in float32 on one thread. The two alternate in short turns, so a busy machine slows both, and the
medians of the turns are compared. PyTorch's version is what one would write by hand: an explicit loop over time, the
input's product taken out of it, one matrix for all gates.

    python scripts/bench_training.py [--cell lstm] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np

from hwrnn.model import build_model
from hwrnn.training.losses import arranged, cross_entropy
from hwrnn.training.network import Network
from hwrnn.training.optimizer import AdamW, clip_norm
from hwrnn.training.threads import single_thread_blas


def ours(args: argparse.Namespace, x: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
    """One training step of hwrnn."""
    clip = args.cell_clip if args.cell == "lstm" else None
    model = build_model(args.inputs, args.classes, cell=args.cell, hidden=args.hidden, cell_clip=clip)
    network = Network(model)
    optimizer = AdamW(network.masters)
    decay = np.zeros_like(network.masters)
    lengths = np.full(len(x), x.shape[1])

    def step() -> float:
        loss = network.loss_and_gradient(x, lengths, arranged(labels, False), cross_entropy)
        clip_norm(network.gradient, 1.0)
        optimizer.update(network.masters, network.gradient, 1e-3, decay)
        return loss

    return step


def theirs(args: argparse.Namespace, x: np.ndarray, labels: np.ndarray) -> Callable[[], float]:
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

    def sigma(a: torch.Tensor) -> torch.Tensor:
        return functional.hardtanh(a * 0.25 + 0.5, 0.0, 1.0)

    def lstm() -> torch.Tensor:
        h, c = torch.zeros(len(x), units), torch.zeros(len(x), units)
        for a in source(data).unbind(1):
            block = a + state(h)
            i, f, o = sigma(block[:, : 3 * units]).chunk(3, 1)
            c = f * c + i * functional.hardtanh(block[:, 3 * units :])
            if clip is not None:
                c = functional.hardtanh(c, -clip, clip)
            h = o * functional.hardtanh(c)
        return h

    def gru() -> torch.Tensor:
        h = torch.zeros(len(x), units)
        for a in source(data).unbind(1):
            b = state(h)
            r, z = sigma(a[:, : 2 * units] + b[:, : 2 * units]).chunk(2, 1)
            n = functional.hardtanh(a[:, 2 * units :] + r * b[:, 2 * units :])
            h = n + z * (h - n)
        return h

    run = {"lstm": lstm, "gru": gru}[args.cell]

    def step() -> float:
        optimizer.zero_grad()
        loss = functional.cross_entropy(head(run()), target)
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
    times: dict[str, list[float]] = {"hwrnn": [], "pytorch": []}
    with single_thread_blas():
        steps = {"hwrnn": ours(args, x, labels), "pytorch": theirs(args, x, labels)}
        for turn in range(args.turns + 3):
            for name, step in steps.items():
                start = time.perf_counter()
                for _ in range(5):
                    step()
                if turn >= 3:  # the first turns allocate
                    times[name].append((time.perf_counter() - start) / 5)
    ms = {name: 1e3 * statistics.median(values) for name, values in times.items()}
    ratio = ms["pytorch"] / ms["hwrnn"]
    if args.json:
        print(json.dumps({"cell": args.cell, "hwrnn_ms": ms["hwrnn"], "pytorch_ms": ms["pytorch"], "ratio": ratio}))
    else:
        print(f"training step, {args.cell}: hwrnn {ms['hwrnn']:.2f} ms, PyTorch eager {ms['pytorch']:.2f} ms, "
              f"{ratio:.2f} times as fast")


if __name__ == "__main__":
    main()
