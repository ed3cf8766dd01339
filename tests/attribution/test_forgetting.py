"""See it forget: growing strengths of one delta; at every pause the model is as it was."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from attribution import forgetting
from attribution.forgetting import Drawing, forget, loss_increase, solve_scales
from attribution.types import Forgetting, Progress, Query
from attribution.unlearning import Delta, Unlearned
from attribution.weights import parameter_names
from tests.tiny import tiny_images

STRENGTHS = (0.0, 0.05, 0.2)
OTHERS = ("b by 1", "c by 2")


def weights(denoiser) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in denoiser.unet.state_dict().items()}


def same(before: dict[str, torch.Tensor], denoiser) -> bool:
    after = denoiser.unet.state_dict()
    return all(torch.equal(before[name], after[name]) for name in before)


@pytest.fixture(scope="module")
def inputs(denoiser):
    """A random delta large enough to be seen, and the query's loss increase along it."""
    generator = torch.Generator().manual_seed(0)
    names = parameter_names(denoiser.unet, "kv")
    shapes = {name: denoiser.unet.get_parameter(name).shape for name in names}
    delta = Delta({n: 0.3 * torch.randn(s, generator=generator) for n, s in shapes.items()})
    latents = denoiser.encode_images(tiny_images(1))
    increase = loss_increase(denoiser, latents, denoiser.encode_text(["a"]), delta, (250, 750))
    return Unlearned(delta, increase(1.0), 0.1, 1.0, 1.1, 3), increase


def test_scales_reach_the_strengths() -> None:
    solved = solve_scales(lambda s: 0.1 * s + 0.1 * s**2, (0.0, 0.1, 0.5, 1.0), known=0.2)
    assert solved[0] == (0.0, 0.0)
    for (scale, reached), wanted in zip(solved[1:], (0.1, 0.5, 1.0), strict=True):
        assert reached == pytest.approx(wanted, rel=0.03)
        assert reached == pytest.approx(0.1 * scale + 0.1 * scale**2)


def test_out_of_reach_is_the_largest_found() -> None:
    (scale, reached), *_ = solve_scales(lambda s: math.tanh(s) * 0.3, (0.5,), known=0.2)
    assert 0 < reached < 0.5 and 1 < scale <= forgetting.MAX_SCALE


def test_forgetting(denoiser, inputs) -> None:
    unlearned, increase = inputs
    before = weights(denoiser)
    image = denoiser.generate("a", 3, steps=3, guidance=2.0)
    query = Query("a", image, seed=3, steps=3, guidance=2.0)
    drawing = Drawing.of(query, OTHERS, 3, 2.0)
    items = []
    for item in forget(denoiser, unlearned, increase, STRENGTHS, drawing):
        assert same(before, denoiser)
        items.append(item)
    *progress, result = items
    assert all(isinstance(item, Progress) for item in progress) and len(progress) == 4 * 3
    assert [p.done for p in progress] == list(range(4, 16)) and progress[-1].done == 15
    assert isinstance(result, Forgetting) and result.note == ""
    assert result.images[0] is image and len(result.images) == 3
    assert result.strengths == STRENGTHS and result.scales[0] == result.changes[0] == 0.0
    assert result.scales[1] < result.scales[2]
    assert result.changes[1] > 0 or result.changes[2] > 0
    assert [other.prompt for other in result.others] == list(OTHERS)
    assert same(before, denoiser)


def test_an_upload_is_drawn_from_seed_0_and_says_so(denoiser, inputs) -> None:
    drawing = Drawing.of(Query("a", tiny_images(1)[0]), (), 2, 1.0)
    assert drawing.seed == forgetting.UPLOAD_SEED and drawing.original is None
    *_, result = forget(denoiser, *inputs, (0.0, 0.1), drawing)
    assert "seed 0" in result.note and result.others == ()
    drawn = denoiser.generate("a", 0, steps=2, guidance=1.0)
    assert np.array_equal(np.asarray(result.images[0]), np.asarray(drawn))


def test_closing_it_halfway_leaves_the_model_as_it_was(denoiser, inputs) -> None:
    before = weights(denoiser)
    job = forget(denoiser, *inputs, STRENGTHS, Drawing("a", 1, 4, 2.0))
    for _ in range(6):
        next(job)
    job.close()
    assert same(before, denoiser)
