"""Does the embedded CLIP find the caption of a generated image as well as that of a real one (issue
2, 2b)?

recall@10 of an image's own caption among 256, for generated images over the same for the real
images of these captions.

python -m evaluation retrieval
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from PIL import Image

from attribution.arguments import count
from evaluation import generated
from evaluation.results import Figure, Summary
from evaluation.statistics import wilson
from evaluation.world import World, world_of

TARGET = 0.8
TOP = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `retrieval`."""
    generated.add_arguments(parser)
    parser.add_argument("--captions", type=count(), default=generated.N_CAPTIONS, metavar="N")


def run(args: argparse.Namespace) -> None:
    """Ranks of own captions: of training captions, and of held-out captions filled up with training
    ones.
    """
    world = world_of(args)
    sampling = generated.sampling_of(args, world)
    settings = {"steps": sampling.steps, "guidance": sampling.guidance, "captions": args.captions}
    results = world.results(args, "retrieval", settings, of="model")
    training = generated.training_rows(world.records, args.captions)
    held_out = generated.held_out_rows(world.records)[: args.captions]
    pools = {
        "training captions": (training, training),
        "held-out captions": (held_out, pool(world, held_out, training, args.captions)),
    }
    for name, (rows, captions) in pools.items():
        if name in results.units:
            continue
        drawn = generated.draw_rows(world, rows, sampling, args.cache)
        found = [
            own_ranks(world, images, rows, captions)
            for images in (drawn, world.records.images[rows])
        ]
        ids = [world.records.ids[row] for row in rows]
        results.add(
            name, ids=ids, generated=found[0].tolist(), real=found[1].tolist(), among=len(captions)
        )


def pool(world: World, rows: list[int], others: list[int], size: int) -> list[int]:
    """`rows` and as many of `others` with other captions as make `size`."""
    return generated.distinct(world.records, [*rows, *others])[:size]


def own_ranks(world: World, images: np.ndarray, rows: list[int], captions: list[int]) -> np.ndarray:
    """Rank (1 is best) of each image's own caption among the captions of the records `captions`,
    int [n].

    images: uint8 [n, px, px, 3]. Captions that tie with the own one count as better: a blind guess
    does not pass.
    """
    pictures = [Image.fromarray(image) for image in images]
    image_features = np.concatenate([world.clip.images(part).numpy() for part in _parts(pictures)])
    texts = [world.records.captions[row] for row in captions]
    text_features = np.concatenate([world.clip.texts(part).numpy() for part in _parts(texts)])
    cosines = image_features @ text_features.T
    place = {row: n for n, row in enumerate(captions)}
    own = cosines[np.arange(len(rows)), [place[row] for row in rows]]
    return (cosines >= own[:, None]).sum(1)


def _parts(items: list, size: int = 64) -> list[list]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """recall@10 of both kinds of images, and their ratio."""
    figures, table = [], [("captions", "images", "among", "recall@1", "recall@10", "median rank")]
    for unit in units:
        recalls = {}
        for kind in ("generated", "real"):
            ranks = np.array(unit[kind])
            recalls[kind] = float((ranks <= TOP).mean())
            first, median = (ranks <= 1).mean(), np.median(ranks)
            low, high = wilson(int((ranks <= TOP).sum()), len(ranks))
            cell = f"{recalls[kind]:.3f} ({low:.2f} to {high:.2f})"
            table.append(
                (
                    unit["unit"],
                    f"{kind}, {len(ranks)}",
                    str(unit["among"]),
                    f"{first:.3f}",
                    cell,
                    f"{median:g}",
                )
            )
        ratio = recalls["generated"] / max(recalls["real"], 1e-9)
        judged = unit["unit"] == "training captions"
        value = f"{ratio:.2f} ({recalls['generated']:.3f} generated, {recalls['real']:.3f} real)"
        figures.append(
            Figure(
                f"own caption, recall@{TOP} of generated over real images, {unit['unit']}",
                value,
                f">= {TARGET}" if judged else "",
                ratio >= TARGET if judged else None,
            )
        )
    return Summary(tuple(figures), tuple(table))
