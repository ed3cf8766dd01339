"""Where methods agree on one picture: overlap@k, rank correlation, a record's rank.

Pure numpy over finished answers. Only order is compared: the scores of two methods have no common
scale. An answer may hold fewer records than another (a shortlist, a saved top): correlations are
over the records that both hold.

>>> overlap_matrix([abu, clip], k=24)          # float64 [2, 2], 1 on the diagonal
>>> correlation(abu, clip)                     # Correlation(rho=0.18, common=512)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from attribution.types import Attribution, Correlation

# Below this many common records a rank correlation says nothing.
MIN_COMMON = 10

Pairs = Mapping[tuple[str, str], Correlation]


def scored(answer: Attribution) -> int:
    """How many records of an answer have a score; they come first."""
    return int(np.isfinite(answer.scores).sum())


def overlap(a: Attribution, b: Attribution, k: int) -> float:
    """|top k of a ∩ top k of b| / k, with k at most what both scored; NaN where that is nothing."""
    k = min(k, scored(a), scored(b))
    return len(set(a.ids[:k]) & set(b.ids[:k])) / k if k > 0 else math.nan


def overlap_matrix(answers: Sequence[Attribution], k: int) -> np.ndarray:
    """overlap(a, b, k) of every pair, float64 [M, M] in 0..1."""
    return np.array([[overlap(a, b, k) for b in answers] for a in answers], dtype=np.float64)


def mean_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks 1..n of `values` [n], equal values sharing their mean rank, float64 [n]."""
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[inverse].astype(np.float64)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Rank correlation of two arrays [n]; NaN where one is constant."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(np.corrcoef(mean_ranks(a), mean_ranks(b))[0, 1])


def correlation(a: Attribution, b: Attribution) -> Correlation:
    """Spearman's rho over the records that both scored; NaN below `MIN_COMMON` of them."""
    n, m = scored(a), scored(b)
    _, i, j = np.intersect1d(a.rows[:n], b.rows[:m], return_indices=True)
    rho = spearman(a.scores[i], b.scores[j]) if len(i) >= MIN_COMMON else math.nan
    return Correlation(rho, len(i))


def correlations(answers: Sequence[Attribution]) -> dict[tuple[str, str], Correlation]:
    """Every pair once, by the methods' names."""
    pairs = ((a, b) for i, a in enumerate(answers) for b in answers[i + 1 :])
    return {(a.method, b.method): correlation(a, b) for a, b in pairs}


def correlation_matrix(
    answers: Sequence[Attribution], known: Pairs | None = None
) -> list[list[Correlation]]:
    """Every pair, [M][M]; the diagonal is 1. Pairs of method names in `known` are taken from it:
    those computed while answers since shortened were whole.
    """
    known = known or {}

    def of(a: Attribution, b: Attribution) -> Correlation:
        if a is b:
            return Correlation(1.0, scored(a))
        names = (a.method, b.method)
        return known.get(names) or known.get(names[::-1]) or correlation(a, b)

    return [[of(a, b) for b in answers] for a in answers]


def rank_of(answer: Attribution, record_id: str) -> int | None:
    """Rank of a record from 1; None where the answer holds no score of it."""
    if record_id not in answer.ids:
        return None
    place = answer.ids.index(record_id)
    return place + 1 if math.isfinite(answer.scores[place]) else None


def ranks_of(answers: Sequence[Attribution], record_id: str) -> dict[str, int | None]:
    """method → rank of one record."""
    return {answer.method: rank_of(answer, record_id) for answer in answers}
