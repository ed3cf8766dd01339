"""DataInf's solver: the inverse of a mean replaced by the mean of inverses, layer by layer.

| code | paper (Kwon et al. 2024) | meaning |
|---|---|---|
| `rows` | ∇ℓ_i | projected gradients, one block of columns per layer, [B, Σ d_l] |
| `sizes` | d_l | number of parameters of layer l |
| `penalties` | λ_l = damping · mean_i ‖g_il‖² / d_l | per layer |
| `outer` | M_l = (1/n) Σ_i g_il g_ilᵀ / (λ_l + ‖g_il‖²) | [d, d] per block, float64 |

By Sherman and Morrison (1/n) Σ_i (g_il g_ilᵀ + λ_l I)⁻¹ = (I − M_l) / λ_l, so a query v becomes
w_l = (v_l − M_l v_l) / λ_l and a record's score Σ_l w_l·g_kl. The paper's I(z_k) is the change of
the query's loss when z_k gets more weight, Σ_l (M_l v_l − v_l)·g_kl / λ_l; ours is its negative:
higher is more influential.

λ_l divides by the layer's own number of parameters, not by its block's width: inner products
survive a projection, so the score at any width estimates the one without.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class MeanInverses:
    """Two passes over the rows: `measure` all, then `add` all; memory does not grow with N.

    slices: each layer's columns; sizes: each layer's number of parameters; damping: above 0.
    """

    def __init__(self, slices: Sequence[slice], sizes: Sequence[int], damping: float) -> None:
        self.slices, self.sizes, self.damping = list(slices), list(sizes), damping
        self.energies = torch.zeros(len(self.slices), dtype=torch.float64)
        widths = [s.stop - s.start for s in self.slices]
        self.sums = [torch.zeros(width, width, dtype=torch.float64) for width in widths]
        self.measured, self.count = 0, 0

    def measure(self, rows: Tensor) -> None:
        """First pass: rows [B, d] count towards every mean ‖g_l‖²."""
        squares = [rows[:, s].double().square().sum() for s in self.slices]
        self.energies += torch.stack(squares)
        self.measured += len(rows)

    @property
    def penalties(self) -> list[float]:
        """λ_l of each layer; 0 for one in which no row has any gradient."""
        means = (self.energies / max(self.measured, 1)).tolist()
        return [self.damping * m / size for m, size in zip(means, self.sizes, strict=True)]

    def add(self, rows: Tensor) -> None:
        """Second pass: rows [B, d] count towards every M_l."""
        for part, total, penalty in zip(self.slices, self.sums, self.penalties, strict=True):
            g = rows[:, part].double()
            if penalty > 0:
                weights = 1.0 / (penalty + g.square().sum(1, keepdim=True))
                total.addmm_((g * weights).T, g)
        self.count += len(rows)

    def solve(self, queries: Tensor) -> Tensor:
        """w of each row of queries [Q, d], float64 [Q, d]."""
        made = torch.zeros_like(queries, dtype=torch.float64)
        for part, total, penalty in zip(self.slices, self.sums, self.penalties, strict=True):
            v = queries[:, part].double()
            if penalty > 0:
                made[:, part] = (v - v @ total / self.count) / penalty
        return made
