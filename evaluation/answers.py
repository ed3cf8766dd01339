"""Unlearning and scoring outside the Engine, cell by cell, for verbs that need more than ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from attribution.denoiser import Denoiser
from attribution.index import Index
from attribution.methods.registry import METHODS, Context, why_not
from attribution.methods.tracking import Tracked, tracked
from attribution.methods.unlearning import UnlearningAttributor, changed
from attribution.scoring import Scores, score_records
from attribution.types import UserError
from attribution.unlearning import UnlearnConfig, Unlearned, unlearn
from evaluation.world import World

UNLEARNING = tuple(name for name, m in METHODS.items() if m.kind == "unlearning")


@dataclass
class Answers:
    """One opened index and its model."""

    world: World

    @cached_property
    def index(self) -> Index:
        """The index, checked."""
        return Index.open(self.world.root)

    @property
    def denoiser(self) -> Denoiser:
        """The world's model: the one the index was made with."""
        return self.world.denoiser

    @cached_property
    def context(self) -> Context:
        """What the registry builds methods from; text states and curvature are read once."""
        clip = self.world.clip if self.index.clip_path else None
        return Context(self.denoiser, self.index, clip)

    def config(self, method: str, **changes: Any) -> UnlearnConfig:
        """A method's configuration as the product has it, with `changes`; UserError if not."""
        return changed(self._attributor(method).config, changes)

    def tracked(self, method: str) -> Tracked:
        """What a method compares on the training records."""
        return tracked(self.context, self.config(method), self._attributor(method).tracks)

    def _attributor(self, method: str) -> UnlearningAttributor:
        if method not in UNLEARNING:
            raise UserError(f"no method {method!r} here; one of {', '.join(UNLEARNING)}")
        if why := why_not(METHODS[method], self.context):
            raise UserError(f"method {method}: {why}")
        return METHODS[method].build(self.context)

    def unlearn(self, latents: Tensor, prompt: str, config: UnlearnConfig) -> Unlearned:
        """Δθ of one picture, latents [1, C, h, w]."""
        cond = self.denoiser.encode_text([prompt])
        curvature = self.context.curvature(config.curvature, config.weight_set, config.objective)
        return last(unlearn(self.denoiser, latents, cond, curvature, config), Unlearned)

    def latents(self, image: Image.Image) -> Tensor:
        """A picture's latents [1, C, h, w], as of a query."""
        return self.denoiser.encode_images([image])

    def score(
        self,
        rows: Sequence[int] | np.ndarray,
        delta: Mapping[str, Tensor],
        columns: Sequence[int] | None = None,
        denoiser: Denoiser | None = None,
        base: np.ndarray | None = None,
    ) -> Scores:
        """Cells of `rows` at some columns of the index's timesteps, all by default.

        `denoiser` and `base` take the place of the world's and of the index's base losses.
        """
        index = self.index
        steps = score_records(
            denoiser or self.denoiser,
            index,
            self.context.base_loss() if base is None else base,
            rows,
            delta,
            index.timesteps,
            index.seed,
            columns=columns,
            texts=self.context.texts if denoiser is None else None,
        )
        return last(steps, Scores)

    def columns(self, timesteps: Sequence[int] | None) -> list[int]:
        """Positions of `timesteps` in the index's grid, all where None; UserError for another."""
        grid = list(self.index.timesteps)
        if timesteps is None:
            return list(range(len(grid)))
        other = [t for t in timesteps if t not in grid]
        if other:
            raise UserError(f"the index has losses at timesteps {grid}, not at {other}")
        return [grid.index(t) for t in timesteps]


def last(steps: Iterable[Any], kind: type) -> Any:
    """The item of `kind` that a job ends with."""
    found = None
    for item in steps:
        if isinstance(item, kind):
            found = item
    if found is None:
        raise UserError("the job ended without an answer")
    return found
