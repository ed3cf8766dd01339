"""EDGE: nearest training rows by inner product (FAISS), the best flip of each record."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attribution.integrity import canonical_hash, read_json, sha256_of
from attribution.types import UserError

# Smaller ones are rebuilt faster than they are read back; larger ones are kept on disk, in half
# precision.
KEEP_ABOVE_BYTES = 256_000_000


@dataclass(eq=False)
class Search:
    """A FAISS index over [candidates x flips] vectors.

    Entry i is record rows[i // flips], flip i % flips.
    """

    faiss_index: Any
    rows: np.ndarray
    flips: int

    def nearest(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The k records with the greatest inner product with `query` [d] or any row of it [Q, d].

        Returns (rows int64 [k'], products float32 [k'], flips int8 [k']), greatest first, where
        k' = min(k, candidates).
        """
        queries = np.ascontiguousarray(np.atleast_2d(query), dtype=np.float32)
        wanted = min(k * self.flips, self.faiss_index.ntotal)
        products, entries = self.faiss_index.search(queries, wanted)
        order = np.argsort(-products, axis=None, kind="stable")
        found = entries.reshape(-1)[order]
        _, first = np.unique(found // self.flips, return_index=True)
        keep = np.sort(first)[:k]
        best = found[keep]
        flips = (best % self.flips).astype(np.int8)
        return self.rows[best // self.flips], products.reshape(-1)[order][keep], flips

    def products(self, query: np.ndarray) -> np.ndarray:
        """Inner products of `query` [d] with every vector, float32 [candidates, flips], in the
        order of `rows`.
        """
        one = np.ascontiguousarray(query, dtype=np.float32)[None]
        found, entries = self.faiss_index.search(one, self.faiss_index.ntotal)
        made = np.empty(self.faiss_index.ntotal, dtype=np.float32)
        made[entries[0]] = found[0]
        return made.reshape(-1, self.flips)


def build_search(vectors: np.ndarray, rows: np.ndarray) -> Search:
    """A search over `vectors` float16 [n, flips, d] of the records `rows` int64 [n]; in memory."""
    import faiss

    n, flips, dim = vectors.shape
    large = vectors.size * 4 > KEEP_ABOVE_BYTES
    index = _half_index(faiss, dim) if large else faiss.IndexFlatIP(dim)
    for start in range(0, n, 4096):
        index.add(vectors[start : start + 4096].astype(np.float32).reshape(-1, dim))
    return Search(index, np.asarray(rows, dtype=np.int64), flips)


def _half_index(faiss: Any, dim: int) -> Any:
    kind = faiss.ScalarQuantizer.QT_fp16
    return faiss.IndexScalarQuantizer(dim, kind, faiss.METRIC_INNER_PRODUCT)


def cached_search(
    path: Path, key: Mapping[str, Any], vectors: np.ndarray, rows: np.ndarray
) -> Search:
    """The search kept at `path` if it was built from `key`, else a new one.

    A read-only index keeps it in the user's cache. Only large ones are kept; a damaged or stale
    cache is rebuilt without a word, for it holds nothing of its own.
    """
    if vectors.size * 4 <= KEEP_ABOVE_BYTES:
        return build_search(vectors, rows)
    private = _user_cache() / canonical_hash(key)[:32] / path.name
    for place in (path, private):
        if (found := _read(place, key)) is not None:
            return Search(found, np.asarray(rows, dtype=np.int64), vectors.shape[1])
    search = build_search(vectors, rows)
    for place in (path, private):
        if _write(place, key, search.faiss_index):
            break
    return search


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "whence"


def _read(path: Path, key: Mapping[str, Any]) -> Any | None:
    import faiss

    try:
        note = read_json(path.with_suffix(".json"))
        if note.get("key") != canonical_hash(key) or note.get("sha256") != sha256_of(path):
            return None
        return faiss.read_index(str(path))
    except (OSError, RuntimeError, UserError):
        return None


def _write(path: Path, key: Mapping[str, Any], index: Any) -> bool:
    import json

    import faiss

    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        faiss.write_index(index, str(part))
        note = {"key": canonical_hash(key), "sha256": sha256_of(part)}
        path.with_suffix(".json").write_text(json.dumps(note), encoding="utf-8")
        os.replace(part, path)
    except (OSError, RuntimeError):
        return False
    return True
