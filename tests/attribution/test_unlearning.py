"""Unlearning: one Newton step by hand, the step size, and weights that come back bit by bit."""

from __future__ import annotations

import pytest
import torch

from attribution.fisher import Identity
from attribution.gradients import query_draws, query_gradient
from attribution.types import Progress, UserError
from attribution.unlearning import Delta, UnlearnConfig, Unlearned, applied, unlearn
from attribution.weights import parameter_names
from tests.attribution.worlds import World, finished

# the tiny model's weights are random: no text raises a loss by 10 %
BASE = {"stride": 250, "draws": 2, "relative_increase": 0.02, "steps": 1}
CONFIG = UnlearnConfig(**BASE)


@pytest.fixture(scope="module")
def world(denoiser):
    return World.make(denoiser)


@pytest.fixture(scope="module")
def fisher(world):
    return world.fisher("full")


def query(world):
    return world.latents([2]), world.denoiser.encode_text(["ab by 2"])


def snapshot(denoiser):
    return {name: p.detach().clone() for name, p in denoiser.unet.named_parameters()}


def assert_same(denoiser, before):
    for name, p in denoiser.unet.named_parameters():
        assert p.stride() == before[name].stride()
        assert torch.equal(p.view(torch.int32), before[name].view(torch.int32)), name


def test_one_newton_step_by_hand(denoiser64):
    world = World.make(denoiser64)
    fisher = world.fisher()
    z, c = query(world)
    config = UnlearnConfig(stride=250, draws=2, damping=0.1, relative_increase=0.05, steps=1)
    found = finished(unlearn(denoiser64, z, c, fisher, config))
    names = parameter_names(denoiser64.unet, "kv")
    noise, t = query_draws(denoiser64, (125, 375, 625, 875), 2, 0)
    parameters = [denoiser64.unet.get_parameter(name).requires_grad_(True) for name in names]
    loss = sum(denoiser64.loss(z, c, noise[i : i + 1], t[i : i + 1]) for i in range(8)) / 8
    gradients = torch.autograd.grad(loss, parameters)
    for name, p, gradient in zip(names, parameters, gradients, strict=True):
        p.requires_grad_(False)
        f = fisher.values[name]
        by_hand = found.alpha_over_n * gradient / (f + 0.1 * f.mean())
        assert torch.allclose(found.delta[name], by_hand, rtol=1e-6, atol=1e-14)


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("curvature", ["diagonal", "none"])
def test_the_relative_increase_is_reached(denoiser_each, steps, curvature):
    world = World.make(denoiser_each)
    f = world.fisher() if curvature == "diagonal" else Identity()
    config = UnlearnConfig(**{**BASE, "steps": steps}, curvature=curvature)
    before = snapshot(denoiser_each)
    found = finished(unlearn(denoiser_each, *query(world), f, config))
    assert found.note == ""
    assert found.reached == pytest.approx(0.02, rel=0.03)
    assert found.loss1 / found.loss0 - 1 == pytest.approx(found.reached)
    assert found.evaluations <= 8 * steps + 2
    assert all(t.dtype == torch.float32 for t in found.delta.values())
    assert_same(denoiser_each, before)


@pytest.mark.parametrize("weight_set", ["kv", "cross-attn", "attn", "full"])
def test_every_weight_set_moves_only_its_own(world, fisher, weight_set):
    config = UnlearnConfig(**BASE, weight_set=weight_set)
    found = finished(unlearn(world.denoiser, *query(world), fisher, config))
    assert tuple(found.delta) == parameter_names(world.denoiser.unet, weight_set)
    assert found.reached == pytest.approx(0.02, rel=0.03)


def test_many_steps_differ_from_one_and_use_their_own_draws(world, fisher):
    one = finished(unlearn(world.denoiser, *query(world), fisher, CONFIG))
    many = finished(
        unlearn(world.denoiser, *query(world), fisher, UnlearnConfig(**{**BASE, "steps": 3}))
    )
    cosine = sum(float((one.delta[n] * many.delta[n]).sum()) for n in one.delta)
    assert 0.3 < cosine / one.delta.norm() / many.delta.norm() < 0.9999


def test_the_paper_preset_has_a_fixed_undamped_step(world, fisher):
    config = UnlearnConfig(stride=250, draws=2, preset="paper", n_records=1000, steps=1)
    found = finished(unlearn(world.denoiser, *query(world), fisher, config))
    assert found.alpha_over_n == 0.01 / 1000
    names = parameter_names(world.denoiser.unet, "kv")
    gradient = query_gradient(world.denoiser, *query(world), config.timesteps(1000), 2, 0, names)
    expected = fisher.subset(names).solve(gradient)
    for name in names:
        assert torch.allclose(found.delta[name], 1e-5 * expected[name], rtol=1e-4, atol=1e-9)


def test_the_ewc_pull_shortens_later_steps(world, fisher):
    fixed = {"stride": 250, "preset": "paper", "steps": 2, "n_records": 10, "alpha": 1e-3}
    free = finished(unlearn(world.denoiser, *query(world), fisher, UnlearnConfig(**fixed)))
    pulled = finished(
        unlearn(world.denoiser, *query(world), fisher, UnlearnConfig(**fixed, ewc=True))
    )
    first = finished(
        unlearn(world.denoiser, *query(world), fisher, UnlearnConfig(**{**fixed, "steps": 1}))
    )
    # by hand: the second step is pulled back by α · Δθ of the first
    for name in free.delta:
        gap, expected = free.delta[name] - pulled.delta[name], 1e-3 * first.delta[name]
        assert torch.allclose(gap, expected, rtol=0.02, atol=0.01 * float(expected.abs().max()))


def test_a_region_steers_the_gradient_and_the_line_search(world, fisher):
    weights = torch.zeros(8, 8)
    weights[:4] = 1.0
    top = finished(unlearn(world.denoiser, *query(world), fisher, CONFIG, weights))
    whole = finished(unlearn(world.denoiser, *query(world), fisher, CONFIG))
    assert top.reached == pytest.approx(0.02, rel=0.03) and top.loss0 != whole.loss0
    even = finished(unlearn(world.denoiser, *query(world), fisher, CONFIG, torch.ones(8, 8)))
    assert even.alpha_over_n == pytest.approx(whole.alpha_over_n, rel=1e-3)


def test_an_unreachable_increase_says_so(world):
    config = UnlearnConfig(stride=250, draws=1, relative_increase=100.0, curvature="none")

    class Backwards(Identity):
        def solve(self, gradients):
            return {name: -1e-3 * g for name, g in gradients.items()}

    found = finished(unlearn(world.denoiser, *query(world), Backwards(), config))
    assert "could not be raised" in found.note
    assert 0.0 <= found.reached < 100.0


def test_weights_come_back_bit_by_bit(world, fisher):
    before = snapshot(world.denoiser)
    delta = finished(unlearn(world.denoiser, *query(world), fisher, CONFIG)).delta
    assert_same(world.denoiser, before)
    with applied(world.denoiser, delta):
        name = next(iter(delta))
        assert torch.allclose(
            world.denoiser.unet.get_parameter(name), before[name] + delta[name], atol=1e-7
        )
    assert_same(world.denoiser, before)
    with pytest.raises(RuntimeError), applied(world.denoiser, delta, 3.0):
        raise RuntimeError
    assert_same(world.denoiser, before)
    job = unlearn(world.denoiser, *query(world), fisher, CONFIG)
    assert isinstance(next(job), Progress)
    next(job)
    assert_same(world.denoiser, before)
    job.close()
    assert_same(world.denoiser, before)


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_storage_order_survives_too(world, fisher, memory_format):
    world.denoiser.unet.to(memory_format=memory_format)
    before = snapshot(world.denoiser)
    config = UnlearnConfig(stride=500, draws=1, weight_set="full")
    delta = finished(unlearn(world.denoiser, *query(world), fisher, config)).delta
    with applied(world.denoiser, delta, 0.5):
        pass
    assert_same(world.denoiser, before)


def test_unlearning_runs_twice_alike_and_in_inference_mode_after(world, fisher):
    first = finished(unlearn(world.denoiser, *query(world), fisher, CONFIG))
    second = finished(unlearn(world.denoiser, *query(world), fisher, CONFIG))
    assert isinstance(first, Unlearned)
    assert all(torch.equal(first.delta[n], second.delta[n]) for n in first.delta)


def test_delta_is_a_value(tmp_path):
    delta = Delta({"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([[4.0]])})
    assert delta.norm() == pytest.approx(5.0)
    assert delta.scaled(2).norm() == pytest.approx(10.0)
    assert torch.equal(delta.plus(delta, -1.0)["b"], torch.zeros(1, 1))
    delta.save(tmp_path / "delta.safetensors", query="ab")
    back = Delta.load(tmp_path / "delta.safetensors")
    assert all(torch.equal(back[n], delta[n]) for n in delta)


@pytest.mark.parametrize(
    "wrong",
    [
        {"weight_set": "all"},
        {"curvature": "hessian"},
        {"relative_increase": 0.0},
        {"relative_increase": float("nan")},
        {"steps": 0},
        {"preset": "ours"},
        {"damping": -1.0},
        {"alpha": 0.0},
    ],
)
def test_bad_configurations_are_refused_where_they_are_made(wrong):
    with pytest.raises(UserError):
        UnlearnConfig(**wrong)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"damping": "abc"}, "damping has to be a finite number, not 'abc'"),
        ({"damping": float("inf")}, "damping has to be a finite number, not inf"),
        ({"damping": None}, "damping has to be a finite number"),
        ({"relative_increase": True}, "relative_increase has to be a finite number, not True"),
        ({"relative_increase": 10**400}, "relative_increase has to be a finite number"),
        ({"alpha": "0.1"}, "alpha has to be a finite number"),
        ({"steps": 2.5}, "steps has to be a whole number, not 2.5"),
        ({"steps": 2.0}, "steps has to be a whole number, not 2.0"),
        ({"draws": 1.5}, "draws has to be a whole number"),
        ({"search_draws": True}, "search_draws has to be a whole number"),
        ({"stride": "100"}, "stride has to be a whole number"),
        ({"n_records": 1.0}, "n_records has to be a whole number"),
        ({"seed": "x"}, "seed has to be a whole number, not 'x'"),
        ({"ewc": 1}, "ewc is true or false, not 1"),
    ],
)
def test_options_of_another_type_are_refused(wrong, words):
    with pytest.raises(UserError, match=words):
        UnlearnConfig(**wrong)


def test_whole_numbers_are_numbers_too():
    config = UnlearnConfig(damping=1, relative_increase=1, alpha=1)
    assert config.alpha == config.damping == 1.0


def test_progress_counts_up_while_the_model_holds_its_own_weights(world, fisher):
    before = snapshot(world.denoiser)
    config = UnlearnConfig(**{**BASE, "draws": 12, "steps": 2})
    seen = []
    for item in unlearn(world.denoiser, *query(world), fisher, config):
        assert_same(world.denoiser, before)
        seen.append(item)
    assert isinstance(seen.pop(), Unlearned) and len(seen) >= 10
    assert [p.done for p in seen] == sorted(p.done for p in seen)
    assert all(0 < p.done < p.total and p.remaining >= 0 for p in seen)


def test_a_grid_without_a_timestep_is_refused():
    assert UnlearnConfig(stride=1000).timesteps(1000) == (500,)
    with pytest.raises(UserError, match="stride 3000 leaves no timestep of 1000"):
        UnlearnConfig(stride=3000).timesteps(1000)
