"""As many threads as help at the moment.

OpenMP's threads wait for one another at every operation: where other programs hold the cores, four
of them can take thirty times as long as one (`python -m benchmarks crowded`), and one program that
looks on now and then is enough to make a thread on every core slower than one core less. So work
that comes in steps climbs a ladder of numbers of threads, from one, as long as each rung is faster
than the last; it keeps the fastest, and climbs again after a while, or as soon as steps take longer
than they did. A thread that waits for others spins, and so uses its core: as long as the processor
gives all threads all of their time, nobody holds a core of theirs, and there is nothing to try.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch

SAMPLE = 5  # steps that a pace is judged by,
ENOUGH = 1.0  # or as many as take so many seconds
SLOW = 3.0  # two steps on end that take so many times as long as the best: no more of them
FREE = 0.93  # of the threads' time was the processor's: 0.95 to 1 alone, 0.5 to 0.9 beside others
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


class Threads:
    """Torch's threads: how many it was given, by its user or by default, and how many of these are
    in use. Torch keeps a number for each thread of Python; a new one begins with the last set."""

    def __init__(self) -> None:
        self._given = 1
        self._last: int | None = None
        self._here = threading.local()

    @property
    def given(self) -> int:
        """As many as torch would have without `use`."""
        now = torch.get_num_threads()
        return self._given if now == getattr(self._here, "used", self._last) else now

    def use(self, n: int) -> None:
        """From now on n of those given."""
        self._given = self.given
        torch.set_num_threads(n)
        self._here.used = self._last = n

    @contextmanager
    def as_given(self) -> Iterator[None]:
        """Afterwards torch has as many as it was given before."""
        given = self.given
        try:
            yield
        finally:
            torch.set_num_threads(given)


THREADS = Threads()


class Pace:
    """How many threads the next step gets.

    alone: whether all cores are thought to be free, so that every step gets `most`; otherwise it
    begins with a climb.
    """

    def __init__(self, most: int, alone: bool = False) -> None:
        self.ladder = ladder(most)
        self.alone = alone
        self._recent: deque[float] = deque(maxlen=SAMPLE)
        self._shares: deque[float] = deque(maxlen=2)  # the first step prepares much in one thread
        if alone:
            self._to(most)
        else:
            self._climb()

    def took(self, seconds: float, size: int = 1, share: float = 0.0) -> int:
        """After a step of `seconds` with `threads`: the threads of the next one. size: how many
        like things the step did; a pace is the seconds of one. share: seconds of processor over
        seconds of all its threads."""
        self._recent.append(seconds / size)
        self._shares.append(share)
        self._spent += seconds
        if self.alone:
            if len(self._shares) == 2 and max(self._shares) < FREE:
                self._climb()
        elif self._left is None:
            self._try()
        else:
            self._keep(self._left - 1)
        return self.threads

    @property
    def _far_too_slow(self) -> bool:
        """Not by chance, nor because the first step with so many threads prepares for them."""
        return len(self._recent) > 1 and min(list(self._recent)[-2:]) > SLOW * self._best

    def _climb(self) -> None:
        """Begin at one thread."""
        self.alone = False
        self._rung, self._best, self._fastest = 0, math.inf, 1
        self._left: int | None = None  # steps until the next climb; None: it is going on
        self._to(1)

    def _try(self) -> None:
        if self._far_too_slow:
            self._settle()
        elif len(self._recent) == SAMPLE or self._spent > ENOUGH:
            if median(self._recent) >= self._best:
                self._settle()
                return
            self._best, self._fastest = median(self._recent), self.threads
            self._rung += 1
            if self._rung < len(self.ladder):
                self._to(self.ladder[self._rung])
            else:
                self._settle()

    def _keep(self, left: int) -> None:
        self._left = left
        sampled = len(self._recent) == SAMPLE
        if sampled and self.threads == self.ladder[-1] and min(self._shares) >= FREE:
            self.alone = True
            return
        slower = sampled and median(self._recent) > CHANGED * self._best
        if slower or self._far_too_slow or not left:
            self._climb()

    def _settle(self) -> None:
        self._left = PERIOD
        self._to(self._fastest)

    def _to(self, threads: int) -> None:
        self.threads = threads
        self._recent.clear()
        self._shares.clear()
        self._spent = 0.0


class Forwards:
    """Sets torch's threads for each forward of a module, by a Pace for each kind of them: their
    size, a doubling of the batch being another kind, and whether they prepare a backward. What
    comes after a forward, a backward for one, has its threads. The first kind is thought to be
    alone, others where no other has found that it is not."""

    def __init__(self) -> None:
        self._paces: dict[tuple[Any, ...], Pace] = {}
        self._running: tuple[Pace, float, float] | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Forwards:
        return self  # a copy of the module takes as long

    def before(self, module: Any, inputs: tuple[Any, ...]) -> None:
        """Forward pre-hook; the first input is a batch [B, ...]."""
        self._running = None
        most = THREADS.given
        if most > 1:
            pace = self._pace(inputs[0], most)
            THREADS.use(pace.threads)
            self._running = pace, time.perf_counter(), time.process_time()

    def after(self, module: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Forward hook."""
        if self._running is None:
            return
        pace, wall, processor = self._running
        seconds, used = time.perf_counter() - wall, time.process_time() - processor
        share = used / (max(seconds, 1e-9) * pace.threads)
        pace.took(seconds, max(1, len(inputs[0])), share)

    def _pace(self, batch: Any, most: int) -> Pace:
        kind = most, len(batch).bit_length(), *batch.shape[1:], torch.is_grad_enabled()
        if kind not in self._paces:
            alone = all(pace.alone for pace in self._paces.values())
            self._paces[kind] = Pace(most, alone)
        return self._paces[kind]


def pace_forwards(module: Any) -> None:
    """From now on forwards of the module, on the CPU, run with as many threads as help, at most
    those that torch was given. Results then differ in the last bits, as between machines."""
    forwards = Forwards()
    module.register_forward_pre_hook(forwards.before)
    module.register_forward_hook(forwards.after)
