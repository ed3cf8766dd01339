"""Forgetting (paper, Table 3): does the unlearned model lose the target picture and keep the
others?

For each query and method: mean squared error, on [0, 1], of the target drawn again from the same
seed, over that of 50 other prompts; once where the target's loss has grown equally (by
`--relative-increase`), and once for each of `--shares` where the target's picture has: the step is
scaled until its error is that share of its mean distance to the other prompts' pictures (the paper
works at a target MSE of 0.08 to 0.09). A method may carry options: `abu:damping=0.01`,
`abu:steps=1`, `abu:preset=paper`. Pictures take 20 DDIM steps here, before and after alike.
One line a query, method and point; a stopped run goes on, and further methods and shares join it.
forgetting.csv beside the lines has the same as a table.

python -m evaluation forgetting --queries 20        # 3 methods x 3 points: 20,000 forwards a query
python -m evaluation forgetting --methods abu,abu:damping=0.01,abu:steps=1,abu-sgd --shares 0.25
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from attribution import defaults
from attribution.arguments import count
from attribution.forgetting import loss_increase
from attribution.stepsize import solve_step
from attribution.types import UserError
from attribution.unlearning import Delta, UnlearnConfig, Unlearned, applied
from attribution.validate import listed
from evaluation import generated, queries, selectivity
from evaluation.answers import Answers
from evaluation.generated import Sampling, seed_of
from evaluation.queries import Asked
from evaluation.results import Results, Summary
from evaluation.selectivity import LOSS
from evaluation.world import World, world_of
from precompute.counterfactual import squared_errors

METHODS = "abu,abu-ekfac,abu-sgd"
SHARES = "0.25,0.5"
OTHERS = 50
STEPS = 20
# Of the search for a scale: how near is near enough, and what still counts as found.
TOLERANCE, FOUND, EVALUATIONS = 0.1, 0.25, 14
Pairs = list[tuple[str, int]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `forgetting`."""
    generated.add_arguments(parser)
    parser.set_defaults(steps=STEPS)
    add = parser.add_argument
    add("--queries", type=count(), default=queries.N_QUERIES, metavar="N")
    add("--others", type=count(), default=OTHERS, metavar="N")
    add("--relative-increase", type=float, default=defaults.RELATIVE_INCREASE)
    add("--methods", default=METHODS, metavar="NAME[:OPTION=VALUE...][,...]")
    add("--shares", type=_shares, default=SHARES, metavar="S[,S...]", help="'' for none")


def run(args: argparse.Namespace) -> None:
    """One line a query, method and point."""
    world = world_of(args)
    answers, sampling = Answers(world), generated.sampling_of(args, world)
    base = answers.config("abu", relative_increase=args.relative_increase)
    settings = {
        "config": asdict(base),
        "steps": sampling.steps,
        "guidance": sampling.guidance,
        "others": args.others,
    }
    configs = {arm: _config(answers, arm, args) for arm in listed(args.methods)}
    results = world.results(args, "forgetting", settings)
    asked = queries.queries(world, args.queries, sampling, args.cache)
    others = other_prompts(world, args.others)
    before = generated.draw(world, others, sampling, args.cache)
    points = [LOSS, *(f"share {share:g}" for share in args.shares)]
    for query in tqdm(asked, desc="queries", disable=None):
        pictures = Pictures(answers, query, others, before, sampling)
        for arm, config in configs.items():
            _arm(pictures, arm, config, points, results)
    selectivity.write_csv(list(results.units.values()), args.results / "forgetting.csv")


def _shares(text: str) -> list[float]:
    shares = [float(part) for part in listed(text)]
    if not all(0 < share <= 1 for share in shares):
        raise argparse.ArgumentTypeError("shares lie above 0, up to 1")
    return shares


def _config(answers: Answers, arm: str, args: argparse.Namespace) -> UnlearnConfig:
    """Configuration of `name` or `name:option=value:...`; UserError for what is not there."""
    name, *parts = arm.split(":")
    changes: dict[str, Any] = {"relative_increase": args.relative_increase}
    for part in parts:
        option, _, value = part.partition("=")
        try:
            changes[option] = json.loads(value)
        except ValueError:
            changes[option] = value
    try:
        return answers.config(name, **changes)
    except TypeError:
        known = ", ".join(UnlearnConfig.__dataclass_fields__)
        raise UserError(f"{arm}: the options are {known}, each with a value") from None


def other_prompts(world: World, n: int) -> Pairs:
    """n training captions with seeds of their own, none of them a query."""
    asked = {prompt for _, prompt in queries.fixed_prompts(64)}
    rows = generated.training_rows(world.records, n + len(asked))
    captions = [world.records.captions[row] for row in rows]
    return [(caption, seed_of(caption)) for caption in captions if caption not in asked][:n]


@dataclass
class Pictures:
    """A query with what is drawn again: itself and the other prompts, with their pictures before,
    uint8 [n, px, px, 3].
    """

    answers: Answers
    query: Asked
    others: Pairs
    before: np.ndarray
    sampling: Sampling

    @property
    def target(self) -> Pairs:
        """The query as it is drawn."""
        return [(self.query.prompt, self.query.seed)]

    @property
    def image(self) -> np.ndarray:
        """The query's picture, [1, px, px, 3]."""
        return np.asarray(self.query.image)[None]

    @property
    def distance(self) -> float:
        """Mean squared error between the query's picture and the other prompts'."""
        own = np.broadcast_to(self.image, self.before.shape)
        return float(squared_errors(own, self.before).mean())

    def target_error(self, delta: Delta, scale: float) -> float:
        """Error of the query's picture at a scale of Δθ."""
        again = regenerate(self.answers, delta.scaled(scale), self.target, self.sampling)
        return float(squared_errors(again, self.image)[0])

    def drawn(self, delta: Delta) -> dict[str, Any]:
        """Errors, and CLIP similarities where there is a CLIP, of target and others."""
        pairs = [*self.target, *self.others]
        after = regenerate(self.answers, delta, pairs, self.sampling)
        originals = np.concatenate([self.image, self.before])
        target, *rest = squared_errors(after, originals).tolist()
        clip = _similarities(self.answers, originals, after)
        return {"target": target, "others": [round(error, 8) for error in rest], "clip": clip}


def _arm(
    pictures: Pictures, arm: str, config: UnlearnConfig, points: list[str], results: Results
) -> None:
    """The lines of one query and method that are not there yet."""
    query = pictures.query
    missing = [point for point in points if f"{query.key} {arm} {point}" not in results.units]
    if not missing:
        return
    began = time.perf_counter()
    latents = pictures.answers.latents(query.image)
    found = pictures.answers.unlearn(latents, query.prompt, config)
    spent = time.perf_counter() - began
    for point in missing:
        began = time.perf_counter()
        at: dict[str, Any] = {"scale": 1.0, "reached": found.reached}
        if point != LOSS:
            wanted = float(point.removeprefix("share ")) * pictures.distance
            at = _scaled(pictures, found, wanted) | {"wanted": wanted}
            at["reached"] = _increase(pictures, latents, found.delta, at["scale"])
        line = pictures.drawn(found.delta.scaled(at["scale"])) | at
        results.add(
            f"{query.key} {arm} {point}",
            query=query.key,
            prompt=query.prompt,
            method=arm,
            point=point,
            delta_norm=found.delta.norm(),
            note=found.note,
            seconds=[round(spent, 1), round(time.perf_counter() - began, 1)],
            **line,
        )


def _scaled(pictures: Pictures, found: Unlearned, wanted: float) -> dict[str, Any]:
    """The scale of Δθ at which the target's picture has changed by `wanted`."""
    here = pictures.target_error(found.delta, 1.0)
    # between a straight line and a parabola
    first = min(max((wanted / max(here, selectivity.ROUNDING)) ** 0.7, 0.1), 8.0)
    step = solve_step(
        lambda scale: pictures.target_error(found.delta, scale),
        wanted,
        first,
        tolerance=TOLERANCE,
        evaluations=EVALUATIONS,
    )
    return {"scale": step.step, "found": abs(step.increase / wanted - 1.0) <= FOUND}


def _increase(pictures: Pictures, latents: Tensor, delta: Delta, scale: float) -> float:
    """Relative increase of the target's loss at a scale of Δθ."""
    answers = pictures.answers
    cond = answers.denoiser.encode_text([pictures.query.prompt])
    steps = answers.index.timesteps
    found = loss_increase(answers.denoiser, latents, cond, delta, steps)(scale)
    return found if math.isfinite(found) else math.inf


def _similarities(answers: Answers, before: np.ndarray, after: np.ndarray) -> list[float] | None:
    """CLIP cosine between the pictures before and after: of the target, and the others' mean."""
    clip = answers.context.clip
    if clip is None:
        return None
    a, b = (
        np.asarray(clip.images([Image.fromarray(picture) for picture in pictures]))
        for pictures in (before, after)
    )
    cosines = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return [round(float(cosines[0]), 6), round(float(cosines[1:].mean()), 6)]


def regenerate(
    answers: Answers, delta: Mapping[str, Any], pairs: Pairs, sampling: Sampling
) -> np.ndarray:
    """Pictures of (prompt, seed) pairs by the unlearned model, uint8 [n, px, px, 3]."""
    images: list[Image.Image] = []
    with applied(answers.denoiser, delta):
        for part in _parts(pairs, sampling.batch_size):
            prompts, seeds = zip(*part, strict=True)
            images += answers.denoiser.generate_batch(
                prompts, seeds, steps=sampling.steps, guidance=sampling.guidance
            )
    return np.stack([np.asarray(image) for image in images])


def _parts(pairs: Pairs, size: int) -> Iterator[Pairs]:
    for start in range(0, len(pairs), size):
        yield pairs[start : start + size]


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """Every method and point, and abu against SGD."""
    return selectivity.summary(units, head["settings"])
