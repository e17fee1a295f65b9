"""How compiled libraries are built, kept and found again."""

import os
import re
import threading

import pytest

from hwrnn.compiler import CPP, C, compiler, compiler_available, library_cached, native, shared_library
from hwrnn.errors import UsageError

needs_compiler = pytest.mark.skipif(not (compiler_available(C) and compiler_available(CPP)), reason="no compiler")


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HWRNN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


WORDS = {"purpose": "the simulator", "instead": "choose the simulator amaranth"}
LANGUAGES = pytest.mark.parametrize("language", [C, CPP], ids=lambda language: language.option)


def number(value, count=None, language=C, flags=("-O0",)):
    """The number that a freshly loaded library gives; each build is counted."""

    def source():
        if count is not None:
            count.append(value)
        external = 'extern "C" ' if language is CPP else ""
        return f"{external}int number(void) {{ return {value}; }}"

    return shared_library("test", source, flags, key=str(value), language=language, **WORDS).number()


@needs_compiler
@LANGUAGES
def test_a_library_is_built_once(cache, language):
    built = []
    assert not library_cached("test", ("-O0",), "1", language=language)
    assert [number(value, built, language) for value in (1, 2, 1, 2)] == [1, 2, 1, 2]
    assert library_cached("test", ("-O0",), "1", language=language)
    assert built == [1, 2]
    assert len(list(cache.glob("test-*.so"))) == 2
    assert not [file for file in cache.iterdir() if file.name.startswith(".")]


@needs_compiler
@pytest.mark.parametrize(
    "damage", [lambda b: b"", lambda b: b[:100], lambda b: b[:-1], lambda b: b[:999] + b"damage" + b[1005:]]
)
def test_a_damaged_library_is_built_anew(cache, damage):
    built = []
    number(3, built)
    (file,) = cache.glob("test-*.so")
    whole = file.read_bytes()
    # As another process would leave it: under a new inode, since this one may have the old one mapped.
    file.unlink()
    file.write_bytes(damage(whole))
    assert number(3, built) == 3
    assert built == [3, 3]


@needs_compiler
def test_two_builds_at_once(cache):
    results = []
    threads = [threading.Thread(target=lambda: results.append(number(4))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [4] * 4 and len(list(cache.iterdir())) == 1


@needs_compiler
def test_old_libraries_are_forgotten(cache, monkeypatch):
    monkeypatch.setattr("hwrnn.compiler._KEPT", 2)
    for value in range(4):
        number(value)
        for file in cache.glob("test-*.so"):
            os.utime(file, (file.stat().st_atime, file.stat().st_mtime - 10))
    built = []
    assert [number(value, built) for value in (3, 2, 0)] == [3, 2, 0]
    assert built == [0]


@needs_compiler
@LANGUAGES
def test_a_source_that_does_not_compile(cache, language):
    with pytest.raises(UsageError) as error:
        shared_library("test", lambda: "int f() { return nothing; }", (), key="", language=language, **WORDS)
    text, name = str(error.value), f"{language.name} compiler {compiler(language)[0]!r}"
    assert text.startswith(f"{name} must build the simulator, but fails (model{language.suffix}:1:")
    assert "nothing" in text and "\n" not in text
    assert not list(cache.glob("*.so"))


@LANGUAGES
def test_a_compiler_for_another_machine(cache, monkeypatch, language):
    monkeypatch.setattr("hwrnn.compiler.compiler", lambda language: ("true",))
    monkeypatch.setattr("hwrnn.compiler._compiled", lambda *given: b"no library")
    told = rf"^{re.escape(language.name)} compiler 'true' must make libraries that this Python can load, but does not$"
    with pytest.raises(UsageError, match=told):
        shared_library("test", str, (), key="", language=language, **WORDS)
    assert not list(cache.glob("*.so"))


@LANGUAGES
def test_no_compiler(cache, monkeypatch, tmp_path, language):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(language.variable, raising=False)
    assert not compiler_available(language) and native(language) == ()
    assert not library_cached("test", (), "", language=language)
    with pytest.raises(UsageError) as error:
        shared_library("test", str, (), key="", language=language, **WORDS)
    name, commands = {C: ("C", "gcc or clang"), CPP: ("C++", "g++ or clang++")}[language]
    assert str(error.value) == (
        f"A {name} compiler must be installed: install {commands}, or choose the simulator amaranth"
    )


@LANGUAGES
def test_a_variable_names_the_compiler(cache, monkeypatch, language):
    monkeypatch.setenv(language.variable, "no-such-compiler -m64")
    assert compiler(language) is None
    with pytest.raises(UsageError) as error:
        shared_library("test", str, (), key="", language=language, **WORDS)
    start = f"{language.variable} must name a {language.name} compiler, not 'no-such-compiler -m64': install "
    assert str(error.value).startswith(start)


@needs_compiler
def test_a_library_for_one_cpu_is_not_loaded_on_another(cache, monkeypatch):
    """A cache folder may be carried to a machine with other instructions, where the old library would crash."""
    flags, built = native(C), []
    if not flags:
        pytest.skip("the compiler has no flag for this CPU")
    assert [number(5, built, C, flags) for _ in range(2)] == [5, 5] and built == [5]
    monkeypatch.setattr("hwrnn.compiler._macros", lambda command, option, flag: "#define __OTHER__ 1")
    assert not library_cached("test", flags, "5", language=C)
    assert number(5, built, C, flags) == 5 and built == [5, 5]
    assert number(6, built) == 6  # without the flag a library is for every CPU, and there is nothing to ask
    monkeypatch.undo()
