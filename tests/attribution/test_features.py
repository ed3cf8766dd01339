"""Similarity features: CLIP preprocessing against transformers' own, unit length, pixels."""

from __future__ import annotations

import pytest
import torch
from transformers import CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from attribution.features import ClipEncoder, pixel_features, unit
from attribution.types import UserError
from tests.precompute.worlds import tiny_clip
from tests.tiny import RESOLUTION, tiny_images


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.mark.parametrize("crop", [True, False])
def test_clip_sees_what_transformers_shows_it(folder, crop):
    size = {"shortest_edge": 20} if crop else {"height": RESOLUTION, "width": RESOLUTION}
    square = {"height": RESOLUTION, "width": RESOLUTION}
    processor = CLIPImageProcessorPil(size=size, crop_size=square, do_center_crop=crop)
    processor.save_pretrained(folder)
    sizes = [(40, 30), (16, 16), (33, 77)] if crop else [(40, 40), (16, 16)]
    images = [tiny_images(1, seed=i)[0].resize(s) for i, s in enumerate(sizes)]
    model = CLIPModel.from_pretrained(folder).eval()
    pixels = processor(images=images, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
    assert torch.allclose(ClipEncoder.load(folder).images(images), unit(expected), atol=1e-5)


def test_text_and_image_share_a_space(folder):
    encoder = ClipEncoder.load(folder)
    texts, images = encoder.texts(["a flag", "b", "c" * 99]), encoder.images(tiny_images(2))
    assert texts.shape == (3, 12) and images.shape == (2, 12)
    assert torch.allclose(torch.cat([texts, images]).norm(dim=1), torch.ones(5))


def test_pixels_are_unit_vectors_and_white_is_nothing():
    rows = pixel_features([*tiny_images(2), tiny_images(1)[0].point(lambda _: 255)])
    assert rows.shape == (3, 768)
    assert torch.allclose(rows.norm(dim=1), torch.tensor([1.0, 1.0, 0.0]))


def test_no_clip(tmp_path):
    with pytest.raises(UserError, match="cannot open the CLIP model"):
        ClipEncoder.load(tmp_path)
