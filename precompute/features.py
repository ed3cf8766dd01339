"""`python -m precompute features --out DIR`: similarity rows, unit vectors in half precision.

Where the index has a CLIP, rows/clip.npy (image) is [n, flips, d] and rows/clip-text.npy, the mean
over a record's captions, [n, 1, d]. `--encoder dino` makes rows of another encoder of a finished
index, see encoder_rows.py.
"""

from __future__ import annotations

import argparse
from functools import partial
from itertools import islice

import torch
from torch import Tensor
from tqdm import tqdm

from attribution import layout
from attribution.features import ClipEncoder, unit, upright_and_mirrored
from attribution.manifest import model_of
from precompute import dataset, encoder_rows, steps
from precompute.build import Build
from precompute.dataset import iterate_images
from precompute.encoder_rows import write_rows
from precompute.models import CLIP
from precompute.shards import Work

STEP = "features"
_BATCH = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    steps.add_arguments(parser)
    encoder_rows.add_arguments(parser)


def run(args: argparse.Namespace) -> None:
    """Make what is missing of every shard's similarity rows, and of what they need."""
    if args.encoder:
        encoder_rows.run(args)
        return
    steps.run(build, args)


def build(job: Build) -> None:
    """The step, after the records."""
    job.first(dataset.build)
    clip = model_of(job.settings, CLIP)
    encoders: list[ClipEncoder] = []
    job.over_shards(STEP, job.inputs.features, partial(_make, job, clip, encoders))


def _make(
    job: Build, clip: dict | None, encoders: list[ClipEncoder], work: Work, bar: tqdm
) -> list[str]:
    if clip is None:
        bar.update(work.done()["records"])
        return []
    if not encoders:  # loaded for the first shard that needs it
        where = job.out / clip["path"] if "path" in clip else clip["hub_id"]
        encoders.append(ClipEncoder.load(where, job.device, clip.get("revision")))
    rows: dict[str, list[Tensor]] = {CLIP: [], "clip-text": []}
    images = iterate_images(work.file(layout.RECORDS), "captions")
    while batch := list(islice(images, _BATCH)):
        pictures = [image for _, image in batch]
        rows[CLIP].append(upright_and_mirrored(encoders[0].images, pictures))
        rows["clip-text"].append(_text_rows(encoders[0], [captions for captions, _ in batch]))
        bar.update(len(batch))
    return [write_rows(work, method, torch.cat(parts)) for method, parts in rows.items()]


def _text_rows(encoder: ClipEncoder, captions: list[list[str]]) -> Tensor:
    """Mean over each record's captions, [B, 1, d]."""
    texts = encoder.texts([text for group in captions for text in group])
    groups = texts.split([len(group) for group in captions])
    return unit(torch.stack([group.mean(0, keepdim=True) for group in groups]))
