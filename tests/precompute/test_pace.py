"""More threads are kept while they help: a made-up machine says how long each step takes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from precompute.pace import LONGEST, SAMPLE, WARM_UP, Pace, cores, levels


def steps(pace: Pace, n: int, seconds: Mapping[int, float]) -> list[int]:
    """Threads of each of n steps on a machine with these seconds a step, by threads."""
    used = []
    for _ in range(n):
        used.append(pace.threads)
        pace.took(seconds[pace.threads])
    return used


def test_levels():
    assert levels(4) == [4, 3, 2] and levels(16) == [16, 15, 8, 4, 2]
    assert levels(2) == [2] and levels(1) == []


def test_more_threads_are_kept_while_they_are_faster():
    used = steps(Pace(4), 300, {1: 1.0, 4: 0.6})
    assert used == [1] * WARM_UP + [4] * (300 - WARM_UP)


def test_one_less_where_a_thread_on_every_core_is_slower():
    """Someone looks on: the trial of four ends, three are tried next and kept."""
    used = steps(Pace(4), 300, {1: 1.0, 4: 1.3, 3: 0.7})
    trial = [1] * WARM_UP + [4] * SAMPLE + [1] * WARM_UP
    assert used == trial + [3] * (300 - len(trial))


def test_where_all_are_slower_they_are_seldom_tried_again():
    used = steps(Pace(4), 4000, {1: 1.0, 2: 9.0, 3: 20.0, 4: 40.0})
    # one step each: the first that is so slow ends a trial
    assert used.count(4) == used.count(3) == used.count(2) <= 16
    trials = [n for n, threads in enumerate(used) if threads == 4]
    gaps = [b - a for a, b in pairwise(trials)]
    assert gaps == sorted(gaps) and LONGEST < gaps[-1] < 2 * LONGEST


def test_a_machine_that_becomes_busy_and_free_again():
    pace = Pace(3)
    assert steps(pace, 200, {1: 1.0, 3: 0.5})[-1] == 3
    busy = steps(pace, 50, {1: 2.0, 2: 30.0, 3: 30.0})
    assert busy.count(3) + busy.count(2) <= 5
    free = steps(pace, 200, {1: 1.0, 2: 0.7, 3: 0.5})
    assert free[-1] > 1 and free.count(1) < 100


def test_one_core_is_one_thread():
    assert set(steps(Pace(1), 50, {1: 1.0})) == {1} and cores() >= 1
