"""`python -m precompute assets` (`make assets`): remakes what derives from model and data.

For each world that is there below assets/ its index, the rows of its encoders and of the gradient
methods, the curvature of `abu-kfac`, its saved examples, then the table of bytes. What is there
already, with the right inputs and hashes, is passed over.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

from attribution import layout
from attribution.index import Index
from attribution.types import UserError
from precompute import byte_table, dtrak, encoder_rows, examples, features, index, trak, variants


@dataclass(frozen=True)
class World:
    """index: arguments of `precompute index` beyond model, data and place. rows: of `trak` and
    `dtrak`. examples: whether answers are saved with it.
    """

    index: tuple[str, ...]
    rows: tuple[str, ...] = ()
    examples: bool = True


_SOURCE = ("--dataset-id", "openclipart-0.18", "--licence", "public domain")
# By folder below assets/. The large world's rows are as long as what is shipped allows;
# `python -m evaluation projection` prints what that costs in rank correlation. The proof world is
# small and always scored as a whole: short rows do, and it has no shortlist. Its examples are
# finished proofs, which `precompute proofs` makes.
WORLDS: dict[str, World] = {
    "openclipart": World(_SOURCE, ("--dim", "1024")),
    "proof": World((*_SOURCE, "--gradient-dim", "64"), ("--dim", "192"), examples=False),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("--root", type=Path, default=Path("assets"), help="default assets")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--no-examples", action="store_true", help="the indexes only")


def run(args: argparse.Namespace) -> None:
    """Every world in turn; UserError where none is there, or one has no model."""
    there = {name: world for name, world in WORLDS.items() if (args.root / name).is_dir()}
    if not there:
        raise UserError(f"none of {', '.join(WORLDS)} in {args.root}")
    for name, settings in there.items():
        world = args.root / name
        if not (world / layout.MODEL / "model_index.json").is_file():
            raise UserError(f"no model in {world}: `python -m precompute train` makes it")
        before = _hash(world)
        index.run(_index_arguments(world, settings.index, args.device))
        for encoder in encoder_rows.ENCODERS:
            if (world / layout.ENCODERS / encoder).is_dir():
                more = ("--encoder", encoder, "--device", args.device, "--rebuild")
                features.run(_parsed(features, "--out", str(world), *more))
        for rows in (trak, dtrak):
            more = (*settings.rows, "--device", args.device)
            rows.run(_parsed(rows, "--out", str(world), *more))
        more = ("--curvature", "kfac", "--weights", "attn", "--device", args.device)
        variants.run(_parsed(variants, "--out", str(world), *more))
        stale = before != _hash(world) or not any((world / layout.EXAMPLES).glob("*"))
        if stale and settings.examples and not args.no_examples:
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
