"""Step 2 of the model recipe: a small CLIP trained contrastively on (drawing, caption) pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from precompute.recipes.model.config import ClipConfig as Recipe
from precompute.recipes.model.data import TrainingSet, batch_rows, step_generator
from precompute.recipes.model.loop import Run, trapezoid
from precompute.recipes.model.tokenizer import train_tokenizer


def build_clip(recipe: Recipe, tokenizer: CLIPTokenizer, resolution: int) -> CLIPModel:
    """An untrained CLIPModel for `resolution` px images and the tokenizer's vocabulary."""
    torch.manual_seed(recipe.seed)
    text = _tower(recipe.text_width, recipe.heads) | {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": recipe.max_tokens,
        "num_hidden_layers": recipe.text_layers,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "projection_dim": recipe.projection,
    }
    vision = _tower(recipe.image_width, recipe.heads) | {
        "image_size": resolution,
        "patch_size": recipe.patch,
        "num_hidden_layers": recipe.image_layers,
        "projection_dim": recipe.projection,
    }
    return CLIPModel(
        CLIPConfig(
            text_config=text,
            vision_config=vision,
            projection_dim=recipe.projection,
        )
    )


def _tower(width: int, heads: int) -> dict[str, int]:
    return {"hidden_size": width, "intermediate_size": 4 * width, "num_attention_heads": heads}


def image_processor(resolution: int) -> CLIPImageProcessor:
    """Resizes to `resolution` px and maps 8-bit values to [-1, 1], as in training."""
    half = [0.5, 0.5, 0.5]
    return CLIPImageProcessor(
        size={"height": resolution, "width": resolution},
        do_center_crop=False,
        image_mean=half,
        image_std=half,
    )


def train_clip(data: TrainingSet, folder: Path, recipe: Recipe) -> tuple[CLIPModel, CLIPTokenizer]:
    """Trains or resumes in `folder`; returns the averaged model (eval mode) and its tokenizer."""
    resolution = data.images.shape[-1]
    tokenizer = train_tokenizer(data.captions, recipe.vocab_size, recipe.max_tokens)
    clip = build_clip(recipe, tokenizer, resolution)
    tokens = tokenize(tokenizer, data.captions)
    same = torch.tensor(_group_numbers(data.captions))
    run = Run(folder, clip, recipe, ema_decay=0.99)

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        rows = batch_rows(len(data), recipe.batch_size, recipe.seed, step)
        pixels = augment(data.floats(rows), step_generator(recipe.seed, step))
        logits = clip(input_ids=tokens[rows], pixel_values=pixels).logits_per_image
        return {"loss": contrastive_loss(logits, same[rows])}

    def schedule(step: int) -> float:
        return trapezoid(step, warmup=200, total=recipe.steps, decay=recipe.steps // 2)

    run.fit(loss_of, schedule, save_every=250)
    clip.load_state_dict(run.weights())
    return clip.eval(), tokenizer


def contrastive_loss(logits: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """Symmetric cross-entropy of logits [B, B]; records with the same caption (`groups` [B]) share
    the target."""
    target = (groups[:, None] == groups[None]).float()
    target = target / target.sum(1, keepdim=True)
    return 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))


def tokenize(tokenizer: CLIPTokenizer, texts: Sequence[str]) -> torch.Tensor:
    """Token ids int64 [B, max_tokens], padded and truncated as a StableDiffusionPipeline does."""
    return tokenizer(
        list(texts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids


def augment(pixels: torch.Tensor, g: torch.Generator) -> torch.Tensor:
    """Random mirror, zoom of 0.85 to 1.15 and shift, white outside; float32 [B, 3, px, px]."""
    n = len(pixels)
    zoom = 0.85 + 0.3 * torch.rand(n, generator=g)
    mirror = torch.where(torch.rand(n, generator=g) < 0.5, -1.0, 1.0)
    shift = 0.2 * (torch.rand(n, 2, generator=g) - 0.5)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = zoom * mirror, zoom, shift
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels - 1, grid, align_corners=False) + 1


def _group_numbers(captions: Sequence[str]) -> list[int]:
    numbers: dict[str, int] = {}
    return [numbers.setdefault(c, len(numbers)) for c in captions]
