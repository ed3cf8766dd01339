"""EDGE: what files are made of (SHA-256 and size), and whether they still are.

An *entry* is `{"sha256": hex, "bytes": int}`; a *table* maps a path relative to some folder to its
entry.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attribution.types import UserError

Entry = dict[str, Any]
_CHUNK = 1 << 20
_MODEL_SUFFIXES = (".safetensors", ".json", ".txt", ".model")


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def entry_of(path: Path) -> Entry:
    """Size and SHA-256 of a file."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def canonical_hash(value: object) -> str:
    """Hex SHA-256 of a JSON value; equal values give equal hashes, whatever the order of keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def model_files(folder: Path) -> list[Path]:
    """The files that make a saved model what it is, relative to `folder`, sorted.

    For a pipeline: `model_index.json` and the folders of its components; else (a plain transformers
    model) the files beside `config.json`. Whatever lies beside them, notes and pictures, is not
    part of the model.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        found = list(folder.glob("*"))
    else:
        parts = [k for k, v in read_json(index).items() if isinstance(v, list) and v[0]]
        found = [index, *(path for part in parts for path in (folder / part).rglob("*"))]
    kept = (p for p in found if p.is_file() and p.suffix in _MODEL_SUFFIXES)
    return sorted(path.relative_to(folder) for path in kept)


def model_table(folder: Path) -> dict[str, Entry]:
    """Size and SHA-256 of each file of a saved model."""
    return {path.as_posix(): entry_of(folder / path) for path in model_files(folder)}


def table_hash(table: Mapping[str, Entry]) -> str:
    """One hash for a table of files."""
    return canonical_hash({name: entry["sha256"] for name, entry in table.items()})


def damage(path: Path, entry: Entry, *, full: bool) -> str | None:
    """What is wrong with a file, both sides named, or None; `full` reads and hashes it."""
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != entry["bytes"]:
        kind = "truncated" if size < entry["bytes"] else "too long"
        return f"is {kind}: {size:,} bytes, the manifest says {entry['bytes']:,}"
    if full and (found := sha256_of(path)) != entry["sha256"]:
        return f"is corrupt: sha256 {found[:12]}…, the manifest says {entry['sha256'][:12]}…"
    return None


def check_table(root: Path, table: Mapping[str, Entry], *, full: bool, mend: str) -> None:
    """UserError naming the first damaged file of `table` below `root`, and `mend`, the way out."""
    for name, entry in table.items():
        if wrong := damage(root / name, entry, full=full):
            raise UserError(f"{root / name} {wrong}. {mend}")


def read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} is not a JSON object")
    return value
