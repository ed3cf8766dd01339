"""`python -m precompute losses --out DIR`: the base loss of every record, caption, flip and
timestep.

L(z, θ0) per cell, float32 [n, captions, flips, T], from the half-precision latents that scoring
reads back and the noise of namespace "score"; beside it the mean ‖ε_θ‖² of the same forwards (v
models converted to ε). NaN where a record has fewer captions than another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from attribution import layout
from attribution.cells import FLIPS, Batch, Grid, TextStates, batches
from attribution.denoiser import Denoiser
from attribution.types import UserError
from precompute import latents, steps
from precompute.build import Build
from precompute.keys import FILES
from precompute.records import ShardRecords
from precompute.shards import Work, write_npy

STEP = "losses"


def build(job: Build) -> None:
    """The step, after the latents."""
    job.first(latents.build)
    job.over_shards(STEP, job.inputs.losses, lambda work, bar: _make(job, work, bar))


def _make(job: Build, work: Work, bar: tqdm) -> list[str]:
    records, timesteps = ShardRecords.read(work), tuple(job.settings["timesteps"])
    captions, seed = job.settings["dataset"]["captions"], job.settings["noise"]["seed"]
    grid = Grid(captions, FLIPS, timesteps, tuple(range(len(timesteps))), seed)
    loss, power = (np.full((len(records), *grid.shape), np.nan, dtype=np.float32) for _ in range(2))
    everyone, texts = np.arange(len(records)), TextStates(job.denoiser)
    source, size = _Source(records), job.batch_size()
    told = 0
    for batch, complete in batches(job.denoiser, source, everyone, grid, texts, size):
        where = tuple(batch.where)
        loss[where], power[where] = _forward(job.denoiser, batch)
        bar.update(complete - told)
        told = complete
    _refuse_nan(records, loss)
    write_npy(work.file(layout.BASE_LOSS), loss)
    write_npy(work.file(layout.BASE_LOSS_EPS2), power)
    return list(FILES[STEP])


@dataclass(frozen=True)
class _Source:
    """A shard's records as `cells.batches` asks for them."""

    records: ShardRecords

    def latents(self, rows: Sequence[int] | np.ndarray, flip: int = 0) -> Tensor:
        return torch.stack([self.records.latent(row, flip) for row in rows])

    def captions(self, rows: Sequence[int] | np.ndarray) -> list[list[str]]:
        return [self.records.captions[row] for row in rows]

    def ids(self, rows: Sequence[int] | np.ndarray) -> list[str]:
        return [self.records.ids[row] for row in rows]


@torch.no_grad()
def _forward(denoiser: Denoiser, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """(L, mean ‖ε_θ‖²) of some cells, float32 [B] each."""
    z, noise, t = batch.latents, batch.noise, batch.timesteps
    output, target = denoiser.predict(z, batch.cond, noise, t)
    loss = ((output - target) ** 2).mean(dim=(1, 2, 3))
    power = denoiser.predicted_noise(output, z, noise, t).square().mean(dim=(1, 2, 3))
    return loss.float().cpu().numpy(), power.float().cpu().numpy()


def _refuse_nan(records: ShardRecords, loss: np.ndarray) -> None:
    for row, captions in enumerate(records.captions):
        if not np.isfinite(loss[row, : len(captions)]).all():
            raise UserError(
                f"the model's loss on record {records.ids[row]!r} is not a finite number"
            )


add_arguments, run = steps.verb(build)
