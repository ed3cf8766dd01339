"""A customised model while it is worn: where its exemplars rank for each of its pictures.

>>> with bench.wearing(made):
...     Sitting(bench, made, distractors).answer(0, Configuration.parse("abu"))
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from attribution.denoiser import Objective
from attribution.fisher import Curvature
from attribution.integrity import canonical_hash
from attribution.methods.context import Context
from attribution.methods.registry import METHODS
from attribution.types import Attribution
from evaluation.answers import last
from evaluation.customisation import methods, plan
from evaluation.customisation.bench import Bench, Made
from evaluation.customisation.methods import Configuration
from evaluation.customisation.view import CustomisedIndex, gradient_rows, losses
from precompute.recipes.abc.retrieval import ranks_among
from precompute.shards import write_npy


class Sitting:
    """One customised model while it is worn: views of its index, methods built on them once."""

    def __init__(self, bench: Bench, made: Made, distractors: np.ndarray) -> None:
        self.bench, self.made, self.distractors = bench, made, distractors
        rows = [bench.index.row_of(name) for name in made.model.ids]
        self.exemplars = dict(zip(rows, made.model.tuning, strict=True))
        self.pool = np.sort(np.concatenate([distractors, rows]).astype(np.int64))
        self._contexts: dict[tuple[bool, bool], Context] = {}
        self._built: dict[tuple[bool, bool, str], Any] = {}

    def answer(self, number: int, one: Configuration) -> dict[str, Any]:
        """A configuration's line on the number-th picture: where the exemplars rank."""
        self.prepare(one)
        began = time.perf_counter()
        found = self.attribution(number, one)
        own = np.flatnonzero(np.isin(found.rows, list(self.exemplars)))
        scores = torch.from_numpy(np.nan_to_num(found.scores, nan=-np.inf))[None]
        line: dict[str, Any] = {
            "ranks": ranks_among(scores, own.tolist())[0].tolist(),
            "among": len(found.rows),
            "first": found.ids[0],
            "seconds": round(time.perf_counter() - began, 2),
        }
        if one.kind == methods.UNLEARNING:
            line["reached"] = round(float(found.params["reached"]), 4)
        if one.kind == methods.GRADIENT:
            line["rows"] = "customised" if one.own_rows else "index"
        return line

    def prepare(self, one: Configuration) -> None:
        """What is computed once for all queries: no part of an answer's seconds."""
        view = self.context(one).index
        if one.kind == methods.UNLEARNING:
            self.context(one).base_loss()
        elif one.rows is not None:
            view.search(one.rows)

    def attribution(self, number: int, one: Configuration) -> Attribution:
        """The pool ranked by a configuration for the number-th picture."""
        settings, grid = self.bench.settings, len(self.bench.index.timesteps)
        context = self.context(one)
        key = (*_key(one), one.arm.name)
        if key not in self._built:
            self._built[key] = METHODS[one.arm.name].build(context)
        options = methods.options(one, len(settings.timesteps), grid, settings.survivors)
        query = self.made.query(number, one.word)
        ids = self.bench.index.ids(self.pool)
        found: Attribution = last(self._built[key].run(query, ids, k=1, **options), Attribution)
        return found

    def context(self, one: Configuration) -> Context:
        """What a configuration's method is built on."""
        if _key(one) not in self._contexts:
            self._contexts[_key(one)] = self._opened(one)
        return self._contexts[_key(one)]

    def _opened(self, one: Configuration) -> Context:
        bench = self.bench
        without = {row: plan.without_word(text) for row, text in self.exemplars.items()}
        names = self.exemplars if one.word else without
        view = CustomisedIndex(bench.index, self.pool, names, bench.settings.timesteps)
        clip = bench.world.clip if bench.index.clip_path else None
        context = _Context(bench.denoiser, view, clip)
        context.base = bench.base
        view.of_losses = lambda objective: self._losses(context, view, objective)
        if one.kind == methods.GRADIENT and one.own_rows:
            view.of_gradients = _once(lambda step: self._gradients(view, step))
        return context

    # ------------------------------------------------------------------ of the customised model

    def _losses(self, context: Context, view: CustomisedIndex, objective: Objective) -> np.ndarray:
        """Base losses of the pool, float32 [n, captions, flips, T]."""

        def compute(rows: np.ndarray) -> np.ndarray:
            return losses(self.bench.denoiser, view, rows, context.texts, objective)

        return self._of_pool(f"base-{objective}", compute)

    def _gradients(self, view: CustomisedIndex, step: str) -> np.ndarray:
        """Gradient rows of the pool, float32 [n, flips, d]."""

        def compute(rows: np.ndarray) -> np.ndarray:
            return gradient_rows(self.bench.denoiser, view, step, rows)

        settings = canonical_hash(view.extra(step))[:8]
        return self._of_pool(f"rows-{step}-{settings}", compute)

    def _of_pool(self, what: str, compute: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Distractors' values are kept: only exemplars have other captions without V*."""
        own = np.array(sorted(self.exemplars), dtype=np.int64)
        path = self.made.folder / f"{what}-{self._pool_key()}.npy"
        if not path.is_file():
            write_npy(path, compute(self.distractors))
        parts = np.concatenate([np.load(path, allow_pickle=False), compute(own)])
        order = np.argsort(np.concatenate([self.distractors, own]))
        return parts[order]

    def _pool_key(self) -> str:
        timesteps = list(self.bench.settings.timesteps)
        return canonical_hash([self.distractors.tolist(), timesteps])[:8]


class _Context(Context):
    """Curvature is that of the base model, read once for all customised ones."""

    base: Context

    def curvature(self, *which: Any, **more: Any) -> Curvature:
        return self.base.curvature(*which, **more)


def _key(one: Configuration) -> tuple[bool, bool]:
    """Configurations that can share a view: by word, and by whose gradient rows."""
    return one.word, one.kind == methods.GRADIENT and one.own_rows


def _once(compute: Callable[[str], np.ndarray]) -> Callable[[str], np.ndarray]:
    """The same by step, computed once."""
    kept: dict[str, np.ndarray] = {}

    def get(step: str) -> np.ndarray:
        if step not in kept:
            kept[step] = compute(step)
        return kept[step]

    return get
