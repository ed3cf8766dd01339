"""More threads are kept while they help: a made-up machine says how long each step takes."""

from __future__ import annotations

from itertools import pairwise

from precompute.pace import LONGEST, WARM_UP, Pace, cores


def steps(pace: Pace, n: int, alone: float, many: float) -> list[int]:
    """Threads of each of n steps on a machine with these seconds a step."""
    used = []
    for _ in range(n):
        used.append(pace.threads)
        pace.took(alone if pace.threads == 1 else many)
    return used


def test_more_threads_are_kept_while_they_are_faster():
    used = steps(Pace(4), 300, 1.0, 0.6)
    assert used == [1] * WARM_UP + [4] * (300 - WARM_UP)


def test_where_they_are_slower_they_are_seldom_tried_again():
    used = steps(Pace(4), 3000, 1.0, 40.0)
    assert 3 <= used.count(4) <= 14  # one step each: the first that is so slow ends a trial
    trials = [n for n, threads in enumerate(used) if threads == 4]
    gaps = [b - a for a, b in pairwise(trials)]
    assert gaps == sorted(gaps) and gaps[-1] == LONGEST + 1


def test_a_little_slower_takes_a_sample_to_tell():
    used = steps(Pace(2), 40, 1.0, 1.2)
    assert used[: WARM_UP + 6] == [1] * WARM_UP + [2] * 5 + [1]


def test_a_machine_that_becomes_busy_and_free_again():
    pace = Pace(3)
    assert steps(pace, 200, 1.0, 0.5)[-1] == 3
    busy = steps(pace, 50, 2.0, 30.0)
    assert busy.count(3) <= 3 and busy[-1] == 1
    free = steps(pace, 200, 1.0, 0.5)
    assert free[-1] == 3 and free.count(3) > 100


def test_one_core_is_one_thread():
    assert set(steps(Pace(1), 50, 1.0, 0.1)) == {1} and cores() >= 1
