"""Sanity: asked about a training record, does a method rank it, or a near-duplicate, first (an
unlearning method in at least 95 of 100)?

Each record is ranked among itself and 512 random other training records, image and flip. Unlearning
methods unlearn its latents and rank by the mean over three timesteps (150, 450, 750) unless
`--timesteps` says otherwise: fewer cells than a query's ten make the test harder, not easier. Its
own noise draws are not those it was unlearned on. Every other method is asked about the record's
training picture and caption as about a user's; who scores as high as the record counts as better.

python -m evaluation self-influence --records 100        # 3,000 forwards a record
python -m evaluation self-influence --records 100 --method all
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from attribution import defaults
from attribution.arguments import count
from attribution.methods.registry import METHODS
from attribution.scoring import reduce_cells
from attribution.types import Attribution, Query, UserError
from attribution.validate import whole_numbers
from evaluation import parts, roster
from evaluation import results as results_module
from evaluation.answers import Answers, last
from evaluation.copies import Pictures, Thresholds, compare
from evaluation.own_ranks import ENOUGH, summarise, together
from evaluation.world import World, world_of

__all__ = ["add_arguments", "run", "summarise", "together"]

OTHERS = 512
SEED = 22
# row → what came first if not itself
Judge = Callable[[int, int], dict[str, Any]]
# (row, other rows) → the record's line, and the row that came first
Rank = Callable[[int, np.ndarray], tuple[dict[str, Any], int]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `self-influence`."""
    add = parser.add_argument
    add("--records", type=count(), default=ENOUGH, metavar="N")
    add("--others", type=count(), default=OTHERS, metavar="N")
    all_of_them = f"{roster.ALL}: every method that the index can run, one after another"
    add("--method", default=defaults.METHOD, metavar="NAME[,NAME...]", help=all_of_them)
    steps = "of unlearning methods"
    add("--timesteps", type=whole_numbers, default=[150, 450, 750], help=steps)
    parts.add_argument(parser)


def run(args: argparse.Namespace) -> None:
    """One line a record, one run a method; UserError at the end for methods that failed."""
    world = world_of(args)
    answers = Answers(world)
    answers.columns(args.timesteps)
    names, failures = roster.chosen(args.method, answers.context), []
    judge = near_duplicate_judge(world, args.results)
    for name in names:
        try:
            _run(name, args, answers, judge)
        except UserError as error:
            failures.append(f"method {name}: {error}")
    if failures:
        raise UserError("; ".join(failures))


def _run(name: str, args: argparse.Namespace, answers: Answers, judge: Judge) -> None:
    """The missing lines of one method."""
    if METHODS[name].kind == roster.UNLEARNING:
        settings, rank = _unlearned(name, answers, args.timesteps)
    else:
        settings, rank = _asked(name, answers)
    settings |= {"method": name, "others": args.others}
    results = answers.world.results(args, "self-influence", settings)
    train = answers.index.train_rows
    chosen = np.random.default_rng(SEED).permutation(train)[: args.records]
    for row in tqdm(parts.own(args, chosen.tolist()), desc=name, disable=None):
        record = answers.index.ids([row])[0]
        if record in results.units:
            continue
        others = np.random.default_rng([SEED, row]).permutation(np.setdiff1d(train, [row]))
        began = time.perf_counter()
        line, first = rank(row, others[: args.others])
        line["seconds"] = round(time.perf_counter() - began, 2)
        results.add(record, **line, **({} if first == row else judge(row, first)))


def _unlearned(
    name: str, answers: Answers, timesteps: Sequence[int]
) -> tuple[dict[str, Any], Rank]:
    """(settings, rank) by unlearning the record's own latents, every cell at some timesteps."""
    config, columns, index = answers.config(name), answers.columns(timesteps), answers.index
    watched = answers.tracked(name)

    def rank(row: int, others: np.ndarray) -> tuple[dict[str, Any], int]:
        found = answers.unlearn(index.latents([row]), index.captions([row])[0][0], config)
        rows = np.array([row, *others])
        cells = answers.score(rows, found.delta, columns, watched.denoiser, watched.base).cells
        scores = reduce_cells(cells)[0]
        line = {
            "rank": int((scores > scores[0]).sum()) + 1,
            "score": float(scores[0]),
            "runner_up": float(np.sort(scores[1:])[-1]),
            "reached": round(found.reached, 4),
        }
        return line, int(rows[scores.argmax()])

    return {"config": asdict(config), "timesteps": timesteps}, rank


def _asked(name: str, answers: Answers) -> tuple[dict[str, Any], Rank]:
    """(settings, rank) by the method's own answer about the record's picture and caption."""
    index, method = answers.index, METHODS[name]
    attributor = method.build(answers.context)

    def rank(row: int, others: np.ndarray) -> tuple[dict[str, Any], int]:
        query = Query(index.captions([row])[0][0], index.image(row))
        ids = index.ids([row, *others])
        found: Attribution = last(attributor.run(query, ids, k=1), Attribution)
        own = found.rows == row
        score, rest = found.scores[own][0], found.scores[~own]
        better = int((~(rest < score)).sum())
        line = {"rank": 1 + better, "score": float(score), "runner_up": float(rest.max())}
        return line, int(found.rows[~own][0]) if better else row

    return {"kind": method.kind, "basis": roster.basis(name, answers.context)}, rank


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
