"""Do tuned heads (AbC) find the exemplars of customised models better than plain features?

python -m evaluation abc --run runs/abc

For each sample of a customised model (`python -m precompute abc` made them) its exemplars are
looked for among all training records, by plain features and through the installed head, which was
trained without the models of held-out artists. Intervals resample models.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from attribution.heads import Head
from attribution.index import Index
from attribution.pipelines import choose_device
from attribution.types import UserError
from evaluation.results import Figure, Summary
from evaluation.statistics import bootstrap
from evaluation.world import world_of
from precompute.recipes.abc.config import FEATURES
from precompute.recipes.abc.features import Features, encoder, features, resemblance
from precompute.recipes.abc.pairs import Pair, finished
from precompute.recipes.abc.plan import KINDS, MIXED, PLAIN, VALIDATION
from precompute.recipes.abc.retrieval import FIELDS, scores

SEED = 29


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb `abc`."""
    parser.add_argument("--run", type=Path, default=Path("runs/abc"), metavar="DIR")


def run(args: argparse.Namespace) -> None:
    """A line for each head, with what plain and tuned features score on each model."""
    world, device = world_of(args), str(choose_device(args.device))
    index = Index.open(world.root)
    heads = installed(index)
    settings = {"heads": {name: index.extras.encoders[name]["sha256"] for name in heads}}
    results = world.results(args, "abc", settings)
    for name, head in heads.items():
        if name in results.units:
            continue
        pairs = pairs_of(index, head, args.run)
        found = features(index, head.about["features"], pairs, device)
        cosines = resemblance(found, encoder(index, found.name, device))
        results.add(
            name,
            penalty=head.about["penalty"],
            measured=measured(pairs),
            cosines={key: round(value, 4) for key, value in cosines.items()},
            models=judged(found, head),
        )


def installed(index: Index) -> dict[str, Head]:
    """The heads of an index by name; UserError without any."""
    places = {f"{name}-abc": index.encoder(f"{name}-abc") for name in FEATURES}
    heads = {name: Head.load(place) for name, place in places.items() if place is not None}
    if not heads:
        raise UserError(
            f"{index.path} has no tuned heads: `python -m precompute abc --out {index.path}`"
        )
    return heads


def pairs_of(index: Index, head: Head, root: Path) -> list[Pair]:
    """The models a head was trained and validated on; UserError where they are gone, or are of
    another index."""
    pairs = finished(root / head.about["pairs"])
    if not pairs or any(pair.index_hash != index.index_hash for pair in pairs):
        raise UserError(
            f"the customised models of this index are not in {root / head.about['pairs']}: "
            f"`python -m precompute abc --out {index.path} --run {root}` makes them"
        )
    return pairs


def measured(pairs: list[Pair]) -> dict[str, list[float]]:
    """Means over the models of each kind: loss before, after, seconds to customise, to draw."""
    table = {}
    for kind in KINDS:
        of_kind = [pair.measured for pair in pairs if pair.model.kind == kind]
        rows = [
            [*m["loss"].values(), *map(m["seconds"].get, ("customise", "draw"))] for m in of_kind
        ]
        if rows:
            table[kind] = [len(rows), *np.mean(rows, axis=0).round(4).tolist()]
    return table


def judged(found: Features, head: Head) -> list[dict[str, Any]]:
    """For each model and kind of prompt: [recall@1, recall@10, mAP] before and after."""
    identity, splits = (
        Head.identity(head.dim),
        {c.pair.model.name: c.pair.model.split for c in found.cases},
    )
    lines = []
    for prompts in (PLAIN, MIXED):
        before = scores(found, identity, found.cases, {prompts})
        after = scores(found, head, found.cases, {prompts})
        for old, new in zip(before.rows, after.rows, strict=True):
            about = {"model": old.name, "kind": old.kind, "split": splits[old.name]}
            values = {"before": old.metrics(), "after": new.metrics()}
            lines.append({**about, "prompts": prompts, **values})
    return lines


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """mAP on held-out artists, plain against tuned; the rest as a table."""
    figures, notes = [], []
    table: list[tuple[str, ...]] = [("features", "artists", "models", "prompts", "n", *FIELDS)]
    for unit in units:
        figures.append(_figure(unit))
        table += _table(unit)
        notes.append(_note(unit))
    return Summary(tuple(figures), tuple(table), tuple(notes))


def _figure(unit: dict[str, Any]) -> Figure:
    sides = _sides(unit["models"], VALIDATION)
    gains = (sides[1] - sides[0])[:, list(FIELDS).index("mAP")]
    low, high = bootstrap(lambda some: float(some.mean()), gains, seed=SEED)
    before, after = (side[:, -1].mean() for side in sides)
    return Figure(
        f"{unit['unit']}: mAP of the exemplars of held-out artists' models, plain → tuned",
        f"{before:.3f} → {after:.3f} ({len(gains)} models; gain {gains.mean():+.3f}, "
        f"95 % interval {low:+.3f} to {high:+.3f})",
    )


def _sides(lines: list[dict[str, Any]], *wanted: str) -> tuple[np.ndarray, np.ndarray]:
    """Metrics [models, 3] before and after of the lines with all of `wanted` in them; a model's
    prompts of both kinds count alike."""
    chosen = [line for line in lines if set(wanted) <= set(map(str, line.values()))]
    names = list(dict.fromkeys(line["model"] for line in chosen))
    sides = []
    for side in ("before", "after"):
        of = {name: [line[side] for line in chosen if line["model"] == name] for name in names}
        sides.append(np.array([np.mean(values, axis=0) for values in of.values()]))
    return sides[0], sides[1]


def _table(unit: dict[str, Any]) -> list[tuple[str, ...]]:
    rows = []
    for split in sorted({line["split"] for line in unit["models"]}, reverse=True):
        for kind in KINDS:
            for prompts in (PLAIN, MIXED):
                before, after = _sides(unit["models"], split, kind, prompts)
                if len(before):
                    cells = [
                        f"{b:.3f} → {a:.3f}"
                        for b, a in zip(before.mean(0), after.mean(0), strict=True)
                    ]
                    rows.append((unit["unit"], split, kind, prompts, str(len(before)), *cells))
    return rows


def _note(unit: dict[str, Any]) -> str:
    kinds = "; ".join(
        f"{int(n)} {kind} models, loss {before:.3f} → {after:.3f}, {tuning:.1f} s to customise and "
        f"{drawing:.1f} s to draw each"
        for kind, (n, before, after, tuning, drawing) in unit["measured"].items()
    )
    cosines = unit["cosines"]
    return (
        f"{unit['unit']}: {kinds}. Cosine of samples and exemplars {cosines['tuned']:.3f}, of the "
        f"untuned model's on the same prompts and seeds {cosines['untuned']:.3f}. Penalty "
        f"{unit['penalty']}, chosen by cross-validation over the training artists."
    )
