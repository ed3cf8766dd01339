"""A tuned head: an affine map on unit features, W f + b, scaled back to length 1.

Heads are saved as a folder with `head.safetensors` and `config.json`, which names the features they
were trained on: on features of another encoder they mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attribution.features import unit
from attribution.integrity import read_json
from attribution.types import UserError

CONFIG = "config.json"
WEIGHTS = "head.safetensors"


@dataclass(frozen=True, eq=False)
class Head:
    """weight W float32 [d, d], bias b float32 [d]; about: JSON values, how it was trained.

    about["features"] names the rows it belongs to, about["encoder_sha256"] their encoder.
    """

    weight: Tensor
    bias: Tensor
    about: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def identity(cls, dim: int) -> Head:
        """The head that leaves every ranking as it is."""
        return cls(torch.eye(dim), torch.zeros(dim))

    @classmethod
    def load(cls, folder: str | Path) -> Head:
        """A saved head; UserError where it cannot be read."""
        from safetensors.torch import load_file

        place = Path(folder)
        try:
            tensors = load_file(place / WEIGHTS)
            return cls(
                tensors["weight"].float(), tensors["bias"].float(), read_json(place / CONFIG)
            )
        except (OSError, KeyError) as error:
            raise UserError(f"cannot read the head {place}: {error}") from None

    def save(self, folder: str | Path) -> None:
        """Write the folder, making it if need be."""
        import json

        from safetensors.torch import save_file

        place = Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        tensors = {"weight": self.weight.contiguous(), "bias": self.bias.contiguous()}
        save_file(tensors, str(place / WEIGHTS))
        text = json.dumps(self.about, indent=1, ensure_ascii=False) + "\n"
        (place / CONFIG).write_text(text, encoding="utf-8")

    @property
    def dim(self) -> int:
        """Length of the features it takes."""
        return int(self.weight.shape[1])

    @torch.no_grad()
    def apply(self, features: Tensor) -> Tensor:
        """Unit features float32 [..., d] → unit features [..., d]."""
        return unit(features.float() @ self.weight.T + self.bias)
