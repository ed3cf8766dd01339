"""Step 3 of the model recipe: the denoiser, trained on the autoencoder's latents and the frozen
text tower's states."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from precompute.recipes.model.clip import tokenize
from precompute.recipes.model.config import UnetConfig
from precompute.recipes.model.data import batch_rows, step_generator
from precompute.recipes.model.loop import Run, trapezoid


@dataclass(frozen=True)
class Latents:
    """What the denoiser trains on: latents float32 [2, n, C, h, w] (as is, mirrored), states
    float32 [n, L, d],
    and the states of the empty prompt [L, d] for caption dropout."""

    latents: torch.Tensor
    states: torch.Tensor
    empty: torch.Tensor


def build_unet(
    config: UnetConfig, latent_shape: tuple[int, ...], text_width: int
) -> UNet2DConditionModel:
    """An untrained UNet: plain convolutions at full resolution, cross-attention below."""
    torch.manual_seed(config.seed)
    lower = len(config.channels) - 1
    return UNet2DConditionModel(
        sample_size=latent_shape[-1],
        in_channels=latent_shape[0],
        out_channels=latent_shape[0],
        block_out_channels=config.channels,
        layers_per_block=1,
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * lower,
        up_block_types=("CrossAttnUpBlock2D",) * lower + ("UpBlock2D",),
        cross_attention_dim=text_width,
        attention_head_dim=config.heads,  # in this class the argument is the number of heads
        norm_num_groups=16,
    )


def build_scheduler(config: UnetConfig) -> DDPMScheduler:
    """The DDPM training schedule, as of Stable Diffusion."""
    return DDPMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=config.prediction_type,
        clip_sample=False,
    )


@torch.no_grad()
def text_states(
    text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, captions: tuple[str, ...]
) -> torch.Tensor:
    """Conditioning of each caption, float32 [n, L, d]: the states a StableDiffusionPipeline passes
    on."""
    tokens = tokenize(tokenizer, captions)
    return torch.cat([text_encoder(part).last_hidden_state for part in tokens.split(256)])


def train_unet(data: Latents, folder: Path, config: UnetConfig) -> UNet2DConditionModel:
    """Trains or resumes in `folder`; returns the averaged UNet (eval mode)."""
    unet = build_unet(config, tuple(data.latents.shape[2:]), data.states.shape[-1])
    unet = unet.to(memory_format=torch.channels_last)
    run = Run(folder, unet, config, ema_decay=config.ema_decay)
    scheduler = build_scheduler(config)

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        return {"loss": diffusion_loss(unet, scheduler, data, config, step)}

    def schedule(step: int) -> float:
        return trapezoid(
            step, warmup=config.warmup_steps, total=config.steps, decay=config.decay_steps
        )

    run.fit(loss_of, schedule, save_every=500)
    unet.load_state_dict(run.weights())
    return unet.eval()


def diffusion_loss(
    unet: UNet2DConditionModel,
    scheduler: DDPMScheduler,
    data: Latents,
    config: UnetConfig,
    step: int,
) -> torch.Tensor:
    """Mean squared error of the batch of `step`; batch, mirror, noise and timesteps depend on
    (seed, step) only."""
    g = step_generator(config.seed, step)
    rows = batch_rows(data.latents.shape[1], config.batch_size, config.seed, step)
    mirror = torch.randint(0, 2, (len(rows),), generator=g)
    clean = data.latents[mirror, rows]
    noise = torch.randn(clean.shape, generator=g)
    timesteps = torch.randint(0, scheduler.config.num_train_timesteps, (len(rows),), generator=g)
    states = data.states[rows].clone()
    states[torch.rand(len(rows), generator=g) < config.caption_dropout] = data.empty
    noisy = scheduler.add_noise(clean, noise, timesteps)
    target = noise
    if config.prediction_type == "v_prediction":
        target = scheduler.get_velocity(clean, noise, timesteps)
    noisy = noisy.contiguous(memory_format=torch.channels_last)
    return (unet(noisy, timesteps, states).sample - target).square().mean()
