"""Against what is known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.statistics import mean_error, ranks, spearman, wilson


def test_ranks_share_ties():
    assert ranks(np.array([10.0, 30.0, 20.0, 20.0])).tolist() == [1.0, 4.0, 2.5, 2.5]


def test_spearman_sees_order_only():
    x = np.arange(20.0)
    assert spearman(x, np.exp(x)) == pytest.approx(1.0)
    assert spearman(x, -(x**3)) == pytest.approx(-1.0)


def test_mean_and_standard_error():
    mean, error = mean_error([1.0, 2.0, 3.0])
    assert mean == 2.0 and error == pytest.approx(1 / 3**0.5)


def test_wilson_interval_of_all_right():
    low, high = wilson(10, 10)
    assert 0.69 < low < 0.73 and high == pytest.approx(1.0)
