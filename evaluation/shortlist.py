"""What shortlists and races hold of the exhaustive answers that are kept: recall@24 and forwards.

python -m evaluation exhaustive --queries 20
python -m evaluation shortlist --queries 20

Prints recall for each source of candidates (other methods' own answers, first-order scores of the
gradient rows, and several in turn) at 128, 256, 512 and 1024 of them; for the gradient rows also at
fewer dimensions than are stored; and, replayed on the stored cells by the library's own rule, what
racing schedules find among those candidates and among everyone. The default is the cheapest of all
with recall >= 0.95; the last lines are what to write into attribution/defaults.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from attribution import defaults
from attribution.racing import Waves
from attribution.shortlist import GRADIENT_ROWS
from attribution.types import UserError
from evaluation import candidates, exhaustive
from evaluation.answers import Answers
from evaluation.candidates import RACED, SOURCES
from evaluation.queries import Asked
from evaluation.results import Figure, Summary
from evaluation.schedules import SCHEDULES, Stored, label
from evaluation.statistics import mean_error
from evaluation.world import world_of

SIZES = (128, 256, 512, 1024)
TOP_K = 24
TARGET = 0.95
# The column of everyone: a race needs no shortlist.
EVERYONE = "all"
# (schedule, source, size) → (mean recall, mean forwards of a query)
Kind = tuple[str, str, str]
Means = Mapping[Kind, tuple[float, float]]


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
    settings = {
        "exhaustive": kept.run,
        "timesteps": grid,
        "sources": list(SOURCES),
        "schedules": [label(waves) for waves in SCHEDULES],
        "confidence": defaults.RACING_CONFIDENCE,
        "n_train": len(answers.index.train_rows),
    }
    results = answers.world.results(args, "shortlist", settings)
    for query in tqdm(complete, desc="queries", disable=None):
        if query.key not in results.units:
            stored = _stored(args, answers, kept.run, lines[query.key], grid)
            delta, _ = exhaustive.delta_of(args, answers, kept, query)
            results.add(query.key, prompt=query.prompt, **_line(answers, query, delta, stored))


def _complete(lines: Sequence[Mapping[str, Any]], grid: Sequence[int]) -> bool:
    return set(grid) <= {line["timestep"] for line in lines}


def _stored(
    args: argparse.Namespace,
    answers: Answers,
    run: str,
    lines: list[dict[str, Any]],
    grid: Sequence[int],
) -> Stored:
    """A query's exhaustive answer at the timesteps asked for."""
    index, columns = answers.index, answers.columns(grid)
    cells = exhaustive.load_cells(args.results, run, lines, index.timesteps)
    base = index.base_loss[..., columns]
    return Stored(cells[..., columns], index.train_rows, grid, base, TOP_K)


def _line(answers: Answers, query: Asked, delta: Any, stored: Stored) -> dict[str, Any]:
    """All that is measured of one query."""
    truth = stored.truth
    offered = candidates.orders(answers, query, delta)
    raced = [source for source in RACED if source in offered]
    pools = {source: {str(n): offered[source][:n] for n in SIZES} for source in raced}
    pools[EVERYONE] = {EVERYONE: stored.rows}
    races = {
        label(waves): {
            source: {size: _raced(stored, rows, waves) for size, rows in sizes.items()}
            for source, sizes in pools.items()
        }
        for waves in SCHEDULES
    }
    return {
        "recall": candidates.recalls(truth, offered, SIZES),
        "dimensions": _by_dimension(answers, delta, truth) if "gradient" in offered else {},
        "races": races,
    }


def _raced(stored: Stored, rows: np.ndarray, waves: Waves) -> tuple[float, int]:
    recall, forwards = stored.raced(rows, waves)
    return round(recall, 4), forwards


def _by_dimension(answers: Answers, delta: Any, truth: np.ndarray) -> dict[str, dict[str, float]]:
    index, gradients = answers.index, answers.context.gradient_query
    assert gradients is not None
    vector, rows = gradients.vector(delta), index.train_rows
    products = candidates.block_products(index.rows(GRADIENT_ROWS, rows), vector)
    return candidates.recalls_by_dimension(products, len(vector), rows, truth, SIZES)


# ------------------------------------------------------------------------------------- the summary


def smallest(means: Mapping[str, Mapping[str, float]]) -> tuple[int, str] | None:
    """(size, source) of the smallest shortlist with recall >= 0.95, the best of that size."""
    for size in SIZES:
        sources = [source for source in SOURCES if source in means]
        best = max(sources, key=lambda source: means[source][str(size)])
        if means[best][str(size)] >= TARGET:
            return size, best
    return None


def cheapest(means: Means) -> Kind | None:
    """The kind of answer with the fewest forwards and recall >= 0.95, the best of those."""
    good = [kind for kind, (recall, _) in means.items() if recall >= TARGET]
    # of equals a plain one: races that a small set makes pointless cost the same
    return min(good, key=lambda k: (means[k][1], -means[k][0], k[0] != label(())), default=None)


def race_means(units: Sequence[Mapping[str, Any]]) -> Means:
    """Means over the queries, by kind of answer."""
    means = {}
    for waves in units[0]["races"]:  # those of its day
        pools = units[0]["races"][waves]
        for source, size in [(name, size) for name, sizes in pools.items() for size in sizes]:
            pairs = [unit["races"][waves][source][size] for unit in units]
            recall, forwards = np.mean(pairs, axis=0).tolist()
            means[waves, source, size] = recall, forwards
    return means


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """Mean recall by source, dimension and schedule, and the default that follows."""
    recall, means = _mean_recalls(units), race_means(units)
    found, best = smallest(recall), cheapest(means)
    table = [("", *map(str, SIZES), EVERYONE), *_recall_rows(units), *_dimension_rows(units)]
    grid = ", ".join(map(str, head["settings"]["timesteps"]))
    notes = [
        f"Recall@{TOP_K} against exhaustive answers at timesteps {grid}, mean ± one standard error "
        f"over {len(units)} queries. A race '1 → 192; 2 → 64' scores all candidates at one "
        "timestep, the best 192 at two more, the best 64 at all; beside its recall stand the "
        f"forwards of a query (everyone everywhere: {_most(means):,.0f})."
    ]
    if best is not None:
        table += _race_rows(means, best[1] if best[1] != EVERYONE else _widest(recall))
        notes.append(_to_write(head, best, means[best][0], len(units)))
    figures = (
        Figure(
            "smallest shortlist without a race",
            f"{found[0]} candidates from {found[1]}, recall {recall[found[1]][str(found[0])]:.3f}"
            if found
            else "none reaches it",
            f"recall@{TOP_K} >= {TARGET}",
            bool(found),
        ),
        Figure(
            "cheapest answer, the default",
            _words(best, means) if best else "none reaches it: exhaustive with partial results",
            f"recall@{TOP_K} >= {TARGET}",
            best is not None,
        ),
    )
    return Summary(figures, tuple(table), tuple(notes))


def _mean_recalls(units: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    def mean(source: str, size: int) -> float:
        return float(np.mean([unit["recall"][source][str(size)] for unit in units]))

    return {source: {str(n): mean(source, n) for n in SIZES} for source in units[0]["recall"]}


def _widest(recall: Mapping[str, Mapping[str, float]]) -> str:
    """The raced source that holds most at the greatest size."""
    raced = [source for source in RACED if source in recall]
    return max(raced, key=lambda source: recall[source][str(SIZES[-1])])


def _most(means: Means) -> float:
    return max(forwards for _, forwards in means.values())


def _words(best: Kind, means: Means) -> str:
    waves, source, size = best
    recall, forwards = means[best]
    plain = means[label(()), source, size][1]
    return (
        f"{size} candidates from {source}, {waves}: recall {recall:.3f} with {forwards:,.0f} "
        f"forwards, {plain / forwards:.1f} times fewer than without a race"
    )


def _recall_rows(units: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (f"**{source}**", *_cells([u["recall"][source] for u in units]), "")
        for source in units[0]["recall"]
    ]


def _dimension_rows(units: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    return [
        (f"gradient, {int(dim):,} dimensions", *_cells([u["dimensions"][dim] for u in units]), "")
        for dim in units[0]["dimensions"]
    ]


def _cells(recalls: Sequence[Mapping[str, float]]) -> list[str]:
    return ["{:.3f} ± {:.3f}".format(*mean_error([r[str(n)] for r in recalls])) for n in SIZES]


def _race_rows(means: Means, source: str) -> list[tuple[str, ...]]:
    rows = []
    for waves in dict.fromkeys(key[0] for key in means):
        line = [f"{source}, {waves}"]
        for size in (*map(str, SIZES), EVERYONE):
            from_whom = EVERYONE if size == EVERYONE else source
            recall, forwards = means[waves, from_whom, size]
            line.append(f"{recall:.3f}, {forwards:,.0f}")
        rows.append(tuple(line))
    return rows


def _to_write(head: Mapping[str, Any], best: Kind, recall: float, n: int) -> str:
    """The lines of attribution/defaults.py that follow; everyone: up to where nobody measured."""
    waves = next((w for w in SCHEDULES if label(w) == best[0]), None)
    if waves is None:
        return f"The schedule {best[0]!r} is no longer tried: run this again."
    size = max(SIZES) * 4 if best[2] == EVERYONE else int(best[2])
    sources = defaults.SHORTLIST_SOURCES
    if best[1] != EVERYONE:
        sources = candidates.sources_of(best[1])
    return (
        f"For attribution/defaults.py: `SHORTLIST = {size}`, `SHORTLIST_SOURCES = {sources}`, "
        f"`RACING = {tuple(waves)}`, "
        f'`SHORTLIST_RECALL = Recall({recall:.3f}, {n}, "{head["index_hash"]}")`.'
    )
