"""Per-sample gradients of single layers against autograd, sample by sample, in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from attribution.layers import known_layers, tokens_of, unknown

PICTURES, WORDS, ALONE = (3, 4, 6, 5), (3, 7, 4), (3, 4)
LAYERS = {
    "linear": (nn.Linear(4, 5), WORDS),
    "linear without tokens": (nn.Linear(4, 5), ALONE),
    "linear without bias": (nn.Linear(4, 5, bias=False), WORDS),
    "convolution": (nn.Conv2d(4, 5, 3, padding=1), PICTURES),
    "strided": (nn.Conv2d(4, 5, 3, stride=2, padding=1), PICTURES),
    "dilated": (nn.Conv2d(4, 5, (3, 2), dilation=(2, 1), padding=(2, 0)), PICTURES),
    "of one pixel": (nn.Conv2d(4, 5, 1), PICTURES),
    "group norm": (nn.GroupNorm(2, 4), PICTURES),
    "group norm of words": (nn.GroupNorm(2, 4), (3, 4, 7)),
    "layer norm": (nn.LayerNorm(4), WORDS),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layers_gradients_are_each_samples_own(kind):
    layer, shape = LAYERS[kind]
    layer = layer.double()
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():  # norms begin at ones and zeros
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    output = layer(x)
    (delta,) = torch.autograd.grad(output.sin().sum(), output)
    tokens = tokens_of(layer, x, delta)
    for sample in range(shape[0]):
        mine = layer(x[sample : sample + 1]).sin().sum()
        expected = torch.autograd.grad(mine, list(layer.parameters()))
        found = [tokens.weight_gradients()[sample], tokens.bias_gradients()[sample]]
        for one, other in zip(found, expected, strict=False):
            assert one.shape == other.shape
            assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)
    pair = tokens_of(layer, x[:2], delta[:2]).grouped(2)
    both = tokens.weight_gradients()[:2].sum(0, keepdim=True)
    assert torch.allclose(pair.weight_gradients(), both, rtol=1e-9, atol=1e-12)


def test_half_precision_is_widened():
    layer = nn.Linear(4, 5).half()
    tokens = tokens_of(layer, torch.ones(2, 3, 4).half(), torch.ones(2, 3, 5).half())
    assert tokens.weight_gradients().dtype == tokens.bias_gradients().dtype == torch.float32


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.LayerNorm((3, 4)),
        nn.Embedding(4, 4),
    ],
)
def test_other_sorts_are_not_known(layer):
    unet = nn.ModuleDict({"a": layer, "b": nn.Linear(2, 2)})
    names = ["a.weight", "b.weight", "b.bias"]
    assert list(known_layers(unet, names)) == ["b"]
    assert unknown(unet, names) == ["a.weight"]
    with pytest.raises(ValueError, match="no per-sample gradients"):
        tokens_of(layer, torch.ones(1, 4), torch.ones(1, 4))
