"""The timestep slider: the same cells ranked anew, from layout to detail, no forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from attribution.reduce import score_cells
from attribution.types import Attribution, UserError


def triangle(timesteps: Sequence[int], centre: float, width: float) -> np.ndarray:
    """Weights max(0, 1 − |t − centre| / width), sum 1, float64 [T]; else the nearest t alone."""
    distance = np.abs(np.asarray(timesteps, dtype=np.float64) - centre)
    weights = np.maximum(0.0, 1.0 - distance / width)
    if not weights.any():
        weights[distance.argmin()] = 1.0
    return weights / weights.sum()


def rerank(attribution: Attribution, centre: float | None, width: float) -> Attribution:
    """The answer with timesteps weighted by a triangle around `centre`; None weighs all alike.

    Records without a cell there (those a saved example left out, or that a race dropped before)
    come last: with their score where all timesteps count, with none, NaN, around a centre. Raises
    UserError for a method that has no cells.
    """
    if attribution.cells is None or not attribution.timesteps:
        raise UserError(f"{attribution.method} keeps no timesteps to rank by")
    weights = None if centre is None else triangle(attribution.timesteps, centre, width)
    scores, errors, flip = score_cells(attribution.cells, weights)
    lacking = np.isnan(scores)
    if centre is None:
        scores = np.where(lacking, attribution.scores, scores)
    flip = np.where(lacking, attribution.flip, flip)
    order = np.lexsort((-scores, lacking))
    control = attribution.control and rerank(attribution.control, centre, width)
    view = replace(attribution, scores=scores, standard_error=errors, flip=flip, control=control)
    return _ordered(view, order)


def _ordered(attribution: Attribution, order: np.ndarray) -> Attribution:
    """The same records in another order."""
    a = attribution
    return replace(
        a,
        ids=tuple(a.ids[i] for i in order),
        rows=a.rows[order],
        scores=a.scores[order],
        standard_error=a.standard_error[order],
        flip=a.flip[order],
        cells=None if a.cells is None else a.cells[order],
    )
