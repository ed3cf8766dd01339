"""Featurising for TRAK, ours beside `traker` (its authors' package): time, memory, agreement.

python -m benchmarks trak --records 32 --dim 1024

Both turn the same training records, image and flip, into rows of `dim` numbers in float32: the mean
gradient of the text keys and values over a few timesteps. Each runs in a process of its own, so
that its peak memory is its own. They project at random by different means: Spearman of their scores
is bounded by that; without any projection they agree (tests/benchmarks/test_trak_peer.py).
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attribution.arguments import count
from attribution.cells import batch_size_for
from attribution.denoiser import Denoiser
from attribution.gradients import per_sample_gradients
from attribution.index import Index
from attribution.methods.projected import DAMPING
from attribution.noise import keyed_noise, mirrored
from attribution.projection import BlockProjection
from attribution.ridge import Ridge
from attribution.types import UserError
from attribution.validate import whole_numbers
from attribution.weights import parameter_names
from benchmarks.trak_peer import NAME, Peer, Samples
from evaluation.results import Figure, Summary
from evaluation.statistics import spearman
from evaluation.world import world_of

OURS = "Whence"
SIDES = (OURS, NAME)
SEED, TARGETS = 24, 4


@dataclass(frozen=True)
class Task:
    """What both sides are given."""

    index: Path
    device: str
    threads: int | None
    records: int
    timesteps: tuple[int, ...]
    dim: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `trak`."""
    parser.add_argument("--records", type=count(), default=32, metavar="N")
    parser.add_argument("--dim", type=count(), default=1024)
    parser.add_argument("--timesteps", type=whole_numbers, default=[125, 375, 625, 875])


def run(args: argparse.Namespace) -> None:
    """One line a side; one that is there is not measured again."""
    if not args.timesteps:
        raise UserError("--timesteps: at least one")
    world = world_of(args)
    task = Task(
        args.index, args.device, args.threads, args.records, tuple(args.timesteps), args.dim
    )
    settings = {
        "records": task.records,
        "timesteps": args.timesteps,
        "dim": task.dim,
        "device": args.device,
        "threads": args.threads,
    }
    results = world.results(args, "trak", settings)
    if all(side in results.units for side in SIDES):
        return
    measured = {side: _apart(side, task) for side in SIDES}
    scores = [facts.pop("scores").T for facts in measured.values()]
    agreement = [spearman(one, other) for one, other in zip(*scores, strict=True)]
    for side, facts in measured.items():
        results.add(side, **facts, spearman=round(float(np.mean(agreement)), 4))


def _apart(side: str, task: Task) -> dict[str, Any]:
    """Measure one side in a fresh process."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(measure, side, task).result()


def measure(side: str, task: Task) -> dict[str, Any]:
    """Seconds, peak memory in MiB and scores [records, targets] of one side, in this process."""
    if task.threads:
        torch.set_num_threads(task.threads)
    index = Index.open(task.index, "quick")
    denoiser = Denoiser.load(index.model_path, device=task.device, revision=index.model_revision)
    rows = np.random.default_rng(SEED).permutation(index.train_rows)[: task.records]
    targets = index.held_out_rows[:TARGETS] if len(index.held_out_rows) else rows[:TARGETS]
    names = parameter_names(denoiser.unet, "kv")
    train = samples_of(denoiser, index, rows, task.timesteps)
    asked = samples_of(denoiser, index, targets, task.timesteps, flips=(0,))
    before = _peak(denoiser)
    featurise = _ours if side == OURS else _theirs
    began = time.perf_counter()
    score = featurise(denoiser, names, train, task.dim)
    seconds = time.perf_counter() - began
    peak = _peak(denoiser)
    both = score(asked).reshape(len(rows), 2, -1)
    return {
        "seconds": round(seconds, 3),
        "peak_mib": round(peak),
        "before_mib": round(before),
        "rows": len(train),
        "scores": both.max(axis=1),
    }


def samples_of(
    denoiser: Denoiser,
    index: Index,
    rows: np.ndarray,
    timesteps: tuple[int, ...],
    flips: tuple[int, ...] = (0, 1),
) -> Samples:
    """Records with the noise of the index's gradient rows, flips in turn; the first caption."""
    parts = []
    for row in rows:
        name = index.ids([row])[0]
        key: dict[str, Any] = {"namespace": "train-gradient", "seed": index.seed, "record_id": name}
        noise = torch.stack(
            [keyed_noise(denoiser.latent_shape, timestep=t, **key) for t in timesteps]
        )
        cond = denoiser.encode_text([index.captions([row])[0][0]]).expand(len(timesteps), -1, -1)
        for flip in flips:
            z = index.latents([row], flip).expand(len(timesteps), -1, -1, -1)
            parts.append((z, cond, mirrored(noise) if flip else noise, torch.tensor(timesteps)))
    return Samples(*(torch.stack(part) for part in zip(*parts, strict=True)))


Score = Callable[[Samples], np.ndarray]


def _batches(denoiser: Denoiser, samples: Samples) -> list[Samples]:
    """The same batches for both sides: as many draws as one forward of a query has."""
    draws = samples.timesteps.shape[1]
    size = max(1, batch_size_for(denoiser) // draws)
    fields = (samples.latents, samples.cond, samples.noise, samples.timesteps)
    return [Samples(*part) for part in zip(*(f.split(size) for f in fields), strict=True)]


def _ours(denoiser: Denoiser, names: tuple[str, ...], train: Samples, dim: int) -> Score:
    shapes = {name: tuple(denoiser.unet.get_parameter(name).shape) for name in names}
    projection = BlockProjection(shapes, [(names, dim)])

    def rows(samples: Samples) -> Tensor:
        made = []
        for part in _batches(denoiser, samples):
            draws = part.timesteps.shape[1]
            flat = (x.flatten(0, 1) for x in (part.latents, part.cond, part.noise, part.timesteps))
            gradients = per_sample_gradients(denoiser, *flat, names, group=draws)
            made.append(projection.apply(gradients).cpu())
        return torch.cat(made)

    features, ridge = rows(train), Ridge(dim)
    ridge.add(features)
    return lambda asked: (features.double() @ ridge.solve(rows(asked), DAMPING).T).numpy()


def _theirs(denoiser: Denoiser, names: tuple[str, ...], train: Samples, dim: int) -> Score:
    folder = Path(tempfile.mkdtemp(prefix="traker-"))
    peer = Peer(denoiser, names, folder, len(train), dim)
    for part in _batches(denoiser, train):
        peer.featurise(part)
    return lambda asked: peer.scores(asked, DAMPING)


def _peak(denoiser: Denoiser) -> float:
    """Peak memory of this process so far, MiB: the GPU's where the model is on one."""
    if denoiser.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    try:  # of this program alone; getrusage counts the one it was started from
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        (line,) = (text for text in status.splitlines() if text.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    except (OSError, ValueError):
        unit = 2**20 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """Both sides, and how many times faster and smaller ours is."""
    settings = head["settings"]
    found = {unit["unit"]: unit for unit in units}
    table = [("", "seconds", "rows a second", "peak memory", "before featurising")]
    for side, unit in found.items():
        rate = unit["rows"] / max(unit["seconds"], 1e-9)
        memory = f"{unit['peak_mib']:,} MiB", f"{unit['before_mib']:,} MiB"
        table.append((side, f"{unit['seconds']:.1f}", f"{rate:.1f}", *memory))
    figures = []
    if set(SIDES) <= set(found):
        ours, theirs = (found[side] for side in SIDES)
        speed = theirs["seconds"] / max(ours["seconds"], 1e-9)
        figures = [
            Figure(f"featurising, {OURS} against {NAME}", f"{speed:.1f} x as fast"),
            Figure("peak memory", f"{ours['peak_mib']:,} against {theirs['peak_mib']:,} MiB"),
            Figure("Spearman of the scores, each projected its own way", f"{ours['spearman']:.2f}"),
        ]
    note = (
        f"{settings['records']} training records, image and flip, mean over timesteps "
        f"{', '.join(map(str, settings['timesteps']))}, to {settings['dim']} numbers in float32; "
        f"gradients of the text keys and values. {NAME} takes those of the whole UNet and drops "
        "the rest; on a CPU it projects with a Gaussian matrix drawn again for every batch."
    )
    return Summary(tuple(figures), tuple(table), (note,))
