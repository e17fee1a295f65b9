"""The verbs of the command line, a module each: ``WORDS`` and ``EXAMPLE`` for its help, ``options(parser)`` and
``run(given)``, which calls the library, prints a table or JSON and gives the exit code.

A module imports what is heavy inside ``run``, so that ``hwrnn --help`` is instant. A new verb is a new module, and its
name below.
"""

#: In the order of the help.
VERBS = (
    "demo", "train", "evolve", "quantize", "compare", "generate", "frames", "simulate", "implement", "run", "forecast",
    "detect", "inspect", "import", "export",
)  # fmt: skip
