"""As many threads as help at the moment.

OpenMP's threads wait for one another at every operation: where other programs hold the cores, three
of them can take forty times as long as one. So a training begins with one thread, tries more, keeps
them while they are faster, and tries again later where they were not, ever more seldom.
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


class Pace:
    """How many threads the next step gets: one, or `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.threads = 1
        self._alone: deque[float] = deque(maxlen=SAMPLE)
        self._many: deque[float] = deque(maxlen=SAMPLE)
        self._since, self._wait = 0, WARM_UP

    def took(self, seconds: float) -> int:
        """After a step of `seconds` with `threads`: the threads of the next one."""
        if self.threads == 1:
            self._alone.append(seconds)
            self._since += 1
            if self.most > 1 and self._since >= self._wait:
                self.threads, self._since = self.most, 0
                self._many.clear()
        else:
            self._many.append(seconds)
            self._since += 1
            if self._slower(seconds):
                useful = self._since >= LASTED
                self._wait = WARM_UP if useful else min(2 * self._wait, LONGEST)
                self.threads, self._since = 1, 0
                self._alone.clear()
        return self.threads

    def _slower(self, seconds: float) -> bool:
        alone = median(self._alone)
        typical = median(self._many) if len(self._many) == SAMPLE else 0.0
        return seconds > SLOW * alone or typical > alone
