"""`python -m precompute gradients --out DIR`: projected loss gradients, for first-order scores: the
candidates of unlearning where an index has neither D-TRAK's rows nor a CLIP.

To first order (Eq. 16) a record's loss changes by ∇L(z)·Δθ = (F^-½ ∇L(z))·(F^½ Δθ):
rows/gradients.npy holds the seeded random projection of F^-½ ∇L(z), the mean over a few timesteps,
float16 [n, flips, d]; the query projects F^½ Δθ.
"""

from __future__ import annotations

import numpy as np
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from attribution import layout
from attribution.cells import FLIPS
from attribution.fisher import DiagonalFisher
from attribution.gradients import Gradients
from attribution.projection import Projection
from attribution.types import UserError
from attribution.weights import parameter_names
from precompute import fisher, keys, steps
from precompute.build import Build
from precompute.record_gradients import chunk_rows, records_at_once
from precompute.records import ShardRecords, chunks
from precompute.shards import Work, write_npy

STEP = "gradients"
WEIGHTS = "kv"
(FILE,) = keys.FILES[STEP]


class Rows:
    """What turns a batch of records into rows: the metric and the projection, made when first
    needed.
    """

    def __init__(self, job: Build) -> None:
        self.job = job
        self.names = parameter_names(job.denoiser.unet, WEIGHTS)
        state = load_file(job.out / layout.CURVATURE / layout.FISHER_DIAGONAL)
        settings = job.settings["gradients"]
        whole = DiagonalFisher.from_state(state)
        self.metric = whole.subset(self.names).damped(settings["damping"])
        shapes = {name: tuple(job.denoiser.unet.get_parameter(name).shape) for name in self.names}
        self.projection = Projection(shapes, settings["dim"], job.settings["noise"]["seed"])
        self.timesteps: list[int] = settings["timesteps"]

    def of(self, records: ShardRecords, chunk: range) -> np.ndarray:
        """Rows of a few records, float32 [len(chunk), flips, d]."""
        seed, size = self.job.settings["noise"]["seed"], self.job.batch_size()
        return chunk_rows(
            self.job.denoiser, records, chunk, self.timesteps, seed, self.names, self._row, size
        )

    def _row(self, gradients: Gradients) -> Tensor:
        return self.projection.apply(self.metric.sqrt_inv(gradients))


def build(job: Build) -> None:
    """The step, after the curvature."""
    job.first(fisher.build)
    made: list[Rows] = []
    job.over_shards(STEP, job.inputs.gradients, lambda work, bar: _make(job, made, work, bar))


def _make(job: Build, made: list[Rows], work: Work, bar: tqdm) -> list[str]:
    if not made:
        made.append(Rows(job))
    records = ShardRecords.read(work)
    size = records_at_once(job.batch_size(), len(made[0].timesteps))
    rows = np.empty((len(records), FLIPS, job.settings["gradients"]["dim"]), dtype=np.float16)
    for chunk in chunks(len(records), size):
        rows[chunk.start : chunk.stop] = made[0].of(records, chunk)
        bar.update(len(chunk))
    if not np.isfinite(rows).all():
        raise UserError(f"{work.folder}: gradient rows that half precision cannot hold")
    write_npy(work.file(FILE), rows)
    return [FILE]


add_arguments, run = steps.verb(build)
