"""Which drawings belong to the set: exclusions with their counts, twins, the held-out part."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from precompute.recipes.openclipart import tables
from precompute.recipes.openclipart.families import family_of, rank
from precompute.recipes.openclipart.read import Drawing

PUBLIC_DOMAIN = ("web.resource.org/cc/PublicDomain", "creativecommons.org/licenses/publicdomain")
HELD_OUT = 0.05
STARS = 100  # of the 1,375 geometric ones, before near-identical ones fall out
_MOST_POINTS = 28
_LEAST_STEP = 0.16  # of the points: below that a star is a circle at 64 px
Pair = tuple[Drawing, str]  # a drawing and its category


def refusal(drawing: Drawing) -> str | None:
    """The rule that excludes a drawing of a family, None if none does."""
    if not any(mark in drawing.licence for mark in PUBLIC_DOMAIN):
        return "licence other than public domain, or none stated"
    rules = tables.exclusions().items()
    return next((rule for rule, pattern in rules if pattern.search(f"/{drawing.id}")), None)


def evenly(items: list[Drawing], count: int) -> list[Drawing]:
    """`count` of the items at even distances, first and last included."""
    if len(items) <= count:
        return items
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def _star_numbers(drawing: Drawing) -> tuple[int, ...]:
    """(points, step) of a geometric star's file name, () for another drawing."""
    found = re.fullmatch(r"star_(\d+)pt(\d+)step", drawing.stem)
    return tuple(map(int, found.groups())) if found else ()


def _cap_stars(pairs: list[Pair], counts: Counter[str]) -> list[Pair]:
    stars = sorted((d for d, _ in pairs if _star_numbers(d)), key=_star_numbers)
    plain = []
    for star in stars:
        points, step = _star_numbers(star)
        if points <= _MOST_POINTS and step >= _LEAST_STEP * points:
            plain.append(star)
    kept = {star.id for star in evenly(plain, STARS)}
    left = [(d, name) for d, name in pairs if not _star_numbers(d) or d.id in kept]
    counts["geometric stars beyond the cap"] += len(pairs) - len(left)
    return left


def choose(drawings: Iterable[Drawing], root: Path, counts: Counter[str]) -> list[Pair]:
    """(drawing, category) of every drawing to render, by id; `counts` gains one entry a rule."""
    chosen: dict[str, Pair] = {}
    for drawing in drawings:
        name = family_of(drawing)
        reason = "outside the chosen families" if name is None else refusal(drawing)
        if reason or name is None:
            counts[reason or ""] += 1
            continue
        digest = hashlib.sha256(drawing.path(root).read_bytes()).hexdigest()
        if digest in chosen:
            counts["same file in two folders"] += 1
            if rank(chosen[digest][1]) <= rank(name):
                continue
        chosen[digest] = (drawing, name)
    return _cap_stars(sorted(chosen.values(), key=lambda pair: pair[0].id), counts)


def thumbprint(image: Image.Image) -> np.ndarray:
    """A miniature that near-identical drawings share: 24 × 24 × 3 levels, flat int16 [1728]."""
    return np.asarray(image.resize((24, 24), Image.Resampling.BOX)).astype(np.int16).ravel()


def twins(prints: np.ndarray, tolerance: int = 14) -> list[int]:
    """Rows of `prints` [n, d] that differ from an earlier kept row by at most `tolerance` levels
    in every cell."""
    kept: list[int] = []
    found: list[int] = []
    for row in range(len(prints)):
        near = bool(kept) and bool((np.abs(prints[kept] - prints[row]).max(1) <= tolerance).any())
        (found if near else kept).append(row)
    return found


def split_of(ids: list[str], fraction: float = HELD_OUT) -> set[str]:
    """The held-out ids of one category: the `fraction` with the smallest hashes, one at least."""
    order = sorted(ids, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    return set(order[: max(1, round(fraction * len(ids)))])
