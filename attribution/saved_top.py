"""EDGE: the answers of further methods in a saved example: the best records alone, a few kB.

Beside the first method's arrays (saved.py), three for all further methods together, in the order of
`saved.top.methods` of result.json, which also holds what result.json says of a method:

    examples/<slug>/top.rows.npy    unsigned [methods, best]; flip -1 marks filling
    examples/<slug>/top.scores.npy  float16 [methods, best], divided by each method's scale
    examples/<slug>/top.flip.npy    int8 [methods, best]

Rank correlations are computed before anything is left out: `saved.correlations`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attribution.report import plain
from attribution.types import Attribution, Correlation

BEST = 256
NAME = "top.{}.npy"
NOTHING = -1  # as a flip: no record here
FIELDS = (
    *("kind", "params", "seconds", "candidates", "candidate_source"),
    *("evaluated_cells", "noise_floor"),
)

Ids = Callable[[np.ndarray], Sequence[str]]


def save_top(folder: Path, answers: Sequence[Attribution]) -> dict[str, Any]:
    """Write the three arrays; returns `saved.top`. Nothing is written without answers."""
    if not answers:
        return {"methods": []}
    best = min(BEST, max(len(a.ids) for a in answers))
    scales = [float(np.nan_to_num(np.abs(a.scores)).max(initial=0.0)) or 1.0 for a in answers]
    rows = np.stack([_filled(a.rows, best, 0) for a in answers])
    scores = [_filled(a.scores / s, best, 0) for a, s in zip(answers, scales, strict=True)]
    arrays = {
        "rows": rows.astype(np.min_scalar_type(int(rows.max()))),
        "scores": np.stack(scores).astype(np.float16),
        "flip": np.stack([_filled(a.flip, best, NOTHING) for a in answers]).astype(np.int8),
    }
    for name, array in arrays.items():
        np.save(folder / NAME.format(name), array, allow_pickle=False)
    told = [{"name": a.method, **{f: getattr(a, f) for f in FIELDS}} for a in answers]
    return {"methods": [plain({**m, "scale": s}) for m, s in zip(told, scales, strict=True)]}


def load_top(folder: Path, details: Mapping[str, Any], ids: Ids) -> tuple[Attribution, ...]:
    """The answers back, without standard errors and cells. Raises what json and numpy raise."""
    methods = details["methods"]
    if not methods:
        return ()
    rows, scores, flip = (
        np.load(folder / NAME.format(name), allow_pickle=False)
        for name in ("rows", "scores", "flip")
    )
    return tuple(
        _answer(method, rows[i], scores[i], flip[i], ids) for i, method in enumerate(methods)
    )


def pairs_to_json(pairs: Mapping[tuple[str, str], Correlation]) -> list[Any]:
    """[[a, b, rho or null, common], ...]."""
    return [[a, b, plain(pair.rho), pair.common] for (a, b), pair in pairs.items()]


def pairs_from_json(saved: Sequence[Sequence[Any]]) -> dict[tuple[str, str], Correlation]:
    """The inverse of `pairs_to_json`."""
    return {
        (a, b): Correlation(float("nan") if rho is None else float(rho), int(common))
        for a, b, rho, common in saved
    }


def _filled(values: np.ndarray, length: int, filler: int) -> np.ndarray:
    """The first `length` of `values`, filled up."""
    kept = values[:length]
    return np.concatenate([kept, np.full(length - len(kept), filler, dtype=kept.dtype)])


def _answer(
    method: Mapping[str, Any], rows: np.ndarray, scores: np.ndarray, flip: np.ndarray, ids: Ids
) -> Attribution:
    count = int((flip != NOTHING).sum())
    kept = rows[:count].astype(np.int64)
    return Attribution(
        method=method["name"],
        ids=tuple(ids(kept)),
        rows=kept,
        scores=scores[:count].astype(np.float32) * np.float32(method["scale"]),
        standard_error=np.full(count, np.nan, dtype=np.float32),
        flip=flip[:count],
        **{name: method[name] for name in FIELDS},
    )
