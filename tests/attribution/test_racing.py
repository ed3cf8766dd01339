"""Racing: the rule by hand, whole cells for whoever can reach the top, few for the rest."""

from __future__ import annotations

import numpy as np
import pytest

from attribution.racing import Race, by_spread, heats, plan, simulate, survivors
from attribution.reduce import reduce_cells, score_cells, timesteps_seen
from attribution.types import UserError

TIMESTEPS = (50, 150, 250, 350, 450, 550, 650, 750, 850, 950)
NOBODY = np.empty(0, dtype=np.int64)


def field(records=40, seed=0, noise=0.3):
    """Cells whose true means fall with the position, [records, 1, 2, 10], noise larger late."""
    rng = np.random.default_rng(seed)
    truth = np.linspace(2.0, 0.0, records)[:, None, None, None]
    late = np.linspace(0.2, 2.0, 10)
    cells = late * (truth + noise * rng.normal(size=(records, 1, 2, 10)))
    return cells.astype(np.float32)


# base losses that vary more the larger the timestep
BASE = np.linspace(0.1, 1.0, 10) * np.random.default_rng(9).normal(1, 0.3, size=(50, 1, 2, 1))


def race(waves, k=3, confidence=2.0, records=40):
    return plan(waves, TIMESTEPS, BASE, k, records, confidence, shown=k)


def test_a_plan_takes_the_nearest_timesteps_and_grows_with_k():
    found = plan([((940,), 8), ((660, 740), 4)], TIMESTEPS, BASE, 24, 500, 2.0, shown=24)
    assert found.waves == (((9,), 24), ((6, 7), 24))
    wide = plan([((950,), 192), ((750, 850), 64)], TIMESTEPS, BASE, 96, 5000, 2.0, shown=24)
    assert [keep for _, keep in wide.waves] == [768, 256]
    assert wide.rest == (0, 1, 2, 3, 4, 5, 6)
    assert wide.sizes(500) == [(500, 1), (500, 2), (256, 7)]


@pytest.mark.parametrize(
    ("waves", "records"),
    [([], 100), ([((950,), 100)], 100), ([((50, 150, 250), 8)], 5), ([((), 8)], 100)],
)
def test_a_race_that_saves_nothing_is_none(waves, records):
    assert plan(waves, TIMESTEPS, BASE, 3, records, 2.0, shown=3) is None


def test_timesteps_that_are_counted_come_in_the_order_of_their_spread():
    base = BASE[..., ::-1].copy()
    base[3, :, 0] = np.nan
    assert by_spread(base) == tuple(range(10))
    found = plan([(1, 30), (2, 8)], TIMESTEPS, base, 3, 100, 2.0, shown=3)
    assert found.waves == (((0,), 30), ((1, 2), 8))
    assert race([(1, 30), ((50,), 20), (1, 8)]).waves == (((9,), 30), ((0,), 20), ((8,), 8))


def test_a_wave_that_leaves_no_timestep_is_left_out():
    found = plan(
        [((100,), 8), ((200, 300), 4)], (100, 200, 300), BASE[..., :3], 2, 50, 2.0, shown=2
    )
    assert found.waves == (((0,), 8),) and found.rest == (1, 2)


@pytest.mark.parametrize(
    "waves",
    [3, "ab", [950], [((950,), -1)], [((950,), 2.5)], [(("a",), 4)], [(True, 4)], [(-1, 4)]],
)
def test_bad_schedules_are_refused(waves):
    with pytest.raises(UserError, match="racing is a list"):
        plan(waves, TIMESTEPS, BASE, 3, 100, 2.0, shown=3)


def test_the_bound_by_hand():
    """Two columns of four: error² = pooled variance / 2 · (1 − 2/4)."""
    cells = np.zeros((5, 1, 1, 2), dtype=np.float32)
    cells[:, 0, 0] = [[10, 10], [8, 8], [7, 9], [7, 8.5], [2, 4]]
    # paired differences to the second best: (2, 2), (-1, 1), (-1, .5), (-6, -4)
    variance = np.mean([0.0, 2.0, 1.125, 2.0])
    error = np.sqrt(variance / 2 * (1 - 2 / 4))
    assert 0.25 < error < 1.0
    rule = Race((((2, 3), 5),), 4, k=2, confidence=1.0)
    assert survivors(cells, rule, keep=5).tolist() == [0, 1, 2, 3]
    strict = Race(rule.waves, 4, k=2, confidence=0.2)
    assert survivors(cells, strict, keep=5).tolist() == [0, 1, 2]
    sure = Race(rule.waves, 4, k=2, confidence=20.0)
    assert survivors(cells, sure, keep=5).tolist() == [0, 1, 2, 3, 4]
    assert survivors(cells, sure, keep=3).tolist() == [0, 1, 2]


def test_no_fewer_than_are_shown_go_on_and_no_bound_comes_of_one_timestep():
    cells = field(10)[..., 9:]
    assert len(survivors(cells, race([((950,), 5)], k=4), keep=2)) == 4
    assert len(survivors(cells, race([((950,), 8)], k=4, confidence=0.0), keep=8)) == 8


def test_records_that_could_not_be_scored_are_the_first_to_go():
    cells = field(12)[..., 8:]
    cells[0] = np.nan
    kept = survivors(cells, race([((850, 950), 5)]), keep=5)
    assert 0 not in kept and len(kept) >= 3


def test_survivors_have_every_cell_and_the_others_what_they_ran():
    whole = field()
    found, forwards = simulate(whole, race([((950,), 16), ((750, 850), 6)]))
    seen = timesteps_seen(found)
    assert sorted(set(seen)) == [1, 3, 10]
    assert (seen == 1).sum() == 24 and 3 <= (seen == 10).sum() <= 6
    assert forwards == np.isfinite(found).sum() < 0.4 * whole.size
    full = seen == 10
    assert np.array_equal(found[full], whole[full])
    there = np.isfinite(found)
    assert np.array_equal(found[there], whole[there])


def test_the_top_of_a_race_is_the_top_of_all():
    rule = race([((950,), 24), ((750, 850), 12)])
    for seed in range(20):
        whole = field(seed=seed)
        best = np.argsort(-reduce_cells(whole)[0])[:3]
        scores, errors, flip = score_cells(simulate(whole, rule)[0])
        assert np.argsort(-scores)[:3].tolist() == best.tolist()
        exact = reduce_cells(whole[best])
        assert np.array_equal(scores[best], exact[0]) and np.array_equal(flip[best], exact[2])
        assert np.array_equal(errors[best], exact[1])


def test_few_cells_never_outrank_many():
    """A dropped record whose few cells are huge stays below every finalist."""
    cells = np.full((4, 1, 2, 4), np.nan, dtype=np.float32)
    cells[0], cells[1] = 2.0, -1.0
    cells[2, ..., 3] = 50.0
    cells[3, ..., 2:] = 9.0
    scores, errors, _ = score_cells(cells)
    assert np.argsort(-scores).tolist() == [0, 1, 3, 2]
    assert scores[:2].tolist() == [2.0, -1.0] and (np.diff(scores[[0, 1, 3, 2]]) < 0).all()
    assert np.isfinite(errors[[0, 1, 3]]).all()


def test_estimates_are_on_the_scale_of_whole_scores():
    """Late timesteps weigh more: the mean of those alone would look three times too large."""
    whole = field(noise=0.0)
    scores, _, _ = score_cells(simulate(whole, race([((950,), 16), ((750, 850), 6)]))[0])
    assert np.allclose(scores, reduce_cells(whole)[0], rtol=1e-3, atol=1e-6)


def test_scores_of_records_with_the_same_cells_are_left_alone():
    cells = field(6)
    cells[5] = np.nan
    for ours, plain in zip(score_cells(cells), reduce_cells(cells), strict=True):
        assert np.array_equal(ours, plain, equal_nan=True)


def test_records_that_are_wanted_anyway_run_every_heat():
    whole, rule = field(), race([((950,), 16), ((750, 850), 6)])
    cells = np.full_like(whole, np.nan)
    also = np.array([2, 30, 38])
    ran = []
    for heat in heats(cells, rule, rivals=35, also=also):
        assert set(also) <= set(heat.positions) and len(set(heat.positions)) == len(heat.positions)
        ran.append(heat)
        where = np.ix_(heat.positions, [0], [0, 1], heat.columns)
        assert np.isnan(cells[where]).all()
        cells[where] = whole[where]
    assert [heat.last for heat in ran] == [False, False, True]
    assert np.isfinite(cells[also]).all() and np.isnan(cells[[35, 36, 39]]).all()
    alone = simulate(whole[:35], rule)[0]
    rest = np.setdiff1d(np.arange(35), also)
    assert np.array_equal(cells[rest], alone[rest], equal_nan=True)
