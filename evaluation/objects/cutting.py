"""Cutting what is drawn out of a picture: the ground, boxes of objects, the two halves."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

# Of 255: what differs from the ground by more is drawn; less of a half than this share is nothing;
# where more of the line between the halves is drawn on, they are no two objects.
INK, LEAST_INK, MOST_SEAM = 40, 0.03, 0.15

Box = tuple[int, int, int, int]


def ink(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(the ground's colour uint8 [3], what is drawn on it bool [H, W]) of an image [H, W, 3]."""
    frame = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    ground = np.median(frame, axis=0).astype(np.uint8)
    return ground, np.abs(image.astype(np.int16) - ground).max(axis=2) > INK


def content(drawn: np.ndarray, within: Box) -> Box | None:
    """The box of what is drawn inside `within`, single stray pixels left out; None for too little.

    drawn: bool [H, W].
    """
    x0, y0, x1, y1 = within
    part = drawn[y0:y1, x0:x1]
    columns, rows = np.flatnonzero(part.sum(0) > 1), np.flatnonzero(part.sum(1) > 1)
    if part.mean() < LEAST_INK or not len(columns) or not len(rows):
        return None
    return (
        x0 + int(columns[0]),
        y0 + int(rows[0]),
        x0 + int(columns[-1]) + 1,
        y0 + int(rows[-1]) + 1,
    )


def cut_out(image: np.ndarray, box: Box, ground: np.ndarray) -> np.ndarray:
    """The box on white, square and as large as the image, uint8 [H, W, 3]."""
    x0, y0, x1, y1 = box
    lift = 255 - ground.astype(np.int16)
    part = Image.fromarray((image[y0:y1, x0:x1] + lift).clip(0, 255).astype(np.uint8))
    side = max(part.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(part, ((side - part.width) // 2, (side - part.height) // 2))
    return np.asarray(square.resize(image.shape[1::-1], Image.Resampling.BICUBIC))


def halves(image: np.ndarray) -> Iterator[tuple[Box, Box]]:
    """The two boxes of what is drawn, left and right, and above and below: where both are there and
    the line between them is nearly free, the freer line first.

    image: uint8 [H, W, 3].
    """
    (height, width), (_, drawn) = image.shape[:2], ink(image)
    x, y = width // 2, height // 2
    splits = [
        (drawn[:, x - 1 : x + 1].mean(), (0, 0, x, height), (x, 0, width, height)),
        (drawn[y - 1 : y + 1].mean(), (0, 0, width, y), (0, y, width, height)),
    ]
    for seam, first, second in sorted(splits, key=lambda split: split[0]):
        found = content(drawn, first), content(drawn, second)
        if seam <= MOST_SEAM and found[0] is not None and found[1] is not None:
            yield found[0], found[1]
