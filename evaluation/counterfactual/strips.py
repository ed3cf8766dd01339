"""Strips as in Fig. 3 and 11: a query, and the picture drawn again without each method's top K."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from evaluation.counterfactual.ledger import read_pictures
from evaluation.counterfactual.lines import RANDOM, Lines
from evaluation.counterfactual.tables import chosen
from evaluation.counterfactual.tasks import TUNING, training

SIDE, GAP, LABEL, TITLE = 96, 4, 52, 18
LABELS = ("abu", "abu-ekfac", "abu-shift", "dtrak", "dino", "trak", "clip")
QUERIES = 6


def sheet(
    lines: Lines,
    base: Path,
    folder: Path,
    out: Path,
    labels: Sequence[str] = LABELS,
    queries: int = QUERIES,
) -> bool:
    """Write the strips of the first queries whose pictures are there; False without any, and where
    some are lacking and a sheet is there: it was made where they were.

    base: the gallery's pictures; folder: those of the trainings, `<key>.png`.
    """
    arms = chosen(lines, labels)
    if out.is_file() and _lacking(lines, arms, queries, folder):
        return False
    original = read_pictures(base, len(lines.gallery))
    strips = []
    for entry in lines.gallery[TUNING:]:
        rows = _rows(lines, arms, entry.id, folder)
        if rows and len(strips) < queries:
            title = f"{entry.prompt}"
            strips.append(_strip(title, original[lines.place[entry.id]], rows))
    if not strips:
        return False
    width = max(strip.width for strip in strips)
    page = Image.new("RGB", (width, sum(strip.height for strip in strips)), "white")
    top = 0
    for strip in strips:
        page.paste(strip, (0, top))
        top += strip.height
    out.parent.mkdir(parents=True, exist_ok=True)
    page.save(out, optimize=True)
    return True


def _lacking(lines: Lines, arms: dict[str, str], queries: int, folder: Path) -> bool:
    """Whether a training of the queries that would be shown has no picture in the folder."""
    found = [o for arm in arms.values() for o in lines.outcomes(arm)]
    asked = {o.query for o in found}
    shown = [entry.id for entry in lines.gallery[TUNING:] if entry.id in asked][:queries]
    return any(o.query in shown and not (folder / f"{o.key}.png").is_file() for o in found)


Row = tuple[str, list[tuple[int, np.ndarray]]]


def _rows(lines: Lines, arms: dict[str, str], query: str, folder: Path) -> list[Row]:
    """(label, (K, picture) of every K there is) of each method, and of a random removal."""
    rows: list[Row] = []
    ks: set[int] = set()
    for label, arm in arms.items():
        keys = {o.k: o.key for o in lines.outcomes(arm) if o.query == query}
        if cells := _pictures(lines, keys, query, folder):
            rows.append((label, cells))
            ks |= {k for k, _ in cells}
    for order in lines.orders[:1] if rows else ():
        keys = {k: training(order[:k], lines.recipe).key for k in sorted(ks)}
        if cells := _pictures(lines, keys, query, folder):
            rows.append((RANDOM, cells))
    return rows


def _pictures(
    lines: Lines, keys: dict[int, str], query: str, folder: Path
) -> list[tuple[int, np.ndarray]]:
    n = lines.place[query]
    there = {k: folder / f"{key}.png" for k, key in sorted(keys.items())}
    return [(k, read_pictures(p, n + 1)[n]) for k, p in there.items() if p.is_file()]


def _strip(title: str, original: np.ndarray, rows: Sequence[Row]) -> Image.Image:
    """The original at the left, a column a method, a line a K."""
    ks = sorted({k for _, cells in rows for k, _ in cells})
    left, top = SIDE + GAP + LABEL, 2 * TITLE
    width = left + len(rows) * (SIDE + GAP)
    page = Image.new("RGB", (width, top + len(ks) * (SIDE + GAP) + GAP), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default()
    pen.text((0, 2), title, "black", font)
    pen.text((0, TITLE + 2), "as it was", "black", font)
    page.paste(enlarged(original, SIDE), (0, top))
    for line, k in enumerate(ks):
        middle = top + line * (SIDE + GAP) + SIDE // 2 - 6
        pen.text((SIDE + GAP, middle), f"K = {k}", "black", font)
    for column, (label, cells) in enumerate(rows):
        across = left + column * (SIDE + GAP)
        pen.text((across, TITLE + 2), label, "black", font)
        for k, picture in cells:
            page.paste(enlarged(picture, SIDE), (across, top + ks.index(k) * (SIDE + GAP)))
    return page


def enlarged(picture: np.ndarray, side: int) -> Image.Image:
    """A picture, uint8 [px, px, 3], at `side` px without smoothing."""
    return Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST)
