"""Where on a training image the unlearned model got worse, for the top records.

The squared error exists per latent cell before it is averaged into a loss; while records are
scored, the sums of the best ones so far are kept. Their base maps come from forwards at θ0
afterwards.
"""

from __future__ import annotations

import heapq

import numpy as np

from attribution.cells import Grid, RecordSource, TextStates, batch_errors, batch_size_for, batches
from attribution.denoiser import Denoiser
from attribution.reduce import reduce_cells


class ErrorMaps:
    """Sums of error maps [flips, h, w] by record position, of the `keep` best complete records."""

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self._sums: dict[int, np.ndarray] = {}
        self._best: list[tuple[float, int, int]] = []
        self._settled = 0

    def add(self, where: np.ndarray, errors: np.ndarray) -> None:
        """Add a batch: where int64 [4, B] as in `cells.Batch`, errors [B, h, w]."""
        for position, flip, error in zip(where[0], where[2], errors, strict=True):
            key = int(position)
            if key not in self._sums:
                self._sums[key] = np.zeros((2, *error.shape), dtype=np.float64)
            self._sums[key][flip] += error

    def settle(self, cells: np.ndarray, complete: int) -> None:
        """Rank the records that became complete and forget the maps of those not among the best."""
        scores, _, flips = reduce_cells(cells[self._settled : complete])
        for number, (score, flip) in enumerate(zip(scores, flips, strict=True), self._settled):
            rank = -np.inf if np.isnan(score) else float(score)
            heapq.heappush(self._best, (rank, number, int(flip)))
            if len(self._best) > self.keep:
                self._sums.pop(heapq.heappop(self._best)[1])
        self._settled = complete

    def changes(
        self,
        denoiser: Denoiser,
        records: RecordSource,
        rows: np.ndarray,
        grid: Grid,
        texts: TextStates,
    ) -> dict[int, np.ndarray]:
        """row → float32 [h, w]: mean over channels, captions and timesteps of the change of squared
        error, of the flip that won, turned back to the upright image. Call with θ0 in the model.
        """
        best = sorted(self._best, reverse=True)
        positions = np.array([number for _, number, _ in best], dtype=np.int64)
        flips = np.array([flip for *_, flip in best], dtype=np.int64)
        totals = [self._sums[number][flip].copy() for _, number, flip in best]
        counts = np.zeros(len(best))
        size = batch_size_for(denoiser)
        for batch, _ in batches(denoiser, records, rows[positions], grid, texts, size, flips):
            errors = batch_errors(denoiser, batch).cpu().numpy()
            for place, error in zip(batch.where[0], errors, strict=True):
                totals[place] -= error
                counts[place] += 1
        made = {}
        for place, total in enumerate(totals):
            upright = total[:, ::-1] if flips[place] else total
            made[int(rows[positions[place]])] = (upright / counts[place]).astype(np.float32)
        return made
