"""How selective forgetting was: the target's change over that of other pictures, by method.

| column | what it is |
|---|---|
| ratio | mean over queries of MSE(target) / mean MSE(others), the paper's Table 3 |
| ratio of means | mean target over mean of the others', bootstrap over queries |
| typical ratio | exp of the mean of ln(ratio): twice and half count alike |
| against SGD | typical ratio over SGD's in as many steps, same queries, ± 2 standard errors of ln |

A ratio of small errors has a heavy tail: where the others hardly changed, one query outweighs all
the rest in a mean of ratios (the six queries first measured: 4 to 460). The logarithm has no such
tail and treats both sides alike, so the paired comparison is made there, with a sign test beside it
that assumes nothing of the sizes. The paper's mean is shown, and judged, as well.

At equal target loss both methods were stopped when the model was as bad at the target, which says
little about the picture it draws. At equal forgetting each method's step is scaled until the
target's own picture has changed as much: then only the others' change differs, as when one reads
Table 3 across.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attribution import defaults
from evaluation import results
from evaluation.results import Figure, Summary
from evaluation.statistics import bootstrap, mean_error, sign_test

LOSS = "loss"
REFERENCE = "abu-sgd"
# What has to beat it: the paper's method, and the product's default.
JUDGED = ("abu", defaults.METHOD)
# What rounding to 8 bits does to a picture by itself: no change below it can be seen.
ROUNDING = 1.0 / 255**2 / 12
HEADS = (
    *("at equal", "method", "queries", "target MSE", "others' MSE", "ratio", "ratio of means"),
    *("typical ratio", "against SGD", "better in", "sign test p", "loss increase", "CLIP kept"),
)

COLUMNS = (
    *("query", "method", "at equal", "scale", "reached", "target_mse", "others_mse"),
    *("target_clip", "others_clip"),
)

Unit = Mapping[str, Any]
Units = dict[str, Unit]


def ratio(unit: Unit) -> float:
    """The target's error over the mean of the others'."""
    return max(unit["target"], ROUNDING) / max(float(np.mean(unit["others"])), ROUNDING)


def grouped(units: Sequence[Unit]) -> dict[str, dict[str, Units]]:
    """point → method → query → unit, points as first met, units whose point was found."""
    made: dict[str, dict[str, Units]] = {}
    for unit in units:
        methods = made.setdefault(str(unit.get("point", LOSS)), {})
        queries = methods.setdefault(unit["method"], {})
        if unit.get("found", True):
            queries[unit["query"]] = unit
    return made


def write_csv(units: Sequence[Unit], path: Path) -> None:
    """A line for each query, method and point that was found: errors of the target and, in the
    mean, of the others, and CLIP similarities where there was a CLIP."""
    results.write_csv(path, COLUMNS, _rows(units))


def _rows(units: Sequence[Unit]) -> Iterator[tuple[Any, ...]]:
    for point, methods in grouped(units).items():
        for method, queries in methods.items():
            for query, u in queries.items():
                about = (query, method, point, u.get("scale", 1.0), u["reached"])
                errors = (u["target"], float(f"{np.mean(u['others']):.6g}"))
                yield *about, *errors, *(u.get("clip") or ("", ""))


@dataclass(frozen=True)
class Paired:
    """One method against another on the queries both have. mean, error: of the difference of
    ln(ratio); plain, plain_error: of the ratios themselves.
    """

    n: int
    mean: float
    error: float
    wins: int
    p: float
    plain: float
    plain_error: float

    @classmethod
    def of(cls, ours: Units, theirs: Units) -> Paired:
        """`ours` against `theirs`, query by query."""
        both = [(ratio(ours[query]), ratio(theirs[query])) for query in ours if query in theirs]
        logs = [math.log(a / b) for a, b in both]
        mean, error = mean_error(logs)
        plain, plain_error = mean_error([a - b for a, b in both])
        unequal = [x for x in logs if x]
        wins = sum(x > 0 for x in unequal)
        return cls(len(both), mean, error, wins, sign_test(wins, len(unequal)), plain, plain_error)

    @property
    def factor(self) -> str:
        """exp(mean) with the interval of two standard errors."""
        low, high = (math.exp(self.mean + k * self.error) for k in (-2.0, 2.0))
        return f"×{math.exp(self.mean):.2f} ({low:.2f} to {high:.2f})"


def summary(units: Sequence[Unit], settings: Mapping[str, Any]) -> Summary:
    """All methods and points in one table; what was promised against SGD as figures."""
    points = grouped(units)
    table: list[tuple[str, ...]] = [HEADS]
    figures: list[Figure] = []
    for point, methods in points.items():
        for method, own in methods.items():
            name, reference = reference_of(method, methods)
            if own:
                table.append(_row(_name(point, settings), method, own, reference))
            if own and reference:
                paired = Paired.of(own, reference)
                figures += _figures(_name(point, settings), method, name, paired)
    lost = sum(not unit.get("found", True) for unit in units)
    notes = (
        f"{settings['others']} other prompts, {settings['steps']} DDIM steps. Errors and ratios "
        "are means over queries ± one standard error, intervals 95 %. The paper's Table 3: "
        "target over others 4.2 (abu), 2.5 (SGD), at target MSE 0.093 and 0.081.",
        "Equal forgetting: each step is scaled until the target's picture has gone that part of "
        "the way to an unrelated picture, by MSE."
        + (
            f" {lost} of {len(units)} measurements found no such scale and are left out."
            * bool(lost)
        ),
    )
    return Summary(tuple(figures), tuple(table), notes)


def reference_of(method: str, methods: Mapping[str, Units]) -> tuple[str, Units]:
    """What a method is held against: gradient ascent in as many steps where that was run, else in
    one; nothing for that itself."""
    steps = [part for part in method.split(":")[1:] if part.startswith("steps=")]
    for name in (":".join((REFERENCE, *steps)), REFERENCE):
        if name != method and methods.get(name):
            return name, methods[name]
    return REFERENCE, {}


def _name(point: str, settings: Mapping[str, Any]) -> str:
    if point == LOSS:
        return f"target loss (+{settings['config']['relative_increase']:.0%})"
    return f"forgetting ({float(point.removeprefix('share ')):.0%})"


def _figures(where: str, method: str, other: str, paired: Paired) -> list[Figure]:
    """Two ways to compare; only JUDGED promise anything."""
    judged = method in JUDGED and paired.n > 1
    target = "> 2 standard errors" if method in JUDGED else ""
    where = f"forgetting at equal {where}, {method}"
    return [
        Figure(
            f"{where} against {other}, paired ln of the ratios",
            f"{paired.factor}, better in {paired.wins} of {paired.n}, sign test p = {paired.p:.2g}",
            target,
            bool(paired.mean > 2 * paired.error) if judged else None,
        ),
        Figure(
            f"{where} minus {other}, paired ratios",
            f"{paired.plain:.2f} ± {paired.plain_error:.2f} over {paired.n} queries",
            target,
            bool(paired.plain > 2 * paired.plain_error) if judged else None,
        ),
    ]


def _row(where: str, method: str, own: Units, reference: Units) -> tuple[str, ...]:
    units = list(own.values())
    others = [float(np.mean(unit["others"])) for unit in units]
    targets = [unit["target"] for unit in units]
    logs, error = mean_error([math.log(ratio(unit)) for unit in units])
    shown = [
        f"{len(units)}",
        "{:.2e} ± {:.1e}".format(*mean_error(targets)),
        "{:.2e} ± {:.1e}".format(*mean_error(others)),
        "{:.2f} ± {:.2f}".format(*mean_error([ratio(unit) for unit in units])),
        _ratio_of_means(targets, others),
        f"{math.exp(logs):.2f} (×/÷ {math.exp(error):.2f})",
    ]
    if not reference:
        against = ["", "", ""]
    else:
        paired = Paired.of(own, reference)
        against = [paired.factor, f"{paired.wins} of {paired.n}", f"{paired.p:.2g}"]
    increase = "{:.1%} ± {:.1%}".format(*mean_error([unit["reached"] for unit in units]))
    return (where, method, *shown, *against, increase, _kept(units))


def _ratio_of_means(targets: Sequence[float], others: Sequence[float]) -> str:
    pairs = np.stack([targets, others], axis=1)
    value = float(pairs[:, 0].mean() / max(pairs[:, 1].mean(), ROUNDING))
    low, high = bootstrap(lambda x: float(x[:, 0].mean() / max(x[:, 1].mean(), ROUNDING)), pairs)
    return f"{value:.2f} ({low:.2f} to {high:.2f})"


def _kept(units: Sequence[Unit]) -> str:
    """CLIP similarity to the picture before, target and others, where it was measured."""
    found = [unit["clip"] for unit in units if unit.get("clip")]
    if not found:
        return ""
    target, others = np.mean([[clip[0], clip[1]] for clip in found], axis=0)
    return f"{target:.3f}, others {others:.3f}"
