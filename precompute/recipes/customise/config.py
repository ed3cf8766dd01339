"""Every hyper-parameter of customising, checked where it is made."""

from __future__ import annotations

from dataclasses import dataclass

from attribution.types import UserError

WEIGHTS = "kv"  # the weight set that moves, as in unlearning


@dataclass(frozen=True)
class CustomiseConfig:
    """How V* is learned.

    Adam's step is `weight_rate` divided by the width of the text states for keys and values, and
    `token_rate` times the root mean square of the embedding table for V*, so that one default fits
    small models and large ones; both rise over `warmup` steps and fall linearly over the last
    `decay` share of them. prior_weight: weight of the prior-preservation loss, where there are
    such images. mirror: exemplars are mirrored half of the time, as the training images of such
    models are.
    """

    steps: int = 200
    batch_size: int = 4
    weight_rate: float = 0.1
    token_rate: float = 0.1
    warmup: int = 5
    decay: float = 0.5
    prior_weight: float = 1.0
    mirror: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name.replace('_', ' ')} has to be at least 1")
        for name in ("weight_rate", "token_rate", "prior_weight"):
            if not 0 <= getattr(self, name) < 1e3:
                raise UserError(f"{name.replace('_', ' ')} has to be a number from 0")
