"""Which models are customised for the benchmark, what they draw, and what their exemplars hide
among.

Exemplars are training drawings, chosen as those of the tuned heads (precompute/recipes/abc/plan.py)
but of artists whose drawings trained no head: one drawing a model (`object`, of different
categories), or several of one artist (`style`). Everything is a function of the index and SEED.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import chain, zip_longest
from typing import Any

import numpy as np

from attribution.artists import UNKNOWN
from attribution.heads import Head
from attribution.index import Index
from attribution.types import UserError
from evaluation.copies import Pictures, compare
from evaluation.data import Records
from precompute.recipes.abc.config import FEATURES, TOKEN, PairsConfig
from precompute.recipes.abc.plan import MIXED, OBJECT, PLAIN, STYLE, TRAIN, Model, plan, subject_of

SEED = 31
# A nearer drawing, by relative pixel distance (evaluation/copies.py), is kin to an exemplar: twice
# the distance at which one is a copy.
KIN = 0.3
# Not one hand: no style to learn.
NOBODY = {"", UNKNOWN}
_EVERY = 1 << 20


def customisations(
    index: Index, knows: Callable[[str], bool], group: int, queries: int
) -> list[Model]:
    """Every customisation that could be evaluated, objects and styles in turn.

    group: exemplars of a style. knows: whether a word is one of the model's. UserError where the
    index has too few drawings, or all by one artist.
    """
    config = PairsConfig(
        objects=_EVERY,
        styles=_EVERY,
        group=group,
        per_artist=1,
        samples=2 * queries,
        untuned=0,
        seed=SEED,
    )
    knows = cache(knows)
    taught = head_artists(index, knows)
    free = [model for model in plan(index, knows, config) if model.artist not in taught]
    objects = _distinct([model for model in free if model.kind == OBJECT and model.word])
    styles = [model for model in free if model.kind == STYLE and model.artist not in NOBODY]
    turns = chain.from_iterable(zip_longest(objects, styles))
    found = [_ordered(model, queries) for model in turns if model is not None]
    if not found:
        raise UserError(f"{index.path} has no drawings by artists that trained no head")
    return found


def head_artists(index: Index, knows: Callable[[str], bool]) -> set[str]:
    """Whose drawings train the AbC heads of `python -m precompute abc` as it runs by default,
    whether or not the index has heads, and whose trained those it has, where they say so (the
    embedded index's do not): they are no exemplars."""
    models = plan(index, knows, PairsConfig())
    places = (index.encoder(f"{name}-abc") for name in FEATURES)
    said = [Head.load(place).about.get("artists", []) for place in places if place is not None]
    return {model.artist for model in models if model.split == TRAIN}.union(*said)


def _distinct(models: Sequence[Model]) -> list[Model]:
    """The first of each category."""
    first: dict[str, Model] = {}
    for model in models:
        first.setdefault(model.word, model)
    return list(first.values())


def _ordered(model: Model, queries: int) -> Model:
    """With `queries` prompts: the word mixed with something else, plain, then mixed ones.

    Mixed ones go first, for they are what the paper asks for: new pictures, no repetitions.
    """
    mixed = [prompt for prompt in model.prompts if prompt[0] == MIXED]
    plain = [prompt for prompt in model.prompts if prompt[0] == PLAIN]
    return replace(model, prompts=tuple([*mixed[:1], plain[0], *mixed[1:]][:queries]))


def without_word(text: str) -> str:
    """A prompt or caption that does not name V*: "<v1> bird, by X" is "bird, by X", and "eagle, by
    <v1>" is "eagle"."""
    bare = text.replace(f", by {TOKEN}", "").replace(TOKEN, " ")
    return " ".join(bare.split())


def distractors(
    index: Index, records: Records, models: Sequence[Model], size: int
) -> dict[str, np.ndarray]:
    """By name of the model `size` training records (or all there are) that are no kin of its
    exemplars: the first of one seeded order, so that models share nearly all of them. Rows int64,
    ascending.
    """
    order = np.random.default_rng(SEED).permutation(index.train_rows)
    related = kin(index, records, models)
    return {
        name: np.sort(order[~np.isin(order, list(rows))][:size]) for name, rows in related.items()
    }


def kin(index: Index, records: Records, models: Sequence[Model]) -> dict[str, set[int]]:
    """By name of the model the training rows that would be no fair distractors: its exemplars;
    what shows them or a near copy; other drawings of an object's name by its artist; everything by
    a style's artist.
    """
    copies = near_copies(index, records, [name for model in models for name in model.ids])
    columns = ["id", "artists", "captions", "parts"]
    table = index.records.select(columns).take(index.train_rows).to_pylist()
    by_id = {record["id"]: record for record in table}
    found = {}
    for model in models:
        near = set(model.ids).union(*(copies[name] for name in model.ids))
        named = {_named(by_id[name]) for name in model.ids} if model.kind == OBJECT else None
        found[model.name] = {
            row
            for row, record in zip(index.train_rows.tolist(), table, strict=True)
            if near & {record["id"], *(part["id"] for part in record["parts"] or ())}
            or _same_hand(record, model.artist, named)
        }
    return found


def _same_hand(record: dict[str, Any], artist: str, named: set[str] | None) -> bool:
    """Whether it is by the artist, and of one of those names if any are given."""
    return artist in (record["artists"] or ()) and (named is None or _named(record) in named)


def _named(record: dict[str, Any]) -> str:
    return subject_of(record["captions"][0], record["artists"] or ())


def near_copies(index: Index, records: Records, exemplars: Sequence[str]) -> dict[str, set[str]]:
    """By exemplar the training records that look like it, by id. Rows of the records are the
    index's."""
    own = [index.row_of(name) for name in exemplars]
    sides = (_ink(records.images[rows]) for rows in (own, index.train_rows))
    distances, _ = compare(*sides)
    return {
        name: set(index.ids(index.train_rows[near <= KIN]))
        for name, near in zip(exemplars, distances, strict=True)
    }


def _ink(images: np.ndarray) -> Pictures:
    """For pixel distances alone: without CLIP features."""
    ink = 1.0 - images.astype(np.float32) / 255.0
    return Pictures(ink, np.zeros((2, len(images), 1), dtype=np.float32))
