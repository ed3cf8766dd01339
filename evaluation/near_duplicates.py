"""The share of generated images that copy one record, for training captions and for held-out
captions.

A copy is as near to a record, in pixels and in CLIP, as 95 % of known copies are: training drawings
put through the model's own autoencoder, moved by a pixel and slightly faded. How often real
held-out drawings "copy" a training record by the same rule, and real training drawings another one,
shows what the data themselves repeat.

python -m evaluation near-duplicates
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from attribution.arguments import count
from evaluation import generated
from evaluation.copies import Pictures, Thresholds, compare, fit, moved, paired
from evaluation.recogniser import to_tensor
from evaluation.results import Figure, Summary
from evaluation.statistics import wilson
from evaluation.vae import COLLAGE
from evaluation.world import World, world_of

CALIBRATION = 400  # known copies, and pairs of different drawings
SEED = 21


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `near-duplicates`."""
    generated.add_arguments(parser)
    parser.add_argument("--captions", type=count(), default=generated.N_CAPTIONS, metavar="N")


def run(args: argparse.Namespace) -> None:
    """Thresholds first, then each set of pictures against every training record."""
    world = world_of(args)
    sampling = generated.sampling_of(args, world)
    settings = {"steps": sampling.steps, "guidance": sampling.guidance, "captions": args.captions}
    results = world.results(args, "near-duplicates", settings, of="model")
    train = world.records.rows("train")
    originals = Pictures.of(world.records.images[train], world.clip)
    if "thresholds" not in results.units:
        results.add("thresholds", **calibrate(world, train, originals))
    unit = results.units["thresholds"]
    against = Against(world, train, originals, Thresholds(unit["distance"], unit["cosine"]))
    sets = {
        "training captions": generated.training_rows(world.records, args.captions),
        "held-out captions": generated.held_out_rows(world.records)[: args.captions],
    }
    for name, rows in sets.items():
        real = f"real drawings of {name}"
        if real not in results.units:
            found = against.judge(rows, world.records.images[rows], without_own=True)
            results.add(real, **found)
    for name, rows in sets.items():
        if name not in results.units:
            images = generated.draw_rows(world, rows, sampling, args.cache)
            results.add(name, **against.judge(rows, images))


def calibrate(world: World, train: np.ndarray, originals: Pictures) -> dict[str, Any]:
    """Thresholds from known copies, and how often they take a random pair of drawings for one."""
    g = np.random.default_rng(SEED)
    drawings = [n for n, row in enumerate(train) if world.records.categories[row] != COLLAGE]
    chosen = g.permutation(drawings)[:CALIBRATION]
    copies = Pictures.of(known_copies(world, world.records.images[train[chosen]], g), world.clip)
    subset = Pictures(originals.ink[chosen], originals.clip[:, chosen])
    distances, cosines = paired(subset, copies)
    thresholds = fit(distances, cosines)
    different = compare(subset, subset)
    pairs = ~np.eye(len(chosen), dtype=bool)
    return {
        "distance": thresholds.distance,
        "cosine": thresholds.cosine,
        "kept": float(thresholds.are_copies(distances, cosines).mean()),
        "false": float(thresholds.are_copies(*different)[pairs].mean()),
        "known_copies": len(chosen),
    }


@torch.no_grad()
def known_copies(world: World, images: np.ndarray, g: np.random.Generator) -> np.ndarray:
    """Each picture through the autoencoder, moved by up to a pixel and faded by up to 5 %, uint8
    [n, px, px, 3].
    """
    vae, device = world.denoiser.vae, world.denoiser.device
    out = []
    for part in to_tensor(images).split(32):
        latents = vae.encode(part.to(device, vae.dtype)).latent_dist.mean
        decoded = vae.decode(latents, return_dict=False)[0].float().cpu()
        out += [_moved(picture.permute(1, 2, 0).numpy() / 2 + 0.5, g) for picture in decoded]
    return np.stack(out)


def _moved(picture: np.ndarray, g: np.random.Generator) -> np.ndarray:
    dy, dx = g.integers(-1, 2, size=2).tolist()
    ink = moved((1.0 - picture)[None], dy, dx)[0] * (1.0 - 0.05 * g.random())
    return ((1.0 - ink).clip(0, 1) * 255).round().astype(np.uint8)


@dataclass(frozen=True)
class Against:
    """What pictures are compared with: the training records, and the thresholds of a copy."""

    world: World
    train: np.ndarray
    originals: Pictures
    thresholds: Thresholds

    def judge(
        self, rows: list[int], images: np.ndarray, *, without_own: bool = False
    ) -> dict[str, Any]:
        """Per picture of the records `rows`: how many training records it copies, whether its own
        is among them, and the nearest in pixels. without_own: its own record is left out.
        """
        ids = self.world.records.ids
        distances, cosines = compare(Pictures.of(images, self.world.clip), self.originals)
        own = self.train[None] == np.array(rows)[:, None]
        if without_own:
            distances[own] = np.inf
        copies = self.thresholds.are_copies(distances, cosines)
        nearest = distances.argmin(1)
        every = np.arange(len(rows))
        return {
            "ids": [ids[row] for row in rows],
            "copied": copies.sum(1).tolist(),
            "own": (copies & own).any(1).tolist(),
            "nearest": [ids[self.train[n]] for n in nearest],
            "distance": [round(float(d), 4) for d in distances[every, nearest]],
            "cosine": [round(float(c), 4) for c in cosines[every, nearest]],
        }


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """Shares of copies, and what the thresholds are."""
    found = {unit["unit"]: unit for unit in units}
    fitted = found.pop("thresholds")
    figures = []
    heads = (
        "pictures",
        "n",
        "copy a record",
        "copy exactly one",
        "copy their own caption's",
        "median distance",
    )
    table: list[tuple[str, ...]] = [heads]
    for name, unit in found.items():
        copied, n = np.array(unit["copied"]), len(unit["ids"])
        some, low_high = int((copied > 0).sum()), wilson(int((copied > 0).sum()), n)
        value = f"{some / n:.1%} of {n} ({low_high[0]:.1%} to {low_high[1]:.1%})"
        figures.append(Figure(f"near-duplicates of a training record, {name}", value))
        row = (name, n, some, int((copied == 1).sum()), int(np.sum(unit["own"])))
        table.append((*map(str, row), f"{np.median(unit['distance']):.3f}"))
    note = (
        f"A copy: relative pixel distance <= {fitted['distance']:.3f} and CLIP cosine >= "
        f"{fitted['cosine']:.3f}. Of {fitted['known_copies']} known copies the rule finds "
        f"{fitted['kept']:.1%}; of pairs of different training drawings it takes "
        f"{fitted['false']:.3%} for copies."
    )
    return Summary(tuple(figures), tuple(table), (note,))
