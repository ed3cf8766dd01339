"""Tables of leave-K-out, as Markdown; numbers are means over queries ± one standard error."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from evaluation.counterfactual import curves
from evaluation.counterfactual.compare import (
    HEADS,
    Block,
    block,
    cell,
    difference,
)
from evaluation.counterfactual.lines import METRICS, RANDOM, Lines
from evaluation.counterfactual.tasks import ABLATIONS, CHECK, FIRST, REMOVED, REPORTED, THEN
from evaluation.statistics import mean_error

TABLE_1 = (*FIRST, *THEN)
TABLE_2 = (
    *("abu-sgd", "abu-sgd:steps=1", "abu-full", "abu-attn", "abu-crossattn", "abu"),
    *("abu:steps=1", "abu:ewc=true", "abu-ekfac", "abu-kfac", "abu-ekfac-full"),
)
LOSSES = ("abu", "abu-eps2:relative_increase=1.0:steps=5", "abu-eps2")
TABLE_5, FLIPS = ("trak", "dtrak", *LOSSES), ("abu", "abu:flips=mean")
Rows = list[tuple[str, ...]]


def every_method(lines: Lines) -> tuple[str, ...]:
    """The labels of Table 1: the methods, and those of them that ran on other rows (`@place`)."""
    return (*TABLE_1, *(label for label in lines.labels if "@" in label))


def chosen(lines: Lines, labels: Sequence[str]) -> dict[str, str]:
    """label → arm, of those that were asked for at all."""
    return {label: lines.labels[label] for label in labels if label in lines.labels}


def blocks(
    lines: Lines, labels: Sequence[str], apart: Sequence[str] = (), among: slice = REPORTED
) -> Iterator[Block]:
    """Every K at which some method has a finished removal; apart: at which two of these have, of
    which one is an ablation. One alone compares nothing that Table 1 does not."""
    arms = chosen(lines, labels)
    for k in lines.sizes:
        if (found := block(lines, arms, k, among=among)) is not None:
            there = {label for label in apart if label in found.values}
            if not apart or (len(there) > 1 and there & set(ABLATIONS)):
                yield found


def equals_random(lines: Lines, found: Block, label: str, metric: str = "delta_loss") -> str:
    """How many random removals lose as much as this method's K, on the same queries."""
    if len(lines.random_sizes) < 2 or label == RANDOM:
        return ""
    ks, curve, sign = curves.random_curve(lines, found.queries, metric)
    return curves.shown(curves.equivalent(ks, curve, sign * found.mean(label, metric)))


def table_1(lines: Lines) -> Iterator[Block]:
    """Every method, at every K."""
    return blocks(lines, every_method(lines))


def asked_last(lines: Lines) -> list[Block]:
    """The pictures of CHECK alone, at every K at which methods share half of them."""
    least = len(range(lines.head["settings"]["measured"])[CHECK]) / 2
    found = blocks(lines, every_method(lines), among=CHECK)
    return [one for one in found if len(one.queries) >= least and len({*one.values} - {RANDOM}) > 1]


def comparison(lines: Lines, of: Iterable[Block]) -> Rows:
    """Table 1 and its kin: every K of `blocks`, the methods by ΔL."""
    head = ("K", "method", "queries", *HEADS.values())
    more = ("mean rank by ΔL", "ΔL against the best other, better in", "equals removing at random")
    table: Rows = [(*head, *more)]
    for found in of:
        for label in found.order("delta_loss"):
            cells = [cell(found, label, metric) for metric in METRICS]
            against = difference(found.against_best(label, "delta_loss"))
            table.append(
                (
                    *(str(found.k), label, str(len(found.queries))),
                    *(*cells, f"{found.mean_rank(label, 'delta_loss'):.1f}", against),
                    equals_random(lines, found, label),
                )
            )
    return table if len(table) > 1 else []


def others(lines: Lines, label: str = "abu") -> Rows:
    """Table 4: the pictures of target, nearest prompts and other families, without the top K, and
    the same pictures without K at random: how much they change anyway. On all pictures that the
    method has, which may be more than Table 1's."""
    heads = ("K", "without", "pictures", "target MSE ↑", "target CLIP ↓", "related MSE ↓")
    grouped: dict[tuple[int, str], list[Sequence[float]]] = {}
    for k, name, _, values in spreads(lines, label):
        grouped.setdefault((k, name), []).append(values)
    table = [
        (str(k), name, str(len(rows)), *map(_plus_minus, zip(*rows, strict=True)))
        for (k, name), rows in grouped.items()
    ]
    return [(*heads, "related CLIP ↑", "other MSE ↓", "other CLIP ↑"), *table] if table else []


def spreads(lines: Lines, label: str) -> Iterator[tuple[int, str, str, Sequence[float]]]:
    """(K, what chose them, query's id, (MSE, CLIP) of target, related and others) of every removal
    of a method, and of as many at random: a picture's draws are no pictures of their own, so their
    mean is one value."""
    arm = lines.labels.get(label)
    for k in lines.sizes if arm else ():
        own = _own(lines, arm, k)
        for o in own:
            yield k, label, o.query, _spread(lines, lines.trainings[o.key], o.query)
        if drawn := lines.random(k):
            for o in own:
                means = np.mean([_spread(lines, line, o.query) for line in drawn], 0)
                yield k, RANDOM, o.query, tuple(means)


def _own(lines: Lines, arm: str | None, k: int) -> list[Any]:
    found = block(lines, {"own": arm or ""}, k, control=False)
    queries = found.queries if found else ()
    return [o for o in lines.outcomes(arm or "") if o.k == k and o.query in queries]


def _spread(lines: Lines, line: Mapping[str, Any], query: str) -> tuple[float, ...]:
    """(MSE, CLIP) of the target, of its nearest prompts and of other families, under the model of a
    training's line."""
    here = lines.place[query]
    related = lines.base["related"][here]
    family = lines.gallery[here].category
    apart = [
        n
        for n, entry in enumerate(lines.gallery)
        if entry.category != family and n not in related and n != here
    ]
    groups = ([here], related, apart)
    metrics = (line["mse"], line.get("clip"))
    return tuple(
        float(np.mean([metric[n] for n in group])) if metric and group else float("nan")
        for group in groups
        for metric in metrics
    )


def _plus_minus(values: Sequence[float]) -> str:
    mean, error = mean_error(values)
    return "" if np.isnan(mean) else f"{mean:.4f} ± {error:.4f}"


def settings(lines: Lines) -> Rows:
    """Which settings every label was run with, the defaults of that day among them."""
    rows = [(label, f"`{arm}`", _configured(lines, arm)) for label, arm in lines.labels.items()]
    return [("label", "method and settings", "all settings"), *rows] if rows else []


def _configured(lines: Lines, arm: str) -> str:
    """Every setting of the answers that count; where only their digest was noted, that."""
    noted = lines.configuration(arm)
    if noted is None:
        digest = lines.digest(arm)
        return f"not noted; digest `{digest}`" if digest else ""
    return ", ".join(f"{name} {json.dumps(value)}" for name, value in sorted(noted.items()))


def left_out(lines: Lines) -> str:
    """What the tables leave out, in a line: what has only begun, and at the middle K what has not;
    '' where nothing is left out."""
    every = tuple(dict.fromkeys((*every_method(lines), *ABLATIONS)))
    begun, none = [], []
    for found in blocks(lines, every):
        begun += [f"{label} at K = {found.k} ({n} queries)" for label, n in found.begun.items()]
        if found.k == REMOVED[1]:
            none = [label for label in every if label not in (*found.values, *found.begun)]
    said = [f"only begun, {', '.join(begun)}"] if begun else []
    said += [f"not begun, {', '.join(none)}"] if none else []
    return f"Left out: {'; '.join(said)}." if said else ""
