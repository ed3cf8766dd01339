"""DINO and DINOv2 encoders: what transformers' own processors and models give, from any folder."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    ViTConfig,
    ViTModel,
)
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from attribution.encoders import ClassTokenEncoder
from attribution.features import ClipEncoder, unit
from attribution.preprocessing import Preprocessing, read_settings
from attribution.types import UserError
from tests.precompute.worlds import tiny_clip, tiny_dinov2, tiny_vit
from tests.tiny import tiny_images

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@pytest.fixture
def pictures() -> list[Image.Image]:
    """Wide, square, high, and one with transparency in a palette's place."""
    sizes = [(40, 30), (16, 16), (33, 77)]
    return [tiny_images(1, seed=i)[0].resize(size) for i, size in enumerate(sizes)]


def test_dino_sees_what_its_processor_shows_it(tmp_path, pictures):
    folder = tiny_vit(tmp_path)
    size = {"height": 16, "width": 16}
    processor = ViTImageProcessorPil(size=size, resample=3, image_mean=MEAN, image_std=STD)
    processor.save_pretrained(folder)
    pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
    model = ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
    with torch.no_grad():
        expected = model(pixels).last_hidden_state[:, 0]
    found = ClassTokenEncoder.load(folder).images(pictures)
    assert torch.allclose(found, unit(expected), atol=1e-5)
    assert torch.allclose(found.norm(dim=1), torch.ones(3))


@pytest.mark.parametrize("crop", [16, 24])  # another size than the positions were learned for
def test_dinov2_sees_what_its_processor_shows_it(tmp_path, pictures, crop):
    folder = tiny_dinov2(tmp_path)
    square = {"height": crop, "width": crop}
    processor = BitImageProcessorPil(
        size={"shortest_edge": 26}, crop_size=square, image_mean=MEAN, image_std=STD
    )
    processor.save_pretrained(folder)
    pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
    assert pixels.shape[-2:] == (crop, crop)
    model = Dinov2WithRegistersModel.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model(pixels).last_hidden_state[:, 0]
    found = ClassTokenEncoder.load(folder).images(pictures)
    assert torch.allclose(found, unit(expected), atol=1e-5)


def test_settings_of_the_published_models_are_understood(tmp_path):
    """The bare numbers of facebook/dino-vitb16 and openai/clip-vit-base-patch32."""
    dino = {"size": 224, "resample": 3, "image_mean": MEAN, "image_std": STD}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(dino))
    look = Preprocessing.of(read_settings(tmp_path), 224)
    assert (look.size, look.crop, look.pad, look.resample) == ((224, 224), None, False, 3)
    clip = {"size": 224, "crop_size": 224, "do_center_crop": True}
    look = Preprocessing.of(clip, 224)
    assert (look.size, look.crop) == (224, (224, 224))
    dinov2 = {"size": {"shortest_edge": 256}, "do_center_crop": True}
    dinov2["crop_size"] = {"height": 224, "width": 224}
    look = Preprocessing.of(dinov2, 518)
    assert (look.size, look.crop) == (256, (224, 224))
    (tmp_path / "nothing").mkdir()
    assert read_settings(tmp_path / "nothing") == {}


def test_a_padded_picture_keeps_its_shape_on_white():
    settings = {"size": 4, "pad_to_square": True, "image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    wide = Image.new("RGB", (8, 4), "black")
    seen = Preprocessing.of(settings | {"resample": 0}, 4)([wide])[0]
    expected = torch.ones(3, 4, 4)
    expected[:, 1:3] = 0.0
    assert torch.equal(seen, expected)


def test_clip_of_published_settings(tmp_path, pictures):
    folder = tiny_clip(tmp_path)
    square = {"height": 16, "width": 16}
    processor = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=square)
    settings = {"do_center_crop": True, "size": 16, "crop_size": 16, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    pixels = processor(images=pictures, return_tensors="pt")["pixel_values"]
    assert torch.allclose(ClipEncoder.load(folder).preprocessing(pictures), pixels, atol=1e-6)


def test_half_precision_weights_and_a_pooler_are_no_trouble(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = ViTConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            image_size=16, patch_size=8,
        )  # fmt: skip
        ViTModel(config).half().save_pretrained(tmp_path)
    encoder = ClassTokenEncoder.load(tmp_path)
    assert next(encoder.model.parameters()).dtype == torch.float32
    assert encoder.images(tiny_images(2)).shape == (2, 8)


def test_what_cannot_be_opened_is_said_in_a_line(tmp_path, capfd):
    cases = {"nowhere": tmp_path / "nowhere", "it is of type 'clip'": tiny_clip(tmp_path / "clip")}
    broken = tiny_dinov2(tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    del weights["layernorm.weight"]
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    cases["its weights lack layernorm.weight"] = broken
    capfd.readouterr()  # what saving said
    for words, folder in cases.items():
        with pytest.raises(UserError, match="cannot open the encoder") as caught:
            ClassTokenEncoder.load(folder)
        assert words in str(caught.value) and "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_the_feature_is_the_class_token_not_a_register(tmp_path):
    folder = tiny_dinov2(tmp_path)
    config = Dinov2WithRegistersConfig.from_pretrained(folder)
    encoder = ClassTokenEncoder.load(folder)
    picture = tiny_images(1)
    states = encoder.model(encoder.preprocessing(picture)).last_hidden_state
    assert states.shape[1] == 1 + config.num_register_tokens + 4
    feature = np.asarray(encoder.images(picture)[0])
    cosines = unit(states[0]) @ torch.from_numpy(feature)
    assert cosines.argmax() == 0 and cosines[0] == pytest.approx(1.0, abs=1e-5)
    assert cosines[1:].max() < 0.999
