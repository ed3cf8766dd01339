"""A warm default query on the index by stage, beside generating its image, in one process.

python -m benchmarks speed              # about two minutes on four cores
python -m benchmarks speed --exhaustive --queries 1

A short query first fills caches and probes the machine. No further query is begun once `--seconds`
have passed; the same command goes on with those that are left.
"""

from __future__ import annotations

import argparse
import resource
import time
from statistics import median
from typing import Any

import torch

from attribution import defaults
from attribution.arguments import count
from attribution.methods.registry import METHODS, Context
from attribution.types import Attribution, Query
from benchmarks.unet_clock import clocked
from evaluation import roster
from evaluation.answers import last
from evaluation.generated import seed_of
from evaluation.queries import fixed_prompts
from evaluation.results import Figure, Summary
from evaluation.world import world_of

TARGET = 0.85
STEPS = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `speed`."""
    parser.add_argument(
        "--queries", type=count(), default=3, metavar="N", help="after one to warm up"
    )
    parser.add_argument("--seconds", type=float, default=90.0, help="begin no query after these")
    parser.add_argument("--method", default=defaults.METHOD)
    parser.add_argument("--exhaustive", action="store_true")


def run(args: argparse.Namespace) -> None:
    """One line a query; queries done before are not measured again."""
    world = world_of(args)
    context = Context(world.denoiser, world.engine.index)
    settings = {
        "method": args.method,
        "exhaustive": args.exhaustive,
        "threads": args.threads,
        "basis": roster.basis(args.method, context),
    }
    results = world.results(args, "speed", settings)
    prompts = [prompt for _, prompt in fixed_prompts(args.queries + 1)]
    left = [prompt for prompt in prompts[1:] if prompt not in results.units]
    if left:
        _warm_up(world.engine, prompts[0], args.method)
    began = time.perf_counter()
    for prompt in left:
        results.add(prompt, **_measure(world.engine, prompt, args))
        if time.perf_counter() - began > args.seconds:
            break


def _warm_up(engine: Any, prompt: str, method: str) -> None:
    """Caches filled, pages touched, precision probed: a few steps and as few candidates as can be
    shown.
    """
    query = last(engine.generate(prompt, seed_of(prompt), steps=4), Query)
    few = {"shortlist": 1} if METHODS[method].kind == "unlearning" else {}
    last(
        engine.attribute(query, (method,), min(defaults.TOP_K, engine.n_train), **few), Attribution
    )


def _measure(engine: Any, prompt: str, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of generating and of each stage of attributing one picture, and peak memory."""
    began = time.perf_counter()
    query = last(engine.generate(prompt, seed_of(prompt), steps=STEPS), Query)
    generated = time.perf_counter() - began
    top_k = min(defaults.TOP_K, engine.n_train)
    with clocked(engine.denoiser.unet) as clock:
        began = time.perf_counter()
        job = engine.attribute(query, (args.method,), top_k, args.exhaustive)
        answer = last(job, Attribution)
        total = time.perf_counter() - began
    gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    racing = answer.params.get("racing")
    return {
        "generate": round(generated, 3),
        "attribute": round(total, 3),
        "stages": {stage: round(seconds, 3) for stage, seconds in answer.seconds.items()},
        "unet": {kind: round(seconds, 3) for kind, seconds in clock.seconds.items()},
        "calls": clock.calls,
        "samples": clock.samples,
        "candidates": answer.candidates,
        "candidate_source": answer.candidate_source,
        "evaluated_cells": answer.evaluated_cells,
        "finalists": racing["finalists"] if racing else None,
        "precision": (answer.params.get("precision") or {}).get("name"),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "peak_gpu_mib": round(gpu / 2**20),
    }


def scoring_share(unit: dict[str, Any]) -> float:
    """Share of the scoring stage spent inside UNet forwards."""
    return unit["unet"]["scoring"] / max(unit["stages"].get("score", 0.0), 1e-9)


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """Medians over the queries."""

    def middle(*path: str) -> float:
        values = list(units)
        for name in path:
            values = [value.get(name, 0.0) for value in values]
        return median(values)

    share = median(scoring_share(unit) for unit in units)
    rate = median(unit["samples"]["scoring"] / max(unit["unet"]["scoring"], 1e-9) for unit in units)
    figures = (
        Figure("a warm default query", f"{middle('attribute'):.1f} s"),
        Figure(f"generating its image, {STEPS} steps, guidance", f"{middle('generate'):.1f} s"),
        Figure(
            "share of scoring inside UNet forwards", f"{share:.2f}", f">= {TARGET}", share >= TARGET
        ),
        Figure("peak memory", _peak(units)),
    )
    stages = list(dict.fromkeys(stage for unit in units for stage in unit["stages"]))
    table = [("stage", "seconds", "share")]
    for stage in stages:
        seconds = middle("stages", stage)
        table.append((stage, f"{seconds:.2f}", f"{seconds / middle('attribute'):.0%}"))
    first = units[0]
    raced = f", {first['finalists']} to the end" if first.get("finalists") else ""
    note = (
        f"Medians of {len(units)} warm queries; {first['candidates']} candidates "
        f"({first['candidate_source']}){raced}, {middle('evaluated_cells'):,.0f} cells, {rate:.0f} "
        f"UNet forwards a second while scoring, in {first.get('precision') or 'float32'}."
    )
    return Summary(figures, tuple(table), (note,))


def _peak(units: list[dict[str, Any]]) -> str:
    """Of the process, and of the GPU where it was used."""
    gpu = max(unit.get("peak_gpu_mib", 0) for unit in units)
    beside = f", GPU {gpu:,} MiB" if gpu else ""
    return f"{max(unit['peak_mib'] for unit in units):,} MiB{beside}"
