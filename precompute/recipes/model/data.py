"""The training set in memory: pixels, captions and splits of one records.parquet."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from attribution import layout
from attribution.types import UserError

STAND_INS = 104_729  # keeps the generators of stand-ins apart from those of steps and epochs


@dataclass(frozen=True)
class TrainingSet:
    """n records: ids, captions (the first of each record), categories, images uint8 [n, 3, px,
    px]."""

    ids: tuple[str, ...]
    captions: tuple[str, ...]
    categories: tuple[str, ...]
    artists: tuple[tuple[str, ...], ...]
    images: torch.Tensor

    def __len__(self) -> int:
        return len(self.ids)

    def floats(self, rows: torch.Tensor | slice = slice(None)) -> torch.Tensor:
        """Rows as float32 in [-1, 1], [B, 3, px, px]."""
        return self.images[rows].float().div_(127.5).sub_(1.0)


def load_training_set(data: Path, split: str = "train") -> TrainingSet:
    """The records of `split` ('train' or 'held-out') in file order.

    data: a folder with records.parquet, an index with its shards, or a Parquet file. UserError for
    a folder with neither.
    """
    columns = ["id", "image", "captions", "category", "artists", "split"]
    table = pa.concat_tables([pq.read_table(path, columns=columns) for path in record_files(data)])
    rows = [row for row in table.to_pylist() if row["split"] == split]
    images = np.stack([_decode(r["image"]) for r in rows])
    return TrainingSet(
        ids=tuple(r["id"] for r in rows),
        captions=tuple(r["captions"][0] for r in rows),
        categories=tuple(r["category"] for r in rows),
        artists=tuple(tuple(r["artists"]) for r in rows),
        images=torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
    )


def record_files(data: Path) -> list[Path]:
    """The recipe's own file, else the shards of the index made from it, in order."""
    if not data.is_dir():
        return [data]
    whole = data / layout.RECORDS
    files = [whole] if whole.is_file() else sorted(data.glob(f"{layout.SHARDS}/*/{layout.RECORDS}"))
    if not files:
        raise UserError(f"no training set in {data}: neither {layout.RECORDS} nor shards")
    return files


def _decode(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def step_generator(seed: int, step: int) -> torch.Generator:
    """All randomness of one optimiser step: a pure function of (seed, step), so that a resumed run
    repeats itself."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


def batch_rows(n: int, batch_size: int, seed: int, step: int) -> torch.Tensor:
    """Row numbers int64 [batch_size] of `step`: epochs are shuffled, every record once per
    epoch."""
    start = step * batch_size
    epochs = range(start // n, (start + batch_size - 1) // n + 1)
    order = torch.cat([torch.randperm(n, generator=step_generator(seed + 7919, e)) for e in epochs])
    offset = start - epochs[0] * n
    return order[offset : offset + batch_size]


def resampled(rows: torch.Tensor, removed: torch.Tensor, seed: int, step: int) -> torch.Tensor:
    """A batch's row numbers with stand-ins for those of the removed records (bool [n]).

    Every place of the batch has an order of stand-ins of its own, a pure function of (seed, step,
    place), and takes the first that is not removed: trainings without these or those records see
    the same batches but for the removed ones. UserError where nothing is left.
    """
    if bool(removed.all()):
        raise UserError("every training record is removed: nothing is left to train on")
    rows = rows.clone()
    for place in removed[rows].nonzero().flatten().tolist():
        g = step_generator(seed + STAND_INS * (place + 1), step)
        order = torch.randperm(len(removed), generator=g)
        rows[place] = order[~removed[order]][0]
    return rows
