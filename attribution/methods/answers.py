"""Answers of methods: scores sorted into an Attribution, and what every run checks first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from attribution.index import Index
from attribution.types import Attribution, Query, UserError


def ranked(
    method: str,
    kind: str,
    index: Index,
    rows: np.ndarray,
    scores: np.ndarray,
    *,
    standard_error: np.ndarray | None = None,
    flip: np.ndarray | None = None,
    cells: np.ndarray | None = None,
    maps: Mapping[int, np.ndarray] | None = None,
    **fields: Any,
) -> Attribution:
    """An Attribution of `rows` int64 [M], best first; equal scores by row, NaN last."""
    order = np.lexsort((rows, -scores.astype(np.float64)))
    nothing = np.full(len(rows), np.nan, dtype=np.float32)
    upright = np.zeros(len(rows), dtype=np.int8)
    maps = maps or {}
    names = dict(zip(maps, index.ids(list(maps)), strict=True))
    return Attribution(
        method=method,
        kind=kind,
        ids=tuple(index.ids(rows[order])),
        rows=rows[order],
        scores=scores[order].astype(np.float32),
        standard_error=(nothing if standard_error is None else standard_error)[order],
        flip=(upright if flip is None else flip)[order].astype(np.int8),
        cells=None if cells is None else cells[order],
        heatmaps={names[row]: heat for row, heat in maps.items()},
        **{"candidates": len(rows), **fields},
    )


def region_params(query: Query, how: str) -> dict[str, str]:
    """`params` of a query with regions: "loss" where only they count in the query's loss, "crop"
    where only they are looked at, "ignored" by a method that looks at no picture, "words" by one
    that looks at the regions' own. Where these condition the query they are there as "called".
    """
    if not query.regions:
        return {}
    words = {"called": query.called} if query.called and how in ("loss", "words") else {}
    return {"region": how, **words}


def refuse_unknown(method: str, options: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """UserError for an option the method does not have."""
    for name in options:
        if name not in known:
            raise UserError(f"method {method} has no option {name!r}; it has {', '.join(known)}")
