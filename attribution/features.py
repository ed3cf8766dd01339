"""Similarity features, the same for training records and queries: CLIP image, CLIP text, pixels.

Every feature is a unit vector, so that an inner product is a cosine.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attribution.types import UserError

PIXEL_SIDE = 16
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


def unit(features: Tensor) -> Tensor:
    """Rows scaled to length 1, [B, d] → [B, d]; a zero row stays zero."""
    return torch.nn.functional.normalize(features, dim=-1)


def pixel_features(images: Sequence[Image.Image]) -> Tensor:
    """The picture itself at 16 x 16, white at the origin (shared white paper is no likeness),
    float32 [B, 768].
    """
    small = [
        im.convert("RGB").resize((PIXEL_SIDE, PIXEL_SIDE), Image.Resampling.BOX) for im in images
    ]
    values = torch.from_numpy(np.stack([np.asarray(im, dtype=np.float32) for im in small]))
    return unit((1.0 - values / 255.0).flatten(1))


@dataclass(eq=False)
class ClipEncoder:
    """A CLIP model with its tokenizer; `side` and `crop` (None for no crop) are in pixels."""

    model: Any
    tokenizer: Any
    side: int
    crop: int | None
    mean: Tensor
    std: Tensor
    resample: int
    device: torch.device

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> ClipEncoder:
        """A folder with a CLIPModel and its CLIPTokenizer, float32; UserError when it cannot be
        opened.
        """
        from transformers import CLIPModel, CLIPTokenizer
        from transformers.utils import logging

        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()  # the library never prints
        try:
            model = CLIPModel.from_pretrained(path).float().eval().requires_grad_(False)
            tokenizer = CLIPTokenizer.from_pretrained(path)
        except (OSError, ValueError) as error:
            raise UserError(
                f"cannot open the CLIP model {path}: {str(error).splitlines()[0]}"
            ) from None
        finally:
            if shown:
                logging.enable_progress_bar()
        settings = _preprocessing(Path(path))
        seen = model.config.vision_config.image_size
        crop = _side(settings.get("crop_size"), seen)
        return cls(
            model=model.to(device),
            tokenizer=tokenizer,
            side=_side(settings.get("size"), seen),
            crop=crop if settings.get("do_center_crop", True) else None,
            mean=torch.tensor(settings.get("image_mean", _MEAN)).view(3, 1, 1),
            std=torch.tensor(settings.get("image_std", _STD)).view(3, 1, 1),
            resample=int(settings.get("resample", Image.Resampling.BICUBIC)),
            device=torch.device(device),
        )

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """Unit image features, float32 [B, d] on the CPU."""
        pixels = torch.stack([self._pixels(image) for image in images]).to(self.device)
        vision = self.model.vision_model(pixel_values=pixels).pooler_output
        return unit(self.model.visual_projection(vision).float().cpu())

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit text features, float32 [B, d] on the CPU."""
        length = min(
            self.tokenizer.model_max_length, self.model.config.text_config.max_position_embeddings
        )
        tokens = self.tokenizer(
            list(texts),
            padding="max_length",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        ).to(self.device)
        states = self.model.text_model(tokens.input_ids, attention_mask=tokens.attention_mask)
        return unit(self.model.text_projection(states.pooler_output).float().cpu())

    def _pixels(self, image: Image.Image) -> Tensor:
        """Sized as the model expects and normalised, [3, side, side].

        By hand: transformers' image processors round differently with and without torchvision.
        """
        image = image.convert("RGB")
        square = _padded(image) if self.crop is None else image
        sized = _cropped(_resized(square, self.side, self.resample), self.crop)
        values = torch.from_numpy(np.asarray(sized, dtype=np.float32) / 255.0).permute(2, 0, 1)
        return (values - self.mean) / self.std


def _padded(image: Image.Image) -> Image.Image:
    """Square on white, as the denoiser sees it: where nothing is cropped, nothing is squashed."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def _resized(image: Image.Image, side: int, resample: int) -> Image.Image:
    """The shorter side to `side` px, the longer one rounded down."""
    short = min(image.size)
    size = (image.width * side // short, image.height * side // short)
    return image if image.size == size else image.resize(size, Image.Resampling(resample))


def _cropped(image: Image.Image, side: int | None) -> Image.Image:
    """The centre, `side` px square; the whole image for None."""
    if side is None:
        return image
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _preprocessing(folder: Path) -> dict[str, Any]:
    """preprocessor_config.json, or `image_processor` of processor_config.json; empty without
    either.
    """
    for name, key in (
        ("preprocessor_config.json", None),
        ("processor_config.json", "image_processor"),
    ):
        if (folder / name).is_file():
            settings = json.loads((folder / name).read_text(encoding="utf-8"))
            return settings.get(key, {}) if key else settings
    return {}


def _side(size: Any, default: int) -> int:
    """224, {"shortest_edge": 224} or {"height": 224, "width": 224} as a number."""
    if isinstance(size, dict):
        return int(size.get("shortest_edge") or size.get("height") or default)
    return int(size or default)
