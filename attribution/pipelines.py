"""EDGE: opens diffusers pipelines and says which are supported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from attribution.allocator import keep_freed_memory
from attribution.pace import pace_forwards
from attribution.quiet import quiet_loading
from attribution.types import UserError

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


def choose_device(device: str = "auto") -> torch.device:
    """'auto' is CUDA where there is one, else the CPU; UserError for a CUDA that is not there, and
    for a device of no other kind.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError("device cuda: this machine has no usable GPU; use --device cpu")
    try:
        return torch.device(device)
    except RuntimeError:
        raise UserError(f"device {device!r}: choose auto, cpu or cuda") from None


def load_pipeline(model: str | Path, revision: str | None) -> Any:
    """A StableDiffusionPipeline from a local folder or hub id; UserError if it cannot be opened."""
    if not Path(model).exists() and str(model).count("/") != 1:
        raise UserError(f"no model at {model}: not a diffusers pipeline folder or a hub id")
    try:
        with quiet_loading():
            from diffusers import StableDiffusionPipeline

            return StableDiffusionPipeline.from_pretrained(
                str(model), revision=revision, safety_checker=None, requires_safety_checker=False
            )
    except (OSError, ValueError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"cannot open the model {model}: {lines[0]}") from error


def check_supported(pipe: Any) -> None:
    """UserError naming the first thing about the pipeline that the losses here do not cover."""
    kind = getattr(pipe.scheduler.config, "prediction_type", None)
    if kind not in PREDICTION_TYPES:
        raise UserError(
            f"unsupported prediction_type {kind!r}: not in {', '.join(PREDICTION_TYPES)}"
        )
    unet, vae = pipe.unet.config, pipe.vae.config
    if unet.in_channels != vae.latent_channels or unet.out_channels != unet.in_channels:
        raise UserError(
            f"unsupported model: UNet channels {unet.in_channels} in and {unet.out_channels} out, "
            f"VAE {vae.latent_channels}; inpainting and learned variances are not supported"
        )
    if getattr(unet, "addition_embed_type", None) or getattr(unet, "class_embed_type", None):
        raise UserError(
            "unsupported model: only text-conditioned UNets of the Stable Diffusion 1/2 type"
        )
    latent_side(unet.sample_size)


def latent_side(sample_size: Any) -> int:
    """Cells a side of a UNet's latents, by `sample_size` of its configuration; UserError where it
    says none, or is not square: pictures are padded to a square.
    """
    sides = set(sample_size) if isinstance(sample_size, (tuple, list)) else {sample_size}
    side = sides.pop() if len(sides) == 1 else None
    if not isinstance(side, int):
        raise UserError(
            f"unsupported model: its UNet's sample_size is {sample_size}; only a square one is "
            "supported"
        )
    return side


def tune(unet: Any, device: torch.device) -> None:
    """On a CPU a faster layout, and as many threads as help; on a GPU no TF32, whose rounding is
    larger than scores are."""
    if device.type == "cpu":
        keep_freed_memory()
        # 15 % faster forwards of the embedded model on AVX2 cores
        unet.to(memory_format=torch.channels_last)
        pace_forwards(unet)
    elif device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
