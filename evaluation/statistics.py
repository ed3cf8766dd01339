"""The little statistics that the figures need."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from attribution.compare import mean_ranks as ranks
from attribution.compare import spearman

__all__ = ["mean_error", "ranks", "spearman", "wilson"]


def wilson(successes: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; (0, 1) without any trial."""
    if total == 0:
        return 0.0, 1.0
    p, zz = successes / total, z * z / total
    centre = (p + zz / 2) / (1 + zz)
    half = z * math.sqrt(p * (1 - p) / total + zz / (4 * total)) / (1 + zz)
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_error(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """(mean, standard error of the mean); the error is NaN for fewer than two values."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) < 2:
        return float(array.mean()) if len(array) else math.nan, math.nan
    return float(array.mean()), float(array.std(ddof=1) / math.sqrt(len(array)))
