"""Work in turns: who follows, who leaves, who comes late, who never does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from app import turns
from app.turns import Turns, Work

SOON = 20.0  # seconds: far more than anything here takes


def until(true: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < SOON
        time.sleep(0.005)


class Job:
    """A generator that waits to be let on before each item; notes what became of it."""

    def __init__(self, *items: object) -> None:
        self.items = items
        self.go = threading.Semaphore(0)
        self.made = 0
        self.closed = False

    def __call__(self) -> Iterator[object]:
        try:
            for item in self.items:
                self.go.acquire()
                self.made += 1
                yield item
        finally:
            self.closed = True

    def let(self, n: int = 1) -> Job:
        self.go.release(n)
        return self


def asked(turn: Turns, job: Job) -> Work[object]:
    work: Work[object] = Work(job, "waiting")
    turn.ask(work)
    return work


def test_a_follower_is_told_everything_that_stays_and_the_last_thing() -> None:
    work = asked(Turns(), Job(1, 2.5, 3).let(3))
    told = list(work.follow())
    assert told[-1] == 3 and 2.5 in told and not work.wanted
    assert list(work.follow()) == ["waiting", 2.5, 3]  # late: the latest of each kind


def test_who_leaves_and_comes_back_misses_nothing() -> None:
    job = Job(1, 2.5, b"end")
    work = asked(Turns(), job)
    watching = work.follow()
    assert next(watching) == "waiting"
    job.let()
    until(lambda: 1 in work._latest.values())
    watching.close()
    job.let(2)
    until(lambda: job.closed)
    assert list(work.follow())[-1] == b"end" and job.made == 3


def test_the_last_is_told_again_while_nothing_happens() -> None:
    """A follower's own Stop is looked for at every item."""
    job = Job(1)
    watching = asked(Turns(), job).follow()
    assert [next(watching) for _ in range(3)] == ["waiting"] * 3
    job.let()
    assert list(watching)[-1] == 1


def test_one_after_another_in_the_order_asked_for() -> None:
    turn = Turns()
    jobs = [Job(n).let() for n in range(3)]
    held = Job("first")
    before = asked(turn, held)
    works = [asked(turn, job) for job in jobs]
    time.sleep(0.05)
    assert not any(job.made for job in jobs) and all(work.wanted for work in works)
    assert next(works[2].follow()) == "waiting"
    held.let()
    assert list(before.follow())[-1] == "first"
    assert [list(work.follow())[-1] for work in works] == [0, 1, 2]


def test_what_is_ended_while_it_waits_never_begins_and_its_followers_are_freed() -> None:
    turn, held, job = Turns(), Job(1), Job(2).let()
    asked(turn, held)
    work = asked(turn, job)
    work.end()
    assert not work.wanted
    held.let()
    assert list(work.follow()) == ["waiting"] and not job.made


def test_what_is_ended_in_the_midst_is_closed() -> None:
    job = Job(1, 2, 3)
    work = asked(Turns(), job)
    job.let()
    until(lambda: job.made == 1)
    work.end()
    job.let()
    until(lambda: job.closed)
    assert job.made == 2  # it stops at its next item


def test_unwatched_work_goes_on_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "PATIENCE", 1.0)
    monkeypatch.setattr(turns, "TICK", 0.01)
    job, turn = Job(*range(10_000)), Turns()
    left = asked(turn, job)
    watched = asked(turn, Job("its turn").let())
    watching = watched.follow()
    began, told = time.monotonic(), ["waiting"]
    while told[-1] == "waiting":
        job.let()
        told.append(next(watching))
        assert time.monotonic() - began < SOON
    assert told[-1] == "its turn" and job.closed and job.made < 10_000 and not left.wanted


def test_unwatched_work_gives_way_to_who_waits_for_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "RELOAD", 0.5)
    monkeypatch.setattr(turns, "TICK", 0.01)
    turn = Turns()
    left = Job(*range(10_000))
    asked(turn, left)
    deserted = asked(turn, Job())
    time.sleep(0.6)
    left.let(5)
    until(lambda: left.made == 5)
    time.sleep(0.05)
    assert not left.closed  # the other one that waits is deserted, too
    deserted.end()
    watched = asked(turn, Job("its turn").let())
    watching = watched.follow()
    assert next(watching) == "waiting"
    left.let()
    until(lambda: left.closed)
    assert list(watching)[-1] == "its turn" and left.made == 6


def test_watched_work_does_not_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "RELOAD", 0.5)
    monkeypatch.setattr(turns, "TICK", 0.01)
    turn, first = Turns(), Job(*range(100))
    watching = asked(turn, first).follow()
    also = asked(turn, Job("second").let()).follow()
    began = time.monotonic()
    while time.monotonic() - began < 1.0:
        first.let()
        next(watching), next(also)
    assert not first.closed
    first.let(100)
    assert list(also)[-1] == "second" and first.made == 100


def test_an_error_reaches_every_follower_and_the_next_turn_comes() -> None:
    def breaks() -> Iterator[object]:
        yield 1
        raise ValueError("broken")

    turn = Turns()
    work: Work[object] = Work(breaks, "waiting")
    turn.ask(work)
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"):
            list(work.follow())
    assert list(asked(turn, Job(2).let()).follow())[-1] == 2
