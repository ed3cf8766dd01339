"""The line search on functions whose answer is known."""

from __future__ import annotations

import math

import pytest

from attribution.stepsize import solve_step


@pytest.mark.parametrize("first", [1e-4, 0.1, 1.0, 1e4])
@pytest.mark.parametrize(
    "function",
    [
        lambda s: 0.3 * s,
        lambda s: 0.1 * s + s**2,
        lambda s: math.expm1(0.5 * s) if s < 100 else math.inf,
        lambda s: s if s < 50 else math.nan,
    ],
)
def test_finds_the_step(function, first):
    found = solve_step(function, 0.10, first, evaluations=30)
    assert found.reached
    assert abs(function(found.step) - 0.10) <= 0.002


def test_a_good_start_takes_few_evaluations():
    calls = []

    def curved(step):
        calls.append(step)
        return 0.2 * step + 3 * step**2

    assert solve_step(curved, 0.10, 0.5).reached
    assert len(calls) <= 5


def test_unreachable_gives_the_largest_reached():
    def bump(step):
        return 0.05 * math.exp(-((math.log(step) - 1) ** 2))

    found = solve_step(bump, 0.10, 1.0)
    assert not found.reached
    assert 0.03 < found.increase <= 0.05
    assert found.increase == bump(found.step)


def test_a_loss_that_only_falls_gives_no_step():
    found = solve_step(lambda s: -s, 0.1, 1.0)
    assert (found.step, found.reached) == (0.0, False)
