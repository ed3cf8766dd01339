"""Per-sample and query gradients against plain autograd loops, in float64."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from attribution.gradients import (
    gradients_from_tokens,
    layer_tokens,
    per_sample_gradients,
    query_draws,
    query_gradient,
    region_loss,
    trainable,
)
from attribution.layers import known_layers, unknown
from attribution.types import UserError
from attribution.weights import WEIGHT_SETS, parameter_names
from tests.tiny import LATENT_SHAPE, tiny_captions


def batch(denoiser, n=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(n, *LATENT_SHAPE, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, *LATENT_SHAPE, generator=generator, dtype=torch.float64)
    timesteps = torch.randint(0, 1000, (n,), generator=generator)
    return latents, denoiser.encode_text(tiny_captions(n)), noise, timesteps


def looped(denoiser, data, names):
    rows = []
    with trainable(denoiser.unet, names) as parameters:
        for i in range(len(data[0])):
            loss = denoiser.loss(*[x[i : i + 1] for x in data])[0]
            rows.append(torch.autograd.grad(loss, parameters))
    return {name: torch.stack(g) for name, g in zip(names, zip(*rows, strict=True), strict=True)}


@pytest.mark.parametrize("weight_set", WEIGHT_SETS)
def test_per_sample_gradients_match_a_loop(denoiser64, weight_set):
    names = parameter_names(denoiser64.unet, weight_set)
    data = batch(denoiser64)
    fast, slow = per_sample_gradients(denoiser64, *data, names), looped(denoiser64, data, names)
    assert list(fast) == list(names)
    for name in names:
        assert fast[name].shape == slow[name].shape
        assert torch.allclose(fast[name], slow[name], rtol=1e-8, atol=1e-12), name


@pytest.mark.parametrize("weight_set", ["kv", "full"])
def test_gradients_of_the_squared_output_match_autograd_on_the_bare_unet(denoiser64, weight_set):
    """D-TRAK's ‖ε_θ‖²: ε from the scheduler's own x_t, one sample at a time."""
    names = parameter_names(denoiser64.unet, weight_set)
    latents, cond, noise, t = batch(denoiser64)
    fast = per_sample_gradients(denoiser64.with_objective("eps2"), latents, cond, noise, t, names)
    assert denoiser64.objective == "loss"
    for i in range(len(t)):
        x_t = denoiser64.scheduler.add_noise(latents[i], noise[i], t[i : i + 1])[None]
        with trainable(denoiser64.unet, names) as parameters:
            output = denoiser64.unet(x_t, t[i], cond[i : i + 1]).sample
            if denoiser64.prediction_type == "v_prediction":
                bar = denoiser64.scheduler.alphas_cumprod[t[i]]
                output = bar.sqrt() * output + (1 - bar).sqrt() * x_t
            slow = torch.autograd.grad(output.square().mean(), parameters)
        for name, gradient in zip(names, slow, strict=True):
            # the scheduler keeps its coefficients in float32
            scale = float(gradient.abs().max())
            assert torch.allclose(fast[name][i], gradient, rtol=1e-4, atol=1e-5 * scale), name


@pytest.mark.parametrize("weight_set", ["kv", "full"])
def test_grouped_gradients_are_means(denoiser64, weight_set):
    names = parameter_names(denoiser64.unet, weight_set)
    data = batch(denoiser64)
    whole = per_sample_gradients(denoiser64, *data, names)
    grouped = per_sample_gradients(denoiser64, *data, names, group=2)
    for name in names:
        expected = whole[name].unflatten(0, (2, 2)).mean(1)
        assert torch.allclose(grouped[name], expected, rtol=1e-8, atol=1e-12)


def test_a_batch_of_linear_layers_is_one_forward(denoiser):
    runs = []
    handle = denoiser.unet.register_forward_pre_hook(lambda *_: runs.append(1))
    for weight_set, forwards in (("kv", 1), ("cross-attn", 1), ("full", 4)):
        names = parameter_names(denoiser.unet, weight_set)
        per_sample_gradients(denoiser, *batch(denoiser), names)
        assert len(runs) == forwards
        runs.clear()
    handle.remove()


def test_tokens_of_every_layer_give_the_same_gradients(denoiser64):
    """Convolutions and norms too, which EK-FAC takes from one forward."""
    names, data = parameter_names(denoiser64.unet, "full"), batch(denoiser64, 2)
    assert not unknown(denoiser64.unet, names)
    found = gradients_from_tokens(layer_tokens(denoiser64, *data, names), names)
    for name, gradient in looped(denoiser64, data, names).items():
        assert found[name].shape == gradient.shape
        assert torch.allclose(found[name], gradient, rtol=1e-8, atol=1e-12), name


def test_a_layer_that_runs_twice_is_refused(denoiser64):
    names = parameter_names(denoiser64.unet, "kv")
    layer = denoiser64.unet.get_submodule(names[0].removesuffix(".weight"))

    def once_more(module, args, _):
        twice.remove()
        return module(*args)

    twice = layer.register_forward_hook(once_more)
    with pytest.raises(RuntimeError, match="runs twice"):
        layer_tokens(denoiser64, *batch(denoiser64), names)


def test_nothing_is_left_behind(denoiser):
    names = parameter_names(denoiser.unet, "full")
    before = hooks(denoiser.unet)
    per_sample_gradients(denoiser, *batch(denoiser), names)
    assert not any(p.requires_grad for p in denoiser.unet.parameters())
    assert all(p.grad is None for p in denoiser.unet.parameters())
    assert hooks(denoiser.unet) == before


def hooks(unet):
    return [(*m._forward_pre_hooks, *m._forward_hooks) for m in unet.modules()]


def test_text_inputs_are_the_text(denoiser):
    data = batch(denoiser)
    tokens = layer_tokens(denoiser, *data, parameter_names(denoiser.unet, "kv"))
    assert all(torch.equal(layer.inputs, data[1]) for layer in tokens.values())


@pytest.mark.parametrize("weighted", [False, True])
def test_query_gradient_matches_one_big_loss(denoiser64, weighted):
    names = parameter_names(denoiser64.unet, "kv")
    latents, cond, _, _ = batch(denoiser64, 1)
    weights = torch.rand(LATENT_SHAPE[1:], dtype=torch.float64) if weighted else None
    noise, t = query_draws(denoiser64, (50, 550), 3, seed=1)
    with trainable(denoiser64.unet, names) as parameters:
        n = len(t)
        error = denoiser64.squared_error(
            latents.expand(n, -1, -1, -1), cond.expand(n, -1, -1), noise, t
        )
        if weighted:
            loss = (error.mean(1) * weights).sum() / weights.sum() / n
        else:
            loss = error.mean()
        expected = torch.autograd.grad(loss, parameters)
    got = query_gradient(denoiser64, latents, cond, (50, 550), 3, 1, names, weights, batch_size=4)
    for name, gradient in zip(names, expected, strict=True):
        assert torch.allclose(got[name], gradient, rtol=1e-7, atol=1e-12)


def test_uniform_region_is_the_whole_image():
    error = torch.rand(3, 4, 8, 8)
    assert torch.allclose(region_loss(error, torch.full((8, 8), 0.3)), region_loss(error))


def test_weight_sets_nest(denoiser):
    sets = [set(parameter_names(denoiser.unet, name)) for name in WEIGHT_SETS]
    assert all(a < b for a, b in pairwise(sets))
    kv = known_layers(denoiser.unet, parameter_names(denoiser.unet, "kv"))
    assert len(kv) == len(sets[0]) and all(m.in_features == 16 for m in kv.values())
    with pytest.raises(UserError, match="weight set"):
        parameter_names(denoiser.unet, "all")
