"""What the gradients of a layer's parameters are made of, sample by sample.

| code | meaning |
|---|---|
| `inputs` | x, what the layer's weight meets, [B, L, i] |
| `deltas` | δ = ∂L/∂(layer output), [B, L, o] |
| L | tokens of a text or picture, places of a convolution, 1 where there are none |
| `Tokens` | linear layers, and convolutions, whose x is the patch under each place: G = δᵀ x |
| `Scales` | norms, whose x is normalised already: one weight a feature, G = Σ_l x ⊙ δ |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Tokens:
    """One layer in one batch: inputs x [B, L, i] and output gradients δ [B, L, o]. shape: of its
    weight, where that is not [o, i]."""

    inputs: Tensor
    deltas: Tensor
    shape: tuple[int, ...] = ()

    def grouped(self, group: int) -> Tokens:
        """Every `group` consecutive samples as one with group·L tokens: G becomes their sum."""
        inputs, deltas = (
            x.reshape(-1, group * x.shape[1], x.shape[2]) for x in (self.inputs, self.deltas)
        )
        return replace(self, inputs=inputs, deltas=deltas)

    def weight_gradients(self) -> Tensor:
        """G per sample, [B, *weight's shape]."""
        made = self.deltas.transpose(1, 2) @ self.inputs
        return made.reshape(-1, *self.shape) if self.shape else made

    def bias_gradients(self) -> Tensor:
        """Σ_l δ_l per sample, [B, o]."""
        return self.deltas.sum(1)


class Scales(Tokens):
    """One norm in one batch: x after normalising, before its weight and bias."""

    def weight_gradients(self) -> Tensor:
        """G per sample, [B, c]."""
        return (self.inputs * self.deltas).sum(1)


def known_layers(unet: nn.Module, names: Iterable[str]) -> dict[str, nn.Module]:
    """The layers that own a parameter among `names` and that `tokens_of` reads: module name →
    layer, in order."""
    owners = dict.fromkeys(name.rpartition(".")[0] for name in names)
    modules = {owner: unet.get_submodule(owner) for owner in owners}
    return {owner: module for owner, module in modules.items() if _reader(module) is not None}


def unknown(unet: nn.Module, names: Iterable[str]) -> list[str]:
    """Those of `names` whose layer is of a sort that `tokens_of` does not read."""
    names = list(names)
    known = known_layers(unet, names)
    return [name for name in names if name.rpartition(".")[0] not in known]


def only_linear(unet: nn.Module, names: Iterable[str]) -> bool:
    """Whether every one of `names` belongs to a linear layer."""
    owners = {name.rpartition(".")[0] for name in names}
    return all(isinstance(unet.get_submodule(owner), nn.Linear) for owner in owners)


def tokens_of(module: nn.Module, x: Tensor, delta: Tensor) -> Tokens:
    """Of a layer that read x and whose output has the gradient δ; in float32, or float64 as is.
    ValueError for a sort of layer that is not known."""
    reader = _reader(module)
    if reader is None:
        raise ValueError(f"no per-sample gradients of a {type(module).__name__}")
    return reader(module, widened(x), widened(delta))


def widened(x: Tensor) -> Tensor:
    """Half precision to float32; float32 and float64 as they are."""
    return x.float() if x.element_size() < 4 else x


# ---------------------------------------------------------------------- kinds


def _linear(module: nn.Module, x: Tensor, delta: Tensor) -> Tokens:
    return Tokens(_rows(x), _rows(delta))


def _convolution(module: nn.Module, x: Tensor, delta: Tensor) -> Tokens:
    assert isinstance(module, nn.Conv2d) and not isinstance(module.padding, str)
    patches = F.unfold(x, module.kernel_size, module.dilation, module.padding, module.stride)
    return Tokens(patches.transpose(1, 2), _places(delta), tuple(module.weight.shape))


def _group_norm(module: nn.Module, x: Tensor, delta: Tensor) -> Tokens:
    assert isinstance(module, nn.GroupNorm)
    normal = F.group_norm(x, module.num_groups, eps=module.eps)
    return Scales(_places(normal), _places(delta))


def _layer_norm(module: nn.Module, x: Tensor, delta: Tensor) -> Tokens:
    assert isinstance(module, nn.LayerNorm)
    normal = F.layer_norm(x, module.normalized_shape, eps=module.eps)
    return Scales(_rows(normal), _rows(delta))


_Reader = Callable[[nn.Module, Tensor, Tensor], Tokens]
_READERS: Mapping[type[nn.Module], _Reader] = {
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    nn.GroupNorm: _group_norm,
    nn.LayerNorm: _layer_norm,
}


def _reader(module: nn.Module) -> _Reader | None:
    for kind, reader in _READERS.items():
        if isinstance(module, kind):
            return reader if _plain(module) else None
    return None


def _plain(module: nn.Module) -> bool:
    """Whether a layer is of the plain sort that its reader understands."""
    if isinstance(module, nn.Conv2d):
        zeros = module.padding_mode == "zeros" and not isinstance(module.padding, str)
        return module.groups == 1 and zeros
    return not isinstance(module, nn.LayerNorm) or len(module.normalized_shape) == 1


def _rows(x: Tensor) -> Tensor:
    """[B, …, f] → [B, L, f]; a layer without tokens has L = 1."""
    return x.reshape(x.shape[0], -1, x.shape[-1])


def _places(x: Tensor) -> Tensor:
    """[B, c, …] → [B, L, c]."""
    return x.flatten(2).transpose(1, 2) if x.ndim > 2 else x[:, None]
