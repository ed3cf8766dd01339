"""Curvature of the training loss on the selected weights: what every kind of it offers, and the
diagonal Fisher. EK-FAC: attribution/ekfac.py.

| code | paper | meaning |
|---|---|---|
| `DiagonalFisher` | F | E[g²], g the per-sample gradient at true noise (empirical Fisher) |
| damping | | F + ρ·mean(F) per layer: undamped, entries near zero explode |

All offer the same verbs on dictionaries name → [*lead, *shape]: `solve` F⁻¹g, `sqrt` F^½ g,
`sqrt_inv` F^-½ g. A zero of an undamped F gives 0, not infinity: a weight that no training sample
moves is not moved by unlearning either.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from attribution.gradients import Gradients
from attribution.noise import keyed_integers, keyed_noise
from attribution.types import UserError

COUNT = "count"


class Curvature(Protocol):
    """What unlearning and projection need of a curvature."""

    def damped(self, relative: float) -> Curvature: ...
    def subset(self, names: Sequence[str]) -> Curvature: ...
    def solve(self, gradients: Mapping[str, Tensor]) -> Gradients: ...
    def sqrt(self, gradients: Mapping[str, Tensor]) -> Gradients: ...
    def sqrt_inv(self, gradients: Mapping[str, Tensor]) -> Gradients: ...


def fisher_draw(
    shape: Sequence[int], n_train_timesteps: int, record_id: str, flip: int, seed: int
) -> tuple[Tensor, int]:
    """The one random (ε [C, h, w], t) of a record and flip; the two flips draw independently."""
    key: dict[str, Any] = {
        "namespace": "fisher",
        "seed": seed,
        "record_id": record_id,
        "draw": flip,
    }
    t = keyed_integers(0, n_train_timesteps, **key)
    return keyed_noise(shape, timestep=t, **key), t


class Identity:
    """No curvature: plain SGD ascent, the ablation expected to lose."""

    def damped(self, relative: float) -> Identity:
        return self

    def subset(self, names: Sequence[str]) -> Identity:
        return self

    def solve(self, gradients: Mapping[str, Tensor]) -> Gradients:
        return dict(gradients)

    sqrt = sqrt_inv = solve


class Powers(ABC):
    """Powers of F, by each class's own `_power`."""

    def solve(self, gradients: Mapping[str, Tensor]) -> Gradients:
        """F⁻¹ g."""
        return self._power(gradients, -1.0)

    def sqrt(self, gradients: Mapping[str, Tensor]) -> Gradients:
        """F^½ g."""
        return self._power(gradients, 0.5)

    def sqrt_inv(self, gradients: Mapping[str, Tensor]) -> Gradients:
        """F^-½ g."""
        return self._power(gradients, -0.5)

    @abstractmethod
    def _power(self, gradients: Mapping[str, Tensor], exponent: float) -> Gradients:
        """F^exponent g."""


class DiagonalFisher(Powers):
    """F = E[g²] per parameter, streamed. values: name → [*shape]; count: samples seen."""

    def __init__(
        self, values: Mapping[str, Tensor] | None = None, count: int = 0, damping: float = 0.0
    ) -> None:
        self.values = dict(values or {})
        self.count, self.damping = count, damping

    def accumulate(self, gradients: Mapping[str, Tensor]) -> None:
        """Add a batch of per-sample gradients, name → [B, *shape]; kept in float64."""
        batch = len(next(iter(gradients.values())))
        squares = {name: g.double().square().mean(0) for name, g in gradients.items()}
        self.merge(DiagonalFisher(squares, batch))

    def merge(self, other: DiagonalFisher) -> None:
        """Join another part's mean, weighted by counts, e.g. of another shard."""
        total = self.count + other.count
        for name, value in other.values.items():
            value = value.double()
            mine = self.values.get(name)
            new = value if mine is None else torch.lerp(mine.to(value), value, other.count / total)
            self.values[name] = new
        self.count = total

    def state(self) -> dict[str, Tensor]:
        """Safetensors-ready: name → float32 [*shape] on the CPU, and `count`."""
        return {**plain(self.values), COUNT: torch.tensor([self.count])}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> DiagonalFisher:
        """Back from `state()`."""
        values = {name: value for name, value in state.items() if name != COUNT}
        return cls(values, int(state[COUNT]) if COUNT in state else 0)

    def damped(self, relative: float) -> DiagonalFisher:
        """F + relative · mean(F) per parameter tensor."""
        return DiagonalFisher(self.values, self.count, float(relative))

    def subset(self, names: Sequence[str]) -> DiagonalFisher:
        """Only the named parameters; UserError naming the first one F does not cover."""
        check_covered(names, self.values, "diagonal Fisher")
        return DiagonalFisher({name: self.values[name] for name in names}, self.count, self.damping)

    def _power(self, gradients: Mapping[str, Tensor], exponent: float) -> Gradients:
        made = {}
        for name, gradient in gradients.items():
            made[name] = gradient * damped_power(
                self.values[name].to(gradient), self.damping, exponent
            )
        return made


def damped_power(values: Tensor, damping: float, exponent: float) -> Tensor:
    """(F + ρ mean F)^exponent, 0 where the damped F is 0."""
    damped = values + damping * values.mean()
    return torch.where(damped > 0, damped.clamp_min(torch.finfo(damped.dtype).tiny) ** exponent, 0)


def part_of(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of a saved state whose names begin with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As it is saved: real numbers in float32, all on the CPU."""
    return {
        name: (value.float() if value.is_floating_point() else value).cpu().contiguous()
        for name, value in state.items()
    }


def check_covered(names: Sequence[str], covered: Collection[str], what: str) -> None:
    """UserError naming the first parameter that a curvature does not cover."""
    missing = [name for name in names if name not in covered]
    if missing:
        raise UserError(
            f"the index's {what} does not cover {missing[0]} and {len(missing) - 1} more weights; "
            "make it anew with `python -m precompute fisher`, or one that lies in extras/ with "
            "`python -m precompute variants`"
        )
