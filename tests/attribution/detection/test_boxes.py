"""Boxes by hand: overlaps, duplicates, and what logits say."""

from __future__ import annotations

import pytest
import torch

from attribution.detection import boxes
from attribution.detection.protocol import Detection


def test_overlap_by_hand():
    a, b = torch.tensor([0.0, 0.0, 2.0, 2.0]), torch.tensor([1.0, 0.0, 3.0, 2.0])
    iou, generalised = boxes.overlap(a, b)
    assert iou.item() == pytest.approx(2 / 6) and generalised.item() == pytest.approx(2 / 6)
    far = torch.tensor([3.0, 0.0, 4.0, 2.0])
    iou, generalised = boxes.overlap(a, far)
    assert iou.item() == 0 and generalised.item() == pytest.approx(-2 / 8)
    assert boxes.iou((0, 0, 2, 2), (0, 0, 2, 2)) == 1


def test_corners_and_centres_are_inverse():
    made = torch.rand(5, 4)
    assert torch.allclose(boxes.centres(boxes.corners(made)), made, atol=1e-6)


def test_only_boxes_of_one_phrase_are_duplicates():
    found = [
        Detection((0, 0, 10, 10), 0.5, "dog"),
        Detection((0, 0, 10, 9), 0.9, "dog"),
        Detection((0, 0, 10, 10), 0.4, "cat"),
        Detection((5, 5, 15, 15), 0.3, "dog"),
    ]
    assert [(one.label, one.score) for one in boxes.distinct(found)] == [
        ("dog", 0.9),
        ("cat", 0.4),
        ("dog", 0.3),
    ]


def test_a_box_belongs_to_the_phrase_of_its_surest_token():
    spans = {"stop sign": [1, 2], "dog": [4]}
    probabilities = torch.tensor(
        [
            [0.9, 0.8, 0.2, 0.9, 0.5, 0.9],  # special tokens say nothing
            [0.0, 0.1, 0.1, 0.0, 0.6, 0.0],
            [0.0, 0.31, 0.0, 0.0, 0.1, 0.0],  # sure of one word, not of the phrase
            [0.0, 0.2, 0.2, 0.0, 0.2, 0.0],
        ]
    )
    centres = torch.tensor([[0.5, 0.5, 1.2, 0.5], [0.25, 0.5, 0.5, 0.2], [0.5] * 4, [0.5] * 4])
    found = boxes.grounded(probabilities.logit(), centres, spans, (200, 100), 0.3, 0.25)
    assert [(one.label, pytest.approx(one.score)) for one in found] == [
        ("stop sign", 0.8),
        ("dog", 0.6),
    ]
    assert found[0].box == (0, 25, 200, 75)  # cut at the picture's edges
    assert found[1].box == pytest.approx((0, 40, 100, 60))
