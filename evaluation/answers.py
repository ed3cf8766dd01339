"""Unlearning and scoring outside the Engine, cell by cell, for verbs that need more than ranks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from attribution import defaults
from attribution.cells import TextStates
from attribution.denoiser import Denoiser
from attribution.fisher import EKFAC, Curvature, DiagonalFisher, Identity
from attribution.index import Index
from attribution.scoring import Scores, score_records
from attribution.types import UserError
from attribution.unlearning import UnlearnConfig, Unlearned, unlearn
from evaluation.world import World

# The methods compared here, by the names of the registry: how they differ from the default.
METHODS: dict[str, dict[str, Any]] = {
    "abu": {},
    "abu-ekfac": {"curvature": "ekfac"},
    "abu-sgd": {"curvature": "none"},
}


def config_of(method: str, **changes: Any) -> UnlearnConfig:
    """A method's configuration with the product's defaults."""
    if method not in METHODS:
        raise UserError(f"no method {method!r} here; one of {', '.join(METHODS)}")
    shared = {"relative_increase": defaults.RELATIVE_INCREASE, "draws": defaults.DRAWS}
    return UnlearnConfig(**{**shared, **METHODS[method], **changes})


@dataclass
class Answers:
    """One opened index and its model."""

    world: World
    _curvatures: dict[str, Curvature] = field(default_factory=dict)

    @cached_property
    def index(self) -> Index:
        """The index, checked."""
        return Index.open(self.world.root)

    @property
    def denoiser(self) -> Denoiser:
        """The world's model: the one the index was made with."""
        return self.world.denoiser

    @cached_property
    def texts(self) -> TextStates:
        """Text states of all captions, encoded once for all queries."""
        return TextStates(self.denoiser)

    def curvature(self, name: str) -> Curvature:
        """The index's curvature: diagonal, ekfac, or none; read once."""
        if name not in self._curvatures:
            kind = EKFAC if name == "ekfac" else DiagonalFisher
            none = name == "none"
            found = Identity() if none else kind.from_state(self.index.curvature(name))
            self._curvatures[name] = found
        return self._curvatures[name]

    def unlearn(self, latents: Tensor, prompt: str, config: UnlearnConfig) -> Unlearned:
        """Δθ of one picture, latents [1, C, h, w]."""
        cond = self.denoiser.encode_text([prompt])
        curvature = self.curvature(config.curvature)
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
            index.base_loss if base is None else base,
            rows,
            delta,
            index.timesteps,
            index.seed,
            columns=columns,
            texts=self.texts if denoiser is None else None,
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


def timestep_list(text: str) -> list[int]:
    """'150,450,750' as numbers, for argparse."""
    return [int(part) for part in text.split(",") if part.strip()]
