"""Ablations of unlearning against sums by hand: the squared output, and a step of no length."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attribution.gradients import query_draws, trainable
from attribution.scoring import Scores, score_records
from attribution.types import UserError
from attribution.unlearning import Delta, UnlearnConfig, unlearn
from attribution.weights import parameter_names
from tests.attribution.worlds import TIMESTEPS, World, finished


@pytest.fixture(scope="module")
def world64(denoiser64):
    return World.make(denoiser64, 6)


def squared_output(denoiser, latents, cond, noise, t):
    """‖ε_θ‖² per element, [B], from the bare UNet and the scheduler's ᾱ."""
    bar = denoiser.scheduler.alphas_cumprod[t].double().view(-1, 1, 1, 1)
    x_t = bar.sqrt() * latents + (1 - bar).sqrt() * noise
    output = denoiser.unet(x_t, t, cond).sample
    if denoiser.prediction_type == "v_prediction":
        output = bar.sqrt() * output + (1 - bar).sqrt() * x_t
    return output.square().mean(dim=(1, 2, 3))


def test_one_newton_step_on_the_squared_output_by_hand(world64):
    denoiser = world64.denoiser
    z, c = world64.latents([2]), denoiser.encode_text(["ab by 2"])
    fisher = World(denoiser.with_objective("eps2"), world64.stored, world64.texts).fisher()
    config = UnlearnConfig(stride=250, draws=2, relative_increase=0.005, steps=1, objective="eps2")
    found = finished(unlearn(denoiser, z, c, fisher, config))
    names = parameter_names(denoiser.unet, "kv")
    noise, t = query_draws(denoiser, (125, 375, 625, 875), 2, 0)
    batch = (z.expand(8, -1, -1, -1), c.expand(8, -1, -1), noise, t)
    with trainable(denoiser.unet, names) as parameters:
        value = squared_output(denoiser, *batch).mean()
        gradients = torch.autograd.grad(value, parameters)
    for name, gradient in zip(names, gradients, strict=True):
        f = fisher.values[name]
        by_hand = found.alpha_over_n * gradient / (f + 0.1 * f.mean())
        assert torch.allclose(
            found.delta[name], by_hand, rtol=1e-4, atol=1e-4 * by_hand.abs().max()
        )
    assert found.reached == pytest.approx(0.005, rel=0.03)
    noise, t = query_draws(denoiser, (125, 375, 625, 875), 2, 0, "line-search")
    with torch.no_grad():
        value = squared_output(denoiser, z.expand(8, -1, -1, -1), c.expand(8, -1, -1), noise, t)
    assert found.loss0 == pytest.approx(float(value.mean()), rel=1e-5)


@pytest.mark.parametrize("objective", ["loss", "eps2"])
def test_a_step_of_no_length_changes_no_score(world64, objective):
    denoiser = world64.denoiser.with_objective(objective)
    view = World(denoiser, world64.stored, world64.texts)
    base, rows = view.losses(), np.arange(len(view))
    names = parameter_names(denoiser.unet, "kv")
    zeros = Delta({n: torch.zeros_like(denoiser.unet.get_parameter(n)) for n in names})
    assert zeros.norm() == 0
    found = finished(score_records(denoiser, view, base, rows, zeros, TIMESTEPS, 0))
    assert isinstance(found, Scores)
    assert np.nanmax(np.abs(found.cells)) < 1e-6 * np.nanmean(base)
    torch.manual_seed(0)
    other = Delta({n: 0.05 * torch.randn_like(zero) for n, zero in zeros.items()})
    moved = finished(score_records(denoiser, view, base, rows, other, TIMESTEPS, 0))
    assert np.nanmean(np.abs(moved.cells)) > 1e-5 * np.nanmean(base)


def test_an_objective_of_another_name_is_refused():
    with pytest.raises(UserError, match="objective is one of loss, eps2"):
        UnlearnConfig(objective="eps")
