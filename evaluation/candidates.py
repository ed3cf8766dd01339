"""Every source of candidates a shortlist can have, and what each offers of an exhaustive answer."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from attribution.methods.candidates import FIRST_ORDER, order
from attribution.shortlist import join
from attribution.types import Query, UserError
from evaluation.answers import Answers
from evaluation.queries import Asked

# Alone, and taken in turn.
ALONE = (FIRST_ORDER, "pixel", "dino", "clip", "clip-text", "trak", "dtrak")
JOINED = (
    (FIRST_ORDER, "clip"),
    ("clip-text", "clip"),
    ("dtrak", "clip"),
    ("dtrak", "clip-text"),
    ("dtrak", "clip-text", "clip"),
)
BLOCKS = 8


def label(sources: Sequence[str]) -> str:
    """Several sources in words."""
    return " + ".join(sources)


SOURCES = (*ALONE, *map(label, JOINED))
# What races are replayed on.
RACED = (FIRST_ORDER, "clip-text", "dtrak", *map(label, JOINED))


def sources_of(name: str) -> tuple[str, ...]:
    """What `label` made it of."""
    return tuple(name.split(" + "))


def orders(answers: Answers, query: Asked, delta: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """source → training rows as it orders them, by the library's own code; those it can serve."""
    asked = Query(query.prompt, query.image)
    found = {}
    for name in ALONE:
        with contextlib.suppress(UserError):  # rows that this index does not have
            found[name] = _order(answers, name, asked, delta)
    for names in JOINED:
        if found.keys() >= set(names):
            everyone = len(answers.index.train_rows)
            found[label(names)] = join([found[name] for name in names], everyone)
    return found


def _order(answers: Answers, name: str, query: Query, delta: Mapping[str, Tensor]) -> np.ndarray:
    job = order(answers.context, name, query, delta)
    while True:
        try:
            next(job)
        except StopIteration as stop:
            return stop.value


def recalls(
    truth: np.ndarray, offered: Mapping[str, np.ndarray], sizes: Sequence[int]
) -> dict[str, dict[str, float]]:
    """source → size → share of the rows `truth` among the source's first `size` rows."""
    return {
        source: {str(size): round(share(truth, rows[:size]), 4) for size in sizes}
        for source, rows in offered.items()
    }


def share(truth: np.ndarray, rows: np.ndarray) -> float:
    """Share of `truth` that is in `rows`."""
    return float(np.isin(truth, rows).mean())


def block_products(rows: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Inner products of gradient rows [n, flips, d] with a query [d], over BLOCKS equal blocks of
    their coordinates: float32 [n, flips, BLOCKS], or one block where d cannot be divided.
    """
    count = BLOCKS if len(query) % BLOCKS == 0 else 1
    parts = query.astype(np.float32).reshape(count, -1)
    made = []
    for some in np.array_split(rows, max(1, len(rows) // 1024)):
        blocks = some.astype(np.float32).reshape(*some.shape[:2], count, -1)
        made.append(np.einsum("nfbd,bd->nfb", blocks, parts))
    return np.concatenate(made)


def recalls_by_dimension(
    products: np.ndarray, dim: int, rows: np.ndarray, truth: np.ndarray, sizes: Sequence[int]
) -> dict[str, dict[str, float]]:
    """dimension → size → recall of gradient rows of fewer dimensions, from `block_products`.

    The projection's coordinates are a random choice without order, so that any d' of them are a
    projection to d' dimensions (times √(d/d'), which moves no rank). Means over the disjoint groups
    that the stored coordinates hold: of fewer dimensions there are more of them.
    """
    count = products.shape[-1]
    found: dict[str, dict[str, float]] = {}
    width = 1
    while width <= count:
        groups = products.reshape(*products.shape[:2], count // width, width).sum(axis=-1)
        best = groups.max(axis=1)
        ranked = [rows[np.argsort(-best[:, g], kind="stable")] for g in range(best.shape[1])]
        found[str(dim * width // count)] = {
            str(size): round(float(np.mean([share(truth, order[:size]) for order in ranked])), 4)
            for size in sizes
        }
        width *= 2
    return found
