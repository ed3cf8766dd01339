"""Types of arguments that several verbs share, for argparse."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from attribution.validate import listed


def count(least: int = 1) -> Callable[[str], int]:
    """Reads whole numbers from `least`."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"a whole number, not {text!r}") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"a whole number from {least}, not {number}")
        return number

    return read


def counts(text: str) -> list[int]:
    """Reads '5,10,35': whole numbers from 1 in ascending order, each once."""
    found = sorted(set(map(count(), listed(text))))
    if not found:
        raise argparse.ArgumentTypeError("whole numbers from 1, separated by commas")
    return found


def names(text: str) -> list[str]:
    """Reads 'a,b': names in their order, each once; at least one."""
    found = list(dict.fromkeys(listed(text)))
    if not found:
        raise argparse.ArgumentTypeError("nothing is named")
    return found
