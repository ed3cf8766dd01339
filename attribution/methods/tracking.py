"""What an unlearning method tracks on every training record: its loss, or the model's output.

| code | score of a cell |
|---|---|
| `loss` | L(z, θ−ẑ) − L(z, θ0), Eq. 6, against the index's base losses (for "eps2": E's) |
| `shift` | E‖ε_θ−ẑ(x_t) − ε_θ0(x_t)‖², both sides computed here |

The second is a part of the first: L(z, θ−ẑ) − L(z, θ0) = 2E⟨ε_θ0 − target, Δε⟩ + E‖Δε‖². The first
part hangs on the residual, which for one noise draw is mostly that draw; what is left says how much
of the network that the picture was unlearned with the record uses, and ranks records much alike
at every timestep, flip and size of the step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from attribution.denoiser import Denoiser
from attribution.methods.context import Context
from attribution.unlearning import UnlearnConfig
from attribution.weights import parameter_names

Tracks = Literal["loss", "shift"]


@dataclass(frozen=True)
class Tracked:
    """denoiser: its `squared_error` is what is tracked. base: that at θ0, float32 [N, captions,
    flips, T], NaN where there is no caption. floor: its noise; cached: base is the index's own."""

    denoiser: Denoiser
    base: np.ndarray
    floor: float
    cached: bool


def tracked(context: Context, config: UnlearnConfig, tracks: Tracks) -> Tracked:
    """What a run of `config` tracks; call it while the model holds θ0."""
    if tracks == "loss":
        denoiser = context.denoiser.with_objective(config.objective)
        return Tracked(
            denoiser, context.base_loss(config.objective), context.floor(config.objective), True
        )
    moving = parameter_names(context.denoiser.unet, config.weight_set)
    nothing = np.where(np.isfinite(context.base_loss()), np.float32(0), np.float32(np.nan))
    return Tracked(context.denoiser.against_itself(set(moving)), nothing, 0.0, False)
