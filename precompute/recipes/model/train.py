"""The stages of the model recipe in order, each resumable; `precompute train` calls them by
name."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from attribution import layout
from precompute.recipes.model.assemble import load_text_tower, save_clip, save_pipeline
from precompute.recipes.model.clip import train_clip
from precompute.recipes.model.config import ModelRecipe
from precompute.recipes.model.curve import write_curve
from precompute.recipes.model.data import load_training_set
from precompute.recipes.model.unet import Latents, train_unet, training_latents
from precompute.recipes.model.vae import reconstruction_mse, train_vae

STAGES = ("vae", "clip", "unet")


def run_stage(stage: str, data: Path, run: Path, out: Path, recipe: ModelRecipe) -> None:
    """Trains one stage in `run/<stage>`; the last also writes `out/model`, `out/clip` and
    `out/training`."""
    {"vae": _vae, "clip": _clip, "unet": _unet}[stage](data, run, out, recipe)


def with_steps(recipe: ModelRecipe, stage: str, steps: int | None) -> ModelRecipe:
    """The recipe with another number of steps for `stage`."""
    if steps is None:
        return recipe
    return replace(recipe, **{stage: replace(getattr(recipe, stage), steps=steps)})


def _vae(data: Path, run: Path, out: Path, recipe: ModelRecipe) -> None:
    vae = train_vae(load_training_set(data), run / "vae", recipe.vae)
    vae.save_pretrained(run / "vae" / "model")
    mse = reconstruction_mse(vae, load_training_set(data, "held-out"))
    (run / "vae" / "held_out_mse.txt").write_text(f"{mse:.5f}\n")


def _clip(data: Path, run: Path, out: Path, recipe: ModelRecipe) -> None:
    clip, tokenizer = train_clip(load_training_set(data), run / "clip", recipe.clip)
    save_clip(clip, tokenizer, run / "clip" / "model", recipe.vae.resolution)


def _unet(data: Path, run: Path, out: Path, recipe: ModelRecipe) -> None:
    # as it will be shipped: a retraining from the shipped folder then sees the same latents
    vae = AutoencoderKL.from_pretrained(run / "vae" / "model").half().float().eval()
    unet = train_unet(_latents(data, run, vae), run / "unet", recipe.unet)
    save_pipeline(out / "model", vae, unet, run / "clip" / "model", recipe)
    shutil.copytree(run / "clip" / "model", out / "clip", dirs_exist_ok=True)
    keep_records(run, out / layout.TRAINING)


def _latents(data: Path, run: Path, vae: AutoencoderKL) -> Latents:
    folder = run / "clip" / "model"
    encoder, tokenizer = load_text_tower(folder), CLIPTokenizer.from_pretrained(folder)
    return training_latents(vae, encoder, tokenizer, load_training_set(data))


def keep_records(run: Path, out: Path, stages: Sequence[str] = STAGES) -> None:
    """Beside the weights: command, configuration, time, machine and loss curve of every stage."""
    out.mkdir(parents=True, exist_ok=True)
    for stage in stages:
        write_curve(run / stage / "losses.csv", out / f"{stage}_losses.png")
        for name in ("training.json", "held_out_mse.txt"):
            if (run / stage / name).exists():
                shutil.copy(run / stage / name, out / f"{stage}_{name}")
