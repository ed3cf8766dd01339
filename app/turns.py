"""Long work that goes on while nobody looks: one at a time, in the order it was asked for.

A visitor's click follows the work; so may the same visitor after a reload, or from a second tab.
Whoever comes late is told the latest of every kind, oldest first: all that a page shows. Work that
nobody has followed for a while ends, so that the next one's turn comes.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Generic, TypeVar

T = TypeVar("T")

TICK = 0.3  # seconds after which a follower is told again what stands
PATIENCE = 300.0  # seconds that work goes on unwatched


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
        return not (self._over or self._unwanted or time.monotonic() - self._seen > PATIENCE)

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

    def do(self) -> None:
        """Make the items, here and now."""
        try:
            if self.wanted:
                self._do()
        except Exception as error:
            self._error = error
        finally:
            with self._news:
                self._over = True
                self._news.notify_all()

    def _do(self) -> None:
        with closing(self._make()) as items:  # type: ignore[type-var]
            for item in items:
                with self._news:
                    self._latest.pop(type(item), None)  # the newest goes last
                    self._latest[type(item)] = item
                    self._news.notify_all()
                if not self.wanted:
                    return


class Turns:
    """A thread that does one work after another; it ends with the program, in the midst of one."""

    def __init__(self) -> None:
        self._asked: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def ask(self, work: Work) -> None:
        """It gets its turn after all that were asked for before."""
        self._asked.put(work)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._serve, name="turns", daemon=True)
                self._thread.start()

    def _serve(self) -> None:
        while True:
            self._asked.get().do()
