"""What the detector learns from: cut-out drawings with their names, and whole pictures with boxes.

Training records only. A collage is held out with any of its parts, so no pixel of a held-out
drawing is seen.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from attribution.detection.words import nouns
from precompute.recipes.model.data import record_files

COLUMNS = ("id", "image", "captions", "category", "split", "parts")
PAPER = 246  # a channel below is ink; antialiased edges fade into 255
_SIDED = re.compile(r"\b(left|right|flag|icon|sign|card|clock|up|down|arrow|led|smiley|jigsaw)\b")

Names = tuple[str, ...]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Cutout:
    """A drawing without its paper: `solid` [3, h, w] where it covers the ground, `veil` [3, h, w]
    where the ground shines through, both float32; over a ground g it looks like solid + veil * g.
    mirrors: whether its mirror image goes by the same names.
    """

    solid: Tensor
    veil: Tensor
    names: Names
    mirrors: bool


@dataclass(frozen=True)
class Picture:
    """A whole picture: pixels uint8 [3, px, px], boxes float32 [n, 4] as shares of the side
    (x0, y0, x1, y1), and each box's names.
    """

    pixels: Tensor
    boxes: Tensor
    names: tuple[Names, ...]


@dataclass(frozen=True)
class DetectionSet:
    """Cut-outs to compose with, by category, whole pictures, and every phrase of the training
    captions.
    """

    cutouts: dict[str, tuple[Cutout, ...]]
    pictures: tuple[Picture, ...]
    phrases: tuple[str, ...]


def names_of(caption: str, category: str) -> Names:
    """What a drawing may be called: the phrases of its caption, the head of the first, and its
    category. ('christmas tree', 'evergreen', 'plant', 'tree')
    """
    said = nouns(caption)
    return tuple(dict.fromkeys(name for name in (*said, *map(head, said[:1]), category) if name))


def head(phrase: str) -> str:
    """The noun a phrase is about: 'christmas tree' → 'tree', 'star with 24 points' → 'star'."""
    return re.split(r" (?:with|of|in|at|on|from|for) ", phrase)[0].split()[-1]


def load_detection_set(data: Path) -> DetectionSet:
    """Every training record of a data set or index as cut-out, picture, or both."""
    rows = [row for row in read_rows(data) if row["split"] != "held-out"]
    named = {row["id"]: names_of(row["captions"][0], row["category"]) for row in rows}
    drawings = [row for row in rows if not row["parts"]]
    cutouts = {
        category: tuple(cut_out([row for row in drawings if row["category"] == category], named))
        for category in sorted({row["category"] for row in drawings})
    }
    pictures = [picture for row in rows if (picture := picture_of(row, named)) is not None]
    phrases = sorted({name for row in drawings for name in named[row["id"]]})
    return DetectionSet({k: v for k, v in cutouts.items() if v}, tuple(pictures), tuple(phrases))


def read_rows(data: Path) -> list[dict[str, Any]]:
    """Every record with its pixels as uint8 [px, px, 3] under "pixels"."""
    rows: list[dict[str, Any]] = []
    for path in record_files(data):
        rows += pq.read_table(path, columns=list(COLUMNS)).to_pylist()
    for row in rows:
        row["pixels"] = np.asarray(Image.open(io.BytesIO(row.pop("image"))).convert("RGB"))
    return rows


def picture_of(row: Row, named: Mapping[str, Names]) -> Picture | None:
    """A record as it is, its boxes known: of a collage's parts, or of all that is not ground."""
    pixels = torch.from_numpy(row["pixels"].copy()).permute(2, 0, 1)
    side = pixels.shape[-1]
    if row["parts"]:
        boxes = [part["box"] for part in row["parts"]]
        names = tuple(named[part["id"]] for part in row["parts"])
    else:
        box = ink_box(row["pixels"])
        if box is None:
            return None
        boxes, names = [box], (named[row["id"]],)
    return Picture(pixels, torch.tensor(boxes, dtype=torch.float32) / side, names)


def ink_box(pixels: np.ndarray) -> tuple[int, int, int, int] | None:
    """(x0, y0, x1, y1) of what differs from the corners' colour, uint8 [h, w, 3]; None if nothing
    does.
    """
    ground = pixels[0, 0].astype(np.int16)
    ink = np.abs(pixels.astype(np.int16) - ground).max(-1) > 255 - PAPER
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def cut_out(rows: Sequence[Row], named: Mapping[str, Names]) -> list[Cutout]:
    """Drawings on white without their white: what is connected to the edge is paper, white inside
    the drawing is not. Drawings on a tint are left out: they are white themselves.
    """
    rows = [row for row in rows if (row["pixels"][0, 0] > PAPER).all()]
    if not rows:
        return []
    pixels = torch.from_numpy(np.stack([row["pixels"] for row in rows])).permute(0, 3, 1, 2)
    found = []
    for row, image, outside in zip(rows, pixels.float() / 255.0, paper(pixels), strict=True):
        box = ink_box(row["pixels"])
        if box is None:
            continue
        x0, y0, x1, y1 = box
        veil = image * outside
        names = named[row["id"]]
        mirrors = not any(_SIDED.search(name) for name in names)
        part = (slice(None), slice(y0, y1), slice(x0, x1))
        found.append(Cutout((image - veil)[part].clone(), veil[part].clone(), names, mirrors))
    return found


def paper(pixels: Tensor) -> Tensor:
    """1 where white is connected to the edge, and one pixel further, over antialiased outlines:
    uint8 [n, 3, px, px] → float32 [n, 1, px, px].
    """
    white = (pixels > PAPER).all(1)
    found = torch.zeros_like(white)
    for edge in (0, -1):
        found[:, edge, :] = white[:, edge, :]
        found[:, :, edge] = white[:, :, edge]
    before = -1
    while (now := int(found.sum())) != before:
        before = now
        for turned in (found, found.transpose(1, 2)):  # views: rows, then columns
            _sweep(turned, white if turned is found else white.transpose(1, 2))
    return F.max_pool2d(found[:, None].float(), 3, stride=1, padding=1)


def _sweep(found: Tensor, white: Tensor) -> None:
    """Carry what was found over white, row by row, down and up; bool [n, rows, columns]."""
    rows = range(1, found.shape[1])
    for row in rows:
        found[:, row] |= found[:, row - 1] & white[:, row]
    for row in reversed(rows):
        found[:, row - 1] |= found[:, row] & white[:, row - 1]
