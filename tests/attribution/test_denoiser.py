"""The denoiser against diffusers' own pipeline and scheduler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attribution import defaults
from attribution.delta import applied
from attribution.denoiser import Denoiser
from attribution.types import Cancelled, UserError
from tests.tiny import LATENT_SHAPE, RESOLUTION, TEXT_DIM, TOKENS, tiny_images, tiny_pipeline

ROOT = Path(__file__).parents[2]


def _batch(denoiser, n=3):
    torch.manual_seed(0)
    latents = torch.randn(n, *LATENT_SHAPE, dtype=torch.float64)
    noise = torch.randn(n, *LATENT_SHAPE, dtype=torch.float64)
    return (
        latents,
        denoiser.encode_text(["a", "b", "c"][:n]),
        noise,
        torch.tensor([50, 450, 950][:n]),
    )


def test_sizes(denoiser_each):
    assert denoiser_each.latent_shape == LATENT_SHAPE
    assert denoiser_each.resolution == RESOLUTION
    assert denoiser_each.n_train_timesteps == 1000


def test_text_states_are_the_pipelines_own(denoiser_each):
    prompts = ["", "abc by 7", "a very long caption " * 20]
    ours = denoiser_each.encode_text(prompts)
    theirs = denoiser_each.pipeline.encode_prompt(prompts, "cpu", 1, False)[0]
    assert ours.shape == (3, TOKENS, TEXT_DIM)
    assert torch.equal(ours, theirs)


def test_loss_matches_the_schedulers_targets(denoiser64):
    latents, cond, noise, t = _batch(denoiser64)
    scheduler = denoiser64.scheduler
    x_t = scheduler.add_noise(latents, noise, t)
    target = (
        noise
        if denoiser64.prediction_type == "epsilon"
        else scheduler.get_velocity(latents, noise, t)
    )
    with torch.no_grad():
        output = denoiser64.unet(x_t, t, cond).sample
        expected = ((output - target) ** 2).mean(dim=(1, 2, 3))
        assert torch.allclose(denoiser64.loss(latents, cond, noise, t), expected, rtol=1e-5)


@torch.no_grad()
def test_against_itself_is_the_square_of_what_the_output_moved_by(denoiser64):
    data = _batch(denoiser64)
    before, _ = denoiser64.predict(*data)
    names = [n for n, _ in denoiser64.unet.named_parameters() if n.endswith("attn2.to_v.weight")]
    watching = denoiser64.against_itself(names)
    assert watching.forwards == 2 and denoiser64.forwards == 1
    assert torch.equal(watching.squared_error(*data), torch.zeros_like(before))
    delta = {name: torch.full_like(denoiser64.unet.get_parameter(name), 0.1) for name in names}
    with applied(denoiser64, delta):
        after, _ = denoiser64.predict(*data)
        assert torch.equal(watching.squared_error(*data), (after - before) ** 2)
    assert float((after - before).abs().max()) > 0
    own, copy = (
        dict(denoiser64.unet.named_parameters()),
        dict(watching.reference.named_parameters()),
    )
    assert {name for name in own if own[name] is not copy[name]} == set(names)


@torch.no_grad()
def test_objectives_share_the_model_and_nothing_else(denoiser64):
    data = _batch(denoiser64)
    eps2 = denoiser64.with_objective("eps2")
    assert eps2.unet is denoiser64.unet and eps2.with_objective("loss").objective == "loss"
    assert not torch.allclose(eps2.loss(*data), denoiser64.loss(*data))
    # a model that is right predicts the noise, whose mean square is what is left
    output, target = denoiser64.predict(*data)
    latents, _, noise, t = data
    assert torch.allclose(denoiser64.predicted_noise(target, latents, noise, t), noise)
    power = denoiser64.predicted_noise(output, latents, noise, t).square().mean((1, 2, 3))
    assert torch.allclose(eps2.loss(*data), power)
    with pytest.raises(UserError, match="loss, eps2"):
        denoiser64.with_objective("eps")


def test_encoded_image_has_the_scaling_factor(denoiser):
    image = tiny_images(1)[0]
    x = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        expected = denoiser.vae.encode(x).latent_dist.mean * denoiser.vae.config.scaling_factor
    assert torch.allclose(denoiser.encode_images([image]), expected, atol=1e-6)


def test_oblong_image_is_padded_on_white(denoiser):
    square = denoiser.prepare_image(Image.new("RGB", (32, 16), "black"))
    assert square.size == (RESOLUTION, RESOLUTION)
    assert square.getpixel((8, 0)) == (255, 255, 255) and square.getpixel((8, 8)) == (0, 0, 0)


def test_generation_repeats_and_does_not_depend_on_the_batch(denoiser_each):
    one = denoiser_each.generate("ab", 7, steps=3)
    assert one.size == (RESOLUTION, RESOLUTION) and one.mode == "RGB"
    again, other = denoiser_each.generate_batch(["ab", "cd"], [7, 8], steps=3)
    assert np.abs(np.asarray(one).astype(int) - np.asarray(again)).max() <= 1
    assert np.array_equal(np.asarray(one), np.asarray(denoiser_each.generate("ab", 7, steps=3)))
    assert not np.array_equal(np.asarray(one), np.asarray(other))


def test_generation_agrees_with_the_pipeline(denoiser_each):
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    parts = {**denoiser_each.pipeline.components}
    parts["scheduler"] = DDIMScheduler.from_config(
        denoiser_each.scheduler.config, clip_sample=False
    )
    pipe = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    start = torch.randn(1, *LATENT_SHAPE, generator=torch.Generator().manual_seed(5))
    theirs = pipe("ab", latents=start, num_inference_steps=4, guidance_scale=3.0).images[0]
    ours = denoiser_each.generate("ab", 5, steps=4, guidance=3.0)
    assert np.abs(np.asarray(ours).astype(int) - np.asarray(theirs)).max() <= 1


def test_generation_can_be_cancelled(denoiser):
    def stop(i, n):
        if i == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        denoiser.generate("ab", 1, steps=5, on_step=stop)


def test_missing_or_unsupported_models_are_refused_in_one_line(tmp_path):
    with pytest.raises(UserError, match="no model"):
        Denoiser.load(tmp_path / "nowhere")
    with pytest.raises(UserError) as caught:
        Denoiser.load(tmp_path)
    assert "\n" not in str(caught.value)
    pipe = tiny_pipeline()
    pipe.scheduler.register_to_config(prediction_type="flow")
    with pytest.raises(UserError, match="prediction_type"):
        Denoiser.from_pipeline(pipe)


def test_a_picture_is_drawn_by_the_products_defaults_unless_asked_otherwise(denoiser):
    asked = denoiser.generate("ab", 7, steps=3, guidance=defaults.GUIDANCE)
    assert denoiser.generate("ab", 7, steps=3).tobytes() == asked.tobytes()


def test_loading_prints_nothing(tiny_model):
    """Not what transformers says of a missing torchvision either, when it is imported."""
    code = f"from attribution.denoiser import Denoiser; Denoiser.load({str(tiny_model)!r})"
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_VERBOSITY")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env=environment, cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize("size", [None, [8, 16]])
def test_a_unet_without_one_square_size_is_refused_in_one_line(size):
    pipe = tiny_pipeline()
    pipe.unet.register_to_config(sample_size=size)
    with pytest.raises(UserError, match=r"sample_size is .*; only a square one is supported$"):
        Denoiser.from_pipeline(pipe)
    pipe.unet.register_to_config(sample_size=[8, 8])
    assert Denoiser.from_pipeline(pipe).latent_shape == (4, 8, 8)
