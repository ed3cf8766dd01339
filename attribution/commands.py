"""What the command lines share: errors in a line, and other libraries that keep quiet."""

from __future__ import annotations

import argparse
import os
from typing import NoReturn

from attribution.types import UserError


class Parser(argparse.ArgumentParser):
    """One whose errors are a line, like all others, in the place of argparse's usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see --help)")


def one_line(error: Exception) -> str:
    """An error as it is told on stderr."""
    return " ".join(str(error).split())


def quiet_libraries() -> None:
    """To be called before they are imported, for they warn when they are: their notices would bury
    the one line that a user is owed.
    """
    for name in ("TRANSFORMERS_VERBOSITY", "DIFFUSERS_VERBOSITY"):
        os.environ.setdefault(name, "error")
