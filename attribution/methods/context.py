"""What every method is built from: a model, an index and, where there is one, its CLIP."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from attribution.cells import TextStates
from attribution.denoiser import Denoiser
from attribution.fisher import EKFAC, Curvature, DiagonalFisher, Identity
from attribution.index import Index
from attribution.scoring import noise_floor
from attribution.shortlist import GRADIENT_ROWS, GradientQuery
from attribution.types import UserError
from attribution.weights import WEIGHT_SETS, parameter_names

GRADIENT_WEIGHTS = "kv"


@dataclass(eq=False)
class Context:
    """Shared by all methods of an engine; what is read or measured once is kept here."""

    denoiser: Denoiser
    index: Index
    clip: Any = None

    @cached_property
    def texts(self) -> TextStates:
        """Text states of training captions."""
        return TextStates(self.denoiser)

    @cached_property
    def diagonal(self) -> DiagonalFisher:
        """The index's diagonal Fisher."""
        return DiagonalFisher.from_state(self.index.curvature("diagonal"))

    @cached_property
    def ekfac(self) -> EKFAC:
        """The index's EK-FAC."""
        return EKFAC.from_state(self.index.curvature("ekfac"))

    def curvature(self, name: str) -> Curvature:
        """diagonal, ekfac, or none; UserError where the index lacks it."""
        if name == "none":
            return Identity()
        return self.ekfac if name == "ekfac" else self.diagonal

    @cached_property
    def noise_floor(self) -> float:
        """sd(fresh − cached) of 64 base losses on this machine."""
        index = self.index
        return noise_floor(self.denoiser, index, index.base_loss, index.timesteps, index.seed)

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
        if ids is None:
            return self.index.train_rows
        rows = np.array([self.index.row_of(name) for name in ids], dtype=np.int64)
        outside = np.setdiff1d(rows, self.index.train_rows)
        if len(outside):
            name = self.index.ids(outside[:1])[0]
            raise UserError(f"record {name!r} is held out: it trained nothing")
        return rows

    def lacks(self, need: str) -> str:
        """Why this index cannot serve a need, in a line; '' where it can.

        Needs: `clip`, `rows:<method>`, `curvature:<name>`, `weights:<weight set>`.
        """
        kind, _, name = need.partition(":")
        if kind == "clip":
            return "" if self.index.clip_path else "this index has no CLIP model"
        if kind == "rows":
            return "" if self.index.has_rows(name) else f"this index has no {name} rows"
        if kind == "curvature":
            there = name in _curvatures(self.index)
            return "" if there else f"this index has no {name} curvature"
        covered = self.index.manifest.get("curvature", {}).get("weights", GRADIENT_WEIGHTS)
        if WEIGHT_SETS.index(name) <= WEIGHT_SETS.index(covered):
            return ""
        return f"this index's Fisher covers only the {covered} weights"


def _curvatures(index: Index) -> tuple[str, ...]:
    from attribution import layout

    files = {"diagonal": layout.FISHER_DIAGONAL, "ekfac": layout.EKFAC}
    folder = index.path / layout.CURVATURE
    return tuple(name for name, file in files.items() if (folder / file).is_file())
