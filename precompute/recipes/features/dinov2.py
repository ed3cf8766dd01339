"""DINOv2 (Oquab et al., Learning Robust Visual Features without Supervision, TMLR 2024, Sec. 4)
with registers (Darcet et al., ICLR 2024).

1. DINO's loss between views, the teacher's scores by Sinkhorn–Knopp in the place of the centre
2. iBOT's: of half of the global crops some patches are hidden from the student, which has to say
   what the teacher sees there; a head of its own
3. KoLeo: class tokens of a batch spread out
"""

from __future__ import annotations

import torch
from transformers import Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from precompute.recipes.features.config import DinoV2Config
from precompute.recipes.features.crops import masks, views
from precompute.recipes.features.distil import (
    Distillation,
    Head,
    tokens_of,
)
from precompute.recipes.features.losses import (
    cross_views,
    health,
    koleo,
    masked_patches,
    sinkhorn,
)


def build(config: DinoV2Config) -> Dinov2WithRegistersModel:
    """An untrained Dinov2WithRegistersModel."""
    return Dinov2WithRegistersModel(
        Dinov2WithRegistersConfig(
            hidden_size=config.width,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            mlp_ratio=4,
            image_size=config.resolution,
            patch_size=config.patch,
            initializer_range=config.initial_range,
            num_register_tokens=config.registers,
        )
    )


class DinoV2(Distillation):
    """Student and teacher with a head for pictures and one for patches."""

    config: DinoV2Config

    def __init__(self, config: DinoV2Config) -> None:
        parts = {"backbone": build(config), "head": Head(config), "patches": Head(config)}
        super().__init__(parts, config)

    def losses(self, pixels: torch.Tensor, g: torch.Generator) -> dict[str, torch.Tensor]:
        """{"loss", "dino", "ibot", "koleo", …} of a batch in [-1, 1], [B, 3, px, px]."""
        config, n = self.config, len(pixels)
        large, small = views(pixels, config, g)
        large = large.flatten(0, 1)
        side = config.global_side // config.patch
        hidden = masks(len(large), side, config.masked_images, config.masked_patches, g)
        target, patch_target, teacher_classes = self._teach(large, hidden)
        states = tokens_of(self.student["backbone"], large, bool_masked_pos=hidden)
        classes = [states[:, 0]]
        if len(small):
            classes.append(tokens_of(self.student["backbone"], small.flatten(0, 1))[:, 0])
        student = self.student["head"](torch.cat(classes)).unflatten(0, (-1, n))
        dino = cross_views(target.unflatten(0, (2, n)), student, config.student_temperature)
        ibot = masked_patches(
            patch_target,
            self.student["patches"](self._patches(states)[hidden]),
            config.student_temperature,
            _weights(hidden),
        )
        spread = 0.5 * sum(koleo(view) for view in classes[0].split(n))
        loss = dino + config.patch_weight * ibot + config.koleo_weight * spread
        parts = {"loss": loss, "dino": dino, "ibot": ibot, "koleo": spread}
        return {**parts, **health(target, teacher_classes)}

    @torch.no_grad()
    def _teach(
        self, large: torch.Tensor, hidden: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(probabilities of the views [2B, K], of the hidden patches [M, K], class tokens)."""
        config = self.config
        states = tokens_of(self.teacher["backbone"], large)
        views_ = self.teacher["head"](states[:, 0])
        patches = self.teacher["patches"](self._patches(states)[hidden])
        target, seen = (
            sinkhorn(scores, config.teacher_temperature, config.sinkhorn_rounds)
            for scores in (views_, patches)
        )
        return target, seen, states[:, 0]

    def _patches(self, states: torch.Tensor) -> torch.Tensor:
        """The patch tokens of last states, [B, patches, width]."""
        return states[:, 1 + self.config.registers :]


def _weights(hidden: torch.Tensor) -> torch.Tensor:
    """1 / (hidden patches of the picture · pictures with any) for each hidden patch, float32 [M];
    hidden: bool [B, patches].
    """
    counts = hidden.sum(1)
    share = 1.0 / (counts.clamp_min(1) * (counts > 0).sum().clamp_min(1))
    return share[:, None].expand(hidden.shape)[hidden]
