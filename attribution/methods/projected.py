"""What the gradient methods share: the query's projected gradient, a solver, inner products.

Train rows φ(z) lie in the index; the query's gradient is projected the same way, solved by
(ΦᵀΦ + λI)⁻¹ or by DataInf's mean of inverses, and compared with every row by FAISS; image and flip,
the greater one. What is summed over the rows is kept for the next query.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attribution import regions
from attribution.cells import batch_size_for
from attribution.datainf import MeanInverses
from attribution.denoiser import Denoiser
from attribution.ensemble import members, rows_name
from attribution.gradients import Gradients, draws_gradient, query_draws
from attribution.methods.answers import ranked, refuse_unknown, region_params
from attribution.methods.context import Context
from attribution.numbers import is_finite, is_whole
from attribution.projection import BlockProjection
from attribution.ridge import Ridge
from attribution.types import Attribution, Progress, Query, UserError

KIND = "gradient"
DAMPING = 0.1
# Noise draws per timestep of the query's gradient.
DRAWS = 4
OPTIONS = ("damping", "draws", "seed", "exhaustive", "shortlist")
# Records read at a time, and samples of one forward and backward of the query.
CHUNK, MOST_SAMPLES = 1024, 20

Solve = Callable[[Tensor], Tensor]  # [Q, d] → [Q, d]


@dataclass(frozen=True)
class Recipe:
    """rows: the step whose rows are compared. timestep: of 1,000, the only one of the query's
    gradient, None for those of the rows. layered: DataInf's solver in the place of TRAK's. damping:
    λ of a run that names none.
    """

    rows: str
    timestep: int | None = None
    layered: bool = False
    damping: float = DAMPING

    def timesteps(self, grid: Sequence[int], n_train_timesteps: int) -> list[int]:
        """Timesteps of the query's gradient."""
        if self.timestep is None:
            return list(grid)
        return [min(round(self.timestep * n_train_timesteps / 1000), n_train_timesteps - 1)]


class GradientAttributor:
    """One method of the family on one index."""

    def __init__(self, context: Context, name: str, recipe: Recipe) -> None:
        self.context, self.name, self.recipe = context, name, recipe
        self.config = {"damping": recipe.damping, "draws": DRAWS}

    def run(
        self, query: Query, ids: Sequence[str] | None = None, k: int = 24, **options: Any
    ) -> Iterator[Progress | Attribution]:
        """Progress, then the Attribution over all training records (or `ids`).

        Options: damping (λ, relative), draws (noise draws per timestep), seed (of the noise).
        """
        refuse_unknown(self.name, options, dict.fromkeys(OPTIONS))
        chosen = _chosen(self.config, options)
        wanted = self.context.training_rows(ids)
        run = _Run(self, query, chosen)
        products = yield from run.products()
        place = np.searchsorted(self.context.index.train_rows, wanted)
        both = products[place]
        yield ranked(
            self.name,
            KIND,
            self.context.index,
            wanted,
            both.max(axis=1),
            flip=both.argmax(axis=1),
            seconds=run.seconds,
            params=run.params(),
        )


class _Run:
    """One query: the mean over models of ⟨solved query, rows⟩ for every record and flip."""

    def __init__(
        self, attributor: GradientAttributor, query: Query, options: dict[str, Any]
    ) -> None:
        self.context, self.recipe = attributor.context, attributor.recipe
        self.query, self.options = query, options
        settings = self.context.index.extra(self.recipe.rows)
        if settings is None or not self.context.index.has_rows(self.recipe.rows):
            raise UserError(self.context.lacks(f"rows:{self.recipe.rows}"))
        self.settings = settings
        steps = self.context.denoiser.n_train_timesteps
        self.timesteps = self.recipe.timesteps(settings["timesteps"], steps)
        # as many (t, ε) draws at one timestep as TRAK has at all of its own
        self.draws = options["draws"] * len(settings["timesteps"]) // len(self.timesteps)
        self.seconds = {"prepare": 0.0, "gradient": 0.0, "compare": 0.0}

    def products(self) -> Generator[Progress, None, np.ndarray]:
        """float64 [training records, flips]."""
        began = time.perf_counter()
        models = yield from self._models()
        solvers = []
        for number in range(len(models)):
            solvers.append((yield from self._solver(number)))
        self.seconds["prepare"] = time.perf_counter() - began
        total = np.zeros(())
        for number, denoiser in enumerate(models):
            vector = yield from self._vector(number, denoiser, len(models))
            began = time.perf_counter()
            search = self.context.index.search(rows_name(self.recipe.rows, number))
            solved = solvers[number](vector)[0].numpy()
            total = total + search.products(solved).astype(np.float64) / len(models)
            self.seconds["compare"] += time.perf_counter() - began
        return total

    def params(self) -> dict[str, Any]:
        """What reproduces the run."""
        return {
            **self.options,
            "timesteps": self.timesteps,
            "gradients": self.draws * len(self.timesteps),
            "dim": self._projection(0).dim,
            "objective": self.settings["objective"],
            "weights": self.settings["weights"],
            "models": 1 + len(self.settings["models"]),
            **region_params(self.query, "loss"),
        }

    # ------------------------------------------------------------------ training side, kept

    def _models(self) -> Generator[Progress, None, list[Denoiser]]:
        """The models, by the objective the rows were made of; loaded once for all methods."""
        key, kept = ("models", self.recipe.rows), self.context.kept
        if key not in kept:
            yield Progress("prepare", 0, 1)
            view = self.context.denoiser.with_objective(self.settings["objective"])
            kept[key] = members(view, self.context.index, self.settings)
        return kept[key]

    def _solver(self, number: int) -> Generator[Progress, None, Solve]:
        """What solves a projected gradient of a model; sums over its rows are kept."""
        damping, kept = float(self.options["damping"]), self.context.kept
        if not self.recipe.layered:
            key: Any = ("ridge", self.recipe.rows, number)
            if key not in kept:
                kept[key] = yield from self._ridge(number)
            return partial(kept[key].solve, damping=damping)
        key = ("datainf", self.recipe.rows, number)
        if key not in kept or kept[key].damping != damping:
            kept[key] = yield from self._mean_inverses(number, damping)
        return kept[key].solve

    def _ridge(self, number: int) -> Generator[Progress, None, Ridge]:
        ridge = Ridge(self._projection(number).dim)
        for rows in self._rows(number):
            ridge.add(rows)
            yield Progress("prepare", ridge.count, self._count)
        return ridge

    def _mean_inverses(self, number: int, damping: float) -> Generator[Progress, None, Any]:
        projection = self._projection(number)
        made = MeanInverses(projection.slices, projection.sizes, damping)
        for take in (made.measure, made.add):
            for rows in self._rows(number):
                take(rows)
                yield Progress("prepare", made.measured + made.count, 2 * self._count)
        return made

    @property
    def _count(self) -> int:
        """Rows of Φ: two for each training record, image and flip."""
        return 2 * len(self.context.index.train_rows)

    def _rows(self, number: int) -> Iterator[Tensor]:
        """Φ in batches, image and flip each a row, float32 [B, d]."""
        index, name = self.context.index, rows_name(self.recipe.rows, number)
        for start in range(0, len(index.train_rows), CHUNK):
            some = index.rows(name, index.train_rows[start : start + CHUNK])
            yield torch.from_numpy(some.astype(np.float32)).flatten(0, 1)

    def _projection(self, number: int) -> BlockProjection:
        unet = self.context.denoiser.unet
        names = [name for block in self.settings["blocks"] for name in block["parameters"]]
        shapes = {name: tuple(unet.get_parameter(name).shape) for name in names}
        return BlockProjection.from_settings(shapes, self.settings, number)

    # ------------------------------------------------------------------ query side

    def _vector(
        self, number: int, denoiser: Denoiser, models: int
    ) -> Generator[Progress, None, Tensor]:
        """φ(ẑ) of one model, float32 [1, d]."""
        began = time.perf_counter()
        latents = denoiser.encode_images([self.query.image])
        cond = denoiser.encode_text([regions.text(self.query)])
        weights = regions.query_weights(denoiser, self.query)
        noise, t = query_draws(denoiser, self.timesteps, self.draws, self.options["seed"])
        projection = self._projection(number)
        gradient: Gradients = {}
        size = max(1, min(MOST_SAMPLES, batch_size_for(denoiser)))
        for part in torch.arange(len(t)).split(size):
            some = draws_gradient(
                denoiser, latents, cond, noise[part], t[part], projection.names, weights
            )
            share = len(part) / len(t)
            gradient = {n: gradient.get(n, 0.0) + share * g for n, g in some.items()}
            done, total = number * len(t) + int(part[-1]) + 1, models * len(t)
            seconds = self.seconds["gradient"] + time.perf_counter() - began
            left = seconds / done * (total - done)
            yield Progress("gradient", done, total, seconds, left)
        vector = projection.apply({name: g[None] for name, g in gradient.items()}).cpu()
        self.seconds["gradient"] += time.perf_counter() - began
        if not bool(torch.isfinite(vector).all()):
            raise UserError("the model's gradient on this picture is not a finite number")
        return vector


def check_options(options: Mapping[str, Any]) -> None:
    """UserError for values that no run takes."""
    _chosen({}, options)


def _chosen(config: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """A run's own options, defaults in the place of None; UserError for bad values."""
    own = {"damping": DAMPING, "draws": DRAWS, "seed": 0, **config}
    chosen = {n: v if options.get(n) is None else options[n] for n, v in own.items()}
    _check(chosen)
    return chosen


def _check(options: Mapping[str, Any]) -> None:
    damping, draws, seed = options["damping"], options["draws"], options["seed"]
    if not is_finite(damping) or damping <= 0:
        raise UserError("damping must be a number above 0")
    for name, value, least in (("draws", draws, 1), ("seed", seed, 0)):
        if not is_whole(value) or value < least:
            raise UserError(f"{name} must be a whole number from {least}")
