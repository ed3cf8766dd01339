"""What every detector is: a picture and words in, boxes in pixels out.

>>> detector = GroundingDino("assets/openclipart/encoders/detector")
>>> detector.detect(image, "motorcycle. stop sign.", threshold=0.3)
[Detection(box=(10.0, 12.5, 96.1, 88.0), score=0.81, label='motorcycle'), ...]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from PIL import Image

from attribution.types import Progress, Query

THRESHOLD = 0.3
TEXT_THRESHOLD = 0.25
LOADING = "load the detector"
LOOKING = "detect"
Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Detection:
    """A box (x0, y0, x1, y1) in pixels of the picture, inside it; score in 0..1; the phrase found
    there.
    """

    box: Box
    score: float
    label: str


@dataclass(frozen=True)
class Found:
    """What one run of a detector found, best first.

    heatmaps: phrase -> float32 [h, w] in 0..1 over the picture, for the detectors that make any.
    rather: what of the prompt else the boxes were taken for when that was looked for, too.
    """

    detector: str
    phrases: tuple[str, ...]
    detections: tuple[Detection, ...]
    heatmaps: dict[str, np.ndarray] = field(default_factory=dict)
    rather: tuple[str, ...] = ()


class Detector(Protocol):
    """Finds in a picture what a text names. Opens its model when first used."""

    def detect(
        self,
        image: Image.Image,
        text: str,
        threshold: float = THRESHOLD,
        text_threshold: float = TEXT_THRESHOLD,
    ) -> list[Detection]:
        """Boxes of what the phrases of `text` name, best first.

        threshold: the least score of a box, which is the surest of its words. text_threshold: the
        least mean score of the words of its phrase. UserError where the detector cannot be opened
        or the text names nothing.
        """
        ...

    def run(
        self, query: Query, text: str, threshold: float, text_threshold: float
    ) -> Iterator[Progress | Found]:
        """The same on a query's picture with its progress; the last item is what was found."""
        ...
