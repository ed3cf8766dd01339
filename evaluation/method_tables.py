"""What the lines of the verb `methods` say: overlap, shares against chance, costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import roster
from evaluation.results import Table
from evaluation.shares import LABELS
from evaluation.statistics import mean_error

Unit = dict[str, Any]
# method → query → its answer's line
Answers = Mapping[str, Mapping[str, Unit]]
UNKNOWN = "not recorded"
ABOUT = "method "


def about(units: Sequence[Unit]) -> dict[str, Unit]:
    """method → what is known of it, in the order in which methods are asked."""
    found = {u["method"]: u for u in units if u["unit"].startswith(ABOUT)}
    return dict(sorted(found.items(), key=lambda item: roster.place(item[0], item[1]["kind"])))


def answered(units: Sequence[Unit]) -> dict[str, dict[str, Unit]]:
    """The answers that are still such as the product gives: their `basis` is the method's own."""
    found: dict[str, dict[str, Unit]] = {}
    for name, facts in about(units).items():
        mine = {u["query"]: u for u in units if u["method"] == name and "ids" in u}
        kept = {q: u for q, u in mine.items() if u["basis"] == facts["basis"]}
        if kept:
            found[name] = kept
    return found


def overlap(one: Sequence[str], other: Sequence[str]) -> float:
    """Part of a top list that is in another, of as many as both hold; NaN for an empty one."""
    k = min(len(one), len(other))
    return len(set(one[:k]) & set(other[:k])) / k if k else math.nan


def overlaps(answers: Answers) -> np.ndarray:
    """Means over the queries that both answered, float64 [M, M]; NaN where there are none."""

    def mean(a: Mapping[str, Unit], b: Mapping[str, Unit]) -> float:
        return mean_error([overlap(a[q]["ids"], b[q]["ids"]) for q in a if q in b])[0]

    return np.array([[mean(a, b) for b in answers.values()] for a in answers.values()])


def share_of(answers: Mapping[str, Unit], label: str) -> tuple[list[float], list[float]]:
    """(share in the top list, chance) of each query whose label is known."""
    known = [unit for unit in answers.values() if label in unit["share"]]
    return [u["share"][label] for u in known], [u["chance"][label] for u in known]


def overlap_table(answers: Answers, k: int) -> Table:
    """A row and a column a method."""
    rows = zip(answers, overlaps(answers), strict=True)
    table = [(f"overlap@{k}", *answers)]
    table += [(name, *(_number(value) for value in row)) for name, row in rows]
    return tuple(table)


def share_table(answers: Answers, k: int) -> Table:
    """Share of like records beside chance, mean ± standard error over the queries that tell."""
    heads = [(f"same {label}", "chance", "queries") for label in LABELS]
    table = [(f"in the top {k}", *(cell for head in heads for cell in head))]
    for name, units in answers.items():
        cells: list[str] = []
        for label in LABELS:
            shares, chances = share_of(units, label)
            cells += [spread(shares), _number(mean_error(chances)[0], 3), str(len(shares))]
        table.append((name, *cells))
    return tuple(table)


def cost_table(answers: Answers, methods: Mapping[str, Unit]) -> Table:
    """Seconds of a query, bytes and seconds of precomputing of a training record."""
    heads = ("cost", "queries", "seconds a query", "the first", "records scored", "bytes a record")
    table: list[tuple[str, ...]] = [(*heads, "precomputing, seconds a record")]
    for name, units in answers.items():
        later = [u["seconds"] for u in units.values() if not u["first"]]
        first = [u["seconds"] for u in units.values() if u["first"]]
        last = list(units.values())[-1]
        scored = f"{last['candidates']:,} ({last['candidate_source']})"
        timed = spread(later, 3), spread(first, 3)
        kept = _bytes(methods[name]["cost"]), _precomputing(methods[name]["cost"])
        table.append((name, str(len(units)), *timed, scored, *kept))
    return tuple(table)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean ± standard error; the mean alone of one, nothing of none."""
    shown = (_number(value, digits) for value in mean_error(values))
    return " ± ".join(value for value in shown if value)


def _number(value: float, digits: int = 2) -> str:
    return "" if math.isnan(value) else f"{value:.{digits}f}"


def _bytes(cost: Mapping[str, Any]) -> str:
    """On disk, with its parts; and in memory alone."""
    parts, memory = cost["parts"], cost.get("memory", 0)
    listed = f" ({', '.join(f'{name} {n:,}' for name, n in parts.items())})" if parts else ""
    return f"{sum(parts.values()):,}{listed}" + (f", {memory:,} in memory" if memory else "")


def _precomputing(cost: Mapping[str, Any]) -> str:
    """The sum over the steps, with them; null where nobody wrote a step's seconds down."""
    steps = cost["seconds"]
    known = [value for value in steps.values() if value is not None]
    total = f"{sum(known):.3f}" if len(known) == len(steps) else UNKNOWN
    each = (f"{step} {UNKNOWN if v is None else f'{v:.3f}'}" for step, v in steps.items())
    return f"{total} ({', '.join(each)})" if steps else "0"


def draw(answers: Answers, k: int, path: Path) -> None:
    """The overlap table as a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    names, values = list(answers), overlaps(answers)
    side = 2.5 + 0.55 * len(names)
    figure, axes = plt.subplots(figsize=(side, side), layout="constrained")
    axes.imshow(values, vmin=0.0, vmax=1.0, cmap="Blues")
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    for (row, column), value in np.ndenumerate(values):
        colour = "white" if value > 0.5 else "black"
        axes.text(column, row, _number(value), ha="center", va="center", color=colour, size=8)
    axes.set_title(f"overlap@{k}, mean over queries", size=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)
