"""More threads are kept while they help: a made-up machine says how long each step takes."""

from __future__ import annotations

from collections.abc import Mapping

from precompute.pace import PERIOD, SAMPLE, Pace, cores, ladder


def steps(pace: Pace, n: int, seconds: Mapping[int, float]) -> list[int]:
    """Threads of each of n steps on a machine with these seconds a step, by threads."""
    used = []
    for _ in range(n):
        used.append(pace.threads)
        pace.took(seconds[pace.threads])
    return used


def took(used: list[int], seconds: Mapping[int, float]) -> float:
    return sum(seconds[threads] for threads in used)


IDLE = {1: 1.0, 2: 0.7, 3: 0.6, 4: 0.5}
WATCHED = {1: 1.0, 2: 0.7, 3: 0.6, 4: 1.3}  # someone looks on now and then
BUSY = {1: 1.4, 2: 1.9, 3: 50.0, 4: 60.0}


def test_rungs():
    assert ladder(4) == [1, 2, 3, 4] and ladder(16) == [1, 2, 4, 8, 15, 16]
    assert ladder(2) == [1, 2] and ladder(1) == [1]


def test_the_fastest_is_kept():
    climb = [n for n in (1, 2, 3, 4) for _ in range(SAMPLE)]
    assert steps(Pace(4), 100, IDLE) == climb + [4] * (100 - len(climb))
    assert steps(Pace(4), 100, WATCHED) == climb + [3] * (100 - len(climb))
    assert steps(Pace(4), 100, BUSY)[: 2 * SAMPLE] == [1] * SAMPLE + [2] * SAMPLE
    assert set(steps(Pace(4), 100, BUSY)[2 * SAMPLE :]) == {1}


def test_a_training_takes_little_longer_than_with_the_best_from_the_start():
    for machine in (IDLE, WATCHED, BUSY):
        used = steps(Pace(4), 3000, machine)
        assert took(used, machine) < 1.06 * 3000 * min(machine.values()), machine


def test_one_step_that_is_far_too_slow_ends_a_climb():
    used = steps(Pace(4), 60, {1: 1.0, 2: 40.0, 3: 40.0, 4: 40.0})
    assert used.count(2) == 1 and used.count(3) == used.count(4) == 0


def test_a_machine_that_becomes_busy_and_free_again():
    pace = Pace(4)
    assert steps(pace, 200, IDLE)[-1] == 4
    busy = steps(pace, 100, BUSY)
    assert busy.count(4) <= SAMPLE and busy[-1] == 1
    assert steps(pace, PERIOD + 4 * SAMPLE, IDLE)[-1] == 4  # noticed at the next climb


def test_one_slow_step_changes_nothing():
    pace = Pace(4)
    steps(pace, 100, IDLE)
    pace.took(30.0)
    assert pace.threads == 4


def test_one_core_is_one_thread():
    assert set(steps(Pace(1), 50, {1: 1.0})) == {1} and cores() >= 1
