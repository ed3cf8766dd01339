"""As many threads as help at the moment.

OpenMP's threads wait for one another at every operation: where other programs hold the cores, three
of them can take forty times as long as one, and one program that looks on now and then is enough to
make a thread on every core slower than one core less. So a training climbs a ladder of numbers of
threads, from one, as long as each rung is faster than the last; it keeps the fastest, and climbs
again after a while, or as soon as steps take longer than they did.
"""

from __future__ import annotations

import math
import os
from collections import deque
from statistics import median

SAMPLE = 5  # steps that a pace is judged by
SLOW = 3.0  # one step that takes so many times as long as the best ends a climb
CHANGED = 1.5  # so many times as long as when it was chosen: the machine is no longer the same
PERIOD = 300  # steps between climbs


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def ladder(most: int) -> list[int]:
    """Numbers of threads worth a trial, ascending: doublings of one, all but one, all."""
    doublings = (1 << n for n in range(most.bit_length()))
    return sorted({n for n in (*doublings, most - 1, most) if 1 <= n <= most})


class Pace:
    """How many threads the next step gets."""

    def __init__(self, most: int) -> None:
        self.ladder = ladder(most)
        self._recent: deque[float] = deque(maxlen=SAMPLE)
        self._climb()

    def took(self, seconds: float) -> int:
        """After a step of `seconds` with `threads`: the threads of the next one."""
        self._recent.append(seconds)
        if self._left is None:
            self._try(seconds)
        else:
            self._left -= 1
            slower = len(self._recent) == SAMPLE and median(self._recent) > CHANGED * self._best
            if slower or not self._left:
                self._climb()
        return self.threads

    def _climb(self) -> None:
        """Begin at one thread."""
        self._rung, self._best, self._fastest = 0, math.inf, 1
        self._left: int | None = None  # steps until the next climb; None: it is going on
        self._to(1)

    def _try(self, seconds: float) -> None:
        if seconds > SLOW * self._best:
            self._settle()
        elif len(self._recent) == SAMPLE:
            if median(self._recent) >= self._best:
                self._settle()
                return
            self._best, self._fastest = median(self._recent), self.threads
            self._rung += 1
            if self._rung < len(self.ladder):
                self._to(self.ladder[self._rung])
            else:
                self._settle()

    def _settle(self) -> None:
        self._left = PERIOD
        self._to(self._fastest)

    def _to(self, threads: int) -> None:
        self.threads = threads
        self._recent.clear()
