"""The pictures that every model of leave-K-out is asked for."""

from __future__ import annotations

from itertools import chain, zip_longest

import numpy as np

from evaluation.counterfactual.tasks import GALLERY, Entry
from evaluation.data import HELD_OUT, Records
from evaluation.generated import held_out_rows, seed_of

SEED = 50


def entries(records: Records) -> list[Entry]:
    """The gallery: held-out captions that no training record has, of each category in turn."""
    order = np.random.default_rng(SEED).permutation(records.rows(HELD_OUT))
    fresh = set(held_out_rows(records))
    kinds: dict[str, list[int]] = {}
    for row in map(int, order):
        if row in fresh:
            kinds.setdefault(records.categories[row], []).append(row)
    turns = chain.from_iterable(zip_longest(*(kinds[name] for name in sorted(kinds))))
    chosen = [row for row in turns if row is not None][:GALLERY]
    return [
        Entry(records.ids[r], records.captions[r], seed_of(records.ids[r]), records.categories[r])
        for r in chosen
    ]
