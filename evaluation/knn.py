"""Did the encoders learn something? The nearest training drawings name category and artist of
held-out drawings: CLIP, DINO and DINOv2 against pixels and the mean of ten untrained nets of the
same class, for one such net is lucky or unlucky by several drawings.

python -m evaluation knn
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attribution import layout
from attribution.features import pixel_features, upright_and_mirrored
from attribution.integrity import model_table, table_hash
from evaluation.data import HELD_OUT, Records
from evaluation.results import Figure, Summary
from evaluation.statistics import bootstrap, wilson
from evaluation.world import World, world_of
from precompute.recipes.features.distil import centre_tokens

NEIGHBOURS = (1, 5, 10)
JUDGED = 5
UNTRAINED = 10  # nets, of seeds 0, 1, ...
LABELS = ("category", "artist")
TRAINED = ("clip", "dino", "dinov2")
_BATCH = 64
Encode = Callable[[Sequence[Image.Image]], Tensor]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb `knn` has no arguments of its own."""


def run(args: argparse.Namespace) -> None:
    """One unit a feature: whether the k nearest name each held-out drawing's labels."""
    world = world_of(args)
    folders = {name: folder for name in TRAINED if (folder := _folder(world, name)).is_dir()}
    hashes = {name: table_hash(model_table(folder)) for name, folder in folders.items()}
    settings = {"neighbours": list(NEIGHBOURS), "untrained": UNTRAINED, "encoders": hashes}
    results = world.results(args, "knn", settings, of="data")
    encoders: dict[str, Callable[[], Iterator[Encode]]] = {"pixel": lambda: iter([pixel_features])}
    for name in folders:
        encoders[name] = lambda name=name: iter([_trained(world, name).images])
        encoders[_untrained_name(name)] = lambda name=name: _fresh(world, name)
    for name, opened in encoders.items():
        if name not in results.units:
            results.add(name, **averaged([judged(world.records, encode) for encode in opened()]))


def _untrained_name(name: str) -> str:
    return f"{name}, untrained"


def _folder(world: World, name: str) -> Path:
    return world.root / (name if name == "clip" else f"{layout.ENCODERS}/{name}")


def _trained(world: World, name: str) -> Any:
    if name == "clip":
        return world.clip
    from attribution.denoiser import choose_device
    from attribution.encoders import ClassTokenEncoder

    return ClassTokenEncoder.load(_folder(world, name), choose_device(world.device))


def _fresh(world: World, name: str) -> Iterator[Encode]:
    """Untrained encoders; those of DINO's kind have their class tokens centred as the recipe's."""
    records = world.records
    for seed in range(UNTRAINED):
        encoder = untrained(_trained(world, name), seed)
        if name != "clip":
            rows = np.array_split(records.rows("train"), range(_BATCH, len(records), _BATCH))
            pictures = (encoder.preprocessing(records.pictures(part)) for part in rows if len(part))
            centre_tokens(encoder.model, (batch.to(encoder.device) for batch in pictures))
        yield encoder.images


def untrained(encoder: Any, seed: int) -> Any:
    """The same encoder with weights of a fresh start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = type(encoder.model)(encoder.model.config)
    return replace(encoder, model=model.float().eval().requires_grad_(False).to(encoder.device))


def judged(records: Records, encode: Encode) -> dict[str, Any]:
    """For each label and k: 1 where the k nearest training drawings name the held-out one right.

    Drawings only, no collages; of those to be named the ones whose label another training drawing
    has. `within`: the same shares for each training drawing among the others: twenty times as many,
    and their labels trained nothing but the CLIP.
    """
    train, held_out = (_drawings(records, split) for split in ("train", HELD_OUT))
    both = features(records, encode, train)
    own = features(records, encode, held_out)
    found: dict[str, Any] = {"drawings": len(held_out), "among": len(train)}
    found |= named(records, held_out, train, products(own[:, 0], both))
    among = products(both[:, 0], both)
    np.fill_diagonal(among, -np.inf)
    within = named(records, train, train, among)
    found["within"] = {
        label: {k: _share(right) for k, right in answers.items()}
        for label, answers in within.items()
    }
    return found


def averaged(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What several nets of a kind found, as one: each drawing's share of nets that name it right,
    [0, 1]."""
    if len(found) == 1:
        return found[0]
    return found[0] | {
        "nets": len(found),
        **{label: _mean([one[label] for one in found]) for label in LABELS},
        "within": {label: _mean([one["within"][label] for one in found]) for label in LABELS},
    }


def _mean(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {k: np.round(np.mean([one[k] for one in found], axis=0), 4).tolist() for k in found[0]}


def features(records: Records, encode: Encode, rows: np.ndarray) -> Tensor:
    """Of each row's image and mirror image, float32 [n, 2, d]."""
    parts = [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
    return torch.cat([upright_and_mirrored(encode, records.pictures(part)) for part in parts])


def products(queries: Tensor, candidates: Tensor) -> np.ndarray:
    """Cosines of unit vectors [Q, d] and [C, 2, d], the better of image and flip, [Q, C]."""
    return torch.einsum("qd,cfd->qcf", queries, candidates).amax(2).numpy()


def named(
    records: Records, queries: np.ndarray, candidates: np.ndarray, likeness: np.ndarray
) -> dict[str, dict[str, list[int]]]:
    """label → k → 1 for each query whose k nearest candidates name it right; likeness [Q, C]."""
    order = np.argsort(-likeness, axis=1, kind="stable")[:, : max(NEIGHBOURS)]
    found = {}
    for label in LABELS:
        names = _labels(records, label)
        holders = Counter(name for row in candidates for name in names[row])
        own = Counter(set(candidates.tolist()) & set(queries.tolist()))
        asked = [
            n for n, q in enumerate(queries) if any(holders[name] > own[q] for name in names[q])
        ]
        near = {n: [names[row] for row in candidates[order[n]]] for n in asked}
        found[label] = {
            str(k): [int(vote(near[n][:k]) in names[queries[n]]) for n in asked] for k in NEIGHBOURS
        }
    return found


def vote(near: Sequence[Sequence[str]]) -> str:
    """The label most of the neighbours have, the nearest first; of equals the nearer one's."""
    counts = Counter(name for names in near for name in names)
    return max(counts, key=lambda name: counts[name]) if counts else ""


def _drawings(records: Records, split: str) -> np.ndarray:
    return np.array([row for row in records.rows(split) if not records.parts[row]], dtype=np.int64)


def _share(right: Sequence[int]) -> float:
    return sum(right) / max(1, len(right))


def _labels(records: Records, label: str) -> Sequence[Sequence[str]]:
    return records.artists if label == "artist" else [(c,) for c in records.categories]


def summarise(head: dict[str, Any], units: list[dict[str, Any]]) -> Summary:
    """Accuracy of every feature; the trained ones are compared with pixels, and pass above their
    own class untrained.
    """
    found = {unit["unit"]: unit for unit in units}
    figures = [_figure(found, name, label) for name in TRAINED for label in LABELS if name in found]
    columns = [(label, str(k)) for label in LABELS for k in NEIGHBOURS]
    table = [("feature", *(f"{label}, k = {k}" for label, k in columns))]
    for name, unit in found.items():
        cells = ((_share(unit[label][k]), unit["within"][label][k]) for label, k in columns)
        table.append((name, *(f"{outside:.3f} ({inside:.3f})" for outside, inside in cells)))
    first = units[0]
    asked = {label: len(first[label]["1"]) for label in LABELS}
    note = (
        f"{first['drawings']} held-out drawings named by the majority of the k nearest of "
        f"{first['among']} training drawings (cosine, the better of image and flip); the category "
        f"of {asked['category']}, the artist of {asked['artist']} occurs among those. Differences "
        f"with 95 % intervals over drawings. Untrained: the mean of {UNTRAINED} nets. In brackets: "
        f"each training drawing among the others."
    )
    missing = [name for name in TRAINED if name not in found]
    notes = (note, *(f"Not there: {name}." for name in missing))
    return Summary(tuple(figures), tuple(table), notes)


def _figure(found: dict[str, dict[str, Any]], name: str, label: str) -> Figure:
    own = np.array(found[name][label][str(JUDGED)])
    low, high = wilson(int(own.sum()), len(own))
    others = {other: found.get(other) for other in ("pixel", _untrained_name(name))}
    compared, passed = [], None
    for other, unit in others.items():
        if unit is not None:
            theirs = np.array(unit[label][str(JUDGED)])
            compared.append(f"{other} {theirs.mean():.1%} ({_difference(own - theirs)})")
            passed = bool(own.mean() > theirs.mean())  # of the last: the untrained nets
    value = f"{own.mean():.1%} ({low:.0%} to {high:.0%}); {', '.join(compared)}"
    within = [
        unit["within"][label][str(JUDGED)] for unit in (found[name], *others.values()) if unit
    ]
    among = ", ".join(f"{share:.1%}" for share in within)
    value += f"; the same of training drawings among themselves: {among}"
    title = f"{label} of held-out drawings, {name}, k = {JUDGED}"
    return Figure(title, value, "> untrained", passed)


def _difference(pairs: np.ndarray) -> str:
    low, high = bootstrap(lambda rows: float(rows.mean()), pairs)
    return f"{100 * pairs.mean():+.1f}, {100 * low:+.1f} to {100 * high:+.1f} points"
