"""What regions may not change, measured on a method's own scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageOps

from attribution import validate
from attribution.regions import Latent, mirrored, pixel_mask, query_weights
from attribution.types import Query, Region
from evaluation.objects.pooled import Ranker
from evaluation.objects.tables import TOP
from evaluation.objects.two_objects import Case


def halves_of(image: Image.Image) -> tuple[Region, ...]:
    """Two boxes that together are the whole picture."""
    width, height = map(float, image.size)
    middle = width // 2
    return Region((0.0, 0.0, middle, height)), Region((middle, 0.0, width, height))


def as_mask(query: Query) -> Query:
    """The same pixels as a free form in the place of boxes."""
    size = query.image.size
    return replace(query, regions=(validate.mask(pixel_mask(query.regions, size), size),))


def flipped(query: Query) -> Query:
    """The mirrored picture with the mirrored regions."""
    regions = tuple(mirrored(region, query.image.width) for region in query.regions)
    return replace(query, image=ImageOps.mirror(query.image), regions=regions)


def differences(ranker: Ranker, name: str, case: Case, ids: Sequence[str]) -> dict[str, float]:
    """The greatest difference of any record's score, between

    everything: the whole picture and two boxes that cover it;
    union: both objects' boxes and the mask of the same pixels.
    """
    whole = case.query("whole")
    boxes = replace(whole, regions=(*case.query("a").regions, *case.query("b").regions))
    pairs = {
        "everything": (whole, replace(whole, regions=halves_of(whole.image))),
        "union": (boxes, as_mask(boxes)),
    }
    return {what: _greatest(ranker, name, pair, ids) for what, pair in pairs.items()}


def _greatest(ranker: Ranker, name: str, pair: tuple[Query, Query], ids: Sequence[str]) -> float:
    found = [ranker.ranked(name, query, ids, TOP, compared=True) for query in pair]
    one, other = (dict(zip(f.ids, f.scores.tolist(), strict=True)) for f in found)
    return max(abs(one[record] - other[record]) for record in ids)


def flip_difference(latent: Latent, case: Case) -> float:
    """The greatest difference of any latent cell's weight, between the mirrored mask and the mask
    of the mirrored picture, over the boxes of both objects and their free form.
    """
    worst = 0.0
    boxes = case.query("a")
    for query in (boxes, case.query("b"), as_mask(boxes)):
        there, here = query_weights(latent, flipped(query)), query_weights(latent, query)
        assert there is not None and here is not None
        worst = max(worst, float(np.abs((there.flip(-1) - here).numpy()).max()))
    return worst
