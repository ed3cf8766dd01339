"""Which records an unlearning method scores, and in which order.

| source | what it offers |
|---|---|
| a gradient or similarity method's name | that method's own answer to the query |
| `gradient` | first-order scores of Δθ (Eq. 16) |

Several sources take turns. What is offered costs little beside scoring: no record is looked at.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from attribution import defaults
from attribution.denoiser import Objective
from attribution.index import Index
from attribution.jobs import result
from attribution.methods import gradient, needs, similarity
from attribution.methods.context import Context
from attribution.numbers import is_whole
from attribution.shortlist import GRADIENT_ROWS, join, sources_of
from attribution.types import Attribution, Progress, Query, UserError

FIRST_ORDER = "gradient"
_METHODS = {method.name: method for method in (*gradient.METHODS, *similarity.METHODS)}


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
    if limit is not None and (not is_whole(limit) or limit < 1):
        raise UserError("shortlist has to be a whole number from 1")


def choose(
    context: Context,
    query: Query,
    delta: Mapping[str, Tensor],
    ids: Sequence[str] | None,
    limit: int | None,
    objective: Objective = "loss",
) -> Generator[Progress, None, Candidates]:
    """Progress; returns the records `ids`, else the `limit` most promising training records, else
    all of them.

    An index without any source of candidates has everything scored.
    """
    check_limit(limit)
    rows = context.training_rows(ids)
    if ids is not None:
        return Candidates(rows)
    offered = {}
    for name in default_sources(context.index, objective):
        offered[name] = yield from order(context, name, query, delta)
    if offered and limit is not None and limit < len(rows):
        chosen = join(list(offered.values()), limit)
        return Candidates(chosen, limit, sources_of(chosen, offered))
    # everything, but the likely ones first: partial answers are good early
    return Candidates(join(list(offered.values()), len(rows)) if offered else rows)


def default_sources(index: Index, objective: Objective = "loss") -> tuple[str, ...]:
    """The sources of a default run: those of defaults.SHORTLIST_SOURCES that the index has; where
    it has none of them its first-order scores, which are of the loss and no other objective.
    """
    found = tuple(name for name in defaults.SHORTLIST_SOURCES if not _lacks(index, name))
    if found or objective != "loss" or _lacks(index, FIRST_ORDER):
        return found
    return (FIRST_ORDER,)


def candidate_rows(index: Index) -> list[str]:
    """Names of the rows that those sources read."""
    wanted = (need for name in default_sources(index) for need in _needs(name))
    return [name for kind, _, name in (need.partition(":") for need in wanted) if kind == "rows"]


def order(
    context: Context, source: str, query: Query, delta: Mapping[str, Tensor]
) -> Generator[Progress, None, np.ndarray]:
    """Progress; returns all training rows as a source orders them, best first, int64.

    UserError where the index lacks what the source needs.
    """
    if why := _lacks(context.index, source):
        raise UserError(why)
    if source == FIRST_ORDER:
        assert context.gradient_query is not None
        vector = context.gradient_query.vector(delta)
        search = context.index.search(GRADIENT_ROWS)
        return search.nearest(vector, len(context.index.train_rows))[0]
    answer: Attribution = yield from result(_answer(context, source, query), Attribution)
    return answer.rows


def _lacks(index: Index, source: str) -> str:
    """Why the index cannot serve a source, in a line; '' where it can."""
    return needs.why_not(index, _needs(source))


def _needs(source: str) -> tuple[str, ...]:
    return (f"rows:{GRADIENT_ROWS}",) if source == FIRST_ORDER else _METHODS[source].needs


def _answer(context: Context, source: str, query: Query) -> Iterator[Progress | Attribution]:
    key = ("source", source)
    if key not in context.kept:
        context.kept[key] = _METHODS[source].build(context)
    return context.kept[key].run(query)
