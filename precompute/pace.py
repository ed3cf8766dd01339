"""As many threads as help at the moment.

OpenMP's threads wait for one another at every operation: where other programs hold the cores, three
of them can take forty times as long as one, and one program that looks on now and then is enough to
make a thread on every core slower than one core less. So a training begins with one thread, tries
more, then fewer of them, keeps what is faster than one while it is, and tries again later where
nothing was, ever more seldom.
"""

from __future__ import annotations

import os
from collections import deque
from statistics import median

SAMPLE = 5  # steps that a pace is judged by
SLOW = 3.0  # one step that takes so many times as long is enough
WARM_UP, LONGEST = 8, 400  # steps before the first trial, and at most between two
LASTED = 50  # steps after which more threads have been of use


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def levels(most: int) -> list[int]:
    """Numbers of threads worth a trial: all, one core less, then halves down to two."""
    halves = [most >> n for n in range(1, most.bit_length())]
    return [n for n in dict.fromkeys((most, most - 1, *halves)) if n > 1]


class Pace:
    """How many threads the next step gets: one, or one of the `levels` of `most`."""

    def __init__(self, most: int) -> None:
        self.levels = levels(most)
        self.threads = 1
        self._next = 0  # the level that is tried next
        self._alone: deque[float] = deque(maxlen=SAMPLE)
        self._many: deque[float] = deque(maxlen=SAMPLE)
        self._since, self._wait = 0, WARM_UP

    def took(self, seconds: float) -> int:
        """After a step of `seconds` with `threads`: the threads of the next one."""
        if self.threads == 1:
            self._alone.append(seconds)
            self._since += 1
            if self.levels and self._since >= self._wait:
                self.threads, self._since = self.levels[self._next], 0
                self._many.clear()
        else:
            self._many.append(seconds)
            self._since += 1
            if self._slower(seconds):
                self._give_up(useful=self._since >= LASTED)
        return self.threads

    def _give_up(self, useful: bool) -> None:
        """Back to one thread, and what is tried next: the same soon where it was of use for long,
        else the next level soon, and all of them again after a longer while."""
        if not useful:
            self._next = (self._next + 1) % len(self.levels)
            if self._next == 0:
                self._wait = min(2 * self._wait, LONGEST)
        self.threads, self._alone = 1, deque(maxlen=SAMPLE)
        self._since = 0 if useful or self._next == 0 else self._wait - WARM_UP

    def _slower(self, seconds: float) -> bool:
        alone = median(self._alone)
        typical = median(self._many) if len(self._many) == SAMPLE else 0.0
        return seconds > SLOW * alone or typical > alone
