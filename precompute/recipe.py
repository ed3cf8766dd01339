"""`python -m precompute recipe openclipart --out DIR`: makes a training set from public sources.

openclipart: public-domain drawings of Debian's openclipart-svg, about two minutes on two cores.
Needs `apt-get install openclipart-svg fonts-dejavu-core` and the Python package resvg_py. The same
sources and library versions give the same bytes.

proof: `python -m precompute recipe proof --source assets/openclipart --out assets/proof`, about
1,000 of those drawings at 32 px, a set to retrain on in a minute.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from attribution.arguments import count
from attribution.types import UserError

RECIPES = ("openclipart", "proof")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which set, where it goes, and where its sources lie."""
    parser.add_argument("name", choices=RECIPES, help="the training set")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--source",
        type=Path,
        metavar="DIR",
        help="SVG folder, if not Debian's; of proof: a set or index",
    )
    parser.add_argument("--workers", type=count(), default=2, help="rendering processes; default 2")


def run(args: argparse.Namespace) -> None:
    """Makes the set and prints its counts.

    Raises:
        UserError: the sources are not installed.
    """
    counts = (_proof if args.name == "proof" else _openclipart)(args)
    keys = ("drawings", "collages", "held_out", "artists")
    print(", ".join(f"{counts[key]} {key.replace('_', '-')}" for key in keys), "→", args.out)


def _openclipart(args: argparse.Namespace) -> dict[str, object]:
    from precompute.recipes.openclipart import SVG_ROOT, build

    try:
        return build(args.out, root=args.source or SVG_ROOT, workers=args.workers)
    except FileNotFoundError as error:
        raise UserError(str(error)) from error


def _proof(args: argparse.Namespace) -> dict[str, object]:
    from precompute.recipes import proof

    if args.source is None:
        raise UserError("--source is needed: the set or index the drawings come from")
    return proof.build(args.out, args.source)
