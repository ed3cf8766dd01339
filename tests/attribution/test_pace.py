"""More threads are kept while they help: a made-up machine says how long each step takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch

from attribution.pace import PERIOD, SAMPLE, Forwards, Pace, Threads, cores, ladder, pace_forwards


def steps(pace: Pace, n: int, seconds: Mapping[int, float]) -> list[int]:
    """Threads of each of n steps on a machine with these seconds a step, by threads."""
    used = []
    for _ in range(n):
        used.append(pace.threads)
        pace.took(seconds[pace.threads] / 100)
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


def test_two_steps_that_are_far_too_slow_end_a_climb():
    used = steps(Pace(4), 60, {1: 1.0, 2: 40.0, 3: 40.0, 4: 40.0})
    assert used.count(2) == 2 and used.count(3) == used.count(4) == 0


def test_the_first_step_with_more_threads_may_be_slow():
    pace = Pace(2)
    steps(pace, SAMPLE, IDLE)
    assert pace.threads == 2
    pace.took(0.9)
    assert steps(pace, 100, IDLE) == [2] * 100


def test_two_steps_that_are_far_too_slow_begin_a_climb():
    pace = Pace(4)
    steps(pace, 100, IDLE)
    assert steps(pace, 3, {4: 30.0, 1: 1.0}) == [4, 4, 1]


def test_long_steps_are_tried_once():
    pace = Pace(4)
    for threads in (1, 2, 3, 4, 4):
        assert pace.threads == threads
        pace.took(20 * IDLE[threads])


def test_the_pace_is_that_of_one_of_the_things_a_step_did():
    pace = Pace(2)
    for _ in range(SAMPLE):
        pace.took(0.1, 10)
    for _ in range(SAMPLE):  # four things in 60 ms, not ten in 100
        assert pace.threads == 2
        pace.took(0.06, 4)
    assert pace.threads == 1


def test_a_machine_that_becomes_busy_and_free_again():
    pace = Pace(4)
    assert steps(pace, 200, IDLE)[-1] == 4
    busy = steps(pace, 100, BUSY)
    assert busy.count(4) <= SAMPLE and busy[-1] == 1
    assert steps(pace, PERIOD + 4 * SAMPLE, IDLE)[-1] == 4  # noticed at the next climb


def test_one_slow_step_changes_nothing():
    pace = Pace(4)
    steps(pace, 100, IDLE)
    pace.took(0.3)
    assert pace.threads == 4


def test_who_is_alone_has_all_threads_until_a_core_is_held():
    pace = Pace(4, alone=True)
    shares = [0.3, 0.98, 0.98, 0.8, 0.97, 0.8, 0.8]  # the first prepares; one alone says nothing
    assert [pace.took(0.01, share=share) for share in shares] == [4, 4, 4, 4, 4, 4, 1]
    assert not pace.alone
    used = []
    for _ in range(3 * SAMPLE + 1):
        used.append(pace.threads)
        pace.took(BUSY[pace.threads] / 100, share=0.6)
    assert used == [1] * SAMPLE + [2] * SAMPLE + [1] * (SAMPLE + 1)


def test_who_has_all_cores_again_is_left_alone():
    pace = Pace(4)
    for _ in range(5 * SAMPLE):
        pace.took(IDLE[pace.threads] / 100, share=0.98)
    assert pace.alone
    assert {pace.took(0.02, share=0.98) for _ in range(2 * PERIOD)} == {4}  # climbs no more


@pytest.fixture
def threads() -> Iterator[list[int]]:
    """What torch's number of threads was set to; afterwards it is as before."""
    before, told = torch.get_num_threads(), []
    real = torch.set_num_threads

    def note(n: int) -> None:
        told.append(n)
        real(n)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "set_num_threads", note)
        patch.setattr("attribution.pace.THREADS", Threads())
        yield told
    torch.set_num_threads(before)


def test_each_kind_of_forward_has_a_pace_of_its_own(threads, monkeypatch):
    clock = SimpleNamespace(wall=0.0, processor=0.0)
    monkeypatch.setattr("attribution.pace.time.perf_counter", lambda: clock.wall)
    monkeypatch.setattr("attribution.pace.time.process_time", lambda: clock.processor)
    torch.set_num_threads(2)
    threads.clear()
    forwards = Forwards()

    def forward(batch: int, share: float) -> None:
        inputs = (torch.zeros(batch, 3),)
        forwards.before(None, inputs)
        clock.wall += 0.01 * batch
        clock.processor += share * 0.01 * batch * threads[-1]
        forwards.after(None, inputs, None)

    for _ in range(3):
        forward(8, 0.99)
    assert threads == [2, 2, 2]
    for _ in range(3):
        forward(9, 0.6)  # of the same kind: 8 to 15
    assert threads[3:] == [2, 2, 1]
    forward(2, 0.6)
    assert threads[-1] == 1  # another one knows that others hold a core
    forwards.before(None, (torch.zeros(9, 4),))
    with torch.no_grad():
        forwards.before(None, (torch.zeros(9, 3),))
    assert len(forwards._paces) == 4


def test_a_module_is_paced_where_there_are_threads_to_choose_from(threads):
    module = torch.nn.Linear(3, 2)
    pace_forwards(module)
    twin = deepcopy(module)
    x = torch.randn(5, 3)
    plain = module(x)
    assert not threads  # tests have one
    torch.set_num_threads(2)
    assert torch.equal(module(x), plain) and torch.equal(twin(x), plain)
    (forwards,) = {hook.__self__ for m in (module, twin) for hook in m._forward_hooks.values()}
    assert len(forwards._paces) == 1 and threads[-2:] == [2, 2]


def test_what_is_in_use_is_not_what_was_given(threads):
    number = Threads()
    torch.set_num_threads(3)
    assert number.given == 3
    number.use(1)
    assert (number.given, torch.get_num_threads()) == (3, 1)
    with ThreadPoolExecutor(1) as other:  # it begins with the last number set, and has its own
        assert other.submit(lambda: number.given).result() == 3
        other.submit(number.use, 2).result()
        assert number.given == other.submit(lambda: number.given).result() == 3
    with number.as_given():
        number.use(2)
    assert torch.get_num_threads() == 3
    number.use(1)
    torch.set_num_threads(2)  # by someone else
    assert number.given == 2


def test_one_core_is_one_thread():
    assert set(steps(Pace(1), 50, {1: 1.0})) == {1} and cores() >= 1
