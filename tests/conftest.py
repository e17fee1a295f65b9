"""Records the errors that tests meet, where ``HWRNN_MESSAGES`` names a folder: see tests/messages.py."""

import os
from pathlib import Path

if folder := os.environ.get("HWRNN_MESSAGES"):
    import messages

    messages.watch(Path(folder))
