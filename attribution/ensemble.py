"""EDGE: models trained anew beside an index's own, over which TRAK averages (Park et al. 2023).

They share VAE and text encoder with the index's model: only their UNets are kept, as extra encoders
of the index named in a step's settings, "models": [{"name": "trak-1", "sha256": …}, …]. Model 0 is
the index's own; model m's rows are rows/trak-<m>.npy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from attribution.denoiser import Denoiser
from attribution.index import Index
from attribution.pipelines import tune
from attribution.types import UserError


def rows_name(step: str, model: int) -> str:
    """Name of a model's rows: trak, trak-1, trak-2, …"""
    return step if model == 0 else f"{step}-{model}"


def with_unet(denoiser: Denoiser, folder: str | Path) -> Denoiser:
    """The denoiser with another UNet of the same shape, read from `folder`; UserError if not."""
    from diffusers import UNet2DConditionModel

    try:
        unet = UNet2DConditionModel.from_pretrained(str(folder))
    except (OSError, ValueError) as error:
        raise _unreadable(folder, error) from error
    _same_shape(denoiser, unet, folder)
    # diffusers' own `to` warns of layers that this model does not have
    torch.nn.Module.to(unet, denoiser.device, denoiser.dtype)
    unet.eval().requires_grad_(False)
    tune(unet, denoiser.device)
    return replace(denoiser, unet=unet)


def check_shape(denoiser: Denoiser, folder: str | Path) -> None:
    """UserError where the UNet in `folder` is not of the denoiser's shape; no weights are read."""
    from diffusers import UNet2DConditionModel

    try:
        with torch.device("meta"):
            unet = UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(str(folder)))
    except (OSError, ValueError, TypeError) as error:
        raise _unreadable(folder, error) from error
    _same_shape(denoiser, unet, folder)


def members(denoiser: Denoiser, index: Index, settings: Mapping[str, Any]) -> list[Denoiser]:
    """The index's own model and those its rows were made with besides; UserError if one is gone or
    another. Opening the index has compared their files with the hashes it states.
    """
    found = [denoiser]
    models: Sequence[Mapping[str, str]] = settings["models"]
    for model in models:
        place = index.encoder(model["name"])
        if place is None:
            raise UserError(f"the index {index.path} has lost the model {model['name']}")
        if index.extras.encoders[model["name"]]["sha256"] != model["sha256"]:
            raise UserError(
                f"the index {index.path} has another model {model['name']} than its rows were "
                f"made with: run `python -m precompute trak --out {index.path} --rebuild --models "
                "DIR_OR_HUB_ID ...`"
            )
        found.append(with_unet(denoiser, place))
    return found


def _unreadable(folder: str | Path, error: Exception) -> UserError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return UserError(f"cannot open the UNet {folder}: {lines[0]}")


def _same_shape(denoiser: Denoiser, unet: Any, folder: str | Path) -> None:
    if _shapes(unet) != _shapes(denoiser.unet):
        raise UserError(f"the UNet {folder} is of another shape than the index's model")


def _shapes(unet: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(p.shape) for name, p in unet.named_parameters()}
