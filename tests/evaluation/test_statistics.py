"""Against what is known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.statistics import (
    bootstrap,
    mean_error,
    ranks,
    sign_test,
    spearman,
    t_interval,
    wilson,
)


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


def test_students_interval_is_that_of_the_tables():
    """t = 2.201 at 11 degrees of freedom, 12.706 at one."""
    values = np.random.default_rng(1).normal(2.0, 1.0, 12)
    mean, error = mean_error(values)
    low, high = t_interval(values)
    assert (mean - low, high - mean) == pytest.approx((2.201 * error,) * 2, rel=1e-3)
    assert t_interval([0.0, 2.0]) == pytest.approx((1 - 12.706, 1 + 12.706), rel=1e-4)
    assert np.isnan(t_interval([1.0])).all()


def test_sign_test_is_that_of_coins():
    assert sign_test(5, 10) == 1.0 and sign_test(0, 0) == 1.0
    assert sign_test(10, 10) == sign_test(0, 10) == pytest.approx(2 / 1024)
    assert sign_test(8, 10) == pytest.approx(2 * (45 + 10 + 1) / 1024)


def test_bootstrap_covers_the_mean_as_its_standard_error_does():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    low, high = bootstrap(lambda x: float(x.mean()), values)
    mean, error = mean_error(values)
    assert low == pytest.approx(mean - 1.96 * error, abs=0.3 * error)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.3 * error)
    assert np.isnan(bootstrap(lambda x: float(x.mean()), values[:1])).all()
