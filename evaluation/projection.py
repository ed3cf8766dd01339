"""What the dimension of the gradient methods' rows costs: rank correlation with no projection.

python -m evaluation projection --records 512 --queries 20 --dims 1024,1536,2048
python -m evaluation projection --records 0                      # all training records

Some training records, image and flip, exactly and in rows of each dimension, in half precision as
an index keeps them: the error of inner products beside the predicted 1/√d, and Spearman and overlap
of the top 24 between the scores of each method and the same without projection, at the same λ.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from attribution.arguments import count
from attribution.datainf import MeanInverses
from attribution.gradients import query_gradient
from attribution.methods.projected import DAMPING, DRAWS
from attribution.projection import BlockProjection, share_dimensions
from attribution.ridge import Ridge
from attribution.types import UserError
from attribution.validate import whole_numbers
from evaluation import generated, queries
from evaluation.answers import Answers
from evaluation.gradients import Kernels, Store
from evaluation.results import Figure, Summary
from evaluation.statistics import mean_error, spearman
from evaluation.world import world_of
from precompute import dtrak, trak

RECORDS, DIMS, TOP_K, SEED = 512, (512, 1024, 1536, 2048, 4096), 24, 25
# objective → whether rows have a block for each layer, and the methods they serve
OBJECTIVES = {"loss": (True, ("trak", "datainf")), "eps2": (False, ("dtrak",))}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `projection`."""
    generated.add_arguments(parser)
    add = parser.add_argument
    add("--queries", type=count(), default=queries.N_QUERIES, metavar="N")
    add("--records", type=count(0), default=RECORDS, metavar="N", help="0: all training records")
    add("--dims", type=whole_numbers, default=list(DIMS), metavar="D,D,...")
    add("--power", type=float, default=0.5, help="how layers share d: energy to this power")
    add("--damping", type=float, default=DAMPING, help="λ, relative")


def run(args: argparse.Namespace) -> None:
    """One line an objective, method and dimension."""
    if min(args.dims, default=0) < 1:
        raise UserError("--dims are at least 1")
    world = world_of(args)
    answers, sampling = Answers(world), generated.sampling_of(args, world)
    index = answers.index
    rows = np.random.default_rng(SEED).permutation(index.train_rows)
    rows = np.sort(rows[: args.records or None])
    settings = {
        "records": len(rows),
        "queries": args.queries,
        "power": args.power,
        "damping": args.damping,
        "timesteps": list(index.timesteps),
    }
    results = world.results(args, "projection", settings)
    for objective, (layered, methods) in OBJECTIVES.items():
        keys = {(m, d): f"{m} {d}" for m in methods for d in args.dims}
        if all(key in results.units for key in keys.values()):
            continue
        denoiser = answers.denoiser.with_objective(objective)
        name = f"{index.index_hash[:12]}-{objective}-{len(rows)}.npy"
        store = Store(args.cache / "gradients" / name, denoiser, index, rows, index.timesteps)
        store.make()
        asked = queries.queries(world, args.queries, sampling, args.cache)
        vectors = _vectors(store, asked)
        trial = Trial(store, Kernels.of(store, vectors), vectors, layered, args.power, args.damping)
        for dim in tqdm(args.dims, desc=f"projections of {objective}", disable=None):
            for method, facts in trial.at(dim, methods).items():
                if keys[method, dim] not in results.units:
                    results.add(keys[method, dim], method=method, dim=dim, **facts)


def _vectors(store: Store, asked: list[Any]) -> dict[str, Tensor]:
    """Exact gradients of the queries, name → [Q, *shape]."""
    denoiser, made = store.denoiser, []
    for query in tqdm(asked, desc="queries", disable=None):
        latents, cond = denoiser.encode_images([query.image]), denoiser.encode_text([query.prompt])
        names, steps = store.names, list(store.timesteps)
        made.append(query_gradient(denoiser, latents, cond, steps, DRAWS, 0, names))
    return {name: torch.stack([g[name].cpu() for g in made]) for name in store.names}


@dataclass
class Trial:
    """Exact inner products of one objective, and what a projection makes of them."""

    store: Store
    kernels: Kernels
    queries: Mapping[str, Tensor]
    layered: bool
    power: float
    damping: float

    def at(self, dim: int, methods: tuple[str, ...]) -> dict[str, dict[str, Any]]:
        """method → facts, for rows of `dim` numbers."""
        projection = self._projection(dim)
        rows = torch.cat([self._rounded(projection, part) for part in self.store.batches()])
        asked = projection.apply(self.queries)
        facts = {
            "width": projection.dim,
            "error": self._error(rows, projection.scale),
            "bytes": 4 * projection.dim,
        }
        return {
            name: {**facts, **self._compared(name, projection, rows, asked)} for name in methods
        }

    def _projection(self, dim: int) -> BlockProjection:
        """As `precompute trak` and `precompute dtrak` make it."""
        names, shapes, energies = self.store.names, self.store.shapes, self.kernels.energies
        if self.layered:
            dims = share_dimensions(list(self.kernels.sizes.values()), energies, dim, self.power)
            blocks = [([name], d) for name, d in zip(names, dims, strict=True)]
        else:
            blocks = [(list(names), min(dim, 1 << max(0, (self.store.size - 1).bit_length())))]
        typical = math.sqrt(sum(energies) / sum(d for _, d in blocks))
        scale = 2.0 ** -round(math.log2(typical)) if typical > 0 else 1.0
        return BlockProjection(shapes, blocks, scale=scale)

    def _rounded(self, projection: BlockProjection, gradients: Mapping[str, Tensor]) -> Tensor:
        """Rows as an index keeps them, in half precision, float32 [B, d]."""
        return projection.apply(gradients).half().float()

    def _error(self, rows: Tensor, scale: float) -> float:
        """Root mean square of (⟨y, y'⟩ − ⟨g, g'⟩) / (‖g‖ ‖g'‖) over pairs of rows."""
        wide = rows.double() / scale
        norms = self.kernels.whole.diag().sqrt()
        pairs = ~torch.eye(len(wide), dtype=torch.bool)
        relative = (wide @ wide.T - self.kernels.whole) / torch.outer(norms, norms)
        return round(float(relative[pairs].square().mean().sqrt()), 5)

    def _compared(
        self, method: str, projection: BlockProjection, rows: Tensor, asked: Tensor
    ) -> dict[str, float]:
        """Means over the queries of Spearman and overlap@24 with the exact scores."""
        if method == "datainf":
            solver = MeanInverses(projection.slices, projection.sizes, self.damping)
            for take in (solver.measure, solver.add):
                take(rows)
            found, exact = solver.solve(asked), self.kernels.datainf(self.damping)
        else:
            ridge = Ridge(projection.dim)
            ridge.add(rows)
            found = ridge.solve(asked, self.damping)
            exact = self.kernels.ridge(self.damping, projection.dim)
        pairs = [
            (one.view(-1, 2).amax(1).numpy(), other.view(-1, 2).amax(1).numpy())
            for one, other in zip(found @ rows.double().T, exact, strict=True)
        ]
        correlations, overlaps = zip(*((spearman(*p), overlap(*p)) for p in pairs), strict=True)
        return {
            "spearman": round(mean_error(correlations)[0], 4),
            "spearman_error": round(mean_error(correlations)[1], 4),
            "overlap": round(float(np.mean(overlaps)), 4),
        }


def overlap(one: np.ndarray, other: np.ndarray, k: int = TOP_K) -> float:
    """Share of the top k of one ranking in the other's."""
    k = min(k, len(one))
    return len(set(np.argsort(-one)[:k]) & set(np.argsort(-other)[:k])) / k


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """A row a method and dimension."""
    settings = head["settings"]
    table = [
        ("method", "d", "bytes a record", "error of ⟨g, g'⟩", "1/√d", "Spearman", "top 24 shared")
    ]
    for unit in units:
        table.append(
            (
                unit["method"],
                f"{unit['width']:,}",
                f"{unit['bytes']:,}",
                f"{unit['error']:.4f}",
                f"{unit['width'] ** -0.5:.4f}",
                f"{unit['spearman']:.3f} ± {unit['spearman_error']:.3f}",
                f"{unit['overlap']:.2f}",
            )
        )
    figures = []
    for unit in units:
        if unit["dim"] == (dtrak if unit["method"] == "dtrak" else trak).VERB.dim:
            value = f"{unit['spearman']:.2f}, {unit['overlap']:.0%} of the top 24"
            name = f"{unit['method']} at d = {unit['dim']:,} against no projection"
            figures.append(Figure(name, value))
    note = (
        f"{settings['records']} training records, image and flip, {settings['queries']} queries, "
        f"λ {settings['damping']:g} relative; layers share d by energy^{settings['power']:g} in "
        "rows that DataInf reads too, so that their inner products err by more than 1/√d."
    )
    return Summary(tuple(figures), tuple(table), (note,))
