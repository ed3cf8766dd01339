"""The projection keeps inner products as predicted, and is a pure function of its seed."""

from __future__ import annotations

import pytest
import torch

from attribution.projection import (
    BLOCK,
    BlockProjection,
    Projection,
    hadamard,
    share_dimensions,
)

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


def test_error_of_inner_products_falls_with_the_dimension_as_predicted():
    """Relative to ‖g‖‖g'‖, the error of ⟨g, g'⟩ is about 1/√d for nearly orthogonal g and g'."""
    shapes = {"a": (64, 48), "b": (1500,)}
    grads = gradients(24, shapes)
    exact = flat(grads) @ flat(grads).T
    norms = exact.diag().sqrt()
    pairs = ~torch.eye(24, dtype=torch.bool)
    for dim in (64, 256, 1024):
        y = Projection(shapes, dim, seed=2).apply(grads)
        errors = ((y @ y.T - exact) / torch.outer(norms, norms))[pairs]
        assert 0.75 < errors.square().mean().sqrt() * dim**0.5 < 1.25, dim


BLOCKS = [(["b"], 512), (["a", "c"], 256)]


def test_blocks_estimate_each_layers_part_and_together_the_whole():
    grads = gradients(3)
    made = BlockProjection(SHAPES, BLOCKS, scale=4.0)
    y = made.apply(grads)
    assert made.dim == 768 and y.shape == (3, 768) and made.sizes == [1200, 77]
    whole = flat(grads) @ flat(grads).T
    second = torch.cat([grads["a"].flatten(1), grads["c"].flatten(1)], 1)
    part = y[:, made.slices[1]]
    # 256 numbers for 77 parameters lose little; the scale counts twice
    assert torch.allclose(part @ part.T / 16, second @ second.T, atol=0.35 * 77)
    assert torch.allclose(y @ y.T / 16, whole, atol=0.2 * 1277)


def test_blocks_as_wide_as_their_layer_lose_nothing():
    grads = gradients(4)
    blocks = [(["b"], 2048), (["a"], 32), (["c"], 64)]
    y = BlockProjection(SHAPES, blocks, seed=5).apply(grads)
    assert torch.allclose(y @ y.T, flat(grads) @ flat(grads).T, rtol=1e-3, atol=0.1)


def test_settings_make_the_same_projection_and_models_other_ones():
    grads = gradients(2)
    settings = {
        "blocks": [{"parameters": names, "dim": dim} for names, dim in BLOCKS],
        "seed": 3,
        "scale": 0.5,
    }
    y = BlockProjection.from_settings(SHAPES, settings).apply(grads)
    assert torch.equal(y, BlockProjection(SHAPES, BLOCKS, 3, scale=0.5).apply(grads))
    assert not torch.allclose(y, BlockProjection.from_settings(SHAPES, settings, 1).apply(grads))


def test_layers_of_one_shape_are_projected_independently():
    same = torch.randn(1, 30, 30, generator=torch.Generator().manual_seed(0))
    made = BlockProjection({"p": (30, 30), "q": (30, 30)}, [(["p"], 64), (["q"], 64)])
    first, second = made.apply({"p": same, "q": same}).split(64, dim=1)
    assert abs(torch.cosine_similarity(first, second).item()) < 0.5


def test_blocks_of_other_parameters_are_refused():
    with pytest.raises(ValueError, match="other parameters"):
        BlockProjection(SHAPES, BLOCKS).apply({"b": torch.zeros(1, 40, 30)})


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_dimensions_are_shared_by_energy(power):
    energies = [1.0, 4.0, 16.0]
    dims = share_dimensions([10_000] * 3, energies, 700, power)
    assert sum(dims) == 700
    weights = [e**power for e in energies]
    for dim, weight in zip(dims, weights, strict=True):
        assert abs(dim - 700 * weight / sum(weights)) <= 1


def test_no_layer_gets_nothing_or_more_than_it_has():
    assert share_dimensions([5, 100, 100], [1e6, 1.0, 0.0], 64) == [8, 55, 1]
    assert share_dimensions([5, 3], [1.0, 1.0], 1000) == [8, 4]
    assert share_dimensions([50, 50], [0.0, 0.0], 10) == [5, 5]
