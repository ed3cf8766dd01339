"""Low precision against float32 scores: the same cells of the same queries, by rank correlation.

python -m evaluation precision --queries 2

Scores are tiny differences of losses, so that a precision good enough for pictures may not be for
them. `weights` casts the whole model; `autocast` keeps weights and Δθ in float32 and casts inside
layers. Both sides of a difference are computed in the precision judged; `cached` takes the index's
float32 base losses for the one side instead, as a query does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from attribution.denoiser import Denoiser
from attribution.scoring import reduce_cells
from evaluation import generated, queries
from evaluation.answers import Answers, timestep_list
from evaluation.results import Figure, Summary
from evaluation.statistics import mean_error, spearman
from evaluation.world import world_of

RECORDS = 256
TARGET = 0.99
SEED = 23


@dataclass(frozen=True)
class Variant:
    """One way to run the model: a dtype for all weights, or for autocast; TF32 or not."""

    name: str
    weights: torch.dtype | None = None
    autocast: torch.dtype | None = None
    tf32: bool = False


CPU = (
    Variant("bfloat16 autocast", autocast=torch.bfloat16),
    Variant("bfloat16 weights", weights=torch.bfloat16),
)
CUDA = (
    Variant("TF32", tf32=True),
    *CPU,
    Variant("float16 autocast", autocast=torch.float16),
    Variant("float16 weights", weights=torch.float16),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `precision`."""
    generated.add_arguments(parser)
    parser.add_argument("--queries", type=int, default=2, metavar="N")
    parser.add_argument("--records", type=int, default=RECORDS, metavar="N")
    parser.add_argument("--timesteps", type=timestep_list, default=[150, 450, 750])


def run(args: argparse.Namespace) -> None:
    """One line a query and variant."""
    world = world_of(args)
    answers, sampling = Answers(world), generated.sampling_of(args, world)
    device = world.denoiser.device.type
    settings = {"device": device, "records": args.records, "timesteps": args.timesteps}
    results = world.results(args, "precision", settings)
    rows = np.random.default_rng(SEED).permutation(answers.index.train_rows)[: args.records]
    columns = answers.columns(args.timesteps)
    for query in tqdm(queries.queries(world, args.queries, sampling, args.cache), disable=None):
        variants = [v for v in variants_of(device) if f"{query.key} {v.name}" not in results.units]
        if not variants:
            continue
        delta = answers.unlearn(
            answers.latents(query.image), query.prompt, answers.config("abu")
        ).delta
        exact = scored(answers, Variant("float32"), rows, delta, columns)
        for variant in variants:
            found = scored(answers, variant, rows, delta, columns)
            results.add(
                f"{query.key} {variant.name}",
                variant=variant.name,
                fresh=spearman(exact["fresh"], found["fresh"]),
                cached=spearman(exact["cached"], found["cached"]),
                seconds=round(found["seconds"], 2),
                float32_seconds=round(exact["seconds"], 2),
            )


def variants_of(device: str) -> tuple[Variant, ...]:
    """What is worth trying on a kind of device."""
    return CUDA if device == "cuda" else CPU


def scored(
    answers: Answers,
    variant: Variant,
    rows: np.ndarray,
    delta: Mapping[str, Tensor],
    columns: list[int],
) -> dict[str, Any]:
    """Scores [n] of `rows` with fresh and with cached base losses, and seconds of one side."""
    denoiser = model_of(answers, variant)
    nothing = np.zeros_like(answers.index.base_loss)
    zero = {name: torch.zeros_like(tensor) for name, tensor in delta.items()}
    with running(denoiser, variant):
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
    """The world's model, or a copy of it with cast weights."""
    if variant.weights is None:
        return replace(answers.denoiser)
    path, device = answers.index.model_path, answers.denoiser.device
    return Denoiser.load(path, device=str(device), dtype=variant.weights)


@contextmanager
def running(denoiser: Denoiser, variant: Variant) -> Iterator[None]:
    """Autocast and TF32 as the variant says; TF32 as it was afterwards."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    kind, dtype = denoiser.device.type, variant.autocast
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = variant.tf32
    try:
        with torch.autocast(kind, dtype) if dtype else nullcontext():
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """Mean correlation and speed of each variant."""
    settings = head["settings"]
    table = [("precision", "Spearman, both sides fresh", "Spearman, cached base", "speed")]
    kept = []
    for name in dict.fromkeys(unit["variant"] for unit in units):
        lines = [unit for unit in units if unit["variant"] == name]
        values = {key: mean_error([line[key] for line in lines]) for key in ("fresh", "cached")}
        speed = np.mean([line["float32_seconds"] / line["seconds"] for line in lines])
        table.append((name, *(f"{mean:.4f}" for mean, _ in values.values()), f"{speed:.2f} x"))
        if values["cached"][0] >= TARGET and speed > 1:
            kept.append(name)
    value = ", ".join(kept) if kept else "none: float32 stays the default"
    note = (
        f"On {settings['device']}: {settings['records']} records, timesteps "
        f"{', '.join(map(str, settings['timesteps']))}, {len(units) // max(len(table) - 1, 1)} "
        "queries; speed against float32 in the same run."
    )
    figure = Figure("faster than float32 with Spearman >= 0.99 of its scores", value)
    return Summary((figure,), tuple(table), (note,))
