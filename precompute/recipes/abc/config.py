"""Every hyper-parameter of AbC, checked where it is made."""

from __future__ import annotations

from dataclasses import dataclass, field

from attribution.types import UserError
from precompute.recipes.customise.config import CustomiseConfig

TOKEN = "<v1>"
FEATURES = ("clip", "dino")
# as many images as by default in fewer, larger and longer steps: half the time on a CPU
QUICK = {"steps": 100, "batch_size": 8, "weight_rate": 0.15, "token_rate": 0.15}


@dataclass(frozen=True)
class PairsConfig:
    """Which models are customised and what they draw.

    objects: models of one drawing each; styles: models of `group` drawings of one artist each.
    per_artist: at most so many objects of one artist (and half as many styles). validation: share
    of the models, by artist, that trains no head. samples: pictures of each customised model;
    untuned: of them, how many are drawn by the model as it was too, to compare. sampling_steps: of
    DDIM. On four AVX2 cores a model costs about 15 s: 9 to customise, 5 to draw.
    """

    objects: int = 64
    styles: int = 24
    group: int = 4
    per_artist: int = 4
    validation: float = 0.3
    samples: int = 16
    untuned: int = 4
    sampling_steps: int = 25
    seed: int = 0
    customise: CustomiseConfig = field(default_factory=lambda: CustomiseConfig(**QUICK))

    def __post_init__(self) -> None:
        if self.objects < 0 or self.styles < 0 or self.objects + self.styles < 4:
            raise UserError("AbC needs at least 4 customised models")
        if min(self.group, self.per_artist, self.samples, self.sampling_steps) < 1:
            raise UserError("group, per artist, samples and sampling steps are at least 1")
        if not 0 <= self.untuned <= self.samples:
            raise UserError("untuned is a number from 0 to that of the samples")
        if not 0 < self.validation < 1:
            raise UserError("validation is a share between 0 and 1")


@dataclass(frozen=True)
class HeadConfig:
    """How a head is trained.

    temperature: of the softmax over cosines. bank: other training records drawn anew each step as
    negatives. penalties: weights of ‖W − I‖² + ‖b‖² (a mean over rows) to choose from by
    cross-validation over artists; with the first, infinite, the head stays the identity.
    """

    temperature: float = 0.07
    steps: int = 200
    learning_rate: float = 2e-3
    bank: int = 256
    penalties: tuple[float, ...] = (float("inf"), 3.0, 1.0, 0.3, 0.1, 0.03)
    folds: int = 3
    seed: int = 0
