"""Files on their way to a visitor, in a folder that empties itself."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path

# Gradio serves a copy of its own, made as soon as a handler returns.
SECONDS_KEPT = 600


class Scratch:
    """Hands out paths; earlier ones are removed after a while, all of them with the process."""

    def __init__(self) -> None:
        parent = os.environ.get("GRADIO_TEMP_DIR")
        self._folder = tempfile.TemporaryDirectory(prefix="whence-out-", dir=parent)

    def path(self, name: str) -> Path:
        """A path of this name in a new folder of its own."""
        root = Path(self._folder.name)
        for earlier in root.iterdir():
            if time.time() - earlier.stat().st_mtime > SECONDS_KEPT:
                shutil.rmtree(earlier, ignore_errors=True)
        return Path(tempfile.mkdtemp(dir=root)) / name
