"""EK-FAC, the curvature of AbU+: F ≈ (Q_B ⊗ Q_A) diag(λ) (Q_B ⊗ Q_A)ᵀ per layer, with
λ = E[(Q_Bᵀ G Q_A)²] (George et al., "Fast Approximate Natural Gradient Descent in a
Kronecker-factored Eigenbasis", NeurIPS 2018; convolutions: Grosse and Martens, ICML 2016).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from attribution.fisher import (
    COUNT,
    DiagonalFisher,
    Powers,
    check_covered,
    damped_power,
    part_of,
    plain,
)
from attribution.gradients import Gradients, gradients_from_tokens
from attribution.layers import Scales, Tokens
from attribution.weights import reads_text

TEXT_INPUT = "text"
# What names in a saved state begin with.
INPUTS, OUTPUTS = "cov_in.", "cov_out."
Q_IN, Q_OUT, VALUES, REST = "q_in.", "q_out.", "values.", "rest."


class Covariances:
    """First pass of EK-FAC: A = E[x xᵀ] and B = E[δ δᵀ] over samples and tokens, padding included;
    layers that are no matrices are passed over.

    A is kept once for all layers that read the text states: their input is the same.
    """

    def __init__(self) -> None:
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        self.count = 0

    def accumulate(self, tokens: Mapping[str, Tokens]) -> None:
        """Add a batch: module name → x [B, L, i], δ [B, L, o]; sums in float64."""
        matrices = {name: t for name, t in tokens.items() if not isinstance(t, Scales)}
        batch = len(next(iter(matrices.values())).inputs)
        before, total = self.count, self.count + batch
        seen: set[str] = set()
        for module, layer in matrices.items():
            source = input_group(module)
            if source not in seen:
                self.inputs[source] = _mixed(self.inputs.get(source), layer.inputs, before, total)
            self.outputs[module] = _mixed(self.outputs.get(module), layer.deltas, before, total)
            seen.add(source)
        self.count = total

    def sums(self) -> dict[str, Tensor]:
        """`cov_in.<input>`, `cov_out.<module>` and `count` in full precision, to go on from."""
        made = {f"{INPUTS}{name}": a for name, a in self.inputs.items()}
        made |= {f"{OUTPUTS}{name}": b for name, b in self.outputs.items()}
        return {**made, COUNT: torch.tensor([self.count])}

    def state(self) -> dict[str, Tensor]:
        """The same, safetensors-ready, float32."""
        return plain(self.sums())

    @classmethod
    def from_sums(cls, sums: Mapping[str, Tensor]) -> Covariances:
        """Back from `sums()` or `state()`."""
        made = cls()
        made.inputs, made.outputs = part_of(sums, INPUTS), part_of(sums, OUTPUTS)
        made.count = int(sums[COUNT])
        return made

    from_state = from_sums

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


class EKFAC(Powers):
    """Eigenvalue-corrected Kronecker factors. q_in: input → Q_A [i, i]; q_out: module → Q_B [o, o];
    values: module → λ [o, i], filled by the second pass, of linear layers and of convolutions (i is
    then a patch, C·kh·kw). rest: parameters that are no matrices, biases and norms, diagonal.
    """

    def __init__(
        self,
        q_in: Mapping[str, Tensor],
        q_out: Mapping[str, Tensor],
        values: DiagonalFisher | None = None,
        damping: float = 0.0,
        rest: DiagonalFisher | None = None,
    ) -> None:
        self.q_in, self.q_out = dict(q_in), dict(q_out)
        self.values, self.rest = values or DiagonalFisher(), rest or DiagonalFisher()
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

    def accumulate(self, tokens: Mapping[str, Tokens], rest: Sequence[str] = ()) -> None:
        """Second pass: adds (Q_Bᵀ G Q_A)² = ((δ Q_B)ᵀ (x Q_A))² of each sample to λ, and g² of the
        parameters named in `rest` to theirs."""
        turned = {}
        for module in self.q_out:
            layer = tokens[module]
            q_a, q_b = self._bases(module, layer.inputs)
            turned[module] = Tokens(layer.inputs @ q_a, layer.deltas @ q_b).weight_gradients()
        self.values.accumulate(turned)
        if rest:
            self.rest.accumulate(gradients_from_tokens(tokens, rest))

    def merge(self, other: EKFAC) -> None:
        """Join another part's λ in the same bases."""
        self.values.merge(other.values)
        self.rest.merge(other.rest)

    def sums(self) -> dict[str, Tensor]:
        """`q_in.<input>`, `q_out.<module>`, `values.<module>`, `rest.<name>` and `count` in full
        precision, to go on from."""
        made = {f"{Q_IN}{name}": q for name, q in self.q_in.items()}
        made |= {f"{Q_OUT}{name}": q for name, q in self.q_out.items()}
        made |= {f"{VALUES}{name}": value for name, value in self.values.values.items()}
        made |= {f"{REST}{name}": value for name, value in self.rest.values.items()}
        return {**made, COUNT: torch.tensor([self.count])}

    def state(self) -> dict[str, Tensor]:
        """The same, safetensors-ready, float32."""
        return plain(self.sums())

    @classmethod
    def from_sums(cls, sums: Mapping[str, Tensor]) -> EKFAC:
        """Back from `sums()` or `state()`."""
        count = int(sums[COUNT])
        values, rest = (DiagonalFisher(part_of(sums, kind), count) for kind in (VALUES, REST))
        return cls(part_of(sums, Q_IN), part_of(sums, Q_OUT), values, rest=rest)

    from_state = from_sums

    def damped(self, relative: float) -> EKFAC:
        """λ + relative · mean(λ) per layer, and the rest likewise."""
        relative = float(relative)
        return EKFAC(self.q_in, self.q_out, self.values, relative, self.rest.damped(relative))

    def subset(self, names: Sequence[str]) -> EKFAC:
        """Itself, after a check that every named parameter is covered."""
        covered = {*(f"{module}.weight" for module in self.values.values), *self.rest.values}
        check_covered(names, covered, "EK-FAC")
        return self

    def _power(self, gradients: Mapping[str, Tensor], exponent: float) -> Gradients:
        """Q_B ((Q_Bᵀ G Q_A) · λ^exponent) Q_Aᵀ."""
        made: Gradients = {}
        for name, gradient in gradients.items():
            module = name.removesuffix(".weight")
            if name in self.rest.values:
                made |= self.rest._power({name: gradient}, exponent)
            else:
                made[name] = self._turned_power(module, gradient, exponent)
        return made

    def _turned_power(self, module: str, gradient: Tensor, exponent: float) -> Tensor:
        q_a, q_b = self._bases(module, gradient)
        values = self.values.values[module].to(gradient)
        scale = damped_power(values, self.damping, exponent)
        matrices = gradient.reshape(-1, *values.shape)  # of a convolution: [o, C·kh·kw]
        return (q_b @ ((q_b.T @ matrices @ q_a) * scale) @ q_a.T).reshape(gradient.shape)

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
