"""The files of the recipe: records.parquet, artists.csv, counts.json, LICENCE.md."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

LICENCE = "Public Domain (CC Public Domain Dedication)"
_PART = pa.struct([("id", pa.string()), ("box", pa.list_(pa.float32()))])
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.binary()),
        ("display", pa.binary()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("captions", pa.list_(pa.string())),
        ("artists", pa.list_(pa.string())),
        ("title", pa.string()),
        ("category", pa.string()),
        ("split", pa.string()),
        ("parts", pa.list_(_PART)),
        ("source", pa.string()),
        ("licence", pa.string()),
    ]
)


@dataclass(frozen=True)
class Record:
    """One row of records.parquet; `image` is PNG 64 px, `display` WebP 192 px, boxes in 64 px."""

    id: str
    image: bytes
    display: bytes
    width: int
    height: int
    captions: list[str]
    artists: list[str]
    title: str
    category: str
    split: str
    source: str
    parts: list[dict[str, object]] = field(default_factory=list)
    licence: str = LICENCE


def _replace(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    part.replace(path)


def write_parquet(records: list[Record], path: Path) -> None:
    """All records in one row group, in the order given."""
    table = pa.Table.from_pylist([asdict(record) for record in records], schema=SCHEMA)
    part = path.with_name(path.name + ".part")
    pq.write_table(
        table, part, compression="zstd", compression_level=9, row_group_size=len(records) or 1
    )
    part.replace(path)


def write_artists(records: list[Record], path: Path) -> None:
    """artist, drawings, collages; most drawings first, then by name."""
    drawings, collages = Counter[str](), Counter[str]()
    for record in records:
        (collages if record.parts else drawings).update(set(record.artists))
    names = sorted(set(drawings) | set(collages), key=lambda name: (-drawings[name], name))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["artist", "drawings", "collages"])
    rows.writerows([name, drawings[name], collages[name]] for name in names)
    _replace(path, text.getvalue().encode())


def summary(records: list[Record], read: int, excluded: Counter[str]) -> dict[str, object]:
    """Counts for the README: drawings read, exclusions by rule, members by category and split."""
    categories: dict[str, dict[str, int]] = {}
    for record in sorted(records, key=lambda r: r.category):
        entry = categories.setdefault(record.category, {"train": 0, "held-out": 0})
        entry[record.split] += 1
    return {
        "read": read,
        "excluded": dict(sorted(excluded.items())),
        "records": len(records),
        "drawings": sum(not r.parts for r in records),
        "collages": sum(bool(r.parts) for r in records),
        "held_out": sum(r.split == "held-out" for r in records),
        "artists": len({name for r in records for name in r.artists}),
        "categories": categories,
    }


def write_counts(counts: dict[str, object], path: Path) -> None:
    """`counts` as indented JSON."""
    _replace(path, (json.dumps(counts, indent=2, ensure_ascii=False) + "\n").encode())


def write_licence(path: Path) -> None:
    """The dedication, in words and with where it is stated."""
    _replace(path, (Path(__file__).parent / "LICENCE.md").read_bytes())
