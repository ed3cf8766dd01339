"""Methods side by side at one K: the same queries for all, differences paired, whoever wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from evaluation.counterfactual.lines import METRICS, RANDOM, Lines, Outcome
from evaluation.counterfactual.tasks import REPORTED
from evaluation.statistics import bootstrap, mean_error, ranks, t_interval

# What numbers are multiplied by where they are shown.
SCALE = {"delta_loss": 1e3, "mse": 1e2, "clip": 10.0}
HEADS = {"delta_loss": "ΔL ×10⁻³ ↑", "mse": "MSE ×10⁻² ↑", "clip": "CLIP ×10⁻¹ ↓"}

ENOUGH = 12  # queries; fewer are no verdict


@dataclass(frozen=True)
class Paired:
    """One method less another, query by query, with two 95 % intervals of the mean: the percentile
    bootstrap's (low, high), and Student's `t`."""

    other: str
    mean: float
    low: float
    high: float
    t: tuple[float, float]
    better: int
    n: int

    @property
    def above(self) -> bool:
        """Whether both intervals are above zero."""
        return self.low > 0 and self.t[0] > 0

    @property
    def told_apart(self) -> bool:
        """Whether zero lies outside both, on whichever side."""
        return self.above or (self.high < 0 and self.t[1] < 0)


@dataclass(frozen=True)
class Block:
    """values: label → metric → float64 [queries], label by label the same `queries`. begun: labels
    that are left out, with the number of queries they have."""

    k: int
    queries: tuple[str, ...]
    values: Mapping[str, Mapping[str, np.ndarray]]
    begun: Mapping[str, int] = field(default_factory=dict)

    def mean(self, label: str, metric: str) -> float:
        """Mean over queries."""
        return float(self.values[label][metric].mean())

    def order(self, metric: str) -> list[str]:
        """Labels, the best first: where most was forgotten."""
        sign = -1.0 if METRICS[metric] else 1.0
        return sorted(self.values, key=lambda label: sign * self.mean(label, metric))

    def mean_rank(self, label: str, metric: str) -> float:
        """The mean over queries of the label's rank among all, 1 where most was forgotten; what is
        equal shares its ranks. A few queries at which much is lost decide a mean, not this."""
        sign = -1.0 if METRICS[metric] else 1.0
        place = list(self.values).index(label)
        columns = zip(*(sign * values[metric] for values in self.values.values()), strict=True)
        return float(np.mean([ranks(np.array(column))[place] for column in columns]))

    def best_of(self, labels: Sequence[str], metric: str) -> str | None:
        """The best of some labels, None where none of them is here."""
        return next((label for label in self.order(metric) if label in labels), None)

    def paired(self, label: str, other: str, metric: str) -> Paired:
        """`label` against `other`; positive where `label` forgot more, whatever the metric."""
        sign = 1.0 if METRICS[metric] else -1.0
        rows = sign * (self.values[label][metric] - self.values[other][metric])
        low, high = bootstrap(lambda x: float(x.mean()), rows)
        better = int((rows > 0).sum())
        return Paired(other, float(rows.mean()), low, high, t_interval(rows), better, len(rows))

    def against_best(self, label: str, metric: str) -> Paired | None:
        """`label` against the best other one."""
        others = [other for other in self.order(metric) if other != label]
        return self.paired(label, others[0], metric) if others else None


def block(
    lines: Lines,
    arms: Mapping[str, str],
    k: int,
    *,
    control: bool = True,
    among: slice = REPORTED,
) -> Block | None:
    """Labelled arms at one K on the queries that all of them have; None where there is nothing.

    An arm has only begun, and is left out, with fewer queries than a verdict takes where another
    has as many, and with less than half of the fullest's where none has.
    among: which pictures of the gallery.
    """
    asked = {entry.id for entry in lines.gallery[among]}
    found: dict[str, dict[str, Outcome]] = {}
    for label, arm in arms.items():
        own = {o.query: o for o in lines.outcomes(arm) if o.k == k}
        found[label] = {q: o for q, o in own.items() if q in asked}
    most = max((len(own) for own in found.values()), default=0)
    least = ENOUGH if most >= ENOUGH else most / 2
    begun = {label: len(own) for label, own in found.items() if 0 < len(own) < least}
    found = {label: own for label, own in found.items() if own and label not in begun}
    if not found:
        return None
    common = set.intersection(*(set(own) for own in found.values()))
    queries = tuple(entry.id for entry in lines.gallery if entry.id in common)
    if not queries:
        return None
    rows = {label: [own[query] for query in queries] for label, own in found.items()}
    if control and (drawn := lines.random_outcomes(k, queries)):
        rows[RANDOM] = drawn
    return Block(k, queries, {label: _columns(some) for label, some in rows.items()}, begun)


def _columns(outcomes: Sequence[Outcome]) -> dict[str, np.ndarray]:
    return {name: np.array([getattr(o, name) for o in outcomes]) for name in METRICS}


def cell(found: Block, label: str, metric: str, *, marks: bool = True) -> str:
    """'5.61 ± 0.16', the best in bold, the second in italics."""
    mean, error = (SCALE[metric] * x for x in mean_error(found.values[label][metric]))
    if np.isnan(mean):
        return ""
    text = f"{mean:.2f} ± {error:.2f}"
    place = found.order(metric).index(label) if marks else 2
    return {0: f"**{text}**", 1: f"*{text}*"}.get(place, text)


def difference(paired: Paired | None, metric: str = "delta_loss", *, both: bool = False) -> str:
    """'+0.21 (0.05 to 0.38) against dtrak, 9 of 12'; both: Student's interval beside it."""
    if paired is None:
        return ""
    ends = (paired.low, paired.high, *paired.t)
    mean, low, high, *student = (SCALE[metric] * x for x in (paired.mean, *ends))
    more = f"; t {student[0]:.2f} to {student[1]:.2f}" if both else ""
    interval = f"{mean:+.2f} ({low:.2f} to {high:.2f}{more})"
    return f"{interval} against {paired.other}, {paired.better} of {paired.n}"
