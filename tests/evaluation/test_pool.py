"""Workers: order, results, refusals, deaths, and nobody left behind."""

from __future__ import annotations

import os
import time
from functools import partial
from multiprocessing.connection import Connection, Pipe
from multiprocessing.context import SpawnContext
from pathlib import Path

import pytest

from attribution.types import UserError
from evaluation.counterfactual import pool


class Squares:
    """Squares numbers; notes what it did, and does as some numbers tell it."""

    def __init__(self, notes: Path) -> None:
        self.notes = notes

    def perform(self, task: int):
        import torch

        (self.notes / f"{task}").write_text(f"{os.getpid()} {torch.get_num_threads()}")
        yield 0.5
        if task == 13:
            raise UserError("thirteen is refused")
        if task == 14:
            raise ValueError("fourteen is a mistake")
        if task == 15:
            os._exit(9)
        if task in range(16, 20):
            time.sleep(1)
        if task > 100:
            time.sleep(60)
        yield {"square": task * task, "threads": os.environ.get("OMP_NUM_THREADS")}


def events(tasks, notes, workers):
    return list(pool.run(tasks, partial(Squares, notes), workers))


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_every_task_is_done_once_and_in_order(tmp_path, workers):
    found = events([3, 1, 2, 5], tmp_path, workers)
    results = {event.task: event.result for event in found if event.result}
    assert {task: line["square"] for task, line in results.items()} == {3: 9, 1: 1, 2: 4, 5: 25}
    assert [event.share for event in found if not event.result] == [0.5] * 4
    done = [event.task for event in found if event.result]
    if workers < 2:
        assert done == [3, 1, 2, 5]
    if workers:
        notes = [(tmp_path / str(n)).read_text().split() for n in (3, 1, 2, 5)]
        assert {threads for _, threads in notes} == {"1"}
        assert str(os.getpid()) not in {pid for pid, _ in notes}
        assert {line["threads"] for line in results.values()} == {"1"}


class PipeConnection:
    """A connection of no class of this system's, as Pipe() makes them on Windows."""

    def __init__(self, inner: Connection) -> None:
        self._inner = inner

    def __getattr__(self, name: str):
        return getattr(self._inner, name)


def test_any_kind_of_connection_will_do(tmp_path, monkeypatch):
    def pipe(context, duplex=True):
        own, theirs = Pipe(duplex)
        return PipeConnection(own), theirs

    monkeypatch.setattr(SpawnContext, "Pipe", pipe)
    assert [event.result["square"] for event in events([3], tmp_path, 1) if event.result] == [9]


def test_the_environment_is_as_before(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    job = pool.run([1], partial(Squares, tmp_path), 1)
    next(job)
    assert os.environ["OMP_NUM_THREADS"] == "7" and "MKL_NUM_THREADS" not in os.environ
    job.close()


@pytest.mark.parametrize(
    ("task", "error", "words"),
    [
        (13, UserError, "thirteen is refused"),
        (14, RuntimeError, "fourteen is a mistake"),
        (15, UserError, "exit code 9"),
    ],
)
def test_what_goes_wrong_in_a_worker_is_told(tmp_path, task, error, words):
    with pytest.raises(error, match=words):
        events([task], tmp_path, 1)


def refuse():
    raise UserError("there is no index")


@pytest.mark.parametrize(
    ("set_up", "words"), [(partial(os._exit, 9), "exit code 9"), (refuse, "there is no index")]
)
def test_a_worker_that_is_gone_before_its_task_is_told_alike(set_up, words):
    team = pool._Team(set_up, 2)
    try:
        for process in team.processes.values():
            process.join()
        with pytest.raises(UserError, match=words):
            list(team.work([1, 2, 3]))
    finally:
        team.dismiss()


def test_finished_tasks_are_told_before_a_failure(tmp_path):
    told = []
    with pytest.raises(UserError):
        for event in pool.run([2, 13], partial(Squares, tmp_path), 1):
            told.append(event)
    assert [event.result["square"] for event in told if event.result] == [4]


def test_a_failure_waits_for_what_others_are_at_and_begins_nothing(tmp_path):
    told = []
    with pytest.raises(UserError, match="thirteen"):
        for event in pool.run([16, 13, 17, 18, 19], partial(Squares, tmp_path), 2):
            told.append(event)
    done = {event.task for event in told if event.result}
    begun = {int(note.name) for note in tmp_path.iterdir()}
    assert 16 in done and begun == done | {13}


def test_closing_ends_the_workers(tmp_path):
    job = pool.run([101], partial(Squares, tmp_path), 1)
    assert next(job).share == 0.5
    pid = int((tmp_path / "101").read_text().split()[0])
    began = time.monotonic()
    job.close()
    assert time.monotonic() - began < 30
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_nothing_to_do_starts_nobody(tmp_path):
    assert events([], tmp_path / "nowhere", 4) == []
