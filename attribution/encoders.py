"""EDGE: image encoders beside CLIP: DINO and DINOv2, read by their class token.

>>> encoder = ClassTokenEncoder.load("facebook/dino-vitb16")       # or a folder
>>> encoder.images([picture])                                      # unit vectors, [1, 768]
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from attribution.features import unit
from attribution.index import Index
from attribution.preprocessing import Preprocessing, read_settings
from attribution.quiet import quiet_loading
from attribution.types import UserError

# model_type of config.json → its class in transformers, and arguments of its own
_CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "vit": ("ViTModel", {"add_pooling_layer": False}),  # the pooler is no part of DINO
    "dinov2": ("Dinov2Model", {}),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", {}),
}


@dataclass(eq=False)
class ClassTokenEncoder:
    """A vision transformer; a picture's feature is its class token after the last norm."""

    model: Any
    preprocessing: Preprocessing
    device: torch.device

    @classmethod
    def load(
        cls,
        model: str | Path,
        device: str | torch.device = "cpu",
        revision: str | None = None,
    ) -> ClassTokenEncoder:
        """A folder or hub id, float32. UserError when it cannot be opened, is no such encoder, or
        lacks weights.
        """
        try:
            with quiet_loading():
                network = _opened(model, revision)
                settings = read_settings(model, revision)
        except (OSError, ValueError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"cannot open the encoder {model}: {reason}") from None
        return cls(
            model=network.float().eval().requires_grad_(False).to(device),
            preprocessing=Preprocessing.of(settings, network.config.image_size),
            device=torch.device(device),
        )

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image]) -> Tensor:
        """Unit features, float32 [B, d] on the CPU."""
        pixels = self.preprocessing(images).to(self.device)
        return unit(self.model(pixel_values=pixels).last_hidden_state[:, 0].float().cpu())


def encoder_of(index: Index, name: str, device: str | torch.device) -> ClassTokenEncoder:
    """An extra encoder of an index, opened on first use, then kept; UserError without one."""
    where = index.encoder(name)
    if where is None:
        command = f"python -m precompute features --out {index.path} --encoder {name}"
        raise UserError(f"this index has no {name} encoder: run `{command}`")
    entry = index.extras.encoders[name]
    return _kept(str(where), entry.get("revision"), str(device), entry["sha256"])


@lru_cache(maxsize=4)
def _kept(model: str, revision: str | None, device: str, sha256: str) -> ClassTokenEncoder:
    """sha256: of the weights, so that an encoder put in the place of another is opened anew."""
    return ClassTokenEncoder.load(model, device, revision)


def _opened(model: str | Path, revision: str | None) -> Any:
    """The network of config.json's class, with every weight it has."""
    import transformers
    from transformers.utils import cached_file

    config = cached_file(model, "config.json", revision=revision)
    kind = json.loads(Path(config).read_text(encoding="utf-8")).get("model_type")
    if kind not in _CLASSES:
        raise ValueError(f"it is of type {kind!r}; known are {', '.join(_CLASSES)}")
    name, arguments = _CLASSES[kind]
    network, found = getattr(transformers, name).from_pretrained(
        model, revision=revision, output_loading_info=True, **arguments
    )
    if missing := sorted(found["missing_keys"]):
        raise ValueError(f"its weights lack {missing[0]} and {len(missing) - 1} more")
    return network
