"""Between the autoencoder and the rest: the decoder alone, trained further on frozen latents."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import nn

from precompute.recipes.model.config import DecoderConfig
from precompute.recipes.model.data import TrainingSet, batch_rows, step_generator
from precompute.recipes.model.loop import Run, trapezoid
from precompute.recipes.model.vae import latents_of


def train_decoder(
    vae: AutoencoderKL, data: TrainingSet, folder: Path, config: DecoderConfig
) -> AutoencoderKL:
    """Trains or resumes the decoder in `folder`; the encoder, hence every latent, stays as it
    is."""
    latents = torch.stack([latents_of(vae, data), latents_of(vae, data, flip=True)])
    decoder = nn.Sequential(vae.post_quant_conv, vae.decoder).to(memory_format=torch.channels_last)
    run = Run(folder, decoder, config, ema_decay=0.995)

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        g = step_generator(config.seed, step)
        rows = batch_rows(len(data), config.batch_size, config.seed, step)
        mirror = torch.randint(0, 2, (len(rows),), generator=g)
        pixels = data.floats(rows)
        pixels = torch.where(mirror.view(-1, 1, 1, 1) == 1, pixels.flip(-1), pixels)
        z = latents[mirror, rows]
        z = z + config.latent_noise * torch.randn(z.shape, generator=g)
        output = decoder(z.contiguous(memory_format=torch.channels_last))
        mse = (output - pixels).square().mean()
        return {"loss": mse + 0.1 * (output - pixels).abs().mean(), "mse": mse}

    def schedule(step: int) -> float:
        return trapezoid(step, warmup=50, total=config.steps, decay=config.steps // 2)

    run.fit(loss_of, schedule, save_every=100)
    decoder.load_state_dict(run.weights())
    return vae.eval()
