"""Similarity features, the same for training records and queries: CLIP image, CLIP text, pixels.

Every feature is a unit vector, so that an inner product is a cosine. DINO's: encoders.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from attribution.preprocessing import Preprocessing, read_settings
from attribution.quiet import quiet_loading
from attribution.types import UserError

PIXEL_SIDE = 16
# What openai's CLIPs were trained with; a model's own settings come first.
_CLIP_DEFAULTS = {
    "do_center_crop": True,
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
}


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


def upright_and_mirrored(
    encode: Callable[[Sequence[Image.Image]], Tensor], images: Sequence[Image.Image]
) -> Tensor:
    """Features of each image and of its mirror image, [B, 2, d]."""
    both = [side for image in images for side in (image, ImageOps.mirror(image))]
    return encode(both).view(len(images), 2, -1)


@dataclass(eq=False)
class ClipEncoder:
    """A CLIP model with its tokenizer and what it does to a picture first."""

    model: Any
    tokenizer: Any
    preprocessing: Preprocessing
    device: torch.device

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str | torch.device = "cpu",
        revision: str | None = None,
    ) -> ClipEncoder:
        """A CLIPModel and its CLIPTokenizer from a folder or hub id, float32; UserError when it
        cannot be opened.
        """
        try:
            with quiet_loading():
                from transformers import CLIPModel, CLIPTokenizer

                model = CLIPModel.from_pretrained(path, revision=revision)
                tokenizer = CLIPTokenizer.from_pretrained(path, revision=revision)
                settings = _CLIP_DEFAULTS | read_settings(path, revision)
        except (OSError, ValueError) as error:
            raise UserError(
                f"cannot open the CLIP model {path}: {str(error).splitlines()[0]}"
            ) from None
        side = model.config.vision_config.image_size
        return cls(
            model=model.float().eval().requires_grad_(False).to(device),
            tokenizer=tokenizer,
            preprocessing=Preprocessing.of(_whole(settings), side),
            device=torch.device(device),
        )

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """Unit image features, float32 [B, d] on the CPU."""
        pixels = self.preprocessing(images).to(self.device)
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


def _whole(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Where nothing is cropped, nothing is squashed either: the picture lies on a white square."""
    return {**settings, "pad_to_square": not settings["do_center_crop"]}
