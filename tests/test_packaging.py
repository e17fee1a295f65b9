"""What an installed hwrnn consists of: built, looked into, installed into a fresh environment, imported."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "hwrnn": ROOT / "hwrnn",
    "hwrnn/commands": ROOT / "hwrnn/commands",
    "hwrnn/training": ROOT / "hwrnn/training",
    "hwrnn/datasets": ROOT / "hwrnn/datasets",
    "hwrnn/importing": ROOT / "hwrnn/importing",
    "hwrnn/rtl": ROOT / "rtl",
    "hwrnn/sim": ROOT / "sim",
}
KEPT = {".py", ".npz", ".md", ".typed", ".c", ".cpp", ".h", ".v", ".sv", ".vlt", ".tcl"}


def run(*command: str | Path, **options) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, **options
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """The wheel, made from the source archive as `build` does by default, and that archive."""
    out = tmp_path_factory.mktemp("dist")
    # From a copy: setuptools leaves build/ and an egg-info beside the sources, and stale ones hide faults.
    tree = tmp_path_factory.mktemp("tree") / "hwrnn"
    listed = run("git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split(
        "\0"
    )
    for name in filter(None, listed):
        target = tree / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            target.symlink_to(os.readlink(ROOT / name))
        elif (ROOT / name).exists():
            target.write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, tree)
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def due_files() -> set[str]:
    """Every file that each sub-package holds in the tree, under its installed name."""
    return {
        f"{package}/{file.name}"
        for package, folder in PACKAGES.items()
        for file in folder.iterdir()
        if file.is_file() and file.suffix in KEPT
    }


def test_every_folder_with_modules_is_a_listed_package():
    folders = {
        folder
        for package in PACKAGES.values()
        for folder in [package, *package.rglob("*")]
        if folder.is_dir() and any(folder.glob("*.py"))
    }
    assert {folder.resolve() for folder in folders} == {folder.resolve() for folder in PACKAGES.values()}


def test_wheel_is_complete_and_keeps_to_its_name(built):
    with zipfile.ZipFile(built[0]) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names} == {"hwrnn", "hwrnn-0.1.0.dist-info"}
    assert due_files() <= names
    assert {
        "hwrnn/py.typed",
        "hwrnn/datasets/japanese_vowels_q13.npz",
        "hwrnn/datasets/japanese_vowels.md",
    } <= names
    assert "hwrnn-0.1.0.dist-info/licenses/LICENSE" in names


def test_source_archive_is_complete(built):
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "rtl/__init__.py", "sim/__init__.py"} <= names
    assert "hwrnn/datasets/japanese_vowels_q13.npz" in names


def test_installed_wheel_imports_without_the_tree(built, tmp_path):
    run(sys.executable, "-m", "venv", tmp_path / "v")
    python = tmp_path / "v" / "bin" / "python"
    run(python, "-m", "pip", "install", "--no-deps", "--no-index", built[0])
    # Dependencies come from the outer environment, behind the fresh one, where hwrnn has to be found first.
    code = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "import hwrnn, hwrnn.rtl, hwrnn.sim, hwrnn.training\n"
        "from hwrnn.data import load_dataset\n"
        "assert load_dataset('japanese-vowels').outputs == 9\n"
        "print(hwrnn.__file__, hwrnn.rtl.__file__, hwrnn.sim.__file__, sep='\\n')\n"
    )
    found = run(python, "-I", "-c", code, sysconfig.get_path("purelib"), cwd=tmp_path).split()
    assert len(found) == 3
    assert all(Path(file).is_relative_to(tmp_path / "v") for file in found)
