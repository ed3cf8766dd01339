"""Scores: how much worse the unlearned model is on each training record (Eq. 6).

| code | paper | meaning |
|---|---|---|
| `base_loss` | L(z, θ0) | per (record, caption, flip, timestep), cached by the index |
| `cells` | L(z, θ−ẑ) − L(z, θ0) | per cell, with the SAME noise on both sides |
| `scores` | τ(ẑ, z) | mean over captions and timesteps, max over flips; higher: more influential |
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

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
from attribution.racing import Heat, Race, heats
from attribution.reduce import cells_at, reduce_cells, score_cells
from attribution.types import Attribution, Cancelled, Progress
from attribution.unlearning import applied

__all__ = ["Scores", "noise_floor", "reduce_cells", "score_records"]

STAGE = "score"
TICK, PARTIAL_EVERY = 0.25, 1.2


@dataclass(frozen=True)
class Scores:
    """Cells of the records that are through at least one heat, in the order asked; last those that
    were scored along.

    rows: int64 [M]. rivals: how many of them, from the first, were asked for themselves. cells:
    float32 [M, captions, flips, T], NaN where not evaluated. maps: row → float32 [h, w], change of
    squared error per latent cell in the upright image's orientation, for the top records.
    evaluated: forwards for cells, with either weights; fresh: the base losses were computed here as
    well; seconds: of the whole scoring.
    """

    rows: np.ndarray
    cells: np.ndarray
    maps: dict[int, np.ndarray] = field(default_factory=dict)
    evaluated: int = 0
    fresh: bool = False
    seconds: float = 0.0
    rivals: int = 0


def score_records(
    denoiser: Denoiser,
    records: RecordSource,
    base_loss: np.ndarray,
    rows: Rows,
    delta: Mapping[str, Tensor],
    timesteps: Sequence[int],
    seed: int,
    *,
    also: Rows = (),
    race: Race | None = None,
    columns: Sequence[int] | None = None,
    stale: Callable[[Scores], bool] | None = None,
    batch_size: int | None = None,
    keep_maps: int = 0,
    texts: TextStates | None = None,
    partial: Callable[[Scores], Attribution] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Iterator[Progress | Scores]:
    """τ of every record of `rows`, in their order: give the most promising first.

    base_loss: float32 [N, captions, flips, T], row i being record i, its last axis `timesteps`.
    also: rows to score at every timestep whatever the race, which they have no part in: they follow
    `rows` in the Scores, a second time where they are among them, and get no heat map. columns:
    positions in `timesteps` to evaluate, all by default; a race chooses its own. stale: asked after
    the first heat whether base losses have to be computed here. Yields Progress in forwards every
    quarter of a second, with `partial(scores so far)` about every second, at last the Scores. The
    model holds θ0 at every yield; raises Cancelled when `cancelled()` says so.
    """
    asked, more = np.asarray(rows, dtype=np.int64), np.asarray(also, dtype=np.int64)
    everyone = np.concatenate([asked, more])
    _, captions, flips, count = base_loss.shape
    chosen = tuple(range(count)) if columns is None else tuple(int(c) for c in columns)
    grid = Grid(captions, flips, tuple(int(t) for t in timesteps), chosen, seed)
    job = _Scoring(denoiser, records, everyone, np.array(base_loss[everyone]), delta, grid)
    job.texts = texts or job.texts
    job.batch_size = batch_size or batch_size_for(denoiser)
    job.maps, job.rivals = ErrorMaps(keep_maps), len(asked)
    job.partial, job.cancelled = partial, cancelled
    yield from job.run(race, np.arange(len(asked), len(everyone)), stale)


class _Scoring:
    """State of one scoring: cells filled so far, and error maps of the best records so far.

    rows: int64 [M], the first `rivals` of them compete. base, after: losses at θ0 and at θ−ẑ,
    float32 [M, captions, flips, T]; cells: what they differ by where both are known.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        records: RecordSource,
        rows: np.ndarray,
        base: np.ndarray,
        delta: Mapping[str, Tensor],
        grid: Grid,
    ) -> None:
        self.denoiser, self.records, self.rows, self.delta = denoiser, records, rows, delta
        self.grid, self.texts, self.base = grid, TextStates(denoiser), base
        self.batch_size, self.maps, self.rivals = 1, ErrorMaps(0), len(rows)
        self.partial: Callable[[Scores], Attribution] | None = None
        self.cancelled: Callable[[], bool] | None = None
        self.after = np.full(base.shape, np.nan, dtype=np.float32)
        self.cells = self.after.copy()
        # cells of one record and timestep: its captions times the flips
        self.width = np.isfinite(base).any(axis=3).sum(axis=(1, 2))
        self.through = np.zeros(len(rows), dtype=bool)
        self.heat, self.complete = Heat(np.arange(0), ()), 0
        self.fresh, self.evaluated, self.done, self.left, self.ahead = False, 0, 0, 0, 0
        self.began = self.shown = time.perf_counter()

    def run(
        self, race: Race | None, also: np.ndarray, stale: Callable[[Scores], bool] | None
    ) -> Iterator[Progress | Scores]:
        """Heat after heat, the heat maps, then the Scores. also: positions."""
        whole = Heat(np.arange(len(self.rows)), self.grid.columns)
        plan = [whole] if race is None else heats(self.cells, race, self.rivals, also)
        coming = [] if race is None else race.sizes(self.rivals)[1:]
        for number, heat in enumerate(plan):
            self._look_ahead(coming[number:], len(also), race)
            yield from self._pass(heat, unlearned=True)
            if number == 0 and stale is not None:
                self.fresh = stale(self.scores())
            if self.fresh:
                yield from self._pass(heat, unlearned=False)
        maps = yield from self._maps(whole.columns)
        yield self.scores(maps)

    def _look_ahead(self, coming: Sequence[tuple[int, int]], also: int, race: Race | None) -> None:
        """Forwards that follow the next heat, as far as they are known."""
        cells = sum((records + also) * columns for records, columns in coming)
        before = 0 if race is None else self.grid.shape[2] - len(race.rest)
        shown = min(self.maps.keep, self.rivals) * (len(self.grid.columns) + before)
        width = float(self.width.mean()) if len(self.width) else 0.0
        captions = width / self.grid.flips
        self.ahead = round(width * cells * (1 + self.fresh) + captions * shown)

    def _pass(self, heat: Heat, *, unlearned: bool) -> Generator[Progress]:
        """The losses of a heat's cells, at θ−ẑ or at θ0."""
        self.heat, self.complete = heat, 0
        self.left = int(self.width[heat.positions].sum()) * len(heat.columns)
        grid = replace(self.grid, columns=heat.columns)
        rows, texts = self.rows[heat.positions], self.texts
        stream = batches(self.denoiser, self.records, rows, grid, texts, self.batch_size)
        try:
            while self._advance(stream, unlearned):
                yield self._progress(self._partial() if unlearned else None)
        finally:
            stream.close()
        self.heat = Heat(heat.positions[:0], ())

    def _advance(self, stream: Iterator[tuple[Batch, int]], unlearned: bool) -> bool:
        """Run batches for about a tick with the weights in the model; False if none was left."""
        until, ran = time.perf_counter() + TICK, False
        with applied(self.denoiser, self.delta if unlearned else {}):
            for batch, complete in stream:
                ran = True
                self._take(batch, batch_errors(self.denoiser, batch), complete, unlearned)
                if time.perf_counter() >= until:
                    break
        return ran

    def _take(self, batch: Batch, errors: Tensor, complete: int, unlearned: bool) -> None:
        positions = self.heat.positions[batch.where[0]]
        index = (positions, *batch.where[1:])
        side = self.after if unlearned else self.base
        side[index] = errors.mean(dim=(1, 2)).cpu().numpy()
        self.cells[index] = self.after[index] - self.base[index]
        finished = self.heat.positions[self.complete : complete]
        self.through[finished], self.complete = True, complete
        self.evaluated += len(positions) * self.denoiser.forwards
        self._did(len(positions))
        if self.maps.keep and unlearned and self.heat.last:
            mine = positions < self.rivals
            self.maps.add(np.stack(index)[:, mine], errors.cpu().numpy()[mine])
            finished = finished[finished < self.rivals]
            self.maps.settle(finished, self.cells[finished])

    def _maps(self, columns: Sequence[int]) -> Generator[Progress, None, dict[int, np.ndarray]]:
        """Heat maps of the best rivals, of all columns that they were scored at."""
        scores, _, flips = score_cells(self.cells[: self.rivals])
        best = np.argsort(-scores, kind="stable")[: self.maps.keep]
        best = best[np.isfinite(scores[best])]
        grid = replace(self.grid, columns=tuple(columns))
        job = self.maps.changes(
            self.denoiser, self.records, self.rows, best, flips[best], grid, self.delta, self.texts
        )
        self.left = self.ahead = 0
        while True:
            try:
                self._did(next(job))
            except StopIteration as stop:
                made: dict[int, np.ndarray] = stop.value
                return made
            yield self._progress(None)

    def scores(self, maps: dict[int, np.ndarray] | None = None) -> Scores:
        """What is known so far, without the half of a heat's cells of a record."""
        cells = self.cells.copy()
        half = self.heat.positions[self.complete :]
        if len(half):
            cells[cells_at(cells, half, self.heat.columns)] = np.nan
        spent, known = time.perf_counter() - self.began, self.through
        return Scores(
            self.rows[known],
            cells[known],
            maps or {},
            self.evaluated,
            self.fresh,
            spent,
            int(known[: self.rivals].sum()),
        )

    def _partial(self) -> Attribution | None:
        """An answer from what is known so far, about every second."""
        now = time.perf_counter()
        if self.partial is None or not self.through.any() or now - self.shown < PARTIAL_EVERY:
            return None
        self.shown = now
        return self.partial(self.scores())

    def _did(self, forwards: int) -> None:
        self.done, self.left = self.done + forwards, max(self.left - forwards, 0)

    def _progress(self, partial: Attribution | None) -> Progress:
        """Forwards done, and the time left at the speed so far."""
        if self.cancelled is not None and self.cancelled():
            raise Cancelled
        spent, left = time.perf_counter() - self.began, self.left + self.ahead
        seconds = spent / self.done * left if self.done else None
        return Progress(STAGE, self.done, self.done + left, spent, seconds, partial)


def noise_floor(
    denoiser: Denoiser,
    records: RecordSource,
    base_loss: np.ndarray,
    timesteps: Sequence[int],
    seed: int,
    *,
    n_cells: int = 64,
) -> float:
    """sd(fresh − cached) of some seeded cells' losses at θ0, of records from all over the index:
    what this machine adds by itself.

    base_loss: float32 [N, captions, flips, T], NaN for records that are left out. Other kernels,
    dtypes or batch sizes shift losses.
    """
    _, _, flips, steps = base_loss.shape
    generator = np.random.default_rng(seed)
    known = np.flatnonzero(np.isfinite(base_loss[:, 0]).all(axis=(1, 2)))
    rows = np.resize(generator.permutation(known), n_cells)
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
