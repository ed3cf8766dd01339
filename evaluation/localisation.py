"""Does a region find its own object? Pictures of two objects, each chosen in turn; the aim is that
0.8 of the top 24 show it.

python -m evaluation localisation --cases-only          # train the classifier, draw, and judge
python -m evaluation localisation                       # AbU+, AbU, then the methods that cost less
python -m evaluation localisation --methods abu,clip
python -m evaluation localisation --pictures held-out   # collages that trained nothing, true boxes
python -m evaluation localisation --words               # each region in words of its own, too

A fixed pool of 1,000 training records is scored for region A, region B and the whole picture. A
record counts for an object when it is a drawing of its category, or a collage with such a part.
The ceiling: the same for pictures of one object alone, of its own caption, asked about as a whole.
What a region may not change is measured on the first picture: one of everything, boxes or their
mask, and the mirrored mask.

Unlearning methods race the pool as a default query races its candidates: 4,000 forwards an answer
in the place of 20,000; `--timesteps` has every record scored at those instead. The mirrored
pictures, whose scores are compared over the whole pool, take the three timesteps that a race looks
at first. A stopped run goes on; an answer made with another configuration of its method is made
again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from attribution import defaults
from attribution.arguments import count
from attribution.methods.registry import METHODS, why_not
from attribution.types import Query, UserError
from attribution.validate import listed, whole_numbers
from evaluation import generated, roster
from evaluation.answers import Answers
from evaluation.data import HELD_OUT
from evaluation.objects import identities, two_objects
from evaluation.objects.alone import alone
from evaluation.objects.pooled import Ranker
from evaluation.objects.tables import JUDGED, TOP, summarise
from evaluation.objects.two_objects import PARTS, Case
from evaluation.recogniser import Training
from evaluation.results import Results
from evaluation.statistics import spearman
from evaluation.world import world_of

__all__ = ["add_arguments", "run", "summarise"]

VERB = "localisation"
POOL = 1000
POOL_SEED = 7
# What is asked first; every other method that costs less than unlearning follows.
FIRST = (*JUDGED, "clip", "dino", "dtrak", "trak")
# (case's key, which object) → the object in a picture of its own
Singly = dict[tuple[str, int], Query]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `localisation`."""
    generated.add_arguments(parser)
    add = parser.add_argument
    add("--methods", metavar="NAME[,NAME...]", help="default: all but the ablations of unlearning")
    add("--pictures", choices=("generated", HELD_OUT), default="generated", help="what is asked")
    add("--cases", type=count(), default=40, metavar="N", help="pictures of two objects")
    add("--flips", type=count(0), default=8, metavar="N", help="cases asked mirrored too")
    add("--pool", type=count(), default=POOL, metavar="N", help="training records that are scored")
    add("--least", type=count(), default=two_objects.LEAST_MEMBERS, help="drawings of a category")
    add("--train-steps", type=count(), default=Training.steps, help="of the classifier")
    add("--timesteps", type=whole_numbers, help="of unlearning methods; default: all of the index")
    add("--words", action="store_true", help="ask in the objects' own words, too")
    add("--cases-only", action="store_true", help="find the pictures, attribute nothing")


def run(args: argparse.Namespace) -> None:
    """Find the cases, then every method's answers that are missing."""
    answers = Answers(world_of(args))
    methods = _methods(args.methods, answers)
    sampling = generated.sampling_of(args, answers.world)
    settings: dict[str, Any] = {
        "training": asdict(Training(steps=args.train_steps)),
        **{"steps": sampling.steps, "guidance": sampling.guidance, "pictures": args.pictures},
        **{"pool": args.pool, "least": args.least, "timesteps": args.timesteps, "top": TOP},
        "racing": None if args.timesteps else [list(wave) for wave in defaults.RACING],
    }
    results = answers.world.results(args, VERB, settings)
    among = two_objects.categories(answers.world.records, args.least)
    found, singly = _cases(args, answers, results, among)
    if not found:
        raise UserError(f"no {args.pictures} picture shows both of its objects")
    if args.cases_only:
        results.add("cases", found=len(found), prompts=[case.prompt for case in found])
        return
    job = Job(Ranker(answers, args.timesteps), results, pool_of(answers, args.pool), singly)
    work = [(job.answer, name, case) for name in methods for case in found]
    work += [(job.worded, name, case) for name in methods for case in found if args.words]
    work += [(job.flipped, name, case) for name in methods for case in found[: args.flips]]
    work += [(job.identities, name, found[0]) for name in methods]
    work += [(job.alone, name, case) for name in methods for case in found if singly]
    for what, name, case in tqdm(work, desc="answers", disable=None):
        what(name, case)


def _cases(
    args: argparse.Namespace, answers: Answers, results: Results, among: tuple[str, ...]
) -> tuple[list[Case], Singly]:
    """The pictures, drawn and judged or taken from the data; of drawn ones their objects alone."""
    world, training = answers.world, Training(steps=args.train_steps)
    if args.pictures == HELD_OUT:
        return two_objects.collage_cases(world, among, args.cases), {}
    model = two_objects.classifier(world, among, training, args.cache)
    if "classifier" not in results.units:
        right, total = two_objects.accuracy(world, among, model)
        results.add("classifier", right=right, total=total, categories=among)
    sampling = generated.sampling_of(args, world)
    found = two_objects.generated_cases(world, model, among, args.cases, sampling, args.cache)
    return found, alone(world, model, among, found, sampling, args.cache)


def _methods(names: str | None, answers: Answers) -> list[str]:
    """The methods asked for, else all that the index can run, FIRST first, without the
    ablations; UserError for one that it cannot run.
    """
    if names is not None:
        return roster.able(listed(names), answers.context)
    cheap = [name for name, method in METHODS.items() if method.kind != roster.UNLEARNING]
    ordered = dict.fromkeys([*FIRST, *cheap])
    return [name for name in ordered if not why_not(METHODS[name], answers.context)]


def pool_of(answers: Answers, size: int) -> np.ndarray:
    """Rows of `size` seeded random training records, of all where there are fewer, ascending."""
    rows = answers.index.train_rows
    chosen = np.random.default_rng(POOL_SEED).permutation(len(rows))[:size]
    return np.sort(rows[chosen])


@dataclass
class Job:
    """One session of the verb."""

    ranker: Ranker
    results: Results
    pool: np.ndarray
    singly: Singly

    def __post_init__(self) -> None:
        self.ids = self.ranker.answers.index.ids(self.pool)

    def answer(self, name: str, case: Case) -> None:
        """One line: what each of the three answers holds of both objects."""
        unit = f"{name}/{case.key}"
        if self.ranker.answered(self.results.units, unit, name):
            return
        began = time.perf_counter()
        shows = {c: self._shows(c) for c in case.categories}
        tops = {part: self._top(name, case.query(part)) for part in PARTS}
        self.results.add(
            unit,
            method=name,
            config=self.ranker.config(name),
            prompt=case.prompt,
            seed=case.seed,
            categories=case.categories,
            boxes=case.boxes,
            chance=[len(shows[c]) / len(self.ids) for c in case.categories],
            shares={part: _shares(top, case, shows) for part, top in tops.items()},
            common=len(set(tops["a"]) & set(tops["b"])) / len(tops["a"]),
            seconds=time.perf_counter() - began,
        )

    def worded(self, name: str, case: Case) -> None:
        """One line: what the answers about both regions by their own words hold of both objects."""
        unit = f"words/{name}/{case.key}"
        if self.ranker.answered(self.results.units, unit, name):
            return
        shows = {c: self._shows(c) for c in case.categories}
        tops = {PARTS[i]: self._top(name, case.worded(i)) for i in (0, 1)}
        self.results.add(
            unit,
            method=name,
            config=self.ranker.config(name),
            names=case.names,
            worded={part: _shares(top, case, shows) for part, top in tops.items()},
            common=len(set(tops["a"]) & set(tops["b"])) / len(tops["a"]),
        )

    def flipped(self, name: str, case: Case) -> None:
        """One line: Spearman of region A's scores and those of the mirrored picture and region."""
        unit = f"flip/{name}/{case.key}"
        if self.ranker.answered(self.results.units, unit, name):
            return
        query = case.query("a")
        first, second = (
            self.ranker.ranked(name, one, self.ids, TOP, compared=True)
            for one in (query, identities.flipped(query))
        )
        scores = dict(zip(second.ids, second.scores.tolist(), strict=True))
        aligned = np.array([scores[i] for i in first.ids])
        rho = float(spearman(first.scores, aligned))
        config = self.ranker.config(name)
        self.results.add(unit, method=name, prompt=case.prompt, config=config, spearman=rho)

    def identities(self, name: str, case: Case) -> None:
        """One line: by how much scores differ where a region may not change them."""
        unit = f"identities/{name}"
        if self.ranker.answered(self.results.units, unit, name):
            return
        found = identities.differences(self.ranker, name, case, self.ids)
        flip = identities.flip_difference(self.ranker.answers.denoiser, case)
        config = self.ranker.config(name)
        self.results.add(unit, method=name, config=config, identities={**found, "flip": flip})

    def alone(self, name: str, case: Case) -> None:
        """One line: what the answers about each of both objects drawn alone hold of it."""
        unit = f"alone/{name}/{case.key}"
        if self.ranker.answered(self.results.units, unit, name):
            return
        shares: list[float | None] = []
        for i, category in enumerate(case.categories):
            query = self.singly.get((case.key, i))
            top = self._top(name, query) if query else []
            shows = self._shows(category)
            shares.append(sum(record in shows for record in top) / len(top) if query else None)
        config = self.ranker.config(name)
        self.results.add(unit, method=name, parts=case.parts, config=config, alone=shares)

    def _top(self, name: str, query: Query) -> Sequence[str]:
        return self.ranker.ranked(name, query, self.ids, TOP).ids[:TOP]

    def _shows(self, category: str) -> set[str]:
        """Ids of the pool's records that show a category."""
        records = self.ranker.answers.world.records
        there = two_objects.contains(records, category)
        return {record for record, yes in zip(records.ids, there, strict=True) if yes} & set(
            self.ids
        )


def _shares(top: Sequence[str], case: Case, shows: dict[str, set[str]]) -> list[float]:
    """Share of a list that shows the first object, and the second."""
    return [sum(record in shows[c] for record in top) / len(top) for c in case.categories]
