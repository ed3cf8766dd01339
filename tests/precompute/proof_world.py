"""A world that retrains in a fraction of a second: 24 records of 16 px, 8 of them held out, trained
by the recipe itself in a few optimiser steps."""

from __future__ import annotations

from pathlib import Path

from precompute.recipes.model.config import ClipConfig, ModelRecipe, UnetConfig, VaeConfig
from precompute.recipes.model.train import STAGES, run_stage
from tests.evaluation.tiny_world import records_file
from tests.precompute.worlds import make_index

RECIPE = ModelRecipe(
    VaeConfig(
        resolution=16, latent_channels=4, channels=(8, 8, 8), batch_size=4, crop=8, full_steps=1,
        steps=2,
    ),
    ClipConfig(
        vocab_size=400, max_tokens=16, text_width=16, image_width=16, text_layers=1, image_layers=1,
        heads=2, patch=8, projection=8, batch_size=4, steps=2,
    ),
    UnetConfig(channels=(16, 32), heads=2, batch_size=6, steps=5, decay_steps=2, warmup_steps=1),
    sampling_steps=2,
)  # fmt: skip


def proof_world(folder: Path) -> Path:
    """records.parquet, model/, clip/ and training/."""
    out = folder / "world"
    out.mkdir(parents=True)
    records_file(out / "records.parquet")
    for stage in STAGES:
        run_stage(stage, out, folder / "run", out, RECIPE)
    return out


def proof_index(folder: Path) -> Path:
    """The index of that world, made in place as in assets/: its records lie in the shards alone."""
    world = proof_world(folder)
    index = make_index(world, world / "model", world)
    (world / "records.parquet").unlink()
    return index
