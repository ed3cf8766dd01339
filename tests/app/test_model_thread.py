"""Whichever threads ask, one does the work."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from app import model_thread
from attribution.types import UserError


def _counting(n: int, seen: list[str], ended: list[str]) -> Iterator[int]:
    try:
        for number in range(n):
            seen.append(threading.current_thread().name)
            yield number
    finally:
        ended.append(threading.current_thread().name)


def test_steps_asked_for_by_several_threads_are_taken_in_one() -> None:
    seen: list[str] = []
    ended: list[str] = []
    items = model_thread.steps(_counting)(3, seen, ended)
    found = []
    for _ in range(3):  # as the web server does: each step from another thread
        with ThreadPoolExecutor(1) as pool:
            found.append(pool.submit(next, items).result())
    assert found == [0, 1, 2]
    assert next(items, None) is None
    assert len(set(seen)) == 1 and seen[0].startswith(model_thread.NAME)
    assert ended == seen[:1]


def test_closing_ends_the_work_in_the_same_thread() -> None:
    seen: list[str] = []
    ended: list[str] = []
    items = model_thread.steps(_counting)(9, seen, ended)
    next(items)
    items.close()  # type: ignore[attr-defined]
    assert ended == seen


def test_generators_take_turns() -> None:
    seen: list[str] = []
    first, second = (model_thread.steps(_counting)(2, seen, []) for _ in range(2))
    assert [next(first), next(second), next(first), next(second)] == [0, 0, 1, 1]
    assert len(set(seen)) == 1


def test_errors_reach_who_asked_and_the_thread_lives_on() -> None:
    def refused() -> Iterator[int]:
        yield 1
        raise UserError("no")

    items = model_thread.steps(refused)()
    assert next(items) == 1
    with pytest.raises(UserError, match="no"):
        next(items)
    assert model_thread.run(lambda: 7) == 7


def test_work_may_ask_for_work() -> None:
    assert model_thread.run(lambda: model_thread.run(lambda: 3)) == 3
