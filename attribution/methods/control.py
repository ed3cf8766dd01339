"""The control: a seeded random order. A method that does no better finds nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from attribution import validate
from attribution.methods.answers import ranked, refuse_unknown, region_params
from attribution.methods.context import Context
from attribution.methods.method import Method
from attribution.noise import keyed_integers
from attribution.types import Attribution, Progress, Query

KIND = "control"
LEVELS = 1 << 31


class RandomAttributor:
    """Scores uniform on [0, 1), a pure function of (seed, prompt, image seed, record id)."""

    def __init__(self, context: Context, name: str) -> None:
        self.context, self.name = context, name

    def run(
        self, query: Query, ids: Sequence[str] | None = None, k: int = 24, **options: Any
    ) -> Iterator[Progress | Attribution]:
        """The Attribution, at once; option `seed`."""
        refuse_unknown(self.name, options, {"seed": 0, "exhaustive": None, "shortlist": None})
        seed = validate.seed(options.get("seed") or 0)
        rows = self.context.training_rows(ids)
        scores = [
            keyed_integers(
                0,
                LEVELS,
                namespace="evaluation",
                seed=seed,
                record_id=f"random|{query.seed}|{query.prompt}|{name}",
            )
            / LEVELS
            for name in self.context.index.ids(rows)
        ]
        yield ranked(
            self.name,
            KIND,
            self.context.index,
            rows,
            np.array(scores, dtype=np.float32),
            params={"seed": seed, **region_params(query, "ignored")},
        )


def _check(options: Mapping[str, Any]) -> None:
    validate.seed(options.get("seed") or 0)


METHODS: tuple[Method, ...] = (
    Method(
        "random",
        "control",
        "Random",
        "A seeded random order: what finding nothing looks like.",
        "Control",
        (),
        partial(RandomAttributor, name="random"),
        "Every training drawing gets a random number: the same again for the same picture, others "
        "for another picture. Neither the model nor the drawings have any part in it. A method "
        "whose answers are no better than these has found nothing, and without them nobody could "
        "tell.",
        r"\tau(\hat z, z) \sim \mathcal{U}[0, 1)",
        ("seed", "exhaustive", "shortlist"),
        _check,
    ),
)
