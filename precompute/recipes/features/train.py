"""Trains one of the two encoders, resumable, and writes its teacher as an encoder folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from attribution import layout
from precompute.recipes.features.config import CONFIGS, DinoConfig, DinoV2Config
from precompute.recipes.features.dino import Dino
from precompute.recipes.features.dinov2 import DinoV2
from precompute.recipes.features.distil import (
    Distillation,
    centre_tokens,
    learning_rate,
    momentum,
)
from precompute.recipes.model.data import (
    TrainingSet,
    batch_rows,
    load_training_set,
    step_generator,
)
from precompute.recipes.model.loop import Run
from precompute.recipes.model.train import keep_records

SAVE_EVERY = 200
BATCH = 128  # pictures of a forward without gradients


def train_stage(name: str, data: Path, run: Path, out: Path, steps: int | None = None) -> None:
    """Trains `dino` or `dinov2` in run/<name>; writes out/encoders/<name> and, beside the model's,
    out/training/<name>_training.json and its loss curve.

    steps: another number of optimiser steps than the configuration's.
    """
    config = CONFIGS[name] if steps is None else replace(CONFIGS[name], steps=steps)
    records = load_training_set(data)
    network = train_encoder(records, run / name, config)
    batches = (records.floats(slice(i, i + BATCH)) for i in range(0, len(records), BATCH))
    centre_tokens(network.teacher["backbone"], batches)
    save_encoder(network, out / layout.ENCODERS / name, config)
    keep_records(run, out / layout.TRAINING, (name,))


def build(config: DinoConfig) -> Distillation:
    """An untrained student and its teacher, of config.seed."""
    torch.manual_seed(config.seed)
    return DinoV2(config) if isinstance(config, DinoV2Config) else Dino(config)


def train_encoder(data: TrainingSet, folder: Path, config: DinoConfig) -> Distillation:
    """Trains or resumes in `folder`; returns student and teacher after the last step."""
    network = build(config)
    run = Run(folder, network, config)

    def losses(step: int) -> dict[str, torch.Tensor]:
        network.begin(step)
        pixels = data.floats(batch_rows(len(data), config.batch_size, config.seed, step))
        return network.losses(pixels, step_generator(config.seed, step))

    run.fit(losses, lambda step: learning_rate(config, step), save_every=SAVE_EVERY)
    network.follow(momentum(config, config.steps - 1))  # of the last step's student
    return network.eval()


def save_encoder(network: Distillation, folder: Path, config: DinoConfig) -> None:
    """The teacher's backbone in half precision, with the preprocessing it was trained on."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    network.teacher["backbone"].half().save_pretrained(part)
    network.teacher["backbone"].float()
    (part / "preprocessor_config.json").write_text(
        json.dumps(preprocessor(config.resolution), indent=2) + "\n", encoding="utf-8"
    )
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)


def preprocessor(resolution: int) -> dict[str, object]:
    """Settings of a transformers image processor; `pad_to_square` is our own: drawings lie on white
    paper and are never squashed.
    """
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": resolution, "width": resolution},
        "resample": 3,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "pad_to_square": True,
    }
