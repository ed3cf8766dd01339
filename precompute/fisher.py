"""`python -m precompute fisher --out DIR`: curvature of the training loss, diagonal and EK-FAC.

Training records only, both flips, one keyed random (t, ε) draw each. Each shard's means are kept in
curvature/partial/ until all are there and are then joined in order, so that neither memory nor a
kill depends on the number of records. EK-FAC takes two passes: covariances of inputs and output
gradients first, eigenvalues in their eigenbases second.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor
from tqdm import tqdm

from attribution import layout
from attribution.cells import FLIPS
from attribution.ekfac import EKFAC, Q_IN, Q_OUT, Covariances
from attribution.fisher import COUNT, DiagonalFisher, fisher_draw, part_of
from attribution.gradients import gradients_from_tokens, layer_tokens, per_sample_gradients
from attribution.noise import keyed_integers
from attribution.types import UserError
from attribution.weights import OWN_EKFAC, parameter_names
from precompute import keys, latents, steps, timings
from precompute.build import Build
from precompute.records import ShardRecords, chunks
from precompute.shards import Work, replacing

STEP = "fisher"
_PARTIAL = "partial"
_FIRST, _SECOND = "first.safetensors", "second.safetensors"

Batch = tuple[Tensor, Tensor, Tensor, Tensor]


def build(job: Build) -> None:
    """The step, after the latents."""
    job.first(latents.build)
    folder, shared = job.inputs.curvature_folder, job.inputs.curvature()
    key = job.key(STEP, job.inputs.fisher(job.shards()))
    if not folder.is_done(STEP, key, files=keys.FILES[STEP], full=True):
        job.reopen()
        folder.sweep()
        _first_pass(job, shared)
        _second_pass(job, shared)
        folder.finish(STEP, key, keys.FILES[STEP])
    shutil.rmtree(folder.file(_PARTIAL), ignore_errors=True)


# ---------------------------------------------------------------------- passes


def _first_pass(job: Build, shared: Mapping[str, Any]) -> None:
    """Diagonal F and covariances; writes the diagonal, and eigenbases for the second pass."""
    names = _names(job)
    parts = _over_partials(job, _FIRST, shared, lambda batches: _first_state(job, batches, *names))
    diagonal, covariances = DiagonalFisher(), Covariances()
    for state in parts:
        diagonal.merge(DiagonalFisher.from_state(part_of(state, "diagonal.")))
        covariances.merge(Covariances.from_state(part_of(state, "covariances.")))
    if diagonal.count == 0:
        raise UserError(f"{job.out} has no training record: every record's split is held-out")
    _write(job.out / layout.CURVATURE / layout.FISHER_DIAGONAL, diagonal.state())
    _write(
        job.out / layout.CURVATURE / _PARTIAL / layout.EKFAC,
        EKFAC.from_covariances(covariances).state(),
    )


def _second_pass(job: Build, shared: Mapping[str, Any]) -> None:
    """Eigenvalues in the first pass's eigenbases; writes the EK-FAC."""
    bases = load_file(job.out / layout.CURVATURE / _PARTIAL / layout.EKFAC)
    names = _names(job)[1]
    parts = _over_partials(
        job, _SECOND, shared, lambda batches: _second_state(job, batches, bases, names)
    )
    whole = EKFAC.from_state(bases)
    for state in parts:
        whole.merge(EKFAC.from_state({**bases, **state}))
    _write(job.out / layout.CURVATURE / layout.EKFAC, whole.state())


def _names(job: Build) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Parameters of the diagonal and of EK-FAC."""
    unet = job.denoiser.unet
    chosen = parameter_names(unet, job.settings["curvature"]["weights"])
    return chosen, parameter_names(unet, OWN_EKFAC)


def _first_state(
    job: Build, batches: Iterator[Batch], names: Sequence[str], linear: Sequence[str]
) -> dict[str, Tensor]:
    diagonal, covariances = DiagonalFisher(), Covariances()
    same = set(names) == set(linear)
    for batch in batches:
        tokens = layer_tokens(job.denoiser, *batch, linear)
        covariances.accumulate(tokens)
        diagonal.accumulate(
            gradients_from_tokens(tokens, names)
            if same
            else per_sample_gradients(job.denoiser, *batch, names)
        )
    return _prefixed("diagonal.", diagonal.state()) | _prefixed("covariances.", covariances.state())


def _second_state(
    job: Build, batches: Iterator[Batch], bases: Mapping[str, Tensor], names: Sequence[str]
) -> dict[str, Tensor]:
    """λ of a shard, without the eigenbases, which all shards share."""
    part = EKFAC.from_state({**bases, COUNT: torch.tensor([0])})
    part.values = DiagonalFisher()
    for batch in batches:
        part.accumulate(layer_tokens(job.denoiser, *batch, names))
    return {
        name: value for name, value in part.state().items() if not name.startswith((Q_IN, Q_OUT))
    }


# ---------------------------------------------------------------------- partials


def _over_partials(
    job: Build,
    name: str,
    shared: Mapping[str, Any],
    make: Callable[[Iterator[Batch]], dict[str, Tensor]],
) -> Iterator[dict[str, Tensor]]:
    """Each shard's saved state, made where it is missing; always read back from the disk, so
    resuming changes nothing.
    """
    with tqdm(total=job.n_records, desc=f"{STEP} {Path(name).stem}", unit="record") as bar:
        for shard in job.shards():
            work = Work(job.out / layout.CURVATURE / _PARTIAL / shard.folder.name)
            inputs = keys.hashes(shard)
            if name == _SECOND:
                inputs["bases"] = _bases_hash(job)
            key = job.key(name, {**shared, **inputs})
            if not work.is_done(name, key, full=True):
                # two passes over the same records: only the first counts them
                records = shard.done()["records"] if name == _FIRST else 0
                with timings.timed(job.out, STEP, records):
                    _write(work.file(name), make(_batches(job, shard, bar)))
                work.finish(name, key, [name])
            else:
                bar.update(shard.done()["records"])
            state = load_file(work.file(name))
            if int(state[_count_name(name)]):
                yield state


def _bases_hash(job: Build) -> str:
    from attribution.integrity import sha256_of

    return sha256_of(job.out / layout.CURVATURE / _PARTIAL / layout.EKFAC)


def _count_name(name: str) -> str:
    return "diagonal.count" if name == _FIRST else "count"


def _batches(job: Build, shard: Work, bar: tqdm) -> Iterator[Batch]:
    """(latents, cond, noise, timesteps) of a shard's training records, both flips."""
    records = ShardRecords.read(shard)
    for chunk in chunks(len(records), max(1, job.batch_size() // 4)):
        cells = [(r, f) for r in chunk if records.train[r] for f in range(FLIPS)]
        if cells:
            yield _batch(job, records, chunk, cells)
        bar.update(len(chunk))


def _batch(job: Build, records: ShardRecords, chunk: range, cells: list[tuple[int, int]]) -> Batch:
    denoiser, seed = job.denoiser, job.settings["noise"]["seed"]
    states = records.text_states(denoiser, chunk)
    draws = [
        fisher_draw(denoiser.latent_shape, denoiser.n_train_timesteps, records.ids[r], f, seed)
        for r, f in cells
    ]
    return (
        torch.stack([records.latent(r, f) for r, f in cells]),
        torch.stack(
            [
                states[r, caption_drawn(len(records.captions[r]), records.ids[r], f, seed)]
                for r, f in cells
            ]
        ),
        torch.stack([noise for noise, _ in draws]),
        torch.tensor([t for _, t in draws]),
    )


def caption_drawn(count: int, record_id: str, flip: int, seed: int) -> int:
    """Which of a record's `count` captions goes with its draw: one each, as training would pick."""
    key = {"namespace": "fisher", "seed": seed, "record_id": record_id}
    return keyed_integers(0, count, draw=FLIPS + flip, **key) if count > 1 else 0


def _write(path: Path, state: Mapping[str, Tensor]) -> None:
    with replacing(path) as file:
        file.write(save({name: state[name].contiguous() for name in sorted(state)}))


def _prefixed(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in state.items()}


add_arguments, run = steps.verb(build)
