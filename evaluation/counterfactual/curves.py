"""The random control: a curve over K, and what a method's removal equals on it (Fig. 12)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.counterfactual.lines import METRICS, Lines


def rising(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """The nearest non-decreasing curve in least squares (pool adjacent violators), float64 [n]."""
    blocks: list[tuple[float, int]] = []  # mean, length
    for value in np.asarray(values, dtype=np.float64):
        blocks.append((float(value), 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (left, n), (right, m) = blocks[-2:]
            blocks[-2:] = [((left * n + right * m) / (n + m), n + m)]
    return np.concatenate([np.full(n, mean) for mean, n in blocks])


def random_curve(
    lines: Lines, queries: Sequence[str], metric: str
) -> tuple[list[int], list[float], float]:
    """(Ks, what random removals of each lose on these queries, the sign that makes more be lost
    more): the curve that `equivalent` reads."""
    ks, sign = lines.random_sizes, 1.0 if METRICS[metric] else -1.0
    outcomes = [lines.random_outcomes(k, queries) for k in ks]
    means = [sign * float(np.mean([getattr(o, metric) for o in some])) for some in outcomes]
    return ks, means, sign


def equivalent(ks: Sequence[int], curve: Sequence[float], value: float) -> tuple[float, str]:
    """(how many random removals give `value`, "" or which end of the curve it lies beyond).

    ks ascending; the curve is made to rise, and is straight between its points.
    """
    smooth = rising(curve)
    if value < smooth[0]:
        return float(ks[0]), "<"
    if value >= smooth[-1]:
        return float(ks[-1]), ">"
    # the first point above: flat stretches are passed over
    above = int(np.searchsorted(smooth, value, side="right"))
    low, high = smooth[above - 1], smooth[above]
    share = (value - low) / (high - low)
    return float(ks[above - 1] + share * (ks[above] - ks[above - 1])), ""


def shown(found: tuple[float, str]) -> str:
    """'140', '< 5', '> 850'."""
    number, beyond = found
    return f"{beyond} {number:.0f}".strip()
