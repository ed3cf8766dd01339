"""What a model trained without some records makes of a picture (paper, Sec. 3).

| code | paper | meaning |
|---|---|---|
| `losses` | L(ẑ, θ) | mean over timesteps 2, 7, ..., 997 (stride 5), one noise draw each |
| | ΔL(ẑ) | losses of the retrained model less those of the model that drew ẑ |
| `draw` | G_θ(ε, c) | the picture from the same noise and prompt |

Noise is keyed by the picture's name, of the namespace "evaluation": every model sees the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from attribution.cells import batch_size_for, timestep_grid
from attribution.denoiser import Denoiser
from attribution.noise import keyed_noise

STRIDE = 5
NAMESPACE = "evaluation"


@dataclass(frozen=True)
class Picture:
    """A picture to be measured: a stable name, its prompt and its latents [C, h, w]."""

    name: str
    prompt: str
    latents: Tensor


@torch.inference_mode()
def losses(
    denoiser: Denoiser, pictures: Sequence[Picture], stride: int = STRIDE, seed: int = 0
) -> np.ndarray:
    """L(ẑ, θ) of each picture, float64 [n]."""
    grid = timestep_grid(denoiser.n_train_timesteps, stride)
    found = np.empty(len(pictures))
    for number, picture in enumerate(pictures):
        cond = denoiser.encode_text([picture.prompt])
        noise = torch.stack([_noise(denoiser, picture.name, t, seed) for t in grid])
        steps = torch.tensor(grid)
        total = 0.0
        for part in torch.arange(len(grid)).split(batch_size_for(denoiser)):
            z = picture.latents.expand(len(part), -1, -1, -1)
            c = cond.expand(len(part), -1, -1)
            total += float(denoiser.loss(z, c, noise[part], steps[part]).double().sum())
        found[number] = total / len(grid)
    return found


def _noise(denoiser: Denoiser, name: str, timestep: int, seed: int) -> Tensor:
    return keyed_noise(
        denoiser.latent_shape,
        namespace=NAMESPACE,
        seed=seed,
        record_id=f"picture|{name}",
        timestep=timestep,
    )


def draw(
    denoiser: Denoiser,
    pairs: Sequence[tuple[str, int]],
    steps: int,
    guidance: float,
    batch_size: int = 16,
) -> np.ndarray:
    """Pictures of (prompt, seed) pairs, uint8 [n, px, px, 3]."""
    images = []
    for start in range(0, len(pairs), batch_size):
        prompts, seeds = zip(*pairs[start : start + batch_size], strict=True)
        images += denoiser.generate_batch(prompts, seeds, steps=steps, guidance=guidance)
    return np.stack([np.asarray(image) for image in images])


def squared_errors(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Mean squared error on [0, 1] of uint8 pictures [n, px, px, 3], float64 [n]."""
    return (((a.astype(np.float64) - b.astype(np.float64)) / 255.0) ** 2).mean((1, 2, 3))
