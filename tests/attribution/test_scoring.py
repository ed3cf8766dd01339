"""Scores: invariances, the first-order check of Eq. 16, and weights that survive every way out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attribution.cells import TextStates, batch_errors, batches
from attribution.fisher import Identity
from attribution.gradients import per_sample_gradients
from attribution.noise import keyed_noise, mirrored
from attribution.racing import Race, simulate
from attribution.reduce import reduce_cells, score_cells
from attribution.scoring import Scores, noise_floor, score_records
from attribution.types import Cancelled, Progress
from attribution.unlearning import Delta, UnlearnConfig, applied, unlearn
from attribution.weights import parameter_names
from tests.attribution.test_unlearning import assert_same, query, snapshot
from tests.attribution.worlds import TIMESTEPS, World, finished


@pytest.fixture(scope="module")
def world(denoiser):
    return World.make(denoiser)


@pytest.fixture(scope="module")
def base(world):
    return world.losses()


@pytest.fixture(scope="module")
def delta(world):
    config = UnlearnConfig(stride=250, relative_increase=0.02)
    return finished(unlearn(world.denoiser, *query(world), world.fisher(), config)).delta


def scored(world, base, delta, rows=None, **options):
    rows = range(len(world)) if rows is None else rows
    return finished(
        score_records(world.denoiser, world, base, rows, delta, TIMESTEPS, 0, **options)
    )


def spearman(a, b):
    ranks = [np.argsort(np.argsort(x)) for x in (a, b)]
    return np.corrcoef(*ranks)[0, 1]


def test_cells_are_the_loss_differences_by_definition(world, base, delta):
    scores = scored(world, base, delta)
    before, rows = snapshot(world.denoiser), (0, 5)
    for row in rows:
        for k, caption in enumerate(world.texts[row]):
            for flip in (0, 1):
                for column, t in enumerate(TIMESTEPS):
                    noise = keyed_noise(
                        (4, 8, 8),
                        namespace="score",
                        seed=0,
                        record_id=f"record/{row}",
                        timestep=t,
                    )
                    cell = (
                        world.latents([row], flip),
                        world.denoiser.encode_text([caption]),
                        (mirrored(noise) if flip else noise)[None],
                        torch.tensor([t]),
                    )
                    with torch.no_grad():
                        old = world.denoiser.loss(*cell)
                        with applied(world.denoiser, delta):
                            new = world.denoiser.loss(*cell)
                    assert scores.cells[row, k, flip, column] == pytest.approx(
                        float(new - old), abs=3e-6
                    )
    assert np.isnan(scores.cells[5, 1]).all() and scores.evaluated == int(np.isfinite(base).sum())
    assert_same(world.denoiser, before)


def test_scores_do_not_depend_on_batches_order_or_company(world, base, delta):
    whole = scored(world, base, delta, batch_size=5)
    tau, _, _ = reduce_cells(whole.cells)
    spread = tau.std()
    order = np.random.default_rng(0).permutation(len(world))
    variants = [
        (scored(world, base, delta, batch_size=64), np.arange(len(world))),
        (scored(world, base, delta, order, batch_size=7), order),
        (scored(world, base, delta, order[:2], batch_size=1), order[:2]),
    ]
    for scores, rows in variants:
        assert np.array_equal(scores.rows, rows)
        other, _, _ = reduce_cells(scores.cells)
        assert np.abs(other - tau[rows]).max() < 1e-3 * spread


def test_batches_hold_the_same_inputs_whatever_their_size(world):
    def inputs(size, rows):
        found = {}
        texts = TextStates(world.denoiser)
        for batch, _ in batches(world.denoiser, world, rows, world.grid(), texts, size):
            for i, (r, c, f, k) in enumerate(batch.where.T):
                found[int(rows[r]), c, f, k] = (
                    batch.latents[i],
                    batch.noise[i],
                    batch.cond[i],
                    batch.timesteps[i],
                )
        return found

    first = inputs(64, np.arange(len(world)))
    second = inputs(3, np.arange(len(world))[::-1].copy())
    assert first.keys() == second.keys()
    for key, values in first.items():
        assert all(
            torch.allclose(a, b, atol=1e-6) for a, b in zip(values, second[key], strict=True)
        )
        assert torch.equal(values[1], second[key][1])


def test_a_zero_step_scores_within_the_noise_floor(world, base):
    names = parameter_names(world.denoiser.unet, "kv")
    zero = Delta({n: torch.zeros_like(world.denoiser.unet.get_parameter(n)) for n in names})
    scores = scored(world, base, zero, batch_size=64)
    floor = noise_floor(world.denoiser, world, base, TIMESTEPS, 0)
    rounding = np.finfo(np.float32).eps * np.nanmax(base)
    assert floor < 1e-6
    assert np.nanstd(scores.cells) <= 3 * max(floor, rounding)


def test_the_noise_floor_sees_a_foreign_cache(world, base):
    moved = base + np.random.default_rng(0).normal(0, 1e-3, base.shape).astype(np.float32)
    floor = noise_floor(world.denoiser, world, moved, TIMESTEPS, 0)
    assert 0.3e-3 < floor < 2e-3


def test_the_noise_floor_looks_all_over_the_index(world, base):
    """Also where the first records' losses are the machine's own; and never at what is left out."""
    exact = noise_floor(world.denoiser, world, base, TIMESTEPS, 0, n_cells=4)
    for spoilt in range(0, 12, 3):
        moved = base.copy()
        moved[spoilt : spoilt + 3] *= np.linspace(1.5, 3, 3)[:, None, None, None]
        floors = [
            noise_floor(world.denoiser, world, moved, TIMESTEPS, s, n_cells=4) for s in range(6)
        ]
        assert max(floors) > 1e3 * exact
    moved = base.copy()
    moved[:9] = np.nan
    assert noise_floor(world.denoiser, world, moved, TIMESTEPS, 0, n_cells=16) < 1e-6


def test_a_small_step_scores_as_the_influence_function_says(denoiser64):
    """Eq. 16: to first order τ = ∇L(z, θ0)·Δθ; float64, per flip, same cells, before the max."""
    world = World.make(denoiser64, 12)
    fisher, base = world.fisher(), world.losses()
    config = UnlearnConfig(stride=250, relative_increase=1e-4)
    delta = finished(unlearn(denoiser64, *query(world), fisher, config)).delta
    with applied(denoiser64, delta):
        tau = np.nanmean(world.losses() - base, axis=(1, 3))
    names = parameter_names(denoiser64.unet, "kv")
    influence = np.zeros_like(tau)
    texts = TextStates(denoiser64)
    for batch, _ in batches(denoiser64, world, np.arange(len(world)), world.grid(), texts, 9):
        gradients = per_sample_gradients(
            denoiser64, batch.latents, batch.cond, batch.noise, batch.timesteps, names
        )
        first_order = sum((gradients[n] * delta[n]).flatten(1).sum(1) for n in names)
        np.add.at(influence, (batch.where[0], batch.where[2]), first_order.numpy())
    counts = np.isfinite(base).sum(axis=(1, 3))
    for flip in (0, 1):
        assert spearman(tau[:, flip], influence[:, flip] / counts[:, flip]) >= 0.99
    assert np.allclose(tau, influence / counts, rtol=0.05, atol=1e-3 * tau.std())


def test_weights_survive_success_cancel_and_exceptions(world, base, delta, monkeypatch):
    before = snapshot(world.denoiser)
    job = score_records(world.denoiser, world, base, range(12), delta, TIMESTEPS, 0, batch_size=2)
    monkeypatch.setattr("attribution.scoring.TICK", 0.0)
    assert isinstance(next(job), Progress)
    assert_same(world.denoiser, before)
    job.close()
    assert_same(world.denoiser, before)
    with pytest.raises(Cancelled):
        scored(world, base, delta, batch_size=2, cancelled=lambda: True)
    assert_same(world.denoiser, before)

    class Broken(World):
        def latents(self, rows, flip=0):
            if 9 in list(rows):
                raise OSError("disk gone")
            return super().latents(rows, flip)

    broken = Broken(world.denoiser, world.stored, world.texts)
    with pytest.raises(OSError, match="disk gone"):
        scored(broken, base, delta, batch_size=2)
    assert_same(world.denoiser, before)


def test_progress_carries_sorted_partial_answers(world, base, delta, monkeypatch):
    monkeypatch.setattr("attribution.scoring.TICK", 0.0)
    monkeypatch.setattr("attribution.scoring.PARTIAL_EVERY", 0.0)
    seen = []
    whole = scored(world, base, delta, batch_size=4, partial=lambda s: seen.append(s) or s)
    assert len(seen) >= 3
    for part in seen:
        assert isinstance(part, Scores)
        n = len(part.rows)
        assert np.array_equal(part.cells, whole.cells[:n], equal_nan=True)


def test_some_timesteps_only(world, base, delta):
    whole, some = scored(world, base, delta), scored(world, base, delta, columns=(0, 2))
    assert np.isnan(some.cells[..., 1]).all()
    assert np.allclose(some.cells[..., 0], whole.cells[..., 0], atol=1e-6, equal_nan=True)


def test_heat_maps_average_to_the_score_and_lie_upright(world, base, delta):
    scores = scored(world, base, delta, batch_size=5, keep_maps=4)
    tau, _, _ = reduce_cells(scores.cells)
    best = np.argsort(-tau)[:4]
    assert set(scores.maps) == set(best.tolist())
    for row in best:
        heat = scores.maps[int(row)]
        assert heat.shape == (8, 8) and heat.dtype == np.float32
        assert heat.mean() == pytest.approx(tau[row], abs=3e-6)
    again = scored(world, base, delta, best, batch_size=64, keep_maps=4)
    assert all(np.allclose(again.maps[r], scores.maps[r], atol=1e-5) for r in scores.maps)


def test_a_mirrored_winner_is_turned_back(world, base, delta):
    scores = scored(world, base, delta, keep_maps=12)
    _, _, flip = reduce_cells(scores.cells)
    row = int(np.flatnonzero(flip == 1)[0])
    cells = []
    texts = TextStates(world.denoiser)
    for batch, _ in batches(world.denoiser, world, np.array([row]), world.grid(), texts, 64):
        kept = batch.where[2] == 1
        old = batch_errors(world.denoiser, batch).numpy()[kept]
        with applied(world.denoiser, delta):
            cells.append(batch_errors(world.denoiser, batch).numpy()[kept] - old)
    expected = np.concatenate(cells).mean(axis=0)[:, ::-1]
    assert np.allclose(scores.maps[row], expected, atol=1e-5)


def test_reduce_cells_by_hand():
    cells = np.full((3, 2, 2, 2), np.nan, dtype=np.float32)
    cells[0, 0] = [[1, 3], [0, 0]]
    cells[1] = [[[0, 0], [1, 2]], [[0, 0], [3, 6]]]
    tau, error, flip = reduce_cells(cells)
    assert tau.tolist()[:2] == [2.0, 3.0] and np.isnan(tau[2])
    assert flip.tolist()[:2] == [0, 1]
    assert error[0] == pytest.approx(1.0)
    assert error[1] == pytest.approx(np.std([1, 2, 3, 6], ddof=1) / 2)
    late, _, _ = reduce_cells(cells, np.array([0.0, 1.0]))
    assert late.tolist()[:2] == [3.0, 4.0]


def test_sgd_scores_too(world, base):
    config = UnlearnConfig(stride=250, curvature="none", relative_increase=0.02)
    found = finished(unlearn(world.denoiser, *query(world), Identity(), config))
    assert np.isfinite(reduce_cells(scored(world, base, found.delta).cells)[0]).all()


def raced(world, base, delta, rows=range(12), **options):
    """A race of two waves over three timesteps that keeps three, then two records."""
    rule = Race((((2,), 5), ((1,), 3)), 3, k=2, confidence=2.0)
    return scored(world, base, delta, rows, race=rule, **options)


def test_a_race_evaluates_what_its_simulation_says(world, base, delta):
    whole = scored(world, base, delta)
    found = raced(world, base, delta, batch_size=5)
    expected, forwards = simulate(whole.cells, Race((((2,), 5), ((1,), 3)), 3, 2, 2.0))
    assert np.array_equal(np.isfinite(found.cells), np.isfinite(expected))
    assert found.evaluated == forwards < whole.evaluated
    assert np.allclose(found.cells, expected, atol=1e-6, equal_nan=True)
    assert np.array_equal(found.rows, np.arange(12)) and not found.fresh


def test_a_race_keeps_heat_maps_of_whole_scores(world, base, delta):
    found = raced(world, base, delta, keep_maps=2)
    tau, _, _ = score_cells(found.cells)
    best = np.argsort(-tau)[:2]
    assert set(found.maps) == set(best.tolist())
    for row in best:
        assert found.maps[int(row)].mean() == pytest.approx(tau[row], abs=3e-6)


def test_more_records_are_scored_along_without_competing(world, base, delta):
    whole = scored(world, base, delta)
    tau, _, _ = reduce_cells(whole.cells)
    best, rows = int(np.argmax(tau)), [r for r in range(12) if r != int(np.argmax(tau))]
    found = raced(world, base, delta, rows, also=[best, rows[0]], keep_maps=2)
    assert found.rows.tolist() == [*rows, best, rows[0]] and best not in found.maps
    for place, row in ((-2, best), (-1, rows[0])):
        assert np.allclose(found.cells[place], whole.cells[row], atol=1e-6, equal_nan=True)
    alone = raced(world, base, delta, rows)
    assert found.rivals == alone.rivals == len(rows)
    there = np.isfinite(alone.cells)
    assert np.array_equal(np.isfinite(found.cells[:-2]), there)


def test_progress_through_a_race_ends_where_it_said(world, base, delta, monkeypatch):
    monkeypatch.setattr("attribution.scoring.TICK", 0.0)
    monkeypatch.setattr("attribution.scoring.PARTIAL_EVERY", 0.0)
    rule = Race((((2,), 5), ((1,), 3)), 3, k=2, confidence=2.0)
    seen = []
    job = score_records(
        world.denoiser, world, base, range(12), delta, TIMESTEPS, 0,
        race=rule, keep_maps=2, batch_size=2, partial=lambda s: seen.append(s) or s,
    )  # fmt: skip
    *steps, scores = job
    assert [p.done for p in steps] == sorted(p.done for p in steps)
    assert all(0 < p.done <= p.total and p.remaining >= 0 for p in steps)
    assert steps[-1].done == steps[-1].total
    assert steps[0].total == pytest.approx(steps[-1].total, rel=0.3)
    assert isinstance(scores, Scores) and len(seen) > 5
    for part in seen:  # no half of a heat: each record has all captions and flips of a timestep
        whole = np.isfinite(part.cells) == np.isfinite(base[part.rows])
        assert set(np.unique(whole.all(axis=(1, 2)).sum(axis=1))) <= {1, 2, 3}
        assert np.array_equal(whole.all(axis=(1, 2)), np.isfinite(part.cells).any(axis=(1, 2)))


def test_a_race_that_is_stopped_leaves_the_weights(world, base, delta, monkeypatch):
    monkeypatch.setattr("attribution.scoring.TICK", 0.0)
    before = snapshot(world.denoiser)
    rule = Race((((2,), 5), ((1,), 3)), 3, k=2, confidence=2.0)
    make = {"race": rule, "keep_maps": 2, "batch_size": 2}
    steps = sum(1 for _ in score_records(
        world.denoiser, world, base, range(12), delta, TIMESTEPS, 0, **make))  # fmt: skip
    for stop in (1, steps // 2, steps - 1):
        job = score_records(world.denoiser, world, base, range(12), delta, TIMESTEPS, 0, **make)
        for _ in range(stop):
            next(job)
            assert_same(world.denoiser, before)
        job.close()
        assert_same(world.denoiser, before)


@pytest.mark.parametrize("race", [None, Race((((2,), 5),), 3, k=2, confidence=2.0)])
def test_stale_base_losses_are_computed_anew(world, base, delta, race):
    true = scored(world, base, delta, race=race, keep_maps=2)
    noise = np.random.default_rng(0).normal(0, 0.05, base.shape).astype(np.float32)
    asked = []
    found = scored(world, base + noise, delta, race=race, keep_maps=2,
                   stale=lambda s: asked.append(s) or True)  # fmt: skip
    assert len(asked) == 1 and found.fresh and found.evaluated == 2 * true.evaluated
    assert np.allclose(found.cells, true.cells, atol=3e-6, equal_nan=True)
    assert found.maps.keys() == true.maps.keys()
    assert all(np.allclose(found.maps[r], true.maps[r], atol=1e-5) for r in true.maps)
    kept = scored(world, base, delta, race=race, stale=lambda s: False)
    assert not kept.fresh and kept.evaluated == true.evaluated
