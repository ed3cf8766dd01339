"""Every hyper-parameter of the embedded DINO and DINOv2.

Sizes are for ten minutes on four CPU cores and half-precision weights below 4 MB. Where the papers
train for hundreds of epochs on millions of pictures in batches of a thousand, here are 2,585
pictures and batches of some dozens: so a shorter memory of the teacher and fewer prototypes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DinoConfig:
    """ViTModel trained as in DINO (Caron et al., ICCV 2021), Algorithm 1 and Sec. 3."""

    resolution: int = 64  # px of the pictures
    # Crops smaller than the pictures halve the cost, and things in them are as large as there.
    global_side: int = 48  # px of the global crops
    local_side: int = 24  # px of the local crops
    local_crops: int = 4
    global_area: tuple[float, float] = (0.35, 1.0)  # of the picture
    local_area: tuple[float, float] = (0.08, 0.35)
    colour: float = 0.4  # how far colours are moved; 1 is as for photographs
    patch: int = 8  # px
    width: int = 128
    layers: int = 4
    heads: int = 4
    initial_range: float = 0.05  # deviation of initial weights: 0.02 as in ViT-B, for this width
    head_hidden: int = 256
    bottleneck: int = 64
    prototypes: int = 1024  # K
    student_temperature: float = 0.1  # τ_s
    teacher_temperature: float = 0.04  # τ_t
    centre_momentum: float = 0.9  # m of Eq. 4
    momentum: float = 0.985  # λ of the teacher, rising to 1 by a cosine
    batch_size: int = 48
    steps: int = 2600
    warmup_steps: int = 200
    freeze_steps: int = 50  # the prototypes stand still at first
    learning_rate: float = 1e-3  # falls to a hundredth of itself by a cosine
    weight_decay: float = 0.04
    seed: int = 0


@dataclass(frozen=True)
class DinoV2Config(DinoConfig):
    """Dinov2WithRegistersModel trained as in DINOv2 (Oquab et al., TMLR 2024), Sec. 4, with the
    registers of Darcet et al. (ICLR 2024).
    """

    registers: int = 4
    masked_images: float = 0.5  # share of global crops with masked patches
    masked_patches: tuple[float, float] = (0.1, 0.5)  # of such a crop
    patch_weight: float = 1.0  # of the iBOT loss
    koleo_weight: float = 0.1
    sinkhorn_rounds: int = 3
    prototypes: int = 512  # no more than some for each row: Sinkhorn shares the rows among them
    teacher_temperature: float = 0.02  # sharper: so few rows for so many prototypes blur
    local_crops: int = 2
    local_side: int = 32
    global_area: tuple[float, float] = (0.5, 1.0)
    local_area: tuple[float, float] = (0.25, 0.6)
    steps: int = 2300
    seed: int = 1


CONFIGS: dict[str, DinoConfig] = {"dino": DinoConfig(), "dinov2": DinoV2Config()}
