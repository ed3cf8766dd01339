"""The diagonal Fisher against dense matrices in float64, and what all curvatures share."""

from __future__ import annotations

import pytest
import torch

from attribution.ekfac import EKFAC, Covariances
from attribution.fisher import DiagonalFisher, Identity, fisher_draw
from attribution.gradients import layer_tokens, per_sample_gradients
from attribution.types import UserError
from attribution.weights import parameter_names
from tests.attribution.test_gradients import batch, looped

DAMPING = 0.1


@pytest.fixture(scope="module")
def kv(denoiser64):
    """Names, two batches and their looped gradients [8, ...]."""
    names = parameter_names(denoiser64.unet, "kv")
    batches = [batch(denoiser64, 4, seed) for seed in (0, 1)]
    loops = [looped(denoiser64, data, names) for data in batches]
    return names, batches, {n: torch.cat([g[n] for g in loops]) for n in names}


def query(gradients):
    return {name: g[0] - 2 * g[3] for name, g in gradients.items()}


def test_diagonal_is_the_diagonal_of_the_dense_fisher(denoiser64, kv):
    names, batches, gradients = kv
    fisher = DiagonalFisher()
    for data in batches:
        fisher.accumulate(per_sample_gradients(denoiser64, *data, names))
    flat = torch.cat([gradients[n].flatten(1) for n in names], dim=1)
    dense = flat.T @ flat / len(flat)
    got = torch.cat([fisher.values[n].flatten() for n in names])
    assert fisher.count == 8
    assert torch.allclose(got, dense.diagonal(), rtol=1e-8)


def test_diagonal_solve_is_the_damped_inverse(kv):
    names, _, gradients = kv
    fisher = DiagonalFisher()
    fisher.accumulate(gradients)
    solved = fisher.damped(DAMPING).solve(query(gradients))
    for name in names:
        f = gradients[name].square().mean(0)
        expected = query(gradients)[name] / (f + DAMPING * f.mean())
        assert torch.allclose(solved[name], expected, rtol=1e-8)


def curvatures(kv, denoiser):
    names, batches, gradients = kv
    diagonal = DiagonalFisher()
    diagonal.accumulate(gradients)
    covariances = Covariances()
    tokens = [layer_tokens(denoiser, *data, names) for data in batches]
    for part in tokens:
        covariances.accumulate(part)
    ekfac = EKFAC.from_covariances(covariances)
    for part in tokens:
        ekfac.accumulate(part)
    return diagonal, ekfac


def test_square_roots_compose(denoiser64, kv):
    gradients = query(kv[2])
    for curvature in (*curvatures(kv, denoiser64), Identity()):
        damped = curvature.damped(DAMPING)
        there_and_back = damped.sqrt(damped.sqrt_inv(gradients))
        twice = damped.sqrt_inv(damped.sqrt_inv(gradients))
        solved = damped.solve(gradients)
        for name, g in gradients.items():
            assert torch.allclose(there_and_back[name], g, rtol=1e-6, atol=1e-10)
            assert torch.allclose(twice[name], solved[name], rtol=1e-6, atol=1e-10)


def test_batches_of_gradients_are_solved_like_single_ones(denoiser64, kv):
    for curvature in curvatures(kv, denoiser64):
        damped = curvature.damped(DAMPING)
        many, one = damped.solve(kv[2]), damped.solve({n: g[2] for n, g in kv[2].items()})
        assert all(torch.allclose(many[n][2], one[n], rtol=1e-9) for n in one)


def test_states_survive_a_round_trip_and_a_merge(denoiser64, kv):
    names, batches, gradients = kv
    diagonal, ekfac = curvatures(kv, denoiser64)
    again = DiagonalFisher.from_state(diagonal.state())
    assert again.count == 8 and all(v.dtype == torch.float32 for v in again.values.values())
    back = EKFAC.from_state(ekfac.state())
    g = {n: x.float() for n, x in query(gradients).items()}
    for a, b in ((again, diagonal), (back, ekfac)):
        left, right = a.damped(DAMPING).solve(g), b.damped(DAMPING).solve(g)
        assert all(torch.allclose(left[n], right[n], rtol=1e-3, atol=1e-5) for n in names)
    halves = [DiagonalFisher(), DiagonalFisher()]
    covariances = [Covariances(), Covariances(), Covariances()]
    for i, data in enumerate(batches):
        halves[i].accumulate(per_sample_gradients(denoiser64, *data, names))
        part = layer_tokens(denoiser64, *data, names)
        covariances[i].accumulate(part)
        covariances[2].accumulate(part)
    halves[0].merge(halves[1])
    covariances[0].merge(covariances[1])
    assert all(torch.allclose(halves[0].values[n], diagonal.values[n]) for n in names)
    assert torch.allclose(covariances[0].inputs["text"], covariances[2].inputs["text"])


def test_zero_entries_of_an_undamped_fisher_do_not_explode():
    fisher = DiagonalFisher({"w": torch.tensor([0.0, 4.0])}, 1)
    assert torch.equal(fisher.solve({"w": torch.ones(2)})["w"], torch.tensor([0.0, 0.25]))


def test_missing_parameters_are_named(kv):
    diagonal = DiagonalFisher()
    diagonal.accumulate(kv[2])
    assert set(diagonal.subset(kv[0][:2]).values) == set(kv[0][:2])
    with pytest.raises(UserError, match=r"conv_in\.weight"):
        diagonal.subset(["conv_in.weight"])


def test_fisher_draws_are_keyed_and_independent_between_flips():
    noise, t = fisher_draw((4, 8, 8), 1000, "a", 0, 0)
    again, _ = fisher_draw((4, 8, 8), 1000, "a", 0, 0)
    other, s = fisher_draw((4, 8, 8), 1000, "a", 1, 0)
    assert torch.equal(noise, again) and not torch.equal(noise, other)
    assert 0 <= t < 1000 and t != s
