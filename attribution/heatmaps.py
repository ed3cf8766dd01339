"""Where on a training image the unlearned model got worse, for the top records.

The squared error exists per latent cell before it is averaged into a loss; in the last heat of a
scoring the sums of the best records so far are kept. What the heats before saw of those few, and
their base maps, come from forwards afterwards.
"""

from __future__ import annotations

import heapq
from collections.abc import Generator, Mapping
from dataclasses import replace

import numpy as np
from torch import Tensor

from attribution.cells import (
    FLIPS,
    Grid,
    RecordSource,
    TextStates,
    batch_errors,
    batch_size_for,
    batches,
)
from attribution.delta import applied
from attribution.denoiser import Denoiser
from attribution.reduce import reduce_cells


class ErrorMaps:
    """Sums of error maps [flips, h, w] by record position, of the `keep` best finished records."""

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self._sums: dict[int, np.ndarray] = {}
        self._best: list[tuple[float, int]] = []
        self._columns: set[int] = set()

    def add(self, where: np.ndarray, errors: np.ndarray) -> None:
        """Add a batch: where int64 [4, B] (position, caption, flip, column), errors [B, h, w]."""
        self._columns.update(where[3].tolist())
        for position, flip, error in zip(where[0], where[2], errors, strict=True):
            key = int(position)
            if key not in self._sums:
                self._sums[key] = np.zeros((FLIPS, *error.shape), dtype=np.float64)
            self._sums[key][flip] += error

    def settle(self, positions: np.ndarray, cells: np.ndarray) -> None:
        """Rank records that are finished, cells [n, captions, flips, T], and forget the maps of
        those not among the best.
        """
        scores, _, _ = reduce_cells(cells)
        for position, score in zip(positions, scores, strict=True):
            rank = -np.inf if np.isnan(score) else float(score)
            heapq.heappush(self._best, (rank, int(position)))
            if len(self._best) > self.keep:
                self._sums.pop(heapq.heappop(self._best)[1])

    def changes(
        self,
        denoiser: Denoiser,
        records: RecordSource,
        rows: np.ndarray,
        best: np.ndarray,
        flips: np.ndarray,
        grid: Grid,
        delta: Mapping[str, Tensor],
        texts: TextStates,
    ) -> Generator[int, None, dict[int, np.ndarray]]:
        """Yields the forwards of each batch, with θ0 in the model; returns row → float32 [h, w].

        That is the mean over channels, captions and the grid's timesteps of the change of squared
        error of the records at positions `best` in `rows`, of their winning `flips` [len(best)],
        turned back to the upright image.
        """
        totals, done = self._so_far(best, flips, denoiser.latent_shape[1:])
        missing = tuple(column for column in grid.columns if column not in done)
        counts = np.zeros(len(best))
        size = batch_size_for(denoiser)
        for sign, columns in ((-1, grid.columns), (1, missing)):
            part = replace(grid, columns=columns)
            for batch, _ in batches(denoiser, records, rows[best], part, texts, size, flips):
                with applied(denoiser, delta if sign > 0 else {}):
                    errors = batch_errors(denoiser, batch).cpu().numpy()
                np.add.at(totals, batch.where[0], sign * errors)
                np.add.at(counts, batch.where[0], float(sign < 0))
                yield len(errors)
        means = (totals / counts[:, None, None]).astype(np.float32)
        return {
            int(row): mean[:, ::-1] if flip else mean
            for row, mean, flip in zip(rows[best], means, flips, strict=True)
        }

    def _so_far(
        self, best: np.ndarray, flips: np.ndarray, shape: tuple[int, int]
    ) -> tuple[np.ndarray, set[int]]:
        """(sums [n, h, w], their columns); zeros of no column where not all of them were kept."""
        totals = np.zeros((len(best), *shape))
        if not all(int(position) in self._sums for position in best):
            return totals, set()
        for total, position, flip in zip(totals, best, flips, strict=True):
            total += self._sums[int(position)][flip]
        return totals, self._columns
