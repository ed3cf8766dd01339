"""Does a region find the very drawing that is in it? Training collages, whose parts are drawings of
the training set, too: asked about one part, a method should rank that drawing before the other.

python -m evaluation own-parts                        # 40 collages, five methods
python -m evaluation own-parts --methods abu,datainf

The picture asked about is the collage itself, with its caption, and the region is the part's box;
ranked are the pool of the verb localisation and the parts of every collage asked about, without the
collage. Drawings of a category need not look alike, but a part is a scaled copy of its drawing: the
truth of this question is sharper than that of localisation.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from attribution import defaults
from attribution.types import UserError
from attribution.validate import listed, whole_numbers
from evaluation import roster
from evaluation.answers import Answers
from evaluation.data import Records
from evaluation.localisation import POOL, pool_of
from evaluation.objects import two_objects
from evaluation.objects.own_tables import METHODS, summarise
from evaluation.objects.pooled import Ranker
from evaluation.objects.tables import TOP
from evaluation.objects.two_objects import PARTS, Case
from evaluation.world import world_of

__all__ = ["add_arguments", "run", "summarise"]

VERB = "own-parts"
SEED = 43


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `own-parts`."""
    add = parser.add_argument
    add("--methods", default=",".join(METHODS), metavar="NAME[,NAME...]")
    add("--cases", type=int, default=40, metavar="N", help="collages")
    add("--pool", type=int, default=POOL, metavar="N", help="training records that are ranked")
    add("--timesteps", type=whole_numbers, help="of unlearning methods; default: all of the index")


def run(args: argparse.Namespace) -> None:
    """One line a method and collage: where both drawings rank in each of the three answers."""
    answers = Answers(world_of(args))
    methods = roster.able(listed(args.methods), answers.context)
    settings: dict[str, Any] = {
        **{"pool": args.pool, "timesteps": args.timesteps, "cases": args.cases},
        "racing": None if args.timesteps else [list(wave) for wave in defaults.RACING],
    }
    results = answers.world.results(args, VERB, settings)
    cases = collages(answers.world.records, answers.world.root, args.cases)
    if not cases:
        raise UserError("no training collage has two parts that are training drawings")
    pool = answers.index.ids(pool_of(answers, args.pool))
    pool = list(dict.fromkeys([*pool, *(part for _, case in cases for part in case.parts)]))
    ranker = Ranker(answers, args.timesteps)
    for name in methods:
        config = ranker.config(name)
        for record, case in tqdm(cases, desc=name, disable=None):
            unit = f"{name}/{record}"
            if unit in results.units and results.units[unit]["config"] == config:
                continue
            began = time.perf_counter()
            ids = [other for other in pool if other != record]
            ranks = {part: _ranks(ranker, name, case, part, ids) for part in PARTS}
            spent = round((time.perf_counter() - began) / len(PARTS), 2)
            results.add(
                unit, method=name, config=config, parts=case.parts, ranks=ranks, among=len(ids),
                seconds=spent,
            )  # fmt: skip


def collages(records: Records, root: Path, count: int) -> list[tuple[str, Case]]:
    """(id, picture) of the first `count` training collages, in a seeded order, whose two parts are
    different training drawings."""
    boxes, of = two_objects.parts_of(root), two_objects.category_of(records)
    trained = {records.ids[row] for row in records.rows("train")}
    found = []
    for row in np.random.default_rng(SEED).permutation(records.rows("train")):
        parts, cut = zip(*boxes.get(records.ids[row], [("", ())]), strict=True)
        if len(parts) == 2 and len(set(parts) & trained) == 2:
            (picture,) = records.pictures([row])
            kinds = of[parts[0]], of[parts[1]]
            case = Case(records.captions[row], None, picture, kinds, cut, parts)
            found.append((records.ids[row], case))
        if len(found) == count:
            break
    return found


def _ranks(ranker: Ranker, name: str, case: Case, part: str, ids: list[str]) -> list[int]:
    """Places of the first and of the second part's drawing, 1 the best."""
    order = list(ranker.ranked(name, case.query(part), ids, TOP).ids)
    return [order.index(own) + 1 for own in case.parts]
