"""Multi-crop views of a batch (SwAV, DINO): a pure function of (pixels, generator)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from precompute.recipes.features.config import DinoConfig

ASPECT = (3 / 4, 4 / 3)  # width over height of a crop
COLOUR = 0.8  # share of views whose colours are moved
GREY, BLUR = 0.2, 0.3  # shares of views without colours, and softened
_LUMINANCE = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)


def views(
    pixels: torch.Tensor, config: DinoConfig, g: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """(global crops [2, B, 3, g, g], local crops [n, B, 3, l, l]) of pixels in [-1, 1]."""

    def view(area: tuple[float, float], side: int) -> torch.Tensor:
        return recoloured(crop(pixels, area, side, g), config.colour, g)

    large = [view(config.global_area, config.global_side) for _ in range(2)]
    small = [view(config.local_area, config.local_side) for _ in range(config.local_crops)]
    empty = pixels.new_zeros(0, len(pixels), 3, config.local_side, config.local_side)
    return torch.stack(large), torch.stack(small) if small else empty


def crop(
    pixels: torch.Tensor, area: tuple[float, float], side: int, g: torch.Generator
) -> torch.Tensor:
    """A random part of each picture [B, 3, h, w], of `area` (a share) and some other shape, sized
    to [B, 3, side, side], maybe mirrored.
    """
    theta = placements(len(pixels), area, g)
    grid = F.affine_grid(theta, [len(pixels), 3, side, side], align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)


def placements(n: int, area: tuple[float, float], g: torch.Generator) -> torch.Tensor:
    """Affine maps [n, 2, 3] of crops that lie within the picture, in its coordinates -1 … 1."""
    share = area[0] + (area[1] - area[0]) * torch.rand(n, generator=g)
    low, high = math.log(ASPECT[0]), math.log(ASPECT[1])
    aspect = torch.exp(low + (high - low) * torch.rand(n, generator=g))
    width, height = (share * aspect).sqrt().clamp(max=1), (share / aspect).sqrt().clamp(max=1)
    centre = 2 * torch.rand(n, 2, generator=g) - 1
    mirror = torch.where(torch.rand(n, generator=g) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = width * mirror, height
    theta[:, 0, 2], theta[:, 1, 2] = centre[:, 0] * (1 - width), centre[:, 1] * (1 - height)
    return theta


def recoloured(pixels: torch.Tensor, strength: float, g: torch.Generator) -> torch.Tensor:
    """Most pictures in other colours: contrast, brightness, saturation and hue moved, some made
    grey or blurred; [B, 3, h, w] in [-1, 1]. Strength 1 is about what the papers do to photographs.

    Without it the views of a picture are told by their colours alone, and no shape is learned.
    """
    n = len(pixels)
    moved = strength * (_random(n, g) < COLOUR).float()
    changed = 1 - (1 - pixels) * (1 + moved * _between(n, -0.4, 0.4, g))  # white paper stays white
    changed = changed + moved * _between(n, -0.3, 0.3, g)
    turned = torch.einsum("bij,bjhw->bihw", _turn(moved * _between(n, -0.2, 0.2, g)), changed)
    grey = (turned * _LUMINANCE).sum(1, keepdim=True)
    bleached = _random(n, g) < GREY * strength
    saturation = torch.where(bleached, 0.0, 1 + moved * _between(n, -0.4, 0.4, g))
    changed = (grey + (turned - grey) * saturation).clamp(-1, 1)
    soft = F.avg_pool2d(changed, 3, stride=1, padding=1, count_include_pad=False)
    return torch.lerp(changed, soft, _random(n, g) * (_random(n, g) < BLUR * strength))


def _turn(turns: torch.Tensor) -> torch.Tensor:
    """Matrices [B, 3, 3] that turn RGB about the grey axis by `turns` [B, 1, 1, 1] of a circle."""
    angle = 2 * math.pi * turns.view(-1, 1, 1)
    axis = torch.full((3, 3), 1 / 3)
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    return angle.cos() * (torch.eye(3) - axis) + axis + angle.sin() * cross


def _random(n: int, g: torch.Generator) -> torch.Tensor:
    return torch.rand(n, 1, 1, 1, generator=g)


def _between(n: int, low: float, high: float, g: torch.Generator) -> torch.Tensor:
    return low + (high - low) * _random(n, g)


def masks(
    n: int, side: int, config_share: float, patches: tuple[float, float], g: torch.Generator
) -> torch.Tensor:
    """Which patches are hidden from the student (iBOT), bool [n, side * side].

    A share of the pictures gets masked, each by a random share of its patches, in rectangles.
    """
    hidden = torch.zeros(n, side, side, dtype=torch.bool)
    for picture in hidden:
        if torch.rand((), generator=g) >= config_share:
            continue
        wanted = patches[0] + (patches[1] - patches[0]) * float(torch.rand((), generator=g))
        target = max(1, round(wanted * side * side))
        while (left := target - int(picture.sum())) > 0:
            _hide(picture, left, g)
    return hidden.flatten(1)


def _hide(picture: torch.Tensor, left: int, g: torch.Generator) -> None:
    """Hide a random rectangle of at most `left` patches."""
    side = len(picture)
    height = 1 + int(torch.randint(min(side, left), (), generator=g))
    width = 1 + int(torch.randint(min(side, left // height), (), generator=g))
    top = int(torch.randint(side - height + 1, (), generator=g))
    start = int(torch.randint(side - width + 1, (), generator=g))
    picture[top : top + height, start : start + width] = True
