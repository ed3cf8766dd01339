"""Regions of a picture, in its pixels → latent-cell weights, crops, masks to look at (Fig. 4).

| code | meaning |
|---|---|
| `placement` | where a picture of any size lies on the white square the model sees |
| `Plane` | the union of regions: constant values between edges, so that areas are exact |
| weights | w [h, w], each latent cell's share of area inside the union; L_R = Σ w·e / Σ w |
| `text` | what conditions the query: its prompt, or the words that the regions go by |

Areas are computed in float64 and are exact for whole pixels: a region given as boxes and the same
region given as a mask have the same weights bit for bit, and so have a flip and its flipped mask.
The white around a picture that is not square belongs to no region.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image, ImageChops, ImageOps
from torch import Tensor

from attribution.types import Query, Region

FULL = 255
Box = tuple[float, float, float, float]


class Latent(Protocol):
    """What has latents of one shape (C, h, w); a Denoiser, which itself places pictures by
    `placement`.
    """

    @property
    def latent_shape(self) -> tuple[int, int, int]: ...


def placement(size: tuple[int, int]) -> tuple[int, int, int]:
    """(side, left, top) in pixels of an image of `size` (width, height) on the model's square."""
    width, height = size
    side = max(width, height)
    return side, (side - width) // 2, (side - height) // 2


def query_weights(denoiser: Latent, query: Query) -> Tensor | None:
    """Latent-cell weights [h, w] of the query's regions; None for the whole picture."""
    _, height, width = denoiser.latent_shape
    return latent_weights(query.regions, query.image.size, (height, width))


def latent_weights(
    regions: Sequence[Region], size: tuple[int, int], cells: tuple[int, int]
) -> Tensor | None:
    """Each cell's share of area inside the union, float32 [h, w] in 0..1, some of it above 0.

    size: (width, height) of the picture in pixels; cells: (h, w) of the latents. None, the whole
    picture, without regions and for regions that leave no pixel out.
    """
    plane = union(regions, size)
    if plane is None:
        return None
    side, left, top = placement(size)
    across = _overlaps(plane.x + left, side, cells[1])
    down = _overlaps(plane.y + top, side, cells[0])
    cell = (side / cells[0]) * (side / cells[1])
    return torch.from_numpy((plane.area(down, across) / cell).astype(np.float32))


@dataclass(frozen=True)
class Plane:
    """values, uint8 [rows, columns], 255 inside, between the edges x [columns + 1], y [rows + 1] in
    pixels.
    """

    x: np.ndarray
    y: np.ndarray
    values: np.ndarray

    def area(self, down: np.ndarray, across: np.ndarray) -> np.ndarray:
        """Covered square pixels [h, w] from lengths down [h, rows] and across [w, columns]."""
        covered: np.ndarray = down @ (self.values @ across.T) / FULL
        return covered


def union(regions: Sequence[Region], size: tuple[int, int]) -> Plane | None:
    """The union of the regions of a picture of `size` (width, height), the larger value where a
    mask and a box overlap; None where it is the whole picture.
    """
    if not regions:
        return None
    boxes = [region.box for region in regions if region.mask is None]
    masks = [np.asarray(region.mask) for region in regions if region.mask is not None]
    x = _edges([v for box in boxes for v in box[::2]], size[0], every_pixel=bool(masks))
    y = _edges([v for box in boxes for v in box[1::2]], size[1], every_pixel=bool(masks))
    values = np.zeros((len(y) - 1, len(x) - 1), dtype=np.uint8)
    for mask in masks:
        inside = mask[np.ix_(y[:-1].astype(np.int64), x[:-1].astype(np.int64))]
        np.maximum(values, inside, out=values)
    for x0, y0, x1, y1 in boxes:
        rows, columns = np.searchsorted(y, (y0, y1)), np.searchsorted(x, (x0, x1))
        values[rows[0] : rows[1], columns[0] : columns[1]] = FULL
    return None if values.min() == FULL else Plane(x, y, values)


def _edges(values: Sequence[float], length: int, *, every_pixel: bool) -> np.ndarray:
    """Where the plane may change along one axis, both ends of the picture included."""
    fixed = np.arange(length + 1) if every_pixel else np.array([0, length])
    return np.unique(np.concatenate([fixed, np.array(values)]).clip(0, length))


def _overlaps(edges: np.ndarray, side: int, cells: int) -> np.ndarray:
    """Pixels that each of `cells` equal parts of 0..side shares with each interval between edges,
    float64 [cells, len(edges) - 1].
    """
    start = np.arange(cells)[:, None] * (side / cells)
    lengths = np.minimum(edges[1:], start + side / cells) - np.maximum(edges[:-1], start)
    return lengths.clip(min=0.0)


def bounding_box(regions: Sequence[Region]) -> Box:
    """The smallest box around all regions."""
    x0, y0, x1, y1 = zip(*(region.box for region in regions), strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def pixel_mask(regions: Sequence[Region], size: tuple[int, int]) -> Image.Image:
    """The union as 8-bit grey of the picture's size, 255 inside, shares of a pixel in between."""
    boxes = [region for region in regions if region.mask is None]
    grey = _boxes_mask(boxes, size) if boxes or not regions else Image.new("L", size, 0)
    for region in regions:
        if region.mask is not None:
            grey = ImageChops.lighter(grey, region.mask)
    return grey


def _boxes_mask(boxes: Sequence[Region], size: tuple[int, int]) -> Image.Image:
    plane, (width, height) = union(boxes, size), size
    if plane is None:
        return Image.new("L", size, FULL)
    shares = plane.area(_overlaps(plane.y, height, height), _overlaps(plane.x, width, width))
    return Image.fromarray(np.rint(shares * FULL).astype(np.uint8))


def crop(query: Query) -> Image.Image:
    """What a method that looks at whole pictures sees of the regions: their bounding box, white
    outside of them; the picture itself where they are the whole of it.
    """
    image = query.image
    if union(query.regions, image.size) is None:
        return image
    white = Image.new("RGB", image.size, "white")
    alone = Image.composite(image.convert("RGB"), white, pixel_mask(query.regions, image.size))
    x0, y0, x1, y1 = bounding_box(query.regions)
    return alone.crop((math.floor(x0), math.floor(y0), math.ceil(x1), math.ceil(y1)))


def mirrored(region: Region, width: int) -> Region:
    """The same region of the flipped picture, which is `width` pixels wide."""
    x0, y0, x1, y1 = region.box
    mask = None if region.mask is None else ImageOps.mirror(region.mask)
    return Region((width - x1, y0, width - x0, y1), mask)


def text(query: Query) -> str:
    """What conditions the query: the regions' own words where it has some, else the prompt."""
    return query.called or query.prompt


def key(query: Query) -> str:
    """Names the part of the picture that is attributed, and the words it goes by where these are
    its own, in a line; "" for the whole of it under its prompt.
    """
    words = [f"as {query.called!r}"] if query.called else []
    if union(query.regions, query.image.size) is None:
        return "".join(words)
    return "; ".join([*sorted({describe(region) for region in query.regions}), *words])


def describe(region: Region) -> str:
    """A box by its corners in pixels, a mask by its hash."""
    if region.mask is None:
        return ",".join(f"{value:.17g}" for value in region.box)
    return "mask " + hashlib.sha256(region.mask.tobytes()).hexdigest()
