"""Scores: how much worse the unlearned model is on each training record (Eq. 6).

| code | paper | meaning |
|---|---|---|
| `base_loss` | L(z, θ0) | per (record, caption, flip, timestep), cached by the index |
| `cells` | L(z, θ−ẑ) − L(z, θ0) | per cell, with the SAME noise on both sides |
| `scores` | τ(ẑ, z) | mean over captions and timesteps, max over flips; higher: more influential |
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from attribution.cells import (
    Batch,
    Grid,
    RecordSource,
    Rows,
    TextStates,
    batch_errors,
    batch_size_for,
    batches,
)
from attribution.denoiser import Denoiser
from attribution.heatmaps import ErrorMaps
from attribution.reduce import reduce_cells
from attribution.types import Attribution, Cancelled, Progress
from attribution.unlearning import applied

__all__ = ["Scores", "noise_floor", "reduce_cells", "score_records"]

STAGE = "score"
TICK, PARTIAL_EVERY = 0.25, 1.2


@dataclass(frozen=True)
class Scores:
    """Cells of the first `len(rows)` records asked for, in the order asked.

    rows: int64 [M]. cells: float32 [M, captions, flips, T], NaN where not evaluated. maps: row →
    float32 [h, w], change of squared error per latent cell in the upright image's orientation, for
    the top records. evaluated: forwards with the unlearned weights; seconds: of the whole scoring.
    """

    rows: np.ndarray
    cells: np.ndarray
    maps: dict[int, np.ndarray] = field(default_factory=dict)
    evaluated: int = 0
    seconds: float = 0.0


def score_records(
    denoiser: Denoiser,
    records: RecordSource,
    base_loss: np.ndarray,
    rows: Rows,
    delta: Mapping[str, Tensor],
    timesteps: Sequence[int],
    seed: int,
    *,
    batch_size: int | None = None,
    keep_maps: int = 0,
    columns: Sequence[int] | None = None,
    texts: TextStates | None = None,
    partial: Callable[[Scores], Attribution] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[Progress | Scores]:
    """τ of every record of `rows`, in their order: give the most promising first.

    base_loss: float32 [N, captions, flips, T], row i being record i, its last axis `timesteps`.
    columns: positions in `timesteps` to evaluate, all by default. Yields Progress every quarter of
    a second, with `partial(scores so far)` about every second, at last the Scores. The model holds
    θ0 at every yield; raises Cancelled when `cancelled()` says so.
    """
    order = np.asarray(rows, dtype=np.int64)
    job = _Scoring(denoiser, records, base_loss, order, delta, timesteps, seed, columns, keep_maps)
    texts = texts or TextStates(denoiser)
    size = batch_size or batch_size_for(denoiser)
    stream = batches(denoiser, records, order, job.grid, texts, size)
    shown = job.began
    try:
        while job.advance(stream, TICK):
            if cancelled is not None and cancelled():
                raise Cancelled
            now, answer = time.perf_counter(), None
            if partial is not None and job.complete and now - shown >= PARTIAL_EVERY:
                answer, shown = partial(job.scores()), now
            yield job.progress(answer)
    finally:
        stream.close()
    yield job.scores(job.maps.changes(denoiser, records, order, job.grid, texts))


class _Scoring:
    """State of one scoring: cells filled so far, and error maps of the best records so far."""

    def __init__(
        self,
        denoiser: Denoiser,
        records: RecordSource,
        base_loss: np.ndarray,
        rows: np.ndarray,
        delta: Mapping[str, Tensor],
        timesteps: Sequence[int],
        seed: int,
        columns: Sequence[int] | None,
        keep_maps: int,
    ) -> None:
        self.denoiser, self.records, self.rows, self.delta = denoiser, records, rows, delta
        _, captions, flips, count = base_loss.shape
        chosen = tuple(range(count)) if columns is None else tuple(int(c) for c in columns)
        self.grid = Grid(captions, flips, tuple(int(t) for t in timesteps), chosen, seed)
        self.base = np.asarray(base_loss[rows])
        self.cells = np.full((len(rows), *self.grid.shape), np.nan, dtype=np.float32)
        self.maps = ErrorMaps(keep_maps)
        self.complete, self.evaluated = 0, 0
        self.began = time.perf_counter()

    def advance(self, stream: Iterator[tuple[Batch, int]], seconds: float) -> bool:
        """Run batches for about `seconds` with θ−ẑ in the model; False when nothing was left."""
        until = time.perf_counter() + seconds
        ran = False
        with applied(self.denoiser, self.delta):
            for batch, complete in stream:
                ran, self.complete = True, complete
                self._take(batch, batch_errors(self.denoiser, batch))
                if time.perf_counter() >= until:
                    break
        return ran

    def _take(self, batch: Batch, errors: Tensor) -> None:
        index = tuple(batch.where)
        losses = errors.mean(dim=(1, 2)).cpu().numpy()
        self.cells[index] = losses - self.base[index]
        self.evaluated += len(losses)
        if self.maps.keep:
            self.maps.add(batch.where, errors.cpu().numpy())
            self.maps.settle(self.cells, self.complete)

    def scores(self, maps: dict[int, np.ndarray] | None = None) -> Scores:
        """What is complete so far."""
        n, spent = self.complete, time.perf_counter() - self.began
        return Scores(self.rows[:n], self.cells[:n].copy(), maps or {}, self.evaluated, spent)

    def progress(self, partial: Attribution | None) -> Progress:
        """Records complete, and the time left at the speed so far."""
        spent, total = time.perf_counter() - self.began, len(self.rows)
        left = spent / self.complete * (total - self.complete) if self.complete else None
        return Progress(STAGE, self.complete, total, spent, left, partial)


def noise_floor(
    denoiser: Denoiser,
    records: RecordSource,
    base_loss: np.ndarray,
    timesteps: Sequence[int],
    seed: int,
    *,
    n_cells: int = 64,
) -> float:
    """sd(fresh − cached) of some seeded cells' losses at θ0: what this machine adds by itself.

    base_loss: float32 [N, captions, flips, T]. Other kernels, dtypes or batch sizes shift losses.
    """
    count, _, flips, steps = base_loss.shape
    generator = np.random.default_rng(seed)
    rows = generator.permutation(np.arange(n_cells) % count)
    flip, column = generator.integers(0, flips, n_cells), generator.integers(0, steps, n_cells)
    fresh = np.empty(len(rows))
    texts = TextStates(denoiser)
    for k in np.unique(column):
        here = np.flatnonzero(column == k)
        grid = Grid(1, flips, tuple(int(t) for t in timesteps), (int(k),), seed)
        stream = batches(denoiser, records, rows[here], grid, texts, len(here), flip[here])
        for batch, _ in stream:
            loss = batch_errors(denoiser, batch).mean(dim=(1, 2)).cpu().numpy()
            fresh[here[batch.where[0]]] = loss
    return float(np.std(fresh - base_loss[rows, 0, flip, column]))
