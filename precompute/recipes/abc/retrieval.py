"""Does a sample find its exemplars among all training records? Recall and average precision."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attribution.heads import Head
from precompute.recipes.abc.features import Case, Features
from precompute.recipes.abc.plan import MIXED, PLAIN

# metric → field of Row
FIELDS = {"recall@1": "recall1", "recall@10": "recall10", "mAP": "ap"}


@dataclass(frozen=True)
class Row:
    """Means over the samples of one model; recall@k: exemplars in the first k, of min(k, all)."""

    name: str
    kind: str
    recall1: float
    recall10: float
    ap: float

    def metrics(self) -> list[float]:
        """In the order of FIELDS, rounded."""
        return [round(getattr(self, field), 4) for field in FIELDS.values()]


@dataclass(frozen=True)
class Scores:
    """A row for each model."""

    rows: tuple[Row, ...]

    def mean(self, name: str) -> float:
        """Mean over models; NaN without any."""
        return float(np.mean([getattr(row, name) for row in self.rows])) if self.rows else np.nan


def scores(
    found: Features,
    head: Head,
    cases: Sequence[Case],
    prompts: Collection[str] = (PLAIN, MIXED),
) -> Scores:
    """Rows of `cases` under a head. prompts: the kinds that count."""
    records = head.apply(found.records)
    rows = []
    for case in cases:
        kinds = [kind for kind, _ in case.pair.model.prompts]
        wanted = [i for i, kind in enumerate(kinds) if kind in prompts]
        if wanted:
            ranks = exemplar_ranks(head.apply(case.samples[wanted]), records, case.exemplars)
            rows.append(_row(case, ranks))
    return Scores(tuple(rows))


def exemplar_ranks(samples: Tensor, records: Tensor, exemplars: Sequence[int]) -> np.ndarray:
    """Ranks 1..n of the exemplars among records [n, flips, d] for samples [s, d]: int64 [s, k],
    ascending. A record counts by the better of image and flip; ties go against the exemplar.
    """
    return ranks_among(torch.einsum("sd,nfd->snf", samples, records).amax(-1), exemplars)


def ranks_among(scores: Tensor, exemplars: Sequence[int]) -> np.ndarray:
    """Ranks 1..n of the exemplars, positions in scores [s, n], higher is better: int64 [s, k],
    ascending; ties go against the exemplar.
    """
    own = scores[:, list(exemplars)]
    rest = scores.clone()
    rest[:, list(exemplars)] = -torch.inf
    before = (rest[:, None] >= own[:, :, None]).sum(-1)
    among = own.argsort(1, descending=True).argsort(1)
    return (before + among + 1).sort(1).values.numpy()


def recall(ranks: np.ndarray, limit: int) -> np.ndarray:
    """Exemplars among the first `limit`, of min(limit, all), for ranks [s, k]: float64 [s]."""
    return (ranks <= limit).sum(1) / min(limit, ranks.shape[1])


def average_precision(ranks: np.ndarray) -> np.ndarray:
    """Mean over the exemplars of the share of exemplars down to each, ranks ascending [s, k]:
    float64 [s]."""
    return (np.arange(1, ranks.shape[1] + 1) / ranks).mean(1)


def _row(case: Case, ranks: np.ndarray) -> Row:
    found = (recall(ranks, 1), recall(ranks, 10), average_precision(ranks))
    return Row(case.pair.model.name, case.pair.model.kind, *(float(v.mean()) for v in found))


def retrieval(found: Features, head: Head, cases: Sequence[Case]) -> dict[str, float]:
    """Every metric's mean over models, rounded, with their number."""
    table = scores(found, head, cases)
    means = {name: round(table.mean(field), 4) for name, field in FIELDS.items()}
    return {"models": len(table.rows), **means}
