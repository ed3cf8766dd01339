"""Does a region find its own object? Pictures of two objects, each chosen in turn (issue 4: at
least 0.8 of the top 24).

python -m evaluation localisation --cases-only          # train the classifier, draw, and judge
python -m evaluation localisation --methods abu,abu-ekfac,clip
python -m evaluation localisation --pictures held-out   # collages that trained nothing, true boxes

A fixed pool of 1,000 training records is scored for region A, region B and the whole picture. A
record counts for an object when it is a drawing of its category, or a collage with such a part.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from PIL import ImageOps
from tqdm import tqdm

from attribution.methods.registry import METHODS, why_not
from attribution.regions import mirrored
from attribution.types import Attribution, Query, Region, UserError
from evaluation import generated, two_objects
from evaluation.answers import Answers, last, timestep_list
from evaluation.data import HELD_OUT
from evaluation.recogniser import Training
from evaluation.results import Figure, Results, Summary
from evaluation.statistics import mean_error, spearman
from evaluation.two_objects import Case
from evaluation.world import world_of

VERB = "localisation"
TOP = 24
POOL = 1000
POOL_SEED = 7
TARGET = 0.8
JUDGED = ("abu", "abu-ekfac")
PARTS = ("a", "b", "whole")
HEADS: tuple[str, ...] = (
    *("method", "chosen object", "of the whole picture", "gain", "the other object", "chance"),
    *("lists in common", "Spearman of the flip"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `localisation`."""
    generated.add_arguments(parser)
    add = parser.add_argument
    add("--methods", default="abu,abu-ekfac,clip,pixel", metavar="NAME[,NAME...]")
    add("--pictures", choices=("generated", HELD_OUT), default="generated", help="what is asked")
    add("--cases", type=int, default=40, metavar="N", help="pictures of two objects")
    add("--flips", type=int, default=8, metavar="N", help="cases asked mirrored too")
    add("--pool", type=int, default=POOL, metavar="N", help="training records that are scored")
    add("--least", type=int, default=two_objects.LEAST_MEMBERS, help="drawings of a category")
    add("--train-steps", type=int, default=Training.steps, help="of the classifier")
    add("--timesteps", type=timestep_list, help="of unlearning methods; default: all of the index")
    add("--cases-only", action="store_true", help="find the pictures, attribute nothing")


def run(args: argparse.Namespace) -> None:
    """Find the cases, then every method's answers that are missing."""
    answers = Answers(world_of(args))
    methods = _methods(args.methods, answers)
    sampling = generated.sampling_of(args, answers.world)
    settings = {
        "training": asdict(Training(steps=args.train_steps)),
        **{"steps": sampling.steps, "guidance": sampling.guidance, "cases": args.cases},
        "pictures": args.pictures,
        **{"pool": args.pool, "least": args.least, "timesteps": args.timesteps, "top": TOP},
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
    work = [(name, i, case) for name in methods for i, case in enumerate(found)]
    for name, i, case in tqdm(work, desc="cases", disable=None):
        job.answer(name, case)
        if i < args.flips:
            job.flipped(name, case)


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


def _methods(names: str, answers: Answers) -> list[str]:
    """The methods asked for; UserError for one that this index cannot run."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
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

    def __post_init__(self) -> None:
        self.ids = self.answers.index.ids(self.pool)
        self.built: dict[str, Any] = {}

    def answer(self, name: str, case: Case) -> None:
        """One line: what each of the three answers holds of both objects."""
        unit = f"{name}/{case.key}"
        if unit in self.results.units:
            return
        began = time.perf_counter()
        shows = {c: self._shows(c) for c in case.categories}
        tops = {part: self._ranked(name, _query(case, part)).ids[:TOP] for part in PARTS}
        self.results.add(
            unit,
            method=name,
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
        if unit in self.results.units:
            return
        query = _query(case, "a")
        regions = tuple(mirrored(region, query.image.width) for region in query.regions)
        mirror = replace(query, image=ImageOps.mirror(query.image), regions=regions)
        first, second = self._ranked(name, query), self._ranked(name, mirror)
        scores = dict(zip(second.ids, second.scores.tolist(), strict=True))
        aligned = np.array([scores[i] for i in first.ids])
        rho = float(spearman(first.scores, aligned))
        self.results.add(unit, method=name, prompt=case.prompt, spearman=rho)

    def _shows(self, category: str) -> set[str]:
        """Ids of the pool's records that show a category."""
        records = self.answers.world.records
        there = two_objects.contains(records, category)
        return {record for record, yes in zip(records.ids, there, strict=True) if yes} & set(
            self.ids
        )

    def _ranked(self, name: str, query: Query) -> Attribution:
        if name not in self.built:
            build = METHODS[name].build
            assert build is not None
            self.built[name] = build(self.answers.context)
        options: dict[str, Any] = {}
        if METHODS[name].kind == "unlearning" and self.timesteps is not None:
            options["columns"] = self.answers.columns(self.timesteps)
        found: Attribution = last(
            self.built[name].run(query, self.ids, k=1, **options), Attribution
        )
        return found


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


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """Each method's share of the chosen object, against the whole picture and against chance."""
    lines = [unit for unit in units if "shares" in unit]
    names = list(dict.fromkeys(line["method"] for line in lines))
    table = [HEADS]
    table += [_row(name, [u for u in units if u.get("method") == name]) for name in names]
    best = max((_means(lines, name)[0] for name in JUDGED if name in names), default=None)
    figures = []
    if best is not None:
        value = f"{best:.2f} (the better of {', '.join(n for n in JUDGED if n in names)})"
        name = f"share of the top {TOP} that show the chosen object"
        figures.append(Figure(name, value, f">= {TARGET}", best >= TARGET))
    return Summary(tuple(figures), tuple(table) if names else (), (_note(head, units, lines),))


def _means(lines: Sequence[dict[str, Any]], name: str) -> tuple[float, float]:
    """Mean and standard error over regions of the chosen object's share."""
    chosen = [
        line["shares"][part][i]
        for line in lines
        if line["method"] == name
        for i, part in enumerate(PARTS[:2])
    ]
    return mean_error(chosen)


def _row(name: str, units: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    lines = [unit for unit in units if "shares" in unit]
    pairs = [(line, i) for line in lines for i in (0, 1)]
    chosen = [line["shares"][PARTS[i]][i] for line, i in pairs]
    whole = [line["shares"]["whole"][i] for line, i in pairs]
    other = [line["shares"][PARTS[i]][1 - i] for line, i in pairs]
    chance = [line["chance"][i] for line, i in pairs]
    gain = np.array(chosen) - np.array(whole)
    flips = [unit["spearman"] for unit in units if "spearman" in unit]
    columns = (chosen, whole, gain, other, chance, [line["common"] for line in lines], flips)
    return (name, *(_cell(values) for values in columns))


def _cell(values: Sequence[float] | np.ndarray) -> str:
    if not len(values):
        return ""
    mean, error = mean_error(values)
    return f"{mean:.3f}" if np.isnan(error) else f"{mean:.3f} ± {error:.3f}"


def _note(
    head: dict[str, Any], units: Sequence[dict[str, Any]], lines: Sequence[dict[str, Any]]
) -> str:
    settings = head["settings"]
    named = next((unit for unit in units if unit["unit"] == "classifier"), None)
    whose = "generated picture shows both by the classifier"
    if settings["pictures"] == HELD_OUT:
        whose = "picture is a held-out collage, with its parts' own boxes"
    words = [
        f"{len({line['prompt'] for line in lines})} prompts of two objects whose {whose} (asked "
        f"for: {settings['cases']}); a pool of {settings['pool']:,} training records, all of them "
        "scored; mean ± standard error over both regions.",
    ]
    if named is not None:
        words.append(
            f"The classifier knows {', '.join(named['categories'])}, and names {named['right']} of "
            f"{named['total']} held-out drawings and parts of held-out collages right."
        )
    words.append(
        "Lists in common: the share of region A's top list that is in region B's. Flip: the "
        "mirrored picture with the mirrored region, against the picture, over the pool."
    )
    return " ".join(words)
