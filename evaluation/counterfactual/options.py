"""What the command lines of leave-K-out's verbs share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from attribution.arguments import count
from precompute.counterfactual import STRIDE

INDEX = Path("assets/proof")
QUERIES = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every verb that retrains."""
    parser.set_defaults(index=INDEX, place=[], anew=False, recorded=False)
    add = parser.add_argument
    add("--steps", type=count(), help="DDIM steps; default: as recommended for the model")
    add("--guidance", type=float, help="guidance scale; default: as recommended")
    stride = f"between a loss's timesteps; default {STRIDE}"
    add("--stride", type=count(), default=STRIDE, metavar="N", help=stride)
    add(
        "--workers",
        type=count(0),
        default=os.cpu_count(),
        metavar="N",
        help="processes of one thread each; 0: none but this one; default: one a core",
    )


def add_answering(parser: argparse.ArgumentParser) -> None:
    """The same, and whose answers count: of every verb that asks methods."""
    add_arguments(parser)
    parser.add_argument(
        "--place",
        type=_place,
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="a copy of the index with other extras, for arms like trak@NAME",
    )
    whose = parser.add_mutually_exclusive_group()
    anew = "let answers from other rows or settings take the place of those that were retrained for"
    whose.add_argument("--anew", action="store_true", help=anew)
    recorded = "the answers that the lines hold, and no others: an index as it is shipped will do"
    whose.add_argument("--recorded", action="store_true", help=recorded)


def _place(text: str) -> tuple[str, Path]:
    name, sign, folder = text.partition("=")
    if not sign or not name.isalnum():
        raise argparse.ArgumentTypeError("NAME=DIR, NAME of letters and digits")
    return name, Path(folder)
