"""Do a method's scores foretell what a removal does? The linear datamodelling score, over the
retrainings there are (Park et al. 2023, "TRAK", Definition 2.3).

| code | meaning |
|---|---|
| `foretold` | g(S) = Σ_{z in S} τ(z, ẑ), the sum of the scores of the records a training missed |
| `measured` | ΔL(ẑ) of that training |
| rho | Spearman's rank correlation of both over the removals of one K, for one picture |

Every training is measured on every picture, so each counts for all of them, and a method needs no
retraining of its own. Most removals were made for other pictures: what they do to this one is small
and partly chance, which keeps rho far from 1 for every method alike. "elsewhere" leaves out those
that were made for the picture itself, which the methods had a say in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from evaluation.counterfactual.lines import Lines
from evaluation.statistics import mean_error, spearman

FEWEST = 10  # removals to correlate over
NOTE = (
    "Linear datamodelling score over the finished removals of K: rank correlation (rho) and "
    "Pearson's (r) of the sum of the removed records' scores and the measured ΔL, mean over "
    "pictures ± one standard error; elsewhere: without the removals made for the picture itself. "
    "Pictures share the removals, so the error is larger than stated: see the control."
)
HEADS = ("K", "method", "pictures", "removals", "rho ↑", "rho, elsewhere ↑", "r ↑")


@dataclass(frozen=True)
class Foretold:
    """One method at one K. rho, elsewhere, linear: float64 [pictures], rank correlation over all
    removals, over those made for other pictures, and Pearson's."""

    k: int
    label: str
    removals: int
    rho: np.ndarray
    elsewhere: np.ndarray
    linear: np.ndarray


@dataclass(frozen=True)
class Removals:
    """The trainings that differ from the model by K records alone."""

    lines: Lines
    k: int

    @cached_property
    def keys(self) -> list[str]:
        """Their keys."""
        return [
            key
            for key, line in self.lines.trainings.items()
            if len(line["removed"]) == self.k and line["seed"] == self.lines.recipe.seed
        ]

    @cached_property
    def sets(self) -> np.ndarray:
        """Rows of the index, int64 [removals, K]."""
        return np.array([self.lines.trainings[key]["removed"] for key in self.keys], dtype=np.int64)

    def measured(self, query: str) -> np.ndarray:
        """ΔL(ẑ) of each, float64 [removals]."""
        trainings = self.lines.trainings
        lost = [self.lines.values(trainings[key], query)["delta_loss"] for key in self.keys]
        return np.array(lost)

    def elsewhere(self, query: str) -> np.ndarray:
        """Which were made for other pictures, bool [removals]."""
        own = self.lines.made_for.get(query, set())
        return np.array([key not in own for key in self.keys])


def foretold(lines: Lines) -> Iterator[Foretold]:
    """Every K with enough removals, every label with scores; by the mean rho."""
    for k in lines.sizes:
        removals = Removals(lines, k)
        if len(removals.keys) >= FEWEST:
            some = [
                _one(removals, label, lines.scores[arm])
                for label, arm in lines.labels.items()
                if arm in lines.scores
            ]
            yield from sorted(some, key=lambda one: -float(np.nanmean(one.rho)))


def _one(removals: Removals, label: str, scores: Mapping[str, np.ndarray]) -> Foretold:
    pictures = [query for query in removals.lines.place if query in scores]
    rows = np.array([_correlations(removals, scores[query], query) for query in pictures])
    return Foretold(removals.k, label, len(removals.keys), *rows.T)


def _correlations(removals: Removals, scores: np.ndarray, query: str) -> tuple[float, float, float]:
    sums, lost = scores[removals.sets].sum(axis=1), removals.measured(query)
    apart = removals.elsewhere(query)
    with np.errstate(invalid="ignore", divide="ignore"):
        linear = float(np.corrcoef(sums, lost)[0, 1])
    return spearman(sums, lost), spearman(sums[apart], lost[apart]), linear


def table(lines: Lines) -> list[tuple[str, ...]]:
    """A row a method; empty without scores or without enough removals."""
    rows = [
        (
            *(str(one.k), one.label, str(len(one.rho)), str(one.removals)),
            *(_shown(values) for values in (one.rho, one.elsewhere, one.linear)),
        )
        for one in foretold(lines)
    ]
    return [HEADS, *rows] if rows else []


def _shown(values: np.ndarray) -> str:
    mean, error = mean_error(values[np.isfinite(values)])
    return f"{mean:.3f} ± {error:.3f}"
