"""An index as the customised model sees it: the same files, and in place of what depends on the
model or on its training set what was computed for the customised one.

| of the index | here |
|---|---|
| training records | the exemplars and their distractors: all that is ranked |
| captions of exemplars | those they were learned under |
| timesteps, base losses | a few timesteps, losses of the customised model |
| rows of gradient methods | gradients of the customised model, if asked for |
| curvature, features, encoders | the index's own |

Methods run on it as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from attribution import layout
from attribution.cells import TextStates, batch_size_for
from attribution.denoiser import Denoiser, Objective
from attribution.index import Index, Rows
from attribution.precision import FLOAT32
from attribution.projection import BlockProjection
from attribution.scoring import Scores, score_records
from attribution.search import Search, build_search
from evaluation.answers import last
from precompute.record_gradients import chunk_rows, records_at_once
from precompute.records import ShardRecords, chunks

# objective → float32 [len(pool), captions, flips, T]; step → float32 [len(pool), flips, d]
Losses = Callable[[Objective], np.ndarray]
Gradients = Callable[[str], np.ndarray]


class CustomisedIndex(Index):
    """A view of `index`; row numbers are the index's."""

    def __init__(
        self,
        index: Index,
        pool: np.ndarray,
        captions: Mapping[int, str],
        timesteps: Sequence[int],
    ) -> None:
        """pool: rows int64, ascending. captions: row → what an exemplar is called. timesteps: some
        of the index's."""
        super().__init__(index.path, index.manifest)
        self.pool = pool
        self.timesteps = tuple(timesteps)
        self.own_captions = dict(captions)
        self.most_captions, self.flips = index.base_loss.shape[1:3]
        self.of_losses: Losses | None = None
        self.of_gradients: Gradients | None = None

    @property
    def train_rows(self) -> np.ndarray:  # type: ignore[override]
        """The pool."""
        return self.pool

    @cached_property
    def all_captions(self) -> list[list[str]]:
        """The index's, but for the exemplars'."""
        found = list(super().all_captions)
        for row, text in self.own_captions.items():
            found[row] = [text]
        return found

    @cached_property
    def base_loss(self) -> np.ndarray:
        """Of the customised model, NaN outside the pool, float32 [N, captions, flips, T]."""
        return self._spread("loss")

    @cached_property
    def base_loss_eps2(self) -> np.ndarray | None:
        """Mean ‖ε_θ‖² of the customised model; computed when asked for."""
        return self._spread("eps2")

    def _spread(self, objective: Objective) -> np.ndarray:
        assert self.of_losses is not None
        shape = (self.n_records, self.most_captions, self.flips, len(self.timesteps))
        whole = np.full(shape, np.nan, dtype=np.float32)
        whole[self.pool] = self.of_losses(objective)
        return whole

    def extra(self, step: str) -> dict[str, Any] | None:
        """Settings of a step: of gradient rows those of one model, at this view's timesteps where
        the rows are its own."""
        found = super().extra(step)
        if found is None or "blocks" not in found:
            return found
        own = {} if self.of_gradients is None else {"timesteps": list(self.timesteps)}
        return {**found, "models": [], **own}

    def rows(self, method: str, rows: Rows | None = None) -> np.ndarray:
        """The index's, or a gradient method's own."""
        if self.of_gradients is None or not self._is_gradient(method):
            return super().rows(method, rows)
        wanted = self.pool if rows is None else np.asarray(rows, dtype=np.int64)
        return self.of_gradients(method)[np.searchsorted(self.pool, wanted)]

    def _is_gradient(self, method: str) -> bool:
        step = self.extras.step_of(f"{layout.ROWS}/{layout.rows_name(method)}")
        return step is not None and "blocks" in (self.extra(step) or {})

    def _open_search(self, method: str) -> Search:
        """In memory: the index's cache is of all its records."""
        return build_search(self.rows(method, self.pool), self.pool)


def losses(
    denoiser: Denoiser,
    view: CustomisedIndex,
    rows: np.ndarray,
    texts: TextStates,
    objective: Objective = "loss",
) -> np.ndarray:
    """L(z, θ), or mean ‖ε_θ‖², of some records with the weights as they are now, in float32: [n,
    captions, flips, T], NaN where a record has fewer captions.

    They are the scores' own cells, against a base of zero.
    """
    exact = replace(denoiser.with_objective(objective), precision=FLOAT32)
    shape = (view.n_records, view.most_captions, view.flips, len(view.timesteps))
    zero = np.broadcast_to(np.zeros((), dtype=np.float32), shape)
    job = score_records(exact, view, zero, rows, {}, view.timesteps, view.seed, texts=texts)
    found: Scores = last(job, Scores)
    return found.cells


def gradient_rows(
    denoiser: Denoiser, view: CustomisedIndex, step: str, rows: np.ndarray
) -> np.ndarray:
    """φ(z) of some records with the weights as they are now, projected as the index's rows of
    `step` are, at the view's timesteps: float32 [n, flips, d]."""
    settings = view.extra(step) or {}
    names = [name for block in settings["blocks"] for name in block["parameters"]]
    shapes = {name: tuple(denoiser.unet.get_parameter(name).shape) for name in names}
    projection = BlockProjection.from_settings(shapes, settings)
    model = denoiser.with_objective(settings["objective"])
    records = _records(view, rows)
    batch = batch_size_for(denoiser)
    made = [
        chunk_rows(
            model,
            records,
            chunk,
            view.timesteps,
            settings["seed"],
            projection.names,
            projection.apply,
            batch,
        )
        for chunk in chunks(len(rows), records_at_once(batch, len(view.timesteps)))
    ]
    return np.concatenate(made)


def _records(view: CustomisedIndex, rows: np.ndarray) -> ShardRecords:
    """Records as the verbs of rows read them."""
    latents = [view.latents(rows, flip) for flip in range(view.flips)]
    return ShardRecords(
        ids=view.ids(rows),
        captions=view.captions(rows),
        train=np.ones(len(rows), dtype=bool),
        latents=torch.stack(latents, dim=1).numpy(),
    )
