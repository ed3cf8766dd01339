"""What is left to do, and about how long it will take here: `--plan`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from attribution.cells import FLIPS, batch_size_for
from attribution.denoiser import Denoiser
from attribution.methods.projected import DRAWS
from attribution.unlearning import EXPECTED_EVALUATIONS, GRADIENT_COST, UnlearnConfig
from evaluation.counterfactual import arms
from evaluation.customisation import methods
from evaluation.customisation.bench import Bench
from evaluation.customisation.methods import Configuration

if TYPE_CHECKING:
    from evaluation.customised import Work

# Forwards of one gradient row: a forward and backward by layers, and its projection.
ROW_COST = 5


def said(work: Work) -> list[str]:
    """The models, the stages, and minutes: by the speed of a few forwards."""
    bench = work.bench
    lines = [f"{len(work.models)} models, their exemplars:"]
    for model in work.models:
        state = "" if bench.made(model) is None else " (made)"
        lines.append(f"  {model.name}{state}: {model.artist}: {', '.join(model.ids)}")
    rate, total = speed(bench.denoiser), 0.0
    lines.append(f"at {rate:.0f} forwards a second:")
    for title, missing, forwards in (_models(work), *_stages(work)):
        total += forwards
        lines.append(f"  {forwards / rate / 60:5.1f} min  {missing} of {title}")
    return [*lines, f"  {total / rate / 60:5.1f} min  in all"]


def _models(work: Work) -> tuple[str, str, float]:
    new = [model for model in work.models if work.bench.made(model) is None]
    return f"{len(work.models)} models to make", str(len(new)), len(new) * making(work.bench)


def _stages(work: Work) -> Iterator[tuple[str, str, float]]:
    """(what, how many are missing, forwards)."""
    known: set[tuple[str, str]] = set()
    for stage in work.stages:
        todo = [(model, one) for model in work.models for _, one in work.todo(stage, model)]
        forwards = sum(asking(work.bench, one) for _, one in todo)
        own = {(model.name, str(one.rows)) for model, one in todo if one.rows and one.own_rows}
        forwards += len(own - known) * cells(work.bench) * ROW_COST
        known |= own
        every = len(work.models) * stage.queries * len(stage.configurations)
        names = ", ".join(one.text for one in stage.configurations) or "nothing that can be run"
        yield f"{every} answers, {stage.title}: {names}", str(len(todo)), forwards


def cells(bench: Bench) -> int:
    """Cells of a pool."""
    settings = bench.settings
    return FLIPS * settings.distractors * len(settings.timesteps)


def making(bench: Bench) -> float:
    """Forwards of a customisation, of its pictures and of its base losses."""
    s = bench.settings
    drawing = s.queries * s.steps * (2 if s.guidance != 1.0 else 1)
    return GRADIENT_COST * s.customise.steps * s.customise.batch_size + drawing + cells(bench)


def asking(bench: Bench, one: Configuration) -> float:
    """Forwards of one answer; a backward pass counts as two."""
    s, grid = bench.settings, len(bench.index.timesteps)
    if one.kind == methods.GRADIENT:
        return GRADIENT_COST * DRAWS * grid
    if one.kind != methods.UNLEARNING:
        return 1.0
    config = UnlearnConfig(**arms.configuration(one.arm, bench.index))
    search = EXPECTED_EVALUATIONS * config.search_draws
    steps = len(config.timesteps(bench.denoiser.n_train_timesteps)) * config.steps
    ascent = steps * (GRADIENT_COST * config.draws + search)
    further = min(s.survivors or s.distractors, s.distractors) * (len(s.timesteps) - 1)
    return ascent + FLIPS * (s.distractors + further)


@torch.inference_mode()
def speed(denoiser: Denoiser, batches: int = 4) -> float:
    """Forwards a second."""
    n = batch_size_for(denoiser)
    z = torch.zeros(n, *denoiser.latent_shape)
    cond, t = denoiser.encode_text([""]).expand(n, -1, -1), torch.full((n,), 1)
    seconds = []
    for _ in range(batches):
        began = time.perf_counter()
        denoiser.squared_error(z, cond, z, t).cpu()
        seconds.append(time.perf_counter() - began)
    return n / float(np.median(seconds))
