"""Cells: the (record, caption, flip, timestep) grid that losses are kept on, evaluated in batches.

One cell is one forward pass with the noise of its (record, timestep), mirrored for the flip and
shared by the captions. What does not depend on t, the text states, is computed once per caption.

Noise and latents are prepared between the forwards: 2 % of the time on a CPU. A thread that does it
meanwhile costs half the speed, since OpenMP gives each thread that calls torch a team of its own,
and teams that outnumber the cores wait asleep.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from attribution.denoiser import Denoiser
from attribution.noise import keyed_noise, mirrored

Rows = Sequence[int] | np.ndarray
FLIPS = 2  # of a record: the image itself, and its mirror image
TEXT_BYTES = 1 << 28
# Latent numbers of one forward: 64 samples of 8 x 16 x 16 on a CPU, where more is hardly faster.
CPU_NUMBERS, CUDA_NUMBERS, MOST_SAMPLES = 1 << 17, 1 << 20, 512
BATCHES_PER_CHUNK = 4


def timestep_grid(steps: int, stride: int) -> tuple[int, ...]:
    """stride/2, stride·3/2, ... below `steps`: 50, 150, ..., 950 for 1000 and 100; empty where the
    stride is too long.
    """
    return tuple(range(stride // 2, steps, stride))


class RecordSource(Protocol):
    """Where records come from (attribution.index implements it)."""

    def latents(self, rows: Rows, flip: int = 0) -> Tensor:
        """float32 [B, C, h, w], of the mirrored images for flip 1."""
        ...

    def captions(self, rows: Rows) -> list[list[str]]:
        """Captions of each row, at least one."""
        ...

    def ids(self, rows: Rows) -> list[str]:
        """Stable record ids."""
        ...


@dataclass(frozen=True)
class Grid:
    """Which cells: captions and flips per record at most; columns: of timesteps to run."""

    captions: int
    flips: int
    timesteps: tuple[int, ...]
    columns: tuple[int, ...]
    seed: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """(captions, flips, T)."""
        return self.captions, self.flips, len(self.timesteps)


@dataclass(frozen=True)
class Batch:
    """One forward's cells. where: (record position, caption, flip, column), int64 [4, B]."""

    where: np.ndarray
    latents: Tensor
    cond: Tensor
    noise: Tensor
    timesteps: Tensor


class TextStates:
    """Text states by caption, encoded once, least recently used forgotten above `TEXT_BYTES`."""

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self._states: OrderedDict[str, Tensor] = OrderedDict()

    def of(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """caption → [L, d]."""
        unique = list(dict.fromkeys(captions))
        fresh = [caption for caption in unique if caption not in self._states]
        for part in range(0, len(fresh), 64):
            texts = fresh[part : part + 64]
            self._states.update(zip(texts, self.denoiser.encode_text(texts), strict=True))
        found = {}
        for caption in unique:
            self._states.move_to_end(caption)
            found[caption] = self._states[caption]
        self._shrink(keep=len(unique))
        return found

    def _shrink(self, keep: int) -> None:
        size = next(iter(self._states.values())).nbytes if self._states else 1
        while len(self._states) > max(keep, TEXT_BYTES // size):
            self._states.popitem(last=False)


def batch_size_for(denoiser: Denoiser) -> int:
    """`samples_at_once` of a denoiser."""
    return samples_at_once(denoiser.latent_shape, denoiser.device.type)


def samples_at_once(latent_shape: Sequence[int], device: str) -> int:
    """Samples [C, h, w] of one forward that keep a device, "cpu" or another, busy without needless
    memory.
    """
    channels, height, width = latent_shape
    numbers = CPU_NUMBERS if device == "cpu" else CUDA_NUMBERS
    return max(1, min(MOST_SAMPLES, numbers // (channels * height * width)))


def batches(
    denoiser: Denoiser,
    records: RecordSource,
    rows: np.ndarray,
    grid: Grid,
    texts: TextStates,
    batch_size: int,
    only_flip: np.ndarray | None = None,
) -> Generator[tuple[Batch, int]]:
    """(batch, how many records are complete after it) over all cells of `rows`, in their order.

    only_flip: int [len(rows)], the one flip to run of each record; all by default. A cell's inputs
    depend on its record alone, never on the batch it falls into.
    """
    per_record = (grid.flips if only_flip is None else 1) * len(grid.columns)
    if per_record == 0:
        return
    size = max(1, BATCHES_PER_CHUNK * batch_size // per_record)
    for start in range(0, len(rows), size):
        here = slice(start, start + size)
        chunk = _prepare(denoiser, records, rows[here], grid)
        flips = None if only_flip is None else only_flip[here]
        yield from _chunk_batches(chunk, texts, grid, start, batch_size, flips)


@dataclass(frozen=True)
class _Chunk:
    """A few records: latents [R, flips, C, h, w], noise [R, flips, columns, C, h, w], captions."""

    latents: Tensor
    noise: Tensor
    captions: list[list[str]]


def _prepare(denoiser: Denoiser, records: RecordSource, rows: np.ndarray, grid: Grid) -> _Chunk:
    latents = torch.stack([records.latents(rows, flip) for flip in range(grid.flips)], dim=1)
    noise = torch.stack([_noise(denoiser, name, grid) for name in records.ids(rows)])
    return _Chunk(latents, noise, [list(c) for c in records.captions(rows)])


def _noise(denoiser: Denoiser, record_id: str, grid: Grid) -> Tensor:
    """[flips, columns, C, h, w]: one draw per timestep, mirrored for the flip."""
    draws = [
        keyed_noise(
            denoiser.latent_shape,
            namespace="score",
            seed=grid.seed,
            record_id=record_id,
            timestep=grid.timesteps[column],
        )
        for column in grid.columns
    ]
    upright = torch.stack(draws)
    return torch.stack([mirrored(upright) if flip else upright for flip in range(grid.flips)])


def _chunk_batches(
    chunk: _Chunk,
    texts: TextStates,
    grid: Grid,
    first: int,
    batch_size: int,
    only_flip: np.ndarray | None,
) -> Iterator[tuple[Batch, int]]:
    cells = _cells(chunk, grid)
    if only_flip is not None:
        cells = cells[cells[:, 2] == only_flip[cells[:, 0]]]
    states = texts.of([caption for captions in chunk.captions for caption in captions])
    # equal parts: a short last batch would waste a forward's overhead
    parts = np.array_split(cells, -(-len(cells) // batch_size))
    for number, part in enumerate(parts):
        r, c, f, k = part.T
        cond = torch.stack([states[chunk.captions[i][j]] for i, j in zip(r, c, strict=True)])
        columns = np.array(grid.columns)[k]
        timesteps = torch.from_numpy(np.array(grid.timesteps)[columns])
        where = np.stack([r + first, c, f, columns])
        batch = Batch(where, chunk.latents[r, f], cond, chunk.noise[r, f, k], timesteps)
        complete = first + (int(r[-1]) if number + 1 < len(parts) else len(chunk.captions))
        yield batch, complete


def _cells(chunk: _Chunk, grid: Grid) -> np.ndarray:
    """(record, caption, flip, position in columns) of every cell of a chunk, int64 [cells, 4]."""
    return np.array(
        [
            (r, c, f, k)
            for r, captions in enumerate(chunk.captions)
            for c in range(min(len(captions), grid.captions))
            for f in range(grid.flips)
            for k in range(len(grid.columns))
        ],
        dtype=np.int64,
    )


@torch.inference_mode()
def batch_errors(denoiser: Denoiser, batch: Batch) -> Tensor:
    """Squared error averaged over channels, float32 [B, h, w]; its mean is the loss of the cell.

    Layers compute in the denoiser's `precision`.
    """
    with denoiser.precision.running(denoiser.device):
        errors = denoiser.squared_error(batch.latents, batch.cond, batch.noise, batch.timesteps)
    return errors.mean(dim=1)
