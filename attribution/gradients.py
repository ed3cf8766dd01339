"""Per-sample gradients of the loss, and the mean gradient of a query.

| code | meaning |
|---|---|
| `inputs` | x, what a linear layer reads, [B, L, i] |
| `deltas` | δ = ∂L/∂(layer output), [B, L, o] |
| G = δᵀ x | the sample's weight gradient, [o, i]; for keys and values of rank ≤ L (text tokens) |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attribution.denoiser import Denoiser
from attribution.noise import keyed_noise
from attribution.weights import linear_modules

Gradients = dict[str, Tensor]
QUERY_RECORD = "query"


@dataclass(frozen=True)
class Tokens:
    """One linear layer in one batch: inputs x [B, L, i] and output gradients δ [B, L, o]."""

    inputs: Tensor
    deltas: Tensor

    def grouped(self, group: int) -> Tokens:
        """Every `group` consecutive samples as one with group·L tokens: G becomes their sum."""
        return Tokens(
            self.inputs.reshape(-1, group * self.inputs.shape[1], self.inputs.shape[2]),
            self.deltas.reshape(-1, group * self.deltas.shape[1], self.deltas.shape[2]),
        )

    def weight_gradients(self) -> Tensor:
        """G = δᵀ x per sample, [B, o, i]."""
        return self.deltas.transpose(1, 2) @ self.inputs

    def bias_gradients(self) -> Tensor:
        """Σ_l δ_l per sample, [B, o]."""
        return self.deltas.sum(1)


def layer_tokens(
    denoiser: Denoiser,
    latents: Tensor,
    cond: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    names: Sequence[str],
) -> dict[str, Tokens]:
    """x and δ of each linear layer among `names`, by module name, from one forward and backward.

    latents, noise: [B, C, h, w]; cond: [B, L, d]; timesteps: int64 [B]. Samples do not mix, so δ of
    the summed loss is each sample's own. No weight gradient is formed on the way.
    """
    modules = linear_modules(denoiser.unet, names)
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
        name: Tokens(_three_axes(inputs[name]), _three_axes(delta))
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
    Linear layers come from token hooks; a set with any other layer from a loop over samples.
    """
    linear = linear_modules(denoiser.unet, names)
    if all(name.rpartition(".")[0] in linear for name in names):
        tokens = layer_tokens(denoiser, latents, cond, noise, timesteps, names)
        tokens = {name: layer.grouped(group) for name, layer in tokens.items()}
        summed = gradients_from_tokens(tokens, names)
        return {name: _wide(g) / group for name, g in summed.items()}
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
    return {name: _wide(grad) for name, grad in zip(names, grads, strict=True)}


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
        if not output.requires_grad:
            output.requires_grad_(True)
        inputs[name], outputs[name] = args[0].detach(), output
        return output

    return hook


def _three_axes(x: Tensor) -> Tensor:
    """[B, …, f] → [B, L, f]; a layer without tokens has L = 1."""
    return _wide(x).reshape(x.shape[0], -1, x.shape[-1])


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
                rows[name].append(_wide(grad))
    return {name: torch.stack(grads) for name, grads in rows.items()}


def _wide(x: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
