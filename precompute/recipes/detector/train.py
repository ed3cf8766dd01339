"""Trains the embedded detector and puts it into an index.

python -m precompute train detector --data assets/openclipart --run runs/openclipart
--out assets/openclipart
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import BertTokenizer, GroundingDinoForObjectDetection

from attribution import layout
from attribution.detection.boxes import centres
from attribution.detection.grounding_dino import encode
from attribution.detection.registry import ENCODER
from attribution.types import UserError
from precompute.extras import install_encoder
from precompute.recipes.detector.compose import Example, augmented, examples
from precompute.recipes.detector.config import RECIPES, DetectorConfig
from precompute.recipes.detector.data import DetectionSet, load_detection_set
from precompute.recipes.detector.loss import Targets, detection_loss
from precompute.recipes.detector.network import (
    PREFERRED_MEAN,
    build_network,
    save_detector,
    train_words,
)
from precompute.recipes.model.curve import write_curve
from precompute.recipes.model.loop import Run, trapezoid

STAGE = "detector"
SAVE_EVERY = 250


def run_stage(data: Path, run: Path, out: Path, recipe: str, steps: int | None) -> Path:
    """Train or resume in `run/detector`, then install the model as the index's encoder "detector".

    steps: another number than the recipe's. Returns the model's folder in the index at `out`.
    UserError for a recipe without a detector.
    """
    if recipe not in RECIPES:
        raise UserError(f"no detector in the recipe {recipe!r}; there are {', '.join(RECIPES)}")
    config = RECIPES[recipe]
    config = config if steps is None else replace(config, steps=steps)
    folder = run / STAGE
    network, tokenizer = train_detector(load_detection_set(data), folder, config)
    model = folder / "model"
    shutil.rmtree(model, ignore_errors=True)
    save_detector(network, tokenizer, config, model)
    place = install_encoder(out, ENCODER, model)
    _keep_records(folder, out / layout.TRAINING)
    return Path(place)


def train_detector(
    data: DetectionSet, folder: Path, config: DetectorConfig
) -> tuple[GroundingDinoForObjectDetection, BertTokenizer]:
    """The network with averaged weights (eval mode), and its tokenizer."""
    tokenizer = _words(data, folder / "words", config)
    network = build_network(config, len(tokenizer)).train()
    run = Run(folder, network, config, ema_decay=config.ema_decay)

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        batch, targets = tensors(examples(data, config, step), tokenizer, config)
        batch["pixel_values"] = prepared(augmented(batch["pixel_values"], config.seed, step))
        return detection_loss(network, network(**batch), targets, config.proposals)

    def schedule(step: int) -> float:
        return trapezoid(
            step, warmup=config.warmup_steps, total=config.steps, decay=config.decay_steps
        )

    run.fit(loss_of, schedule, save_every=SAVE_EVERY)
    network.load_state_dict(run.weights())
    return network.eval(), tokenizer


def _words(data: DetectionSet, folder: Path, config: DetectorConfig) -> BertTokenizer:
    """The vocabulary, learned once a run: a resumed one must not number its words anew."""
    if not folder.is_dir():
        part = folder.with_name(folder.name + ".part")
        train_words(data.phrases, config).save_pretrained(part)
        part.rename(folder)
    return BertTokenizer.from_pretrained(folder)


def prepared(pixels: torch.Tensor) -> torch.Tensor:
    """[B, 3, h, w] in 0..1 as the saved settings prepare pictures."""
    return (pixels - PREFERRED_MEAN) / PREFERRED_MEAN


def tensors(
    batch: Sequence[Example], tokenizer: Any, config: DetectorConfig
) -> tuple[dict[str, torch.Tensor], Targets]:
    """(arguments of the network with pixels still in 0..1, targets) of examples of one shape."""
    encoded = [encode(tokenizer, one.phrases, config.max_tokens) for one in batch]
    length = max(len(ids) for ids, _ in encoded)
    objects = max(1, *(len(one.positive) for one in batch))
    ids = torch.zeros(len(batch), length, dtype=torch.long)
    boxes = torch.full((len(batch), objects, 4), 0.5)
    tokens = torch.zeros(len(batch), objects, length, dtype=torch.bool)
    for row, (one, (numbers, spans)) in enumerate(zip(batch, encoded, strict=True)):
        ids[row, : len(numbers)] = torch.tensor(numbers)
        boxes[row, : len(one.boxes)] = centres(one.boxes)
        for place, phrases in enumerate(one.positive):
            for phrase in phrases & spans.keys():
                tokens[row, place, spans[phrase]] = True
    text = ids != tokenizer.pad_token_id
    arguments = {
        "pixel_values": torch.stack([one.pixels for one in batch]),
        "input_ids": ids,
        "attention_mask": text.long(),
    }
    return arguments, Targets(boxes, tokens, tokens.any(-1), text)


def _keep_records(folder: Path, out: Path) -> None:
    """Beside the other networks' records: command, configuration, time, machine, loss curve."""
    out.mkdir(parents=True, exist_ok=True)
    write_curve(folder / "losses.csv", out / f"{STAGE}_losses.png")
    shutil.copy(folder / "training.json", out / f"{STAGE}_training.json")
