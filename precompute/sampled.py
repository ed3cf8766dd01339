"""Curvature from seeded samples of a finished index, resumable: what every kind of it shares.

Samples are (record, flip) pairs of training records, one keyed random (t, ε) draw each, the draws
of `python -m precompute fisher`; all pairs give the very same numbers.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from attribution import layout
from attribution.cells import FLIPS
from attribution.denoiser import Denoiser, Objective
from attribution.fisher import fisher_draw
from attribution.index import Index
from attribution.integrity import canonical_hash
from precompute.fisher import caption_drawn

SAMPLES = 2048

Cell = tuple[int, int]


def chosen(index: Index, samples: int) -> list[Cell]:
    """Seeded random (row, flip) pairs of training records, in file order; all if fewer."""
    cells = [(int(row), flip) for row in index.train_rows for flip in range(FLIPS)]
    order = np.random.default_rng(index.seed).permutation(len(cells))[:samples]
    return [cells[n] for n in sorted(order)]


@dataclass
class Sampled(ABC):
    """One curvature: of `weights`, by `objective`, over `cells`. at_once: samples of one forward
    where gradients come from hooks. part: samples between two sums that are kept on the disk, a
    multiple of that."""

    index: Index
    weights: str
    objective: Objective
    cells: Sequence[Cell]
    at_once: ClassVar[int] = 8
    part: ClassVar[int] = 128
    kind: ClassVar[str]

    @abstractmethod
    def make(self, denoiser: Denoiser) -> int:
        """Write the file; how many samples were computed now, the others being kept ones."""

    @property
    def step(self) -> str:
        """Its name in extras.json."""
        return layout.curvature_step(self.kind, self.weights, self.objective)

    @property
    def name(self) -> str:
        """Its file, relative to the index."""
        return layout.curvature_file(self.kind, self.weights, self.objective)

    @property
    def path(self) -> Path:
        """Its file."""
        return self.index.path / self.name

    @property
    def settings(self) -> dict[str, str | int]:
        """What its numbers depend on beside the index."""
        what = {"weights": self.weights, "objective": self.objective}
        return {**what, "samples": len(self.cells), "seed": self.index.seed}

    @property
    def command(self) -> str:
        """Arguments of `python -m precompute` that make it."""
        samples = f" --samples {len(self.cells)}" * (len(self.cells) != SAMPLES)
        what = f"--weights {self.weights} --objective {self.objective}"
        kind = f" --curvature {self.kind}" * (self.kind != "diagonal")
        return f"variants{kind} {what}{samples}"

    def done(self) -> bool:
        """Whether it is there, of this index and with these settings; opening checked its bytes."""
        if self.index.extra(self.step) != self.settings:
            return False
        return self.name in self.index.extras.steps[self.step]["files"]

    def batch(
        self, denoiser: Denoiser, cells: Sequence[Cell]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(latents, cond, noise, timesteps) of some (row, flip) pairs."""
        index, rows = self.index, [row for row, _ in cells]
        shape, steps, seed = denoiser.latent_shape, denoiser.n_train_timesteps, index.seed
        ids, captions = index.ids(rows), index.captions(rows)
        keys = [(name, flip) for name, (_, flip) in zip(ids, cells, strict=True)]
        draws = [fisher_draw(shape, steps, name, flip, seed) for name, flip in keys]
        texts = [
            own[caption_drawn(len(own), name, flip, seed)]
            for own, (name, flip) in zip(captions, keys, strict=True)
        ]
        return (
            torch.cat([index.latents([row], flip) for row, flip in cells]),
            denoiser.encode_text(texts),
            torch.stack([noise for noise, _ in draws]),
            torch.tensor([t for _, t in draws]),
        )

    # ------------------------------------------------------------------ sums on the disk

    @property
    def partial(self) -> Path:
        """Where the sums of an unfinished run are."""
        return self.path.with_name(f"{self.step}.partial")

    @property
    def _key(self) -> str:
        return canonical_hash({"index": self.index.index_hash, **self.settings})

    def kept(self, device: torch.device) -> tuple[int, int, dict[str, Tensor]]:
        """(pass, its samples, sums) of a killed run of the same settings; (1, 0, {}) for none."""
        if self.partial.is_file():
            with safe_open(self.partial, "pt") as file:
                about = file.metadata() or {}
            if about.get("key") == self._key:
                sums = load_file(self.partial, device=str(device))
                return int(about["pass"]), int(about["samples"]), sums
        return 1, 0, {}

    def keep(self, samples: int, sums: Mapping[str, Tensor], number: int = 1) -> None:
        """Keep the sums of so many samples of a pass."""
        about = {"key": self._key, "samples": str(samples), "pass": str(number)}
        save(self.partial, {name: total.cpu() for name, total in sums.items()}, about)

    def finish(self, state: Mapping[str, Tensor]) -> None:
        """Write the file; the kept sums go."""
        save(self.path, state)
        self.partial.unlink(missing_ok=True)


def save(path: Path, state: Mapping[str, Tensor], about: dict[str, str] | None = None) -> None:
    """Safetensors under its name only once it is complete and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    save_file({name: state[name].contiguous() for name in sorted(state)}, part, metadata=about)
    with part.open("r+b") as file:  # Windows syncs no file that is open for reading alone
        os.fsync(file.fileno())
    part.replace(path)
