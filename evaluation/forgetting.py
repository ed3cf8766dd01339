"""Forgetting (paper, Table 3): does the unlearned model lose the target picture and keep the
others?

For each query: mean squared error, on [0, 1], of the target drawn again from the same seed, over
that of 50 other prompts. `abu` against the SGD ablation, both solved for the same loss increase of
the target. Pictures take 20 DDIM steps here, before and after alike.

python -m evaluation forgetting --queries 20        # 4,100 forwards a query
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from attribution import defaults
from attribution.unlearning import applied
from evaluation import generated, queries
from evaluation.answers import Answers
from evaluation.generated import Sampling, seed_of
from evaluation.queries import Asked
from evaluation.results import Figure, Summary
from evaluation.statistics import mean_error
from evaluation.world import World, world_of

METHODS = ("abu", "abu-sgd")
OTHERS = 50
STEPS = 20
Pairs = list[tuple[str, int]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `forgetting`."""
    generated.add_arguments(parser)
    parser.set_defaults(steps=STEPS)
    parser.add_argument("--queries", type=int, default=queries.N_QUERIES, metavar="N")
    parser.add_argument("--others", type=int, default=OTHERS, metavar="N")
    parser.add_argument("--relative-increase", type=float, default=defaults.RELATIVE_INCREASE)


def run(args: argparse.Namespace) -> None:
    """One line a query and method."""
    world = world_of(args)
    answers, sampling = Answers(world), generated.sampling_of(args, world)
    settings = {
        "config": asdict(answers.config("abu", relative_increase=args.relative_increase)),
        "steps": sampling.steps,
        "guidance": sampling.guidance,
        "others": args.others,
    }
    results = world.results(args, "forgetting", settings)
    asked = queries.queries(world, args.queries, sampling, args.cache)
    others = other_prompts(world, args.others)
    before = generated.draw(world, others, sampling, args.cache)
    for query in tqdm(asked, desc="queries", disable=None):
        for method in METHODS:
            unit = f"{query.key} {method}"
            if unit not in results.units:
                config = answers.config(method, relative_increase=args.relative_increase)
                measured = _measure(answers, query, config, others, before, sampling)
                results.add(unit, query=query.key, prompt=query.prompt, method=method, **measured)


def other_prompts(world: World, n: int) -> Pairs:
    """n training captions with seeds of their own, none of them a query."""
    asked = {prompt for _, prompt in queries.fixed_prompts(64)}
    rows = generated.training_rows(world.records, n + len(asked))
    captions = [world.records.captions[row] for row in rows]
    return [(caption, seed_of(caption)) for caption in captions if caption not in asked][:n]


def _measure(
    answers: Answers,
    query: Asked,
    config: Any,
    others: Pairs,
    before: np.ndarray,
    sampling: Sampling,
) -> dict[str, Any]:
    """Errors of target and others after unlearning the query."""
    began = time.perf_counter()
    found = answers.unlearn(answers.latents(query.image), query.prompt, config)
    pairs = [(query.prompt, query.seed), *others]
    after = regenerate(answers, found.delta, pairs, sampling)
    originals = np.concatenate([np.asarray(query.image)[None], before])
    target, *rest = errors(after, originals).tolist()
    return {
        "target": target,
        "others": [round(error, 8) for error in rest],
        "reached": round(found.reached, 5),
        "loss": [found.loss0, found.loss1],
        "delta_norm": found.delta.norm(),
        "note": found.note,
        "seconds": round(time.perf_counter() - began, 1),
    }


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


def errors(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean squared error on [0, 1] of uint8 images [n, px, px, 3], float64 [n]."""
    return (((a.astype(np.float64) - b.astype(np.float64)) / 255.0) ** 2).mean((1, 2, 3))


def ratio(unit: Mapping[str, Any]) -> float:
    """The target's error over the mean of the others'."""
    return unit["target"] / max(float(np.mean(unit["others"])), 1e-12)


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """Mean ratio of each method, and the paired difference."""
    ratios = {
        method: {unit["query"]: ratio(unit) for unit in units if unit["method"] == method}
        for method in METHODS
    }
    shared = [query for query in ratios["abu"] if query in ratios["abu-sgd"]]
    table = [("method", "queries", "target MSE", "others' MSE", "ratio", "loss increase reached")]
    for method in METHODS:
        lines = [unit for unit in units if unit["method"] == method and unit["query"] in shared]
        if lines:
            table.append(_method_row(method, lines))
    differences = [ratios["abu"][query] - ratios["abu-sgd"][query] for query in shared]
    mean, error = mean_error(differences)
    abu, abu_error = mean_error([ratios["abu"][query] for query in shared])
    figures = (
        Figure("forgetting, abu: target MSE over others'", f"{abu:.2f} ± {abu_error:.2f}"),
        Figure(
            "forgetting, abu minus SGD at equal target loss, paired",
            f"{mean:.2f} ± {error:.2f} over {len(shared)} queries",
            "> 2 standard errors",
            bool(mean > 2 * error) if len(shared) > 1 else None,
        ),
    )
    settings = head["settings"]
    note = (
        f"Ratio per query, then mean ± one standard error; {settings['others']} other prompts, "
        f"{settings['steps']} DDIM steps; both methods solved for a loss increase of "
        f"{settings['config']['relative_increase']:.0%}. The paper's Table 3: 4.2 against 2.5."
    )
    return Summary(figures, tuple(table), (note,))


def _method_row(method: str, lines: list[dict[str, Any]]) -> tuple[str, ...]:
    cells = (
        ("{:.2e} ± {:.1e}", [line["target"] for line in lines]),
        ("{:.2e} ± {:.1e}", [float(np.mean(line["others"])) for line in lines]),
        ("{:.2f} ± {:.2f}", [ratio(line) for line in lines]),
        ("{:.2%} ± {:.2%}", [line["reached"] for line in lines]),
    )
    shown = (form.format(*mean_error(values)) for form, values in cells)
    return (method, str(len(lines)), *shown)
