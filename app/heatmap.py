"""Heat maps: where on a training picture the unlearned model got worse."""

from __future__ import annotations

import numpy as np
from PIL import Image

SIDE = 256
WORSE = (217, 72, 15)
BETTER = (25, 113, 194)
# Below this share of the strongest change nothing is painted, so that noise does not veil the
# picture.
QUIET = 0.15
STRONGEST = 0.85

ROWS = ("upper", "middle", "lower")
COLUMNS = ("left", "centre", "right")


def overlay(change: np.ndarray) -> Image.Image:
    """RGBA [256, 256]: orange where the error grew, blue where it shrank, clear where little
    changed.

    change: float32 [h, w], change of squared error per latent cell of the upright picture; shown
    relative to its own strongest cell.
    """
    cells = np.nan_to_num(change).astype(np.float32)
    strongest = float(np.abs(cells).max(initial=0.0)) or 1.0
    smooth = Image.fromarray(np.ascontiguousarray(cells / strongest), mode="F")
    share = np.clip(np.asarray(smooth.resize((SIDE, SIDE), Image.Resampling.BICUBIC)), -1.0, 1.0)
    strength = np.clip((np.abs(share) - QUIET) / (1.0 - QUIET), 0.0, 1.0)
    pixels = np.zeros((SIDE, SIDE, 4), dtype=np.uint8)
    pixels[..., :3] = np.where(share[..., None] > 0, WORSE, BETTER)
    pixels[..., 3] = np.rint(255 * STRONGEST * strength)
    return Image.fromarray(pixels, mode="RGBA")


def glow(heat: np.ndarray, chosen: Image.Image) -> Image.Image:
    """RGBA of at most 256 px: attention, growing with heat float32 [h, w] in 0..1, and white where
    the mask `chosen` says that nothing counts.
    """
    height, width = heat.shape
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    smooth = Image.fromarray(np.ascontiguousarray(heat.astype(np.float32)), mode="F")
    strength = np.clip(np.asarray(smooth.resize(size, Image.Resampling.BILINEAR)), 0.0, 1.0)
    inside = np.asarray(chosen.resize(size, Image.Resampling.BILINEAR)) >= 128
    pixels = np.full((size[1], size[0], 4), 255, dtype=np.uint8)
    pixels[inside, :3] = WORSE
    pixels[..., 3] = np.rint(255 * np.where(inside, 0.2 + 0.55 * strength, 0.6))
    return Image.fromarray(pixels, mode="RGBA")


def in_words(change: np.ndarray, noun: str = "worsening") -> str:
    """The ninth of the picture with most of the change, for whom colours say little; `noun` calls
    it by its name."""
    worse = np.clip(np.nan_to_num(change), 0.0, None)
    if worse.sum() <= 0:
        return f"The {noun} is nowhere in particular."
    bands = [np.array_split(row, 3, axis=1) for row in np.array_split(worse, 3, axis=0)]
    sums = np.array([[cell.sum() for cell in row] for row in bands])
    y, x = np.unravel_index(int(sums.argmax()), sums.shape)
    place = "centre" if y == x == 1 else f"{ROWS[y]} {COLUMNS[x]}"
    return f"Most in the {place}: {round(100 * sums[y, x] / worse.sum())} % of the {noun}."
