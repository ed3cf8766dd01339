"""Every source of candidates a shortlist can have: rows in the order it would offer them."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import numpy as np
from PIL import Image
from torch import Tensor

from attribution.projection import Projection
from evaluation.answers import Answers

SOURCES = ("gradient", "clip", "join")


def orders(
    answers: Answers, image: Image.Image, delta: Mapping[str, Tensor], n: int
) -> dict[str, np.ndarray]:
    """source → the first `n` rows it offers for a picture and its Δθ."""
    index = answers.index
    gradient = index.search("gradients").nearest(gradient_query(answers, delta), n)[0]
    found = {"gradient": gradient}
    if index.has_rows("clip"):
        feature = answers.world.clip.images([image])[0].numpy()
        found["clip"] = index.search("clip").nearest(feature, n)[0]
        found["join"] = joined(found["gradient"], found["clip"])[:n]
    return found


def gradient_query(answers: Answers, delta: Mapping[str, Tensor]) -> np.ndarray:
    """Projected F^½ Δθ, whose inner product with a record's row is its first-order score, [d]."""
    settings = answers.index.manifest["gradients"]
    shapes = {name: tuple(tensor.shape) for name, tensor in delta.items()}
    projection = Projection(shapes, settings["dim"], answers.index.seed)
    metric = answers.curvature("diagonal").subset(list(delta)).damped(settings["damping"])
    lifted = metric.sqrt({name: tensor[None] for name, tensor in delta.items()})
    return projection.apply(lifted)[0].cpu().numpy()


def joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Rows of both in turn, each row once."""
    turns = chain.from_iterable(zip(first.tolist(), second.tolist(), strict=False))
    rest = [*first.tolist(), *second.tolist()]
    return np.array(list(dict.fromkeys([*turns, *rest])), dtype=np.int64)
