"""Every method on the fixed queries: where their top lists agree, what they hold, what they cost
(the paper's App. D).

Each method answers as the product does by default, shortlisted and raced where it is. One line a
method and query; cheap methods first, so that a stopped run has most of them. A line stands as long
as what its answer was made from: after other defaults, or rows made anew, its method answers again.

python -m evaluation methods --queries 20
python -m evaluation methods --queries 20 --methods abu-ekfac,clip,random
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from attribution import defaults
from attribution.arguments import count
from attribution.engine import Engine
from attribution.methods.registry import METHODS, Context, why_not
from attribution.types import Attribution, Query, UserError
from evaluation import generated, queries, roster, shares
from evaluation import method_tables as tables
from evaluation.answers import last
from evaluation.generated import Sampling
from evaluation.queries import Asked
from evaluation.results import Figure, Results, Summary
from evaluation.shares import LABELS
from evaluation.world import world_of

VERB = "methods"
PICTURE = "methods-overlap.png"
CONTROL = "random"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `methods`."""
    generated.add_arguments(parser)
    add = parser.add_argument
    add("--queries", type=count(), default=queries.N_QUERIES, metavar="N")
    add("--methods", default=roster.ALL, metavar="NAME[,NAME...]", help="default: all available")
    add("--top", type=count(), default=defaults.TOP_K, metavar="K")


def run(args: argparse.Namespace) -> None:
    """Answer what is missing; UserError at the end for what could not be answered."""
    world = world_of(args)
    engine, sampling = world.engine, generated.sampling_of(args, world)
    context = Context(engine.denoiser, engine.index)
    names = roster.chosen(args.methods, context)
    settings = {"steps": sampling.steps, "guidance": sampling.guidance, "top": args.top}
    results = world.results(args, VERB, settings)
    for name in METHODS if args.methods == roster.ALL else names:
        _describe(name, engine, context, results)
    asked = queries.queries(world, args.queries, sampling, args.cache)
    rows = engine.index.train_rows
    like = {query.key: shares.alike(world.records, query.prompt, rows) for query in asked}
    job = Job(engine, results, sampling, args.top, like)
    try:
        for name in tqdm(names, desc="methods", disable=None):
            for query in tqdm(asked, desc=name, leave=False, disable=None):
                job.answer(name, query)
    finally:  # also of a run that is stopped
        _draw(results, args.top, args.results / PICTURE)
    if job.failures:
        raise UserError("; ".join(job.failures))


def _draw(results: Results, k: int, path: Path) -> None:
    """The picture of what is answered, where this session has added to it."""
    done = tables.answered(list(results.units.values()))
    if done and (results.begun or not path.is_file()):
        tables.draw(done, k, path)


def _describe(name: str, engine: Engine, context: Context, results: Results) -> None:
    """One line a method, again where something of it has changed: what it costs, what its answers
    are made from, and why it cannot run.
    """
    method = METHODS[name]
    why = why_not(method, context)
    facts: dict[str, Any] = {"method": name, "kind": method.kind, "why": why}
    facts |= {"basis": "", "cost": None}
    if not why:
        cost = asdict(engine.cost(name))
        cost["seconds"] = {s: None if math.isnan(v) else v for s, v in cost["seconds"].items()}
        facts |= {"basis": roster.basis(name, context), "cost": cost}
    key = f"{tables.ABOUT}{name}"
    known = results.units.get(key, {})
    if any(known.get(fact) != value for fact, value in facts.items()):
        results.add(key, **facts)


@dataclass
class Job:
    """One session of the verb. like: query → label → the records that are like it, bool [n]."""

    engine: Engine
    results: Results
    sampling: Sampling
    top: int
    like: Mapping[str, Mapping[str, np.ndarray]]
    met: set[str] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)

    def answer(self, name: str, asked: Asked) -> None:
        """One line, where it is missing: the top list, and how long it took."""
        basis = self.results.units[f"{tables.ABOUT}{name}"]["basis"]
        key = f"{asked.key} {name} {basis}"
        if key in self.results.units:
            return
        steps, guidance = self.sampling.steps, self.sampling.guidance
        query = Query(asked.prompt, asked.image, asked.seed, steps, guidance)
        k = min(self.top, self.engine.n_train)
        began = time.perf_counter()
        try:
            found: Attribution = last(self.engine.attribute(query, (name,), k), Attribution)
        except UserError as error:
            self.failures.append(f"{name} on {asked.prompt!r}: {error}")
            return
        seconds = round(time.perf_counter() - began, 4)
        rows = found.rows[:k][np.isfinite(found.scores[:k])]
        self.results.add(
            key,
            method=name,
            basis=basis,
            query=asked.key,
            prompt=asked.prompt,
            kind=asked.kind,
            ids=self.engine.index.ids(rows),
            seconds=seconds,
            stages={stage: round(value, 4) for stage, value in found.seconds.items()},
            first=name not in self.met,
            options=found.params,
            candidates=found.candidates,
            candidate_source=found.candidate_source,
            among=self.engine.n_train,
            **self._shares(asked, rows),
        )
        self.met.add(name)

    def _shares(self, asked: Asked, rows: np.ndarray) -> dict[str, dict[str, float]]:
        """Of the answer and of all training records, the part that is like the query, by label."""
        like, train = self.like[asked.key], self.engine.index.train_rows
        return {
            "share": {label: float(mask[rows].mean()) for label, mask in like.items()},
            "chance": {label: float(mask[train].mean()) for label, mask in like.items()},
        }


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """Three tables: overlap, shares against chance, costs."""
    k, about, answers = head["settings"]["top"], tables.about(units), tables.answered(units)
    if not answers:
        return Summary((Figure("methods answered", "none"),))
    more = tables.share_table(answers, k), tables.cost_table(answers, about)
    missing = [f"Not there: {name}, for {m['why']}." for name, m in about.items() if m["why"]]
    figures = (*_agreement(answers, k), *_liking(answers, k))
    return Summary(figures, tables.overlap_table(answers, k), (_note(k), *missing), more)


def _agreement(answers: tables.Answers, k: int) -> list[Figure]:
    """The methods that agree most, and how much chance would."""
    names, values = list(answers), tables.overlaps(answers)
    pairs = [
        (float(values[i, j]), names[i], names[j])
        for i in range(len(names))
        for j in range(i + 1, len(names))
        if not math.isnan(values[i, j])
    ]
    others = [pair for pair in pairs if CONTROL not in pair]
    chance = [value for value, *pair in pairs if CONTROL in pair]
    among = next(iter(next(iter(answers.values())).values()))["among"]
    found = []
    if others:
        best = max(others)
        mean = float(np.mean([value for value, *_ in others]))
        value = f"{mean:.2f}, most {best[0]:.2f} ({best[1]} and {best[2]})"
        found.append(Figure(f"overlap@{k} of two of {len(names)} methods, mean", value))
    if chance:
        value = f"{np.mean(chance):.3f} (expected {min(k, among) / among:.3f})"
        found.append(Figure(f"overlap@{k} of {CONTROL} with the others, mean", value))
    return found


def _liking(answers: tables.Answers, k: int) -> list[Figure]:
    """The default method's shares and the best of all."""
    found = []
    for label in LABELS:
        means = {name: np.mean(s) for name, u in answers.items() if (s := _share(u, label))}
        for name in dict.fromkeys((defaults.METHOD, max(means, key=means.__getitem__, default=""))):
            if name in means:
                own, chance = tables.share_of(answers[name], label)
                asked = f"{len(own)} of {len(answers[name])} queries"
                value = f"{tables.spread(own)}, chance {np.mean(chance):.3f}; {asked}"
                found.append(Figure(f"same {label} in the top {k}, {name}", value))
    return found


def _share(units: Mapping[str, dict[str, Any]], label: str) -> list[float]:
    return tables.share_of(units, label)[0]


def _note(k: int) -> str:
    """How to read the tables."""
    return (
        f"![overlap@{k}]({PICTURE})\n\n"
        f"Means over queries ± one standard error. Overlap: part of one method's top {k} that is "
        "in the other's. Same category or artist: a drawing of the query's category, or a collage "
        "with such a drawing, and a record by one of its artists, as the prompt's own record or "
        "its words tell; chance is their part of all training records. Seconds leave out each "
        "session's first query of a method, which loads and prepares. Bytes are those kept for a "
        "training record; seconds of precomputing are the index's own, on the machine that made it."
    )
