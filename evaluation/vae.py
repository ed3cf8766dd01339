"""Reconstruction error of the autoencoder on held-out drawings; the target is below
0.012 on [-1, 1].

python -m evaluation vae
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch

from evaluation.data import HELD_OUT
from evaluation.recogniser import to_tensor
from evaluation.results import Figure, Summary
from evaluation.statistics import mean_error
from evaluation.world import World, world_of

TARGET = 0.012
BATCH = 32
COLLAGE = "collage"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb `vae` has no arguments of its own."""


def run(args: argparse.Namespace) -> None:
    """One line: the error of every held-out record."""
    world = world_of(args)
    results = world.results(args, "vae", {}, of="model")
    if HELD_OUT in results.units:
        return
    rows = world.records.rows(HELD_OUT)
    errors = reconstruction_errors(world, rows)
    results.add(
        HELD_OUT,
        ids=[world.records.ids[row] for row in rows],
        collage=[world.records.categories[row] == COLLAGE for row in rows],
        mse=[round(float(error), 7) for error in errors],
    )


@torch.no_grad()
def reconstruction_errors(world: World, rows: np.ndarray) -> np.ndarray:
    """Mean squared error on [-1, 1] of decoding the posterior mean, per record of `rows`, float64
    [n].
    """
    vae, device = world.denoiser.vae, world.denoiser.device
    errors = []
    for start in range(0, len(rows), BATCH):
        pixels = to_tensor(world.records.images[rows[start : start + BATCH]]).to(device, vae.dtype)
        output = vae.decode(vae.encode(pixels).latent_dist.mean, return_dict=False)[0].clamp(-1, 1)
        errors.append((output - pixels).double().square().mean((1, 2, 3)).cpu().numpy())
    return np.concatenate(errors)


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """Mean error of drawings and collages."""
    errors, collage = np.array(units[0]["mse"]), np.array(units[0]["collage"])
    figures = []
    for name, chosen in (("drawings", ~collage), ("collages", collage)):
        if not chosen.any():
            continue
        mean, error = mean_error(errors[chosen])
        value = f"{mean:.4f} ± {error:.4f} over {chosen.sum()} (worst {errors[chosen].max():.4f})"
        judged = name == "drawings"
        figures.append(
            Figure(
                f"VAE reconstruction MSE, held-out {name}",
                value,
                f"< {TARGET}" if judged else "",
                mean < TARGET if judged else None,
            )
        )
    return Summary(tuple(figures))
