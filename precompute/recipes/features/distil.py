"""A student, its teacher, and what they have in common in DINO and DINOv2."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from precompute.recipes.features.config import DinoConfig


class BatchNorm(nn.Module):
    """Each number of [B, d] scaled by its mean and deviation in the batch, nothing kept from batch
    to batch, so that student and teacher do the same.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(x, None, None, training=True) if len(x) > 1 else x


class Head(nn.Module):
    """Tokens [B, width] → cosines with the prototypes, [B, K]: an MLP, then unit vectors.

    With batch norm, which the papers leave out in large batches: tokens of an untrained transformer
    differ in a few directions only, and without it few prototypes are ever used.
    """

    def __init__(self, config: DinoConfig) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(config.width, config.head_hidden),
            BatchNorm(),
            nn.GELU(),
            nn.Linear(config.head_hidden, config.head_hidden),
            BatchNorm(),
            nn.GELU(),
            nn.Linear(config.head_hidden, config.bottleneck),
        )
        for layer in self.mlp:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.prototypes = nn.Parameter(torch.randn(config.prototypes, config.bottleneck))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        z = F.normalize(self.mlp(tokens), dim=-1)
        return z @ F.normalize(self.prototypes, dim=-1).T


class Distillation(nn.Module):
    """`student` learns; `teacher`, a copy of it, follows slowly and gets no gradient.

    Both are ModuleDicts of the backbone and its heads. Buffers belong to the teacher's scores.
    """

    def __init__(self, parts: dict[str, nn.Module], config: DinoConfig) -> None:
        super().__init__()
        self.config = config
        self.student = nn.ModuleDict(parts)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)

    def begin(self, step: int) -> None:
        """What precedes the losses of `step`: the teacher follows the student of the last step, and
        the prototypes stand still for the first steps.
        """
        if step > 0:
            self.follow(momentum(self.config, step - 1))
        for name, part in self.student.items():
            if name != "backbone":
                part.prototypes.requires_grad_(step >= self.config.freeze_steps)

    @torch.no_grad()
    def follow(self, factor: float) -> None:
        """θ_t ← λ θ_t + (1 − λ) θ_s."""
        for slow, fast in self._pairs():
            slow.lerp_(fast, 1.0 - factor)

    def _pairs(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        return zip(self.teacher.parameters(), self.student.parameters(), strict=True)


def momentum(config: DinoConfig, step: int) -> float:
    """λ from config.momentum to 1 by a cosine."""
    return 1.0 - (1.0 - config.momentum) * _cosine(step, config.steps)


def learning_rate(config: DinoConfig, step: int) -> float:
    """Factor of config.learning_rate: linear warm-up, then a cosine to 0.01."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    left = _cosine(step - config.warmup_steps, config.steps - config.warmup_steps)
    return 0.01 + 0.99 * left


def _cosine(step: int, steps: int) -> float:
    """1 at step 0, 0 at `steps`."""
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / max(1, steps))))


@torch.no_grad()
def centre_tokens(backbone: nn.Module, pictures: Iterable[torch.Tensor]) -> None:
    """Folds the mean class token of `pictures` (batches [B, 3, px, px]) into the last norm's bias:
    what all drawings have in common would be most of every cosine.
    """
    classes = torch.cat([tokens_of(backbone, batch)[:, 0] for batch in pictures])
    backbone.layernorm.bias -= classes.mean(0)


def tokens_of(backbone: nn.Module, pixels: torch.Tensor, **more: Any) -> torch.Tensor:
    """Last states [B, tokens, width] of pictures [B, 3, h, w] of any size, the class token
    first.
    """
    return backbone(pixel_values=pixels, **more).last_hidden_state
