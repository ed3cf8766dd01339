"""`python -m precompute features --encoder dino --out DIR [--model DIR_OR_HUB_ID]`: rows of another
encoder, a step beside the core of a finished index.

The encoder is the one of `--model` (facebook/dino-vitb16, facebook/dinov2-with-registers-large, any
folder of those classes), else the one the index has, else `encoders/<name>` that `python -m
precompute train dino` wrote there. rows/<name>.npy is [n, flips, d], unit class tokens. `pixel`
needs no encoder: its rows spare an index of many large pictures reading them all again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from attribution import layout
from attribution.encoders import ClassTokenEncoder
from attribution.features import PIXEL_SIDE, pixel_features, upright_and_mirrored
from attribution.pixels import NAME as PIXEL
from attribution.types import UserError
from precompute import extras, models
from precompute.build import Build
from precompute.dataset import iterate_images
from precompute.shards import Work, write_npy

ENCODERS = ("dino", "dinov2")
_BATCH = 64
Encode = Callable[..., Tensor]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `features` that lead here."""
    parser.add_argument(
        "--encoder",
        choices=(*ENCODERS, PIXEL),
        help="rows of this encoder of a finished index; --model then names the encoder",
    )


def run(args: argparse.Namespace) -> None:
    """Install the encoder where it is not yet, and make what is missing of its rows."""
    name, source = args.encoder, args.model
    args.model = None  # of the index itself: the one it was made with
    job = Build.beside(args)
    if name == PIXEL:
        if source:
            raise UserError("--encoder pixel has no model: leave out --model")
        job.extra(PIXEL, {"side": PIXEL_SIDE}, f"features --encoder {PIXEL}")
        _rows(job, PIXEL, {"side": PIXEL_SIDE}, pixel_features)
        return
    where, entry = _located(job.out, name, source)
    encoder = ClassTokenEncoder.load(where, job.device, entry.get("revision"))  # or refused, first
    settings = {key: entry[key] for key in ("hub_id", "revision", "sha256") if key in entry}
    job.extra(name, settings, f"features --encoder {name}")
    job.install_encoder(name, where, entry.get("revision"))
    _rows(job, name, {"encoder": entry["sha256"]}, encoder.images)


def _located(out: Path, name: str, source: str | None) -> tuple[str, dict]:
    """(folder or hub id, its entry) of the encoder to use; UserError where there is none."""
    begun = extras.encoder(out, name)
    own = out / layout.ENCODERS / name
    if source is None and begun is not None and "hub_id" in begun:
        return begun["hub_id"], begun
    if source is None and not own.is_dir():
        raise UserError(
            f"{out} has no {name} encoder: name one with --model, a folder or a hub id, or train "
            f"one: `python -m precompute train {name} --data {out} --run runs/{out.name} "
            f"--out {out}`"
        )
    where = source or str(own)
    folder, hub = models.located(where, None, pipeline=False)
    return where, models.entry(name, folder, None if hub else str(own)) | hub


def _rows(job: Build, step: str, inputs: dict, encode: Encode) -> None:
    """rows/<step>.npy of every shard."""

    def make(work: Work, bar: tqdm) -> list[str]:
        parts = []
        images = iterate_images(work.file(layout.RECORDS))
        while batch := [image for _, image in islice(images, _BATCH)]:
            parts.append(upright_and_mirrored(encode, batch))
            bar.update(len(batch))
        return [write_rows(work, step, torch.cat(parts))]

    def key(work: Work) -> dict:
        return {**inputs, "records": work.entry(layout.RECORDS)["sha256"]}

    job.over_shards(step, key, make)


def write_rows(work: Work, method: str, rows: Tensor) -> str:
    """Write a shard's rows float32 [n, flips, d] in half precision; the file's name in it."""
    name = f"{layout.ROWS}/{layout.rows_name(method)}"
    write_npy(work.file(name), rows.numpy().astype(np.float16))
    return name
