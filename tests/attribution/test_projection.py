"""The projection keeps inner products as predicted, and is a pure function of its seed."""

from __future__ import annotations

import pytest
import torch

from attribution.projection import BLOCK, Projection, hadamard

SHAPES = {"b": (40, 30), "a": (17,), "c": (5, 4, 3)}


def gradients(n, shapes=SHAPES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(n, *shape, generator=generator) for name, shape in shapes.items()}


def flat(grads):
    return torch.cat([grads[n].flatten(1) for n in sorted(grads)], dim=1)


def test_hadamard_is_orthogonal():
    h = hadamard(16)
    assert torch.equal(h @ h.T, 16 * torch.eye(16))


def test_full_dimension_is_an_isometry():
    grads = gradients(4)
    y = Projection(SHAPES, 2048).apply(grads)
    exact = flat(grads) @ flat(grads).T
    assert torch.allclose(y @ y.T, exact, rtol=1e-3, atol=0.1)


@pytest.mark.parametrize("shapes", [SHAPES, {"w": (3 * BLOCK + 100,)}])
def test_inner_products_are_unbiased_with_the_predicted_variance(shapes):
    grads, dim = gradients(2, shapes), 256
    a, b = flat(grads)
    b = b + 0.5 * a
    grads = {n: torch.stack([grads[n][0], grads[n][1] + 0.5 * grads[n][0]]) for n in shapes}
    exact = (a @ b).item()
    estimates = []
    for seed in range(40):
        y = Projection(shapes, dim, seed).apply(grads)
        estimates.append((y[0] @ y[1]).item())
    estimates = torch.tensor(estimates)
    predicted = ((a.norm() ** 2 * b.norm() ** 2 + exact**2) / dim).sqrt().item()
    assert abs(estimates.mean() - exact) < 4 * predicted / 40**0.5
    assert 0.6 * predicted < estimates.std() < 1.4 * predicted


def test_pure_function_of_seed_and_independent_of_batch_and_order():
    grads = gradients(5)
    first = Projection(SHAPES, 64, 1)
    y = first.apply(grads)
    assert y.dtype == torch.float32 and y.shape == (5, 64)
    reordered = dict(reversed(grads.items()))
    assert torch.equal(y, Projection(dict(reversed(SHAPES.items())), 64, 1).apply(reordered))
    single = torch.cat([first.apply({n: g[i : i + 1] for n, g in grads.items()}) for i in range(5)])
    assert torch.allclose(y, single, atol=1e-4)
    assert not torch.allclose(y, Projection(SHAPES, 64, 2).apply(grads), atol=0.1)


def test_other_parameters_are_refused():
    with pytest.raises(ValueError, match="other parameters"):
        Projection(SHAPES, 8).apply({"a": torch.zeros(1, 17)})
