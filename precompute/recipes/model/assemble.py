"""Step 4 of the model recipe: the three networks as one StableDiffusionPipeline folder and one CLIP
folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPModel, CLIPTextModel, CLIPTokenizer

from attribution import layout
from precompute.recipes.model.clip import image_processor
from precompute.recipes.model.config import ModelRecipe
from precompute.recipes.model.unet import build_scheduler


def save_clip(clip: CLIPModel, tokenizer: CLIPTokenizer, folder: Path, resolution: int) -> None:
    """A folder that CLIPModel, CLIPTextModel, CLIPTokenizer and CLIPImageProcessor load, half
    precision."""
    clip.half().save_pretrained(folder)
    clip.float()
    tokenizer.save_pretrained(folder)
    image_processor(resolution).save_pretrained(folder)


def load_text_tower(folder: Path) -> CLIPTextModel:
    """The text tower of a CLIP folder, float32, frozen."""
    return CLIPTextModel.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)


def save_pipeline(
    out: Path,
    vae: AutoencoderKL,
    unet: UNet2DConditionModel,
    clip_folder: Path,
    recipe: ModelRecipe,
) -> None:
    """Writes `out` as a StableDiffusionPipeline folder with half-precision weights.

    `generation.json` beside them holds the recommended sampling settings.
    """
    scheduler = DDIMScheduler.from_config(
        build_scheduler(recipe.unet).config, set_alpha_to_one=False, steps_offset=1
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=load_text_tower(clip_folder),
        tokenizer=CLIPTokenizer.from_pretrained(clip_folder),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    part = out.with_name(out.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    pipeline.to(dtype=torch.float16).save_pretrained(part)
    settings = {"steps": recipe.sampling_steps, "guidance": recipe.guidance}
    (part / layout.GENERATION).write_text(json.dumps(settings, indent=2) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)
