"""Boxes and what GroundingDINO's outputs say of them.

| code | meaning |
|---|---|
| corners | (x0, y0, x1, y1), in pixels or as shares of the picture |
| centres | (cx, cy, w, h) as shares of the picture in 0..1, as the networks put it |
| spans | phrase → the positions of its tokens in the text |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from attribution.detection.protocol import Box, Detection

SAME = 0.7  # boxes of one phrase that overlap more are the same thing found twice

Spans = Mapping[str, Sequence[int]]


def corners(centres: Tensor) -> Tensor:
    """(cx, cy, w, h) → (x0, y0, x1, y1), [..., 4]."""
    middle, half = centres[..., :2], centres[..., 2:] / 2
    return torch.cat([middle - half, middle + half], dim=-1)


def centres(corner: Tensor) -> Tensor:
    """(x0, y0, x1, y1) → (cx, cy, w, h), [..., 4]."""
    low, high = corner[..., :2], corner[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def areas(boxes: Tensor) -> Tensor:
    """Areas of corner boxes [..., 4] → [...]; 0 for inverted ones."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)


def overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """(IoU, generalised IoU) of corner boxes that broadcast, [..., 4] → [...].

    Rezatofighi et al. 2019, "Generalized Intersection over Union"; in −1..1, 1 for equal boxes.
    """
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    inside = (high - low).clamp(min=0).prod(-1)
    union = (areas(a) + areas(b) - inside).clamp(min=1e-9)
    around_low = torch.minimum(a[..., :2], b[..., :2])
    around_high = torch.maximum(a[..., 2:], b[..., 2:])
    around = (around_high - around_low).clamp(min=0).prod(-1).clamp(min=1e-9)
    iou = inside / union
    return iou, iou - (around - union) / around


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two corner boxes, 0..1."""
    return float(overlap(torch.tensor(a), torch.tensor(b))[0])


def distinct(found: Sequence[Detection], same: float = SAME) -> list[Detection]:
    """Best first, without those that overlap a better one of the same phrase by more than `same`
    (greedy non-maximum suppression).
    """
    kept: list[Detection] = []
    for one in sorted(found, key=lambda d: -d.score):
        if all(k.label != one.label or iou(k.box, one.box) <= same for k in kept):
            kept.append(one)
    return kept


def grounded(
    logits: Tensor,
    boxes: Tensor,
    spans: Spans,
    size: tuple[int, int],
    threshold: float,
    text_threshold: float,
) -> list[Detection]:
    """Detections from one picture's outputs, best first.

    logits: [queries, tokens] before the sigmoid, −inf for padding. boxes: centres [queries, 4].
    size: (width, height) of the picture in pixels. A box belongs to the phrase of its surest token,
    whose probability is its score.
    """
    probability = logits.float().sigmoid().cpu().numpy()
    width, height = size
    scale = torch.tensor([width, height, width, height], dtype=torch.float32)
    placed = (corners(boxes.float().cpu()).clamp(0, 1) * scale).tolist()
    best = {name: probability[:, list(place)].max(axis=1) for name, place in spans.items()}
    mean = {name: probability[:, list(place)].mean(axis=1) for name, place in spans.items()}
    names = list(spans)
    table = np.stack([best[name] for name in names])
    found = []
    for number, choice in enumerate(table.argmax(axis=0)):
        name, (x0, y0, x1, y1) = names[choice], placed[number]
        sure = table[choice, number] > threshold and mean[name][number] > text_threshold
        if sure and x1 > x0 and y1 > y0:
            found.append(Detection((x0, y0, x1, y1), float(table[choice, number]), name))
    return distinct(found)
