"""Training the denoiser again without some records: what the counterfactual of an answer is.

Only the UNet is trained anew, from the same initial weights, for the same number of optimiser steps
and on the same batches but for the removed records' places (data.resampled): two models then differ
by what was removed. Autoencoder and text encoder stay the index's own. With nothing removed the
result is the index's own UNet, bit for bit on the machine and thread count it was trained with.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from attribution import layout
from attribution.integrity import read_json
from attribution.types import UserError
from precompute.recipes.model.config import UnetConfig
from precompute.recipes.model.loop import Fit
from precompute.recipes.model.unet import Latents, learning_rate, losses_of, untrained


def recipe_of(root: Path) -> UnetConfig:
    """How the UNet of the index or world at `root` was trained, by the record beside its weights;
    UserError without one."""
    path = root / layout.UNET_TRAINING
    if not path.is_file():
        raise UserError(
            f"{path} is missing: only what `python -m precompute train` made can be retrained"
        )
    noted: dict[str, Any] = read_json(path)["config"]
    known = {f.name for f in fields(UnetConfig)}
    values = {name: value for name, value in noted.items() if name in known}
    return UnetConfig(**{**values, "channels": tuple(values["channels"])})


def retrain(
    data: Latents,
    config: UnetConfig,
    removed: Sequence[int] = (),
    device: str | torch.device = "cpu",
) -> Generator[tuple[int, float], None, UNet2DConditionModel]:
    """(optimiser steps done, training loss) after each step; returns the averaged UNet, eval mode.

    removed: positions in `data` of the records to leave out. Closing the generator stops it.
    """
    unet = untrained(data, config).to(device)
    fit = Fit(unet, config, ema_decay=config.ema_decay)
    loss_of = losses_of(unet, data, config, mask(data.latents.shape[1], removed))
    schedule = learning_rate(config)
    while fit.step < config.steps:
        loss = fit.update(loss_of, schedule(fit.step))["loss"]
        yield fit.step, loss
    unet.load_state_dict(fit.weights())
    return unet.eval()


def mask(n: int, removed: Sequence[int]) -> torch.Tensor | None:
    """bool [n], True where a record is removed; None where none is."""
    if not len(removed):
        return None
    found = torch.zeros(n, dtype=torch.bool)
    found[torch.as_tensor(list(removed), dtype=torch.int64)] = True
    return found


def save_unet(unet: UNet2DConditionModel, folder: Path) -> Path:
    """`folder`: the UNet in half precision, as models are shipped; complete or not there."""
    part = folder.with_name(f"{folder.name}.part-{os.getpid()}")
    torch.nn.Module.to(unet, dtype=torch.float16)  # diffusers' own warns of layers it lacks
    unet.save_pretrained(part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return folder
