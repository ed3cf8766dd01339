"""Trainings in processes of their own (`python -m precompute retrain`), followed until they end.

A process that is no longer wanted is ended at once, and ends by itself where this one is gone.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from attribution.types import Progress, UserError

ROOT = Path(__file__).parent.parent
OPENING, STAGE = "read the training drawings", "train without them"
TICK = 0.3  # seconds between looks at whether to stop


@dataclass(frozen=True)
class Curves:
    """Training losses so far, (optimiser steps, loss), of both trainings."""

    found: tuple[tuple[int, float], ...] = ()
    control: tuple[tuple[int, float], ...] = ()


@dataclass
class Training:
    """A training's process, and what it has said."""

    side: str
    command: list[str]
    curve: list[tuple[int, float]] = field(default_factory=list)
    steps: int = 0
    done: int = 0

    def __post_init__(self) -> None:
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self.process = subprocess.Popen(
            self.command,
            cwd=ROOT,
            stdin=subprocess.PIPE,  # open while this process lives (--until-eof)
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def hear(self) -> bool:
        """Take in what was said; whether it has ended, in good order. UserError if not in that."""
        while True:
            try:
                line = self.lines.get_nowait()
            except queue.Empty:
                return False
            if line is None:
                self._check()
                return True
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                self.done, self.steps = said["step"], said["steps"]
                self.curve.append((said["step"], said["loss"]))

    def _check(self) -> None:
        if self.process.wait() == 0:
            return
        self.errors.seek(0)
        told = self.errors.read().strip().splitlines() or ["it said nothing"]
        if self.process.returncode == 2:
            raise UserError(told[-1].partition(": ")[2] or told[-1])
        raise RuntimeError(f"retraining ended with code {self.process.returncode}: {told[-1]}")

    def end(self) -> None:
        """No process is left behind."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(2)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.errors.close()


def followed(runs: Sequence[Training], known: Curves, training: int) -> Iterator[Progress | Curves]:
    """Progress of all runs together, and their curves beside those `known`, until all have ended.

    training: how many of them train; all for as many steps. The time left is that of the steps
    since the first ones heard of: a run reads its data first.
    """
    began = time.perf_counter()
    first: tuple[int, float] | None = None
    open_runs = list(runs)
    shown = 0
    while open_runs:
        open_runs = [run for run in open_runs if not run.hear()]
        done, total = sum(run.done for run in runs), training * max(run.steps for run in runs)
        now = time.perf_counter()
        if done and first is None:
            first = done, now
        yield progress_of(done, total, now - began, first, now)
        if done != shown:
            shown = done
            yield replace(known, **{run.side: tuple(run.curve) for run in runs if run.curve})
        time.sleep(TICK if open_runs else 0)


def progress_of(
    done: int, total: int, seconds: float, first: tuple[int, float] | None, now: float
) -> Progress:
    """How far the steps are; `first`: (steps, moment) at which some were first heard of."""
    if first is None:
        return Progress(OPENING, 0, 0, seconds)
    steps, moment = first
    left = (now - moment) / (done - steps) * (total - done) if done > steps else None
    return Progress(STAGE, done, total, seconds, left)
