"""Does a region find its own object? Pictures of two objects, each chosen in turn; the aim is that
0.8 of the top 24 show it.

python -m evaluation localisation --cases-only          # train the classifier, draw, and judge
python -m evaluation localisation                       # AbU+, AbU, then the methods that cost less
python -m evaluation localisation --methods abu,clip
python -m evaluation localisation --pictures held-out   # collages that trained nothing, true boxes

A fixed pool of 1,000 training records is scored for region A, region B and the whole picture. A
record counts for an object when it is a drawing of its category, or a collage with such a part.

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
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from PIL import ImageOps
from tqdm import tqdm

from attribution import defaults
from attribution.methods.registry import METHODS, why_not
from attribution.racing import by_spread
from attribution.regions import mirrored
from attribution.types import Attribution, Query, Region, UserError
from attribution.validate import listed, whole_numbers
from evaluation import generated, two_objects
from evaluation.answers import Answers, last
from evaluation.data import HELD_OUT
from evaluation.localised import FLIP_TIMESTEPS, JUDGED, PARTS, TOP, summarise
from evaluation.recogniser import Training
from evaluation.results import Results
from evaluation.statistics import spearman
from evaluation.two_objects import Case
from evaluation.world import world_of

__all__ = ["add_arguments", "run", "summarise"]

VERB = "localisation"
POOL = 1000
POOL_SEED = 7
# What is asked first; every other method that costs less than unlearning follows.
FIRST = (*JUDGED, "clip", "dino", "dtrak", "trak")
UNLEARNING = "unlearning"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `localisation`."""
    generated.add_arguments(parser)
    add = parser.add_argument
    add("--methods", metavar="NAME[,NAME...]", help="default: all but the ablations of unlearning")
    add("--pictures", choices=("generated", HELD_OUT), default="generated", help="what is asked")
    add("--cases", type=int, default=40, metavar="N", help="pictures of two objects")
    add("--flips", type=int, default=8, metavar="N", help="cases asked mirrored too")
    add("--pool", type=int, default=POOL, metavar="N", help="training records that are scored")
    add("--least", type=int, default=two_objects.LEAST_MEMBERS, help="drawings of a category")
    add("--train-steps", type=int, default=Training.steps, help="of the classifier")
    add("--timesteps", type=whole_numbers, help="of unlearning methods; default: all of the index")
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
    found = _cases(args, answers, results, among)
    if not found:
        raise UserError(f"no {args.pictures} picture shows both of its objects")
    if args.cases_only:
        results.add("cases", found=len(found), prompts=[case.prompt for case in found])
        return
    job = Job(answers, results, _pool(answers, args.pool), args.timesteps)
    work = [(job.answer, name, case) for name in methods for case in found]
    work += [(job.flipped, name, case) for name in methods for case in found[: args.flips]]
    for what, name, case in tqdm(work, desc="answers", disable=None):
        what(name, case)


def _cases(
    args: argparse.Namespace, answers: Answers, results: Results, among: tuple[str, ...]
) -> list[Case]:
    """The pictures, drawn and judged or taken from the data."""
    world, training = answers.world, Training(steps=args.train_steps)
    if args.pictures == HELD_OUT:
        return two_objects.collage_cases(world, among, args.cases)
    model = two_objects.classifier(world, among, training, args.cache)
    if "classifier" not in results.units:
        right, total = two_objects.accuracy(world, among, model)
        results.add("classifier", right=right, total=total, categories=among)
    sampling = generated.sampling_of(args, world)
    return two_objects.generated_cases(world, model, among, args.cases, sampling, args.cache)


def _methods(names: str | None, answers: Answers) -> list[str]:
    """The methods asked for, else all that the index can run, FIRST first, without the ablations;
    UserError for one that it cannot run.
    """
    if names is None:
        cheap = [name for name, method in METHODS.items() if method.kind != UNLEARNING]
        ordered = dict.fromkeys([*FIRST, *cheap])
        return [name for name in ordered if not why_not(METHODS[name], answers.context)]
    wanted = list(dict.fromkeys(listed(names)))
    if not wanted:
        raise UserError("--methods names none")
    for name in wanted:
        if name not in METHODS:
            raise UserError(f"unknown method {name!r}; there are {', '.join(METHODS)}")
        if why := why_not(METHODS[name], answers.context):
            raise UserError(f"method {name}: {why}")
    return wanted


def _pool(answers: Answers, size: int) -> np.ndarray:
    """Rows of `size` seeded random training records, of all where there are fewer, ascending."""
    rows = answers.index.train_rows
    chosen = np.random.default_rng(POOL_SEED).permutation(len(rows))[:size]
    return np.sort(rows[chosen])


@dataclass
class Job:
    """One session of the verb; each method's object is built once and keeps what it can reuse."""

    answers: Answers
    results: Results
    pool: np.ndarray
    timesteps: Sequence[int] | None
    built: dict[str, Any] = field(default_factory=dict)
    configs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ids = self.answers.index.ids(self.pool)

    def answer(self, name: str, case: Case) -> None:
        """One line: what each of the three answers holds of both objects."""
        unit = f"{name}/{case.key}"
        if self._done(unit, name):
            return
        began = time.perf_counter()
        shows = {c: self._shows(c) for c in case.categories}
        tops = {part: self._ranked(name, _query(case, part)).ids[:TOP] for part in PARTS}
        self.results.add(
            unit,
            method=name,
            config=self._config(name),
            prompt=case.prompt,
            seed=case.seed,
            categories=case.categories,
            boxes=case.boxes,
            chance=[len(shows[c]) / len(self.ids) for c in case.categories],
            shares={part: _shares(top, case, shows) for part, top in tops.items()},
            common=len(set(tops["a"]) & set(tops["b"])) / len(tops["a"]),
            seconds=time.perf_counter() - began,
        )

    def flipped(self, name: str, case: Case) -> None:
        """One line: Spearman of region A's scores and those of the mirrored picture and region."""
        unit = f"flip/{name}/{case.key}"
        if self._done(unit, name):
            return
        query = _query(case, "a")
        regions = tuple(mirrored(region, query.image.width) for region in query.regions)
        mirror = replace(query, image=ImageOps.mirror(query.image), regions=regions)
        first, second = (self._ranked(name, one, whole=True) for one in (query, mirror))
        scores = dict(zip(second.ids, second.scores.tolist(), strict=True))
        aligned = np.array([scores[i] for i in first.ids])
        rho = float(spearman(first.scores, aligned))
        config = self._config(name)
        self.results.add(unit, method=name, prompt=case.prompt, config=config, spearman=rho)

    def _done(self, unit: str, name: str) -> bool:
        """Whether there is such a line, of the method as it is configured now."""
        line = self.results.units.get(unit)
        return line is not None and line["config"] == self._config(name)

    def _config(self, name: str) -> dict[str, Any]:
        """What an unlearning method's answers depend on beside the run's settings."""
        if METHODS[name].kind != UNLEARNING:
            return {}
        if name not in self.configs:
            self.configs[name] = asdict(self.answers.config(name))
        return self.configs[name]

    def _shows(self, category: str) -> set[str]:
        """Ids of the pool's records that show a category."""
        records = self.answers.world.records
        there = two_objects.contains(records, category)
        return {record for record, yes in zip(records.ids, there, strict=True) if yes} & set(
            self.ids
        )

    def _ranked(self, name: str, query: Query, whole: bool = False) -> Attribution:
        """The pool, best first; whole: every record scored alike, so that all scores compare."""
        if name not in self.built:
            build = METHODS[name].build
            assert build is not None
            self.built[name] = build(self.answers.context)
        options: dict[str, Any] = {}
        if METHODS[name].kind == UNLEARNING:
            options = {"racing": True} if self.timesteps is None else {"columns": self._columns}
            options = {"columns": self._columns} if whole else options
        found: Attribution = last(
            self.built[name].run(query, self.ids, k=TOP, **options), Attribution
        )
        return found

    @property
    def _columns(self) -> list[int]:
        """Columns of the timesteps asked for; else the few that a race begins with."""
        if self.timesteps is not None:
            return self.answers.columns(self.timesteps)
        return sorted(by_spread(self.answers.index.base_loss)[:FLIP_TIMESTEPS])


def _query(case: Case, part: str) -> Query:
    regions = () if part == "whole" else (_region(case, PARTS.index(part)),)
    return Query(case.prompt, case.image, seed=case.seed, regions=regions)


def _region(case: Case, which: int) -> Region:
    """The object's box with a pixel around it, as one would draw it."""
    x0, y0, x1, y1 = case.boxes[which]
    width, height = case.image.size
    return Region(
        (
            float(max(x0 - 1, 0)),
            float(max(y0 - 1, 0)),
            float(min(x1 + 1, width)),
            float(min(y1 + 1, height)),
        )
    )


def _shares(top: Sequence[str], case: Case, shows: dict[str, set[str]]) -> list[float]:
    """Share of a list that shows the first object, and the second."""
    return [sum(record in shows[c] for record in top) / len(top) for c in case.categories]
