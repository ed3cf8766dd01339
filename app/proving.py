"""Proof by counterfactual, step by step: make a picture, ask a method, train without what it found.

Each training runs in a process of its own (`python -m precompute retrain`), so that Stop ends it at
once and the page stays awake. Without the method's records and without as many random ones run side
by side. The model without the random ones is the same for every picture: it comes with the index
for the K that the page offers first, and is kept while the page runs for any other.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from app import model_thread
from app.model_thread import steps
from attribution import layout
from attribution.engine import Engine
from attribution.index import Index
from attribution.proofs import (
    UNET,
    Control,
    Proof,
    list_proofs,
    load_control,
    load_proof,
    read_retraining,
)
from attribution.types import Attribution, Progress, Query, UserError

ROOT = Path(__file__).parent.parent
OPENING, STAGE = "read the training drawings", "train without them"
CONFIG = "config.json"  # of a UNet's folder
TICK = 0.3  # seconds between looks at whether to stop
RECORD = "training/unet_training.json"


@dataclass(frozen=True)
class Begun:
    """A picture, and the ids of the records it is trained without: a method's, and random ones."""

    query: Query
    method: str
    found: tuple[str, ...]
    control: tuple[str, ...]


@dataclass(frozen=True)
class Curves:
    """Training losses so far, (optimiser steps, loss), of both trainings."""

    found: tuple[tuple[int, float], ...] = ()
    control: tuple[tuple[int, float], ...] = ()


class Proving:
    """The proof world at `path`: its engine, its saved proofs, and new ones."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._kept: dict[tuple[str, ...], Control] = {}
        self._folder: Any = None

    @property
    def missing(self) -> str:
        """Why nothing can be proved here, in a line with the command that helps; '' if it can."""
        if not (self.path / layout.MANIFEST).is_file():
            return f"there is no proof world at {self.path}: `python -m precompute assets` makes it"
        if not (self.path / RECORD).is_file():
            return f"the model in {self.path} cannot be retrained: {RECORD} is missing"
        return ""

    @cached_property
    def index(self) -> Index:
        """The index alone: what a saved proof needs."""
        return Index.open(self.path)

    @property
    def engine(self) -> Engine:
        """The index with its model, loaded for the first proof; on the CPU, where it trains."""
        with self._lock:
            if self._engine is None:
                self._engine = model_thread.run(Engine, self.path, "cpu")
            return self._engine

    def saved(self) -> dict[str, Proof]:
        """Finished proofs of this very index, by slug."""
        found = {}
        for slug in list_proofs(self.path / layout.PROOFS) if not self.missing else ():
            with contextlib.suppress(UserError):
                folder = self.path / layout.PROOFS / slug
                found[slug] = load_proof(folder, self.index.index_hash)
        return found

    def prove(
        self, prompt: str, seed: int, method: str, k: int
    ) -> Iterator[Progress | Begun | Curves | Proof]:
        """Progress, what is taken out as soon as it is known, loss curves, at last the Proof;
        closing it ends the trainings."""
        if self.missing:
            raise UserError(self.missing)
        yield Progress("open", 0, 1)
        engine = self.engine
        query: Query | None = None
        for made in steps(engine.generate)(prompt, seed):
            if isinstance(made, Progress):
                yield made
            else:
                query = made
        assert query is not None
        answer: Attribution | None = None
        for item in steps(engine.attribute)(query, (method,), k, exhaustive=True):
            if isinstance(item, Attribution):
                answer = item
            else:
                yield item
        assert answer is not None
        sides = {"found": tuple(answer.ids[:k]), "control": tuple(engine.control_ids(k))}
        yield Begun(query, method, **sides)
        with tempfile.TemporaryDirectory(prefix="whence-proof-") as place:
            query.image.save(Path(place) / "query.png")
            kept = self._control(sides["control"])
            yield from self._trained(query, sides, Path(place), kept)
            (found, loss), (random, _) = (read_retraining(Path(place) / side) for side in sides)
        if kept:  # its own training's curve; it took no time now
            random = replace(random, curve=kept.curve)
        yield Proof(query, method, loss, found, random)

    # ------------------------------------------------------------------ trainings

    def _trained(
        self,
        query: Query,
        sides: Mapping[str, Sequence[str]],
        place: Path,
        kept: Control | None,
    ) -> Iterator[Progress | Curves]:
        """Both trainings to their end, the control's only where it is not kept; the results lie in
        `place`, a folder each."""
        training = 1 if kept else 2
        runs = []
        try:
            for side, ids in sides.items():
                file = place / f"{side}.json"
                file.write_text(json.dumps(ids), encoding="utf-8")
                more = ["--keep"] if side == "control" else []
                if side == "control" and kept:
                    more = ["--weights", str(kept.unet)]
                more += ["--share", str(training)]
                runs.append(_Run(side, self._command(query, file, place / side, more)))
            known = Curves(control=kept.curve) if kept else Curves()
            yield from _followed(runs, known, training)
        finally:
            for run in runs:
                run.end()
        if not kept:
            self._keep(tuple(sides["control"]), place / "control")

    def _control(self, ids: tuple[str, ...]) -> Control | None:
        """The model trained without these random records: of an earlier proof, or the index's."""
        kept = self._kept.get(ids)
        if kept is not None and (kept.unet / CONFIG).is_file():  # folders of /tmp may be tidied up
            return kept
        return load_control(self.path, ids, self.index.index_hash)

    def _command(
        self, query: Query, without: Path, out: Path, more: Sequence[str] = ()
    ) -> list[str]:
        picture = out.parent / "query.png"
        return [
            *(sys.executable, "-m", "precompute", "retrain", "--index", str(self.path.resolve())),
            *("--without", str(without), f"--prompt={query.prompt}", "--seed", str(query.seed)),
            *("--picture", str(picture), "--out", str(out), "--until-eof", *more),
        ]

    def _keep(self, ids: tuple[str, ...], folder: Path) -> None:
        """Move the UNet trained in a folder to where the next proof finds it, until the page
        closes."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="whence-control-")
        target = Path(tempfile.mkdtemp(dir=self._folder.name)) / UNET
        (folder / UNET).rename(target)
        made, _ = read_retraining(folder)
        self._kept[ids] = Control(ids, target, made.curve, made.seconds)


@dataclass
class _Run:
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


def _followed(runs: Sequence[_Run], known: Curves, training: int) -> Iterator[Progress | Curves]:
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
        yield _progress(done, total, now - began, first, now)
        if done != shown:
            shown = done
            yield replace(known, **{run.side: tuple(run.curve) for run in runs if run.curve})
        time.sleep(TICK if open_runs else 0)


def _progress(
    done: int, total: int, seconds: float, first: tuple[int, float] | None, now: float
) -> Progress:
    """How far the steps are; `first`: (steps, moment) at which some were first heard of."""
    if first is None:
        return Progress(OPENING, 0, 0, seconds)
    steps, moment = first
    left = (now - moment) / (done - steps) * (total - done) if done > steps else None
    return Progress(STAGE, done, total, seconds, left)
