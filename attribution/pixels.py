"""EDGE: pixel features of an index's records, from their pictures when they are first asked for.

What can be rebuilt in a second need not be shipped: the embedded set's 2,741 pictures take about
one. Indexes of many large pictures keep them: `python -m precompute features --encoder pixel`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from attribution import layout
from attribution.features import PIXEL_SIDE, pixel_features, upright_and_mirrored
from attribution.images import read_image
from attribution.index import Index
from attribution.search import KEEP_ABOVE_BYTES, Search, build_search
from attribution.types import Progress

NAME = "pixel"
_BATCH = 64


def pixel_search(index: Index) -> Generator[Progress, None, Search]:
    """Progress, then a search over every training record's pixels."""
    if index.has_rows(NAME):
        return index.search(NAME)
    rows, parts = index.train_rows, []
    images = _images(index)
    for start in range(0, len(rows), _BATCH):
        yield Progress("look at the pictures", start, len(rows))
        batch = list(islice(images, _BATCH))
        parts.append(upright_and_mirrored(pixel_features, batch).numpy().astype(np.float16))
    return build_search(np.concatenate(parts), rows)


def pixel_bytes(records: int) -> int:
    """Bytes that each of so many records takes in such a search, image and flip."""
    numbers = 2 * 3 * PIXEL_SIDE**2
    return numbers * (4 if 4 * numbers * records <= KEEP_ABOVE_BYTES else 2)


def _images(index: Index) -> Iterator[Image.Image]:
    """The image of each training record, in order, RGB."""
    wanted, row = set(index.train_rows.tolist()), -1
    for number in range(len(index.manifest["shards"])):
        folder = index.path / layout.SHARDS / layout.shard_name(number)
        with pq.ParquetFile(folder / layout.RECORDS) as file:
            for batch in file.iter_batches(_BATCH, columns=["image"]):
                for value in batch["image"].to_pylist():
                    row += 1
                    if row in wanted:
                        yield read_image(Path(value) if isinstance(value, str) else value)
