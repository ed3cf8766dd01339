"""`python -m precompute features --out DIR`: similarity rows, unit vectors in half precision.

rows/pixel.npy and, where the index has a CLIP, rows/clip.npy (image) are [n, flips, d];
rows/clip-text.npy, the mean over a record's captions, is [n, 1, d].
"""

from __future__ import annotations

import argparse
from functools import partial
from itertools import islice

import numpy as np
import torch
from PIL import ImageOps
from torch import Tensor
from tqdm import tqdm

from attribution import layout
from attribution.features import PIXEL_SIDE, ClipEncoder, pixel_features, unit
from precompute import dataset, options
from precompute.build import Build
from precompute.dataset import iterate_images
from precompute.latents import FLIPS
from precompute.models import CLIP
from precompute.shards import Work, write_npy

STEP = "features"
_BATCH = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    options.add_common(parser)
    options.add_settings(parser)


def run(args: argparse.Namespace) -> None:
    """Make what is missing of every shard's similarity rows, and of what they need."""
    job = Build.begin(args)
    job.first(build)
    job.complete()


def build(job: Build) -> None:
    """The step, after the records."""
    job.first(dataset.build)
    clip = next((model for model in job.settings["models"] if model["role"] == CLIP), None)
    shared = {"clip": clip["sha256"] if clip else None, "pixel_side": PIXEL_SIDE}
    encoders: list[ClipEncoder] = []
    job.over_shards(
        STEP,
        lambda work: {**shared, "records": work.entry(layout.RECORDS)["sha256"]},
        partial(_make, job, clip, encoders),
    )


def _encoder(job: Build, clip: dict | None, encoders: list[ClipEncoder]) -> ClipEncoder | None:
    """The CLIP, loaded for the first shard that needs it."""
    if clip is not None and not encoders:
        where = job.out / clip["path"] if "path" in clip else clip["hub_id"]
        encoders.append(ClipEncoder.load(where, job.device))
    return encoders[0] if encoders else None


def _make(
    job: Build, clip: dict | None, encoders: list[ClipEncoder], work: Work, bar: tqdm
) -> list[str]:
    encoder = _encoder(job, clip, encoders)
    rows: dict[str, list[Tensor]] = {"pixel": []} | ({CLIP: [], "clip-text": []} if encoder else {})
    images = iterate_images(work.file(layout.RECORDS), "captions")
    while batch := list(islice(images, _BATCH)):
        pairs = [side for _, image in batch for side in (image, ImageOps.mirror(image))]
        rows["pixel"].append(pixel_features(pairs).view(len(batch), FLIPS, -1))
        if encoder:
            rows[CLIP].append(encoder.images(pairs).view(len(batch), FLIPS, -1))
            rows["clip-text"].append(_text_rows(encoder, [captions for captions, _ in batch]))
        bar.update(len(batch))
    return [_write(work, method, torch.cat(parts)) for method, parts in rows.items()]


def _text_rows(encoder: ClipEncoder, captions: list[list[str]]) -> Tensor:
    """Mean over each record's captions, [B, 1, d]."""
    texts = encoder.texts([text for group in captions for text in group])
    groups = texts.split([len(group) for group in captions])
    return unit(torch.stack([group.mean(0, keepdim=True) for group in groups]))


def _write(work: Work, method: str, rows: Tensor) -> str:
    name = f"{layout.ROWS}/{layout.rows_name(method)}"
    write_npy(work.file(name), rows.numpy().astype(np.float16))
    return name
