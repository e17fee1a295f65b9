"""Seeded damage to data files, .npz and .csv, for the fuzzer in ``fuzz_onnx``."""

from __future__ import annotations

import io
import random
import re
import warnings
import zipfile
from collections.abc import Callable, Sequence

import fuzz_mutators as mutators
import numpy as np

_CELLS = (
    "", "0", "-1", "1e999", "nan", "inf", "-0", "1_0", "0x10", " 3 ", '"', '""', '"a', "a", "é", "\0", "1,2", "\n",
    "\r", "9" * 400, "a" * 200_000, ",", ",,,,", "\ufeff", "٣", "1e-400", "True", "a,b,c\n",
)  # fmt: skip
_KEYS = ("x", "y", "lengths", "x_test", "y_test", "lengths_test", "z", "", "../x", "x\n", "a" * 5000)
_KINDS = (
    "<f4", "<f8", "<i8", ">i4", "|u1", "|b1", "<f2", "<c8", "|O", "<U5", "|S3", "<M8[D]", "|V7", "<i8,<f4", "x", "<f16",
)  # fmt: skip


def seeds(kind: str) -> list[tuple[str, bytes]]:
    """Whole files of a kind."""
    x = np.random.default_rng(0).normal(size=(6, 3, 2)).astype(np.float32)
    y = np.arange(6) % 2
    if kind == "csv":
        rows = "\n".join(f"{k},{k * 0.5},text" for k in range(12))
        return [("plain", f"a,b,c\n{rows}\n".encode()), ("quoted", f'"a","b, b",c\r\n\r\n{rows}'.encode())]
    found = []
    for name, arrays, write in (
        ("stored", {"x": x, "y": y}, np.savez),
        ("packed", {"x": x, "y": y, "lengths": [3, 2, 1, 3, 3, 1]}, np.savez_compressed),
        ("parts", {"x": x, "y": y, "x_test": x[:2], "y_test": y[:2]}, np.savez),
        ("values", {"x": x, "y": x[:, 0, 0]}, np.savez),
    ):
        file = io.BytesIO()
        write(file, **arrays)
        found.append((name, file.getvalue()))
    return found


def damaged_npz(files: Sequence[tuple[str, bytes]], seed: int, number: int) -> bytes:
    """An archive with bytes changed, or with sound checksums around arrays that are not."""
    rng = random.Random(seed << 40 | number)
    content, other = rng.choice(files)[1], rng.choice(files)[1]
    if rng.random() < 0.3:
        return mutators.damage_bytes(content, other, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    for _ in range(rng.choice((1, 1, 2))):
        at = rng.randrange(len(members))
        name, array = members[at]
        change = rng.randrange(8)
        if change == 0:
            members[at] = (f"{rng.choice(_KEYS)}.npy", array)
        elif change == 1:
            members.append(members[rng.randrange(len(members))])
        elif change == 2:
            members[at] = (name, mutators.damage_bytes(array, array, rng))
        elif change == 3:
            members[at] = (name, array[:128] + bytes(rng.choice((0, 8, 1 << 16))))
        elif change == 4:
            members[at] = (name, re.sub(rb"'[<>|][^']*'", repr(rng.choice(_KINDS)).encode(), array, count=1))
        else:
            sizes = tuple(rng.choice((0, 1, 2, 3, 6, *mutators.NUMBERS)) for _ in range(rng.randrange(5)))
            if change < 7:
                members[at] = (name, re.sub(rb"\([^)]*\)", repr(sizes).encode(), array, count=1))
            else:
                members[at] = (name, _array(tuple(size % 7 for size in sizes), rng))
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", rng.choice((0, zipfile.ZIP_DEFLATED))) as archive:
        warnings.simplefilter("ignore")  # names that come twice
        for name, array in members:
            archive.writestr(zipfile.ZipInfo(name), array)
    return file.getvalue()


def _array(sizes: tuple[int, ...], rng: random.Random) -> bytes:
    file = io.BytesIO()
    with np.errstate(over="ignore"):
        values = np.full(sizes, rng.choice(mutators.REALS), rng.choice(("<f4", "<f8", ">f4")))
    np.save(file, values if rng.random() < 0.5 else np.zeros(sizes, rng.choice(("<i8", "|b1", "<u2"))))
    return file.getvalue()


def damaged_csv(files: Sequence[tuple[str, bytes]], seed: int, number: int) -> bytes:
    """A text with bytes or cells changed."""
    rng = random.Random(seed << 40 | number)
    content, other = rng.choice(files)[1], rng.choice(files)[1]
    if rng.random() < 0.3:
        return mutators.damage_bytes(content, other, rng)
    lines = [line.split(",") for line in content.decode().split("\n")]
    for _ in range(rng.choice((1, 1, 2, 4))):
        line = rng.choice(lines)
        line[rng.randrange(len(line))] = rng.choice(_CELLS)
    return "\n".join(",".join(line) for line in lines).encode()


def damaged_checkpoint(files: Sequence[tuple[str, bytes]], seed: int, number: int) -> bytes:
    """A checkpoint with damage as an archive of arrays takes it, or to the JSON that it holds."""
    rng = random.Random(seed << 40 | number | 1 << 39)
    if rng.random() < 0.5:
        return damaged_npz(files, seed, number)
    with np.load(io.BytesIO(rng.choice(files)[1])) as archive:
        arrays = dict(archive)
    for _ in range(rng.choice((1, 1, 3))):
        arrays["about"] = np.array(mutators.damage_json(str(arrays["about"][()]), rng))
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def damaged_text(files: Sequence[tuple[str, bytes]], seed: int, number: int) -> bytes:
    """A JSON text with values or bytes changed."""
    rng = random.Random(seed << 40 | number)
    content = rng.choice(files)[1]
    if rng.random() < 0.3:
        return mutators.damage_bytes(content, content, rng)
    text = content.decode()
    for _ in range(rng.choice((1, 1, 2, 4))):
        text = mutators.damage_json(text, rng)
    return text.encode(errors="surrogatepass")


def damaged_keras(files: Sequence[tuple[str, bytes]], seed: int, number: int) -> bytes:
    """An archive of Keras with bytes changed, or with another description, or with other weights."""
    rng = random.Random(seed << 40 | number)
    content = rng.choice(files)[1]
    if rng.random() < 0.3:
        return mutators.damage_bytes(content, content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = rng.choice(sorted(members))
    if name.endswith(".json"):
        members[name] = mutators.damage_json(members[name].decode(), rng).encode(errors="surrogatepass")
    else:
        members[name] = mutators.damage_bytes(members[name], members[name], rng)
    if rng.random() < 0.1:
        members[rng.choice((name, "../config.json", "config.json", "x"))] = members.pop(name)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", rng.choice((0, zipfile.ZIP_DEFLATED))) as archive:
        for name, text in members.items():
            archive.writestr(zipfile.ZipInfo(name), text)
    return file.getvalue()


Mutant = Callable[[Sequence[tuple[str, bytes]], int, int], bytes]
MUTANTS: dict[str, Mutant] = {"npz": damaged_npz, "csv": damaged_csv}
