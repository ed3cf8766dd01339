"""Recall@24 of each source of candidates against the exhaustive answers that are kept.

python -m evaluation exhaustive --queries 20
python -m evaluation shortlist --queries 20

Prints recall for 128, 256, 512 and 1024 candidates and the smallest shortlist with recall >= 0.95:
the default. The last rows are no source of candidates but say what racing can save: everyone's
score at a few timesteps first, and how far down that ranking the answer reaches.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from attribution.scoring import reduce_cells
from attribution.types import UserError
from evaluation import candidates, exhaustive
from evaluation.answers import Answers
from evaluation.results import Figure, Summary
from evaluation.statistics import mean_error
from evaluation.world import world_of

SIZES = (128, 256, 512, 1024)
TOP_K = 24
TARGET = 0.95
FEW = ((150, 450, 750), (250, 750), (450,))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `shortlist`: which exhaustive answers, by the arguments they had."""
    exhaustive.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """One line a query whose exhaustive answer is complete."""
    answers = Answers(world_of(args))
    kept, asked = exhaustive.begin(args, answers)
    grid = args.timesteps or list(answers.index.timesteps)
    lines = exhaustive.by_query(list(kept.units.values()))
    complete = [q for q in asked if _complete(lines.get(q.key, []), grid)]
    if not complete:
        raise UserError("no exhaustive answer at these timesteps: run the verb exhaustive first")
    settings = {"exhaustive": kept.run, "timesteps": grid, "sources": list(candidates.SOURCES)}
    results = answers.world.results(args, "shortlist", settings)
    for query in tqdm(complete, desc="queries", disable=None):
        if query.key in results.units:
            continue
        truth, few = _truth(args, answers, kept.run, lines[query.key], grid)
        delta, _ = exhaustive.delta_of(args, answers, kept, query)
        orders = candidates.orders(answers, query.image, delta, max(SIZES))
        results.add(query.key, prompt=query.prompt, recall=recalls(truth, {**orders, **few}))


def _complete(lines: Sequence[Mapping[str, Any]], grid: Sequence[int]) -> bool:
    return set(grid) <= {line["timestep"] for line in lines}


def _truth(
    args: argparse.Namespace,
    answers: Answers,
    run: str,
    lines: list[dict[str, Any]],
    grid: Sequence[int],
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rows of the exhaustive top 24, and all rows ranked by a few timesteps only."""
    index = answers.index
    cells = exhaustive.load_cells(args.results, run, lines, index.timesteps)
    whole = ranked(cells, answers.columns(grid), index.train_rows)
    few = {
        f"racing at t = {', '.join(map(str, steps))}": ranked(
            cells, answers.columns(steps), index.train_rows
        )
        for steps in FEW
        if set(steps) < set(grid)
    }
    return whole[:TOP_K], few


def ranked(cells: np.ndarray, columns: Sequence[int], rows: np.ndarray) -> np.ndarray:
    """`rows` by descending score over some columns of their cells [n, captions, flips, T]."""
    scores = reduce_cells(cells[..., list(columns)])[0]
    return rows[np.argsort(-scores, kind="stable")]


def recalls(truth: np.ndarray, orders: Mapping[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """source → size → share of `truth` among the source's first `size` rows."""
    found = {}
    for source, rows in orders.items():
        hits = {str(size): np.isin(truth, rows[:size]).mean() for size in SIZES}
        found[source] = {size: round(float(share), 4) for size, share in hits.items()}
    return found


def smallest(means: Mapping[str, Mapping[str, float]]) -> tuple[int, str] | None:
    """(size, source) of the smallest shortlist with recall >= 0.95, the best of that size."""
    for size in SIZES:
        sources = [source for source in candidates.SOURCES if source in means]
        best = max(sources, key=lambda source: means[source][str(size)])
        if means[best][str(size)] >= TARGET:
            return size, best
    return None


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """Mean recall by source and size, and the default that follows."""
    table: list[tuple[str, ...]] = [("candidates from", *map(str, SIZES))]
    means: dict[str, dict[str, float]] = {}
    for source in units[0]["recall"]:
        shares = {s: [u["recall"][source][str(s)] for u in units] for s in SIZES}
        means[source] = {str(s): float(np.mean(values)) for s, values in shares.items()}
        cells = ["{:.3f} ± {:.3f}".format(*mean_error(values)) for values in shares.values()]
        table.append((source, *cells))
    found = smallest(means)
    if found:
        value = (
            f"{found[0]} candidates from {found[1]}, recall {means[found[1]][str(found[0])]:.3f}"
        )
    else:
        value = "none reaches it: exhaustive with partial results"
    grid = ", ".join(map(str, head["settings"]["timesteps"]))
    note = (
        f"Recall@{TOP_K} against exhaustive answers at timesteps {grid}, mean ± one standard error "
        f"over {len(units)} queries."
    )
    figure = Figure(
        "smallest shortlist, the default", value, f"recall@{TOP_K} >= {TARGET}", bool(found)
    )
    return Summary((figure,), tuple(table), (note,))
