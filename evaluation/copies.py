"""When one picture copies another: close in pixels and close in CLIP, with thresholds fitted to
known copies.

Pixel distance is relative to what is drawn, ‖a − b‖ / max(‖1 − a‖, ‖1 − b‖) with white paper as
origin and the mirror image tried too: 0 for the same picture, about 1 for unrelated ones, however
thin their lines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from attribution.features import ClipEncoder

KEPT = 0.95  # share of known copies that each threshold lets through


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
    """n pictures as ink (1 − pixel on [0, 1]) float32 [n, px, px, 3] and unit CLIP features of
    image and mirror [2, n, d].
    """

    ink: np.ndarray
    clip: np.ndarray

    @classmethod
    def of(cls, images: np.ndarray, clip: ClipEncoder) -> Pictures:
        """From uint8 [n, px, px, 3]."""
        features = [clip_features(side, clip) for side in (images, images[:, :, ::-1])]
        return cls(1.0 - images.astype(np.float32) / 255.0, np.stack(features))


def clip_features(images: np.ndarray, clip: ClipEncoder, batch: int = 64) -> np.ndarray:
    """Unit CLIP image features of uint8 [n, px, px, 3], float32 [n, d]."""
    parts = [images[start : start + batch] for start in range(0, len(images), batch)]
    found = [
        clip.images([Image.fromarray(np.ascontiguousarray(p)) for p in part]) for part in parts
    ]
    return torch.cat(found).numpy()


def compare(a: Pictures, b: Pictures) -> tuple[np.ndarray, np.ndarray]:
    """(distances, cosines) float32 [len(a), len(b)], each the better of b and mirrored b."""
    flat, size_a = _flat(a.ink), _sizes(a.ink)
    best = np.full((len(a.ink), len(b.ink)), np.inf, dtype=np.float32)
    cosines = np.full_like(best, -1.0)
    larger = np.maximum(size_a[:, None], _sizes(b.ink)[None])
    for side, ink in enumerate((b.ink, b.ink[:, :, ::-1])):
        other = _flat(ink)
        square = (flat**2).sum(1)[:, None] + (other**2).sum(1)[None] - 2.0 * flat @ other.T
        best = np.minimum(best, np.sqrt(np.maximum(square, 0.0)) / np.maximum(larger, 1e-6))
        cosines = np.maximum(cosines, a.clip[0] @ b.clip[side].T)
    return best, cosines


def paired(a: Pictures, b: Pictures) -> tuple[np.ndarray, np.ndarray]:
    """(distances, cosines) float32 [n] of a_i and b_i, unmirrored: known copies lie as their
    originals do.
    """
    difference = np.sqrt(((a.ink - b.ink) ** 2).sum((1, 2, 3)))
    larger = np.maximum(np.maximum(_sizes(a.ink), _sizes(b.ink)), 1e-6)
    return difference / larger, (a.clip[0] * b.clip[0]).sum(1)


def fit(distances: np.ndarray, cosines: np.ndarray) -> Thresholds:
    """Thresholds that each let 95 % of known copies through."""
    return Thresholds(float(np.quantile(distances, KEPT)), float(np.quantile(cosines, 1.0 - KEPT)))


def _flat(ink: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(ink).reshape(len(ink), -1)


def _sizes(ink: np.ndarray) -> np.ndarray:
    return np.sqrt((ink**2).sum((1, 2, 3)))
