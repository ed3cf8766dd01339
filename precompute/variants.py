"""`python -m precompute variants --out DIR [--weights full] [--objective eps2]`: the curvature that
the ablations of unlearning need and an index does not hold.

`abu-full`, `abu-attn` and `abu-crossattn` move more weights than the index's Fisher covers, and
`abu-eps2` (Table 5) needs that of the gradient of ‖ε_θ‖². A wider set serves the narrower ones too:
`--weights full` alone serves three methods. Samples are (record, flip) pairs of training records,
one keyed random (t, ε) draw each, the draws of `python -m precompute fisher`; all pairs give the
very same numbers. Written to extras/, beside the index proper, whose hash stays as it is.

Memory: the model, one batch of gradients and the sums, 16 bytes a weight together. The sums are
kept on the disk after every 128 samples, which is what a kill costs. On one core of a CPU a sample
of the embedded model takes 0.18 s for all 9.4 million weights and 0.04 s for keys and values: 2,048
of them six minutes, and one.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from attribution import layout
from attribution.denoiser import OBJECTIVES, Denoiser, Objective
from attribution.fisher import DiagonalFisher, fisher_draw
from attribution.gradients import per_sample_gradients
from attribution.index import Index
from attribution.integrity import canonical_hash
from attribution.types import UserError
from attribution.weights import WEIGHT_SETS, linear_modules, parameter_names
from precompute import extras, timings
from precompute.fisher import caption_drawn
from precompute.latents import FLIPS

SAMPLES = 2048
# Samples of one forward where gradients come from token hooks; kept sums are whole batches.
BATCH, PART = 8, 128

Cell = tuple[int, int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="a finished index")
    add("--weights", choices=WEIGHT_SETS, default="kv", help="weight set; default kv")
    add("--objective", choices=OBJECTIVES, default="loss", help="whose gradient; default loss")
    add("--samples", type=int, default=SAMPLES, metavar="N", help=f"draws; default {SAMPLES}")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--rebuild", action="store_true", help="remake what other settings made")


def run(args: argparse.Namespace) -> None:
    """Make the Fisher, or go on where a killed run was."""
    if args.samples < 1:
        raise UserError(f"--samples {args.samples}: at least 1")
    extras.forget_damaged(args.out, layout.fisher_step(args.weights, args.objective))
    index = Index.open(args.out)
    cells = chosen(index, args.samples)
    if not cells:
        raise UserError(f"{args.out} has no training record: every record's split is held-out")
    job = Job(index, args.weights, args.objective, cells)
    began = time.perf_counter()
    if job.done() and not args.rebuild:
        print(f"{job.path}: there already, {len(cells)} samples")
        return
    extras.begin(
        args.out, index.manifest, job.step, job.settings, job.command, rebuild=args.rebuild
    )
    made = job.make(
        Denoiser.load(index.model_path, device=args.device, revision=index.model_revision)
    )
    extras.add_files(args.out, job.step, [job.name])
    spent = time.perf_counter() - began
    share = made / len(cells)  # the rest was timed by a run that was killed, or not at all
    timings.add(args.out, job.step, spent, round(share * len(index.train_rows)))
    print(f"{job.path}: {made} samples in {spent:.0f} s, {job.path.stat().st_size / 1e6:.1f} MB")


def chosen(index: Index, samples: int) -> list[Cell]:
    """Seeded random (row, flip) pairs of training records, in file order; all if fewer."""
    cells = [(int(row), flip) for row in index.train_rows for flip in range(FLIPS)]
    order = np.random.default_rng(index.seed).permutation(len(cells))[:samples]
    return [cells[n] for n in sorted(order)]


@dataclass
class Job:
    """One Fisher: `weights` by `objective` over `cells`."""

    index: Index
    weights: str
    objective: Objective
    cells: Sequence[Cell]
    sums: dict[str, Tensor] = field(default_factory=dict)

    @property
    def step(self) -> str:
        """Its name in extras.json."""
        return layout.fisher_step(self.weights, self.objective)

    @property
    def name(self) -> str:
        """Its file, relative to the index."""
        return layout.fisher_file(self.weights, self.objective)

    @property
    def path(self) -> Path:
        """Its file."""
        return self.index.path / self.name

    @property
    def settings(self) -> dict[str, str | int]:
        """What its numbers depend on beside the index."""
        what = {"weights": self.weights, "objective": self.objective}
        return {**what, "samples": len(self.cells), "seed": self.index.seed}

    @property
    def command(self) -> str:
        """Arguments of `python -m precompute` that make it."""
        samples = f" --samples {len(self.cells)}" * (len(self.cells) != SAMPLES)
        return f"variants --weights {self.weights} --objective {self.objective}{samples}"

    def done(self) -> bool:
        """Whether it is there, of this index and with these settings; opening checked its bytes."""
        if self.index.extra(self.step) != self.settings:
            return False
        return self.name in self.index.extras.steps[self.step]["files"]

    def make(self, denoiser: Denoiser) -> int:
        """Write the file; how many samples were computed now, the others being kept ones."""
        names = parameter_names(denoiser.unet, self.weights)
        start = self._resume(denoiser, names)
        linear = linear_modules(denoiser.unet, names)
        hooks = all(name.rpartition(".")[0] in linear for name in names)
        size = BATCH if hooks else 1
        view = denoiser.with_objective(self.objective)
        with tqdm(total=len(self.cells), initial=start, desc=self.step, unit="sample") as bar:
            for first in range(start, len(self.cells), size):
                batch = self.cells[first : first + size]
                self._add(per_sample_gradients(view, *self._batch(view, batch), names))
                bar.update(len(batch))
                if (first + size) % PART == 0:
                    self._keep(first + len(batch))
        for total in self.sums.values():
            total /= len(self.cells)
        _save(self.path, DiagonalFisher(self.sums, len(self.cells)).state())
        self._partial.unlink(missing_ok=True)
        return len(self.cells) - start

    def _add(self, gradients: Mapping[str, Tensor]) -> None:
        """Σ g² in place: a copy of the sums for each sample would cost more than the sample."""
        for name, g in gradients.items():
            self.sums[name] += g.float().square().sum(0)

    def _batch(
        self, denoiser: Denoiser, cells: Sequence[Cell]
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(latents, cond, noise, timesteps) of some (row, flip) pairs."""
        index, rows = self.index, [row for row, _ in cells]
        shape, steps, seed = denoiser.latent_shape, denoiser.n_train_timesteps, index.seed
        ids, captions = index.ids(rows), index.captions(rows)
        keys = [(name, flip) for name, (_, flip) in zip(ids, cells, strict=True)]
        draws = [fisher_draw(shape, steps, name, flip, seed) for name, flip in keys]
        texts = [
            own[caption_drawn(len(own), name, flip, seed)]
            for own, (name, flip) in zip(captions, keys, strict=True)
        ]
        return (
            torch.cat([index.latents([row], flip) for row, flip in cells]),
            denoiser.encode_text(texts),
            torch.stack([noise for noise, _ in draws]),
            torch.tensor([t for _, t in draws]),
        )

    # ------------------------------------------------------------------ sums on the disk

    @property
    def _partial(self) -> Path:
        return self.path.with_name(f"{self.step}.partial")

    @property
    def _key(self) -> str:
        return canonical_hash({"index": self.index.index_hash, **self.settings})

    def _resume(self, denoiser: Denoiser, names: Sequence[str]) -> int:
        """How many samples the sums hold: those of a killed run of the same settings, or none."""
        if self._partial.is_file():
            with safe_open(self._partial, "pt") as file:
                about = file.metadata() or {}
            if about.get("key") == self._key:
                kept = load_file(self._partial, device=str(denoiser.device))
                self.sums = {name: kept[name] for name in names}
                return int(about["samples"])
        for name in names:
            parameter = denoiser.unet.get_parameter(name)
            self.sums[name] = torch.zeros(parameter.shape, device=parameter.device)
        return 0

    def _keep(self, samples: int) -> None:
        sums = {name: total.cpu() for name, total in self.sums.items()}
        _save(self._partial, sums, {"key": self._key, "samples": str(samples)})


def _save(path: Path, state: Mapping[str, Tensor], about: dict[str, str] | None = None) -> None:
    """Safetensors under its name only once it is complete and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    save_file({name: state[name].contiguous() for name in sorted(state)}, part, metadata=about)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)
