"""Two drawings on one ground: pairs drawn by a fixed seed, boxes known exactly."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from PIL import Image

from precompute.recipes.openclipart.render import DISPLAY_PX, TRAIN_PX, Art, fit, paste

SEED = 20041219
COLLAGES = 500
POPULAR = (("fruit", "mammal"), ("dessert", "building"), ("vehicle", "plant"), ("music", "animal"))
POPULAR_SHARE = 0.4
CONCRETE = (
    *("dessert", "fruit", "food", "drink", "bug", "bird", "mammal", "animal"),
    *("plant", "vehicle", "building", "music", "toy", "tool"),
)
LEAST_MEMBERS = 48
_ENLARGE = DISPLAY_PX // TRAIN_PX
_GROUNDS = (
    (255, 255, 255),
    (255, 255, 255),
    (253, 244, 220),
    (226, 239, 250),
    (231, 245, 226),
    (250, 230, 232),
)
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Plan:
    """Which two drawings, left or top first, and how they are laid out."""

    id: str
    parts: tuple[str, str]
    beside: bool  # side by side, else one above the other
    sizes: tuple[int, int]  # longest sides in training pixels
    shifts: tuple[int, int]  # offsets along the free axis in training pixels
    ground: tuple[int, int, int]


def _pairs(categories: Sequence[str], rng: random.Random, count: int) -> list[tuple[str, str]]:
    """Categories of the two parts, the popular pairs first, each in either order."""
    popular = [pair for pair in POPULAR if set(pair) <= set(categories)]
    pairs: list[tuple[str, str]] = []
    for number in range(count):
        if popular and number < round(POPULAR_SHARE * count):
            first, second = popular[number % len(popular)]
        else:
            first, second = rng.sample(sorted(categories), 2)
        pairs.append((first, second) if rng.random() < 0.5 else (second, first))
    return pairs


def _layout(number: int, parts: tuple[str, str], rng: random.Random) -> Plan:
    sizes = (rng.randint(26, 30), rng.randint(26, 30))
    shifts = (rng.randint(-6, 6), rng.randint(-6, 6))
    beside = rng.random() < 0.5
    return Plan(f"collage/{number:04d}", parts, beside, sizes, shifts, rng.choice(_GROUNDS))


def plan(
    members: dict[str, list[str]], count: int = COLLAGES, least: int = LEAST_MEMBERS
) -> list[Plan]:
    """`count` plans over `members` (category → ids), concrete categories of `least` members only.

    Each category gives its drawings in a shuffled cycle, so that none is used much more than
    another. Empty where fewer than two categories are large enough.
    """
    rng = random.Random(SEED)
    pools = {c: sorted(members[c]) for c in CONCRETE if len(members.get(c, [])) >= least}
    if len(pools) < 2:
        return []
    for pool in pools.values():
        rng.shuffle(pool)
    cycles = {category: cycle(pool) for category, pool in pools.items()}
    pairs = _pairs(list(pools), rng, count)
    return [
        _layout(number, (next(cycles[first]), next(cycles[second])), rng)
        for number, (first, second) in enumerate(pairs)
    ]


def boxes(layout: Plan, sizes: tuple[tuple[int, int], tuple[int, int]]) -> tuple[Box, Box]:
    """(x0, y0, x1, y1) of both parts in training pixels; `sizes` are their (w, h) there."""
    half = TRAIN_PX // 2
    found = []
    for index, (width, height) in enumerate(sizes):
        along = half * index + (half - (width if layout.beside else height)) // 2
        room = TRAIN_PX - (height if layout.beside else width)
        across = max(1, min(room - 1, room // 2 + layout.shifts[index]))
        x, y = (along, across) if layout.beside else (across, along)
        found.append((x, y, x + width, y + height))
    return found[0], found[1]


def render(layout: Plan, arts: tuple[Art, Art]) -> tuple[Image.Image, Image.Image, tuple[Box, Box]]:
    """The training image (64 px), the display image (192 px), both RGB, and the parts' boxes."""
    first, second = (fit(a.image.size, s) for a, s in zip(arts, layout.sizes, strict=True))
    placed = boxes(layout, (first, second))
    canvases = []
    for scale in (1, _ENLARGE):
        canvas = Image.new("RGB", (TRAIN_PX * scale, TRAIN_PX * scale), layout.ground)
        for art, (x0, y0, x1, y1) in zip(arts, placed, strict=True):
            paste(canvas, art.image, (x0 * scale, y0 * scale, x1 * scale, y1 * scale))
        canvases.append(canvas)
    return canvases[0], canvases[1], placed
