"""When one picture copies another: close in pixels and close in CLIP, with thresholds fitted to
known copies.

Pixel distance is relative to what is drawn, ‖a − b‖ / max(‖a‖, ‖b‖) of the ink (white paper is the
origin) at half resolution: 0 for the same picture, about 1 for unrelated ones, however thin their
lines. The mirror image and shifts by a pixel are tried too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from PIL import Image

from attribution.features import ClipEncoder

KEPT = 0.95  # share of known copies that each threshold lets through
SHIFTS = tuple(product((0, -1, 1), repeat=2))


@dataclass(frozen=True)
class Thresholds:
    """Greatest relative pixel distance and smallest CLIP cosine of a copy."""

    distance: float
    cosine: float

    def are_copies(self, distances: np.ndarray, cosines: np.ndarray) -> np.ndarray:
        """Both conditions, element by element."""
        return (distances <= self.distance) & (cosines >= self.cosine)


@dataclass(frozen=True)
class Pictures:
    """n pictures as ink (1 − pixel on [0, 1]) float32 [n, px, px, 3], and unit CLIP features of
    image and mirror [2, n, d].
    """

    ink: np.ndarray
    clip: np.ndarray

    @classmethod
    def of(cls, images: np.ndarray, clip: ClipEncoder) -> Pictures:
        """From uint8 [n, px, px, 3]."""
        features = [clip_features(side, clip) for side in (images, images[:, :, ::-1])]
        return cls(1.0 - images.astype(np.float32) / 255.0, np.stack(features))

    def shifted(self) -> Iterator[np.ndarray]:
        """Half-resolution ink of the pictures as they are, then moved by a pixel, [n, e] each."""
        return (_half(moved(self.ink, dy, dx)) for dy, dx in SHIFTS)


def clip_features(images: np.ndarray, clip: ClipEncoder, batch: int = 64) -> np.ndarray:
    """Unit CLIP image features of uint8 [n, px, px, 3], float32 [n, d]."""
    parts = [images[start : start + batch] for start in range(0, len(images), batch)]
    found = [
        clip.images([Image.fromarray(np.ascontiguousarray(p)) for p in part]) for part in parts
    ]
    return torch.cat(found).numpy()


def compare(a: Pictures, b: Pictures) -> tuple[np.ndarray, np.ndarray]:
    """(distances, cosines) float32 [len(a), len(b)], each the better of b and mirrored b."""
    best = np.full((len(a.ink), len(b.ink)), np.inf, dtype=np.float32)
    sides = _half(b.ink), _half(b.ink[:, :, ::-1])
    for flat in a.shifted():
        for other in sides:
            square_a, square_b = (flat**2).sum(1)[:, None], (other**2).sum(1)[None]
            square = square_a + square_b - 2.0 * flat @ other.T
            larger = np.maximum(np.maximum(square_a, square_b), 1e-9)
            best = np.minimum(best, np.maximum(square, 0.0) / larger)
    cosines = np.maximum(a.clip[0] @ b.clip[0].T, a.clip[0] @ b.clip[1].T)
    return np.sqrt(best), cosines


def paired(a: Pictures, b: Pictures) -> tuple[np.ndarray, np.ndarray]:
    """(distances, cosines) float32 [n] of a_i and b_i, not mirrored: known copies never are."""
    other = _half(b.ink)
    size = (other**2).sum(1)
    squares = [
        ((flat - other) ** 2).sum(1) / np.maximum(np.maximum((flat**2).sum(1), size), 1e-9)
        for flat in a.shifted()
    ]
    return np.sqrt(np.min(squares, axis=0)), (a.clip[0] * b.clip[0]).sum(1)


def fit(distances: np.ndarray, cosines: np.ndarray) -> Thresholds:
    """Thresholds that each let 95 % of known copies through."""
    return Thresholds(float(np.quantile(distances, KEPT)), float(np.quantile(cosines, 1.0 - KEPT)))


def moved(ink: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """Pictures [n, h, w, 3] moved by a pixel at most, edges repeated."""
    high, wide = ink.shape[1:3]
    padded = np.pad(ink, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    return padded[:, 1 + dy : 1 + dy + high, 1 + dx : 1 + dx + wide]


def _half(ink: np.ndarray) -> np.ndarray:
    """Mean of each 2 x 2 pixels, flat: [n, h, w, 3] → [n, h·w·3/4]."""
    n, high, wide, colours = ink.shape
    return ink.reshape(n, high // 2, 2, wide // 2, 2, colours).mean((2, 4)).reshape(n, -1)
