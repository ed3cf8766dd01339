"""Tables of leave-K-out, as Markdown; numbers are means over queries ± one standard error."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from evaluation.counterfactual import curves
from evaluation.counterfactual.compare import (
    ENOUGH,
    HEADS,
    Block,
    Paired,
    block,
    cell,
    difference,
)
from evaluation.counterfactual.lines import METRICS, RANDOM, Lines
from evaluation.counterfactual.tasks import (
    ABLATIONS,
    CHECK,
    FIRST,
    REMOVED,
    REPORTED,
    SEEN,
    THEN,
)
from evaluation.results import Figure, Summary
from evaluation.statistics import mean_error

# Ours, of which AbU and AbU+ are the paper's and the aim's; abu-shift is no rival of theirs.
OURS = ("abu", "abu-ekfac", "abu-kfac", "abu-ekfac-full", "abu-shift")
PAPERS, LATER = ("abu", "abu-ekfac"), ("abu-kfac", "abu-ekfac-full")
AIMED = (*PAPERS, *LATER)
TABLE_1 = (*FIRST, *THEN)
TABLE_2 = (
    *("abu-sgd", "abu-sgd:steps=1", "abu-full", "abu-attn", "abu-crossattn", "abu"),
    *("abu:steps=1", "abu:ewc=true", "abu-ekfac", "abu-kfac", "abu-ekfac-full"),
)
LOSSES = ("abu", "abu-eps2:relative_increase=1.0:steps=5", "abu-eps2")
TABLE_5, FLIPS = ("trak", "dtrak", *LOSSES), ("abu", "abu:flips=mean")
BOTH = "both intervals above 0"
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


def comparison(
    lines: Lines, labels: Sequence[str], apart: Sequence[str] = (), among: slice = REPORTED
) -> Rows:
    """Table 1 and its kin: every K of `blocks`, the methods by ΔL."""
    head = ("K", "method", "queries", *HEADS.values())
    more = ("mean rank by ΔL", "ΔL against the best other, better in", "equals removing at random")
    table: Rows = [(*head, *more)]
    for found in blocks(lines, labels, apart, among):
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


# ------------------------------------------------------------------ for the report


def summary(head: Mapping[str, Any], units: Sequence[Mapping[str, Any]]) -> Summary:
    """Table 1, who is first, and what a retraining takes."""
    lines = Lines(head, units)
    if not lines.known or not lines.trainings:
        return Summary((Figure("leave-K-out", f"{len(lines.trainings)} trainings done"),))
    firsts = (*_first(lines), *_unseen(lines))
    figures = [*firsts, *_control(lines), *_draws(lines), *_costs(lines)]
    begun = left_out(lines)
    notes = (*([begun] if begun else []), note(lines))
    return Summary(tuple(figures), tuple(comparison(lines, every_method(lines))), notes)


def _first(lines: Lines) -> Iterator[Figure]:
    """The paper's AbU or AbU+ against the best of the others, at every K, then the best of AIMED,
    and who else that one is not told apart from."""
    for found in blocks(lines, every_method(lines)):
        papers, ours = (found.best_of(some, "delta_loss") for some in (PAPERS, AIMED))
        rest = [label for label in found.order("delta_loss") if label not in (*OURS, RANDOM)]
        what = f"leave-{found.k}-out, ΔL ×10⁻³:"
        for one in dict.fromkeys((papers, ours)):
            if one is not None and rest:
                pair = _shared(lines, found, one, rest[0])
                verdict = pair.above if pair.n >= ENOUGH else None
                told = difference(pair, both=True)
                yield Figure(f"{what} {one} less the best other", told, BOTH, verdict)
        if ours is not None and rest:
            pairs = (_shared(lines, found, ours, other) for other in rest[1:])
            near = [difference(pair, both=True) for pair in pairs if not pair.told_apart]
            name = f"{what} {ours} less each further method it is not told apart from"
            yield Figure(name, "; ".join(near) or "none")


def _unseen(lines: Lines) -> Iterator[Figure]:
    """Whichever of AIMED was best on the other pictures, on those that no training had asked about
    before: less the best of the other kinds there. Too few for a verdict."""
    every = chosen(lines, every_method(lines))
    for there in blocks(lines, tuple(every), among=CHECK):
        before = block(lines, every, there.k, among=SEEN)
        ours = before and before.best_of(AIMED, "delta_loss")
        rest = [label for label in there.order("delta_loss") if label not in (*OURS, RANDOM)]
        if ours in there.values and rest:
            told = difference(there.paired(ours, rest[0], "delta_loss"), both=True)
            name = f"leave-{there.k}-out, ΔL ×10⁻³, pictures asked about last: {ours} less the best"
            yield Figure(f"{name} other", told)


def _shared(lines: Lines, found: Block, ours: str, other: str) -> Paired:
    """Two methods on every query that both have, where the block has those that all do."""
    arms = {name: lines.labels[name] for name in (ours, other)}
    two = block(lines, arms, found.k, control=False)
    return (two or found).paired(ours, other, "delta_loss")


def _control(lines: Lines) -> Iterator[Figure]:
    for found in blocks(lines, every_method(lines)):
        ours = found.best_of(AIMED, "delta_loss")
        if ours and RANDOM in found.values:
            ratio = found.mean(ours, "delta_loss") / max(found.mean(RANDOM, "delta_loss"), 1e-12)
            equal = equals_random(lines, found, ours)
            value = f"{ratio:.2f} times" + (f", equals removing {equal} at random" if equal else "")
            yield Figure(f"leave-{found.k}-out, ΔL of {ours} over that of random", value)


def _draws(lines: Lines) -> Iterator[Figure]:
    """How much two random removals differ: what the page holds a single proof against."""
    for k in lines.random_sizes:
        if gaps := random_gaps(lines, k):
            median, most = (100 * float(np.quantile(gaps, share)) for share in (0.5, 0.9))
            yield Figure(
                f"two random removals of {k}: relative loss of a picture differs by",
                f"{most:.1f} points in nine of ten pairs (median {median:.1f})",
            )


def random_gaps(lines: Lines, k: int) -> list[float]:
    """Of every two draws of K and every measured picture: the difference of its relative loss."""
    base = np.array(lines.base["losses"])
    drawn = [np.array(line["losses"]) / base - 1.0 for line in lines.random(k)]
    return [float(gap) for a, b in combinations(drawn, 2) for gap in np.abs(a - b)]


def _costs(lines: Lines) -> Iterator[Figure]:
    seconds = [line["seconds"][0] for line in lines.trainings.values()]
    where = {f"{line['threads']} thread, {line['device']}" for line in lines.trainings.values()}
    told = f"{np.median(seconds):.0f} s (median of {len(seconds)}; {'; '.join(sorted(where))})"
    yield Figure("one retraining", told)
    other = [line for line in lines.seeds if line["seed"] != lines.recipe.seed]
    if other:
        queries = [entry.id for entry in lines.gallery[: lines.head["settings"]["measured"]]]
        # the models of a picture are no pictures of their own
        values = [np.mean([lines.values(x, q)["delta_loss"] for x in other]) for q in queries]
        mean, error = (1e3 * x for x in mean_error(values))
        said = f"{mean:.2f} ± {error:.2f} ({len(queries)} pictures, each by {len(other)} models)"
        yield Figure("nothing removed, another seed: ΔL ×10⁻³", said)
    same = [line for line in lines.seeds if "weights_differ_by" in line]
    if same:
        worst = max(line["weights_differ_by"] for line in same)
        yield Figure("removing nothing: weights differ from the model's by", f"{worst:.3g}", "0")


def note(lines: Lines) -> str:
    """How the numbers were measured."""
    said = lines.head["settings"]
    recipe = said["recipe"]
    return (
        f"{recipe['steps']} optimiser steps of {recipe['batch_size']}; losses at stride "
        f"{said['stride']}, pictures by {said['steps']} DDIM steps at guidance scale "
        f"{said['guidance']:g}. Means over queries ± one standard error, **best** and *second*; "
        "differences are paired, intervals are 95 % bootstrap intervals over queries, and in the "
        "verdicts Student's beside them: of a dozen pictures the bootstrap's are too narrow. No "
        "interval is corrected for the number of methods and Ks. "
        f"{', '.join(LATER)} were tried because of what AbU+ missed on the pictures reported here "
        "(docs/proof.md): verdicts on them are not blind. More tables "
        "and figures: `python -m evaluation tables`."
    )
