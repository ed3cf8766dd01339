"""The records that evaluation looks at: pixels, captions, categories and splits, from a data set or
an index.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from attribution import layout
from attribution.types import UserError

COLUMNS = ("id", "image", "captions", "artists", "category", "split", "parts")
HELD_OUT = "held-out"


@dataclass(frozen=True)
class Records:
    """n records in file order; `images` uint8 [n, px, px, 3], `captions` the first caption of each
    record.
    """

    ids: tuple[str, ...]
    captions: tuple[str, ...]
    categories: tuple[str, ...]
    artists: tuple[tuple[str, ...], ...]
    splits: tuple[str, ...]
    parts: tuple[tuple[str, ...], ...]
    images: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, split: str, categories: Sequence[str] | None = None) -> np.ndarray:
        """Row numbers of a split ('train' or 'held-out'), of some categories only if given, int64
        ascending.
        """
        wanted = [
            row
            for row, (s, category) in enumerate(zip(self.splits, self.categories, strict=True))
            if (s == HELD_OUT) == (split == HELD_OUT)
            and (categories is None or category in categories)
        ]
        return np.array(wanted, dtype=np.int64)

    def pictures(self, rows: Sequence[int] | np.ndarray) -> list[Image.Image]:
        """RGB images of some rows."""
        return [Image.fromarray(self.images[int(row)]) for row in rows]


def records_files(root: Path) -> list[Path]:
    """The Parquet files of a data set folder or of an index's shards; UserError where there is
    neither.
    """
    shards = sorted((root / layout.SHARDS).glob(f"*/{layout.RECORDS}"))
    whole = root / layout.RECORDS
    if not shards and not whole.is_file():
        raise UserError(
            f"{root} holds neither {layout.RECORDS} nor shards: not a data set or index"
        )
    return shards or [whole]


def load_records(root: Path) -> Records:
    """Read every record of `root`; the embedded set takes about a second."""
    rows: list[dict[str, Any]] = []
    for path in records_files(root):
        rows += pq.read_table(path, columns=list(COLUMNS)).to_pylist()
    return Records(
        ids=tuple(r["id"] for r in rows),
        captions=tuple((r["captions"] or [""])[0] for r in rows),
        categories=tuple(r["category"] or "" for r in rows),
        artists=tuple(tuple(r["artists"] or ()) for r in rows),
        splits=tuple(r["split"] or "train" for r in rows),
        parts=tuple(tuple(p["id"] for p in r["parts"] or ()) for r in rows),
        images=np.stack([_pixels(r["image"]) for r in rows]),
    )


def _pixels(value: bytes | str) -> np.ndarray:
    with Image.open(value if isinstance(value, str) else io.BytesIO(value)) as image:
        return np.asarray(image.convert("RGB"))


def data_hash(records: Records) -> str:
    """Hex digest of what classifiers and thresholds are fitted on: ids, splits, categories and
    pixels.
    """
    digest = sha256()
    for column in (records.ids, records.splits, records.categories):
        digest.update("\n".join(column).encode())
    digest.update(np.ascontiguousarray(records.images).tobytes())
    return digest.hexdigest()
