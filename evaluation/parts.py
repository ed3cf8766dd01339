"""`--part I/N`: every Nth unit of a verb's work, for N processes that share one results file."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def add_argument(parser: argparse.ArgumentParser) -> None:
    """The argument `--part`."""
    told = "every Nth of them, for N processes"
    parser.add_argument("--part", type=_part, default=(1, 1), metavar="I/N", help=told)


def own(args: argparse.Namespace, units: Sequence[T]) -> Sequence[T]:
    """Those of `units` that are this process's."""
    part, parts = args.part
    return units[part - 1 :: parts]


def _part(text: str) -> tuple[int, int]:
    """'2/4' → (2, 4); only with 1 <= I <= N."""
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"I/N with 1 <= I <= N, not {text!r}")
    return int(found[1]), int(found[2])
