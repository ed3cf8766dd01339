"""Which precision scores are computed in on this machine, probed once on real records.

The probe's differences are those of a query: losses of training records with its Δθ, less the
index's float32 base losses. The smaller the step, the smaller they are beside the losses, and what
is precise enough for one step is not for a tenth of it: so each way to unlearn is probed for
itself. It costs about a second, once per process, index, device and UnlearnConfig.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from attribution.cells import Batch, Grid, batch_errors, batch_size_for, batches
from attribution.delta import applied
from attribution.methods.context import Context
from attribution.precision import Precision, Probe, choose, lower
from attribution.unlearning import UnlearnConfig

RECORDS, COLUMNS = 48, 2
# On a CPU a few samples tell the speed; a GPU needs full batches to be busy.
CPU_SAMPLES = 4

_FOUND: dict[tuple[str, str, UnlearnConfig], Probe] = {}


def settle(context: Context, config: UnlearnConfig, delta: Mapping[str, Tensor]) -> Probe:
    """The precision that the context names, else the one found when such a Δθ was first scored: its
    model scores in it until the next is settled."""
    probe = context.probe
    if probe is None and context.denoiser.dtype != torch.float32:
        name = str(context.denoiser.dtype).removeprefix("torch.")
        probe = Probe(Precision(f"{name} weights"))
    elif probe is None:
        key = context.index.index_hash, str(context.denoiser.device), config
        if key not in _FOUND:
            _FOUND[key] = _probe(context, config, delta)
        probe = _FOUND[key]
    context.denoiser.precision = probe.chosen
    return probe


def _probe(context: Context, config: UnlearnConfig, delta: Mapping[str, Tensor]) -> Probe:
    if not lower(context.denoiser.device):
        return Probe()
    denoiser, parts = context.denoiser.with_objective(config.objective), _batches(context)
    base, device = context.base_loss(config.objective), context.denoiser.device
    few = CPU_SAMPLES if device.type == "cpu" else len(parts[0][0].latents)
    sample = _first(parts[0][0], few)

    def run(precision: Precision) -> None:
        denoiser.precision = precision
        batch_errors(denoiser, sample).cpu()

    def differences(precision: Precision) -> np.ndarray:
        denoiser.precision = precision
        sums = np.zeros(RECORDS)
        with applied(denoiser, delta):
            for batch, rows in parts:
                losses = batch_errors(denoiser, batch).mean(dim=(1, 2)).cpu().numpy()
                cached = base[rows[batch.where[0]], 0, 0, batch.where[3]]
                np.add.at(sums, batch.where[0], losses - cached)
        return sums[: len(parts[0][1])]

    return choose(lower(device), run, differences)


def _batches(context: Context) -> list[tuple[Batch, np.ndarray]]:
    """(batch, the rows its positions name): some training records at two timesteps, upright."""
    index, train = context.index, context.index.train_rows
    rows = train[np.unique(np.linspace(0, len(train) - 1, RECORDS).astype(np.int64))]
    count = len(index.timesteps)
    columns = tuple(sorted({count // 4, (3 * count) // 4}))[:COLUMNS]
    grid = Grid(1, 1, index.timesteps, columns, index.seed)
    size = batch_size_for(context.denoiser)
    stream = batches(context.denoiser, index, rows, grid, context.texts, size)
    return [(batch, rows) for batch, _ in stream]


def _first(batch: Batch, n: int) -> Batch:
    return Batch(
        batch.where[:, :n],
        batch.latents[:n],
        batch.cond[:n],
        batch.noise[:n],
        batch.timesteps[:n],
    )
