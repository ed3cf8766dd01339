"""Exact gradients of training records, unprojected, kept on the disk: what projections are held
against.

Float16 [2R, P] times a power of two in the cache, image and flip of a record in turn, P the number
of weights: 0.5 MiB a row for the embedded model. Layers are read one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from attribution.cells import batch_size_for
from attribution.denoiser import Denoiser
from attribution.gradients import per_sample_gradients
from attribution.index import Index
from attribution.noise import keyed_noise, mirrored
from attribution.weights import parameter_names

WEIGHTS = "kv"
SCALE = 2.0**12
CHUNK = 64


@dataclass
class Store:
    """Gradients of `rows` of an index at `path`, of the denoiser's objective."""

    path: Path
    denoiser: Denoiser
    index: Index
    rows: np.ndarray
    timesteps: Sequence[int]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The parameters, in the order of the columns."""
        return parameter_names(self.denoiser.unet, WEIGHTS)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each parameter."""
        return {name: tuple(self.denoiser.unet.get_parameter(name).shape) for name in self.names}

    @cached_property
    def columns(self) -> dict[str, slice]:
        """Where each parameter's numbers are."""
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes.values()]).tolist()
        return {n: slice(a, b) for n, a, b in zip(self.names, [0, *ends[:-1]], ends, strict=True)}

    @property
    def size(self) -> int:
        """P."""
        return max(part.stop for part in self.columns.values())

    def make(self) -> None:
        """Compute what is not there; a killed run goes on at the record it was in."""
        if self.path.is_file():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part, note = self.path.with_suffix(".part"), self.path.with_suffix(".count")
        shape = (2 * len(self.rows), self.size)
        done = int(note.read_text("utf-8")) if part.is_file() and note.is_file() else 0
        mode = "r+" if done else "w+"
        table = np.lib.format.open_memmap(part, mode=mode, dtype=np.float16, shape=shape)
        left = self.rows[done:]
        bar = tqdm(left, desc=f"gradients of {self.denoiser.objective}", disable=None)
        for number, row in enumerate(bar, start=done):
            for flip in (0, 1):
                table[2 * number + flip] = self._gradient(int(row), flip) * SCALE
            if (number + 1) % CHUNK == 0:
                table.flush()
                note.write_text(str(number + 1), encoding="utf-8")
        table.flush()
        del table  # Windows renames no file that is mapped
        part.replace(self.path)
        note.unlink(missing_ok=True)

    def batches(self) -> Iterator[dict[str, Tensor]]:
        """Gradients in their own units, some rows at a time: name → float32 [B, *shape]."""
        table = self._table()
        for start in range(0, len(table), CHUNK):
            some = torch.from_numpy(table[start : start + CHUNK].astype(np.float32)) / SCALE
            yield {n: some[:, c].reshape(-1, *self.shapes[n]) for n, c in self.columns.items()}

    def layer(self, name: str) -> Tensor:
        """One parameter's numbers, float32 [2R, size]."""
        part = np.ascontiguousarray(self._table()[:, self.columns[name]])
        return torch.from_numpy(part.astype(np.float32)) / SCALE

    def _table(self) -> np.ndarray:
        return np.load(self.path, mmap_mode="r", allow_pickle=False)

    def _gradient(self, row: int, flip: int) -> np.ndarray:
        """Mean over the timesteps, float32 [P]; noise and captions of the index's rows."""
        record, captions = self.index.ids([row])[0], self.index.captions([row])[0]
        key: dict[str, Any] = {"namespace": "train-gradient", "seed": self.index.seed}
        shape, steps = self.denoiser.latent_shape, list(self.timesteps)
        noise = torch.stack(
            [keyed_noise(shape, record_id=record, timestep=t, **key) for t in steps]
        )
        noise = mirrored(noise) if flip else noise
        cond = self.denoiser.encode_text([captions[i % len(captions)] for i in range(len(steps))])
        latents, total = self.index.latents([row], flip), torch.zeros(self.size)
        for part in torch.arange(len(steps)).split(batch_size_for(self.denoiser)):
            gradients = per_sample_gradients(
                self.denoiser,
                latents.expand(len(part), -1, -1, -1),
                cond[part],
                noise[part],
                torch.tensor(steps)[part],
                self.names,
                group=len(part),
            )
            flat = torch.cat([gradients[name].flatten().cpu() for name in self.names])
            total += flat * len(part) / len(steps)
        return total.numpy()


@dataclass
class Kernels:
    """Exact inner products by parameter: of the rows [2R, 2R], of queries with rows [Q, 2R]."""

    rows: dict[str, Tensor]
    queries: dict[str, Tensor]
    sizes: dict[str, int]

    @classmethod
    def of(cls, store: Store, queries: dict[str, Tensor]) -> Kernels:
        """float64, one layer in memory at a time; queries: name → [Q, *shape]."""
        rows, crossed = {}, {}
        for name in store.names:
            layer = store.layer(name).double()
            rows[name] = layer @ layer.T
            crossed[name] = queries[name].flatten(1).double().cpu() @ layer.T
        sizes = {name: part.stop - part.start for name, part in store.columns.items()}
        return cls(rows, crossed, sizes)

    @cached_property
    def whole(self) -> Tensor:
        """All layers together, [2R, 2R]."""
        return torch.stack(list(self.rows.values())).sum(0)

    @cached_property
    def energies(self) -> list[float]:
        """E‖g_l‖² of each parameter."""
        return [float(kernel.diag().mean()) for kernel in self.rows.values()]

    def ridge(self, damping: float, dim: int) -> Tensor:
        """TRAK without projection at the λ that rows of `dim` numbers have, [Q, 2R].

        (ΦᵀΦ + λI)⁻¹Φᵀ = Φᵀ(ΦΦᵀ + λI)⁻¹: P never appears.
        """
        penalty = damping * float(self.whole.trace()) / dim
        eye = torch.eye(len(self.whole), dtype=torch.float64)
        crossed = torch.stack(list(self.queries.values())).sum(0)
        return torch.linalg.solve(self.whole + penalty * eye, crossed.T).T

    def datainf(self, damping: float) -> Tensor:
        """DataInf without projection, from the paper's closed form, [Q, 2R]."""
        total = torch.zeros(len(next(iter(self.queries.values()))), len(self.whole)).double()
        for name, kernel in self.rows.items():
            squares, crossed = kernel.diag(), self.queries[name]
            penalty = damping * float(squares.mean()) / self.sizes[name]
            if penalty > 0:
                weights = crossed / (penalty + squares) / len(kernel)
                total += (crossed - weights @ kernel) / penalty
        return total
