"""Does a region find the very drawing that is in it? Training collages, whose parts are drawings of
the training set, too: asked about one part, a method should rank that drawing before the other.

python -m evaluation own-parts                        # 40 collages, five methods
python -m evaluation own-parts --methods abu,datainf
python -m evaluation own-parts --words                # each part in words of its own, too

The picture asked about is the collage itself, with its caption, and the region is the part's box;
ranked are the pool of the verb localisation and the parts of every collage asked about, without the
collage. Drawings of a category need not look alike, but a part is a scaled copy of its drawing: the
truth of this question is sharper than that of localisation. `--words` asks about each part, and for
comparison about the whole picture, by the part's noun in the place of the caption.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from attribution import defaults
from attribution.arguments import count
from attribution.types import Query, UserError
from attribution.validate import listed, whole_numbers
from evaluation import roster
from evaluation.answers import Answers
from evaluation.data import Records
from evaluation.localisation import POOL, pool_of
from evaluation.objects import two_objects
from evaluation.objects.own_tables import METHODS, WHOLE_AS, summarise
from evaluation.objects.pooled import Ranker
from evaluation.objects.tables import TOP
from evaluation.objects.two_objects import PARTS, Case
from evaluation.results import Results
from evaluation.world import world_of

__all__ = ["add_arguments", "run", "summarise"]

VERB = "own-parts"
SEED = 43


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `own-parts`."""
    add = parser.add_argument
    add("--methods", default=",".join(METHODS), metavar="NAME[,NAME...]")
    add("--cases", type=count(), default=40, metavar="N", help="collages")
    add("--pool", type=count(), default=POOL, metavar="N", help="training records that are ranked")
    add("--words", action="store_true", help="ask in the parts' own words, too")
    add("--timesteps", type=whole_numbers, help="of unlearning methods; default: all of the index")


def run(args: argparse.Namespace) -> None:
    """One line a method and collage: where both drawings rank in each of the three answers, and one
    for the four answers by words.
    """
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
    job = Job(Ranker(answers, args.timesteps), results, pool)
    for name, worded in product(methods, (False, True) if args.words else (False,)):
        for record, case in tqdm(cases, desc=f"{name} {'in words' * worded}", disable=None):
            job.answer(name, record, case, worded)


@dataclass(frozen=True)
class Job:
    """One session of the verb. pool: ids of what is ranked, with the collages themselves."""

    ranker: Ranker
    results: Results
    pool: list[str]

    def answer(self, name: str, record: str, case: Case, worded: bool) -> None:
        """The line of a method and collage, where there is none yet."""
        unit = f"words/{name}/{record}" if worded else f"{name}/{record}"
        if self.ranker.answered(self.results.units, unit, name):
            return
        began = time.perf_counter()
        ids = [other for other in self.pool if other != record]
        asked = _worded(case) if worded else {part: case.query(part) for part in PARTS}
        ranks = {part: self._ranks(name, case, query, ids) for part, query in asked.items()}
        self.results.add(
            unit,
            method=name,
            config=self.ranker.config(name),
            parts=case.parts,
            ranks=ranks,
            among=len(ids),
            seconds=round((time.perf_counter() - began) / len(asked), 2),
            **({"names": case.names} if worded else {}),
        )

    def _ranks(self, name: str, case: Case, query: Query, ids: list[str]) -> list[int]:
        """Places of the first and of the second part's drawing, 1 the best."""
        order = list(self.ranker.ranked(name, query, ids, TOP).ids)
        return [order.index(own) + 1 for own in case.parts]


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
            called = two_objects.names_of(records, parts)
            case = Case(records.captions[row], None, picture, kinds, cut, parts, called)
            found.append((records.ids[row], case))
        if len(found) == count:
            break
    return found


def _worded(case: Case) -> dict[str, Query]:
    """Each part by its own words, and the whole picture by each part's."""
    parts = {PARTS[i]: case.worded(i) for i in (0, 1)}
    return parts | {WHOLE_AS + PARTS[i]: case.worded(i, whole=True) for i in (0, 1)}
