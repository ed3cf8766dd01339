"""Heads made by hand and installed in an index, for tests of the methods that use them."""

from __future__ import annotations

from pathlib import Path

import torch

from attribution.heads import Head
from attribution.index import Index
from precompute.abc import install
from precompute.recipes.abc.features import encoder_sha256


def install_head(out: Path, features: str, *, spread: float = 0.3, **about: str) -> Head:
    """A random head, the identity for spread 0, as `<features>-abc` of the index at `out`."""
    index = Index.open(out)
    dim = index.rows(features, [0]).shape[-1]
    generator = torch.Generator().manual_seed(0)
    head = Head(
        torch.eye(dim) + spread * torch.randn(dim, dim, generator=generator),
        spread * 0.1 * torch.randn(dim, generator=generator),
        {"features": features, "encoder_sha256": encoder_sha256(index, features), **about},
    )
    folder = out.parent / f"head-{features}"
    head.save(folder)
    install(out, features, folder)
    return head
