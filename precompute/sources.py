"""Where training sets come from: an image folder with captions, Parquet files, or the shards of
another index.

Each source yields `Raw` rows one at a time from any position, so that memory does not grow with the
set and a killed run goes on where it was.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from attribution import layout
from attribution.integrity import sha256_of
from attribution.types import UserError

IMAGE_COLUMNS = ("image", "img", "file_name", "image_path", "path")
CAPTION_COLUMNS = ("captions", "caption", "text", "prompt")
HELD_OUT = ("held-out", "heldout", "held_out", "test", "val", "valid", "validation")
_BATCH = 32


@dataclass(frozen=True)
class Raw:
    """One row as found: `image` is its bytes or a local path, `fields` the uniform record without
    the pixels.

    `origin` names it in errors; `display` holds ready bytes where the source has them.
    """

    origin: str
    image: bytes | Path
    fields: dict[str, Any]
    display: bytes | None = None


@dataclass(frozen=True)
class Source:
    """A training set on disk: `rows(start)` streams from row `start`; equal contents, equal
    `sha256`.
    """

    name: str
    total: int
    sha256: str
    rows: Callable[[int], Iterator[Raw]]


def open_source(path: Path) -> Source:
    """The training set at `path`, a folder or a Parquet file; UserError where there is none."""
    if path.is_file() and path.suffix == ".parquet":
        return _parquet_source(path.stem, [path])
    if not path.is_dir():
        raise UserError(f"no training set at {path}: neither a folder nor a Parquet file")
    tables = sorted([*path.rglob("metadata.jsonl"), *path.rglob("metadata.csv")])
    if tables:
        return _folder_source(path, tables)
    files = sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet"))
    files = files or sorted(path.glob(f"{layout.SHARDS}/*/{layout.RECORDS}"))
    if not files:
        raise UserError(
            f"no training set in {path}: it needs metadata.jsonl (file_name, text) beside its "
            "images, or Parquet files"
        )
    return _parquet_source(path.name, files)


def _digest(paths: Iterable[Path]) -> str:
    return hashlib.sha256("".join(sha256_of(path) for path in paths).encode()).hexdigest()


# ---------------------------------------------------------------------- image folders


def _folder_source(root: Path, tables: list[Path]) -> Source:
    def rows(start: int) -> Iterator[Raw]:
        for number, (table, line, row) in enumerate(_table_rows(tables)):
            if number >= start:
                yield _folder_row(root, table, f"{table}:{line}", row)

    return Source(root.name, sum(1 for _ in _table_rows(tables)), _digest(tables), rows)


def _table_rows(tables: list[Path]) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    for table in tables:
        with table.open(encoding="utf-8", newline="" if table.suffix == ".csv" else None) as file:
            if table.suffix == ".csv":
                yield from ((table, line, row) for line, row in enumerate(csv.DictReader(file), 2))
            else:
                yield from (
                    (table, n, _json(table, n, t)) for n, t in enumerate(file, 1) if t.strip()
                )


def _json(table: Path, line: int, text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except ValueError as error:
        raise UserError(f"{table}:{line} is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise UserError(f"{table}:{line} is not a JSON object")
    return row


def _folder_row(root: Path, table: Path, origin: str, row: Mapping[str, Any]) -> Raw:
    name = row.get("file_name")
    if not isinstance(name, str) or not name:
        raise UserError(f"{origin} has no file_name")
    image = table.parent / name
    if not image.resolve().is_relative_to(root.resolve()):
        raise UserError(f"{origin}: {name} lies outside {root}")
    relative = image.relative_to(root).as_posix()
    return Raw(origin, image, fields_of(row, relative, origin))


# ---------------------------------------------------------------------- Parquet


def _parquet_source(name: str, files: list[Path]) -> Source:
    total = sum(pq.read_metadata(file).num_rows for file in files)

    def rows(start: int) -> Iterator[Raw]:
        for file in files:
            length = pq.read_metadata(file).num_rows
            if start < length:
                yield from _parquet_rows(file, start)
            start = max(0, start - length)

    return Source(name, total, _digest(files), rows)


def _parquet_rows(path: Path, start: int) -> Iterator[Raw]:
    with pq.ParquetFile(path, pre_buffer=False) as file:
        column = _image_column(path, file.schema_arrow)
        groups, number = _groups_from(file, start)
        for batch in file.iter_batches(_BATCH, row_groups=groups):
            for row in batch.to_pylist():
                if number >= start:
                    yield _parquet_row(path, number, column, row)
                number += 1


def _groups_from(file: pq.ParquetFile, start: int) -> tuple[list[int], int]:
    """The row groups from the one that holds row `start`, and the number of its first row."""
    first = 0
    for group in range(file.num_row_groups):
        length = file.metadata.row_group(group).num_rows
        if start < first + length:
            return list(range(group, file.num_row_groups)), first
        first += length
    return [], first


def _image_column(path: Path, schema: pa.Schema) -> str:
    for name in IMAGE_COLUMNS:
        if name in schema.names:
            return name
    raise UserError(f"{path} has no image column (one of {', '.join(IMAGE_COLUMNS)})")


def _parquet_row(path: Path, number: int, column: str, row: Mapping[str, Any]) -> Raw:
    origin = f"{path}, row {number}"
    value = row[column]
    name, data = (
        (value.get("path"), value.get("bytes")) if isinstance(value, dict) else (None, value)
    )
    if isinstance(data, str):
        name, data = data, None
    fallback = name or f"{path.stem}-{number:07d}"
    image = data if data is not None else path.parent / name if name else None
    if image is None:
        raise UserError(f"{origin} has no image")
    display = row.get("display")
    fields = fields_of(row, fallback, origin)
    return Raw(origin, image, fields, display if isinstance(display, bytes) else None)


# ---------------------------------------------------------------------- fields


def _texts(value: object) -> list[str]:
    """A string, a list, a JSON list in a CSV cell, or nothing, as a list of non-empty strings."""
    if isinstance(value, str) and value.startswith("["):
        with suppress(ValueError):
            value = json.loads(value)
    items = value if isinstance(value, list) else [value]
    return [text for item in items if item is not None and (text := str(item).strip())]


def _first(row: Mapping[str, Any], *names: str) -> object:
    return next((row[name] for name in names if row.get(name) not in (None, "", [])), None)


def fields_of(row: Mapping[str, Any], fallback_id: str, origin: str) -> dict[str, Any]:
    """The uniform record of a row, without its pixels; UserError where it has no caption."""
    captions = _texts(_first(row, *CAPTION_COLUMNS))
    if not captions:
        raise UserError(f"{origin} has no caption (one of {', '.join(CAPTION_COLUMNS)})")
    split = str(_first(row, "split") or "train").lower()
    return {
        "id": str(_first(row, "id") or fallback_id),
        "width": row.get("width"),
        "height": row.get("height"),
        "captions": captions,
        "artists": _texts(_first(row, "artists", "artist")),
        "title": str(_first(row, "title") or ""),
        "category": str(_first(row, "category") or ""),
        "split": "held-out" if split in HELD_OUT else "train",
        "parts": row.get("parts") or [],
        "source": str(_first(row, "source") or ""),
        "licence": str(_first(row, "licence", "license") or ""),
    }
