"""What every method is built from: a model, an index and, where there is one, its CLIP."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from attribution import kfac, layout
from attribution.cells import TextStates
from attribution.denoiser import Denoiser, Objective
from attribution.ekfac import EKFAC
from attribution.fisher import Curvature, DiagonalFisher, Identity
from attribution.index import Index
from attribution.methods import needs
from attribution.precision import Probe
from attribution.scoring import noise_floor
from attribution.shortlist import GRADIENT_ROWS, GradientQuery
from attribution.types import UserError
from attribution.weights import parameter_names

GRADIENT_WEIGHTS = "kv"


@dataclass(eq=False)
class Context:
    """Shared by all methods of an engine; what is read or measured once is kept here."""

    denoiser: Denoiser
    index: Index
    clip: Any = None
    probe: Probe | None = None  # the precision that scores are computed in; None: probed
    kept: dict[Any, Any] = field(default_factory=dict, repr=False)  # what methods share, by key
    _fishers: dict[Path, DiagonalFisher] = field(default_factory=dict, repr=False)
    _ekfacs: dict[Path, EKFAC] = field(default_factory=dict, repr=False)
    _floors: dict[Objective, float] = field(default_factory=dict, repr=False)

    @cached_property
    def texts(self) -> TextStates:
        """Text states of training captions."""
        return TextStates(self.denoiser)

    @property
    def diagonal(self) -> DiagonalFisher:
        """The index's own diagonal Fisher, of the loss."""
        return self._fisher(self.index.path / layout.CURVATURE / layout.FISHER_DIAGONAL)

    def curvature(
        self, name: str, weights: str = GRADIENT_WEIGHTS, objective: Objective = "loss"
    ) -> Curvature:
        """diagonal, ekfac, kfac, or none, covering a weight set (and maybe more), of an objective's
        gradient; UserError with the command that makes it where the index lacks it.
        """
        if name == "none":
            return Identity()
        if why := self.lacks(f"curvature:{name}:{weights}:{objective}"):
            raise UserError(why)
        path = needs.curvature_path(self.index, name, weights, objective)
        assert path is not None  # as `lacks` says
        return self._fisher(path) if name == "diagonal" else self._factored(path, name)

    def base_loss(self, objective: Objective = "loss") -> np.ndarray:
        """The index's L(z, θ0), or mean ‖ε_θ‖², per cell, float32 [N, captions, flips, T]."""
        found = self.index.base_loss if objective == "loss" else self.index.base_loss_eps2
        if found is None:
            raise UserError(self.lacks(f"base:{objective}"))
        return found

    def floor(self, objective: Objective = "loss") -> float:
        """sd(fresh − cached) of 64 of those cells on this machine."""
        if objective not in self._floors:
            index, denoiser = self.index, self.denoiser.with_objective(objective)
            base = self.base_loss(objective)
            self._floors[objective] = noise_floor(
                denoiser, index, base, index.timesteps, index.seed
            )
        return self._floors[objective]

    @property
    def noise_floor(self) -> float:
        """The floor of the base losses."""
        return self.floor()

    @cached_property
    def gradient_query(self) -> GradientQuery | None:
        """Queries of the gradient rows, None where the index has none."""
        if not self.index.has_rows(GRADIENT_ROWS):
            return None
        settings = self.index.manifest["gradients"]
        names = parameter_names(self.denoiser.unet, GRADIENT_WEIGHTS)
        metric = self.diagonal.subset(names).damped(settings["damping"])
        return GradientQuery(metric, settings["dim"], self.index.seed)

    def training_rows(self, ids: Any) -> np.ndarray:
        """Rows of the given records, or of all training records; UserError for a held-out one."""
        return self.index.train_rows if ids is None else self.index.training_rows(ids)

    def lacks(self, need: str) -> str:
        """Why this index cannot serve a need, and the command that mends it, in a line; '' where it
        can. The needs: attribution/methods/needs.py.
        """
        return needs.lacks(self.index, need)

    def _factored(self, path: Path, kind: str) -> EKFAC:
        from safetensors.torch import load_file

        if path not in self._ekfacs:
            read = kfac.opened if kind == "kfac" else EKFAC.from_state
            self._ekfacs[path] = read(load_file(path))
        return self._ekfacs[path]

    def _fisher(self, path: Path) -> DiagonalFisher:
        from safetensors.torch import load_file

        if path not in self._fishers:
            if not path.is_file():
                raise UserError(self.lacks("curvature:diagonal"))
            self._fishers[path] = DiagonalFisher.from_state(load_file(path))
        return self._fishers[path]
