"""Low precision against float32 scores: the same cells of the same queries, by rank correlation.

python -m evaluation precision --queries 2

Scores are tiny differences of losses, so that a precision good enough for pictures may not be for
them. `weights` casts the whole model; the others keep weights and Δθ in float32 and cast inside
layers, as the product would (attribution.precision). Both sides of a difference are computed in the
precision judged; `cached` takes the index's float32 base losses for the one side instead, as a
query does. What is slower than float32 is judged on fewer records: it is no candidate anyway, and a
machine that emulates half types would take minutes. The last figure is what the product's own probe
chooses on this machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from attribution import defaults
from attribution.arguments import count
from attribution.denoiser import Denoiser
from attribution.methods.probing import settle
from attribution.precision import ALIKE, BFLOAT16, FLOAT16, FLOAT32, TF32, Precision
from attribution.reduce import reduce_cells
from attribution.validate import whole_numbers
from evaluation import generated, queries
from evaluation.answers import Answers
from evaluation.results import Figure, Summary
from evaluation.statistics import mean_error, spearman
from evaluation.world import world_of

RECORDS, FEW, TRIAL = 128, 24, 2
SEED = 23


@dataclass(frozen=True)
class Variant:
    """One way to run the model: a precision inside its layers, or a dtype of all its weights."""

    name: str
    precision: Precision = FLOAT32
    weights: torch.dtype | None = None


EXACT = Variant("float32")
CPU = (
    Variant("bfloat16 autocast", BFLOAT16),
    Variant("bfloat16 weights", weights=torch.bfloat16),
)
CUDA = (
    Variant("TF32", TF32),
    *CPU,
    Variant("float16 autocast", FLOAT16),
    Variant("float16 weights", weights=torch.float16),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `precision`."""
    generated.add_arguments(parser)
    parser.add_argument("--queries", type=count(), default=2, metavar="N")
    parser.add_argument("--records", type=count(), default=RECORDS, metavar="N")
    parser.add_argument("--timesteps", type=whole_numbers, default=[450, 950])


def run(args: argparse.Namespace) -> None:
    """One line a query and variant, and one for the probe."""
    world = world_of(args)
    answers, sampling = Answers(world), generated.sampling_of(args, world)
    device = world.denoiser.device.type
    config = answers.config(defaults.METHOD)
    settings = {
        "device": device,
        "records": args.records,
        "timesteps": args.timesteps,
        "config": asdict(config),
    }
    results = world.results(args, "precision", settings)
    rows = np.random.default_rng(SEED).permutation(answers.index.train_rows)[: args.records]
    columns = answers.columns(args.timesteps)
    for query in tqdm(queries.queries(world, args.queries, sampling, args.cache), disable=None):
        variants = [v for v in variants_of(device) if f"{query.key} {v.name}" not in results.units]
        if not variants:
            continue
        delta = answers.unlearn(answers.latents(query.image), query.prompt, config).delta
        exact = scored(answers, EXACT, rows, delta, columns)
        for variant in variants:
            line = judged(answers, variant, rows, delta, columns, exact)
            results.add(f"{query.key} {variant.name}", variant=variant.name, **line)
        if "probe" not in results.units:
            results.add("probe", **settle(answers.context, config, delta).facts())
            answers.denoiser.precision = FLOAT32


def variants_of(device: str) -> tuple[Variant, ...]:
    """What is worth trying on a kind of device."""
    return CUDA if device == "cuda" else CPU


def judged(
    answers: Answers,
    variant: Variant,
    rows: np.ndarray,
    delta: Mapping[str, Tensor],
    columns: list[int],
    exact: Mapping[str, Any],
) -> dict[str, Any]:
    """Rank correlations with float32's scores of `rows`, and the speed; of the first few rows only
    where a trial is slower.
    """
    denoiser = model_of(answers, variant)
    trial = rows[:TRIAL]
    seconds = [
        min(_seconds(answers, model, trial, delta, columns) for _ in range(2))
        for model in (answers.denoiser, denoiser)
    ]
    n = len(rows) if seconds[1] < seconds[0] else min(FEW, len(rows))
    found = scored(answers, variant, rows[:n], delta, columns, denoiser)
    return {
        "fresh": spearman(exact["fresh"][:n], found["fresh"]),
        "cached": spearman(exact["cached"][:n], found["cached"]),
        "judged_records": n,
        "speed": round(exact["seconds"] / len(rows) * n / found["seconds"], 3),
    }


def _seconds(
    answers: Answers,
    denoiser: Denoiser,
    rows: np.ndarray,
    delta: Mapping[str, Tensor],
    columns: list[int],
) -> float:
    began = time.perf_counter()
    answers.score(rows, delta, columns, denoiser, np.zeros_like(answers.index.base_loss))
    return time.perf_counter() - began


def scored(
    answers: Answers,
    variant: Variant,
    rows: np.ndarray,
    delta: Mapping[str, Tensor],
    columns: list[int],
    denoiser: Denoiser | None = None,
) -> dict[str, Any]:
    """Scores [n] of `rows` with fresh and with cached base losses, and seconds of one side."""
    denoiser = denoiser or model_of(answers, variant)
    nothing = np.zeros_like(answers.index.base_loss)
    zero = {name: torch.zeros_like(tensor) for name, tensor in delta.items()}
    began = time.perf_counter()
    after = answers.score(rows, delta, columns, denoiser, nothing).cells
    seconds = time.perf_counter() - began
    before = answers.score(rows, zero, columns, denoiser, nothing).cells
    cached = after - answers.index.base_loss[rows]
    return {
        "fresh": reduce_cells(after - before)[0],
        "cached": reduce_cells(cached)[0],
        "seconds": seconds,
    }


def model_of(answers: Answers, variant: Variant) -> Denoiser:
    """The world's model running as the variant says, or a copy of it with cast weights."""
    if variant.weights is None:
        return replace(answers.denoiser, precision=variant.precision)
    path, device = answers.index.model_path, answers.denoiser.device
    return Denoiser.load(path, device=str(device), dtype=variant.weights)


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """Mean correlation and speed of each variant."""
    settings, lines = head["settings"], [unit for unit in units if "variant" in unit]
    table = [
        ("precision", "Spearman, both sides fresh", "Spearman, cached base", "speed", "records")
    ]
    kept = []
    for name in dict.fromkeys(line["variant"] for line in lines):
        mine = [line for line in lines if line["variant"] == name]
        values = {key: mean_error([line[key] for line in mine])[0] for key in ("fresh", "cached")}
        speed = float(np.mean([line["speed"] for line in mine]))
        records = str(max(line["judged_records"] for line in mine))
        numbers = (*(f"{mean:.4f}" for mean in values.values()), f"{speed:.2f} x", records)
        table.append((name, *numbers))
        if values["cached"] >= ALIKE and speed > 1:
            kept.append(name)
    value = ", ".join(kept) if kept else "none: float32 stays the default"
    figures = [Figure(f"faster than float32 with Spearman >= {ALIKE} of its scores", value)]
    for probe in (unit for unit in units if unit["unit"] == "probe"):
        words = f"{probe['name']} in {probe['seconds']:.1f} s"
        figures.append(Figure("what the product's probe chooses here", words))
    asked = len(lines) // max(len(table) - 1, 1)
    note = (
        f"On {settings['device']}: timesteps {', '.join(map(str, settings['timesteps']))}, "
        f"{asked} queries; speed against float32 in the same run. What is slower is judged on "
        f"{FEW} records."
    )
    return Summary(tuple(figures), tuple(table), (note,))
