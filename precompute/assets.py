"""`python -m precompute assets` (`make assets`): remakes what derives from model and data.

For each world below assets/ its index, the rows of its encoders and of the gradient methods, its
saved examples, then the table of bytes. What is there already, with the right inputs and hashes, is
passed over.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from attribution import layout
from attribution.index import Index
from attribution.types import UserError
from precompute import byte_table, dtrak, encoder_rows, examples, features, index, trak

# folder below assets/ → arguments of `precompute index` beyond model, data and place
WORLDS: dict[str, tuple[str, ...]] = {
    "openclipart": ("--dataset-id", "openclipart-0.18", "--licence", "public domain"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("--root", type=Path, default=Path("assets"), help="default assets")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--no-examples", action="store_true", help="the indexes only")


def run(args: argparse.Namespace) -> None:
    """Every world in turn."""
    for name, settings in WORLDS.items():
        world = args.root / name
        if not (world / layout.MODEL / "model_index.json").is_file():
            raise UserError(f"no model in {world}: `python -m precompute train` makes it")
        before = _hash(world)
        index.run(_index_arguments(world, settings, args.device))
        for encoder in encoder_rows.ENCODERS:
            if (world / layout.ENCODERS / encoder).is_dir():
                more = ("--encoder", encoder, "--device", args.device, "--rebuild")
                features.run(_parsed(features, "--out", str(world), *more))
        for rows in (trak, dtrak):
            rows.run(_parsed(rows, "--out", str(world), "--device", args.device))
        stale = before != _hash(world) or not any((world / layout.EXAMPLES).glob("*"))
        if stale and not args.no_examples:
            more = ("--device", args.device, "--method", examples.ALL)
            examples.run(_parsed(examples, "--index", str(world), *more))
    print(byte_table.table(args.root))


def _index_arguments(world: Path, settings: tuple[str, ...], device: str) -> argparse.Namespace:
    places = ("--model", str(world / layout.MODEL), "--data", str(world), "--out", str(world))
    return _parsed(index, *places, *settings, "--device", device, "--rebuild")


def _parsed(verb: object, *arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)  # type: ignore[attr-defined]
    return parser.parse_args(arguments)


def _hash(world: Path) -> str | None:
    try:
        return Index.open(world, verify="quick").index_hash
    except UserError as error:
        print(error, file=sys.stderr)
        return None
