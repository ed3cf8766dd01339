"""Influence by artist: what the scores above the noise floor add up to for each hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from attribution.types import ArtistShare

UNKNOWN = "unknown artist"


def artist_shares(
    ids: Sequence[str], scores: np.ndarray, artists: Sequence[Sequence[str] | None], floor: float
) -> list[ArtistShare]:
    """Shares of sum_i max(score_i - floor, 0), each record's part split evenly over its artists.

    ids, artists: per record, in the order of `scores` (float [M], best first). floor: below it a
    score is noise. Greatest share first, ties by name; empty when no score rises above the floor.
    """
    excess = np.maximum(np.nan_to_num(np.asarray(scores, dtype=np.float64)) - floor, 0.0)
    total = float(excess.sum())
    shares: dict[str, float] = {}
    records: dict[str, list[str]] = {}
    for record_id, part, names in zip(ids, excess, artists, strict=True):
        if part <= 0.0:
            continue
        hands = tuple(dict.fromkeys(names or ())) or (UNKNOWN,)
        for name in hands:
            shares[name] = shares.get(name, 0.0) + float(part) / len(hands) / total
            records.setdefault(name, []).append(record_id)
    ordered = sorted(shares, key=lambda name: (-shares[name], name))
    return [ArtistShare(name, shares[name], tuple(records[name])) for name in ordered]


def score_floor(noise_floor: float | None, n_cells: int) -> float:
    """The noise of a score, from the noise of one cell: the mean of n cells has 1/sqrt(n) of its
    standard deviation.

    Two standard deviations, so that about 2 % of records without influence pass by chance.
    """
    return 0.0 if noise_floor is None else 2.0 * noise_floor / max(n_cells, 1) ** 0.5
