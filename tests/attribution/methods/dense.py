"""The gradient methods without projection, search or batches: dense float64, one sample a time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from attribution.denoiser import Denoiser
from attribution.gradients import query_gradient
from attribution.index import Index
from attribution.noise import keyed_noise, mirrored
from attribution.types import Query
from attribution.weights import parameter_names

Layers = dict[str, Tensor]


def row_gradients(denoiser: Denoiser, index: Index, timesteps: list[int]) -> Layers:
    """Mean gradient of every training record, image and flip in turn: name → [2N, numbers]."""
    names = parameter_names(denoiser.unet, "kv")
    made: dict[str, list[Tensor]] = {name: [] for name in names}
    for row in index.train_rows:
        for flip in (0, 1):
            one = [_one(denoiser, index, int(row), flip, i, t) for i, t in enumerate(timesteps)]
            for name in names:
                made[name].append(torch.stack([g[name] for g in one]).mean(0).flatten().double())
    return {name: torch.stack(rows) for name, rows in made.items()}


def _one(denoiser: Denoiser, index: Index, row: int, flip: int, i: int, t: int) -> Layers:
    """Autograd of one loss; the timesteps take turns with the captions."""
    record, captions = index.ids([row])[0], index.captions([row])[0]
    noise = keyed_noise(
        denoiser.latent_shape, namespace="train-gradient", seed=0, record_id=record, timestep=t
    )
    noise = mirrored(noise) if flip else noise
    cond = denoiser.encode_text([captions[i % len(captions)]])
    names = parameter_names(denoiser.unet, "kv")
    parameters = [denoiser.unet.get_parameter(name).requires_grad_(True) for name in names]
    loss = denoiser.loss(index.latents([row], flip), cond, noise[None], torch.tensor([t]))
    grads = torch.autograd.grad(loss.sum(), parameters)
    for parameter in parameters:
        parameter.requires_grad_(False)
    return dict(zip(names, grads, strict=True))


def query_layers(
    denoiser: Denoiser,
    query: Query,
    timesteps: list[int],
    draws: int,
    weights: Tensor | None = None,
) -> Layers:
    """The query's gradient: name → [1, numbers]."""
    names = parameter_names(denoiser.unet, "kv")
    latents, cond = denoiser.encode_images([query.image]), denoiser.encode_text([query.prompt])
    grads = query_gradient(denoiser, latents, cond, timesteps, draws, 0, names, weights)
    return {name: g.flatten()[None].double() for name, g in grads.items()}


def ridge_scores(rows: Layers, query: Layers, damping: float, dim: int) -> np.ndarray:
    """φ(ẑ)ᵀ (ΦᵀΦ + λI)⁻¹ φ(z) with λ = damping · tr(ΦᵀΦ)/dim, [N, flips].

    By Φ(ΦᵀΦ + λI)⁻¹ = (ΦΦᵀ + λI)⁻¹Φ, a small system; tests/attribution/test_solvers.py has the
    large one.
    """
    phi, q = _whole(rows), _whole(query)
    penalty = damping * phi.square().sum() / dim
    kernel = phi @ phi.T + penalty * torch.eye(len(phi), dtype=torch.float64)
    return torch.linalg.solve(kernel, phi @ q[0]).view(-1, 2).numpy()


def datainf_scores(rows: Layers, query: Layers, damping: float) -> np.ndarray:
    """Σ_l v_lᵀ [(1/n) Σ_i (g_il g_ilᵀ + λ_l I)⁻¹] g_kl, every inverse written out, [N, flips]."""
    scores = torch.zeros(len(next(iter(rows.values()))), dtype=torch.float64)
    for name, g in rows.items():
        size = g.shape[1]
        eye = torch.eye(size, dtype=torch.float64)
        penalty = damping * g.square().sum(1).mean() / size
        mean = sum(torch.linalg.inv(torch.outer(row, row) + penalty * eye) for row in g) / len(g)
        scores += g @ (mean @ query[name][0])
    return scores.view(-1, 2).numpy()


def _whole(layers: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([layers[name] for name in sorted(layers)], dim=1)
