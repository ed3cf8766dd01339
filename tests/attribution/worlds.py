"""A tiny training set in memory for tests of unlearning and scoring, without files."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import ImageOps
from torch import Tensor

from attribution.cells import Grid, TextStates, batch_errors, batches
from attribution.denoiser import Denoiser
from attribution.fisher import DiagonalFisher, fisher_draw
from attribution.gradients import per_sample_gradients
from attribution.types import Progress
from attribution.weights import parameter_names
from tests.tiny import tiny_captions, tiny_images

TIMESTEPS = (150, 450, 750)
# Settings of a picture that the tiny model draws quickly.
FAST = {"steps": 3, "guidance": 2.0}


@dataclass(frozen=True)
class World:
    """Records with latents [N, 2, C, h, w] and one or two captions each."""

    denoiser: Denoiser
    stored: Tensor
    texts: list[list[str]]

    @classmethod
    def make(cls, denoiser: Denoiser, n: int = 12) -> World:
        images = tiny_images(n)
        flips = [denoiser.encode_images(images)]
        flips.append(denoiser.encode_images([ImageOps.mirror(image) for image in images]))
        captions = tiny_captions(n)
        texts = [[c, f"{c} x"] if i % 3 == 0 else [c] for i, c in enumerate(captions)]
        return cls(denoiser, torch.stack(flips, dim=1), texts)

    def __len__(self) -> int:
        return len(self.texts)

    def latents(self, rows, flip=0):
        return self.stored[torch.as_tensor(np.asarray(rows)), flip]

    def captions(self, rows):
        return [self.texts[int(row)] for row in rows]

    def ids(self, rows):
        return [f"record/{int(row)}" for row in rows]

    def grid(self, columns=(0, 1, 2)) -> Grid:
        return Grid(2, 2, TIMESTEPS, tuple(columns), seed=0)

    def losses(self, batch_size: int = 7) -> np.ndarray:
        """Losses of every cell at the weights as they are, [N, captions, flips, T]."""
        dtype = np.float64 if self.denoiser.dtype == torch.float64 else np.float32
        made = np.full((len(self), 2, 2, len(TIMESTEPS)), np.nan, dtype=dtype)
        texts, rows = TextStates(self.denoiser), np.arange(len(self))
        for batch, _ in batches(self.denoiser, self, rows, self.grid(), texts, batch_size):
            errors = batch_errors(self.denoiser, batch)
            made[tuple(batch.where)] = errors.mean(dim=(1, 2)).numpy()
        return made

    def fisher(self, weight_set: str = "kv") -> DiagonalFisher:
        """Diagonal Fisher over every record and flip, one keyed draw each."""
        names = parameter_names(self.denoiser.unet, weight_set)
        fisher = DiagonalFisher()
        for flip in (0, 1):
            rows = range(len(self))
            draws = [
                fisher_draw(self.denoiser.latent_shape, 1000, self.ids([r])[0], flip, 0)
                for r in rows
            ]
            fisher.accumulate(
                per_sample_gradients(
                    self.denoiser,
                    self.latents(rows, flip),
                    self.denoiser.encode_text([c[0] for c in self.captions(rows)]),
                    torch.stack([noise for noise, _ in draws]),
                    torch.tensor([t for _, t in draws]),
                    names,
                )
            )
        return fisher


def finished(job):
    """What a job of the engine ends with; all before it is Progress."""
    *progress, result = job
    assert all(isinstance(item, Progress) for item in progress)
    return result
