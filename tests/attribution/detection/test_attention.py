"""The model's own attention: nothing left behind, maps by hand, words and their tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

from attribution.denoiser import Denoiser
from attribution.detection.attention import (
    Attention,
    WordMaps,
    connected,
    hottest,
    token_spans,
    word_maps,
)
from attribution.detection.protocol import Found
from attribution.detection.recording import Recording, _probabilities, recorded
from attribution.types import Progress, Query, UserError
from tests.attribution.worlds import finished
from tests.tiny import tiny_images, tiny_pipeline

PROMPT = "ab cd, by e"


@pytest.fixture(scope="module", params=["own", "plain"])
def model(request) -> Denoiser:
    """A tiny pipeline with diffusers' default processors, and with its plain ones."""
    made = Denoiser.from_pipeline(tiny_pipeline("v_prediction"))
    if request.param == "plain":
        made.unet.set_attn_processor(AttnProcessor())
    return made


def inputs(model: Denoiser):
    latents = model.encode_images(tiny_images(2))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1))
    return latents, model.encode_text([PROMPT, "ef"]), noise, torch.tensor([100, 700])


def test_recording_changes_nothing_and_leaves_nothing(model):
    before, own = model.predict(*inputs(model))[0].detach(), dict(model.unet.attn_processors)
    with recorded(model.unet, keep=2) as recording:
        during = model.predict(*inputs(model))[0].detach()
    after = dict(model.unet.attn_processors)
    assert torch.equal(before, during)
    assert torch.equal(before, model.predict(*inputs(model))[0])
    assert own.keys() == after.keys() and all(own[name] is after[name] for name in own)
    assert sum(recording.calls.values()) == sum(".attn2." in name for name in own)


@pytest.mark.parametrize("how", ["exception", "cancel"])
def test_processors_are_back_after_exception_and_cancel(model, how):
    own = dict(model.unet.attn_processors)
    if how == "exception":
        with pytest.raises(RuntimeError, match="inside"), recorded(model.unet, keep=1):
            raise RuntimeError("inside")
    else:
        job = word_maps(model, Query(PROMPT, tiny_images(1)[0]))
        assert isinstance(next(job), Progress)
        assert any(own[k] is not v for k, v in model.unet.attn_processors.items())
        job.close()
    assert all(own[name] is one for name, one in model.unet.attn_processors.items())


def test_probabilities_are_those_of_the_layer(model):
    """Softmax of q kᵀ scaled, head by head, by hand."""
    layer = next(m for n, m in model.unet.named_modules() if n.endswith(".attn2"))
    hidden, states = torch.randn(2, 4, layer.query_dim), torch.randn(2, 8, 16)
    made = _probabilities(layer, hidden, states)
    q = layer.to_q(hidden).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
    k = layer.to_k(states).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
    by_hand = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
    assert made.shape == (2, layer.heads, 4, 8) and torch.allclose(made, by_hand, atol=1e-5)


def test_maps_are_means_of_relative_attention():
    recording = Recording(keep=1)
    first = torch.zeros(2, 1, 4, 2)  # the sample before the last is guidance: not counted
    first[1, 0, :, 0] = torch.tensor([1.0, 1.0, 1.0, 5.0])
    first[1, 0, :, 1] = 0.5
    recording.add(first)
    maps = recording.maps(2, 2)
    assert torch.allclose(maps[0], torch.tensor([[0.5, 0.5], [0.5, 2.5]]))
    assert torch.allclose(maps[1], torch.ones(2, 2))
    recording.add(torch.ones(1, 3, 1, 2))  # a coarser layer that looks everywhere alike
    assert torch.allclose(recording.maps(2, 2)[0], (maps[0] + 1) / 2)
    with pytest.raises(UserError, match="no cross-attention"):
        Recording(keep=1).maps(2, 2)


def test_every_word_has_its_tokens(model):
    tokenizer = model.tokenizer
    spans = token_spans(tokenizer, "ab c, d", 32)
    ids = tokenizer("ab c, d")["input_ids"]
    assert [tokenizer.decode([ids[i] for i in span]).replace(" ", "") for span in spans] == [
        "ab",
        "c,",
        "d",
    ]
    assert spans == [[1, 2], [3, 4], [5]]
    assert token_spans(tokenizer, "ab cd ef gh", 8) == [[1, 2], [3, 4], [5, 6]]


def test_a_generated_picture_is_watched_while_it_is_drawn_again(model):
    image = model.generate(PROMPT, 3, steps=3, guidance=2.0)
    query = Query(PROMPT, image, seed=3, steps=3, guidance=2.0)
    *progress, maps = word_maps(model, query)
    assert [(item.done, item.total) for item in progress] == [(1, 3), (2, 3), (3, 3)]
    assert maps.maps.shape == (2, 8, 8) and np.isfinite(maps.maps).all()  # "by" does not fit
    assert maps.words == ("ab", "cd,")
    assert np.allclose(maps.maps.mean(axis=(1, 2)), 1.0, atol=0.2)
    assert model.generate(PROMPT, 3, steps=3, guidance=2.0).tobytes() == image.tobytes()
    again = finished(word_maps(model, query))
    assert np.array_equal(again.maps, maps.maps)


def test_an_upload_is_watched_over_its_noised_latents(model):
    query = Query(PROMPT, tiny_images(1)[0].resize((40, 20)))
    maps = finished(word_maps(model, query))
    heat = maps.heat(maps.places("cd"))
    assert heat.shape == (20, 40) and heat.dtype == np.float32
    assert heat.min() >= 0 and heat.max() <= 1
    mask = maps.mask(maps.places("cd"), 0.5)
    assert mask.size == (40, 20) and mask.getextrema()[1] == 255
    assert np.array_equal(finished(word_maps(model, query)).maps, maps.maps)


def test_one_word_selects_its_region_at_once(model):
    detector, query = Attention(model), Query(PROMPT, tiny_images(1)[0])
    found = finished(detector.run(query, "ab. cd.", 0.5, 0.0))
    assert isinstance(found, Found) and {one.label for one in found.detections} <= {"ab", "cd"}
    assert found.detections and set(found.heatmaps) == {"ab", "cd"}
    again = list(detector.run(query, "ab.", 0.5, 0.0))
    assert len(again) == 1  # the maps are kept
    assert len(list(detector.run(Query("cd ab", query.image), "ab.", 0.5, 0.0))) > 1
    with pytest.raises(UserError, match="does not say 'zebra'"):
        list(detector.run(query, "zebra", 0.5, 0.0))
    assert detector.detect(query.image, "ab. cd.", 0.5, 0.0)


def test_heat_is_what_lies_above_the_median():
    grid = np.array([[[1.0, 1.0], [1.0, 3.0]], [[1.0, 1.0], [1.0, 1.0]]], dtype=np.float32)
    maps = WordMaps("ab cd", grid, (8, 8))
    assert maps.grid([0]).tolist() == [[0, 0], [0, 1]]
    assert maps.grid([1]).max() == 0 and hottest(maps.heat([1]), "cd", 0.5) is None
    one = hottest(maps.heat([0]), "ab", 0.9)
    assert one.box[2:] == (8.0, 8.0) and one.box[0] >= 4 and one.score > 0.9


def test_the_hottest_part_hangs_together():
    inside = np.zeros((6, 7), dtype=bool)
    inside[0, :5] = inside[:4, 4] = inside[3, 2:5] = True  # a hook
    inside[5, 6] = inside[2, 0] = True
    part = connected(inside, (0, 0))
    inside[5, 6] = inside[2, 0] = False
    assert np.array_equal(part, inside)
    assert not connected(inside, (5, 0)).any()


def test_default_processors_are_the_fast_ones():
    """Else the test above with the plain ones would say nothing new."""
    own = Denoiser.from_pipeline(tiny_pipeline("epsilon")).unet.attn_processors.values()
    assert all(isinstance(one, AttnProcessor2_0) for one in own)
