"""Strips as in Fig. 3 and 11: a query, and the picture drawn again without each method's top K."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from evaluation.counterfactual.ledger import read_pictures
from evaluation.counterfactual.lines import RANDOM, Lines
from evaluation.counterfactual.tables import chosen
from evaluation.counterfactual.tasks import REPORTED, training
from precompute.shards import replacing

SIDE, GAP, LABEL, TITLE = 96, 4, 52, 18
LABELS = ("abu-ekfac-full", "abu-ekfac", "abu", "dtrak", "clip", "dino", "trak")
QUERIES = 6

# (key of a training, position in the gallery) → uint8 [px, px, 3]
Cells = dict[tuple[str, int], np.ndarray]


def sheet(lines: Lines, base: Path, folder: Path, kept: Path, out: Path) -> bool:
    """Write the strips of the first QUERIES that have pictures; False without any.

    base: the gallery's pictures; folder: those of the trainings, `<key>.png`; kept: where those
    that are shown are kept, with the lines: of most trainings the folder is another machine's.
    """
    arms = chosen(lines, LABELS)
    wanted = {entry.id: _wanted(lines, arms, entry.id) for entry in lines.gallery[REPORTED]}
    shown = [query for query, rows in wanted.items() if rows][:QUERIES]
    cells = _kept(kept)
    keys = {(key, lines.place[q]) for q in shown for row in wanted[q].values() for key in row}
    if more := _found(keys - cells.keys(), folder):
        cells |= more
        _keep(cells, kept)
    original = read_pictures(base, len(lines.gallery))
    strips = []
    for query in shown:
        n = lines.place[query]
        rows = [(label, _pictures(keys, n, cells)) for label, keys in wanted[query].items()]
        if any(pictures for _, pictures in rows):
            strips.append(_strip(lines.gallery[n].prompt, original[n], rows))
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


def _wanted(lines: Lines, arms: dict[str, str], query: str) -> dict[str, dict[str, int]]:
    """label → key of its training → K, of each method and of a random removal of the same Ks."""
    rows = {
        label: {o.key: o.k for o in lines.outcomes(arm) if o.query == query}
        for label, arm in arms.items()
    }
    rows = {label: keys for label, keys in rows.items() if keys}
    ks = sorted({k for keys in rows.values() for k in keys.values()})
    for order in lines.orders[:1] if rows else ():
        keys = {training(order[:k], lines.recipe).key: k for k in ks}
        rows[RANDOM] = {key: k for key, k in keys.items() if key in lines.trainings}
    return rows


def _found(wanted: set[tuple[str, int]], folder: Path) -> Cells:
    there = {key for key, _ in wanted if (folder / f"{key}.png").is_file()}
    return {
        (key, n): read_pictures(folder / f"{key}.png", n + 1)[n]
        for key, n in sorted(wanted)
        if key in there
    }


def _kept(path: Path) -> Cells:
    if not path.is_file():
        return {}
    with np.load(path, allow_pickle=False) as saved:
        split = ((name.split("/"), saved[name]) for name in saved.files)
        return {(key, int(n)): picture for (key, n), picture in split}


def _keep(cells: Cells, path: Path) -> None:
    named = {f"{key}/{n}": picture for (key, n), picture in sorted(cells.items())}
    with replacing(path) as file:
        np.savez_compressed(file, allow_pickle=False, **named)


def _pictures(keys: dict[str, int], n: int, cells: Cells) -> list[tuple[int, np.ndarray]]:
    """(K, picture) of every K there is."""
    return sorted(
        ((k, cells[key, n]) for key, k in keys.items() if (key, n) in cells), key=lambda row: row[0]
    )


Row = tuple[str, list[tuple[int, np.ndarray]]]


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
