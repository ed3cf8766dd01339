"""K-FAC against dense matrices in float64, and what half precision loses."""

from __future__ import annotations

import pytest
import torch

from attribution.gradients import layer_tokens
from attribution.kfac import KFAC, opened
from attribution.weights import parameter_names
from tests.attribution.test_gradients import batch, looped

DAMPING = 0.1
MOST = 700  # weights of a matrix whose dense curvature is inverted


def factors(tokens, module):
    """A and B over all tokens."""
    x, delta = (
        torch.cat([getattr(part[module], what) for part in tokens]).flatten(0, 1)
        for what in ("inputs", "deltas")
    )
    return x.T @ x / len(x), delta.T @ delta / len(delta)


@pytest.fixture(scope="module", params=["attn", "full"])
def world(request, denoiser64):
    names = parameter_names(denoiser64.unet, request.param)
    batches = [batch(denoiser64, 4, seed) for seed in (0, 1)]
    loops = [looped(denoiser64, data, names) for data in batches]
    gradients = {n: torch.cat([g[n] for g in loops]) for n in names}
    tokens = [layer_tokens(denoiser64, *data, names) for data in batches]
    made = KFAC()
    for part in tokens:
        made.accumulate(part, names)
    return made, tokens, names, gradients


@pytest.mark.parametrize(("kept", "off"), [(torch.float64, 1e-5), (torch.float16, 0.05)])
def test_it_is_the_scaled_kronecker_product_of_both_covariances(world, kept, off):
    """F⁻¹g by the dense s · B ⊗ A of sums over all tokens, s from a loop's gradients."""
    made, tokens, _, gradients = world
    state = made.state(kept)
    query = {name: g[0] - 2 * g[3] for name, g in gradients.items()}
    solved = opened(state).damped(DAMPING).solve(query)
    assert list(solved) == list(query)
    kinds = set()
    for name, g in gradients.items():
        if g[0].ndim < 2 or g[0].numel() > MOST:
            continue
        a, b = factors(tokens, name.removesuffix(".weight"))
        dense = torch.kron(b, a)
        dense *= g.flatten(1).square().sum(1).mean() / dense.trace()
        dense += DAMPING * dense.trace() / len(dense) * torch.eye(len(dense), dtype=dense.dtype)
        expected = torch.linalg.solve(dense, query[name].flatten()).reshape(query[name].shape)
        scale = float(expected.abs().max())
        assert torch.allclose(solved[name], expected, atol=off * scale), name
        kinds.add(g[0].ndim)
    assert 2 in kinds


def test_the_trace_is_that_of_the_layers_fisher(world):
    made, _, _, gradients = world
    found = opened(made.state()).values.values
    for module, values in found.items():
        expected = gradients[f"{module}.weight"].flatten(1).square().sum(1).mean()
        assert float(values.sum()) == pytest.approx(float(expected), rel=1e-5)
    assert {f"{module}.weight" for module in found} == {
        name for name, g in gradients.items() if g[0].ndim > 1
    }


def test_what_is_no_matrix_is_diagonal(world):
    made, _, names, gradients = world
    rest = opened(made.state()).rest.values
    assert set(rest) == {name for name in names if gradients[name][0].ndim == 1}
    for name, values in rest.items():
        expected = gradients[name].square().mean(0)
        assert torch.allclose(values.double(), expected, rtol=1e-5), name


def test_it_keeps_halves_in_half_precision(world):
    made, *_ = world
    state = made.state()
    for name, a in made.covariances.inputs.items():
        n = len(a)
        half = state[f"cov_in.{name}"]
        assert half.shape == (n * (n + 1) // 2,) and half.dtype == torch.float16


def test_sums_go_on_where_they_were(world):
    """The first batch, kept and read back, then the second: the numbers of both at once."""
    made, tokens, names, _ = world
    first = KFAC()
    first.accumulate(tokens[0], names)
    again = KFAC.from_sums({name: value.clone() for name, value in first.sums().items()})
    again.accumulate(tokens[1], names)
    expected = made.sums()
    assert set(again.sums()) == set(expected)
    for name, value in again.sums().items():
        assert torch.equal(value, expected[name]), name


def test_a_layer_that_nothing_moves_stays(denoiser64):
    """Zero gradients: no division by zero, and nothing moves."""
    names = parameter_names(denoiser64.unet, "kv")
    tokens = layer_tokens(denoiser64, *batch(denoiser64, 2, 0), names)
    still = {
        name: type(part)(part.inputs, 0 * part.deltas, part.shape) for name, part in tokens.items()
    }
    made = KFAC()
    made.accumulate(still, names)
    query = {name: torch.ones_like(denoiser64.unet.get_parameter(name)) for name in names}
    solved = opened(made.state()).damped(DAMPING).solve(query)
    assert all(float(value.abs().max()) == 0 for value in solved.values())
