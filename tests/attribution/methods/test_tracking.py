"""What is tracked: losses against the index's, or how far the output has moved, by definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attribution import defaults
from attribution.delta import applied
from attribution.methods.registry import METHODS
from attribution.methods.tracking import tracked
from attribution.noise import keyed_noise
from attribution.scoring import score_records
from attribution.unlearning import UnlearnConfig
from tests.attribution.methods.test_rescoring import SMALL, context, query, run  # noqa: F401
from tests.attribution.test_unlearning import assert_same, snapshot


@pytest.fixture(scope="module")
def shift(context):  # noqa: F811
    return METHODS["abu-shift"].build(context)


@pytest.fixture(scope="module")
def whole(shift, query):  # noqa: F811
    return run(shift, query, exhaustive=True)


def delta_of(shift, query, **changes):  # noqa: F811
    *_, found = shift.unlearn(query, **{**SMALL, **changes})
    return found.delta


def test_losses_are_held_against_the_indexs(context):  # noqa: F811
    found = tracked(context, UnlearnConfig(), "loss")
    assert found.cached and found.base is context.index.base_loss
    assert found.floor == context.floor() and found.denoiser.reference is None


def test_a_cell_is_the_outputs_shift_by_definition(context, shift, query, whole):  # noqa: F811
    index, denoiser = context.index, context.denoiser
    delta, row, column = delta_of(shift, query), 4, 3
    t = torch.tensor([index.timesteps[column]])
    key = {"namespace": "score", "seed": index.seed, "record_id": index.ids([row])[0]}
    drawn = keyed_noise(denoiser.latent_shape, timestep=int(t), **key)
    position = int(np.flatnonzero(whole.rows == row)[0])
    for k, caption in enumerate(index.captions([row])[0]):
        for flip in (0, 1):
            noise = (drawn.flip(-1) if flip else drawn)[None]
            inputs = (index.latents([row], flip), denoiser.encode_text([caption]), noise, t)
            with torch.no_grad():
                before, _ = denoiser.predict(*inputs)
                with applied(denoiser, delta):
                    after, _ = denoiser.predict(*inputs)
            expected = float(((after - before) ** 2).mean())
            assert whole.cells[position, k, flip, column] == pytest.approx(expected, rel=1e-4)
    assert np.nanmin(whole.cells) >= 0 and whole.noise_floor == 0.0


def test_the_size_of_the_step_scales_every_cell_alike(context, shift, query):  # noqa: F811
    """Second order in Δθ: half the step, a quarter of every shift, and so the same ranking."""
    index, delta = context.index, delta_of(shift, query)
    small = delta.scaled(0.02 / delta.norm())
    watched = tracked(context, UnlearnConfig(), "shift")
    full, less = (
        list(
            score_records(
                watched.denoiser, index, watched.base, range(6), d, index.timesteps, index.seed
            )
        )[-1].cells
        for d in (small, small.scaled(0.5))
    )
    ratio = full / less
    np.testing.assert_allclose(ratio[np.isfinite(ratio)], 4.0, rtol=0.05)
    assert np.isfinite(ratio).sum() == np.isfinite(watched.base[:6]).sum()


def test_the_loss_changes_by_the_residuals_part_and_the_shift(context, query, whole):  # noqa: F811
    """L(z, θ−) − L(z, θ0) = 2⟨ε_θ0 − target, Δε⟩ + ‖Δε‖², cell by cell."""
    loss = run(METHODS["abu-ekfac"].build(context), query, exhaustive=True)
    order = np.argsort(loss.rows), np.argsort(whole.rows)
    residual = loss.cells[order[0]] - whole.cells[order[1]]
    assert np.nanmin(residual) < 0 < np.nanmax(np.abs(residual))
    index, denoiser, row, column = context.index, context.denoiser, 4, 3
    t = torch.tensor([index.timesteps[column]])
    key = {"namespace": "score", "seed": index.seed, "record_id": index.ids([row])[0]}
    noise = keyed_noise(denoiser.latent_shape, timestep=int(t), **key)[None]
    inputs = (index.latents([row]), denoiser.encode_text([index.captions([row])[0][0]]), noise, t)
    delta = delta_of(METHODS["abu-ekfac"].build(context), query)
    with torch.no_grad():
        before, target = denoiser.predict(*inputs)
        with applied(denoiser, delta):
            after, _ = denoiser.predict(*inputs)
    expected = float((2 * (before - target) * (after - before)).mean())
    position = int(np.flatnonzero(np.sort(whole.rows) == row)[0])
    assert residual[position, 0, 0, column] == pytest.approx(expected, rel=1e-2, abs=1e-5)


def test_races_end_exactly_and_leave_the_weights(context, shift, query, whole):  # noqa: F811
    before = snapshot(context.denoiser)
    raced = run(shift, query, racing=[(1, 4)], also=[context.index.ids([7])[0]])
    assert_same(context.denoiser, before)
    assert context.denoiser.reference is None
    assert [w["survivors"] for w in raced.params["racing"]["waves"]] == [4]
    assert raced.params["tracks"] == "shift"
    scores = dict(zip(whole.rows.tolist(), whole.scores.tolist(), strict=True))
    for row, score in zip(raced.rows[:2].tolist(), raced.scores[:2].tolist(), strict=True):
        assert score == pytest.approx(scores[row], rel=1e-4)
    assert raced.control.scores[0] == pytest.approx(scores[7], rel=1e-4)
    assert raced.evaluated_cells % 2 == 0
    assert raced.evaluated_cells < whole.evaluated_cells == 2 * np.isfinite(whole.cells).sum()


def test_its_own_race_is_the_default(shift):
    assert shift.racing == defaults.RACING_SHIFT != defaults.RACING
