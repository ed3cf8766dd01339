"""Gradients of a shard's records, projected: shared by every verb that makes such rows.

A row is the mean over a few timesteps, with the noise of namespace "train-gradient"; the flip's is
mirrored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attribution.cells import FLIPS
from attribution.denoiser import Denoiser
from attribution.gradients import Gradients, per_sample_gradients
from attribution.noise import keyed_noise, mirrored
from precompute.records import ShardRecords, chunks

NAMESPACE = "train-gradient"
Project = Callable[[Gradients], Tensor]


def chunk_rows(
    denoiser: Denoiser,
    records: ShardRecords,
    chunk: range,
    timesteps: Sequence[int],
    seed: int,
    names: Sequence[str],
    project: Project,
    batch_size: int,
) -> np.ndarray:
    """Projected mean gradients of a few records, float32 [len(chunk), flips, d].

    The timesteps take turns with a record's captions. At most `batch_size` samples a forward: a
    mean over more timesteps is put together from projected parts.
    """
    states = records.text_states(denoiser, chunk)
    group = max(g for g in range(1, len(timesteps) + 1) if _fits(g, len(timesteps), batch_size))
    cells = [(r, f, i) for r in chunk for f in range(FLIPS) for i in range(len(timesteps))]
    made = []
    for piece in chunks(len(cells), max(1, batch_size // group) * group):
        some = cells[piece.start : piece.stop]
        gradients = per_sample_gradients(
            denoiser,
            torch.stack([records.latent(r, f) for r, f, _ in some]),
            torch.stack([states[r, i % len(records.captions[r])] for r, _, i in some]),
            torch.stack(
                [_noise(denoiser, records.ids[r], f, timesteps[i], seed) for r, f, i in some]
            ),
            torch.tensor([timesteps[i] for *_, i in some]),
            names,
            group=group,
        )
        made.append(project(gradients).cpu())
    parts = torch.cat(made).view(len(chunk), FLIPS, len(timesteps) // group, -1)
    return parts.mean(2).numpy()


def _fits(group: int, count: int, batch_size: int) -> bool:
    return count % group == 0 and group <= max(1, batch_size)


def _noise(denoiser: Denoiser, record_id: str, flip: int, timestep: int, seed: int) -> Tensor:
    key: dict[str, Any] = {"namespace": NAMESPACE, "seed": seed, "record_id": record_id}
    noise = keyed_noise(denoiser.latent_shape, timestep=timestep, **key)
    return mirrored(noise) if flip else noise


def records_at_once(batch_size: int, timesteps: int) -> int:
    """Records of a chunk that fill one forward, at least one."""
    return max(1, batch_size // (FLIPS * timesteps))
