"""`python -m precompute losses --out DIR`: the base loss of every record, caption, flip and
timestep.

L(z, θ0) per cell, float32 [n, captions, flips, T], from the half-precision latents that scoring
reads back and the noise of namespace "score"; beside it the mean ‖ε_θ‖² of the same forwards (v
models converted to ε). NaN where a record has fewer captions than another.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from attribution import layout
from attribution.cells import FLIPS
from attribution.noise import keyed_noise, mirrored
from attribution.types import UserError
from precompute import latents, steps
from precompute.build import Build
from precompute.keys import FILES
from precompute.records import ShardRecords, chunks
from precompute.shards import Work, write_npy

STEP = "losses"
Cell = tuple[int, int, int, int]


def build(job: Build) -> None:
    """The step, after the latents."""
    job.first(latents.build)
    job.over_shards(STEP, job.inputs.losses, lambda work, bar: _make(job, work, bar))


def _make(job: Build, work: Work, bar: tqdm) -> list[str]:
    records, grid = ShardRecords.read(work), job.settings["timesteps"]
    shape = (len(records), job.settings["dataset"]["captions"], FLIPS, len(grid))
    loss, power = (np.full(shape, np.nan, dtype=np.float32) for _ in range(2))
    size = job.batch_size()
    for chunk in chunks(len(records), max(1, size // len(grid))):
        states = records.text_states(job.denoiser, chunk)
        noise = chunk_noise(job, records, chunk)
        keys = [(r, k, f, i) for r, k in states for f, i in product(range(FLIPS), range(len(grid)))]
        for piece in chunks(len(keys), size):
            cells = [keys[n] for n in piece]
            index = tuple(np.array(cells).T)
            loss[index], power[index] = _forward(job, records, cells, states, noise)
        bar.update(len(chunk))
    _refuse_nan(records, loss)
    write_npy(work.file(layout.BASE_LOSS), loss)
    write_npy(work.file(layout.BASE_LOSS_EPS2), power)
    return list(FILES[STEP])


def chunk_noise(job: Build, records: ShardRecords, chunk: range) -> dict[tuple[int, int], Tensor]:
    """(record, timestep number) → ε [C, h, w]; the flip mirrors it, captions share it."""
    seed, grid = job.settings["noise"]["seed"], job.settings["timesteps"]
    shape = job.denoiser.latent_shape
    return {
        (r, i): keyed_noise(
            shape, namespace="score", seed=seed, record_id=records.ids[r], timestep=t
        )
        for r in chunk
        for i, t in enumerate(grid)
    }


@torch.no_grad()
def _forward(
    job: Build,
    records: ShardRecords,
    cells: list[Cell],
    states: dict[tuple[int, int], Tensor],
    noise: dict[tuple[int, int], Tensor],
) -> tuple[np.ndarray, np.ndarray]:
    """(L, mean ‖ε_θ‖²) of some cells (record, caption, flip, timestep number), float32 [B] each."""
    grid = job.settings["timesteps"]
    z = torch.stack([records.latent(r, f) for r, _, f, _ in cells])
    eps = torch.stack([mirrored(noise[r, i]) if f else noise[r, i] for r, _, f, i in cells])
    cond = torch.stack([states[r, k] for r, k, _, _ in cells])
    t = torch.tensor([grid[i] for *_, i in cells])
    output, target = job.denoiser.predict(z, cond, eps, t)
    loss = ((output - target) ** 2).mean(dim=(1, 2, 3))
    power = job.denoiser.predicted_noise(output, z, eps, t).square().mean(dim=(1, 2, 3))
    return loss.float().cpu().numpy(), power.float().cpu().numpy()


def _refuse_nan(records: ShardRecords, loss: np.ndarray) -> None:
    for row, captions in enumerate(records.captions):
        if not np.isfinite(loss[row, : len(captions)]).all():
            raise UserError(
                f"the model's loss on record {records.ids[row]!r} is not a finite number"
            )


add_arguments, run = steps.verb(build)
