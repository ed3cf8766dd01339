"""Drawings and collages as the embedded set has them, tiny: plain shapes, boxes known exactly."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

SIDE = 32
PART = pa.struct([("id", pa.string()), ("box", pa.list_(pa.float32()))])
# name -> (colour, corners of a box or circle, category)
SHAPES: Mapping[str, tuple[str, str]] = {
    "red ball": ("red", "ball"),
    "blue ball": ("blue", "ball"),
    "green box": ("green", "box"),
    "black ring": ("black", "ring"),
    "brown box": ("saddlebrown", "box"),
    "purple ring": ("purple", "ring"),
}
Box = tuple[int, int, int, int]


def drawn(canvas: Image.Image, name: str, box: Box) -> None:
    """A shape that fills `box`; a ring is white inside."""
    colour, kind = SHAPES[name]
    pen, (x0, y0, x1, y1) = ImageDraw.Draw(canvas), box
    inner = (x0, y0, x1 - 1, y1 - 1)
    if kind == "box":
        pen.rectangle(inner, fill=colour)
    elif kind == "ball":
        pen.ellipse(inner, fill=colour)
    else:
        pen.ellipse(inner, fill="white", outline=colour, width=3)


def _row(name: str, shapes: Sequence[tuple[str, Box]], split: str, **more: Any) -> dict[str, Any]:
    canvas = Image.new("RGB", (SIDE, SIDE), "white")
    for shape, box in shapes:
        drawn(canvas, shape, box)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    picture = buffer.getvalue()
    common = {"image": picture, "display": picture, "width": SIDE, "height": SIDE}
    return {"id": name, "split": split, "artists": ["Ann"], **common, **more}


def collage_rows() -> list[dict[str, Any]]:
    """Six drawings, the last two held out, and four collages, the last of them held out."""
    names = list(SHAPES)
    rows = []
    for number, name in enumerate(names):
        split = "held-out" if number >= 4 else "train"
        more = {"captions": [f"{name}, {SHAPES[name][1]}, by Ann"], "category": SHAPES[name][1]}
        rows.append(_row(f"drawing/{number}", [(name, (3, 3, 29, 27))], split, parts=[], **more))
    pairs = ((0, 2), (1, 3), (2, 0), (1, 4))
    for number, (a, b) in enumerate(pairs):
        boxes: tuple[Box, Box] = ((1, 5, 15, 19), (17, 9, 30, 22))
        parts = [
            {"id": f"drawing/{i}", "box": list(map(float, box))}
            for i, box in zip((a, b), boxes, strict=True)
        ]
        placed = list(zip((names[a], names[b]), boxes, strict=True))
        caption = f"a {names[a]} and a {names[b]}, by Ann"
        more = {"captions": [caption], "category": "collage", "parts": parts}
        split = "held-out" if b >= 4 else "train"
        rows.append(_row(f"collage/{number}", placed, split, **more))
    return rows


def collage_set(folder: Path) -> Path:
    """records.parquet in `folder`, as recipes write it."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = collage_rows()
    filler = {"title": "", "source": "", "licence": "Public Domain"}
    columns: dict[str, Any] = {
        key: [{**filler, **row}[key] for row in rows] for key in {**rows[0], **filler}
    }
    columns["parts"] = pa.array(columns["parts"], pa.list_(PART))
    pq.write_table(pa.table(columns), folder / "records.parquet")
    return folder
