"""Seeded random projection of gradients to d dimensions, inner products kept in expectation.

A subsampled randomized Hadamard transform, block by block: the gradient's P entries are cut into
blocks of n = 2^k, and y = Σ_blocks S_b H D_b g_b / √d, where D_b are random signs, H the Hadamard
matrix of ±1 entries and S_b a choice of d of its n rows. Then E⟨y, y'⟩ = ⟨g, g'⟩ with a variance of
about (‖g‖²‖g'‖² + ⟨g, g'⟩²) / d, as for a dense matrix of random signs, without the cost of one.
Signs and rows come from a keyed generator: the same on every machine.

`BlockProjection` lays one such projection per layer side by side: rows that serve layer by layer
(DataInf) and as a whole (TRAK), and says in settings that an index can keep how it was made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attribution.noise import SCHEME

BLOCK = 1 << 16


class Projection:
    """Projects dictionaries of gradients, name → [B, *shape], to float32 [B, dim].

    shapes: name → parameter shape; taken in sorted order, so the order of a dictionary does not
    matter. Raises ValueError when a dictionary has other names.
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]], dim: int, seed: int = 0) -> None:
        self.shapes = {name: tuple(shapes[name]) for name in sorted(shapes)}
        self.dim, self.seed = int(dim), int(seed)
        self.size = sum(math.prod(shape) for shape in self.shapes.values())
        whole = 1 << max(0, (self.size - 1).bit_length())
        wanted = 1 << (self.dim - 1).bit_length()
        self.block = max(min(BLOCK, whole), wanted)
        self._signs: list[tuple[Tensor, Tensor]] | None = None

    def apply(self, gradients: Mapping[str, Tensor]) -> Tensor:
        """y [B, dim] float32 on the gradients' device; at most one block per sample is copied."""
        if set(gradients) != set(self.shapes):
            raise ValueError("these gradients are of other parameters than the projection's")
        rows = torch.cat([gradients[name].flatten(1) for name in self.shapes], dim=1)
        result = rows.new_zeros(len(rows), self.dim, dtype=torch.float32)
        for number, start in enumerate(range(0, self.size, self.block)):
            signs, chosen = self._block(number)
            part = rows[:, start : start + self.block].float()
            result += self._transform(part, signs.to(part.device))[:, chosen.to(part.device)]
        return result / math.sqrt(self.dim)

    def _transform(self, part: Tensor, signs: Tensor) -> Tensor:
        """H D g of one zero-padded block, [B, ≤ n] → [B, n]: H_n = H_a ⊗ H_b as two products."""
        a = 1 << (self.block.bit_length() // 2)
        b = self.block // a
        padded = part.new_zeros(len(part), self.block)
        padded[:, : part.shape[1]] = part * signs[: part.shape[1]]
        left, right = hadamard(a).to(part.device), hadamard(b).to(part.device)
        return (left @ padded.view(-1, a, b) @ right).reshape(len(part), self.block)

    def _block(self, number: int) -> tuple[Tensor, Tensor]:
        """Signs float32 [n] and chosen rows int64 [dim] of one block, kept after the first use."""
        if self._signs is None:
            count = math.ceil(self.size / self.block)
            self._signs = [_draw(self.seed, i, self.block, self.dim) for i in range(count)]
        return self._signs[number]


class BlockProjection:
    """y = s · [y_1, …, y_B], y_b the projection of block b's parameters to its own dimension.

    ⟨y_b, y'_b⟩ estimates s² times block b's part of ⟨g, g'⟩, and ⟨y, y'⟩ s² times the whole. s, a
    power of two, brings the numbers into the range of half precision. blocks: (parameter names,
    dimension) each; model: number of the model in an ensemble, whose projections are independent.
    """

    def __init__(
        self,
        shapes: Mapping[str, Sequence[int]],
        blocks: Sequence[tuple[Sequence[str], int]],
        seed: int = 0,
        *,
        scale: float = 1.0,
        model: int = 0,
    ) -> None:
        self.scale = float(scale)
        self.names = [name for names, _ in blocks for name in names]
        self.parts = [
            Projection({n: shapes[n] for n in names}, dim, _block_seed(seed, model, names))
            for names, dim in blocks
        ]
        ends = np.cumsum([part.dim for part in self.parts]).tolist()
        self.slices = [
            slice(end - part.dim, end) for end, part in zip(ends, self.parts, strict=True)
        ]
        self.dim: int = ends[-1]

    @classmethod
    def from_settings(
        cls, shapes: Mapping[str, Sequence[int]], settings: Mapping[str, Any], model: int = 0
    ) -> BlockProjection:
        """From what an index keeps of its rows: blocks [{"parameters", "dim"}], seed, scale."""
        blocks = [(block["parameters"], block["dim"]) for block in settings["blocks"]]
        return cls(shapes, blocks, settings["seed"], scale=settings["scale"], model=model)

    @property
    def sizes(self) -> list[int]:
        """Numbers of parameters of each block."""
        return [part.size for part in self.parts]

    def apply(self, gradients: Mapping[str, Tensor]) -> Tensor:
        """y [B, dim] float32 of gradients name → [B, *shape]; ValueError for other names."""
        if set(gradients) != set(self.names):
            raise ValueError("these gradients are of other parameters than the projection's")
        made = [part.apply({n: gradients[n] for n in part.shapes}) for part in self.parts]
        return torch.cat(made, dim=1) * self.scale


def share_dimensions(
    sizes: Sequence[int], energies: Sequence[float], dim: int, power: float = 0.5
) -> list[int]:
    """How `dim` numbers are shared among blocks: in proportion to energy^power, each at least 1.

    energies: E‖g_b‖². The error of the whole inner product is least at power 1, of every block's
    own alike at 0; 0.5 serves both. No block gets more than its size rounded up to a power of two,
    at which nothing is lost; what is left over goes to the others.
    """
    most = [1 << max(0, (size - 1).bit_length()) for size in sizes]
    weights = np.maximum(np.asarray(energies, dtype=np.float64), 0.0) ** power
    weights = np.maximum(weights, 1e-6 * max(float(weights.max()), 1e-30))
    dims = np.ones(len(most), dtype=np.int64)
    for _ in range(min(dim, sum(most)) - len(most)):
        # whoever is furthest below its share is next
        wanting = np.where(dims < most, weights / (dims + 0.5), -1.0)
        dims[int(wanting.argmax())] += 1
    return [int(d) for d in dims]


def _block_seed(seed: int, model: int, names: Sequence[str]) -> int:
    """One seed per block, so that two layers of one shape are not projected alike."""
    text = f"{seed}|{model}|{'|'.join(sorted(names))}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def _draw(seed: int, number: int, block: int, dim: int) -> tuple[Tensor, Tensor]:
    text = f"{SCHEME}|projection|{seed}|{number}|{block}|{dim}"
    key = int.from_bytes(blake2b(text.encode(), digest_size=16).digest(), "little")
    generator = np.random.Generator(np.random.Philox(key=key))
    signs = generator.integers(0, 2, block).astype(np.float32) * 2 - 1
    chosen = generator.permutation(block)[:dim]
    return torch.from_numpy(signs), torch.from_numpy(chosen)


@lru_cache(maxsize=8)
def hadamard(n: int) -> Tensor:
    """Sylvester's Hadamard matrix [n, n] of ±1, n a power of two."""
    matrix = torch.ones(1, 1)
    while len(matrix) < n:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), matrix)
    return matrix
