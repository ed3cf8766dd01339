"""What the steps after the latents read of a shard: ids, captions, splits, latents, and text states
by record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from attribution import layout
from precompute.shards import Work


@dataclass(frozen=True)
class ShardRecords:
    """The records of one shard in order; `latents` is a memory map, float16 [n, flips, C, h, w]."""

    ids: list[str]
    captions: list[list[str]]
    train: np.ndarray
    latents: np.ndarray

    @classmethod
    def read(cls, work: Work) -> ShardRecords:
        """Open a shard whose latents are done."""
        table = pq.read_table(work.file(layout.RECORDS), columns=["id", "captions", "split"])
        return cls(
            ids=table["id"].to_pylist(),
            captions=table["captions"].to_pylist(),
            train=np.array(table["split"].to_pylist()) != "held-out",
            latents=np.load(work.file(layout.LATENTS), mmap_mode="r", allow_pickle=False),
        )

    def __len__(self) -> int:
        return len(self.ids)

    def latent(self, record: int, flip: int) -> Tensor:
        """z as scoring reads it back from half precision, float32 [C, h, w]."""
        return torch.from_numpy(self.latents[record, flip].astype(np.float32))

    def text_states(self, denoiser: Any, records: range) -> dict[tuple[int, int], Tensor]:
        """(record, caption) → text states [L, d] of a few records."""
        keys = [(r, k) for r in records for k in range(len(self.captions[r]))]
        states = denoiser.encode_text([self.captions[r][k] for r, k in keys])
        return dict(zip(keys, states, strict=True))


def chunks(total: int, size: int) -> list[range]:
    """0..total in runs of `size`, the last one shorter."""
    return [range(start, min(start + size, total)) for start in range(0, total, size)]
