"""Pictures composed on the fly, and the prompts that go with them: the recipe of the collages, with
more freedom in number, size and place.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from precompute.recipes.detector.config import DetectorConfig
from precompute.recipes.detector.data import Cutout, DetectionSet, Names, Picture

Box = tuple[int, int, int, int]
# White twice and four tints, as of the collages.
GROUNDS = (
    (255, 255, 255),
    (255, 255, 255),
    (253, 244, 220),
    (226, 239, 250),
    (231, 245, 226),
    (250, 230, 232),
)
_TRIES = 12
_SHAPES = (*((1.0, 1.0),) * 4, (1.0, 0.75), (0.75, 1.0))  # of the side; (height, width)


@dataclass(frozen=True)
class Example:
    """A picture [3, h, w] in 0..1, its boxes [n, 4] as shares, the prompt's phrases, and for each
    box the phrases that name it.
    """

    pixels: Tensor
    boxes: Tensor
    phrases: tuple[str, ...]
    positive: tuple[frozenset[str], ...]


def examples(data: DetectionSet, config: DetectorConfig, step: int) -> list[Example]:
    """The batch of a step: a pure function of (seed, step), so that a resumed run repeats itself.
    All its pictures have one shape.
    """
    rng = random.Random(f"{config.seed}/{step}")
    height, width = (round(share * config.side) for share in rng.choice(_SHAPES))
    batch = []
    for _ in range(config.batch_size):
        square = height == width == config.side
        if data.pictures and (not data.cutouts or (square and rng.random() < config.real_share)):
            picture = _whole(rng.choice(data.pictures), config.side)
        else:
            picture = compose(data.cutouts, config, (height, width), rng)
        batch.append(_worded(picture, data.phrases, config, rng))
    return batch


def _whole(picture: Picture, side: int) -> Picture:
    """A record's own picture as floats, at the detector's size."""
    pixels = picture.pixels.float()[None] / 255.0
    if pixels.shape[-1] != side:
        pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True)
    return Picture(pixels[0], picture.boxes, picture.names)


def compose(
    cutouts: Mapping[str, Sequence[Cutout]],
    config: DetectorConfig,
    size: tuple[int, int],
    rng: random.Random,
) -> Picture:
    """One to three cut-outs on a plain ground, hardly overlapping; size: (height, width) in px.

    A category is as likely as the square root of its number, lest half of all be flags and icons.
    """
    count = rng.choices(range(1, len(config.objects) + 1), config.objects)[0]
    ground = _ground(rng)
    canvas = ground.expand(3, *size).clone()
    places: list[Box] = []
    names: list[Names] = []
    often = [len(members) ** 0.5 for members in cutouts.values()]
    for category in rng.choices(list(cutouts), often, k=count):
        cutout = rng.choice(cutouts[category])
        place = _place(cutout, places, count, size, rng)
        if place is None:
            continue
        _paste(canvas, cutout, place, mirror=cutout.mirrors and rng.random() < 0.5)
        places.append(place)
        names.append(cutout.names)
    height, width = size
    scale = torch.tensor([width, height, width, height], dtype=torch.float32)
    return Picture(canvas, torch.tensor(places, dtype=torch.float32) / scale, tuple(names))


def _ground(rng: random.Random) -> Tensor:
    """White, a tint of the collages, or any pale colour, [3, 1, 1] in 0..1."""
    if rng.random() < 0.7:
        colour = [value / 255.0 for value in rng.choice(GROUNDS)]
    else:
        colour = [rng.uniform(0.7, 1.0) for _ in range(3)]
    return torch.tensor(colour).view(3, 1, 1)


def _place(
    cutout: Cutout, taken: Sequence[Box], count: int, size: tuple[int, int], rng: random.Random
) -> Box | None:
    """Where a cut-out goes, in pixels; None where no free place was found."""
    height, width = size
    low, high = {1: (0.35, 0.95), 2: (0.3, 0.52), 3: (0.22, 0.42)}[min(count, 3)]
    for _ in range(_TRIES):
        longest = rng.uniform(low, high) * min(height, width)
        scale = longest / max(cutout.solid.shape[1:])
        stretch = rng.uniform(0.88, 1.13)
        h = max(3, min(height, round(cutout.solid.shape[1] * scale * stretch)))
        w = max(3, min(width, round(cutout.solid.shape[2] * scale / stretch)))
        x, y = rng.randint(0, width - w), rng.randint(0, height - h)
        box = (x, y, x + w, y + h)
        if all(_shared(box, other) < 0.08 for other in taken):
            return box
    return None


def _shared(a: Box, b: Box) -> float:
    """Area in common over that of the smaller box."""
    across = min(a[2], b[2]) - max(a[0], b[0])
    down = min(a[3], b[3]) - max(a[1], b[1])
    least = min((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return max(0, across) * max(0, down) / least


def _paste(canvas: Tensor, cutout: Cutout, box: Box, *, mirror: bool) -> None:
    x0, y0, x1, y1 = box
    layers = torch.cat([cutout.solid, cutout.veil])[None]
    layers = F.interpolate(layers, (y1 - y0, x1 - x0), mode="bilinear", antialias=True)[0]
    layers = layers.flip(-1) if mirror else layers
    canvas[:, y0:y1, x0:x1] = layers[:3] + layers[3:] * canvas[:, y0:y1, x0:x1]


def _worded(
    picture: Picture, phrases: Sequence[str], config: DetectorConfig, rng: random.Random
) -> Example:
    """A prompt for the picture: a name of each object, now and then a common one, among phrases
    that name nothing in it.
    """
    said = [_name(names, rng) for names in picture.names if rng.random() > 0.05]
    known = {name for names in picture.names for name in names}
    absent = 0 if rng.random() < 0.4 and said else rng.randint(1, config.most_absent)
    for _ in range(absent):
        if (other := rng.choice(phrases)) not in known:
            said.append(other)
    said = list(dict.fromkeys(said)) or [rng.choice(phrases)]
    if rng.random() < 0.5:
        rng.shuffle(said)
    named = [frozenset(said) & frozenset(names) for names in picture.names]
    kept = [row for row, found in enumerate(named) if found]
    return Example(
        picture.pixels, picture.boxes[kept], tuple(said), tuple(named[row] for row in kept)
    )


def _name(names: Names, rng: random.Random) -> str:
    """The first name mostly: it is what captions of collages say."""
    return names[0] if rng.random() < 0.65 else rng.choice(names)


def augmented(pixels: Tensor, seed: int, step: int) -> Tensor:
    """Contrast, tint, a blur as of an autoencoder, and noise, on [B, 3, h, w] in 0..1."""
    g = torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)
    n = len(pixels)
    contrast = 0.75 + 0.25 * torch.rand(n, 1, 1, 1, generator=g)
    tint = 0.12 * (torch.rand(n, 3, 1, 1, generator=g) - 0.5)
    pixels = 1 - (1 - pixels) * contrast + tint
    blurred = F.avg_pool2d(pixels, 3, stride=1, padding=1, count_include_pad=False)
    share = torch.rand(n, 1, 1, 1, generator=g)
    noise = 0.02 * torch.randn(pixels.shape, generator=g)
    return (pixels + share * (blurred - pixels) + noise).clamp(0, 1)
