"""Mistakes that a person can cause, told in one sentence. Imports nothing of the project."""

import importlib
from types import ModuleType


class UsageError(ValueError):
    """A mistake that a person can cause and mend.

    The text is one sentence of the form "<Thing> must be <constraint>, not <value!r>", with the remedy
    where the constraint does not already name it. The command line prints it and exits with 2.
    """


class Diverged(UsageError):
    """A training run left the finite numbers; the text names the epoch."""


class TooLarge(UsageError):
    """A network needs more than a part has; the text says what is too large and by how much."""


class MissingExtra(UsageError):
    """An optional dependency is absent or broken; the text names the extra that brings it."""


class Damaged(ValueError):
    """What a model file must hold and does not, as the end of a sentence that begins "Model file must ...".

    Whoever reads the file makes a :class:`UsageError` of it, with the file's name and how to mend it.
    """


def shown(value: object, most: int = 60) -> str:
    """A value of a stranger's as it stands in a sentence: its ``repr`` on one line, cut after ``most`` characters."""
    text = repr(value[: most + 2] if isinstance(value, str | bytes) else value)
    return text if len(text) <= most + 3 else f"{text[:most]}..."


def plain(error: BaseException | str, most: int = 200) -> str:
    """What a library or a program says, for a sentence: printable, on one line, cut after ``most`` characters."""
    words = "".join(c if c.isprintable() else " " for c in str(error))
    return " ".join(words.split())[:most] or type(error).__name__


def require(module: str, extra: str) -> ModuleType:
    """Import the optional ``module`` (dotted name) that hwrnn's ``extra`` installs, and return it.

    Raises MissingExtra where it is not installed, or is installed and fails to import.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        remedy = f"run pip install 'hwrnn[{extra}]'"
        # A missing module of another name means that the package is there and something it needs is not.
        if isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}."):
            raise MissingExtra(f"Module {module!r} must be installed for this: {remedy}") from None
        reason = " ".join(str(error).split())
        raise MissingExtra(f"Module {module!r} must be importable, but fails ({reason}): {remedy}") from error
