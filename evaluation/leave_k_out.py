"""Leave-K-out (paper, Sec. 5.1): remove what a method found, train from scratch, look again.

For each query (a held-out caption, drawn by the model), method and K: the top K records are
removed, the UNet alone is retrained with the same recipe, seed and number of steps, on the same
batches but for the removed places, and ΔL(ẑ), MSE and CLIP similarity of the picture drawn again
are measured; for every other picture of the gallery, too. Random removals over a sweep of K give
the control curve. Settings of the methods come from `--frozen`, which `evaluation tune` writes.

Work goes in order of need: models that differ in their seed only, the random curve, the first
methods at the middle K, the other methods, the other Ks, the ablations. One line a finished
training, which is all that a killed run loses; identical removals are one training.
`evaluation tables` makes tables and figures of the lines.

python -m evaluation leave-k-out --queries 12 --workers 4
python -m evaluation leave-k-out --methods abu,dtrak,abu:damping=1 --k 10
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attribution.arguments import count, counts, names
from attribution.types import UserError
from evaluation.counterfactual import arms, frozen, tasks, verdicts
from evaluation.counterfactual.arms import Arm
from evaluation.counterfactual.ledger import TOP
from evaluation.counterfactual.options import QUERIES, add_answering
from evaluation.counterfactual.session import Session
from evaluation.counterfactual.tasks import ABLATIONS, FIRST, REMOVED, THEN, Entry, WorkList
from evaluation.results import Summary
from evaluation.world import world_of

DRAWS, SEEDS = 3, 10
Stage = dict[str, Arm]  # by label


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `leave-k-out`."""
    add_answering(parser)
    add = parser.add_argument
    add("--queries", type=count(), default=QUERIES, metavar="N", help=f"default {QUERIES}")
    only = "only these, with options as name:option=value"
    add("--methods", type=names, metavar="NAME[,NAME...]", help=only)
    add("--k", type=counts, default=list(REMOVED), metavar="K,K,...", help="records removed")
    add("--draws", type=count(0), default=DRAWS, metavar="N", help="random removals at each K")
    seeds = "models that differ in their seed"
    add("--seeds", type=count(0), default=SEEDS, metavar="N", help=seeds)
    add("--no-ablations", action="store_true", help="the methods of Table 1 only")
    add("--frozen", type=Path, default=frozen.PATH, metavar="FILE", help="settings of the methods")
    add("--plan", action="store_true", help="answer and write the work list, train nothing")


def run(args: argparse.Namespace) -> None:
    """Answers that are missing, then trainings that are missing."""
    session = Session.begin(args, world_of(args))
    check_removed(session, args.k)
    queries, stages = session.queries(args.queries), _stages(session, args)
    session.base()
    work = plan(session, queries, stages, args)
    if args.plan:
        print(session.ledger.write_work_list(work))
    else:
        session.train(work)


def check_removed(session: Session, ks: Sequence[int]) -> None:
    """UserError where so many records cannot be removed."""
    n_train = len(session.index.train_rows)
    if max(ks) >= n_train:
        raise UserError(f"--k {max(ks)}: the world has {n_train} training records")
    if max(ks) > TOP:
        raise UserError(f"--k {max(ks)}: answers are kept down to rank {TOP}")


def plan(
    session: Session, queries: Sequence[Entry], stages: Sequence[Stage], args: argparse.Namespace
) -> WorkList:
    """The work list: answers are computed on the way."""
    answers = session.answer(queries, [arm for stage in stages for arm in stage.values()])
    labels = {name: arm.text for stage in stages for name, arm in stage.items()}
    session.ledger.note_arms(labels)
    names = [query.id for query in queries]
    work = WorkList(session.recipe)
    tasks.seeds(work, args.seeds)
    rows = session.index.train_rows
    orders = [tasks.random_order(rows, draw) for draw in range(args.draws)]
    for draw, order in enumerate(orders):
        session.ledger.note_random(draw, order)
    tasks.random_removals(work, orders, tasks.random_sizes(len(rows), args.k))
    first, then, last = ([arm.text for arm in stage.values()] for stage in stages)
    middle, *others = tasks.middle_first(args.k)
    for ks, some in (
        *(([middle], first), ([middle], then), (others, first), (others, then)),
        *(([middle], last), (others, last)),
    ):
        tasks.removals(work, answers, names, some, ks)
    return work


def _stages(session: Session, args: argparse.Namespace) -> list[Stage]:
    """The arms that go first, then, last."""
    labels = [list(FIRST), list(THEN), [] if args.no_ablations else list(ABLATIONS)]
    if args.methods:
        labels = [args.methods, [], []]
    settings = frozen.read(args.frozen)
    return [session.able(arms.resolved(some, settings)) for some in labels]


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """Table 1, who wins, and what a retraining takes."""
    return verdicts.summary(head, units)
