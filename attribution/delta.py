"""Δθ as a value: kept, scaled, saved, applied and removed without a trace."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attribution.denoiser import Denoiser


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
