"""Per-sample gradients of the loss, and the mean gradient of a query."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attribution.denoiser import Denoiser
from attribution.layers import Tokens, known_layers, only_linear, tokens_of, widened
from attribution.noise import keyed_noise

Gradients = dict[str, Tensor]
QUERY_RECORD = "query"


def layer_tokens(
    denoiser: Denoiser,
    latents: Tensor,
    cond: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    names: Sequence[str],
) -> dict[str, Tokens]:
    """x and δ of each layer that owns one of `names`, by module name: one forward and backward.
    Layers of other sorts than attribution.layers knows are left out.

    latents, noise: [B, C, h, w]; cond: [B, L, d]; timesteps: int64 [B]. Samples do not mix, so δ of
    the summed loss is each sample's own. No weight gradient is formed on the way. RuntimeError
    where a layer runs twice in a forward: its gradient would be that of the second time.
    """
    modules = known_layers(denoiser.unet, names)
    inputs: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    handles = [m.register_forward_hook(_keep(name, inputs, outputs)) for name, m in modules.items()]
    try:
        with torch.enable_grad():
            loss = denoiser.loss(latents, cond, noise, timesteps).sum()
        deltas = torch.autograd.grad(loss, [outputs[name] for name in modules])
    finally:
        for handle in handles:
            handle.remove()
    return {
        name: tokens_of(modules[name], inputs[name], delta)
        for name, delta in zip(modules, deltas, strict=True)
    }


def gradients_from_tokens(tokens: Mapping[str, Tokens], names: Sequence[str]) -> Gradients:
    """Per-sample gradients by parameter name, [B, *shape], of the layers in `tokens`."""
    made = {}
    for name in names:
        owner, _, kind = name.rpartition(".")
        layer = tokens[owner]
        made[name] = layer.weight_gradients() if kind == "weight" else layer.bias_gradients()
    return made


def per_sample_gradients(
    denoiser: Denoiser,
    latents: Tensor,
    cond: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    names: Sequence[str],
    *,
    group: int = 1,
) -> Gradients:
    """∇L of each sample, name → [B / group, *shape] in the error's dtype (float32).

    With group > 1 every `group` consecutive samples (a record's timesteps, say) are averaged.
    Linear layers come from hooks; a set with any other layer from a loop over samples, which takes
    no longer there (a convolution's work is the same) and a fraction of the memory.
    """
    if only_linear(denoiser.unet, names):
        tokens = layer_tokens(denoiser, latents, cond, noise, timesteps, names)
        tokens = {name: layer.grouped(group) for name, layer in tokens.items()}
        summed = gradients_from_tokens(tokens, names)
        return {name: widened(g) / group for name, g in summed.items()}
    return _looped_gradients(denoiser, latents, cond, noise, timesteps, names, group)


def query_draws(
    denoiser: Denoiser,
    timesteps: Sequence[int],
    draws: int,
    seed: int,
    namespace: str = "query-gradient",
    first_draw: int = 0,
) -> tuple[Tensor, Tensor]:
    """The query's seeded (ε, t) pairs: noise [T·draws, C, h, w], timesteps int64 [T·draws]."""
    key: dict[str, Any] = {"namespace": namespace, "seed": seed, "record_id": QUERY_RECORD}
    pairs = [(int(t), draw) for t in timesteps for draw in range(first_draw, first_draw + draws)]
    noise = [keyed_noise(denoiser.latent_shape, timestep=t, draw=d, **key) for t, d in pairs]
    return torch.stack(noise), torch.tensor([t for t, _ in pairs])


def region_loss(error: Tensor, weights: Tensor | None = None) -> Tensor:
    """L_R = Σ w·e / Σ w per sample, e the mean over channels of error [B, C, h, w]; [B].

    weights: latent-cell weights w [h, w] of a region, or None for the whole image.
    """
    if weights is None:
        return error.mean(dim=(1, 2, 3))
    w = weights.to(error)
    return (error.mean(dim=1) * w).sum(dim=(1, 2)) / w.sum()


def query_gradient(
    denoiser: Denoiser,
    latents: Tensor,
    cond: Tensor,
    timesteps: Sequence[int],
    draws: int,
    seed: int,
    names: Sequence[str],
    weights: Tensor | None = None,
    *,
    first_draw: int = 0,
    batch_size: int = 20,
) -> Gradients:
    """∇L(ẑ, θ) averaged over timesteps × draws, name → [*shape], at the weights as they are now.

    latents: [1, C, h, w]; cond: [1, L, d]; weights: latent-cell weights [h, w] of a region; draws
    are numbered from first_draw, so that each of many steps can have its own.
    """
    noise, t = query_draws(denoiser, timesteps, draws, seed, first_draw=first_draw)
    total: Gradients = {}
    for part in torch.arange(len(t)).split(batch_size):
        some = draws_gradient(denoiser, latents, cond, noise[part], t[part], names, weights)
        share = len(part) / len(t)
        total = {name: total.get(name, 0.0) + share * grad for name, grad in some.items()}
    return total


def draws_gradient(
    denoiser: Denoiser,
    latents: Tensor,
    cond: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    names: Sequence[str],
    weights: Tensor | None = None,
) -> Gradients:
    """∇L(ẑ, θ) averaged over the draws noise [B, C, h, w], timesteps [B]; see query_gradient."""
    count = len(timesteps)
    with trainable(denoiser.unet, names) as parameters, torch.enable_grad():
        error = denoiser.squared_error(
            latents.expand(count, -1, -1, -1), cond.expand(count, -1, -1), noise, timesteps
        )
        grads = torch.autograd.grad(region_loss(error, weights).mean(), parameters)
    return {name: widened(grad) for name, grad in zip(names, grads, strict=True)}


@contextmanager
def trainable(unet: nn.Module, names: Sequence[str]) -> Iterator[list[nn.Parameter]]:
    """The named parameters, requiring gradients inside the block only."""
    parameters = [unet.get_parameter(name) for name in names]
    before = [p.requires_grad for p in parameters]
    try:
        for p in parameters:
            p.requires_grad_(True)
        yield parameters
    finally:
        for p, flag in zip(parameters, before, strict=True):
            p.requires_grad_(flag)


def _keep(name: str, inputs: dict[str, Tensor], outputs: dict[str, Tensor]) -> Any:
    """Forward hook that keeps x and puts the output into the graph even where it starts one."""

    def hook(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if name in inputs:
            raise RuntimeError(f"{name} runs twice in a forward")
        if not output.requires_grad:
            output.requires_grad_(True)
        inputs[name], outputs[name] = args[0].detach(), output
        return output

    return hook


def _looped_gradients(
    denoiser: Denoiser,
    latents: Tensor,
    cond: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    names: Sequence[str],
    group: int,
) -> Gradients:
    rows: dict[str, list[Tensor]] = {name: [] for name in names}
    with trainable(denoiser.unet, names) as parameters, torch.enable_grad():
        for part in torch.arange(len(latents)).split(group):
            batch = (latents[part], cond[part], noise[part], timesteps[part])
            grads = torch.autograd.grad(denoiser.loss(*batch).mean(), parameters)
            for name, grad in zip(names, grads, strict=True):
                rows[name].append(widened(grad))
    return {name: torch.stack(grads) for name, grads in rows.items()}
