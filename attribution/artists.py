"""Influence by artist: what the scores above the noise floor add up to for each hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from attribution.reduce import score_noise
from attribution.types import ArtistShare, Attribution

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


def score_floor(answer: Attribution) -> float:
    """Below it a score is noise: two standard deviations of it, so that about 2 % of records
    without influence pass by chance. 0 where the method has no noise floor, or no cells are kept.
    """
    if answer.noise_floor is None or answer.cells is None:
        return 0.0
    return 2.0 * score_noise(answer.noise_floor, answer.cells)
