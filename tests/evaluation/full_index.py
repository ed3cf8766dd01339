"""The tiny index with all that any method needs, as a fixture."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from precompute.__main__ import main
from tests.attribution.tuned import install_head
from tests.precompute.worlds import tiny_dinov2, tiny_vit


@pytest.fixture(scope="session")
def full_index(tiny_index, tmp_path_factory) -> Path:
    """The index of the tiny world, every method available. Shared: write results elsewhere."""
    folder = tmp_path_factory.mktemp("full")
    out = shutil.copytree(tiny_index, folder / "index")
    for name, tiny in (("dino", tiny_vit), ("dinov2", tiny_dinov2)):
        encoder = ("--encoder", name, "--model", str(tiny(folder / name)))
        assert main(["features", "--out", str(out), *encoder]) == 0
    for name in ("clip", "dino"):
        install_head(out, name)
    wide = ("--weights", "full")
    factored = [("--curvature", kind, *wide) for kind in ("ekfac", "kfac")]
    for options in (wide, ("--objective", "eps2"), *factored):
        assert main(["variants", "--out", str(out), *options]) == 0
    for verb in ("trak", "dtrak"):
        assert main([verb, "--out", str(out), "--dim", "64"]) == 0
    return out
