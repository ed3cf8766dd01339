"""The proof set: the coherent single drawings of another set, few and small enough to train on in
about six minutes of one core.

python -m precompute recipe proof --source assets/openclipart --out assets/proof

Keeps split, captions and artists; training images shrink to 32 px, display images to 128 px: the
whole index takes 17 MB. Deterministic.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image

from attribution import layout
from attribution.types import UserError
from precompute.recipes.openclipart import write
from precompute.recipes.openclipart.render import png_bytes, webp_bytes
from precompute.recipes.openclipart.write import Record

SIDE, DISPLAY = 32, 128  # px of the training images, and of those to show
# Families whose members share their construction: a small model learns them in tens of epochs.
CATEGORIES = (
    *("arrow", "clock", "flag", "jigsaw", "led"),
    *("playing card", "sign", "smiley", "star"),
)


def build(out: Path, source: Path) -> dict[str, object]:
    """Write the set below `out` and return its counts; UserError where `source` holds no set."""
    rows = list(_rows(source))
    kept = [row for row in rows if row["category"] in CATEGORIES and not row["parts"]]
    if not kept:
        raise UserError(f"{source} has no drawing of the families {', '.join(CATEGORIES)}")
    records = [_record(row) for row in sorted(kept, key=lambda row: row["id"])]
    excluded = Counter({"collages, and drawings of other families": len(rows) - len(kept)})
    summary = write.summary(records, len(rows), excluded)
    out.mkdir(parents=True, exist_ok=True)
    write.write_parquet(records, out / layout.RECORDS)
    write.write_artists(records, out / "artists.csv")
    write.write_counts(summary, out / "counts.json")
    write.write_licence(out / "LICENCE.md")
    return summary


def _rows(source: Path) -> Iterator[dict[str, Any]]:
    whole = source / layout.RECORDS
    files = [whole] if whole.is_file() else sorted(source.glob(f"shards/*/{layout.RECORDS}"))
    if not files:
        raise UserError(
            f"no training set in {source}: make it with `precompute recipe openclipart`"
        )
    for file in files:
        yield from pq.read_table(file).to_pylist()


def _record(row: dict[str, Any]) -> Record:
    image = Image.open(io.BytesIO(row["image"])).convert("RGB")
    small = image.resize((SIDE, SIDE), Image.Resampling.BOX)
    shown = Image.open(io.BytesIO(row["display"])).convert("RGB")
    shown = shown.resize((DISPLAY, DISPLAY), Image.Resampling.LANCZOS)
    fields = {name: row[name] for name in Record.__dataclass_fields__ if name in row}
    pictures = {"image": png_bytes(small), "display": webp_bytes(shown)}
    return Record(**{**fields, **pictures, "width": DISPLAY, "height": DISPLAY})
