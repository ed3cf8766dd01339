"""What a query shows and in whose hand, and which records show the same.

A prompt that is a record's caption has that record's category and artists (of several such records,
those of all). Of another prompt they are read as captions are written: the category is the one that
is said in it, the artists follow the last ", by ". A collage shows the categories of its parts.
"""

from __future__ import annotations

import re

import numpy as np

from evaluation.data import Records
from evaluation.objects.two_objects import category_of, contains

LABELS = ("category", "artist")
_BY, _AND = ", by ", " and "


def labels_of(records: Records, prompt: str) -> dict[str, frozenset[str]]:
    """label → its values for a prompt, an empty set where nothing tells them."""
    rows = [row for row, caption in enumerate(records.captions) if caption == prompt]
    if not rows:
        return {"category": _said(records, prompt), "artist": _signed(records, prompt)}
    of = category_of(records)
    shown = {of.get(name, "") for row in rows for name in records.parts[row] or [records.ids[row]]}
    artists = {name for row in rows for name in records.artists[row]}
    return {"category": frozenset(shown - {""}), "artist": frozenset(artists)}


def _said(records: Records, prompt: str) -> frozenset[str]:
    """The only category of the data whose name, or its plural, is among the prompt's words."""
    words = prompt.rpartition(_BY)[0] or prompt
    names = {name for name in records.categories if name}
    said = {name for name in names if re.search(rf"\b{re.escape(name)}s?\b", words, re.IGNORECASE)}
    return frozenset(said) if len(said) == 1 else frozenset()


def _signed(records: Records, prompt: str) -> frozenset[str]:
    """Whom the prompt names after its last ", by ", where the data has drawings by all of them."""
    known = {name for names in records.artists for name in names}
    _, by, signature = prompt.rpartition(_BY)
    for names in ([signature], signature.split(_AND)):
        if by and known.issuperset(names):
            return frozenset(names)
    return frozenset()


def holders(records: Records, label: str, values: frozenset[str]) -> np.ndarray:
    """Which records have one of the values of a label, bool [n]."""
    if label == "artist":
        return np.array([not values.isdisjoint(names) for names in records.artists], dtype=bool)
    shown = [contains(records, value) for value in sorted(values)]
    return np.any([np.zeros(len(records), dtype=bool), *shown], axis=0)


def alike(records: Records, prompt: str, candidates: np.ndarray) -> dict[str, np.ndarray]:
    """label → which records are like the query, bool [n]: labels that the prompt tells and that
    some of the rows `candidates` have.
    """
    values = labels_of(records, prompt)
    found = {label: holders(records, label, values[label]) for label in LABELS}
    return {label: mask for label, mask in found.items() if mask[candidates].any()}
