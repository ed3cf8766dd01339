"""Unlearning one picture: Newton ascent on its loss, the change of the weights kept as a value.

| code | paper | meaning |
|---|---|---|
| `theta0` | θ0 | pretrained weights: in the model whenever this module is not running |
| `Delta` | Δθ = θ−ẑ − θ0 | name → tensor, applied and removed at will |
| `direction` | F⁻¹∇L(ẑ, θ) | Newton direction; F stays the one at θ0 |
| `step` | α/N | solved for a relative loss increase r, or fixed by the `paper` preset |

Eq. 5: θ ← θ + (α/N) F⁻¹ ∇L(ẑ, θ).
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attribution import defaults
from attribution.cells import batch_size_for, timestep_grid
from attribution.delta import Delta, applied
from attribution.denoiser import OBJECTIVES, Denoiser, Objective
from attribution.fisher import Curvature
from attribution.gradients import Gradients, draws_gradient, query_draws, region_loss
from attribution.numbers import is_finite, is_whole
from attribution.stepsize import step_search
from attribution.types import Progress, UserError
from attribution.weights import WEIGHT_SETS, parameter_names

__all__ = ["Delta", "UnlearnConfig", "Unlearned", "applied", "unlearn"]

STAGE = "unlearn"
CURVATURES = ("diagonal", "ekfac", "kfac", "none")
# Fields of UnlearnConfig by what they are; any number will do for the real ones.
WHOLE = ("steps", "n_records", "stride", "draws", "search_draws", "seed")
REAL = ("damping", "relative_increase", "alpha")
# Samples of one forward and backward; a backward costs about two forwards.
MOST_SAMPLES, GRADIENT_COST, EXPECTED_EVALUATIONS = 20, 3, 6
# Paper, appendix C: step sizes α of one Newton step on COCO, by weight set.
PAPER_ALPHA = {"kv": 0.01, "cross-attn": 0.005, "attn": 0.005, "full": 0.0005}


@dataclass(frozen=True)
class UnlearnConfig:
    """How to unlearn. Validated where it is made: UserError.

    weight_set: which weights move (attribution.weights). curvature: what F is. damping: ρ in F +
    ρ·mean(F) per layer. relative_increase: r = L(ẑ, θ−ẑ)/L(ẑ, θ0) − 1 on held-out draws; each of n
    steps solves for (1+r)^(1/n) − 1. preset "paper": fixed α/N, no relative damping. alpha: α of
    that preset, by weight set where None. n_records: N. stride: between timesteps of the grid.
    draws, search_draws: noise draws per timestep of the gradient and of the line search. ewc: pull
    towards θ0 by N·F(θ−θ0). seed: of the noise. objective: what is raised, "loss", or "eps2" for
    the output's mean square (Table 5), which then stands wherever a loss is named here.
    """

    weight_set: str = "kv"
    curvature: str = "diagonal"
    damping: float = 0.1
    relative_increase: float = field(default_factory=lambda: defaults.RELATIVE_INCREASE)
    steps: int = field(default_factory=lambda: defaults.NEWTON_STEPS)
    preset: str | None = None
    alpha: float | None = None
    n_records: int = 1
    stride: int = 100
    draws: int = field(default_factory=lambda: defaults.DRAWS)
    search_draws: int = 2
    ewc: bool = False
    seed: int = 0
    objective: Objective = "loss"

    def __post_init__(self) -> None:
        for name in WHOLE:
            value = getattr(self, name)
            _require(is_whole(value), f"{name} has to be a whole number, not {value!r}")
        for name in REAL:
            value = getattr(self, name)
            known = is_finite(value) or (name == "alpha" and value is None)
            _require(known, f"{name} has to be a finite number, not {value!r}")
        _require(isinstance(self.ewc, bool), f"ewc is true or false, not {self.ewc!r}")
        _require(self.weight_set in WEIGHT_SETS, f"weight set is one of {', '.join(WEIGHT_SETS)}")
        _require(self.curvature in CURVATURES, f"curvature is one of {', '.join(CURVATURES)}")
        _require(self.objective in OBJECTIVES, f"objective is one of {', '.join(OBJECTIVES)}")
        _require(self.preset in (None, "paper"), "the only unlearning preset is 'paper'")
        _require(self.damping >= 0, "damping must not be negative")
        _require(
            0 < self.relative_increase <= 100, "relative increase must be above 0, at most 100"
        )
        _require(1 <= self.steps <= 1000, "unlearning takes 1 to 1000 steps")
        _require(
            self.draws >= 1 and self.search_draws >= 1, "draws per timestep must be at least 1"
        )
        _require(self.stride >= 1 and self.n_records >= 1, "stride and record count start at 1")
        _require(self.alpha is None or self.alpha > 0, "alpha must be above 0")

    def timesteps(self, n_train_timesteps: int) -> tuple[int, ...]:
        """The grid stride/2, stride·3/2, …: 50, 150, …, 950 by default; UserError: it is empty."""
        found = timestep_grid(n_train_timesteps, self.stride)
        _require(bool(found), f"stride {self.stride} leaves no timestep of {n_train_timesteps}")
        return found

    @property
    def fixed_step(self) -> float | None:
        """α/N of the `paper` preset, None where the step is solved for."""
        if self.preset is None:
            return None
        alpha = PAPER_ALPHA[self.weight_set] if self.alpha is None else self.alpha
        return alpha / self.n_records


@dataclass(frozen=True)
class Unlearned:
    """What unlearning found.

    reached: the relative loss increase on held-out draws, from loss0 to loss1. alpha_over_n: the
    mean step α/N. evaluations: of that loss. note: a sentence where the wanted increase was not
    reached.
    """

    delta: Delta
    reached: float
    alpha_over_n: float
    loss0: float
    loss1: float
    evaluations: int
    note: str = ""


def unlearn(
    denoiser: Denoiser,
    latents: Tensor,
    cond: Tensor,
    curvature: Curvature,
    config: UnlearnConfig,
    weights: Tensor | None = None,
) -> Iterator[Progress | Unlearned]:
    """Progress after every few forwards, at last the Unlearned; at each yield the model holds θ0.

    latents: ẑ [1, C, h, w]; cond: [1, L, d]; weights: latent-cell weights [h, w] of a region, in
    the gradient and in the line search. Unreachable increase: the largest one found, with a note.
    """
    job = _Ascent(denoiser, latents, cond, curvature, config, weights)
    note, steps = "", []
    loss0 = yield from job.begin()
    for number in range(config.steps):
        direction = yield from job.direction(number)
        goal = (1.0 + config.relative_increase) ** ((number + 1) / config.steps) - 1.0
        step, reached = yield from job.step(direction, goal)
        steps.append(step)
        if not reached:
            note = f"the loss of this picture could not be raised by {goal:.1%}"
            break
    increase = job.here / loss0 - 1.0
    if note:
        note = f"{note}: the largest increase found is {increase:.1%}"
    mean = sum(steps) / len(steps)
    yield Unlearned(job.delta, increase, mean, loss0, job.here, job.evaluations, note)


class _Ascent:
    """One query's ascent. delta: Δθ so far; here: the held-out loss at θ0 + Δθ.

    Every method that runs the model is a generator of Progress, and puts θ0 back before each.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        latents: Tensor,
        cond: Tensor,
        curvature: Curvature,
        config: UnlearnConfig,
        weights: Tensor | None,
    ) -> None:
        self.denoiser = denoiser.with_objective(config.objective)
        self.latents, self.cond = latents, cond
        self.config, self.weights = config, weights
        self.names = parameter_names(denoiser.unet, config.weight_set)
        damping = 0.0 if config.preset == "paper" else config.damping
        self.curvature = curvature.subset(self.names).damped(damping)
        self.timesteps = config.timesteps(denoiser.n_train_timesteps)
        self.held_out = query_draws(
            denoiser, self.timesteps, config.search_draws, config.seed, "line-search"
        )
        zeros = {n: torch.zeros_like(denoiser.unet.get_parameter(n)).cpu() for n in self.names}
        self.delta, self.here, self.loss0 = Delta(zeros), math.nan, math.nan
        self.evaluations = 0
        self.batch_size = min(MOST_SAMPLES, batch_size_for(denoiser))
        self.clock = _Clock(config, len(self.timesteps))

    def begin(self) -> Generator[Progress, None, float]:
        """L(ẑ, θ0) on the held-out draws."""
        self.here = self.loss0 = yield from self._loss(self.delta)
        return self.loss0

    def direction(self, number: int) -> Generator[Progress, None, Gradients]:
        """F⁻¹∇L(ẑ, θ0 + Δθ), minus N·Δθ with the EWC pull: its F, undamped, cancels F⁻¹."""
        draws = self.config.draws
        noise, t = query_draws(
            self.denoiser, self.timesteps, draws, self.config.seed, first_draw=number * draws
        )
        gradient: Gradients = {}
        for part in torch.arange(len(t)).split(self.batch_size):
            with applied(self.denoiser, self.delta):
                some = draws_gradient(
                    self.denoiser,
                    self.latents,
                    self.cond,
                    noise[part],
                    t[part],
                    self.names,
                    self.weights,
                )
            share = len(part) / len(t)
            gradient = {n: gradient.get(n, 0.0) + share * g for n, g in some.items()}
            yield self.clock.after(GRADIENT_COST * len(part))
        solved = {n: d.cpu() for n, d in self.curvature.solve(gradient).items()}
        self.slope = sum(float((gradient[n].cpu() * d).sum()) for n, d in solved.items())
        if self.config.ewc:
            return {n: d - self.config.n_records * self.delta[n] for n, d in solved.items()}
        return solved

    def step(
        self, direction: Gradients, goal: float
    ) -> Generator[Progress, None, tuple[float, bool]]:
        """Moves Δθ; (α/N, whether the relative increase `goal` over θ0 was reached)."""
        before = self.delta
        if self.config.fixed_step is not None:
            self.delta = before.plus(direction, self.config.fixed_step)
            self.here = yield from self._loss(self.delta)
            return self.config.fixed_step, True
        here = self.here / self.loss0 - 1.0
        if goal <= here:
            return 0.0, True
        # first order: L grows by step · ∇L·F⁻¹∇L
        first = (goal - here) * self.loss0 / self.slope if self.slope > 0 else 0.0
        search = step_search(goal - here, first)
        found, trial = None, next(search)
        while found is None:
            loss = yield from self._loss(before.plus(direction, trial))
            try:
                trial = search.send(loss / self.loss0 - 1.0 - here)
            except StopIteration as stop:
                found = stop.value
        self.delta = before.plus(direction, found.step)
        self.here = (1.0 + here + found.increase) * self.loss0
        return found.step, found.reached

    def _loss(self, delta: Delta) -> Generator[Progress, None, float]:
        """L(ẑ, θ0 + Δθ) on the held-out draws, masked by the region's weights."""
        self.evaluations += 1
        noise, t = self.held_out
        total = 0.0
        for part in torch.arange(len(t)).split(self.batch_size):
            z = self.latents.expand(len(part), -1, -1, -1)
            c = self.cond.expand(len(part), -1, -1)
            with torch.no_grad(), applied(self.denoiser, delta):
                error = self.denoiser.squared_error(z, c, noise[part], t[part])
            total += float(region_loss(error, self.weights).sum())
            yield self.clock.after(len(part))
        return total / len(t)


class _Clock:
    """Progress in forwards, of an expected number: how long a line search takes is not known."""

    def __init__(self, config: UnlearnConfig, timesteps: int) -> None:
        a_search = EXPECTED_EVALUATIONS * config.search_draws
        self.total = timesteps * config.steps * (GRADIENT_COST * config.draws + a_search)
        self.done, self.began = 0, time.perf_counter()

    def after(self, forwards: int) -> Progress:
        """Progress once some more forwards are done."""
        self.done = min(self.done + forwards, self.total - 1)
        seconds = time.perf_counter() - self.began
        left = seconds / self.done * (self.total - self.done)
        return Progress(STAGE, self.done, self.total, seconds, left)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)
