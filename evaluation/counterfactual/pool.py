"""Tasks done by several processes of one thread each, in order of their place in the list.

A network this small gains next to nothing from a second thread, so n processes do n times the work.
Only the parent writes results: a line is there whole or not at all. When the parent dies, a worker
stops at its next report.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, Protocol, TypeVar

from attribution.types import UserError

T = TypeVar("T")
# Read by the libraries of numerics when they are loaded.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Worker(Protocol[T]):
    """What a set-up gives: `perform` yields shares of 1, at last the result, a dict."""

    def perform(self, task: T) -> Iterator[float | dict[str, Any]]:
        """Do one task."""
        ...


SetUp = Callable[[], Worker[T]]


@dataclass(frozen=True)
class Event(Generic[T]):
    """A share of a task is done, or (`result`) all of it."""

    task: T
    share: float
    result: dict[str, Any] | None = None


def run(tasks: Sequence[T], set_up: SetUp[T], workers: int) -> Iterator[Event[T]]:
    """Events until every task is done; workers 0: in this process, one after another.

    Closing the iterator ends the workers. UserError where a task fails with one, or a worker dies;
    RuntimeError with its traceback for any other failure: the tasks that others are at are finished
    before, and none is begun.
    """
    if not tasks:
        return
    if workers == 0:
        yield from _here(tasks, set_up())
        return
    team = _Team(set_up, min(workers, len(tasks)))
    try:
        yield from team.work(list(tasks))
    finally:
        team.dismiss()


def _here(tasks: Sequence[T], worker: Worker[T]) -> Iterator[Event[T]]:
    for task in tasks:
        for item in worker.perform(task):
            if isinstance(item, dict):
                yield Event(task, 1.0, item)
            else:
                yield Event(task, item)


class _Team(Generic[T]):
    def __init__(self, set_up: SetUp[T], size: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.processes: dict[Connection, BaseProcess] = {}
        before = {name: os.environ.get(name) for name in THREADS}
        os.environ.update(dict.fromkeys(THREADS, "1"))
        try:
            for _ in range(size):
                own, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs, set_up), daemon=True)
                process.start()
                theirs.close()
                self.processes[own] = process
        finally:
            _restore(before)

    def work(self, tasks: list[T]) -> Iterator[Event[T]]:
        waiting, busy, failure = tasks[::-1], {}, None
        for connection in self.processes:
            busy[connection] = waiting.pop()
            self._give(connection, busy[connection])
        while busy:
            for connection in wait(list(busy)):
                try:
                    event = self._heard(connection, busy[connection])
                except (UserError, RuntimeError) as error:
                    failure = failure or error
                    del busy[connection]
                    waiting = []
                    continue
                if event.result is not None:
                    del busy[connection]
                    if waiting:
                        busy[connection] = waiting.pop()
                        self._give(connection, busy[connection])
                yield event
        if failure is not None:
            raise failure

    def _give(self, connection: Connection, task: T) -> None:
        """Hand a worker its next task; of one that is gone, `_heard` tells what ended it."""
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.send(task)

    def _heard(self, connection: Connection, task: T) -> Event[T]:
        try:
            kind, value = connection.recv()
        except (EOFError, ConnectionResetError):
            process = self.processes[connection]
            process.join(5)
            raise UserError(
                f"a worker ended by itself (exit code {process.exitcode}; too little memory?): "
                "what is finished is kept, the same command goes on"
            ) from None
        if kind == "refused":
            raise UserError(value)
        if kind == "failed":
            raise RuntimeError(value)
        return Event(task, 1.0, value) if kind == "done" else Event(task, value)

    def dismiss(self) -> None:
        for connection, process in self.processes.items():
            process.terminate()
            connection.close()
        for process in self.processes.values():
            process.join()


def _restore(before: dict[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _serve(connection: Connection, set_up: SetUp[Any]) -> None:
    """A worker's life: tasks until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and ends its workers
    import torch

    torch.set_num_threads(1)
    try:
        worker = set_up()
        while True:
            for item in worker.perform(connection.recv()):
                connection.send(("done" if isinstance(item, dict) else "share", item))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except UserError as error:
        connection.send(("refused", str(error)))
    except Exception:
        connection.send(("failed", traceback.format_exc()))
