"""Made-up answers and the contract's shape, for tests of what is done with an answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attribution.types import Attribution, Query, Record
from tests.tiny import tiny_images

N_RECORDS = 12


def record(row: int) -> Record:
    """Record `r/<row>`: odd rows have two artists, row 0 has none."""
    artists = ((), ("Ann",))[row > 0] + (("Bob",) if row % 2 else ())
    return Record(
        id=f"r/{row}",
        row=row,
        image=tiny_images(N_RECORDS)[row],
        captions=(f"caption {row}", "ein Wörtchen 🍦"),
        artists=artists,
        title=f"title, {row}",
        category="c",
        split="train",
        source="a source",
        licence="public domain",
    )


def lookup(ids: Sequence[str]) -> list[Record]:
    """Records by id."""
    return [record(int(name.split("/")[1])) for name in ids]


def query() -> Query:
    """A generated picture."""
    image = tiny_images(1, seed=5)[0]
    return Query("a red star 🌟", image, seed=3, steps=2, guidance=3.0, scheduler="DDIMScheduler")


def attribution(method: str = "abu", scored: int = 8, seed: int = 0) -> Attribution:
    """An answer over `scored` records: 2 captions (one not evaluated), 2 flips, 3 timesteps."""
    rng = np.random.default_rng(seed)
    cells = rng.normal(0, 1e-4, (scored, 2, 2, 3)).astype(np.float32)
    cells[:, 1] = np.nan
    scores = np.nanmean(cells, axis=(1, 3)).max(axis=1)
    order = np.argsort(-scores)
    rows = rng.permutation(N_RECORDS)[:scored][order].astype(np.int64)
    return Attribution(
        method=method,
        kind="unlearning",
        ids=tuple(f"r/{row}" for row in rows),
        rows=rows,
        scores=scores[order].astype(np.float32),
        standard_error=np.where(np.arange(scored) == 1, np.nan, 1e-5).astype(np.float32),
        flip=np.nanmean(cells, axis=(1, 3)).argmax(axis=1)[order].astype(np.int8),
        cells=cells[order],
        timesteps=(150, 450, 750),
        noise_floor=1e-6,
        heatmaps={f"r/{row}": rng.normal(0, 1e-3, (8, 8)).astype(np.float32) for row in rows[:2]},
        seconds={"unlearn": 0.5, "score": 1.5},
        params={"relative_increase": np.float32(0.1), "nothing": None, "steps": (1, 2)},
        candidates=scored,
        candidate_source="shortlist",
        evaluated_cells=scored * 6,
    )


RESULT_KEYS = {
    *("rank", "record", "score", "standard_error", "flip", "captions", "artists", "title"),
    *("source", "licence", "file"),
}
QUERY_KEYS = {
    *("prompt", "seed", "steps", "guidance", "scheduler", "regions", "called", "image_sha256"),
}
METHOD_KEYS = {
    *("name", "kind", "params", "seconds", "candidates", "evaluated_cells", "noise_floor"),
    "results",
}


def check_result(result: dict[str, Any], top_k: int) -> None:
    """The contract of result.json, schema 1, by hand."""
    assert set(result) == {"schema", "index", "query", "methods"} and result["schema"] == 1
    assert isinstance(result["index"], dict) and result["index"]
    asked = result["query"]
    assert set(asked) == QUERY_KEYS and isinstance(asked["prompt"], str)
    assert len(asked["image_sha256"]) == 64 and isinstance(asked["regions"], list)
    assert asked["seed"] is None or isinstance(asked["seed"], int)
    for method in result["methods"]:
        _check_method(method, top_k)


def _check_method(method: dict[str, Any], top_k: int) -> None:
    assert set(method) >= METHOD_KEYS
    assert method["kind"] in {"unlearning", "gradient", "similarity", "control"}
    assert isinstance(method["params"], dict)
    assert all(isinstance(s, float) and s >= 0 for s in method["seconds"].values())
    assert isinstance(method["candidates"], int) and isinstance(method["evaluated_cells"], int)
    rows = method["results"]
    assert len(rows) == min(top_k, method["candidates"])
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True) and all(isinstance(s, float) for s in scores)
    for row in rows:
        assert set(row) == RESULT_KEYS and isinstance(row["flip"], bool)
        assert all(isinstance(row[key], list) for key in ("captions", "artists"))
        assert all(isinstance(row[key], str) for key in ("record", "title", "source", "file"))
