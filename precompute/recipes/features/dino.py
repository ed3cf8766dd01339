"""DINO (Caron et al., Emerging Properties in Self-Supervised Vision Transformers, ICCV 2021).

1. two global and some local crops of each picture
2. the teacher sees the global ones: p_t = softmax((g_t − c) / τ_t), without gradient
3. the student sees all: p_s = softmax(g_s / τ_s); loss: the mean of −p_t log p_s over pairs of
   different views
4. c ← m c + (1 − m) mean g_t (Eq. 4); the teacher follows the student
"""

from __future__ import annotations

import torch
from transformers import ViTConfig, ViTModel

from precompute.recipes.features.config import DinoConfig
from precompute.recipes.features.crops import views
from precompute.recipes.features.distil import Distillation, Head, tokens_of
from precompute.recipes.features.losses import centred, cross_views, health


def build(config: DinoConfig) -> ViTModel:
    """An untrained ViTModel without a pooler."""
    vit = ViTConfig(
        hidden_size=config.width,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=4 * config.width,
        image_size=config.resolution,
        patch_size=config.patch,
        initializer_range=config.initial_range,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return ViTModel(vit, add_pooling_layer=False)


class Dino(Distillation):
    """Student, teacher and centre."""

    centre: torch.Tensor

    def __init__(self, config: DinoConfig) -> None:
        super().__init__({"backbone": build(config), "head": Head(config)}, config)
        self.register_buffer("centre", torch.zeros(config.prototypes))

    def losses(self, pixels: torch.Tensor, g: torch.Generator) -> dict[str, torch.Tensor]:
        """{"loss", …} of a batch in [-1, 1], [B, 3, px, px]; moves the centre."""
        large, small = views(pixels, self.config, g)
        with torch.no_grad():
            states = self._classes("teacher", large)
            scores = self.teacher["head"](states)
            target = centred(scores, self.centre, self.config.teacher_temperature)
            self.centre.lerp_(scores.mean(0), 1.0 - self.config.centre_momentum)
        classes = [self._classes("student", view) for view in (large, small) if len(view)]
        student = self.student["head"](torch.cat(classes)).unflatten(0, (-1, len(pixels)))
        loss = cross_views(target.unflatten(0, (2, -1)), student, self.config.student_temperature)
        return {"loss": loss, **health(target, states)}

    def _classes(self, side: str, crops: torch.Tensor) -> torch.Tensor:
        """Class tokens [V * B, width] of crops [V, B, 3, px, px]."""
        backbone = getattr(self, side)["backbone"]
        return tokens_of(backbone, crops.flatten(0, 1), interpolate_pos_encoding=True)[:, 0]
