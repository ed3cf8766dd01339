"""`python -m precompute trak --out DIR [--dim 1536] [--models DIR ...]`: rows of TRAK, JourneyTRAK
and DataInf, beside a finished index.

rows/trak.npy: projected gradients of the loss, one block of columns for each layer. With --models,
pipelines trained anew that share VAE and text encoder with the index's model, each gets rows of its
own (trak-1, trak-2, ...), its UNet is kept in the index, and scores average over all of them.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from attribution.ensemble import rows_name
from attribution.integrity import model_table, read_json
from attribution.types import UserError
from precompute import models, projected
from precompute.build import Build
from precompute.projected import Verb

VERB = Verb("trak", "loss", layered=True, dim=1536)
_SHARED = {"VAE": "vae/", "text encoder": "text_encoder/"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    projected.add_arguments(parser)
    parser.add_argument(
        "--models", nargs="+", metavar="DIR_OR_HUB_ID", help="pipelines to average over besides"
    )


def run(args: argparse.Namespace) -> None:
    """Make what is missing of every shard's TRAK rows."""
    VERB.run(args, None if args.models is None else further(args))


def further(args: argparse.Namespace) -> dict[str, Path]:
    """Name → folder of the UNets of further pipelines.

    UserError for one with another VAE, text encoder or prediction type: latents, text states and
    targets of the index would not be its own.
    """
    own, found = Build.beside(args).model(), {}
    for number, model in enumerate(args.models, start=1):
        folder, _ = models.located(model, None)
        _refuse_other(model, own, folder)
        found[rows_name(VERB.step, number)] = folder / "unet"
    return found


def _refuse_other(model: str, own: dict[str, Any], folder: Path) -> None:
    table = model_table(folder)
    if not any(name.startswith("unet/") for name in table):
        raise UserError(f"no UNet in {model}: expected a diffusers pipeline folder")
    scheduler = read_json(folder / "scheduler" / "scheduler_config.json")
    same = {part: _weights(own["files"], p) == _weights(table, p) for part, p in _SHARED.items()}
    kind = scheduler.get("prediction_type", "epsilon")
    same["prediction type"] = kind == own["prediction_type"]
    for part, alike in same.items():
        if not alike:
            raise UserError(
                f"{model} has another {part} than the index's model: "
                "TRAK averages over models that differ in their UNet alone"
            )


def _weights(table: dict[str, Any], part: str) -> list[str]:
    return [e["sha256"] for n, e in table.items() if n.startswith(part) and "safetensors" in n]
