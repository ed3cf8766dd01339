"""Forced choice: a separately trained classifier names the category of generated images; the target
is at least 70 %.

python -m evaluation classifier --train-only      # about 4 minutes on one core, kept in runs/
python -m evaluation classifier
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict
from typing import Any

import numpy as np
from tqdm import tqdm

from attribution.arguments import count
from evaluation import generated, recogniser
from evaluation.data import HELD_OUT, Records, data_hash
from evaluation.recogniser import CATEGORIES, Recogniser, Training
from evaluation.results import Figure, Summary
from evaluation.statistics import wilson
from evaluation.world import World, world_of

TARGET = 0.70
WEIGHTS = "classifier.safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `classifier`."""
    generated.add_arguments(parser)
    parser.add_argument(
        "--train-only", action="store_true", help="train, and judge real drawings only"
    )
    parser.add_argument("--train-steps", type=count(), default=Training.steps)
    parser.add_argument("--per-category", type=count(), default=generated.PER_CATEGORY, metavar="N")


def run(args: argparse.Namespace) -> None:
    """Train or load the classifier; judge the held-out drawings, then the generated images."""
    world = world_of(args)
    training = Training(steps=args.train_steps)
    model = _trained(world, training, args)
    if args.train_only:
        results = world.results(args, "classifier", {"training": asdict(training)}, of="data")
        _judge_real(world.records, model, results)
        return
    sampling = generated.sampling_of(args, world)
    settings = {
        "training": asdict(training),
        "steps": sampling.steps,
        "guidance": sampling.guidance,
        "per_category": args.per_category,
    }
    results = world.results(args, "classifier", settings, of="model")
    _judge_real(world.records, model, results)
    held_out = [row for row in generated.held_out_rows(world.records) if _among(world.records, row)]
    sets = {
        "generated": generated.category_rows(world.records, CATEGORIES, args.per_category),
        "generated held-out": held_out,
    }
    for name, rows in sets.items():
        images = generated.draw_rows(world, rows, sampling, args.cache)
        _record(world.records, rows, recogniser.predict(model, images), results, name)


def _among(records: Records, row: int) -> bool:
    return records.categories[row] in CATEGORIES


def _trained(world: World, training: Training, args: argparse.Namespace) -> Recogniser:
    """The classifier of this data and these settings: from the cache, or trained now on the
    training drawings.
    """
    records, path = world.records, args.cache / WEIGHTS
    data = data_hash(records)
    if (model := recogniser.load(path, data, training)) is not None:
        return model
    rows = records.rows("train", CATEGORIES)
    labels = np.array([CATEGORIES.index(records.categories[row]) for row in rows])
    with tqdm(total=training.steps, desc="training", disable=None) as bar:
        model = recogniser.train(records.images[rows], labels, training, lambda *_: bar.update())
    recogniser.save(model, path, data, training)
    return model


def _judge_real(records: Records, model: Recogniser, results) -> None:
    for name in ("train", HELD_OUT):
        rows = records.rows(name, CATEGORIES)
        _record(
            records, rows, recogniser.predict(model, records.images[rows]), results, f"real {name}"
        )


def _record(records: Records, rows, predictions: np.ndarray, results, name: str) -> None:
    """One line a set: how many of each category are named what."""
    if name in results.units:
        return
    pairs = Counter(
        (records.categories[row], CATEGORIES[p]) for row, p in zip(rows, predictions, strict=True)
    )
    table = {c: {p: n for (a, p), n in sorted(pairs.items()) if a == c} for c in CATEGORIES}
    results.add(name, named=table)


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """Share named right, by set and category."""
    named = {unit["unit"]: unit["named"] for unit in units}
    figures = []
    for name, table in named.items():
        right, total = _right(table)
        low, high = wilson(right, total)
        judged = name == "generated"
        value = f"{right / total:.1%} of {total} (95 % interval {low:.1%} to {high:.1%})"
        figures.append(
            Figure(
                f"classifier names the category, {name}",
                value,
                f">= {TARGET:.0%}" if judged else "",
                right / total >= TARGET if judged else None,
            )
        )
    rows = [("category", *named)]
    for category in CATEGORIES:
        cells = [_cell(table.get(category, {}), category) for table in named.values()]
        rows.append((category, *cells))
    training = head["settings"]["training"]
    note = (
        "A separate convolutional classifier, trained on nothing but the real training drawings "
        f"of the eight categories (seed {training['seed']}, {training['steps']} steps); chance is "
        "12.5 %. Generated images: of training captions, and apart from them of the captions of "
        "held-out drawings."
    )
    return Summary(tuple(figures), tuple(rows), (note,))


def _right(table: dict[str, dict[str, int]]) -> tuple[int, int]:
    right = sum(named.get(category, 0) for category, named in table.items())
    return right, sum(sum(named.values()) for named in table.values())


def _cell(named: dict[str, int], category: str) -> str:
    wrong = {other: n for other, n in named.items() if other != category}
    cell = f"{named.get(category, 0)} of {sum(named.values())}"
    if wrong:
        cell += f" ({', '.join(f'{n} {other}' for other, n in wrong.items())})"
    return cell
