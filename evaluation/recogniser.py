"""A small convolutional classifier of categories, trained on the real training drawings and on
nothing else.

It shares no weights with the embedded models, so that it can judge what they draw.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

CATEGORIES = ("flag", "playing card", "sign", "arrow", "star", "led", "fruit", "mammal")


@dataclass(frozen=True)
class Training:
    """Optimiser steps, batch size (each category equally likely), peak learning rate (cosine to 0),
    seed.
    """

    steps: int = 700
    batch_size: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    smoothing: float = 0.1
    seed: int = 0


class Recogniser(nn.Module):
    """Images [B, 3, px, px] in [-1, 1] → logits [B, len(CATEGORIES)]."""

    def __init__(self, n_classes: int = len(CATEGORIES)) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _block(3, 16, stride=2),
            _block(16, 32),
            nn.MaxPool2d(2),
            _block(32, 64),
            nn.MaxPool2d(2),
            _block(64, 96),
            _block(96, 96),
        )
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(2 * 96, n_classes))

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(images)
        return self.head(torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1))


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def to_tensor(images: np.ndarray) -> Tensor:
    """uint8 [B, px, px, 3] → float32 [B, 3, px, px] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


def augment(images: Tensor, g: torch.Generator) -> Tensor:
    """Mirror, zoom, shift, turn, contrast, tint, and a blur as of an autoencoder; white outside;
    [B, 3, px, px].
    """
    n = len(images)
    angle = 0.3 * (torch.rand(n, generator=g) - 0.5)
    zoom = 0.8 + 0.45 * torch.rand(n, generator=g)
    mirror = torch.where(torch.rand(n, generator=g) < 0.5, -1.0, 1.0)
    theta = torch.zeros(n, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = zoom * mirror * angle.cos(), -zoom * angle.sin()
    theta[:, 1, 0], theta[:, 1, 1] = zoom * mirror * angle.sin(), zoom * angle.cos()
    theta[:, :, 2] = 0.3 * (torch.rand(n, 2, generator=g) - 0.5)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    images = F.grid_sample(images - 1, grid, align_corners=False) + 1
    contrast = 0.75 + 0.25 * torch.rand(n, 1, 1, 1, generator=g)
    tint = 0.2 * (torch.rand(n, 3, 1, 1, generator=g) - 0.5)
    images = 1 - (1 - images) * contrast + tint
    blurred = F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    share = torch.rand(n, 1, 1, 1, generator=g)
    return images + share * (blurred - images) + 0.03 * torch.randn(images.shape, generator=g)


def train(
    images: np.ndarray,
    labels: np.ndarray,
    settings: Training,
    on_step: Callable[[int, float], None] | None = None,
) -> Recogniser:
    """Fit on images uint8 [n, px, px, 3] with labels int [n]; every category is equally likely in a
    batch.

    The same arguments give the same weights on one machine and thread count.
    """
    g = torch.Generator().manual_seed(settings.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = Recogniser(int(labels.max()) + 1).train()
        x, y = to_tensor(images), torch.from_numpy(labels)
        weights = 1.0 / torch.bincount(y).double()[y]
        optimiser = torch.optim.AdamW(
            model.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, settings.learning_rate, total_steps=settings.steps
        )
        for step in range(settings.steps):
            rows = torch.multinomial(weights, settings.batch_size, replacement=True, generator=g)
            logits = model(augment(x[rows], g))
            loss = F.cross_entropy(logits, y[rows], label_smoothing=settings.smoothing)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            if on_step is not None:
                on_step(step + 1, float(loss.detach()))
    return model.eval()


@torch.no_grad()
def predict(model: Recogniser, images: np.ndarray) -> np.ndarray:
    """Class numbers of uint8 images [n, px, px, 3], int64 [n]."""
    parts = [model(part).argmax(1) for part in to_tensor(images).split(128)]
    return torch.cat(parts).numpy() if parts else np.zeros(0, dtype=np.int64)


def save(model: Recogniser, path: Path, data: str, settings: Training) -> None:
    """Weights with the hash of the data and the settings they come from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    note = {"data": data, "settings": json.dumps(asdict(settings), sort_keys=True)}
    part = path.with_name(path.name + ".part")
    save_file({name: t.contiguous() for name, t in model.state_dict().items()}, part, metadata=note)
    part.replace(path)


def load(path: Path, data: str, settings: Training) -> Recogniser | None:
    """The saved classifier, or None when there is none of this data and these settings."""
    if not path.is_file():
        return None
    with safe_open(path, "pt") as file:
        note = file.metadata() or {}
        if note.get("data") != data or json.loads(note["settings"]) != asdict(settings):
            return None
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    model = Recogniser(len(state["head.1.bias"]))
    model.load_state_dict(state)
    return model.eval()
