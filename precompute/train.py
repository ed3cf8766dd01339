"""Trains the embedded model, and the encoders of the likeness methods.

`python -m precompute train all --data assets/openclipart --run runs/oc --out assets/openclipart`
makes the model: autoencoder, CLIP and UNet. `train dino` and `train dinov2`, with the same
arguments, write encoders/dino and encoders/dinov2: some ten minutes each on four cores; their rows
are then made by `python -m precompute features --encoder dino --out assets/openclipart`.

`train detector`, with the same arguments, makes encoders/detector, the small GroundingDINO: some
forty-five minutes on three cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from attribution.arguments import count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `train`."""
    parser.add_argument(
        "stage", choices=("vae", "clip", "unet", "all", "dino", "dinov2", "detector")
    )
    parser.add_argument("--recipe", default="openclipart")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--run", type=Path, required=True, help="checkpoints and curves, outside git"
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="where model/, clip/, encoders/, training/ go"
    )
    parser.add_argument(
        "--steps", type=count(), help="another number of optimiser steps than the recipe's"
    )
    parser.add_argument("--threads", type=count())


def run(args: argparse.Namespace) -> None:
    """Trains or resumes the stage; killed runs resume from their last checkpoint."""
    import torch

    from precompute.recipes.model.config import RECIPES
    from precompute.recipes.model.train import STAGES, run_stage, with_steps

    if args.threads:
        torch.set_num_threads(args.threads)
    if args.stage in ("dino", "dinov2"):
        from precompute.recipes.features.train import train_stage

        train_stage(args.stage, args.data, args.run, args.out, args.steps)
        return
    if args.stage == "detector":
        from precompute.recipes.detector.train import run_stage as run_detector

        run_detector(args.data, args.run, args.out, args.recipe, args.steps)
        return
    for stage in STAGES if args.stage == "all" else (args.stage,):
        recipe = with_steps(RECIPES[args.recipe], stage, args.steps)
        run_stage(stage, args.data, args.run, args.out, recipe)
