"""`python -m precompute variants --out DIR [--curvature kfac] [--weights full] [--objective O]`:
the curvature that the ablations of unlearning need and an index does not hold.

`abu-full`, `abu-attn` and `abu-crossattn` move more weights than the index's Fisher covers,
`abu-kfac` and `abu-ekfac-full` more than its EK-FAC, and `abu-eps2` (Table 5) needs that of the
gradient of ‖ε_θ‖². A wider set serves the narrower ones too: `--weights full` alone serves three
methods.
Samples: precompute/sampled.py. Written to extras/, beside the index proper, whose hash stays as it
is.

Memory: the model, one batch of gradients and the sums, 16 bytes a weight together; of EK-FAC:
precompute/kronecker.py. The sums are kept on the disk after every 128 samples, which is what a kill
costs. On one core of a CPU a sample of the embedded model takes 0.18 s for all 9.4 million weights
and 0.04 s for keys and values: 2,048 of them six minutes, and one.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from tqdm import tqdm

from attribution import layout
from attribution.denoiser import OBJECTIVES, Denoiser
from attribution.fisher import DiagonalFisher
from attribution.gradients import per_sample_gradients
from attribution.index import Index
from attribution.layers import only_linear
from attribution.types import UserError
from attribution.weights import WEIGHT_SETS, parameter_names
from precompute import extras, timings
from precompute.kronecker import SampledEKFAC, SampledKFAC
from precompute.sampled import SAMPLES, Sampled, chosen


class Diagonal(Sampled):
    """A diagonal Fisher."""

    kind = "diagonal"

    def make(self, denoiser: Denoiser) -> int:
        names = parameter_names(denoiser.unet, self.weights)
        _, start, sums = self.kept(denoiser.device)
        for name in () if sums else names:
            parameter = denoiser.unet.get_parameter(name)
            sums[name] = torch.zeros(parameter.shape, device=parameter.device)
        size = self.at_once if only_linear(denoiser.unet, names) else 1
        view = denoiser.with_objective(self.objective)
        with tqdm(total=len(self.cells), initial=start, desc=self.step, unit="sample") as bar:
            for first in range(start, len(self.cells), size):
                batch = self.cells[first : first + size]
                gradients = per_sample_gradients(view, *self.batch(view, batch), names)
                for name, g in gradients.items():  # in place: a copy would cost more than a sample
                    sums[name] += g.float().square().sum(0)
                bar.update(len(batch))
                if (first + size) % self.part == 0:
                    self.keep(first + len(batch), sums)
        for total in sums.values():
            total /= len(self.cells)
        self.finish(DiagonalFisher(sums, len(self.cells)).state())
        return len(self.cells) - start


KINDS: dict[str, type[Sampled]] = {one.kind: one for one in (Diagonal, SampledEKFAC, SampledKFAC)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="a finished index")
    add("--curvature", choices=tuple(KINDS), default="diagonal", help="default diagonal")
    add("--weights", choices=WEIGHT_SETS, default="kv", help="weight set; default kv")
    add("--objective", choices=OBJECTIVES, default="loss", help="whose gradient; default loss")
    add("--samples", type=int, default=SAMPLES, metavar="N", help=f"draws; default {SAMPLES}")
    add("--device", default="auto", help="auto, cpu or cuda")
    add("--rebuild", action="store_true", help="remake what other settings made")


def run(args: argparse.Namespace) -> None:
    """Make the Fisher, or go on where a killed run was."""
    if args.samples < 1:
        raise UserError(f"--samples {args.samples}: at least 1")
    kind = KINDS[args.curvature]
    extras.forget_damaged(args.out, layout.curvature_step(kind.kind, args.weights, args.objective))
    index = Index.open(args.out)
    cells = chosen(index, args.samples)
    if not cells:
        raise UserError(f"{args.out} has no training record: every record's split is held-out")
    job = kind(index, args.weights, args.objective, cells)
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
