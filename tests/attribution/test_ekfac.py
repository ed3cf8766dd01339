"""EK-FAC against dense matrices in float64: keys and values, and every weight of the UNet."""

from __future__ import annotations

import pytest
import torch

from attribution.ekfac import EKFAC, Covariances
from attribution.gradients import layer_tokens
from attribution.types import UserError
from attribution.weights import parameter_names
from tests.attribution.test_gradients import batch, looped

DAMPING = 0.1
MOST = 700  # weights of a matrix whose dense curvature is inverted


def made(denoiser, batches, names):
    """The EK-FAC of some batches, and its layers' tokens."""
    tokens = [layer_tokens(denoiser, *data, names) for data in batches]
    covariances = Covariances()
    for part in tokens:
        covariances.accumulate(part)
    ekfac = EKFAC.from_covariances(covariances)
    matrices = {f"{module}.weight" for module in ekfac.q_out}
    rest = [name for name in names if name not in matrices]
    for part in tokens:
        ekfac.accumulate(part, rest)
    return ekfac, tokens, rest


def dense_solve(tokens, gradients, query, module):
    """F⁻¹g of a matrix by its dense Kronecker eigenbasis."""
    x = torch.cat([part[module].inputs for part in tokens]).flatten(0, 1)
    delta = torch.cat([part[module].deltas for part in tokens]).flatten(0, 1)
    q_a = torch.linalg.eigh(x.T @ x / len(x))[1]
    q_b = torch.linalg.eigh(delta.T @ delta / len(delta))[1]
    basis = torch.kron(q_b, q_a)
    values = (gradients.flatten(1) @ basis).square().mean(0)
    dense = basis @ torch.diag(values + DAMPING * values.mean()) @ basis.T
    return torch.linalg.solve(dense, query.flatten()).reshape(query.shape)


@pytest.fixture(scope="module", params=["kv", "full"])
def world(request, denoiser64):
    names = parameter_names(denoiser64.unet, request.param)
    batches = [batch(denoiser64, 4, seed) for seed in (0, 1)]
    loops = [looped(denoiser64, data, names) for data in batches]
    gradients = {n: torch.cat([g[n] for g in loops]) for n in names}
    return (*made(denoiser64, batches, names), gradients)


def test_ekfac_is_the_dense_kronecker_eigenbasis(world):
    ekfac, tokens, rest, gradients = world
    query = {name: g[0] - 2 * g[3] for name, g in gradients.items()}
    solved = ekfac.damped(DAMPING).solve(query)
    assert list(solved) == list(query)
    kinds = set()
    for name, g in gradients.items():
        if name in rest or g[0].numel() > MOST:
            continue
        expected = dense_solve(tokens, g, query[name], name.removesuffix(".weight"))
        scale = float(expected.abs().max())
        assert torch.allclose(solved[name], expected, rtol=1e-5, atol=1e-6 * scale), name
        kinds.add(g[0].ndim)
    assert kinds == ({2, 4} if rest else {2})  # linear layers, and convolutions with their patches


def test_what_is_no_matrix_is_diagonal(world):
    ekfac, _, rest, gradients = world
    if not rest:
        assert list(ekfac.q_in) == ["text"]
        return
    assert {gradients[name][0].ndim for name in rest} == {1}
    solved = ekfac.damped(DAMPING).solve({name: gradients[name][1] for name in rest})
    for name in rest:
        f = gradients[name].square().mean(0)
        expected = gradients[name][1] / (f + DAMPING * f.mean())
        assert torch.allclose(solved[name], expected, rtol=1e-8), name


def test_the_trace_is_that_of_the_diagonal(world):
    """Turning the basis leaves the sum of squares as it is."""
    ekfac, _, rest, gradients = world
    for name, g in gradients.items():
        if name not in rest:
            found = ekfac.values.values[name.removesuffix(".weight")].sum()
            assert torch.allclose(found, g.square().mean(0).sum(), rtol=1e-6), name


def test_states_merges_and_batches(world, denoiser64):
    ekfac, _, rest, gradients = world
    query = {name: g[2].float() for name, g in gradients.items()}
    back = EKFAC.from_state(ekfac.state())
    assert back.count == ekfac.count == 8 and set(back.rest.values) == set(rest)
    left, right = back.damped(DAMPING).solve(query), ekfac.damped(DAMPING).solve(query)
    many = ekfac.damped(DAMPING).solve({name: g[1:3].float() for name, g in gradients.items()})
    for name, g in left.items():
        scale = float(g.abs().max())
        assert torch.allclose(g, right[name], rtol=1e-3, atol=1e-3 * scale), name
        assert torch.allclose(many[name][1], right[name], rtol=1e-3, atol=1e-3 * scale), name
    halves = [EKFAC(ekfac.q_in, ekfac.q_out) for _ in range(2)]
    for half, seed in zip(halves, (0, 1), strict=True):
        part = layer_tokens(denoiser64, *batch(denoiser64, 4, seed), list(gradients))
        half.accumulate(part, rest)
    halves[0].merge(halves[1])
    for mine, whole in ((halves[0].values, ekfac.values), (halves[0].rest, ekfac.rest)):
        for name, value in whole.values.items():
            assert torch.allclose(mine.values[name], value, rtol=1e-9), name


def test_sums_are_whole_and_states_are_float32(world):
    ekfac, tokens, _, _ = world
    covariances = Covariances()
    covariances.accumulate(tokens[0])
    for made, kind in ((ekfac, EKFAC), (covariances, Covariances)):
        sums = made.sums()
        again = kind.from_sums(sums)
        assert again.count == made.count and again.sums().keys() == sums.keys()
        assert all(torch.equal(again.sums()[name], value) for name, value in sums.items())
        state = made.state()
        assert state.keys() == sums.keys() and state["count"].dtype == torch.int64
        for name, value in sums.items():
            if name != "count":
                assert state[name].dtype == torch.float32 and value.dtype == torch.float64
                assert torch.equal(state[name], value.float())


def test_weights_that_are_not_covered_are_refused(world):
    ekfac, _, _, gradients = world
    assert ekfac.subset(list(gradients)) is ekfac
    with pytest.raises(UserError, match="EK-FAC does not cover other"):
        ekfac.subset(["other.weight"])
