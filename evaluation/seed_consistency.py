"""Do two trainings that differ only in their seed draw alike, from the same noise and prompt?

Leave-K-out rests on it (paper, Sec. 3): a picture that changes when records are left out means
something only if it would not have changed anyway. The models differ in initial weights, batches
and training noise, and see the same records. Distances between them are set against those of one
model's own pictures with other noise, and with another prompt. The models are kept: they are the
ensemble of TRAK and JourneyTRAK.

python -m evaluation seed-consistency --seeds 10 --workers 4
python -m evaluation seed-consistency --seeds 2 --train-steps 12000 --results runs/longer
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from attribution.arguments import count
from evaluation.counterfactual import tasks
from evaluation.counterfactual.ledger import numbers, read_pictures
from evaluation.counterfactual.options import add_arguments as add_common
from evaluation.counterfactual.session import Session
from evaluation.counterfactual.strips import enlarged
from evaluation.counterfactual.tasks import WorkList
from evaluation.results import Figure, Summary
from evaluation.statistics import bootstrap, mean_error
from evaluation.world import CLIP, World, world_of

VERB = "seed-consistency"
SEEDS = 10
# At most this part of the distance to a picture of other noise, or of another prompt.
TARGET = 0.5
KINDS = {"seed": "another seed", "noise": "other noise", "prompt": "another prompt"}
SHOWN, SIDE = 10, 64  # pictures of the sheet, px


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `seed-consistency`."""
    add_common(parser)
    add = parser.add_argument
    add("--seeds", type=count(2), default=SEEDS, metavar="N", help="models")
    longer = "optimiser steps of each training; default: as many as the index's model had"
    add("--train-steps", type=count(), metavar="N", help=longer)


def run(args: argparse.Namespace) -> None:
    """Train what is missing, then a line for each picture of the gallery."""
    session = Session.begin(args, world_of(args), args.train_steps)
    session.base()
    work = WorkList(session.recipe)
    tasks.seeds(work, args.seeds)
    session.train(work, again=True)
    results = session.results(args, VERB, seeds=args.seeds)
    pictures = _pictures(session, work)
    sheet(pictures, args.results / f"{VERB}.png")
    found = distances(session.world, pictures)
    for entry, line in zip(session.setting.gallery, found, strict=True):
        if entry.id not in results.units:
            results.add(entry.id, prompt=entry.prompt, category=entry.category, **line)
    places = [str(session.ledger.model(session.recipe.seed + n)) for n in range(1, args.seeds)]
    print(f"TRAK's ensemble: python -m precompute trak --out COPY --models {' '.join(places)}")


def _pictures(session: Session, work: WorkList) -> np.ndarray:
    """uint8 [models, 3, gallery, px, px, 3]: as it is, with other noise, with another prompt."""
    n = len(session.setting.gallery)
    drawn = [read_pictures(session.ledger.pictures(key), 3 * n) for key in work.jobs]
    return np.stack([some.reshape(3, n, *some.shape[1:]) for some in drawn])


def distances(world: World, pictures: np.ndarray) -> list[dict[str, Any]]:
    """For each picture of the gallery its mean squared errors on [0, 1] and CLIP similarities: to
    other models' own, to the same model's with other noise, and with another prompt.

    pictures: uint8 [models, 3, gallery, px, px, 3].
    """
    pixels = pictures.reshape(*pictures.shape[:3], -1).astype(np.float64) / 255.0
    lines = [{"mse": _means(pixels[:, :, g], _squared)} for g in range(pictures.shape[2])]
    if (world.root / CLIP).is_dir():
        features = _features(world, pictures)
        for g, line in enumerate(lines):
            line["clip"] = _means(features[:, :, g], np.dot)
    return lines


def _squared(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.square(a - b).mean())


def _means(of: np.ndarray, measure: Callable[[np.ndarray, np.ndarray], float]) -> dict[str, float]:
    """Kind → the mean over its pairs; of: [models, 3, d], one picture."""
    models = range(len(of))
    pairs = {
        "seed": [(of[a, 0], of[b, 0]) for a, b in combinations(models, 2)],
        "noise": [(of[a, 0], of[a, 1]) for a in models],
        "prompt": [(of[a, 0], of[a, 2]) for a in models],
    }
    means = [float(np.mean([measure(a, b) for a, b in some])) for some in pairs.values()]
    return dict(zip(pairs, numbers(means), strict=True))


def _features(world: World, pictures: np.ndarray) -> np.ndarray:
    """Unit CLIP features, [models, 3, gallery, d]."""
    images = [Image.fromarray(p) for p in pictures.reshape(-1, *pictures.shape[3:])]
    parts = [world.clip.images(images[i : i + 64]).numpy() for i in range(0, len(images), 64)]
    return np.concatenate(parts).reshape(*pictures.shape[:3], -1)


def sheet(pictures: np.ndarray, path: Path) -> None:
    """A row a picture, a column a model: what the numbers say, to look at."""
    rows = [
        np.concatenate(
            [np.asarray(enlarged(pictures[m, 0, g], SIDE)) for m in range(len(pictures))], axis=1
        )
        for g in range(min(SHOWN, pictures.shape[2]))
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(path, optimize=True)


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """The distances, and how they compare."""
    metrics = [metric for metric in ("mse", "clip") if metric in units[0]]
    table: list[tuple[str, ...]] = [
        ("the same picture with", *{"mse": "MSE", "clip": "CLIP similarity"}.values())
    ]
    values = {
        metric: {kind: np.array([unit[metric][kind] for unit in units]) for kind in KINDS}
        for metric in metrics
    }
    for kind, words in KINDS.items():
        cells = [mean_error(values[metric][kind]) for metric in metrics]
        shown = [f"{mean:.4f} ± {error:.4f}" for mean, error in cells]
        table.append((words, *shown, *[""] * (2 - len(shown))))
    seeds = head["settings"]["seeds"]
    figures = [_ratio(values["mse"], kind, seeds) for kind in ("noise", "prompt")]
    nearer = np.mean([_twin_first(unit["mse"]) for unit in units])
    figures.append(
        Figure(
            "seed consistency: another seed's picture is nearer than other noise's and prompt's",
            f"{nearer:.0%} of {len(units)} pictures, by MSE",
        )
    )
    recipe = head["settings"]["recipe"]
    note = (
        f"{seeds} models, {recipe['steps']} steps of {recipe['batch_size']}; {len(units)} held-out "
        "captions; means over pictures ± one standard error. "
        f"A row a picture, a column a model: [{VERB}.png]({VERB}.png)."
    )
    return Summary(tuple(figures), tuple(table), (note,))


def _twin_first(mse: dict[str, float]) -> bool:
    return mse["seed"] < min(mse["noise"], mse["prompt"])


def _ratio(values: dict[str, np.ndarray], kind: str, seeds: int) -> Figure:
    """Mean distance between seeds over that to `kind`, with its bootstrap interval."""
    rows = np.stack([values["seed"], values[kind]], axis=1)
    ratio = float(rows[:, 0].mean() / rows[:, 1].mean())
    low, high = bootstrap(lambda x: float(x[:, 0].mean() / x[:, 1].mean()), rows)
    return Figure(
        f"seed consistency: MSE between {seeds} seeds over MSE to {KINDS[kind]}",
        f"{ratio:.2f} ({low:.2f} to {high:.2f})",
        f"<= {TARGET}",
        ratio <= TARGET,
    )
