"""The pictures that several verbs look at: drawn once, kept in runs/ one file each, so that a
stopped run goes on.

Which captions are drawn is a pure function of the records; a picture's seed is a pure function of
its record's id.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from attribution.arguments import count
from evaluation.data import HELD_OUT, Records
from evaluation.world import World

N_CAPTIONS = 256
PER_CATEGORY = 16
SEED = 20


@dataclass(frozen=True)
class Sampling:
    """DDIM steps, guidance scale and pictures at a time."""

    steps: int
    guidance: float
    batch_size: int = 16


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How pictures are drawn; the default is what the model's makers recommend."""
    parser.add_argument(
        "--steps", type=count(), help="DDIM steps; default: as recommended for the model"
    )
    parser.add_argument("--guidance", type=float, help="guidance scale; default: as recommended")
    parser.add_argument("--batch-size", type=count(), default=16, help="pictures drawn at a time")


def sampling_of(args: argparse.Namespace, world: World) -> Sampling:
    """The arguments, filled up with the world's recommendation."""
    steps, guidance = world.sampling
    return Sampling(
        args.steps or steps, guidance if args.guidance is None else args.guidance, args.batch_size
    )


def seed_of(name: str) -> int:
    """The generation seed of a record or prompt, 0..2**32-1."""
    return int.from_bytes(blake2b(name.encode(), digest_size=4).digest(), "little")


def distinct(records: Records, rows: Sequence[int] | np.ndarray) -> list[int]:
    """`rows` without those whose caption an earlier one has."""
    first: dict[str, int] = {}
    for row in rows:
        first.setdefault(records.captions[int(row)], int(row))
    return list(first.values())


def training_rows(records: Records, n: int = N_CAPTIONS) -> list[int]:
    """n seeded random training records with different captions."""
    order = np.random.default_rng(SEED).permutation(records.rows("train"))
    return distinct(records, order)[:n]


def held_out_rows(records: Records) -> list[int]:
    """Held-out drawings and collages whose captions differ and are no training record's."""
    seen = {records.captions[row] for row in records.rows("train")}
    rows = distinct(records, records.rows(HELD_OUT))
    return [row for row in rows if records.captions[row] not in seen]


def category_rows(
    records: Records, categories: Sequence[str], per_category: int = PER_CATEGORY
) -> list[int]:
    """Training records of each category, those of `training_rows` first: they are drawn anyway."""
    order = np.random.default_rng(SEED).permutation(records.rows("train", categories))
    rows = distinct(records, [*training_rows(records), *order])
    chosen: list[int] = []
    for category in categories:
        members = [row for row in rows if records.categories[row] == category]
        chosen += members[:per_category]
    return chosen


def draw_rows(
    world: World, rows: Sequence[int], sampling: Sampling, cache: Path, limit: int | None = None
) -> np.ndarray:
    """Pictures of the captions of `rows` (the first `limit` of them), uint8 [n, px, px, 3]."""
    records, rows = world.records, list(rows)[:limit]
    return draw(
        world, [(records.captions[r], seed_of(records.ids[r])) for r in rows], sampling, cache
    )


def draw(
    world: World, pairs: Sequence[tuple[str, int]], sampling: Sampling, cache: Path
) -> np.ndarray:
    """Pictures of (prompt, seed) pairs, uint8 [n, px, px, 3]; what `cache` has is read, the rest
    drawn in batches.
    """
    folder = cache / "images" / f"{world.pipeline_hash[:16]}-{sampling.steps}-{sampling.guidance:g}"
    paths = {pair: folder / f"{_key(*pair)}.png" for pair in pairs}
    missing = [pair for pair, path in paths.items() if not path.exists()]
    with tqdm(total=len(missing), desc="drawing", disable=None if missing else True) as bar:
        for start in range(0, len(missing), sampling.batch_size):
            batch = missing[start : start + sampling.batch_size]
            prompts, seeds = zip(*batch, strict=True)
            images = world.denoiser.generate_batch(
                prompts, seeds, steps=sampling.steps, guidance=sampling.guidance
            )
            for pair, image in zip(batch, images, strict=True):
                _save(image, paths[pair])
            bar.update(len(batch))
    return np.stack([_read(paths[pair]) for pair in pairs])


def _key(prompt: str, seed: int) -> str:
    return blake2b(f"{seed}|{prompt}".encode(), digest_size=12).hexdigest()


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    image.save(part, format="PNG")
    os.replace(part, path)


def _read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
