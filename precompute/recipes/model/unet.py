"""Step 3 of the model recipe: the denoiser, trained on the autoencoder's latents and the frozen
text tower's states."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from precompute.recipes.model.clip import tokenize
from precompute.recipes.model.config import UnetConfig
from precompute.recipes.model.data import TrainingSet, batch_rows, resampled, step_generator
from precompute.recipes.model.loop import Run, StepLoss, trapezoid
from precompute.recipes.model.vae import latents_of


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


def training_latents(
    vae: AutoencoderKL, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, records: TrainingSet
) -> Latents:
    """What the denoiser of these networks trains on."""
    return Latents(
        latents=torch.stack([latents_of(vae, records), latents_of(vae, records, flip=True)]),
        states=text_states(text_encoder, tokenizer, records.captions),
        empty=text_states(text_encoder, tokenizer, ("",))[0],
    )


def untrained(data: Latents, config: UnetConfig) -> UNet2DConditionModel:
    """The UNet that training starts from."""
    unet = build_unet(config, tuple(data.latents.shape[2:]), data.states.shape[-1])
    return unet.to(memory_format=torch.channels_last)


def train_unet(data: Latents, folder: Path, config: UnetConfig) -> UNet2DConditionModel:
    """Trains or resumes in `folder`; returns the averaged UNet (eval mode)."""
    unet = untrained(data, config)
    run = Run(folder, unet, config, ema_decay=config.ema_decay)
    run.fit(losses_of(unet, data, config), learning_rate(config), save_every=500)
    unet.load_state_dict(run.weights())
    return unet.eval()


def learning_rate(config: UnetConfig) -> Callable[[int], float]:
    """Factor of the learning rate by step."""

    def schedule(step: int) -> float:
        return trapezoid(
            step, warmup=config.warmup_steps, total=config.steps, decay=config.decay_steps
        )

    return schedule


def losses_of(
    unet: UNet2DConditionModel,
    data: Latents,
    config: UnetConfig,
    removed: torch.Tensor | None = None,
) -> StepLoss:
    """The loss of each step; removed: bool [n], records that must not be trained on."""
    scheduler = build_scheduler(config)

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        return {"loss": diffusion_loss(unet, scheduler, data, config, step, removed)}

    return loss_of


def diffusion_loss(
    unet: UNet2DConditionModel,
    scheduler: DDPMScheduler,
    data: Latents,
    config: UnetConfig,
    step: int,
    removed: torch.Tensor | None = None,
) -> torch.Tensor:
    """Mean squared error of the batch of `step`; batch, mirror, noise and timesteps depend on
    (seed, step) only, and stand-ins for removed records take nothing but their place."""
    g = step_generator(config.seed, step)
    rows = batch_rows(data.latents.shape[1], config.batch_size, config.seed, step)
    if removed is not None:
        rows = resampled(rows, removed, config.seed, step)
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
    where = unet.device
    output = unet(noisy.to(where), timesteps.to(where), states.to(where)).sample
    return (output - target.to(where)).square().mean()
