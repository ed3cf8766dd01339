"""Cells to scores: mean over captions and timesteps, maximum over image and flip."""

from __future__ import annotations

import numpy as np


def reduce_cells(
    cells: np.ndarray, timestep_weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(scores float32, standard_error float32, flip int8), each [M], of [M, captions, flips, T].

    Mean over captions and timesteps (weighted [T], if given), then the maximum over flips. The
    standard error is that of the mean over the cells of the flip that won, NaN for a single cell.
    """
    values = cells.astype(np.float64)
    weights = np.ones(cells.shape[-1]) if timestep_weights is None else np.asarray(timestep_weights)
    w = np.where(np.isnan(values), 0.0, weights)
    total = w.sum(axis=(1, 3))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(w > 0, values * w, 0.0).sum(axis=(1, 3)) / total
        spread = np.where(w > 0, w * (values - mean[:, None, :, None]) ** 2, 0.0).sum(axis=(1, 3))
        count = total**2 / (w**2).sum(axis=(1, 3))
        error = np.sqrt(spread / total / (count - 1))
    error[~(count > 1)] = np.nan
    flip = np.where(np.isnan(mean), -np.inf, mean).argmax(axis=1)
    best = np.arange(len(mean)), flip
    return mean[best].astype(np.float32), error[best].astype(np.float32), flip.astype(np.int8)
