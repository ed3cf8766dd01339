"""K-FAC, a curvature small enough to ship with an index: F ≈ s · B ⊗ A per layer, with A and B the
covariances of its inputs and of its output gradients (Martens and Grosse, "Optimizing Neural
Networks with Kronecker-factored Approximate Curvature", ICML 2015).

s makes the trace that of the layer's Fisher, E‖G‖². Kept are the halves of the symmetric A and B in
half precision, each over the mean of its diagonal: a damped F⁻¹g differs by a few per cent of its
largest entry at most (tests/attribution/test_kfac.py). Opened, it is an EK-FAC whose λ are the
products of the factors' eigenvalues.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from attribution.ekfac import EKFAC, INPUTS, OUTPUTS, REST, Covariances, input_group
from attribution.fisher import COUNT, DiagonalFisher, part_of, plain
from attribution.gradients import gradients_from_tokens
from attribution.layers import Scales, Tokens

TRACES = "trace."


class KFAC:
    """covariances: A and B. traces: module → E‖G‖². rest: parameters that are no matrices, biases
    and norms, diagonal."""

    def __init__(self) -> None:
        self.covariances = Covariances()
        self.traces, self.rest = DiagonalFisher(), DiagonalFisher()

    def accumulate(self, tokens: Mapping[str, Tokens], names: Sequence[str]) -> None:
        """Add a batch: module name → x [B, L, i], δ [B, L, o]; of `names`, those that belong to no
        matrix go to `rest`."""
        self.covariances.accumulate(tokens)
        matrices = {name: t for name, t in tokens.items() if not isinstance(t, Scales)}
        lengths = {name: _lengths(layer) for name, layer in matrices.items()}
        self.traces.accumulate(lengths)
        if rest := [name for name in names if name.removesuffix(".weight") not in matrices]:
            self.rest.accumulate(gradients_from_tokens(tokens, rest))

    def sums(self) -> dict[str, Tensor]:
        """All of it in full precision, to go on from."""
        traces = {f"{TRACES}{name}": trace for name, trace in self.traces.values.items()}
        rest = {f"{REST}{name}": f for name, f in self.rest.values.items()}
        return {**self.covariances.sums(), **traces, **rest}

    @classmethod
    def from_sums(cls, sums: Mapping[str, Tensor]) -> KFAC:
        """Back from `sums()`."""
        made = cls()
        made.covariances = Covariances.from_sums(sums)
        made.traces, made.rest = (
            DiagonalFisher(part_of(sums, kind), made.covariances.count) for kind in (TRACES, REST)
        )
        return made

    def state(self, kept: torch.dtype = torch.float16) -> dict[str, Tensor]:
        """Safetensors-ready: halves [n(n+1)/2] of A and B, row by row from the diagonal on, in the
        precision `kept`; float32 traces and rest."""
        sums = self.sums()
        factors = [name for name in sums if name.startswith((INPUTS, OUTPUTS))]
        halves = {name: _half(sums.pop(name)).to(kept).cpu() for name in factors}
        return {**halves, **plain(sums)}


def opened(state: Mapping[str, Tensor]) -> EKFAC:
    """The curvature of a saved `state()`: eigenbases of A and B, λ = s · λ_B ⊗ λ_A."""
    count = int(state[COUNT])
    inputs = {name: _eigen(half) for name, half in part_of(state, INPUTS).items()}
    outputs = {name: _eigen(half) for name, half in part_of(state, OUTPUTS).items()}
    values = {}
    for module, trace in part_of(state, TRACES).items():
        products = torch.outer(outputs[module][0], inputs[input_group(module)][0])
        values[module] = (products * (trace / products.sum().clamp_min(_TINY))).float()
    q_in, q_out = (
        {name: vectors.float() for name, (_, vectors) in some.items()} for some in (inputs, outputs)
    )
    rest = DiagonalFisher(part_of(state, REST), count)
    return EKFAC(q_in, q_out, DiagonalFisher(values, count), rest=rest)


_TINY = torch.finfo(torch.float64).tiny


def _lengths(layer: Tokens) -> Tensor:
    """‖G‖ per sample, [B]."""
    return layer.weight_gradients().flatten(1).norm(dim=1)


def _half(matrix: Tensor) -> Tensor:
    scale = matrix.diagonal().mean().clamp_min(_TINY)
    rows, columns = torch.triu_indices(*matrix.shape)
    return (matrix / scale)[rows, columns]


def _eigen(half: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [n], none below zero, and eigenvectors [n, n] of a symmetric matrix by its half,
    float64."""
    n = int((8 * len(half) + 1) ** 0.5 - 1) // 2
    matrix = torch.zeros(n, n, dtype=torch.float64)
    rows, columns = torch.triu_indices(n, n)
    matrix[rows, columns] = matrix[columns, rows] = half.double()
    values, vectors = torch.linalg.eigh(matrix)
    return values.clamp_min(0.0), vectors  # rounding may have put a small one below zero
