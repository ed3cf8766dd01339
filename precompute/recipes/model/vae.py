"""Step 1 of the model recipe: the autoencoder. `python -m precompute train vae --data
assets/openclipart --run runs/openclipart`."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL

from precompute.recipes.model.config import VaeConfig
from precompute.recipes.model.data import TrainingSet, batch_rows, step_generator
from precompute.recipes.model.loop import Run, trapezoid


def build_vae(config: VaeConfig) -> AutoencoderKL:
    """An untrained AutoencoderKL; without mid-block attention, so that crops and whole images are
    alike."""
    torch.manual_seed(config.seed)
    depth = len(config.channels)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * depth,
        up_block_types=("UpDecoderBlock2D",) * depth,
        block_out_channels=config.channels,
        layers_per_block=1,
        latent_channels=config.latent_channels,
        norm_num_groups=8,
        sample_size=config.resolution,
        scaling_factor=1.0,
        mid_block_add_attention=False,
    )


def train_vae(data: TrainingSet, folder: Path, config: VaeConfig) -> AutoencoderKL:
    """Trains or resumes in `folder`; returns the averaged autoencoder with standardised latents."""
    vae = build_vae(config).to(memory_format=torch.channels_last)
    run = Run(folder, vae, config, ema_decay=0.995)

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        generator = step_generator(config.seed, step)
        pixels = _batch(data, config, step, generator)
        return vae_loss(vae, pixels, config.kl_weight, generator)

    def schedule(step: int) -> float:
        return trapezoid(step, warmup=100, total=config.steps, decay=config.steps // 3)

    run.fit(loss_of, schedule, save_every=250)
    vae.load_state_dict(run.weights())
    return standardise(vae.eval(), data)


def vae_loss(
    vae: AutoencoderKL, pixels: torch.Tensor, kl_weight: float, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """MSE + 0.1 L1 + kl_weight * KL per latent element, of pixels float32 [B, 3, px, px] in [-1,
    1]."""
    posterior = vae.encode(pixels).latent_dist
    noise = torch.randn(posterior.mean.shape, generator=generator)
    output = vae.decode(posterior.mean + posterior.std * noise).sample
    mse = (output - pixels).square().mean()
    kl = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
    loss = mse + 0.1 * (output - pixels).abs().mean() + kl_weight * kl
    return {"loss": loss, "mse": mse, "kl": kl}


def _batch(data: TrainingSet, config: VaeConfig, step: int, g: torch.Generator) -> torch.Tensor:
    whole = step >= config.steps - config.full_steps
    pixels = data.floats(batch_rows(len(data), config.batch_size, config.seed, step))
    if torch.rand((), generator=g) < 0.5:
        pixels = pixels.flip(-1)
    if not whole:
        span = config.resolution - config.crop + 1
        y, x = torch.randint(0, span, (2,), generator=g).tolist()
        pixels = pixels[:, :, y : y + config.crop, x : x + config.crop]
    return pixels.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def latents_of(vae: AutoencoderKL, data: TrainingSet, *, flip: bool = False) -> torch.Tensor:
    """Posterior means float32 [n, C, h, w] of all images, mirrored first if `flip`."""
    out = []
    for start in range(0, len(data), 128):
        pixels = data.floats(slice(start, start + 128))
        pixels = pixels.flip(-1) if flip else pixels
        out.append(vae.encode(pixels).latent_dist.mean)
    return torch.cat(out)


@torch.no_grad()
def standardise(vae: AutoencoderKL, data: TrainingSet) -> AutoencoderKL:
    """Folds each latent channel's mean and deviation into the 1x1 convolutions around it.

    Afterwards training latents have mean 0 and deviation 1 per channel and `scaling_factor` 1
    holds: a pipeline
    knows one scalar factor only, and no shift.
    """
    latents = latents_of(vae, data)
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    c = mean.numel()
    quant, post = vae.quant_conv, vae.post_quant_conv
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= std.view(1, c, 1, 1)
    quant.weight[:c] /= std.view(c, 1, 1, 1)
    quant.bias[:c] = (quant.bias[:c] - mean) / std
    quant.bias[c:] -= 2 * std.log()
    return vae


@torch.no_grad()
def reconstruction_mse(vae: AutoencoderKL, data: TrainingSet) -> float:
    """Mean squared error on [-1, 1] of decoding the posterior mean, over all images of `data`."""
    total = 0.0
    for start in range(0, len(data), 64):
        pixels = data.floats(slice(start, start + 64))
        output = vae.decode(vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
        total += (output - pixels).square().mean().item() * len(pixels)
    return total / len(data)
