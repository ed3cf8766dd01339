"""Sanity: does unlearning a training record rank it, or a near-duplicate, first (at least 95 of
100)?

Each record is ranked among itself and 512 random other training records, image and flip, by the
mean over three timesteps (150, 450, 750) unless `--timesteps` says otherwise: fewer cells than a
query's ten make the test harder, not easier. Its own noise draws are not those it was unlearned on.

python -m evaluation self-influence --records 100        # 3,000 forwards a record
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from attribution.scoring import reduce_cells
from evaluation import results as results_module
from evaluation.answers import Answers, timestep_list
from evaluation.copies import Pictures, Thresholds, compare
from evaluation.results import Figure, Summary
from evaluation.statistics import wilson
from evaluation.world import World, world_of

OTHERS = 512
TARGET = 0.95
# Fewer records than these are no verdict.
ENOUGH = 100
SEED = 22
Judge = Callable[[int, int], dict[str, Any]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `self-influence`."""
    parser.add_argument("--records", type=int, default=ENOUGH, metavar="N")
    parser.add_argument("--others", type=int, default=OTHERS, metavar="N")
    parser.add_argument("--method", default="abu")
    parser.add_argument("--timesteps", type=timestep_list, default=[150, 450, 750])


def run(args: argparse.Namespace) -> None:
    """One line a record."""
    world = world_of(args)
    answers = Answers(world)
    columns = answers.columns(args.timesteps)
    config = answers.config(args.method)
    settings = {
        "method": args.method,
        "config": asdict(config),
        "others": args.others,
        "timesteps": args.timesteps,
    }
    results = world.results(args, "self-influence", settings)
    judge = near_duplicate_judge(world, args.results)
    train = answers.index.train_rows
    chosen = np.random.default_rng(SEED).permutation(train)[: args.records]
    for row in tqdm(chosen, desc="records", disable=None):
        name = answers.index.ids([row])[0]
        if name not in results.units:
            results.add(name, **_one(answers, int(row), args.others, columns, config, judge))


def _one(
    answers: Answers, row: int, n_others: int, columns: list[int], config: Any, judge: Judge
) -> dict[str, Any]:
    """Rank of a record after unlearning it, and what came first if not itself."""
    began = time.perf_counter()
    index = answers.index
    others = np.setdiff1d(index.train_rows, [row])
    others = np.random.default_rng([SEED, row]).permutation(others)[:n_others]
    found = answers.unlearn(index.latents([row]), index.captions([row])[0][0], config)
    rows = [row, *others.tolist()]
    cells = answers.score(rows, found.delta, columns, objective=config.objective).cells
    scores = reduce_cells(cells)[0]
    first = int(scores.argmax())
    line: dict[str, Any] = {
        "rank": int((scores > scores[0]).sum()) + 1,
        "score": float(scores[0]),
        "runner_up": float(np.sort(scores[1:])[-1]),
        "reached": round(found.reached, 4),
        "seconds": round(time.perf_counter() - began, 2),
    }
    return line | (judge(row, int(others[first - 1])) if first else {})


def near_duplicate_judge(world: World, folder: Path) -> Judge:
    """(row, first row) → what came first, its distance and cosine, and whether it is a near-
    duplicate.

    By the thresholds of the verb near-duplicates; without its results nothing passes for one.
    """
    found = results_module.latest(folder, "near-duplicates")
    units = [unit for unit in found[1] if unit["unit"] == "thresholds"] if found else []
    thresholds = Thresholds(units[0]["distance"], units[0]["cosine"]) if units else None
    place = {name: row for row, name in enumerate(world.records.ids)}

    def judge(row: int, first: int) -> dict[str, Any]:
        # rows of the index and of the records agree: both are in file order
        ids = world.records.ids[row], world.records.ids[first]
        pair = [Pictures.of(world.records.images[[place[name]]], world.clip) for name in ids]
        distance, cosine = (float(values[0, 0]) for values in compare(*pair))
        copies = np.array([distance]), np.array([cosine])
        same = bool(thresholds.are_copies(*copies)[0]) if thresholds else False
        return {"first": ids[1], "distance": distance, "cosine": cosine, "duplicate": same}

    return judge


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """How many of the records came first."""
    n = len(units)
    own = sum(unit["rank"] == 1 for unit in units)
    passed = own + sum(bool(unit.get("duplicate")) for unit in units)
    low, high = wilson(passed, n)
    settings = head["settings"]
    figure = Figure(
        f"self-influence, {settings['method']}: itself or a near-duplicate first",
        f"{passed} of {n} ({low:.0%} to {high:.0%}), itself {own}",
        f">= {TARGET * ENOUGH:.0f} of {ENOUGH}",
        passed >= TARGET * n if n >= ENOUGH else None,
    )
    heads = (
        "record not first",
        "rank",
        "first was",
        "pixel distance",
        "CLIP cosine",
        "near-duplicate",
    )
    table: list[tuple[str, ...]] = [heads]
    for unit in units:
        if unit["rank"] > 1:
            numbers = f"{unit['distance']:.3f}", f"{unit['cosine']:.3f}"
            yes = "yes" if unit["duplicate"] else "no"
            table.append((unit["unit"], str(unit["rank"]), unit["first"], *numbers, yes))
    steps = ", ".join(map(str, settings["timesteps"]))
    note = (
        f"Among itself and {settings['others']} random training records, image and flip, timesteps "
        f"{steps}; {np.mean([unit['seconds'] for unit in units]):.1f} s a record."
    )
    return Summary((figure,), tuple(table) if len(table) > 1 else (), (note,))
