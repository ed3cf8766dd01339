"""Curvature of the training loss on the selected weights: diagonal Fisher and EK-FAC.

| code | paper | meaning |
|---|---|---|
| `DiagonalFisher` | F | E[g²], g the per-sample gradient at true noise (empirical Fisher) |
| `EKFAC` | "AbU+" | F ≈ (Q_B ⊗ Q_A) diag(λ) (Q_B ⊗ Q_A)ᵀ per layer, λ = E[(Q_Bᵀ G Q_A)²] |
| damping | | F + ρ·mean(F) per layer: undamped, entries near zero explode |

Both offer the same verbs on dictionaries name → [*lead, *shape]: `solve` F⁻¹g, `sqrt` F^½ g,
`sqrt_inv` F^-½ g. A zero of an undamped F gives 0, not infinity: a weight that no training sample
moves is not moved by unlearning either.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from attribution.gradients import Gradients, Tokens
from attribution.noise import keyed_integers, keyed_noise
from attribution.types import UserError
from attribution.weights import reads_text

COUNT = "count"
TEXT_INPUT = "text"


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


class _Powers(ABC):
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


class DiagonalFisher(_Powers):
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
        made = {name: value.float().cpu().contiguous() for name, value in self.values.items()}
        return {**made, COUNT: torch.tensor([self.count])}

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
        _check_covered(names, self.values, "diagonal Fisher")
        return DiagonalFisher({name: self.values[name] for name in names}, self.count, self.damping)

    def _power(self, gradients: Mapping[str, Tensor], exponent: float) -> Gradients:
        made = {}
        for name, gradient in gradients.items():
            made[name] = gradient * _damped_power(
                self.values[name].to(gradient), self.damping, exponent
            )
        return made


class Covariances:
    """First pass of EK-FAC: A = E[x xᵀ] and B = E[δ δᵀ] over samples and tokens, padding included.

    A is kept once for all layers that read the text states: their input is the same.
    """

    def __init__(self) -> None:
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        self.count = 0

    def accumulate(self, tokens: Mapping[str, Tokens]) -> None:
        """Add a batch: module name → x [B, L, i], δ [B, L, o]; sums in float64."""
        batch = len(next(iter(tokens.values())).inputs)
        before, total = self.count, self.count + batch
        seen: set[str] = set()
        for module, layer in tokens.items():
            source = input_group(module)
            if source not in seen:
                self.inputs[source] = _mixed(self.inputs.get(source), layer.inputs, before, total)
            self.outputs[module] = _mixed(self.outputs.get(module), layer.deltas, before, total)
            seen.add(source)
        self.count = total

    def state(self) -> dict[str, Tensor]:
        """Safetensors-ready float32 `cov_in.<input>`, `cov_out.<module>` and `count`."""
        made = {f"cov_in.{k}": v.float().cpu().contiguous() for k, v in self.inputs.items()}
        made |= {f"cov_out.{k}": v.float().cpu().contiguous() for k, v in self.outputs.items()}
        return {**made, COUNT: torch.tensor([self.count])}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> Covariances:
        """Back from `state()`."""
        made = cls()
        made.inputs, made.outputs = _named(state, "cov_in."), _named(state, "cov_out.")
        made.count = int(state[COUNT])
        return made

    def merge(self, other: Covariances) -> None:
        """Join another part's means, weighted by counts, e.g. of another shard."""
        total = self.count + other.count
        for mine, theirs in ((self.inputs, other.inputs), (self.outputs, other.outputs)):
            for name, value in theirs.items():
                value = value.double()
                share = other.count / total
                mine[name] = (
                    torch.lerp(mine[name].to(value), value, share) if name in mine else value
                )
        self.count = total


class EKFAC(_Powers):
    """Eigenvalue-corrected Kronecker factors. q_in: input → Q_A [i, i]; q_out: module → Q_B [o, o];
    values: module → λ [o, i], filled by the second pass. Covers weights of linear layers only.
    """

    def __init__(
        self,
        q_in: Mapping[str, Tensor],
        q_out: Mapping[str, Tensor],
        values: DiagonalFisher | None = None,
        damping: float = 0.0,
    ) -> None:
        self.q_in, self.q_out = dict(q_in), dict(q_out)
        self.values = values or DiagonalFisher()
        self.damping = damping

    @classmethod
    def from_covariances(cls, covariances: Covariances) -> EKFAC:
        """Eigenbases of A and B; λ is still to be accumulated."""
        q_in = {name: torch.linalg.eigh(a.double())[1] for name, a in covariances.inputs.items()}
        q_out = {name: torch.linalg.eigh(b.double())[1] for name, b in covariances.outputs.items()}
        return cls(q_in, q_out)

    @property
    def count(self) -> int:
        """Samples seen by the second pass."""
        return self.values.count

    def accumulate(self, tokens: Mapping[str, Tokens]) -> None:
        """Second pass: adds (Q_Bᵀ G Q_A)² = ((δ Q_B)ᵀ (x Q_A))² of each sample to λ."""
        turned = {}
        for module, layer in tokens.items():
            q_a, q_b = self._bases(module, layer.inputs)
            turned[module] = Tokens(layer.inputs @ q_a, layer.deltas @ q_b).weight_gradients()
        self.values.accumulate(turned)

    def merge(self, other: EKFAC) -> None:
        """Join another part's λ in the same bases."""
        self.values.merge(other.values)

    def state(self) -> dict[str, Tensor]:
        """Safetensors-ready: `q_in.<input>`, `q_out.<module>`, `values.<module>`, `count`."""
        made = {f"q_in.{k}": v.float().cpu().contiguous() for k, v in self.q_in.items()}
        made |= {f"q_out.{k}": v.float().cpu().contiguous() for k, v in self.q_out.items()}
        values = self.values.state()
        count = values.pop(COUNT)
        return {**made, **{f"values.{k}": v for k, v in values.items()}, COUNT: count}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> EKFAC:
        """Back from `state()`."""
        values = DiagonalFisher(_named(state, "values."), int(state[COUNT]))
        return cls(_named(state, "q_in."), _named(state, "q_out."), values)

    def damped(self, relative: float) -> EKFAC:
        """λ + relative · mean(λ) per layer."""
        return EKFAC(self.q_in, self.q_out, self.values, float(relative))

    def subset(self, names: Sequence[str]) -> EKFAC:
        """Itself, after a check that every named parameter is covered."""
        _check_covered(names, {f"{m}.weight": None for m in self.values.values}, "EK-FAC")
        return self

    def _power(self, gradients: Mapping[str, Tensor], exponent: float) -> Gradients:
        """Q_B ((Q_Bᵀ G Q_A) · λ^exponent) Q_Aᵀ."""
        made = {}
        for name, gradient in gradients.items():
            module = name.removesuffix(".weight")
            q_a, q_b = self._bases(module, gradient)
            scale = _damped_power(self.values.values[module].to(gradient), self.damping, exponent)
            made[name] = q_b @ ((q_b.T @ gradient @ q_a) * scale) @ q_a.T
        return made

    def _bases(self, module: str, like: Tensor) -> tuple[Tensor, Tensor]:
        return self.q_in[input_group(module)].to(like), self.q_out[module].to(like)


def input_group(module: str) -> str:
    """Name under which a layer's input covariance is kept: one for all that read the text."""
    return TEXT_INPUT if reads_text(module) else module


def _mixed(mean: Tensor | None, tokens: Tensor, before: int, total: int) -> Tensor:
    """Running mean over tokens of t tᵀ: `before` samples so far, `total` after this batch."""
    flat = tokens.double().flatten(0, 1)
    fresh = flat.T @ flat / len(flat)
    return fresh if mean is None else torch.lerp(mean.to(fresh), fresh, (total - before) / total)


def _damped_power(values: Tensor, damping: float, exponent: float) -> Tensor:
    """(F + ρ mean F)^exponent, 0 where the damped F is 0."""
    damped = values + damping * values.mean()
    return torch.where(damped > 0, damped.clamp_min(torch.finfo(damped.dtype).tiny) ** exponent, 0)


def _named(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def _check_covered(names: Sequence[str], covered: Mapping[str, object], what: str) -> None:
    missing = [name for name in names if name not in covered]
    if missing:
        raise UserError(
            f"the index's {what} does not cover {missing[0]} and {len(missing) - 1} more weights; "
            "rebuild it with: python -m precompute fisher"
        )
