"""The lines of leave-K-out, as tables and figures read them: all here follows from them alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import results
from evaluation.counterfactual.ledger import VERB, gallery, unpacked
from evaluation.counterfactual.tasks import Entry, training
from precompute.recipes.model.config import UnetConfig

# Metric → whether more of it means that more was forgotten.
METRICS = {"delta_loss": True, "mse": True, "clip": False}
RANDOM = "random"


@dataclass(frozen=True)
class Outcome:
    """One removal measured on the query it was made for. `key`: of its training."""

    query: str
    arm: str
    k: int
    key: str
    delta_loss: float
    mse: float
    clip: float


def fullest(folder: Path) -> Lines | None:
    """The run with most trainings on the world evaluated last: a trial with other settings has few.
    None where there is no run."""
    found = [Lines(*run) for run in results.current(folder, VERB)]
    return max(found, key=lambda one: len(one.trainings)) if found else None


@dataclass(frozen=True)
class Lines:
    """One run's lines."""

    head: Mapping[str, Any]
    units: Sequence[Mapping[str, Any]]

    @cached_property
    def base(self) -> Mapping[str, Any]:
        """The gallery's line."""
        return next(unit for unit in self.units if unit["unit"] == "base")

    @property
    def known(self) -> bool:
        """Whether there is a gallery to compare with."""
        return any(unit["unit"] == "base" for unit in self.units)

    @cached_property
    def gallery(self) -> list[Entry]:
        """The gallery's entries."""
        return gallery(self.base)

    @cached_property
    def place(self) -> dict[str, int]:
        """Query's id → position in the gallery."""
        return {entry.id: n for n, entry in enumerate(self.gallery)}

    @cached_property
    def recipe(self) -> UnetConfig:
        """What every training has in common."""
        said = self.head["settings"]["recipe"]
        return UnetConfig(**{**said, "channels": tuple(said["channels"])})

    @cached_property
    def trainings(self) -> dict[str, Mapping[str, Any]]:
        """Key → line."""
        start = "training "
        found = (unit for unit in self.units if unit["unit"].startswith(start))
        return {unit["unit"].removeprefix(start): unit for unit in found}

    @cached_property
    def labels(self) -> dict[str, str]:
        """Label → arm as written."""
        found = [unit["labels"] for unit in self.units if unit["unit"] == "arms"]
        return dict(found[-1]) if found else {}

    @cached_property
    def answers(self) -> dict[str, dict[str, list[int]]]:
        """Arm as written → query's id → rows, of the digest that was noted last."""
        found: dict[str, dict[str, list[int]]] = {}
        for unit in self.units:
            if unit["unit"].startswith("answer ") and self._counts(unit):
                found.setdefault(unit["arm"], {})[unit["query"]] = unit["rows"]
        return found

    @cached_property
    def made_for(self) -> dict[str, set[str]]:
        """Query's id → keys of the trainings that some answer about it asked for, also one that no
        longer counts."""
        found: dict[str, set[str]] = {}
        for unit in self.units:
            if unit["unit"].startswith("answer "):
                rows = unit["rows"]
                keys = {training(rows[:k], self.recipe).key for k in self.sizes if k <= len(rows)}
                found.setdefault(unit["query"], set()).update(keys & self.trainings.keys())
        return found

    @cached_property
    def scores(self) -> dict[str, dict[str, np.ndarray]]:
        """Arm as written → query's id → score of every row of the index, NaN where held out; of the
        digest that was noted last."""
        found: dict[str, dict[str, np.ndarray]] = {}
        for unit in self.units:
            if unit["unit"].startswith("scores ") and self._counts(unit):
                found.setdefault(unit["arm"], {})[unit["query"]] = unpacked(unit)
        return found

    def digest(self, arm: str) -> str | None:
        """The digest of an arm's answers that count; None where none was noted."""
        return self._noted.get(arm)

    def configuration(self, arm: str) -> Mapping[str, Any] | None:
        """All settings of an arm's answers that count; None where their digest alone is known."""
        noted = [unit["arms"] for unit in self.units if unit["unit"] == "configurations"]
        found = noted[-1].get(arm) if noted else None
        counts = found is not None and found["digest"] == self.digest(arm)
        return found["configuration"] if counts else None

    @cached_property
    def _noted(self) -> Mapping[str, str]:
        noted = [unit["arms"] for unit in self.units if unit["unit"] == "digests"]
        return noted[-1] if noted else {}

    def _counts(self, unit: Mapping[str, Any]) -> bool:
        return bool(self._noted.get(unit["arm"], unit.get("digest")) == unit.get("digest"))

    @cached_property
    def orders(self) -> list[list[int]]:
        """Every random draw's order of removal."""
        return [unit["rows"] for unit in self.units if unit["unit"].startswith("random ")]

    # ------------------------------------------------------------------ outcomes

    def values(self, line: Mapping[str, Any], query: str) -> dict[str, float]:
        """A training's metrics on one query; NaN for CLIP without one."""
        n = self.place[query]
        clip = line["clip"][n] if "clip" in line else float("nan")
        lost = line["losses"][n] - self.base["losses"][n]
        return {"delta_loss": lost, "mse": line["mse"][n], "clip": clip}

    def outcomes(self, arm: str) -> list[Outcome]:
        """Every finished removal of an arm, at whatever K, tuning queries too."""
        keys = self.trainings
        found = []
        for query, rows in self.answers.get(arm, {}).items():
            for k in self.sizes:
                if k <= len(rows) and (key := training(rows[:k], self.recipe).key) in keys:
                    found.append(Outcome(query, arm, k, key, **self.values(keys[key], query)))
        return found

    @cached_property
    def sizes(self) -> list[int]:
        """Every K some training removed."""
        return sorted({len(unit["removed"]) for unit in self.trainings.values()} - {0})

    def random(self, k: int) -> list[Mapping[str, Any]]:
        """The finished random removals of K records."""
        keys = [training(order[:k], self.recipe).key for order in self.orders if k <= len(order)]
        return [self.trainings[key] for key in keys if key in self.trainings]

    @cached_property
    def random_sizes(self) -> list[int]:
        """Every K of a finished random removal."""
        return [k for k in self.sizes if self.random(k)]

    def random_outcomes(self, k: int, queries: Sequence[str]) -> list[Outcome]:
        """A random removal's metrics on each query, the mean over draws."""
        lines = self.random(k)
        found = []
        for query in queries if lines else ():
            values = [self.values(line, query) for line in lines]
            mean = {name: float(np.mean([v[name] for v in values])) for name in METRICS}
            found.append(Outcome(query, RANDOM, k, "", **mean))
        return found

    @cached_property
    def seeds(self) -> list[Mapping[str, Any]]:
        """Models trained on everything, by seed."""
        return sorted(
            (line for line in self.trainings.values() if not line["removed"]),
            key=lambda line: line["seed"],
        )
