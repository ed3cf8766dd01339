"""The detector of transformers' class, against transformers' own processor."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer, BertConfig, BertModel, GroundingDinoProcessor

from attribution.detection import grounding_dino, groundingdino_py
from attribution.detection.boxes import corners
from attribution.detection.grounding_dino import GroundingDino, encode, to_pixels
from attribution.detection.protocol import LOADING, Found
from attribution.preprocessing import read_settings
from attribution.types import Progress, Query, UserError


def picture(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def detector(detector_folder) -> GroundingDino:
    made = GroundingDino(detector_folder)
    made.load()
    return made


def test_boxes_are_inside_the_picture_and_repeat(detector):
    image = picture(90, 60)
    found = detector.detect(image, "Stop sign. dog", 0.0, 0.0)
    assert found and found == detector.detect(image, "stop sign. dog.", 0.0, 0.0)
    assert {one.label for one in found} <= {"stop sign", "dog"}
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for one in found:
        x0, y0, x1, y1 = one.box
        assert 0 <= x0 < x1 <= 90 and 0 <= y0 < y1 <= 60 and 0 <= one.score <= 1
    best = found[0].score
    assert all(
        one.score > best / 2 for one in detector.detect(image, "stop sign. dog", best / 2, 0)
    )
    assert detector.detect(image, "stop sign. dog", 1.0, 0.0) == []


def test_tokens_are_those_of_the_processor(detector_folder):
    tokenizer = AutoTokenizer.from_pretrained(detector_folder)
    ids, spans = encode(tokenizer, ("stop sign", "dog"), 32)
    assert ids == tokenizer("stop sign. dog.")["input_ids"]
    said = {name: tokenizer.decode([ids[i] for i in place]) for name, place in spans.items()}
    assert said == {"stop sign": "stop sign", "dog": "dog"}
    ids, spans = encode(tokenizer, ("dog", "x" * 90, "house"), 32)  # letter by letter: too long
    assert list(spans) == ["dog", "house"] and len(ids) <= 32
    with pytest.raises(UserError, match="too long"):
        encode(tokenizer, ("x" * 90,), 32)


@pytest.mark.parametrize("size", [(150, 90), (90, 150), (64, 64), (65, 64), (40, 30)])
def test_pixels_are_those_of_the_processor(detector_folder, size):
    from transformers import GroundingDinoImageProcessorPil

    for settings in (read_settings(detector_folder), {}):
        own = GroundingDinoImageProcessorPil(**settings) if settings else None
        theirs = (own or GroundingDinoImageProcessorPil())(picture(*size), return_tensors="pt")
        if min(theirs["pixel_values"].shape[-2:]) < grounding_dino.LEAST_SIDE:
            continue  # ours keeps a side of 32 px
        assert torch.allclose(theirs["pixel_values"][0], to_pixels(picture(*size), settings))


def test_a_very_long_picture_keeps_a_side_to_look_at(detector):
    assert to_pixels(picture(400, 3), detector.settings).shape == (3, 32, 32)
    assert detector.detect(picture(400, 3), "dog", 0.0, 0.0)


def test_post_processing_agrees_with_the_processor(detector, detector_folder):
    from transformers import GroundingDinoImageProcessorPil

    image = picture(90, 60)
    tokenizer = AutoTokenizer.from_pretrained(detector_folder)
    ids, _ = encode(tokenizer, ("dog",), 32)
    outputs = detector._model(
        pixel_values=to_pixels(image, detector.settings)[None], input_ids=torch.tensor([ids])
    )
    logits, boxes, spans = detector.outputs(image, ("dog",))
    assert torch.equal(boxes, outputs.pred_boxes[0]) and spans == {"dog": [1]}
    processor = GroundingDinoProcessor(GroundingDinoImageProcessorPil(), tokenizer)
    (theirs,) = processor.post_process_grounded_object_detection(
        outputs, torch.tensor([ids]), threshold=0.0, text_threshold=0.0, target_sizes=[(60, 90)]
    )
    ours = corners(boxes) * torch.tensor([90.0, 60.0, 90.0, 60.0])
    assert torch.allclose(ours, theirs["boxes"], atol=1e-4)
    assert torch.allclose(logits.sigmoid().max(-1).values, theirs["scores"], atol=1e-6)


def test_the_first_run_says_that_it_loads(detector_folder):
    made, query = GroundingDino(detector_folder), Query("a dog", picture(40, 40))
    stages = [i.stage for i in made.run(query, "dog.", 0.0, 0.0) if isinstance(i, Progress)]
    assert stages[0] == LOADING and LOADING not in stages[1:]
    again = list(made.run(query, "dog.", 0.0, 0.0))
    assert LOADING not in [i.stage for i in again if isinstance(i, Progress)]
    assert isinstance(again[-1], Found) and again[-1].phrases == ("dog",)


def test_what_is_nowhere_is_refused_in_one_line(monkeypatch, tmp_path, detector_folder):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for source, why in (
        ("nobody/no-such-detector", "neither a folder nor in the hub's cache"),
        (tmp_path, "cannot open the detector"),
    ):
        with pytest.raises(UserError, match=why) as error:
            GroundingDino(source).detect(picture(20, 20), "dog")
        assert "\n" not in str(error.value)
    broken = shutil.copytree(detector_folder, tmp_path / "broken")
    config = json.loads((broken / "config.json").read_text())
    config["encoder_layers"] = 2
    (broken / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="weights are missing"):
        GroundingDino(broken).detect(picture(20, 20), "dog")


def test_a_hub_out_of_reach_is_said_at_once(monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert not grounding_dino.hub_answers()
    with pytest.raises(UserError, match="the hub cannot be reached"):
        GroundingDino("nobody/no-such-detector").detect(picture(20, 20), "dog")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    assert grounding_dino.hub_answers()


def test_bad_text_loads_nothing(tmp_path):
    with pytest.raises(UserError, match="empty"):
        GroundingDino(tmp_path).detect(picture(20, 20), " . ")


def test_groundingdino_py_says_what_it_lacks(monkeypatch, tmp_path):
    assert "requirements-groundingdino.txt" in groundingdino_py.lacking()
    with pytest.raises(UserError, match="not installed"):
        groundingdino_py.GroundingDinoPy().detect(picture(20, 20), "dog")
    monkeypatch.setattr(groundingdino_py, "find_spec", lambda name: object())
    assert groundingdino_py.WEIGHTS in groundingdino_py.lacking()
    assert "no file" in groundingdino_py.lacking(tmp_path / "none.pth")
    monkeypatch.setenv(groundingdino_py.WEIGHTS, str(tmp_path / "w.pth"))
    (tmp_path / "w.pth").write_bytes(b"")
    assert groundingdino_py.lacking() == ""


def test_a_repaired_bert_answers_as_the_package_calls_it():
    """The calls of its BertModelWarper, against BertModel's own forward; then all is as before."""
    config = BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
    )
    bert = BertModel(config, add_pooling_layer=False).eval()
    ids, positions = torch.arange(6)[None], torch.tensor([[0, 0, 1, 2, 0, 0]])
    mask = torch.eye(6, dtype=torch.bool)[None].clone()
    mask[:, 1:4, 1:4] = True
    with groundingdino_py.repaired(), torch.no_grad():
        states = bert.embeddings(input_ids=ids, position_ids=positions, past_key_values_length=0)
        made = bert.encoder(
            states,
            attention_mask=bert.get_extended_attention_mask(mask, ids.shape, ids.device),
            head_mask=bert.get_head_mask(None, 2),
            encoder_attention_mask=None,
            return_dict=True,
        )[0]
        own = bert(ids, mask[:, None], None, positions).last_hidden_state
    assert torch.allclose(made, own, atol=1e-6)
    assert not hasattr(BertModel, "get_head_mask")
    with pytest.raises(RuntimeError, match="inside"), groundingdino_py.repaired():
        raise RuntimeError("inside")
    assert not hasattr(BertModel, "invert_attention_mask")
