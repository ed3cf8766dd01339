"""The training itself: keys, values and V* learn the exemplars.

| code | paper | meaning |
|---|---|---|
| `concept` | the target images | latents of the exemplars, each with a prompt that holds V* |
| `prior` | the regularisation images | other images of the class, with prompts without V* |
| loss | E ‖ε_θ(x_t, c, t) − ε‖² over both | the model's own target in the place of ε |

>>> token = add_token(denoiser, "<v1>", "card")
>>> with borrowed(denoiser, token):
...     tune(denoiser, token, Concept(latents, ("<v1> card",)), CustomiseConfig())
...     denoiser.generate("<v1> card", seed=1)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import Tensor

from attribution.denoiser import Denoiser
from attribution.noise import keyed_noise
from attribution.types import UserError
from attribution.weights import parameter_names
from precompute.recipes.customise.config import WEIGHTS, CustomiseConfig
from precompute.recipes.customise.token import Token, embeddings, learned_row, set_row
from precompute.recipes.model.data import batch_rows, step_generator
from precompute.recipes.model.loop import trapezoid

OnStep = Callable[[float], None]
MEASURED_AT = tuple(range(50, 1000, 100))  # of 1000 timesteps
_ENCODED = 8  # images at a time
_PRIOR_SEED = 104_729  # apart from the exemplars' draws


@dataclass(frozen=True)
class Concept:
    """n images to learn: latents float32 [n, 2, C, h, w] (as is, mirrored), a prompt for each."""

    latents: Tensor
    prompts: tuple[str, ...]

    @classmethod
    def of(
        cls, denoiser: Denoiser, images: Sequence[Image.Image], prompts: Sequence[str]
    ) -> Concept:
        """From images of any size, a few at a time."""
        sides = [images, [ImageOps.mirror(image.convert("RGB")) for image in images]]
        latents = torch.stack([_encoded(denoiser, side) for side in sides], dim=1)
        return cls(latents, tuple(prompts))

    def __len__(self) -> int:
        return len(self.prompts)


def _encoded(denoiser: Denoiser, images: Sequence[Image.Image]) -> Tensor:
    parts = [images[start : start + _ENCODED] for start in range(0, len(images), _ENCODED)]
    return torch.cat([denoiser.encode_images(part) for part in parts])


def tune(
    denoiser: Denoiser,
    token: Token,
    concept: Concept,
    config: CustomiseConfig,
    prior: Concept | None = None,
    on_step: OnStep | None = None,
) -> list[float]:
    """Train keys, values and V* in place; returns the loss of each step.

    Batches, mirrors, timesteps and noise are functions of (seed, step) only: the same call gives
    the same weights. `on_step(loss)` is called after each step. UserError for a prompt without V*.
    """
    check_prompts(denoiser, token, concept.prompts)
    losses = []
    with _learning(denoiser, token) as (weights, row):
        optimizer = _optimizer(denoiser, weights, row, config)
        for step in range(config.steps):
            losses.append(_step(denoiser, optimizer, concept, prior, config, step))
            if on_step is not None:
                on_step(losses[-1])
    return losses


def check_prompts(denoiser: Denoiser, token: Token, prompts: Sequence[str]) -> None:
    """UserError for a prompt that does not hold V*, or only where the text encoder cuts it off."""
    length = denoiser.text_encoder.config.max_position_embeddings
    for prompt in dict.fromkeys(prompts):
        if token.text not in prompt:
            raise UserError(f"the prompt {prompt!r} does not hold {token.text}")
        pieces = denoiser.tokenizer(prompt, truncation=True, max_length=length).input_ids
        if token.row not in pieces:
            raise UserError(f"the prompt {prompt!r} is too long: {token.text} is cut off")


def _step(
    denoiser: Denoiser,
    optimizer: torch.optim.Optimizer,
    concept: Concept,
    prior: Concept | None,
    config: CustomiseConfig,
    step: int,
) -> float:
    decay = max(1, round(config.decay * config.steps))
    factor = trapezoid(step, warmup=config.warmup, total=config.steps, decay=decay)
    for group in optimizer.param_groups:
        group["lr"] = group["rate"] * factor
    loss = _batch_loss(denoiser, concept, config, config.seed, step)
    whole = loss
    if prior is not None:
        kept = _batch_loss(denoiser, prior, config, config.seed + _PRIOR_SEED, step)
        whole = loss + config.prior_weight * kept
    whole.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def _batch_loss(
    denoiser: Denoiser, images: Concept, config: CustomiseConfig, seed: int, step: int
) -> Tensor:
    """Mean loss of the batch of `step`; its timesteps lie one in each of `batch_size` equal spans:
    uniform still, with less scatter."""
    g = step_generator(seed, step)
    size = config.batch_size
    rows = batch_rows(len(images), size, seed, step)
    mirror = torch.randint(0, 2, (size,), generator=g) * int(config.mirror)
    spans = torch.randperm(size, generator=g) + torch.rand(size, generator=g)
    timesteps = (spans / size * denoiser.n_train_timesteps).long()
    timesteps = timesteps.clamp(max=denoiser.n_train_timesteps - 1)
    noise = torch.randn((size, *denoiser.latent_shape), generator=g)
    cond = _conditions(denoiser, [images.prompts[int(row)] for row in rows])
    return denoiser.loss(images.latents[rows, mirror], cond, noise, timesteps).mean()


def _conditions(denoiser: Denoiser, prompts: Sequence[str]) -> Tensor:
    """Text states [B, L, d] with gradients; each different prompt is encoded once."""
    distinct = list(dict.fromkeys(prompts))
    states = denoiser.text_states(distinct)
    return states[[distinct.index(prompt) for prompt in prompts]]


@contextmanager
def _learning(denoiser: Denoiser, token: Token) -> Iterator[tuple[list[Any], Any]]:
    """Keys and values and V*'s row take gradients; everything is frozen again afterwards."""
    names = parameter_names(denoiser.unet, WEIGHTS)
    weights = [denoiser.unet.get_parameter(name).requires_grad_(True) for name in names]
    try:
        with learned_row(denoiser, token) as row:
            yield weights, row
    finally:
        for weight in weights:
            weight.requires_grad_(False)
            weight.grad = None


def _optimizer(
    denoiser: Denoiser, weights: list[Any], row: Any, config: CustomiseConfig
) -> torch.optim.Optimizer:
    width = weights[0].shape[1]
    table = embeddings(denoiser).weight.detach().square().mean().sqrt()
    groups = [
        {"params": weights, "rate": config.weight_rate / width},
        {"params": [row], "rate": config.token_rate * float(table)},
    ]
    return torch.optim.Adam(groups, lr=0.0, betas=(0.9, 0.99))


@contextmanager
def borrowed(denoiser: Denoiser, token: Token) -> Iterator[None]:
    """The model customised inside the block; on every way out the very bits of before."""
    names = parameter_names(denoiser.unet, WEIGHTS)
    weights = [denoiser.unet.get_parameter(name) for name in names]
    saved = [weight.detach().clone() for weight in weights]
    row = embeddings(denoiser).weight[token.row].detach().clone()
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, before in zip(weights, saved, strict=True):
                weight.copy_(before)
        set_row(denoiser, token, row)


@torch.no_grad()
def mean_loss(denoiser: Denoiser, concept: Concept, seed: int, batch_size: int = 8) -> float:
    """Loss of the exemplars, unmirrored, on fixed draws at ten timesteps: comparable before and
    after."""
    scale = denoiser.n_train_timesteps / 1000
    cells = [(i, int(t * scale)) for i in range(len(concept)) for t in MEASURED_AT]
    states = denoiser.encode_text(concept.prompts)
    total = 0.0
    for start in range(0, len(cells), batch_size):
        part = cells[start : start + batch_size]
        noise = [_evaluation_noise(denoiser, seed, i, t) for i, t in part]
        rows = torch.tensor([i for i, _ in part])
        timesteps = torch.tensor([t for _, t in part])
        losses = denoiser.loss(
            concept.latents[rows, 0], states[rows], torch.stack(noise), timesteps
        )
        total += float(losses.sum())
    return total / len(cells)


def _evaluation_noise(denoiser: Denoiser, seed: int, image: int, timestep: int) -> Tensor:
    return keyed_noise(
        denoiser.latent_shape,
        namespace="evaluation",
        seed=seed,
        record_id=f"customise|{image}",
        timestep=timestep,
    )
