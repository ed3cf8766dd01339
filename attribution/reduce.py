"""Cells to scores: mean over captions and timesteps, maximum over image and flip.

After racing (attribution.racing) records have cells at different numbers of timesteps.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def score_noise(cell_noise: float, cells: np.ndarray) -> float:
    """Standard deviation of a score from that of each of its cells: 1/√n of it for the mean of the
    n cells, captions times timesteps, of a record that was seen whole."""
    whole = np.isfinite(cells).sum(axis=(1, 3)).max(initial=1)
    return cell_noise / float(whole) ** 0.5


def cells_at(
    cells: np.ndarray, positions: np.ndarray, columns: Sequence[int]
) -> tuple[np.ndarray, ...]:
    """What indexes all captions and flips of some records at some columns of `cells`."""
    _, captions, flips, _ = cells.shape
    return np.ix_(positions, np.arange(captions), np.arange(flips), np.array(columns, dtype=int))


def timesteps_seen(cells: np.ndarray) -> np.ndarray:
    """How many timesteps each record has a cell at, int64 [M], of [M, captions, flips, T]."""
    return np.isfinite(cells).any(axis=(1, 2)).sum(axis=1)


def score_cells(
    cells: np.ndarray, timestep_weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`reduce_cells` for records that were not all seen at every timestep.

    The score of a record seen at fewer timesteps is an estimate: scaled by what those timesteps
    alone would make of the records seen at most, and always below the scores of all that were seen
    at more. A few cells never outrank many.
    """
    scores, errors, flip = reduce_cells(cells, timestep_weights)
    counts = timesteps_seen(cells)
    tiers = np.unique(counts[counts > 0])[::-1]
    below = np.float32(np.inf)
    for tier in tiers if len(tiers) > 1 else ():
        here = counts == tier
        if tier < tiers[0]:
            scale = _scales(cells, counts == tiers[0], here, timestep_weights)
            scores[here], errors[here] = scores[here] * scale, errors[here] * scale
        scores[here] = np.minimum(scores[here], below)
        lowest = np.min(scores[here & np.isfinite(scores)], initial=below)
        below = np.nextafter(lowest, np.float32(-np.inf))
    return scores, errors, flip


def _scales(
    cells: np.ndarray, whole: np.ndarray, part: np.ndarray, weights: np.ndarray | None
) -> np.ndarray:
    """For each record of the mask `part`: the sum of the `whole` records' scores over the sum of
    their scores at that record's timesteps alone; 1 where that is no positive number. float32.
    """
    seen = np.isfinite(cells[part]).any(axis=(1, 2))
    patterns, which = np.unique(seen, axis=0, return_inverse=True)
    full = np.nansum(reduce_cells(cells[whole], weights)[0])
    scales = np.ones(len(patterns), dtype=np.float32)
    for i, pattern in enumerate(patterns):
        alone = np.nansum(reduce_cells(np.where(pattern, cells[whole], np.nan), weights)[0])
        if alone != 0 and np.isfinite(full / alone) and full / alone > 0:
            scales[i] = full / alone
    return scales[which.reshape(-1)]
