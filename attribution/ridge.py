"""TRAK's solver: ridge regression on projected gradients, (ΦᵀΦ + λI)⁻¹ φ(ẑ).

| code | paper (Park et al. 2023) | meaning |
|---|---|---|
| `rows` | Φ | projected gradients of the training set, image and flip each a row, [2N, d] |
| `gram` | ΦᵀΦ | [d, d] float64, summed over batches of rows |
| `damping` | λ = damping · tr(ΦᵀΦ)/d | relative to the mean eigenvalue: no unit, no scale |

Rows and queries multiplied by one factor give the same scores: (s²ΦᵀΦ + s²λI)⁻¹ cancels it.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Ridge:
    """Sums ΦᵀΦ over batches of rows, then solves as often as asked; memory does not grow with N."""

    def __init__(self, dim: int) -> None:
        self.gram = torch.zeros(dim, dim, dtype=torch.float64)
        self.count = 0
        self._factor: tuple[float, Tensor] | None = None

    def add(self, rows: Tensor) -> None:
        """Add rows [B, d]."""
        wide = rows.double()
        self.gram.addmm_(wide.T, wide)
        self.count += len(rows)
        self._factor = None

    def penalty(self, damping: float) -> float:
        """λ."""
        return damping * float(self.gram.trace()) / len(self.gram)

    def solve(self, queries: Tensor, damping: float) -> Tensor:
        """(ΦᵀΦ + λI)⁻¹ q of each row of queries [Q, d], float64 [Q, d]; damping above 0.

        Zeros where no training row has any gradient: nothing was learned from, nothing influences.
        """
        if self.penalty(damping) <= 0:
            return torch.zeros_like(queries, dtype=torch.float64)
        return torch.cholesky_solve(queries.double().T, self._cholesky(damping)).T

    def _cholesky(self, damping: float) -> Tensor:
        """Lower factor of ΦᵀΦ + λI, kept for the last damping."""
        if self._factor is None or self._factor[0] != damping:
            eye = torch.eye(len(self.gram), dtype=torch.float64)
            damped = self.gram + self.penalty(damping) * eye
            self._factor = damping, torch.linalg.cholesky(damped)
        return self._factor[1]
