"""Long work that goes on while nobody looks: one at a time, in the order it was asked for.

A visitor's click follows the work; so may the same visitor after a reload, or from a second tab.
Whoever comes late is told the latest of every kind, oldest first: all that a page shows. Work that
nobody has followed for a while ends; where somebody waits for a turn, for a short while.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Generic, TypeVar

T = TypeVar("T")

TICK = 0.3  # seconds after which a follower is told again what stands
PATIENCE = 300.0  # seconds that work goes on unwatched
RELOAD = 15.0  # seconds that it does so while others wait: enough to open the page again


class Work(Generic[T]):
    """The items of `make()`, a generator that is closed early where nobody wants it any more.

    waiting: what followers are told until its turn has come; of this kind something is told again
    at every tick.
    """

    def __init__(self, make: Callable[[], Iterator[T]], waiting: T) -> None:
        self._make = make
        self._pulse = type(waiting)
        self._latest: dict[type, T] = {self._pulse: waiting}
        self._news = threading.Condition()
        self._over = False
        self._unwanted = False
        self._error: Exception | None = None
        self._seen = time.monotonic()

    @property
    def wanted(self) -> bool:
        """Whether it is to go on, or to begin."""
        return not (self._over or self._unwanted) and self.watched(PATIENCE)

    def watched(self, within: float) -> bool:
        """Whether somebody followed it in the last so many seconds, or asked for it."""
        return time.monotonic() - self._seen <= within

    def end(self) -> None:
        """Nobody wants it: it stops at its next item, or does not begin."""
        self._unwanted = True

    def follow(self) -> Iterator[T]:
        """The latest item of each kind, then what comes; ends with the work, raises what it raised.
        Closing this leaves the work alone."""
        told: dict[type, T] = {}
        while True:
            with self._news:
                self._seen = time.monotonic()
                if not self._over and self._fresh(told) == []:
                    self._news.wait(TICK)
                fresh, over = self._fresh(told), self._over
            told.update({type(item): item for item in fresh})
            yield from fresh
            if over:
                if self._error is not None:
                    raise self._error
                return
            if not fresh:
                yield told[self._pulse]

    def _fresh(self, told: dict[type, T]) -> list[T]:
        return [item for kind, item in self._latest.items() if told.get(kind) is not item]

    def do(self, contested: Callable[[], bool]) -> None:
        """Make the items, here and now. contested: whether somebody waits for a turn."""
        try:
            if self.wanted:
                self._do(contested)
        except Exception as error:
            self._error = error
        finally:
            with self._news:
                self._over = True
                self._news.notify_all()

    def _do(self, contested: Callable[[], bool]) -> None:
        with closing(self._make()) as items:  # type: ignore[type-var]
            for item in items:
                with self._news:
                    self._latest.pop(type(item), None)  # the newest goes last
                    self._latest[type(item)] = item
                    self._news.notify_all()
                if not self.wanted or (not self.watched(RELOAD) and contested()):
                    return


class Turns:
    """A thread that does one work after another; it ends with the program, in the midst of one."""

    def __init__(self) -> None:
        self._asked: deque[Work] = deque()
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None

    def ask(self, work: Work) -> None:
        """It gets its turn after all that were asked for before."""
        with self._news:
            self._asked.append(work)
            self._news.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="turns", daemon=True)
                self._thread.start()

    def _serve(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._asked)
                work = self._asked.popleft()
            work.do(self._contested)

    def _contested(self) -> bool:
        """Whether somebody looks on as work waits."""
        with self._news:
            return any(work.wanted and work.watched(RELOAD) for work in self._asked)
