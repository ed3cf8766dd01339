"""One thread that all work on the model is done in, whichever thread asks.

The web server answers each click, and each step of a generator, in any of its threads. OpenMP gives
every thread that calls torch a team of its own; once teams outnumber the cores they wait asleep
instead of at the ready, and pictures and answers take two to three times as long.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from app import spaces_gpu

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

NAME = "model"
_pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=NAME)
_END: Any = object()


def run(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """The function's result or exception, from the model's thread. Where ZeroGPU lends a device by
    the call, in a process of its own, this thread will do.
    """
    here = threading.current_thread().name.startswith(NAME)
    if here or spaces_gpu.spaces is not None:
        return function(*args, **kwargs)
    return _pool.submit(function, *args, **kwargs).result()


def steps(work: Callable[P, Iterator[T]]) -> Callable[P, Iterator[T]]:
    """A generator function whose every step, and whose end, is in the model's thread. Steps of
    several generators take turns.
    """

    def stepping(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        items = run(work, *args, **kwargs)
        try:
            while (item := run(next, items, _END)) is not _END:
                yield item
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                run(close)

    return stepping
