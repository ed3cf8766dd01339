"""What the verbs of TRAK's and of D-TRAK's rows share; they differ in what the gradient is of.

Rows are φ(z) = s · P ∇L(z, θ0), not preconditioned, the mean over a few timesteps with the noise of
namespace "train-gradient", float16 [n, flips, d]. P: attribution/projection.py. Before the first
shard a pilot of some training records says how d is shared among the layers, and the power of two s
that brings the rows into the range of half precision; both are kept with the settings.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from attribution import layout
from attribution.cells import FLIPS
from attribution.denoiser import Denoiser
from attribution.ensemble import check_shape, rows_name, with_unet
from attribution.extras import read_note
from attribution.gradients import Gradients
from attribution.integrity import model_table, table_hash
from attribution.projection import BlockProjection, share_dimensions
from attribution.types import UserError
from attribution.validate import whole_numbers
from attribution.weights import WEIGHT_SETS, parameter_names
from precompute import options
from precompute.build import Build
from precompute.record_gradients import Project, chunk_rows, records_at_once
from precompute.records import ShardRecords, chunks
from precompute.shards import Work, write_npy

WEIGHTS = "kv"
PILOT = 16
# The typical number of a row: far from both ends of half precision, 6e-5 and 65,504.
TYPICAL = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verbs of rows beside the core."""
    options.add_common(parser)
    options.add_settings(parser)
    add = parser.add_argument
    add("--dim", type=int, help="numbers a row; default 1536 for trak, 1024 for dtrak")
    add("--weight-set", choices=WEIGHT_SETS, help=f"whose gradients; default {WEIGHTS}")
    add(
        "--row-timesteps",
        type=whole_numbers,
        metavar="T,T,...",
        help="averaged over; default: the index's grid",
    )


@dataclass(frozen=True)
class Verb:
    """step: its name. objective: what the gradient is of. layered: one block of a row for each
    layer, for DataInf; else one for all, which keeps the whole inner product best. dim: of a row,
    unless asked otherwise.
    """

    step: str
    objective: str
    layered: bool
    dim: int

    def run(self, args: argparse.Namespace, unets: Mapping[str, Path] | None = None) -> None:
        """Make what is missing of every shard's rows, of a finished index.

        unets: name → folder of further models, to be kept in the index; None for those the step was
        begun with.
        """
        job = Build.beside(args)
        maker = _Maker(job, self)
        for folder in (unets or {}).values():
            check_shape(job.denoiser, folder)
        settings = maker.resolve(unets)
        job.extra(self.step, settings)  # first: rows of other models count no more from here on
        for name, folder in (unets or {}).items():
            job.install_encoder(name, folder)
        job.over_shards(
            self.step,
            lambda work: {
                "settings": settings,
                "model": job.model()["sha256"],
                "records": work.entry(layout.RECORDS)["sha256"],
                "latents": work.entry(layout.LATENTS)["sha256"],
            },
            maker.make,
        )
        print(f"{args.out}: {self.step} rows of {job.n_records} records, complete")


@dataclass
class _Maker:
    """One run of a verb."""

    job: Build
    verb: Verb
    settings: dict[str, Any] = field(default_factory=dict)
    _members: list[tuple[Denoiser, BlockProjection]] = field(default_factory=list)

    def resolve(self, unets: Mapping[str, Path] | None) -> dict[str, Any]:
        """Settings of the step: what was asked for, else what it was begun with, else the default.
        What the pilot found is measured once; UserError where the step was begun otherwise.
        """
        out, rebuild = self.job.out, bool(self.job.args.rebuild)
        begun = begun_settings(out, self.verb.step)
        asked = self._asked(begun, unets)
        differ = [name for name in asked if begun and begun.get(name) != asked[name]]
        if differ and not rebuild:
            sides = "; ".join(f"{n}: begun with {begun.get(n)}, now {asked[n]}" for n in differ)
            raise UserError(
                f"{self.verb.step} of {out} was begun with other settings ({sides}). "
                "Repeat those, or add --rebuild to remake it"
            )
        again = rebuild or not begun
        self.settings = {**asked, **self._pilot(asked)} if again else begun
        return self.settings

    def _asked(self, begun: Mapping[str, Any], unets: Mapping[str, Path] | None) -> dict[str, Any]:
        args, index = self.job.args, self.job.settings
        timesteps = args.row_timesteps or begun.get("timesteps") or list(index["timesteps"])
        most = self.job.model()["n_train_timesteps"]
        if not all(0 <= t < most for t in timesteps):
            raise UserError(f"--row-timesteps: each from 0 to {most - 1}")
        dim = args.dim if args.dim is not None else begun.get("dim", self.verb.dim)
        if dim < 1:
            raise UserError(f"--dim {dim}: at least 1")
        return {
            "dim": dim,
            "weights": args.weight_set or begun.get("weights", WEIGHTS),
            "objective": self.verb.objective,
            "timesteps": timesteps,
            "seed": index["noise"]["seed"],
            "models": begun.get("models", []) if unets is None else _identified(unets),
        }

    def _pilot(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """{"blocks", "scale"} from the exact gradients of some training records."""
        denoiser = self._view()
        names = parameter_names(denoiser.unet, asked["weights"])
        squares: list[Tensor] = []

        def energies(gradients: Gradients) -> Tensor:
            squares.append(torch.stack([g.square().flatten(1).sum(1) for g in gradients.values()]))
            return torch.zeros(len(squares[-1][0]), 1)

        for work in self.job.shards():
            records = ShardRecords.read(work)
            rows = np.flatnonzero(records.train)
            for row in rows[:: max(1, len(rows) // PILOT)][:PILOT]:
                self._chunk(denoiser, records, range(row, row + 1), asked, names, energies)
            if squares:
                break
        if not squares:
            raise UserError(f"{self.job.out} has no training record: every one is held out")
        mean = torch.cat(squares, dim=1).double().mean(1).tolist()
        sizes = [denoiser.unet.get_parameter(name).numel() for name in names]
        blocks = self._blocks(names, sizes, mean, asked["dim"])
        width = sum(block["dim"] for block in blocks)
        typical = math.sqrt(sum(mean) / width)  # of one number of a row
        scale = 2.0 ** round(math.log2(TYPICAL / typical)) if typical > 0 else 1.0
        return {"blocks": blocks, "scale": scale}

    def _blocks(
        self, names: Sequence[str], sizes: list[int], energies: list[float], dim: int
    ) -> list[dict[str, Any]]:
        if not self.verb.layered:
            most = 1 << max(0, (sum(sizes) - 1).bit_length())
            return [{"parameters": list(names), "dim": min(dim, most)}]
        if dim < len(names):
            raise UserError(f"--dim {dim}: at least {len(names)}, one for each layer")
        dims = share_dimensions(sizes, energies, dim)
        return [{"parameters": [n], "dim": d} for n, d in zip(names, dims, strict=True)]

    def _view(self) -> Denoiser:
        return self.job.denoiser.with_objective(self.verb.objective)

    def _chunk(
        self,
        denoiser: Denoiser,
        records: ShardRecords,
        chunk: range,
        settings: Mapping[str, Any],
        names: Sequence[str],
        project: Project,
    ) -> np.ndarray:
        steps, seed = settings["timesteps"], settings["seed"]
        batch_size = self.job.batch_size()
        return chunk_rows(denoiser, records, chunk, steps, seed, names, project, batch_size)

    def make(self, work: Work, bar: tqdm) -> list[str]:
        """Rows of one shard, a file for each model."""
        records = ShardRecords.read(work)
        size = records_at_once(self.job.batch_size(), len(self.settings["timesteps"]))
        members = self._opened()
        rows = [np.empty((len(records), FLIPS, p.dim), dtype=np.float16) for _, p in members]
        for chunk in chunks(len(records), size):
            for (denoiser, p), made in zip(members, rows, strict=True):
                made[chunk.start : chunk.stop] = self._chunk(
                    denoiser, records, chunk, self.settings, p.names, p.apply
                )
            bar.update(len(chunk))
        return [self._write(work, number, made) for number, made in enumerate(rows)]

    def _write(self, work: Work, number: int, rows: np.ndarray) -> str:
        if not np.isfinite(rows).all():
            raise UserError(f"{work.folder}: gradient rows that half precision cannot hold")
        name = f"{layout.ROWS}/{layout.rows_name(rows_name(self.verb.step, number))}"
        write_npy(work.file(name), rows)
        return name

    def _opened(self) -> list[tuple[Denoiser, BlockProjection]]:
        """Each model with its projection, loaded for the first shard that needs them."""
        if not self._members:
            view = self._view()
            folders = (self._folder(model) for model in self.settings["models"])
            models = [view, *(with_unet(view, folder) for folder in folders)]
            names = parameter_names(view.unet, self.settings["weights"])
            shapes = {name: tuple(view.unet.get_parameter(name).shape) for name in names}
            self._members = [
                (model, BlockProjection.from_settings(shapes, self.settings, number))
                for number, model in enumerate(models)
            ]
        return self._members

    def _folder(self, model: Mapping[str, str]) -> Path:
        """Where one of the models is; UserError where a killed run did not put it there."""
        folder = self.job.out / layout.ENCODERS / model["name"]
        if table_hash(model_table(folder)) != model["sha256"]:
            raise UserError(
                f"{folder} is not the model that the {self.verb.step} rows of {self.job.out} were "
                "begun with: name the models again, with --models"
            )
        return folder


def begun_settings(out: Path, step: str) -> dict[str, Any]:
    """What a step was begun with; empty where it was not. A step begun for another model of the
    index keeps its widths and scale: they only have to be about right.
    """
    note = read_note(out / layout.EXTRAS)
    settings: dict[str, Any] = note.get("steps", {}).get(step, {}).get("settings", {})
    return settings


def _identified(unets: Mapping[str, Path]) -> list[dict[str, str]]:
    """Names and hashes of models, as settings keep them."""
    return [{"name": n, "sha256": table_hash(model_table(f))} for n, f in unets.items()]
