"""EDGE: what is finished, as lines in evaluation/results/leave-k-out.jsonl, and pictures in the
cache, one small PNG a training.

| unit | holds |
|---|---|
| base | the gallery (id, prompt, seed, category), its losses, each picture's nearest prompts |
| arms | label → arm as written: with which settings a method was run |
| digests | arm → the digest of the answers that count |
| configurations | arm → all its settings, defaults of the day among them, and their digest |
| random ... | a draw's order of removal |
| answer ... | query, arm, rows of the index, best first, the first `TOP` |
| scores ... | query, arm, the score of every row of the index (`packed`) |
| training ... | removed rows, seed, losses, squared errors and CLIP similarities of the gallery |
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from PIL import Image

from attribution.types import UserError
from evaluation.counterfactual.tasks import Entry, Job, WorkList
from evaluation.results import Results
from precompute.recipes.model.config import UnetConfig

VERB, MODULE = "leave-k-out", "evaluation.leave_k_out"
# Ranks kept of an answer.
TOP = 100
COLUMNS = 8
WORK_LIST = "work-list.jsonl"


@dataclass
class Ledger:
    """The lines of one recipe, model and gallery; `folder` holds what is not kept in git."""

    results: Results
    folder: Path

    @classmethod
    def open(
        cls,
        results: Path,
        cache: Path,
        subject: str,
        index_hash: str | None,
        recipe: UnetConfig,
        settings: Mapping[str, Any],
    ) -> Ledger:
        """The run of these settings on this model and data (`subject`)."""
        said = {**settings, "recipe": {**asdict(recipe), "channels": list(recipe.channels)}}
        found = Results.open(results, VERB, subject, said)
        found.head |= {"index_hash": index_hash, "module": MODULE}
        return cls(found, cache / VERB / found.run)

    # ------------------------------------------------------------------ lines

    @property
    def base(self) -> dict[str, Any] | None:
        """The gallery's line."""
        return self.results.units.get("base")

    @cached_property
    def base_pictures(self) -> Path:
        """The gallery as the model drew it: kept with the lines."""
        return self.results.path.parent / VERB / f"{self.results.run}-base.png"

    def answers(self, digests: Mapping[str, str] | None = None) -> dict[tuple[str, str], list[int]]:
        """(query's id, arm) → rows; digests: arm → the digest its answers must have."""
        found = {}
        for unit in self.results.units.values():
            if unit["unit"].startswith("answer "):
                arm = unit["arm"]
                if digests is None or digests.get(arm) == unit["digest"]:
                    found[unit["query"], arm] = unit["rows"]
        return found

    def scored(self, digests: Mapping[str, str]) -> set[tuple[str, str]]:
        """(query's id, arm) of the scores there are, of these digests."""
        found = (u for name, u in self.results.units.items() if name.startswith("scores "))
        return {(u["query"], u["arm"]) for u in found if digests.get(u["arm"]) == u["digest"]}

    @property
    def trainings(self) -> dict[str, dict[str, Any]]:
        """Key → line of every finished training."""
        start = "training "
        units = self.results.units.items()
        return {name.removeprefix(start): u for name, u in units if name.startswith(start)}

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Held by the one command that trains for this file of lines, as they are by then;
        UserError while another one does."""
        path = self.results.path
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_suffix(".lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(
                f"another command trains for {path}: wait for it, or name other --results"
            ) from None
        try:
            self.results.refresh()
            yield
        finally:
            lock.release()

    def note_arms(self, labels: Mapping[str, str]) -> None:
        """Join labels to those noted, where that says anything new."""
        self._join("arms", "labels", labels)

    def note_digests(self, digests: Mapping[str, str]) -> None:
        """Join the digests of the arms as they are now: which of several answers of an arm counts,
        where its configuration has changed."""
        self._join("digests", "arms", digests)

    def note_configurations(self, found: Mapping[str, Mapping[str, Any]]) -> None:
        """Join the settings of the arms as they are now: a digest alone cannot be read back."""
        self._join("configurations", "arms", found)

    @property
    def digests(self) -> dict[str, str]:
        """Arm as written → the digest of the answers that count."""
        return dict(self.results.units.get("digests", {}).get("arms", {}))

    def _join(self, unit: str, name: str, values: Mapping[str, Any]) -> None:
        """One more line of a unit where `values` say anything new, with what it said before: by
        now, another command may have noted something."""
        self.results.refresh()
        noted = self.results.units.get(unit, {}).get(name, {})
        joined = {**noted, **values}
        if joined != noted:
            self.results.add(unit, **{name: joined})

    def note_random(self, draw: int, rows: Sequence[int]) -> None:
        """Keep a draw's order of removal."""
        if (key := f"random {draw}") not in self.results.units:
            self.results.add(key, draw=draw, rows=list(rows))

    def add(self, key: str, line: Mapping[str, Any]) -> None:
        """One finished unit, on disk when this returns."""
        self.results.add(key, **line)

    # ------------------------------------------------------------------ the cache

    def pictures(self, key: str) -> Path:
        """A training's pictures of the gallery."""
        return self.folder / f"{key}.png"

    def model(self, seed: int) -> Path:
        """Where a seed's model is kept, a whole pipeline folder."""
        return self.folder / "models" / f"seed-{seed}"

    def write_work_list(self, work: WorkList) -> Path:
        """The list with what is done of it, replaced as a whole."""
        path = self.folder / WORK_LIST
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        lines = [json.dumps(line) for line in work.lines(self.trainings)]
        part.write_text("\n".join(lines) + "\n", encoding="utf-8")
        os.replace(part, path)
        return path

    def missing(self, work: WorkList, again: bool = False) -> list[Job]:
        """What is left, in order; again: also where a seed's model or pictures, which are not in
        git, are gone."""
        done = self.trainings
        jobs = work.jobs.items()
        return [job for key, job in jobs if key not in done or (again and self._lost(job))]

    def _lost(self, job: Job) -> bool:
        task = job.task
        weights = task.keep and not self.model(task.seed).is_dir()
        return weights or (task.panels and not self.pictures(task.key).is_file())


def gallery(base: Mapping[str, Any]) -> list[Entry]:
    """The entries of a base line."""
    return [Entry(**entry) for entry in base["gallery"]]


def write_pictures(path: Path, pictures: np.ndarray) -> None:
    """uint8 [n, px, px, 3] as one PNG, `COLUMNS` a row, white after the last."""
    n, side = len(pictures), pictures.shape[1]
    rows = -(-n // COLUMNS)
    sheet = np.full((rows * COLUMNS, side, side, 3), 255, dtype=np.uint8)
    sheet[:n] = pictures
    sheet = sheet.reshape(rows, COLUMNS, side, side, 3).swapaxes(1, 2)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part-{os.getpid()}")
    Image.fromarray(sheet.reshape(rows * side, COLUMNS * side, 3)).save(
        part, format="PNG", optimize=True
    )
    os.replace(part, path)


def read_pictures(path: Path, n: int) -> np.ndarray:
    """The first n pictures of such a PNG, uint8 [n, px, px, 3]."""
    with Image.open(path) as image:
        sheet = np.asarray(image.convert("RGB"))
    side = sheet.shape[1] // COLUMNS
    cells = sheet.reshape(-1, side, COLUMNS, side, 3).swapaxes(1, 2)
    return cells.reshape(-1, side, side, 3)[:n]


def numbers(values: Sequence[float] | np.ndarray) -> list[float]:
    """Six significant digits: what a line needs."""
    return [float(f"{value:.6g}") for value in values]


def packed(values: np.ndarray) -> dict[str, Any]:
    """Numbers [n], NaN allowed, for a line: half precision after division by `scale`, base64."""
    scale = float(np.nanmax(np.abs(values))) or 1.0
    halves = (values / scale).astype("<f2")
    return {"scale": scale, "packed": b64encode(halves.tobytes()).decode("ascii")}


def unpacked(line: Mapping[str, Any]) -> np.ndarray:
    """What `packed` was given, float64 [n]."""
    halves = np.frombuffer(b64decode(line["packed"]), dtype="<f2")
    return halves.astype(np.float64) * line["scale"]
