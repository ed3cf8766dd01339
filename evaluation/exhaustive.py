"""Exhaustive answers of fixed queries, kept and reused: every training record, flip and timestep.

python -m evaluation exhaustive --queries 20                        # 52,000 forwards a query
python -m evaluation exhaustive --queries 20 --timesteps 150,450,750

Cells are kept per query in results/exhaustive/, float16 [T, n_train, captions, flips] divided by
the scale of their line, NaN where not evaluated; rows are the index's training rows in order. A
stopped run goes on at the timestep it was in; other timesteps can be added later. Several processes
may share the work: `--part 1/2` and `--part 2/2`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from attribution import defaults
from attribution.arguments import count
from attribution.unlearning import Delta, UnlearnConfig
from attribution.validate import whole_numbers
from evaluation import generated, parts, queries
from evaluation.answers import Answers
from evaluation.queries import Asked
from evaluation.results import Figure, Results, Summary
from evaluation.world import world_of

FOLDER = "exhaustive"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `exhaustive`."""
    generated.add_arguments(parser)
    parser.add_argument("--queries", type=count(), default=queries.N_QUERIES, metavar="N")
    parser.add_argument(
        "--timesteps", type=whole_numbers, help="default: all the index has losses at"
    )
    parts.add_argument(parser)


def run(args: argparse.Namespace) -> None:
    """Score what is missing, timestep by timestep."""
    answers = Answers(world_of(args))
    results, asked = begin(args, answers)
    for query in tqdm(parts.own(args, asked), desc="queries", disable=None):
        complete(args, answers, results, query)


def _config(answers: Answers) -> UnlearnConfig:
    """Of the default method: its answers are the product's."""
    return answers.config(defaults.METHOD)


def begin(args: argparse.Namespace, answers: Answers) -> tuple[Results, list[Asked]]:
    """The run that these arguments name, and its queries."""
    sampling = generated.sampling_of(args, answers.world)
    settings = {
        "method": defaults.METHOD,
        "config": asdict(_config(answers)),
        "steps": sampling.steps,
        "guidance": sampling.guidance,
    }
    results = answers.world.results(args, FOLDER, settings)
    return results, queries.queries(answers.world, args.queries, sampling, args.cache)


def complete(args: argparse.Namespace, answers: Answers, results: Results, query: Asked) -> None:
    """Unlearn one query and score every training record at each timestep that is missing."""
    rows = answers.index.train_rows
    columns = answers.columns(args.timesteps)
    wanted = [c for c in columns if _unit(query, answers.index.timesteps[c]) not in results.units]
    if not wanted:
        return
    delta, about = delta_of(args, answers, results, query)
    for column in tqdm(wanted, desc=query.prompt[:40], leave=False, disable=None):
        began = time.perf_counter()
        cells = answers.score(rows, delta, [column]).cells[..., column]
        scale = keep(cells_path(args.results, results.run, query.key), cells, column, answers)
        results.add(
            _unit(query, answers.index.timesteps[column]),
            query=query.key,
            prompt=query.prompt,
            kind=query.kind,
            timestep=answers.index.timesteps[column],
            scale=scale,
            seconds=round(time.perf_counter() - began, 2),
            **about,
        )


def _unit(query: Asked, timestep: int) -> str:
    return f"{query.key}@{timestep}"


def delta_of(
    args: argparse.Namespace, answers: Answers, results: Results, query: Asked
) -> tuple[Delta, dict[str, Any]]:
    """Δθ of a query and what is known of it; kept in the cache, so that all its cells share one."""
    path = args.cache / "deltas" / f"{results.run}-{query.key}.safetensors"
    done = [unit for unit in results.units.values() if unit["query"] == query.key]
    if path.is_file() and done:
        return Delta.load(path), {name: done[0][name] for name in ("reached", "alpha_over_n")}
    found = answers.unlearn(answers.latents(query.image), query.prompt, _config(answers))
    path.parent.mkdir(parents=True, exist_ok=True)
    found.delta.save(path)
    return found.delta, {"reached": found.reached, "alpha_over_n": found.alpha_over_n}


def cells_path(folder: Path, run: str, key: str) -> Path:
    """Where a query's cells are."""
    return folder / FOLDER / f"{run}-{key}.npy"


def keep(path: Path, cells: np.ndarray, column: int, answers: Answers) -> float:
    """Put one timestep's cells [n, captions, flips] into the query's file; returns their scale."""
    shape = (len(answers.index.timesteps), *cells.shape)
    whole = np.load(path) if path.is_file() else np.full(shape, np.nan, dtype=np.float16)
    scale = float(np.nanmax(np.abs(cells))) or 1.0
    whole[column] = cells / scale
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.save(file, whole, allow_pickle=False)
    os.replace(part, path)
    return scale


def load_cells(
    folder: Path, run: str, units: Sequence[dict[str, Any]], timesteps: Sequence[int]
) -> np.ndarray:
    """One query's cells float32 [n, captions, flips, T], NaN at timesteps without a line in
    `units`.

    units: the query's lines. timesteps: the index's grid.
    """
    whole = np.load(cells_path(folder, run, units[0]["query"])).astype(np.float32)
    scales = {unit["timestep"]: unit["scale"] for unit in units}
    factors = np.array([scales.get(t, np.nan) for t in timesteps], dtype=np.float32)
    return np.moveaxis(whole * factors[:, None, None, None], 0, -1)


def by_query(units: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Lines by query, in the order of the first line of each."""
    found: dict[str, list[dict[str, Any]]] = {}
    for unit in units:
        found.setdefault(unit["query"], []).append(unit)
    return found


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """How many answers there are and what they cost."""
    found = by_query(units)
    table = [("query", "kind", "timesteps", "loss increase reached", "seconds")]
    for lines in found.values():
        first = lines[0]
        steps = ", ".join(str(t) for t in sorted(line["timestep"] for line in lines))
        seconds = sum(line["seconds"] for line in lines)
        cells = (first["prompt"], first["kind"], steps, f"{first['reached']:.1%}", f"{seconds:.0f}")
        table.append(cells)
    return Summary((Figure("exhaustive answers kept", f"{len(found)} queries"),), tuple(table))
