"""Every source of candidates a shortlist can have: rows in the order it would offer them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image
from torch import Tensor

from attribution.shortlist import (
    CLIP_ROWS,
    GRADIENT_ROWS,
    clip_candidates,
    gradient_candidates,
    join,
)
from evaluation.answers import Answers

SOURCES = ("gradient", "clip", "join")


def orders(
    answers: Answers, image: Image.Image, delta: Mapping[str, Tensor], n: int
) -> dict[str, np.ndarray]:
    """source → the first `n` rows it offers for a picture and its Δθ, by the library's own code."""
    index, found = answers.index, {}
    if (gradients := answers.context.gradient_query) is not None:
        vector = gradients.vector(delta)
        found["gradient"] = gradient_candidates(index.search(GRADIENT_ROWS), vector, n)
    if answers.context.clip is not None and index.has_rows(CLIP_ROWS):
        feature = answers.context.clip.images([image])[0].numpy()
        found["clip"] = clip_candidates(index.search(CLIP_ROWS), feature, n)
    return {**found, "join": join(list(found.values()), n)}
