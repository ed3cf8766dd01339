"""See it forget: one prompt and seed drawn with θ0 + s·Δθ for growing s, beside prompts to keep.

The strengths are relative loss increases r of the query: s solves
L(ẑ, θ0 + s·Δθ) / L(ẑ, θ0) − 1 = r on the draws of the line search. So a strength means the same
for every picture.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attribution import regions
from attribution.cells import batch_size_for
from attribution.denoiser import Denoiser
from attribution.gradients import query_draws, region_loss
from attribution.stepsize import solve_step
from attribution.types import Forgetting, OtherPrompt, Progress, Query
from attribution.unlearning import Delta, Unlearned, applied

STAGE = "forget"
# Where a loss levels off, larger steps along Δθ ruin other pictures and forget no more of this one.
MAX_SCALE = 4.0
UPLOAD_SEED = 0
UPLOAD_NOTE = "This picture was uploaded and has no seed: its prompt is drawn from seed 0 instead."


@dataclass(frozen=True)
class Drawing:
    """What is drawn at each strength; `original` is the picture of strength 0 where it is there."""

    prompt: str
    seed: int
    steps: int
    guidance: float
    original: Image.Image | None = None
    others: tuple[tuple[str, int], ...] = ()
    note: str = ""

    @classmethod
    def of(cls, query: Query, others: Sequence[str], steps: int, guidance: float) -> Drawing:
        """The query as it was drawn, or an upload as it would be; each other prompt has a seed."""
        uploaded = query.seed is None
        return cls(
            prompt=query.prompt,
            seed=UPLOAD_SEED if query.seed is None else query.seed,
            steps=steps,
            guidance=guidance,
            original=None if uploaded else query.image,
            others=tuple((text, number) for number, text in enumerate(others, start=1)),
            note=UPLOAD_NOTE if uploaded else "",
        )


def loss_increase(
    denoiser: Denoiser,
    latents: Tensor,
    cond: Tensor,
    delta: Delta,
    timesteps: Sequence[int],
    weights: Tensor | None = None,
    *,
    draws: int = 2,
    seed: int = 0,
) -> Callable[[float], float]:
    """s → L(ẑ, θ0 + s·Δθ) / L(ẑ, θ0) − 1 of the query `latents` [1, C, h, w], `cond` [1, L, d];
    `weights` [h, w] count the cells of a region only.
    """
    noise, t = query_draws(denoiser, timesteps, draws, seed, "line-search")
    parts = torch.arange(len(t)).split(batch_size_for(denoiser))

    @torch.no_grad()
    def loss(scale: float) -> float:
        total = 0.0
        with applied(denoiser, delta, scale):
            for part in parts:
                z, c = latents.expand(len(part), -1, -1, -1), cond.expand(len(part), -1, -1)
                error = denoiser.squared_error(z, c, noise[part], t[part])
                total += float(region_loss(error, weights).sum())
        return total / len(t)

    base = loss(0.0)
    return lambda scale: loss(scale) / base - 1.0


def solve_scales(
    increase: Callable[[float], float], strengths: Sequence[float], known: float
) -> tuple[tuple[float, float], ...]:
    """(scale, increase reached) for each relative increase asked for; `known` is that of scale 1.

    Where a strength is out of reach, the largest increase found at up to MAX_SCALE times Δθ.
    """

    def within(scale: float) -> float:
        return increase(scale) if scale <= MAX_SCALE else math.inf

    solved = []
    for strength in strengths:
        if strength <= 0.0:
            solved.append((0.0, 0.0))
            continue
        first = min(strength / known, MAX_SCALE) if known > 0 else 1.0
        step = solve_step(within, strength, first)
        solved.append((step.step, step.increase))
    return tuple(solved)


def forget_query(
    denoiser: Denoiser,
    query: Query,
    unlearning: Iterator[Progress | Unlearned],
    timesteps: Sequence[int],
    strengths: Sequence[float],
    drawing: Drawing,
) -> Iterator[Progress | Forgetting]:
    """Run the query's `unlearning` first (at once when it is kept), then `forget` with its Δθ."""
    for item in unlearning:
        if isinstance(item, Progress):
            yield item
            continue
        latents = denoiser.encode_images([query.image])
        cond = denoiser.encode_text([regions.text(query)])
        weights = regions.query_weights(denoiser, query)
        increase = loss_increase(denoiser, latents, cond, item.delta, timesteps, weights)
        yield from forget(denoiser, item, increase, strengths, drawing)


def forget(
    denoiser: Denoiser,
    unlearned: Unlearned,
    increase: Callable[[float], float],
    strengths: Sequence[float],
    drawing: Drawing,
) -> Iterator[Progress | Forgetting]:
    """Progress for each sampling step, then the Forgetting; at each yield the model holds θ0."""
    began = time.perf_counter()
    solved = solve_scales(increase, strengths, unlearned.reached)
    scales, reached = zip(*solved, strict=True)
    searched = time.perf_counter() - began
    runs = _Runs(denoiser, unlearned.delta, drawing, len(scales) + 2 * bool(drawing.others))
    images: list[Image.Image] = []
    for scale in scales:
        images.append((yield from runs.target(scale)))
    before = yield from runs.draw(drawing.others, 0.0)
    after = yield from runs.draw(drawing.others, max(scales))
    yield Forgetting(
        prompt=drawing.prompt,
        seed=drawing.seed,
        strengths=tuple(strengths),
        reached=reached,
        scales=scales,
        images=tuple(images),
        changes=tuple(change(image, images[0]) for image in images),
        others=_others(drawing, before, after),
        note=drawing.note,
        seconds={"scales": searched, "images": time.perf_counter() - began - searched},
    )


def change(image: Image.Image, original: Image.Image) -> float:
    """Mean squared error of two RGB images of one size, on [0, 1]."""
    a, b = (np.asarray(x, dtype=np.float64) / 255.0 for x in (image, original))
    return float(((a - b) ** 2).mean())


def _others(
    drawing: Drawing, before: Sequence[Image.Image], after: Sequence[Image.Image]
) -> tuple[OtherPrompt, ...]:
    pairs = zip(drawing.others, before, after, strict=True)
    return tuple(OtherPrompt(p, seed, a, b, change(a, b)) for (p, seed), a, b in pairs)


@dataclass
class _Runs:
    """Draws pictures one batch after another and tells how far all of them together are."""

    denoiser: Denoiser
    delta: Delta
    drawing: Drawing
    total: int
    done: int = 0
    began: float = field(default_factory=time.perf_counter)

    def target(self, scale: float) -> Generator[Progress, None, Image.Image]:
        """The query's prompt and seed at one scale; scale 0 needs no drawing where it is there."""
        if scale == 0.0 and self.drawing.original is not None:
            self.done += 1
            return self.drawing.original
        return (yield from self.draw([(self.drawing.prompt, self.drawing.seed)], scale))[0]

    def draw(
        self, pictures: Sequence[tuple[str, int]], scale: float
    ) -> Generator[Progress, None, list[Image.Image]]:
        """The images of (prompt, seed) pairs drawn with θ0 + scale·Δθ."""
        images: list[Image.Image] = []
        if not pictures:
            return images
        prompts, seeds = zip(*pictures, strict=True)
        steps, guidance = self.drawing.steps, self.drawing.guidance
        sampler = self.denoiser.sample(prompts, seeds, steps=steps, guidance=guidance)
        while not images:
            with applied(self.denoiser, self.delta, scale):
                item = next(sampler)
            if isinstance(item, list):
                images = item
            else:
                yield self._progress(*item)
        self.done += 1
        return images

    def _progress(self, step: int, steps: int) -> Progress:
        seconds = time.perf_counter() - self.began
        done, total = self.done * steps + step, self.total * steps
        return Progress(STAGE, done, total, seconds, seconds / done * (total - done))
