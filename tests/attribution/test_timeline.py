"""The timestep slider re-ranks from stored cells; without a centre it gives the answer back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from attribution.timeline import rerank, triangle
from attribution.types import UserError
from tests.attribution import answers


def test_triangle() -> None:
    steps = (100, 300, 500)
    assert triangle(steps, 300, 400) == pytest.approx([0.25, 0.5, 0.25])
    assert triangle(steps, 300, 1e9) == pytest.approx([1 / 3] * 3, abs=1e-6)
    assert triangle(steps, 0, 10).tolist() == [1.0, 0.0, 0.0]


def test_no_centre_is_the_original_answer() -> None:
    original = answers.attribution()
    again = rerank(original, None, 250.0)
    assert again.ids == original.ids
    assert np.allclose(again.scores, original.scores, rtol=1e-5)
    assert np.array_equal(again.flip, original.flip)


def test_one_timestep_alone_ranks_by_its_column() -> None:
    original = answers.attribution()
    view = rerank(original, 450, 10.0)
    column = original.cells[:, 0, :, 1].max(axis=1)  # the caption evaluated, best flip
    order = np.argsort(-column)
    assert view.ids == tuple(original.ids[i] for i in order)
    assert np.allclose(view.scores, column[order], rtol=1e-5)
    assert np.array_equal(view.rows, original.rows[order])
    assert np.array_equal(view.cells[:, 0], original.cells[order][:, 0])


def test_records_without_cells_come_last() -> None:
    original = answers.attribution()
    cells = original.cells.copy()
    cells[5:] = np.nan
    lacking = replace(original, cells=cells)
    view = rerank(lacking, None, 10.0)
    assert set(view.ids[5:]) == set(original.ids[5:])
    assert np.array_equal(view.scores[5:], original.scores[5:])
    around = rerank(lacking, 450, 10.0)
    assert set(around.ids[5:]) == set(original.ids[5:])
    assert np.isnan(around.scores[5:]).all() and np.isfinite(around.scores[:5]).all()


def test_records_that_a_race_dropped_stay_below_those_it_kept() -> None:
    """At t = 750 everyone has cells, and dropped ones may have the larger; at 150 they have none"""
    original = answers.attribution()
    cells = original.cells.copy()
    cells[3:, ..., :2] = np.nan
    cells[3:, ..., 2] += 1.0
    raced = replace(original, cells=cells)
    kept = set(original.ids[:3])
    for centre in (None, 150, 450, 750):
        view = rerank(raced, centre, 250.0)
        assert set(view.ids[:3]) == kept, centre
        there = view.scores[np.isfinite(view.scores)]
        assert (np.diff(there) <= 0).all()
    assert np.isnan(rerank(raced, 150, 250.0).scores[3:]).all()


def test_the_control_is_ranked_along() -> None:
    original = answers.attribution()
    view = rerank(replace(original, control=answers.attribution(seed=1)), 450, 10.0)
    alone = rerank(answers.attribution(seed=1), 450, 10.0)
    assert view.control.ids == alone.ids and np.array_equal(view.control.scores, alone.scores)


def test_methods_without_cells_say_so() -> None:
    with pytest.raises(UserError, match="timesteps"):
        rerank(replace(answers.attribution(), cells=None), 450, 10.0)
