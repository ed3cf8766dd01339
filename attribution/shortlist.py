"""Candidates worth an exact score: first-order scores of projected gradients, and how several
orders of records become one.

Eq. 16: to first order τ ≈ ∇L(z, θ0)·Δθ = (F^-½ ∇L(z))·(F^½ Δθ). The index holds random projections
of the left factor; the query projects the right one the same way and searches by inner product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from attribution.fisher import DiagonalFisher
from attribution.projection import Projection

GRADIENT_ROWS = "gradients"


class GradientQuery:
    """Turns a Δθ into a query of the gradient rows: same metric, same projection, same seed.

    metric: damped diagonal Fisher of exactly the weights the rows were made of.
    """

    def __init__(self, metric: DiagonalFisher, dim: int, seed: int) -> None:
        self.metric = metric
        shapes = {name: tuple(value.shape) for name, value in metric.values.items()}
        self.projection = Projection(shapes, dim, seed)

    def vector(self, delta: Mapping[str, Tensor]) -> np.ndarray:
        """P F^½ Δθ, float32 [dim]; weights of Δθ that the rows know nothing of are left out."""
        ours = {name: delta[name][None] for name in self.metric.values}
        return self.projection.apply(self.metric.sqrt(ours))[0].cpu().numpy()


def join(orders: Sequence[np.ndarray], n: int) -> np.ndarray:
    """The first n distinct rows of several orders taken in turn, int64."""
    turns: dict[int, None] = {}
    for place in range(max((len(order) for order in orders), default=0)):
        turns.update(dict.fromkeys(int(order[place]) for order in orders if place < len(order)))
    return np.array(list(turns)[:n], dtype=np.int64)


def sources_of(rows: np.ndarray, orders: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """How many of the chosen rows each source offered among its own first len(rows)."""
    return {name: int(np.isin(rows, order[: len(rows)]).sum()) for name, order in orders.items()}
