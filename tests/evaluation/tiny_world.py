"""A folder as evaluation expects it, tiny: records, a pipeline and its CLIP; no index."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from evaluation.__main__ import VERBS
from evaluation.recogniser import CATEGORIES
from evaluation.verbs import main
from tests.precompute.worlds import png, tiny_clip
from tests.tiny import tiny_captions, tiny_images


def records_file(path: Path, count: int = 24, held_out: int = 8) -> Path:
    """`count` records whose categories go round, the last `held_out` held out, as Parquet."""
    images, n = tiny_images(count), len(CATEGORIES)
    pictures = [png(image) for image in images]
    table = {
        "id": [f"r{i:02d}" for i in range(count)],
        "image": pictures,
        "display": pictures,
        "width": [16] * count,
        "height": [16] * count,
        "captions": [[caption] for caption in tiny_captions(count)],
        "artists": [[f"artist {i % 3}"] for i in range(count)],
        "title": [""] * count,
        "category": [CATEGORIES[i % n] for i in range(count)],
        "split": ["train"] * (count - held_out) + ["held-out"] * held_out,
        "parts": pa.array([[]] * count, pa.list_(pa.struct({"id": pa.string()}))),
        "source": [""] * count,
        "licence": ["Public Domain"] * count,
    }
    pq.write_table(pa.table(table), path)
    return path


def world_folder(folder: Path, model: Path) -> Path:
    """records.parquet, model/ and clip/."""
    folder.mkdir(parents=True, exist_ok=True)
    records_file(folder / "records.parquet")
    shutil.copytree(model, folder / "model")
    tiny_clip(folder / "clip")
    return folder


def evaluate(verb: str, world: Path, place: Path, *more: str) -> int:
    """The command itself, in this process; results and cache below `place`."""
    options = (
        "--results",
        str(place / "results"),
        "--cache",
        str(place / "cache"),
        "--device",
        "cpu",
    )
    return main("evaluation", VERBS, [verb, "--index", str(world), *options, *more])
