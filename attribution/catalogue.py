"""Records of an index as they are shown: by id, at random, and as suggestions for prompts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice, zip_longest
from typing import Any

import numpy as np

from attribution.index import Index
from attribution.types import Record


def record(index: Index, row: int) -> Record:
    """The record of a row with its display image; what the data does not say is empty text."""
    fields = index.record(row)
    return Record(
        id=fields["id"],
        row=int(row),
        image=index.display(row),
        captions=tuple(fields["captions"] or ()),
        artists=tuple(fields["artists"] or ()),
        title=fields["title"] or "",
        category=fields["category"] or "",
        split=fields["split"] or "",
        source=fields["source"] or "",
        licence=fields["licence"] or "",
        parts=tuple(_part(part) for part in fields["parts"] or ()),
    )


def _part(part: dict[str, Any]) -> tuple[str, tuple[float, float, float, float]]:
    x0, y0, x1, y1 = part["box"]
    return part["id"], (x0, y0, x1, y1)


def random_rows(index: Index, n: int, seed: int, exclude: Sequence[str] = ()) -> list[int]:
    """n different seeded random training rows, or all there are, without `exclude`."""
    left = np.setdiff1d(index.train_rows, [index.row_of(name) for name in exclude])
    rows = np.random.default_rng(seed).permutation(left)[: max(n, 0)]
    return [int(row) for row in rows]


def prompts(index: Index, n: int, seed: int, unlike: str = "") -> list[str]:
    """n captions, of each category in turn, that share no word with `unlike`; no collages."""
    categories = index.records["category"].to_pylist()
    parts = index.records["parts"].to_pylist()
    waiting: dict[str, list[str]] = {}
    for row in random_rows(index, len(index.train_rows), seed):
        caption = index.captions([row])[0][0]
        if not parts[row] and not _words(caption) & _words(unlike):
            waiting.setdefault(categories[row] or "", []).append(caption)
    turns = zip_longest(*waiting.values())
    captions = (caption for turn in turns for caption in turn if caption is not None)
    return list(islice(dict.fromkeys(captions), n))


def _words(text: str) -> set[str]:
    """Words that say something: four letters or more."""
    return {word for word in re.findall(r"\w+", text.lower()) if len(word) > 3}


def nearest_captions(index: Index, features: np.ndarray, k: int) -> list[str]:
    """The k different training captions whose CLIP text features are nearest to image `features`
    [1, d].

    Where the index has no text rows, the captions of the nearest training images.
    """
    name = "clip-text" if index.has_rows("clip-text") else "clip"
    rows, _, _ = index.search(name).nearest(features[0], 4 * k)
    return list(dict.fromkeys(caption for row in rows for caption in index.captions([row])[0]))[:k]
