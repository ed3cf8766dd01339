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

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attribution.denoiser import Denoiser
from attribution.fisher import Curvature
from attribution.gradients import query_draws, query_gradient, region_loss
from attribution.stepsize import solve_step
from attribution.types import Progress, UserError
from attribution.weights import WEIGHT_SETS, parameter_names

STAGE = "unlearn"
CURVATURES = ("diagonal", "ekfac", "none")
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
    towards θ0 by N·F(θ−θ0). seed: of the noise.
    """

    weight_set: str = "kv"
    curvature: str = "diagonal"
    damping: float = 0.1
    relative_increase: float = 0.10
    steps: int = 1
    preset: str | None = None
    alpha: float | None = None
    n_records: int = 1
    stride: int = 100
    draws: int = 4
    search_draws: int = 2
    ewc: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _require(self.weight_set in WEIGHT_SETS, f"weight set is one of {', '.join(WEIGHT_SETS)}")
        _require(self.curvature in CURVATURES, f"curvature is one of {', '.join(CURVATURES)}")
        _require(self.preset in (None, "paper"), "the only unlearning preset is 'paper'")
        _require(0 <= self.damping < math.inf, "damping must not be negative")
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
        """The grid stride/2, stride·3/2, …: 50, 150, …, 950 by default."""
        return tuple(range(self.stride // 2, n_train_timesteps, self.stride))

    @property
    def fixed_step(self) -> float | None:
        """α/N of the `paper` preset, None where the step is solved for."""
        if self.preset is None:
            return None
        alpha = PAPER_ALPHA[self.weight_set] if self.alpha is None else self.alpha
        return alpha / self.n_records


@dataclass(frozen=True, eq=False)
class Delta(Mapping[str, Tensor]):
    """Δθ by parameter name, on the CPU, float32 (float64 for a float64 model)."""

    tensors: Mapping[str, Tensor]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def scaled(self, scale: float) -> Delta:
        """scale · Δθ."""
        return Delta({name: tensor * scale for name, tensor in self.tensors.items()})

    def plus(self, other: Mapping[str, Tensor], scale: float = 1.0) -> Delta:
        """Δθ + scale · other, of the same names."""
        return Delta({name: t + scale * other[name].to(t) for name, t in self.tensors.items()})

    def norm(self) -> float:
        """‖Δθ‖₂."""
        return math.sqrt(sum(float(t.double().square().sum()) for t in self.tensors.values()))

    def save(self, path: str | Path, **about: Any) -> None:
        """Write safetensors, `about` as its metadata."""
        from safetensors.torch import save_file

        tensors = {name: t.contiguous() for name, t in self.tensors.items()}
        save_file(tensors, str(path), metadata={"about": json.dumps(about)})

    @classmethod
    def load(cls, path: str | Path) -> Delta:
        """Back from `save`."""
        from safetensors.torch import load_file

        return cls(load_file(str(path)))


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


@contextmanager
def applied(denoiser: Denoiser, delta: Mapping[str, Tensor], scale: float = 1.0) -> Iterator[None]:
    """θ0 + scale · Δθ inside the block; on every way out the very bits of before.

    Copies go back, nothing is subtracted: floating-point sums do not undo.
    """
    parameters = {name: denoiser.unet.get_parameter(name) for name in delta}
    saved = {name: p.detach().clone() for name, p in parameters.items()}
    try:
        with torch.no_grad():
            for name, p in parameters.items():
                change = delta[name].to(p.device) * scale
                p.copy_(saved[name].to(torch.promote_types(p.dtype, change.dtype)) + change)
        yield
    finally:
        with torch.no_grad():
            for name, p in parameters.items():
                p.copy_(saved[name])


def unlearn(
    denoiser: Denoiser,
    latents: Tensor,
    cond: Tensor,
    curvature: Curvature,
    config: UnlearnConfig,
    weights: Tensor | None = None,
) -> Iterator[Progress | Unlearned]:
    """Progress per step and line search, at last the Unlearned; at each yield the model holds θ0.

    latents: ẑ [1, C, h, w]; cond: [1, L, d]; weights: latent-cell weights [h, w] of a region, in
    the gradient and in the line search. Unreachable increase: the largest one found, with a note.
    """
    began = time.perf_counter()
    job = _Ascent(denoiser, latents, cond, curvature, config, weights)
    total, note, steps = 2 * config.steps, "", []
    delta = Delta({n: torch.zeros_like(p).cpu() for n, p in job.parameters()})
    for number in range(config.steps):
        yield _progress(2 * number, total, began)
        direction = job.direction(delta, number)
        yield _progress(2 * number + 1, total, began)
        goal = (1.0 + config.relative_increase) ** ((number + 1) / config.steps) - 1.0
        step, reached = job.step(delta, direction, goal)
        delta = delta.plus(direction, step)
        steps.append(step)
        if not reached:
            note = f"the loss of this picture could not be raised by {goal:.1%}"
            break
    loss1 = job.loss(delta)
    increase = loss1 / job.loss0 - 1.0
    if note:
        note = f"{note}: the largest increase found is {increase:.1%}"
    mean = sum(steps) / len(steps)
    yield Unlearned(delta, increase, mean, job.loss0, loss1, job.evaluations, note)


class _Ascent:
    """One query's ascent: gradient and held-out loss at θ0 + Δθ, each with the weights put back."""

    def __init__(
        self,
        denoiser: Denoiser,
        latents: Tensor,
        cond: Tensor,
        curvature: Curvature,
        config: UnlearnConfig,
        weights: Tensor | None,
    ) -> None:
        self.denoiser, self.latents, self.cond = denoiser, latents, cond
        self.config, self.weights = config, weights
        self.names = parameter_names(denoiser.unet, config.weight_set)
        self.curvature = curvature.subset(self.names).damped(
            0.0 if config.preset == "paper" else config.damping
        )
        self.timesteps = config.timesteps(denoiser.n_train_timesteps)
        self.draws = query_draws(
            denoiser, self.timesteps, config.search_draws, config.seed, "line-search"
        )
        self.evaluations = 0
        self.loss0 = self.loss(None)

    def parameters(self) -> Sequence[tuple[str, Tensor]]:
        return [(name, self.denoiser.unet.get_parameter(name)) for name in self.names]

    def direction(self, delta: Delta, number: int) -> dict[str, Tensor]:
        """F⁻¹∇L(ẑ, θ0 + Δθ), minus N·Δθ with the EWC pull: F⁻¹ cancels the F of N·F(θ−θ0)."""
        first = number * self.config.draws
        with applied(self.denoiser, delta):
            gradient = query_gradient(
                self.denoiser,
                self.latents,
                self.cond,
                self.timesteps,
                self.config.draws,
                self.config.seed,
                self.names,
                self.weights,
                first_draw=first,
            )
        direction = {n: d.cpu() for n, d in self.curvature.solve(gradient).items()}
        self.slope = sum(float((gradient[n].cpu() * d).sum()) for n, d in direction.items())
        if self.config.ewc:
            direction = {n: d - self.config.n_records * delta[n] for n, d in direction.items()}
        return direction

    def step(
        self, delta: Delta, direction: Mapping[str, Tensor], goal: float
    ) -> tuple[float, bool]:
        """(α/N, whether the relative increase `goal` was reached), starting from θ0 + Δθ."""
        if self.config.fixed_step is not None:
            return self.config.fixed_step, True
        here = self.loss(delta) / self.loss0 - 1.0

        def increase(step: float) -> float:
            return self.loss(delta.plus(direction, step)) / self.loss0 - 1.0 - here

        wanted = goal - here
        if wanted <= 0:
            return 0.0, True
        # first order: L grows by step · ∇L·F⁻¹∇L
        first = wanted * self.loss0 / self.slope if self.slope > 0 else 0.0
        found = solve_step(increase, wanted, first)
        return found.step, found.reached

    @torch.no_grad()
    def loss(self, delta: Delta | None, batch_size: int = 20) -> float:
        """L(ẑ, θ0 + Δθ) on the held-out draws, masked by the region's weights."""
        self.evaluations += 1
        noise, t = self.draws
        total = 0.0
        with applied(self.denoiser, delta or {}):
            for part in torch.arange(len(t)).split(batch_size):
                z = self.latents.expand(len(part), -1, -1, -1)
                c = self.cond.expand(len(part), -1, -1)
                error = self.denoiser.squared_error(z, c, noise[part], t[part])
                total += float(region_loss(error, self.weights).sum())
        return total / len(t)


def with_increase(config: UnlearnConfig, relative_increase: float) -> UnlearnConfig:
    """The same configuration with another relative loss increase."""
    return replace(config, relative_increase=relative_increase)


def _progress(done: int, total: int, began: float) -> Progress:
    seconds = time.perf_counter() - began
    remaining = seconds / done * (total - done) if done else None
    return Progress(STAGE, done, total, seconds, remaining)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)
