"""Which records an unlearning method scores, and in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from attribution import defaults
from attribution.denoiser import Objective
from attribution.methods.context import Context
from attribution.regions import crop
from attribution.shortlist import (
    CLIP_ROWS,
    GRADIENT_ROWS,
    clip_candidates,
    gradient_candidates,
    join,
    sources_of,
)
from attribution.types import Query, UserError


@dataclass(frozen=True)
class Candidates:
    """Rows int64 [M], most promising first. shortlist: how many were to be chosen, None where all
    were taken; sources: how many of the chosen each source offered.
    """

    rows: np.ndarray
    shortlist: int | None = None
    sources: dict[str, int] = field(default_factory=dict)


def check_limit(limit: object) -> None:
    """UserError for a shortlist that is neither None nor a number of records."""
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise UserError("shortlist has to be a whole number from 1")


def choose(
    context: Context,
    query: Query,
    delta: Mapping[str, Tensor],
    ids: Sequence[str] | None,
    limit: int | None,
    objective: Objective = "loss",
) -> Candidates:
    """The records `ids`; else the `limit` most promising training records; else all of them.

    An index without any source of candidates has everything scored. The gradient rows are of the
    loss: they offer nothing for another objective.
    """
    check_limit(limit)
    rows = context.training_rows(ids)
    if ids is not None:
        return Candidates(rows)
    found = orders(context, query, delta, min(limit or len(rows), len(rows)), objective)
    offered = {name: found[name] for name in defaults.SHORTLIST_SOURCES if name in found} or found
    if offered and limit is not None and limit < len(rows):
        chosen = join(list(offered.values()), limit)
        return Candidates(chosen, limit, sources_of(chosen, offered))
    # everything, but the likely ones first: partial answers are good early
    return Candidates(join([join(list(offered.values()), len(rows)), rows], len(rows)))


def orders(
    context: Context,
    query: Query,
    delta: Mapping[str, Tensor],
    n: int,
    objective: Objective = "loss",
) -> dict[str, np.ndarray]:
    """source ("gradient", "clip"), where there is one → the n rows it offers, best first."""
    index, found = context.index, {}
    if objective == "loss" and context.gradient_query is not None:
        vector = context.gradient_query.vector(delta)
        found["gradient"] = gradient_candidates(index.search(GRADIENT_ROWS), vector, n)
    if context.clip is not None and index.has_rows(CLIP_ROWS):
        feature = np.asarray(context.clip.images([crop(query)])[0])
        found["clip"] = clip_candidates(index.search(CLIP_ROWS), feature, n)
    return found
