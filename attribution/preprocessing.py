"""How an image encoder wants its pictures: sized, cropped, normalised as its own settings say.

By hand: transformers' image processors round differently with and without torchvision.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

# Where an encoder's settings may lie, and under which key.
_FILES = (("preprocessor_config.json", None), ("processor_config.json", "image_processor"))


@dataclass(frozen=True, eq=False)
class Preprocessing:
    """size: (height, width) in pixels, or the shorter side alone, which keeps the shape.

    crop: (height, width) of the centre that is kept, None for all of it. pad: laid on a white
    square first, as the denoiser sees it, so that nothing is squashed. mean, std: of values in
    [0, 1], [3, 1, 1]. resample: PIL's number of a filter.
    """

    size: int | tuple[int, int]
    crop: tuple[int, int] | None
    pad: bool
    mean: Tensor
    std: Tensor
    resample: int

    @classmethod
    def of(cls, settings: Mapping[str, Any], side: int) -> Preprocessing:
        """From an image processor's settings; what they leave open is as for `side` px squares."""
        crops = bool(settings.get("do_center_crop"))
        crop = _size(settings.get("crop_size", side), square=True) if crops else None
        return cls(
            size=_size(settings.get("size", side), square=not crops),
            crop=(crop, crop) if isinstance(crop, int) else crop,
            pad=bool(settings.get("pad_to_square")),
            mean=torch.tensor(settings.get("image_mean", [0.5] * 3)).view(3, 1, 1),
            std=torch.tensor(settings.get("image_std", [0.5] * 3)).view(3, 1, 1),
            resample=int(settings.get("resample", Image.Resampling.BICUBIC)),
        )

    def __call__(self, images: Sequence[Image.Image]) -> Tensor:
        """Pictures of any size and mode as the encoder expects them, float32 [B, 3, h, w]."""
        return torch.stack([self._one(image.convert("RGB")) for image in images])

    def _one(self, image: Image.Image) -> Tensor:
        sized = _cropped(self._resized(_padded(image) if self.pad else image), self.crop)
        values = torch.from_numpy(np.asarray(sized, dtype=np.float32) / 255.0).permute(2, 0, 1)
        return (values - self.mean) / self.std

    def _resized(self, image: Image.Image) -> Image.Image:
        """To `size`; of a shorter side the longer one follows, rounded down."""
        if isinstance(self.size, int):
            short = min(image.size)
            size = (image.width * self.size // short, image.height * self.size // short)
        else:
            size = self.size[::-1]
        return image if image.size == size else image.resize(size, Image.Resampling(self.resample))


def read_settings(model: str | Path, revision: str | None = None) -> dict[str, Any]:
    """Settings of the image processor saved with a model, a folder or a hub id; empty without."""
    from transformers.utils import cached_file

    for name, key in _FILES:
        path = cached_file(
            model,
            name,
            revision=revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if path is not None:
            settings = json.loads(Path(path).read_text(encoding="utf-8"))
            return dict(settings.get(key, {}) if key else settings)
    return {}


def _size(size: Any, *, square: bool) -> int | tuple[int, int]:
    """{"shortest_edge": 256} → 256, {"height": 224, "width": 224} → (224, 224); a bare number is a
    square or, where the picture is cropped afterwards, the shorter side.
    """
    if not isinstance(size, Mapping):
        return (int(size), int(size)) if square else int(size)
    if "shortest_edge" in size:
        return int(size["shortest_edge"])
    return int(size["height"]), int(size["width"])


def _padded(image: Image.Image) -> Image.Image:
    side = max(image.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def _cropped(image: Image.Image, crop: tuple[int, int] | None) -> Image.Image:
    if crop is None:
        return image
    height, width = crop
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
